"""Trains and measures what note 12 says of icons.

    python tools/icons.py bits [--seconds 180] [--store]    three heads and independent channels, three seeds each
    python tools/icons.py layers [--seconds 180] [--store]  the layers of notes 5 and 6 with logistics, three seeds each
    python tools/icons.py codes [--store]                   files of the stored network, PNG, WebP, JPEG XL and xz
    python tools/icons.py weights [--updates 12000]         the stored network that icons are sampled from

All are measured in bits of a value, 768 of them in an icon. Each network trains on one core, one after another;
seconds are those of its own work (time.process_time). Tables go into build/, with --store into data/icons/.
"""

import argparse
import lzma
import os
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: one core for everybody

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

from pixelrnn.coding import classical_codes, colour_codec
from pixelrnn.data import icons
from pixelrnn.evidence import errors
from pixelrnn.models import colour, layers_in_colour, weights
from pixelrnn.models.layers_in_colour import LayersInColour
from support import checks, devices, files

# What is trained for the table, and the network whose weights are stored.
KINDS = {name: {"head": name} for name in colour.HEADS} | {"copies, independent": {"in_order": False}}
LAYERS = dict.fromkeys(layers_in_colour.MODELS, 0.02)  # and their learning rates
SEEDS, BATCH, LEARNING_RATE, WARM_UP = (0, 1, 2), 16, 0.005, 50
STORED = {"features": 192, "dropout": 0.1}
MIRRORED = 0.75  # of the training of that network, in which half of the batches are mirrored
SHEETS = (1, 16, 60)  # icons side by side in one picture; of these the shortest file counts


def parts():
    return icons.Icons(*(torch.from_numpy(part) for part in icons.load_icons()))


def fit(model, loss_of_batch, done, learning_rate):
    """Trains a model; returns the loss of each update. loss_of_batch(fraction): of a new batch. done(updates): the
    fraction of the training that is behind it, 1 at its end."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=learning_rate), []
    while (fraction := done(len(losses))) < 1:
        rate = learning_rate * min(1, (len(losses) + 1) / WARM_UP) * (1 + np.cos(np.pi * fraction)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of_batch(fraction)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def alone(seed):
    """One core for a training, from a seed."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)


def train(build, seed, done, mirrored=0.0, learning_rate=LEARNING_RATE):
    """A network that `build` makes, and its updates. mirrored: until this fraction half of the batches are mirrored.
    done: see fit."""
    alone(seed)
    model, training = build(), parts().training

    def loss_of_batch(fraction):
        few = training[torch.randint(len(training), (BATCH,))]
        few = few.flip(2) if fraction < mirrored and torch.rand(()) < 0.5 else few
        return model.bits(few).mean()

    return model, len(fit(model, loss_of_batch, done, learning_rate))


def within(seconds):
    """Of training: the fraction of these seconds that has passed since the first update began."""
    times = []

    def done(updates):
        times.append(time.process_time())
        return (times[-1] - times[0]) / seconds

    return done


def measured(model):
    """Bits of a value of each icon: Icons, (count,) each; of the training icons the first 400."""
    with torch.no_grad():
        of_parts = [part[:400] if name == "training" else part for name, part in zip(icons.PARTS, parts(), strict=True)]
        return icons.Icons(
            *(torch.cat([model.bits(few).mean((1, 2, 3)) for few in p.split(50)]).numpy() for p in of_parts)
        )


def run(build, seed, seconds, **training):
    """One row of the table: updates, bits of training, validation and test icons, standard error of the last."""
    model, updates = train(build, seed, within(seconds), **training)
    bits = measured(model)
    error = errors.standard_error(bits.test, icons.families().test)
    return [updates, *(round(float(part.mean()), 4) for part in bits), round(error, 4)]


def machine():
    told = {"processor": devices.processor(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return told | {"torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}


def path_of(name, store):
    return (files.DATA / "icons" if store else ROOT / "build") / f"{name}.csv"


def measure_bits(what, seconds, store):
    """A table of the heads ("bits") or of the layers."""
    if what == "bits":
        kinds = {name: (partial(colour.ColourPixelCNN, **settings), {}) for name, settings in KINDS.items()}
    else:
        kinds = {name: (partial(LayersInColour, name), {"learning_rate": rate}) for name, rate in LAYERS.items()}
    rows = {}
    for seed in SEEDS:
        for kind, (build, training) in kinds.items():
            rows[kind, seed] = [kind, seed, *run(build, seed, seconds, **training)]
            print(*rows[kind, seed], flush=True)
    command = f"python tools/icons.py {what} --seconds {seconds:g} --store"
    protocol = {"command": command, "unit": "bits of a value", "seconds": seconds, **machine()}
    names = ["head" if what == "bits" else "model", "seed", "updates", *icons.PARTS, "standard error"]
    files.write_table(path_of(what, store), protocol, names, [rows[kind, seed] for kind in kinds for seed in SEEDS])


CODES = classical_codes.OF_COLOUR | {
    "xz": lambda picture: lzma.compress(picture.tobytes(), lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME),
}


def bits_of(encode, pictures):
    """Bits of a value, each icon in a file of its own; all in one."""
    each = sum(len(encode(picture)) for picture in pictures)
    together = min(len(encode(icons.as_sheet(pictures, columns))) for columns in SHEETS)
    return 8 * each / pictures.size, 8 * together / pictures.size


def bits_in_file(pictures, model):
    """Bits of a value, all in one file that a network writes and reads again."""
    data = colour_codec.compress(pictures, model)
    if not np.array_equal(colour_codec.decompress(data, model), pictures):
        raise checks.LabError("Other pictures were read than were written.")
    return 8 * len(data) / pictures.size


def measure_codes(store):
    """Of the stored network and of each code: each icon alone, all in one file, one icon of each family in one file. xz
    once more with all training icons known to both sides."""
    training, _, test = icons.load_icons()
    first = test[np.unique(icons.families().test, return_index=True)[1]]
    model, _ = weights.load("icons")
    each = np.mean([bits_in_file(icon[None], model) for icon in test])
    rows = [["stored network, in files", each, bits_in_file(test, model), bits_in_file(first, model)]]
    rows += [[name, *bits_of(encode, test), bits_of(encode, first)[1]] for name, encode in CODES.items()]
    known = len(CODES["xz"](training))

    def after(pictures):
        return 8 * (len(CODES["xz"](np.concatenate([training, pictures]))) - known)

    each = np.mean([after(test[[number]]) for number in range(len(test))]) / test[0].size
    rows += [["xz after the training icons", each, after(test) / test.size, after(first) / first.size]]
    rows = [[name, *(round(value, 4) for value in values)] for name, *values in rows]
    for row in rows:
        print(*row)
    protocol = {"command": "python tools/icons.py codes --store", "unit": "bits of a value", **machine()}
    names = ["code", "each", "together", "one of each family"]
    files.write_table(path_of("codes", store), protocol, names, rows)


def make_weights(updates):
    model, _ = train(partial(colour.ColourPixelCNN, **STORED), 0, lambda done: done / updates, MIRRORED)
    exact = [float(part.mean()) for part in measured(model)]
    card = {
        "what": "a PixelCNN of icons, 256 levels, with a head that copies",
        "data": "icons.load_icons()",
        "command": f"python tools/icons.py weights --updates {updates}",
        "updates": updates,
        "training": {"batch_size": BATCH, "learning_rate": LEARNING_RATE, "mirrored until": MIRRORED},
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "licence of what it learned from": "Fugue Icons 3.5.6, Yusuke Kamiyamane: Creative Commons Attribution 3.0",
        **machine(),
    }
    weights.store("icons", model, card)
    bits = measured(weights.load("icons")[0])
    card["bits of a value"] = {name: round(float(p.mean()), 4) for name, p in zip(icons.PARTS, bits, strict=True)}
    card["bits in 32 bits"] = {name: round(mean, 4) for name, mean in zip(icons.PARTS, exact, strict=True)}
    card["standard error of test"] = round(errors.standard_error(bits.test, icons.families().test), 4)
    weights.store("icons", model, card)
    print(card)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("bits", "layers", "codes", "weights"))
    parser.add_argument("--seconds", type=float, default=180, help="of training of one core (default: 180)")
    parser.add_argument("--updates", type=int, default=12000, help="for `weights` (default: 12,000)")
    parser.add_argument("--store", action="store_true", help="tables in data/icons/, which note 12 reads")
    arguments = parser.parse_args(words)
    with checks.ended_in_words():
        if arguments.what == "weights":
            files.check_writable(*weights.paths("icons"))
            make_weights(checks.whole("--updates", arguments.updates))
        else:
            files.check_writable(path_of(arguments.what, arguments.store))
            seconds = checks.number("--seconds", arguments.seconds, above=True)
            if arguments.what == "codes":
                measure_codes(arguments.store)
            else:
                measure_bits(arguments.what, seconds, arguments.store)


if __name__ == "__main__":
    main()
