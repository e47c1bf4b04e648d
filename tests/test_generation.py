"""Generation keeps to its past: it is the same with and without a cache, alone and in a batch, short and long."""

import itertools
import math

import pytest
import torch

import helpers
from pixelrnn.models import orders
from support import checks

WIDTH, STEPS, WINDOW = 2, 9, 3  # the width and the window as in conftest.py


def product(**options):
    """Every combination of the options, one named test parameter each."""
    combinations = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    names = ["-".join(map(str, combination.values())) for combination in combinations]
    return pytest.mark.parametrize("settings", combinations, ids=names)


NORMS = (None, "batch", "layer")
every_configuration = product(
    output=("seq2seq", "seq2vec"),
    bidirectional=(False, True),
    cell=helpers.CELLS,
    norm=NORMS,
    encoding=helpers.ENCODINGS,
    distribution=helpers.DISTRIBUTIONS,
)
every_streaming_configuration = product(
    cell=helpers.CELLS, norm=NORMS, encoding=helpers.ENCODINGS, distribution=helpers.DISTRIBUTIONS, num_layers=(1, 2)
)


@every_streaming_configuration
def test_cached_is_the_same_as_reading_the_past_again(build, draw, settings):
    model, given = build(**settings), draw(steps=2)
    assert model.streams
    values, outputs = helpers.sample(model, STEPS, given, levels=256)
    values_again, outputs_again = helpers.sample(model, STEPS, given, levels=256, cached=False)
    assert torch.equal(values, values_again)
    torch.testing.assert_close(outputs, outputs_again, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "options", "read"),
    [
        ({}, {}, [3, 1, 1, 1]),
        ({}, {"cached": False}, [3, 4, 5, 6]),
        ({"bidirectional": True}, {}, [3, 4, 5, 6]),
        ({"output": "seq2vec"}, {}, [WINDOW] * 4),
    ],
)
def test_steps_that_are_read_for_each_step(build, draw, settings, options, read):
    model, lengths = build(**settings), []
    model.rnn.register_forward_pre_hook(lambda rnn, inputs: lengths.append(inputs[0].shape[1]))
    helpers.sample(model, 6, draw(steps=2), **options)
    assert lengths == read  # at first 2 given steps and the start token


@every_configuration
def test_a_batch_is_the_same_as_its_sequences_one_by_one(build, draw, settings):
    model, given = build(**settings), draw(batch=3, steps=WINDOW)
    values, outputs = helpers.sample(model, STEPS, given, levels=256)
    alone = [helpers.sample(model, STEPS, one[None], levels=256) for one in given]
    assert torch.equal(values, torch.cat([one for one, _ in alone]))
    torch.testing.assert_close(outputs, torch.cat([one for _, one in alone]), rtol=1e-5, atol=1e-5)


@every_configuration
@torch.no_grad()
def test_free_running_is_teacher_forcing_on_its_own_steps(build, draw, settings):
    model, given = build(**settings), draw(steps=WINDOW)
    values, outputs = helpers.sample(model, STEPS, given, levels=256)
    sequences = torch.cat([given, torch.rand(2, STEPS - WINDOW, WIDTH)], 1)  # random where nothing is generated yet
    for t in range(WINDOW, STEPS):
        output = model.teacher_forced(sequences[:, : t + 1])[:, t]
        sequences[:, t] = torch.round(255 * model.decode(output)) / 255
        torch.testing.assert_close(outputs[:, t - WINDOW], output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, sequences)


@pytest.mark.parametrize("output", ["seq2seq", "seq2vec"])
@torch.no_grad()
def test_first_steps_come_from_the_start_token_alone(build, output):
    model = build(output=output, distribution="regression")
    values, _ = helpers.sample(model, STEPS)
    sequences = torch.rand(1, STEPS, WIDTH)
    for t in range(STEPS):
        sequences[:, t] = model.decode(model.teacher_forced(sequences)[:, t])  # causal: what is random is not read
    torch.testing.assert_close(values, sequences, rtol=1e-5, atol=1e-5)


@every_configuration
@torch.no_grad()
def test_outputs_are_teacher_forcings_where_the_model_is_causal(build, draw, settings):
    model, given = build(**settings), draw(steps=WINDOW)
    values, outputs = helpers.sample(model, STEPS, given)
    forced = model.teacher_forced(values)[:, WINDOW:]
    if settings["output"] == "seq2seq" and settings["bidirectional"]:
        # In teacher forcing it reads later steps, which no generator has; only the last step has none.
        assert not torch.allclose(outputs, forced, atol=1e-3)
        torch.testing.assert_close(outputs[:, -1], forced[:, -1], rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(outputs, forced, rtol=1e-5, atol=1e-5)


@every_configuration
def test_what_is_generated_does_not_depend_on_how_much_follows(build, settings):
    model = build(**settings)
    short, short_outputs = helpers.sample(model, 5)
    long, long_outputs = helpers.sample(model, STEPS)
    assert torch.equal(short, long[:, :5])
    assert torch.equal(short_outputs, long_outputs[:, :5])


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"output": "seq2vec"}], ids=str)
@pytest.mark.parametrize("count", [1, WINDOW, STEPS - 1])
def test_given_steps_are_kept(build, settings, count):
    given = torch.rand(2, count, WIDTH)  # not on any level
    values, outputs = helpers.sample(build(**settings), STEPS, given, levels=2)
    assert values.shape == (2, STEPS, WIDTH)
    assert outputs.shape == (2, STEPS - count, WIDTH)
    assert torch.equal(values[:, :count], given)


@torch.no_grad()
def test_fewer_steps_given_than_the_window_holds(build, draw):
    model, given = build(output="seq2vec"), draw(steps=1)
    values, outputs = helpers.sample(model, STEPS, given)
    torch.testing.assert_close(outputs, model.teacher_forced(values)[:, 1:])


def test_what_is_given_makes_a_difference(build):
    model, given = build(distribution="regression"), torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    values, _ = helpers.sample(model, STEPS, given)
    assert (values[0, 1:] != values[1, 1:]).any()


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_values_are_rounded_to_levels_before_they_are_fed_back(build, levels):
    model = build(distribution="regression")
    values, outputs = helpers.sample(model, STEPS, levels=levels)
    torch.testing.assert_close(values, torch.round(outputs.clamp(0, 1) * (levels - 1)) / (levels - 1))
    torch.testing.assert_close(model.teacher_forced(values), outputs)


def test_values_are_fed_back_as_they_are_without_levels(build):
    model = build(distribution="regression")
    values, outputs = helpers.sample(model, STEPS)
    assert torch.equal(values, outputs.clamp(0, 1))
    assert not torch.allclose(255 * values, torch.round(255 * values), atol=1e-3)


def test_batch_without_given_steps(build):
    values, outputs = helpers.sample(build(distribution="categorical"), STEPS, batch=3)
    assert values.shape == (3, STEPS, WIDTH) and outputs.shape == (3, STEPS, WIDTH, 256)
    assert torch.equal(values, values[:1].expand(3, -1, -1))


def test_model_is_left_in_evaluation_mode_and_as_it_was(build):
    model = build("train", norm="batch")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    values, outputs = helpers.sample(model, STEPS)
    assert not model.training
    assert not values.requires_grad and not outputs.requires_grad
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_torch_is_left_as_it_was(monkeypatch, build):
    def interrupt(*_):
        raise KeyboardInterrupt

    model = build()
    helpers.sample(model, STEPS)
    assert torch.backends.mkldnn.enabled  # torch's default
    monkeypatch.setattr(model, "decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        helpers.sample(model, STEPS)
    assert torch.backends.mkldnn.enabled


# Arguments that cannot be used


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_nothing_left_to_generate(build, draw, steps):
    with pytest.raises(checks.LabError, match=f"5 steps are given and only {steps} wanted"):
        helpers.sample(build(), steps, draw(steps=5))


@pytest.mark.parametrize("name", ["steps", "batch"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None])
def test_bad_number(build, name, value):
    with pytest.raises(checks.LabError, match=f"{name} must be a whole number of at least 1"):
        helpers.sample(build(), **{"steps": STEPS, name: value})


@pytest.mark.parametrize("levels", [1, 0, -1, 2.5, True, "2"])
def test_bad_levels(build, levels):
    with pytest.raises(checks.LabError, match="levels must be a whole number of at least 2"):
        helpers.sample(build(), STEPS, levels=levels)


@pytest.mark.parametrize(
    "given",
    [torch.zeros(1, 2, WIDTH + 1), torch.zeros(2, WIDTH), torch.full((1, 2, WIDTH), math.nan), torch.ones(1, 2, 2) * 2],
    ids=["width", "axes", "NaN", "range"],
)
def test_bad_given(build, given):
    with pytest.raises(checks.LabError, match=r"reads \(batch, steps, 2\)|outside \[0, 1\]"):
        helpers.sample(build(), STEPS, given)


def test_work_is_counted_as_by_hand_and_a_kept_state_saves_it():
    """An LSTM's gates and its head, for each row; reading all rows above again costs 1 + 2 + 3 + 4 of them."""
    model = helpers.GenModel(3, 5)
    row = 4 * 5 * (3 + 5) + 5 * 3
    assert helpers.multiply_adds(lambda: model.teacher_forced(torch.zeros(1, 4, 3))) == 4 * row
    assert helpers.multiply_adds(lambda: helpers.sample(model, 4)) == 4 * row
    again = helpers.multiply_adds(lambda: helpers.sample(model, 4, cached=False))
    assert again == (1 + 2 + 3 + 4) * 4 * 5 * (3 + 5) + 4 * 5 * 3


def broken(model, value, bit):
    """The model with one number of its weights or running statistics that is none."""
    numbers = [one for one in model.state_dict().values() if one.is_floating_point()]
    numbers[bit % len(numbers)].view(-1)[0] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", [0, 3, -1, -2])
def test_weights_that_are_no_numbers_draw_nothing(build, value, temperature, number):
    model = broken(build(norm="batch"), value, number)
    for way in (helpers.sample, helpers.sample_naively):
        with pytest.raises(checks.LabError, match=r"holds NaN or infinite numbers\. Load its weights"):
            way(model, STEPS, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_reading_orders_of_weights_that_are_no_numbers(temperature):
    models = [helpers.GenModel(4, 3, head="joint") for _ in range(2)]
    for model in (orders.Mixture([0, 3], models), orders.Shared([0, 5], input_size=4, hidden_size=3)):
        assert model.sample(8, temperature).isfinite().all()
        with pytest.raises(checks.LabError, match="NaN or infinite"):
            broken(model, float("nan"), 2).sample(8, temperature)
