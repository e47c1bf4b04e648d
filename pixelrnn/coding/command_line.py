"""Pictures of an .npz file, compressed into a file and back: python -m pixelrnn.coding pack | unpack."""

import argparse
import contextlib
import math
import sys

import numpy as np

from pixelrnn.coding import codec
from pixelrnn.coding.file_format import ARITHMETIC, read_header
from pixelrnn.models import saving, weights
from support import files
from support.checks import LabError, choice

LARGEST = 2**29  # bytes of an array of pictures in a file: 680,000 of 28 x 28, which take hours


def load_weights(name):
    """A model by the name of stored weights, or by the path of a file that `saving.save_model` wrote."""
    return weights.load(name)[0] if name in weights.NAMES else saving.load_model(name)


def read_pictures(path, model):
    """Pictures of an .npz file, whole numbers (count, rows, columns) on the model's levels, numpy, and the names of the
    other arrays in it; the name of the pictures' is "pictures", or it is the only one."""
    advice = "An .npz of pictures (count, rows, columns) is wanted; numpy.savez(path, pictures=...) writes one."
    with files.reading(path, "An .npz file of pictures", advice) as path:
        held = files.arrays_of(path)
        if "pictures" not in held and len(held) != 1:
            raise LabError(f'It has the arrays {", ".join(held)}, and none is called "pictures"')
        name = "pictures" if "pictures" in held else next(iter(held))
        shape, kind = held.pop(name)
        if kind.kind not in "biu":
            raise LabError(f"Its pictures are of type {kind}; whole numbers from 0 are wanted")
        codec.check_shape(shape, model)
        if math.prod(shape) * kind.itemsize > LARGEST:
            told = f"Its {shape[0]:,} pictures take {math.prod(shape) * kind.itemsize:,} bytes in memory"
            raise LabError(f"{told}, more than {LARGEST:,}: split it into several files")
        with np.load(path, allow_pickle=False) as arrays:
            pictures = arrays[name]
        top = codec.levels_of(model) - 1
        if pictures.size and not 0 <= pictures.min() <= pictures.max() <= top:
            raise LabError(f"The model codes whole numbers from 0 to {top}; its pictures hold others")
    return pictures.astype(np.min_scalar_type(top), copy=False), list(held)


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
def pack(source, path, name="letters", arithmetic="exact"):
    """Compress the pictures of an .npz file into another file; the weights are named as for `load_weights`.

    Returns their number, the bytes of the file, and the names of arrays in the .npz that are not in it.
    """
    model = load_weights(name)
    pictures, others = read_pictures(source, model)
    data = codec.encoded(pictures, model, choice("arithmetic", arithmetic, ARITHMETIC))
    with files.written_whole(path, "A name for compressed pictures") as unfinished:
        unfinished.write_bytes(data)
    return len(pictures), len(data), others


@_in_memory()
def unpack(source, path, name=None):
    """Write the pictures of a compressed file to an .npz file; of stored weights, the right ones are found."""
    with files.reading(source, "A file of compressed pictures") as path_of_source:
        data = path_of_source.read_bytes()
        head, _ = read_header(data)
    models = (load_weights(one) for one in ([name] if name else weights.NAMES))
    model = next((one for one in models if codec.digest(one) == head["weights"]), None)
    if model is None:
        advice = "Name them by --weights, as when the file was written."
        raise LabError(f"It was compressed with other weights than {name or 'the stored ones'}. {advice}")
    whole = codec.decoded(data, model)
    with files.written_whole(path, "A name for an .npz file") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, pictures=whole)
    return len(whole), len(data)


def main(words=None):
    """Run one command; words: those of the command line."""
    parser = argparse.ArgumentParser("python -m pixelrnn.coding", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, told in (("pack", "pictures (.npz) -> compressed file"), ("unpack", "and back")):
        one = commands.add_parser(command, help=told, description=told)
        one.add_argument("source")
        one.add_argument("path")
        one.add_argument("--weights", help=f"{', '.join(weights.NAMES)}, or a file of weights (pack: letters)")
    commands.choices["pack"].add_argument("--arithmetic", choices=ARITHMETIC, default=ARITHMETIC[0])
    arguments, others = parser.parse_args(words), []
    try:
        if arguments.command == "pack":
            name = arguments.weights or "letters"
            count, size, others = pack(arguments.source, arguments.path, name, arguments.arithmetic)
        else:
            count, size = unpack(arguments.source, arguments.path, arguments.weights)
    except LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        told = f"Interrupted. Nothing was written; {arguments.path}, where it was there, is as it was."
        print(told, file=sys.stderr)
        sys.exit(130)  # as a shell tells it
    each = f", {8 * size / count:.1f} bits each" if count else ""
    print(f"{count:,} pictures, {size:,} bytes compressed{each}: {arguments.path}")
    if others:
        print(f"Not in that file: {', '.join(others)}. Keep {arguments.source} for them.", file=sys.stderr)
