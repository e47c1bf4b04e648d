"""Trains and measures what note 13 says of photographs.

    python tools/photos.py bits [--seconds 60] [--store]    heads, each of four photographs held out, three seeds each
    python tools/photos.py codes [--store]                  PNG, WebP and JPEG XL
    python tools/photos.py files [--seconds 60] [--store]   files of the logistics, each of four photographs held out
    python tools/photos.py weights [--updates 4000]         the stored networks, which have not seen the astronaut

All are measured in bits of a value, three values of a pixel. Each network trains on one core, one after another;
seconds are those of its own work (time.process_time). Tables go into build/, with --store into data/photographs/.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: one core for everybody

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import icons

from pixelrnn.coding import classical_codes, colour_codec
from pixelrnn.data import photos
from pixelrnn.models import photo, weights
from support import checks, files

KINDS = {name: {"head": name} for name in photo.HEADS} | {"logistics, independent": {"in_order": False}}
SEEDS, BATCH, LEARNING_RATE = (0, 1, 2), 1024, 0.003
STORED = {"photographs": "logistics", "photographs-softmax": "softmax"}  # the weights' names, and their heads
HELD_OUT = "astronaut"  # of the stored ones


def pool(held_out):
    """Windows of all photographs but one, as they are and turned."""
    learned = (photos.photograph(name) for name in photos.LICENCES if name != held_out)
    return photos.Pool([view for picture in learned for view in photos.turned(picture)], photo.offsets())


def train(settings, of, seed, done):
    """A network, its updates, and its mean bits of a value in the last 200. of: a pool. done: see icons.fit."""
    icons.alone(seed)
    model = photo.PhotoPixelCNN(**settings)
    bits = icons.fit(model, lambda fraction: model.bits(*of.draw(BATCH)).mean(), done, LEARNING_RATE)
    return model, len(bits), float(np.mean(bits[-200:]))


def measured(model, name):
    """Bits of a value of a photograph: whole; its patches, each by itself; whole, under a network that learns as it
    reads."""
    picture, patches = (torch.from_numpy(of(photos.photograph(name))) for of in (np.array, photos.patches))
    learning = photo.bits_while_learning(model, picture)
    return [bits.mean().item() for bits in (model.bits_of(picture[None]), model.bits_of(patches), learning)]


def measure_bits(seconds, store):
    rows = {}
    for seed in SEEDS:
        for name in photos.TESTED:
            of = pool(name)
            for kind, settings in KINDS.items():
                model, updates, own = train(settings, of, seed, icons.within(seconds))
                found = [own, *measured(model, name)]
                rows[kind, name, seed] = [kind, name, seed, updates, *(round(value, 4) for value in found)]
                print(*rows[kind, name, seed], flush=True)
    command = f"python tools/photos.py bits --seconds {seconds:g} --store"
    protocol = {"command": command, "unit": "bits of a value", "seconds": seconds, **icons.machine()}
    names = ["head", "held out", "seed", "updates", "training", "whole", "patches", "while learning"]
    ordered = [rows[kind, name, seed] for kind in KINDS for name in photos.TESTED for seed in SEEDS]
    files.write_table(path_of("bits", store), protocol, names, ordered)


def path_of(name, store):
    return (files.DATA / "photographs" if store else ROOT / "build") / f"{name}.csv"


def _apart(picture):
    """The channels of a picture in files of their own."""
    channels = (np.ascontiguousarray(picture[..., channel]) for channel in range(3))
    return b"".join(classical_codes.OF_COLOUR["JPEG XL"](channel) for channel in channels)


CODES = classical_codes.OF_COLOUR | {"JPEG XL, channels apart": _apart}


def measure_codes(store):
    """Of each code: each photograph, whole in one file, and its patches in files of their own."""
    rows = []
    for code, encode in CODES.items():
        for name in photos.TESTED:
            picture, patches = photos.photograph(name), photos.patches(photos.photograph(name))
            whole = 8 * len(encode(picture)) / picture.size
            each = 8 * sum(len(encode(patch)) for patch in patches) / patches.size
            rows.append([code, name, round(whole, 4), round(each, 4)])
            print(*rows[-1], flush=True)
    protocol = {"command": "python tools/photos.py codes --store", "unit": "bits of a value", **icons.machine()}
    files.write_table(path_of("codes", store), protocol, ["code", "photograph", "whole", "patches"], rows)


def measure_files(seconds, store):
    """Of each photograph, by networks that learned from the others: one file of the whole, one of all its patches, and
    a file for each patch; what is read again is compared."""
    rows = []
    for name in photos.TESTED:
        model, _, _ = train(KINDS["logistics"], pool(name), SEEDS[0], icons.within(seconds))
        picture = photos.photograph(name)
        patches, times = photos.patches(picture), [time.process_time()]
        data = colour_codec.compress(picture[None], model)
        times.append(time.process_time())
        again = colour_codec.decompress(data, model)[0]
        times.append(time.process_time())
        if not np.array_equal(again, picture):
            raise checks.LabError("Another photograph was read than was written.")
        bits = [model.bits_of(torch.from_numpy(picture)[None]).mean().item(), 8 * len(data) / picture.size]
        bits += [icons.bits_in_file(patches, model)]
        bits += [np.mean([icons.bits_in_file(patch[None], model) for patch in patches])]
        rows.append([name, *(round(float(one), 4) for one in bits), *np.diff(times).round(1)])
        print(*rows[-1], flush=True)
    command = f"python tools/photos.py files --seconds {seconds:g} --store"
    protocol = {"command": command, "unit": "bits of a value", "seed": SEEDS[0], "seconds": seconds, **icons.machine()}
    names = ["photograph", "promised", "whole", "patches in one file", "patches", "seconds to write", "seconds to read"]
    files.write_table(path_of("files", store), protocol, names, rows)


def make_weights(updates):
    of, picture = pool(HELD_OUT), torch.from_numpy(photos.photograph(HELD_OUT))
    for name, head in STORED.items():
        model, _, own = train({"head": head}, of, 0, lambda done: done / updates)
        card = {
            "what": f"a PixelCNN of photographs, 256 levels, {head}",
            "data": f"photographs of scikit-image and scikit-learn but {HELD_OUT}; see photos.LICENCES",
            "command": f"python tools/photos.py weights --updates {updates}",
            "updates": updates,
            "training": {"batch_size": BATCH, "learning_rate": LEARNING_RATE},
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "licence of what it learned from": {n: of for n, of in photos.LICENCES.items() if n != HELD_OUT},
            **icons.machine(),
        }
        exact = model.bits_of(picture[None]).mean().item()
        weights.store(name, model, card)
        stored = weights.load(name)[0].bits_of(picture[None]).mean().item()
        found = {"training": own, HELD_OUT: stored, f"{HELD_OUT}, in 32 bits": exact}
        card["bits of a value"] = {name: round(value, 4) for name, value in found.items()}
        weights.store(name, model, card)
        print(card, flush=True)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("bits", "codes", "files", "weights"))
    parser.add_argument("--seconds", type=float, default=60, help="of training of one core (default: 60)")
    parser.add_argument("--updates", type=int, default=4000, help="for `weights` (default: 4,000)")
    parser.add_argument("--store", action="store_true", help="tables in data/photographs/, which note 13 reads")
    arguments = parser.parse_args(words)
    with checks.ended_in_words():
        if arguments.what == "weights":
            files.check_writable(*(path for name in STORED for path in weights.paths(name)))
            make_weights(checks.whole("--updates", arguments.updates))
        else:
            files.check_writable(path_of(arguments.what, arguments.store))
            seconds = checks.number("--seconds", arguments.seconds, above=True)
            if arguments.what == "codes":
                measure_codes(arguments.store)
            else:
                (measure_bits if arguments.what == "bits" else measure_files)(seconds, arguments.store)


if __name__ == "__main__":
    main()
