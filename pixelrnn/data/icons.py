"""The icons of note 12: 3,570 colour pictures of 16 x 16 that a person made, split so that no held-out one has a
variant among those to train on.

Icons: Fugue Icons 3.5.6 by Yusuke Kamiyamane, Creative Commons Attribution 3.0. They have transparency; here they lie
over white (tools/icon_sheet.py).
"""

import csv
import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from support import checks, files

SIZE, COLUMNS = 16, 60  # pixels of an icon; icons in a row of the sheet
PARTS = ("training", "validation", "test")
SHEET, TABLE = files.DATA / "icons" / "icons.webp", files.DATA / "icons" / "icons.csv"
ADVICE = "`git checkout data/icons` brings back the stored files."
PIXELS = "50b154d8e62c0c1a047cd1f34c1d60b6e73324f4abee8c126541ac8f9e6e9ef1"  # SHA-256 of the sheet's pixels


class Icons(NamedTuple):
    """Of icons three parts that share no family: uint8 (count, 16, 16, 3) each, or str (count,)."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_icons():
    """The icons: Icons, uint8 (count, 16, 16, 3) each, red, green and blue from 0 to 255.

    Variants of an icon are one family: those whose names begin with the same word, and those of which 70% of the pixels
    that are not white are the same. A family is in one part: some 80% of the icons are to train on, 10% for validation,
    10% for the test. Raises LabError where a file is missing or damaged.
    """
    with files.reading(SHEET, "The sheet of icons", ADVICE) as path:
        sheet = np.asarray(Image.open(path, formats=["WEBP"]).convert("RGB"))
        if hashlib.sha256(sheet.tobytes()).hexdigest() != PIXELS:
            raise checks.LabError("Its pixels are not those of the stored sheet")
    pictures = sheet.reshape(-1, SIZE, COLUMNS, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
    parts = _table()["part"]
    return Icons(*(pictures[: len(parts)][parts == part] for part in PARTS))


def families():
    """The family of each icon of `load_icons`, by the name of its first member: Icons, str (count,) each."""
    table = _table()
    return Icons(*(table["family"][table["part"] == part] for part in PARTS))


def as_sheet(pictures, columns=COLUMNS, gap=0):
    """Pictures (count, size, size, 3) side by side, `columns` in a row: (rows * size, columns * size, 3).

    gap: white pixels around each, for people.
    """
    pictures = np.pad(pictures, ((0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * columns, *pictures.shape[1:]), 255, np.uint8)
    sheet[: len(pictures)] = pictures
    _, height, width, channels = sheet.shape
    return sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)


def _table():
    """name, family and part of each icon: a dict of arrays (count,)."""
    with files.reading(TABLE, "The table of icons", ADVICE) as path, path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        return {name: np.array([row[name] for row in rows]) for name in ("name", "family", "part")}
