"""The joint head (note 5): a distribution of all values of a step, each given those to its left."""

import torch
import torch.nn.functional as F
from torch import nn

EMBEDDING = 16  # numbers that stand for one value within a joint head


class JointHead(nn.Module):
    """A distribution of a whole step: each value given the features of the steps before and the values to its left.

    A masked autoregressive network (MADE: Germain et al. 2015) along the step, in which every value is a place of
    EMBEDDING numbers, conditioned on a recurrent state as in RNN-NADE (Boulanger-Lewandowski et al. 2012). Places see
    all places to their left, so that nothing before a value is hidden from it; colours are places too, red first.

    features (batch, features), values (batch, places * per_input) -> outputs (batch, places * per_output).
    """

    def __init__(self, features, places, per_input, per_output):
        super().__init__()
        self.above = nn.Linear(features, places * EMBEDDING)
        self.left = MaskedLinear(places, per_input, EMBEDDING, own=False)  # the only one that sees values
        self.hidden = nn.ModuleList(MaskedLinear(places, EMBEDDING, EMBEDDING) for _ in range(2))
        self.out = MaskedLinear(places, EMBEDDING, per_output)

    def forward(self, features, values):
        x = self.above(features) + self.left(values)  # (batch, places * EMBEDDING)
        for layer in self.hidden:
            x = x + layer(F.relu(x))
        return self.out(F.relu(x))

    def begin(self, features):
        """Before a step is sampled: what each place gets from the steps above, and what each layer has seen so far."""
        return self.above(features), [features[:, :0]] * (len(self.hidden) + 1)

    def at(self, place, values, above, seen):
        """The outputs of one place, (batch, per_output), given the values to its left, (batch, place * per_input)."""
        x = above[:, place * EMBEDDING : (place + 1) * EMBEDDING] + self.left.at(place, values)
        for number, layer in enumerate((*self.hidden, self.out)):
            seen[number] = torch.cat([seen[number], F.relu(x)], 1)  # (batch, (place + 1) * EMBEDDING)
            y = layer.at(place, seen[number])
            x = y if layer is self.out else x + y
        return x


class MaskedLinear(nn.Linear):
    """A linear layer from places to places, (batch, places * inputs) -> (batch, places * outputs), in which a place
    sees those to its left, and itself if `own`."""

    def __init__(self, places, inputs, outputs, own=True):
        super().__init__(places * inputs, places * outputs)
        self.inputs, self.outputs, self.own = inputs, outputs, own
        mask = torch.ones(places, places).tril(0 if own else -1)  # (places that see, places that are seen)
        mask = mask.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1)  # of each place, all its numbers
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)

    def at(self, place, x):
        """One place of the output, (batch, outputs), from the places it sees; x may hold more, and no less."""
        seen = (place + self.own) * self.inputs
        part = slice(place * self.outputs, (place + 1) * self.outputs)
        return F.linear(x[:, :seen], self.weight[part, :seen], self.bias[part])
