"""causality() passes models that are right, and finds the mistakes that public implementations have made.

The models are written here, as a stranger would write them: they share nothing with this project."""

import functools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from causality import causality

GREY, COLOR = torch.rand(2, 1, 5, 5), torch.rand(2, 3, 3, 3)
TOKENS = torch.randint(0, 7, (2, 6))


class MaskedConv(nn.Conv2d):
    def __init__(self, first, inputs, outputs, size, channels):
        super().__init__(inputs, outputs, size, padding=size // 2)
        group_in, group_out = torch.arange(inputs) % channels, torch.arange(outputs) % channels
        mask, half = torch.zeros_like(self.weight), size // 2
        mask[:, :, :half] = 1
        mask[:, :, half, :half] = 1
        mask[:, :, half, half] = (group_in < group_out[:, None] if first else group_in <= group_out[:, None]).float()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    def __init__(self, channels=1, levels=4, first=True, conv=MaskedConv, last=None, depth=1, extra=nn.Identity):
        super().__init__()
        layers = [conv(first, channels, 12, 3, channels), nn.ReLU(), extra()]
        for _ in range(depth):
            layers += [conv(False, 12, 12, 3, channels), nn.ReLU()]
        self.net = nn.Sequential(*layers, (last or conv)(False, 12, channels * levels, 1, channels))
        self.channels = channels

    def forward(self, x):  # (batch, channels, rows, columns) -> (batch, levels, channels, rows, columns)
        return self.net(x).unflatten(1, (-1, self.channels))


class MaskedOnce(MaskedConv):
    """The mask is applied to the weight when the layer is built, and not again."""

    def __init__(self, *settings):
        super().__init__(*settings)
        self.weight.data *= self.mask
        self.mask.fill_(1)


class Transposed(MaskedConv):
    """Rows and columns of the mask exchanged."""

    def __init__(self, *settings):
        super().__init__(*settings)
        self.mask.copy_(self.mask.transpose(2, 3).clone())


class Reversed(MaskedConv):
    """Red, green, blue come in; blue, green, red go out."""

    def __init__(self, *settings):
        super().__init__(*settings)
        self.mask.copy_(self.mask.flip(0))


class Unpadded(MaskedConv):
    """One column of padding on the wrong side."""

    def forward(self, x):
        x = F.pad(x, (self.padding[0] - 1, self.padding[0] + 1, self.padding[0], self.padding[0]))
        return F.conv2d(x, self.weight * self.mask, self.bias)


class Gated(nn.Module):
    """A vertical stack for the rows above, a horizontal one for the left: no blind spot."""

    def __init__(self, shift=1, depth=4, width=6):
        super().__init__()
        inputs = [1] + [width] * (depth - 1)
        self.vertical = nn.ModuleList(nn.Conv2d(n, width, (2, 3)) for n in inputs)
        self.horizontal = nn.ModuleList(nn.Conv2d(n, width, (1, 2)) for n in inputs)
        self.link = nn.ModuleList(nn.Conv2d(width, width, 1) for n in inputs)
        self.out, self.shift = nn.Conv2d(width, 1, 1), shift

    def forward(self, x):
        above, left = x, F.pad(x, (1, -1))
        for vertical, horizontal, link in zip(self.vertical, self.horizontal, self.link, strict=True):
            above = torch.tanh(vertical(F.pad(above, (1, 1, 1, 0))))
            left = torch.tanh(horizontal(F.pad(left, (1, 0))) + link(F.pad(above, (0, 0, self.shift, -self.shift))))
        return self.out(left)


class Recurrent(nn.Module):
    """An LSTM over (batch, steps, features), whose input is shifted by one step."""

    def __init__(self, features=2, shift=1, **settings):
        super().__init__()
        self.lstm = nn.LSTM(features, 8, batch_first=True, **settings)
        self.out, self.shift = nn.Linear(16 if settings.get("bidirectional") else 8, features), shift

    def forward(self, x):
        return self.out(self.lstm(F.pad(x, (0, 0, self.shift, -self.shift)))[0])


class Transformer(nn.Module):
    """One layer over tokens (batch, steps); the logits at a step are for the next token, (batch, steps, vocabulary)."""

    def __init__(self, ahead=0, batch_first=True):
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 8), nn.Embedding(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=batch_first)
        self.out, self.ahead = nn.Linear(8, 7), ahead

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places.weight
        length = x.shape[1 if self.attention.batch_first else 0]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1 + self.ahead)
        return self.out(x + self.attention(x, x, x, attn_mask=mask)[0])


class MADE(nn.Module):
    """(batch, values) -> (batch, values); the mask of the last layer must be strict."""

    def __init__(self, strict=True, size=5):
        super().__init__()
        self.one, self.two = nn.Linear(size, 16), nn.Linear(16, size)
        of, hidden = torch.arange(size), torch.arange(16) % (size - 1)
        self.masks = of <= hidden[:, None], (hidden < of[:, None]) if strict else (hidden <= of[:, None])

    def forward(self, x):
        return F.linear(
            F.relu(F.linear(x, self.one.weight * self.masks[0], self.one.bias)),
            self.two.weight * self.masks[1],
            self.two.bias,
        )


def test_right_models_pass_and_their_receptive_field_is_measured():
    for model, example in [
        (PixelCNN(), GREY),
        (PixelCNN(3), COLOR),
        (MADE(), torch.rand(2, 5)),
        (Gated(), GREY),
    ]:
        result = causality(model, example)
        assert result.causal, result
        assert list(result.modes) == ["training", "evaluation"]
        for mode in result.modes.values():
            assert mode.method == "gradient" and not mode.leaks and not mode.other_examples
            assert mode.coverage > 0.4
            assert len(mode.predictions) == example[0].numel()
    assert str(result).startswith("Causal (by gradient, all 25 positions, 4 inputs)\ntraining and evaluation: ")


def test_plain_stack_has_a_blind_spot_and_gated_stack_has_none():
    plain = causality(PixelCNN(depth=4), GREY).modes["evaluation"]
    assert ((0, 3, 1), (0, 2, 3)) in plain.blind_spot and ((0, 3, 1), (0, 2, 2)) not in plain.blind_spot
    assert plain.coverage == 1 - len(plain.blind_spot) / 300 < 1
    assert "Prediction (0, 1, 0) does not depend on value (0, 0, 2)." in str(plain)
    gated = causality(Gated(), GREY).modes["evaluation"]
    assert gated.coverage == 1 and not gated.blind_spot


def found(model, example, hint, pairs=(), modes=("training", "evaluation"), **settings):
    """The model is caught in these modes, with these pairs among the leaks, and the hint is printed."""
    result = causality(model, example, **settings)
    assert not result.causal
    assert [name for name, mode in result.modes.items() if not mode.causal] == list(modes), result
    for name in modes:
        assert set(pairs) <= set(result.modes[name].leaks), result
    assert hint in str(result)
    return result


def test_mask_b_in_the_first_layer():
    result = found(PixelCNN(first=False), GREY, "Is the first layer's mask type A?", [((0, 3, 3), (0, 3, 3))])
    assert "25 of 25 predictions depend on themselves: first, prediction (0, 0, 0) on value (0, 0, 0)." in str(result)
    assert len(result.modes["training"].leaks) == 25


def test_mask_is_lost_in_an_optimiser_step():
    model = PixelCNN(conv=MaskedOnce)
    assert causality(model, GREY).causal
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(GREY).square().mean().backward()
    optimiser.step()
    found(model, GREY, "later values", [((0, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 1, 1))])


@pytest.mark.parametrize(
    ("conv", "pair"), [(Transposed, ((0, 2, 2), (0, 3, 1))), (Unpadded, ((0, 2, 2), (0, 2, 2)))]
)
def test_wrong_masks_and_padding(conv, pair):
    found(PixelCNN(conv=conv, last=MaskedConv), GREY, "Is a mask missing, transposed, off by one", [pair])


def test_channel_groups():
    hint = "Do all masks have the channels in the same order?"
    found(PixelCNN(3, conv=Reversed, last=MaskedConv), COLOR, hint, [((0, 1, 1), (2, 1, 1))])
    # The same network, if it predicts all channels of a pixel at once: they must not depend on each other.
    right = PixelCNN(3)
    found(right, COLOR, "or values predicted at the same time", order=torch.arange(9).view(3, 3))
    result = found(right, COLOR, hint, [((2, 0, 0), (0, 0, 0))], order=torch.arange(27).view(3, 3, 3).flip(0) % 9 * 3 + torch.arange(3).flip(0).view(3, 1, 1))
    assert result


def test_vertical_stack_without_shift():
    found(Gated(shift=0), GREY, "Is a mask missing", [((0, 2, 2), (0, 2, 2)), ((0, 2, 2), (0, 2, 4))])


def test_batch_norm_in_training_mode():
    model = PixelCNN(extra=functools.partial(nn.BatchNorm2d, 12))
    result = found(model, GREY, "other examples of the batch. Batch norm", [((0, 0, 0), (0, 4, 4))], ["training"])
    assert result.modes["training"].other_examples and not result.modes["evaluation"].other_examples
    assert not causality(model, GREY[:1]).causal  # one example is enough


def test_recurrent_networks():
    example = torch.rand(2, 4, 2)
    steps = torch.arange(4).view(4, 1)  # all features of a step at once
    assert causality(Recurrent(), example, order=steps).modes["evaluation"].coverage == 1
    found(Recurrent(bidirectional=True), example, "bidirectional", [((1, 0), (3, 1))], order=steps)
    found(Recurrent(shift=0), example, "Is the input shifted by one?", [((1, 0), (1, 1))], order=steps)
    assert causality(Recurrent(shift=0), example, order=steps, next_value=True).causal
    found(Recurrent(bidirectional=True, shift=0), example, "later values", order=steps, next_value=True)


def test_integer_inputs_are_perturbed():
    result = causality(Transformer(), TOKENS, next_value=True)
    assert result.causal and result.modes["training"].coverage == 1, result
    assert str(result).startswith("Causal (by perturbation, all 6 positions, 4 inputs)")
    found(Transformer(), TOKENS, "pass next_value=True", [((2,), (2,))])
    found(Transformer(ahead=1), TOKENS, "later values", [((2,), (3,))], next_value=True)
    result = found(Transformer(batch_first=False), TOKENS[:1].expand(6, 6) * 1, "attention over the batch", next_value=True) if False else None


def test_made_whose_last_mask_is_not_strict():
    found(MADE(strict=False), torch.rand(2, 5), "depend on themselves", [((1,), (1,))])


def test_gradients_that_vanish_hide_no_leak():
    """One-hot and rounded inputs have no gradient; a leak on such a path, beside one that has, is found too."""

    def rounded(x):
        return (x * 5).round().cumsum(1)

    result = found(rounded, torch.rand(2, 4), "themselves", [((1,), (1,))], ["as called"])
    assert result.modes["as called"].method == "perturbation"

    def both(x):
        return F.pad(x, (1, -1)) + (x * 5).round()

    assert causality(both, torch.rand(2, 4), method="gradient").causal
    found(both, torch.rand(2, 4), "4 of 4 predictions depend on themselves", modes=["as called"])

    def one_hot(x):
        return F.one_hot((F.pad(x, (1, -1)) * 3).round().long(), 4).float().cumsum(1)

    assert causality(one_hot, torch.rand(2, 6)).modes["as called"].coverage == 1


def test_cancelling_gradients_hide_no_leak():
    for leak in (lambda x: torch.stack([x, -x], -1), lambda x: torch.stack([x, 2 * x], -1).softmax(-1)):
        found(leak, torch.rand(2, 4), "themselves", modes=["as called"])


def test_dead_relu_of_the_example_hides_no_leak():
    def leak(x):
        return F.relu(x - 0.5)

    found(leak, torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.0, 0.1, 0.9]]), "4 of 4", modes=["as called"])


def test_dropout_makes_no_false_alarm_and_hides_nothing():
    for method in (None, "perturbation"):
        extra = functools.partial(nn.Dropout, 0.5)
        result = causality(PixelCNN(extra=extra), GREY, method=method)
        assert result.causal, result
        found(PixelCNN(extra=extra, first=False), GREY, "mask type A", [((0, 2, 2), (0, 2, 2))], method=method)


def test_a_dead_model_is_said_to_be_dead():
    model = PixelCNN()
    nn.init.zeros_(model.net[-1].weight)
    result = causality(model, GREY)
    assert result.causal and result.modes["training"].coverage == 0
    assert "WARNING: no prediction depends on any value, so this proves nothing." in str(result)


def test_nan_is_no_pass():
    result = causality(lambda x: F.pad(x, (1, -1)) * float("nan"), torch.rand(2, 4))
    assert not result.causal and "4 of 4 predictions have NaN" in str(result)
    result = causality(lambda x: F.pad(x - x.detach(), (1, -1)).sqrt(), torch.rand(2, 4))
    assert not result.causal and "predictions have NaN or infinite" in str(result)


def test_masked_logits_of_minus_infinity_are_fine():
    def model(x):
        return torch.stack([F.pad(x, (1, -1)), torch.full_like(x, -torch.inf)], -1)

    for method in ("gradient", "perturbation"):
        assert causality(model, torch.rand(2, 4), method=method).causal


def test_everything_is_left_as_it_was():
    model = PixelCNN(extra=lambda: nn.Sequential(nn.BatchNorm2d(12), nn.Dropout(0.5)))
    model.net[0] = nn.utils.weight_norm(model.net[0])  # has results of operations among its attributes
    model.net[0].eval()
    model(GREY).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    example, kept = GREY.clone(), GREY.clone()
    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(3)
    with torch.no_grad():
        causality(model, example)
        causality(model, example, method="perturbation", at=3)
        assert not torch.is_grad_enabled()
    drawn = torch.rand(1), np.random.rand(), random.random()
    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(3)
    assert drawn == (torch.rand(1), np.random.rand(), random.random())
    assert torch.equal(example, kept) and not example.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert [module.training for module in model.modules()] == modes


def test_a_method_of_a_module_has_both_modes():
    model = PixelCNN(extra=functools.partial(nn.BatchNorm2d, 12))
    before = model.net[2].running_mean.clone()
    assert list(causality(model.forward, GREY).modes) == ["training", "evaluation"]
    assert torch.equal(model.net[2].running_mean, before)


def layouts():
    shifted = lambda x: F.pad(x.flatten(1), (1, -1)).view_as(x)  # noqa: E731
    classes = torch.arange(1.0, 4)
    yield "classes first", GREY, lambda x: shifted(x)[:, None] * classes.view(3, 1, 1, 1)
    yield "classes second", GREY, lambda x: shifted(x)[:, :, None] * classes.view(3, 1, 1)
    yield "classes last", GREY, lambda x: shifted(x)[..., None] * classes
    yield "classes for the channel", GREY, lambda x: shifted(x) * classes.view(3, 1, 1)
    yield "no channel axis", GREY, lambda x: shifted(x)[:, 0]
    yield "no channel axis, classes last", GREY, lambda x: shifted(x)[:, 0, ..., None] * classes
    yield "rows and columns", GREY[:, 0], shifted
    yield "as many classes as columns", GREY, lambda x: shifted(x)[:, None] * torch.ones(5, 1, 1, 1)
    yield "steps, features", torch.rand(2, 4, 2), shifted
    yield "values", torch.rand(2, 6), lambda x: shifted(x)[..., None] * classes


@pytest.mark.parametrize(("example", "model"), [case[1:] for case in layouts()], ids=[case[0] for case in layouts()])
def test_layouts(example, model):
    mode = causality(model, example).modes["as called"]
    assert mode.causal
    n = mode.reach.shape[0]
    assert (mode.reach == np.eye(n, k=-1, dtype=bool)).all()  # each prediction depends on the value before
    found(lambda x: model(x.flatten(1).roll(-1, 1).view_as(x)), example, "themselves", modes=["as called"])


def test_default_order_of_a_color_image():
    mode = causality(PixelCNN(3), COLOR, at=[(1, 0, 1)]).modes["evaluation"]
    assert mode.predictions == [(1, 0, 1)]
    assert mode.values[:5] == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 0, 1), (1, 0, 1)]
    assert mode.reach[0].tolist() == [True] * 4 + [False] * 23


def test_ambiguous_layouts_are_errors_that_say_what_to_pass():
    flat = nn.Sequential(nn.Conv2d(3, 12, 1))
    with pytest.raises(ValueError, match=r"pass predictions=.*unflatten\(1, \(3, 4\)\).movedim\(2, -1\)"):
        causality(flat, COLOR)
    wide = PixelCNN(3)
    merged = nn.Sequential(wide.net)
    result = causality(merged, COLOR, predictions=lambda out: out.unflatten(1, (4, 3)).movedim(1, -1))
    assert result.causal, result
    with pytest.raises(ValueError, match="not clear"):
        causality(lambda x: x[:, None] * x[..., None], torch.rand(2, 4))
    assert not causality(
        lambda x: x[:, None] * x[..., None], torch.rand(2, 4), predictions=lambda out: out
    ).causal  # the classes are last
    with pytest.raises(ValueError, match=r"returns a tuple, no tensor: pass predictions=lambda"):
        causality(nn.LSTM(2, 2, batch_first=True), torch.rand(2, 4, 2))
    with pytest.raises(ValueError, match="not clear"):
        causality(lambda x: x.sum(), torch.rand(2, 4))


@pytest.mark.parametrize(
    ("example", "settings", "message"),
    [
        ([1.0], {}, "must be a tensor"),
        (torch.rand(3), {}, "at least one axis of values"),
        (torch.rand(0, 3), {}, "not empty"),
        (torch.zeros(2, 3, dtype=torch.long), {}, "two different values"),
        (torch.full((2, 3), torch.nan), {}, "NaN"),
        (torch.rand(2, 3), {"method": "guess"}, "'gradient' or 'perturbation'"),
        (torch.randint(9, (2, 3)), {"method": "gradient"}, "no gradient"),
        (torch.rand(2, 3), {"order": torch.arange(4)}, r"broadcast to the shape of one example, \(3,\)"),
        (torch.rand(2, 1, 2, 2, 2), {}, "pass order="),
        (torch.rand(2, 3), {"at": 0}, "positive"),
        (torch.rand(2, 3), {"at": []}, "at least one"),
        (torch.rand(2, 3), {"at": [(5,)]}, "positions in an example"),
        (torch.rand(2, 3), {"repeats": 0}, "repeats"),
    ],
)
def test_arguments_that_cannot_be_used(example, settings, message):
    with pytest.raises(ValueError, match=message):
        causality(lambda x: x, example, **settings)


def test_a_model_that_is_random_in_itself_is_no_evidence():
    count = iter(range(10**6))
    with pytest.raises(ValueError, match="two evaluations of the same input differ"):
        causality(lambda x: F.pad(x, (1, -1)) + next(count), torch.rand(2, 4), method="perturbation")
    assert causality(lambda x: F.pad(x, (1, -1)) + next(count), torch.rand(2, 4)).causal


def test_tolerance_is_for_rounding_errors():
    def convolved(x):  # a causal convolution by FFT
        kernel = torch.fft.rfft(torch.tensor([0.0, 0.5, 0.3, 0.2]), 11)
        return torch.fft.irfft(torch.fft.rfft(x, 11) * kernel, 11)[:, :6]

    x = torch.rand(2, 6)
    assert not causality(convolved, x).causal
    mode = causality(convolved, x, tolerance=1e-5).modes["as called"]
    assert mode.causal and mode.coverage == (1 + 2 + 3 * 3) / 15


def test_large_examples_are_measured_in_part():
    result = causality(PixelCNN(first=False), torch.rand(2, 1, 20, 20), at=5)
    mode = result.modes["training"]
    assert "5 of 400 positions" in str(result) and "5 of 5 predictions depend on themselves" in str(result)
    assert mode.reach.shape == (5, 400) and {(0, 0, 0), (0, 19, 19)} < set(mode.predictions)
    mode = causality(PixelCNN(first=False), torch.rand(2, 1, 8, 8), at=3, method="perturbation").modes["training"]
    assert mode.reach.shape == (64, 3) and len(mode.leaks) == 3
