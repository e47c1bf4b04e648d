"""Trains a model on binarised MNIST for a budget of seconds and stores what it reaches: `make bench`.

    python bench.py --head joint --seconds 900 [--hidden 256] [--static] [--seeds 0 1 2] [--validation] [--store]

Protocol: helpers.binarized_mnist; nats per image are means over all 10,000 test images. Time is that of training
alone, on all cores this process may use, one run after another. The result goes into build/, with --store into
data/benchmarks/: a comment with command, protocol and machine, then seed, seconds, updates and nats for each look at
the images. A run that is interrupted or fails is not stored; the seeds before it are.
"""

import argparse
import csv
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

import helpers

ROOT = Path(__file__).parent
LOOKS = 10  # at the images that are measured on, evenly spaced over the budget


def processor():
    """The processor's name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.open() if "model name" in line] if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


def command(arguments):
    """What to type to run this again, where MNIST lies left out."""
    flags = [name for name in ("static", "validation", "store") if getattr(arguments, name)]
    words = [f"--head {arguments.head} --seconds {arguments.seconds:g} --hidden {arguments.hidden}"]
    words += [f"--seeds {' '.join(map(str, arguments.seeds))}", *(f"--{flag}" for flag in flags)]
    return f"python bench.py {' '.join(words)}"


def run(arguments, training, measured, seed):
    """One training: the model and rows of seed, seconds, updates, nats, or None if it was interrupted."""
    torch.manual_seed(seed)
    model = helpers.GenModel(28, arguments.hidden, head=arguments.head)
    history = helpers.train(
        model,
        training,
        seconds=arguments.seconds,
        prepare=None if arguments.static else torch.bernoulli,
        probe=lambda model: {"nats": helpers.nats(model, measured).mean()},
        probe_at=[arguments.seconds * look / LOOKS for look in range(1, LOOKS + 1)],
        **helpers.MNIST_RECIPE,
    )
    if history.interrupted:
        return model, None
    rows = [
        (seed, round(history.seconds[update - 1], 1), int(update), round(float(value), 3))
        for update, value in zip(*history.probed("nats"), strict=True)
    ]
    print(f"seed {seed}: {rows[-1][3]} nats per image after {rows[-1][1]} s and {rows[-1][2]:,} updates", flush=True)
    return model, rows


def store(path, protocol, rows):
    """Written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", newline="") as file:
        file.write(f"# {json.dumps(protocol)}\n")
        writer = csv.writer(file)
        writer.writerow(["seed", "seconds", "updates", "nats"])
        writer.writerows(rows)
    os.replace(unfinished, path)


def bench(arguments):
    """Run all seeds; returns the path of what was stored, or None if nothing was."""
    training, validation, test = helpers.binarized_mnist(arguments.mnist, arguments.static)
    measured = validation if arguments.validation else test
    kind = "static" if arguments.static else "dynamic"
    protocol = {
        "command": command(arguments),
        "head": arguments.head,
        "hidden": arguments.hidden,
        "binarised": kind,
        "budget": arguments.seconds,
        "unit": f"nats per image, mean over the {'validation' if arguments.validation else 'test'} images",
        "training images": len(training),
        "measured images": len(measured),
        **helpers.MNIST_RECIPE,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    folder = helpers.DATA / "benchmarks" if arguments.store else ROOT / "build"
    path = folder / f"mnist_{arguments.head}_{arguments.hidden}_{kind}_{arguments.seconds:g}s.csv"
    stored = []
    for seed in arguments.seeds:
        model, rows = run(arguments, training, measured, seed)
        if rows is None:
            print("Interrupted: this run is not stored.")
            break
        protocol["parameters"] = sum(weight.numel() for weight in model.parameters())
        stored += rows
        store(path, protocol, stored)
    return path if stored else None


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--head", choices=("independent", "joint"), default="joint")
    parser.add_argument("--seconds", type=float, default=150, help="of training (default: 150)")
    parser.add_argument("--hidden", type=int, default=256, help="units of the recurrent layer (default: 256)")
    parser.add_argument("--static", action="store_true", help="binarise the training images once, not for each batch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--validation", action="store_true", help="measure on the validation images, to choose settings"
    )
    parser.add_argument("--store", action="store_true", help="in data/benchmarks/, which the notes report")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    helpers.use_all_cores()
    try:
        path = bench(parser.parse_args(words))
    except helpers.LabError as error:
        sys.exit(str(error))
    if path is not None:
        print(f"Stored in {path.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
