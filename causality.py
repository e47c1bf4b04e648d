"""Is an autoregressive model causal? Measured, not read from its code.

    print(causality(net, images))         # images: (batch, channels, rows, columns)
    assert causality(net, images).causal  # in a test

For masked convolutions, transformers, recurrent networks and MADE alike. Needs torch and numpy, and no other file.
"""

import contextlib
import copy
import random
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(repr=False)
class Mode:
    """What was measured in one mode. A position is a tuple of indices into an example; P predictions, V values."""

    method: str  # "gradient" or "perturbation"
    predictions: list  # P positions, in autoregressive order
    values: list  # V positions, in autoregressive order
    reach: np.ndarray  # (P, V) bool: the prediction depends on the value
    when: np.ndarray  # (P, V) int: -1 where the prediction may depend on the value, 0 its own or same time, 1 later
    other_examples: bool  # predictions depend on other examples of the batch
    not_finite: int  # predictions with NaN or infinite gradients (perturbation: that are NaN)

    @property
    def causal(self):
        """Whether predictions depend on earlier values of their own example only."""
        return not ((self.reach & (self.when >= 0)).any() or self.other_examples or self.not_finite)

    @property
    def leaks(self):
        """All pairs (prediction, value) where the prediction depends on its own or a later value."""
        return self._pairs(self.reach & (self.when >= 0))

    @property
    def blind_spot(self):
        """All pairs (prediction, value) where the value is earlier, but does not reach the prediction."""
        return self._pairs(~self.reach & (self.when < 0))

    @property
    def coverage(self):
        """The share of earlier values that reach a prediction: the size of the receptive field."""
        return self.reach[self.when < 0].sum() / max((self.when < 0).sum(), 1)

    def _pairs(self, where):
        return [(self.predictions[p], self.values[v]) for p, v in np.argwhere(where)]

    def __str__(self):
        leaks, blind, text = self.leaks, self.blind_spot, []
        image = len(self.values[0]) == 3
        itself, later = ((self.reach & (self.when == when)).any(1).sum() for when in (0, 1))
        if leaks:
            others = any(p != v for p, v in self._pairs(self.reach & (self.when == 0)))
            kinds = [(itself, "themselves" + " or values predicted at the same time" * others), (later, "later values")]
            kinds = " and ".join(
                f"{n} of {len(self.predictions)} predictions depend on {kind}" for n, kind in kinds if n
            )
            text.append("{}: first, prediction {} on value {}.".format(kinds, *leaks[0]))
        if self.other_examples:
            text.append("Predictions depend on other examples of the batch. Batch norm, or attention over the batch?")
        elif itself and not later and image:
            text.append("Is the first layer's mask type A?")
        elif itself and not later:
            text.append("Is the input shifted by one? If predictions are for the next value, pass next_value=True.")
        elif image and leaks and all(p[1:] == v[1:] for p, v in leaks):
            text.append("Do all masks have the channels in the same order?")
        elif leaks:
            text.append("Is a mask missing, transposed, off by one or lost in training, or a network bidirectional?")
        if self.not_finite:
            text.append(f"{self.not_finite} of {len(self.predictions)} predictions have NaN or infinite gradients.")
        if self.causal:
            text.append("predictions depend on earlier values only.")
        text.append(f"Coverage: {self.coverage:.1%} of earlier values reach a prediction.")
        if not self.reach.any():
            text.append("WARNING: no prediction depends on any value, so this proves nothing. Are weights zero?")
        elif blind:
            text.append("Prediction {} does not depend on value {}.".format(*blind[0]))
        return " ".join(text)

    __repr__ = __str__


@dataclass(repr=False)
class Causality:
    """The result in each mode; `causal` if it is in every mode."""

    modes: dict  # "training" and "evaluation" -> Mode; "as called" -> Mode where the model is a plain function
    measured: str  # what was measured, in words

    @property
    def causal(self):
        return all(mode.causal for mode in self.modes.values())

    def __str__(self):
        names = {}  # modes with the same result share a line
        for name, mode in self.modes.items():
            names.setdefault(str(mode), []).append(name)
        lines = [f"{' and '.join(names)}: {text}" for text, names in names.items()]
        return "\n".join([f"{'Causal' if self.causal else 'NOT causal'} ({self.measured})", *lines])

    __repr__ = __str__  # what a failed assertion shows


def causality(
    model,
    example,
    *,
    order=None,
    predictions=None,
    next_value=False,
    at=256,
    method=None,
    repeats=4,
    tolerance=0.0,
    seed=0,
):
    """Which values each prediction depends on, measured in training and in evaluation mode: a Causality.

    model: a module, a method of a module, or a function; batch -> predictions. A module is copied for every evaluation,
        so that nothing of it changes. A function is called as it is, in the mode that its modules are in.
    example: a batch (batch, channels, rows, columns), (batch, steps, features), (batch, values) or with other axes. Its
        first four examples are used, and random ones between its smallest and its largest value.
    order: numbers that broadcast to the shape of one example, smaller for values predicted earlier, equal for those
        predicted at the same time, which must not depend on each other. Default: raster order, of an image pixel by
        pixel, channel by channel within it. Whole pixels at once: order=torch.arange(rows * columns).view(rows, columns)
    predictions: a function of what the model returns, if that is no tensor or its layout is ambiguous; its result is
        (batch, *values) or (batch, *values, classes). By default, the class axis is found by the shape.
    next_value: the prediction at a position is for the value after it, as in language models.
    at: how many positions to measure (the first, the last and random ones), or a list of them. By gradient, these are
        predictions, each for all values; by perturbation, values, each for all predictions.
    method: "gradient"; or "perturbation", where a value is changed to see which predictions change. By default,
        perturbation for integers and where gradients vanish or miss a leak (rounding, argmax, one-hot), else gradient.
    repeats: batches, the first of which is the example: for one input, a ReLU or a dropped unit may hide a path.
    tolerance: share of the largest gradient or prediction that counts as zero. Convolution by FFT needs about 1e-5.

    Raises ValueError for arguments and layouts that cannot be used.
    """
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or not example.numel():
        raise ValueError("example must be a tensor with a batch axis and at least one axis of values, and not empty")
    if method not in (None, "gradient", "perturbation"):
        raise ValueError(f"method must be 'gradient' or 'perturbation', not {method!r}")
    if not example.is_floating_point():
        if method == "gradient":
            raise ValueError("integers have no gradient; leave method out, or pass method='perturbation'")
        method = "perturbation"
    rank = _rank(order, tuple(example.shape[1:]))
    at = _positions(at, example.shape[1:], rank, seed)
    has_modes = isinstance(getattr(model, "__self__", model), torch.nn.Module)
    modes = {}
    # cuDNN has no backward pass of a recurrence in evaluation mode, and rounds where a mask should give exact zeros.
    with _random_state_kept(example), torch.backends.cudnn.flags(enabled=False), torch.inference_mode(False):
        for name in ("training", "evaluation") if has_modes else ("as called",):
            probe = _Probe(model, name, example, predictions, repeats, tolerance, seed)
            modes[name] = _measure(probe, method, at, rank, next_value, tuple(example.shape[1:]))
    methods = " and ".join(sorted({mode.method for mode in modes.values()}))
    share = "all" if len(at) == len(rank) else f"{len(at)} of"
    return Causality(modes, f"by {methods}, {share} {len(rank)} positions, {repeats} inputs")


class _Probe:
    """A model in one mode, inputs for it, and what it predicts for them: (batch, values, classes)."""

    def __init__(self, model, mode, example, predictions, repeats, tolerance, seed):
        self.model, self.mode, self.predictions, self.tolerance = model, mode, predictions, tolerance
        self.random = torch.Generator().manual_seed(seed)
        self.low, high = (float(end) if example.is_floating_point() else int(end) for end in example.aminmax())
        if not np.isfinite([self.low, high]).all():
            raise ValueError("example holds NaN or infinite values")
        self.whole = not example.is_floating_point()
        if self.whole and self.low == high:
            raise ValueError("an example of integers needs at least two different values")
        self.span = high - self.low + self.whole or 1.0
        example = example.detach()[:4].clone()
        if len(example) == 1:  # a second one, to see whether predictions depend on it
            example = torch.cat([example, self.change(example, torch.ones_like(example, dtype=torch.bool))])
        everywhere = torch.ones_like(example, dtype=torch.bool)
        self.batches = [example, *(self.change(example, everywhere) for _ in range(repeats - 1))]
        with torch.no_grad():
            self.before = [self(batch, i) for i, batch in enumerate(self.batches)]
            self.steady = [self._same(i, self(batch, i)) for i, batch in enumerate(self.batches)]

    def __call__(self, batch, seed):
        """The predictions of a new copy, with the same random numbers whenever the seed is the same."""
        owner = getattr(self.model, "__self__", self.model)
        modules = owner.modules() if isinstance(owner, torch.nn.Module) else ()
        attributes = [value for module in modules for value in vars(module).values()]
        computed = [value for value in attributes if isinstance(value, torch.Tensor) and not value.is_leaf]
        copied = copy.deepcopy(self.model, {id(value): value.detach() for value in computed})  # which deepcopy refuses
        if self.mode != "as called":
            getattr(copied, "__self__", copied).train(self.mode == "training")
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        outputs = copied(batch.clone())  # a clone, because a model may write into its input
        return _aligned(self.predictions(outputs) if self.predictions else outputs, batch.shape, bool(self.predictions))

    def change(self, batch, where):
        """The batch with other values of the same range where `where` is True."""
        shape, low, span = batch.shape, self.low, self.span
        if self.whole:
            step = torch.randint(1, span, shape, generator=self.random)
        else:  # far from the old value, because a model may round
            step = span * (0.25 + 0.5 * torch.rand(shape, generator=self.random))
        step = step.to(batch.device, batch.dtype if not self.whole else torch.long)
        return torch.where(where, ((batch - low + step) % span + low).to(batch.dtype), batch)

    def _same(self, i, outputs):
        """(batch, values): the predictions for batch i that `outputs` has unchanged; -inf for a masked class may be."""
        before, outputs = self.before[i].double(), outputs.double()
        scale = before[before.isfinite()].abs().max() if before.isfinite().any() else 1.0
        return ~((outputs - before).abs() > self.tolerance * scale).any(-1)

    def moved(self, i, examples, values):
        """(batch, values): the predictions for batch i that change when values (indices) of examples (slice) do."""
        where = torch.zeros(self.batches[i].shape, dtype=torch.bool)
        where.flatten(1)[examples, values] = True
        outputs = self(self.change(self.batches[i], where.to(self.batches[i].device)), i)
        return (~self._same(i, outputs) & self.steady[i]).cpu().numpy()


def _measure(probe, method, at, rank, next_value, shape):
    """The Mode of a probe."""
    with torch.no_grad():
        others = any(probe.moved(i, slice(1, None), slice(None))[0].any() for i in range(len(probe.batches)))
    own = slice(0, 1) if others else slice(None)  # where examples mix, only what the first one does to itself
    everything = np.argsort(rank, kind="stable")
    if method == "perturbation":
        rows, columns = everything, at
        with torch.no_grad():
            reach, finite = _by_perturbation(probe, at, own)
        reach, finite = reach[everything], finite[everything]
    else:
        rows, columns = at, everything
        with torch.enable_grad():
            reach, finite = _by_gradient(probe, at, own)
        reach = reach[:, everything]
    when = np.sign(rank[columns] - rank[rows, None])
    when[(when == 0) & next_value] = -1
    if method is None and finite.all() and not (reach & (when >= 0)).any():
        # Gradients may vanish (rounding, argmax, one-hot). Change all values that a prediction must not depend on.
        with torch.no_grad():
            cuts = ((n % len(probe.batches), rank[position]) for n, position in enumerate(at))
            cuts = (probe.moved(i, own, rank >= r + next_value)[own, rank <= r].any() for i, r in cuts)
            if not reach.any() or any(cuts):
                return _measure(probe, "perturbation", at, rank, next_value, shape)
    positions = [tuple(map(int, position)) for position in np.ndindex(*shape)]
    rows, columns = [positions[row] for row in rows], [positions[column] for column in columns]
    return Mode(method or "gradient", rows, columns, reach, when, bool(others), int((~finite).sum()))


def _by_gradient(probe, at, own):
    """Which values have a gradient of the predictions `at`, (at, values), and whether these are finite, (at,)."""
    reach = np.zeros((len(at), probe.batches[0][0].numel()), bool)
    finite = np.ones(len(at), bool)
    for i, batch in enumerate(probe.batches):
        batch = batch.clone().requires_grad_()
        outputs = probe(batch, i)
        if not outputs.requires_grad:
            continue
        # Random weights, because a plain sum is constant over the classes of a softmax, or over a normalised batch.
        weights = torch.randn(outputs[:, 0].shape, generator=probe.random).to(outputs)
        for row, position in enumerate(at):
            weighted = (weights * outputs[:, position])[own].sum()
            (slope,) = torch.autograd.grad(
                weighted, batch, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            slope = slope[own].flatten(1).abs()
            finite[row] &= slope.isfinite().all().item()
            reach[row] |= (slope > probe.tolerance * slope.max()).any(0).cpu().numpy()
    return reach, finite


def _by_perturbation(probe, at, own):
    """Which predictions change with the values `at`, (predictions, at), and whether they are numbers, (predictions,)."""
    if not all(steady.all() for steady in probe.steady):
        raise ValueError("two evaluations of the same input differ, so that a change of the input proves nothing")
    finite = ~np.any([before.isnan().any(-1).any(0).cpu().numpy() for before in probe.before], axis=0)
    reach = [
        np.any([probe.moved(i, own, position)[own].any(0) for i in range(len(probe.batches))], axis=0)
        for position in at
    ]
    return np.stack(reach, 1), finite


def _rank(order, shape):
    """The place of each value in the order, (values,); equal for values that are predicted at the same time."""
    if order is None:
        order = torch.arange(int(np.prod(shape))).view(shape)
        if len(shape) == 3:  # (channels, rows, columns): the channels of a pixel follow each other
            channels, rows, columns = shape
            order = torch.arange(order.numel()).view(rows, columns, channels).permute(2, 0, 1)
        elif len(shape) > 3:
            raise ValueError(f"no default order for examples of shape {shape}: pass order=")
    try:
        order = np.broadcast_to(torch.as_tensor(order).cpu().numpy(), shape).ravel()
    except ValueError:
        raise ValueError(f"order must broadcast to the shape of one example, {shape}") from None
    return np.unique(order, return_inverse=True)[1].ravel()


def _positions(at, shape, rank, seed):
    """Flat indices of the positions to measure, in autoregressive order."""
    if isinstance(at, int):
        if at < 1:
            raise ValueError("at must be a positive number, or a list of positions")
        chosen = np.argsort(rank, kind="stable")
        if at < len(rank):
            between = np.random.default_rng(seed).permutation(chosen[1:-1])
            chosen = np.concatenate([chosen[-1:], chosen[:1], between])[:at]
    else:
        try:
            chosen = [np.ravel_multi_index(tuple(np.atleast_1d(position)), tuple(shape)) for position in at]
            chosen = np.unique(np.array(chosen, int))
        except (TypeError, ValueError):
            raise ValueError(f"at must be positions in an example of shape {tuple(shape)}, such as (0, 3, 3)") from None
        if not len(chosen):
            raise ValueError("at must hold at least one position")
    return chosen[np.argsort(rank[chosen], kind="stable")]


def _aligned(outputs, shape, classes_last):
    """Predictions of any unambiguous layout for examples of `shape` as (batch, values, classes)."""
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(
            f"the model returns a {type(outputs).__name__}, no tensor: pass predictions=lambda out: out[0]"
        )
    (batch, *values), sizes = shape, list(outputs.shape[1:])
    count = int(np.prod(values))
    if outputs.ndim and len(outputs) == batch:
        if [n for n in sizes if n > 1] == [n for n in values if n > 1]:
            return outputs.reshape(batch, count, 1)
        for least in (0, 1):  # as it stands, then without axes of size 1: one channel may have no axis
            values, sizes = ([n for n in axes if n > least] for axes in (values, sizes))
            outputs = outputs.reshape(batch, *sizes)
            axes = [axis for axis in range(len(sizes)) if sizes[:axis] + sizes[axis + 1 :] == values]
            if len(axes) > 1 and classes_last and axes[-1] == len(sizes) - 1:
                axes = axes[-1:]
            if len(axes) == 1:
                return outputs.movedim(axes[0] + 1, -1).reshape(batch, count, -1)
            if axes:
                break
    message = (
        f"which axis of the predictions {(batch, *sizes)} holds the classes of examples {tuple(shape)} is not clear"
    )
    message += ": pass predictions=, a function that returns (batch, *values) or (batch, *values, classes)"
    several = [k for k, (n, of) in enumerate(zip(sizes, values, strict=False)) if n != of and n % of == 0]
    if len(sizes) == len(values) and len(several) == 1:
        k, of = several[0] + 1, values[several[0]]
        classes = sizes[k - 1] // of
        message += (
            f", such as lambda out: out.unflatten({k}, ({of}, {classes})).movedim({k + 1}, -1) if the classes of "
        )
        message += f"one value lie together, else lambda out: out.unflatten({k}, ({classes}, {of})).movedim({k}, -1)"
    raise ValueError(message)


@contextlib.contextmanager
def _random_state_kept(example):
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([example.device] if example.is_cuda else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
