"""Digits and letters as people draw them on the page: large or small, off the centre, slanted, with another pen.

A picture is kept as the points of its skeleton, the line in the middle of its strokes. `redrawn` moves, scales, slants
and bends that line anew each time and draws it with a round pen, as the page does. A network that learned from such
pictures expects what people draw; one that learned from MNIST expects pictures in the middle, 20 pixels high.
"""

import functools
import math
import string
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage.morphology import skeletonize
from skimage.transform import resize

from pixelrnn.data import datasets

SIZE = 28  # rows and columns
POINTS = 128  # kept of each skeleton
TRAINING = 50_000  # of MNIST's training images; the others are for validation
FINE = 4  # skeletons are found in pictures so many times as large
PENS = 1.2, 3.2  # width of the pen in pixels, from .. to
SIDES = 12.0, 27.0  # the longer side of what is drawn, in pixels, from .. to
STRETCH, SLANT, TURN = 0.15, 0.3, 0.12  # at most: log of height by width, columns a row, radians
WAVES, BENT, LONG = 2, 0.45, 0.05  # of the bends: how many, their size in pixels, waves in a pixel (deviations)
LETTERS = string.ascii_uppercase + string.ascii_lowercase
# Fonts inside matplotlib, and the number of their first letter where it is not that of a plain A: STIX has letters
# without serifs among its mathematical signs. No font of one part is a form of a font of another.
FONTS = {
    "training": [
        (f"DejaVu{name}.ttf", None)
        for name in ("Sans", "Sans-Oblique", "SansMono", "SansMono-Oblique", "Serif", "Serif-Italic")
    ],
    "validation": [("cmtt10.ttf", None)],
    "test": [("cmss10.ttf", None), ("STIXGeneral.ttf", 0x1D5A0)],
}


class Strokes(NamedTuple):
    """Skeletons, float32 (count, POINTS, 2): row and column of each point, in pixels; the last point repeats."""

    training: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


def skeleton(picture, fine=FINE):
    """The points of the skeleton of a picture, float32 (POINTS, 2), in pixels of a picture `fine` times as small.

    picture: levels 0 .. 1, of which those from 0.5 on are ink. Of a skeleton with more points those are kept that come
    first in each cell of a grid, the finest that leaves few enough.
    """
    points = (np.argwhere(skeletonize(np.asarray(picture) >= 0.5)) + 0.5) / fine
    cell = 0.5
    while len(points) > POINTS:
        points = points[np.sort(np.unique(np.floor(points / cell), axis=0, return_index=True)[1])]
        cell *= 1.2
    if not len(points):  # nothing but paper, or a dot that vanished
        points = np.full((1, 2), SIZE / 2)
    return np.float32(np.concatenate([points, points[-1:].repeat(POINTS - len(points), 0)]))


def digits(mnist=None):
    """MNIST's digits as Strokes: 50,000 to train on, 10,000 for validation, 10,000 for the test. Takes half a minute.

    mnist: where MNIST is, see datasets.load_mnist, whose errors it raises.
    """
    training, test = datasets.load_mnist(mnist)
    skeletons = [_of_digits(part) for part in (training[:TRAINING], training[TRAINING:], test)]
    return Strokes(*skeletons)


def _of_digits(pictures):
    larger = (resize(picture / 255, (FINE * SIZE, FINE * SIZE), order=1, mode="edge") for picture in pictures)
    return torch.from_numpy(np.stack([skeleton(picture) for picture in larger]))


@functools.cache
def letters():
    """The 52 Latin letters without accents as Strokes: of six DejaVu fonts to train on, of others held out.

    So a held-out letter is one of known letters in a font that is not known. Sources: the fonts inside matplotlib,
    DejaVu 2.37 (Bitstream Vera and Arev licences), STIX 1.1 and Computer Modern (BaKoMa).
    """
    return Strokes(*(torch.from_numpy(_of_letters(FONTS[part])) for part in Strokes._fields))


def _of_letters(fonts):
    found = []
    for name, first in fonts:
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
        font = ImageFont.truetype(str(path), 20 * FINE, layout_engine=ImageFont.Layout.BASIC)
        for number, letter in enumerate(LETTERS):
            image = Image.new("L", (2 * FINE * SIZE,) * 2)
            place = FINE * SIZE / 2, FINE * SIZE / 2
            ImageDraw.Draw(image).text(place, chr(first + number) if first else letter, fill=255, font=font)
            found.append(skeleton(np.asarray(image) / 255))
    return np.stack(found)


def _between(least, most, *shape):
    return least + (most - least) * torch.rand(*shape)


def redrawn(points, pens=PENS, sides=SIDES):
    """Skeletons (count, points, 2), each drawn anew: float32 pictures (count, SIZE, SIZE), 0 and 1.

    Each is bent, stretched, slanted, turned, scaled so that its longer side has a length in `sides`, put somewhere
    within the picture, rather in the middle, and drawn with a pen of a width in `pens`, all by torch's random numbers.
    """
    count = len(points)
    x = points - (points.amin(1, keepdim=True) + points.amax(1, keepdim=True)) / 2
    for _ in range(WAVES):
        wave, size = LONG * torch.randn(count, 1, 2), BENT * torch.randn(count, 1, 2)
        phase = _between(0, 2 * math.pi, count, 1)
        x = x + size * torch.sin(2 * math.pi * (x * wave).sum(-1) + phase)[..., None]
    stretch, slant, turn = (_between(-most, most, count, 1) for most in (STRETCH, SLANT, TURN))
    row, column = x[..., 0] * torch.exp(stretch), x[..., 1] * torch.exp(-stretch)
    column = column - slant * row
    row, column = row * turn.cos() - column * turn.sin(), row * turn.sin() + column * turn.cos()
    side = _between(*sides, count, 1)
    pen = torch.minimum(_between(*pens, count, 1), side / 6)  # no small picture is a blot
    longer = torch.maximum(_extent(row), _extent(column)).clamp(min=1)
    return drawn(*(_placed(each * (side - pen) / longer, pen) for each in (row, column)), pen)


def _extent(x):
    return x.amax(1, keepdim=True) - x.amin(1, keepdim=True)


def _placed(x, pen):
    """Coordinates along one axis, moved so that what is drawn lies within the picture, rather in the middle."""
    room = SIZE - pen - _extent(x)
    return x - x.amin(1, keepdim=True) + pen / 2 + room * torch.rand(3, *room.shape).mean(0)


def drawn(row, column, pen):
    """Points (count, points) drawn by a round pen (count, 1), in pixels: a pixel is ink if its middle is under the pen.

    Equals site/draw/picture.js, stroke, for a line of points close together and a pen of one pixel or more.
    """
    middle = torch.arange(SIZE) + 0.5
    down, right = (((middle[:, None] - x[:, None]) ** 2) for x in (row, column))  # (count, SIZE, points)
    few = zip(down.split(256), right.split(256), strict=True)  # all at once would take gigabytes
    nearest = torch.cat([(rows[:, :, None] + columns[:, None]).amin(-1) for rows, columns in few])
    return (nearest <= (pen / 2)[..., None] ** 2).float()  # squares of distances
