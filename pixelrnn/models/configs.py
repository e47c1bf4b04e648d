"""The models of the series and how each is trained: what notebooks and the tools that train both read."""

from dataclasses import dataclass

import torch

import helpers
from pixelrnn.models import augmentation, orders, paper

# How the models of MNIST are trained, chosen on its validation images.
MNIST_RECIPE = {"batch_size": 64, "optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.5, "clip": 5.0}


@dataclass
class Entry:
    """A model of the benchmark: how it is built, (rows, columns, size) -> model, and how it is trained."""

    build: callable
    size: int | tuple
    recipe: dict
    step: str = "row"

    def sequences(self, pictures):
        """Pictures (batch, rows, columns) as this model's steps."""
        return pictures if self.step == "row" else pictures.flatten(1)[..., None]  # -> (batch, rows * columns, 1)


def adam(learning_rate):
    """For the models that are not note 5's; learning rates chosen on validation images, in 25 seconds each."""
    return {"batch_size": 64, "optimizer": "adam", "learning_rate": learning_rate, "clip": 5.0}


def recurrent(rows, columns, size, **settings):
    return helpers.GenModel(columns, size, **settings)


MODELS = {
    "independent": Entry(recurrent, 256, MNIST_RECIPE),
    "joint": Entry(lambda *sizes: recurrent(*sizes, head="joint"), 256, MNIST_RECIPE),
    "pixel-lstm": Entry(lambda rows, columns, size: helpers.GenModel(1, size), 256, adam(0.02), step="pixel"),
    "row-lstm": Entry(lambda rows, columns, size: paper.PixelRNN(columns, paper.RowLSTM, *size), (32, 1), adam(0.008)),
    "diagonal-bilstm": Entry(
        lambda rows, columns, size: paper.PixelRNN(columns, paper.DiagonalBiLSTM, *size), (32, 1), adam(0.008)
    ),
    "made": Entry(paper.MADE, 10, adam(0.002)),
    "pixelcnn": Entry(lambda rows, columns, size: paper.PixelCNN(columns, *size), (16, 15, 32), adam(0.015)),
    "gated-pixelcnn": Entry(lambda rows, columns, size: paper.GatedPixelCNN(columns, *size), (32, 5, 32), adam(0.008)),
}

BENCHMARK = tuple(MODELS)
# The joint row of note 5 trained with less waste: of 57 ms an update, 44 were matrix products, which bfloat16 halves or
# better, and 13 the optimiser's, which a batch twice as large halves for each image; it takes a higher learning rate.
FAST_RECIPE = {**MNIST_RECIPE, "batch_size": 128, "learning_rate": 0.014, "bfloat16": True}
MODELS["joint-fast"] = Entry(MODELS["joint"].build, 256, FAST_RECIPE)
# For ten minutes and more, where that learning rate and weight decay are too high; chosen on validation images.
LONG_RECIPE = {**FAST_RECIPE, "learning_rate": 0.005, "weight_decay": 0.1}
MODELS["joint-long"] = Entry(MODELS["joint"].build, 256, LONG_RECIPE)
# For half an hour, in which 512 units overfit, and less so with dropout.
MODELS["joint-dropout"] = Entry(lambda *sizes: recurrent(*sizes, head="joint", dropout=0.3), 512, LONG_RECIPE)
# Or three of 256 units, each of which has learned for a third of the seconds, averaged.
MODELS["joint-average"] = Entry(
    lambda rows, columns, size: paper.Average(
        [recurrent(rows, columns, size[0], head="joint") for _ in range(size[1])]
    ),
    (256, 3),
    LONG_RECIPE,
)
# Or 512 units that overfit less, since their training images are shifted; to be mixed with one of another order.
MODELS["joint-shifted"] = Entry(
    lambda rows, columns, size: augmentation.ShiftConditioned(input_size=columns, hidden_size=size), 512, LONG_RECIPE
)
# For letters: one network for all eight orders, measured as their mixture; chosen on validation letters.
LETTERS_RECIPE = {**MNIST_RECIPE, "learning_rate": 0.007, "weight_decay": 0.1}
MODELS["joint-orders"] = Entry(
    lambda rows, columns, size: orders.Shared(list(orders.ORDERS), input_size=columns, hidden_size=size),
    256,
    LETTERS_RECIPE,
)


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
        models[name] = make(), Entry(make, hidden, {}, step).sequences
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


WEIGHTS = {
    "digits": Weights(
        "mixture of joint rows of 256 units, one for each reading order",
        "MNIST, first 50,000 training images, binarised anew for each batch (dynamic)",
        lambda: helpers.GenModel(28, 256, head="joint"),
        ((0, 0), (3, 0)),
        10_000,
        LONG_RECIPE,
    ),
    "letters": Weights(
        "one joint row of 256 units for all eight reading orders",
        "letters.load_letters, training part, binary",
        lambda: MODELS["joint-orders"].build(28, 28, 256),
        ((None, 0),),
        3000,
        LETTERS_RECIPE,
        shared=True,
    ),
}
