"""What makes the difference, one thing changed at a time: `python tools/ablations.py`.

Each is a training for seconds of one core (its own work alone: time.process_time), with three seeds where it takes a
minute. It is measured on the first 2,000 validation images of MNIST, or on all validation letters. The questions:

why: why the joint row leads after a minute. Its values to the left, layers of its head, width, optimiser and batch are
    changed, everything else is as in the benchmark.
matched: what is left of the lead if all models have 11,000 to 13,000 parameters, as the paper's layers have in the
    benchmark: with more they make few updates in a minute. MADE has one unit for each value, or more: 1.2 million.
matched on letters: the same on letters.
shifts: what training on shifted images brings, what conditioning on it brings, and the three views (ten minutes).

The table of all is data/ablations/nats.csv; a run that is stopped goes on from there.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import search

import helpers
from pixelrnn.data import datasets, letters
from pixelrnn.evidence import stored_curves
from pixelrnn.models import augmentation, configs
from support import checks, devices, files, joint_head

MEASURED = 2000
PATH = files.DATA / "ablations" / "nats.csv"
COLUMNS = ("question", "run", "seed", "seconds", "parameters", "updates", "nats")
QUESTIONS = ("why", "matched", "matched on letters", "shifts")


class Unseen(nn.Module):
    """In place of a layer that sees values: it sees none."""

    def forward(self, values):
        return 0


@dataclass
class Run:
    """One training: a model of the benchmark, what of it is changed, and for how long it is trained."""

    model: str
    seconds: float = 60
    data: str = "mnist"
    sizes: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    change: callable = lambda network: network  # of the network before training
    prepare: callable = None  # of each batch, before it is binarised
    also: dict = field(default_factory=dict)  # more rows of the table: a name -> what is measured of the network

    @property
    def seeds(self):
        return range(3) if self.seconds <= 60 else range(1)


def _unseeing(network):
    network.head.left = Unseen()
    return network


def _head(layers, numbers=joint_head.EMBEDDING):
    """Change: a joint head with so many hidden layers, and so many numbers for a value."""

    def change(network):
        places, head = network.input_size, network.head
        head.above = nn.Linear(head.above.in_features, places * numbers)
        head.left = joint_head.MaskedLinear(places, 1, numbers, own=False)
        head.hidden = nn.ModuleList(joint_head.MaskedLinear(places, numbers, numbers) for _ in range(layers))
        head.out = joint_head.MaskedLinear(places, numbers, 1)
        return network

    return change


def _plain(network):
    return helpers.GenModel(**network.settings)


def _in_place(network):
    """The view of a picture in its place alone."""
    return dict(network.views())[0]


def _moved(pictures):
    return augmentation.shifted(pictures, augmentation.some_shifts(len(pictures), pictures.device))


MATCHED = {
    "joint row": Run("joint", sizes={"units": 14}, change=_head(2, 2)),
    "independent row": Run("independent", sizes={"units": 38}),
    "pixel LSTM": Run("pixel-lstm", sizes={"units": 53}),
    "Row LSTM": Run("row-lstm"),
    "Diagonal BiLSTM": Run("diagonal-bilstm"),
    "MADE": Run("made", sizes={"units": 1}),
    "PixelCNN": Run("pixelcnn"),
    "Gated PixelCNN": Run("gated-pixelcnn", sizes={"features": 9, "last": 18}),
}
RUNS = {
    ("why", "as in the benchmark"): Run("joint"),
    ("why", "values to the left are not seen"): Run("joint", change=_unseeing),
    ("why", "no hidden layer in the head"): Run("joint", change=_head(0)),
    ("why", "four hidden layers in the head"): Run("joint", change=_head(4)),
    ("why", "64 units"): Run("joint", sizes={"units": 64}),
    ("why", "256 units"): Run("joint", sizes={"units": 256}),
    ("why", "Adam"): Run("joint", training={"optimizer": "adam", "learning_rate": 0.004}),
    ("why", "batches of 32"): Run("joint", training={"batch_size": 32}),
    ("why", "batches of 128"): Run("joint", training={"batch_size": 128}),
    **{("matched", name): run for name, run in MATCHED.items()},
    **{("matched on letters", name): replace(run, data="letters") for name, run in MATCHED.items()},
    ("shifts", "no shifts"): Run("joint-views", 600, change=_plain),
    ("shifts", "shifted, not conditioned on it"): Run("joint-views", 600, change=_plain, prepare=_moved),
    ("shifts", "conditioned on the shift, three views"): Run(
        "joint-views", 600, also={"conditioned on the shift, one view": _in_place}
    ),
}


def trial(name, seed, mnist):
    """One training: (question, run, seed) -> (seconds, parameters, updates, mean nats of validation pictures), of the
    run and of what else is measured of its network."""
    torch.set_num_threads(1)
    made, digits = RUNS[name], RUNS[name].data == "mnist"
    parts = datasets.binarized_mnist(mnist) if digits else map(torch.tensor, letters.load_letters())
    training, validation, _ = (part.float() for part in parts)
    entry = configs.MODELS[made.model]
    torch.manual_seed(seed)
    network = made.change(entry.build(*training.shape[1:], **{**entry.sizes, **made.sizes}))
    parameters = sum(weight.numel() for weight in network.parameters())
    settings = {**entry.training, **made.training, "seconds": made.seconds, "clock": time.process_time}
    before = made.prepare or (lambda batch: batch)
    if entry.soft:
        settings |= {"prepare": before, "context": torch.bernoulli}
    else:  # bits of letters stay what they are
        settings |= {"prepare": lambda batch: entry.sequences(torch.bernoulli(before(batch)))}
    history = helpers.train(network, training, **settings)
    question, own = name
    pictures, rows = entry.sequences(validation[:MEASURED]), {}
    for told, part in {own: lambda whole: whole, **made.also}.items():
        nats = round(float(helpers.nats(part(network), pictures).mean()), 3)
        rows[question, told, seed] = made.seconds, parameters, len(history.loss), nats
    return rows


def run(questions, mnist, path):
    """Train what is not known yet, as many at once as there are cores, and store the table after each."""
    machines, known = stored_curves.load_ablations(path) if path.exists() else ({}, {})
    own = f"{devices.processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    protocol = {
        "command": "python tools/ablations.py",
        "unit": f"nats per image, mean over the first {MEASURED:,} validation images, or all validation letters",
        "machines": machines,  # of each question, all on which its runs were made
    }
    calls = {
        (*name, seed): (trial, name, seed, mnist)
        for name, one in RUNS.items()
        for seed in one.seeds
        if name[0] in questions and (*name, seed) not in known
    }
    for _, rows in devices.in_processes(calls, os.cpu_count()):
        known |= rows
        for question in {question for question, *_ in rows}:
            machines[question] = sorted({*machines.get(question, ()), own})
        files.write_table(path, protocol, COLUMNS, [(*key, *values) for key, values in sorted(known.items())])
        for key, values in rows.items():
            print(*key, *values, flush=True)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("questions", nargs="*", help=f"which of {', '.join(QUESTIONS)} (default: all)")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    arguments = parser.parse_args(words)
    try:
        questions = [checks.choice("A question", one, QUESTIONS) for one in arguments.questions or QUESTIONS]
    except checks.LabError as error:
        sys.exit(str(error))
    search.carry_out(lambda: run(questions, arguments.mnist, PATH), PATH, arguments.mnist)


if __name__ == "__main__":
    main()
