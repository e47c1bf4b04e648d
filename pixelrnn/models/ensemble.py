"""An ensemble: several joint rows whose outputs are averaged for each value."""

import torch
from torch import nn

from helpers import GenModel, SequenceModel
from pixelrnn.models.augmentation import ShiftConditioned
from support.checks import LabError


def described(model):
    """A member of an ensemble by its kind and settings, from which `built` makes it again."""
    return {"model": type(model).__name__, **model.settings}


def built(model, kinds):
    """A member of an ensemble: the model itself, or the one of these kinds that its description says."""
    if not isinstance(model, dict):
        return model
    kind = {kind.__name__: kind for kind in kinds}[model.get("model", "GenModel")]
    return kind(**{name: value for name, value in model.items() if name != "model"})


class Average(SequenceModel):
    """Several GenModels with a joint head, side by side: each learns by its own loss, and their outputs are averaged.

    The mean of logits is a geometric mean of probabilities, scaled to sum to 1 for each value; its nats are at most the
    mean of the members' (log-sum-exp is convex). Members differ by their first weights; they see the same batches.

    models: GenModels or ShiftConditioned ones, or the settings of each.
    """

    KINDS = (GenModel, ShiftConditioned)
    ALIKE = ("input_size", "encoding", "distribution", "levels", "window", "streams", "causal", "joint")

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(built(model, self.KINDS) for model in models)
        joint = all(isinstance(model, GenModel) and model.joint for model in self.models)
        alike = {tuple(getattr(model, name) for name in self.ALIKE) for model in self.models if joint}
        if len(alike) != 1:
            raise LabError("An average is of one or more GenModels with a joint head that read and predict alike.")
        for name, value in zip(self.ALIKE, alike.pop(), strict=True):
            setattr(self, name, value)
        self.settings = {"models": [described(model) for model in self.models]}

    def teacher_forced(self, sequences):
        """Outputs for every step, each from the true values before it: (batch, steps, ...)."""
        return torch.stack([model.teacher_forced(sequences) for model in self.models]).mean(0)

    def loss(self, sequences, context=None):
        """The mean of the members' losses, not that of their average: each learns as it would alone, except that
        gradients are clipped all together."""
        return torch.stack([model.loss(sequences, context) for model in self.models]).mean()

    def read_in(self, inputs):
        """As each of the members."""
        return self.models[0].read_in(inputs)

    def step(self, inputs, states=None):
        """The members' features of the last step, a tuple of (batch, features), and their states."""
        states = states or [None] * len(self.models)
        stepped = [model.step(inputs, state) for model, state in zip(self.models, states, strict=True)]
        return tuple(zip(*stepped, strict=True))

    def sample_step(self, features, temperature=0.0):
        """The next step (batch, input_size), each value of it sampled from the average, and the averaged outputs."""
        members = [model.places(y) for model, y in zip(self.models, features, strict=True)]

        def output_at(place, left):
            return torch.stack([member(place, left) for member in members]).mean(0)  # -> (batch, levels or 1)

        return self.one_by_one(output_at, features[0], temperature)
