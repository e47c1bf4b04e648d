"""Files: found and read with a clear error, written whole or not at all.

One that cannot be found, read or written raises a LabError that says what to do.
"""

import contextlib
import csv
import json
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from support.checks import LabError

DATA = Path(__file__).parent.parent / "data"


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
