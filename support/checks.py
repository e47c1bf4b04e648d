"""What a reader gives is checked here: settings, pictures and sequences that cannot be used raise a LabError, which
says what to do."""

import contextlib
import math
import numbers
import sys

import numpy as np
import torch


class LabError(ValueError):
    """Something the reader can mend: the message says what is wrong and what to do."""


def whole(name, value, minimum=1):
    """`value` if it is a whole number of at least `minimum`, else a LabError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise LabError(f"{name} must be a whole number of at least {minimum}, not {value!r}.")
    return int(value)


def number(name, value, least=0.0, most=math.inf, above=False):
    """`value` if it is a finite number from `least` (or above it) to `most`, else a LabError that names it."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not (real and math.isfinite(value) and (least < value if above else least <= value) and value <= most):
        up_to = f" and at most {most:g}" if most < math.inf else ""
        raise LabError(
            f"{name} must be a number {'above' if above else 'of at least'} {least:g}{up_to}, not {value!r}."
        )
    return float(value)


def wholes(name, values, minimum=1):
    """`values`, one whole number or several, as a list of at least one, each at least `minimum`; else a LabError."""
    values = list(values) if np.iterable(values) else [values]
    if not values:
        raise LabError(f"{name} must hold at least one whole number.")
    return [whole(f"Each of {name}", value, minimum) for value in values]


def choice(name, value, allowed):
    """`value` if it is one of `allowed`, else a LabError that lists them."""
    if value not in tuple(allowed):
        raise LabError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
    return value


def _numbers(name, value):
    """`value` as an array of numbers, else a LabError that names it."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths; a tensor with a gradient
        raise LabError(f"{name} is wanted as an array of numbers: {error}") from error
    if array.dtype.kind not in "buif":
        raise LabError(f"{name} is wanted as an array of numbers, not of {array.dtype}.")
    return array


def _checked_picture(picture):
    picture = _numbers("A picture", picture)
    if picture.ndim != 3 or picture.size == 0:
        raise LabError(f"A picture has the shape (rows, columns, channels), none of them 0, not {picture.shape}.")
    if picture.shape[-1] not in (1, 3):
        raise LabError(f"A picture has 1 channel (grey) or 3 (colour), not {picture.shape[-1]}.")
    if not np.isfinite(picture).all():
        raise LabError("The picture has values that are not finite (NaN or infinite). Replace them first.")
    return picture


def check_tensor(sequences, floating=True):
    """Raises LabError, which says how to get one, unless `sequences` are a tensor; `floating`: of floating-point
    numbers, of any precision, since a model converts those to its own."""
    wanted = "Sequences are wanted as a float32 tensor (batch, steps, input_size)"
    if not isinstance(sequences, torch.Tensor):
        raise LabError(
            f"{wanted}, not as {type(sequences).__name__}. torch.tensor(values, dtype=torch.float32) makes one of an "
            "array or a list; a TensorDataset holds it: dataset.tensors[0]."
        )
    if floating and not sequences.is_floating_point():
        raise LabError(
            f"{wanted}, not of {sequences.dtype}. sequences.float() converts them; divide bytes by 255 then."
        )


def _check_sequences(model, sequences):
    """A clear error now rather than a puzzling one, or a silent NaN, later."""
    check_tensor(sequences)
    if sequences.ndim != 3 or 0 in sequences.shape or sequences.shape[-1] != model.input_size:
        shape = tuple(sequences.shape)
        raise LabError(f"The model reads (batch, steps, {model.input_size}), none of them 0; it was given {shape}.")
    low, high = torch.aminmax(sequences.detach())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise LabError("The sequence has values outside [0, 1], or NaN. `to_batch` scales a picture's values.")


@contextlib.contextmanager
def ended_in_words(interrupted=""):
    """What a tool does: a LabError ends the program with its message, Ctrl-C with 130, as a shell tells it, and with
    the text `interrupted`."""
    try:
        yield
    except LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted)
        sys.exit(130)
