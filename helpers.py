"""Everything the PixelRNN lab notebook shares, in the order the data flows.

    data -> model -> training -> generation -> measurement -> pictures

A picture is an array (rows, columns, channels). It is flattened into a sequence (steps, input_size), one step a
row or a pixel, whose values lie in [0, 1]. A model sees a batch of sequences (batch, steps, input_size) and
predicts every step from the steps before it. What is predicted is compared with the same tensor, drawn from, or
turned back into a picture. The models of note 6 are in paper.py; what is done with them is done here.

Source of the experiments: "PixelRNN, image generation with RNN (lab note 1: model architecture)", TeeTracker,
2022, called "the article" below.
"""

import contextlib
import copy
import csv
import datetime
import gzip
import io
import itertools
import json
import math
import numbers
import os
import re
import secrets
import signal
import sys
import time
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

DATA = Path(__file__).parent / "data"

# scikit-image imports pooch, and pooch a progress bar that asks, in a notebook, for widgets which nothing here uses.
warnings.filterwarnings("ignore", message="IProgress not found")

# A recurrent step waits for the one before it, and small steps share out badly: one thread is the fastest here.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


def use_all_cores():
    """As many threads as this process may use, for large matrices; OMP_NUM_THREADS, where it is set, still decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


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


# ======================================================================================================================
# Files: found, read and written, or a LabError that says what to do
# ======================================================================================================================


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
        raise LabError(f"The path {_shortened(repr(value))} cannot be looked at: {error}") from error


def existing(value, wanted, advice=""):
    """`as_path` of a file or folder that is there and may be read, else a LabError (NoFileError where there is nothing)
    that ends on `advice`."""
    path = as_path(value, wanted)
    told = _shortened(path)
    try:
        path.stat()  # unlike exists(), it tells a missing file from one that cannot be looked at
        if not os.access(path, os.R_OK):
            raise LabError(f"{told} may not be read by this user. Change its permissions, or read a copy.")
    except FileNotFoundError as error:
        raise NoFileError(f"There is no file {told}. {advice}".rstrip()) from error
    except OSError as error:  # a name that is too long, a folder that is locked, a file where a folder should be
        raise LabError(f"{told} cannot be looked at: {error.strerror or error}. {advice}".rstrip()) from error
    return path


@contextlib.contextmanager
def reading(value, wanted, advice=""):
    """Yields the path of an `existing` file; whatever is raised while it is read becomes a LabError that says so."""
    path = existing(value, wanted, advice)
    if not path.is_file():
        raise LabError(f"{_shortened(path)} is a folder or a device. {wanted} is wanted. {advice}".rstrip())
    try:
        yield path
    except OSError as error:
        raise LabError(f"{_shortened(path)} cannot be read: {error.strerror or error}. {advice}".rstrip()) from error
    except Exception as error:  # there is no telling what a damaged file leads to
        reason = _shortened(" ".join(str(error).split())).rstrip(".")
        raise LabError(f"{_shortened(path)} is damaged or is something else: {reason}. {advice}".rstrip()) from error


@contextlib.contextmanager
def written_whole(value, wanted):
    """Yields the path of an unfinished file beside `value`, which takes its place once all is written, or not at all.

    Folders that are missing are made; a link stays a link, and what it names is written. Raises LabError, the old file
    untouched, where it cannot be written. Of two processes that write the same file at once, the file of the one that
    ends last is there in the end, whole.
    """
    told = as_path(value, wanted)
    path = Path(os.path.realpath(told))
    # A name of its own, also among processes of several machines, and no longer than a name may be.
    unfinished = path.parent / f"{path.name[:40]}.{secrets.token_hex(4)}.unfinished"
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "there is a folder or a device of that name")
        if path.exists() and not os.access(path, os.W_OK):  # it could be replaced all the same: that asks the folder
            raise OSError(0, "the file that is there is write-protected")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except (OSError, UnicodeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file stands where its folder should be"
        kept = "Nothing was lost, and a file that was there is as it was. Free some space, or name another place."
        raise LabError(f"{_shortened(told)} cannot be written: {reason}. {kept}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


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


def _shortened(told, most=200):
    """A path or text, cut where it is too long for a message."""
    text = str(told)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


# ======================================================================================================================
# Data: a picture becomes a sequence, and back again exactly
# ======================================================================================================================

# scikit-image carries these in its package, so that no download is needed.
BUNDLED = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
PICTURE_HELP = f"Give the path of a picture, or one of the bundled names: {', '.join(BUNDLED)}."
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "GIF")  # JPEG includes MPO, which phones write
# What turns a picture upright, by its EXIF orientation (1 is upright). Pillow's own exif_transpose writes the rest of
# the EXIF block anew as well, and fails where any of it is broken.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's own reader of uncompressed TIFFs scrambles those that are turned, and 16-bit channels in separate planes.
TiffImagePlugin.READ_LIBTIFF = True
# One text of a PNG (a prompt, a workflow) may be as long as Pillow allows for all of them together: 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def load_picture(source, size=None, gray=False):
    """A picture as uint8 (rows, columns, channels): 1 channel if `gray`, else 3 (red, green, blue).

    source: the name of a bundled picture (see BUNDLED), or the path of a PNG, JPEG (also a phone's MPO: its first
        picture), WebP, TIFF, AVIF, BMP or GIF file with one picture. Transparent pixels are laid over white, 16-bit
        values are scaled to 8 bits, a photograph is turned the way its camera was held.
    size: None keeps the picture's size; a whole number or (rows, columns) cuts the largest centred part of that shape
        and scales it with Pillow's Lanczos filter, which computes in integers: the same pixels on every machine.

    Raises LabError, which says what to do, for a file that is missing, unreadable, damaged, animated, too large, not a
    picture, or of values whose black and white are unknown (signed, 32-bit or floating-point).
    """
    path = as_path(source, f"A picture's file, or one of the bundled names ({', '.join(BUNDLED)}),")
    if str(path) in BUNDLED:
        import skimage.data  # here, so that reading one's own file does not wait for scikit-image

        picture = Image.fromarray(getattr(skimage.data, str(path))())
    else:
        path = existing(path, "A picture", PICTURE_HELP)
        picture = _in_bytes(_open(path), path)
    picture = picture.convert("L" if gray else "RGB")
    if size is not None:
        try:
            rows, columns = size
        except (TypeError, ValueError):  # not two
            rows = columns = size
        rows, columns = whole("size (rows)", rows), whole("size (columns)", columns)
        if rows * columns > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise LabError(f"size asks for {rows} x {columns} pixels, too many to make safely. Choose a smaller one.")
        picture = ImageOps.fit(picture, (columns, rows), method=Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)  # grey: (rows, columns) -> (rows, columns, 1)


def _open(path):
    """The file's picture as it is stored, whole in memory."""
    if not path.is_file():
        raise LabError(f"{path} is a folder, or no ordinary file. {PICTURE_HELP}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata that is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
            # An MPO is one photograph, which its preview, depth map or brighter version may follow.
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if frames > 1:
                parts = "pages" if picture.format == "TIFF" else "frames"
                raise LabError(f"{path} holds {frames} {parts}. Save the one you want as a PNG of its own.")
            if picture.format == "PNG" and picture.mode == "L" and "transparency" in picture.info:
                # Pillow spreads grey of 2 or 4 bits over 8, but not the one value of it that is transparent.
                picture.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(picture.tile[0].args, 1)
            picture.load()
    except LabError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LabError(f"{path} has too many pixels to open safely. Scale it down first. ({error})") from error
    except UnidentifiedImageError as error:
        raise LabError(
            f"{path} is not a picture that can be read. Save it as PNG, JPEG, WebP, AVIF, BMP, GIF or TIFF (of 8 or 16 "
            "bits), or get a whole copy of it. HEIC and a camera's raw files are exported as JPEG or PNG."
        ) from error
    except PermissionError as error:
        raise LabError(f"{path} may not be read: {error.strerror}. Change its permissions, or read a copy.") from error
    except Exception as error:  # Pillow raises of many kinds, whatever it meets first in a damaged file
        told = f"{path} is damaged, or of a rare kind: {error}."
        raise LabError(f"{told} Get a whole copy of the file, or export it as JPEG or PNG.") from error
    return picture


def _in_bytes(picture, path):
    """The picture upright, 8 bits a channel, without transparency."""
    tags = getattr(picture, "tag_v2", {})  # a TIFF's
    if tags.get(254) == 1:  # its NewSubfileType: a reduced version of another image
        raise LabError(f"{path} begins with a preview, as a camera's raw file does. Export it as JPEG or PNG.")
    bits, kinds = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    if bits > 16 or set(kinds) != {1}:
        kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kinds[0], "unusual")
        told = f"{path} holds {bits}-bit {kind} values, whose black and white are unknown."
        raise LabError(f"{told} Save it with 8 bits.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a broken EXIF block, on which Pillow raises of many kinds, says nothing
        turn = None
    picture = picture if turn is None else picture.transpose(turn)
    if picture.mode.startswith("I;16"):  # grey of 16 bits, or a microscope's 12
        white = 2**bits - 1
        values = np.asarray(picture)
        values = np.where(values == picture.info.get("transparency"), white, values)  # its transparent value, if any
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # a scanner's 0 may be white
            values = white - values
        return Image.fromarray(np.round(values / (white / 255)).astype(np.uint8))
    picture = picture.convert({"La": "LA", "LAB": "RGB"}.get(picture.mode, picture.mode))  # the only ways out of these
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


def binarize(picture, threshold=128):
    """A picture of 0 and 1, uint8 of the same shape: 1 where a value is at least the threshold.

    picture: whole numbers 0 .. 255 (rows, columns, channels).
    threshold: a number, above 0 and up to 255, the same for every channel; or "otsu": for each channel the threshold
        that parts its values best (Otsu 1979, scikit-image).
    """
    picture = _checked_picture(picture)
    if picture.dtype.kind not in "ui" or picture.min() < 0 or picture.max() > 255:
        raise LabError(
            f"binarize takes whole numbers 0 .. 255, not {picture.dtype} from {picture.min()} to {picture.max()}. "
            "Convert the picture first, from [0, 1] for instance with np.round(255 * picture).astype(np.uint8)."
        )
    picture = picture.astype(np.uint8)
    if isinstance(threshold, str) and threshold == "otsu":
        from skimage.filters import threshold_otsu

        # Otsu's threshold is the last value of the lower class, hence + 1.
        threshold = np.array([int(threshold_otsu(picture[..., channel])) + 1 for channel in range(picture.shape[-1])])
    elif (
        isinstance(threshold, bool)
        or not isinstance(threshold, int | float | np.integer | np.floating)
        or not 0 < threshold <= 255  # not NaN either
    ):
        raise LabError(f"threshold must be a number above 0 and up to 255, or 'otsu', not {threshold!r}.")
    return (picture >= threshold).astype(np.uint8)


def flatten(picture, step="row"):
    """The picture as a sequence (steps, input_size), dtype kept.

    step: "row", the article's `reshape(image.shape[0], -1)`: (rows, columns * channels);
        "pixel": (rows * columns, channels).
    """
    picture = _checked_picture(picture)
    if choice("step", step, ("row", "pixel")) == "row":
        return picture.reshape(picture.shape[0], -1)  # (rows, columns, channels) -> (rows, columns * channels)
    return picture.reshape(-1, picture.shape[-1])  # (rows, columns, channels) -> (rows * columns, channels)


def unflatten(sequence, shape):
    """The picture (rows, columns, channels) that `flatten` turned into this sequence; `shape` is the picture's."""
    sequence = _numbers("A sequence", sequence)
    shape = tuple(whole("Each length in a picture's shape", length) for length in np.ravel(shape))
    if sequence.size != math.prod(shape):
        raise LabError(f"A sequence of {sequence.size} values does not fill a picture of shape {shape}.")
    return sequence.reshape(shape)  # (steps, input_size) -> (rows, columns, channels)


def to_bit_planes(sequence):
    """Bytes (steps, input_size), uint8, as the bits of their Gray code, (steps, input_size * 8), highest bit first.

    In Gray's code neighbouring numbers differ in one bit, so that a small step in grey does not flip all eight.
    """
    sequence = _numbers("A sequence", sequence)
    if sequence.dtype != np.uint8 or sequence.ndim != 2:
        raise LabError(f"Bit planes are made of bytes (steps, input_size), not of {sequence.dtype} {sequence.shape}.")
    gray = sequence ^ (sequence >> 1)
    return np.unpackbits(gray, axis=-1)  # (steps, input_size) -> (steps, input_size * 8)


def from_bit_planes(bits):
    """The inverse of `to_bit_planes`: bits (steps, input_size * 8) -> uint8 (steps, input_size)."""
    bits = _numbers("Bits", bits)
    if bits.ndim != 2 or bits.shape[-1] % 8 or not np.isin(bits, (0, 1)).all():
        raise LabError(f"Bit planes are 0 and 1, (steps, input_size * 8), not {bits.dtype} {bits.shape}.")
    gray = np.packbits(bits.astype(np.uint8), axis=-1)  # (steps, input_size * 8) -> (steps, input_size)
    for shift in (1, 2, 4):  # each bit is the parity of itself and all higher ones
        gray = gray ^ (gray >> shift)
    return gray


def to_batch(sequence, levels):
    """Whole numbers 0 .. levels - 1, (steps, input_size), as a batch of one in [0, 1]: (1, steps, input_size).

    Its dtype is torch's default, float32 unless it was set otherwise.
    """
    sequence, levels = _numbers("A sequence", sequence), whole("levels", levels, 2)
    if sequence.ndim != 2 or sequence.size == 0:
        raise LabError(f"A sequence has the shape (steps, input_size), none of them 0; this one has {sequence.shape}.")
    if not (sequence.min() >= 0 and sequence.max() < levels and (sequence == np.floor(sequence)).all()):
        raise LabError(f"The sequence has values outside 0 .. {levels - 1}, or not whole. Binarise or round it first.")
    numbers = np.ascontiguousarray(sequence, np.int64)  # torch takes no flipped array and no foreign byte order
    return torch.tensor(numbers, dtype=torch.get_default_dtype())[None] / (levels - 1)


def to_levels(batch, levels):
    """The inverse of `to_batch`, for any batch: (batch, steps, input_size) in [0, 1] -> whole numbers, numpy."""
    return torch.round(batch.detach().cpu() * (whole("levels", levels, 2) - 1)).to(torch.int64).numpy()


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


def load_digits():
    """The 1,797 digits inside scikit-learn, 8 x 8, levels 0 .. 16: uint8 (count, rows, columns).

    Grey, so that a picture's rows are its steps: (count, rows, columns) is (batch, steps, input_size).
    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI repository; its test part.
    """
    import sklearn.datasets  # here, so that other notebooks do not wait for it

    return sklearn.datasets.load_digits().images.astype(np.uint8)


MNIST_FILES = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
}  # name -> SHA-256 of name.gz
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_ARRAYS = (("train_images", "x_train"), ("test_images", "x_test"))  # of an .npz, by either name
MNIST_HELP = (
    "Set the environment variable PIXELRNN_MNIST (or the parameter MNIST) to the folder that holds MNIST's files "
    f"({', '.join(MNIST_FILES)}, as they are or as .gz), to an .npz with the arrays train_images and test_images, or "
    "to the word download, which fetches 12 MB into data/mnist/."
)


def load_mnist(source=None):
    """MNIST's training and test images, uint8 (count, 28, 28) each, in their original order.

    source: a folder with the two IDX files, plain or .gz; an .npz with train_images and test_images (or x_train and
        x_test); "download", which fetches them once and checks their SHA-256; None takes the environment variable
        PIXELRNN_MNIST. A relative path starts in the project's folder.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.

    Raises LabError, which says what to do, where there is none or what is there is damaged.
    """
    if isinstance(source, str | None):
        source = source or os.environ.get("PIXELRNN_MNIST")
        if not source:
            raise LabError(f"MNIST is not part of this project. {MNIST_HELP}")
    path = as_path(source, "MNIST's folder or .npz")
    path = _download_mnist() if str(path) == "download" else existing(DATA.parent / path, "MNIST", MNIST_HELP)
    try:
        if path.is_dir():
            images = [_read_idx(path / name) for name in MNIST_FILES]
        else:
            with np.load(path, allow_pickle=False) as file:
                images = [np.asarray(file[name if name in file else other]) for name, other in MNIST_ARRAYS]
    except LabError:
        raise
    except Exception as error:  # numpy raises of many kinds on what is not its own, and advises to unpickle it
        told = f"MNIST at {path} is damaged or is something else than a folder of its files or an .npz of its arrays."
        raise LabError(f"{told} {MNIST_HELP}") from error
    for array in images:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or len(array) == 0:
            raise LabError(f"MNIST's images are uint8 (count, 28, 28), those at {path} {array.dtype} {array.shape}.")
    return images


def binarized_mnist(source=None, static=False):
    """MNIST binarised by one protocol: training, validation and test sequences, float32 (count, 28, 28).

    A grey value is the probability of a 1 (Salakhutdinov and Murray 2008). Training is on the first 50,000 training
    images, settings are chosen on the other 10,000 (validation), results are of all 10,000 test images; validation and
    test are binarised once with a fixed seed. Training images stay grey, to be binarised anew for each batch
    (dynamic: `train(..., prepare=torch.bernoulli)`), or are binarised once too (static). Source: see `load_mnist`.
    """
    images, test = (torch.tensor(part, dtype=torch.float32) / 255 for part in load_mnist(source))
    if len(images) <= 10_000:
        raise LabError(f"MNIST has 60,000 training images, not {len(images):,}: some are kept for validation.")
    seeded = torch.Generator().manual_seed(0)
    test, validation = torch.bernoulli(test, generator=seeded), torch.bernoulli(images[-10_000:], generator=seeded)
    training = images[:-10_000]
    return torch.bernoulli(training, generator=seeded) if static else training, validation, test


def _read_idx(path):
    """The images of an IDX file, plain or .gz: big-endian 2051, count, rows, columns, then a byte for each pixel."""
    packed = path.with_name(path.name + ".gz")
    path = existing(packed if packed.is_file() else path, "MNIST", MNIST_HELP)
    try:
        with gzip.open(path) if path == packed else path.open("rb") as file:
            head, body = file.read(16), file.read()
        if len(head) < 16 or head[:4] != b"\0\0\x08\x03":
            raise ValueError("it does not begin like MNIST's images")
        return np.frombuffer(body, np.uint8).reshape(np.frombuffer(head, ">u4")[1:])  # -> (count, rows, columns)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise LabError(f"{path} is damaged or is something else: {error}. {MNIST_HELP}") from error


def _download_mnist():
    """The folder of MNIST's files, fetched where they are not there yet."""
    import pooch

    try:
        for name, sha256 in MNIST_FILES.items():
            pooch.retrieve(f"{MNIST_URL}{name}.gz", sha256, f"{name}.gz", DATA / "mnist", progressbar=someone_watches())
    except (OSError, ValueError) as error:  # no network; not the file that was promised
        raise LabError(f"MNIST could not be downloaded: {error}. {MNIST_HELP}") from error
    return DATA / "mnist"


class KnownSource:
    """Binary pictures whose probabilities are known: each value is drawn given the value above and the one to its left.

    rule: (above, left), each (..., columns) of 0 and 1, the whole row above and for each value the one to its left ->
        the probability that the value is 1, (..., columns). The first row is drawn evenly; left of a row is 0.

    Sequences are (batch, rows, columns) of 0 and 1, float32.
    """

    def __init__(self, rule, rows, columns):
        self.rule, self.rows, self.columns = rule, whole("rows", rows), whole("columns", columns)

    def draw(self, count):
        """`count` sequences. Set the seed before: torch.manual_seed."""
        chance = torch.rand(count, self.rows, self.columns)
        rows = [(chance[:, 0] < 0.5).float()]
        for t in range(1, self.rows):
            row = torch.zeros(count, self.columns)
            for i in range(self.columns):
                ones = self.rule(rows[-1], F.pad(row[:, :-1], (1, 0)))  # (count, columns)
                row[:, i] = (chance[:, t, i] < ones[:, i]).float()
            rows.append(row)
        return torch.stack(rows, 1)

    def nats(self, sequences):
        """The true negative log-likelihood of each sequence, nats: (batch,). No model is better on average."""
        self._check(sequences)
        ones = self.rule(sequences[:, :-1], F.pad(sequences[:, 1:, :-1], (1, 0)))  # left of a row is 0
        return self._nats(ones, sequences)

    def row_independent_nats(self, sequences):
        """That of the best model that predicts the values of a row independently of each other, nats: (batch,).

        It predicts each value's marginal given the row above, by forward recursion along the row:
        P(1) = P(left is 1) P(1 | left is 1) + P(left is 0) P(1 | left is 0).
        """
        self._check(sequences)
        above = sequences[:, :-1]
        after_zero, after_one = self.rule(above, torch.zeros_like(above)), self.rule(above, torch.ones_like(above))
        ones = [after_zero[..., 0]]
        for i in range(1, self.columns):
            ones.append(ones[-1] * after_one[..., i] + (1 - ones[-1]) * after_zero[..., i])
        return self._nats(torch.stack(ones, -1), sequences)

    def _check(self, sequences):
        if sequences.shape[1:] != (self.rows, self.columns) or not ((sequences == 0) | (sequences == 1)).all():
            raise LabError(f"This source writes 0 and 1, (batch, {self.rows}, {self.columns}); it was given others.")

    def _nats(self, ones, sequences):
        """From the probabilities that the values below the first row are 1, (batch, rows - 1, columns)."""
        below = F.binary_cross_entropy(ones.double(), sequences[:, 1:].double(), reduction="none").sum((1, 2))
        return (below + self.columns * math.log(2)).numpy()


def rule_90(above, left, flips=0.05):
    """Noisy cellular automaton: the exclusive or of the two neighbours above, flipped now and then."""
    neighbours = F.pad(above, (1, 1))  # outside is 0
    exclusive = (neighbours[..., :-2] != neighbours[..., 2:]).float()
    return flips + (1 - 2 * flips) * exclusive


def above_and_left(above, left, by_above=1.5, by_left=-2.0):
    """A value likes to be as its neighbours where the strength, in logits, is above 0, and unlike where it is below."""
    return torch.sigmoid(by_above * (2 * above - 1) + by_left * (2 * left - 1))


# ======================================================================================================================
# Model: the steps before predict the next
# ======================================================================================================================

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
READS = ("values", "levels")
PREDICTS = ("values", "bits", "levels")
START = 0.5  # every value of the start token: half-way between black and white, a value that no bit has
EMBEDDING = 16  # numbers that stand for one value within a joint head


class SequenceModel(nn.Module):
    """What every model of this series is asked for: it gives `teacher_forced` outputs, and this turns them into a loss
    or into values. It says of itself what it `reads` and `predicts`, its `levels` and `input_size`, whether the values
    of a step are predicted from each other (`joint`), and whether no prediction hears itself or its future (`causal`).
    To be drawn from it has `step` and `draw`, says whether it `streams`, and how many steps its `window` has (or None).
    """

    causal = True

    def losses(self, sequences, told=None):
        """Loss of each value, teacher-forced, (batch, steps, input_size): squared error for "values", else negative
        log-likelihood in nats.

        told: what stands before each prediction, where it is not the true sequences (None: it is).
        """
        outputs = _at_least_float32(self.teacher_forced(sequences if told is None else told))
        sequences = sequences.to(outputs)
        if self.predicts == "values":
            return F.mse_loss(outputs, sequences, reduction="none")
        if self.predicts == "bits":
            return F.binary_cross_entropy_with_logits(outputs, sequences, reduction="none")
        levels = torch.round(sequences * (self.levels - 1)).long()
        return F.cross_entropy(outputs.movedim(-1, 1), levels, reduction="none")  # cross_entropy's levels are axis 1

    def loss(self, sequences, told=None):
        """Mean of `losses` over all values."""
        return self.losses(sequences, told).mean()

    def decode(self, outputs, temperature=0.0, chance=None):
        """Values in [0, 1], (..., input_size): the most probable at temperature 0, else drawn from softmax(logits /
        temperature), where `chance` (..., input_size), uniform in [0, 1), decides. "values" are what they are, clipped.
        """
        outputs = _at_least_float32(outputs)
        if self.predicts == "values":
            return outputs.clamp(0, 1)
        if self.predicts == "bits":
            return (outputs > 0 if temperature == 0 else chance < torch.sigmoid(outputs / temperature)).to(outputs)
        if temperature == 0:
            return outputs.argmax(-1).to(outputs) / (self.levels - 1)
        logits = (outputs - outputs.amax(-1, keepdim=True)) / temperature  # at most 0, however low the temperature
        below = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # P(level <= 0), P(level <= 1), ...
        return (below <= chance[..., None]).sum(-1).to(outputs) / (self.levels - 1)

    def one_by_one(self, output_at, y, temperature):
        """A step drawn value by value, (batch, input_size), and its outputs, by a model that has `read_in`.

        output_at(place, told) gives the outputs of one value, (batch, levels or 1), told those to its left, (batch,
        place * per_input). y (batch, features) only says how many, of what type and where.
        """
        chance = torch.rand(len(y), self.input_size, device=y.device) if temperature else None
        told, values, outputs = y[:, :0], [], []
        for place in range(self.input_size):
            output = output_at(place, told)
            outputs.append(output if self.predicts == "levels" else output.squeeze(-1))
            values.append(self.decode(outputs[-1], temperature, None if chance is None else chance[:, place]))
            told = torch.cat([told, self.read_in(values[-1][:, None])], 1)  # (batch, (place + 1) * per_input)
        return torch.stack(values, 1), torch.stack(outputs, 1)


class GenModel(SequenceModel):
    """The article's model: a recurrent network over steps (rows or pixels), then a head that predicts the next step.

    input_size: length of one step, e.g. columns * channels.
    hidden_size, num_layers, bidirectional: as in torch.nn.LSTM.
    cell: "lstm", "gru" or "rnn".
    norm: what stands between the recurrent layer and the head: None, "batch" (the article's optimisation; in training
        mode its statistics run over every step, later ones too) or "layer" (each step by itself).
    dropout: the probability with which each feature is left out before the head, in training mode only.
    output: "seq2seq" (many-to-many) gives a prediction at every step; "seq2vec" (many-to-one) gives one at the last
        step, `y[:, -1, :]`, and is trained on windows of `window` steps.
    head: "independent" (the article's linear layer) predicts all values of a step at once from the steps before;
        "joint" predicts each from the steps before and the values to its left, see JointHead.
    reads: how a value is told to the network: "values", a number from -1 to 1, or "levels", one-hot over the levels
        (a value between two levels is shared between them).
    predicts: "values" in [0, 1] (mean squared error), "bits" (Bernoulli, logits) or "levels" (categorical, logits).
    levels: how many levels a value has where it is read or predicted as one.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bidirectional=False,
        *,
        cell="lstm",
        norm=None,
        dropout=0.0,
        output="seq2seq",
        window=None,
        head="independent",
        reads="values",
        predicts="bits",
        levels=256,
    ):
        super().__init__()
        input_size, hidden_size = whole("input_size", input_size), whole("hidden_size", hidden_size)
        bidirectional = bool(choice("bidirectional", bidirectional, (False, True)))
        if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.number) or not 0 <= dropout < 1:
            raise LabError(f"dropout is a probability below 1, not {dropout!r}.")
        if choice("output", output, ("seq2seq", "seq2vec")) == "seq2vec":
            window = whole("window (of a seq2vec model)", window)
        elif window is not None:
            raise LabError("Only a seq2vec model has a window; a seq2seq model reads the whole sequence.")
        if choice("head", head, ("independent", "joint")) == "joint" and predicts == "values":
            raise LabError('A joint head gives probabilities: let it predict "bits" or "levels", not "values".')
        self.settings = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": whole("num_layers", num_layers),
            "bidirectional": bidirectional,
            "cell": choice("cell", cell, CELLS),
            "norm": choice("norm", norm, (None, "batch", "layer")),
            "dropout": float(dropout),
            "output": output,
            "window": window,
            "head": head,
            "reads": choice("reads", reads, READS),
            "predicts": choice("predicts", predicts, PREDICTS),
            "levels": whole("levels", levels, 2),
        }
        self.input_size, self.output, self.window = input_size, output, window
        self.reads, self.predicts, self.levels, self.joint = reads, predicts, int(levels), head == "joint"
        per_input = self.levels if reads == "levels" else 1  # numbers that tell the network one value
        per_output = self.levels if predicts == "levels" else 1  # numbers that the head gives for one value
        features = hidden_size * (2 if bidirectional else 1)
        self.rnn = CELLS[cell](
            input_size * per_input, hidden_size, int(num_layers), batch_first=True, bidirectional=bidirectional
        )
        self.norm = {None: nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[norm](features)
        self.dropout = nn.Dropout(dropout)
        if self.joint:
            self.head = JointHead(features, input_size, per_input, per_output)
        else:
            self.head = nn.Linear(features, input_size * per_output)

    @property
    def streams(self):
        """Whether one more step can be predicted from the state the steps before it left."""
        return self.output == "seq2seq" and not self.rnn.bidirectional

    @property
    def causal(self):
        """Whether no prediction depends on itself or what comes after it, in evaluation mode."""
        return self.output == "seq2vec" or not self.rnn.bidirectional

    def forward(self, inputs, targets=None):
        """Inputs (batch, steps, input_size) in [0, 1] -> outputs (batch, steps, ...), or (batch, ...) for seq2vec.

        "..." is input_size, and for "levels" (input_size, levels). The output at a step predicts the step after it.
        targets: for a joint head the true steps that are predicted, (batch, steps, input_size) or (batch, input_size)
            for seq2vec, of which each value is shown to those on its right.
        """
        return self.read_out(self.features(inputs), targets)

    def features(self, inputs):
        """Inputs (batch, steps, input_size) -> what the head predicts from, (batch, steps or none, features)."""
        y, _ = self.rnn(self.read_in(inputs))  # (batch, steps, features)
        if self.output == "seq2vec":
            y = y[:, -1, :]  # (batch, features): the only difference between the two
        return y

    def step(self, inputs, state=None):
        """Like features, from the state of the steps before (None: no steps): those of the last step, new state."""
        y, state = self.rnn(self.read_in(inputs), state)
        return y[:, -1, :], state

    def read_in(self, inputs):
        """Inputs (..., input_size) -> what the network is told; "levels": (..., input_size * levels)."""
        dtype = next(self.parameters()).dtype
        if self.reads == "values":
            return (2 * inputs - 1).to(dtype)
        levels = torch.arange(self.levels, device=inputs.device)
        one_hot = F.relu(1 - ((self.levels - 1) * inputs[..., None] - levels).abs())  # (..., input_size, levels)
        return one_hot.flatten(-2).to(dtype)  # (..., input_size, levels) -> (..., input_size * levels)

    def read_out(self, y, targets=None):
        """Features (..., features) -> outputs (..., input_size), for "levels" (..., input_size, levels)."""
        flat = y.reshape(-1, y.shape[-1])  # (..., features) -> (all, features): batch norm wants two axes
        if self.training and len(flat) == 1 and self.settings["norm"] == "batch":
            raise LabError("Batch norm needs more than one step to train on. Use layer norm, or a larger picture.")
        flat = self.dropout(self.norm(flat))
        if self.joint:
            if targets is None:
                raise LabError("A joint head predicts a value from those to its left as well: give it the steps too.")
            flat = self.head(flat, self.read_in(targets).reshape(len(flat), -1))  # (all, input_size * ...) each
        else:
            flat = self.head(flat)
        outputs = flat.reshape(*y.shape[:-1], self.input_size, -1)  # (..., input_size, levels or 1)
        return outputs if self.predicts == "levels" else outputs.squeeze(-1)

    def teacher_forced(self, sequences):
        """Outputs for every step, each from the true values before it: (batch, steps, ...)."""
        _check_sequences(self, sequences)
        batch, steps, _ = sequences.shape
        if self.output == "seq2seq":
            return self(_with_start(sequences[:, :-1]), sequences)
        if self.window > steps:
            raise LabError(
                f"A window of {self.window} steps is longer than the picture's {steps}. Choose a shorter one."
            )
        padded = _with_start(sequences[:, :-1], self.window)  # (batch, window + steps - 1, input_size)
        windows = padded.unfold(1, self.window, 1).transpose(2, 3)  # (batch, steps, window, input_size)
        outputs = self(windows.flatten(0, 1), sequences.flatten(0, 1))  # (batch * steps, ...)
        return outputs.unflatten(0, (batch, steps))  # (batch * steps, ...) -> (batch, steps, ...)

    def draw(self, y, temperature=0.0):
        """The next step (batch, input_size) from its features (batch, features), and the outputs it was drawn from.

        A joint head is asked for each value once those to its left are drawn, and computes that value's part alone.
        """
        if not self.joint:
            outputs = self.read_out(y)
            chance = torch.rand(len(y), self.input_size, device=y.device) if temperature else None
            return self.decode(outputs, temperature, chance), outputs
        return self.one_by_one(self.places(y), y, temperature)

    def places(self, y):
        """For `one_by_one`: (place, told) -> the outputs of that value of the step after features (batch, features)."""
        above, heard = self.head.begin(self.norm(y))
        return lambda place, told: self.head.at(place, told, above, heard)


class JointHead(nn.Module):
    """A distribution of a whole step: each value given the features of the steps before and the values to its left.

    A masked autoregressive network (MADE: Germain et al. 2015) along the step, in which every value is a place of
    EMBEDDING numbers, conditioned on a recurrent state as in RNN-NADE (Boulanger-Lewandowski et al. 2012). Places hear
    all places to their left, so that nothing before a value is hidden from it; colours are places too, red first.

    features (batch, features), told (batch, places * per_input) -> outputs (batch, places * per_output).
    """

    def __init__(self, features, places, per_input, per_output):
        super().__init__()
        self.above = nn.Linear(features, places * EMBEDDING)
        self.left = MaskedLinear(places, per_input, EMBEDDING, own=False)  # the only one that is told values
        self.hidden = nn.ModuleList(MaskedLinear(places, EMBEDDING, EMBEDDING) for _ in range(2))
        self.out = MaskedLinear(places, EMBEDDING, per_output)

    def forward(self, features, told):
        x = self.above(features) + self.left(told)  # (batch, places * EMBEDDING)
        for layer in self.hidden:
            x = x + layer(F.relu(x))
        return self.out(F.relu(x))

    def begin(self, features):
        """Before a step is drawn: what each place is told of the steps above, and what each layer has heard so far."""
        return self.above(features), [features[:, :0]] * (len(self.hidden) + 1)

    def at(self, place, told, above, heard):
        """The outputs of one place, (batch, per_output), told the values to its left, (batch, place * per_input)."""
        x = above[:, place * EMBEDDING : (place + 1) * EMBEDDING] + self.left.at(place, told)
        for number, layer in enumerate((*self.hidden, self.out)):
            heard[number] = torch.cat([heard[number], F.relu(x)], 1)  # (batch, (place + 1) * EMBEDDING)
            y = layer.at(place, heard[number])
            x = y if layer is self.out else x + y
        return x


class MaskedLinear(nn.Linear):
    """A linear layer from places to places, (batch, places * inputs) -> (batch, places * outputs), in which a place
    hears those to its left, and itself if `own`."""

    def __init__(self, places, inputs, outputs, own=True):
        super().__init__(places * inputs, places * outputs)
        self.inputs, self.outputs, self.own = inputs, outputs, own
        mask = torch.ones(places, places).tril(0 if own else -1)  # (places that hear, places that are heard)
        mask = mask.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1)  # of each place, all its numbers
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)

    def at(self, place, x):
        """One place of the output, (batch, outputs), from the places it hears; x may hold more, and no less."""
        heard = (place + self.own) * self.inputs
        part = slice(place * self.outputs, (place + 1) * self.outputs)
        return F.linear(x[:, :heard], self.weight[part, :heard], self.bias[part])


def _at_least_float32(tensor):
    """Losses and probabilities are not rounded to bfloat16, which has three digits; float64 stays as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _with_start(sequences, tokens=1):
    """Sequences (batch, steps, input_size) with `tokens` start tokens before their first step."""
    return F.pad(sequences, (0, 0, tokens, 0), value=START)


def _check_sequences(model, sequences):
    """A clear error now rather than a puzzling one, or a silent NaN, later."""
    if sequences.ndim != 3 or 0 in sequences.shape or sequences.shape[-1] != model.input_size:
        shape = tuple(sequences.shape)
        raise LabError(f"The model reads (batch, steps, {model.input_size}), none of them 0; it was given {shape}.")
    low, high = torch.aminmax(sequences.detach())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise LabError("The sequence has values outside [0, 1], or NaN. `to_batch` scales a picture's values.")


def _built(name, settings):
    """The model of this series with that name and these settings, and new weights, on the CPU."""
    import paper  # here, since paper imports this module

    models = {model.__name__: model for model in (GenModel, *paper.MODELS)}
    if name not in models:
        raise LabError(f"{name!r} is none of the models of this series, {', '.join(models)}.")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # so that what is drawn later is what it was
        return models[name](**settings)


def _structure(model):
    """What a model's weights belong to: the kinds of its parts, by name, and the shape of each weight."""
    kinds = [(type(part).__module__, type(part).__qualname__) for part in model.modules()]
    return kinds, {name: weight.shape for name, weight in model.state_dict().items()}


def save_model(model, path):
    """The weights as safetensors, with the model's name and settings in the same file. Written whole or not at all.

    model: one of this series (GenModel, or of paper.py), on any device and of any dtype. Of one that torch.compile or
        DistributedDataParallel wraps, the model inside is saved.

    Raises LabError, the old file untouched, where it cannot be written, or where `load_model` would not give it back.
    """
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    name = type(model).__name__
    try:
        settings = getattr(model, "settings", {})  # a model of the reader's own may have none
        if _structure(_built(name, settings)) != _structure(model):
            raise LabError("It is no longer what its settings build.")
        metadata = {"settings": json.dumps({"model": name, **settings})}  # one entry: several come in any order
    except (AttributeError, TypeError, ValueError) as error:
        advice = "safetensors.torch.save_model writes the weights of any model, without its settings."
        raise LabError(f"save_model cannot keep this {name}: {error} Nothing was written. {advice}") from error
    # Copies, since safetensors refuses weights that share their memory, as tied ones do.
    weights = {
        name: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, weight in model.state_dict().items()
    }
    with written_whole(path, "A name for the weights file") as unfinished:
        unfinished.write_bytes(safetensors.torch.save(weights, metadata))  # the file of save_file is its owner's alone


def load_model(path):
    """The model that `save_model` wrote, on the CPU, in evaluation mode, of the dtype it had.

    Raises LabError for a file that is missing, damaged or not to be read.
    """
    with reading(path, "A weights file", "Train a model and write it with save_model.") as path:
        # Read at once: safe_open opens a file twice, between which another process may put a new one in its place.
        data = path.read_bytes()
        weights = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        settings = json.loads(header.get("__metadata__", {}).get("settings", "null"))
        if not isinstance(settings, dict):
            raise LabError("It holds no settings of a model.")
        model = _built(settings.pop("model", "GenModel"), settings)  # the first files named no model
        dtypes = [weight.dtype for weight in weights.values() if weight.is_floating_point()]
        model.to(*dtypes[:1])  # the masks too, which are not in the file
        model.load_state_dict(weights, assign=True)
    return model.eval()


# ======================================================================================================================
# Devices and processes
# ======================================================================================================================


def choose_device(name="auto"):
    """The torch.device of that name, after a small LSTM on it has given the CPU's values and gradients.

    "auto" takes a CUDA GPU, else Apple's MPS, else the CPU, and passes over a device whose LSTM is wrong (MPS has been:
    pytorch issue 92615). In one of several processes (torchrun) "cuda" is the GPU of that process.
    Raises LabError for a name that is unknown, absent here, or whose LSTM is wrong.
    """
    if name == "auto":
        for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            with contextlib.suppress(LabError):
                if there:
                    return choose_device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))
        off = _lstm_difference(device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # torch's ways to say no
        reason = str(error).splitlines()[0]
        raise LabError(f"There is no device {name!r} here: {reason} Choose 'auto', 'cpu', 'cuda' or 'mps'.") from error
    if not off < 1e-3:
        raise LabError(f"An LSTM on {device} is off the CPU's values by {off:.2g}. Use the CPU.")
    return device


def _lstm_difference(device):
    """The largest difference between an LSTM there and on the CPU, outputs and gradients, whose size is about 1."""
    results = []
    for place in ("cpu", device):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(3, 7, 5, generator=generator)
        lstm = nn.LSTM(5, 16, num_layers=2, batch_first=True)
        with torch.no_grad():
            for weight in lstm.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
        lstm, inputs = lstm.to(place), inputs.to(place).requires_grad_()
        outputs = lstm(inputs)[0]
        outputs.square().sum().backward()
        results.append(torch.cat([tensor.detach().cpu().flatten() for tensor in (outputs, inputs.grad)]))
    return (results[0] - results[1]).abs().max().item()


def has_bfloat16(device):
    """Whether a model can be trained in bfloat16 there without emulation: an LSTM runs, and instructions exist."""
    device = torch.device(device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            nn.LSTM(4, 4, device=device)(torch.zeros(1, 1, 4, device=device))[0].sum().backward()
    except RuntimeError:  # oneDNN has no such LSTM for this processor
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def _autocast(device, bfloat16):
    """Matrix products in bfloat16 where that is asked for and the device has it; a warning where it has not."""
    if bfloat16 and not has_bfloat16(device):
        warnings.warn(f"No instructions for bfloat16 ({device}): training in float32, which is slower.", stacklevel=3)
        bfloat16 = False
    return lambda: torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()


def process():
    """The number of this process (its rank) and how many train together: (0, 1) outside of `several_processes`."""
    on = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if on else (0, 1)


@contextlib.contextmanager
def several_processes(device):
    """While it lasts, `train` splits its batches over the processes that torchrun started; one alone stays alone.

    They talk through NCCL where each has a GPU of its own, else through Gloo. Only rank 0 prints and warns; that only
    rank 0 writes is up to the caller (see `process`). Once in a program, around all of it: a second group of the same
    processes could read the addresses of the first, and wait for them. Within another it adds nothing.
    Raises LabError where they do not find each other. What takes ten minutes longer on one process ends all.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or process()[1] > 1:
        yield
        return
    if not dist.is_available():
        raise LabError("This build of torch knows no processes (torch.distributed). Start one, without torchrun.")
    own_gpu = device.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if own_gpu else "gloo", timeout=datetime.timedelta(minutes=10))
    except (RuntimeError, ValueError) as error:
        raise LabError(f"The processes do not find each other ({error}). Start them with torchrun.") from error
    with contextlib.ExitStack() as silence:
        if dist.get_rank():
            silence.enter_context(contextlib.redirect_stdout(None))
            silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield
    dist.destroy_process_group()  # not after an error, when the others may never answer: torchrun ends them


class _Processes:
    """What the processes that train one model have in common, within `with`; a process alone sends nothing.

    All make the same batches with the same random numbers, and each takes every `count`-th sequence of them. One sum an
    update (all-reduce) gives all of them the mean loss and gradient; the seconds are rank 0's. An interrupt of any is
    noted, and stops all before the same update, so that none waits for one that has left.
    Source: the data parallelism of torch.distributed, without DDP, which needs the model's forward.
    """

    def __init__(self, model, device):
        self.model, self.device, self.interrupted = model, device, False
        self.rank, self.count = process()
        if self.count > 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
            raise LabError("Batch norm takes its statistics within one process. Use layer norm with several.")

    def __enter__(self):
        self.handler = signal.getsignal(signal.SIGINT)
        self.notes = self.count > 1 and self.handler is signal.default_int_handler
        if self.notes:
            signal.signal(signal.SIGINT, self._note)
        self.agree()

    def __exit__(self, kind, *_):
        if self.notes:
            signal.signal(signal.SIGINT, self.handler)
        if self.interrupted and kind is None:  # after the last update
            raise KeyboardInterrupt

    def _note(self, *_):
        self.interrupted = True

    def agree(self):
        """Weights and random numbers become rank 0's, whatever a probe has done, or another kind of processor."""
        if self.count > 1:
            for tensor in self.model.state_dict().values():
                tensor.copy_(self._sent(dist.broadcast, tensor, 0))
            self._set_chance([self._sent(dist.broadcast, state, 0).cpu() for state in self._chance()])

    def share(self, batch):
        """This process's part of a batch."""
        if self.count == 1:
            return batch
        if len(batch) % self.count:
            several = f"A batch of {len(batch)} does not split evenly over {self.count} processes."
            raise LabError(f"{several} Let batch_size be a multiple of {self.count}.")
        return batch[self.rank :: self.count]

    @contextlib.contextmanager
    def own_chance(self, step):
        """Random numbers within the model (dropout) that differ between processes and leave the common ones alone."""
        if self.count == 1:
            yield
            return
        common = self._chance()
        torch.manual_seed((torch.initial_seed() + (step + 1) * self.count + self.rank) % 2**63)
        yield
        self._set_chance(common)

    def mean(self, loss, weights):
        """The loss (a tensor), after it and the gradients of the weights have become the means over all processes."""
        if self.count == 1:
            return loss.detach()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        parts = [loss.detach(), loss.new_tensor(self.interrupted), *gradients]
        summed = self._sent(dist.all_reduce, torch.cat([part.flatten() for part in parts]))
        loss, interrupted, *means = (summed / self.count).split([part.numel() for part in parts])
        if interrupted:
            raise KeyboardInterrupt
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return loss

    def rank_0_says(self, value):
        """Rank 0's number, in every process."""
        if self.count == 1:
            return value
        return self._sent(dist.broadcast, torch.tensor(value, dtype=torch.float64), 0).item()

    def _sent(self, function, tensor, *arguments):
        """A copy of the tensor after all processes have taken part: on the GPU for NCCL, on the CPU for Gloo."""
        tensor = tensor.detach().to(self.device if dist.get_backend() == "nccl" else "cpu", copy=True)
        try:
            function(tensor, *arguments)
        except RuntimeError as error:
            raise LabError(f"Another process has ended, which says why, or does not answer ({error}).") from error
        return tensor

    def _chance(self):
        """The states of the random numbers: the CPU's, and the device's."""
        return [place.get_rng_state() for place in self._generators()]

    def _set_chance(self, states):
        for place, state in zip(self._generators(), states, strict=True):
            place.set_rng_state(state)

    def _generators(self):
        return [torch] if self.device.type == "cpu" else [torch, getattr(torch, self.device.type)]


# ======================================================================================================================
# Training: one loop for every model
# ======================================================================================================================


@dataclass
class History:
    """What a training run leaves: the loss before each update, seconds of training after it, what the probe saw."""

    loss: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    probes: list = field(default_factory=list)  # one dict a probe, with the "step" it was taken at
    interrupted: bool = False

    def probed(self, name):
        """Steps and values of one measurement of the probe, as two arrays."""
        return np.array([probe["step"] for probe in self.probes]), np.array([probe[name] for probe in self.probes])


class TrainingError(LabError):
    """Training stopped by itself; `history` holds all that was measured, the model its last weights."""

    def __init__(self, message, history):
        super().__init__(message)
        self.history = history


def train(
    model,
    sequences,
    *,
    steps=None,
    seconds=None,
    batch_size=None,
    prepare=None,
    optimizer="adam",
    learning_rate=0.01,
    weight_decay=0.0,
    clip=1.0,
    noise=0.0,
    bfloat16=False,
    probe=None,
    probe_at=(),
):
    """Minimise `model.loss(sequences)` for a number of `steps` (updates) or a budget of `seconds`.

    It knows nothing of the model but `loss`. Set the seed before the model is built: torch.manual_seed.
    batch_size: None takes all sequences at every step; else that many, in an order shuffled anew at each pass.
    prepare: called on each batch, e.g. torch.bernoulli, which binarises grey values anew each time.
    optimizer: "adam", or "muon", which orthogonalises the updates of matrices (Jordan et al. 2024) and leaves vectors
        to Adam. The learning rate falls to 0 along half a cosine, so that the last weights have settled.
    weight_decay: the share of a weight, times the learning rate, that is taken off it at each step (as in AdamW; with
        "muon" off matrices only). clip: the longest the gradient may be; it is shortened to this norm.
    noise: the probability with which each value that the model is told, not those it must predict, is turned into its
        opposite, 1 - value, anew at each step.
    bfloat16: multiply matrices with 8 bits of precision (torch.autocast); weights, loss and optimiser keep theirs.
        Where there are no instructions for it (`has_bfloat16`), a warning, and float32.
    probe: called as probe(model) once each number of `probe_at` (steps, or seconds where the budget is in seconds) is
        reached; returns a dict of measurements. Its time is not counted.
    Sequences are moved to the model's device. Within `several_processes` each takes a part of every batch; call it in
    all of them with the same arguments. Loss, gradients, seconds and an interrupt are common to all.
    An interrupt (Ctrl-C, or the stop button) returns what was trained so far, with `history.interrupted` set, to a
    person who is watching; a run that nobody watches (nbval, nbconvert, papermill, pytest) ends with it.
    Raises TrainingError, before the update, when the loss or its gradient is not finite.
    """
    if (steps is None) == (seconds is None):
        raise LabError("Give train a number of steps or a budget of seconds, one of them.")
    budget = whole("steps", steps) if seconds is None else number("seconds", seconds, above=True)
    learning_rate = number("learning_rate", learning_rate, above=True)
    weight_decay, noise = number("weight_decay", weight_decay), number("noise", noise, most=1)
    clip = math.inf if clip is None else number("clip", clip, above=True)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise LabError("All weights of this model are frozen (requires_grad is False): there is nothing to train.")
    optimizers = _optimizers(weights, choice("optimizer", optimizer, ("adam", "muon")), learning_rate, weight_decay)
    if batch_size is not None and whole("batch_size", batch_size) > len(sequences):
        raise LabError(
            f"A batch of {batch_size} cannot be taken from {len(sequences)} sequences. Choose a smaller one."
        )
    device = weights[0].device
    processes = _Processes(model, device)
    autocast = _autocast(device, bfloat16)
    sequences = None if sequences is None else sequences.to(device)
    batches = itertools.repeat(sequences) if batch_size is None else _batches(sequences, batch_size)
    history, probe_at = History(), sorted(probe_at)

    def done():
        """Steps, or seconds, so far."""
        return len(history.loss) if seconds is None else sum(history.seconds[-1:])

    def look():
        if probe is not None and probe_at and done() >= probe_at[0]:
            probe_at[:] = [at for at in probe_at if at > done()]
            history.probes.append({"step": len(history.loss), **probe(model)})
            processes.agree()

    updates = range(budget) if seconds is None else itertools.takewhile(lambda _: done() < budget, itertools.count())
    try:
        with processes, progress(updates, "training") as bar:
            look()
            for step in bar:
                started = time.perf_counter()
                batch = next(batches)
                batch = batch if prepare is None else prepare(batch)
                model.train()
                for part in optimizers:
                    part.zero_grad()
                    for group in part.param_groups:
                        group["lr"] = learning_rate * (1 + math.cos(math.pi * done() / budget)) / 2
                told = [torch.where(torch.rand_like(batch) < noise, 1 - batch, batch)] if noise else []
                with autocast(), processes.own_chance(step):
                    loss = model.loss(processes.share(batch), *map(processes.share, told))
                loss.backward()
                loss = processes.mean(loss, weights).item()
                norm = nn.utils.clip_grad_norm_(weights, clip)
                # Coming back through a thousand steps a gradient can be so long that only its norm overflows. Clipping
                # has then made it 0, which does no harm; a gradient that is not finite itself, it has made NaN.
                usable = norm.isfinite() or all(w.grad.isfinite().all() for w in weights if w.grad is not None)
                if not (math.isfinite(loss) and usable):
                    message = f"At step {step} the loss is {loss} and its gradient's norm {norm.item()}."
                    raise TrainingError(f"{message} Lower the learning rate (now {learning_rate}).", history)
                for part in optimizers:
                    part.step()
                history.seconds.append(processes.rank_0_says(sum(history.seconds[-1:]) + time.perf_counter() - started))
                history.loss.append(loss)
                look()
    except KeyboardInterrupt:
        if not someone_watches():
            raise
        history.interrupted = True
    finally:
        model.eval()
    return history


# How the models of MNIST are trained, chosen on its validation images.
MNIST_RECIPE = {"batch_size": 64, "optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.5, "clip": 5.0}


class Muon(torch.optim.Optimizer):
    """Momentum whose updates of matrices are orthogonalised, so that they move all directions alike.

    The nearest orthogonal matrix is approached by five steps of a Newton-Schulz iteration, and the update scaled to
    the size of one of Adam's, so that one learning rate serves both. In float32: torch.optim.Muon iterates in bfloat16,
    which takes several times as long on a processor without instructions for it.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale: Liu et al., "Muon
    is scalable for LLM training", 2025 (arXiv 2502.16982).
    """

    MOMENTUM, STEPS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)

    def __init__(self, matrices, lr, weight_decay=0.0):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for matrix in (matrix for matrix in group["params"] if matrix.grad is not None):
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - self.MOMENTUM)
                update = self.orthogonal(matrix.grad.lerp(mean, self.MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))

    def orthogonal(self, x):
        """A matrix of the same shape and directions, whose singular values are all about 1."""
        if x.shape[0] > x.shape[1]:
            return self.orthogonal(x.T).T
        a, b, c = self.COEFFICIENTS
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(self.STEPS):  # each singular value s becomes a s + b s^3 + c s^5
            square = x @ x.T
            x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x


def _optimizers(weights, name, learning_rate, weight_decay):
    if name == "adam":
        return [torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)]
    matrices, vectors = [w for w in weights if w.ndim == 2], [w for w in weights if w.ndim != 2]
    parts = [Muon(matrices, learning_rate, weight_decay)] if matrices else []
    return parts + ([torch.optim.Adam(vectors, lr=learning_rate, fused=True)] if vectors else [])


def _batches(sequences, batch_size):
    """Batches for ever; the rest of a pass that fills none is left out."""
    while True:
        order = torch.randperm(len(sequences), device="cpu").split(batch_size)
        yield from (sequences[chosen] for chosen in order if len(chosen) == batch_size)


@torch.no_grad()
def fit_readout(model, sequences):
    """Set the output layer of a model that predicts bits by one least-squares solve, and train nothing.

    The outputs asked for are 1 where a bit is 1 and -1 where it is 0, for each step told the true steps before it.
    Solved with all digits of double precision; among equally good solutions, the smallest.
    Returns the rank of the states (steps, features + 1) that it was solved from; with rank = steps it is exact.
    """
    if model.joint:
        raise LabError(
            'Only an output layer can be solved for; this model has a joint head. Build it with "independent".'
        )
    sequences, states = sequences.to(next(model.parameters()).device), []
    hook = model.head.register_forward_hook(lambda head, inputs, outputs: states.append(inputs[0]))
    model.eval().teacher_forced(sequences)
    hook.remove()
    # On the CPU, which alone has this solver, and double precision whatever the device.
    states = F.pad(states[0].cpu().double(), (0, 1), value=1)  # (steps, features + 1): the last is the bias's
    wanted = 2 * sequences.cpu().flatten(0, 1).double() - 1  # (batch, steps, input_size) -> (batch * steps, input_size)
    solved = torch.linalg.lstsq(states, wanted, driver="gelsd")
    model.head.weight.copy_(solved.solution[:-1].T)
    model.head.bias.copy_(solved.solution[-1])
    return int(solved.rank)


def progress(iterable, label):
    """A progress bar for a person who is watching (one, of several processes), nothing in outputs that are stored."""
    return tqdm(iterable, desc=label, leave=False, file=sys.stderr, disable=not someone_watches() or process()[0])


def someone_watches():
    """True in a live notebook session and in a terminal; False under nbconvert, papermill, nbval and pytest."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return sys.stderr.isatty()
    # A front end with a person before it says that it can answer questions; the runners say that they cannot.
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))


# ======================================================================================================================
# Generation: nothing of the picture but the start token
# ======================================================================================================================


@contextlib.contextmanager
def _plain_recurrence():
    """Without oneDNN's fused recurrence: it rearranges all weights at every call, which for a single step is most of
    the work (2 to 5 times as long for one sequence)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32", UserWarning)  # the flag's setter speaks of hardware not in use
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _start_of(model, batch, steps):
    """Sequences of a model on its device, in which nothing is generated yet: (batch, steps, input_size)."""
    weight = next(model.parameters())
    shape, dtype = (whole("batch", batch), steps, model.input_size), torch.promote_types(weight.dtype, torch.float32)
    return torch.full(shape, START, dtype=dtype, device=weight.device)


def _check_temperature(model, temperature):
    if number("temperature", temperature) and model.predicts == "values":
        raise LabError("This model predicts values, not probabilities: there is nothing to draw at a temperature.")


@torch.no_grad()
def generate(model, steps, given=None, *, batch=1, levels=None, temperature=0.0, cached=True):
    """Free running: every step predicted from the steps generated before it, the first from the start token alone.

    given: steps to continue from, (batch, some steps, input_size), kept as they are; None starts from nothing.
    batch: how many sequences, where none is given.
    levels: a model that predicts values has them rounded to this many levels before they are fed back; None feeds
        back what is predicted.
    temperature: 0 takes the most probable values, 1 draws from the model's probabilities, between them it is less
        daring (logits are divided by it). Set the seed before: torch.manual_seed.
    cached: keep the recurrent state, so that a step costs the same however many came before (a bidirectional or
        seq2vec model cannot, and reads its past again); False reads the past again for every model.

    Returns the sequences (batch, steps, input_size) and the outputs of the generated steps, (batch, steps - given,
    ...), both without gradient. The model is put in evaluation mode.
    """
    whole("steps", steps)
    if levels is not None:
        whole("levels", levels, 2)
    _check_temperature(model, temperature)
    sequences = _start_of(model, batch, 0)
    if given is not None:
        _check_sequences(model, given)
        sequences = given.to(sequences)
    if sequences.shape[1] >= steps:
        raise LabError(f"{sequences.shape[1]} steps are given and only {steps} wanted in all; nothing to generate.")
    model.eval()
    past, state, generated, outputs = _with_start(sequences, model.window or 1), None, [], []
    stream = cached and model.streams
    with _plain_recurrence() if stream else contextlib.nullcontext():
        for _ in range(steps - sequences.shape[1]):
            if stream:
                features, state = model.step(past, state)
                past = past[:, :0]  # the state holds it now
            else:
                features, _ = model.step(past[:, -model.window :] if model.window else past)
            values, output = model.draw(features, temperature)
            if levels is not None:
                values = torch.round(values * (levels - 1)) / (levels - 1)
            past = torch.cat([past, values[:, None]], dim=1)  # (batch, input_size) -> (batch, 1, input_size)
            generated.append(values)
            outputs.append(output)
    return torch.cat([sequences, torch.stack(generated, 1)], 1), torch.stack(outputs, 1)


@torch.no_grad()
def generate_naively(model, steps, batch=1, temperature=0.0, values=None):
    """The same as `generate` from nothing, by running the model on whole sequences once for each value.

    It needs no code for generation in the model, which is why it is what many implementations do; here it is what
    `generate` is compared with. values: stop after so many, None draws all. Returns (batch, steps, input_size).
    """
    sequences = _start_of(model, batch, whole("steps", steps))
    _check_temperature(model, temperature)
    values = steps * model.input_size if values is None else whole("values", values)
    model.eval()
    for number in range(values):
        step, place = divmod(number, model.input_size)
        if place == 0:
            chance = torch.rand(batch, model.input_size, device=sequences.device) if temperature else None
        outputs = model.teacher_forced(sequences)[:, step]  # (batch, input_size), or (batch, input_size, levels)
        sequences[:, step, place] = model.decode(outputs, temperature, chance)[:, place]
    return sequences


# ======================================================================================================================
# Measurement
# ======================================================================================================================


def fraction_exact(sequences, target, levels=256):
    """Fraction of values that are equal once both are rounded to `levels` levels (1.0: restored bit for bit)."""
    return float((to_levels(sequences, levels) == to_levels(target, levels)).mean())


def sampling_loss(logits, target):
    """The three things "loss 0.1160" can mean, for predicted bits and the true ones, all means over values.

    logits, target: (batch, steps, input_size), either teacher-forced or free running outputs, and the true bits.
    Returns "bce" (mean binary cross-entropy, nats per value), "wrong" (fraction of wrong bits) and "mse" (squared
    difference of probability and bit).
    """
    return {
        "bce": F.binary_cross_entropy_with_logits(logits, target).item(),
        "wrong": ((logits > 0) != (target > 0.5)).float().mean().item(),
        "mse": F.mse_loss(torch.sigmoid(logits), target).item(),
    }


@torch.no_grad()
def nats(model, sequences):
    """Negative log-likelihood of each sequence by the chain rule, in nats: (batch,), float64, numpy.

    Computed from logits, in evaluation mode. Raises LabError where a model or the values allow no likelihood: a model
    that reads what it predicts has none, however small its loss.
    """
    if model.predicts == "values":
        raise LabError('A model that predicts "values" gives no probabilities. Let it predict "bits" or "levels".')
    if not model.causal:
        raise LabError("A bidirectional seq2seq model reads what it predicts; its loss is no likelihood.")
    _check_sequences(model, sequences)
    sequences = sequences.to(next(model.parameters()).device)
    top = 1 if model.predicts == "bits" else model.levels - 1
    if not torch.allclose(top * sequences, torch.round(top * sequences), atol=1e-3):
        raise LabError(f"A likelihood is of values on the model's {top + 1} levels; these lie between. Binarise first.")
    model.eval()
    # Summed on the CPU, since MPS has no float64.
    return np.concatenate([model.losses(part).cpu().double().sum((1, 2)).numpy() for part in sequences.split(500)])


def multiply_adds(call):
    """The work of `call()`: how many multiplications, each with an addition, its matrix products and convolutions make.

    The same on every machine, where seconds are not. Element-wise work is left out.
    """
    with _plain_recurrence(), FlopCounterMode(display=False) as counter:  # the fused recurrence would not be counted
        call()
    return counter.get_total_flops() // 2


def bits_per_dimension(total, dimensions):
    """Nats of a sequence of that many values, as bits a value."""
    return total / (dimensions * math.log(2))


def receptive_field(model, sequences, position, place=None):
    """How strongly a prediction depends on each step of the sequence: (steps,), numpy; 0 where no path.

    The sum of |d (sum of outputs at step `position`) / d value| over the values of each step, teacher-forced, in the
    mode the model is in (training or evaluation; its running statistics are left alone). With `place`, only the
    outputs of that value of the step, and the field value by value: (steps, input_size).
    """
    model = copy.deepcopy(model)
    sequences = sequences.detach().to(next(model.parameters()).device, copy=True)
    if model.reads == "levels":  # one-hot has no slope at a whole level, so look half-way to the next
        top = model.levels - 1
        sequences = (torch.floor(sequences * top).clamp(max=top - 1) + 0.5) / top
    sequences.requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrence has no backward pass in evaluation mode
        outputs = model.teacher_forced(sequences)[:, position]  # (batch, input_size) or (batch, input_size, levels)
        (gradient,) = torch.autograd.grad((outputs if place is None else outputs[:, place]).sum(), sequences)
    field = gradient.abs().sum(0)  # (batch, steps, input_size) -> (steps, input_size)
    return (field.sum(1) if place is None else field).cpu().numpy()


def leaks(model, sequences):
    """Whether any prediction depends on itself or what comes after it, by gradient, in the mode the model is in.

    After a value come those to its right and all later steps; where the head is independent, its whole step.
    """
    steps, places = sequences.shape[1:]
    if not model.joint:
        return any(receptive_field(model, sequences, t)[t:].any() for t in range(steps))
    fields = (
        receptive_field(model, sequences, t, i).flatten()[t * places + i :] for t in range(steps) for i in range(places)
    )
    return any(field.any() for field in fields)


def first_below(steps, values, threshold):
    """The first of `steps` whose value is below the threshold, or None."""
    below = np.asarray(values) < threshold
    return int(np.asarray(steps)[below.argmax()]) if below.any() else None


class Claims:
    """The table of a notebook: for each claim what was measured, with its unit, and the verdict it bears.

    asserted: False on pictures or settings that are not the note's own; a verdict that does not hold is then said
        rather than raised.
    """

    def __init__(self, asserted=True):
        self.asserted, self.rows, self._since = asserted, [], time.perf_counter()

    def check(self, claim, holds, measured, unit, verdict, figure=None):
        """Record and print a claim; AssertionError if the verdict does not hold.

        measured: coarse enough to be the same on every machine, since it is compared. `figure` is the exact number (or
            numbers) of this run, None among them where there is none: kept in the notebook beside the table, and
            printed by `make notebooks`.
        """
        if not holds:
            if self.asserted:
                raise AssertionError(f"{claim}: expected {measured} {unit} ({verdict}), but measured {figure}")
            measured, unit, verdict = "otherwise", "see this run's figures", "not on this picture"
        now = time.perf_counter()
        if figure is not None:
            values = np.ravel(np.asarray(figure, dtype=float)).tolist()  # None becomes NaN
            figure = [round(value, 6) if math.isfinite(value) else None for value in values]
        row = {"claim": claim, "measured": measured, "unit": unit, "verdict": verdict}
        self.rows.append({**row, "figure": figure, "seconds": round(now - self._since, 1)})
        self._since = now
        print(f"{claim}: {measured} {unit} -> {verdict}")

    def table(self):
        """Display the table; the exact figures go into the output's metadata, which nbval does not compare."""
        from IPython.display import display

        def written(cell):
            lines = ["| claim | measured | unit | verdict |", "|---|---|---|---|"]
            for row in self.rows:
                cells = {name: cell(str(value)) for name, value in row.items()}
                lines.append("| {claim} | {measured} | {unit} | {verdict} |".format(**cells))
            return "\n".join(lines)

        kinds = {"text/markdown": written(_in_markdown), "text/plain": written(str)}
        display(kinds, raw=True, metadata={"claims": self.rows})


def _in_markdown(text):
    """Markdown, for a cell of a table too, that shows `text` letter by letter.

    What would be markup becomes an element of its own with the letter's number: neither Markdown nor MathJax, which
    looks for formulas in the page that Markdown has become, reads on across it. An underscore within a word is none.
    """
    markup = r"[\\`*|~<>&$]|(?<![^\W_])_|_(?![^\W_])|\](?=\()"
    text = re.sub(markup, lambda letter: f"<span>&#{ord(letter[0])};</span>", text)
    return text.replace("\n", "<br>")


def save_curves(path, settings, curves, every=1):
    """Loss curves of several seeds as CSV: a comment with the settings, then curve, step and a column for each seed.

    curves: name -> {seed: losses}, those of a name of one length, a loss at each `every` steps.

    Raises LabError, the old file untouched, for curves or settings that are not so, or a file that cannot be written.
    """
    seeds = list(next(iter(curves.values()), ()))
    rows = []
    for name, losses in curves.items():
        if set(losses) != set(seeds) or len({len(losses[seed]) for seed in seeds}) != 1:
            raise LabError(f"The curves of {name!r} must be of the seeds {seeds}, and all of one length.")
        for step, values in enumerate(zip(*(losses[seed] for seed in seeds), strict=True)):
            rows.append([name, step * every, *(f"{value:.4g}" for value in values)])
    if not rows:
        raise LabError("There are no curves to save.")
    write_table(path, settings, ["curve", "step", *(f"seed {seed}" for seed in seeds)], rows)


def load_curves(path, settings):
    """The reference curves, name -> (seeds, steps), or an empty dict (which says why) where they do not apply.

    Raises LabError for a file that is there, but cannot be read or is damaged.
    """
    try:
        stored, _, labels, numbers = read_table(path, "`make reference` draws the curves.", labels=1)
    except NoFileError as error:
        print(f"Not compared with the reference curves: {error}")
        return {}
    # As they come back from a file; what JSON does not keep is of no reference.
    settings = json.loads(json.dumps(plain(settings), default=repr))
    if stored != settings:
        changed = ", ".join(
            f"{key} is {_shortened(repr(settings.get(key)))}, not {_shortened(repr(stored.get(key)))}"
            for key in {**stored, **settings}
            if settings.get(key) != stored.get(key)
        )
        print(f"Not compared with the reference curves: {changed}.")
        return {}
    names = [name for (name,) in labels]
    return {name: numbers[[one == name for one in names], 1:].T for name in dict.fromkeys(names)}  # in the file's order


def load_benchmark(path):
    """What `make bench` stored: its protocol (a dict) and its table, name of a column -> numbers, numpy."""
    protocol, names, _, numbers = read_table(path, "`make bench` stores such files.")
    return protocol, dict(zip(names, numbers.T, strict=True))


def fraction_on_pace(losses, reference, factor=2.0, floor=0.0):
    """How far a loss curve keeps pace with the reference seeds: the fraction of ten loss levels reached in time.

    Losses count from `floor` times the best reference loss: 0 for a loss that falls towards 0, a little below 1 for a
    likelihood, which does not. The levels are spaced evenly in log from the first reference loss to twice the worst
    seed's best one. In time is no sooner than the earliest seed's step / factor and no later than the latest's *
    factor. Pace rather than height, because a loss that falls a thousandfold within some steps is far off at every one
    of them if it starts to fall a little later.

    losses: (steps,); reference: (seeds, steps).
    """
    floor = floor * reference.min()
    losses, reference = np.asarray(losses) - floor, reference - floor
    levels = np.geomspace(np.median(reference[:, 0]), 2 * reference.min(1).max(), 11)[1:]
    in_time = 0
    for level in levels:
        arrivals = [first_below(range(reference.shape[1]), seed, level) for seed in reference]
        own = first_below(range(len(losses)), losses, level)
        in_time += own is not None and min(arrivals) / factor <= own <= max(arrivals) * factor
    return in_time / len(levels)


# ======================================================================================================================
# Pictures
# ======================================================================================================================

# Letters that Matplotlib's own font lacks come from one of these, where it is installed; else a box stands for each.
FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Droid Sans Fallback")  # Linux
FONTS += ("Hiragino Sans", "Heiti TC", "Apple SD Gothic Neo", "Arial Unicode MS")  # macOS
FONTS += ("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Leelawadee UI", "Nirmala UI")  # Windows
INSTALLED = [font for font in FONTS if font in matplotlib.font_manager.get_font_names()]
plt.rcParams["font.family"] = ["sans-serif", *INSTALLED]
warnings.filterwarnings("ignore", message="Glyph [0-9]+ ")

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "image.cmap": "cividis"})
plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False})


def named(sources):
    """Pictures by name, name -> source: of files, the name without folder and ending; of two alike, one is numbered.

    sources: the path or the bundled name of a picture, or several. Raises LabError where there is none.
    """
    sources = list(sources) if np.iterable(sources) and not isinstance(sources, str) else [sources]
    if not sources:
        raise LabError("There is no picture to learn from. Give the path of one, or a bundled name.")
    names = {}
    for source in sources:
        stem = as_path(source, "A picture").stem
        alike = (f"{stem} ({number})" for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], alike) if name not in names)] = source
    return names


def _as_it_stands(name):
    """A Text's properties that show a name letter by letter, in which Matplotlib would otherwise look for formulas.

    What stands in a file's name for bytes that are no letters cannot be drawn, and becomes a question mark.
    """
    return {"text": str(name).encode("utf-8", "replace").decode("utf-8"), "parse_math": False}


def legend(ax, names, **options):
    """A legend of `names`, name -> what was drawn, as they stand: also one that begins with an underscore, which
    Matplotlib would leave out. However long a name is, it takes no room from the axes."""
    box = ax.legend(names.values(), map(str, range(len(names))), **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set(**_as_it_stands(name))
    box.set_in_layout(False)
    return box


def as_picture(batch, shape):
    """The first sequence of a batch in [0, 1] as a picture to look at: uint8 of `shape` (rows, columns, channels)."""
    return unflatten(to_levels(batch[:1], 256)[0], shape).astype(np.uint8)


def show_pictures(pictures, title="", columns=None):
    """A grid of pictures, name -> uint8 (rows, columns, 1 or 3) or (rows, columns), each under its name."""
    columns = columns or len(pictures)
    rows = math.ceil(len(pictures) / columns)
    size = (2.1 * columns, 2.35 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(pictures) :]:
        ax.axis("off")
    for ax, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="lightgrey")  # an all-white picture is seen to be there
        picture = picture[..., 0] if picture.shape[2:] == (1,) else picture  # grey: (rows, columns, 1) -> two axes
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title("", fontsize=9).set(**_as_it_stands(name))
    figure.suptitle("").set(**_as_it_stands(title))
    return figure


def difference(picture, original):
    """Where two pictures differ: uint8, white where they are equal, the darker the larger the difference."""
    return (255 - np.abs(picture.astype(int) - original.astype(int)).max(-1, keepdims=True)).astype(np.uint8)


def plot_losses(ax, curves, reference=None, x=None, every=1):
    """Loss curves, name -> one losses array or a list of them, over the reference bands of the same names.

    every: training steps between two losses.
    x: name -> what the horizontal axis shows for each of the losses (default: training steps).
    """
    names = {}
    for color, (name, losses) in zip(itertools.cycle(COLORS), curves.items(), strict=False):
        if reference and name in reference:
            band = reference[name]
            label = f"{name}: reference, {len(band)} seeds"
            across = every * np.arange(band.shape[1])
            names[label] = ax.fill_between(across, band.min(0), band.max(0), color=color, alpha=0.2, label=label)
        for number, one in enumerate(np.atleast_2d(losses)):
            across = every * np.arange(len(one)) if x is None else np.atleast_2d(x[name])[number]
            (line,) = ax.plot(across, one, color=color, linewidth=1, label=name if number == 0 else None)
            names.setdefault(name, line)
    ax.set(yscale="log", xlabel="training step")
    legend(ax, names, fontsize=8)


def mosaic(pictures, columns):
    """Pictures of one shape (rows, columns, channels), uint8, as one: `columns` side by side, light lines between."""
    pictures = [np.pad(picture, ((0, 1), (0, 1), (0, 0)), constant_values=200) for picture in pictures]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], 1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows)[:-1, :-1]


def frames(batch, shape, count, columns=1):
    """The sequences of a batch while they are generated: steps done -> picture, uint8 RGB, what is to come in blue.

    `count` pictures evenly spaced from none done to all, or as many as there are different ones; the sequences are
    laid side by side, `columns` in a row.
    """
    pictures = [np.broadcast_to(as_picture(one[None], shape), (*shape[:2], 3)) for one in batch]
    steps, pixels = batch.shape[1], math.prod(shape[:2])
    to_come = np.arange(pixels).reshape(*shape[:2], 1) * steps // pixels  # step of each pixel
    blue, times = np.uint8([86, 180, 233]), np.linspace(0, steps, count).round().astype(int)
    return {int(t): mosaic([np.where(to_come < t, picture, blue) for picture in pictures], columns) for t in times}


def filmstrip(batch, shape, count=6, title="", unit="steps"):
    """A row of pictures of one being generated, from the start token to its last step."""
    return show_pictures({f"{t} {unit}": frame for t, frame in frames(batch, shape, count).items()}, title)


def animated_png(batch, shape, count=32, scale=4, seconds=3.0, columns=1):
    """The same as an animated PNG (bytes): `count` frames in `seconds`, then the finished picture for a second."""
    images = [Image.fromarray(frame) for frame in frames(batch, shape, count, columns).values()]
    images = [i.resize((i.width * scale, i.height * scale), Image.Resampling.NEAREST) for i in images]
    durations = [int(1000 * seconds / len(images))] * (len(images) - 1) + [1000]
    file = io.BytesIO()
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return file.getvalue()
