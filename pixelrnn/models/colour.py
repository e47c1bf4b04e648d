"""A PixelCNN of colour pictures with 256 levels (note 12), and three heads that say how a value is distributed.

Sources: van den Oord et al., "Pixel Recurrent Neural Networks", 2016 (a softmax over 256 levels; red before green
before blue); Salimans et al., "PixelCNN++", 2017 (mixtures of logistics); Merity et al., "Pointer Sentinel Mixture
Models", 2016 (a mixture of what is predicted and what is copied).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from support.checks import LabError, choice, number, whole

LEVELS, CHANNELS, OUTSIDE = 256, 3, -1  # OUTSIDE: the level of a pixel outside the picture
LOGISTICS = 5  # of a mixture
NEARBY = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # pixels (row, column) from which a value may come
UNLIKELY = -1e9  # a logarithm of 0


def scaled(levels):
    """Levels 0 to 255 as numbers from -1 to 1."""
    return levels / 127.5 - 1


def whole_levels(levels):
    """Raises LabError for a tensor of anything but whole levels from 0 to 255."""
    if levels.is_floating_point() or (levels.numel() and not 0 <= int(levels.min()) <= int(levels.max()) < LEVELS):
        raise LabError("This network reads whole levels from 0 to 255, a tensor of whole numbers.")


def softmax(outputs, levels, near=None):
    """Log-probabilities, in nats, of levels (..., count), under a logit for each level (..., LEVELS)."""
    return torch.log_softmax(outputs, -1).gather(-1, levels)


def mixture(outputs, levels):
    """The same under a mixture of logistics: weights, means and log scales, (..., 3 * LOGISTICS).

    A level has what a logistic distribution has between its edges; 0 and 255 have all that is beyond them too.
    """
    weights, means, scales = outputs[..., None, :].chunk(3, -1)
    values, sharpness = scaled(levels)[..., None], torch.exp(-scales.clamp(min=-9))
    upper, lower = sharpness * (values - means + 1 / 255), sharpness * (values - means - 1 / 255)
    below, above = F.logsigmoid(upper), F.logsigmoid(-lower)  # the logarithms of what is below and above an edge
    within = below + above + torch.log1p(-torch.exp(lower - upper).clamp(max=1 - 1e-7))  # of their difference
    levels = levels[..., None]
    each = torch.where(levels == 0, below, torch.where(levels == LEVELS - 1, above, within))
    return torch.logsumexp(torch.log_softmax(weights, -1) + each, -1)


def placed(outputs):
    """What `mixture` wants, of outputs of a head: before they learn, its parts lie side by side."""
    weights, means, scales = outputs[..., : 3 * LOGISTICS].chunk(3, -1)
    return torch.cat([weights, means + torch.linspace(-0.9, 0.9, LOGISTICS), scales - 2], -1)


def logistics(outputs, levels, near=None):
    """The same under such a mixture."""
    return mixture(placed(outputs), levels)


def copies(outputs, levels, near):
    """The same where a value is new, from a mixture of logistics, or a copy of one of those nearby, (..., NEARBY)."""
    choices = _choices(outputs, near)[..., None, :]
    new = choices[..., 0] + logistics(outputs, levels)
    copied = choices[..., 1:].masked_fill(near[..., None, :] != levels[..., None], UNLIKELY)
    return torch.logsumexp(torch.cat([new[..., None], copied], -1), -1)


def _choices(outputs, near):
    """Log-probabilities (..., 1 + NEARBY) that a value is new, and that it is a copy of each of those nearby."""
    choices = outputs[..., 3 * LOGISTICS :]
    return torch.log_softmax(
        torch.cat([choices[..., :1], choices[..., 1:].masked_fill(near == OUTSIDE, UNLIKELY)], -1), -1
    )


# name -> the function that turns outputs into probabilities, and how many outputs it wants for a value.
HEADS = {"softmax": (softmax, LEVELS), "logistics": (logistics, 3 * LOGISTICS)}
HEADS["copies"] = copies, 3 * LOGISTICS + 1 + len(NEARBY)


def probabilities(head, outputs, near):
    """Of all levels, (..., LEVELS). What HEADS gives of some levels, here of each, but for rounding: much faster, and
    nothing for training, since what is far from every mean is 0."""
    if head == "softmax":
        return torch.softmax(outputs, -1)
    weights, means, scales = placed(outputs)[..., None].chunk(3, -2)  # (..., LOGISTICS, 1)
    edges = scaled(torch.arange(1, LEVELS) - 0.5)
    below = torch.sigmoid(torch.exp(-scales.clamp(min=-9)) * (edges - means))
    below = (torch.softmax(weights, -2) * below).sum(-2)
    new = torch.diff(F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0)).clamp(min=0)
    if head == "logistics":
        return new
    choices = _choices(outputs, near).exp()
    return (choices[..., :1] * new).scatter_add(-1, near.clamp(min=0), choices[..., 1:])


class PixelsBefore(nn.Module):
    """Padded levels (batch, rows + reach, columns + 2 * reach, 3) -> what stands before each pixel, (batch, rows,
    columns, features): a masked convolution sees the pixels before, at most `reach` rows and columns away, and layers
    of 1 x 1 follow. Each of size x size places has a bias of its own. dropout: of a layer, in training mode."""

    def __init__(self, features, layers, reach, size, dropout=0.0):
        super().__init__()
        mask = torch.ones(reach + 1, 2 * reach + 1)
        mask[-1, reach:] = 0  # the pixel itself, and those to its right
        self.register_buffer("mask", mask, persistent=False)
        self.read = nn.Conv2d(CHANNELS + 1, features, mask.shape)
        self.place = nn.Parameter(torch.zeros(features, size, size))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(features, features, 1),
                nn.ReLU(),
                nn.Conv2d(features, features, 1),
                nn.Dropout(dropout),
            )
            for _ in range(layers)
        )

    def forward(self, padded, place=None):
        """place: the biases (features, rows, columns), where they are not those of a whole picture."""
        inside = (padded[..., :1] != OUTSIDE).float()
        maps = torch.cat([scaled(padded) * inside, inside], -1).movedim(-1, 1)
        y = F.conv2d(maps, self.read.weight * self.mask, self.read.bias) + (self.place if place is None else place)
        for layer in self.layers:
            y = y + layer(y)
        return F.relu(y).movedim(1, -1)


class ColourPixelCNN(nn.Module):
    """Levels (batch, size, size, 3) -> outputs that make up each distribution, (batch, size, size, 3, count).

    A head for each channel sees the pixels before, and of its own pixel the channels before: red, green, blue.

    head: how a value is distributed, one of HEADS. features, layers, reach, size, dropout: see PixelsBefore.
    in_order: if not, channels do not see each other. Raises LabError for settings that cannot do.
    """

    def __init__(self, head="copies", features=128, layers=2, reach=4, size=16, in_order=True, dropout=0.0):
        super().__init__()
        self.head, self.in_order, copying = choice("head", head, HEADS), bool(in_order), head == "copies"
        least = {"features": 1, "layers": 1, "reach": max(map(abs, sum(NEARBY, ()))), "size": 1}
        sizes = dict(zip(least, (features, layers, reach, size), strict=True))
        sizes = {name: whole(name, value, least[name]) for name, value in sizes.items()}
        dropout = number("dropout", dropout, most=math.nextafter(1, 0))
        self.settings = {"head": head, **sizes, "in_order": self.in_order, "dropout": dropout}
        self.reach, self.size, self.before = reach, size, PixelsBefore(**sizes, dropout=dropout)
        seen = [self.in_order * (channel + copying * len(NEARBY)) for channel in range(CHANNELS)]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features + more, 64), nn.ReLU(), nn.Linear(64, HEADS[head][1])) for more in seen
        )

    def forward(self, levels):
        padded = self.padded(levels)
        y, near = self.before(padded), self.near(padded)
        return torch.stack([self.outputs(channel, y, levels, near) for channel in range(CHANNELS)], -2)

    def padded(self, levels):
        """Pictures with `reach` pixels outside at the left, the right and above. Raises LabError for other pictures."""
        if levels.shape[1:] != (self.size, self.size, CHANNELS):
            wanted = f"(batch, {self.size}, {self.size}, {CHANNELS})"
            raise LabError(f"This network reads red, green and blue, {wanted}, not {tuple(levels.shape)}.")
        return F.pad(levels.long(), (0, 0, self.reach, self.reach, self.reach, 0), value=OUTSIDE)

    def near(self, padded):
        """The pixels nearby, (batch, rows, columns, NEARBY, 3)."""
        rows, columns = padded.shape[1] - self.reach, padded.shape[2] - 2 * self.reach
        starts = [(self.reach + row, self.reach + column) for row, column in NEARBY]
        return torch.stack([padded[:, row : row + rows, column : column + columns] for row, column in starts], -2)

    def outputs(self, channel, y, levels, near):
        """Of one channel, (batch, rows, columns, count), from the features and the channels before it."""
        seen = [scaled(levels[..., :channel])]
        if self.head == "copies":  # which pixels nearby have the same levels so far
            seen.append((near[..., :channel] == levels[..., None, :channel]).all(-1).float())
        outputs = self.heads[channel](torch.cat([y, *seen], -1) if self.in_order else y)
        if channel and self.in_order and self.head != "softmax":  # means are relative to the channel before
            outputs[..., LOGISTICS : 2 * LOGISTICS] += scaled(levels[..., channel - 1 : channel])
        return outputs

    def log_probabilities(self, pictures, levels):
        """Of levels (batch, size, size, 3, count) for each value of pictures, given the values before: in nats."""
        near = self.near(self.padded(pictures)).movedim(-1, -2)  # (batch, size, size, 3, NEARBY)
        return HEADS[self.head][0](self(pictures), levels, near)

    def bits(self, levels):
        """Bits of each value, (batch, size, size, 3). Raises LabError where they are not whole levels from 0 to 255."""
        whole_levels(levels)
        return -self.log_probabilities(levels, levels.long()[..., None])[..., 0] / math.log(2)


@torch.no_grad()
def sample(model, pictures, known_rows=0, temperature=1.0, generator=None):
    """Pictures (count, rows, columns, 3) of levels, whose first rows are kept and whose others are sampled.

    temperature: log-probabilities are divided by it; 0 takes the most probable level. Only the pixel that is sampled is
    computed, from the pixels before it within reach. Raises LabError for other pictures or settings.
    """
    temperature = number("temperature", temperature)
    known_rows = whole("known_rows", known_rows, 0)
    number("known_rows", known_rows, most=model.size)
    pictures, reach = pictures.clone().long(), model.reach
    pictures[:, known_rows:] = OUTSIDE
    padded = model.padded(pictures)
    for row in range(known_rows, pictures.shape[1]):
        for column in range(pictures.shape[2]):
            window = padded[:, row : row + reach + 1, column : column + 2 * reach + 1]
            y = model.before(window, model.before.place[:, row, column, None, None])
            pixel, near = window[:, -1:, reach : reach + 1], model.near(window)
            for channel in range(CHANNELS):
                outputs = model.outputs(channel, y, pixel, near)
                p = probabilities(model.head, outputs, near[..., channel])[:, 0, 0]
                pixel[..., channel] = _chosen(p, temperature, generator)[:, None, None]
    return padded[:, reach:, reach:-reach]


def _chosen(p, temperature, generator):
    """A level of each row of probabilities (count, LEVELS)."""
    if temperature == 0:
        return p.argmax(-1)
    return torch.multinomial((p / p.amax(-1, keepdim=True)) ** (1 / temperature), 1, generator=generator)[:, 0]
