"""Measures samples of the stored networks: `python tools/judge_samples.py`.

    python tools/judge_samples.py [letters digits] [--store]

*Precision* is the share of samples that look like real pictures, *recall* the share of real pictures that look like
samples (Kynkäänniemi et al. 2019): a picture looks like others where it is no farther from one of them than that one's
third neighbour among them, by the features of a classifier, which is trained here to tell digits, or families of
letters, apart. *Nearest* is the number of pixels by which a picture differs from the training picture most like it:
samples that are copies would have few. Real pictures are those of the test part; beside the samples stand as many
validation pictures, pictures of independent pixels, and samples of a network that is not trained. Of each, as many as
there are test pictures, at most 5,000. The table goes into build/, with --store into data/samples/. Digits need MNIST
as an .npz with train_labels (or y_train) beside its images.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import helpers
from pixelrnn.data import datasets, letters
from pixelrnn.models import configs, orders, weights
from support import checks, files

MOST, NEIGHBOUR, UPDATES, SEED = 5000, 3, 1500, 0
LEAST = 20  # training pictures of a family of letters that the classifier is to know
TEMPERATURES = (1.0, 0.7)
COLUMNS = ("pictures", "precision", "recall", "nearest, median", "nearest, 1 in 20", "copies")


class Classifier(nn.Module):
    """Binary pictures (count, 28, 28) -> logits of classes; `features` (count, 64) come before."""

    def __init__(self, classes):
        super().__init__()
        layers = []
        for inputs, outputs in ((1, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 9, 64))
        self.out = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, classes))

    def forward(self, pictures):
        return self.out(self.features(pictures[:, None]))

    @torch.no_grad()
    def described(self, pictures):
        """Features of pictures, (count, 64), in evaluation mode."""
        self.eval()
        return torch.cat([self.features(part[:, None]) for part in pictures.split(500)])


def trained(pictures, labels, updates, batch=128):
    """A classifier of pictures (count, 28, 28) in [0, 1], which are binarised anew for each batch."""
    torch.manual_seed(SEED)
    classifier = Classifier(int(labels.max()) + 1)
    optimizer = torch.optim.Adam(classifier.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        chosen = torch.randint(len(pictures), (batch,))
        optimizer.zero_grad()
        F.cross_entropy(classifier(torch.bernoulli(pictures[chosen])), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def looks_like(features, others):
    """The share of pictures as near to one of `others` as its NEIGHBOUR-th neighbour among them, all by features."""
    radius = torch.cdist(others, others).kthvalue(NEIGHBOUR + 1).values  # the first is the picture itself
    return float((torch.cdist(features, others) <= radius).any(1).float().mean())


def nearest(pictures, training):
    """By how many pixels each binary picture differs from the training picture most like it: (count,)."""
    training = training.flatten(1)
    ink, found = training.sum(1), []
    for part in pictures.flatten(1).split(500):
        found.append((part.sum(1, keepdim=True) + ink - 2 * part @ training.T).amin(1))
    return torch.cat(found)


def labels_of_digits(mnist):
    """The labels of MNIST's training images: whole numbers (count,)."""
    path = files.as_path(mnist or os.environ.get("PIXELRNN_MNIST"), "MNIST's .npz, which holds its labels,")
    with files.reading(path, "MNIST's .npz", datasets.MNIST_HELP) as file:
        held = files.arrays_of(file)
        name = next((one for one in ("train_labels", "y_train") if one in held), None)
        if name is None:
            raise ValueError("it holds no train_labels (or y_train)")
        with np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name].astype(np.int64))


def parts_of(name, mnist):
    """Training pictures and their labels, validation and test pictures."""
    if name == "digits":
        training, validation, test = datasets.binarized_mnist(mnist)
        return training, labels_of_digits(mnist)[: len(training)], validation, test
    training, validation, test = (torch.tensor(part, dtype=torch.float32) for part in letters.load_letters())
    names, labels, counts = np.unique(letters.families().training, return_inverse=True, return_counts=True)
    known = np.flatnonzero(counts >= LEAST)
    numbers = np.full(len(names), -1)
    numbers[known] = np.arange(len(known))
    return training, torch.from_numpy(numbers[labels]), validation, test


def sets(name, training, validation, count):
    """What is judged: name -> binary pictures."""
    model, _ = weights.load(name)
    torch.manual_seed(SEED)
    untrained = configs.WEIGHTS[name].build().eval()
    made = {f"samples, temperature {one:g}": model.sample(count, one) for one in TEMPERATURES}
    frequency = training.mean(0).expand(count, -1, -1)
    made |= {"validation pictures": validation[:count], "independent pixels": torch.bernoulli(frequency)}
    if isinstance(untrained, orders.Orders):
        return made | {"untrained network": untrained.sample(count)}
    return made | {"untrained network": helpers.sample(untrained, 28, batch=count, temperature=1.0)[0]}


def judge(name, mnist=None):
    """Rows of the table."""
    training, labels, validation, test = parts_of(name, mnist)
    known = labels >= 0
    classifier = trained(training[known], labels[known], UPDATES)
    count = min(MOST, len(test), len(validation))
    seen = torch.bernoulli(training)  # as they are compared with
    real = classifier.described(test[:count])
    rows = []
    for told, pictures in {"test pictures": test[:count], **sets(name, training, validation, count)}.items():
        features, near = classifier.described(pictures), nearest(pictures, seen)
        shares = looks_like(features, real), looks_like(real, features)
        quantiles = (float(np.quantile(near, share)) for share in (0.5, 0.05))
        rows.append((name, told, count, *(round(share, 3) for share in shares), *quantiles, int((near == 0).sum())))
        print(*rows[-1], flush=True)
    return rows


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="which of letters, digits (default: both)")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--store", action="store_true", help="in data/samples/, which the appendix reports")
    arguments = parser.parse_args(words)
    path = (files.DATA / "samples" if arguments.store else ROOT / "build") / "judged.csv"
    try:
        names = [checks.choice("A name", name, weights.NAMES) for name in arguments.names or ("letters", "digits")]
        if "digits" in names:
            labels_of_digits(arguments.mnist)  # told before minutes of work
        files.check_writable(path)
        rows = [row for name in names for row in judge(name, arguments.mnist)]
        protocol = {
            "command": "python tools/judge_samples.py --store",
            "neighbour": NEIGHBOUR,
            "updates of the classifier": UPDATES,
            "weights": {name: weights.load(name)[1]["sha256"][:16] for name in names},
        }
        files.write_table(path, protocol, ["data", "of", *COLUMNS], rows)
        print(f"Stored in {path}.")
    except checks.LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
