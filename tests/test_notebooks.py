"""What a notebook is stored as: run in order, with outputs that can be compared on another machine. nbval itself runs
beside these tests; the last ones see that it, and the checks of the notebooks, can fail."""

import configparser
import copy
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import links
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from PIL import Image
from quoted import NUMBER, numbers_in, shown_by, stands_among

import helpers
from causality import causality
from pixelrnn.data import icons, letters, photos
from pixelrnn.evidence import results, stored_curves
from pixelrnn.models import colour, orders, paper, photo
from support import checks

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PNG, TABLE = "image/png", "text/markdown"


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def test_the_series_is_numbered_without_gaps():
    assert [path.name[:2] for path in PATHS] == [f"{number:02}" for number in range(1, len(PATHS) + 1)]


def test_is_stored_executed_in_order(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert len(outputs(notebook)) > 10 and not [output for output in outputs(notebook) if output.output_type == "error"]


def test_has_one_parameters_cell_before_anything_is_computed(notebook):
    tagged = [index for index, cell in enumerate(code(notebook)) if "parameters" in cell.metadata.get("tags", ())]
    assert tagged == [1]  # after the imports


def test_has_no_output_that_differs_on_each_run(notebook):
    for output in outputs(notebook):
        assert set(output.get("data", {})) <= {PNG, TABLE, "text/plain"}
        assert output.get("name") != "stderr"  # a progress bar, a warning
        assert " at 0x" not in str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))


def test_silences_no_cell_with_a_semicolon(notebook):
    assert not [cell.source for cell in code(notebook) if cell.source.rstrip().endswith(";")]


def test_names_no_private_path(notebook):
    text = nbformat.writes(notebook)
    text = re.sub(r'"image/png": "[^"]*"', "", text)  # base64 holds any three letters
    assert not re.search(r"/home/|/root/|/Users/|/tmp/|/work/|C:\\\\", text)


def test_follows_the_order_of_the_series(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = ("Question.**", "The data", "What was measured", "What we read", "What it does not show")
    headings += ("Three things to try", "Checks")
    places = [re.search(rf"(?m)^(\*\*|##+ ){re.escape(heading)}", text) for heading in headings]
    assert None not in places
    assert [place.start() for place in places] == sorted(place.start() for place in places)


def test_has_figures_a_readers_results_and_a_table_of_checks(notebook):
    metadata = [output.get("metadata", {}) for output in outputs(notebook)]
    assert len([output for output in outputs(notebook) if PNG in output.get("data", {})]) >= 5
    assert len([one for one in metadata if "claims" in one]) == 1
    (rows,) = [one["results"] for one in metadata if "results" in one]
    assert 3 <= len(rows) <= 6
    for sentence, measured, compared in rows:
        assert len(sentence.split()) >= 4 and re.search(r"\d|none|all", measured) and compared


SHOWS = "figure|table|results|maps|bars|lines|losses|pictures|png"
DRAWS = rf"\bplt\.(?!Rectangle)|\bshow_({SHOWS})\(|\b(panels|filmstrip|diagrams\.\w+)\("


def parts_of(notebook):
    """Code cells by kind, each as its lines that are not blank: what checks, draws or tabulates, and what does neither.

    Checks stand after the heading "Checks", with all that is computed for them."""
    parts, checking = {"checks": [], "figures": [], "others": []}, False
    for cell in notebook.cells:
        checking |= cell.cell_type == "markdown" and "## Checks" in cell.source
        if cell.cell_type == "code":
            kind = "checks" if checking else "figures" if re.search(DRAWS, cell.source) else "others"
            parts[kind].append([line for line in cell.source.splitlines() if line.strip()])
    return parts


def test_cells_are_short_and_checks_and_figures_few(notebook):
    parts = parts_of(notebook)
    lines = [line for kind in parts.values() for line in kind]
    assert max(map(len, lines)) <= 25 and statistics.median(map(len, lines)) < 8
    assert max(len(line) for cell in lines for line in cell) <= 100
    total = sum(map(len, lines))
    assert sum(map(len, parts["checks"])) <= 0.10 * total
    assert sum(map(len, parts["figures"])) <= 0.25 * total


def test_checks_stand_together_at_the_end_folded(notebook):
    parts = parts_of(notebook)
    before = "\n".join(line for cell in (*parts["figures"], *parts["others"]) for line in cell)
    assert not re.search(r"claims\.(check|compare|table)\b|^ *assert ", before, re.M)
    assert re.search(r"\bcheck\(", "\n".join(line for cell in parts["checks"] for line in cell))
    checking = False
    for cell in notebook.cells:
        checking |= cell.cell_type == "markdown" and "## Checks" in cell.source
        if cell.cell_type == "code" and (checking or cell.id in ("settings", "results")):
            assert cell.metadata["jupyter"]["source_hidden"] and cell.metadata["tags"] == ["hide-input"], cell.id


def test_what_a_reader_takes_away_is_what_was_checked(notebook):
    """Each number of the results, but those in their sentences, is one that a check asserts or uses as a baseline."""
    metadata = [output.get("metadata", {}) for output in outputs(notebook)]
    (claims,) = [one["claims"] for one in metadata if "claims" in one]
    (rows,) = [one["results"] for one in metadata if "results" in one]
    known = [value for row in claims for values in (row["this run"], *row["baseline"].values()) for value in values]
    known = [abs(value) for value in known if value is not None]
    for sentence, measured, compared in rows:
        for number in re.findall(NUMBER, f"{measured} {compared}"):
            assert stands_among(number.lstrip("-"), known), (sentence, number)


def test_what_we_read_quotes_values_that_the_notebook_shows(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    (read,) = re.findall(r"(?s)## What we read\n(.*?)\n#+ What it does not show", text)
    assert all(stands_among(number, shown_by(notebook)) for number in numbers_in(read)), read


def test_a_number_stands_among_others_where_it_rounds_to_its_digits():
    for text, value in (("0.80", 0.7988), ("36.5%", 0.36541), ("98%", 97.6), ("1,377", 1377), ("-2.3", -2.297)):
        assert stands_among(text, [5, value])
    for text, value in (("0.81", 0.7988), ("36.4%", 0.36541), ("98%", 97.4), ("1,378", 1377), ("2.3", -2.297)):
        assert not stands_among(text, [5, value])


def test_figures_have_alternative_text(notebook):
    figures = [output for output in outputs(notebook) if PNG in output.get("data", {})]
    assert all(len(output.metadata[PNG]["alt"]) > 20 for output in figures)


def test_links_to_its_neighbours_stand_at_the_top_and_at_the_bottom(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    (last,) = [text for text in texts if "Three things to try" in text]
    assert re.search(r"\[Answers\]\(\.\./labnotes/answers\.md#note-\d+\)", last)
    for text in (texts[0], last):
        assert re.search(r"\]\(\d\d_\w+\.ipynb\)", text) and "](../labnotes/README.md)" in text
        assert re.search(r"\]\(\.\./labnotes/\d\d_\w+\.md\)", text)


def test_skips_the_comparison_of_few_cells_and_never_of_claims(notebook):
    ignored = [cell for cell in code(notebook) if "nbval-ignore-output" in cell.metadata.get("tags", ())]
    assert len(ignored) <= 2 and not [cell for cell in ignored if "claims" in cell.source]
    assert not [cell for cell in code(notebook) if "nbval-skip" in cell.metadata.get("tags", ())]


# --- Other settings ---------------------------------------------------------------------------------------------------


def run_with(note, monkeypatch, capsys, only=(), **settings):
    """The cells of a notebook in this process, each figure drawn, with other settings; a warning is an error.

    Returns what they printed, and what they left. only: ids of cells, where not all are wanted.
    """
    (path,) = [path for path in PATHS if path.stem.startswith(note)]
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which a notebook adds to
    monkeypatch.setattr(plt, "show", lambda: [plt.figure(number).canvas.draw() for number in plt.get_fignums()])
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cell in code(nbformat.read(path, as_version=4)):
            if not only or cell.id in only:
                exec(compile(cell.source, f"{path.name}, cell {cell.id}", "exec"), names)
                plt.close("all")
            names |= settings if cell.id == "parameters" else {}
    return capsys.readouterr().out, names


@pytest.fixture
def picture(tmp_path):
    """A reader's own picture, of few pixels and with a name of its own kind."""
    path = tmp_path / "_DSC $1_$2 100%.png"
    Image.effect_noise((40, 30), 60).convert("RGB").save(path)
    return path


@pytest.mark.parametrize(
    ("note", "settings"),
    [
        ("01", {"SIZE": helpers.np.int64(6), "STEPS": 2}),
        ("02", {"SIZE": 4, "STEPS": 1}),
        ("03", {"SIZE": helpers.np.int64(8), "STEPS": 2, "SEEDS": 1}),
        ("04", {"SIZE": 5, "STEPS": 1, "FULL": 16}),
        ("07", {"STEPS": 2, "HIDDEN": 8}),
    ],
)
def test_runs_to_its_end_with_small_settings_and_a_picture_of_ones_own(note, settings, picture, monkeypatch, capsys):
    alphabet = letters.load_letters()
    few = alphabet._replace(test=alphabet.test[:720])  # of those that the stored weights read, which no setting changes
    monkeypatch.setattr(letters, "load_letters", lambda: few)
    printed, names = run_with(note, monkeypatch, capsys, IMAGE=picture, **{"SEEDS": [0], **settings})
    assert "Not compared with the reference curves" in printed
    rows = names["claims"].rows
    assert len(rows) > 5 and [row for row in rows if "not so here" in row["must be"]]


@pytest.mark.parametrize("shade", [0, 255])
def test_a_picture_of_one_colour_is_one_too(shade, tmp_path, monkeypatch, capsys):
    path = tmp_path / "plain.png"
    Image.new("RGB", (8, 8), (shade,) * 3).save(path)
    _, names = run_with("02", monkeypatch, capsys, IMAGE=path, SIZE=4, STEPS=1, SEEDS=[0])
    assert [row for row in names["claims"].rows if "not so here" in row["must be"]]


@pytest.mark.parametrize(
    ("note", "name", "value", "smallest"),
    [
        ("01", "SIZE", 1, 2),
        ("01", "STEPS", 0, 1),
        ("01", "SEEDS", [], "at least one"),
        ("01", "RATES", {"categorical": 0.02}, "above 0"),
        ("02", "SIZE", 3, 4),
        ("02", "SIZE", (8, 9), 4),
        ("02", "STEPS", 2.5, 1),
        ("02", "PICTURES", [], "no picture"),
        ("03", "SIZE", 7, 8),
        ("03", "WINDOW", 0, 1),
        ("03", "STEPS", 1, 2),
        ("03", "SEEDS", [0, "1"], 0),
        ("04", "SIZE", 1, 2),
        ("04", "FULL", 1, 2),
        ("05", "LETTER_STEPS", 0, 1),
        ("05", "SEEDS", [], "at least one"),
        ("07", "STEPS", 0, 1),
        ("07", "SEEDS", [], "at least one"),
        ("07", "LAYERS", 0, 1),
        ("08", "COUNT", 2, 8),
        ("08", "HALF", 0, 1),
        ("09", "COUNT", 2, 8),
        ("09", "FEW", 0, 8),
        ("10", "STEPS", 0, 1),
        ("10", "SEEDS", [], "at least one"),
        ("10", "RATES", {"PixelCNN": 0.01, "attention": 0, "LSTM": 0.01}, "above 0"),
        ("11", "LEVELS", 24, "LEVELS"),  # the exclusive or of two levels below 24 can be 31
        ("11", "UPDATES", {"exclusive or": 0, "tinted walk": 300}, "exclusive or.* at least 1"),
        ("11", "SEEDS", [], "at least one"),
        ("12", "UPDATES", 0, 1),
        ("12", "SEEDS", [], "at least one"),
        ("12", "FEATURES", 0, 1),
        ("13", "UPDATES", 0, 1),
        ("13", "SEEDS", [], "at least one"),
        ("13", "FEATURES", 0, 1),
    ],
)
def test_a_setting_that_cannot_do_is_told_before_anything_is_trained(note, name, value, smallest, monkeypatch, capsys):
    told = smallest if isinstance(smallest, str) else f"{name}.* must be a whole number of at least {smallest}, not "
    with pytest.raises(checks.LabError, match=told):
        run_with(note, monkeypatch, capsys, only=("imports", "parameters", "settings"), **{name: value})


# --- What can be copied -----------------------------------------------------------------------------------------------


def copied(note, *ids):
    """What some cells of a notebook define in an empty one; they are whole, and import torch and numpy alone."""
    (path,) = [path for path in PATHS if path.stem.startswith(note)]
    sources = [next(cell.source for cell in code(nbformat.read(path, as_version=4)) if cell.id == each) for each in ids]
    assert {name.partition(".")[0] for name in links.imported("\n".join(sources))} <= {"torch", "numpy"}
    assert all(len(source.splitlines()) <= 35 for source in sources)
    names = {}
    for source in sources:
        exec(source, names)
    return names


GREY = torch.arange(0, 256, 17)[None, :, None] / 255  # pixels of a picture of 4 x 4
BITS = (torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float()  # 6 rows of 5 bits
COPIED = {  # note -> cells, a picture, what the series' own network is told, what `generate` is told
    "01": (("model-code", "by-hand"), GREY, {"distribution": "categorical", "encoding": "one-hot"}, (16,)),
    "02": (("head", "by-hand"), BITS, {"norm": "layer"}, (6, 5)),
}


@pytest.mark.parametrize("note", COPIED)
def test_the_network_of_a_note_is_copied_trained_and_sampled_and_is_the_series_own(note):
    torch.manual_seed(0)
    ids, picture, settings, length = COPIED[note]
    names = copied(note, *ids)
    for others in ({"num_layers": 2}, {"bidirectional": True}, {}):
        model = names["GenModel"](picture.shape[-1], 32, **others)
        own = helpers.GenModel(picture.shape[-1], 32, **others, **settings)
        own.load_state_dict(model.state_dict())
        logits, _ = model(torch.cat([torch.full_like(picture[:, :1], 0.5), picture[:, :-1]], 1))
        assert torch.allclose(logits, own.teacher_forced(picture).reshape(logits.shape), atol=1e-6)
    assert not torch.equal(names["generate"](model, *length), picture)
    names["teach"](model, picture, steps=120, learning_rate=0.02)
    helpers.train(own, picture, steps=120, learning_rate=0.02)
    assert torch.equal(names["generate"](model, *length), picture)
    assert torch.equal(helpers.sample(own, picture.shape[1])[0], picture)
    for weight, same in zip(model.parameters(), own.parameters(), strict=True):
        assert torch.allclose(weight, same, atol=1e-3)


MISTAKES = {"PixelCNN": {"first": "B"}, "Attention": {"empty_row": True}, "PixelLSTM": {"bidirectional": True}}


@pytest.mark.parametrize("network", MISTAKES)
def test_the_networks_of_note_10_are_copied_and_leak_by_one_argument_each(network):
    cells = "measures", "masked-conv", "pixelcnn", "attention-layer", "attention", "lstm", "teach", "sample"
    names = copied("10", *cells)
    digits = (torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    for arguments in ({}, MISTAKES[network]):
        torch.manual_seed(0)
        model = names[network](16, **arguments)
        before = names["in_one_pass"](model, digits).mean().item()
        names["teach"](model, digits, 40, 0.01, seed=0, batch=8)
        apart = (names["in_one_pass"](model, digits) - names["value_by_value"](model, digits)).abs().max()
        assert causality(model, digits[:4]).causal == (not arguments) == bool(apart < 1e-3)
        assert names["in_one_pass"](model, digits).mean() < before
        assert set(names["sample"](model, 2).unique().tolist()) <= {0, 1}


def test_note_11_runs_to_its_end_with_small_settings(monkeypatch, capsys):
    updates = {"exclusive or": 1, "tinted walk": 2}
    told, names = run_with("11", monkeypatch, capsys, LEVELS=16, UPDATES=updates, SEEDS=[3], UNITS=4)
    assert not names["claims"].asserted and "not so here" in told
    assert names["exact"]["exclusive or", "red, green, blue"].sum() == pytest.approx(8)  # 12 - log2(16)


def test_the_network_of_note_11_is_copied_and_sees_what_it_is_given():
    names = copied("11", "network")
    rows = torch.randint(8, (8, 3, 2), generator=torch.Generator().manual_seed(0))
    order = torch.arange(6).view(3, 2)
    for sees, causal in ((((), ()), True), (((), (0,)), True), (((1,), ()), False), (((), (1,)), False)):
        torch.manual_seed(0)
        measured = causality(names["PixelRow"](sees, 8, 4), rows, order=order)
        assert measured.causal == causal and measured.uses["evaluation"][4:, :4].all()


def test_note_12_runs_to_its_end_with_small_settings(monkeypatch, capsys):
    told, names = run_with("12", monkeypatch, capsys, UPDATES=1, SEEDS=[3], FEATURES=4)
    assert not names["claims"].asserted and "not so here" in told
    assert names["new"].shape == (48, 16, 16, 3)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("head", colour.HEADS)
def test_the_network_of_note_12_is_copied_and_is_the_series_own(head, in_order):
    names = copied("12", "heads", "copies", "before", "network", "probabilities")
    torch.manual_seed(0)
    model, few = names["ColourPixelCNN"](head, 8, in_order), torch.from_numpy(icons.load_icons().test[:2])
    own = colour.ColourPixelCNN(head, 8, in_order=in_order)
    own.load_state_dict(model.state_dict())
    assert torch.allclose(own.bits(few), names["bits"](model, few), atol=1e-5)


def test_note_13_runs_to_its_end_with_small_settings(monkeypatch, capsys):
    told, names = run_with("13", monkeypatch, capsys, UPDATES=1, SEEDS=[3], FEATURES=4)
    assert not names["claims"].asserted and "not so here" in told
    assert (names["ended"][0, :, :16] == names["ended"][1, :, :16]).all()  # the halves that were given
    assert (names["ended"][0] != names["ended"][1]).any((1, 2, 3)).all()


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("head", photo.HEADS)
def test_the_network_of_note_13_is_copied_and_is_the_series_own(head, in_order):
    names = copied("13", "windows", "nearby", "mixture", "network", "probabilities")
    assert names["PLACES"] == photo.offsets()
    few = torch.from_numpy(photos.photograph("chelsea"))[None, 100:110, 100:120]
    window, pixels = names["windows"](few).flatten(0, 2), few.flatten(0, 2)
    assert torch.equal(window, photo.windows(few, photo.offsets()).flatten(0, 2))
    torch.manual_seed(0)
    model, own = names["PhotoPixelCNN"](head, 8, in_order), photo.PhotoPixelCNN(head, 8, in_order=in_order)
    own.load_state_dict(dict(zip(own.state_dict(), model.state_dict().values(), strict=True)))
    assert torch.allclose(own.bits(window, pixels), names["bits"](model, window, pixels), atol=1e-4)


def test_the_network_of_note_13_learns_as_the_series_own():
    names = copied("13", "windows", "learning")
    torch.manual_seed(0)
    model, piece = photo.PhotoPixelCNN(features=8), torch.from_numpy(photos.photograph("chelsea"))[100:140, 100:164]
    own = photo.bits_while_learning(model, piece)
    assert torch.allclose(names["while_learning"](copy.deepcopy(model), piece), own, atol=1e-3)
    assert not torch.allclose(names["while_learning"](model, piece, ahead=8), own, atol=1e-3)


@pytest.mark.parametrize(
    ("output", "bidirectional", "window"), [("seq2seq", False, None), ("seq2vec", False, 2), ("seq2vec", True, 3)]
)
def test_both_networks_of_note_3_are_copied_trained_and_sampled_and_are_the_series_own(output, bidirectional, window):
    torch.manual_seed(0)
    names = copied("03", "features", "by-hand")
    model = names["GenModel"](5, 32, bidirectional=bidirectional, last=output == "seq2vec")
    own = helpers.GenModel(5, 32, bidirectional=bidirectional, output=output, window=window, norm="layer")
    own.load_state_dict(model.state_dict())
    assert torch.allclose(model(BITS), own(BITS), atol=1e-6)
    assert not torch.equal(names["generate"](model, 6, 5, window), BITS)
    names["teach"](model, BITS, steps=120, window=window, learning_rate=0.02)
    helpers.train(own, BITS, steps=120, learning_rate=0.02)
    assert torch.equal(names["generate"](model, 6, 5, window), BITS)
    assert torch.equal(helpers.sample(own, 6)[0], BITS)
    for weight, same in zip(model.parameters(), own.parameters(), strict=True):
        assert torch.allclose(weight, same, atol=1e-3)


def test_the_joint_row_of_note_5_is_copied_trained_and_sampled_and_is_the_series_own():
    torch.manual_seed(0)
    names = copied("05", "head", "joint-row", "by-hand")
    model, own = names["JointRow"](5, 32), helpers.GenModel(5, 32, head="joint")
    own.load_state_dict({k if k.startswith("rnn") else f"head.{k}": w for k, w in model.state_dict().items()})
    striped = (torch.rand(500, 6, 1) < 0.5).float()  # each value is the opposite of its left neighbour
    striped = (striped + torch.arange(5)) % 2
    assert torch.allclose(model(striped), own.teacher_forced(striped), atol=1e-6)
    assert not helpers.leaks(own, BITS[:, :4].float())

    def alternating():
        pictures = names["generate"](model, 20, 6, 5)
        return float((pictures[..., 1:] != pictures[..., :-1]).float().mean())

    assert alternating() < 0.7
    names["teach"](model, striped, steps=120)
    assert alternating() > 0.95


def given(own, weights):
    """A module with these weights. The series' kernels have no rows below the middle one, which are masked."""
    for mine, other in zip(own.parameters(), weights, strict=True):
        mine.data[tuple(map(slice, other.shape))] = other.data
    return own


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layers_of_note_6_are_copied_and_are_the_series_own(channels):
    torch.manual_seed(0)
    ids = ("grey-mask", "masked-conv", "lstm", "row-lstm", "skew", "diagonal-bilstm", "diagonal-layer", "gated-layer")
    names, x = copied("06", *ids), torch.randn(2, 12, 5, 4)
    for kind in "AB":
        own, theirs = (cls(kind, 12, 12, (7, 7), channels) for cls in (names["MaskedConv"], paper.MaskedConv))
        assert torch.equal(own.mask[:, :, :4], theirs.mask) and not own.mask[:, :, 4:].any()
        assert torch.allclose(given(own, theirs.parameters())(x), theirs(x), atol=1e-6)
    for name in ("RowLSTM", "DiagonalBiLSTM"):
        theirs = getattr(paper, name)(6)
        own = given(names[name](6), theirs.parameters())
        assert torch.allclose(own(x), theirs.network(x, lambda layer, x: layer(x)), atol=1e-6)
    conv, link = paper.MaskedConv("rows", 6, 12, (3, 3)), paper.MaskedConv("rows", 12, 12)
    row, residual = paper.MaskedConv("B", 6, 12, (1, 3), parts=2), paper.MaskedConv("B", 6, 6)
    weights = [weight for part in (conv, link, row, residual) for weight in part.parameters()]
    own, (above, left) = given(names["GatedLayer"](6), weights), x.chunk(2, 1)
    seen = conv(above)
    wanted = left + residual(paper._gated(row(left) + names["down"](link(seen))))
    for output, expected in zip(own(above, left), (paper._gated(seen), wanted), strict=True):
        assert torch.allclose(output, expected, atol=1e-6)
    assert torch.equal(copied("06", "skew")["skew"](x), paper.skew(x))


def test_the_mixture_of_orders_of_note_7_is_copied_and_is_the_series_own():
    torch.manual_seed(0)
    names, pictures = copied("07", "orders-by-hand"), (torch.rand(7, 6, 6) < 0.5).float()
    series = orders.Mixture(list(range(8)), [helpers.GenModel(6, 8, head="joint") for _ in range(8)])
    own, each = names["mixture"](pictures, lambda x, order: series.in_order(order).teacher_forced(x))
    mixed, theirs = series.nats(pictures, each=True)
    assert torch.allclose(own.float(), torch.tensor(mixed).float(), atol=1e-4)
    assert torch.allclose(each.float(), torch.tensor(theirs).float(), atol=1e-4)


def test_the_head_of_note_4_is_copied_fitted_and_is_the_series_own():
    names, own = copied("04", "plain"), helpers.GenModel(5, 6)  # as many units as rows: enough for noise
    torch.manual_seed(0)
    lstm, head = names["fit_random_lstm"](BITS[0], 6)
    own.rnn.load_state_dict(lstm.state_dict())
    helpers.fit_head(own, BITS)
    weights = torch.cat([own.head.weight.T, own.head.bias[None]])
    assert torch.allclose(head.float(), weights, atol=1e-3)
    assert torch.equal(names["generate"](lstm, head, 6), BITS[0])
    assert not torch.equal(names["generate"](lstm, torch.randn_like(head), 6), BITS[0])


def test_both_loops_of_note_8_are_copied_and_sample_what_the_series_does():
    torch.manual_seed(0)
    names, own = copied("08", "row-model", "two-loops"), helpers.GenModel(5, 16)
    model = names["RowModel"](5, 16)
    own.load_state_dict(model.state_dict())

    def seeded(sample, *arguments, seed=0, **settings):
        torch.manual_seed(seed)
        return sample(*arguments, **settings)

    wanted, _ = seeded(helpers.sample, own, 9, temperature=1.0)
    for loop in ("sample_naively", "sample_cached"):
        assert torch.equal(seeded(names[loop], model, 9, 5), wanted)
        assert not torch.equal(seeded(names[loop], model, 9, 5, seed=1), wanted)


@pytest.mark.parametrize("seed", range(20))
def test_the_coder_of_note_9_is_copied_and_gives_back_what_it_was_given(seed):
    names, generator = copied("09", "coder"), torch.Generator().manual_seed(seed)
    one, count = names["ONE"], 300
    chances = torch.rand(count, generator=generator) ** (seed % 5 + 1)  # some of them very small
    ones = (chances * one).long().clamp(1, one - 1)
    bits = (torch.rand(count, generator=generator) < ones / one).long()
    code = names["encode"](bits.tolist(), ones.tolist())
    next_bit = names["decoder"](code)
    assert [next_bit(p) for p in ones.tolist()] == bits.tolist() and set(code) <= {"0", "1"}
    least = -torch.log2(torch.where(bits == 1, ones, one - ones) / one).sum()
    assert -0.01 < len(code) - least < 2.01
    middle = len(code) // 2
    other = names["decoder"](code[:middle] + str(1 - int(code[middle])) + code[middle + 1 :])
    assert [other(p) for p in ones.tolist()] != bits.tolist()


# --- The checks can fail ----------------------------------------------------------------------------------------------

IMPORTS = f"""import sys
sys.path[:0] = [{str(ROOT)!r}]
from pixelrnn.evidence.results import Claims, show_results"""
CLAIM = """claims = Claims()
claims.check("two and two", 2 + 2, "{four} things", zero=0)
show_results(("Two and two make this many", f"{{2 + 2}} things", "of none: 0"))
claims.table()"""


def small_notebook(folder, *claims):
    """A notebook of some claims, run, with its outputs: what the real ones are made of, in a second."""
    import nbclient

    cells = [nbformat.v4.new_code_cell(source) for source in (IMPORTS, *claims)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, folder / "small.ipynb")
    return notebook


def write(path, *cells):
    """A notebook of (source, *tags) cells that names an execution count for each and was not run."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    for number, (source, *tags) in enumerate(cells, 1):
        cell = nbformat.v4.new_code_cell(source, execution_count=number, metadata={"tags": tags})
        notebook.cells.append(cell)
    nbformat.write(notebook, path)


def nbval(folder, *arguments, **environment):
    """pytest, as the project configures it, on the notebooks of a folder."""
    for name in ("conftest.py", "pyproject.toml", "tests/sanitize.cfg", "tools/environment.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-n", "0", *arguments, "."]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


# What is altered in the stored results of a reader, and in the stored table of checks: old -> new.
NUMBERS = {"two | 4 |": "two | 3.9 to 4.0001 |", "zero 0": "zero 0.1"}
ALTERED = {
    "this run's numbers": ({"**4 things**": "**5 things**", "none: 0": "none: 1"}, NUMBERS),
    "the sentence of a reader's result": ({"Two and two": "One and three"}, {}),
    "the name in the table": ({}, {"two and two": "one and three"}),
    "the bound in the table": ({}, {"| 4 things |": "| 5 things |"}),
    "the baseline in the table": ({}, {"zero 0": "one 0"}),
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What nbval says of a notebook in which each of ALTERED is altered in a cell of its own."""
    folder = tmp_path_factory.mktemp("altered")
    notebook = small_notebook(folder, *[CLAIM.format(four=4)] * len(ALTERED))
    for cell, altered in zip(notebook.cells[1:], ALTERED.values(), strict=True):
        assert "| Two and two make this many | **4 things** | of none: 0 |" in cell.outputs[0].data[TABLE]
        assert "| two and two | 4 | 4 things | zero 0 |" in cell.outputs[1].data[TABLE]
        for output, changes in zip(cell.outputs, altered, strict=True):
            for kind, (old, new) in itertools.product((TABLE, "text/plain"), changes.items()):
                assert old in output.data[kind]
                output.data[kind] = output.data[kind].replace(old, new)
    nbformat.write(notebook, folder / "small.ipynb")
    return nbval(folder)


@pytest.mark.parametrize("altered", ALTERED)
def test_nbval_passes_other_numbers_of_a_run_and_fails_all_else(compared, altered):
    """This run's numbers stand in a reader's results and in the table of checks, and may differ; all else may not."""
    number = 1 + list(ALTERED).index(altered)
    failed = f"FAILED small.ipynb::Cell {number} " in compared.stdout
    assert failed == (altered != "this run's numbers"), compared.stdout
    assert compared.returncode == 1 and f"{len(ALTERED) - 1} failed, 2 passed" in compared.stdout


def test_what_is_not_compared_is_every_number_of_a_result_and_nothing_else(notebook):
    """Other numbers in the stored tables are the same to nbval; other names of results and baselines are not."""
    rules = configparser.RawConfigParser()
    rules.read(ROOT / "tests" / "sanitize.cfg")

    def compared(text):
        for rule in rules.sections():
            text = re.sub(rules[rule]["regex"], rules[rule]["replace"], text)
        return text

    (table,) = [output.data["text/plain"] for output in outputs(notebook) if "claims" in output.get("metadata", {})]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    assert len(rows) > 8
    for row in rows:
        written = results.numbers([0.1, 2.5e-7, None, 3])
        for baseline in filter(None, (row[3:] or [""])[0].split("; ")):
            name = re.sub(r" (none|-?[\d.,]+(e-\d+)?)((, | to )(or )?(none|-?[\d.,]+(e-\d+)?))*$", "", baseline)
            text = f"| {' | '.join(row)} |"
            assert compared(text.replace(baseline, f"{name} {written}")) == compared(text), text
            assert compared(text.replace(baseline, "")) != compared(text), text
            assert compared(text.replace(baseline, f"x{baseline}")) != compared(text), text
    head, body = table.split("--- |\n")
    altered = f"{head}--- |\n" + re.sub(r"(?m)^(\| [^|]+ \|) [^|]+ \|", r"\1 7.5 |", body)
    assert compared(altered) == compared(table) and altered != table


def test_a_claim_that_fails_stops_the_notebook(tmp_path):
    with pytest.raises(Exception, match="two and two: must be 5 things, but this run: 4"):
        small_notebook(tmp_path, CLAIM.format(four=5))


def test_a_figure_is_stored_whatever_a_reader_has_set(tmp_path):
    import nbclient

    source = "import matplotlib.pyplot as plt\n1 + 1\n_ = plt.plot([1, 2])\nplt.show()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    assert [PNG in output.data for output in notebook.cells[0].outputs] == [True]
    nbformat.write(notebook, tmp_path / "small.ipynb")
    (tmp_path / "own" / "profile_default").mkdir(parents=True)
    profile = "get_config().InteractiveShell.ast_node_interactivity = 'all'"
    (tmp_path / "own" / "profile_default" / "ipython_config.py").write_text(profile)
    (tmp_path / "own" / "matplotlibrc").write_text("text.usetex: True\n")
    own = dict.fromkeys(("IPYTHONDIR", "MATPLOTLIBRC", "MPLCONFIGDIR"), str(tmp_path / "own"))
    result = nbval(tmp_path, MPLBACKEND="Agg", PYTHONSTARTUP="nowhere", **own)
    assert result.returncode == 0, result.stdout


# --- No cell passes without having run to its end --------------------------------------------------------------------

TRAINS = f"""import sys
sys.path[:0] = [{str(ROOT)!r}]
import helpers, torch
history = helpers.train(helpers.GenModel(12, 64), torch.ones(64, 16, 12), steps=10**9)"""
CATCHES = """import time
try:
    time.sleep(600)
except KeyboardInterrupt:
    pass"""
PRINTS_ON = """import time
while True:
    try:
        time.sleep(0.2)
        print("on")
    except KeyboardInterrupt:
        pass"""


MARKS = """import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        for name in set(item.cell.metadata.tags) & {"skip", "xfail"}:
            item.add_marker(getattr(pytest.mark, name)(reason="as the test wants"))"""
EXCUSED = [
    ("1 + 1\nNone",),
    ("assert False", "xfail"),
    ("None", "xfail"),
    ("None", "skip"),
    ("None", "nbval-skip"),
    ("# NBVAL_SKIP\nNone",),
]


@pytest.mark.parametrize("workers, slow", [("0", [CATCHES]), ("2", [TRAINS, PRINTS_ON])], ids=["one", "two workers"])
def test_a_cell_that_times_out_or_is_excused_fails_and_is_named(tmp_path, workers, slow):
    (tmp_path / "marks.py").write_text(MARKS)
    write(tmp_path / "excused.ipynb", *EXCUSED)
    for number, source in enumerate(slow):
        write(tmp_path / f"slow{number}.ipynb", ("None",), (source,), ("None",), ("assert False, 'was run'",))
    write(tmp_path / "dies.ipynb", ("import os\nos._exit(1)",), ("None",))
    result = nbval(tmp_path, "--nbval-cell-timeout=5", "-n", workers, "-p", "marks", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1, result.stdout
    for number in range(1, len(EXCUSED)):
        assert re.search(rf"\w+ excused.ipynb::Cell {number} - was (marked as expected to fail|skipped)", result.stdout)
    for number in range(len(slow)):
        assert f"FAILED slow{number}.ipynb::Cell 1 - took longer than 5 s" in result.stdout
        for later in (2, 3):
            assert f"ERROR slow{number}.ipynb::Cell {later} - Failed: not run: an earlier cell" in result.stdout
    assert f" {1 + len(slow)} passed" in result.stdout and "was run" not in result.stdout
    # A kernel that dies is not waited for.
    assert "FAILED dies.ipynb::Cell 0" in result.stdout and "The kernel died while it ran this cell." in result.stdout
    assert "dies.ipynb::Cell 0 - took longer" not in result.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "reference").glob("*.csv")), ids=lambda path: path.stem)
def test_reference_seeds_fall_as_fast_as_each_other_and_an_untrained_model_does_not(path):
    settings = json.loads(path.open().readline().removeprefix("# "))
    floor = settings.get("floor", 0.0)
    for name, seeds in stored_curves.load_curves(path, settings).items():
        assert len(seeds) >= 5, name
        for seed in range(len(seeds)):
            others = [row for number, row in enumerate(seeds) if number != seed]
            assert stored_curves.fraction_in_time(seeds[seed], helpers.np.array(others), floor=floor) >= 0.9, name
        assert stored_curves.fraction_in_time([seeds[0][0]] * seeds.shape[1], seeds, floor=floor) < 0.5, name


def test_importing_what_downloads_says_nothing_in_a_notebook(tmp_path):
    """Pooch's progress bar warns in a kernel without widgets, which would fail every cell that loads a picture."""
    import nbclient

    source = f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\nimport helpers, pooch\nhelpers.load_picture('camera')[0, 0]"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    assert [output.output_type for output in notebook.cells[0].outputs] == ["execute_result"]
