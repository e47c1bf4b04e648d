"""The photographs of note 13: those that scikit-image and scikit-learn carry, and windows of them to train on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from support.checks import LabError, choice, whole

# PNG files: these are measured, each by networks that learned from all the others.
TESTED = ("astronaut", "chelsea", "coffee", "motorcycle")
# JPEGs, at half their size, which takes most traces of compression away: only to learn from.
HALVED = ("china", "flower", "rocket")
LICENCES = {
    "astronaut": "NASA, public domain",
    "chelsea": "Stefan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
    "motorcycle": "Middlebury stereo data 2014, Scharstein et al., no licence told",
    "china": "danielbuechele, CC BY 2.0",
    "flower": "vultilion, CC BY 2.0",
    "rocket": "SpaceX, public domain",
}
PATCH = 32  # pixels of a side
OUTSIDE = -1  # the level of a pixel outside the picture, as the networks read it


def photograph(name):
    """A photograph, uint8 (rows, columns, 3), red, green and blue. name: one of LICENCES."""
    choice("name", name, LICENCES)
    import skimage.data  # here, so that what needs no photograph does not wait for these
    import sklearn.datasets

    if name in ("china", "flower"):
        picture = sklearn.datasets.load_sample_image(f"{name}.jpg")
    else:
        file = {"motorcycle": "motorcycle_left.png", "rocket": "rocket.jpg"}.get(name, f"{name}.png")
        picture = np.array(Image.open(Path(skimage.data.__file__).parent / file).convert("RGB"))
    return halved(picture) if name in HALVED else picture


def halved(picture):
    """Means of 2 x 2 pixels: uint8 (rows // 2, columns // 2, 3)."""
    rows, columns = (length // 2 for length in picture.shape[:2])
    squares = picture[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3)
    return squares.mean((1, 3)).round().astype(np.uint8)


def patches(picture):
    """A photograph's patches of PATCH x PATCH, left out what is over at its edges: (count, PATCH, PATCH, 3)."""
    rows, columns = (length // PATCH for length in picture.shape[:2])
    cut = picture[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
    return np.ascontiguousarray(cut.swapaxes(1, 2)).reshape(-1, PATCH, PATCH, 3)


def turned(picture):
    """A picture as it is, upside down, and both with rows and columns exchanged: a photograph would look as likely."""
    return [picture, picture[::-1], picture.swapaxes(0, 1), picture.swapaxes(0, 1)[::-1]]


class Windows(NamedTuple):
    """What is before some pixels, int16 (count, places, 3), -1 outside, and the pixels, int16 (count, 3)."""

    before: torch.Tensor
    pixels: torch.Tensor


class Pool:
    """All pixels of some pictures, of which windows are drawn.

    pictures: uint8 (rows, columns, 3) each. places: (row, column) of a window's pixels from its own, all before it.
    Raises LabError where there is no picture.
    """

    def __init__(self, pictures, places):
        if not pictures:
            raise LabError("A pool is of one picture or more.")
        self.places, self.reach = torch.tensor(places), max(abs(step) for place in places for step in place)
        padding = ((self.reach, 0), (self.reach, self.reach), (0, 0))
        padded = [np.pad(picture.astype(np.int16), padding, constant_values=OUTSIDE) for picture in pictures]
        self.levels = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in padded]))
        self.starts = torch.tensor([0] + [picture.shape[0] * picture.shape[1] for picture in padded[:-1]]).cumsum(0)
        self.rows, self.columns = torch.tensor([picture.shape[:2] for picture in pictures]).T

    def draw(self, count, generator=None):
        """Windows of `count` pixels drawn from all alike, each mirrored half of the time; and half of them as in a
        patch of PATCH x PATCH, cut anywhere around the pixel, with all else outside."""
        whole("count", count)

        def uniform(below):
            return (torch.rand(count, generator=generator) * below).long()

        which = torch.multinomial((self.rows * self.columns).float(), count, True, generator=generator)
        row, column, width = (
            uniform(self.rows[which]),
            uniform(self.columns[which]),
            self.columns[which] + 2 * self.reach,
        )
        rows, columns = self.places.T
        columns = columns * (1 - 2 * uniform(2))[:, None]  # (count, places)
        own = self.starts[which] + (row + self.reach) * width + column + self.reach
        before = self.levels[own[:, None] + rows * width[:, None] + columns]
        in_row, in_column = uniform(PATCH)[:, None] + rows, uniform(PATCH)[:, None] + columns
        cut = (in_row < 0) | (in_column < 0) | (in_column >= PATCH)
        cut &= uniform(2)[:, None] == 0
        return Windows(torch.where(cut[..., None], OUTSIDE, before), self.levels[own])
