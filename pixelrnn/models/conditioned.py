"""A joint row that is conditioned on something besides the values before: a reading order, a shift."""

import copy

import torch

import helpers
from support.checks import LabError


class Conditioned(helpers.GenModel):
    """A joint row conditioned on something `given`, which sets the first hidden state and is added to the features of
    each row. A kind of it says how, by its `condition`."""

    given = None  # what this network is conditioned on; set in `on` alone

    def __init__(self, **settings):
        super().__init__(**{**settings, "head": "joint"})
        if not self.streams or self.settings["cell"] != "lstm" or self.settings["num_layers"] != 1:
            raise LabError("A network conditioned on orders or shifts is an LSTM of one layer, one direction, seq2seq.")

    def on(self, given):
        """The same network conditioned on `given`: a view, which shares its weights and parts, hence their mode; only
        `given` is its own."""
        view = copy.copy(self)
        view.given = given
        return view

    def condition(self, batch):
        """The first hidden state and what is added to features, (batch, hidden_size) each."""
        raise NotImplementedError

    def features(self, inputs):
        first, added = self.condition(len(inputs))
        y, _ = self.rnn(self.read_in(inputs), self._state(first))  # (batch, steps, features)
        return y + added[:, None]

    def step(self, inputs, state=None):
        first, added = self.condition(len(inputs))
        y, state = self.rnn(self.read_in(inputs), self._state(first) if state is None else state)
        return y[:, -1, :] + added, state

    def _state(self, first):
        hidden = first[None].contiguous()  # (layers, batch, features)
        return hidden, torch.zeros_like(hidden)
