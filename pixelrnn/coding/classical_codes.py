"""Codes for pictures and bytes that know nothing of letters and digits: what note 9 measures its own against.

Each gets its best chance: its strongest setting, bits in their tightest form, every picture in a file of its own, and
all pictures together in one, where a code can copy from one picture to the next.
"""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess

import imagecodecs
import numpy as np
from PIL import Image

WIDTHS = (1, 16, 44, 100)  # pictures side by side in a mosaic; of these the shortest file counts


def _pillow(bits, **settings):
    def encode(picture):
        file = io.BytesIO()
        Image.fromarray(picture * 255).convert("1" if bits == 1 else "L").save(file, **settings)
        return file.getvalue()

    return encode


def _jpeg_xl(picture):
    return imagecodecs.jpegxl_encode(picture, lossless=True, effort=9, bitspersample=1)


def _jbig(picture):
    rows, columns = picture.shape
    portable = b"P4\n%d %d\n" % (columns, rows) + np.packbits(picture, axis=1).tobytes()
    return subprocess.run(["pbmtojbg", "-q"], input=portable, capture_output=True, check=True).stdout


def _xz(data):
    strongest = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
    strongest["dict_size"] = max(2**12, len(data))  # else 64 MB are cleared for each picture
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=[strongest])


# A binary picture, uint8 (rows, columns), -> the bytes of a file.
OF_PICTURES = {
    "PNG": _pillow(1, format="PNG", optimize=True),
    "WebP": _pillow(8, format="WEBP", lossless=True, quality=100, method=6),
    "TIFF G4": _pillow(1, format="TIFF", compression="group4"),
    "JPEG XL": _jpeg_xl,
}
if shutil.which("pbmtojbg"):  # of Debian's jbigkit-bin
    OF_PICTURES["JBIG1"] = _jbig


def _colour(**settings):
    def encode(picture):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, **settings)
        return file.getvalue()

    return encode


# A picture of 256 levels, uint8 (rows, columns, 3), -> the bytes of a file.
OF_COLOUR = {
    "PNG": _colour(format="PNG", optimize=True),
    "WebP": _colour(format="WEBP", lossless=True, quality=100, method=6),
    "JPEG XL": lambda picture: imagecodecs.jpegxl_encode(picture, lossless=True, effort=9),
}
# Bytes -> bytes.
OF_BYTES = {"gzip": lambda data: gzip.compress(data, 9, mtime=0), "bz2": bz2.compress, "xz": _xz}
NAMES = ("PNG", "WebP", "TIFF G4", "JPEG XL", "JBIG1", "gzip", "bz2", "xz")


def mosaic(pictures, width):
    """Pictures (count, rows, columns) as one, `width` side by side; the places left over at the end stay 0."""
    count, rows, columns = pictures.shape
    down = -(-count // width)
    grid = np.zeros((down * width, rows, columns), np.uint8)
    grid[:count] = pictures
    return grid.reshape(down, width, rows, columns).swapaxes(1, 2).reshape(down * rows, width * columns)


def encode(name, picture):
    """One picture, uint8 0 and 1, (rows, columns), as the bytes of a file."""
    if name in OF_BYTES:
        return OF_BYTES[name](np.packbits(picture).tobytes())
    return OF_PICTURES[name](np.ascontiguousarray(picture))


def each(name, pictures):
    """Mean bits of a picture, each in a file of its own."""
    return 8 * sum(len(encode(name, picture)) for picture in pictures) / len(pictures)


def together(name, pictures, widths=WIDTHS):
    """Bits of a picture, all in one file, and how many stood side by side in it: of these widths, the best one."""
    sizes = {}
    for width in widths:
        picture = mosaic(pictures, width)
        if name != "WebP" or max(picture.shape) < 2**14:  # which is as large as it can be
            sizes[width] = 8 * len(encode(name, picture)) / len(pictures)
    best = min(sizes, key=sizes.get)
    return sizes[best], best
