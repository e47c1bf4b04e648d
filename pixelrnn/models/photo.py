"""A network for photographs of any size (note 13): a pixel's distribution from the pixels before it, whose levels it
reads relative to their mean, and three heads.

Sources: van den Oord et al., "Pixel Recurrent Neural Networks", 2016 (a softmax over 256 levels; red before green
before blue); Salimans et al., "PixelCNN++", 2017 (mixtures of logistics); Wu and Memon, "CALIC", 1997 (errors of a
prediction are as large as the differences nearby).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from pixelrnn.models.colour import CHANNELS, LEVELS, LOGISTICS, OUTSIDE, mixture, scaled, softmax, whole_levels
from support.checks import LabError, choice, whole

HEADS = {"softmax": LEVELS, "differences": 2 * LEVELS - 1, "logistics": 3 * LOGISTICS}  # and outputs for a value
REACH = 3  # pixels in sight, in rows and columns
BESIDE, AROUND = 4, 12  # of the nearest pixels: those of the mean, and those of the contrast


def offsets(reach=REACH):
    """(row, column) of the pixels before, at most `reach` and a bit away, nearest first."""
    square = ((row, column) for row in range(-reach, 1) for column in range(-reach, reach + 1))
    places = [place for place in square if place < (0, 0)]  # rows above, and to the left
    near = [(row, column) for row, column in places if row**2 + column**2 <= (reach + 0.3) ** 2]
    return sorted(near, key=lambda place: (place[0] ** 2 + place[1] ** 2, place))


def windows(pictures, places):
    """The pixels at `places` of each pixel of (batch, rows, columns, 3): (batch, rows, columns, places, 3), whole
    levels, and OUTSIDE where they are outside the picture."""
    rows, columns = pictures.shape[1:3]
    reach = max(abs(step) for place in places for step in place)
    padded = F.pad(pictures.short(), (0, 0, reach, reach, reach, 0), value=OUTSIDE)
    starts = [(reach + row, reach + column) for row, column in places]
    return torch.stack([padded[:, row : row + rows, column : column + columns] for row, column in starts], -2)


def check(pictures):
    """Raises LabError where these are not whole levels from 0 to 255, red, green and blue."""
    whole_levels(pictures)
    if pictures.dim() != 4 or pictures.shape[-1] != CHANNELS:
        wanted = "red, green and blue, (batch, rows, columns, 3)"
        raise LabError(f"This network reads {wanted}, not {tuple(pictures.shape)}.")


class PhotoPixelCNN(nn.Module):
    """Windows (count, places, 3) of levels and pixels (count, 3) -> outputs (count, 3, LEVELS); of logistics, 15.

    A masked convolution and layers of 1 x 1, computed at any pixels one likes. Green sees red, and blue sees both.

    head: softmax, which reads levels and has a logit for each; differences, which reads how far they are from the mean
    of the four pixels nearest, in units of the contrast nearby, and has a logit for each difference from that mean;
    logistics, which reads the same, and whose mixture is placed at that mean and scaled by that contrast.
    features, layers: of the network. in_order: if not, channels do not see each other. Raises LabError for others.
    """

    def __init__(self, head="logistics", features=128, layers=2, in_order=True):
        super().__init__()
        self.head, self.in_order = choice("head", head, HEADS), bool(in_order)
        self.reach, self.places = REACH, offsets()
        features, layers = whole("features", features), whole("layers", layers, 0)
        self.settings = {"head": head, "features": features, "layers": layers, "in_order": self.in_order}
        self.read = nn.Linear(len(self.places) * (CHANNELS + 1) + CHANNELS + 1, features)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features))
            for _ in range(layers)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features + seen, 64), nn.ReLU(), nn.Linear(64, HEADS[head]))
            for seen in (range(CHANNELS) if in_order else (0, 0, 0))
        )

    def forward(self, window, pixels):
        before = self.before(window)
        return torch.stack([self.outputs(channel, before, pixels) for channel in range(CHANNELS)], 1)

    def before(self, window):
        """What stands before each pixel: features, and the mean (count, 3) and the contrast (count, 1) nearby."""
        mean, contrast, inputs = self.nearby(window)
        y = self.read(inputs)
        for layer in self.layers:
            y = y + layer(y)
        return F.relu(y), mean, contrast

    def nearby(self, window):
        """The mean (count, 3) and the contrast (count, 1) nearby, and what the network reads."""
        inside = (window[..., 0] != OUTSIDE).float()
        x = scaled(window) * inside[..., None]
        mean = x[:, :BESIDE].sum(1) / inside[:, :BESIDE].sum(1, keepdim=True).clamp(min=1)
        away = (x - mean[:, None]) * inside[..., None]
        known = inside[:, :AROUND].sum(1, keepdim=True).clamp(min=1)
        contrast = away[:, :AROUND].abs().mean(-1).sum(1, keepdim=True) / known + 1 / 127.5
        seen = x if self.head == "softmax" else away / contrast[..., None]
        return mean, contrast, torch.cat([seen.flatten(1), inside, mean, contrast.log() + 3], -1)

    def outputs(self, channel, before, pixels):
        """Of one channel, (count, HEADS[head]), from what stands before each pixel and the channels before it. Where
        they are relative: placed at the mean nearby, moved by how far the channel before is from its own."""
        y, mean, contrast = before
        seen = channel * self.in_order
        values = scaled(pixels[:, :seen])
        away = values - mean[:, :seen]
        outputs = self.heads[channel](torch.cat([y, values if self.head == "softmax" else away / contrast], -1))
        if self.head == "softmax":
            return outputs
        centre = mean[:, channel, None]
        if seen:
            centre = centre + away[:, -1:]
        if self.head == "differences":
            centre = ((centre + 1) * 127.5).round().long().clamp(0, LEVELS - 1)
            return outputs.gather(-1, LEVELS - 1 + torch.arange(LEVELS) - centre)
        weights, means, scales = outputs.chunk(3, -1)
        return torch.cat([weights, centre + means * contrast, scales + contrast.log() - 1], -1)

    def log_probabilities(self, window, pixels, levels):
        """Of levels (count, 3, some) for each value of pixels, given the values before: in nats."""
        outputs = self(window, pixels)
        if self.head == "logistics":
            return mixture(outputs, levels)
        return softmax(outputs, levels)

    def bits(self, window, pixels):
        """Bits of each value, (count, 3)."""
        return -self.log_probabilities(window, pixels, pixels.long()[..., None])[..., 0] / math.log(2)

    def bits_of(self, pictures):
        """Bits of each value of pictures (batch, rows, columns, 3), without a gradient. Raises LabError for others."""
        check(pictures)
        with torch.no_grad():
            around, pixels = windows(pictures, self.places).flatten(0, 2), pictures.flatten(0, 2)
            parts = zip(around.split(4096), pixels.split(4096), strict=True)
            return torch.cat([self.bits(*part) for part in parts]).view(pictures.shape)


def bits_while_learning(model, picture, rows=8, updates=16, pixels=512, memory=64, learning_rate=4e-4):
    """Bits of each value of a picture (rows, columns, 3) under a copy of a model that learns as it reads.

    Before every `rows` rows it makes `updates` steps on random pixels of the `memory` rows before. So what a value
    takes depends on it and on values before it alone. Raises LabError as `bits_of` does.
    """
    model, rows, updates = copy.deepcopy(model), whole("rows", rows), whole("updates", updates, 0)
    check(picture[None])
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    random, before, bits = torch.Generator().manual_seed(0), windows(picture[None], model.places)[0], []
    for top in range(0, len(picture), rows):
        known, now = slice(max(0, top - memory), top), slice(top, top + rows)
        seen, own = before[known].flatten(0, 1), picture[known].flatten(0, 1)
        for _ in range(updates if top else 0):
            few = torch.randint(len(own), (pixels,), generator=random)
            optimizer.zero_grad()
            model.bits(seen[few], own[few]).mean().backward()
            optimizer.step()
        with torch.no_grad():
            bits.append(model.bits(before[now].flatten(0, 1), picture[now].flatten(0, 1)).view(picture[now].shape))
    return torch.cat(bits)
