"""The model is causal in every configuration but the listed ones, computes the loss it names, and survives the disk."""

import itertools
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import helpers
from pixelrnn.models import ensemble, orders, paper, saving
from support import checks, files

WIDTH, HIDDEN, STEPS, WINDOW = 2, 5, 6, 3  # as in conftest.py
OUTPUTS, NORMS, DIRECTIONS = ("seq2seq", "seq2vec"), (None, "batch", "layer"), (False, True)
CONFIGURATIONS = [
    dict(
        zip(("output", "norm", "bidirectional", "cell", "encoding", "distribution", "num_layers"), values, strict=True)
    )
    for values in itertools.product(
        OUTPUTS, NORMS, DIRECTIONS, helpers.CELLS, helpers.ENCODINGS, helpers.DISTRIBUTIONS, (1, 2)
    )
]
# What leaks, by (output, norm, bidirectional, mode); nothing else may. The windows of a bidirectional seq2vec model
# end before the step they predict, so that its backward pass sees no later one.
LEAKING = {
    # the backward pass starts at the end of the sequence
    ("seq2seq", None, True, "eval"),
    ("seq2seq", None, True, "train"),
    ("seq2seq", "layer", True, "eval"),
    ("seq2seq", "layer", True, "train"),
    ("seq2seq", "batch", True, "eval"),
    ("seq2seq", "batch", True, "train"),
    # in training mode batch norm's statistics run over every step
    ("seq2seq", "batch", False, "train"),
    ("seq2vec", "batch", False, "train"),
    ("seq2vec", "batch", True, "train"),
}


def named(settings):
    return "-".join(map(str, settings.values()))


every_configuration = pytest.mark.parametrize("settings", CONFIGURATIONS, ids=named)
every_architecture = pytest.mark.parametrize(
    "settings",
    [
        {"output": output, "norm": norm, "bidirectional": bidirectional, "cell": cell}
        for output, norm, bidirectional, cell in itertools.product(OUTPUTS, NORMS, DIRECTIONS, helpers.CELLS)
    ],
    ids=named,
)


def replaced(sequences, steps):
    """The sequences with other random values at these steps."""
    sequences = sequences.clone()
    sequences[:, steps] = torch.rand_like(sequences[:, steps])
    return sequences


# Causality


@every_configuration
@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_no_prediction_sees_its_own_step_or_a_later_one(build, draw, settings, mode):
    model, sequences = build(mode, **settings), draw()
    outputs = model.teacher_forced(sequences)
    seen = [
        not torch.equal(model.teacher_forced(replaced(sequences, slice(t, None)))[:, t], outputs[:, t])
        for t in range(STEPS)
    ]
    if (settings["output"], settings["norm"], settings["bidirectional"], mode) in LEAKING:
        assert seen == [True] * (STEPS - 1) + [False]  # the last step is never read
    else:
        assert seen == [False] * STEPS


@every_configuration
@torch.no_grad()
def test_every_prediction_depends_on_the_step_before(build, draw, settings):
    model, sequences = build(**settings), draw()
    outputs = model.teacher_forced(sequences)
    for t in range(1, STEPS):
        assert not torch.equal(model.teacher_forced(replaced(sequences, t - 1))[:, t], outputs[:, t])


@pytest.mark.parametrize("bidirectional", DIRECTIONS)
@torch.no_grad()
def test_seq2vec_sees_its_window_and_nothing_before(build, draw, bidirectional):
    model, sequences = build(output="seq2vec", bidirectional=bidirectional), draw()
    last = model.teacher_forced(sequences)[:, -1]
    changed = [not torch.equal(model.teacher_forced(replaced(sequences, step))[:, -1], last) for step in range(STEPS)]
    assert changed == [False, False, True, True, True, False]


@torch.no_grad()
def test_seq2seq_sees_every_step_before(build, draw):
    model, sequences = build(), draw()
    changed = model.teacher_forced(replaced(sequences, 0))[:, -1] != model.teacher_forced(sequences)[:, -1]
    assert changed.all()


# Outputs


@every_architecture
@pytest.mark.parametrize("num_layers", [1, 2])
def test_parameter_count(settings, num_layers):
    window = WINDOW if settings["output"] == "seq2vec" else None
    model = helpers.GenModel(WIDTH, HIDDEN, num_layers, window=window, **settings)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[settings["cell"]]
    directions = 2 if settings["bidirectional"] else 1
    inputs = [WIDTH] + [HIDDEN * directions] * (num_layers - 1)
    recurrent = sum(directions * gates * HIDDEN * (width + HIDDEN + 2) for width in inputs)
    norm = 0 if settings["norm"] is None else 2 * HIDDEN * directions
    head = (HIDDEN * directions + 1) * WIDTH
    assert sum(weight.numel() for weight in model.parameters()) == recurrent + norm + head


@pytest.mark.parametrize(("distribution", "ending"), [("regression", ()), ("bernoulli", ()), ("categorical", (256,))])
@pytest.mark.parametrize("encoding", helpers.ENCODINGS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_output_shapes(build, draw, output, encoding, distribution, ending):
    model, sequences = build(output=output, encoding=encoding, distribution=distribution), draw(batch=4)
    steps = (STEPS,) if output == "seq2seq" else ()
    assert model(sequences).shape == (4, *steps, WIDTH, *ending)
    assert model.teacher_forced(sequences).shape == (4, STEPS, WIDTH, *ending)
    assert model.decode(model.teacher_forced(sequences)).shape == (4, STEPS, WIDTH)


@every_architecture
@torch.no_grad()
def test_teacher_forcing_is_forward_over_the_steps_before(build, draw, settings):
    model, sequences = build(**settings), draw()
    if settings["output"] == "seq2seq" and settings["bidirectional"]:
        inputs = torch.cat([torch.full((2, 1, WIDTH), 0.5), sequences[:, :-1]], 1)
        torch.testing.assert_close(model.teacher_forced(sequences), model(inputs))
        return
    for t in range(STEPS):
        if settings["output"] == "seq2vec":
            inputs = torch.cat([torch.full((2, WINDOW, WIDTH), 0.5), sequences[:, :t]], 1)[:, -WINDOW:]
            expected = model(inputs)
        else:
            expected = model(torch.cat([torch.full((2, 1, WIDTH), 0.5), sequences[:, :t]], 1))[:, -1]
        torch.testing.assert_close(model.teacher_forced(sequences)[:, t], expected)


@pytest.mark.parametrize("bidirectional", DIRECTIONS)
@torch.no_grad()
def test_seq2vec_gives_the_last_of_seq2seqs_outputs(build, draw, bidirectional):
    seq2seq, seq2vec = (build(output=output, bidirectional=bidirectional) for output in OUTPUTS)
    seq2vec.load_state_dict(seq2seq.state_dict())
    sequences = draw()
    torch.testing.assert_close(seq2vec(sequences), seq2seq(sequences)[:, -1])


@every_configuration
@torch.no_grad()
def test_a_batch_is_the_same_as_its_sequences_one_by_one(build, draw, settings):
    model, sequences = build(**settings), draw(batch=3)
    one_by_one = torch.cat([model.teacher_forced(sequence[None]) for sequence in sequences])
    torch.testing.assert_close(model.teacher_forced(sequences), one_by_one, rtol=1e-5, atol=1e-5)


def test_levels_are_read_one_hot():
    model = helpers.GenModel(1, HIDDEN, encoding="one-hot")
    read = model.read_in(torch.arange(256)[:, None] / 255)
    torch.testing.assert_close(read, torch.eye(256), rtol=0, atol=1e-4)
    between = model.read_in(torch.tensor([[0.5]]))[0]  # 127.5
    assert between[127] == between[128] == 0.5 and between.sum() == 1


def test_values_are_read_from_minus_one_to_one():
    assert helpers.GenModel(3, HIDDEN).read_in(torch.tensor([[0, 0.5, 1]])).tolist() == [[-1, 0, 1]]


# Loss


def squared_error(output, value):
    return (output - value) ** 2


def bernoulli(logit, bit):
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if bit == 1 else 1 - probability)


def categorical(logits, value):
    logits = np.array(logits, dtype=float)
    return math.log(np.exp(logits).sum()) - logits[round(255 * value)]


@pytest.mark.parametrize(
    ("distribution", "by_hand"), [("regression", squared_error), ("bernoulli", bernoulli), ("categorical", categorical)]
)
@pytest.mark.parametrize("output", OUTPUTS)
def test_loss_is_the_mean_over_values(build, draw, output, distribution, by_hand):
    model, sequences = build(output=output, distribution=distribution), draw()
    sequences = sequences.round() if distribution == "bernoulli" else sequences
    outputs = model.teacher_forced(sequences).flatten(0, 2).tolist()
    expected = [by_hand(one, value) for one, value in zip(outputs, sequences.flatten().tolist(), strict=True)]
    assert len(expected) == 2 * STEPS * WIDTH
    assert model.loss(sequences).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_decode_gives_the_most_probable_values():
    values, bits, levels = (
        helpers.GenModel(1, HIDDEN, distribution=distribution) for distribution in helpers.DISTRIBUTIONS
    )
    assert values.decode(torch.tensor([-0.5, 0.25, 2])).tolist() == [0, 0.25, 1]
    assert bits.decode(torch.tensor([-0.1, 0.1])).tolist() == [0, 1]
    assert levels.decode(torch.eye(256)).tolist() == (torch.arange(256) / 255).tolist()


def test_dropout_leaves_features_out_in_training_mode_alone(build, draw):
    model, sequences, heard = build(dropout=0.5), draw(batch=16), []
    assert not any(helpers.leaks(model.train(mode), sequences) for mode in (True, False))
    model.head.register_forward_hook(lambda head, inputs, outputs: heard.append(inputs[0]))
    for mode in (True, False):
        model.train(mode).teacher_forced(sequences)
    training, evaluation = heard
    left = training != 0
    assert (evaluation != 0).all() and 0.4 < left.float().mean() < 0.6
    torch.testing.assert_close(training[left], 2 * evaluation[left])  # so that what the head is told keeps its mean


# Arguments that cannot be used


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None, float("nan")])
def test_bad_size(name, value):
    with pytest.raises(checks.LabError, match=f"{name} must be a whole number of at least 1"):
        helpers.GenModel(**{"input_size": WIDTH, "hidden_size": HIDDEN, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cell", "transformer"),
        ("cell", None),
        ("cell", ["lstm"]),
        ("norm", "group"),
        ("norm", False),
        ("output", "seq2many"),
        ("output", None),
        ("encoding", "bytes"),
        ("distribution", "colours"),
        ("bidirectional", "yes"),
        ("bidirectional", 2),
        ("bidirectional", None),
    ],
)
def test_unknown_name(name, value):
    with pytest.raises(checks.LabError, match=f"{name} must be one of"):
        helpers.GenModel(WIDTH, HIDDEN, **{name: value})


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, True, "0.5", None, float("nan")])
def test_dropout_is_a_probability(value):
    with pytest.raises(checks.LabError, match="dropout must be a number of at least 0 and at most 1"):
        helpers.GenModel(WIDTH, HIDDEN, dropout=value)


@pytest.mark.parametrize("window", [None, 0, -1, 1.5, True, "3"])
def test_seq2vec_needs_a_window(window):
    with pytest.raises(checks.LabError, match=r"window .* must be a whole number of at least 1"):
        helpers.GenModel(WIDTH, HIDDEN, output="seq2vec", window=window)


def test_seq2seq_has_no_window():
    with pytest.raises(checks.LabError, match="Only a seq2vec model has a window"):
        helpers.GenModel(WIDTH, HIDDEN, window=3)


def test_numpy_settings_are_kept_as_plain_ones(tmp_path, draw):
    sizes = np.array([WIDTH, HIDDEN, 1])
    settings = {"bidirectional": np.False_, "dropout": np.float32(0.5), "cell": np.str_("gru"), "levels": np.int16(4)}
    model = helpers.GenModel(*sizes, output="seq2vec", window=np.int64(WINDOW), **settings)
    saving.save_model(model, tmp_path / "model.safetensors")
    loaded = saving.load_model(tmp_path / "model.safetensors").settings
    assert loaded == model.settings and loaded["dropout"] == 0.5
    assert {type(value) for value in loaded.values()} == {int, bool, float, str, type(None)}
    assert model.loss(draw()).isfinite()


def test_window_longer_than_the_picture(build, draw):
    model = build(output="seq2vec", window=STEPS + 1)
    with pytest.raises(checks.LabError, match="window of 7 steps is longer than the picture's 6"):
        model.loss(draw())


@pytest.mark.parametrize("shape", [(1, STEPS, WIDTH + 1), (STEPS, WIDTH), (1, 0, WIDTH), (0, STEPS, WIDTH), (WIDTH,)])
def test_bad_shape(build, shape):
    with pytest.raises(checks.LabError, match=r"reads \(batch, steps, 2\)"):
        build().loss(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1, 255])
@pytest.mark.parametrize("output", OUTPUTS)
def test_bad_value(build, draw, output, value):
    sequences = draw()
    sequences[1, 2, 0] = value
    with pytest.raises(checks.LabError, match=r"outside \[0, 1\], or NaN. `to_batch` scales"):
        build(output=output).loss(sequences)


# The disk


@every_architecture
def test_saved_model_is_loaded_back(tmp_path, build, settings):
    path = tmp_path / "new" / "folder" / "model.safetensors"
    model = build(encoding="one-hot", distribution="categorical", num_layers=2, **settings)
    saving.save_model(model, path)
    loaded = saving.load_model(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert loaded.settings == model.settings
    assert not loaded.training
    for ours, theirs in zip(helpers.sample(loaded, STEPS), helpers.sample(model, STEPS), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def saved(tmp_path, build):
    """A path with a saved model, for which the test is to change nothing."""
    path = tmp_path / "model.safetensors"
    saving.save_model(build(), path)
    old = path.read_bytes()
    yield path
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_file(saved):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # the system then refuses to write more to any file
    try:
        with pytest.raises(checks.LabError, match=r"model.safetensors cannot be written: .*Nothing was lost.*space"):
            saving.save_model(helpers.GenModel(64, 64), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("stop", [safetensors.SafetensorError("I/O error"), PermissionError(13, "Permission denied")])
def test_a_save_that_fails_leaves_the_old_file(saved, monkeypatch, build, stop):
    def replace(unfinished, path):
        assert unfinished.exists()
        raise stop

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(checks.LabError, match=r"cannot be written: (I/O error|Permission denied). Nothing was lost"):
        saving.save_model(build(), saved)


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch, build):
    def write_half(path, data):
        path.open("wb").write(data[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(saved), "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        saving.save_model(build(), saved)


class Own(torch.nn.Module):
    """A reader's own model, which says no settings."""


def changed(model):
    model.head = torch.nn.Linear(HIDDEN, WIDTH, bias=False)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda build: Own(),
        lambda build: type("GenModel", (torch.nn.Module,), {"settings": {"input_size": 2, "hidden_size": 5}})(),
        lambda build: type("Mine", (helpers.GenModel,), {})(WIDTH, HIDDEN),
        lambda build: changed(build()),
        lambda build: build().rnn,
        lambda build: helpers.GenModel,
        lambda build: None,
    ],
    ids=["own", "own, of the same name", "of a class of its own", "changed", "a part", "no model", "None"],
)
def test_what_cannot_be_loaded_back_is_not_written(saved, build, make):
    with pytest.raises(checks.LabError, match=r"save_model cannot keep this .*(GenModel, .*Average|no longer)"):
        saving.save_model(make(build), saved)


@pytest.mark.parametrize("value", [None, 3, b"model.safetensors", np.zeros(2), "", " ", "a\0b", "\ud800"], ids=repr)
def test_what_is_no_path_is_told(build, value):
    for function in (lambda: saving.save_model(build(), value), lambda: saving.load_model(value)):
        with pytest.raises(checks.LabError, match=r"is wanted, as a path|cannot be looked at"):
            function()


def test_where_no_file_can_be(tmp_path, build):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for name, said in {
        "folder": "there is a folder",
        "file/model": "a file stands where its folder should be",
        "file/folder/model": "a file stands where its folder should be",
        "n" * 300: "cannot be written",
        ".": "there is a folder",
    }.items():
        with pytest.raises(checks.LabError, match=said):
            saving.save_model(build(), tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_file_is_not_replaced(tmp_path, build):
    """A pipe, in a folder of its own: a device, which root could replace, belongs to the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(checks.LabError, match="there is a folder or a device"):
        saving.save_model(build(), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(checks.LabError, match="is a folder or a device"):
        saving.load_model(tmp_path / "pipe")


def test_a_protected_file_is_left(saved, monkeypatch, build):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # root may always
    with pytest.raises(checks.LabError, match="write-protected"):
        saving.save_model(build(), saved)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_who_may_read_the_file_is_as_for_any_other(tmp_path, build, mask):
    path, before = tmp_path / "model.safetensors", os.umask(mask)
    try:
        saving.save_model(build(), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_home_and_links(tmp_path, monkeypatch, build):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    saving.save_model(build(), "~/new/model.safetensors")
    assert saving.load_model("~/new/model.safetensors").settings["input_size"] == WIDTH
    try:
        (tmp_path / "link").symlink_to(tmp_path / "new" / "model.safetensors")
    except OSError:
        pytest.skip("this user may not make links")
    saving.save_model(build(cell="gru"), "link")
    assert (tmp_path / "link").is_symlink()
    assert saving.load_model("~/new/model.safetensors").settings["cell"] == "gru"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "model.safetensors", "new"]


def test_a_name_as_long_as_names_may_be(tmp_path, build):
    saving.save_model(build(), tmp_path / ("n" * 255))
    assert saving.load_model(tmp_path / ("n" * 255)).settings["input_size"] == WIDTH


def test_two_processes_write_and_read_the_same_file(tmp_path):
    """Each finds the file of one of them, its settings beside the weights that belong to them."""
    code = """
import pathlib, sys, torch, helpers
from pixelrnn.models import saving

def again(size, path):
    model = helpers.GenModel(8, size)
    for weight in model.parameters():
        torch.nn.init.constant_(weight, size)
    saving.save_model(model, path)
    loaded = saving.load_model(path)
    assert all((weight == loaded.settings["hidden_size"]).all() for weight in loaded.parameters())
"""
    path, scope = tmp_path / "model.safetensors", {}
    exec(code, scope)
    words = [sys.executable, "-c", f"{code}\nfor _ in range(50): again(32, pathlib.Path(sys.argv[1]))", str(path)]
    other = subprocess.Popen(words, cwd=Path(helpers.__file__).parent)
    while not path.exists() and other.poll() is None:
        time.sleep(0.01)
    while other.poll() is None:
        scope["again"](64, path)
    assert other.returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# What is in the file


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_kept(tmp_path, build, dtype):
    model = build(head="joint").to(dtype)  # with masks, which are not in the file
    saving.save_model(model, tmp_path / "model")
    loaded = saving.load_model(tmp_path / "model")
    assert {weight.dtype for weight in loaded.state_dict().values()} == {dtype}
    assert [one.dtype for one in loaded.buffers()] == [one.dtype for one in model.buffers()]
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_a_model_of_two_dtypes(tmp_path, build):
    model = build(norm="batch")
    model.norm.double()
    saving.save_model(model, tmp_path / "model")
    loaded = saving.load_model(tmp_path / "model").state_dict()
    assert {name: weight.dtype for name, weight in loaded.items()} == {
        name: weight.dtype for name, weight in model.state_dict().items()
    }


def test_tied_and_turned_weights(tmp_path):
    model = helpers.GenModel(WIDTH, WIDTH)
    model.head.bias = model.rnn.bias_ih_l0 = torch.nn.Parameter(torch.randn(4 * WIDTH))
    model.head.bias = torch.nn.Parameter(model.rnn.bias_ih_l0[:WIDTH])  # a part of the other's memory
    model.head.weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH).T)
    model.rnn.bias_hh_l0 = model.rnn.bias_ih_l0
    saving.save_model(model, tmp_path / "model")
    # Not the loss: a turned weight takes another matrix kernel on some processors, and its last digit differs.
    loaded = saving.load_model(tmp_path / "model").state_dict()
    weights = model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_a_compiled_model_is_saved_as_what_it_wraps(tmp_path, build):
    model = build()
    saving.save_model(torch.compile(model), tmp_path / "compiled")
    saving.save_model(model, tmp_path / "model")
    assert (tmp_path / "compiled").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no processes")
def test_a_model_of_several_processes_is_saved_as_what_it_wraps(tmp_path, build):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        saving.save_model(torch.nn.parallel.DistributedDataParallel(build()), tmp_path / "model")
    finally:
        torch.distributed.destroy_process_group()
    assert saving.load_model(tmp_path / "model").settings["input_size"] == WIDTH


def test_saving_and_loading_draw_no_random_numbers(tmp_path, build):
    model = build("train")
    before = torch.get_rng_state()
    saving.save_model(model, tmp_path / "model")
    saving.load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before) and model.training


def test_a_default_device_does_not_part_the_masks_from_the_weights(tmp_path, build):
    model = build(head="joint")
    with torch.device("meta"):
        saving.save_model(model, tmp_path / "model")
        loaded = saving.load_model(tmp_path / "model")
    assert {one.device.type for one in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}


def test_a_loaded_model_trains_on_and_its_file_is_its_own(tmp_path, build, draw):
    path, sequences = tmp_path / "model", draw().round()
    saving.save_model(build(), path)
    old, loaded = path.read_bytes(), saving.load_model(path)
    helpers.train(loaded, sequences, steps=2)
    assert path.read_bytes() == old
    path.write_bytes(bytes(len(old)))  # in place
    assert loaded.loss(sequences).isfinite() and any(weight.any() for weight in loaded.parameters())


def weights_file(settings, hidden_size=HIDDEN):
    """The bytes of a file with a small model's weights, and what `settings` makes of its settings as metadata."""
    model = helpers.GenModel(WIDTH, hidden_size)
    return safetensors.torch.save(model.state_dict(), settings(model.settings))


WHOLE_FILE = weights_file(lambda settings: {"settings": json.dumps(settings)})
BAD_FILES = {
    "empty": b"",
    "garbage": bytes(range(256)) * 4,
    "truncated header": WHOLE_FILE[:100],
    "truncated weights": WHOLE_FILE[:-100],
    "picture": b"\x89PNG\r\n\x1a\n",
    "no settings": weights_file(lambda settings: None),
    "settings not JSON": weights_file(lambda settings: {"settings": "cell=lstm"}),
    "settings not a dict": weights_file(lambda settings: {"settings": "[2, 5]"}),
    "another's model": weights_file(lambda settings: {"settings": json.dumps({**settings, "model": "Transformer"})}),
    "another model": weights_file(
        lambda settings: {"settings": '{"model": "MADE", "rows": 2, "columns": 2, "units": 2}'}
    ),
    "no settings of a model": weights_file(lambda settings: {"settings": "{}"}),
    "unknown setting": weights_file(lambda settings: {"settings": json.dumps({**settings, "colour": "blue"})}),
    "bad setting": weights_file(lambda settings: {"settings": json.dumps({**settings, "cell": "brain"})}),
    "other size": weights_file(lambda settings: {"settings": json.dumps({**settings, "hidden_size": 6})}),
    "other layers": weights_file(lambda settings: {"settings": json.dumps({**settings, "num_layers": 2})}),
    "other norm": weights_file(lambda settings: {"settings": json.dumps({**settings, "norm": "batch"})}),
}


def test_a_file_of_an_earlier_version_is_good(tmp_path):
    """Which said its settings and not its model: a GenModel."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE_FILE)
    loaded = saving.load_model(path)
    assert type(loaded) is helpers.GenModel and loaded.settings["hidden_size"] == HIDDEN


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_weights_file(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(checks.LabError, match=r"model.safetensors is damaged or is something else: .*save_model"):
        saving.load_model(path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_pickle_is_refused_and_not_executed(tmp_path, write):
    path, touched = tmp_path / "model.pt", tmp_path / "touched"
    with path.open("wb") as file:
        write(Malicious(str(touched)), file)
    with pytest.raises(checks.LabError, match="damaged or is something else"):
        saving.load_model(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.safetensors", "There is no file .*save_model"),
        ("folder", "is a folder"),
        ("file/model", "cannot be looked at: "),
        ("n" * 300, "nnn .* cannot be looked at: "),
        ("~nosuchuser/model", "There is no file|cannot be looked at: "),
    ],
)
def test_a_weights_file_that_is_not_there(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    path = name if name.startswith("~") else tmp_path / name
    with pytest.raises(checks.LabError, match=said) as caught:
        saving.load_model(path)
    assert len(str(caught.value)) < 600 and "damaged" not in str(caught.value)


@pytest.mark.parametrize("function", ["stat", "access", "read"])
def test_a_weights_file_that_may_not_be_read(saved, monkeypatch, function):
    """By anyone but root, who may read all."""

    def denied(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    if function == "access":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        monkeypatch.setattr(type(saved), {"stat": "stat", "read": "read_bytes"}[function], denied)
    with pytest.raises(checks.LabError, match=r"may not be read|cannot be looked at: Perm|cannot be read: Perm"):
        saving.load_model(saved)
    monkeypatch.undo()


def with_settings(path, **changed):
    """Change settings in a file of weights, and nothing else."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    settings = json.loads(head["__metadata__"]["settings"])
    head["__metadata__"]["settings"] = json.dumps({**settings, **changed})
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def joint(**settings):
    return helpers.GenModel(4, 3, head="joint", **settings)


LARGE = {
    "layers": (lambda: helpers.GenModel(4, 3), {"num_layers": 10**7}),
    "as many layers as a million": (lambda: helpers.GenModel(4, 3), {"num_layers": 999_999}),
    "units": (lambda: helpers.GenModel(4, 3), {"hidden_size": 900_000}),
    "inputs and units": (lambda: joint(), {"input_size": 90_000, "hidden_size": 90_000}),
    "levels": (lambda: joint(distribution="categorical", encoding="one-hot", levels=3), {"levels": 900_000}),
    "a number of no size": (lambda: joint(), {"levels": 10**400}),
    "features": (lambda: paper.PixelCNN(4, 3, 1, 2), {"features": 900_000}),
    "blocks": (lambda: paper.PixelCNN(4, 3, 1, 2), {"layers": 900_000}),
    "gated layers": (lambda: paper.GatedPixelCNN(4, 3, 1, 2), {"layers": 10**9}),
    "pixels": (lambda: paper.MADE(3, 4, 2), {"rows": 9000, "columns": 9000}),
    "members": (lambda: ensemble.Average([joint()]), {"models": [joint().settings] * 5000}),
    "a member": (lambda: ensemble.Average([joint()]), {"models": [{**joint().settings, "num_layers": 10**7}]}),
    "a member of a mixture": (
        lambda: orders.Mixture([0], [joint()]),
        {"models": [{"model": "Average", "models": [{**joint().settings, "num_layers": 900_000}]}]},
    ),
    "units of a shared network": (lambda: orders.Shared([0, 5], input_size=4, hidden_size=3), {"hidden_size": 10**5}),
}


@pytest.mark.parametrize("name", LARGE)
def test_settings_that_ask_for_far_more_than_the_weights_are_refused_at_once(tmp_path, monkeypatch, name):
    make, changed = LARGE[name]
    saving.save_model(make(), tmp_path / "model")
    with_settings(tmp_path / "model")
    assert saving.load_model(tmp_path / "model").settings == make().settings
    with_settings(tmp_path / "model", **changed)
    resource = pytest.importorskip("resource")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(checks.LabError, match=r"settings ask for .* (weights|weights hold)"):
        saving.load_model(tmp_path / "model")
    assert time.perf_counter() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000 * (
        1024 if sys.platform == "darwin" else 1
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777])
def test_who_may_read_a_file_that_is_written_anew_stays(tmp_path, mask, mode):
    path, before = tmp_path / "table.csv", os.umask(mask)
    path.write_text("old")
    path.chmod(mode)
    try:
        with files.written_whole(path, "A file") as unfinished:
            assert unfinished.stat().st_mode & 0o777 == mode  # before there is anything to read
            unfinished.write_text("new")
    finally:
        os.umask(before)
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == mode
