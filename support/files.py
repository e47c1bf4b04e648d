"""Files and settings: what a reader gives is checked here, and what is kept is written here.

A setting that cannot do, and a file that cannot be found, read or written, raise a LabError that says what to do.
"""

import contextlib
import csv
import json
import math
import numbers
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

DATA = Path(__file__).parent.parent / "data"


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


class NoFileError(LabError):
    """There is no such file; anything else that keeps one from being read is a plain LabError."""


def as_path(value, wanted):
    """`value`, a string or a path, as a Path whose ~ stands for the home folder; `wanted` says what it should name."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise LabError(f"{wanted} is wanted, as a path, not {type(value).__name__}.")
    if not str(value).strip() or str(value) == "." or "\0" in str(value):
        raise LabError(f"{wanted} is wanted, as a path; {str(value)!r} names no file.")
    try:
        os.fsencode(value)  # letters that this system's names cannot have
        return Path(value).expanduser()
    except (RuntimeError, UnicodeEncodeError) as error:  # RuntimeError: ~somebody, whose home is not known
        raise LabError(f"The path {shortened(repr(value))} cannot be looked at: {error}") from error


def existing(value, wanted, advice=""):
    """`as_path` of a file or folder that is there and may be read, else a LabError (NoFileError where there is nothing)
    that ends on `advice`."""
    path = as_path(value, wanted)
    shown = shortened(path)
    try:
        path.stat()  # unlike exists(), it tells a missing file from one that cannot be looked at
        if not os.access(path, os.R_OK):
            raise LabError(f"{shown} may not be read by this user. Change its permissions, or read a copy.")
    except FileNotFoundError as error:
        raise NoFileError(f"There is no file {shown}. {advice}".rstrip()) from error
    except OSError as error:  # a name that is too long, a folder that is locked, a file where a folder should be
        raise LabError(f"{shown} cannot be looked at: {error.strerror or error}. {advice}".rstrip()) from error
    return path


@contextlib.contextmanager
def reading(value, wanted, advice=""):
    """Yields the path of an `existing` file; whatever is raised while it is read becomes a LabError that says so."""
    path = existing(value, wanted, advice)
    if not path.is_file():
        raise LabError(f"{shortened(path)} is a folder or a device. {wanted} is wanted. {advice}".rstrip())
    try:
        yield path
    except OSError as error:
        raise LabError(f"{shortened(path)} cannot be read: {error.strerror or error}. {advice}".rstrip()) from error
    except MemoryError as error:
        raise LabError(f"{shortened(path)} takes more memory than there is. {advice}".rstrip()) from error
    except Exception as error:  # there is no telling what a damaged file leads to
        reason = shortened(" ".join(str(error).split())).rstrip(".")
        raise LabError(f"{shortened(path)} is damaged or is something else: {reason}. {advice}".rstrip()) from error


def arrays_of(path):
    """The shape and type of each array in an .npz file, by its name. Nothing is unpacked or unpickled for it: a small
    file may hold more than memory does, and numpy would advise to unpickle what is none of its own.

    Raises ValueError for any other file.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    if name.endswith(".npy"):
                        read = readers.get(np.lib.format.read_magic(file))
                        shape, _, dtype = read(file) if read else ((), None, np.dtype(object))  # a table
                        arrays[name.removesuffix(".npy")] = shape, dtype
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError("it is no .npz file, or a damaged one") from error
    return arrays


@contextlib.contextmanager
def written_whole(value, wanted):
    """Yields the path of an unfinished file beside `value`, which takes its place once all is written, or not at all.

    Folders that are missing are made; a link stays a link, and what it names is written. Who may read and write a file
    that is there stays as it is (its mode; the owner is who writes). Raises LabError, the old file untouched, where it
    cannot be written. Of two processes that write the same file at once, the file of the one that ends last is there in
    the end, whole.
    """
    shown = as_path(value, wanted)
    path = Path(os.path.realpath(shown))
    # A name of its own, also among processes of several machines, and no longer than a name may be.
    unfinished = path.parent / f"{path.name[:40]}.{secrets.token_hex(4)}.unfinished"
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "there is a folder or a device of that name")
        if path.exists() and not os.access(path, os.W_OK):  # it could be replaced all the same: that asks the folder
            raise OSError(0, "the file that is there is write-protected")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # before anything is in it: what is private is so from the start
            unfinished.touch(0o600, exist_ok=False)
            with contextlib.suppress(OSError):  # some file systems have no modes
                unfinished.chmod(path.stat().st_mode & 0o777)
        yield unfinished
        with unfinished.open("r+b") as file:  # on the disk before it takes the old one's place, should the power go
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, UnicodeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file stands where its folder should be"
        kept = "Nothing was lost, and a file that was there is as it was. Free some space, or name another place."
        raise LabError(f"{shortened(shown)} cannot be written: {reason}. {kept}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


class _OnlyTriedError(Exception):
    """Nothing is written after all."""


def check_writable(*values):
    """Before hours of work: the LabError that `written_whole` would raise after them where one of these files cannot be
    written. Folders that are missing are made."""
    for value in values:
        with contextlib.suppress(_OnlyTriedError), written_whole(value, "A name for a file") as unfinished:
            unfinished.touch()
            raise _OnlyTriedError


def plain(value):
    """`value` as JSON keeps it: numpy's and torch's numbers and arrays as Python's, a path as its text, a tuple as a
    list; anything else as it is."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(one) for one in value]
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def write_table(path, settings, names, rows):
    """A CSV in UTF-8, whatever the locale: a comment with the settings as JSON, the names of the columns, the rows.

    Raises LabError where it cannot be written, or a setting is none that JSON keeps; the old file then stays.
    """
    try:
        head = json.dumps(settings)
    except (TypeError, ValueError) as error:
        advice = "Use Python's own numbers, texts and lists."
        raise LabError(f"{path} is left as it is: its settings cannot be written ({error}). {advice}") from error
    with (
        written_whole(path, "A name for a CSV file") as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(f"# {head}\n")
        csv.writer(file).writerows([names, *rows])


def read_table(path, advice="", labels=0):
    """What `write_table` wrote: settings, names of the columns, and rows: the first `labels` columns as lists of text,
    the others as numbers, (rows, columns - labels). Raises LabError, which ends on `advice`, where that cannot be."""
    with reading(path, "A CSV file", advice) as path, path.open(encoding="utf-8-sig", newline="") as file:
        settings = json.loads(file.readline().removeprefix("# "))  # -sig: Excel puts a mark before it
        names, *rows = csv.reader(file, strict=True)
        numbers = np.array([row[labels:] for row in rows], dtype=float)
        if not isinstance(settings, dict) or numbers.shape != (len(rows), len(names) - labels):
            raise ValueError("its first line holds no settings, or its rows are not of one length")
    return settings, names, [row[:labels] for row in rows], numbers


def shortened(shown, most=200):
    """A path or text, cut where it is too long for a message."""
    text = str(shown)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"
