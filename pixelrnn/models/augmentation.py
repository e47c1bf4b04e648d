"""Shifted pictures: more of them to learn from, and three views of each picture that is predicted.

A joint row learns what a row means for each column by itself, and knows nothing of columns being alike. Shifted
pictures are more pictures to learn from, but a model that learns from them expects any picture to be shifted, which
costs nats. A model that is conditioned on the shift of each training picture can be asked for pictures in their place.
Source of the idea: Jun et al. 2020, "Distribution Augmentation for Generative Modeling" (DistAug).

Such a model can also be asked three times: about the picture in its place, and a column to the left and to the right.
Each value is predicted three times, from the same values before it, so that the mean of its three logits is a
prediction too. Errors that come from where a picture lies become smaller, and no weight is added.
"""

import torch
import torch.nn.functional as F
from torch import nn

import helpers
from pixelrnn.models.conditioned import Conditioned
from support.checks import LabError

ROWS, COLUMNS = 2, 1  # how far training pictures are shifted, at most, down or up and to either side
VIEWS = range(-COLUMNS, COLUMNS + 1)  # of a picture that is predicted: columns by which it is shifted to the right


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


def some_shifts(count, device=None):
    """Shifts of training pictures, (count, 2): each of the (2 ROWS + 1) (2 COLUMNS + 1) is as likely."""
    return torch.stack([torch.randint(-most, most + 1, (count,), device=device) for most in (ROWS, COLUMNS)], 1)


def to_the_right(values, columns):
    """The last axis moved by a whole number of columns, to the left if it is negative; 0 comes in."""
    return F.pad(values, (columns, -columns))


class ShiftConditioned(Conditioned):
    """A joint row whose training pictures are shifted by up to ROWS and COLUMNS, and which is conditioned on the shift.

    The shift enters by a matrix without bias, so that it adds nothing where there is no shift. In `loss` pictures are
    shifted. Everywhere else the outputs are the mean of those for three VIEWS, each shifted back; at the two edges,
    where a value leaves a view, of two. `on` a shift it is a joint row for pictures with that shift.

    settings: those of a GenModel (input_size, hidden_size, dropout ...); its head is joint. A value is a pixel.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        if self.encoding != "values" or self.distribution != "bernoulli":
            raise LabError("A network that sees its pictures shifted reads and predicts bits.")
        self.of_shift = nn.Linear(2, 2 * self.settings["hidden_size"], bias=False)

    def loss(self, sequences, context=None):
        """Mean loss of a value (batch, rows, columns), each picture shifted anew: what `train` minimises."""
        shifts = some_shifts(len(sequences), sequences.device)
        context = None if context is None else shifted(context, shifts)
        return helpers.GenModel.loss(self.on(shifts), shifted(sequences, shifts), context)

    def condition(self, batch):
        """Of the shifts that are given, (batch, 2), or (1, 2) for all, or of none."""
        given = torch.zeros(1, 2) if self.given is None else self.given
        return self.of_shift(given.expand(batch, -1).to(self.of_shift.weight) / max(ROWS, COLUMNS)).chunk(2, 1)

    def views(self):
        """For each of the VIEWS its shift to the right, and the network on that shift."""
        return [(by, self.on(torch.tensor([[0, by]], device=self.of_shift.weight.device))) for by in VIEWS]

    def teacher_forced(self, sequences):
        """Outputs for every step, each from the true values before it: (batch, steps, input_size)."""
        if self.given is not None:
            return super().teacher_forced(sequences)
        seen = [to_the_right(view.teacher_forced(to_the_right(sequences, by)), -by) for by, view in self.views()]
        return sum(seen) / torch.tensor([len(self._inside(place)) for place in range(self.input_size)]).to(seen[0])

    def _inside(self, place):
        """The shifts of the views in which a value is, and its place there."""
        return [(by, place + by) for by in VIEWS if 0 <= place + by < self.input_size]

    def step(self, inputs, states=None):
        """The features that each view has of the last step, a tuple of (batch, features), and their states."""
        if self.given is not None:
            return super().step(inputs, states)
        stepped = []
        for number, (by, view) in enumerate(self.views()):
            moved = to_the_right(inputs, by)
            if states is None:  # the start token comes first, which is no row of a picture
                moved = torch.cat([inputs[:, :1], moved[:, 1:]], 1)
            stepped.append(view.step(moved, None if states is None else states[number]))
        return tuple(zip(*stepped, strict=True))

    def places(self, features):
        """For `one_by_one`: (place, left) -> the outputs of that value, the mean of the views in which it is."""
        if self.given is not None:
            return super().places(features)
        views = {by: helpers.GenModel.places(self, y) for by, y in zip(VIEWS, features, strict=True)}
        blank = self.read_in(torch.zeros(len(features[0]), COLUMNS).to(features[0]))  # what comes in from the left
        for by, output in views.items():
            for place in range(by):
                output(place, blank[:, :place])  # the places to its right will see it

        def output_at(place, left):
            """left: values to the left as they enter the network, (batch, place)."""
            outputs = [
                views[by](there, torch.cat([blank[:, : max(0, by)], left[:, max(0, -by) :]], 1))
                for by, there in self._inside(place)
            ]
            return sum(outputs) / len(outputs)  # -> (batch, 1)

        return output_at

    def sample_step(self, features, temperature=0.0):
        """The next step (batch, input_size), each value of it sampled from the mean of the views, and the outputs."""
        first = features if self.given is not None else features[0]
        return self.one_by_one(self.places(features), first, temperature)
