"""causality() passes models that are right and finds the classic mistakes, in models as a stranger would write them."""

import contextlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import causality as module
from causality import assert_cached, assert_causal, causality

torch.manual_seed(0)
X, GREY, COLOR, SERIES = (torch.rand(2, *shape) for shape in ((4,), (1, 4, 4), (3, 2, 3), (4, 2)))
BITS = (torch.rand(4, 1, 4, 4) > 0.5).float()
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
NEXT, CHANNELS = {"next_value": True}, "Only channels of the same pixel leak: are they in the same order in all masks?"


class Residual(nn.Module):  # a causal model and, times a factor, one that leaks
    def __init__(self, bad, factor=0.0):
        super().__init__()
        self.good, self.bad, self.factor = PixelCNN(), bad, nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.good(x) + self.factor * self.bad(x)[:, None]


class Mixture(nn.Module):  # 10 parameters of a mixture for a whole pixel
    def __init__(self, first=True):
        super().__init__()
        self.layers = nn.Sequential(MaskedConv(first, 3, 8, 3, 1), nn.ReLU(), nn.Conv2d(8, 10, 1))

    def forward(self, x):
        return self.layers(x)


class Rows(nn.Module):  # binary pictures as rows of tokens -> logits of the next one
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(2, 3)

    def forward(self, x):
        return self.tokens(x.long()) + self.tokens(x.long()).roll(-2, 1)


class TwoVocabularies(nn.Module):
    def __init__(self):
        super().__init__()
        self.few, self.many = nn.Embedding(3, 4), nn.Embedding(50, 4)
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(self.lstm(self.few(x[..., 0]) + self.many(x[..., 1]))[0])


class ZeroInitialised(nn.Module):
    def __init__(self):
        super().__init__()
        self.good, self.bad = PixelCNN(), nn.Conv2d(1, 4, 3, padding=1)
        nn.init.zeros_(self.bad.weight)

    def forward(self, x):
        return self.good(x) + self.bad(x)[:, :, None]


class Sigmoids(nn.Module):  # underflows in float32
    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(*(part for _ in range(80) for part in (nn.Linear(1, 1), nn.Sigmoid())))

    def forward(self, x):
        return shifted(x) + self.deep(x[..., None])[..., 0]


class Deep(nn.Module):  # levels (batch, rows, columns): 15 masked layers after a first of type B
    def __init__(self, first=False):
        super().__init__()
        self.levels = nn.Embedding(16, 32)
        layers = [MaskedConv(first, 32, 32, 7, 1)]
        for _ in range(15):
            layers += [nn.ReLU(), MaskedConv(False, 32, 32, 3, 1)]
        self.layers, self.out = nn.Sequential(*layers), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        return self.out(self.layers(self.levels(x).movedim(-1, 1)))


LEVELS = torch.randint(16, (4, 5, 5))


class Reordered(nn.Module):  # a PixelCNN in colour, its outputs merged colour by colour or class by class
    def __init__(self, by_color, conv=MaskedConv):
        super().__init__()
        self.model, self.by_color = PixelCNN(3, conv=conv), by_color

    def forward(self, x):
        out = self.model(x)
        return (out.transpose(1, 2) if self.by_color else out).flatten(1, 2)


TWO = torch.stack([torch.randint(3, (4, 6)), torch.randint(3, 50, (4, 6))], -1)
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
    "colours merged with classes": (partial(Reordered, True), COLOR, {}),
    "classes merged with colours": (partial(Reordered, False), COLOR, {}),
    "mixture": (Mixture, COLOR, {}),
    "two vocabularies": (TwoVocabularies, TWO, NEXT | {"order": torch.arange(6).view(6, 1)}),
    "MADE, flat, of a picture": (lambda: lambda x: shifted(x).flatten(1)[..., None].repeat(1, 1, 3), GREY, {}),
    "as many classes as steps": (lambda: lambda x: shifted(x)[..., None] * torch.ones(4), X, {}),
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
    "channels for pixels": (partial(PixelCNN, 3), COLOR, WHOLE_PIXELS, ((2, 0, 0), (0, 0, 0)), "predicts them in turn"),
    "batch norm": (partial(PixelCNN, extra=BATCH_NORM), GREY, {}, ((0, 2, 2), (0, 3, 2)), "batch norm in training"),
    "batch norm, one image": (partial(PixelCNN, extra=BATCH_NORM), GREY[:1], {}, ((0, 2, 2), (0, 3, 2)), "examples"),
    "no shift": (partial(Recurrent, 0), SERIES, STEPS, ((1, 0), (1, 1)), "not shifted?"),
    "bidirectional": (partial(Recurrent, bidirectional=True), SERIES, STEPS, ((1, 0), (2, 1)), "bidirectional"),
    "next value not said": (Transformer, TOKENS, {}, ((2,), (2,)), "(next_value=True)?"),
    "the value itself": (lambda: lambda x: F.pad(x[:, 1:], (0, 1)), X, NEXT, ((1,), (2,)), "the very value"),
    "mask off by one": (partial(Transformer, 1), TOKENS, NEXT, ((2,), (3,)), "the very value"),
    "attention over the batch": (partial(Transformer, 0, False), TOKENS, NEXT, None, "attention over the batch?"),
    "no gradient": (lambda: lambda x: shifted(x) + (5 * x).round(), GREY, {}, ((0, 1, 1), (0, 1, 1)), "shifted"),
    "shut gate": (lambda: lambda x: x * (x.roll(1, 1) > 0.25), torch.tensor([[0.1, 0.1, 0.9]]), {}, ((1,), (1,)), ""),
    "branch times zero": (lambda: Residual(nn.Conv2d(1, 1, 3, padding=1)), GREY, {}, ((0, 0, 0), (0, 1, 1)), "(factor"),
    "zero-initialised": (ZeroInitialised, GREY, {}, ((0, 0, 0), (0, 1, 1)), "noise for zero parameters (bad.weight)"),
    "read by long()": (Rows, BITS[:, 0, 0], NEXT, ((0,), (2,)), "Is a mask missing"),
    "underflow": (Sigmoids, X, {}, ((1,), (1,)), "Gradients alone show it"),
    "group norm": (
        partial(PixelCNN, extra=partial(nn.GroupNorm, 2, 12)),
        GREY,
        {},
        ((0, 0, 1), (0, 2, 2)),
        "a norm over",
    ),
    "mixture, mask B first": (
        partial(Mixture, False),
        COLOR,
        {},
        ((0, 0, 0), (1, 0, 0)),
        "parameters of a whole pixel",
    ),
    "merged, reversed": (partial(Reordered, True, BGR_OUT), COLOR, {}, ((0, 1, 1), (1, 1, 1)), "predictions read as"),
    "merged, transposed": (
        partial(Reordered, False, TRANSPOSED),
        COLOR,
        {},
        ((0, 0, 1), (0, 1, 0)),
        "predictions read as",
    ),
    "steps first": (
        lambda: lambda x: F.pad(x.cumsum(0), (0, 0, 0, 0, 1, -1)),
        torch.rand(6, 2, 3),
        {},
        None,
        "steps in the first axis",
    ),
    "rows after this one": (lambda: lambda x: shifted(x) + F.pad(x[1:], (0, 0, 0, 1)), X, {}, None, "other examples"),
    "rows before this one": (lambda: lambda x: shifted(x) + F.pad(x[:-1], (0, 0, 1, 0)), X, {}, None, "other examples"),
    "one class of two": (lambda: lambda x: torch.stack([shifted(x.float()), x / 7], -1), TOKENS, {}, ((1,), (1,)), ""),
    "rounding": (lambda: lambda x: shifted(x) + 1e-6 * x, X, {}, ((1,), (1,)), "set tolerance=1e-5"),
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


def test_a_branch_that_stays_at_zero_is_left_there():
    model = Residual(nn.Conv2d(1, 1, 3, padding=1))
    model.factor.requires_grad_(False)
    assert causality(model, GREY).causal


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
    assert causality(merged, COLOR, predictions=lambda out: out.unflatten(1, (-1, 3)).movedim(1, -1)).causal
    colors_first = {"predictions": lambda out: out.unflatten(1, (3, -1)).movedim(2, -1)}
    assert not causality(merged, COLOR, **colors_first).causal  # what is asked for is not tried another way
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
    "two different values": (lambda x: shifted(x.float()), torch.zeros(2, 4, dtype=torch.long), {}),
    "All integers of feature 1": (lambda x: x.float(), torch.stack([TOKENS, 0 * TOKENS], -1), {}),
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
    "the first axis must be the batch": (lambda x: x.sum(), X, {}),
    r"the first axis must be the batch, as in predictions=lambda out: out.transpose\(0, 1\)": (torch.t, X, {}),
    "which axis holds classes": (lambda x: x[:, :3], torch.rand(2, 6), {}),
    r"one more along an axis.* out\[:, :-1\]": (lambda x: F.pad(x, (1, 0)), X, {}),
    r"one less along an axis.* torch.cat": (lambda x: x[:, 1:], X, {}),
    "model must be a module or a function of the batch, not the class Conv2d": (nn.Conv2d, X, {}),
    "not a OrderedDict": (nn.Linear(1, 1).state_dict(), X, {}),
    "modes must be": (shifted, X, {"modes": "test"}),
    "backends need a module": (shifted, X, {"backends": ["math"]}),
    "'cuda graphs' is no backend of this model": (Transformer(), TOKENS, NEXT | {"backends": ["cuda graphs"]}),
    "Predictions are NaN": (lambda x: shifted(x) * torch.nan, X, {}),
    "Two predictions for one input differ": (lambda x: shifted(x) + np.random.rand(), X, {}),
    "No prediction depends on any value": (lambda x: 0 * x, X, {}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_measured_says_what_to_do(message):
    model, example, settings = BAD[message]
    with pytest.raises(ValueError, match=message):
        causality(model, example, **settings)


@pytest.mark.parametrize("name", ["a mean of bits", "the nearest code"])
def test_statistics_that_are_rounded(name):
    codes = torch.tensor([[0.2, 0.2], [0.8, 0.8], [0.2, 0.8]])

    def mean(x):  # of the last 8 of 16 bits, to 1 of 5 levels: one changed bit rarely moves it
        return shifted(x) + (x[:, :, 2:].mean((1, 2, 3), keepdim=True) * 4).round()

    def nearest(x):
        halves = torch.stack([x[:, :, 2].mean((1, 2)), x[:, :, 3].mean((1, 2))], 1)
        return shifted(x) + torch.cdist(halves, codes).argmin(1)[:, None, None, None]

    model = mean if name == "a mean of bits" else nearest
    found = 0
    for seed in range(6):
        example = (torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
        found += not causality(model, example).causal
    assert found == 6


def test_all_later_values_at_once_name_the_value_that_decides():
    def model(x):  # depends on the last value where the one before it is small
        return shifted(x) + (x[:, 2:] < 0.5).all(1, keepdim=True)

    result = causality(model, torch.tensor([[0.9, 0.1, 0.9, 0.9], [0.1, 0.9, 0.9, 0.9]]))
    assert ((0,), (2,)) in result.leaks["current"] or ((0,), (3,)) in result.leaks["current"]


@pytest.mark.parametrize("order", [np.arange(8), np.array([3, 0, 7, 1, 4, 6, 2, 5])])
@pytest.mark.parametrize("decides", range(2, 8))
def test_the_value_that_decides_is_found_by_bisection(order, decides):
    search = module._Search(torch.rand(1, 8), order, False, 64, 0.0, None, False)
    value = int(np.flatnonzero(order == decides)[0])

    class Base:
        def changes(self, masks, row):
            return np.full((1, 8), float(masks[0, value]))

    assert search._culprit(0, Base(), 0, 1) == value


def test_values_come_from_the_same_channel_of_the_example():
    seen = [set(), set()]

    def model(x):
        for channel in (0, 1):
            seen[channel] |= set(x[..., channel].flatten().tolist())
        return shifted(x.float())

    causality(model, torch.tensor([[[3, 10], [5, 30]], [[5, 20], [8, 10]]]))
    assert seen == [{3, 5, 8}, {10, 20, 30}]
    own = torch.tensor([[[0.0, 0.5], [1.0, 0.5]], [[1.0, 0.5], [0.0, 0.5]]])
    seen = [set(), set()]
    causality(model, own)
    assert seen[0] == {0, 1} and seen[1] == {0, 0.5, 1}  # a constant takes the values of other channels
    seen = [set(), set()]
    causality(model, torch.ones(2, 2, 2))
    assert seen[0] == {0.25, 0.5, 0.75, 1}


class Kept(nn.Module):
    """An LSTM that keeps its hidden state, and what a user puts into it."""

    def __init__(self, value=None):
        super().__init__()
        self.lstm, self.state, self.steps, self.value = nn.LSTM(2, 4, batch_first=True), None, [], value
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        x, self.state = self.lstm(F.pad(x, (0, 0, 1, -1)), self.state)
        self.steps.append(x)
        self.calls = self.calls + 1
        seen = hasattr(self, "last")
        self.last = x
        return x[..., :2] + len(self.steps) + self.calls + 10 * seen


def test_models_that_keep_a_state_start_from_it_each_time():
    assert causality(Kept(), SERIES, **STEPS).causal
    model = Kept()
    model(SERIES), model(SERIES)
    state, steps = model.state, list(model.steps)
    assert causality(model, SERIES, **STEPS).causal
    assert model.state is state and all(one is other for one, other in zip(model.steps, steps, strict=True))
    assert model.calls == 2 and len(model.steps) == 2


UNCOPIED = {
    "a lock": threading.Lock(),
    "locks in a dict of lists": {"here": [threading.Lock()]},
    "a generator": (one for one in "ab"),
    "a module": os,
    "a thread-local": threading.local(),
}


@pytest.mark.parametrize("name", UNCOPIED)
def test_what_cannot_be_copied_is_shared(name):
    assert causality(Kept(UNCOPIED[name]), SERIES, **STEPS).causal


def test_deep_networks_of_integers_are_run_in_float64():
    leaking = Deep()  # too little for float32 to show
    assert not causality(leaking, LEVELS, at=8).causal and causality(Deep(True), LEVELS, at=8).causal

    class Fixed(Deep):  # and in float32 where they cannot
        def forward(self, x):
            return self.out(self.layers(self.levels(x).movedim(-1, 1).float()))

    assert causality(Fixed(True), LEVELS, at=8).causal


def test_what_a_module_writes_into_the_result_of_an_operation_stays_with_the_copy():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.kept = [2 * self.weight]

        def forward(self, x):
            with torch.no_grad():
                self.kept[0].add_(1)
            return shifted(x) * self.weight

    model = Counting()
    assert causality(model, X).causal and model.kept[0] == 2


def test_a_method_that_a_module_keeps_becomes_one_of_the_copy():
    class Wrapped(MaskedConv):  # its forward is an attribute, and its weight the result of an operation
        def __init__(self, *settings, **more):
            super().__init__(*settings, **more)
            self.plain = nn.Parameter(self.weight.detach().clone())
            del self.weight
            self.weight, self.forward = 2 * self.plain, super().forward

    model = PixelCNN(conv=Wrapped)
    copied = module._copied(model)
    assert copied.first[0].forward.__self__ is copied.first[0]
    assert causality(model, GREY).causal


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_modules():
    class Scripted(torch.jit.ScriptModule):
        def __init__(self, first):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.register_buffer("mask", torch.tensor([[1.0, 1, 1], [1, 1 - first, 0], [0, 0, 0]]))

        @torch.jit.script_method
        def forward(self, x):
            return torch.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=1)

    assert causality(Scripted(1), GREY).causal and not causality(Scripted(0), GREY).causal


def test_a_module_that_forbids_copies_says_what_to_do():
    class Single(Kept):
        def __deepcopy__(self, memo):
            raise TypeError("only one")

    with pytest.raises(ValueError, match=r"cannot be copied \(only one\): pass a plain function, lambda x: model\(x\)"):
        causality(Single(), SERIES, **STEPS)


@pytest.mark.filterwarnings("ignore")
def test_without_a_gradient_values_alone_are_changed_and_the_report_says_why():
    class Wrapped(nn.Module):
        def __init__(self, call, model):
            super().__init__()
            self.call, self.model = call, model

        def forward(self, x):
            return self.call(self.model, x)

    def reentrant(model, x):
        return checkpoint(model, x, use_reentrant=True)

    def undefined(model, x):
        return model(x) + shifted(x - x.detach()).sqrt()[:, None]

    for call, why in ((reentrant, "its gradient fails: RuntimeError"), (undefined, "gradients are NaN")):
        right = causality(Wrapped(call, PixelCNN()), GREY)
        assert right.causal and f"by changing values ({why}" in str(right)
        assert not causality(Wrapped(call, MASK_B()), GREY).causal
    result = causality(Wrapped(torch.no_grad()(lambda model, x: model(x)), MASK_B()), GREY)
    assert not result.causal and "by changing values (predictions have no gradient)" in str(result)


def test_conditioned_models_are_called_with_the_size_of_the_example():
    labels, model, names = torch.randint(3, (16,)), PixelCNN(), nn.Embedding(3, 1)

    def conditioned(x):
        return (
            model(x) + torch.stack([names(label) for label, _ in zip(labels, x, strict=True)])[:, :, None, None, None]
        )

    assert causality(conditioned, torch.rand(16, 1, 4, 4)).causal
    labels = torch.tensor([1])
    assert "of one example, so that others were not changed" in str(causality(conditioned, GREY[:1]))
    labels = torch.randint(3, (16,))
    with pytest.raises(ValueError, match=r"shorter|longer") as caught:
        causality(conditioned, GREY)
    assert "a batch of shape (2, 1, 4, 4); each call has the size of the example" in caught.value.__notes__[0]


def test_evaluation_mode_alone_for_batch_norm():
    model = PixelCNN(extra=BATCH_NORM)
    with pytest.raises(AssertionError, match=r"^NOT causal in training mode: predictions depend on other examples"):
        assert_causal(model, GREY)
    result = assert_causal(model, GREY, modes=["evaluation"])
    assert list(result.leaks) == ["evaluation"]
    with pytest.raises(AssertionError, match="NOT causal in evaluation mode"):
        assert_causal(PixelCNN(extra=BATCH_NORM, first=False), GREY, modes="evaluation")


LAYERS = {  # the first layer that shows the leak
    "mask B first": "first.0 (MaskedConv)",
    "no shift": "lstm (LSTM)",
    "bidirectional": "lstm (LSTM)",
    "mask off by one": "attention (MultiheadAttention)",
    "branch times zero": "bad (Conv2d)",
    "group norm": "first.2 (GroupNorm)",
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_first_layer_that_leaks_is_named(name):
    model, example, settings = WRONG[name][:3]
    result = causality(model(), example, **settings)
    assert set(result.layers.values()) == {LAYERS[name]}
    assert result.summary.endswith(f"; first seen in {LAYERS[name]}.") and "\n" not in result.summary


def test_a_leak_of_the_second_layer_is_seen_there():
    class Late(MaskedConv):  # right as the first layer, unmasked as a later one
        def __init__(self, first, *sizes):
            super().__init__(first, *sizes, change=torch.clone if first else torch.ones_like)

    result = causality(PixelCNN(conv=Late), GREY)
    assert set(result.layers.values()) == {"later.0 (Late)"}


def test_one_line_names_the_smallest_leak():
    line = causality(lambda x: x + x.roll(-2, 1), torch.rand(2, 6), **NEXT).summary
    assert line.startswith(
        "NOT causal in current mode: the prediction at (0,) depends on the value at (2,), and 3 more "
    )
    assert causality(shifted, X).summary.startswith("Causal: measured at 4 of 4 positions")


@pytest.mark.parametrize(
    ("leaking", "told"), [(1, "at (0,)."), (2, ", and 1 more prediction leaks."), (3, ", and 2 more predictions leak.")]
)
def test_one_more_prediction_leaks_and_two_more_leak(leaking, told):
    result = causality(lambda x: torch.cat([x[:, :leaking], shifted(x)[:, leaking:]], 1), X)
    assert result.summary.endswith(told)


@pytest.mark.parametrize(("leaking", "told"), [(4, "and 1 more prediction"), (5, "and 2 more predictions")])
def test_a_report_counts_what_it_leaves_out(leaking, told):
    result = causality(lambda x: torch.cat([x[:, :leaking], shifted(x)[:, leaking:]], 1), torch.rand(2, 6))
    assert f"    {told}" in str(result).splitlines()


def test_a_report_for_machines():
    result = causality(MASK_B(), GREY)
    told = json.loads(json.dumps(result.report()))
    assert told["causal"] is False and told["summary"] == result.summary and told["mixed"]["training"] is False
    assert told["leaks"]["evaluation"][0] == [[0, 0, 0], [0, 0, 0]] and 0 < told["sizes"]["training"] <= 2


def test_the_matrix_and_its_picture(tmp_path):
    result = causality(lambda x: shifted(x) + F.pad(x, (0, 0, -1, 1)) * 0 + F.pad(x[..., 2:], (0, 2)), X)
    used = result.uses["current"]
    assert np.array_equal(used, np.eye(4, k=-1) + np.eye(4, k=2) > 0)
    assert np.array_equal(result.allowed, np.tri(4, k=-1) > 0)
    assert np.array_equal(causality(shifted, X, **NEXT).allowed, np.tri(4) > 0)
    result.picture(tmp_path / "matrix.png")
    import matplotlib.pyplot as plt

    pixels = (plt.imread(tmp_path / "matrix.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    size = {tuple(map(int, one)): int(count) for one, count in zip(found, counts, strict=True)}
    red, blue, grey = size[214, 39, 40], size[31, 59, 115], size[200, 200, 200]
    assert 1.3 < blue / red < 1.7 and 1.3 < grey / red < 1.7  # 2 leaks, 3 used, 3 not


def test_positions_of_large_images_are_where_shifts_and_masks_go_wrong():
    chosen = set(causality(shifted, torch.rand(2, 1, 12, 12), at=20).positions)
    assert {(0, 0, 0), (0, 11, 11), (0, 0, 1), (0, 0, 11), (0, 1, 0), (0, 6, 0), (0, 5, 11)} < chosen and len(
        chosen
    ) == 20


def test_each_step_is_measured_where_its_values_are_predicted_at_once():
    def one_step_leaks(x):  # 40 steps of 5 values
        out = F.pad(x, (0, 0, 1, -1))
        return out + (torch.arange(40)[:, None] == 23) * x.roll(-1, 1)

    order = torch.arange(40).view(40, 1)
    result = causality(one_step_leaks, torch.rand(2, 40, 5), order=order)
    assert {step for step, _ in result.positions} == set(range(40)) and len(result.positions) == 64
    assert {prediction[0] for prediction, _ in result.leaks["current"]} == {23}


def test_who_watches_sees_lines_that_end(capsys):
    causality(shifted, X, progress=True)
    shown = capsys.readouterr().err
    assert "\rcurrent: batch 3 of 3, 2 of 4 positions" in shown and shown.endswith("\n")
    causality(shifted, X)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("backend", ["math", "efficient", "autocast"])
def test_backends(backend):
    right = causality(Transformer(), TOKENS, **NEXT, backends=[backend])
    assert right.causal and list(right.leaks) == [
        "training", "evaluation", f"training ({backend})", f"evaluation ({backend})",
    ]  # fmt: skip

    class Other(Transformer):  # leaks where this backend is used
        def forward(self, tokens):
            ahead = {
                "math": lambda: not torch.backends.cuda.mem_efficient_sdp_enabled(),
                "efficient": lambda: not torch.backends.cuda.math_sdp_enabled(),
                "autocast": lambda: torch.is_autocast_enabled("cpu"),
            }[backend]()
            self.ahead = int(ahead)
            return super().forward(tokens)

    result = causality(Other(), TOKENS, **NEXT, backends=[backend])
    assert [mode for mode in result.leaks if result.leaks[mode]] == [f"training ({backend})", f"evaluation ({backend})"]


def test_an_implementation_of_attention_is_chosen_by_name():
    class Named(Transformer):
        def set_attn_implementation(self, name):
            self.ahead = {"eager": 0, "broken": 1}[name]

    result = causality(Named(), TOKENS, **NEXT, backends=["eager", "broken"])
    assert {mode for mode in result.leaks if result.leaks[mode]} == {"training (broken)", "evaluation (broken)"}


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]

    def step(self, x, cache):
        return self.lstm(x, cache)


def test_cached_predictions_equal_those_of_the_model():
    model, example = Cached(), torch.rand(3, 5, 2)
    assert_cached(model, model.step, example)
    with pytest.raises(AssertionError, match="From step 2 on, cached predictions differ from the model's, by"):
        assert_cached(model, lambda x, cache: (model.step(x, cache)[0], cache or model.step(x, cache)[1]), example)
    with pytest.raises(AssertionError, match="by inf"):
        assert_cached(model, lambda x, cache: (model.step(x, cache)[0] * torch.nan, cache), example)
    with pytest.raises(AssertionError, match=r"The steps give predictions \(3, 10, 4\), the model \(3, 5, 4\)"):
        assert_cached(model, lambda x, cache: (torch.zeros(3, 2, 4), cache), example)
    assert_cached(lambda x: (model(x), None), model.step, example, predictions=lambda out: out[0])


def test_what_the_check_cannot_find():
    """As its documentation says."""

    # A mask that is finite holds at first, and no longer once training has made the scores large.
    class Finite(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(scale))

        def forward(self, x):
            scores = self.scale * x[:, None] * x[..., None]
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            return scores.masked_fill(mask, -1e4).softmax(-1) @ x[..., None]

    assert causality(Finite(1.0), X, **NEXT).causal and not causality(Finite(-1e6), X + 0.1, **NEXT).causal

    # One leaking position among those that were not measured, seen where all are.
    def one_leaks(x):
        out = shifted(x).flatten(1).clone()
        out[:, 77] = out[:, 77] + (x.flatten(1)[:, 78] > 0.5)
        return out.view_as(x)

    example = torch.rand(2, 1, 12, 12)
    assert causality(one_leaks, example, at=8).causal and not causality(one_leaks, example, at=144).causal

    # Values that the example lacks, such as padding.
    def padded(x):
        return shifted(x.float()) + (x == 9).any(1, keepdim=True)

    assert causality(padded, TOKENS).causal and not causality(padded, torch.tensor([[1, 9, 2, 3], [2, 3, 9, 1]])).causal
    # Targets that are the inputs themselves: the model, asked by itself for the next value, is causal.
    assert (
        causality(Recurrent(0), SERIES, **STEPS, **NEXT).causal and not causality(Recurrent(0), SERIES, **STEPS).causal
    )


ROOT = Path(__file__).parent.parent


def shell(*arguments, folder):
    """A command of causality.py, copied alone into a folder with models.py."""
    shutil.copy(ROOT / "causality.py", folder)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


MODELS = """
import torch
from torch import nn

class Right(nn.Module):
    def forward(self, x):
        return nn.functional.pad(x.flatten(1).float(), (1, -1)).view_as(x)

right, square, number = Right(), lambda: torch.square, 3
twice = lambda: (lambda x: (x.float().cumsum(1), 0))
shift = lambda x: nn.functional.pad(x.movedim(1, -1).flatten(1), (1, -1)).view(-1, 2, 2, 3).movedim(-1, 1)
in_turn = lambda: shift  # each channel of a pixel after the one before
first = lambda out: out[0]
"""


def test_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "models.py").write_text(MODELS, encoding="utf-8")
    made = ("--json", "result.json", "--picture", "matrix.png")
    right = shell("causality", "models:Right", "--shape", 1, 3, 3, *made, folder=tmp_path)
    assert right.returncode == 0 and right.stdout.startswith("Causal: measured at 9 of 9 positions"), right.stderr
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["causal"] is True
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        try:
            status = module._main([str(one) for one in arguments])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    status, output, _ = run("models:square", "--shape", 4, "--json", "-")
    assert status == 1 and json.loads(output)["leaks"]["current"][0] == [[0], [0]]
    np.save("example.npy", TOKENS.numpy())
    settings = ("--predictions", "models:first", "--next-value", "--at", 3)
    assert run("models:twice", "--example", "example.npy", *settings)[0] == 0
    status, output, _ = run("models:right", "--integers", 5, "--shape", 6, "--modes", "evaluation")
    assert status == 0 and "In evaluation mode, no" in output
    assert run("models:in_turn", "--shape", 3, 2, 2)[0] == 0
    assert run("models:in_turn", "--shape", 3, 2, 2, "--pixels")[0] == 1
    for arguments, message in (
        (("models:number", "--shape", 4), "not measured: TypeError: 'int' object is not callable"),
        (("models:missing", "--shape", 4), "not measured: AttributeError"),
        (("models:twice", "--shape", 4), "not measured: ValueError: <class 'tuple'> has no gradient"),
        (("models:right",), "pass --shape or --example"),
    ):
        status, _, errors = run(*arguments)
        assert status == 2 and message in errors, errors


def test_the_fixture(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["causality"]\n', encoding="utf-8")
    text = "import torch\n\ndef test_it(assert_causal):\n    assert_causal(torch.square, torch.rand(2, 3))\n"
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    done = shell("pytest", "-q", "-p", "no:cacheprovider", "test_it.py", folder=tmp_path)
    assert "E       AssertionError: NOT causal in current mode: the prediction at (0,) depends on" in done.stdout


def test_installing_this_repository_gives_that_module_alone(tmp_path):
    for name in ("pyproject.toml", "causality.py", "helpers.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tools", "tests", "support", "pixelrnn", "notebooks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", "made", "."], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "made").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = [name for name in files.namelist() if ".dist-info/" not in name]
        (about,) = (name for name in files.namelist() if name.endswith("METADATA"))
        needs = re.findall(r"^Requires-Dist: (.*)$", files.read(about).decode(), re.M)
    assert names == ["causality.py"] and needs == ["numpy", "torch"]


def test_it_needs_torch_and_numpy_alone():
    text = (ROOT / "causality.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.M)) - set(sys.stdlib_module_names)
    assert imported == {"numpy", "torch"} and set(module.__all__) == {
        "Causality",
        "causality",
        "assert_causal",
        "assert_cached",
    }


def test_the_lines_in_the_readme_find_a_leak_and_pass_where_there_is_none():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(code, {"model": shifted, "example": X})
    with pytest.raises(AssertionError, match="NOT causal"):
        exec(code, {"model": torch.sin, "example": X})


PAGE = (ROOT / "labnotes" / "causality.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"\n\*\*(.*?)\*\*[^\n]*\n+```python\n(.*?)```\n+```\n(.*?)```", PAGE, re.S)


def test_the_page_has_an_example_of_each_kind_and_the_settings_it_names():
    kinds = ["A PixelCNN.", "A MADE with its own order.", "A language model.", "A conditioned model."]
    assert [name for name, _, _ in EXAMPLES] == [*kinds, "A recurrent network."]
    settings = set(inspect.signature(causality).parameters)
    assert set(re.findall(r"`(\w+)=", PAGE)) - {"pytest_plugins"} <= settings


@pytest.mark.parametrize("name, code, printed", EXAMPLES, ids=lambda text: text if len(text) < 40 else "")
def test_the_examples_on_its_page_print_what_it_says(name, code, printed):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, {})
    assert output.getvalue() == printed
