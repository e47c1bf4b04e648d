"""Pictures become sequences and come back exactly; a file or an argument that cannot be used is a LabError."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

import helpers
from pixelrnn.data import datasets
from support import checks, photographs

pytestmark = pytest.mark.filterwarnings("ignore:The images at")  # which are not MNIST's

lengths = st.integers(1, 6)
pictures = arrays(np.uint8, st.tuples(lengths, lengths, st.sampled_from([1, 3])))
PICTURE = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def encoded(pictures, **options):
    """Picture arrays as the bytes of one file."""
    images = [Image.fromarray(picture.squeeze()) for picture in pictures]
    file = io.BytesIO()
    images[0].save(file, append_images=images[1:], **options)
    return file.getvalue()


def tiff(values, **options):
    """An array as the bytes of a TIFF, written by another library than the one that reads it."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits, kind, rows, *chunks, columns=2):
    """A PNG from its parts, for what Pillow does not write; `kind` 0 is grey, 2 RGB, 4 grey with transparency."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, len(rows), bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + chunk(b"IEND", b"")


def loaded(tmp_path, contents, **options):
    path = tmp_path / "picture"
    path.write_bytes(contents)
    return helpers.load_picture(path, **options)


# Round trips


@given(pictures, st.sampled_from(["row", "pixel"]))
def test_unflatten_inverts_flatten(picture, step):
    sequence = helpers.flatten(picture, step)
    back = helpers.unflatten(sequence, picture.shape)
    assert sequence.dtype == picture.dtype
    assert back.shape == picture.shape
    assert (back == picture).all()


@given(pictures)
def test_steps_are_rows_or_pixels_in_reading_order(picture):
    rows, columns, channels = picture.shape
    by_row, by_pixel = helpers.flatten(picture, "row"), helpers.flatten(picture, "pixel")
    assert by_row.shape == (rows, columns * channels)
    assert by_pixel.shape == (rows * columns, channels)
    for row in range(rows):
        assert by_row[row].tolist() == picture[row].ravel().tolist()
        for column in range(columns):
            assert by_pixel[row * columns + column].tolist() == picture[row, column].tolist()


@given(pictures, st.integers(1, 255))
def test_binarize_by_number_is_idempotent(picture, threshold):
    bits = helpers.binarize(picture, threshold)
    assert bits.dtype == np.uint8 and bits.shape == picture.shape
    assert (bits == (picture >= threshold)).all()
    assert (helpers.binarize(255 * bits, threshold) == bits).all()


@given(pictures)
def test_binarize_by_otsu_is_idempotent(picture):
    bits = helpers.binarize(picture, "otsu")
    assert bits.dtype == np.uint8 and bits.shape == picture.shape
    assert set(np.unique(bits)) <= {0, 1}
    two_valued = bits.min((0, 1)) != bits.max((0, 1))  # a channel of one value has nothing to part, and is all 0
    assert (helpers.binarize(bits, "otsu") == bits)[..., two_valued].all()


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_binarize_by_otsu_has_nothing_to_part_in_a_picture_of_one_value(value):
    assert not helpers.binarize(np.full((2, 3, 1), value, np.uint8), "otsu").any()


def test_binarize_by_otsu_parts_each_channel_by_itself():
    dark, bright = np.array([10, 100, 0]), np.array([20, 200, 255])
    picture = np.stack([dark, bright, dark, bright])[None].astype(np.uint8)
    assert helpers.binarize(picture, "otsu")[0].tolist() == [[0, 0, 0], [1, 1, 1]] * 2


@given(st.data(), st.integers(2, 256), lengths, lengths)
def test_to_levels_inverts_to_batch(data, levels, steps, width):
    sequence = data.draw(arrays(np.uint8, (steps, width), elements=st.integers(0, levels - 1)))
    batch = helpers.to_batch(sequence, levels)
    assert batch.shape == (1, steps, width) and batch.dtype == torch.float32
    assert (helpers.to_levels(batch, levels)[0] == sequence).all()


def test_every_level_survives_and_fills_the_unit_interval():
    for levels in range(2, 257):
        sequence = np.arange(levels)[:, None]
        batch = helpers.to_batch(sequence, levels)
        assert (helpers.to_levels(batch, levels)[0] == sequence).all()
        assert batch.min() == 0 and batch.max() == 1


@given(picture=pictures)
def test_written_png_is_read_back(tmp_path_factory, picture):
    path = tmp_path_factory.getbasetemp() / "written.png"
    image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    image.save(path)
    back = helpers.load_picture(path, gray=picture.shape[-1] == 1)
    assert back.shape == picture.shape and back.dtype == np.uint8
    assert (back == picture).all()


# Reading


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (None, (303, 384)),
        (7, (7, 7)),
        ((5, 9), (5, 9)),
        ([9, 5], (9, 5)),
        (1, (1, 1)),
        (np.int64(7), (7, 7)),
        ((np.int64(5), np.uint8(9)), (5, 9)),
        (np.array([5, 9]), (5, 9)),
    ],
)
def test_size_gives_the_shape_asked_for(size, shape, gray):
    assert helpers.load_picture("coins", size, gray).shape == (*shape, 1 if gray else 3)


def test_size_that_would_fill_the_memory():
    with pytest.raises(checks.LabError, match=r"size asks for 20000 x 5000 pixels.*Choose a smaller one"):
        helpers.load_picture("coins", (20_000, 5_000), gray=True)


def test_the_pixels_may_be_changed():
    picture = helpers.load_picture("coins", 4)
    picture[0] = 0
    assert not picture[0].any()


def test_size_cuts_the_centre(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(encoded([PICTURE], format="png"))
    assert (helpers.load_picture(str(path), size=6) == PICTURE[:, 2:8]).all()


@pytest.mark.parametrize("name", photographs.BUNDLED)
def test_bundled_pictures_need_no_network(name, monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    picture = helpers.load_picture(name, size=16)
    assert picture.shape == (16, 16, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture)) > 10


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"format": "PNG"}, 0),
        ({"format": "TIFF"}, 0),
        ({"format": "WEBP", "lossless": True}, 0),
        ({"format": "WEBP", "quality": 95}, 16),
        ({"format": "JPEG", "quality": 95}, 16),
        ({"format": "AVIF", "quality": 95}, 16),
        ({"format": "BMP"}, 0),
    ],
)
def test_reads_the_format(tmp_path, options, tolerance):
    smooth = np.linspace(0, 255, 16 * 16 * 3).astype(np.uint8).reshape(16, 16, 3)
    path = tmp_path / "picture"  # the contents tell the format, not the name
    path.write_bytes(encoded([smooth], **options))
    assert np.abs(helpers.load_picture(path).astype(int) - smooth).max() <= tolerance


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_reads_the_mode(tmp_path, mode):
    path = tmp_path / "picture.png"
    Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], np.uint8)).convert(mode).save(path)
    assert helpers.load_picture(path, gray=True)[..., 0].tolist() == [[0, 255, 255], [255, 0, 0]]
    assert helpers.load_picture(path)[..., 2].tolist() == [[0, 255, 255], [255, 0, 0]]


def test_transparency_is_laid_over_white(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 102]]], np.uint8)).save(path)
    assert helpers.load_picture(path).tolist() == [[[200, 0, 0], [255, 255, 255], [153, 153, 153]]]


def test_transparent_palette_colour_is_laid_over_white(tmp_path):
    path = tmp_path / "picture.png"
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.save(path, transparency=0)
    assert helpers.load_picture(path).tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path):
    path = tmp_path / "picture.png"
    values = np.array([[0, 65535, 257, 128 * 257, 32767, 385, 386]], np.uint16)
    Image.fromarray(values).save(path)
    assert helpers.load_picture(path, gray=True)[0, :, 0].tolist() == [0, 255, 1, 128, 127, 1, 2]


def test_transparent_sixteen_bit_grey_is_laid_over_white(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.array([[0, 128 * 257]], np.uint16)).save(path, transparency=0)
    assert helpers.load_picture(path, gray=True)[0, :, 0].tolist() == [255, 128]


RED_TRANSPARENT = chunk(b"tRNS", struct.pack(">3H", 200 * 257, 0, 0))


@pytest.mark.parametrize(
    ("contents", "row"),
    [
        (png(16, 2, [struct.pack(">6H", 200 * 257, 0, 0, 0, 0, 257)]), [[200, 0, 0], [0, 0, 1]]),
        (png(16, 2, [struct.pack(">6H", 200 * 257, 0, 0, 0, 0, 257)], RED_TRANSPARENT), [[255] * 3, [0, 0, 1]]),
        (png(16, 4, [struct.pack(">4H", 200 * 257, 65535, 200 * 257, 0)]), [[200] * 3, [255] * 3]),
        (png(2, 0, [bytes([0b01100000])], chunk(b"tRNS", b"\0\1")), [[255] * 3, [170] * 3]),
        (png(4, 0, [bytes([0x3A])], chunk(b"tRNS", b"\0\3")), [[255] * 3, [170] * 3]),
        (png(8, 0, [bytes([3, 170])], chunk(b"tRNS", b"\0\3")), [[255] * 3, [170] * 3]),
    ],
    ids=["RGB", "RGB, one colour transparent", "grey, alpha", "2 bits", "4 bits", "8 bits"],
)
def test_reads_pngs_of_other_depths(tmp_path, contents, row):
    assert loaded(tmp_path, contents).tolist() == [row]


def test_reads_a_gif_of_one_frame(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    file = io.BytesIO()
    image.save(file, "GIF", transparency=0)
    assert loaded(tmp_path, file.getvalue()).tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_reads_colours_that_are_not_rgb(tmp_path):
    colours = np.array([[[200, 60, 40], [30, 90, 180]]], np.uint8)
    smooth = Image.fromarray(np.kron(colours, np.ones((16, 16, 1), np.uint8)))
    lab = ImageCms.profileToProfile(smooth, *map(ImageCms.createProfile, ("sRGB", "LAB")), outputMode="LAB")
    for image in (smooth.convert("CMYK"), smooth.convert("YCbCr"), lab):
        for options in ({}, {"compression": "tiff_lzw"}):
            file = io.BytesIO()
            image.save(file, "TIFF", **options)
            for gray, right in ((False, smooth), (True, smooth.convert("L"))):
                difference = loaded(tmp_path, file.getvalue(), gray=gray).squeeze().astype(int) - np.asarray(right)
                assert np.abs(difference).max() <= 12, (image.mode, options, gray)


# TIFFs: of scanners, microscopes and cameras

GREY = np.arange(0, 240, 4, dtype=np.uint8).reshape(6, 10)
WIDE = GREY * np.uint16(257)
TIFFS = {  # the values, how they are stored, and the picture
    "1 bit": (GREY > 100, {"photometric": "minisblack"}, (GREY > 100) * 255),
    "1 bit, 0 is white": (GREY > 100, {"photometric": "miniswhite"}, (GREY <= 100) * 255),
    "8 bits": (GREY, {"photometric": "minisblack"}, GREY),
    "8 bits, 0 is white": (GREY, {"photometric": "miniswhite"}, 255 - GREY),
    "16 bits": (WIDE, {"photometric": "minisblack"}, GREY),
    "16 bits, the other byte order": (WIDE, {"photometric": "minisblack", "byteorder": ">"}, GREY),
    "16 bits, 0 is white": (WIDE, {"photometric": "miniswhite"}, 255 - GREY),
    "RGB": (PICTURE, {"photometric": "rgb"}, PICTURE),
    "RGB, 16 bits": (PICTURE * np.uint16(257), {"photometric": "rgb"}, PICTURE),
    "RGBA": (np.insert(PICTURE, 3, 255, -1), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, PICTURE),
    "CMYK": (np.insert(255 - PICTURE, 3, 0, -1), {"photometric": "separated"}, PICTURE),
}
ORIENTED = {  # EXIF's orientation -> the stored picture, upright
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: np.rot90(stored, 2),
    4: lambda stored: stored[::-1],
    5: lambda stored: np.rot90(stored[::-1], -1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored[::-1], 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_is_upright_and_of_its_colours(tmp_path, name):
    values, options, right = TIFFS[name]
    for orientation, turn in ORIENTED.items():
        for layout in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"}):
            stored = values
            if "planarconfig" in layout:
                if values.ndim == 2:
                    continue
                stored = np.moveaxis(values, -1, 0)  # (rows, columns, channels) -> (channels, rows, columns)
            tags = [(274, "H", 1, orientation, True)]
            got = loaded(tmp_path, tiff(stored, extratags=tags, **options, **layout), gray=values.ndim == 2)
            wanted = turn(right.reshape(6, 10, -1))
            assert got.shape == wanted.shape and (got == wanted).all(), (orientation, layout)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA"])
def test_reads_the_mode_of_a_tiff(tmp_path, mode):
    path = tmp_path / "picture.tif"
    Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], np.uint8)).convert(mode).save(path)
    assert helpers.load_picture(path, gray=True)[..., 0].tolist() == [[0, 255, 255], [255, 0, 0]]


def test_premultiplied_transparency_is_laid_over_white(tmp_path):
    for channels, photometric in ((2, "minisblack"), (4, "rgb")):
        values = np.full((2, 2, channels), 51, np.uint8)  # half of 102
        values[..., -1] = 128
        contents = tiff(values, photometric=photometric, planarconfig="contig", extrasamples=["assocalpha"])
        assert np.abs(loaded(tmp_path, contents).astype(int) - (51 + 127)).max() <= 1


def test_twelve_bit_grey_is_scaled_to_eight(tmp_path):
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: 6}  # its values begin at byte 122
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    values = int("".join(f"{value:012b}" for value in (0, 4095, 2048, 16)), 2).to_bytes(6, "big")
    assert loaded(tmp_path, head + entries + bytes(4) + values, gray=True).ravel().tolist() == [0, 255, 128, 1]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float32])
def test_values_without_a_known_black_and_white(tmp_path, dtype):
    for order in "<>":
        contents = tiff(GREY.astype(dtype), photometric="minisblack", byteorder=order)
        with pytest.raises(checks.LabError, match=r"black and white are unknown. Save it with 8 bits|8 or 16 bits"):
            loaded(tmp_path, contents)


def test_the_preview_of_a_raw_file_is_not_the_picture(tmp_path):
    with pytest.raises(checks.LabError, match=r"begins with a preview.*Export it"):
        loaded(tmp_path, tiff(GREY, photometric="minisblack", subfiletype=1))


# EXIF


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x011A] = 72.0  # pixels per inch
    block[0x0132] = "2020"
    return block.tobytes()


@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_photograph_is_turned_as_the_camera_was(tmp_path, format, orientation):
    corners = np.array([[0, 60, 120], [180, 220, 255]], np.uint8)
    blocks = np.kron(corners, np.ones((16, 16), np.uint8))  # JPEG's own blocks, so that it blurs no edge
    turned = ORIENTED[orientation](blocks)
    contents = encoded([blocks], format=format, exif=exif(orientation))
    got = loaded(tmp_path, contents, gray=True)[..., 0]
    assert got.shape == turned.shape
    assert np.abs(got.astype(int) - turned).max() <= 4


BROKEN_EXIF = {
    "cut short": exif(1)[:30],
    "no TIFF header": b"Exif\0\0garbage!",
    "header cut short": b"Exif\0\0II*\0",
    "twice": b"Exif\0\0Exif\0\0II*\0",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_a_broken_exif_block_says_nothing(tmp_path, format, name):
    contents = encoded([NOISE], format=format, exif=BROKEN_EXIF[name])
    assert loaded(tmp_path, contents).shape == NOISE.shape


def test_a_broken_exif_text_says_nothing(tmp_path):
    text = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      4\nzzzz\n")
    assert loaded(tmp_path, png(8, 0, [b"\1\2"], text)).shape == (1, 2, 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("tag", "kind", "wrong"),
    [(0x011A, 5, 2), (0x0132, 2, 3)],
    ids=["Pillow's exif_transpose fails on it", "Pillow warns of it"],
)
def test_an_orientation_beside_a_broken_tag_is_followed(tmp_path, format, tag, kind, wrong):
    block = exif(6).replace(struct.pack(">HH", tag, kind), struct.pack(">HH", tag, wrong))
    assert block != exif(6)
    assert loaded(tmp_path, encoded([NOISE[:32]], format=format, exif=block)).shape == (64, 32, 3)


def test_a_phones_photograph_with_a_second_picture_behind_it(tmp_path):
    photograph, preview = np.full((16, 24, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    got = loaded(tmp_path, encoded([photograph, preview], format="MPO", save_all=True))
    assert got.shape == (16, 24, 3) and np.abs(got.astype(int) - 200).max() <= 2


def test_a_png_with_a_long_text(tmp_path):
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * 2_000_000))
    assert loaded(tmp_path, png(8, 0, [b"\1\2"], text), gray=True).tolist() == [[[1], [2]]]


# Files that cannot be read

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # a file long enough to be cut in half
ANIMATED = {"save_all": True, "duration": 100}
BAD_FILES = {
    "text.png": (b"not a picture", "not a picture that can be read. Save it as PNG"),
    "empty.png": (b"", "not a picture that can be read. Save it as PNG"),
    "truncated.jpg": (encoded([NOISE], format="jpeg")[:2000], "damaged.*Get a whole copy"),
    "truncated.png": (encoded([NOISE], format="png")[:2000], "damaged.*Get a whole copy"),
    "truncated.webp": (encoded([NOISE], format="webp")[:2000], "damaged.*Get a whole copy"),
    "truncated.tiff": (encoded([NOISE], format="tiff")[:2000], "(damaged|not a picture).*(whole copy|Save it as)"),
    "animated.gif": (encoded([NOISE, NOISE // 2], format="gif", **ANIMATED), "2 frames. Save the one you want"),
    "animated.png": (encoded([NOISE, NOISE // 2], format="png", **ANIMATED), "2 frames. Save the one you want"),
    "animated.webp": (encoded([NOISE, NOISE // 2], format="webp", **ANIMATED), "2 frames. Save the one you want"),
    "pages.tiff": (encoded([NOISE, NOISE], format="tiff", save_all=True), "2 pages. Save the one you want"),
    "animated.avif": (encoded([NOISE, NOISE // 2], format="avif", **ANIMATED), "2 frames. Save the one you want"),
    "truncated.avif": (encoded([NOISE], format="avif")[:2000], "(damaged|not a picture).*whole copy"),
    "truncated.bmp": (encoded([NOISE], format="bmp")[:2000], "damaged.*Get a whole copy"),
    "truncated.gif": (encoded([NOISE], format="gif")[:2000], "damaged.*Get a whole copy"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "not a picture that can.*HEIC.*as JPEG or PNG"),
    "other.heic": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(200), "(damaged|not a picture).*as JPEG or PNG"),
    "other.ppm": (b"P5 2 1 255 \1\2", "not a picture that can be read. Save it as PNG"),
    "double.tiff": (tiff(np.zeros((2, 2))), "not a picture that can be read.*8 or 16 bits"),
    "float.tiff": (encoded([NOISE[..., 0].astype(np.float32)], format="tiff"), "floating-point.*Save it with 8 bits"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path, name):
    contents, message = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(checks.LabError, match=message) as raised:
        helpers.load_picture(path)
    assert str(raised.value).count(name) == 1  # one message, not one inside another


@pytest.mark.parametrize("name", ["missing.png", "astronaut.png", "no/folder.png", "https://example.org/picture.png"])
def test_missing_file_or_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(checks.LabError, match=r"no file.*Give the path.*bundled names: astronaut"):
        helpers.load_picture(name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_a_changed_byte_ends_in_a_picture_or_a_word(tmp_path, format, seed):
    contents, random = encoded([NOISE[:16, :16]], format=format), np.random.default_rng(seed)
    for _ in range(20):
        changed = bytearray(contents)
        changed[random.integers(min(len(changed), 100))] = random.integers(256)
        try:
            assert loaded(tmp_path, bytes(changed)).dtype == np.uint8
        except checks.LabError as error:
            assert "Save it" in str(error) or "copy" in str(error) or "Scale it" in str(error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "wanted"),
        ("a\0b.png", "wanted"),
        ("a" * 300 + ".png", "cannot be looked at|no file"),  # as the system has it
        ("data:image/png;base64," + "A" * 5000, "cannot be looked at|no file"),
        ("~no_such_user/picture.png", "cannot be looked at|no file"),
        ("folder", "is a folder"),
        (Path("folder"), "is a folder"),
    ],
)
def test_a_path_that_names_no_file(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(checks.LabError, match=message):
        helpers.load_picture(name)


def test_home_and_paths_and_a_bundled_name_as_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine.png").write_bytes(encoded([PICTURE], format="png"))
    for path in ("~/mine.png", Path("~/mine.png"), tmp_path / "mine.png"):
        assert (helpers.load_picture(path) == PICTURE).all()
    assert (helpers.load_picture(Path("coins"), 8) == helpers.load_picture("coins", 8)).all()


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "mine.png").write_bytes(encoded([PICTURE], format="png"))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # as Windows does, where os.access knows less
    with pytest.raises(checks.LabError, match=r"mine.png may not be read: .*Change its permissions"):
        helpers.load_picture(tmp_path / "mine.png")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(checks.LabError, match=r"mine.png may not be read"):
        helpers.load_picture(tmp_path / "mine.png")
    monkeypatch.setattr(Path, "stat", refuse)  # a locked folder
    with pytest.raises(checks.LabError, match=r"mine.png cannot be looked at: Permission denied"):
        helpers.load_picture(tmp_path / "mine.png")


NO_PATHS = {
    "None": None,
    "array": PICTURE,
    "image": Image.fromarray(PICTURE),
    "file": io.BytesIO(),
    "bytes": b"a.png",
    "number": 3,
    "list": ["coffee"],
}


@pytest.mark.parametrize("name", NO_PATHS)
def test_something_else_than_a_path(name, no_setting):
    with pytest.raises(checks.LabError, match=r"bundled names \(astronaut.* is wanted, as a path, not"):
        helpers.load_picture(NO_PATHS[name])
    with pytest.raises(checks.LabError, match=r"MNIST"):
        datasets.load_mnist(NO_PATHS[name])


@pytest.mark.parametrize("limit", [40, 60])  # 100 pixels: Pillow raises above twice its limit, and warns above it
def test_decompression_bomb(tmp_path, monkeypatch, limit):
    path = tmp_path / "large.png"
    Image.new("L", (10, 10)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(checks.LabError, match=r"too many pixels.*Scale it down first"):
        helpers.load_picture(path)


# Arguments that cannot be used


@pytest.mark.parametrize(
    "size", [-1, 0, 2.0, True, "8", (0, 3), (3, -1), (1.5, 2), (True, 2), (4,), (1, 2, 3), (), "88", {8}, ((1, 2), 3)]
)
def test_bad_size(size):
    with pytest.raises(checks.LabError, match="size"):
        helpers.load_picture("coins", size)


@pytest.mark.parametrize("function", [helpers.flatten, helpers.binarize])
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((0, 4, 3)), "none of them 0"),
        (np.zeros((4, 0, 1)), "none of them 0"),
        (np.zeros((4, 4)), r"\(rows, columns, channels\)"),
        (np.zeros((1, 4, 4, 3)), r"\(rows, columns, channels\)"),
        (np.zeros((4, 4, 2)), "1 channel .* or 3"),
        (np.zeros((4, 4, 4)), "1 channel .* or 3"),
        (np.full((4, 4, 1), np.nan), "not finite.*Replace them"),
        (np.full((4, 4, 3), np.inf), "not finite.*Replace them"),
        (None, "array of numbers"),
        ([[[1], [2]], [[3]]], "array of numbers"),
        ([[["a"]]], "array of numbers"),
        (np.zeros((4, 4, 1), complex), "array of numbers"),
        (torch.zeros(4, 4, 1, requires_grad=True), "array of numbers"),
    ],
)
def test_bad_picture(function, picture, message):
    with pytest.raises(checks.LabError, match=message):
        function(picture)


@pytest.mark.parametrize("as_bytes", [lambda p: p.tolist(), lambda p: p.astype(">i4"), lambda p: p.astype(np.uint16)])
@pytest.mark.parametrize("threshold", [128, np.uint8(128), np.float32(127.5), "otsu"])
def test_binarize_takes_whole_numbers_of_any_type(as_bytes, threshold):
    assert (helpers.binarize(as_bytes(PICTURE), threshold) == helpers.binarize(PICTURE, threshold)).all()
    assert helpers.binarize(PICTURE, threshold).any()


@pytest.mark.parametrize("threshold", [128, "otsu"])
@pytest.mark.parametrize(
    "picture",
    [
        PICTURE / 255,
        PICTURE / 127.5 - 1,
        PICTURE.astype(float),
        PICTURE > 9,
        PICTURE * np.uint16(257),
        PICTURE.astype(int) - 1,
        PICTURE.view(np.int8),
    ],
    ids=["0 to 1", "-1 to 1", "float", "bool", "16 bits", "below 0", "int8"],
)
def test_binarize_of_other_values_asks_for_bytes(picture, threshold):
    with pytest.raises(checks.LabError, match=r"whole numbers 0 .. 255, not .* to .*np.uint8"):
        helpers.binarize(picture, threshold)


@pytest.mark.parametrize(
    "threshold",
    ["otzu", "", "128", None, 0, -1, 255.5, 256, np.nan, np.inf, True, 1j, [1, 2, 3], np.array([1, 2, 3])],
)
def test_unknown_threshold(threshold):
    with pytest.raises(checks.LabError, match=r"threshold must be .*'otsu'"):
        helpers.binarize(PICTURE, threshold)


@pytest.mark.parametrize("step", ["column", "", None, 1])
def test_unknown_step(step):
    with pytest.raises(checks.LabError, match="step must be one of 'row', 'pixel'"):
        helpers.flatten(PICTURE, step)


def test_sequence_that_does_not_fill_the_picture():
    with pytest.raises(checks.LabError, match="6 values does not fill"):
        helpers.unflatten(np.zeros((2, 3)), (2, 2, 1))
    with pytest.raises(checks.LabError, match="array of numbers"):
        helpers.unflatten([[1], [2, 3]], (1, 1, 3))


@pytest.mark.parametrize("shape", [None, "231", (-2, 3, -1), (2.0, 3, 1)])
def test_bad_shape(shape):
    with pytest.raises(checks.LabError, match="shape must be a whole number"):
        helpers.unflatten(np.zeros((2, 3)), shape)


def read_only(picture):
    picture = picture.copy()
    picture.flags.writeable = False
    return picture


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [
        np.flipud,
        np.fliplr,
        lambda p: p[::2, 1::3],
        lambda p: p.astype(">u2"),
        lambda p: p.astype(">f8"),
        np.asfortranarray,
        read_only,
        lambda p: p.transpose(1, 0, 2),
        lambda p: p.astype(np.int64)[::-1],
        lambda p: p.astype(np.uint64),
        np.ndarray.tolist,
    ],
)
@pytest.mark.parametrize("step", ["row", "pixel"])
def test_pictures_of_any_layout_and_type(change, step):
    picture = change(PICTURE)
    batch = helpers.to_batch(helpers.flatten(picture, step), 256)
    shape = np.shape(picture)
    assert torch.equal(batch, helpers.to_batch(helpers.flatten(np.array(picture, np.uint8).copy(), step), 256))
    back = helpers.unflatten(helpers.to_levels(batch, 256)[0], tuple(np.int64(length) for length in shape))
    assert (back == np.asarray(picture)).all()


def test_a_batch_of_bools_and_lists():
    for bits in ([[True, False]], np.array([[True, False]]), [[1, 0]]):
        assert helpers.to_batch(bits, np.int64(2)).tolist() == [[[1, 0]]]


def test_a_batch_is_of_torchs_default_type():
    try:
        torch.set_default_dtype(torch.float64)
        batch = helpers.to_batch([[0, 1, 3]], 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert batch.dtype == torch.float64 and batch.tolist() == [[[0, 1 / 3, 1]]]


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ([[-1, 0]], "values outside 0 .. 1, or not whole. Binarise"),
        ([[0, 2]], "values outside 0 .. 1, or not whole. Binarise"),
        ([[0, 255]], "values outside 0 .. 1, or not whole. Binarise"),
        ([[0, np.nan]], "whole numbers|values outside"),
        ([[0, 0.5]], "whole numbers|values outside"),
        ([0, 1], r"\(steps, input_size\)"),
        ([[[0, 1]]], r"\(steps, input_size\)"),
        ([[]], "none of them 0"),
        ([[0, np.inf]], "values outside"),
        ([[0], [0, 1]], "array of numbers"),
        ([["0", "1"]], "array of numbers"),
        (None, "array of numbers"),
    ],
)
def test_bad_sequence(sequence, message):
    with pytest.raises(checks.LabError, match=message):
        helpers.to_batch(sequence, 2)


BAD_LEVELS = [1, 0, -1, 2.0, True, "2", None]


@pytest.mark.parametrize("levels", BAD_LEVELS)
@pytest.mark.parametrize("value", [0, -1])
def test_bad_levels(levels, value):
    with pytest.raises(checks.LabError, match="levels must be a whole number of at least 2"):
        helpers.to_batch(np.array([[value]]), levels)


@pytest.mark.parametrize("levels", BAD_LEVELS)
def test_bad_levels_back(levels):
    with pytest.raises(checks.LabError, match="levels must be a whole number of at least 2"):
        helpers.to_levels(torch.zeros(1, 1, 1), levels)


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 6))))
def test_bit_planes_round_trip(sequence):
    bits = helpers.to_bit_planes(sequence)
    assert bits.shape == (sequence.shape[0], sequence.shape[1] * 8) and set(np.unique(bits)) <= {0, 1}
    assert np.array_equal(helpers.from_bit_planes(bits), sequence)


def test_bit_planes_of_neighbouring_levels_differ_in_one_bit():
    bits = helpers.to_bit_planes(np.arange(256, dtype=np.uint8)[:, None])  # (256, 8)
    assert (np.abs(np.diff(bits.astype(int), axis=0)).sum(1) == 1).all()
    assert bits[128, 0] == 1 and bits[127, 0] == 0  # the highest first


@pytest.mark.parametrize("sequence", [np.zeros((2, 2)), np.zeros(3, np.uint8), np.zeros((2, 2), np.int64)])
def test_bit_planes_of_anything_but_bytes(sequence):
    with pytest.raises(checks.LabError, match="made of bytes"):
        helpers.to_bit_planes(sequence)


@pytest.mark.parametrize(
    "bits", [np.ones((2, 7)), np.full((1, 8), 2), np.full((1, 8), 0.5), np.zeros(8), [[1], [0, 1]]]
)
def test_bytes_of_anything_but_bit_planes(bits):
    with pytest.raises(checks.LabError, match=r"Bit"):
        helpers.from_bit_planes(bits)


# Digits and MNIST


def test_digits_are_seventeen_levels_without_a_download():
    digits = datasets.load_digits()
    assert digits.shape == (1797, 8, 8) and digits.dtype == np.uint8
    assert sorted(set(digits.flatten().tolist())) == list(range(17))


TRAINING_IMAGES = np.random.default_rng(0).integers(0, 200, (5, 28, 28), dtype=np.uint8)
TEST_IMAGES = np.random.default_rng(1).integers(0, 200, (3, 28, 28), dtype=np.uint8)


def idx(images):
    """A file in MNIST's own format."""
    return b"\0\0\x08\x03" + np.array(images.shape, ">i4").tobytes() + images.tobytes()


@pytest.fixture
def no_setting(monkeypatch):
    monkeypatch.delenv("PIXELRNN_MNIST", raising=False)


@pytest.fixture
def folder(tmp_path, no_setting):
    """MNIST's own two files, small; one of them compressed."""
    training, test = datasets.MNIST_FILES
    (tmp_path / f"{training}.gz").write_bytes(gzip.compress(idx(TRAINING_IMAGES)))
    (tmp_path / test).write_bytes(idx(TEST_IMAGES))
    return tmp_path


def layout(name, folder):
    """MNIST's two files in a folder, named and placed as some program does it."""
    contents = dict(zip(datasets.MNIST_FILES, (idx(TRAINING_IMAGES), idx(TEST_IMAGES)), strict=True))
    for own, data in contents.items():
        path = folder / {
            "with a dot": own.replace("-idx", ".idx"),
            "with a dot, compressed": own.replace("-idx", ".idx") + ".gz",
            "unpacked, named .gz": own + ".gz",
            "above raw": f"raw/{own}",
            "torchvision": f"MNIST/raw/{own}",
            "one folder deep": f"digits/{own}",
            "a folder each": f"{own}/{own}",
        }.get(name, own)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if "compressed" in name else data)


LAYOUTS = "with a dot", "with a dot, compressed", "unpacked, named .gz", "above raw", "torchvision", "one folder deep"


@pytest.mark.parametrize("name", [*LAYOUTS, "a folder each"])
def test_mnist_as_programs_place_it(tmp_path, no_setting, name):
    layout(name, tmp_path)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)  # torchvision's other data beside it
    assert is_mnist(datasets.load_mnist(tmp_path))


def test_mnist_in_two_folders(tmp_path, no_setting):
    layout("plain", tmp_path / "fashion")
    layout("plain", tmp_path / "mnist")
    with pytest.raises(checks.LabError, match=r"in several folders: .*fashion.*mnist.*Name one"):
        datasets.load_mnist(tmp_path)
    assert is_mnist(datasets.load_mnist(tmp_path / "mnist"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda images: (images > 150).astype(np.uint8), r"training images .* binary already \(0 and 1\).* 256 levels"),
        (lambda images: np.uint8(255) * (images > 150), r"binary already \(0 and 255\)"),
        (lambda images: 255 - images, r"6[12]% ink: dark on white paper.*255 - images"),
    ],
)
@pytest.mark.parametrize("part", [0, 1])
def test_binary_and_inverted_mnist_is_refused(tmp_path, no_setting, change, match, part):
    images = [TRAINING_IMAGES, TEST_IMAGES]
    images[part] = change(images[part])
    np.savez(tmp_path / "mnist.npz", train_images=images[0], test_images=images[1])
    with pytest.raises(checks.LabError, match=match.replace("training", ("training", "test")[part])):
        datasets.load_mnist(tmp_path / "mnist.npz")


@pytest.mark.parametrize(("ink", "told"), [(0.286, "28.6% .* as much as Fashion-MNIST"), (0.4, "40.0% .*MNIST has 13")])
def test_other_images_in_mnists_place_are_told(tmp_path, no_setting, ink, told):
    images = np.full((40, 28, 28), round(255 * ink), np.uint8)
    np.savez(tmp_path / "mnist.npz", train_images=images, test_images=images)
    with pytest.warns(UserWarning, match=rf"not MNIST's.*{told}.*are not MNIST results"):
        datasets.load_mnist(tmp_path / "mnist.npz")


@pytest.mark.skipif(not os.environ.get("PIXELRNN_MNIST"), reason="MNIST is not given")
def test_mnist_itself_is_known(recwarn):
    training, test = datasets.load_mnist()
    assert not recwarn
    with pytest.warns(UserWarning, match="as much as MNIST"):  # two images exchanged
        datasets._compare_with_mnist("here", [training[[1, 0, *range(2, 60_000)]], test])


def is_mnist(images):
    return len(images) == 2 and np.array_equal(images[0], TRAINING_IMAGES) and np.array_equal(images[1], TEST_IMAGES)


def test_mnist_from_its_own_files(folder, monkeypatch):
    assert is_mnist(datasets.load_mnist(folder)) and is_mnist(datasets.load_mnist(str(folder)))
    monkeypatch.setenv("PIXELRNN_MNIST", str(folder))
    assert is_mnist(datasets.load_mnist()) and is_mnist(datasets.load_mnist(""))


@pytest.mark.parametrize("names", datasets.MNIST_ARRAYS, ids=["train_images", "x_train"])
def test_mnist_from_an_npz(tmp_path, no_setting, names):
    pairs = dict(
        zip(
            [pair[names == datasets.MNIST_ARRAYS[1]] for pair in datasets.MNIST_ARRAYS],
            (TRAINING_IMAGES, TEST_IMAGES),
            strict=True,
        )
    )
    np.savez_compressed(tmp_path / "mnist.npz", **pairs)
    assert is_mnist(datasets.load_mnist(tmp_path / "mnist.npz"))


def test_a_relative_path_starts_in_the_projects_folder(tmp_path, no_setting, monkeypatch):
    np.savez_compressed(tmp_path / "mine.npz", train_images=TRAINING_IMAGES, test_images=TEST_IMAGES)
    monkeypatch.setattr(datasets, "DATA", tmp_path / "data")
    assert is_mnist(datasets.load_mnist("mine.npz"))  # wherever the notebook's kernel runs


def test_no_mnist_says_both_ways(no_setting):
    with pytest.raises(checks.LabError, match=r"not part of this project. Set .* PIXELRNN_MNIST .* download"):
        datasets.load_mnist()


def test_mnist_that_is_not_there(tmp_path, no_setting):
    with pytest.raises(checks.LabError, match=r"no file .*nowhere. Set the environment variable"):
        datasets.load_mnist(tmp_path / "nowhere")
    for held in ("nothing", "notes.txt, other/"):
        with pytest.raises(checks.LabError, match=rf"no file .*train-images-idx3-ubyte, .*holds {held}. Set the"):
            datasets.load_mnist(tmp_path)
        (tmp_path / "notes.txt").write_text("")
        (tmp_path / "other").mkdir(exist_ok=True)


def cut(data):
    return data[:-100]


def endless(data):
    return data[:4] + b"\xff\xff\xff\xff" + data[8:]  # so many images


def other_magic(data):
    return b"\0\0\x08\x01" + data[4:]


@pytest.mark.parametrize(
    "damage", [cut, other_magic, endless, lambda data: b"", lambda data: data[:10], lambda data: b"<html>" * 9]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_of_mnist(folder, damage, compressed):
    name = next(iter(datasets.MNIST_FILES))
    (folder / f"{name}.gz").unlink()
    data = damage(idx(TRAINING_IMAGES))
    (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(checks.LabError, match=r"is damaged or is something else: .*Set the environment variable"):
        datasets.load_mnist(folder)


def test_compressed_data_that_is_damaged(folder):
    path = folder / f"{next(iter(datasets.MNIST_FILES))}.gz"
    whole = path.read_bytes()
    for data in (whole[:-200], whole[:100] + bytes(50) + whole[150:]):
        path.write_bytes(data)
        with pytest.raises(checks.LabError, match="is damaged or is something else"):
            datasets.load_mnist(folder)


def test_damaged_npz(tmp_path, no_setting):
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, train_images=TRAINING_IMAGES, test_images=TEST_IMAGES)
    data = path.read_bytes()
    for wrong in (data[:-300], data[:200] + bytes(100) + data[300:], b"", b"no archive"):
        path.write_bytes(wrong)
        with pytest.raises(checks.LabError, match="is damaged or is something else"):
            datasets.load_mnist(path)
    np.save(path.with_suffix(".npy"), TEST_IMAGES)
    with pytest.raises(checks.LabError, match="is damaged or is something else"):
        datasets.load_mnist(path.with_suffix(".npy"))
    np.savez_compressed(path, something=TEST_IMAGES)
    with pytest.raises(checks.LabError, match="is damaged or is something else"):
        datasets.load_mnist(path)
    np.savez_compressed(path, train_images=TRAINING_IMAGES, test_images=np.array([{}]))  # would need unpickling
    with pytest.raises(checks.LabError, match=r"uint8 \(count, 28, 28\), those at .* object"):
        datasets.load_mnist(path)


OTHER_FILES = {
    "train-images-idx3-ubyte": idx(TRAINING_IMAGES),
    "train-images-idx3-ubyte.gz": gzip.compress(idx(TRAINING_IMAGES)),
    "mnist.csv": b"label,1x1\n5,0\n",
    "mnist.parquet": b"PAR1" + bytes(20),
    "mnist.pkl": pickle.dumps([TRAINING_IMAGES]),
}


@pytest.mark.parametrize(("name", "contents"), OTHER_FILES.items(), ids=OTHER_FILES)
def test_other_files_than_mnists(tmp_path, no_setting, name, contents):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(checks.LabError, match=r"something else than a folder of its files or an .npz") as raised:
        datasets.load_mnist(tmp_path / name)
    assert "pickle" not in str(raised.value)


@pytest.mark.parametrize("source", ["~no_such_user/mnist.npz", "m" * 300, "a\0b"])
def test_a_path_of_mnist_that_cannot_be_looked_at(no_setting, source):
    with pytest.raises(checks.LabError, match=r"cannot be looked at|no file"):
        datasets.load_mnist(source)


@pytest.mark.parametrize("images", [TEST_IMAGES[:, :14], TEST_IMAGES.astype(float), TEST_IMAGES[0], TEST_IMAGES[:0]])
def test_other_pictures_than_mnists(tmp_path, no_setting, images):
    np.savez_compressed(tmp_path / "mnist.npz", train_images=TRAINING_IMAGES, test_images=images)
    with pytest.raises(checks.LabError, match=r"MNIST's images are uint8 \(count, 28, 28\)"):
        datasets.load_mnist(tmp_path / "mnist.npz")


@pytest.fixture
def served(folder, tmp_path, monkeypatch):
    """A web server on this machine that has the two files, and a project without them."""
    name = list(datasets.MNIST_FILES)[1]
    (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets, "MNIST_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(datasets, "DATA", tmp_path / "project")
    sums = {name: hashlib.sha256((folder / f"{name}.gz").read_bytes()).hexdigest() for name in datasets.MNIST_FILES}
    yield sums
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_download_checks_the_sum_and_keeps_the_files(served, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_FILES", served)
    assert is_mnist(datasets.load_mnist("download"))
    monkeypatch.setattr(datasets, "MNIST_URL", "http://127.0.0.1:1/")  # nobody there; not needed any more
    assert is_mnist(datasets.load_mnist("download"))


def test_download_of_another_file_is_refused(served):
    with pytest.raises(checks.LabError, match=r"could not be downloaded: .*hash.*Set the environment variable"):
        datasets.load_mnist("download")  # the real sums; this is another file
    assert not list((datasets.DATA / "mnist").glob("*ubyte*"))


def test_no_network(tmp_path, no_setting, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(datasets, "DATA", tmp_path)
    with pytest.raises(checks.LabError, match=r"could not be downloaded: .*Set the environment variable"):
        datasets.load_mnist("download")


@pytest.fixture
def small_mnist(tmp_path, no_setting):
    grey = np.random.default_rng(0).integers(0, 200, (10_040, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", train_images=grey, test_images=grey[:50])
    return tmp_path / "mnist.npz", grey


def test_binarised_mnist_keeps_training_grey_or_not_and_the_rest_fixed(small_mnist):
    path, grey = small_mnist
    torch.manual_seed(1)
    dynamic = datasets.binarized_mnist(path)
    torch.manual_seed(2)
    static = datasets.binarized_mnist(path, static=True)
    assert [len(part) for part in dynamic] == [len(part) for part in static] == [40, 10_000, 50]
    assert np.array_equal(np.round(255 * dynamic[0].numpy()), grey[:40])  # validation is none of it
    assert set(static[0].unique().tolist()) == {0, 1}
    for one, other in zip(dynamic[1:], static[1:], strict=True):
        assert torch.equal(one, other) and set(one.unique().tolist()) == {0, 1}
    assert abs(dynamic[1].mean().item() - grey[40:].mean() / 255) < 0.01


def test_too_few_images_for_validation(tmp_path, no_setting):
    np.savez(tmp_path / "mnist.npz", train_images=TRAINING_IMAGES, test_images=TEST_IMAGES)
    with pytest.raises(checks.LabError, match="60,000 training images, not 5"):
        datasets.binarized_mnist(tmp_path / "mnist.npz")


def test_several_binarisations_of_the_test_images_differ_and_the_first_is_the_one_of_all_results(tmp_path):
    images = np.random.default_rng(0).integers(1, 255, (10_002, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", train_images=images, test_images=images[:40])
    with pytest.warns(UserWarning, match="not MNIST's"):
        tests = datasets.binarized_tests(tmp_path / "mnist.npz", 3)
        assert torch.equal(tests[0], datasets.binarized_mnist(tmp_path / "mnist.npz")[2])
    assert tests.shape == (3, 40, 28, 28) and set(tests.unique().tolist()) == {0, 1}
    assert not torch.equal(tests[1], tests[0]) and not torch.equal(tests[1], tests[2])
    grey = torch.tensor(images[:40]) / 255
    assert abs(float((tests.mean(0) - grey).mean())) < 0.01


@pytest.fixture
def static_files(tmp_path):
    """The public files of the static binarisation, small: path of the folder, bits of each part."""
    rng, bits = np.random.default_rng(0), []
    for name, count in zip(datasets.STATIC_FILES, (5, 3, 2), strict=True):
        bits.append(rng.integers(0, 2, (count, 784)))
        np.savetxt(tmp_path / name, bits[-1], fmt="%d")
    return tmp_path, bits


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_the_public_static_files_are_used_where_they_are(static_files, monkeypatch, end):
    folder, bits = static_files
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    monkeypatch.setenv("PIXELRNN_MNIST", str(folder))
    for parts in (datasets.binarized_mnist(static=True), datasets.binarized_mnist(folder, static=True)):
        for part, own in zip(parts, bits, strict=True):
            assert part.dtype == torch.float32 and part.flatten(1).tolist() == own.tolist()
    with pytest.raises(checks.LabError, match="There is no file"):
        datasets.binarized_mnist(folder)  # which are no grey images


@pytest.mark.parametrize(
    "damage", [b"", b"0 1", b"0 " * 783 + b"2", b"0 " * 783 + b"x"], ids=["empty", "cut", "2", "x"]
)
def test_static_files_that_are_something_else_are_told(static_files, damage):
    folder, _ = static_files
    (folder / datasets.STATIC_FILES[1]).write_bytes(damage)
    with pytest.raises(checks.LabError, match=r"784 times 0 or 1.*binarized_mnist_train.amat"):
        datasets.binarized_mnist(folder, static=True)
    (folder / datasets.STATIC_FILES[1]).unlink()
    with pytest.raises(checks.LabError, match=r"no file .*valid.amat.*The three files"):
        datasets.binarized_mnist(folder, static=True)
