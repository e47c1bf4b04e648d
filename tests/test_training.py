"""Training is repeatable, stops cleanly when it is interrupted or fails, and asks nothing of a model but its loss."""

import itertools
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import helpers
from support import checks, devices, optimizers

TINY = helpers.to_batch([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], 2)

NO_TENSORS = {
    "array": np.asarray,
    "list": torch.Tensor.tolist,
    "TensorDataset": torch.utils.data.TensorDataset,
    "DataLoader": lambda sequences: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(sequences)),
}


class Slope(nn.Module):
    """Its loss is its one weight times a factor, so that Adam moves the weight by the whole learning rate.

    before_loss: called with the number of the loss, from 0, before each.
    """

    def __init__(self, factor=1.0, before_loss=lambda number: None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.factor, self.before_loss, self.modes = factor, before_loss, []

    def loss(self, sequences):
        self.before_loss(len(self.modes))
        self.modes.append(self.training)
        return self.factor * self.weight


def small_model(seed=0, **settings):
    torch.manual_seed(seed)
    return helpers.GenModel(4, 16, **settings)


def interrupt(*_):
    raise KeyboardInterrupt


def is_finite(model):
    return all(weight.isfinite().all() for weight in model.state_dict().values())


# What it does


@pytest.mark.parametrize("distribution", helpers.DISTRIBUTIONS)
@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}, {"output": "seq2vec", "window": 3}], ids=str)
def test_loss_falls_far_below_the_untrained(settings, distribution):
    history = helpers.train(small_model(distribution=distribution, **settings), TINY, steps=120, learning_rate=0.03)
    assert history.loss[-1] < 0.1 * history.loss[0]


def test_same_seed_gives_the_same_history():
    def run(seed):
        model = small_model(seed, norm="batch")
        return helpers.train(model, TINY, steps=5, probe=lambda m: {"loss": m.loss(TINY).item()}, probe_at=[0, 5])

    first, again, other = run(1), run(1), run(2)
    assert (first.loss, first.probes) == (again.loss, again.probes)
    assert first.loss != other.loss


def test_first_loss_is_the_untrained_models():
    untrained = small_model().loss(TINY).item()
    history = helpers.train(small_model(), TINY, steps=3)
    assert history.loss[0] == untrained
    assert len(history.loss) == len(history.seconds) == 3
    assert not history.interrupted


def test_learning_rate_falls_along_half_a_cosine():
    history = helpers.train(
        Slope(), None, steps=8, learning_rate=0.01, probe=lambda m: {"weight": m.weight.item()}, probe_at=range(9)
    )
    _, weights = history.probed("weight")
    expected = [0.01 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert (weights[:-1] - weights[1:]).tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("clip", "gradient"), [(0.5, 0.5), (2000, 1000)])
def test_gradient_is_clipped_and_does_not_add_up(clip, gradient):
    probe = {"probe": lambda m: {"gradient": m.weight.grad.item()}, "probe_at": [1, 2, 3]}
    _, gradients = helpers.train(Slope(1000), None, steps=3, clip=clip, **probe).probed("gradient")
    assert gradients.tolist() == pytest.approx([gradient] * 3)


def test_trains_in_training_mode_and_leaves_evaluation_mode():
    model = Slope()
    history = helpers.train(model, None, steps=3, probe=lambda m: m.eval() and {}, probe_at=range(4))
    assert model.modes == [True] * 3
    assert not model.training
    assert len(history.probes) == 4


# The probe and the clock


def test_probe_is_called_after_the_updates_asked_for():
    model = Slope()
    history = helpers.train(model, None, steps=5, probe=lambda m: {"updates": len(m.modes)}, probe_at=[5, 0, 3, 3, 9])
    steps, updates = history.probed("updates")
    assert steps.tolist() == updates.tolist() == [0, 3, 5]


def test_probe_does_not_count_in_the_seconds(monkeypatch):
    now = 0

    def pass_time(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(helpers, "time", SimpleNamespace(perf_counter=lambda: now))
    model = Slope(before_loss=lambda number: pass_time(1))
    history = helpers.train(model, None, steps=3, probe=lambda m: pass_time(100) or {}, probe_at=range(4))
    assert history.seconds == [1, 2, 3]


# Stopping early


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(devices, "someone_watches", lambda: True)


def test_an_interrupt_that_nobody_watches_ends_the_run():
    """A test runner's interrupt, at a cell's time limit, must not look like a run that went well."""
    model = small_model()
    with pytest.raises(KeyboardInterrupt):
        helpers.train(model, TINY, steps=5, probe=interrupt, probe_at=[2])
    assert not model.training


@pytest.mark.parametrize("step", [0, 2, 5])
def test_interrupt_from_the_probe(step, watched):
    model = small_model(norm="batch")
    history = helpers.train(model, TINY, steps=5, probe=interrupt, probe_at=[step])
    assert history.interrupted and len(history.loss) == len(history.seconds) == step
    assert not model.training
    assert helpers.sample(model, 6)[0].isfinite().all()


@pytest.mark.parametrize("step", [0, 2])
def test_interrupt_within_the_loss(monkeypatch, step):
    monkeypatch.setattr(devices, "someone_watches", lambda: True)
    model = small_model()
    calls, loss = [], model.loss

    def loss_or_interrupt(sequences):
        calls.append(len(calls))
        return loss(sequences) if len(calls) <= step else interrupt()

    monkeypatch.setattr(model, "loss", loss_or_interrupt)
    history = helpers.train(model, TINY, steps=5)
    assert history.interrupted and len(history.loss) == step
    assert not model.training
    assert helpers.sample(model, 6)[0].isfinite().all()
    monkeypatch.undo()
    assert not helpers.train(model, TINY, steps=2).interrupted  # it can be trained on


def test_loss_that_is_not_finite_stops_before_the_update():
    def break_third(number):
        model.factor = math.nan if number == 2 else 1

    model = Slope(before_loss=break_third)
    probe = {"probe": lambda m: {"weight": m.weight.item()}, "probe_at": [2]}
    with pytest.raises(helpers.TrainingError, match=r"At step 2 the loss is nan.*Lower the learning rate") as raised:
        helpers.train(model, None, steps=5, **probe)
    history = raised.value.history
    assert len(history.loss) == len(history.seconds) == 2
    assert model.weight.item() == history.probes[0]["weight"]


def test_gradient_that_is_not_finite_stops_before_the_update():
    class Root(Slope):
        def loss(self, sequences):
            return (self.weight - 3).sqrt()  # 0, with an infinite slope

    model = Root()
    with pytest.raises(helpers.TrainingError, match=r"the loss is 0.0 and its gradient's norm inf"):
        helpers.train(model, None, steps=5)
    assert model.weight.item() == 3


class Cliffs(nn.Module):
    """Each slope is finite, their length is not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 1e-30))

    def loss(self, sequences):
        return (self.weight * 3e38).sum()


def test_gradient_whose_norm_alone_overflows_does_no_harm():
    model = Cliffs()
    history = helpers.train(model, None, steps=5)
    assert len(history.loss) == 5 and model.weight.tolist() == pytest.approx([1e-30, 1e-30])


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_learning_rate_far_too_high(norm):
    model = small_model(norm=norm)
    with pytest.raises(checks.LabError, match="Lower the learning rate") as raised:
        helpers.train(model, TINY, steps=50, learning_rate=3e37)
    assert raised.value.history.loss
    assert is_finite(model)


# Arguments that cannot be used


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "3"])
def test_bad_steps(steps):
    with pytest.raises(checks.LabError, match="steps must be a whole number of at least 1"):
        helpers.train(Slope(), None, steps=steps)


@pytest.mark.parametrize(
    "setting",
    [{"clip": value} for value in (-1, 0, "1", math.nan, True)]
    + [{"weight_decay": value} for value in (-1, None, math.inf)],
    ids=str,
)
def test_bad_settings_are_named(setting):
    (name,) = setting
    with pytest.raises(checks.LabError, match=f"{name} must be a number"):
        helpers.train(Slope(), None, steps=1, **setting)


def test_without_a_clip_the_gradient_is_as_long_as_it_is():
    model = Slope(factor=1000)
    helpers.train(model, None, steps=1, clip=None)
    assert model.weight.grad.item() == 1000


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numpy_numbers_are_numbers(kind):
    settings = {"learning_rate": kind(1), "weight_decay": kind(0), "clip": kind(1)}
    assert len(helpers.train(Slope(), None, steps=np.int64(2), **settings).loss) == 2


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_frozen_weights_stay_and_have_no_gradient_to_look_at(optimizer):
    model = Cliffs()
    model.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    assert len(helpers.train(model, None, steps=5, optimizer=optimizer).loss) == 5
    assert torch.equal(model.frozen, torch.ones(2, 2))


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_model_that_is_frozen_as_a_whole_is_told(optimizer):
    with pytest.raises(checks.LabError, match="nothing to train"):
        helpers.train(small_model().requires_grad_(False), TINY, steps=1, optimizer=optimizer)


@pytest.mark.parametrize("learning_rate", [-0.1, math.nan, "0.1", None])
def test_bad_learning_rate(learning_rate):
    with pytest.raises(checks.LabError, match="learning_rate"):
        helpers.train(Slope(), None, steps=1, learning_rate=learning_rate)


def test_batch_norm_cannot_train_on_one_step():
    with pytest.raises(checks.LabError, match=r"[Bb]atch norm"):
        helpers.train(small_model(norm="batch"), TINY[:, :1], steps=1)


# The progress bar


def test_no_progress_bar_in_tests(capsys):
    helpers.train(Slope(), None, steps=3)
    assert capsys.readouterr() == ("", "")


def test_progress_bar_for_someone_who_watches(capsys, monkeypatch):
    monkeypatch.setattr(devices, "someone_watches", lambda: True)
    helpers.train(Slope(), None, steps=3)
    shown = capsys.readouterr()
    assert shown.out == "" and "training" in shown.err and "/3" in shown.err


def in_notebook(**content):
    kernel = SimpleNamespace(get_parent=lambda channel: {"content": content})
    return SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))


@pytest.mark.parametrize(
    ("ipython", "terminal", "watched"),
    [
        (None, False, False),
        (None, True, True),
        (SimpleNamespace(get_ipython=lambda: None), False, False),
        (SimpleNamespace(get_ipython=lambda: SimpleNamespace()), True, True),  # IPython in a terminal
        (in_notebook(allow_stdin=True), False, True),
        (in_notebook(allow_stdin=False), True, False),
        (in_notebook(), True, False),
    ],
)
def test_who_watches(monkeypatch, ipython, terminal, watched):
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert devices.someone_watches() is watched


# What predictions are conditioned on


@pytest.mark.parametrize("value", ["0.1", None, True, 1.1, -0.1, math.nan], ids=str)
def test_a_probability_to_be_flipped_that_is_none(value):
    with pytest.raises(checks.LabError, match="probability must be a number"):
        helpers.flipped(value)


def test_grey_values_are_predicted_from_their_bits():
    """The mean over binarisations of the loss of bits is that of grey values, with the same bits before each."""
    torch.manual_seed(0)
    model, grey = helpers.GenModel(3, 4, head="joint"), torch.rand(1, 2, 3)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).unflatten(1, (2, 3))  # all 64
    chances = torch.where(bits == 1, grey, 1 - grey).flatten(1).prod(1)
    of_bits = sum(chance * model.loss(one[None]) for chance, one in zip(chances, bits, strict=True))
    of_grey = sum(chance * model.loss(grey, one[None]) for chance, one in zip(chances, bits, strict=True))
    assert of_bits.item() == pytest.approx(of_grey.item(), rel=1e-6)
    given = []
    model.loss = lambda sequences, context: given.append((sequences, context)) or model.head.out.bias.sum()
    helpers.train(model, grey, steps=1, context=torch.bernoulli)
    assert torch.equal(given[0][0], grey) and set(given[0][1].unique().tolist()) <= {0.0, 1.0}


def test_noise_reaches_the_context_and_not_what_is_predicted():
    class Listener(Slope):
        def loss(self, sequences, context=None):
            self.seen.append((sequences, context))
            return self.weight

    model, sequences = Listener(), torch.rand(1, 200, 5)
    model.seen = []
    helpers.train(model, sequences, steps=2, context=helpers.flipped(0.3))
    for predicted, context in model.seen:
        assert torch.equal(predicted, sequences)
        changed = context != sequences
        assert torch.equal(context[changed], 1 - sequences[changed]) and 0.2 < changed.float().mean() < 0.4
    assert not torch.equal(model.seen[0][1], model.seen[1][1])  # anew at each step


def test_loss_told_something_else_predicts_the_true_steps():
    model = small_model()
    told = 1 - TINY
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(model.teacher_forced(told), TINY)
    assert model.loss(TINY, told).item() == pytest.approx(wanted.item())
    assert model.loss(TINY, told).item() != pytest.approx(model.loss(TINY).item())


# The least-squares readout of an untrained model


@pytest.mark.parametrize("cell", helpers.CELLS)
@pytest.mark.parametrize("settings", [{}, {"output": "seq2vec", "window": 3}, {"norm": "layer"}])
def test_readout_restores_noise_from_an_untrained_model(cell, settings):
    torch.manual_seed(0)
    bits = torch.randint(0, 2, (1, 12, 40)).float()
    model = helpers.GenModel(40, 16, cell=cell, **settings)
    before = model.rnn.weight_hh_l0.clone()
    assert helpers.fraction_exact(helpers.sample(model, 12)[0], bits, 2) < 0.8
    assert helpers.fit_head(model, bits) == 12
    assert helpers.fraction_exact(helpers.sample(model, 12)[0], bits, 2) == 1
    assert torch.equal(model.rnn.weight_hh_l0, before)  # nothing but the output layer was set


def test_readout_with_fewer_features_than_steps_does_not_restore_noise():
    torch.manual_seed(0)
    bits = torch.randint(0, 2, (1, 12, 40)).float()
    model = helpers.GenModel(40, 6)
    assert helpers.fit_head(model, bits) == 7
    assert helpers.fraction_exact(helpers.sample(model, 12)[0], bits, 2) < 1


# Batches, budgets, optimisers


class Listener(nn.Module):
    """Keeps the batches it is asked the loss of."""

    def __init__(self):
        super().__init__()
        self.weight, self.batches = nn.Parameter(torch.ones(2, 2)), []

    def loss(self, sequences):
        self.batches.append(sequences)
        return (self.weight * sequences.mean()).square().sum()


NUMBERED = torch.arange(10.0)[:, None, None].expand(10, 3, 2) / 10


def first_values(listener):
    return [sorted((10 * batch[:, 0, 0]).round().int().tolist()) for batch in listener.batches]


def test_batches_go_through_all_sequences_in_an_order_of_their_own_each_time():
    listener = Listener()
    helpers.train(listener, NUMBERED, steps=6, batch_size=3)
    seen = first_values(listener)
    assert all(len(batch) == 3 for batch in seen)
    first, second = set(itertools.chain(*seen[:3])), set(itertools.chain(*seen[3:]))
    assert len(first) == len(second) == 9  # one of the ten fills no batch
    assert seen[:3] != seen[3:] != sorted(seen[3:])


def test_without_a_batch_size_every_step_sees_all():
    listener = Listener()
    helpers.train(listener, NUMBERED, steps=3)
    assert first_values(listener) == [list(range(10))] * 3


def test_prepare_sees_each_batch_and_is_what_is_learned():
    listener = Listener()
    helpers.train(listener, NUMBERED, steps=4, batch_size=5, prepare=torch.bernoulli)
    assert all(set(batch.flatten().tolist()) <= {0.0, 1.0} for batch in listener.batches)
    assert not torch.equal(listener.batches[0], listener.batches[2])


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "2", 11])
def test_bad_batch_size(size):
    with pytest.raises(checks.LabError, match=r"batch_size must be|A batch of 11 cannot be taken from 10"):
        helpers.train(Listener(), NUMBERED, steps=1, batch_size=size)


@pytest.fixture
def clock(monkeypatch):
    """Time passes only between two looks at the clock: each update takes 0.01 s, whatever the machine does."""
    ticks = itertools.count()
    monkeypatch.setattr(helpers, "time", SimpleNamespace(perf_counter=lambda: 0.01 * next(ticks)))


def test_a_budget_of_seconds_is_kept_and_looked_into(clock):
    model = Listener()
    history = helpers.train(
        model, NUMBERED, seconds=0.295, probe=lambda model: {"count": len(model.batches)}, probe_at=[0, 0.095, 0.295]
    )
    assert len(history.loss) == 30 and history.seconds[-1] == pytest.approx(0.3)
    assert [(probe["step"], probe["count"]) for probe in history.probes] == [(0, 0), (10, 10), (30, 30)]


def test_the_learning_rate_falls_along_half_a_cosine_of_the_budget_of_seconds(clock):
    history = helpers.train(
        Slope(),
        None,
        seconds=0.0801,
        learning_rate=0.01,
        probe=lambda m: {"weight": m.weight.item()},
        probe_at=[step / 100 - 0.001 for step in range(1, 9)],
    )
    _, weights = history.probed("weight")
    expected = [0.01 * (1 + math.cos(math.pi * step / 8.01)) / 2 for step in range(8)]
    assert (3 - weights[0], *(weights[:-1] - weights[1:])) == pytest.approx(expected, rel=1e-2, abs=1e-6)


def test_looks_without_a_probe_are_nothing():
    assert helpers.train(Slope(), None, steps=2, probe_at=[0, 1]).probes == []


@pytest.mark.parametrize("budget", [{}, {"steps": 2, "seconds": 1.0}])
def test_steps_or_seconds(budget):
    with pytest.raises(checks.LabError, match="a number of steps or a budget of seconds"):
        helpers.train(Slope(), None, **budget)


@pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan, True, "3"])
def test_bad_seconds(seconds):
    with pytest.raises(checks.LabError, match="seconds must be a number above 0"):
        helpers.train(Slope(), None, seconds=seconds)


class Fit(nn.Module):
    """Its loss has one constant gradient for a matrix, in which one direction is a thousand times as long as others."""

    def __init__(self):
        super().__init__()
        self.matrix, self.vector = nn.Parameter(torch.zeros(8, 8)), nn.Parameter(torch.zeros(4))
        (left, _), (right, _) = torch.linalg.qr(torch.randn(8, 8)), torch.linalg.qr(torch.randn(8, 8))
        self.gradient = left @ torch.diag(torch.tensor([1000.0] + [1.0] * 7)) @ right

    def loss(self, sequences):
        return (self.matrix * self.gradient).sum() + self.vector.sum()


def test_muon_moves_a_matrix_alike_in_all_directions_and_leaves_vectors_to_adam():
    spread = {}
    for optimizer in ("adam", "muon"):
        torch.manual_seed(0)
        model = Fit()
        helpers.train(model, None, steps=1, optimizer=optimizer, clip=1e9)
        moved = torch.linalg.svdvals(model.matrix.detach())
        spread[optimizer] = (moved.max() / moved.min()).item()
        torch.testing.assert_close(model.vector.detach(), torch.full((4,), -0.01), rtol=1e-3, atol=0)
    assert spread["muon"] < 3 and spread["adam"] > 10


@pytest.mark.parametrize("bfloat16", [False, True])
def test_muon_makes_updates_orthogonal_with_8_bits_too(bfloat16):
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.zeros(48, 32))
    matrix.grad = torch.randn(48, 32)
    before = torch.linalg.svdvals(matrix.grad)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        optimizers.Muon([matrix], lr=1.0).step()
    assert matrix.dtype == torch.float32
    moved = torch.linalg.svdvals(matrix.detach()) / (0.2 * math.sqrt(48))
    assert moved.min() > 0.6 and moved.max() < 1.3 and before.max() > 8 * before.min()


def test_muon_takes_the_weights_of_convolutions_as_matrices():
    """Their outputs by all that one of them sees: the update of a kernel is as orthogonal as that of such a matrix."""
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.zeros(6, 4, 3, 3))
    kernel.grad = (torch.randn(6, 36) * torch.arange(1, 7)[:, None]).view_as(kernel)
    before = torch.linalg.svdvals(kernel.grad.flatten(1))
    matrices, vectors = optimizers.make_optimizers([kernel, torch.nn.Parameter(torch.zeros(6))], "muon", 1.0, 0.0)
    assert matrices.param_groups[0]["params"] == [kernel] and len(vectors.param_groups[0]["params"]) == 1
    matrices.step()
    moved = torch.linalg.svdvals(kernel.detach().flatten(1)) / (0.2 * math.sqrt(36))
    assert moved.min() > 0.6 and moved.max() < 1.3 and before.max() > 4 * before.min()


def test_seconds_are_counted_by_the_clock_that_is_given(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(helpers, "time", None)  # not asked
    history = helpers.train(Slope(), None, seconds=5, clock=lambda: next(ticks))
    assert history.seconds == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_muon_multiplies_in_bfloat16_where_training_does(monkeypatch, bfloat16):
    dtypes, orthogonal = set(), optimizers.Muon.orthogonal

    def spy(self, x):
        made = orthogonal(self, x)
        dtypes.add(made.dtype)
        return made

    monkeypatch.setattr(optimizers.Muon, "orthogonal", spy)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)  # emulated where it is not
    helpers.train(Fit(), None, steps=1, optimizer="muon", bfloat16=bfloat16)
    assert dtypes == {torch.bfloat16 if bfloat16 else torch.float32}


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay_takes_its_share_off_matrices(optimizer):
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def loss(self, sequences):
            return 0 * self.matrix.sum() + 0 * self.vector.sum()

    model = Still()
    helpers.train(model, None, steps=1, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    torch.testing.assert_close(model.matrix.detach(), torch.full((2, 2), 0.95))
    torch.testing.assert_close(model.vector.detach(), torch.full((2,), 0.95 if optimizer == "adam" else 1.0))


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_joint_heads_learn_too(optimizer):
    history = helpers.train(small_model(head="joint"), TINY, steps=120, learning_rate=0.03, optimizer=optimizer)
    assert history.loss[-1] < 0.1 * history.loss[0]


def test_bad_optimizer():
    with pytest.raises(checks.LabError, match="optimizer must be one of 'adam', 'muon'"):
        helpers.train(Slope(), None, steps=1, optimizer="sgd")


def test_a_readout_is_not_solved_for_a_joint_head():
    with pytest.raises(checks.LabError, match="joint head"):
        helpers.fit_head(small_model(head="joint"), TINY)


def losses_with(bfloat16):
    torch.manual_seed(0)
    sequences, model = (torch.rand(4, 6, 2) < 0.5).float(), helpers.GenModel(2, 5, head="joint")
    history = helpers.train(model, sequences, steps=30, bfloat16=bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    return history.loss


@pytest.mark.skipif(not devices.has_bfloat16("cpu"), reason="this processor has no instructions for bfloat16")
def test_bfloat16_learns_the_same_with_fewer_digits():
    """The first loss differs in the third digit, not in the first; weights and losses stay what they were."""
    plain, rounded = losses_with(False), losses_with(True)
    assert rounded[0] != plain[0] and rounded == pytest.approx(plain, rel=0.05) and rounded[-1] < rounded[0]


def test_without_instructions_for_bfloat16_it_trains_in_float32_and_says_so(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="No instructions for bfloat16"):
        rounded = losses_with(True)
    assert rounded == losses_with(False)


def test_bfloat16_is_asked_of_the_processor_and_of_its_lstm(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert not devices.has_bfloat16("cpu")

    def no_primitive(*_):
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(nn.LSTM, "forward", no_primitive)
    assert not devices.has_bfloat16("cpu")


@pytest.mark.parametrize("kind", NO_TENSORS)
def test_sequences_that_are_no_tensor(kind):
    with pytest.raises(checks.LabError, match=r"wanted as a float32 tensor .*torch.tensor\(values"):
        helpers.train(small_model(), NO_TENSORS[kind](TINY), steps=1, batch_size=2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize(
    "setting", [{}, {"context": helpers.flipped(0.1)}, {"batch_size": 1}], ids=["plain", "damaged", "in batches"]
)
def test_sequences_of_other_numbers_than_floating_point(dtype, setting):
    model = small_model()
    before = model.head.weight.clone()
    with pytest.raises(checks.LabError, match=rf"float32 tensor .*, not of {dtype}. sequences.float\(\)"):
        helpers.train(model, TINY.to(dtype), steps=1, **setting)
    assert torch.equal(model.head.weight, before)


def test_sequences_in_double_precision_and_bytes_that_are_prepared_are_taken():
    expected = helpers.train(small_model(), TINY, steps=2).loss
    prepared = {"prepare": torch.Tensor.float, "context": helpers.flipped(0)}
    for sequences, setting in ((TINY.double(), {}), (TINY.byte(), prepared)):
        assert helpers.train(small_model(), sequences, steps=2, **setting).loss == pytest.approx(expected)
