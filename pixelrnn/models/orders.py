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
from pixelrnn.models.conditioned import Conditioned
from pixelrnn.models.ensemble import Average, built, described
from support.checks import LabError, choice, whole

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


class Orders(nn.Module):
    """What has a likelihood as a mixture of reading orders; a kind of it says which model reads `in_order`.

    orders: different numbers of ORDERS. size: rows and columns of its pictures.
    """

    def __init__(self, orders):
        super().__init__()
        self.orders = [choice("order", order, ORDERS) for order in orders]
        if not 0 < len(set(self.orders)) == len(self.orders):
            raise LabError(f"A mixture is of one or more orders, all different; these are {self.orders}.")

    def in_order(self, order):
        """The model that reads pictures `turned` by this order."""
        raise NotImplementedError

    def nats(self, pictures, each=False):
        """Negative log-likelihood of each picture (count, rows, columns), in nats: (count,), float64, numpy.

        The model is put in evaluation mode.

        each: those of every order as well, (orders, count).
        """
        self.eval()
        own = np.stack([helpers.nats(self.in_order(order), turned(pictures, order)) for order in self.orders])
        mixed = math.log(len(own)) - np.logaddexp.reduce(-own, 0)
        return (mixed, own) if each else mixed

    def sample(self, count, temperature=1.0):
        """`count` pictures (count, rows, columns): an order for each, then a sample of that order's model."""
        whole("count", count)
        self.eval()
        chosen = torch.randint(len(self.orders), (count,))
        pictures = torch.zeros(count, self.size, self.size)
        for number, order in enumerate(self.orders):
            own = chosen == number
            if own.any():
                model = self.in_order(order)
                sampled, _ = helpers.sample(model, self.size, batch=int(own.sum()), temperature=temperature)
                pictures[own] = turned_back(sampled, order).to(pictures)
        return pictures


class Mixture(Orders):
    """Models of rows, one for each reading order, mixed picture by picture; nothing is learned here.

    models: for each order a model of KINDS, whose rows are the columns of a square picture, or its settings.
    """

    KINDS = (*Average.KINDS, Average)

    def __init__(self, orders, models):
        super().__init__(orders)
        self.models = nn.ModuleList(built(model, self.KINDS) for model in models)
        sizes = {getattr(model, "input_size", None) for model in self.models if isinstance(model, self.KINDS)}
        if len(self.orders) != len(self.models) or len(sizes) != 1 or None in sizes:
            raise LabError("A mixture has a model of rows (GenModel or Average) of one size for each of its orders.")
        self.size = sizes.pop()
        self.settings = {"orders": self.orders, "models": [described(model) for model in self.models]}

    def in_order(self, order):
        return self.models[self.orders.index(order)]


class Shared(Orders):
    """One joint row for all orders, conditioned on the order, which is drawn anew for each batch in training.

    What it learns in one order serves the others (DistAug: Jun et al. 2020), and an eighth of the weights is enough.
    settings: those of the GenModel inside (input_size, hidden_size, dropout ...); its head is joint.
    """

    def __init__(self, orders, **settings):
        super().__init__(orders)
        self.model = _OrderConditioned(**settings)
        self.size, self.settings = self.model.input_size, {**self.model.settings, "orders": self.orders}

    def in_order(self, order):
        return self.model.on(choice("order", order, self.orders))

    def loss(self, pictures, context=None):
        """Mean loss of a value (batch, rows, columns), in one order for the whole batch: what `train` minimises."""
        order = self.orders[int(torch.randint(len(self.orders), ()))]
        context = None if context is None else turned(context, order)
        return self.in_order(order).loss(turned(pictures, order), context)


class _OrderConditioned(Conditioned):
    """A joint row conditioned on its order."""

    given = 0

    def __init__(self, **settings):
        super().__init__(**settings)
        hidden = self.settings["hidden_size"]
        self.of_order = nn.Parameter(0.1 * torch.randn(len(ORDERS), 2, hidden))  # first state; addition to features

    def condition(self, batch):
        return self.of_order[self.given, :, None].expand(-1, batch, -1)
