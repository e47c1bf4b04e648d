"""Arithmetic that gives the same bits everywhere (note 9): on every processor, with any number of threads.

Floating-point sums depend on their order, which differs between processors, numbers of threads and batch sizes. Sums
of fixed-point numbers do not: here weights and activations are multiples of 2**-12, held in float64, whose 53 bits hold
every product and every sum of products without rounding, in whatever order, as long as sums stay below 2**29, which is
checked. After a product comes one rounding back to the grid; sigmoid and tanh are tables, computed once in decimal
arithmetic, which is correctly rounded. So a network runs on torch's ordinary kernels, and none of them can choose its
last digit.

Networks of whole numbers for coding: Balle, Johnston and Minnen 2019, "Integer Networks for Data Compression with
Latent-Variable Models". Theirs are trained so; here the weights are rounded after training.
"""

import copy
import decimal
import functools

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import helpers
from support.checks import LabError

BITS = 12  # behind the point, of weights and activations
GRID = 2**BITS
WIDEST = 16  # where sigmoid is cut off: its tail is below the 24 bits that the coder sees
FINE = 2**24  # steps of the tables of probabilities
# Of products' results, and of the absolute weights of one output, summed. Up to 127 results may then be added (residual
# connections, averages) before they are multiplied again: no sum of products reaches 2**29.
LARGEST = 2**11
# Of the tables. Not the thread's own context: what a program has set there must not change them.
DECIMAL = decimal.Context(prec=24, rounding=decimal.ROUND_HALF_EVEN)

# What moves values, compares them, or adds them: exact for numbers on the grid, as it is. A name may be added if its
# results are on the grid again, whatever the kernel, and stay below 2**29: tests/test_codec.py compares processors.
_NAMES = """
_local_scalar_dense _to_copy _unsafe_view abs add add_ alias all amax aminmax arange argmax bitwise_and cat clamp
clone constant_pad_nd copy_ detach empty eq expand flip full gather ge gt index le lift_fresh lt ne neg new_empty
new_zeros permute promote_types relu relu_ round rsub select slice split squeeze stack sub sub_ sum t transpose
transpose_ unbind unsafe_split unsqueeze view zeros zeros_like
"""
AS_IS = set(_NAMES.split())
# Products, whose results have more digits than the grid: exact, then rounded.
ROUNDED = {"addmm", "bmm", "convolution", "div", "mm", "mul", "mul_"}
TABLES = {"sigmoid": 1, "sigmoid_": 1, "tanh": 2, "tanh_": 2}  # tanh(x) = 2 sigmoid(2x) - 1
LOGARITHMS = 4  # of numbers up to this
FINEST = 9  # minus the logarithm of the smallest scale of a logistic distribution
ROWS = 64  # of probabilities that are computed together: as many as a processor's cache holds


@functools.cache
def _exponentials():
    """exp(-x) for x = 0, 1/4096, ... WIDEST, as Decimals."""
    return [DECIMAL.exp(DECIMAL.divide(-number, decimal.Decimal(GRID))) for number in range(WIDEST * GRID + 1)]


def _table(values):
    return np.array([int(DECIMAL.to_integral_value(DECIMAL.multiply(FINE, value))) for value in values], np.int64)


@functools.cache
def sigmoid_table():
    """sigmoid(x) in steps of 2**-24, for x = -WIDEST, ... WIDEST on the grid; never 0 or 1."""
    right = _table([DECIMAL.divide(1, DECIMAL.add(1, power)) for power in _exponentials()])
    right = np.minimum(right, FINE - 1)
    return np.concatenate([FINE - right[:0:-1], right])


@functools.cache
def exp_table():
    """exp(-x) in steps of 2**-24, for x = 0, ... WIDEST on the grid."""
    return _table(_exponentials())


def _index(x):
    """Numbers on the grid, torch, as indices of `sigmoid_table`, numpy."""
    return (np.clip(x.numpy(), -WIDEST, WIDEST) * GRID).astype(np.int64) + WIDEST * GRID


@functools.cache
def _activations(factor):
    """sigmoid for factor 1, tanh for 2, on the grid, where `sigmoid_table` has an entry."""
    return np.round((factor * (sigmoid_table() / FINE) - (factor - 1)) * GRID) / GRID


@functools.cache
def _logarithms():
    """log(x) on the grid, for x = 1/4096, ... LOGARITHMS."""
    numbers = (DECIMAL.divide(number, GRID) for number in range(1, LOGARITHMS * GRID + 1))
    return np.array([float(DECIMAL.to_integral_value(DECIMAL.multiply(GRID, DECIMAL.ln(x)))) / GRID for x in numbers])


@functools.cache
def _sharpness():
    """exp(FINEST - x), float64, for x = 0, 1/4096, ... WIDEST."""
    return np.array([float(DECIMAL.multiply(DECIMAL.exp(FINEST), power)) for power in _exponentials()])


def rounded(x):
    """To the nearest multiple of 2**-12."""
    return (x * GRID).round_() / GRID


class Exact(TorchDispatchMode):
    """Inside `with Exact():` a model `on_grid` computes the same bits everywhere, or says which operation cannot.

    An operation is allowed if its result does not depend on a kernel's choices. Raises LabError for any other, such as
    the mean and the root of layer norm, and for products beyond LARGEST; with cut_off, these are LARGEST.
    """

    def __init__(self, cut_off=False):
        super().__init__()
        self.cut_off = cut_off

    @classmethod
    def _should_skip_dynamo(cls):  # torch hides each call from its compiler, which takes as long as the call itself
        return False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name, kwargs = operation.overloadpacket.__name__, kwargs or {}
        off_grid = any(isinstance(one, float) and one * GRID % 1 for one in args)  # a number that is added
        if name in AS_IS and not off_grid:
            return operation(*args, **kwargs)
        if name in ROUNDED or name in AS_IS:
            result = rounded(operation(*args, **kwargs))
            if self.cut_off:
                result.clamp_(-LARGEST, LARGEST)
            elif result.numel() and not max(map(abs, torch.aminmax(result))) <= LARGEST:  # or NaN
                raise LabError(f'Numbers beyond {LARGEST} are not exact here (fixed_point.py). Use arithmetic="float".')
        elif name == "mean":
            total = torch.ops.aten.sum.dim_IntList(*args, **kwargs)
            result = rounded(total / (args[0].numel() // total.numel()))
        elif name == "log" and ((args[0] > 0) & (args[0] <= LOGARITHMS)).all():
            result = torch.from_numpy(_logarithms()[(args[0] * GRID).long().numpy() - 1])
        elif name in TABLES:
            result = torch.from_numpy(_activations(TABLES[name])[_index(TABLES[name] * args[0])])
        else:
            raise LabError(
                f"{name} is not among the operations that are exact here (fixed_point.py). A model with it is computed "
                'in ordinary arithmetic: arithmetic="float".'
            )
        return args[0].copy_(result) if name.endswith("_") else result


def on_grid(model):
    """A copy of a model for `Exact`: on the CPU, float64, its weights rounded to the grid, in evaluation mode."""
    model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.copy_(rounded(weight))
        if not weight.reshape(len(weight), -1).abs().sum(1).amax() <= LARGEST:
            raise LabError('Weights as large as these are not exact here (fixed_point.py). Use arithmetic="float".')
    return model


def outputs(model, sequences):
    """Teacher-forced outputs of a model `on_grid`, all at once, float64."""
    with Exact(), torch.no_grad(), helpers.plain_recurrence():
        return model.teacher_forced(sequences.double())


def bernoulli(logits):
    """P(1) of logits on the grid, float64 numpy, multiples of 2**-24."""
    return sigmoid_table()[_index(logits)] / FINE


def categorical(logits):
    """P of each level (..., levels) of logits on the grid, float64 numpy."""
    weights = _exp(logits.numpy())
    return weights / weights.sum(-1, keepdims=True)


def mixture(outputs):
    """Of each of 256 levels, under a mixture of logistics: whole numbers of some 2**-24, int64 numpy (count, 256).

    outputs: weights, means and the logarithms of scales on the grid, torch (count, 3 * parts); levels are from -1 to 1.
    """
    weights, means, scales = (part.numpy() for part in outputs.chunk(3, -1))
    parts = _exp(weights)
    sharp = _sharpness()[(np.clip(scales + FINEST, 0, WIDEST) * GRID).astype(np.int64)][..., None]
    edges, found = (2 * np.arange(1, 256) - 256) / 255, np.empty((len(parts), 256), np.int64)
    for start in range(0, len(parts), ROWS):
        some = slice(start, start + ROWS)
        below = np.zeros((len(parts[some]), 257), np.int64)  # each level's lower edge, and what is below it
        below[:, 256] = FINE * parts[some].sum(-1)
        x = sharp[some] * (edges - means[some, :, None])  # (rows, parts, 255)
        index = np.rint(np.clip(x, -WIDEST, WIDEST) * GRID).astype(np.int64) + WIDEST * GRID
        below[:, 1:-1] = np.einsum("rp,rpe->re", parts[some], sigmoid_table()[index])
        found[some] = np.diff(below) // parts[some].sum(-1, keepdims=True)
    return found


def copied(new, choices, near):
    """The same where a level is new, with probabilities (count, 256) of `mixture`, or one of those nearby.

    choices: logits on the grid, torch (count, 1 + nearby): new, then each nearby. near: levels, -1 where there is none.
    """
    near = near.long().numpy()
    outside = np.pad(near < 0, ((0, 0), (1, 0)))
    choices = _exp(np.where(outside, -np.inf, choices.numpy())) * ~outside
    found = choices[:, :1] * new
    np.add.at(found, (np.arange(len(near))[:, None], near), choices[:, 1:] * FINE)  # where it is -1, nothing is added
    return found


def chances(found):
    """Whole numbers (count, levels) as probabilities, float64, none of them 0."""
    found = found + found.sum(-1, keepdims=True) // FINE + 1
    return found / found.sum(-1, keepdims=True)


def _exp(x):
    """exp(x) but for a factor for each row, numbers on the grid: whole numbers, of which the largest is FINE."""
    below = np.minimum(x.max(-1, keepdims=True) - x, WIDEST)
    return exp_table()[(below * GRID).astype(np.int64)]
