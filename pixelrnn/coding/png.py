"""PNG files of colour pictures whose levels are kept as they are: what the command of note 9 reads and writes."""

import io
import struct

import numpy as np
from PIL import Image

from pixelrnn.coding import file_format
from support import files
from support.checks import LabError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
WHAT = {0: "grey", 3: "a palette", 4: "grey and alpha", 6: "red, green, blue and alpha"}  # by colour type; 2 is wanted
ADVICE = "A PNG of red, green and blue, 8 bits each, without alpha, is wanted; save the picture as one."
PIXELS = {"IHDR", "IDAT", "IEND", "PLTE"}  # PLTE: colours for screens that have few; it changes no pixel here
NAMES = {
    "gAMA": "gamma",
    "iCCP": "colour profile",
    "cHRM": "colour space",
    "sRGB": "colour space",
    "cICP": "colour space",
}
NAMES |= {"pHYs": "resolution", "tIME": "time", "eXIf": "EXIF", "bKGD": "background", "sBIT": "significant bits"}
NAMES |= dict.fromkeys(("tEXt", "zTXt", "iTXt"), "text")


def is_png(path):
    """Whether a file begins as PNG files do. Raises LabError where there is none, or it cannot be read."""
    with files.reading(path, "A file of pictures") as path, path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def read(path):
    """The picture of a PNG file, uint8 (rows, columns, 3), and what else is in it that is no pixel, in words.

    Raises LabError for one whose levels are not three of 8 bits in each pixel: nothing is converted.
    """
    with files.reading(path, "A PNG file", ADVICE) as path:
        data = path.read_bytes()
        if data[12:16] != b"IHDR" or len(data) < 33:
            raise ValueError("its header is missing")
        columns, rows, bits, colours = struct.unpack(">IIBB", data[16:26])
    (chunks, more), told = _chunks(data), files.shortened(path)
    wrong = "several frames" if "acTL" in chunks else "a colour that is transparent" if "tRNS" in chunks else ""
    wrong = f"{bits} bits a value" if bits != 8 and colours == 2 else WHAT.get(colours, wrong)
    if wrong:
        raise LabError(f"{told} has {wrong}. {ADVICE}")
    if not rows * columns:
        raise LabError(f"{told} has no pixels. {ADVICE}")
    if rows * columns * 3 > file_format.MOST:
        most = f"{file_format.MOST // 3:,} are the most here"
        raise LabError(f"{told} has {columns:,} x {rows:,} pixels; {most}. Cut it into several.")
    with files.reading(path, "A PNG file", "Fetch the file again."):
        picture = np.array(Image.open(io.BytesIO(data), formats=["PNG"]))
    others = (NAMES.get(name, f"chunk {name}") for name in chunks if name not in PIXELS)
    return picture, sorted(set(others)) + ["bytes after its end"] * more


def write(picture, path):
    """Write a picture, uint8 (rows, columns, 3), as a PNG file. Raises LabError where it cannot be written."""
    with files.written_whole(path, "A name for a PNG file") as unfinished:
        Image.fromarray(picture).save(unfinished, "PNG", optimize=True)


def _chunks(data):
    """The names of a PNG's chunks, and whether bytes follow the last."""
    names, place = [], len(SIGNATURE)
    while place + 8 <= len(data) and names[-1:] != ["IEND"]:
        length, name = struct.unpack_from(">I4s", data, place)
        names.append(name.decode("ascii") if name.isalpha() else "of no name")
        place += length + 12  # its length, its name, its checksum
    return names, place < len(data)
