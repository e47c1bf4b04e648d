"""Reading orders: turned pictures come back, and a mixture of orders is a likelihood from which one can sample."""

import itertools

import numpy as np
import pytest
import torch

import helpers
from pixelrnn.models import ensemble, orders, saving
from support import checks

PICTURES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).reshape(-1, 3, 3)  # all of 3 x 3


def joint(seed=0, size=3):
    torch.manual_seed(seed)
    return helpers.GenModel(size, 8, head="joint")


def mixture(*of):
    """A member for each order, far from uniform and each from a seed of its own; the last an average of two."""
    models = [joint(order) for order in of[:-1]] + [ensemble.Average([joint(20), joint(21)])]
    mixed = orders.Mixture(of, models)
    with torch.no_grad():
        for weight in mixed.parameters():
            weight.mul_(2)
    return mixed


def shared(*of):
    """One network for these orders, far from uniform."""
    torch.manual_seed(0)
    model = orders.Shared(of, input_size=3, hidden_size=8)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model


either = pytest.mark.parametrize("build", [mixture, shared])


@pytest.mark.parametrize("order", orders.ORDERS)
def test_turned_pictures_come_back(order):
    pictures = torch.rand(2, 5, 5)
    assert torch.equal(orders.turned_back(orders.turned(pictures, order), order), pictures)


def test_the_orders_are_the_eight_symmetries_of_a_square():
    picture = np.arange(16).reshape(4, 4)
    expected = {np.rot90(one, quarter).tobytes() for one in (picture, picture.T) for quarter in range(4)}
    turned = {orders.turned(torch.tensor(picture), order).numpy().tobytes() for order in orders.ORDERS}
    assert turned == expected and len(expected) == 8
    assert orders.turned(torch.tensor(picture), 0).numpy().tolist() == picture.tolist()
    assert orders.turned(torch.tensor(picture), 3).numpy().tolist() == np.rot90(picture, 2).tolist()
    assert orders.turned(torch.tensor(picture), 4).numpy().tolist() == picture.T.tolist()


@either
def test_probabilities_of_all_pictures_sum_to_one(build):
    mixed = build(0, 3, 4, 7)
    assert np.exp(-mixed.nats(PICTURES)).sum() == pytest.approx(1, abs=1e-6)


@either
def test_nats_are_those_of_the_mean_probability_and_at_most_their_mean(build):
    mixed, own = build(0, 3, 4).nats(PICTURES, each=True)
    assert own.shape == (3, 512) and np.abs(own[0] - own[1]).max() > 0.1
    assert mixed == pytest.approx(-np.log(np.exp(-own).mean(0)), rel=1e-9)
    assert (mixed <= own.mean(0) + 1e-9).all() and (mixed >= own.min(0) - 1e-9).all()
    assert (mixed <= own.min(0) + np.log(3) + 1e-9).all()


@pytest.mark.parametrize("order", orders.ORDERS)
def test_each_order_is_causal_in_its_own_order(order):
    """By gradient: a value depends on those that its order reads before it, and on no other."""
    model, picture = joint(), torch.rand(1, 3, 3, requires_grad=True)
    places = orders.turned(torch.arange(9).reshape(3, 3), order).flatten().tolist()
    for mode in (True, False):
        logits = model.train(mode).teacher_forced(orders.turned(picture, order)).flatten()
        for step, place in enumerate(places):
            (gradient,) = torch.autograd.grad(logits[step], picture, retain_graph=True, allow_unused=True)
            reached = set() if gradient is None else set(gradient.flatten().nonzero().flatten().tolist())
            assert reached == set(places[:step]), (order, mode, place)


@either
def test_samples_are_of_the_mixture(build):
    """A chi-square test against the exact probabilities of all pictures."""
    from scipy.stats import chisquare

    mixed, count = build(0, 3, 4), 20_000
    torch.manual_seed(0)
    sampled = mixed.sample(count).flatten(1)
    seen = np.bincount((sampled @ 2.0 ** torch.arange(8, -1, -1)).int().numpy(), minlength=512)
    expected = count * np.exp(-mixed.nats(PICTURES))
    assert expected.min() > 5 and chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3
    other = np.exp(-helpers.nats(joint(0), PICTURES))
    assert chisquare(seen, other * seen.sum() / other.sum()).pvalue < 1e-3  # another model's probabilities are refused


@either
def test_a_mixture_is_kept_in_a_file(tmp_path, build):
    mixed = build(0, 5, 6)
    saving.save_model(mixed, tmp_path / "mixture.safetensors")
    again = saving.load_model(tmp_path / "mixture.safetensors")
    assert again.settings == mixed.settings and (again.nats(PICTURES) == mixed.nats(PICTURES)).all()


@pytest.mark.parametrize(
    ("of", "models"),
    [
        ([], []),
        ([0, 0], [joint(), joint()]),
        ([0, 1], [joint()]),
        ([0, 1], [joint(), joint(size=4)]),
        ([0], [torch.nn.Linear(3, 3)]),
        ([8], [joint()]),
        (["0"], [joint()]),
    ],
)
def test_what_is_no_mixture_is_told(of, models):
    with pytest.raises(checks.LabError, match=r"order"):
        orders.Mixture(of, models)


@pytest.mark.parametrize("order", orders.ORDERS)
def test_one_network_for_all_orders_is_causal_in_each(order):
    model = shared(*orders.ORDERS).in_order(order)
    for mode in (True, False):
        assert not helpers.leaks(model.train(mode), PICTURES[:4])


def test_one_network_depends_on_the_order_it_is_conditioned_on():
    model = shared(0, 3)
    first, second = (helpers.nats(model.in_order(order), PICTURES) for order in (0, 3))
    assert np.abs(first - second).max() > 0.01
    with pytest.raises(checks.LabError, match="order must be one of 0, 3, not 1"):
        model.in_order(1)


def test_what_reads_in_an_order_is_a_view():
    """Another order asked for, or all of them, leaves it as it is; its weights are the network's."""
    model = shared(0, 3)
    first = model.in_order(0)
    before = helpers.nats(first, PICTURES)
    model.in_order(3)
    model.nats(PICTURES)
    model.sample(4)
    assert (helpers.nats(first, PICTURES) == before).all()
    with torch.no_grad():
        model.model.of_order[0] += 1
    assert (helpers.nats(first, PICTURES) == helpers.nats(model.in_order(0), PICTURES)).all()
    assert np.abs(helpers.nats(first, PICTURES) - before).max() > 0.01


@either
@pytest.mark.parametrize("use", [lambda model: model.nats(PICTURES), lambda model: model.sample(4)])
def test_a_model_that_is_measured_is_whole_in_evaluation_mode(build, use):
    """A view has a mode of its own; no part may be left in training mode, the network itself included."""
    model = build(0, 3).train()
    use(model)
    assert not any(part.training for part in model.modules())


def test_one_network_learns_in_all_of_its_orders():
    """Pictures whose first row is random and whose others repeat it: in each order a copy is there to be found."""
    torch.manual_seed(0)
    pictures = torch.randint(0, 2, (64, 1, 3)).float().expand(-1, 3, -1)
    model = orders.Shared(orders.ORDERS, input_size=3, hidden_size=16)
    _, before = model.nats(pictures, each=True)
    helpers.train(model, pictures, steps=300, learning_rate=0.02)
    _, after = model.nats(pictures, each=True)
    assert before.mean(1).min() > 5 and after.mean(1).max() < 3  # the least possible: 3 ln 2 = 2.08


@pytest.mark.parametrize(
    "settings", [{"cell": "gru"}, {"num_layers": 2}, {"bidirectional": True}, {"output": "seq2vec", "window": 2}]
)
def test_one_network_for_all_orders_refuses_what_it_cannot_condition(settings):
    with pytest.raises(checks.LabError, match="an LSTM of one layer"):
        orders.Shared([0, 1], input_size=3, hidden_size=8, **settings)


def test_pictures_that_are_not_square_are_told():
    with pytest.raises(checks.LabError, match="square"):
        mixture(0, 1).nats(torch.zeros(1, 3, 4))
