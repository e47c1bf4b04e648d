"""Every measure agrees with a computation by hand, and gives a model that has learnt nothing a bad mark."""

import base64
import html
import inspect
import itertools
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import helpers
from pixelrnn.evidence import errors, results, stored_curves
from support import checks, display

WIDTH, STEPS, WINDOW = 2, 6, 3  # as in conftest.py

# Restored pictures


def test_fraction_exact_counts_equal_levels():
    target = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    restored = torch.tensor([[[0.1, 0.9], [0.4, 0.4]]])
    assert helpers.fraction_exact(restored, target, levels=2) == 0.75
    assert helpers.fraction_exact(restored, target) == 0
    assert helpers.fraction_exact(target, target) == 1


def test_fraction_exact_allows_for_rounding_and_no_more():
    target = torch.arange(256)[None, :, None] / 255
    assert helpers.fraction_exact(target + 0.4 / 255, target) == 1
    assert helpers.fraction_exact(target - 0.6 / 255, target) == 0


def test_sampling_loss_by_hand():
    probability = torch.tensor([[[0.9], [0.2], [0.6], [0.5001]]])
    loss = helpers.sampling_loss(torch.logit(probability), torch.tensor([[[1.0], [0.0], [0.0], [1.0]]]))
    assert loss == {
        "bce": pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.5001]))),
        "wrong": 0.25,
        "mse": pytest.approx(np.mean(np.square([0.1, 0.2, 0.6, 0.4999]))),
    }


def test_sampling_loss_of_a_certain_and_right_model_is_zero():
    target = torch.tensor([[[1.0, 0.0]]])
    assert helpers.sampling_loss(100 * (target - 0.5), target) == pytest.approx({"bce": 0, "wrong": 0, "mse": 0})


@pytest.mark.parametrize("cell", helpers.CELLS)
def test_an_untrained_model_does_not_pass(cell):
    target = torch.randint(0, 2, (1, 20, 16)).float()
    values, outputs = helpers.sample(helpers.GenModel(16, 32, cell=cell), 20)
    assert helpers.fraction_exact(values, target, levels=2) < 0.7
    loss = helpers.sampling_loss(outputs, target)
    assert loss["bce"] > 0.6 and loss["wrong"] > 0.3 and loss["mse"] > 0.2


# What a prediction depends on

KINDS = list(itertools.product(("seq2seq", "seq2vec"), (False, True), (None, "batch", "layer"), ("eval", "train")))
every_kind = pytest.mark.parametrize(("output", "bidirectional", "norm", "mode"), KINDS)


def is_leaking(output, bidirectional, norm, mode):
    return (output == "seq2seq" and bidirectional) or (norm == "batch" and mode == "train")


def changed_by(model, sequences, position):
    """For each step, whether the prediction at `position` changes when that step does."""
    output = model.teacher_forced(sequences)[:, position]
    changed = []
    for step in range(sequences.shape[1]):
        other = sequences.clone()
        other[:, step] = 1 - other[:, step]
        changed.append(not torch.equal(model.teacher_forced(other)[:, position], output))
    return changed


@every_kind
@pytest.mark.parametrize("encoding", helpers.ENCODINGS)
@pytest.mark.parametrize("cell", helpers.CELLS)
@pytest.mark.parametrize("position", [0, 2, STEPS - 1])
def test_receptive_field_is_what_changes_the_prediction(
    build, draw, output, bidirectional, norm, mode, encoding, cell, position
):
    model = build(mode, output=output, bidirectional=bidirectional, norm=norm, encoding=encoding, cell=cell)
    sequences = draw()
    field = helpers.receptive_field(model, sequences, position)
    assert (field > 0).tolist() == changed_by(model, sequences, position)
    if is_leaking(output, bidirectional, norm, mode):
        assert (field > 0).tolist() == [True] * (STEPS - 1) + [False]  # the last step is never read
    else:
        first = 0 if output == "seq2seq" else position - WINDOW
        assert (field > 0).tolist() == [first <= step < position for step in range(STEPS)]


@every_kind
@pytest.mark.parametrize("encoding", helpers.ENCODINGS)
@pytest.mark.parametrize("bits", [False, True])
def test_leaks(build, draw, output, bidirectional, norm, mode, encoding, bits):
    model = build(mode, output=output, bidirectional=bidirectional, norm=norm, encoding=encoding)
    sequences = draw().round() if bits else draw()
    assert helpers.leaks(model, sequences) == is_leaking(output, bidirectional, norm, mode)


@pytest.mark.parametrize(("later", "leaking"), [(-1, False), (0, True), (1, True)])
def test_leaks_where_a_single_step_is_seen(monkeypatch, build, draw, later, leaking):
    model = build()
    seen = slice(1 + later, 1 + later + STEPS)
    monkeypatch.setattr(model, "teacher_forced", lambda sequences: F.pad(sequences, (0, 0, 1, 1))[:, seen])
    assert helpers.leaks(model, draw()) == leaking


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_receptive_field_leaves_the_model_alone(build, draw, mode):
    model = build(mode, norm="batch")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    helpers.receptive_field(model, draw(), 3)
    assert model.training == (mode == "train")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


# Curves


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [([3, 2, 1, 2], 2.5, 20), ([3, 2, 1, 2], 2, 30), ([3, 2], 2, None), ([1, 9], 2, 10), ([math.nan, 1], 2, 20)],
)
def test_first_below(values, threshold, expected):
    assert helpers.first_below([10, 20, 30, 40][: len(values)], values, threshold) == expected


losses = st.floats(1e-6, 1e6)


@given(st.data(), st.integers(1, 5), st.integers(1, 3))
def test_curves_are_loaded_back_to_four_digits(tmp_path_factory, data, steps, seeds):
    path = tmp_path_factory.getbasetemp() / "curves" / "reference.csv"
    curve = st.lists(losses, min_size=steps, max_size=steps)
    curves = {name: {seed: data.draw(curve) for seed in range(seeds)} for name in ("b, with norm", "a")}
    stored_curves.save_curves(path, {"hidden": 64, "rate": 0.01}, curves)
    loaded = stored_curves.load_curves(path, {"rate": 0.01, "hidden": 64})
    assert list(loaded) == ["b, with norm", "a"]
    for name, by_seed in curves.items():
        np.testing.assert_allclose(loaded[name], list(by_seed.values()), rtol=5.1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 32, "rate": 0.01}, "hidden is 32, not 64"),
        ({"hidden": 64, "rate": 0.02}, "rate is 0.02, not 0.01"),
        ({"hidden": 64}, "rate is None, not 0.01"),
        ({"hidden": 64, "rate": 0.01, "cell": "gru"}, "cell is 'gru', not None"),
    ],
)
def test_curves_of_other_settings_do_not_apply(tmp_path, capsys, settings, message):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, {"hidden": 64, "rate": 0.01}, {"loss": {0: [1.0]}})
    assert stored_curves.load_curves(path, settings) == {}
    printed = capsys.readouterr().out
    assert printed == f"Not compared with the reference curves: {message}.\n"


def test_settings_may_hold_a_tuple(tmp_path, capsys):
    path = tmp_path / "curves.csv"
    settings = {"size": (32, 48)}  # which JSON gives back as a list
    stored_curves.save_curves(path, settings, {"loss": {0: [1.0]}})
    assert stored_curves.load_curves(path, settings)["loss"].tolist() == [[1.0]]
    assert capsys.readouterr().out == ""


# What a reader may choose, and what a file holds
CHOSEN = [
    ({"size": np.int64(8), "rate": np.float32(0.5)}, {"size": 8, "rate": 0.5}),
    ({"sizes": np.arange(2), "seeds": range(2)}, {"sizes": [0, 1], "seeds": [0, 1]}),
    ({"image": Path("mine.png"), "rates": {1: np.True_}}, {"image": "mine.png", "rates": {"1": True}}),
]


@pytest.mark.parametrize(("settings", "as_stored"), CHOSEN)
def test_chosen_settings_are_compared_as_a_file_holds_them(tmp_path, capsys, settings, as_stored):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, as_stored, {"loss": {0: [1.0]}})
    assert stored_curves.load_curves(path, settings)["loss"].tolist() == [[1.0]]
    stored_curves.save_curves(path, {"image": "camera"}, {"loss": {0: [1.0]}})
    assert stored_curves.load_curves(path, settings) == {}
    assert capsys.readouterr().out.startswith("Not compared with the reference curves: image is ")


@pytest.mark.parametrize("value", [print, {1}, 1j, np.zeros((99, 99)), object(), torch.zeros(2)], ids=type)
def test_settings_that_no_file_holds_are_not_those_of_the_reference(tmp_path, capsys, value):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, {"image": "camera"}, {"loss": {0: [1.0]}})
    assert stored_curves.load_curves(path, {"image": value}) == {}
    printed = capsys.readouterr().out
    assert printed.startswith("Not compared with the reference curves: image is ") and len(printed) < 400


@pytest.mark.parametrize(
    ("settings", "curves", "said"),
    [
        ({"size": np.int64(8)}, {"a": {0: [1.0]}}, "settings cannot be written .*int64"),
        ({"image": Path("mine.png")}, {"a": {0: [1.0]}}, "settings cannot be written"),
        ({}, {"a": {0: [1.0], 1: [1.0, 2.0]}}, "curves of 'a' must be .* of one length"),
        ({}, {"a": {0: [1.0]}, "b": {1: [1.0]}}, r"curves of 'b' must be of the seeds \[0\]"),
        ({}, {"a": {}}, "curves of 'a'"),
        ({}, {"a": {0: []}}, "no curves"),
        ({}, {}, "no curves"),
        ({}, {"\ud800": {0: [1.0]}}, "cannot be written"),
    ],
)
def test_curves_that_cannot_be_saved_leave_the_old_file(tmp_path, settings, curves, said):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, {"size": 8}, {"a": {0: [1.0, 0.5]}})
    old = path.read_bytes()
    with pytest.raises(checks.LabError, match=said):
        stored_curves.save_curves(path, settings, curves)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a, b", 'say "row"', "two\nlines", "two\r\nlines", "row \u2192 row", "#", " "])
def test_curves_may_have_any_name(tmp_path, name):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, {"name": name}, {name: {0: [1.0, 0.5]}})
    assert {key: curve.tolist() for key, curve in stored_curves.load_curves(path, {"name": name}).items()} == {
        name: [[1.0, 0.5]]
    }


def test_tables_are_utf_8_whatever_the_locale(tmp_path):
    """Also where Python takes the locale's encoding: ASCII here, cp1252 on Windows."""
    code = (
        "import sys; from pixelrnn.evidence import stored_curves as curves; given = {'\\u2192': {0: [1.0]}};"
        "curves.save_curves(sys.argv[1], {}, given); print(ascii(list(curves.load_curves(sys.argv[1], {}))))"
    )
    path = tmp_path / "curves.csv"
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(helpers.__file__).parent,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "['\\u2192']\n" and "\u2192,0,1" in path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Excel saves it
    assert list(stored_curves.load_curves(path, {})) == ["\u2192"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"# {}\n",
        b"# {}\na,b,c\n",
        b"# []\na,b,c\nx,0,1\n",
        b"a,b,c\nx,0,1\n",
        b"# {}\na,b,c\nx,0,1\nx,1\n",
        b"# {}\na,b,c\nx,0,one\n",
        b"# {}\na,b,c\n\xfc,0,1\n",
        b"# {}\na,b\nx,0,1\n",
    ],
)
@pytest.mark.parametrize("load", [lambda path: stored_curves.load_curves(path, {}), stored_curves.load_benchmark])
def test_damaged_tables(tmp_path, content, load):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(checks.LabError, match=r"table.csv is damaged or is something else: .*`make \w+`"):
        load(path)


def test_tables_that_are_not_there(tmp_path, capsys):
    assert stored_curves.load_curves(tmp_path / "none.csv", {}) == {}
    assert capsys.readouterr().out.startswith("Not compared with the reference curves: There is no file ")
    with pytest.raises(checks.LabError, match=r"There is no file .*none.csv\. `make bench`"):
        stored_curves.load_benchmark(tmp_path / "none.csv")
    (tmp_path / "file").write_text("")
    for load in (lambda path: stored_curves.load_curves(path, {}), stored_curves.load_benchmark):
        for value, said in {
            tmp_path: "is a folder",
            tmp_path / "file" / "c.csv": "cannot be looked at",
            "n" * 300: "cannot be looked at",
            None: "is wanted",
            b"c.csv": "is wanted",
        }.items():
            with pytest.raises(checks.LabError, match=said):
                load(value)


def falling(time):
    """A loss that falls by a factor of e in `time` steps."""
    return 0.7 * np.exp(-np.arange(200) / time)


REFERENCE = np.stack([falling(18), falling(20), falling(22)])
LEVELS = np.geomspace(0.7, 2 * REFERENCE[2, -1], 11)[1:]  # the slowest seed's last loss is the worst of the best


@pytest.mark.parametrize("curve", [*REFERENCE, falling(10), 0.9 * falling(18), 1.1 * falling(20)])
def test_curve_on_pace(curve):
    assert stored_curves.fraction_in_time(curve, REFERENCE) == 1


@pytest.mark.parametrize(
    "curve",
    [falling(8), falling(50), falling(20)[::-1], np.full(200, 0.7), np.full(200, 0.1), np.full(200, np.nan)],
    ids=["too fast", "too slow", "rises", "never falls", "low from the start", "NaN"],
)
def test_curve_off_pace(curve):
    assert stored_curves.fraction_in_time(curve, REFERENCE) == 0


@pytest.mark.parametrize("reached", [1, 4, 9])
def test_pace_is_the_fraction_of_levels_reached(reached):
    curve = np.maximum(falling(20), 0.99 * LEVELS[reached - 1])  # stands still just below that level
    assert stored_curves.fraction_in_time(curve, REFERENCE) == reached / 10


def test_pace_within_another_factor():
    assert stored_curves.fraction_in_time(falling(20), REFERENCE, factor=1) == 1
    assert stored_curves.fraction_in_time(falling(17), REFERENCE, factor=1) == 0
    assert stored_curves.fraction_in_time(falling(8), REFERENCE, factor=3) == 1


def test_pace_of_a_loss_that_falls_towards_a_floor():
    reference = 20 + 25 * REFERENCE  # from 37.5 to 20: twice the best is more than the first
    assert stored_curves.fraction_in_time(reference[1], reference, floor=0.95) == 1
    assert stored_curves.fraction_in_time(20 + 25 * falling(50), reference, floor=0.95) < 0.5
    assert stored_curves.fraction_in_time(np.full(200, reference[0, 0]), reference, floor=0.95) < 0.1


def test_curves_of_every_few_steps(tmp_path):
    path = tmp_path / "curves.csv"
    stored_curves.save_curves(path, {}, {"loss": {0: [3.0, 2.0, 1.0]}}, every=20)
    assert [line.split(",")[1] for line in path.read_text().splitlines()[2:]] == ["0", "20", "40"]
    assert stored_curves.load_curves(path, {})["loss"].tolist() == [[3.0, 2.0, 1.0]]


def test_benchmark_is_loaded_with_its_protocol(tmp_path):
    path = tmp_path / "mnist.csv"
    path.write_text('# {"binarised": "static"}\nseed,seconds,nats\n0,10.0,90.5\n1,20.0,85\n')
    protocol, table = stored_curves.load_benchmark(path)
    assert protocol == {"binarised": "static"}
    assert {name: values.tolist() for name, values in table.items()} == {
        "seed": [0, 1],
        "seconds": [10, 20],
        "nats": [90.5, 85],
    }


# Results and their bounds


def test_a_result_that_meets_its_bound_is_recorded():
    claims = results.Claims()
    claims.check("Loss falls", [0.12345678901, 0.1], "under 0.2 nats", untrained=[0.7, 0.8], copying_above=1)
    (row,) = claims.rows
    assert row.pop("seconds") >= 0
    assert row == {
        "result": "Loss falls",
        "this run": [0.123456789, 0.1],
        "must be": "under 0.2 nats",
        "baseline": {"untrained": [0.7, 0.8], "copying above": [1.0]},
    }


@pytest.mark.parametrize(
    ("bound", "meets", "misses"),
    [
        ("under 0.5 of the pixels", 0.49, 0.5),
        ("over 0.5", 0.51, 0.5),
        ("at most 50 steps", 50, 51),
        ("at least 4 pictures", 4, 3),
        ("0.8 to 1.2 times", 0.8, 1.21),
        ("0.8 to 1.2 times", 1.2, 0.79),
        ("-1 to 1 nats", -1, -1.1),
        ("9 of 9 runs", 9, 8),
        ("1", 1, 0.999999),
        ("under 1,000 nats", 999, 1000),
    ],
)
def test_a_bound_is_what_its_words_say(bound, meets, misses):
    claims = results.Claims()
    claims.check("it", [meets, meets], bound)
    claims.check("it", meets, bound, baseline=misses)
    for values in ([misses], [meets, misses], [meets, None], [np.nan], [np.inf], []):
        with pytest.raises(AssertionError, match=f"it: must be {bound}, but this run"):
            claims.check("it", values, bound)


def test_a_baseline_that_meets_the_bound_is_raised():
    """What an untrained model passes is no check."""
    with pytest.raises(AssertionError, match=r"the baseline meets it too: not trained 0.4, 0.6"):
        results.Claims().check("right", 0.7, "over 0.5 of the pixels", not_trained=[0.4, 0.6])
    with pytest.raises(AssertionError, match="the baseline meets it too"):  # one that was not measured is none
        results.Claims().check("right", 0.7, "over 0.5 of the pixels", not_trained=[])


@pytest.mark.parametrize("bound", ["", "fast", "below 5", "under", "over 1 to 2", "5%", "1.2.3", "under five"])
def test_a_bound_that_cannot_be_read_is_told(bound):
    with pytest.raises(checks.LabError, match="A bound is written as"):
        results.Claims().check("it", 1, bound)


def test_what_misses_its_bound_where_nothing_is_asserted_is_said():
    claims = results.Claims()
    claims.asserted = False
    claims.check("Loss falls", 0.7, "under 0.2 nats")
    claims.check("Loss falls", 0.1, "under 0.2 nats", untrained=0.1)
    claims.check("Loss falls", 0.1, "under 0.2 nats")
    missed = "under 0.2 nats (not so here)"
    assert [row["must be"] for row in claims.rows] == [missed, missed, "under 0.2 nats"]
    assert [row["this run"] for row in claims.rows] == [[0.7], [0.1], [0.1]]


@pytest.mark.parametrize(
    ("this_run", "kept"),
    [
        ([None, 3], [None, 3.0]),
        (np.array([[0.5, np.nan], [np.inf, 2]]), [0.5, None, None, 2.0]),
        ([None], [None]),
        (np.float32(0.5), [0.5]),
        (torch.tensor([1, 2]), [1.0, 2.0]),
        ([], []),
        (None, [None]),
    ],
)
def test_a_number_that_is_missing_is_kept_as_null(this_run, kept):
    claims = results.Claims()
    claims.asserted = False
    claims.check("Smallest that restores", this_run, "63 units")
    assert claims.rows[-1]["this run"] == kept


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([None], "none"),
        ([0.123456], "0.1235"),
        ([1376.600939], "1,377"),
        ([0.0, 0.5, None], "0, 0.5, none"),
        ([1.0] * 5, "1"),
        ([3.0, 1.0, 2.0, None], "1 to 3, or none"),
        ([0.0, None, 0.0, 0.0], "0, or none"),
    ],
)
def test_numbers_of_a_run_as_text(values, text):
    assert results.numbers(values) == text


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """A note's reference curves, of five seeds that fall to 0.1 within some 40 steps."""
    monkeypatch.setattr(results, "DATA", tmp_path)
    (tmp_path / "reference").mkdir()
    curves = {seed: np.exp(-np.arange(40) / (8 + seed / 10)) + 0.1 for seed in range(5)}
    path = tmp_path / "reference" / "01_note.csv"
    stored_curves.save_curves(path, {"size": 8}, {"a model": curves})
    return [curves[0], curves[3]], path


def test_a_note_with_its_own_settings_is_asserted_and_compared(reference, capsys):
    curves, _ = reference
    claims = results.Claims("01_note", size=8)
    assert claims.asserted and claims.reference["a model"].shape == (5, 40)
    claims.compare([0, 3], {"a model": curves})
    (row,) = claims.rows
    assert (row["this run"], row["must be"], row["baseline"]) == ([2], "2 of 2 curves", {"never falling": [0]})
    with pytest.raises(AssertionError, match="must be 2 of 2 curves, but this run: 1"):
        claims.compare([0, 3], {"a model": [curves[0], np.ones(40)]})


@pytest.mark.parametrize("names", [[], ["another"], ["a model", "another"]])
def test_curves_of_other_names_than_the_stored_ones_are_told(names, reference):
    curves, _ = reference
    with pytest.raises(checks.LabError, match=r"01_note.csv are of a model: `make reference`"):
        results.Claims("01_note", size=8).compare([0, 3], dict.fromkeys(names, curves))


def test_a_note_with_other_settings_is_neither(reference, capsys):
    curves, _ = reference
    claims = results.Claims("01_note", size=9)
    assert "Not compared with the reference curves: size is 9, not 8." in capsys.readouterr().out
    claims.compare([0, 3], {"a model": curves})
    assert not claims.asserted and claims.reference == {} and claims.rows == []


def test_make_reference_stores_the_curves_of_the_run(reference, monkeypatch):
    curves, path = reference
    path.unlink()
    monkeypatch.setenv(results.RECORD, "1")
    claims = results.Claims("01_note", size=9)
    claims.compare([0, 3], {"a model": curves}, every=2)
    assert claims.asserted and claims.reference == {} and claims.rows == []
    assert stored_curves.load_curves(path, {"size": 9})["a model"] == pytest.approx(np.array(curves), rel=1e-3)


def table_of(claims, monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append(data))
    claims.table()
    return shown[0]


ODD_NAMES = ["price $1_$2", "a|b", "*x*", "_y_", "__init__", "_DSC1", "a_b_c", "`q`", "<b>&amp;</b>", r"\(x\)", "a\\|b"]
ODD_NAMES += ["~~x~~", "[t](u)", "![i](x)", "100%", "é", "日本", "\"'", "h_n", "y[:, -1, :]", "1 < 2 & 3", "a\\", "#1"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_table_shows_a_name_letter_by_letter(monkeypatch, name):
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    claims = results.Claims()
    claims.check(name, 0.5, f"under 1 {name}", other=2)
    table = table_of(claims, monkeypatch)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", markdown2html_mistune(table["text/markdown"]))
    assert [html.unescape(re.sub(r"</?span>", "", cell)) for cell in cells] == [
        name,
        "0.5",
        f"under 1 {name}",
        "other 2",
    ]
    # MathJax reads the page once it is one: a formula's border stands in an element of its own
    assert not re.search(r"[^>]\$|\\[(\[]", html.unescape("".join(cells)))
    assert f"| {name} | 0.5 | under 1 {name} |" in table["text/plain"]


def test_table_keeps_a_name_of_two_lines_in_one_row(monkeypatch):
    claims = results.Claims()
    claims.check("one\ntwo", 1, "1")
    assert table_of(claims, monkeypatch)["text/markdown"].splitlines()[2:] == ["| one<br>two | 1 | 1 |  |"]


def test_table_shows_the_results_and_keeps_numbers_in_the_metadata(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append((data, options)))
    claims = results.Claims()
    claims.check("Loss falls", 0.123, "under 0.2 nats", untrained=[1, 2])
    claims.check("Bits are exact", [1.0] * 4, "1 of the bits")
    claims.table()
    ((data, options),) = shown
    assert data["text/markdown"] == data["text/plain"]
    assert data["text/markdown"].splitlines() == [
        "| result | this run | must be | baseline |",
        "| --- | --- | --- | --- |",
        "| Loss falls | 0.123 | under 0.2 nats | untrained 1, 2 |",
        "| Bits are exact | 1 | 1 of the bits |  |",
    ]
    assert options == {"raw": True, "metadata": {"claims": claims.rows}}


def test_a_readers_results_are_a_table_of_sentences_with_what_was_measured_in_bold(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append((data, options)))
    results.show_results(("Loss falls", "0.12 nats", "untrained 1.2"), ("Bits are exact", "all", "none"))
    ((data, options),) = shown
    assert data["text/markdown"].splitlines() == [
        "| result | measured | for comparison |",
        "| --- | --- | --- |",
        "| Loss falls | **0.12 nats** | untrained 1.2 |",
        "| Bits are exact | **all** | none |",
    ]
    rows = [["Loss falls", "0.12 nats", "untrained 1.2"], ["Bits are exact", "all", "none"]]
    assert options["metadata"] == {"results": rows}


def test_code_is_shown_as_it_stands_in_its_module_with_the_first_paragraph_of_its_docstring(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append(data))
    display.show_code(helpers.GenModel.features, helpers.flatten, helpers.first_below)
    (data,) = shown
    code = data["text/plain"]
    assert data["text/markdown"] == f"```python\n{code}\n```"
    whole = inspect.getsource(helpers.GenModel.features)  # one paragraph: all of it
    assert code.startswith(f"{textwrap.dedent(whole).rstrip()}\n\ndef flatten(")
    first = '"""The picture as a sequence (steps, input_size), dtype kept."""\n    picture = _checked_picture'
    assert first in code and inspect.getsource(helpers.flatten).count("step:") == 1 and "step:" not in code
    assert "\n\ndef first_below(steps, values, threshold):\n    " in code


def test_a_figure_is_shown_with_alternative_text(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append((data, options["metadata"])))
    plt.plot([1, 2])
    display.show_figure("a line that rises")
    ((data, metadata),) = shown
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and not plt.get_fignums()
    assert data["text/plain"] == "a line that rises" and metadata == {"image/png": {"alt": "a line that rises"}}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}, {"encoding": "one-hot"}, {"bidirectional": True}], ids=str)
def test_fields_are_measured_where_gradients_are_switched_off(build, draw, mode, settings):
    expected = helpers.receptive_field(model := build(**settings), sequences := draw(), 3)
    leaking = helpers.leaks(model, sequences)
    with mode():
        assert (helpers.receptive_field(model, sequences, 3) == expected).all()
        assert helpers.leaks(model, sequences.clone()) == leaking == settings.get("bidirectional", False)
        assert helpers.leaks(build(**settings), sequences.clone()) == leaking  # both made within
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("change", [np.asarray, torch.Tensor.tolist, torch.Tensor.byte, torch.Tensor.bool])
def test_sequences_are_floating_point_tensors(build, draw, change):
    model, sequences = build(), change(draw().round())
    for ask in (
        lambda: helpers.nats(model, sequences),
        lambda: helpers.sample(model, 9, sequences),
        lambda: helpers.receptive_field(model, sequences, 1),
        lambda: helpers.leaks(model, sequences),
        lambda: helpers.to_levels(sequences, 2),
        lambda: model.loss(sequences),
    ):
        with pytest.raises(checks.LabError, match="wanted as a float32 tensor"):
            ask()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_floating_point_sequences_of_any_precision_are_taken(build, draw, dtype):
    model, sequences = build(), draw().round()
    assert helpers.nats(model, sequences.to(dtype)) == pytest.approx(helpers.nats(model, sequences))
    assert torch.equal(helpers.sample(model, 9, sequences.to(dtype))[0], helpers.sample(model, 9, sequences)[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (results.span([98.4, 96.6, 97.0]), "97 to 98"),
        (results.span(0.7988, 2), "0.80"),
        (results.span([1377.4, None], unit=" times"), "1,377 times"),
        (results.span([None, np.nan], unit=" nats"), "none"),
        (results.percent([0.7988, 0.9326]), "80% to 93%"),
        (results.percent([0.499, 0.503], 1), "49.9% to 50.3%"),
        (results.percent(1), "100%"),
        (results.percent([]), "none"),
    ],
)
def test_a_range_of_numbers_as_text(text, expected):
    assert text == expected


# Errors


def test_a_standard_error_is_how_much_means_of_other_samples_differ():
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=(2000, 50))
    mean_error = np.mean([errors.standard_error(sample) for sample in samples])
    assert mean_error == pytest.approx(samples.mean(1).std(), rel=0.05)
    assert errors.standard_error(samples[0]) == pytest.approx(samples[0].std(ddof=1) / 50**0.5)


def test_values_of_one_cluster_count_as_the_one_sample_they_are():
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    again, names = np.repeat(values, 4), np.repeat([f"letter {number}" for number in range(30)], 4)
    assert errors.standard_error(again, names) == pytest.approx(errors.standard_error(values))
    assert errors.standard_error(again) < 0.6 * errors.standard_error(again, names)
    mixed = rng.permutation(120)
    assert errors.standard_error(again[mixed], names[mixed]) == pytest.approx(errors.standard_error(values))


def test_models_measured_on_the_same_pictures_are_compared_picture_by_picture():
    rng = np.random.default_rng(0)
    hard = rng.normal(80, 20, 1000)
    first, second = (hard + by + rng.normal(0, 1, 1000) for by in (0.2, 0.0))
    apart, error = errors.difference(first, second)
    assert apart == pytest.approx(first.mean() - second.mean()) and abs(apart - 0.2) < 3 * error
    assert error < 0.1 * errors.standard_error(first)


@pytest.mark.parametrize(
    ("values", "clusters"),
    [([], None), ([1.0], None), ([1.0, 2.0], ["a", "a"]), ([1.0, 2.0], ["a"]), ([[1.0, 2.0]], None)],
)
def test_what_has_no_standard_error_is_told(values, clusters):
    with pytest.raises(checks.LabError, match="two values or more"):
        errors.standard_error(values, clusters)
