"""Chooses optimiser, learning rate and size of each model of the benchmark: `python tools/search.py`.

Eight trainings of each model on MNIST, 45 seconds of one core each (its own work alone: time.process_time), batches of
64, measured on the first 2,000 validation images: three learning rates with Adam, three with Muon, then the best of
these with half and with twice the width. The table of all that was tried is data/search/mnist.csv; a search that is
stopped goes on from there. configs.BENCHMARK has the best of each model.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import helpers
from pixelrnn.data import datasets
from pixelrnn.models import configs
from support import checks, devices, files

LEARNING_RATES = {"adam": (0.004, 0.008, 0.016), "muon": (0.01, 0.02, 0.04)}
SECONDS, MEASURED, SEED = 45, 2000, 0
PATH = files.DATA / "search" / "mnist.csv"
COLUMNS = ("model", "optimizer", "width", "learning_rate", "parameters", "updates", "nats")
WIDTHS = ("units", "features")  # what a width is called in the sizes of a model
START = {  # the width with which learning rates are tried
    "independent": 256,
    "joint": 256,
    "pixel-lstm": 256,
    "row-lstm": 32,
    "diagonal-bilstm": 32,
    "made": 10,
    "pixelcnn": 16,
    "gated-pixelcnn": 32,
}


def sizes_of(model, width):
    """The sizes of a model of this width; None: its own."""
    sizes = configs.BENCHMARK[model].sizes
    return {name: width if name in WIDTHS and width else size for name, size in sizes.items()}


def width_of(model):
    return next(size for name, size in configs.BENCHMARK[model].sizes.items() if name in WIDTHS)


def trial(model, optimizer, width, learning_rate, mnist, seconds):
    """One training: parameters, updates, mean nats of validation images (infinite where it fails)."""
    torch.set_num_threads(1)
    entry, (training, validation, _) = configs.BENCHMARK[model], datasets.binarized_mnist(mnist)
    torch.manual_seed(SEED)
    network = entry.build(*training.shape[1:], **sizes_of(model, width))
    parameters = sum(weight.numel() for weight in network.parameters())
    settings = configs.trained_by(optimizer, learning_rate)
    settings |= {"prepare": lambda batch: entry.sequences(torch.bernoulli(batch)), "clock": time.process_time}
    try:
        history = helpers.train(network, training, seconds=seconds, **settings)
    except helpers.TrainingError as error:
        return parameters, len(error.history.loss), float("inf")
    nats = helpers.nats(network, entry.sequences(validation[:MEASURED])).mean()
    return parameters, len(history.loss), round(float(nats), 3)


def rounds(model, known):
    """What is tried, in two rounds: (optimizer, width, learning rate); the second once the first is known."""
    width = START[model]
    first = [(name, width, rate) for name, rates in LEARNING_RATES.items() for rate in rates]
    if not all((model, *one) in known for one in first):
        return first
    name, _, rate = min(first, key=lambda one: known[(model, *one)][-1])
    return [*first, (name, max(1, width // 2), rate), (name, 2 * width, rate)]


def best(model, known):
    """The best of what was tried with a model: optimizer, width, learning rate."""
    return min((one for one in known if one[0] == model), key=lambda one: known[one][-1])[1:]


def stored(path):
    """(model, optimizer, width, learning rate) -> (parameters, updates, nats), as far as the search has come."""
    if not path.exists():
        return {}
    _, _, labels, numbers = files.read_table(path, "`python tools/search.py` makes it.", labels=2)
    return {
        (*names, int(width), rate): (int(parameters), int(updates), nats)
        for names, (width, rate, parameters, updates, nats) in zip(labels, numbers.tolist(), strict=True)
    }


def search(models, mnist, path, seconds=SECONDS):
    """Try what is not known yet, as many at once as there are cores, and store the table after each."""
    known = stored(path)
    protocol = {
        "command": "python tools/search.py",
        "seconds": seconds,
        "unit": f"nats per image, mean over the first {MEASURED:,} validation images",
        "seed": SEED,
        "processor": devices.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    for _ in range(2):
        missing = [(model, *one) for model in models for one in rounds(model, known) if (model, *one) not in known]
        calls = {one: (trial, *one, mnist, seconds) for one in missing}
        for one, result in devices.in_processes(calls, os.cpu_count()):
            known[one] = result
            files.write_table(path, protocol, COLUMNS, [(*key, *values) for key, values in sorted(known.items())])
            print(*one, *result, flush=True)


def carry_out(work, path, mnist):
    """Run `work()`, which trains on MNIST and stores a table in `path`; say what is missing, or how to go on."""
    with checks.ended_in_words("Interrupted. The same command goes on."):
        datasets.load_mnist(mnist)  # told before an hour of work
        files.check_writable(path)
        work()


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", nargs="+", choices=configs.BENCHMARK, default=list(configs.BENCHMARK))
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    arguments = parser.parse_args(words)
    carry_out(lambda: search(arguments.model, arguments.mnist, PATH), PATH, arguments.mnist)


if __name__ == "__main__":
    main()
