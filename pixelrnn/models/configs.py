"""The models of the benchmark and of the stored weights: their sizes, and how each is trained."""

from dataclasses import dataclass

import torch

import helpers
from pixelrnn.models import augmentation, ensemble, orders, paper


@dataclass
class Config:
    """A model of the benchmark: how it is built, (rows, columns, **sizes) -> model, and how it is trained."""

    build: callable
    sizes: dict  # the names of its own sizes -> numbers
    training: dict  # settings of helpers.train
    step: str = "row"
    soft: bool = False  # grey values are predicted from bits, where pictures are binarised anew for each batch

    def sequences(self, pictures):
        """Pictures (batch, rows, columns) as this model's steps."""
        return pictures if self.step == "row" else pictures.flatten(1)[..., None]  # -> (batch, rows * columns, 1)


def _independent(rows, columns, units):
    return helpers.GenModel(columns, units)


def _joint(rows, columns, units, **settings):
    return helpers.GenModel(columns, units, head="joint", **settings)


def _with_dropout(rows, columns, units):
    return _joint(rows, columns, units, dropout=0.3)


def _averaged(rows, columns, units, networks):
    return ensemble.Average([_joint(rows, columns, units) for _ in range(networks)])


def _in_views(rows, columns, units):
    return augmentation.ShiftConditioned(input_size=columns, hidden_size=units)


def _all_orders(rows, columns, units):
    return orders.Shared(list(orders.ORDERS), input_size=columns, hidden_size=units)


def _pixel_lstm(rows, columns, units):
    return helpers.GenModel(1, units)


def _row_lstm(rows, columns, features, layers):
    return paper.PixelRNN(columns, paper.RowLSTM, features, layers)


def _diagonal(rows, columns, features, layers):
    return paper.PixelRNN(columns, paper.DiagonalBiLSTM, features, layers)


def _pixelcnn(rows, columns, features, layers, last):
    return paper.PixelCNN(columns, features, layers, last)


def _gated(rows, columns, features, layers, last):
    return paper.GatedPixelCNN(columns, features, layers, last)


def trained_by(optimizer, learning_rate):
    """How the models of the benchmark are trained, all alike but for these two."""
    return {"batch_size": 64, "optimizer": optimizer, "learning_rate": learning_rate, "weight_decay": 0.1, "clip": 5.0}


# Of longer runs: chosen on MNIST's validation images, before tuning and after; and on validation letters.
MNIST = {"batch_size": 64, "optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.5, "clip": 5.0}
# Matrix products in bfloat16, and a batch twice as large, which halves the optimiser's time for each image.
MNIST_LONG = {**MNIST, "batch_size": 128, "learning_rate": 0.005, "weight_decay": 0.1, "bfloat16": True}
MNIST_VIEWS = {**MNIST_LONG, "learning_rate": 0.007}
LETTERS = {**MNIST, "learning_rate": 0.007, "weight_decay": 0.1}

# The models that note 7 compares, each as a search of the same time for all found it best (tools/search.py).
BENCHMARK = {
    "independent": Config(_independent, {"units": 128}, trained_by("muon", 0.02)),
    "joint": Config(_joint, {"units": 128}, trained_by("muon", 0.02)),
    "pixel-lstm": Config(_pixel_lstm, {"units": 128}, trained_by("muon", 0.04), step="pixel"),
    "row-lstm": Config(_row_lstm, {"features": 16, "layers": 1}, trained_by("muon", 0.04)),
    "diagonal-bilstm": Config(_diagonal, {"features": 16, "layers": 1}, trained_by("muon", 0.04)),
    "made": Config(paper.MADE, {"units": 5}, trained_by("adam", 0.004)),  # for each value
    "pixelcnn": Config(_pixelcnn, {"features": 8, "layers": 15, "last": 32}, trained_by("muon", 0.04)),
    "gated-pixelcnn": Config(_gated, {"features": 16, "layers": 5, "last": 32}, trained_by("muon", 0.04)),
}
# The joint row, trained otherwise: see lab note 7.
JOINT_ROWS = {
    "joint-long": Config(_joint, {"units": 256}, MNIST_LONG),
    "joint-dropout": Config(_with_dropout, {"units": 512}, MNIST_LONG),
    "joint-average": Config(_averaged, {"units": 256, "networks": 3}, MNIST_LONG),
    "joint-views": Config(_in_views, {"units": 312}, MNIST_VIEWS, soft=True),
    "joint-orders": Config(_all_orders, {"units": 256}, LETTERS),  # measured as the mixture of its eight orders
}
MODELS = {**BENCHMARK, **JOINT_ROWS}


# What a model of the benchmark is called in notes and plots.
NAMES = {
    "independent": "independent row",
    "joint": "joint row",
    "pixel-lstm": "pixel LSTM",
    "row-lstm": "Row LSTM",
    "diagonal-bilstm": "Diagonal BiLSTM",
    "made": "MADE",
    "pixelcnn": "PixelCNN",
    "gated-pixelcnn": "Gated PixelCNN",
}


def small_models(rows, columns, channels=1, *, hidden=64, features=16, layers=1, seed=0):
    """The eight models of the benchmark, small and untrained, all from this seed: name -> (model, sequences).

    sequences: turns pictures (batch, rows, columns * channels) into the model's steps: rows, or values one by one.
    hidden: units of the recurrent layer of the models of rows and of the pixel LSTM. features (of a channel), layers:
    of the paper's recurrent layers.
    """
    width = columns * channels
    makers = {
        "independent row": lambda: helpers.GenModel(width, hidden),
        "joint row": lambda: helpers.GenModel(width, hidden, head="joint"),
        "pixel LSTM": lambda: helpers.GenModel(1, hidden),
        "Row LSTM": lambda: paper.PixelRNN(columns, paper.RowLSTM, features * channels, layers, channels),
        "Diagonal BiLSTM": lambda: paper.PixelRNN(columns, paper.DiagonalBiLSTM, features * channels, layers, channels),
        "MADE": lambda: paper.MADE(rows, columns, 10, channels),
        "PixelCNN": lambda: paper.PixelCNN(columns, features * channels, 5, 30, channels),
        "Gated PixelCNN": lambda: paper.GatedPixelCNN(columns, features * channels, 4, 30, channels),
    }
    models = {}
    for name, make in makers.items():
        torch.manual_seed(seed)
        step = "pixel" if name == "pixel LSTM" else "row"
        models[name] = make(), Config(make, {}, {}, step).sequences
    return models


@dataclass
class Weights:
    """Stored weights (data/weights/): the networks they are made of, and how each is trained."""

    what: str
    data: str
    build: callable  # () -> a network, untrained
    members: tuple  # (order, seed) of each network; an order of None: one network for all orders
    updates: int
    training: dict
    shared: bool = False


def _drawn(data):
    """Of the page that finishes a drawing."""
    data = f"{data}, their skeletons drawn anew for each batch (strokes.redrawn)"
    return Weights("a joint row of 320 units", data, lambda: _joint(28, 28, 320), ((0, 0),), 10_000, MNIST_LONG)


WEIGHTS = {
    "digits": Weights(
        "mixture of joint rows of 256 units, one for each reading order",
        "MNIST, first 50,000 training images, binarised anew for each batch (dynamic)",
        lambda: _joint(28, 28, 256),
        ((0, 0), (3, 0)),
        10_000,
        MNIST_LONG,
    ),
    "letters": Weights(
        "one joint row of 256 units for all eight reading orders",
        "letters.load_letters, training part, binary",
        lambda: _all_orders(28, 28, 256),
        ((None, 0),),
        3000,
        LETTERS,
        shared=True,
    ),
    "drawn-digits": _drawn("MNIST, first 50,000 training images"),
    "drawn-letters": _drawn("the 52 Latin letters in six DejaVu fonts"),
}
