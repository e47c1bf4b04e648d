"""Makes data/icons/ from the package fugue-icons: 3,570 icons over white in one sheet, and which part each belongs to.

    python tools/icon_sheet.py fugue_icons/static

The folder is that of fugue-icons 3.5.6 on the Python Package Index, as it lies in its archive: the sheet
fugue-icons.png with transparency, and fugue-icons.json, where each icon is. Icons: Yusuke Kamiyamane, CC BY 3.0.

Many icons are variants of one: they share the first word of their name (document, document--plus), or most of their
pixels. Both make them one family, and a family is in one part of the split: to train on, for validation, for the test.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

from pixelrnn.data import icons
from support import checks, files

ALIKE = 0.7  # of the pixels that are not white in one of two icons or both: one is a variant of the other
HELD_OUT = 360  # icons for validation, and as many for the test, some more or fewer, as families are whole
LARGEST = 12  # icons of a family that may be held out: no family decides a mean


def read(folder):
    """Names (sorted) and icons (count, 16, 16, 3) of the package's sheet, over white."""
    with files.reading(Path(folder) / "fugue-icons.png", "The sheet of fugue-icons") as path:
        sheet = Image.open(path).convert("RGBA")
    with files.reading(Path(folder) / "fugue-icons.json", "The places of fugue-icons") as path:
        places = json.loads(path.read_text(encoding="utf-8"))
    white = Image.new("RGBA", sheet.size, "white")
    pixels, names = np.asarray(Image.alpha_composite(white, sheet).convert("RGB")), sorted(places)
    corners = [places[name] for name in names]
    return names, np.stack([pixels[y : y + icons.SIZE, x : x + icons.SIZE] for x, y in corners])


def families(names, pictures):
    """The family of each icon, a number: that of its first member."""
    family = np.arange(len(names))

    def joined(one, other):
        family[family == max(family[one], family[other])] = min(family[one], family[other])

    first = {}
    for number, name in enumerate(names):
        joined(number, first.setdefault(name.split("-")[0], number))
    colours = pictures.reshape(len(pictures), -1, 3).astype(np.int32) @ [65536, 256, 1]  # (count, pixels)
    drawn = colours != 0xFFFFFF
    for number in range(len(names)):
        either = drawn | drawn[number]
        alike = ((colours == colours[number]) & either).sum(1) / either.sum(1)
        for other in np.flatnonzero(alike >= ALIKE):
            joined(number, other)
    return family


def parts(family):
    """The part of each icon, one of icons.PARTS: families in a random order until enough icons are held out."""
    part = np.zeros(len(family), dtype=int)
    for one in np.random.default_rng(0).permutation(np.unique(family)):
        members = family == one
        if members.sum() <= LARGEST:
            part[members] = next((p for p in (2, 1) if (part == p).sum() < HELD_OUT), 0)
    return [icons.PARTS[one] for one in part]


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="the folder `static` of fugue-icons 3.5.6")
    try:
        names, pictures = read(parser.parse_args(words).folder)
        family = families(names, pictures)
        with files.written_whole(icons.SHEET, "A name for the sheet") as unfinished:
            Image.fromarray(icons.as_sheet(pictures)).save(unfinished, "WEBP", lossless=True, quality=100, method=6)
        rows = zip(names, (names[one] for one in family), parts(family), strict=True)
        with (
            files.written_whole(icons.TABLE, "A name for the table") as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([("name", "family", "part"), *rows])
    except checks.LabError as error:
        sys.exit(str(error))
    print(f"{len(names)} icons of {len(set(family))} families in {icons.SHEET} and {icons.TABLE}.")


if __name__ == "__main__":
    main()
