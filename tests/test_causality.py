"""causality() passes models that are right and finds the classic mistakes, in models as a stranger would write them."""

import contextlib
import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from causality import causality

torch.manual_seed(0)
X, GREY, COLOR, SERIES = (torch.rand(2, *shape) for shape in ((4,), (1, 4, 4), (3, 2, 3), (4, 2)))
TOKENS = torch.tensor([[0, 1, 2, 3, 4, 6], [6, 5, 5, 1, 0, 2]])


def shifted(x):  # each value in the place of the next one
    return F.pad(x.flatten(1), (1, -1)).view_as(x)


class MaskedConv(nn.Conv2d):
    def __init__(self, first, inputs, outputs, size, channels, change=torch.clone):
        super().__init__(inputs, outputs, size, padding=size // 2)
        group_in, group_out = torch.arange(inputs) % channels, torch.arange(outputs) % channels
        mask, half = torch.zeros_like(self.weight), size // 2
        mask[:, :, :half] = 1
        mask[:, :, half, :half] = 1
        mask[:, :, half, half] = (group_in < group_out[:, None] if first else group_in <= group_out[:, None]).float()
        self.register_buffer("mask", change(mask))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):  # (batch, channels, rows, columns) -> (batch, 4 levels, channels, rows, columns)
    def __init__(self, channels=1, first=True, later=False, residual=False, conv=MaskedConv, extra=nn.Identity):
        super().__init__()
        self.first = nn.Sequential(conv(first, channels, 12, 3, channels), nn.ReLU(), extra())
        self.later = nn.Sequential(conv(later, 12, 12, 3, channels), nn.ReLU())
        self.last = MaskedConv(False, 12, 4 * channels, 1, channels)
        self.channels, self.residual = channels, residual

    def forward(self, x):
        x = self.first(x)
        return self.last(self.later(x) + self.residual * x).unflatten(1, (-1, self.channels))


class Recurrent(nn.Module):  # (batch, steps, features) -> the same, from an input shifted by one step
    def __init__(self, shift=1, **settings):
        super().__init__()
        self.lstm = nn.LSTM(2, 8, batch_first=True, **settings)
        self.out, self.shift = nn.Linear(16 if settings.get("bidirectional") else 8, 2), shift

    def forward(self, x):
        return self.out(self.lstm(F.pad(x, (0, 0, self.shift, -self.shift)))[0])


class Transformer(nn.Module):  # tokens (batch, steps) -> logits for the next token (batch, steps, vocabulary)
    def __init__(self, ahead=0, batch_first=True):
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 8), nn.Embedding(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=batch_first)
        self.out, self.ahead = nn.Linear(8, 7), ahead

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places.weight
        length = x.shape[1 if self.attention.batch_first else 0]  # wrong without batch_first: attends to examples
        mask = torch.ones(length, length, dtype=torch.bool).triu(1 + self.ahead)
        return self.out(x + self.attention(x, x, x, attn_mask=mask)[0])


BATCH_NORM, DROPOUT = partial(nn.BatchNorm2d, 12), partial(nn.Dropout, 0.5)
STEPS = {"order": torch.arange(4).view(4, 1)}  # all features of a step at once
UPWARD, WHOLE_PIXELS = {"order": -torch.arange(16).view(4, 4)}, {"order": torch.arange(6).view(2, 3)}
ROTATED = partial(MaskedConv, change=lambda mask: mask.flip(2, 3))
TRANSPOSED = partial(MaskedConv, change=lambda mask: mask.transpose(2, 3))
BGR_OUT, UNMASKED = partial(MaskedConv, change=lambda mask: mask.flip(0)), partial(MaskedConv, change=torch.ones_like)
NEXT, CHANNELS = {"next_value": True}, "Only channels of the same pixel"
RIGHT = {
    "PixelCNN": (PixelCNN, GREY, {}),
    "PixelCNN in colour": (partial(PixelCNN, 3), COLOR, {}),
    "masks A and B swapped": (partial(PixelCNN, first=False, later=True), GREY, {}),  # sees less, but is causal
    "dropout": (partial(PixelCNN, extra=DROPOUT), GREY, {}),
    "last pixel first": (partial(PixelCNN, conv=ROTATED), GREY, UPWARD),
    "LSTM": (Recurrent, SERIES, STEPS),
    "LSTM for the next step": (partial(Recurrent, 0), SERIES, STEPS | NEXT),
    "transformer": (Transformer, TOKENS, NEXT),
    "-inf for a masked class": (lambda: lambda x: torch.stack([shifted(x), x * 0 - torch.inf], -1), GREY, {}),
    "bfloat16": (lambda: shifted, GREY.bfloat16(), {}),
    "booleans": (lambda: lambda x: shifted(x.float()), GREY > 0.5, {}),
    "writes into its input": (lambda: lambda x: x.copy_(shifted(x)), GREY, {}),
}
MASK_B = partial(PixelCNN, first=False)
WRONG = {  # name: model, example, settings, (prediction, value) among the leaks, a part of the report
    "mask B first": (MASK_B, GREY, {}, ((0, 3, 3), (0, 3, 3)), "of type A"),
    "masks swapped, residual": (partial(MASK_B, later=True, residual=True), GREY, {}, ((0, 1, 1),) * 2, "of type A"),
    "mask B and dropout": (partial(MASK_B, extra=DROPOUT), GREY, {}, ((0, 3, 3), (0, 3, 3)), "of type A"),
    "no mask at initialisation": (partial(PixelCNN, conv=UNMASKED), GREY, {}, ((0, 0, 0), (0, 1, 1)), "mask missing"),
    "transposed": (partial(PixelCNN, conv=TRANSPOSED), GREY, {}, ((0, 2, 2), (0, 3, 1)), "turned"),
    "upside down": (partial(PixelCNN, conv=ROTATED), GREY, {}, ((0, 0, 0), (0, 0, 1)), "Order right?"),
    "channels reversed": (partial(PixelCNN, 3, conv=BGR_OUT), COLOR, {}, ((0, 1, 1), (1, 1, 1)), CHANNELS),
    "channels for pixels": (partial(PixelCNN, 3), COLOR, WHOLE_PIXELS, ((2, 0, 0), (0, 0, 0)), CHANNELS),
    "batch norm": (partial(PixelCNN, extra=BATCH_NORM), GREY, {}, ((0, 2, 2), (0, 3, 2)), "batch norm in training"),
    "batch norm, one image": (partial(PixelCNN, extra=BATCH_NORM), GREY[:1], {}, ((0, 2, 2), (0, 3, 2)), "examples"),
    "no shift": (partial(Recurrent, 0), SERIES, STEPS, ((1, 0), (1, 1)), "not shifted?"),
    "bidirectional": (partial(Recurrent, bidirectional=True), SERIES, STEPS, ((1, 0), (2, 1)), "bidirectional"),
    "next value not said": (Transformer, TOKENS, {}, ((2,), (2,)), "shifted by one?"),
    "mask off by one": (partial(Transformer, 1), TOKENS, NEXT, ((2,), (3,)), "Is a mask missing"),
    "attention over the batch": (partial(Transformer, 0, False), TOKENS, NEXT, None, "attention over the batch?"),
    "no gradient": (lambda: lambda x: shifted(x) + (5 * x).round(), GREY, {}, ((0, 1, 1), (0, 1, 1)), "shifted"),
    "shut gate": (lambda: lambda x: x * (x.roll(1, 1) > 0.25), torch.tensor([[0.1, 0.1, 0.9]]), {}, ((1,), (1,)), ""),
    "tiny": (lambda: lambda x: torch.stack([1 + 1e-9 * x, 1 - 1e-9 * x], -1), X, {}, ((1,), (1,)), "shifted"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_models_pass(name):
    model, example, settings = RIGHT[name]
    result = causality(model(), example, **settings)
    assert result.causal, result
    assert str(result).startswith("Causal: measured at ") and "no predictions depend on their own value" in str(result)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_models_are_caught(name):
    model, example, settings, pair, text = WRONG[name]
    result = causality(model(), example, **settings)
    modes = ["training"] if "batch norm" in name else list(result.leaks)
    assert [mode for mode in result.leaks if result.leaks[mode] or result.mixed[mode]] == modes, result
    assert all(pair in result.leaks[mode] if pair else not result.leaks[mode] for mode in modes), result
    assert not result.causal and text in str(result) and str(result).startswith("NOT causal: "), result


def test_mask_is_lost_in_an_optimiser_step():
    model = PixelCNN()
    for conv in (model.first[0], model.later[0]):  # the mask is applied here, and not again
        conv.weight.data *= conv.mask
        conv.mask.fill_(1)
    assert causality(model, GREY).causal
    model(GREY).square().mean().backward()
    for parameter in model.parameters():
        parameter.data -= 0.1 * parameter.grad
    assert ((0, 0, 0), (0, 1, 1)) in causality(model, GREY).leaks["evaluation"]


def test_exactly_the_leaks_are_listed_in_order():
    assert causality(lambda x: x.flip(1), X).leaks == {"current": [((0,), (3,)), ((1,), (2,))]}
    assert "    (0,) on (0,), (1,), (2,) and 6 more\n" in str(
        causality(lambda x: x.cumsum(1).flip(1), torch.rand(2, 9))
    )


def test_large_images_are_measured_at_some_positions():
    result = causality(PixelCNN(first=False), torch.rand(2, 1, 20, 20), at=5)
    assert "measured at 5 of 400 positions" in str(result) and len(result.leaks["training"]) == 5
    assert {((0, 0, 0),) * 2, ((0, 19, 19),) * 2} < set(result.leaks["training"])


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_model_and_random_numbers_are_left_alone():
    model = PixelCNN(extra=lambda: nn.Sequential(BATCH_NORM(), DROPOUT()))
    nn.utils.weight_norm(model.last)  # has results of operations among its attributes
    nn.utils.parametrizations.spectral_norm(model.later[0])  # changes its buffers at every call
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, example, state = [part.training for part in model.modules()], GREY.clone(), torch.get_rng_state()
    with torch.no_grad():
        assert len(causality(model.forward, GREY).leaks) == 2  # a method has its module's modes
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(GREY, example)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes and model.last.weight_g.grad is None


LAYOUTS = {  # where the classes are
    "first": lambda x: x[:, None].repeat(1, 3, 1, 1, 1),
    "second": lambda x: x[:, :, None].repeat(1, 1, 3, 1, 1),
    "last": lambda x: x[..., None].repeat(1, 1, 1, 1, 3),
    "for the channel": lambda x: x.repeat(1, 3, 1, 1),
    "last, no channel": lambda x: x[:, 0, ..., None].repeat(1, 1, 1, 3),
    "nowhere, no channel": lambda x: x[:, 0],
    "as many as columns": lambda x: x[:, None].repeat(1, 4, 1, 1, 1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    assert causality(lambda x: LAYOUTS[name](shifted(x)), GREY).causal
    assert causality(LAYOUTS[name], GREY).leaks["current"] == [((0, *place),) * 2 for place in np.ndindex(4, 4)]


def test_predictions_says_where_the_classes_are():
    merged = nn.Sequential(PixelCNN(3), nn.Flatten(1, 2))
    with pytest.raises(ValueError, match=r"which axis holds classes\? Pass .*unflatten\(1, \(-1, 3\)\)\.movedim"):
        causality(merged, COLOR)
    assert causality(merged, COLOR, predictions=lambda out: out.unflatten(1, (-1, 3)).movedim(1, -1)).causal
    assert causality(nn.LSTM(2, 2, batch_first=True), SERIES, **STEPS, **NEXT, predictions=lambda out: out[0]).causal
    assert causality(shifted, X, predictions=lambda out: out[:, :, None] * torch.ones(4)).causal


def test_tolerance_is_for_rounding_errors():
    def convolved(x):  # a causal convolution by FFT
        kernel = torch.fft.rfft(torch.tensor([0.0, 0.5, 0.3, 0.2]), 11)
        return torch.fft.irfft(torch.fft.rfft(x, 11) * kernel, 11)[:, :6]

    assert not causality(convolved, torch.rand(2, 6)).causal
    assert causality(convolved, torch.rand(2, 6), tolerance=1e-5).causal
    assert not causality(torch.sin, torch.rand(2, 6), tolerance=1e-5).causal


BAD = {
    "example must be a tensor": (shifted, [1.0], {}),
    "of numbers without NaN": (shifted, X * torch.nan, {}),
    "two different values": (shifted, torch.zeros(2, 4, dtype=torch.long), {}),
    r"numbers that broadcast to the shape of one example, \(4,\)": (shifted, X, {"order": torch.arange(3)}),
    "order must hold two different": (shifted, X, {"order": 0}),
    "and no NaN": (shifted, X, {"order": [0, 1, 2, torch.nan]}),
    "pass order=": (shifted, torch.rand(2, 1, 2, 2, 2), {}),
    "at must be a whole number of at least 2": (shifted, X, {"at": 1}),
    "tolerance must be a number": (shifted, X, {"tolerance": -1}),
    "tolerance must be a number of at least 0, not 'x'": (shifted, X, {"tolerance": "x"}),
    "tolerance must be a number of at least 0, not True": (shifted, X, {"tolerance": True}),
    "tuple.* has no gradient: .*predictions=": (nn.LSTM(2, 2), SERIES, {}),
    "torch.int64 has no gradient: take logits": (lambda x: shifted(x).round().long(), X, {}),
    "which axis holds classes": (lambda x: x.sum(), X, {}),
    "which axis holds": (lambda x: x[:, :, None] * torch.ones(4), X, {}),
    "Predictions are NaN": (lambda x: shifted(x) * torch.nan, X, {}),
    "Gradients are NaN": (lambda x: shifted(x - x.detach()).sqrt() + shifted(x), X, {}),
    "Two predictions for one input differ": (lambda x: shifted(x) + np.random.rand(), X, {}),
    "No prediction depends on any value": (lambda x: 0 * x, X, {}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_measured_says_what_to_do(message):
    model, example, settings = BAD[message]
    with pytest.raises(ValueError, match=message):
        causality(model, example, **settings)


ROOT = Path(__file__).parent.parent


def test_the_lines_in_the_readme_find_a_leak_and_pass_where_there_is_none():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(code, {"model": shifted, "example": X})
    with pytest.raises(AssertionError, match="NOT causal"):
        exec(code, {"model": torch.sin, "example": X})


def test_the_example_on_its_page_prints_what_it_says():
    page = (ROOT / "labnotes" / "causality.md").read_text(encoding="utf-8")
    code, printed = re.match(r".*?```python\n(.*?)```.*?```\n(.*?)```", page, re.S).groups()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, {})
    assert output.getvalue() == printed
