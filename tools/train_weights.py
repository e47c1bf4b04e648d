"""Trains the weights in data/weights/ again: `make weights`.

    python tools/train_weights.py [letters digits drawn-letters drawn-digits] [--updates N] [--folder build]

Each network trains on one core, in a process of its own, as many at once as there are cores, for a number of updates
that does not depend on the machine. configs.WEIGHTS says which networks they are. Digits need MNIST (--mnist, or the
environment variable PIXELRNN_MNIST). Nats are means over all held-out pictures, validation and test, measured on the
weights as they are stored, in 16 bits; how much that moves them is told on the card.

A training that is stopped, in whatever way, goes on where the same command is typed again: until the weights are
stored, a checkpoint of each network is kept in build/checkpoints/ every three minutes, at Ctrl-C and at its end.
"""

import argparse
import os
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import helpers
from pixelrnn.data import datasets, letters, strokes
from pixelrnn.evidence import errors
from pixelrnn.models import configs, orders, weights
from support import checkpoints, checks, devices, files

BUILD = ROOT / "build"
ALL = weights.NAMES + weights.DRAWN
SEED = 0  # of the held-out drawings
# What becomes of each batch.
PREPARE = {"digits": torch.bernoulli} | dict.fromkeys(weights.DRAWN, strokes.redrawn)
LICENCES = {
    "letters": "DejaVu fonts 2.37 as matplotlib carries them: Bitstream Vera and Arev licences",
    "digits": "MNIST, LeCun, Cortes and Burges: Creative Commons Attribution-Share Alike 3.0",
}
LICENCES |= {f"drawn-{name}": licence for name, licence in LICENCES.items()}


def pictures(name, mnist=None):
    """Training, validation and test pictures, float32 (count, 28, 28); of drawn ones skeletons to train on."""
    if name in weights.DRAWN:
        training, *held_out = strokes.digits(mnist) if name == "drawn-digits" else strokes.letters()
        torch.manual_seed(SEED)
        again = 1 if name == "drawn-digits" else 10  # of few letters
        return [training, *(strokes.redrawn(part.repeat(again, 1, 1)) for part in held_out)]
    if name == "digits":
        return datasets.binarized_mnist(mnist)
    return [torch.tensor(part, dtype=torch.float32) for part in letters.load_letters()]


def train(name, member, updates, mnist):
    """One network of stored weights, trained in one order, or in all that it shares."""
    torch.set_num_threads(1)
    recipe, (order, seed) = configs.WEIGHTS[name], member
    training = pictures(name, mnist)[0]
    torch.manual_seed(seed)
    model = recipe.build()
    training = training if order in (None, 0) else orders.turned(training, order).contiguous()
    kept = checkpoint_of(name, member, {"updates": updates, "pictures": crc32(training.numpy())})
    settings = {"prepare": PREPARE.get(name), **recipe.training}
    history = helpers.train(model, training, steps=updates, checkpoint=kept, **settings)
    if history.interrupted:  # by a person who watches
        raise KeyboardInterrupt
    return model


def checkpoint_of(name, member, of_run=None):
    """The checkpoint of one network; of_run: what is known when it is trained."""
    order, seed = member
    path = BUILD / "checkpoints" / f"weights_{name}_order{'s' if order is None else order}_seed{seed}.safetensors"
    run = {"name": name, "training": configs.WEIGHTS[name].training, "torch": torch.__version__, **(of_run or {})}
    return checkpoints.Checkpoint(path, run)


def measured(model, parts):
    """Mean nats of validation and test pictures, of the mixture and of each order by itself; and of the first test
    pictures alone, for a check that takes seconds."""
    nats = {}
    for part, images in zip(("validation", "test"), parts[1:], strict=True):
        mixed, own = model.nats(images, each=True)
        nats[part] = {"mixture": round(float(mixed.mean()), 3), "orders": np.round(own.mean(1), 3).tolist()}
    return nats | {f"first {weights.FIRST} of test": round(float(mixed[: weights.FIRST].mean()), 3)}


def trusted(name, model, parts, mnist):
    """How far the mean nats of the test pictures can be trusted: standard errors over pictures (of letters: over their
    families), of the mixture and of what it is below its first order; of digits the nats of five binarisations."""
    families = letters.families().test if name == "letters" else None
    mixed, own = model.nats(parts[2], each=True)
    told = {"mixture": errors.standard_error(mixed, families)}
    if len(own) > 1:
        below, error = errors.difference(own[0], mixed, families)
        told |= {"below the first order": below, "of that": error}
    told = {key: round(value, 4) for key, value in told.items()}
    if name == "digits":
        again = datasets.binarized_tests(mnist)
        told["binarisations"] = [round(float(model.nats(images).mean()), 3) for images in again]
    return told


def checkpoints_of(names):
    """The paths of the checkpoints of all networks of these weights."""
    return [checkpoint_of(name, member).path for name in names for member in configs.WEIGHTS[name].members]


def networks(name, updates, mnist):
    """All networks of stored weights, trained, each in a process of its own."""
    members = configs.WEIGHTS[name].members
    calls = {
        f"{name}, order {order}, seed {seed}": (train, name, (order, seed), updates, mnist) for order, seed in members
    }
    trained = dict(devices.in_processes(calls, os.cpu_count()))
    return [trained[call] for call in calls]


def make(name, parts, updates=None, mnist=None, folder=None):
    """Train, measure on these parts and store; updates: of each network, those of its recipe if not given."""
    recipe = configs.WEIGHTS[name]
    updates = updates or recipe.updates
    models = networks(name, updates, mnist)
    model = models[0] if recipe.shared else orders.Mixture([order for order, _ in recipe.members], models)
    exact = measured(model, parts)
    card = {
        "what": recipe.what,
        "data": recipe.data,
        "command": f"python tools/train_weights.py {name}"
        + (f" --updates {updates}" if updates != recipe.updates else ""),
        "updates": updates,
        "training": recipe.training,
        "members": recipe.members,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "licence of what it learned from": LICENCES[name],
        "torch": torch.__version__,
    }
    weights.store(name, model, card, folder)
    stored, _ = weights.load(name, folder)
    card["nats"] = measured(stored, parts)
    card["nats in 32 bits"] = exact
    card["standard errors"] = trusted(name, stored, parts, mnist)
    for path in weights.store(name, model, card, folder):
        print(f"Stored in {path}.")
    print(f"{name}: {card['nats']}")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(ALL)} (default: all)")
    parser.add_argument("--updates", type=int, help="of each network (default: those of configs.WEIGHTS)")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--folder", type=Path, help="where to (default: data/weights/)")
    arguments = parser.parse_args(words)
    try:
        updates = None if arguments.updates is None else checks.whole("--updates", arguments.updates)
        names = [checks.choice("A name", name, ALL) for name in arguments.names or ALL]
        parts = {
            name: pictures(name, arguments.mnist) for name in names
        }  # what is missing is told before hours of work
        for name in names:
            files.check_writable(*weights.paths(name, arguments.folder), *checkpoints_of([name]))
        for name in names:
            make(name, parts[name], updates, arguments.mnist, arguments.folder)
        for path in checkpoints_of(names):  # when all are stored, so that none is trained again
            path.unlink(missing_ok=True)
    except checks.LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        there = [path for path in checkpoints_of(names) if path.exists()]
        told = [f"{path.stem} after {checkpoints.read_updates(path):,} updates" for path in there]
        print(f"Interrupted. The same command {'goes on: ' + ', '.join(told) if told else 'begins anew'}.")
        sys.exit(130)  # as a shell tells it


if __name__ == "__main__":
    main()
