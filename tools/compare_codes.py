"""Measures note 9's compression beside classical codes and stores it: `make codecs`.

    python tools/compare_codes.py [--data letters digits camera noise] [--store]

letters: all test letters; digits: MNIST's 10,000 test images, binarised once (--mnist, or the environment variable
PIXELRNN_MNIST); camera: scikit-image's camera, binarised, in 324 tiles of 28 x 28; noise: as many pictures of fair
coins as there are test letters. Bits are means over all pictures, of files of one picture each (for our own code: its
stream, without a header; what a file of one picture takes is said besides) and of one file for all, with everything
that is in it. Letters and digits are coded too by what has learned from the same training pictures as our networks:
context templates with counts, and zstd with a dictionary. Seconds are of one core, encoding and decoding one file for
all; other programs beside it make them longer, so only those of one table can be compared.

The tables go into build/, with --store into data/compression/, which note 9 reads.
"""

import argparse
import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: one core for everybody

import imagecodecs
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

from pixelrnn.coding import classical_codes, codec, trained_codes
from pixelrnn.data import datasets, letters
from pixelrnn.models import weights
from support import checks, devices, files

DATA = ("letters", "digits", "camera", "noise")
BINARISATIONS = 5  # of the training digits, from which codes learn
DECODED = 20  # pictures that are decoded where it is slow
ALONE = 100  # pictures that are put in files of their own, with header and checksums


def pictures(name, mnist=None):
    """Binary pictures, uint8 (count, 28, 28)."""
    if name == "digits":
        return datasets.binarized_mnist(mnist)[2].numpy().astype(np.uint8)
    test = letters.load_letters()[2].astype(np.uint8)
    if name == "noise":
        return np.random.default_rng(0).integers(0, 2, test.shape, np.uint8)
    return test if name == "letters" else datasets.camera_tiles()


def training(name, mnist=None):
    """What a code may learn from: yields binary pictures, uint8 (count, 28, 28)."""
    if name == "letters":
        yield letters.load_letters().training
    if name == "digits":
        grey = datasets.binarized_mnist(mnist)[0]
        for seed in range(BINARISATIONS):
            yield torch.bernoulli(grey, generator=torch.Generator().manual_seed(seed)).numpy().astype(np.uint8)


def decoded(name, data, shape):
    """The picture that a classical code gives back, to see that it is the same."""
    if name in classical_codes.OF_BYTES:
        module = {"gzip": gzip, "bz2": bz2, "xz": lzma}[name]
        return np.unpackbits(np.frombuffer(module.decompress(data), np.uint8))[: shape[0] * shape[1]].reshape(shape)
    if name == "JPEG XL":
        return imagecodecs.jpegxl_decode(data).reshape(shape)
    if name == "JBIG1":
        run = subprocess.run(["jbgtopbm"], input=data, capture_output=True, check=True).stdout
        return (np.array(Image.open(io.BytesIO(run))) == 0).astype(np.uint8)
    return (np.array(Image.open(io.BytesIO(data)).convert("L")) > 0).astype(np.uint8)


def timed(call):
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def measure_classical(name, images):
    """Bits each, bits together, seconds to encode and to decode all."""
    each = classical_codes.each(name, images)
    together, width = classical_codes.together(name, images)
    whole = classical_codes.mosaic(images, width)
    data, encoding = timed(lambda: classical_codes.encode(name, whole))
    again, decoding = timed(lambda: decoded(name, data, whole.shape))
    if not (again == whole).all():
        raise AssertionError(f"{name} does not give back what was put in.")
    return [name, each, together, encoding, decoding]


def trained(data, mnist):
    """Codes without a network that have learned from the training pictures: name -> code; none where there are none."""
    if data not in weights.NAMES:
        return {}
    codes = {
        f"template of {pixels} pixels": trained_codes.ContextTemplate(pixels) for pixels in trained_codes.TEMPLATES
    }
    for seen in training(data, mnist):
        for code in codes.values():
            code.learn(seen)
    return codes | ({"zstd with a dictionary": trained_codes.Zstd().learn(seen)} if trained_codes.Zstd.there else {})


def measure_trained(code, images):
    """Bits each, bits together, seconds to encode and to decode all (by a template: some, value by value)."""
    each = 8 * sum(len(code.encode(image[None])) for image in images) / len(images)
    data, encoding = timed(lambda: code.encode(images))
    part = images if isinstance(code, trained_codes.Zstd) else images[:DECODED]
    data_of_part = code.encode(part)
    again, decoding = timed(lambda: code.decode(data_of_part, part.shape))
    if not (again == part).all():
        raise AssertionError(f"{code} does not give back what was put in.")
    return [each, 8 * len(data) / len(images), encoding, decoding * len(images) / len(part)]


def measure_ours(name, images):
    """The same, of the model with these stored weights; what its likelihood promises, and what a file of one picture
    takes, in bits."""
    model, _ = weights.load(name)
    known = torch.from_numpy(images).float()
    each = 8 * sum(map(len, codec.streams(known, model))) / len(known)
    data, encoding = timed(lambda: codec.compress(known, model))
    again, decoding = timed(lambda: codec.decompress(data, model))
    if not torch.equal(again, known):
        raise AssertionError(f"The code with the weights of {name} does not give back what was put in.")
    mixed, own = model.nats(known, each=True)
    best = own.min(0).mean() / np.log(2) + np.log2(len(own))
    promised = {"mixture": mixed.mean() / np.log(2), "best order": best, "mean order": own.mean() / np.log(2)}
    promised["a file of one picture"] = np.mean([8 * len(codec.compress(one[None], model)) for one in known[:ALONE]])
    return [f"weights of {name}", each, 8 * len(data) / len(known), encoding, decoding], promised


def path_of(data, store):
    return (files.DATA / "compression" if store else ROOT / "build") / f"{data}.csv"


def measure(data, mnist, store):
    images, rows, promised = pictures(data, mnist), [], {}
    for name in weights.NAMES:
        row, promised[name] = measure_ours(name, images)
        rows.append(row)
        print(data, *row, promised[name], flush=True)
    for name in classical_codes.NAMES:
        if name in classical_codes.OF_PICTURES or name in classical_codes.OF_BYTES:
            rows.append(measure_classical(name, images))
            print(data, *rows[-1], flush=True)
    for name, code in trained(data, mnist).items():
        rows.append([name, *measure_trained(code, images)])
        print(data, *rows[-1], flush=True)
    protocol = {
        "command": f"python tools/compare_codes.py --data {data} --store",
        "pictures": len(images),
        "unit": "bits per picture; seconds for all of them",
        "promised": {name: {key: round(bits, 3) for key, bits in of.items()} for name, of in promised.items()},
        "weights": {name: weights.load(name)[1]["sha256"][:16] for name in weights.NAMES},
        "processor": devices.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    rows = [[name, *(round(value, 3) for value in values)] for name, *values in rows]
    names = ["code", "each", "together", "encoding", "decoding"]
    files.write_table(path_of(data, store), protocol, names, rows)
    print(f"Stored in {path_of(data, store)}.")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--store", action="store_true", help="in data/compression/, which note 9 reads")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    with checks.ended_in_words("Interrupted. The tables that were stored are there; --data names those that are left."):
        if "digits" in arguments.data:
            datasets.load_mnist(arguments.mnist)  # told before minutes of work, as is what cannot be written
        files.check_writable(*(path_of(name, arguments.store) for name in arguments.data))
        for name in arguments.data:
            measure(name, arguments.mnist, arguments.store)


if __name__ == "__main__":
    main()
