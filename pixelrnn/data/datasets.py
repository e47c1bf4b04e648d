"""Data of many pictures: scikit-learn's digits, MNIST, and sources whose probabilities are known exactly (note 5)."""

import gzip
import math
import os
import warnings
import zlib

import numpy as np
import torch
import torch.nn.functional as F

import helpers
from support import devices
from support.checks import LabError, whole
from support.files import DATA, NoFileError, arrays_of, as_path, existing, shortened


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
STATIC_FILES = [f"binarized_mnist_{part}.amat" for part in ("train", "valid", "test")]
STATIC_HELP = f"The three files of the static binarisation are {', '.join(STATIC_FILES)}, in one folder."
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_ARRAYS = (("train_images", "x_train"), ("test_images", "x_test"))  # of an .npz, by either name
MNIST_SUMS = (4083391318, 3838467927)  # zlib.crc32 of the bytes of its training and test images
# Mean of the training images, where 1 is ink: MNIST's measured, the others' as people normalise those by.
INK = {"MNIST": 0.131, "Fashion-MNIST": 0.286, "Kuzushiji-MNIST": 0.192}
MNIST_HELP = (
    "Set the environment variable PIXELRNN_MNIST (or the parameter MNIST) to the folder that holds MNIST's files "
    f"({', '.join(MNIST_FILES)}, as they are or as .gz), to an .npz with the arrays train_images and test_images, or "
    "to the word download, which fetches 12 MB into data/mnist/."
)


def load_mnist(source=None):
    """MNIST's training and test images, uint8 (count, 28, 28) each, in their original order.

    source: a folder with the two IDX files, plain or .gz, there or in a folder within it; an .npz with train_images and
        test_images (or x_train and x_test); "download", which fetches them once and checks their SHA-256; None takes
        the environment variable PIXELRNN_MNIST. A relative path starts in the project's folder.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.

    Raises LabError, which says what to do, where there is none, or what is there is damaged or not grey on a background
    of 0. Warns where the images are others than MNIST's.
    """
    if isinstance(source, str | None):
        source = source or os.environ.get("PIXELRNN_MNIST")
        if not source:
            raise LabError(f"MNIST is not part of this project. {MNIST_HELP}")
    path = as_path(source, "MNIST's folder or .npz")
    path = _download_mnist() if str(path) == "download" else existing(DATA.parent / path, "MNIST", MNIST_HELP)
    try:
        if path.is_dir():
            images = [_read_idx(_found(path, name)) for name in MNIST_FILES]
        else:
            held = arrays_of(path)
            names = [name if name in held else other for name, other in MNIST_ARRAYS]
            for shape, dtype in (held[name] for name in names):
                _check_images(path, shape, dtype)  # before they are unpacked
            with np.load(path, allow_pickle=False) as file:
                images = [np.ascontiguousarray(file[name]) for name in names]
    except LabError:
        raise
    except MemoryError as error:
        raise LabError(f"MNIST at {path} takes more memory than there is. {MNIST_HELP}") from error
    except Exception as error:  # there is no telling what a damaged file leads to
        problem = (
            f"MNIST at {path} is damaged or is something else than a folder of its files or an .npz of its arrays."
        )
        raise LabError(f"{problem} {MNIST_HELP}") from error
    for array in images:
        _check_images(path, array.shape, array.dtype)
    _compare_with_mnist(path, images)
    return images


def _check_images(path, shape, dtype):
    if dtype != np.uint8 or len(shape) != 3 or shape[1:] != (28, 28) or shape[0] == 0:
        raise LabError(f"MNIST's images are uint8 (count, 28, 28), those at {path} {dtype} {shape}.")


def _compare_with_mnist(path, images):
    """Refuses what is binary or black on white already; warns where the images, by their checksums, are not MNIST's."""
    if tuple(map(zlib.crc32, images)) == MNIST_SUMS:
        return
    inks = []
    for part, array in zip(("training", "test"), images, strict=True):
        few = np.array_split(array, -(-len(array) // 1000))  # whose numbers take eight times the memory when counted
        counts = sum(np.bincount(one.reshape(-1), minlength=256) for one in few)
        inks.append(counts @ np.arange(256) / (255 * array.size))
        if np.count_nonzero(counts) == 2:
            low, high = np.flatnonzero(counts)
            problem = f"The {part} images at {path} are binary already ({low} and {high})."
            raise LabError(f"{problem} MNIST's own, of 256 levels, are wanted, to be binarised here. {MNIST_HELP}")
        if inks[-1] > 0.5:
            problem = f"The {part} images at {path} are {inks[-1]:.0%} ink: dark on white paper."
            raise LabError(f"{problem} MNIST's are light ink on 0. Turn them over, 255 - images, or take MNIST's own.")
    alike = [f"as much as {name} has" for name, ink in INK.items() if abs(ink - inks[0]) < 0.003]
    told = f"{inks[0]:.1%} of the training images is ink, {', '.join(alike) or 'MNIST has 13.1%'}"
    warnings.warn(
        f"The images at {path} are not MNIST's, or not in its order ({told}). Results on them are not MNIST results.",
        stacklevel=3,
    )


def binarized_mnist(source=None, static=False):
    """MNIST binarised by one protocol: training, validation and test sequences, float32 (count, 28, 28).

    A grey value is the probability of a 1 (Salakhutdinov and Murray 2008). Training is on the first 50,000 training
    images, settings are chosen on the other 10,000 (validation), results are of all 10,000 test images; validation and
    test are binarised once with a fixed seed. Training images stay grey, to be binarised anew for each batch
    (dynamic: `train(..., prepare=torch.bernoulli)`), or are binarised once too (static). Source: see `load_mnist`.

    static: bits of our own making, or those of the public files, where the source is a folder that holds them
        (`public_static`).
    """
    if static and (parts := public_static(source)):
        return parts
    images, test = (torch.tensor(part, dtype=torch.float32) / 255 for part in load_mnist(source))
    if len(images) <= 10_000:
        raise LabError(f"MNIST has 60,000 training images, not {len(images):,}: some are kept for validation.")
    training, validation = images[:-10_000], images[-10_000:]
    seeded = torch.Generator().manual_seed(0)
    test, validation = torch.bernoulli(test, generator=seeded), torch.bernoulli(validation, generator=seeded)
    return torch.bernoulli(training, generator=seeded) if static else training, validation, test


def binarized_tests(source=None, count=5):
    """MNIST's test images binarised several times: float32 (count, images, 28, 28), of which the first is the test
    part of `binarized_mnist`. How much nats differ between them is what binarising by chance makes of a result."""
    test = torch.tensor(load_mnist(source)[1], dtype=torch.float32) / 255
    seeds = range(whole("count", count))
    return torch.stack([torch.bernoulli(test, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def public_static(source=None):
    """The public static binarisation of MNIST: training, validation and test, float32 (count, 28, 28); None where the
    source is no folder that holds its files.

    The files are STATIC_FILES: a line for each image, 784 times 0 or 1; 50,000, 10,000 and 10,000 of them. The values
    that papers call static are of these. Source: Larochelle and Murray, "The Neural Autoregressive Distribution
    Estimator", 2011; Salakhutdinov and Murray, 2008.

    Raises LabError where one of the files is missing beside another, or holds anything else.
    """
    source = source or os.environ.get("PIXELRNN_MNIST")
    if not source or not (DATA.parent / str(source)).is_dir():
        return None
    paths = [DATA.parent / str(source) / name for name in STATIC_FILES]
    if not any(path.exists() for path in paths):
        return None
    parts = []
    for path in paths:
        signs = np.frombuffer(existing(path, "A static binarisation", STATIC_HELP).read_bytes(), np.uint8)
        signs = signs[~np.isin(signs, np.frombuffer(b" \t\r\n", np.uint8))]
        if not signs.size or signs.size % 784 or not np.isin(signs, (ord("0"), ord("1"))).all():
            raise LabError(f"{path} holds something else than images of 784 times 0 or 1. {STATIC_HELP}")
        parts.append(torch.from_numpy((signs == ord("1")).astype(np.float32)).reshape(-1, 28, 28))
    return parts


def camera_tiles(size=28):
    """scikit-image's camera, binarised, in square tiles: uint8 (count, size, size), 0 and 1. Rows and columns that fill
    no tile, at the right and below, are left out."""
    picture = helpers.binarize(helpers.load_picture("camera", gray=True))[..., 0] > 0
    down, across = (length // size for length in picture.shape)
    tiles = picture[: down * size, : across * size].reshape(down, size, across, size).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, size, size), np.uint8)


def independent_pixels(training, held_out, levels=2):
    """Nats of each held-out picture where every place knows how often it takes each level, and nothing else: (count,).

    The baseline of a likelihood: no value depends on another. training, held_out: (count, rows, columns) in [0, 1], on
    `levels` levels; each count of a level is the training pictures' plus one.
    """
    values, seen = torch.round(held_out * (levels - 1)).long(), torch.round(training * (levels - 1))
    counts = torch.stack([(seen == level).sum(0) + 1 for level in range(levels)], -1)  # (rows, columns, levels)
    logs = (counts / counts.sum(-1, keepdim=True)).double().log()
    return -logs.expand(len(values), *logs.shape).gather(-1, values[..., None]).sum((1, 2, 3)).cpu().numpy()


def _found(folder, name):
    """The path of one of MNIST's files, by any of the names that it has: as on its site, or with a dot, as 7-Zip and
    Kaggle write it; in the folder, in torchvision's (MNIST/raw), or in one folder within it."""
    names = [one + end for one in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
    inside = sorted(folder.iterdir())
    for places in ([folder], [folder / "raw"], [folder / "MNIST" / "raw"], [one for one in inside if one.is_dir()]):
        paths = [place / one for place in places for one in names if (place / one).is_file()]
        if len({path.parent for path in paths}) > 1:
            several = shortened(", ".join(map(str, paths)))
            raise LabError(f"{name} is in several folders: {several}. Name one of them. {MNIST_HELP}")
        if paths:
            return paths[0]
    held = shortened(", ".join(one.name + "/" * one.is_dir() for one in inside)) or "nothing"
    advice = f"The folder holds {held}. {MNIST_HELP}"
    raise NoFileError(f"There is no file {folder / name}, nor one of a like name. {advice}")


def _read_idx(path):
    """The images of an IDX file, plain or compressed: big-endian 2051, count, rows, columns, then a byte a pixel."""
    path = existing(path, "MNIST", MNIST_HELP)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"  # not by its name: browsers unpack a .gz and leave its name
        with gzip.open(path) if packed else path.open("rb") as file:
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
            pooch.retrieve(
                f"{MNIST_URL}{name}.gz", sha256, f"{name}.gz", DATA / "mnist", progressbar=devices.someone_watches()
            )
    except (OSError, ValueError) as error:  # no network; not the file that was promised
        raise LabError(f"MNIST could not be downloaded: {error}. {MNIST_HELP}") from error
    return DATA / "mnist"


class KnownSource:
    """Binary pictures of known probability: each value is sampled given the value above and the one to its left.

    rule: (above, left), each (..., columns) of 0 and 1, the whole row above and for each value the one to its left ->
        the probability that the value is 1, (..., columns). The first row is sampled evenly; left of a row is 0.

    Sequences are (batch, rows, columns) of 0 and 1, float32.
    """

    def __init__(self, rule, rows, columns):
        self.rule, self.rows, self.columns = rule, whole("rows", rows), whole("columns", columns)

    def sample(self, count):
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
