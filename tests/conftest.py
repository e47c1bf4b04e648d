"""What all tests share: no window, a fixed seed, and models small enough to try every kind.

The conftest.py of the root, which the notebooks share too, has put the root on the path."""

import matplotlib
import pytest
import torch
from hypothesis import settings

import helpers

matplotlib.use("Agg")  # not by MPLBACKEND: the notebooks' kernels would inherit it
settings.register_profile("lab", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("lab")

WIDTH, HIDDEN, STEPS, WINDOW = 2, 5, 6, 3


@pytest.fixture(autouse=True)
def _same_start_for_every_test():
    torch.manual_seed(0)
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def build():
    """build(**settings): a small GenModel in evaluation mode, whose weights and running statistics are all random.

    Torch's own small weights would let an untrained model generate the same step for ever, which hides mistakes.
    """

    def build(mode="eval", **settings):
        if settings.get("output") == "seq2vec":
            settings.setdefault("window", WINDOW)
        model = helpers.GenModel(WIDTH, HIDDEN, **settings)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.7)
        if model.settings["norm"] == "batch":
            model.norm.running_mean.uniform_(-0.5, 0.5)
            model.norm.running_var.uniform_(0.2, 2)
        return model.train(mode == "train")

    return build


@pytest.fixture
def draw():
    """draw(batch, steps): random sequences of values on the 256 levels."""

    def draw(batch=2, steps=STEPS):
        return torch.randint(0, 256, (batch, steps, WIDTH)) / 255

    return draw
