"""Compression: what goes in comes out, on every machine, in the bits that the likelihood promises, or a clear error."""

import copy
import decimal
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import compare_codes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
from pixelrnn.coding import classical_codes, codec, command_line, file_format, fixed_point, trained_codes
from pixelrnn.data import datasets, letters
from pixelrnn.models import configs, ensemble, orders, saving, weights
from support import checks, files

ROOT = Path(__file__).parent.parent


def joint(seed=0, size=4, **others):
    torch.manual_seed(seed)
    return helpers.GenModel(size, 8, head="joint", **others)


def steps_of(pictures):
    return pictures


MODELS = {
    **configs.small_models(4, 4, hidden=8, features=2),
    "levels, one-hot, GRU": (joint(distribution="categorical", levels=5, encoding="one-hot", cell="gru"), steps_of),
    "levels, independent": (helpers.GenModel(4, 8, distribution="categorical", levels=300), steps_of),
    "RNN of two layers": (helpers.GenModel(4, 8, cell="rnn", num_layers=2), steps_of),
    "seq2vec": (helpers.GenModel(4, 8, output="seq2vec", window=2, bidirectional=True), steps_of),
    "average": (ensemble.Average([joint(1), joint(2)]), steps_of),
    "mixture of orders": (orders.Mixture([0, 3], [joint(1), joint(2)]), steps_of),
    "one network, three orders": (orders.Shared([0, 5, 6], input_size=4, hidden_size=8), steps_of),
}
every_model = pytest.mark.parametrize("name", MODELS)


def pictures_for(name, count=9, rows=4):
    """Random pictures on the model's levels, as its steps."""
    model, sequences = MODELS[name]
    levels = getattr(model, "levels", 2) if getattr(model, "distribution", "") == "categorical" else 2
    pictures = torch.randint(levels, (count, rows, 4), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    return model, sequences(pictures)


@pytest.fixture(scope="module")
def small():
    """A model, pictures, and their file."""
    model, pictures = pictures_for("joint row", count=3)
    return model, pictures, codec.compress(pictures, model)


# What goes in comes out


@every_model
@pytest.mark.parametrize("arithmetic", file_format.ARITHMETIC)
def test_what_goes_in_comes_out(name, arithmetic):
    model, pictures = pictures_for(name)
    out = codec.decompress(codec.compress(pictures, model, arithmetic), model)
    assert torch.equal(out, pictures.float()) and out.dtype == torch.float32


@every_model
def test_numbers_too_small_for_normal_floating_point_change_no_byte(name):
    """Torch makes them 0 here (devices.py), and need not elsewhere."""
    model, pictures = pictures_for(name)
    here = codec.compress(pictures, model)
    torch.set_flush_denormal(False)
    try:
        assert codec.compress(pictures, model) == here
    finally:
        torch.set_flush_denormal(True)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_model_with_a_norm_needs_ordinary_arithmetic(norm):
    model, pictures = joint(norm=norm), pictures_for("joint row")[1]
    with pytest.raises(checks.LabError, match=r"norm.*exact.*float"):
        codec.compress(pictures, model)
    assert torch.equal(codec.decompress(codec.compress(pictures, model, "float"), model), pictures)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_small_picture_and_any_count(data):
    rows, columns, count = (data.draw(st.integers(least, 5)) for least in (1, 1, 0))
    levels = data.draw(st.integers(2, 4))
    values = data.draw(st.lists(st.integers(0, levels - 1), min_size=count * rows * columns, max_size=None))
    pictures = torch.tensor(values[: count * rows * columns]).reshape(count, rows, columns) / (levels - 1)
    model = joint(size=columns, distribution="categorical", levels=levels)
    assert torch.equal(codec.decompress(codec.compress(pictures, model), model), pictures)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("name", ["joint row", "one network, three orders"])
def test_any_number_of_blocks(monkeypatch, name, count):
    monkeypatch.setattr(codec, "PICTURES", 3)
    model, pictures = pictures_for(name, count)
    data = codec.compress(pictures.numpy(), model)
    assert torch.equal(codec.decompress(data, model), pictures)
    monkeypatch.setattr(codec, "VALUES", 1)  # less than a picture has: a block for each
    assert torch.equal(codec.decompress(codec.compress(pictures, model), model), pictures)


@pytest.mark.parametrize("name", ["joint row", "mixture of orders", "one network, three orders"])
def test_nats_that_are_known_are_not_computed_again(monkeypatch, name):
    """The same bytes, in several blocks; with nats of other pictures the pictures come back all the same."""
    model, pictures = pictures_for(name, count=40)
    monkeypatch.setattr(codec, "PICTURES", 16)
    several = isinstance(model, orders.Orders)
    nats = model.nats(pictures, each=True)[1] if several else helpers.nats(model, pictures)[None]
    data = codec.compress(pictures, model)
    others = codec.compress(pictures, model, nats=nats[:, ::-1])
    assert len(others) >= len(data) and (others != data) == several
    assert torch.equal(codec.decompress(others, model), pictures)
    for wrong in (nats[:, 1:], nats[0], np.vstack([nats, nats])):
        with pytest.raises(checks.LabError, match=rf"here \({len(nats)}, 40\), not"):
            codec.compress(pictures, model, nats=wrong)
    monkeypatch.setattr(helpers, "nats", None)
    assert codec.compress(pictures, model, nats=nats) == data


def test_pictures_of_any_number_of_rows():
    for rows in (1, 4, 9):
        model, pictures = pictures_for("joint row", rows=rows)
        assert torch.equal(codec.decompress(codec.compress(pictures, model), model), pictures)


@every_model
def test_the_model_is_left_as_it_was(name):
    model, pictures = pictures_for(name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    codec.decompress(codec.compress(pictures, model), model)
    assert "decode" not in vars(model)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_a_walk_leaves_the_model_as_it_was():
    model = joint()
    with pytest.raises(ZeroDivisionError):
        codec.walk(model, 4, 2, lambda outputs: 1 / 0)
    assert "decode" not in vars(model)
    assert (codec.walk(model, 4, 2, lambda outputs: np.ones(outputs.shape)) == 1).all() and "decode" not in vars(model)


# In as many bits as the likelihood promises


@every_model
def test_the_file_is_as_long_as_the_likelihood_says(name):
    model, pictures = pictures_for(name, count=200)
    own = (
        model.nats(pictures, each=True)[1] if isinstance(model, orders.Orders) else helpers.nats(model, pictures)[None]
    )
    bits = np.min(own, 0) / np.log(2) + np.log2(len(own)) - np.log2(255 / 256)
    levels = 2 if name not in ("levels, one-hot, GRU", "levels, independent") else model.levels
    bits = np.minimum(bits, pictures[0].numel() * np.log2(levels) + 8).sum()
    data = codec.compress(pictures, model)
    _, place = file_format.read_header(data)
    spent = 8 * (len(data) - place - file_format.BLOCK.size)
    assert 0.999 * bits <= spent <= 1.0005 * bits + 64


@every_model
def test_streams_of_their_own_take_little_more(name):
    model, pictures = pictures_for(name, count=20)
    alone = [codec.streams(pictures[one : one + 1], model)[0] for one in range(20)]
    assert codec.streams(pictures, model) == alone
    data = codec.compress(pictures, model)
    together = len(data) - file_format.read_header(data)[1] - file_format.BLOCK.size
    assert together - 4 <= sum(map(len, alone)) <= together + 20 * 8


@every_model
def test_no_picture_takes_much_more_than_its_values(name):
    model, pictures = pictures_for(name, count=20)
    levels = len(pictures.unique()) if name != "levels, independent" else model.levels
    with torch.no_grad():  # sure of itself, and wrong
        model = copy.deepcopy(model)
        for weight in model.parameters():
            weight.mul_(20)
    assert max(map(len, codec.streams(pictures, model))) * 8 <= pictures[0].numel() * np.log2(levels) + 8 + 64
    assert torch.equal(codec.decompress(codec.compress(pictures, model), model), pictures.float())


def test_likely_pictures_take_less_than_unlikely_ones():
    model, _ = weights.load("digits")
    torch.manual_seed(0)
    own = model.sample(8)
    assert 3 * len(codec.compress(own, model)) < len(codec.compress(torch.bernoulli(torch.full_like(own, 0.5)), model))


# Everywhere the same bits

PROGRAM = """
import hashlib, torch
from pixelrnn.coding import codec
from pixelrnn.models import weights
torch.manual_seed(0)
pictures, model = torch.bernoulli(torch.full((64, 2, 28), 0.2)), weights.load("letters")[0].in_order(5)
data = codec.compress(pictures, model)
assert torch.equal(codec.decompress(data, model), pictures)
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), hashlib.sha256(data).hexdigest())
"""


def bytes_elsewhere(torch_may, onednn_may, threads):
    """What a process with these instructions and threads makes of the same letters: of the whole file, its checksum."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": torch_may, "ONEDNN_MAX_CPU_ISA": onednn_may}
    environment["OMP_NUM_THREADS"] = str(threads)
    words = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.split()


def test_other_instructions_and_threads_write_the_same_bytes():
    one, two = bytes_elsewhere("default", "SSE41", 1), bytes_elsewhere("avx2", "AVX2", 2)
    assert (one[0], one[1], two[1]) == ("DEFAULT", "1", "2")
    assert one[2] == two[2]


def test_a_header_tells_the_machine_where_only_that_machine_is_sure_to_read_it():
    model = weights.load("letters")[0].in_order(0)
    for arithmetic, told in (("exact", ""), ("float", f"torch {torch.__version__}")):
        data = codec.compress(torch.zeros(1, 2, 28), model, arithmetic)
        text = file_format.read_header(data)[0]["text"]
        assert text.startswith(told) and bool(text) == bool(told)


@pytest.mark.portability
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("torch_may, onednn_may", [("default", "SSE41"), ("avx2", "AVX2"), ("avx512", "AVX512_CORE")])
def test_every_processor_writes_the_same_bytes(torch_may, onednn_may, threads):
    assert bytes_elsewhere(torch_may, onednn_may, threads)[2] == bytes_elsewhere("default", "SSE41", 1)[2]


def test_exact_outputs_do_not_depend_on_the_batch_or_on_how_they_are_computed():
    model, _ = weights.load("letters")
    model, fixed = model.in_order(0), fixed_point.on_grid(model).in_order(0)
    pictures = torch.bernoulli(torch.full((5, 28, 28), 0.2), generator=torch.Generator().manual_seed(0)).double()
    parallel = fixed_point.outputs(fixed, pictures)
    assert torch.equal(fixed_point.outputs(fixed, pictures[2:3]), parallel[2:3])
    seen, known = [], pictures.flatten(1).numpy()

    def choose(outputs):
        seen.append(outputs.clone())
        return known[:, len(seen) - 1 : len(seen)]

    with fixed_point.Exact():
        codec.walk(fixed, 28, 5, choose)
    assert torch.equal(torch.cat(seen, 1), parallel.flatten(1))
    with torch.no_grad():
        ordinary = model.teacher_forced(pictures.float())
    assert float((parallel - ordinary).abs().max()) < 0.05  # and it is the same network


def test_tables():
    x = np.arange(-fixed_point.WIDEST * fixed_point.GRID, fixed_point.WIDEST * fixed_point.GRID + 1) / fixed_point.GRID
    sigmoid, power = fixed_point.sigmoid_table() / fixed_point.FINE, fixed_point.exp_table() / fixed_point.FINE
    assert np.abs(sigmoid - 1 / (1 + np.exp(-x))).max() <= 0.51 / fixed_point.FINE
    assert np.abs(power - np.exp(-x[len(x) // 2 :])).max() <= 0.51 / fixed_point.FINE
    assert (sigmoid + sigmoid[::-1] == 1).all() and sigmoid.min() > 0 and sigmoid.max() < 1
    assert (fixed_point._activations(2) == -fixed_point._activations(2)[::-1]).all()
    assert np.abs(fixed_point._activations(2) - np.tanh(x / 2)).max() <= 0.51 / fixed_point.GRID
    # The whole tables, as they are on every machine: a change is a new format of files.
    read = hashlib.sha256(
        fixed_point.sigmoid_table().astype("<i8").tobytes() + fixed_point.exp_table().astype("<i8").tobytes()
    )
    assert read.hexdigest()[:16] == "875e792327157b1d"


@pytest.mark.parametrize("rounding", [decimal.ROUND_UP, decimal.ROUND_HALF_EVEN])
def test_tables_do_not_depend_on_what_a_program_does_with_decimals(rounding):
    with decimal.localcontext() as context:
        context.prec, context.rounding = 4, rounding
        fresh = (
            fixed_point.sigmoid_table.__wrapped__(),
            fixed_point.exp_table.__wrapped__(),
            fixed_point._exponentials.__wrapped__(),
        )
    assert (fresh[0] == fixed_point.sigmoid_table()).all() and (fresh[1] == fixed_point.exp_table()).all()
    assert fresh[2] == fixed_point._exponentials()


def test_what_is_not_exact_is_refused():
    one = torch.ones(2)
    with fixed_point.Exact(), pytest.raises(checks.LabError, match="exp is not among the operations"):
        torch.exp(one)
    large = torch.full((2, 2), 1e3, dtype=torch.float64)
    with fixed_point.Exact(), pytest.raises(checks.LabError, match="beyond"):
        large @ large
    with fixed_point.Exact(), pytest.raises(checks.LabError, match="beyond"):
        large * float("nan")
    model = joint()
    with torch.no_grad():
        model.head.above.weight.mul_(1e5)
    with pytest.raises(checks.LabError, match="Weights as large"):
        codec.compress(pictures_for("joint row")[1], model)


# A damaged file gives an error, and no picture


def refused(data, model, match=None):
    with pytest.raises(checks.LabError, match=match):
        codec.decompress(data, model)


def test_one_bit_flipped_anywhere(small):
    model, _, data = small
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            refused(bytes(damaged), model)


def test_cut_off_anywhere_and_bytes_too_many(small):
    model, _, data = small
    for length in range(len(data)):
        refused(data[:length], model)
    refused(data + b"\0", model, "belong to nothing")


def header_with(data, **changed):
    """The header of a file with other fields, and a checksum that fits."""
    head, place = file_format.read_header(data)
    names = "steps", "size", "levels", "count"
    text = head["text"].encode()
    numbers = [changed.get(name, head[name]) for name in names]
    kind = file_format.MAGIC, changed.get("format", file_format.FORMAT), 0
    fields = file_format.FIELDS.pack(*kind, *numbers, head["weights"], len(text))
    return fields + text + zlib.crc32(fields + text).to_bytes(4, "little"), data[place:]


@pytest.mark.parametrize(
    "changed, match",
    [
        ({"count": 10**9}, "cut off: 1,000,000,000 pictures"),
        ({"count": 2**64 - 1}, "cut off"),
        ({"steps": 2**32 - 1}, "none that is written here"),
        ({"steps": 0}, "none that is written here"),
        ({"levels": 1}, "none that is written here"),
        ({"count": 2}, "other pictures than were written"),
        ({"count": 0}, "belong to nothing"),
        ({"steps": 3}, "other pictures than were written"),
        ({"size": 5}, "other model"),
        ({"levels": 3}, "other model"),
        ({"format": 2}, "of format 2; this version reads format 1"),
    ],
)
def test_a_header_that_promises_something_else(small, changed, match):
    model, _, data = small
    head, rest = header_with(data, **changed)
    refused(head + rest, model, match)


def test_other_weights_and_other_files(small, tmp_path):
    model, _, data = small
    refused(data, joint(seed=5), "other weights")
    refused(data, MODELS["MADE"][0], "other weights")
    refused(b"", model, "does not begin")
    refused(b"\x89PNG\r\n\x1a\n" + data, model, "does not begin")


@pytest.mark.parametrize(
    "arithmetic, match", [("exact", "was damaged before"), ("float", "floating-point arithmetic by torch")]
)
def test_a_machine_that_computes_other_probabilities_is_found_out(monkeypatch, arithmetic, match):
    model, pictures = pictures_for("joint row", count=50)
    data, right = codec.compress(pictures, model, arithmetic), codec.probabilities

    def wrong(outputs, arithmetic):
        kind, chances = right(outputs, arithmetic)
        return kind, np.where(chances < 0.5, chances + 1 / codec.FLOAT_GRID, chances)

    monkeypatch.setattr(codec, "probabilities", wrong)
    refused(data, model, match)


# Pictures and models that cannot be coded


@pytest.mark.parametrize(
    "pictures, match",
    [
        (torch.full((2, 4, 4), 0.5), "2 levels.*Binarise"),
        (torch.full((2, 4, 4), 2.0), "from 0 to 1"),
        (torch.full((2, 4, 4), float("nan")), "from 0 to 1"),
        (torch.zeros(2, 4, 5), r"\(count, steps, 4\)"),
        (torch.zeros(4, 4), r"\(count, steps, 4\)"),
        (torch.zeros(2, 0, 4), r"\(count, steps, 4\)"),
    ],
)
def test_pictures_that_the_model_does_not_code(small, pictures, match):
    with pytest.raises(checks.LabError, match=match):
        codec.compress(pictures, small[0])


def test_models_that_code_nothing():
    pictures = torch.zeros(2, 4, 4)
    for model, match in [
        (helpers.GenModel(4, 8, distribution="regression"), "no probabilities"),
        (helpers.GenModel(4, 8, bidirectional=True), "reads what it predicts"),
        (torch.nn.Linear(4, 4), "Linear is none"),
    ]:
        with pytest.raises(checks.LabError, match=match):
            codec.compress(pictures, model)
    with pytest.raises(checks.LabError, match="4, 4"):
        codec.compress(torch.zeros(2, 3, 4), MODELS["mixture of orders"][0])
    with pytest.raises(checks.LabError, match="arithmetic"):
        codec.compress(pictures, joint(), "integer")


# The command


def test_the_command_packs_and_unpacks(tmp_path, capsys):
    torch.manual_seed(0)
    pictures = weights.load("digits")[0].sample(3).numpy().astype(np.uint8)
    np.savez(tmp_path / "in.npz", pictures=pictures)
    command_line.main(["pack", str(tmp_path / "in.npz"), str(tmp_path / "packed"), "--weights", "digits"])
    command_line.main(["unpack", str(tmp_path / "packed"), str(tmp_path / "out.npz")])
    with np.load(tmp_path / "out.npz") as arrays:
        assert (arrays["pictures"] == pictures).all() and arrays["pictures"].dtype == np.uint8
    assert "3 pictures" in capsys.readouterr().out


def test_the_command_with_levels_and_weights_of_ones_own(tmp_path, monkeypatch):
    saving.save_model(joint(distribution="categorical", levels=300), tmp_path / "own")
    pictures = np.arange(0, 300, 13, dtype=np.int64)[:16].reshape(1, 4, 4)
    np.savez(tmp_path / "in.npz", pictures)
    command_line.pack(tmp_path / "in.npz", tmp_path / "packed", tmp_path / "own")
    with pytest.raises(checks.LabError, match=r"than the stored ones\. Name them by --weights"):
        command_line.unpack(tmp_path / "packed", tmp_path / "out.npz")
    command_line.unpack(tmp_path / "packed", tmp_path / "out.npz", tmp_path / "own")
    with np.load(tmp_path / "out.npz") as arrays:
        assert (arrays["pictures"] == pictures).all() and arrays["pictures"].dtype == np.uint16


def test_the_command_says_what_is_wrong(tmp_path):
    def says(match, *words):
        with pytest.raises(SystemExit, match=match):
            command_line.main([*map(str, words)])
        assert not (tmp_path / "new").exists()

    says("There is no file|not there|does not exist|no such", "pack", tmp_path / "none.npz", tmp_path / "new")
    (tmp_path / "text").write_text("no pictures")
    says("damaged or is something else", "pack", tmp_path / "text", tmp_path / "new")
    says("damaged or is something else", "unpack", tmp_path / "text", tmp_path / "new")
    np.savez(tmp_path / "floats.npz", np.zeros((1, 28, 28)))
    says("whole numbers", "pack", tmp_path / "floats.npz", tmp_path / "new")
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object))
    says("damaged or is something else", "pack", tmp_path / "objects.npz", tmp_path / "new")
    np.savez(tmp_path / "two.npz", a=np.zeros(1, int), b=np.zeros(1, int))
    says('none is called "pictures"', "pack", tmp_path / "two.npz", tmp_path / "new")
    np.savez(tmp_path / "grey.npz", np.full((1, 28, 28), 7, np.uint8))
    says("from 0 to 1", "pack", tmp_path / "grey.npz", tmp_path / "new")


def test_what_is_no_npz_is_told_without_advice_to_unpickle(tmp_path):
    pictures = np.zeros((3, 28, 28), np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + np.array(pictures.shape, ">i4").tobytes())
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    (tmp_path / "a.csv").write_text("0,0,1")
    np.save(tmp_path / "a.npy", pictures)
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(checks.LabError, match=r"An \.npz of pictures \(count, rows, columns\) is wanted") as caught:
            command_line.pack(path, tmp_path / "new")
        assert not any(word in str(caught.value) for word in ("pickle", "unsafe", "context manager"))


def test_other_arrays_beside_the_pictures_are_named(tmp_path, capsys):
    objects = np.array([{}], dtype=object)  # nobody need read them
    np.savez(tmp_path / "in.npz", pictures=np.zeros((2, 28, 28), bool), labels=np.array([3, 7]), notes=objects)
    command_line.main(["pack", str(tmp_path / "in.npz"), str(tmp_path / "packed")])
    assert "Not in that file: labels, notes." in capsys.readouterr().err
    command_line.main(["unpack", str(tmp_path / "packed"), str(tmp_path / "out.npz")])
    assert not capsys.readouterr().err


def test_the_command_writes_the_same_bytes_as_the_function(tmp_path):
    pictures = (np.random.default_rng(0).random((5, 28, 28)) < 0.2).astype(np.int16)
    np.savez(tmp_path / "in.npz", pictures)
    command_line.pack(tmp_path / "in.npz", tmp_path / "packed")
    model, _ = weights.load("letters")
    assert (tmp_path / "packed").read_bytes() == codec.compress(torch.from_numpy(pictures), model)


def test_more_pictures_than_are_taken_are_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "in.npz", np.zeros((3, 28, 28), np.uint8))
    monkeypatch.setattr(command_line, "LARGEST", 3 * 784 - 1)
    monkeypatch.setattr(np, "load", lambda *words, **options: pytest.fail("was read"))
    with pytest.raises(checks.LabError, match="3 pictures take 2,352 bytes in memory, more than 2,351: split"):
        command_line.pack(tmp_path / "in.npz", tmp_path / "new")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")])
@pytest.mark.parametrize("place", ["_write_block", "_read_block", "read_pictures"])
def test_too_little_memory_is_told(tmp_path, monkeypatch, place, error):
    np.savez(tmp_path / "in.npz", np.zeros((2, 28, 28), np.uint8))
    command_line.pack(tmp_path / "in.npz", tmp_path / "packed")
    before = (tmp_path / "packed").read_bytes()

    def full(*words):
        raise error

    monkeypatch.setattr(command_line if place == "read_pictures" else codec, place, full)
    words = ["unpack", "packed", "out.npz"] if place == "_read_block" else ["pack", "in.npz", "packed"]
    with pytest.raises(SystemExit, match=r"more memory than there is\. Nothing was written"):
        command_line.main([words[0], *(str(tmp_path / word) for word in words[1:])])
    assert (tmp_path / "packed").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_an_interrupt_says_what_is_left(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "in.npz", np.zeros((2, 28, 28), np.uint8))
    (tmp_path / "packed").write_text("old")

    def interrupted(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(codec, "_write_block", interrupted)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["pack", str(tmp_path / "in.npz"), str(tmp_path / "packed")])
    assert caught.value.code == 130 and "Nothing was written; " in capsys.readouterr().err
    assert (tmp_path / "packed").read_text() == "old"


def test_a_python_without_the_packages_says_which_has_them(tmp_path):
    words = [
        sys.executable,
        "-S",
        "-m",
        "pixelrnn.coding",
        "pack",
        tmp_path / "in.npz",
        tmp_path / "packed",
    ]  # -S: no packages
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "make notebooks" in result.stderr and ".venv/bin/python -m pixelrnn.coding" in result.stderr


# The comparison with classical codes


@pytest.fixture
def few(monkeypatch):
    """tools/compare_codes.py on the first pictures of its data."""
    images, few = compare_codes.pictures("letters")[:3], letters.load_letters().training[:2000]
    monkeypatch.setattr(compare_codes, "training", lambda name, mnist: [few])
    monkeypatch.setattr(compare_codes, "pictures", lambda name, mnist=None: images)
    return images


def test_codes_are_measured_and_stored(few, monkeypatch, tmp_path):
    monkeypatch.setattr(compare_codes, "ROOT", tmp_path)
    compare_codes.main(["--data", "letters"])
    protocol, _, labelled, numbers = files.read_table(tmp_path / "build" / "letters.csv", labels=1)
    names = [f"weights of {name}" for name in weights.NAMES]
    names += [
        name
        for name in classical_codes.NAMES
        if name in classical_codes.OF_PICTURES or name in classical_codes.OF_BYTES
    ]
    names += [f"template of {pixels} pixels" for pixels in trained_codes.TEMPLATES]
    names += ["zstd with a dictionary"] * trained_codes.Zstd.there
    assert [name for (name,) in labelled] == names and protocol["pictures"] == 3
    assert (numbers[:, :2] > 8).all()


@pytest.mark.parametrize("name", [*classical_codes.OF_PICTURES, *classical_codes.OF_BYTES])
def test_a_code_that_gives_back_something_else_is_found_out(few, monkeypatch, name):
    assert compare_codes.measure_classical(name, few)[0] == name
    right = compare_codes.decoded
    monkeypatch.setattr(compare_codes, "decoded", lambda *words: 1 - right(*words))
    with pytest.raises(AssertionError, match="does not give back"):
        compare_codes.measure_classical(name, few)


def test_a_mosaic_holds_all_pictures_in_their_order():
    pictures = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    whole = classical_codes.mosaic(pictures, 2)
    assert whole.shape == (6, 6)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 2)
        assert (whole[2 * row : 2 * row + 2, 3 * column : 3 * column + 3] == picture).all()
    assert (whole[4:, 3:] == 0).all()


@pytest.fixture(scope="module")
def seen():
    """Letters that a code learns from, and as many that it has not seen."""
    parts = letters.load_letters()
    return parts.training[::40], parts.validation[::3]


@pytest.mark.parametrize("pixels", trained_codes.TEMPLATES)
def test_a_context_template_gives_back_what_it_codes_in_the_bits_it_promises(seen, pixels):
    training, other = seen
    code = trained_codes.ContextTemplate(pixels).learn(training)
    few = other[:4]
    np.testing.assert_array_equal(code.decode(code.encode(few), few.shape), few)
    data = code.encode(other)
    assert 8 * len(data) == pytest.approx(code.bits(other).sum(), rel=2e-3, abs=64)
    untaught = trained_codes.ContextTemplate(pixels)
    assert code.bits(other).mean() < 0.25 * untaught.bits(other).mean() == pytest.approx(0.25 * 784)


@pytest.mark.parametrize("pixels", trained_codes.TEMPLATES)
def test_a_context_template_depends_on_nothing_that_comes_later(pixels):
    rng = np.random.default_rng(0)
    code = trained_codes.ContextTemplate(pixels).learn(rng.integers(0, 2, (50, 28, 28), np.uint8))
    assert len(set(code.template)) == pixels and all(up > 0 or right < 0 for up, right in code.template)
    picture = rng.integers(0, 2, (1, 28, 28), np.uint8)
    before = code.chances(picture)
    picture[0, 14, 5] ^= 1
    changed = (code.chances(picture) != before)[0]
    assert changed.any() and not changed[:14].any() and not changed[14, :6].any()


def test_counts_of_a_template_are_those_of_all_pictures(seen):
    training, _ = seen
    whole, parts = trained_codes.ContextTemplate(10).learn(training), trained_codes.ContextTemplate(10)
    for part in np.array_split(training, 3):
        parts.learn(part)
    np.testing.assert_allclose(whole.counts, parts.counts)
    assert whole.counts.sum() == pytest.approx(training.size + 2 * 2**10 * trained_codes.AHEAD)


@pytest.mark.skipif(not trained_codes.Zstd.there, reason="zstd is not installed")
def test_zstd_gives_back_what_it_codes_and_its_dictionary_helps(seen):
    training, other = seen
    code = trained_codes.Zstd().learn(training)
    data = code.encode(other[:1])
    np.testing.assert_array_equal(code.decode(data, other[:1].shape), other[:1])
    assert len(code.data) > 1000 and len(data) < len(classical_codes.encode("gzip", other[0]))


def test_the_camera_is_cut_into_its_tiles():
    tiles, picture = datasets.camera_tiles(), helpers.binarize(helpers.load_picture("camera", gray=True))[..., 0]
    assert tiles.shape == (324, 28, 28)
    assert (tiles[4 * 18 + 9] == picture[112:140, 252:280]).all() and 0.3 < tiles[4 * 18 + 9].mean() < 0.7


@pytest.mark.parametrize("name", compare_codes.DATA)
def test_stored_tables_are_of_the_stored_weights(name):
    protocol, _, labelled, numbers = files.read_table(files.DATA / "compression" / f"{name}.csv", labels=1)
    assert protocol["weights"] == {one: weights.load(one)[1]["sha256"][:16] for one in weights.NAMES}
    assert protocol["pictures"] == {"digits": 10_000, "camera": 324}.get(name, 1188)
    assert set(classical_codes.NAMES) < {code for (code,) in labelled}
    own = numbers[[code for (code,) in labelled].index("weights of digits")]
    promised = protocol["promised"]["digits"]["best order"]
    if name in weights.NAMES:
        assert promised < own[1] < promised * 1.01 < own[0]


def test_what_is_written_of_the_codes_is_what_is_stored():
    stored = {name: files.read_table(files.DATA / "compression" / f"{name}.csv", labels=1) for name in weights.NAMES}
    bits = {
        name: {code: row for (code,), row in zip(labelled, numbers, strict=True)}
        for name, (_, _, labelled, numbers) in stored.items()
    }
    note = (ROOT / "labnotes" / "appendix.md").read_text(encoding="utf-8")
    trained = [*(f"template of {pixels} pixels" for pixels in trained_codes.TEMPLATES), "zstd with a dictionary"]
    for code in ("ours", *classical_codes.NAMES, *trained):
        cells = [bits[name][f"weights of {name}" if code == "ours" else code] for name in ("letters", "digits")]
        row = " | ".join(f"{row[1]:.1f} | {row[0]:.1f}" for row in cells)
        assert f"| {code} | {row} |" in note
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"**{bits['digits']['weights of digits'][1]:.1f} bits**" in readme
    best = min(bits["digits"][code][1] for code in classical_codes.NAMES)
    assert best == bits["digits"]["JBIG1"][1] and f"JBIG1, takes {best:.1f} " in readme
    assert f"trained on the same digits {min(bits['digits'][code][1] for code in trained):.1f}." in readme
