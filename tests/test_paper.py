"""The paper's models: causal value by value, hearing what they should, and drawn fast as they are drawn naively."""

import copy
import itertools
import sys

import numpy as np
import pytest
import torch
from torch import nn

import helpers
from pixelrnn.models import paper, saving
from pixelrnn.models.ensemble import Average
from pixelrnn.models.paper import MADE, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, PixelRNN, RowLSTM
from support import checks

ROWS, COLUMNS = 5, 4
BUILD = {
    "row": lambda rows, columns, channels: PixelRNN(columns, RowLSTM, 6, 2, channels),
    "diagonal": lambda rows, columns, channels: PixelRNN(columns, DiagonalBiLSTM, 6, 2, channels),
    "pixelcnn": lambda rows, columns, channels: PixelCNN(columns, 6, 2, 12, channels),
    "gated": lambda rows, columns, channels: GatedPixelCNN(columns, 6, 2, 12, channels),
    "made": lambda rows, columns, channels: MADE(rows, columns, 4, channels),
}
every_model = pytest.mark.parametrize("name", BUILD)
colours = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])


def model_of(name, channels=1, rows=ROWS, columns=COLUMNS, seed=0):
    """A small model with weights far from 0 and no unit that is never on, so that every path is seen."""
    torch.manual_seed(seed)
    model = BUILD[name](rows, columns, channels)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.4)
    return model.eval()


def bits(*shape):
    return torch.randint(0, 2, shape).float()


# Causality


@every_model
@colours
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_no_value_sees_itself_or_what_comes_after(name, channels, mode):
    model = model_of(name, channels).train(mode == "training")
    sequences = bits(6, ROWS, COLUMNS * channels)
    assert not helpers.leaks(model, sequences)
    outputs, values, missed = model.teacher_forced(sequences).flatten(1), ROWS * COLUMNS * channels, 0
    for place in range(values):
        other = sequences.clone().flatten(1)
        other[:, place] = 1 - other[:, place]
        changed = (model.teacher_forced(other.view_as(sequences)).flatten(1) != outputs).any(0)
        assert not changed[: place + 1].any()
        missed += int((~changed[place + 1 :]).sum())
    assert missed < 0.2 * values * (values - 1) / 2  # a model that hears nothing would be causal too


def leaky(model):
    return helpers.leaks(model, bits(4, ROWS, model.input_size))


@pytest.mark.parametrize("shift", ["none", "up"])
def test_the_right_hand_diagonal_must_be_moved_down(monkeypatch, shift):
    model = model_of("diagonal")
    assert not leaky(model)
    forward = paper.DiagonalRecurrence.forward

    def wrong(layer, gates):
        hidden = forward(layer, gates)
        if not layer.mirrored:
            return hidden
        layer.mirrored = False
        hidden = forward(layer, gates.flip(3)).flip(3)
        layer.mirrored = True
        return hidden if shift == "none" else nn.functional.pad(hidden[:, :, 1:], (0, 0, 0, 1))

    monkeypatch.setattr(paper.DiagonalRecurrence, "forward", wrong)
    assert leaky(model)


@pytest.mark.parametrize("name", ["row", "diagonal", "pixelcnn"])
def test_mask_b_in_the_first_layer_is_caught(name):
    model = model_of(name)
    model.first.mask.copy_(paper.MaskedConv("B", 1, 12, (7, 7)).mask)
    assert leaky(model)


@every_model
@pytest.mark.parametrize("hears", [0, 1, 2], ids=["red", "green", "blue"])
def test_a_colour_that_hears_itself_is_caught(name, hears):
    model = model_of(name, channels=3)
    assert not leaky(model)
    if name == "made":
        mask = model.hidden.linear.mask  # (values * 4, values)
        place = 3 * COLUMNS + hears
        mask[4 * place : 4 * place + 4, place] = 1
    else:
        first = model.rows[0] if name == "gated" else model.first
        part = torch.arange(first.weight.shape[0]) % 6 * 3 // 6 if name == "gated" else None
        groups = torch.arange(12) * 3 // 12 if part is None else part
        first.mask[groups == hears, hears, first.up, first.left] = 1
    assert leaky(model)


@pytest.mark.parametrize("name", ["row", "diagonal", "gated"])
def test_gates_whose_colours_are_mixed_up_are_caught(monkeypatch, name):
    """Groups dealt over all gates at once rather than within each: the gate of red would hear blue."""
    layer = paper.MaskedConv
    monkeypatch.setattr(paper, "MaskedConv", lambda *a, parts=1, **k: layer(*a, **k))
    assert leaky(model_of(name, channels=3))


def test_an_input_to_state_convolution_without_its_mask_is_caught():
    model = model_of("row")
    model.layers[0].to_gates.mask.fill_(1)
    assert leaky(model)


def test_a_vertical_stack_that_is_not_moved_down_is_caught(monkeypatch):
    monkeypatch.setattr(paper.VerticalStack, "forward", lambda stack, x: stack.network(x, lambda layer, x: layer(x)))
    assert leaky(model_of("gated"))


# What is heard


def heard(model, rows, columns, position, place):
    """Which values reach the prediction of one: (rows, columns), by gradient, over several random pictures."""
    return helpers.receptive_field(model, bits(6, rows, columns), position, place) > 0


def before(rows, columns, position, place):
    return (np.arange(rows * columns) < position * columns + place).reshape(rows, columns)


def test_a_row_lstm_hears_a_triangle():
    """3 to the sides and up by the first convolution, 1 to the left by the second, 1 more a row by the states."""
    rows, columns, t, i = 7, 17, 6, 7
    torch.manual_seed(0)
    model = PixelRNN(columns, RowLSTM, 16, 1)
    row, column = np.mgrid[:rows, :columns]
    up = t - row
    triangle = (column >= i - up - 4) & (column <= i + np.where(up > 0, up + 2, -1)) & (up >= 0)
    assert (heard(model, rows, columns, t, i) == triangle).all()
    assert triangle.sum() < before(rows, columns, t, i).sum()


@pytest.mark.parametrize("layers", [1, 3])
def test_a_diagonal_bilstm_hears_all_but_the_last_value_of_the_row_above(layers):
    """No input that has heard it leads here: the right-hand map is moved down by a row. Within 3 columns it is."""
    torch.manual_seed(0)
    model, all_before = PixelRNN(12, DiagonalBiLSTM, 16, layers), before(9, 12, 8, 4)
    assert np.argwhere(all_before & ~heard(model, 9, 12, 8, 4)).tolist() == [[7, 11]]
    assert (heard(model, 9, 12, 8, 8) == before(9, 12, 8, 8)).all()


@pytest.mark.parametrize("name", ["gated", "made"])
def test_these_hear_all_that_comes_before(name):
    torch.manual_seed(0)
    model = {
        "gated": lambda: GatedPixelCNN(9, 16, 6, 16),
        "made": lambda: MADE(9, 9, 8),
    }[name]()
    assert (heard(model, 9, 9, 8, 4) == before(9, 9, 8, 4)).all()


def test_a_map_skewed_to_the_left_is_caught_by_what_it_does_not_hear(monkeypatch):
    """Then a pixel follows the one to its left and one two columns farther left in the row above: causal, and deaf."""
    torch.manual_seed(0)
    model, skew, unskew = PixelRNN(9, DiagonalBiLSTM, 16, 1), paper.skew, paper.unskew
    monkeypatch.setattr(paper, "skew", lambda x: skew(x.flip(2)).flip(2))
    monkeypatch.setattr(paper, "unskew", lambda x: unskew(x.flip(2)).flip(2))
    missing = before(9, 9, 8, 4) & ~heard(model, 9, 9, 8, 4)
    assert missing[:2].all() and not helpers.leaks(model, bits(2, 9, 9))


def test_a_map_skewed_one_way_and_back_the_other_is_caught(monkeypatch):
    unskew = paper.unskew
    monkeypatch.setattr(paper, "unskew", lambda x: unskew(x.flip(2)).flip(2))
    assert leaky(model_of("diagonal"))


def test_pixelcnn_has_a_blind_spot_to_the_right():
    torch.manual_seed(0)
    deep = PixelCNN(24, 16, 7, 16)  # reaches 3 + 7 rows up and columns to the left: all but what is blind
    missing = before(9, 24, 8, 4) & ~heard(deep, 9, 24, 8, 4)
    row, column = np.nonzero(missing)
    assert len(row) > 10 and (column > 4 + 3).all()
    gated = GatedPixelCNN(24, 16, 16, 16)
    assert (heard(gated, 9, 24, 8, 4) == before(9, 24, 8, 4)).all()


# Probabilities


@every_model
@pytest.mark.parametrize(("rows", "columns", "channels"), [(3, 3, 1), (2, 2, 3)], ids=["grey", "colour"])
def test_probabilities_of_all_pictures_sum_to_one(name, rows, columns, channels):
    model = model_of(name, channels, rows, columns)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=rows * columns * channels)))
    nats = helpers.nats(model, every.reshape(-1, rows, columns * channels))
    assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-5) and nats.std() > 0.1


# Drawing


@every_model
@colours
@pytest.mark.parametrize("temperature", [0, 0.7, 1])
def test_fast_drawing_is_naive_drawing(name, channels, temperature):
    model = model_of(name, channels)
    torch.manual_seed(1)
    fast, outputs = helpers.sample(model, ROWS, batch=7, temperature=temperature)
    torch.manual_seed(1)
    assert torch.equal(fast, helpers.sample_naively(model, ROWS, 7, temperature))
    assert torch.allclose(outputs, model.teacher_forced(fast), atol=1e-4)
    assert temperature == 0 or 0.05 < fast.mean() < 0.95
    torch.manual_seed(1)
    assert torch.equal(fast, helpers.sample(model, ROWS, batch=7, temperature=temperature, cached=False)[0])


@pytest.mark.parametrize("head", ["independent", "joint"])
@pytest.mark.parametrize("distribution", ["bernoulli", "categorical"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"cell": "gru"}, {"norm": "batch"}, {"norm": "layer", "num_layers": 2}, {"output": "seq2vec", "window": 2}],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_genmodel_too(head, distribution, settings, temperature):
    torch.manual_seed(0)
    encoding = "values" if distribution == "bernoulli" else "one-hot"
    model = helpers.GenModel(4, 6, head=head, distribution=distribution, encoding=encoding, levels=5, **settings)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    torch.manual_seed(1)
    fast, outputs = helpers.sample(model, 5, batch=3, temperature=temperature)
    torch.manual_seed(1)
    assert torch.equal(fast, helpers.sample_naively(model, 5, 3, temperature))
    assert torch.allclose(outputs, model.teacher_forced(fast), atol=1e-4)


def test_naive_drawing_stops_after_the_values_it_is_asked_for():
    model = model_of("pixelcnn")
    torch.manual_seed(1)
    drawn = helpers.sample_naively(model, ROWS, 3, 1.0, values=6).flatten(1)
    torch.manual_seed(1)
    assert torch.equal(drawn[:, :6], helpers.sample_naively(model, ROWS, 3, 1.0).flatten(1)[:, :6])
    assert (drawn[:, 6:] == helpers.START).all()


@every_model
@colours
def test_given_rows_are_kept_and_gone_on_from(name, channels):
    model = model_of(name, channels)
    given = bits(3, 2, COLUMNS * channels)
    drawn, outputs = helpers.sample(model, ROWS, given, temperature=1.0)
    assert torch.equal(drawn[:, :2], given) and outputs.shape == (3, ROWS - 2, COLUMNS * channels)
    assert torch.allclose(outputs, model.teacher_forced(drawn)[:, 2:], atol=1e-4)


@every_model
@colours
def test_row_by_row_is_all_rows_at_once(name, channels):
    model, states, logits = model_of(name, channels), {}, []
    sequences = bits(3, ROWS, COLUMNS * channels)
    for row in model._maps(sequences).unbind(1):
        after = {}

        def call(layer, x, before=states, after=after):
            x, after[layer] = layer.row(x, before.get(layer))
            return x

        logits.append(model.network(row.movedim(-1, 1), call).movedim(1, -1).flatten(1))
        states = after
    assert torch.allclose(torch.stack(logits, 1), model.teacher_forced(sequences), atol=1e-4)


# Layers


def test_skew_moves_each_row_by_its_number():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert paper.skew(x)[0, 0].tolist() == [[0, 1, 2, 3, 0, 0], [0, 4, 5, 6, 7, 0], [0, 0, 8, 9, 10, 11]]
    for rows, columns in ((1, 1), (1, 5), (5, 1), (4, 7), (7, 4)):
        x = torch.randn(2, 3, rows, columns)
        assert torch.equal(paper.unskew(paper.skew(x)), x)


def test_the_recurrence_is_torchs_lstm_where_nothing_comes_from_the_sides():
    """With the middle of the kernel alone, every column is an LSTM of its own down the rows."""
    recurrence, features = paper.RowRecurrence(3), 3
    with torch.no_grad():
        recurrence.above.weight[..., [0, 2]] = 0
    gates = torch.randn(2, 4 * features, 6, 5)
    lstm = nn.LSTM(4 * features, features, bias=False, batch_first=True)
    order = [2, 1, 3, 0]  # torch's gates are input, forget, content, output; ours output, forget, input, content
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.eye(4 * features).view(4, features, -1)[order].flatten(0, 1))
        lstm.weight_hh_l0.copy_(recurrence.above.weight[..., 1].view(4, features, -1)[order].flatten(0, 1))
    expected = lstm(gates.permute(0, 3, 2, 1).flatten(0, 1))[0]  # (batch * columns, rows, features)
    expected = expected.unflatten(0, (2, 5)).permute(0, 3, 2, 1)
    assert torch.allclose(recurrence(gates), expected, atol=1e-6)


def test_a_diagonal_is_the_recurrence_pixel_by_pixel():
    layer = paper.DiagonalRecurrence(2, mirrored=False)
    gates = torch.randn(1, 8, 3, 4)
    hidden = torch.zeros(1, 2, 4, 5)  # with a row above and a column to the left
    cell = torch.zeros(1, 2, 3, 5)
    above, beside = layer.before.weight.unbind(2)
    for t, i in itertools.product(range(3), range(4)):
        total = gates[:, :, t, i] + hidden[:, :, t, i + 1] @ above.T + hidden[:, :, t + 1, i] @ beside.T
        hidden[:, :, t + 1, i + 1], cell[:, :, t, i + 1] = paper._lstm(total, cell[:, :, t, i])
    assert torch.allclose(layer(gates), hidden[:, :, 1:, 1:], atol=1e-6)


@every_model
def test_learns(name):
    """Stripes: a model that learned nothing needs ln 2 for every value."""
    model = model_of(name)
    sequences = torch.tensor([[[0.0, 1, 0, 1]] * ROWS, [[1.0, 0, 1, 0]] * ROWS])
    helpers.train(model, sequences, steps=60, learning_rate=0.02)
    assert helpers.nats(model, sequences).mean() < 3  # the best is ln 2 for the picture; untrained, about 20 times that


# Several joint rows at once


def average_of(members=3, **settings):
    torch.manual_seed(0)
    settings = {"encoding": "values", "distribution": "bernoulli", **settings}
    model = Average([helpers.GenModel(COLUMNS, 6, head="joint", levels=5, **settings) for _ in range(members)])
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model.eval()


averages = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "layer"},
        {"norm": "batch"},
        {"dropout": 0.3},
        {"output": "seq2vec", "window": 2},
        {"encoding": "one-hot", "distribution": "categorical"},
    ],
    ids=str,
)


@averages
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_an_average_is_drawn_fast_as_naively(settings, temperature):
    model = average_of(**settings)
    for options in ({}, {"cached": False}):
        torch.manual_seed(1)
        fast, outputs = helpers.sample(model, ROWS, batch=7, temperature=temperature, **options)
        torch.manual_seed(1)
        assert torch.equal(fast, helpers.sample_naively(model, ROWS, 7, temperature))
        assert torch.allclose(outputs, model.teacher_forced(fast), atol=1e-4)


def test_members_of_an_average_may_differ_in_size():
    torch.manual_seed(0)
    model = Average([helpers.GenModel(COLUMNS, size, layers, head="joint") for size, layers in ((3, 1), (6, 2))])
    torch.manual_seed(1)
    fast, _ = helpers.sample(model, ROWS, batch=7, temperature=1.0)
    torch.manual_seed(1)
    assert torch.equal(fast, helpers.sample_naively(model, ROWS, 7, 1.0))


@averages
def test_an_average_hears_what_came_before_alone(settings):
    model = average_of(**settings)
    assert model.causal and not helpers.leaks(model, bits(6, ROWS, COLUMNS))
    field = helpers.receptive_field(model, bits(6, ROWS, COLUMNS), 1, 2)
    assert ((field > 0) == before(ROWS, COLUMNS, 1, 2)).all()


def test_an_average_of_models_that_hear_the_future_is_not_causal():
    model = average_of(bidirectional=True)
    assert not model.causal and leaky(model)
    with pytest.raises(checks.LabError, match="no likelihood"):
        helpers.nats(model, bits(6, ROWS, COLUMNS))


@averages
def test_nats_of_an_average_are_below_the_mean_of_its_members(settings):
    model, sequences = average_of(**settings), bits(20, ROWS, COLUMNS)
    members = np.stack([helpers.nats(member, sequences) for member in model.models])
    assert (helpers.nats(model, sequences) < members.mean(0)).all()
    outputs = torch.stack([member.teacher_forced(sequences) for member in model.models])
    assert torch.allclose(model.teacher_forced(sequences), outputs.mean(0))
    assert helpers.nats(Average(model.models[:1]), sequences) == pytest.approx(members[0])


def test_probabilities_of_an_average_sum_to_one():
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2 * COLUMNS))).reshape(-1, 2, COLUMNS)
    assert np.exp(-helpers.nats(average_of(), every)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("told", [None, "the opposite"])
def test_members_of_an_average_learn_as_each_would_alone(told):
    model, sequences = average_of(), bits(20, ROWS, COLUMNS)
    told = told and 1 - sequences
    model.loss(sequences, told).backward()
    for member in model.models:
        alone = copy.deepcopy(member)
        alone.zero_grad()
        alone.loss(sequences, told).backward()
        for one, other in zip(member.parameters(), alone.parameters(), strict=True):
            assert torch.allclose(3 * one.grad, other.grad, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        lambda: helpers.GenModel(COLUMNS + 1, 6, head="joint"),
        lambda: helpers.GenModel(COLUMNS, 6, head="joint", encoding="one-hot"),
        lambda: helpers.GenModel(COLUMNS, 6, head="joint", distribution="categorical"),
        lambda: helpers.GenModel(COLUMNS, 6, head="joint", output="seq2vec", window=2),
        lambda: helpers.GenModel(COLUMNS, 6, 1, True, head="joint"),
        lambda: helpers.GenModel(COLUMNS, 6),
        lambda: PixelCNN(COLUMNS, 6, 2, 12),
        lambda: nn.Linear(COLUMNS, COLUMNS),
    ],
    ids=["width", "encoding", "distribution", "window", "direction", "head", "no GenModel", "no model"],
)
def test_an_average_of_models_that_do_not_fit_is_told(other):
    joint = helpers.GenModel(COLUMNS, 6, head="joint")
    for models in ([], [joint, other()]):
        with pytest.raises(checks.LabError, match="read and predict alike"):
            Average(models)


# Bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PixelCNN(4, 8, 2, 6, channels=3), "3 equal groups"),
        (lambda: PixelRNN(4, RowLSTM, 8, 2, channels=3), "3 equal groups"),
        (lambda: GatedPixelCNN(4, 6, 2, 8, channels=3), "3 equal groups"),
        (lambda: PixelRNN(0, RowLSTM, 8, 2), "columns must be a whole number"),
        (lambda: PixelCNN(4, 8, 0, 6), "layers must be a whole number"),
        (lambda: MADE(0, 4, 2), "rows must be a whole number"),
        (lambda: paper.MaskedConv("C", 1, 1), "kind must be one of"),
    ],
)
def test_a_size_that_cannot_be_is_told(build, message):
    with pytest.raises(checks.LabError, match=message):
        build()


@every_model
def test_pictures_that_do_not_fit_are_told(name):
    model = model_of(name)
    for wrong in (bits(2, ROWS, COLUMNS + 1), bits(2, 0, COLUMNS), torch.full((1, ROWS, COLUMNS), float("nan"))):
        with pytest.raises(checks.LabError):
            helpers.nats(model, wrong)


def test_made_has_a_fixed_number_of_rows():
    with pytest.raises(checks.LabError, match="of 5 x 4 pixels"):
        helpers.nats(model_of("made"), bits(1, ROWS + 1, COLUMNS))
    with pytest.raises(checks.LabError, match="5 rows"):
        helpers.sample(model_of("made"), ROWS + 1)


# The disk


def kept(model, path):
    """The model as it comes back from a file that says all that is needed."""
    saving.save_model(model, path)
    loaded = saving.load_model(path)
    assert type(loaded) is type(model) and loaded.settings == model.settings
    assert type(model)(**model.settings).settings == model.settings
    return loaded


@every_model
@colours
def test_saved_model_is_loaded_back(tmp_path, name, channels):
    model = model_of(name, channels)
    loaded, sequences = kept(model, tmp_path / "model.safetensors"), bits(3, ROWS, COLUMNS * channels)
    assert torch.equal(loaded.teacher_forced(sequences), model.teacher_forced(sequences))
    for ours, theirs in zip(helpers.sample(loaded, ROWS), helpers.sample(model, ROWS), strict=True):
        assert torch.equal(ours, theirs)


def test_saved_average_is_loaded_back(tmp_path):
    model = Average([helpers.GenModel(COLUMNS, *size, head="joint", levels=5) for size in ((3, 1), (np.int64(6), 2))])
    loaded, sequences = kept(model.eval(), tmp_path / "model.safetensors"), bits(3, ROWS, COLUMNS)
    assert torch.equal(loaded.teacher_forced(sequences), model.teacher_forced(sequences))


def test_loading_needs_no_import_of_paper(tmp_path, monkeypatch):
    saving.save_model(model_of("row"), tmp_path / "model.safetensors")
    monkeypatch.delitem(sys.modules, "pixelrnn.models.paper")
    assert type(saving.load_model(tmp_path / "model.safetensors")).__name__ == "PixelRNN"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@every_model
def test_dtype_is_kept(tmp_path, name, dtype):
    model = model_of(name).to(dtype)
    loaded, sequences = kept(model, tmp_path / "model.safetensors"), bits(3, ROWS, COLUMNS).to(dtype)
    assert {one.dtype for one in (*loaded.parameters(), *loaded.buffers())} == {dtype}
    assert torch.equal(loaded.teacher_forced(sequences), model.teacher_forced(sequences))


@pytest.mark.parametrize("name", ["PixelRNN", "PixelCNN", "GatedPixelCNN", "MADE"])
def test_numpy_settings_are_kept_as_plain_ones(tmp_path, name):
    arguments = {
        "PixelRNN": {"layer": RowLSTM, "features": 6, "layers": 2},
        "PixelCNN": {"features": 6, "layers": 2, "last": 12},
        "GatedPixelCNN": {"features": 6, "layers": 2, "last": 12},
        "MADE": {"rows": 3, "units": 4},
    }[name] | {"columns": 4, "channels": 3}
    numpys = {key: np.int64(value) if isinstance(value, int) else value for key, value in arguments.items()}
    loaded = kept(getattr(paper, name)(**numpys), tmp_path / "model.safetensors")
    assert {type(value) for value in loaded.settings.values()} <= {int, str}


def test_a_layer_of_the_readers_own_is_not_passed_off_as_ours(tmp_path):
    mine = type("MyLSTM", (RowLSTM,), {})
    same_name = type("RowLSTM", (RowLSTM,), {})
    for layer, said in ((mine, "layer must be one of 'RowLSTM', 'DiagonalBiLSTM'"), (same_name, "no longer what")):
        with pytest.raises(checks.LabError, match=said):
            saving.save_model(PixelRNN(COLUMNS, layer, 6, 1), tmp_path / "model.safetensors")
    with pytest.raises(checks.LabError, match="layer must be one of"):
        PixelRNN(COLUMNS, "LSTM", 6, 1)
    assert not any(tmp_path.iterdir())
