"""Is an autoregressive model causal? Measured on any PyTorch model, not read from its code.

    assert_causal(model, images)              # in a test; images: (batch, channels, rows, columns)
    print(causality(model, images))           # which prediction depends on which value, and in which layer it begins
    python -m causality package.module:Model --shape 1 28 28

An autoregressive model predicts each value from those before it in its order: for images, raster order. A prediction
that also depends on its own value or on later ones (target leakage) makes the loss too good and samples poor.
Source: A. Karpathy, "A Recipe for Training Neural Networks", 2019 ("use backprop to chart dependencies"); masks of type
A and B: van den Oord et al., "Pixel Recurrent Neural Networks", 2016.

This file needs torch and numpy alone and can be copied as it is; pictures of the result need matplotlib.
"""

import argparse
import contextlib
import copy
import importlib
import json
import numbers
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = ["Causality", "assert_cached", "assert_causal", "causality"]

BATCHES = 3  # of different values: for one of them, a ReLU or dropout may hide a path
SHOWN = 3  # predictions that a report lists in each mode
MODES = ("training", "evaluation")
KERNELS = {"math": "MATH", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION"}


# ======================================================================================================================
# The result
# ======================================================================================================================


@dataclass(repr=False)
class Causality:
    """What causality() has measured. A mode is "training" or "evaluation", "current" for a plain function, and has the
    name of a backend behind it, as in "evaluation (autocast)", where one was asked for."""

    leaks: dict  # mode -> pairs (prediction, value), each a tuple of indices into an example, in autoregressive order
    mixed: dict  # mode -> whether predictions depend on other examples of the batch
    measured: str  # what was measured, in words
    positions: list  # the positions that were measured, in autoregressive order
    uses: dict = field(default_factory=dict)  # mode -> bool (prediction, value) over positions: what depends on what
    allowed: np.ndarray | None = None  # bool (prediction, value) over positions: what may be used
    sizes: dict = field(default_factory=dict)  # mode -> the largest change by a leak, as a share of the predictions
    layers: dict = field(default_factory=dict)  # mode -> the first layer in which the first leak is seen, or ""
    hints: dict = field(default_factory=dict)  # mode -> what may be the cause, or ""

    @property
    def causal(self) -> bool:
        """Whether, in every mode, predictions depend on earlier values of their own example only."""
        return not any(self.leaks.values()) and not any(self.mixed.values())

    @property
    def summary(self) -> str:
        """One line: the verdict, and where something leaks the smallest leak and the first layer that shows it."""
        modes = [mode for mode in self.leaks if self.leaks[mode] or self.mixed[mode]]
        if not modes:
            return f"Causal: {self.measured}."
        mode = next((mode for mode in modes if self.leaks[mode] and not self.mixed[mode]), modes[0])
        if self.mixed[mode]:
            what = "predictions depend on other examples of the batch"
        else:
            prediction, value = self.leaks[mode][0]
            others = len({one for one, _ in self.leaks[mode]}) - 1
            what = f"the prediction at {prediction} depends on the value at {value}"
            what += f", and {others} more prediction{'s leak' if others > 1 else ' leaks'}" if others else ""
        where = f"; first seen in {self.layers[mode]}" if self.layers.get(mode) else ""
        return f"NOT causal in {_list(modes)} mode: {what}{where}."

    def __str__(self) -> str:
        texts = {}  # modes with the same result share a text
        for mode in self.leaks:
            texts.setdefault(self._text(mode), []).append(mode)
        lines = [f"In {_list(modes)} mode, {text}" for text, modes in texts.items()]
        return "\n".join([f"{'Causal' if self.causal else 'NOT causal'}: {self.measured}.", *lines])

    __repr__ = __str__  # what a failed assertion shows

    def _text(self, mode):
        seen = {}  # prediction -> values it must not depend on
        for prediction, value in self.leaks[mode]:
            seen.setdefault(prediction, []).append(value)
        lines = [f"{len(seen) or 'no'} predictions depend on their own value or on later ones{':' if seen else '.'}"]
        for prediction, values in list(seen.items())[:SHOWN]:
            more = f" and {len(values) - SHOWN} more" * (len(values) > SHOWN)
            lines.append(f"    {prediction} on {', '.join(map(str, values[:SHOWN]))}{more}")
        others = len(seen) - SHOWN
        lines += [f"    and {others} more prediction{'s' * (others > 1)}"] * (others > 0)
        lines += [f"The first layer that shows it is {self.layers[mode]}."] if self.layers.get(mode) else []
        lines += [self.hints[mode]] if self.hints.get(mode) else []
        return "\n".join(lines)

    def report(self) -> dict:
        """The result as numbers, strings, lists and dicts, for json.dumps."""
        parts = {"leaks": self.leaks, "mixed": self.mixed, "layers": self.layers, "hints": self.hints}
        return (
            {"causal": self.causal, "summary": self.summary, "measured": self.measured} | parts | {"sizes": self.sizes}
        )

    def picture(self, path, mode: str | None = None):
        """Save the matrix of dependences (prediction, value) of one mode, the first by default, as a picture.

        Red leaks; dark blue is used; grey could be used and is not, as in a blind spot; white is rightly not used.
        Rows and columns are the positions that were measured, in autoregressive order; at= sets how many.
        """
        from matplotlib.figure import Figure  # the only use of matplotlib

        used, allowed = self.uses[mode or next(iter(self.uses))], self.allowed
        kinds = {"leaks": "#d62728", "used": "#1f3b73", "could be used": "#c8c8c8", "rightly not used": "#ffffff"}
        colors = np.array([[int(color[n : n + 2], 16) for n in (1, 3, 5)] for color in kinds.values()], np.uint8)
        figure = Figure(figsize=(6, 6), layout="constrained")
        axes = figure.subplots()
        axes.imshow(colors[np.where(used, 1 * allowed, 2 + ~allowed)])
        axes.set(xlabel=f"value, 1 to {len(used)} in order", ylabel="prediction", xticks=[], yticks=[])
        for color, name in zip(colors / 255, kinds, strict=True):
            axes.scatter([], [], marker="s", color=[color], edgecolors="black", label=name)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path)


def _list(words):
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


# ======================================================================================================================
# The check
# ======================================================================================================================


def causality(
    model: Callable,
    example: torch.Tensor,
    *,
    order=None,
    predictions: Callable | None = None,
    next_value: bool = False,
    at: int = 64,
    modes: Iterable[str] = MODES,
    backends: Iterable[str] = (),
    tolerance: float = 0.0,
    progress: bool = False,
) -> Causality:
    """Which predictions depend on their own value or on later ones, in training and in evaluation mode: a Causality.

    model: an nn.Module or a method of one: batch -> predictions (logits or means). It is copied, so nothing of it
        changes, and each call of the copy starts from the same state. Trainable parameters that are all zero get
        noise, because they hide what the first update will show. A plain function is called as it is, in the mode that
        its modules are in. A conditioned model is a function or method of the batch alone: lambda x: model(x, labels).
    example: a batch (batch, channels, rows, columns), (batch, steps, features) or (batch, values), floating-point or
        integer; its size is that of each call. Values are replaced by others of the same channel or feature, in
        (batch, values) by any others; so it should hold the values that count: 4 to 16 examples of the training data.
    order: numbers that broadcast to the shape of one example; values with smaller numbers are predicted earlier, those
        with equal numbers at the same time, none from another. Default: raster order, and within a pixel channel by
        channel. For whole pixels: torch.arange(rows * columns).view(rows, columns).
    predictions: a function of what the model returns, with the result (batch, *values) or (batch, *values, classes),
        where *values is the shape of one example. Needed if no layout fits the shapes; where several do, all are
        tried, and the one that fits best is named.
    next_value: whether the prediction at a position is for the value after it, as in language models.
    at: the number of positions to measure, at least 2: one at each place of the order if these are no more; else the
        first and last, some at ends of rows, and random ones.
    modes: of "training" and "evaluation". ["evaluation"] is for models whose batch norm mixes the batch in training.
    backends: the same again with "autocast" (bfloat16), "compile", an attention kernel ("math", "flash", "efficient",
        "cudnn"), or an implementation that model.set_attn_implementation takes, such as "eager" and "sdpa".
    tolerance: the share of the largest prediction or gradient that counts as zero; 1e-5 for convolution by FFT.
    progress: whether to count on the error stream.

    At each position the gradient of the prediction is computed, where there is one; for the example itself in float64
    if the model can, because deep networks underflow. Then the value is replaced, alone and with all later ones
    at once, to see which predictions change: that shows paths through rounding, too. Dropout has the same random
    numbers each time. Not found: leaks in the loss or in how targets are aligned; a finite mask that training outgrows;
    what happens only at positions that were not measured, or for values that the example lacks.

    Raises ValueError, which says what to do, for arguments or a layout that cannot be used; and for predictions
    that prove nothing: integers, NaN, different ones for the same input, or ones that depend on no value at all.
    """
    rank, modes, backends = _checked(model, example, order, at, modes, backends, tolerance)
    shape = tuple(example.shape[1:])
    example = example.detach()
    module = _owner(model) is not None
    names = [mode + f" ({backend})" * bool(backend) for backend in ("", *backends) for mode in modes]
    # cuDNN has no backward pass of a recurrence in evaluation mode, and rounds where a mask should give exact zeros.
    random = torch.random.fork_rng([example.device] if example.is_cuda else [])
    with random, torch.backends.cudnn.flags(enabled=False), torch.inference_mode(False):
        runs = {
            name: _Run(model, name, predictions, example.device.type) for name in (names if module else ["current"])
        }
        example, layouts = next(iter(runs.values())).layouts(example)
        tried = []
        for text, layout in layouts:
            search = _Search(example, rank, next_value, at, tolerance, layout, progress)
            found = {name: search.measure(run) for name, run in runs.items()}
            if not any(one.used for one in found.values()):
                raise ValueError(
                    "No prediction depends on any value, so this proves nothing: if a layer is zero, train first."
                )
            tried.append((sum(len(one.leaks) for one in found.values()), text, found))
            if not tried[-1][0]:
                break
    _, text, found = min(tried, key=lambda one: one[0])
    positions = list(np.ndindex(shape))
    reasons = sorted({one.no_gradient for one in found.values()} - {""})  # why there is none
    how = f"by changing values ({reasons[0]})" if reasons else "by gradient and by changing values"
    how = how if example.is_floating_point() else "by changing values"
    measured = f"measured at {len(search.chosen)} of {len(rank)} positions, {how}"
    measured += ", of one example, so that others were not changed" * (len(example) == 1)
    measured += f", predictions read as {text}" * (len(layouts) > 1 or "whole pixel" in text)
    filled = next(iter(runs.values())).filled
    if filled and any(one.leaks for one in found.values()):
        measured += f", with noise for zero parameters ({', '.join(filled[:2])}{', ...' * (len(filled) > 2)})"
    chosen = search.chosen
    result = Causality({}, {}, measured, [positions[place] for place in chosen])
    result.allowed = ~search.late(chosen[:, None], chosen)
    for name, one in found.items():
        result.leaks[name] = [(positions[prediction], positions[value]) for prediction, value in one.leaks]
        result.mixed[name], result.uses[name], result.sizes[name] = one.mixed, one.uses, one.size
        result.layers[name] = one.layer
        result.hints[name] = _hint(one, result.leaks[name], rank, shape, next_value, result.allowed)
    return result


def assert_causal(model: Callable, example: torch.Tensor, **settings) -> Causality:
    """Raise an AssertionError, one line that says what leaks, unless the model is causal; settings of causality().

    For a model whose batch norm mixes the batch in training, as it must: modes=["evaluation"].
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    result = causality(model, example, **settings)
    if not result.causal:
        raise AssertionError(result.summary)
    return result


def assert_cached(
    model: Callable,
    step: Callable,
    example: torch.Tensor,
    *,
    predictions: Callable | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Raise an AssertionError unless sampling step by step, with a cache, predicts what the whole model predicts.

    model: batch -> predictions (batch, steps, ...), as for causality(); put it in evaluation mode first.
    step: (values, cache) -> (predictions, cache) for the values of one step, (batch, 1, ...), with the predictions
        (batch, 1, ...) that the model gives at this step; the first cache is None.
    example: (batch, steps) or (batch, steps, features).
    tolerance: how far both may differ, as a share of the largest prediction.
    """
    __tracebackhide__ = True
    cache, rows = None, []
    with torch.no_grad():
        whole = model(example)
        whole = predictions(whole) if predictions else whole
        for start in range(example.shape[1]):
            row, cache = step(example[:, start : start + 1], cache)
            rows.append(row)
    steps = torch.cat(rows, 1)
    if steps.shape != whole.shape:
        raise AssertionError(f"The steps give predictions {tuple(steps.shape)}, the model {tuple(whole.shape)}.")
    apart = (steps.double() - whole.double()).abs() / whole.double().abs().max().clamp(min=1e-300)
    wrong = (~(apart <= tolerance)).flatten(2).any(-1).any(0).nonzero()  # written so that NaN is wrong, too
    if len(wrong):
        share = float(apart.nan_to_num(nan=torch.inf).max())
        raise AssertionError(
            f"From step {int(wrong[0])} on, cached predictions differ from the model's, by {share:.1e} of the largest."
        )


def _checked(model, example, order, at, modes, backends, tolerance):
    """(rank, modes, backends), or a ValueError that says what is wrong with the arguments."""
    if isinstance(model, type) or not callable(model):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ValueError(f"model must be a module or a function of the batch, not {kind}: pass a built model.")
    tensor = isinstance(example, torch.Tensor) and example.ndim > 1 and example.numel() and not example.is_complex()
    if not tensor or not example.isfinite().all():
        raise ValueError("example must be a tensor (batch, ...) of numbers without NaN: pass a batch of training data.")
    if not (isinstance(at, int | np.integer) and at >= 2):
        raise ValueError(f"at must be a whole number of at least 2, not {at!r}.")
    number = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, bool)
    if not (number and 0 <= tolerance < float("inf")):  # written so that NaN fails too
        raise ValueError(f"tolerance must be a number of at least 0, not {tolerance!r}.")
    modes, backends = ([one] if isinstance(one, str) else list(one) for one in (modes, backends))
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f'modes must be "training", "evaluation" or both, not {modes}.')
    if backends and _owner(model) is None:
        raise ValueError("backends need a module or a method of one: a plain function is called as it is.")
    return _rank(order, tuple(example.shape[1:])), modes, backends


def _rank(order, shape):
    """The place of each value of an example in the order, (values,): equal for those predicted at the same time."""
    if order is None:
        if len(shape) > 3:
            raise ValueError(f"There is no default order for examples of shape {shape}: pass order=.")
        channels = shape[0] if len(shape) == 3 else 1  # raster order, pixel by pixel, channel by channel within it
        order = torch.arange(int(np.prod(shape))).view(-1, channels).T.reshape(shape)
    try:
        numbers, rank = np.unique(torch.as_tensor(order).cpu().numpy(), return_inverse=True)
        rank = np.broadcast_to(rank.reshape(np.shape(order)), shape).ravel()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"order must be numbers that broadcast to the shape of one example, {shape}.") from None
    if len(numbers) == 1 < len(rank) or np.isnan(numbers).any():
        raise ValueError("order must hold two different numbers at least, and no NaN: smaller for earlier values.")
    return rank


# ======================================================================================================================
# Which predictions change, and which have a gradient
# ======================================================================================================================


class _Values:
    """Values that may replace an example's: those of its own channel or feature, (batch, ...) each."""

    def __init__(self, example):
        self.random = torch.Generator().manual_seed(0)
        axis = {4: 1, 3: 2}.get(example.ndim)
        parts = example.detach().cpu().double()
        self.axis = axis
        self.pools = [part.unique() for part in ([parts] if axis is None else parts.split(1, axis))]
        for number, pool in enumerate(self.pools):
            if len(pool) == 1 and example.is_floating_point():  # a constant channel takes the values of all
                every = parts.unique()
                if len(every) == 1:  # and a constant example others near it, in [0, 1] if it is there
                    steps = every + torch.tensor([0.25, 0.5, 0.75])
                    every = torch.cat([every, steps % 1 if 0 <= every <= 1 else steps]).unique()
                self.pools[number] = every.to(example.dtype).double()
            elif len(pool) == 1:
                where = "" if axis is None else f" of {'channel' if axis == 1 else 'feature'} {number}"
                raise ValueError(
                    f"All integers{where} of example are equal, so none can be changed: pass two different values at "
                    "least."
                )

    def _each(self, batch, change):
        parts = [batch] if self.axis is None else batch.split(1, self.axis)
        parts = [change(part.cpu().double(), pool) for part, pool in zip(parts, self.pools, strict=True)]
        return (parts[0] if self.axis is None else torch.cat(parts, self.axis)).to(batch)

    def others(self, batch):
        """Another value for each, far from it among the sorted ones, because a model may round."""

        def far(part, pool):
            turn = 0.25 + 0.5 * torch.rand(part.shape, generator=self.random, dtype=torch.double)
            turn = (turn * len(pool)).round().clamp(1, len(pool) - 1).long()
            return pool[(torch.searchsorted(pool, part.contiguous()).clamp(max=len(pool) - 1) + turn) % len(pool)]

        return self._each(batch, far)

    def any(self, batch):
        """Values at random."""
        return self._each(batch, lambda part, pool: pool[torch.randint(len(pool), part.shape, generator=self.random)])


class _Base:
    """A batch, its predictions, and which of them change when some of its values are replaced."""

    def __init__(self, run, layout, values, example, number, tolerance):
        self.run, self.layout, self.number = run, layout, number
        self.batch = (lambda batch: batch, values.others, values.any)[number](example)
        self.new = values.others(self.batch)
        # Integers have no gradient, so it is here that a deep network would underflow.
        self.double = number == 0 and not self.batch.is_floating_point() and run.can_double(self.batch)
        self.before = run(self.batch, number, layout, self.double)
        self.scale = float(self.before.nan_to_num(posinf=0, neginf=0).abs().max()) or 1.0
        self.least = tolerance * self.scale

    def changes(self, masks, first=0):
        """Replace values where masks (n, values) say, in n rows from `first` on: how far each prediction of each row
        moves, as a share of the largest prediction, (rows, predictions); 0 where it does not."""
        mask = torch.zeros(self.batch.shape, dtype=torch.bool)
        mask.flatten(1)[first : first + len(masks)] = torch.from_numpy(masks)
        batch = torch.where(mask.to(self.batch.device), self.new, self.batch)
        after = self.run(batch, self.number, self.layout, self.double)
        apart = (after - self.before).abs().nan_to_num(nan=0)  # -inf - -inf is NaN: no change
        apart = apart.amax(-1).double().cpu().numpy()
        return np.where(apart > self.least, apart / self.scale, 0)

    def mixes(self):
        """Whether predictions depend on other examples: the first and the last, because attention may be causal."""
        rows = np.arange(len(self.batch))
        everything = np.ones((1, self.batch[0].numel()), bool)
        return any(self.changes(everything, one)[rows != one].any() for one in {0, len(rows) - 1})


@dataclass
class _Found:
    """What was found in one mode; indices are flat ones into an example."""

    leaks: list  # pairs (prediction, value), in order
    uses: np.ndarray  # bool (prediction, value) over the chosen positions
    used: bool  # whether any prediction depends on any value
    mixed: bool = False
    size: float = 0.0  # the largest change where none should be, as a share of the largest prediction
    slope: float = 0.0  # and the largest gradient, as a share of the largest
    no_gradient: str = ""  # why there is none
    layer: str = ""


class _Search:
    """Looks for leaks of one run after another, at the same chosen positions of the same example.

    Each call has the size of the example. Where rows do not depend on each other, each row tries a position of its
    own; it is compared with the same row of a call before, so that equal predictions are equal to the last bit.
    """

    def __init__(self, example, rank, next_value, at, tolerance, layout, progress):
        self.example, self.rank, self.ahead, self.tolerance = example, rank, int(next_value), tolerance
        self.layout, self.progress = layout, progress
        self.places = np.argsort(rank, kind="stable")  # flat indices in autoregressive order
        self.chosen = self.places[_positions(rank[self.places], example.shape[1:], at)]

    def late(self, predictions, values):
        """Whether predictions must not depend on values; flat indices that broadcast."""
        return self.rank[values] >= self.rank[predictions] + self.ahead

    @torch.no_grad()
    def measure(self, run):
        """What run leaks: a _Found."""
        values, everything, count = _Values(self.example), np.arange(len(self.rank)), len(self.chosen)
        by_value = np.zeros((len(everything), count), bool)  # predictions that change with a chosen value
        by_slope = np.zeros((count, len(everything)), bool)  # values with a gradient from a chosen prediction
        jointly = {}  # prediction -> (base, row, first of the values that together change it)
        found = _Found([], by_value, False)
        for number in range(BATCHES):
            base = _Base(run, self.layout, values, self.example, number, self.tolerance)
            if base.changes(np.zeros((0, len(everything)), bool)).any():
                raise ValueError(
                    "Two predictions for one input differ: let the model use torch's random numbers only, and keep "
                    "no state between calls."
                )
            found.mixed |= base.mixes()
            width = 1 if found.mixed else len(self.example)
            places = np.arange(count)[slice(None) if count == len(everything) else slice(number, None, BATCHES)]
            for start in range(0, len(places), width):
                if self.progress:
                    text = f"\r{run.name}: batch {number + 1} of {BATCHES}, {start} of {len(places)} positions "
                    print(text, end="", file=sys.stderr)
                part = places[start : start + width]
                chosen = self.chosen[part, None]
                change = base.changes(everything == chosen)[: len(part)]
                by_value[:, part] |= change.T > 0
                # All values from this one on at once: no prediction before it may change.
                onwards = base.changes(self.rank >= self.rank[chosen])[: len(part)]
                late = self.late(everything, chosen)
                for row, prediction in zip(*((onwards > 0) & late).nonzero(), strict=True):
                    jointly.setdefault(int(prediction), (base, int(row), self.rank[chosen[row, 0]]))
                found.size = max(found.size, float((np.maximum(change, onwards) * late).max()))
                if base.batch.is_floating_point():
                    slopes, reason = run.slopes(base.batch, number, self.layout, self.chosen[part])
                    by_slope[part] |= slopes > self.tolerance * slopes.max()
                    late = self.late(chosen, everything)
                    found.slope = max(found.slope, float((slopes * late).max() / (slopes.max() or 1)))
                    found.no_gradient = found.no_gradient or reason
        if self.progress:
            print(file=sys.stderr)
        found.used = bool(by_value.any() or by_slope.any() or jointly or found.mixed)
        chosen = self.chosen
        one, place = (by_value & self.late(everything[:, None], chosen)).nonzero()
        leaks = set(zip(one.tolist(), chosen[place].tolist(), strict=True))
        place, one = (by_slope & self.late(chosen[:, None], everything)).nonzero()
        leaks |= set(zip(chosen[place].tolist(), one.tolist(), strict=True))
        hidden = sorted(set(jointly) - {prediction for prediction, _ in leaks}, key=lambda one: self.rank[one])
        leaks |= {(one, self._culprit(one, *jointly[one])) for one in hidden[:SHOWN]}
        found.leaks = sorted(leaks, key=lambda pair: (*self.rank[list(pair)], *pair))
        found.uses = by_value[self.chosen] | by_slope[:, self.chosen]
        for pair in found.leaks:
            found.uses[np.ix_(*(self.chosen == one for one in pair))] = True
        if found.leaks and not found.mixed:
            found.layer = _first_layer(run, self, values, found.leaks[0])
        return found

    def _culprit(self, prediction, base, row, first):
        """The value that decides: with all values after it replaced the prediction stays, with it too it changes."""
        place = np.argsort(self.places)  # flat index -> place in the order
        changed, same = int((self.rank < first).sum()), len(place)  # places from which on all values are replaced
        while same - changed > 1:
            middle = (same + changed) // 2
            if base.changes(place[None] >= middle, row)[row, prediction]:
                changed = middle
            else:
                same = middle
        return int(self.places[changed])


def _positions(ranks, shape, at):
    """Places in the order to measure, whose ranks are given: all if there are no more than `at`. Else one of each rank
    if these are no more; the first and the last; some at the ends of rows and in the middle, where shifts and masks go
    wrong; and random ones."""
    total = len(ranks)
    if total <= at:
        return np.arange(total)
    row = total // shape[1] if len(shape) == 3 else shape[-1] if len(shape) == 2 else 1
    middle = total // row // 2 * row
    corners = [0, total - 1, 1, total - 2, row - 1, row, middle - 1, middle, middle + row // 2, total - row]
    random = np.random.default_rng(0).permutation(total)
    each = random[np.unique(ranks[random], return_index=True)[1]]
    wanted = [*(each if len(each) <= at else ()), *(one for one in corners if 0 <= one < total), *random]
    return np.sort(list(dict.fromkeys(map(int, wanted)))[:at])


# ======================================================================================================================
# Calling a model
# ======================================================================================================================


def _owner(model):
    """The module that model is, or is a method of; None for a plain function."""
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


class _Run:
    """A copy of a model in one mode, the same at each call: state and random numbers are set back."""

    def __init__(self, model, name, predictions, device):
        self.name, self.predictions, self.device, self.filled, self.doubled = name, predictions, device, [], None
        mode, _, self.backend = name.removesuffix(")").partition(" (")
        self.around, owner = contextlib.nullcontext, _owner(model)
        if owner is not None:
            model = _copied(model)
            owner = _owner(model).train(mode == "training")
            self.filled = _fill_zeros(owner)
            model = self._with(model, self.backend) if self.backend else model
        self.model, self.owner, self.kept = model, owner, _State(owner)

    def _with(self, model, backend):
        if backend == "compile":
            return torch.compile(model)
        if backend == "autocast":
            self.around = lambda: torch.autocast(self.device, torch.bfloat16)
        elif backend in KERNELS:
            kernel = getattr(torch.nn.attention.SDPBackend, KERNELS[backend])
            self.around = lambda: torch.nn.attention.sdpa_kernel(kernel)
        elif hasattr(_owner(model), "set_attn_implementation"):
            _owner(model).set_attn_implementation(backend)
        else:
            raise ValueError(
                f"{backend!r} is no backend of this model: take of autocast, compile, {', '.join(KERNELS)}."
            )
        return model

    def outputs(self, batch, seed, model=None, kept=None):
        """What the model returns for a batch, from its first state and with the random numbers of `seed`."""
        (kept or self.kept).restore()
        (torch if batch.is_cuda else torch.default_generator).manual_seed(seed)  # torch.manual_seed is slow on CPUs
        try:
            with self.around():
                outputs = (model or self.model)(batch.clone())  # a clone, because a model may write into its input
        except Exception as error:
            size = f"causality() called the model with a batch of shape {tuple(batch.shape)}"
            error.add_note(f"{size}; each call has the size of the example.")
            raise
        return self.predictions(outputs) if self.predictions else outputs

    def layouts(self, example):
        """(example, the ways to read what the model returns, [(text, function)]).

        To see whether predictions depend on other examples, a single one gets a second, if the model can take two.
        """
        if len(example) == 1:
            two = torch.cat([example, _Values(example).others(example)])
            with contextlib.suppress(Exception):
                return two, _layouts(self.outputs(two, 0), two.shape, bool(self.predictions))
        return example, _layouts(self.outputs(example, 0), example.shape, bool(self.predictions))

    def in_float64(self):
        """(a copy of the model in float64, its state): deep networks underflow in float32."""
        if self.doubled is None:
            copied = _copied(self.model)
            self.doubled = copied, _State(_owner(copied).double())
        return self.doubled

    def can_double(self, batch):
        """Whether the model runs in float64."""
        try:
            return not self.backend and self.outputs(batch, 0, *self.in_float64()).dtype == torch.double
        except Exception:  # whatever the model raises
            return False

    def __call__(self, batch, seed, layout, double=False):
        """Predictions (batch, values, classes)."""
        outputs = layout(self.outputs(batch, seed, *(self.in_float64() if double else ())))
        if outputs.isnan().any():
            raise ValueError("Predictions are NaN: check the model's weights, and the range of the example's values.")
        return outputs

    def slopes(self, batch, seed, layout, chosen):
        """(|gradient| of the prediction chosen[i] of row i by the values of this row, "" or why there is none)."""
        reasons = []
        for double in (True, False) if seed == 0 and not self.backend else (False,):
            try:
                return self._slopes(batch, seed, layout, chosen, double), ""
            except _GradientError as reason:
                reasons.append(str(reason))
            except Exception as error:  # of the model: it may not run in float64, or have no backward pass
                reasons.append(f"its gradient fails: {type(error).__name__}")
        return np.zeros((len(chosen), batch[0].numel())), reasons[-1]

    def _slopes(self, batch, seed, layout, chosen, double):
        model, kept = self.model, self.kept
        if double and self.owner is not None:
            model, kept = self.in_float64()
        with torch.enable_grad():
            inputs = (batch.double() if double else batch.clone()).requires_grad_()
            outputs = layout(self.outputs(inputs, seed, model, kept))
            if not outputs.requires_grad:
                raise _GradientError("predictions have no gradient")
            rows = outputs[torch.arange(len(chosen)), torch.as_tensor(chosen)]
            # Random weights, because a plain sum is constant over the classes of a softmax.
            weights = torch.randn(rows.shape[-1], generator=torch.Generator().manual_seed(seed)).to(rows)
            (slopes,) = torch.autograd.grad((rows * weights).sum(), inputs, allow_unused=True, materialize_grads=True)
        if slopes.isnan().any():
            raise _GradientError("gradients are NaN: look for sqrt, log or division at 0")
        return slopes[: len(chosen)].flatten(1).abs().double().cpu().numpy()


class _GradientError(Exception):
    """A model whose gradient tells nothing."""


def _copied(model):
    """A deep copy of a module, or of the method of one. What cannot be copied, such as a lock or a file, is shared."""
    memo, seen = {}, set()

    def look(value):
        if id(value) in seen or value is None or isinstance(value, str | numbers.Number | type):
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if not value.is_leaf:  # the result of an operation, such as a hidden state or weight_norm's weight
                memo[id(value)] = value.detach().clone()
        elif isinstance(value, nn.Module):
            look(vars(value))
        elif isinstance(value, dict):
            for one in value.values():
                look(one)
        elif isinstance(value, list | tuple | set):
            for one in value:
                look(one)
        elif isinstance(value, types.MethodType):  # it must become one of the copy
            look(value.__self__)
        else:
            try:
                copy.deepcopy(value)
            except Exception:
                memo[id(value)] = value

    look(_owner(model))
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        how = "pass a plain function, lambda x: model(x), which is called as it is"
        raise ValueError(f"The model cannot be copied ({error}): {how}.") from error


def _fill_zeros(module):
    """Noise for trainable parameters that are all zero, as zero-initialised branches have: their names."""
    random, filled = torch.Generator().manual_seed(0), []
    for name, parameter in module.named_parameters():
        usable = parameter.requires_grad and parameter.is_floating_point() and not nn.parameter.is_lazy(parameter)
        if usable and parameter.numel() and not parameter.any():
            with torch.no_grad():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
            filled.append(name)
    return filled


class _State:
    """What a module has kept at the start: buffers and attributes, such as running statistics and hidden states."""

    def __init__(self, module):
        usual = set(vars(nn.Module()))
        self.parts = []
        for part in module.modules() if module is not None else ():
            own = {name: value for name, value in vars(part).items() if name not in usual}
            buffers = dict(part._buffers)
            tensors = [one for one in (*buffers.values(), *own.values()) if isinstance(one, torch.Tensor)]
            values = [(one, one.detach().clone()) for one in tensors if not isinstance(one, nn.Parameter)]
            own = {name: self._shallow(value) for name, value in own.items()}
            self.parts.append((part, own, buffers, values, usual))

    @staticmethod
    def _shallow(value):
        return copy.copy(value) if type(value) in (list, dict, set) else value

    @torch.no_grad()
    def restore(self):
        """Set everything back."""
        for part, own, buffers, values, usual in self.parts:
            attributes = vars(part)
            for name in [name for name in attributes if name not in usual and name not in own]:
                del attributes[name]
            attributes.update({name: self._shallow(value) for name, value in own.items()})
            for name, buffer in buffers.items():  # one by one: a ScriptModule's have no update
                part._buffers[name] = buffer
            for value, before in values:
                value.detach().copy_(before)


@torch.no_grad()
def _first_layer(run, search, values, pair):
    """Name and class of the first layer whose output shows a leak (prediction, value), or "".

    That is the first layer whose output changes with the value at a place before it, or for a prediction that depends
    on its own value, at its place. Layers whose outputs have no axes of places are passed over.
    """
    module, (prediction, value), shape = run.owner, pair, search.example.shape[1:]
    places = np.arange(len(search.rank)).reshape(shape)
    places = places.reshape(shape[0], -1).T if len(shape) == 3 else places.reshape(shape[0], -1)  # (places, values)
    ranks, own = search.rank[places], (places == value).any(1)
    shows = own if prediction == value else ~own & (ranks.max(1) < search.rank[value])
    if module is None or not shows.any():
        return ""
    outputs = []

    def keep(name):
        def hook(part, inputs, output):
            for one in output if isinstance(output, list | tuple) else [output]:
                if isinstance(one, torch.Tensor):
                    outputs[-1].append((f"{name} ({type(part).__name__})", one.detach().clone()))

        return hook

    parts = [(name, part) for name, part in module.named_modules() if name]
    scripted = torch.jit.ScriptModule  # takes no hooks
    handles = [part.register_forward_hook(keep(name)) for name, part in parts if not isinstance(part, scripted)]
    try:
        for onwards in (False, True):
            mask = search.rank >= search.rank[value] if onwards else np.arange(len(search.rank)) == value
            mask = torch.from_numpy(mask).view(shape).to(search.example.device)
            outputs = []
            for batch in (search.example, torch.where(mask, values.others(search.example), search.example)):
                outputs.append([])
                run.outputs(batch, 0)
            for (name, before), (_, after) in zip(*outputs, strict=False):
                rows = [_by_place(one, search.example.shape) for one in (before, after)]
                same = before.shape == after.shape and rows[0] is not None
                if same and (rows[0] != rows[1]).any(1).cpu().numpy()[shows].any():
                    return name
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _by_place(output, shape):
    """A layer's output for the first example as (places, features), or None: images have rows x columns places."""
    batch, spots = shape[0], tuple(shape[2:]) if len(shape) == 4 else tuple(shape[1:2])
    if output.ndim > 1 and output.shape[0] == batch:
        one = output[0]
    elif output.ndim > 2 and tuple(output.shape[:2]) == (*spots, batch):  # sequence first
        one = output[:, 0]
    else:
        return None
    number = int(np.prod(spots))
    for start in range(one.ndim - len(spots), -1, -1) if len(spots) == 2 else range(one.ndim):
        if tuple(one.shape[start : start + len(spots)]) == spots:
            axes = tuple(range(start, start + len(spots)))
            return one.movedim(axes, tuple(range(len(spots)))).reshape(number, -1)
    return one.movedim(one.shape.index(number), 0).reshape(number, -1) if number in one.shape else None


# ======================================================================================================================
# Layouts of predictions
# ======================================================================================================================


def _layouts(outputs, shape, classes_last):
    """The ways [(text, function)] to read outputs for a batch of `shape` as predictions (batch, values, classes)."""
    if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
        kind = getattr(outputs, "dtype", type(outputs))
        raise ValueError(f"{kind} has no gradient: take logits or means, such as predictions=lambda out: out[0].")
    batch, values, sizes = shape[0], tuple(shape[1:]), tuple(outputs.shape[1:])
    names = {3: ("channels", "rows", "columns"), 2: ("steps", "features"), 1: ("values",)}.get(len(values))
    names = names or tuple(f"axis {number}" for number in range(len(values)))
    if outputs.shape[:1] != shape[:1]:
        first = outputs.ndim > 1 and outputs.shape[1] == batch
        raise ValueError(
            f"Predictions {tuple(outputs.shape)} for examples {tuple(shape)}: the first axis must be the batch, as in "
            f"{'predictions=lambda out: out.transpose(0, 1).' if first else 'the example.'}"
        )
    kept = [(size, name) for size, name in zip(values, names, strict=True) if size > 1]
    squeezed, short = tuple(size for size, _ in kept), tuple(name for _, name in kept)
    forms = {values: names, squeezed: short}  # grey images may have no axis of channels
    if len(values) == 3 and values[0] == 1:
        forms[(values[1] * values[2],)] = ("pixels",)
    found = {}

    def add(text, read):
        found.setdefault(f"({', '.join(('batch', *text))})", read)

    for form, axes in forms.items():
        if found:
            break
        slim = tuple(size for size in sizes if size > 1) if form == squeezed and form != values else sizes
        if slim == form:
            return [(f"({', '.join(('batch', *axes))})", lambda out: out.reshape(batch, -1, 1))]
        for axis in range(len(slim)):
            if slim[:axis] + slim[axis + 1 :] == form and (not classes_last or axis == len(slim) - 1):
                add(
                    (*axes[:axis], "classes", *axes[axis:]),
                    lambda out, slim=slim, axis=axis: out.reshape(batch, *slim).movedim(axis + 1, -1).flatten(1, -2),
                )
    if not found and not classes_last:
        for form, axes in forms.items():
            for axis in range(len(form)):
                same = len(sizes) == len(form) and all(sizes[n] == form[n] for n in range(len(form)) if n != axis)
                if same and sizes[axis] % form[axis] == 0 and form[axis] > 1:
                    split = (sizes[axis] // form[axis], form[axis])
                    for number, parts in enumerate((split, split[::-1])):
                        text = ("classes x " + axes[axis], axes[axis] + " x classes")[number]
                        add(
                            (*axes[:axis], text, *axes[axis + 1 :]),
                            lambda out, axis=axis, parts=parts, number=number: (
                                out.unflatten(axis + 1, parts).movedim(axis + 1 + number, -1).flatten(1, -2)
                            ),
                        )
        if not found and len(values) == 3 and len(sizes) == 3:
            for axis in (0, 2):
                if (
                    sizes[:axis] + sizes[axis + 1 :] == values[1:]
                ):  # mixtures: parameters of a pixel's joint distribution
                    add(
                        ("parameters of a whole pixel", *names[1:]),
                        lambda out, axis=axis: out.movedim(axis + 1, -1).flatten(1, 2).repeat(1, values[0], 1),
                    )
    if found:
        return list(found.items())
    off = [axis for axis in range(len(sizes)) if axis < len(values) and abs(sizes[axis] - values[axis]) == 1]
    hint = "which axis holds classes? Pass a function predictions= returning (batch, *values, classes), like "
    hint += "lambda out: out.unflatten(1, (-1, 3)).movedim(1, -1)."
    if off and len(sizes) >= len(values):
        more = sizes[off[0]] > values[off[0]]
        how = "lambda out: out[:, :-1]" if more else "lambda out: torch.cat([out, 0 * out[:, -1:]], 1)"
        hint = f"one {'more' if more else 'less'} along an axis. Pass predictions=, such as {how}, so that position i "
        hint += "predicts value i, or with next_value=True value i + 1."
    raise ValueError(f"Predictions {tuple(outputs.shape)} for examples {tuple(shape)}: {hint}")


# ======================================================================================================================
# What may be the cause
# ======================================================================================================================


def _hint(found, leaks, rank, shape, next_value, allowed):
    """A sentence on what may be the cause of what was found, or ""."""
    if found.mixed:
        return (
            "Predictions depend on other examples: batch norm in training (if that is meant, check with modes="
            '["evaluation"]), attention over the batch? Or are steps in the first axis, where the batch should be?'
        )
    if not leaks:
        return ""
    if 0 < found.size < 1e-5:
        return (
            f"The largest change is {found.size:.0e} of the largest prediction. If it is rounding, as in convolution "
            "by FFT, set tolerance=1e-5."
        )
    if not found.size:
        tiny = (
            f"Gradients alone show it, of {found.slope:.0e} of the largest: a finite mask, or a path lost in rounding? "
        )
    else:
        tiny = ""
    own = f"{tiny}Is the first masked convolution of type A, the last mask of a MADE strict? "
    own += "Is the input of an RNN shifted by one?"
    own += "" if next_value else " Does the model predict the next value (next_value=True)?"
    if all(prediction == value for prediction, value in leaks):
        return own
    flat = [[int(np.ravel_multi_index(one, shape)) for one in pair] for pair in leaks]
    if next_value and all(rank[value] == rank[prediction] + 1 for prediction, value in flat):
        return f"{tiny}Each depends on the very value that it predicts: a mask, inputs or targets off by one?"
    if all(len(value) == 3 and prediction[1:] == value[1:] for prediction, value in leaks):
        if all(rank[prediction] == rank[value] and prediction != value for prediction, value in flat):
            return "By its order, all channels of a pixel are predicted at once, but this model predicts them in turn."
        text = "Only channels of the same pixel leak: are they in the same order in all masks?"
        return f"{text} {own}" if any(prediction == value for prediction, value in leaks) else text
    if found.uses[~allowed].mean() > 0.8:
        return (
            "Nearly every prediction depends on every value: is there no mask, a norm over the picture (GroupNorm, "
            "InstanceNorm), a bidirectional RNN, a view that mixes axes?"
        )
    return (
        f"{tiny}Is a mask missing, lost in training or turned? Is an RNN bidirectional, not shifted? Does a sort or "
        "top-k see all positions? Order right?"
    )


# ======================================================================================================================
# From a shell, and in pytest
# ======================================================================================================================


def _load(name):
    """The object that "package.module:name" names; the current folder is searched first."""
    module, _, path = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _main(arguments=None):
    """Exit status 0: causal; 1: not causal; 2: not measured."""
    parser = argparse.ArgumentParser(
        prog="python -m causality",
        description="Which predictions of a model depend on their own value or on later ones? Exit status 0: none; "
        "1: some; 2: not measured.",
    )
    add = parser.add_argument
    add("model", metavar="MODULE:FACTORY", help="a module, or a class or function that makes one without arguments")
    add("--shape", type=int, nargs="+", metavar="N", help="of one example: channels rows columns, or steps")
    add("--example", metavar="FILE.npy", help="a batch of training data, in place of random values of --shape")
    add("--integers", type=int, metavar="N", help="values are integers below N, as tokens are")
    add("--batch", type=int, default=4, metavar="N", help="random examples at once (default: 4)")
    add("--predictions", metavar="MODULE:FUNCTION", help="what the model returns -> (batch, *values, classes)")
    add("--next-value", action="store_true", help="the prediction at a position is for the value after it")
    add("--pixels", action="store_true", help="all channels of a pixel are predicted at once")
    add("--at", type=int, default=64, metavar="N", help="positions to measure (default: 64)")
    add("--modes", nargs="+", choices=MODES, default=MODES)
    add("--backends", nargs="+", default=[], metavar="NAME", help="autocast, compile, math, flash, eager, ...")
    add("--tolerance", type=float, default=0.0, help="share that counts as zero (default: 0)")
    add("--json", metavar="FILE", help="write the result for machines, - for the output")
    add("--picture", metavar="FILE.png", help="draw what depends on what (needs matplotlib)")
    asked = parser.parse_args(arguments)
    if (asked.shape is None) == (asked.example is None):
        parser.error("pass --shape or --example")
    try:
        torch.manual_seed(0)
        model = _load(asked.model)
        model = model if isinstance(model, nn.Module) else model()
        if asked.example:
            example = torch.from_numpy(np.load(asked.example, allow_pickle=False))
        elif asked.integers:
            example = torch.randint(asked.integers, (asked.batch, *asked.shape))
        else:
            example = torch.rand(asked.batch, *asked.shape)
        order = torch.arange(example[0, 0].numel()).view(example.shape[2:]) if asked.pixels else None
        settings = {"next_value": asked.next_value, "at": asked.at, "modes": asked.modes, "backends": asked.backends}
        settings |= {"tolerance": asked.tolerance, "progress": sys.stderr.isatty(), "order": order}
        settings["predictions"] = _load(asked.predictions) if asked.predictions else None
        result = causality(model, example, **settings)
        if asked.picture:
            result.picture(asked.picture)
        if asked.json:
            text = json.dumps(result.report(), indent=1)
            print(text) if asked.json == "-" else Path(asked.json).write_text(text + "\n", encoding="utf-8")
    except Exception as error:  # whatever the model raises: nothing was measured
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        print(f"not measured: {type(error).__name__}: {error}{notes}", file=sys.stderr)
        return 2
    if asked.json != "-":
        print(result)
    return 0 if result.causal else 1


if "pytest" in sys.modules:  # pytest_plugins = ["causality"] in a conftest.py gives tests the fixture assert_causal

    @sys.modules["pytest"].fixture(name="assert_causal")
    def _fixture():
        """assert_causal(model, example, **settings)"""
        return assert_causal


if __name__ == "__main__":
    sys.exit(_main())
