"""The layers of notes 5 and 6 with pictures of 256 levels, red before green before blue: each value has a mixture of
logistics (note 12) in place of a logit."""

import math

import torch
from torch import nn

import helpers
from pixelrnn.models import paper
from pixelrnn.models.colour import CHANNELS, LOGISTICS, logistics, scaled, whole_levels
from support.checks import LabError, choice

COUNT = 3 * LOGISTICS  # outputs for a value


def _with_outputs(model):
    """One of the paper's models that has COUNT outputs for a value in place of a logit; those of red come first."""
    model.out = paper.MaskedConv("B", model.out.weight.shape[1], CHANNELS * COUNT, channels=CHANNELS)
    return model


# name -> columns -> a model that reads (batch, rows, columns * 3) in [0, 1].
MODELS = {
    "joint row": lambda columns: helpers.GenModel(
        CHANNELS * columns, 256, head="joint", distribution="categorical", levels=COUNT
    ),
    "Row LSTM": lambda columns: _with_outputs(paper.PixelRNN(columns, paper.RowLSTM, 48, 1, CHANNELS)),
    "Diagonal BiLSTM": lambda columns: _with_outputs(paper.PixelRNN(columns, paper.DiagonalBiLSTM, 48, 1, CHANNELS)),
    "PixelCNN": lambda columns: _with_outputs(paper.PixelCNN(columns, 24, 7, 48, CHANNELS)),
}


class LayersInColour(nn.Module):
    """Whole levels (batch, rows, size, 3) -> outputs (batch, rows, size, 3, 15), as of colour.ColourPixelCNN's head
    "logistics"; the means of green and blue are relative to the channel before. name: one of MODELS."""

    def __init__(self, name, size=16):
        super().__init__()
        self.size, self.model = size, MODELS[choice("name", name, MODELS)](size)

    def forward(self, levels):
        whole_levels(levels)
        if levels.dim() != 4 or levels.shape[2:] != (self.size, CHANNELS):
            wanted = f"(batch, rows, {self.size}, {CHANNELS})"
            raise LabError(f"This network reads red, green and blue, {wanted}, not {tuple(levels.shape)}.")
        outputs = self.model.teacher_forced(levels.flatten(2) / 255)
        if isinstance(self.model, paper.PixelModel):
            outputs = outputs.unflatten(2, (self.size, CHANNELS * COUNT))
        outputs = outputs.reshape(*levels.shape, COUNT)
        weights, means, scales = outputs.chunk(3, -1)
        before = nn.functional.pad(scaled(levels), (1, -1), value=0.0)  # of red: 0
        return torch.cat([weights, means + before[..., None], scales], -1)

    def log_probabilities(self, pictures, levels):
        """Of levels (batch, rows, size, 3, count) for each value of pictures, given the values before: in nats."""
        return logistics(self(pictures), levels)

    def bits(self, levels):
        """Bits of each value, (batch, rows, size, 3)."""
        return -self.log_probabilities(levels, levels.long()[..., None])[..., 0] / math.log(2)
