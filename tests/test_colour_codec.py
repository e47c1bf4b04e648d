"""Compression of colour pictures: what goes in comes out, on every machine, in the bits that the network promises."""

import hashlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pixelrnn.coding import codec, colour_codec, command_line, file_format, fixed_point, png
from pixelrnn.data import icons, photos
from pixelrnn.models import colour, photo, saving, weights
from support import checks

ROOT = Path(__file__).parent.parent


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


MODELS = {f"icons, {head}": lambda head=head: colour.ColourPixelCNN(head, 8, reach=2, size=5) for head in colour.HEADS}
MODELS |= {f"photographs, {head}": lambda head=head: photo.PhotoPixelCNN(head, 8) for head in photo.HEADS}
MODELS["independent channels"] = lambda: colour.ColourPixelCNN(features=8, reach=2, size=5, in_order=False)
MODELS["photographs, independent"] = lambda: photo.PhotoPixelCNN(features=8, in_order=False)
every_model = pytest.mark.parametrize("name", MODELS)


def pictures_of(count=3, rows=5, columns=5):
    """Some flat, some with few levels and both ends, some noise: uint8 (count, rows, columns, 3)."""
    random = np.random.default_rng(0)
    found = random.integers(0, 256, (count, rows, columns, 3))
    found[::3] = 255
    found[1::3] = found[1::3] // 200 * 255
    return found.astype(np.uint8)


# What goes in comes out


@every_model
def test_what_goes_in_comes_out(name):
    model = seeded(MODELS[name])
    for pictures in (pictures_of(), pictures_of(0)):
        found = colour_codec.decompress(colour_codec.compress(pictures, model), model)
        assert np.array_equal(found, pictures) and found.dtype == np.uint8


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_size_any_count_and_any_number_of_blocks(data):
    count, rows, columns, together = (data.draw(st.integers(1, most)) for most in (4, 9, 9, 12))
    levels = data.draw(st.integers(1, 255))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    pictures = (random.integers(0, 2, (count, rows, columns, 3)) * levels).astype(np.uint8)
    model = seeded(MODELS["photographs, logistics"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colour_codec, "TOGETHER", together)
        assert np.array_equal(colour_codec.decompress(colour_codec.compress(pictures, model), model), pictures)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("head", photo.HEADS)
def test_pictures_narrower_than_what_a_pixel_sees(head, columns):
    """Then there are times at which no pixel is coded."""
    model, pictures = seeded(MODELS[f"photographs, {head}"]), np.full((2, 9, columns, 3), 7, np.uint8)
    pictures[1] = pictures_of(2, 9, columns)[1]
    assert np.array_equal(colour_codec.decompress(colour_codec.compress(pictures, model), model), pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colour_codec, "_bits", lambda model, pictures: torch.zeros(len(pictures)))  # none plainly
        assert np.array_equal(colour_codec.decompress(colour_codec.compress(pictures, model), model), pictures)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_network_of_another_precision(dtype):
    model, pictures = seeded(MODELS["photographs, logistics"]).to(dtype), pictures_of()
    assert np.array_equal(colour_codec.decompress(colour_codec.compress(pictures, model), model), pictures)


@pytest.mark.parametrize("name", ["icons", "photographs"])
def test_a_file_is_as_long_as_the_network_says(name):
    """Exact arithmetic, the coder and its end included: 0.2% and a word of 32 bits."""
    model, _ = weights.load(name)
    pictures = icons.load_icons().test[:12] if name == "icons" else photos.patches(photos.photograph("coffee"))[:12:4]
    data = colour_codec.compress(pictures, model)
    spent = 8 * (len(data) - file_format.read_header(data)[1] - file_format.BLOCK.size)
    bits = model.bits if name == "icons" else model.bits_of
    with torch.no_grad():
        promised = float(bits(torch.from_numpy(pictures)).sum())
    assert -0.002 * promised < spent - promised < 0.002 * promised + 32
    assert np.array_equal(colour_codec.decompress(data, model), pictures)


def test_noise_takes_little_more_than_its_values():
    model, _ = weights.load("photographs")
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    data = colour_codec.compress(noise, model)
    assert len(data) - file_format.read_header(data)[1] - file_format.BLOCK.size <= noise.size + 2 + 4
    assert np.array_equal(colour_codec.decompress(data, model), noise)


@every_model
def test_pixels_are_seen_before_they_are_needed(name):
    """What the coder is told of a pixel depends on no pixel that comes later or at the same time."""
    model = fixed_point.on_grid(seeded(MODELS[name]))
    pictures, seen = torch.from_numpy(pictures_of(1)), []

    def choose(found, place):
        rows, columns, channel = place
        seen.append((found, rows, columns, channel))
        return pictures[:, rows, columns, channel].flatten()

    assert np.array_equal(colour_codec.walk(model, (1, 5, 5), choose), pictures)
    assert sum(len(rows) for _, rows, _, _ in seen) == 75
    order, before = list(seen), seen.copy()
    for late in (4, 11, 20):
        _, rows, columns, channel = order[late]
        pictures[0, rows, columns, channel] ^= 1
        seen.clear()
        colour_codec.walk(model, (1, 5, 5), choose)
        assert all(np.array_equal(new[0], old[0]) for new, old in zip(seen[: late + 1], before, strict=False))
        pictures[0, rows, columns, channel] ^= 1


# On every machine

WRITE = """
import hashlib, numpy as np, torch
from pixelrnn.coding import colour_codec
from pixelrnn.data import icons, photos
from pixelrnn.models import weights
print(hashlib.sha256(colour_codec.compress(icons.load_icons().test[:3], weights.load("icons")[0])).hexdigest())
patch = photos.patches(photos.photograph("coffee"))[:1, :12]
print(hashlib.sha256(colour_codec.compress(patch, weights.load("photographs")[0])).hexdigest())
"""


def digests(torch_may, onednn_may, threads):
    environment = os.environ | {"OMP_NUM_THREADS": threads, "ATEN_CPU_CAPABILITY": torch_may}
    environment |= {"ONEDNN_MAX_CPU_ISA": onednn_may, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WRITE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_other_instructions_and_threads_write_the_same_bytes():
    pictures = icons.load_icons().test[:3]
    here = hashlib.sha256(colour_codec.compress(pictures, weights.load("icons")[0])).hexdigest()
    others = digests("default", "SSE41", "2")
    assert others[0] == here and digests("avx2", "AVX2", "1") == others


def test_a_batch_changes_no_probability():
    """Pictures beside a picture, or none: it is coded with the same probabilities."""
    model, pictures = fixed_point.on_grid(weights.load("icons")[0]), torch.from_numpy(icons.load_icons().test[:3])

    def told(few):
        kept = []

        def choose(found, place):
            rows, columns, channel = place
            kept.append(found[: len(rows)])
            return few[:, rows, columns, channel].flatten()

        colour_codec.walk(model, few.shape[:3], choose)
        return kept

    for alone, beside in zip(told(pictures[:1]), told(pictures), strict=True):
        assert np.array_equal(alone, beside)


# Tables


def test_a_mixture_of_logistics_is_that_of_the_network():
    torch.manual_seed(0)
    wide = torch.tensor([2.0, 0.5, 3]).repeat_interleave(5)
    outputs = fixed_point.rounded(torch.randn(50, 15, dtype=torch.float64) * wide)
    found = fixed_point.mixture(outputs) / fixed_point.FINE
    wanted = colour.mixture(outputs, torch.arange(256).expand(50, -1)).exp().numpy()
    assert abs(found - wanted).max() < 0.0005 and (found.sum(-1) <= 1).all() and found.sum(-1).min() > 1 - 2e-5


def test_copies_are_those_of_the_network():
    torch.manual_seed(0)
    outputs = fixed_point.rounded(torch.randn(40, 22, dtype=torch.float64))
    near = torch.randint(-1, 256, (40, 6))
    near[:, 1], near[::2, 0] = near[:, 2], colour.OUTSIDE
    new = fixed_point.mixture(fixed_point.rounded(colour.placed(outputs)))
    found = fixed_point.copied(new, outputs[:, 15:], near)
    found = found / found.sum(-1, keepdims=True)
    wanted = colour.copies(outputs, torch.arange(256).expand(40, -1), near).exp().numpy()
    assert abs(found - wanted).max() < 0.0005


def test_outside_the_picture_is_nothing_to_copy():
    new, choices = torch.arange(256)[None].numpy(), torch.zeros(1, 3, dtype=torch.float64)
    outside = fixed_point.copied(new, choices, torch.full((1, 2), colour.OUTSIDE))
    assert np.array_equal(outside, new * fixed_point.FINE)


def test_products_that_are_too_large_are_cut_off_or_refused():
    large = torch.tensor([3000.0, -3000.0, 2.0], dtype=torch.float64)
    with fixed_point.Exact(cut_off=True):
        found = large * large[:1]
    assert found.tolist() == [fixed_point.LARGEST, -fixed_point.LARGEST, fixed_point.LARGEST]
    with fixed_point.Exact(), pytest.raises(checks.LabError, match="beyond 2048 are not exact"):
        large * large[:1]


def test_no_level_is_impossible():
    narrow = torch.tensor([[9.0, 0, 0, 0, 0] + [-1.5] * 5 + [-30.0] * 5], dtype=torch.float64)
    found = fixed_point.chances(fixed_point.mixture(narrow))
    assert found[0, 0] > 0.9999 and found.min() >= 2.0**-24 and abs(found.sum() - 1) < 1e-12


def test_logarithms_and_numbers_between_the_grid():
    with fixed_point.Exact():
        x = torch.tensor([1 / 4096, 1.0, 2.5, 4.0], dtype=torch.float64)
        logarithms, moved, added = x.log(), x + 1 / 127.5, x.clone()
        added += 1 / 127.5
        for wrong in (0.0, -1.0, 4.5):
            with pytest.raises(checks.LabError, match="log is not among"):
                torch.tensor([wrong], dtype=torch.float64).log()
    assert abs(logarithms.numpy() - np.log(x.numpy())).max() < 2**-13 and (logarithms * 4096 % 1 == 0).all()
    assert torch.equal(added, moved)
    assert abs(moved - x - 1 / 127.5).max() < 2**-13 and (moved * 4096 % 1 == 0).all()


# Damage, and other things


@pytest.fixture(scope="module")
def small():
    """A network, pictures, and their file."""
    model, pictures = seeded(MODELS["icons, copies"]), pictures_of()
    return model, pictures, colour_codec.compress(pictures, model)


def test_one_bit_flipped_anywhere_and_cut_off_anywhere(small):
    model, _, data = small
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        for wrong in (bytes(changed), data[:place]):
            with pytest.raises(checks.LabError):
                colour_codec.decompress(wrong, model)
    with pytest.raises(checks.LabError, match="belong to nothing"):
        colour_codec.decompress(data + b"0", model)


def test_bytes_that_give_other_pictures_are_found_out(small):
    """With a checksum of their own that is right."""
    model, _, data = small
    place = file_format.read_header(data)[1]
    _, _, of_pictures = file_format.BLOCK.unpack_from(data, place)
    coded = bytearray(data[place + file_format.BLOCK.size :])
    other = bytearray(coded)
    other[len(coded) // 2] ^= 1
    for changed in (other, bytearray(len(coded)), coded[: len(coded) // 8 * 4], coded + bytes(12)):
        block = file_format.BLOCK.pack(len(changed), zlib.crc32(bytes(changed)), of_pictures)
        with pytest.raises(checks.LabError, match="gives other pictures than were written"):
            colour_codec.decompress(data[:place] + block + bytes(changed), model)


def test_other_weights_and_headers(small):
    model, _, data = small
    torch.manual_seed(1)
    with pytest.raises(checks.LabError, match="compressed with other weights"):
        colour_codec.decompress(data, MODELS["icons, copies"]())
    right = {"arithmetic": "exact", "levels": 256, "count": 1, "steps": 5, "size": 15}
    for wrong, told in (
        ({"size": 16}, "not of colour"),
        ({"levels": 2}, "not of colour"),
        ({"arithmetic": "float"}, "not of colour"),
        ({"steps": 6}, r"\(count, 5, 5, 3\), not \(1, 6, 5, 3\)"),
        ({"count": 10**9}, "cut off"),
    ):
        with pytest.raises(checks.LabError, match=told):
            colour_codec.decompress(file_format.header(right | wrong, codec.digest(model)), model)


@pytest.mark.parametrize(
    ("pictures", "told"),
    [
        (np.zeros((1, 5, 5), np.uint8), r"\(count, 5, 5, 3\), not \(1, 5, 5\)"),
        (np.zeros((1, 5, 5, 4), np.uint8), r"not \(1, 5, 5, 4\)"),
        (np.zeros((1, 5, 5, 1), np.uint8), r"not \(1, 5, 5, 1\)"),
        (np.zeros((1, 3, 5, 5), np.uint8), r"not \(1, 3, 5, 5\)"),
        (np.zeros((1, 6, 5, 3), np.uint8), r"not \(1, 6, 5, 3\)"),
        (np.full((1, 5, 5, 3), 300, np.uint16), "whole levels from 0 to 255"),
        (np.zeros((1, 5, 5, 3)), "whole levels from 0 to 255"),
        (np.full((1, 5, 5, 3), 256), "whole levels from 0 to 255"),
        (np.full((1, 5, 5, 3), -1), "whole levels from 0 to 255"),
    ],
)
def test_other_pictures_get_an_error(small, pictures, told):
    with pytest.raises(checks.LabError, match=told):
        colour_codec.compress(pictures, small[0])


def test_pictures_of_no_pixels_or_too_many():
    model = seeded(MODELS["photographs, logistics"])
    with pytest.raises(checks.LabError, match=r"\(count, rows, columns, 3\), not \(1, 0, 5, 3\)"):
        colour_codec.compress(np.zeros((1, 0, 5, 3), np.uint8), model)
    with pytest.raises(checks.LabError, match="at most 16,777,216 values"):
        colour_codec.compress(np.broadcast_to(np.uint8(0), (1, 2**13, 2**10, 3)), model)
    with pytest.raises(checks.LabError, match="Shared is none"):
        colour_codec.compress(pictures_of(), weights.load("letters")[0])


# The command


def run(*words):
    command_line.main([*map(str, words)])


@pytest.mark.parametrize(("size", "interlaced"), [((16, 16), False), ((7, 12), True)])
def test_the_command_takes_png_files(tmp_path, capsys, size, interlaced):
    picture = icons.load_icons().test[0] if size == (16, 16) else photos.photograph("coffee")[:12, :7]
    Image.fromarray(picture).save(tmp_path / "in.png", interlace=interlaced)
    run("pack", tmp_path / "in.png", tmp_path / "packed")
    run("unpack", tmp_path / "packed", tmp_path / "out.PNG")
    run("unpack", tmp_path / "packed", tmp_path / "out.npz")
    assert np.array_equal(np.array(Image.open(tmp_path / "out.PNG")), picture)
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["pictures"], picture[None])
    told = capsys.readouterr()
    assert "1 picture, " in told.out and not told.err
    name = "icons" if size == (16, 16) else "photographs"
    assert (tmp_path / "packed").read_bytes() == colour_codec.compress(picture[None], weights.load(name)[0])


def test_the_command_takes_colour_in_npz_files_and_weights_of_ones_own(tmp_path):
    saving.save_model(seeded(MODELS["icons, copies"]), tmp_path / "own")
    np.savez(tmp_path / "in.npz", pictures=pictures_of().astype(np.int64))
    run("pack", tmp_path / "in.npz", tmp_path / "packed", "--weights", tmp_path / "own")
    with pytest.raises(SystemExit, match="other weights than the stored ones"):
        run("unpack", tmp_path / "packed", tmp_path / "out.npz")
    for name in ("out.png", "new.png"):
        with pytest.raises(SystemExit, match=r"holds 3 colour pictures; a PNG file is written of one"):
            run("unpack", tmp_path / "packed", tmp_path / name, "--weights", tmp_path / "own")
    run("unpack", tmp_path / "packed", tmp_path / "out.npz", "--weights", tmp_path / "own")
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["pictures"], pictures_of()) and arrays["pictures"].dtype == np.uint8


def small_png(path, columns, bits):
    """One that Pillow would not write."""
    rows = b"".join(b"\0" + bytes(columns * 3 * bits // 8) for _ in range(16))
    head = struct.pack(">IIBBBBB", columns, 16, bits, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    path.write_bytes(png.SIGNATURE + b"".join(chunks))


RGB = Image.fromarray(pictures_of(2, 16, 16)[1])


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: RGB.convert("RGBA").save(path), "has red, green, blue and alpha"),
        (lambda path: RGB.convert("LA").save(path), "has grey and alpha"),
        (lambda path: RGB.convert("L").save(path), "has grey"),
        (lambda path: RGB.convert("1").save(path), "has grey"),
        (lambda path: RGB.convert("P").save(path), "has a palette"),
        (lambda path: RGB.convert("L").convert("I;16").save(path), "has grey"),
        (lambda path: small_png(path, 16, 16), "has 16 bits a value"),
        (lambda path: RGB.save(path, transparency=(0, 0, 0)), "has a colour that is transparent"),
        (lambda path: RGB.save(path, save_all=True, append_images=[Image.new("RGB", (16, 16))]), "has several frames"),
        (lambda path: Image.new("RGB", (3000, 2000)).save(path), "has 3,000 x 2,000 pixels; 5,592,405 are the most"),
        (lambda path: small_png(path, 0, 8), "has no pixels"),
        (lambda path: path.write_bytes(png.SIGNATURE), "damaged or is something else: its header is missing"),
    ],
)
def test_other_png_files_get_an_error_that_says_what_is_wanted(tmp_path, write, told):
    write(tmp_path / "in.png")
    (tmp_path / "packed").write_text("old")
    with pytest.raises(SystemExit, match=told):
        run("pack", tmp_path / "in.png", tmp_path / "packed")
    assert (tmp_path / "packed").read_text() == "old"


def test_a_damaged_png_is_told(tmp_path):
    RGB.save(tmp_path / "in.png")
    data = (tmp_path / "in.png").read_bytes()
    for place in (20, len(data) // 2, len(data) - 30):
        (tmp_path / "in.png").write_bytes(data[:place])
        with pytest.raises(SystemExit, match=r"in\.png (is damaged|cannot be read: .* truncated)"):
            run("pack", tmp_path / "in.png", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_what_else_a_png_file_holds_is_named(tmp_path, capsys):
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a picture")
    RGB.save(tmp_path / "in.png", pnginfo=text, dpi=(72, 72))
    with (tmp_path / "in.png").open("ab") as file:
        file.write(b"\0\0\0\1\x1b[1m")
    run("pack", tmp_path / "in.png", tmp_path / "packed")
    assert "Not in that file: resolution, text, bytes after its end. Keep " in capsys.readouterr().err


def test_other_settings_and_pictures_for_the_command(tmp_path):
    RGB.save(tmp_path / "in.png")
    np.savez(tmp_path / "letters.npz", np.zeros((1, 28, 28), np.uint8))
    np.savez(tmp_path / "one.npz", np.zeros((20, 28, 3), np.uint8))
    np.savez(tmp_path / "float.npz", np.zeros((1, 20, 28, 3)))
    (tmp_path / "text.npz").write_text("no pictures")
    for words, told in (
        (("in.png", "--arithmetic", "float"), "exact arithmetic alone"),
        (("in.png", "--weights", "letters"), r"do not code colour pictures, \(1, 16, 16, 3\); icons or photographs"),
        (("in.png", "--weights", "nothing"), r"nothing is no file of weights, and none of digits, letters, icons, "),
        (("one.npz",), r"one colour picture is `pictures\[None\]`"),
        (("float.npz",), r"float\.npz are of type float64; whole numbers"),
        (("text.npz",), r"no \.npz file, or a damaged one\. .*of colour \(count, rows, columns, 3\), or a PNG"),
        (("letters.npz", "--weights", "icons"), r"colour pictures \(count, 16, 16, 3\), not \(1, 28, 28\)"),
    ):
        with pytest.raises(SystemExit, match=told):
            run("pack", tmp_path / words[0], tmp_path / "packed", *words[1:])
    run("pack", tmp_path / "letters.npz", tmp_path / "packed")
    with pytest.raises(SystemExit, match="holds 1 binary pictures; a PNG file is written of one colour picture"):
        run("unpack", tmp_path / "packed", tmp_path / "out.png")
    for name in ("out", "out.jpg"):
        with pytest.raises(SystemExit, match=r"a name that ends in \.npz, or in \.png for one colour picture"):
            run("unpack", tmp_path / "packed", tmp_path / name)
    names = ["float.npz", "in.png", "letters.npz", "one.npz", "packed", "text.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_result_does_not_take_the_place_of_its_source(tmp_path):
    RGB.save(tmp_path / "in.png")
    data = (tmp_path / "in.png").read_bytes()
    with pytest.raises(SystemExit, match=r"in\.png is the file that is read; give the result another name"):
        run("pack", tmp_path / "in.png", tmp_path / "." / "in.png")
    assert (tmp_path / "in.png").read_bytes() == data
    run("pack", tmp_path / "in.png", tmp_path / "packed.png")
    with pytest.raises(SystemExit, match=r"packed\.png is the file that is read"):
        run("unpack", tmp_path / "packed.png", tmp_path / "packed.png")


def test_weights_in_16_bits_and_a_damaged_file(tmp_path):
    """The stored files themselves are of 16 bits."""
    RGB.save(tmp_path / "in.png")
    np.savez(tmp_path / "letters.npz", np.zeros((1, 28, 28), np.uint8))
    run("pack", tmp_path / "letters.npz", tmp_path / "packed", "--weights", weights.paths("letters")[0])
    run("unpack", tmp_path / "packed", tmp_path / "letters.npz")
    run("pack", tmp_path / "in.png", tmp_path / "packed", "--weights", weights.paths("icons")[0])
    assert (tmp_path / "packed").read_bytes() == colour_codec.compress(np.array(RGB)[None], weights.load("icons")[0])
    data = bytearray((tmp_path / "packed").read_bytes())
    data[-9] ^= 1
    (tmp_path / "packed").write_bytes(data)
    with pytest.raises(SystemExit, match=r"packed: The file is damaged in picture 1: a checksum differs"):
        run("unpack", tmp_path / "packed", tmp_path / "out.png")
