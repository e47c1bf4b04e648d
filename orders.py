"""Reading orders: the same picture turned or flipped is another factorisation of its probability.

A model of rows reads from the top left. Given the picture turned by a symmetry of the square, the same model learns
p(x) by another chain rule, and errs elsewhere. The mixture p(x) = (1/K) sum_k p_k(x) of whole pictures is a proper
likelihood: its nats are at most ln K above those of the best order for each picture, and mostly far below their mean.
Several orders averaged: Jain et al. 2020, "Locally Masked Convolution" (LMConv); there one network learns them all.
"""

import math

import numpy as np
import torch
from torch import nn

import helpers
from files import LabError, choice, whole
from paper import Average

ORDERS = range(8)  # the symmetries of a square: 1 flips rows, 2 flips columns, 4 exchanges the two


def turned(pictures, order):
    """Pictures (..., rows, columns), square, as the model of this order reads them."""
    choice("order", order, ORDERS)
    if pictures.shape[-1] != pictures.shape[-2]:
        raise LabError(f"Reading orders are of square pictures, not of {tuple(pictures.shape[-2:])}.")
    return _flipped(pictures.transpose(-1, -2) if order & 4 else pictures, order)


def turned_back(pictures, order):
    """The inverse of `turned`."""
    choice("order", order, ORDERS)
    pictures = _flipped(pictures, order)
    return pictures.transpose(-1, -2) if order & 4 else pictures


def _flipped(pictures, order):
    """The flips of an order, each its own inverse; a copy is made only where something is flipped."""
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if order & bit]
    return pictures.flip(axes) if axes else pictures


class Mixture(nn.Module):
    """Models of rows, one for each reading order, mixed picture by picture; nothing is learned here.

    orders: different numbers of ORDERS. models: for each a GenModel or an Average, whose rows are the columns of a
    square picture, or the settings of each.
    """

    KINDS = (helpers.GenModel, Average)

    def __init__(self, orders, models):
        super().__init__()
        self.orders = [choice("order", order, ORDERS) for order in orders]
        self.models = nn.ModuleList(self._built(model) if isinstance(model, dict) else model for model in models)
        sizes = {getattr(model, "input_size", None) for model in self.models if isinstance(model, self.KINDS)}
        if not (0 < len(set(self.orders)) == len(self.orders) == len(self.models)) or len(sizes) != 1 or None in sizes:
            raise LabError("A mixture has a model of rows (GenModel or Average) of one size for each of its orders.")
        self.size = sizes.pop()
        members = [{"model": type(model).__name__, **model.settings} for model in self.models]
        self.settings = {"orders": self.orders, "models": members}

    def _built(self, settings):
        kinds = {kind.__name__: kind for kind in self.KINDS}
        return kinds[settings["model"]](**{name: value for name, value in settings.items() if name != "model"})

    def nats(self, pictures, each=False):
        """Negative log-likelihood of each picture (count, rows, columns), in nats: (count,), float64, numpy.

        each: those of every order as well, (orders, count).
        """
        own = np.stack(
            [
                helpers.nats(model, turned(pictures, order))
                for order, model in zip(self.orders, self.models, strict=True)
            ]
        )
        mixed = math.log(len(own)) - np.logaddexp.reduce(-own, 0)
        return (mixed, own) if each else mixed

    def sample(self, count, temperature=1.0):
        """`count` pictures (count, rows, columns): an order for each, then a sample of that order's model."""
        whole("count", count)
        chosen = torch.randint(len(self.orders), (count,))
        pictures = torch.zeros(count, self.size, self.size)
        for number, (order, model) in enumerate(zip(self.orders, self.models, strict=True)):
            own = chosen == number
            if own.any():
                sampled, _ = helpers.sample(model, self.size, batch=int(own.sum()), temperature=temperature)
                pictures[own] = turned_back(sampled, order).to(pictures)
        return pictures
