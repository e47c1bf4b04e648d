"""Pictures of an .npz or a PNG file, compressed into a file and back: python -m pixelrnn.coding pack | unpack."""

import argparse
import contextlib
import math
import sys

import numpy as np

from pixelrnn.coding import codec, colour_codec, png
from pixelrnn.coding.file_format import ARITHMETIC, read_header
from pixelrnn.models import saving, weights
from support import files
from support.checks import LabError, choice

STORED = weights.NAMES + weights.COLOUR
ADVICE = (
    "An .npz of pictures (count, rows, columns) is wanted, of colour (count, rows, columns, 3), or a PNG of red, green "
    "and blue; numpy.savez(path, pictures=...) writes an .npz."
)
ICON = 16, 16
LARGEST = 2**29  # bytes of an array of pictures in a file: 680,000 of 28 x 28, which take hours


def load_weights(name):
    """A model by the name of stored weights, or by the path of a file that `saving.save_model` wrote."""
    if name in STORED:
        return weights.load(name)[0]
    try:
        return saving.load_model(name)
    except files.NoFileError as error:
        raise LabError(f"{files.shortened(name)} is no file of weights, and none of {', '.join(STORED)}.") from error


def read_pictures(path):
    """Pictures of a file, whole numbers, numpy, and what else is in it, in words.

    A PNG file has one, (1, rows, columns, 3); of the arrays of an .npz file it is "pictures", or the only one there is:
    (count, rows, columns), or of colour (count, rows, columns, 3).
    """
    if png.is_png(path):
        picture, others = png.read(path)
        return picture[None], others
    with files.reading(path, "An .npz file of pictures", ADVICE) as path:
        held = files.arrays_of(path)
    told = files.shortened(path)
    if "pictures" not in held and len(held) != 1:
        raise LabError(f'{told} has the arrays {", ".join(held)}, and none is called "pictures". {ADVICE}')
    name = "pictures" if "pictures" in held else next(iter(held))
    shape, kind = held.pop(name)
    if kind.kind == "O":
        raise LabError(f"{told} is damaged or is something else: its array holds objects. {ADVICE}")
    if kind.kind not in "biu":
        raise LabError(f"The pictures of {told} are of type {kind}; whole numbers from 0 are wanted.")
    if math.prod(shape) * kind.itemsize > LARGEST:
        size = f"its {shape[0]:,} pictures take {math.prod(shape) * kind.itemsize:,} bytes in memory"
        raise LabError(f"{told}: {size}, more than {LARGEST:,}: split it into several files.")
    with files.reading(path, "An .npz file of pictures", ADVICE), np.load(path, allow_pickle=False) as arrays:
        return arrays[name], list(held)


def checked(pictures, model):
    """Pictures on the model's levels, of the smallest type. Raises LabError for others."""
    of_colour = colour_codec.codes(model)
    if pictures.ndim == 4 and not of_colour:
        advice = "icons or photographs do, or weights of your own."
        raise LabError(f"These weights do not code colour pictures, {pictures.shape}; {advice}")
    if pictures.ndim == 3 and pictures.shape[2] == 3:
        advice = "one colour picture is `pictures[None]`."
        raise LabError(f"Pictures are (count, rows, columns), or (count, rows, columns, 3); {advice}")
    (colour_codec if of_colour else codec).check_shape(pictures.shape, model)
    top = colour_codec.LEVELS - 1 if of_colour else codec.levels_of(model) - 1
    if pictures.size and not 0 <= pictures.min() <= pictures.max() <= top:
        raise LabError(f"The model codes whole numbers from 0 to {top}; these pictures hold others.")
    return pictures.astype(np.min_scalar_type(top), copy=False)


def _another(path, source):
    """Raises LabError where a result would be written over its source, or cannot be written."""
    path = files.as_path(path, "A name for the result")
    if path.exists() and path.samefile(files.as_path(source, "A file")):
        raise LabError(f"{files.shortened(path)} is the file that is read; give the result another name.")
    files.check_writable(path)


@contextlib.contextmanager
def _in_memory():
    """Where memory ends, as numpy, Python or torch say it, a LabError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise LabError("These pictures take more memory than there is. Nothing was written. Take fewer.") from error


@_in_memory()
def pack(source, path, name=None, arithmetic="exact"):
    """Compress the pictures of an .npz or a PNG file into another file.

    name: weights as for `load_weights`; if not given, "letters", and for colour "icons" or, if they are not of 16 x 16,
        "photographs".

    Returns their number, the bytes of the file, and the names of what else is in the source and not in it.
    """
    choice("arithmetic", arithmetic, ARITHMETIC)
    pictures, others = read_pictures(source)
    usual = "letters" if pictures.ndim != 4 else "icons" if pictures.shape[1:3] == ICON else "photographs"
    model = load_weights(name or usual)
    pictures = checked(pictures, model)
    _another(path, source)
    if not colour_codec.codes(model):
        data = codec.encoded(pictures, model, arithmetic)
    elif arithmetic == "exact":
        data = colour_codec.compress(pictures, model)
    else:
        raise LabError("Colour pictures are compressed in exact arithmetic alone.")
    with files.written_whole(path, "A name for compressed pictures") as unfinished:
        unfinished.write_bytes(data)
    return len(pictures), len(data), others


@_in_memory()
def unpack(source, path, name=None):
    """Write the pictures of a compressed file to an .npz file, or one colour picture to a PNG file if `path` ends in
    .png; of stored weights, the right ones are found."""
    with files.reading(source, "A file of compressed pictures") as path_of_source:
        data = path_of_source.read_bytes()
        head, _ = read_header(data)
    models = (load_weights(one) for one in ([name] if name else STORED))
    model = next((one for one in models if codec.digest(one) == head["weights"]), None)
    if model is None:
        advice = "Name them by --weights, as when the file was written."
        raise LabError(f"It was compressed with other weights than {name or 'the stored ones'}. {advice}")
    ending, of_colour = str(path).lower()[-4:], colour_codec.codes(model)
    if ending not in (".npz", ".png"):
        raise LabError("Give a name that ends in .npz, or in .png for one colour picture.")
    if ending == ".png" and not (of_colour and head["count"] == 1):
        told = f"{files.shortened(source)} holds {head['count']:,} {'colour' if of_colour else 'binary'} pictures"
        raise LabError(f"{told}; a PNG file is written of one colour picture. Give a name that ends in .npz.")
    _another(path, source)
    try:
        whole = (colour_codec.decompress if of_colour else codec.decoded)(data, model)
    except LabError as error:
        raise LabError(f"{files.shortened(source)}: {error}") from error
    if ending == ".png":
        png.write(whole[0], path)
        return 1, len(data)
    with files.written_whole(path, "A name for an .npz file") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, pictures=whole)
    return len(whole), len(data)


def main(words=None):
    """Run one command; words: those of the command line."""
    parser = argparse.ArgumentParser("python -m pixelrnn.coding", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, told in (("pack", "pictures (.npz, .png) -> compressed file"), ("unpack", "and back")):
        one = commands.add_parser(command, help=told, description=told)
        one.add_argument("source")
        one.add_argument("path")
        usual = "pack: letters; colour: icons if 16 x 16, else photographs"
        one.add_argument("--weights", help=f"{', '.join(STORED)}, or a file of weights ({usual})")
    commands.choices["pack"].add_argument("--arithmetic", choices=ARITHMETIC, default=ARITHMETIC[0])
    arguments, others = parser.parse_args(words), []
    try:
        if arguments.command == "pack":
            count, size, others = pack(arguments.source, arguments.path, arguments.weights, arguments.arithmetic)
        else:
            count, size = unpack(arguments.source, arguments.path, arguments.weights)
    except LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        told = f"Interrupted. Nothing was written; {arguments.path}, where it was there, is as it was."
        print(told, file=sys.stderr)
        sys.exit(130)  # as a shell tells it
    pictures = f"{count:,} picture{'s' * (count != 1)}"
    if arguments.command == "unpack":
        print(f"{pictures}, from {size:,} bytes: {arguments.path}")
    else:
        each = f", {8 * size / count:,.1f} bits each" if count else ""
        print(f"{pictures}, {size:,} bytes{each}: {arguments.path}")
    if others:
        print(f"Not in that file: {', '.join(others)}. Keep {arguments.source} for them.", file=sys.stderr)
