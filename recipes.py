"""The models of the benchmark and how each is trained: what notebooks and tools/bench.py both read."""

from dataclasses import dataclass

import helpers
import paper

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
    """For the models that are not note 5's; the rates were chosen on validation images, in 25 seconds each."""
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
# better, and 13 the optimiser's, which a batch twice as large halves for each image; its rate grows with its batch.
FAST_RECIPE = {**MNIST_RECIPE, "batch_size": 128, "learning_rate": 0.014, "bfloat16": True}
MODELS["joint-fast"] = Entry(MODELS["joint"].build, 256, FAST_RECIPE)
# The same for ten minutes and more, which so high a rate and so much decay hold back; chosen on validation images.
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
