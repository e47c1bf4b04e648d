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
import gzip
import io
import itertools
import json
import math
import os
import secrets
import sys
import time
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import nn
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
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")


def load_picture(source, size=None, gray=False):
    """A picture as uint8 (rows, columns, channels): 1 channel if `gray`, else 3 (red, green, blue).

    source: the name of a bundled picture (see BUNDLED), or the path of a PNG, JPEG, WebP or TIFF file. Transparent
        pixels are laid over white, 16-bit grey is scaled to 8 bits, a photograph is turned the way its camera was held.
    size: None keeps the picture's size; a whole number or (rows, columns) cuts the largest centred part of that shape
        and scales it with Pillow's Lanczos filter, which computes in integers: the same pixels on every machine.

    Raises LabError, which says what to do, for a file that is missing, damaged, animated, too large or not a picture.
    """
    if str(source) in BUNDLED:
        import skimage.data  # here, so that reading one's own file does not wait for scikit-image

        picture = Image.fromarray(getattr(skimage.data, str(source))())
    else:
        picture = _open(Path(os.path.expanduser(source)))
    picture = picture.convert("L" if gray else "RGB")
    if size is not None:
        rows, columns = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
        rows, columns = whole("size (rows)", rows), whole("size (columns)", columns)
        picture = ImageOps.fit(picture, (columns, rows), method=Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)  # grey: (rows, columns) -> (rows, columns, 1)


def _open(path):
    """The file's picture, whole in memory, upright, 8 bits a channel, without transparency."""
    if not path.is_file():
        raise LabError(
            f"There is no file {path}. Give the path of a picture, or one of the bundled names: {', '.join(BUNDLED)}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path)
            if getattr(picture, "n_frames", 1) > 1:
                raise LabError(f"{path} holds {picture.n_frames} frames. Save the one you want as a PNG of its own.")
            if picture.format not in FORMATS:
                raise LabError(f"{path} is a {picture.format} file. Save it as PNG, JPEG, WebP or TIFF.")
            picture.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LabError(f"{path} has too many pixels to open safely. Scale it down first. ({error})") from error
    except UnidentifiedImageError as error:
        raise LabError(f"{path} is not a picture that can be read. Save it as PNG, JPEG, WebP or TIFF.") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, LabError):
            raise
        raise LabError(f"{path} is damaged: {error}. Get a whole copy of the file.") from error
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey; 257 = 65535 / 255, so that black and white stay what they are
        values = np.asarray(picture)
        values = np.where(
            values == picture.info.get("transparency"), 65535, values
        )  # its one transparent value, if any
        picture = Image.fromarray(np.round(np.clip(values, 0, 65535) / 257).astype(np.uint8))
    elif picture.mode == "F":
        raise LabError(f"{path} holds floating-point values, whose black and white are unknown. Save it with 8 bits.")
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


def binarize(picture, threshold=128):
    """A picture of 0 and 1, uint8 of the same shape: 1 where a value is at least the threshold.

    threshold: a number, the same for every channel, or "otsu": for each channel the threshold that parts its values
        best (Otsu 1979, scikit-image).
    """
    picture = _checked_picture(picture)
    if threshold == "otsu":
        from skimage.filters import threshold_otsu

        # Otsu's threshold is the last value of the lower class, hence + 1.
        threshold = np.array([int(threshold_otsu(picture[..., channel])) + 1 for channel in range(picture.shape[-1])])
    elif not isinstance(threshold, int | float | np.number) or math.isnan(threshold):
        raise LabError(f"threshold must be a number or 'otsu', not {threshold!r}.")
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
    sequence = np.asarray(sequence)
    if sequence.size != math.prod(shape):
        raise LabError(f"A sequence of {sequence.size} values does not fill a picture of shape {tuple(shape)}.")
    return sequence.reshape(shape)  # (steps, input_size) -> (rows, columns, channels)


def to_bit_planes(sequence):
    """Bytes (steps, input_size), uint8, as the bits of their Gray code, (steps, input_size * 8), highest bit first.

    In Gray's code neighbouring numbers differ in one bit, so that a small step in grey does not flip all eight.
    """
    sequence = np.asarray(sequence)
    if sequence.dtype != np.uint8 or sequence.ndim != 2:
        raise LabError(f"Bit planes are made of bytes (steps, input_size), not of {sequence.dtype} {sequence.shape}.")
    gray = sequence ^ (sequence >> 1)
    return np.unpackbits(gray, axis=-1)  # (steps, input_size) -> (steps, input_size * 8)


def from_bit_planes(bits):
    """The inverse of `to_bit_planes`: bits (steps, input_size * 8) -> uint8 (steps, input_size)."""
    gray = np.packbits(np.asarray(bits, dtype=np.uint8), axis=-1)  # (steps, input_size * 8) -> (steps, input_size)
    for shift in (1, 2, 4):  # each bit is the parity of itself and all higher ones
        gray = gray ^ (gray >> shift)
    return gray


def to_batch(sequence, levels):
    """Whole numbers 0 .. levels - 1, (steps, input_size), as a batch of one in [0, 1]: float (1, steps, input_size)."""
    sequence = np.asarray(sequence)
    if sequence.ndim != 2 or sequence.size == 0:
        raise LabError(f"A sequence has the shape (steps, input_size), none of them 0; this one has {sequence.shape}.")
    if not np.isin(sequence, np.arange(whole("levels", levels, 2))).all():
        raise LabError(f"The sequence has values outside 0 .. {levels - 1}, or not whole. Binarise or round it first.")
    return torch.tensor(sequence, dtype=torch.float32)[None] / (levels - 1)


def to_levels(batch, levels):
    """The inverse of `to_batch`, for any batch: (batch, steps, input_size) in [0, 1] -> whole numbers, numpy."""
    return torch.round(batch.detach().cpu() * (whole("levels", levels, 2) - 1)).to(torch.int64).numpy()


def _checked_picture(picture):
    picture = np.asarray(picture)
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
    source = source or os.environ.get("PIXELRNN_MNIST")
    if not source:
        raise LabError(f"MNIST is not part of this project. {MNIST_HELP}")
    path = _download_mnist() if source == "download" else DATA.parent / Path(source).expanduser()
    try:
        if path.is_dir():
            images = [_read_idx(path / name) for name in MNIST_FILES]
        else:
            with np.load(path, allow_pickle=False) as file:
                images = [file[name if name in file else other] for name, other in MNIST_ARRAYS]
    except FileNotFoundError as error:
        raise LabError(f"There is no MNIST at {source}: {error.filename} is missing. {MNIST_HELP}") from error
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise LabError(f"MNIST at {source} is damaged or is something else: {error}. {MNIST_HELP}") from error
    for array in images:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or len(array) == 0:
            raise LabError(f"MNIST's images are uint8 (count, 28, 28), those at {source} {array.dtype} {array.shape}.")
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
    with gzip.open(packed) if packed.is_file() else path.open("rb") as file:
        head, body = file.read(16), file.read()
    if len(head) < 16 or head[:4] != b"\0\0\x08\x03":
        raise ValueError(f"{path.name} does not begin like MNIST's images")
    return np.frombuffer(body, np.uint8).reshape(np.frombuffer(head, ">u4")[1:])  # -> (count, rows, columns)


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
        outputs = self.teacher_forced(sequences if told is None else told).float()  # also where it came as bfloat16
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
        if self.predicts == "values":
            return outputs.clamp(0, 1)
        if temperature == 0:
            return (outputs > 0).float() if self.predicts == "bits" else outputs.argmax(-1) / (self.levels - 1)
        if self.predicts == "bits":
            return (chance < torch.sigmoid(outputs / temperature)).float()
        logits = (outputs - outputs.amax(-1, keepdim=True)) / temperature  # at most 0, however low the temperature
        below = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # P(level <= 0), P(level <= 1), ...
        return (below <= chance[..., None]).sum(-1) / (self.levels - 1)

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
        if self.reads == "values":
            return 2 * inputs - 1
        levels = torch.arange(self.levels, device=inputs.device)
        one_hot = F.relu(1 - ((self.levels - 1) * inputs[..., None] - levels).abs())  # (..., input_size, levels)
        return one_hot.flatten(-2)  # (..., input_size, levels) -> (..., input_size * levels)

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
    bfloat16: multiply matrices with 8 bits of precision (torch.autocast); weights, loss and optimiser keep theirs. It
        pays on a processor with instructions for it, and costs on others.
    probe: called as probe(model) once each number of `probe_at` (steps, or seconds where the budget is in seconds) is
        reached; returns a dict of measurements. Its time is not counted.
    An interrupt (Ctrl-C, or the stop button) returns what was trained so far, with `history.interrupted` set.
    Raises TrainingError, before the update, when the loss or its gradient is not finite.
    """
    if (steps is None) == (seconds is None):
        raise LabError("Give train a number of steps or a budget of seconds, one of them.")
    if seconds is None:
        whole("steps", steps)
    else:
        _positive("seconds", seconds)
    _positive("learning_rate", learning_rate)
    if not 0 <= noise <= 1:
        raise LabError(f"noise is a probability, from 0 to 1, not {noise!r}.")
    optimizers = _optimizers(model, choice("optimizer", optimizer, ("adam", "muon")), learning_rate, weight_decay)
    if batch_size is not None and whole("batch_size", batch_size) > len(sequences):
        raise LabError(
            f"A batch of {batch_size} cannot be taken from {len(sequences)} sequences. Choose a smaller one."
        )
    batches = itertools.repeat(sequences) if batch_size is None else _batches(sequences, batch_size)
    history, probe_at = History(), sorted(probe_at)

    def done():
        """Steps, or seconds, so far."""
        return len(history.loss) if seconds is None else sum(history.seconds[-1:])

    def look():
        if probe is not None and probe_at and done() >= probe_at[0]:
            probe_at[:] = [at for at in probe_at if at > done()]
            history.probes.append({"step": len(history.loss), **probe(model)})

    budget = steps or seconds
    updates = range(budget) if seconds is None else itertools.takewhile(lambda _: done() < budget, itertools.count())
    try:
        look()
        with progress(updates, "training") as bar:
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
                with torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext():
                    loss = model.loss(batch, *told)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
                # Coming back through a thousand steps a gradient can be so long that only its norm overflows. Clipping
                # has then made it 0, which does no harm; a gradient that is not finite itself, it has made NaN.
                usable = math.isfinite(norm) or all(w.grad.isfinite().all() for w in model.parameters())
                if not (math.isfinite(loss.item()) and usable):
                    message = f"At step {step} the loss is {loss.item()} and its gradient's norm {norm.item()}."
                    raise TrainingError(f"{message} Lower the learning rate (now {learning_rate}).", history)
                for part in optimizers:
                    part.step()
                history.seconds.append(sum(history.seconds[-1:]) + time.perf_counter() - started)
                history.loss.append(loss.item())
                look()
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        model.eval()
    return history


# How the models of MNIST are trained, chosen on its validation images.
MNIST_RECIPE = {"batch_size": 64, "optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.5, "clip": 5.0}


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise LabError(f"{name} must be a number above 0, not {value!r}.")


def _optimizers(model, name, learning_rate, weight_decay):
    weights = list(model.parameters())
    if name == "adam":
        return [torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)]
    matrices, vectors = [w for w in weights if w.ndim == 2], [w for w in weights if w.ndim != 2]
    options = {
        "lr": learning_rate,
        "weight_decay": weight_decay,
        "adjust_lr_fn": "match_rms_adamw",
    }  # one rate for both
    parts = [torch.optim.Muon(matrices, **options)] if matrices else []
    return parts + ([torch.optim.Adam(vectors, lr=learning_rate)] if vectors else [])


def _batches(sequences, batch_size):
    """Batches for ever; the rest of a pass that fills none is left out."""
    while True:
        order = torch.randperm(len(sequences)).split(batch_size)
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
    states = []
    hook = model.head.register_forward_hook(lambda head, inputs, outputs: states.append(inputs[0]))
    model.eval().teacher_forced(sequences)
    hook.remove()
    states = F.pad(states[0].double(), (0, 1), value=1)  # (steps, features + 1): the last is the bias's
    wanted = 2 * sequences.flatten(0, 1).double() - 1  # (batch, steps, input_size) -> (batch * steps, input_size)
    solved = torch.linalg.lstsq(states, wanted, driver="gelsd")
    model.head.weight.copy_(solved.solution[:-1].T)
    model.head.bias.copy_(solved.solution[-1])
    return int(solved.rank)


def progress(iterable, label):
    """A progress bar for a person who is watching, and nothing in outputs that are stored."""
    return tqdm(iterable, desc=label, leave=False, file=sys.stderr, disable=not someone_watches())


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
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise LabError(f"temperature must be a number of at least 0, not {temperature!r}.")
    if temperature and model.predicts == "values":
        raise LabError("This model predicts values, not probabilities: there is nothing to draw at a temperature.")
    device = next(model.parameters()).device
    sequences = torch.full((whole("batch", batch), 0, model.input_size), START, device=device)
    if given is not None:
        _check_sequences(model, given)
        sequences = given.to(device)
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
    model.eval()
    device = next(model.parameters()).device
    sequences = torch.full((batch, whole("steps", steps), model.input_size), START, device=device)
    for number in range(steps * model.input_size if values is None else values):
        step, place = divmod(number, model.input_size)
        if place == 0:
            chance = torch.rand(batch, model.input_size, device=device) if temperature else None
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
    top = 1 if model.predicts == "bits" else model.levels - 1
    if not torch.allclose(top * sequences, torch.round(top * sequences), atol=1e-3):
        raise LabError(f"A likelihood is of values on the model's {top + 1} levels; these lie between. Binarise first.")
    model.eval()
    return np.concatenate([model.losses(part).double().sum((1, 2)).numpy() for part in sequences.split(500)])


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
    sequences = sequences.detach().clone()
    if model.reads == "levels":  # one-hot has no slope at a whole level, so look half-way to the next
        top = model.levels - 1
        sequences = (torch.floor(sequences * top).clamp(max=top - 1) + 0.5) / top
    sequences.requires_grad_()
    outputs = model.teacher_forced(sequences)[:, position]  # (batch, input_size) or (batch, input_size, levels)
    (gradient,) = torch.autograd.grad((outputs if place is None else outputs[:, place]).sum(), sequences)
    field = gradient.abs().sum(0)  # (batch, steps, input_size) -> (steps, input_size)
    return (field.sum(1) if place is None else field).numpy()


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
            numbers) of this run: kept in the notebook beside the table, and printed by `make notebooks`.
        """
        if not holds:
            if self.asserted:
                raise AssertionError(f"{claim}: expected {measured} {unit} ({verdict}), but measured {figure}")
            measured, unit, verdict = "otherwise", "see this run's figures", "not on this picture"
        now = time.perf_counter()
        if figure is not None:
            figure = [round(float(value), 6) if np.isfinite(value) else None for value in np.ravel(figure)]
        row = {"claim": claim, "measured": measured, "unit": unit, "verdict": verdict}
        self.rows.append({**row, "figure": figure, "seconds": round(now - self._since, 1)})
        self._since = now
        print(f"{claim}: {measured} {unit} -> {verdict}")

    def table(self):
        """Display the table; the exact figures go into the output's metadata, which nbval does not compare."""
        from IPython.display import display

        lines = ["| claim | measured | unit | verdict |", "|---|---|---|---|"]
        lines += ["| {claim} | {measured} | {unit} | {verdict} |".format(**row) for row in self.rows]
        text = "\n".join(lines)
        display({"text/markdown": text, "text/plain": text}, raw=True, metadata={"claims": self.rows})


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

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "image.cmap": "cividis"})
plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False})


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
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def difference(picture, original):
    """Where two pictures differ: uint8, white where they are equal, the darker the larger the difference."""
    return (255 - np.abs(picture.astype(int) - original.astype(int)).max(-1, keepdims=True)).astype(np.uint8)


def plot_losses(ax, curves, reference=None, x=None, every=1):
    """Loss curves, name -> one losses array or a list of them, over the reference bands of the same names.

    every: training steps between two losses.
    x: name -> what the horizontal axis shows for each of the losses (default: training steps).
    """
    for color, (name, losses) in zip(itertools.cycle(COLORS), curves.items(), strict=False):
        if reference and name in reference:
            band = reference[name]
            label = f"{name}: reference, {len(band)} seeds"
            ax.fill_between(
                every * np.arange(band.shape[1]), band.min(0), band.max(0), color=color, alpha=0.2, label=label
            )
        for number, one in enumerate(np.atleast_2d(losses)):
            across = every * np.arange(len(one)) if x is None else np.atleast_2d(x[name])[number]
            _ = ax.plot(across, one, color=color, linewidth=1, label=name if number == 0 else None)
    ax.set(yscale="log", xlabel="training step")
    ax.legend(fontsize=8)


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
