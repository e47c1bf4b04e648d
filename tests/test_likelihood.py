"""Probabilities: they sum to 1 for every head, are causal value by value, and are those the drawings follow."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import helpers
from pixelrnn.data import datasets
from support import checks, joint_head

HEADS = ("independent", "joint")
CELLS, NORMS = tuple(helpers.CELLS), (None, "batch", "layer")
STREAMING = list(itertools.product(HEADS, CELLS, NORMS, helpers.ENCODINGS))
every_model = pytest.mark.parametrize(("head", "cell", "norm", "encoding"), STREAMING)


def model_of(width, levels=2, seed=0, **settings):
    """A small model in evaluation mode with weights far from 0, so that its probabilities are far from even."""
    torch.manual_seed(seed)
    settings.setdefault("distribution", "bernoulli" if levels == 2 else "categorical")
    model = helpers.GenModel(width, 6, levels=levels, **settings)
    for name, weight in model.named_parameters():
        if "head" not in name:
            torch.nn.init.normal_(weight, std=0.7)
    if settings.get("norm") == "batch":
        model.norm.running_mean.uniform_(-0.5, 0.5)
        model.norm.running_var.uniform_(0.2, 2)
    return model.eval()


def all_sequences(steps, width, levels=2):
    """Every sequence there is: (levels ** (steps * width), steps, width)."""
    values = itertools.product(range(levels), repeat=steps * width)
    return torch.tensor(list(values), dtype=torch.float32).reshape(-1, steps, width) / (levels - 1)


# Likelihood


@every_model
def test_probabilities_of_all_binary_pictures_sum_to_one(head, cell, norm, encoding):
    model = model_of(3, head=head, cell=cell, norm=norm, encoding=encoding)
    assert np.exp(-helpers.nats(model, all_sequences(4, 3))).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("settings", [{"output": "seq2vec", "window": 2}, {"num_layers": 2}], ids=str)
def test_probabilities_sum_to_one_in_other_forms(head, settings):
    model = model_of(3, head=head, **settings)
    assert np.exp(-helpers.nats(model, all_sequences(4, 3))).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("levels", [2, 3, 5])
def test_probabilities_of_all_levels_sum_to_one(head, levels):
    model = model_of(2, levels, head=head, distribution="categorical", encoding="one-hot")
    assert np.exp(-helpers.nats(model, all_sequences(2, 2, levels))).sum() == pytest.approx(1, abs=1e-5)


def test_a_row_of_the_independent_head_factorises_and_one_of_the_joint_head_does_not():
    pairs = all_sequences(1, 2)
    for head in HEADS:
        p = np.exp(-helpers.nats(model_of(2, head=head), pairs)).reshape(2, 2)
        apart = np.abs(p - p.sum(1, keepdims=True) * p.sum(0, keepdims=True)).max()
        assert apart < 1e-6 if head == "independent" else apart > 1e-3


def test_nats_by_hand():
    model = model_of(2, head="independent")
    sequences = all_sequences(2, 2)
    with torch.no_grad():
        ones = torch.sigmoid(model.teacher_forced(sequences))
    expected = -torch.where(sequences == 1, ones, 1 - ones).log().sum((1, 2))
    assert helpers.nats(model, sequences) == pytest.approx(expected.numpy(), rel=1e-5)
    assert model.loss(sequences).item() == pytest.approx(expected.mean().item() / 4, rel=1e-5)
    assert helpers.bits_per_dimension(64 * math.log(2), 64) == pytest.approx(1)


def test_nats_of_more_than_one_part_keep_their_order():
    model, sequences = model_of(3), torch.randint(0, 2, (1203, 2, 3)).float()
    nats = helpers.nats(model, sequences)
    assert nats.shape == (1203,) and nats.dtype == np.float64
    assert nats[[0, 700, 1202]] == pytest.approx(helpers.nats(model, sequences[[0, 700, 1202]]), rel=1e-5)


def test_nats_are_those_of_evaluation_mode():
    model, sequences = model_of(3, norm="batch"), torch.randint(0, 2, (4, 3, 3)).float()
    alone = [helpers.nats(model, one[None]).item() for one in sequences]  # no statistics over a batch in it
    assert helpers.nats(model.train(), sequences) == pytest.approx(alone, rel=1e-5)
    assert not model.training


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        ({"distribution": "regression"}, 0.0, "gives no probabilities"),
        ({"bidirectional": True}, 0.0, "no likelihood"),
        ({}, 0.5, "Binarise first"),
        ({"distribution": "categorical", "levels": 4}, 0.5, "4 levels"),
        ({}, math.nan, "NaN"),
        ({}, 1.5, "outside"),
    ],
    ids=str,
)
def test_no_likelihood_without_probabilities(settings, values, message):
    with pytest.raises(checks.LabError, match=message):
        helpers.nats(helpers.GenModel(2, 4, **settings), torch.full((1, 3, 2), values))


def test_a_joint_head_needs_probabilities_and_what_stands_to_the_left():
    with pytest.raises(checks.LabError, match="gives probabilities"):
        helpers.GenModel(2, 4, head="joint", distribution="regression")
    with pytest.raises(checks.LabError, match="give it the steps too"):
        helpers.GenModel(2, 4, head="joint")(torch.zeros(1, 3, 2))
    with pytest.raises(checks.LabError, match="head must be one of 'independent', 'joint'"):
        helpers.GenModel(2, 4, head="both")


# Causality, value by value


@every_model
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_value_sees_itself_or_what_comes_after(head, cell, norm, encoding, mode):
    model = model_of(3, head=head, cell=cell, norm=norm, encoding=encoding).train(mode == "train")
    sequences = torch.randint(0, 2, (3, 4, 3)).float()
    outputs = model.teacher_forced(sequences).flatten(1)  # (batch, steps, width) -> (batch, values)
    seen, missed = 0, 0
    for place in range(12):
        other = sequences.clone().flatten(1)
        other[:, place] = 1 - other[:, place]
        changed = (model.teacher_forced(other.view_as(sequences)).flatten(1) != outputs).any(0)
        seen += int(changed[: place + 1].sum())  # itself and those before it
        after = changed[place + 1 :] if head == "joint" else changed[3 * (place // 3 + 1) :]
        missed += int((~after).sum())
    leaking = norm == "batch" and mode == "train"
    assert (seen > 0) == leaking
    assert helpers.leaks(model, sequences) == leaking
    assert missed == 0  # no blind spot: every later value hears this one


@pytest.mark.parametrize("layer", ["left", "hidden", "out"])
def test_a_mask_that_lets_one_value_through_is_caught(layer):
    model, sequences = model_of(3, head="joint"), torch.randint(0, 2, (2, 4, 3)).float()
    masked = {"left": model.head.left, "hidden": model.head.hidden[1], "out": model.head.out}[layer]
    assert not helpers.leaks(model, sequences)
    rows, columns = masked.mask.shape[0] // 3, masked.mask.shape[1] // 3
    # the first place now hears itself (left) or its right neighbour (the others)
    masked.mask[:rows, : columns if layer == "left" else 2 * columns] = 1
    assert helpers.leaks(model, sequences)
    total = np.exp(-helpers.nats(model, all_sequences(2, 3))).sum()
    assert abs(total - 1) > 1e-4  # and its numbers are no probabilities any more


@pytest.mark.parametrize("levels", [3, 4, 17])
@pytest.mark.parametrize("head", HEADS)
def test_a_leak_is_seen_at_every_level(head, levels):
    model, steps = model_of(2, levels, head=head, encoding="one-hot"), 3
    for level in range(levels):
        sequences = torch.full((1, steps, 2), level / (levels - 1))
        assert not helpers.leaks(model, sequences)
        field = helpers.receptive_field(model, sequences, 2)
        assert (field[:2] > 0).all()
        if head == "joint":
            assert helpers.receptive_field(model, sequences, 2, 1)[2, 0] > 0
            model.head.left.mask.fill_(1)
            assert helpers.leaks(model, sequences)
            model.head.left.mask[: joint_head.EMBEDDING] = 0
            model.head.left.mask[joint_head.EMBEDDING :, levels:] = 0


def test_colours_of_a_pixel_are_drawn_in_their_order():
    """Green hears red of its own pixel and blue hears both, red hears neither."""
    model = model_of(6, head="joint")  # two pixels of three colours
    sequences = torch.randint(0, 2, (4, 3, 6)).float()
    heard = [helpers.receptive_field(model, sequences, 1, place)[1] > 0 for place in (3, 4, 5)]
    assert [one.tolist() for one in heard] == [[i < place for i in range(6)] for place in (3, 4, 5)]


# Drawing


@every_model
def test_cached_drawing_is_the_same_as_reading_the_past_again(head, cell, norm, encoding):
    model = model_of(3, head=head, cell=cell, norm=norm, encoding=encoding)
    torch.manual_seed(1)
    values, outputs = helpers.sample(model, 6, batch=32, temperature=1.0)
    torch.manual_seed(1)
    again, outputs_again = helpers.sample(model, 6, batch=32, temperature=1.0, cached=False)
    assert torch.equal(values, again)
    torch.testing.assert_close(outputs, outputs_again, rtol=1e-4, atol=1e-5)
    assert not torch.equal(values[0], values[1])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("levels", [2, 4])
@torch.no_grad()
def test_outputs_of_a_drawing_are_teacher_forcings_on_it(head, levels):
    model = model_of(3, levels, head=head, distribution="categorical", encoding="one-hot")
    values, outputs = helpers.sample(model, 5, batch=8, temperature=1.0)
    torch.testing.assert_close(outputs, model.teacher_forced(values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"output": "seq2vec", "window": 2}], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_frequencies_of_drawings_follow_the_probabilities(head, settings, levels):
    model, every = model_of(2, levels, head=head, **settings), all_sequences(2, 2, levels)
    expected = np.exp(-helpers.nats(model, every))
    torch.manual_seed(0)
    values, _ = helpers.sample(model, 2, batch=20_000, temperature=1.0)
    numbers = (torch.round(values * (levels - 1)).flatten(1) * levels ** torch.arange(3, -1, -1)).sum(1).long()
    counts = np.bincount(numbers, minlength=len(every))
    common = 20_000 * expected > 5  # where chi-square holds
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(20_000 * expected[common], 20_000 * expected[~common].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3
    even = np.full(len(every), 20_000 / len(every))
    assert stats.chisquare(counts, even).pvalue < 1e-6  # the check can fail


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("levels", [2, 4])
def test_a_low_temperature_is_greedy_and_a_high_one_is_even(head, levels):
    model = model_of(3, levels, head=head)
    greedy, _ = helpers.sample(model, 4, batch=2)
    cold, _ = helpers.sample(model, 4, batch=200, temperature=1e-4)
    assert torch.equal(cold, greedy[:1].expand(200, -1, -1))
    hot, _ = helpers.sample(model, 4, batch=4000, temperature=1e6)
    shares = [((levels - 1) * hot == level).float().mean().item() for level in range(levels)]
    assert shares == pytest.approx([1 / levels] * levels, abs=0.02)


@pytest.mark.parametrize("head", HEADS)
def test_a_seed_draws_the_same_and_another_does_not(head):
    model, draws = model_of(3, head=head), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(helpers.sample(model, 4, batch=8, temperature=1.0)[0])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_completions_keep_what_is_given():
    model, given = model_of(3, head="joint"), torch.randint(0, 2, (5, 2, 3)).float()
    values, outputs = helpers.sample(model, 5, given, temperature=1.0)
    assert torch.equal(values[:, :2], given) and outputs.shape == (5, 3, 3)


@pytest.mark.parametrize("temperature", [-1, math.nan, math.inf, True, "1", None])
def test_bad_temperature(temperature):
    with pytest.raises(checks.LabError, match="temperature must be a number of at least 0"):
        helpers.sample(model_of(2), 3, temperature=temperature)


def test_nothing_to_sample_from_a_regression():
    with pytest.raises(checks.LabError, match="nothing to sample"):
        helpers.sample(model_of(2, distribution="regression"), 3, temperature=1.0)


# Sources whose probabilities are known


@pytest.fixture(params=[datasets.rule_90, datasets.above_and_left], ids=lambda rule: rule.__name__)
def source(request):
    return datasets.KnownSource(request.param, rows=3, columns=4)


def probability_of_one(source, above, row, i):
    """P(value i of a row is 1), by the rule, one value at a time in plain numbers."""
    if source.rule is datasets.rule_90:
        left, right = above[i - 1] if i else 0, above[i + 1] if i + 1 < len(above) else 0
        return 0.95 if left != right else 0.05
    left = row[i - 1] if i else 0
    return 1 / (1 + math.exp(-(-2 * (2 * left - 1) + 1.5 * (2 * above[i] - 1))))


def row_probabilities(source, above):
    """P(row given the row above) for every row, by brute force: dict of tuples."""
    table = {}
    for row in itertools.product((0, 1), repeat=source.columns):
        ones = [probability_of_one(source, above, row, i) for i in range(source.columns)]
        table[row] = math.prod(p if value else 1 - p for p, value in zip(ones, row, strict=True))
    return table


def test_true_nats_against_brute_force(source):
    sequences = all_sequences(3, 4)
    rows = [[tuple(int(v) for v in row) for row in sequence] for sequence in sequences]
    tables = {above: row_probabilities(source, above) for above in itertools.product((0, 1), repeat=4)}
    expected = [-math.log(0.5**4 * tables[a][b] * tables[b][c]) for a, b, c in rows]
    nats = source.nats(sequences)
    assert nats == pytest.approx(expected, rel=1e-5)
    assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-5)


def test_row_independent_nats_against_brute_force(source):
    sequences, expected = all_sequences(3, 4), []
    marginals = {}
    for above in itertools.product((0, 1), repeat=4):
        table = row_probabilities(source, above)
        marginals[above] = [sum(p for row, p in table.items() if row[i]) for i in range(4)]
    for sequence in sequences:
        rows = [tuple(int(v) for v in row) for row in sequence]
        total = 4 * math.log(2)
        for above, row in itertools.pairwise(rows):
            total -= sum(math.log(m if value else 1 - m) for m, value in zip(marginals[above], row, strict=True))
        expected.append(total)
    nats = source.row_independent_nats(sequences)
    assert nats == pytest.approx(expected, rel=1e-5)
    # No row-independent model is better on average over the source: any other probabilities cost more.
    weights, above = np.exp(-source.nats(sequences)), sequences[:, :-1]
    best = torch.tensor([[marginals[tuple(row)] for row in rows] for rows in above.int().tolist()])
    assert weights @ source._nats(best, sequences) == pytest.approx(weights @ nats, rel=1e-5)
    for place, shift in itertools.product(range(4), (-0.02, 0.02)):
        other = best.clone()
        other[..., place] += shift
        assert weights @ source._nats(other, sequences) > weights @ nats + 1e-5
    assert np.allclose(nats, source.nats(sequences)) == (source.rule is datasets.rule_90)


def test_drawings_of_a_source_follow_its_probabilities(source):
    torch.manual_seed(0)
    drawn, every = source.sample(50_000), all_sequences(2, 4)
    pairs = drawn[:, :2].flatten(1)  # two rows: (count, values)
    counts = np.bincount((pairs * 2.0 ** torch.arange(7, -1, -1)).sum(1).long(), minlength=256)
    two_rows = datasets.KnownSource(source.rule, 2, 4)
    wanted = 50_000 * np.exp(-two_rows.nats(every))
    rare = wanted < 5
    observed, wanted = np.append(counts[~rare], counts[rare].sum()), np.append(wanted[~rare], wanted[rare].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3
    assert source.nats(drawn).mean() == pytest.approx(  # the entropy, by enumeration
        (lambda nats: np.exp(-nats) @ nats)(source.nats(all_sequences(3, 4))), rel=0.01
    )


@pytest.mark.parametrize(
    "sequences", [torch.zeros(1, 3, 5), torch.full((1, 3, 4), 0.5), torch.full((1, 3, 4), math.nan)]
)
def test_a_source_judges_only_what_it_could_have_written(source, sequences):
    for measure in (source.nats, source.row_independent_nats):
        with pytest.raises(checks.LabError, match="writes 0 and 1"):
            measure(sequences)


@pytest.mark.parametrize("levels", [2, 5])
def test_the_lowest_temperature_there_is_still_draws_the_most_probable(levels):
    model = model_of(3, levels, distribution="categorical")
    greedy, _ = helpers.sample(model, 4)
    assert torch.equal(helpers.sample(model, 4, temperature=1e-38)[0], greedy)
