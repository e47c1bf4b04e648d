"""Shifted pictures: a network that is conditioned on each shift overfits less.

A model with many weights overfits. Shifted pictures are more pictures to learn from, but a model that learns from them
expects any picture to be shifted, which costs nats. A model that is conditioned on the shift of each training picture
can be asked for pictures that are not shifted. Source of the idea: Jun et al. 2020, "Distribution Augmentation for
Generative Modeling" (DistAug).
"""

import torch
import torch.nn.functional as F
from torch import nn

import helpers
from pixelrnn.models.conditioned import Conditioned
from support.checks import LabError, whole

UNSHIFTED = 0.3  # of the training pictures stay in place at least, in the mean


def shifted(pictures, shifts):
    """Pictures (count, rows, columns), each moved down and to the right by its own two whole numbers of shifts (count,
    2); negative ones move up and to the left. What leaves a picture is lost, and 0 comes in.

    Raises LabError for shifts that are not whole, or not two for each picture.
    """
    if pictures.ndim != 3 or shifts.shape != (len(pictures), 2) or shifts.is_floating_point():
        told = f"{shifts.dtype} {tuple(shifts.shape)} of pictures {tuple(pictures.shape)}"
        raise LabError(f"Shifts are whole numbers (count, 2), of pictures (count, rows, columns), not {told}.")
    most = int(shifts.abs().max())
    padded = F.pad(pictures, (most,) * 4)
    rows, columns = (  # of each picture, where its values come from: (count, rows) and (count, columns)
        torch.arange(length, device=pictures.device) + most - shifts[:, axis, None]
        for axis, length in enumerate(pictures.shape[1:])
    )
    each = torch.arange(len(pictures), device=pictures.device)
    return padded[each[:, None, None], rows[:, :, None], columns[:, None, :]]


class ShiftConditioned(Conditioned):
    """A joint row whose training pictures are shifted by up to `most` rows and columns; it is conditioned on the shift.

    The shift enters by a matrix without bias, so that it adds nothing where there is no shift. In `loss` pictures are
    shifted. Everywhere else they are not, and the model computes what the GenModel does that `plain` gives.

    settings: those of a GenModel (input_size, hidden_size, dropout ...); its head is joint. A value is a pixel.
    """

    def __init__(self, most=2, **settings):
        super().__init__(**settings)
        self.most = whole("most", most)
        self.of_shift = nn.Linear(3, 2 * self.settings["hidden_size"], bias=False)  # whether, and how far each way

    def loss(self, sequences, context=None):
        """Mean loss of a value (batch, rows, columns), each picture shifted anew: what `train` minimises."""
        far = torch.randint(-self.most, self.most + 1, (len(sequences), 2), device=sequences.device)
        shifts = far * (torch.rand(len(sequences), 1, device=sequences.device) >= UNSHIFTED)
        context = None if context is None else shifted(context, shifts)
        return helpers.GenModel.loss(self.on(shifts), shifted(sequences, shifts), context)

    def condition(self, batch):
        """Of the shifts (batch, 2) that are given, or of none."""
        if self.given is None:
            return torch.zeros(2, batch, self.settings["hidden_size"]).to(self.of_shift.weight)
        whether = (self.given != 0).any(1, keepdim=True)
        shift = torch.cat([whether, self.given / self.most], 1).to(self.of_shift.weight)  # (batch, 3)
        return self.of_shift(shift).chunk(2, 1)

    def plain(self):
        """The trained network for pictures that are not shifted: a GenModel with the same weights."""
        model = helpers.GenModel(**self.settings).to(self.of_shift.weight)
        model.load_state_dict({name: weight for name, weight in self.state_dict().items() if name != "of_shift.weight"})
        return model.train(self.training)
