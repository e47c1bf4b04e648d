"""Is an autoregressive model causal? Measured on any PyTorch model, not read from its code.

    result = causality(model, images)  # images: (batch, channels, rows, columns)
    assert result.causal, result       # in a test: the message says which prediction depends on which value

An autoregressive model predicts each value from those before it in its order: for images, raster order. A prediction
that also depends on its own value or on later ones (target leakage) makes the loss too good and samples poor.
Source: A. Karpathy, "A Recipe for Training Neural Networks", 2019 ("use backprop to chart dependencies"); masks of type
A and B: van den Oord et al., "Pixel Recurrent Neural Networks", 2016. Needs torch and numpy alone.
"""

import copy
import numbers
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Causality", "causality"]

INPUTS = 3  # batches of different values: for one of them, a ReLU or dropout may hide a path
SHOWN = 3  # predictions that a report lists in each mode


@dataclass(repr=False)
class Causality:
    """What causality() has measured. Modes are "training" and "evaluation", or "current" for a plain function."""

    leaks: dict  # mode -> pairs (prediction, value), each a tuple of indices into an example, in autoregressive order
    mixed: dict  # mode -> whether predictions depend on other examples of the batch
    measured: str  # what was measured, in words

    @property
    def causal(self):
        """Whether, in every mode, predictions depend on earlier values of their own example only."""
        return not any(self.leaks.values()) and not any(self.mixed.values())

    def __str__(self):
        texts = {}  # modes with the same result share a text
        for mode in self.leaks:
            texts.setdefault(self._text(mode), []).append(mode)
        lines = [f"In {' and '.join(modes)} mode, {text}" for text, modes in texts.items()]
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
        lines += [f"    and {len(seen) - SHOWN} more predictions"] * (len(seen) > SHOWN)
        if self.mixed[mode]:
            lines.append("Predictions depend on other examples: batch norm in training, or attention over the batch?")
        elif seen and all(prediction == value for prediction, value in self.leaks[mode]):
            lines.append("Is the first masked convolution of type A? Is the input of an RNN shifted by one?")
        elif seen and all(len(value) == 3 and prediction[1:] == value[1:] for prediction, value in self.leaks[mode]):
            lines.append("Only channels of the same pixel leak: do all masks have them in the same order?")
        elif seen:
            lines.append(
                "Is a mask missing, lost in training or turned? Is an RNN bidirectional, not shifted? Order right?"
            )
        return "\n".join(lines)


def causality(model, example, *, order=None, predictions=None, next_value=False, at=64, tolerance=0.0):
    """Which predictions depend on their own value or on later ones, in training and in evaluation mode: a Causality.

    model: an nn.Module or a method of one: batch -> predictions (logits or means). It is copied, so nothing of it
        changes. A plain function is called as it is, in the mode that its modules are in.
    example: a batch (batch, channels, rows, columns), (batch, steps, features) or (batch, values), floating-point or
        integer. Its first four examples are used, and random values between its smallest and its largest.
    order: numbers that broadcast to the shape of one example; values with smaller numbers are predicted earlier, those
        with equal numbers at the same time, none from another. Default: raster order, and within a pixel channel by
        channel. For whole pixels: torch.arange(rows * columns).view(rows, columns).
    predictions: a function of what the model returns, with the result (batch, *values) or (batch, *values, classes),
        where *values is the shape of one example. Needed if the axis of classes is not clear from the shapes.
    next_value: whether the prediction at a position is for the value after it, as in language models.
    at: the number of positions to measure, at least 2: the first, the last and random ones between.
    tolerance: the share of the largest prediction or gradient that counts as zero; 1e-5 for convolution by FFT.

    At each position, the gradient of the prediction is computed (not for integers), and the value is changed to see
    which predictions change: that shows paths through rounding, too. Dropout has the same random numbers each time.

    Raises ValueError, which says what to do, for arguments or a layout that cannot be used; and for predictions
    that prove nothing: integers, NaN, different ones for the same input, or ones that depend on no value at all.
    """
    tensor = isinstance(example, torch.Tensor) and example.ndim > 1 and example.numel() and not example.is_complex()
    if not tensor or not example.isfinite().all():
        raise ValueError("example must be a tensor (batch, ...) of numbers without NaN: pass a batch of training data.")
    if not example.is_floating_point() and (example == example.flatten()[0]).all():
        raise ValueError(
            "All integers of example are equal, so none can be changed: pass two different values at least."
        )
    shape = tuple(example.shape[1:])
    if not (isinstance(at, int | np.integer) and at >= 2):
        raise ValueError(f"at must be a whole number of at least 2, not {at!r}.")
    number = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, bool)
    if not (number and 0 <= tolerance < float("inf")):  # written so that NaN fails too
        raise ValueError(f"tolerance must be a number of at least 0, not {tolerance!r}.")
    rank = _rank(order, shape)
    places = np.argsort(rank, kind="stable")
    between = np.random.default_rng(0).permutation(places[1:-1])[: at - 2]
    chosen = np.unique(np.concatenate([places[[0, -1]], between]))
    is_module = isinstance(getattr(model, "__self__", model), torch.nn.Module)
    leaks, mixed, positions = {}, {}, list(np.ndindex(shape))
    cuda = [example.device] if example.is_cuda else []
    # cuDNN has no backward pass of a recurrence in evaluation mode, and rounds where a mask should give exact zeros.
    with torch.random.fork_rng(cuda), torch.backends.cudnn.flags(enabled=False), torch.inference_mode(False):
        for mode in ("training", "evaluation") if is_module else ("current",):
            predict = _predictor(model, mode, predictions)
            pairs, mixed[mode] = _dependences(predict, example, chosen, tolerance)
            late = [pair for pair in pairs if rank[pair[1]] >= rank[pair[0]] + next_value]
            late.sort(key=lambda pair: (*rank[list(pair)], *pair))
            leaks[mode] = [(positions[prediction], positions[value]) for prediction, value in late]
    by = "by gradient and " * example.is_floating_point() + "by changing values"
    return Causality(leaks, mixed, f"measured at {len(chosen)} of {len(rank)} positions, {by}")


def _predictor(model, mode, predictions):
    """A function (batch, seed) -> predictions (batch, values, classes) of a copy of the model, the same each time."""
    modules = [] if mode == "current" else list(getattr(model, "__self__", model).modules())
    computed = [value for module in modules for value in vars(module).values() if isinstance(value, torch.Tensor)]
    model = copy.deepcopy(model, {id(value): value.detach() for value in computed})  # weight_norm's cannot be copied
    buffers = getattr(model, "__self__", model).train(mode == "training").buffers() if modules else ()
    kept = [(buffer, buffer.clone()) for buffer in buffers]

    def predict(batch, seed):
        for buffer, before in kept:  # running statistics, for instance
            buffer.copy_(before)
        (torch if batch.is_cuda else torch.default_generator).manual_seed(seed)  # torch.manual_seed is slow on CPUs
        outputs = model(batch.clone())  # a clone, because a model may write into its input
        outputs = _aligned(predictions(outputs) if predictions else outputs, batch.shape, bool(predictions))
        if outputs.isnan().any():
            raise ValueError("Predictions are NaN: check the model's weights, and the range of the example's values.")
        return outputs

    return predict


@torch.no_grad()
def _dependences(predict, example, chosen, tolerance):
    """Pairs (prediction, value) of flat indices, from what the first example does to itself; and if examples mix."""
    random = torch.Generator().manual_seed(0)
    low, high = (end.item() for end in example.cpu().double().aminmax())
    span = high - low or 1.0 if example.is_floating_point() else high - low + 1  # integers: how many there are

    def changed(batch):
        """Other values of the example's range, far from the old ones, because a model may round."""
        step = span * (0.25 + 0.5 * torch.rand(batch.shape, generator=random, dtype=torch.double))
        step = step if batch.is_floating_point() else step.round()
        return ((batch.cpu().double() - low + step) % span + low).to(batch)

    example = example.detach()[:4]
    if len(example) == 1:  # a second one, to see whether predictions depend on it
        example = torch.cat([example, changed(example)])
    pairs, mixed = set(), False
    for seed in range(INPUTS):
        batch = changed(example) if seed else example
        before = predict(batch, seed)
        least = tolerance * before.nan_to_num(posinf=0, neginf=0).abs().max()

        def moved(*where, batch=batch, before=before, least=least, seed=seed):
            """(batch, values): the predictions that change with the values `where` (example, flat index)."""
            mask = torch.zeros(batch.shape, dtype=torch.bool, device=batch.device)
            mask.flatten(1)[where] = True
            after = predict(torch.where(mask, changed(batch), batch), seed)
            return ((after - before).abs() > least).any(-1).cpu()  # -inf - -inf is NaN: not larger

        if moved([], []).any():
            raise ValueError("Two predictions for one input differ: let the model use torch's random numbers only.")
        for one in (0, len(batch) - 1):  # attention over the batch may be causal too, so the first and the last
            mixed |= bool(moved(one)[torch.arange(len(batch)) != one].any())
        for value in chosen:
            pairs |= {(int(prediction), int(value)) for prediction in moved(0, value)[0].nonzero()}
        if batch.is_floating_point():
            pairs |= _by_gradient(predict, batch, seed, chosen, tolerance)
    if not pairs and not mixed:
        raise ValueError("No prediction depends on any value, so this proves nothing: if a layer is zero, train first.")
    return pairs, mixed


def _by_gradient(predict, batch, seed, chosen, tolerance):
    """Pairs (prediction, value) of flat indices where the chosen predictions have a gradient, first example only."""
    with torch.enable_grad():
        inputs = batch.clone().requires_grad_()
        outputs = predict(inputs, seed)[0]
        if not outputs.requires_grad:
            return set()
        # Random weights, because a plain sum is constant over the classes of a softmax.
        weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(seed)).to(outputs)
        settings = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        sums = ((outputs[prediction] * weights).sum() for prediction in chosen)
        slopes = torch.stack([torch.autograd.grad(one, inputs, **settings)[0][0].flatten() for one in sums]).abs()
    if slopes.isnan().any():
        raise ValueError("Gradients are NaN: look for sqrt, log or division at 0 in the model.")
    return {(int(chosen[p]), int(value)) for p, value in (slopes > tolerance * slopes.max()).nonzero()}


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


def _aligned(outputs, shape, classes_last):
    """Predictions for a batch of `shape`, in any layout that leaves no doubt, as (batch, values, classes)."""
    if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
        kind = getattr(outputs, "dtype", type(outputs))
        raise ValueError(f"{kind} has no gradient: take logits or means, such as predictions=lambda out: out[0].")
    for least in (0, 1) if outputs.shape[:1] == shape[:1] else ():  # 1: grey images may have no axis of channels
        sizes, values = ([n for n in axes if n > least] for axes in (outputs.shape[1:], shape[1:]))
        if sizes == values:
            return outputs.reshape(shape[0], -1, 1)
        axes = [axis for axis in range(len(sizes)) if sizes[:axis] + sizes[axis + 1 :] == values]
        axes = axes[-1:] if classes_last else axes
        if len(axes) == 1:
            return outputs.reshape(shape[0], *sizes).movedim(axes[0] + 1, -1).flatten(1, -2)
    raise ValueError(
        f"Predictions {tuple(outputs.shape)} for examples {tuple(shape)}: which axis holds classes? Pass a function "
        "predictions= returning (batch, *values, classes), like lambda out: out.unflatten(1, (-1, 3)).movedim(1, -1)."
    )
