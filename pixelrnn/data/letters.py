"""The letters of the fonts inside matplotlib as pictures of 28 x 28, split so that no held-out letter is seen.

Matplotlib carries the DejaVu fonts (Sans, Sans Mono, Serif; each regular, bold, oblique, bold oblique). They hold
Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew, Arabic, Lao, Canadian syllabics, Tifinagh, Lisu and more.
"""

import functools
import hashlib
import itertools
import unicodedata
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

SIZE = 28  # rows and columns, as MNIST's
POINTS = 22  # the largest size at which nearly all letters fit
SHARED_OUT = (0, 0, 0, 0, 1, 0, 0, 0, 0, 2)  # the part of each of ten families of a script, one after another
FEW = 20  # scripts with fewer families than these are shared out together
CAP = 24  # pictures of a held-out family at most: a capital and a small letter in twelve fonts
LEFT_OUT = 3  # the part of what is above the cap
# SHA-256 of all pictures, in their order. FreeType, which renders them, comes inside Pillow, whose version is pinned.
RENDERED = "510d01c3aa06f8fff4b22c61f5ccc78e8c10966d86d61de298954d6afcff9b36"


class Letters(NamedTuple):
    """Of pictures of letters three parts that share no family of letters, e.g. uint8 (count, 28, 28) each."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_letters(grey=False):
    """The letters of the DejaVu fonts: Letters, uint8 (count, 28, 28) each, 0 and 1, or 0 .. 255 with `grey`.

    All forms of a letter belong to one family: every font and style, capital and small, with accents (Unicode's
    decomposition, followed to its base), and every other letter that is the same picture in some font (Latin, Greek
    and Cyrillic A). A family is in one part: of each script 80% of the families are to train on, 10% for validation,
    10% for the test, shared out in the order of a hash. Of a held-out family at most CAP pictures are kept, chosen by a
    hash, so that no letter with many accents decides a mean. Of equal binary pictures one is kept.

    Another version of FreeType may render them otherwise: that is said, and their numbers are then not comparable.
    Source: DejaVu fonts 2.37 as matplotlib carries them, under the Bitstream Vera and Arev licences.
    """
    pictures, parts, _, checksum = _rendered()
    if checksum != RENDERED:
        print("The letters are rendered otherwise here than where results were stored: they cannot be compared.")
    pictures = pictures if grey else np.uint8(pictures >= 128)
    return Letters(*(pictures[parts == part] for part in range(3)))


def families():
    """The family of each picture of `load_letters`, by its first letter: Letters, str (count,) each.

    Forms of one letter are alike, so an error over letters is one over families (errors.standard_error).
    """
    _, parts, family, _ = _rendered()
    return Letters(*(family[parts == part] for part in range(3)))


@functools.cache
def _rendered():
    """All different pictures, grey; the part and the family of each; their checksum. It takes four seconds, once."""
    known, letters = {}, []  # binary picture -> its number; the letters that look so
    grey = []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf")):
        if "Display" in path.name:  # some 30 letters, for headlines
            continue
        font = ImageFont.truetype(str(path), POINTS, layout_engine=ImageFont.Layout.BASIC)
        for letter in map(chr, sorted(FT2Font(str(path)).get_charmap())):
            picture = _picture(letter, font) if unicodedata.category(letter).startswith("L") else None
            if picture is None:
                continue
            number = known.setdefault((picture >= 128).tobytes(), len(known))
            if number == len(grey):
                grey.append(picture)
                letters.append([])
            letters[number].append(_base(letter))
    family_of = _families(letters)
    family = np.array([family_of[alike[0]] for alike in letters])
    pictures = np.stack(grey)
    return pictures, _parts(pictures, family), family, hashlib.sha256(pictures.tobytes()).hexdigest()


def script(letter):
    """The script of a letter, by the first word of its Unicode name: "LATIN", "GREEK", "CANADIAN" ..."""
    return unicodedata.name(letter, "").partition(" ")[0]


def _parts(pictures, family):
    """The part of each picture: 0, 1 or 2 of Letters, or LEFT_OUT."""
    of_script = {}
    for first in sorted(set(family.tolist()), key=_hash):
        of_script.setdefault(script(first), []).append(first)
    strata = [firsts for firsts in of_script.values() if len(firsts) >= FEW]
    strata.append(sorted(set(family.tolist()).difference(*strata), key=_hash))
    part_of = {first: part for firsts in strata for first, part in zip(firsts, itertools.cycle(SHARED_OUT))}
    parts = np.array([part_of[first] for first in family.tolist()])
    for first in [first for first, part in part_of.items() if part]:
        own = sorted(np.flatnonzero(family == first), key=lambda number: _hash(pictures[number] >= 128))
        parts[own[CAP:]] = LEFT_OUT
    return parts


def _hash(of):
    """Decides by chance, and everywhere alike: of a letter, or of the bits of a picture."""
    return hashlib.sha256(of.encode() if isinstance(of, str) else of.tobytes()).digest()


def _picture(letter, font):
    """A letter in the middle of a picture, uint8 (28, 28), 0 where nothing is; None if it is empty or does not fit."""
    left, top, right, bottom = font.getbbox(letter)
    width, height = right - left, bottom - top
    if not (0 < width <= SIZE and 0 < height <= SIZE):
        return None
    image = Image.new("L", (SIZE, SIZE))
    place = ((SIZE - width) // 2 - left, (SIZE - height) // 2 - top)
    ImageDraw.Draw(image).text(place, letter, fill=255, font=font)
    return np.asarray(image)


def _base(letter):
    """The small letter without accents that a letter is a form of."""
    first = [part for part in unicodedata.decomposition(letter).split() if not part.startswith("<")][:1]
    if first and unicodedata.category(plain := chr(int(first[0], 16))).startswith("L"):
        return _base(plain)
    small = letter.lower()[0]
    return small if small == letter else _base(small)


def _families(alike):
    """Base letter -> the first letter of its family, joining those that stand in one list of `alike`."""
    parent = {letter: letter for letters in alike for letter in letters}

    def first(letter):
        while parent[letter] != letter:
            letter = parent[letter]
        return letter

    for letters in alike:
        firsts = sorted(map(first, letters))
        parent.update(dict.fromkeys(firsts, firsts[0]))
    return {letter: first(letter) for letter in parent}
