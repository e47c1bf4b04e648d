"""Shifted pictures: they move as told, and a network that is told of its shifts forgets them without a trace."""

import numpy as np
import pytest
import torch

import files
import helpers
import shifts

PICTURES = torch.bernoulli(torch.full((6, 5, 5), 0.4), generator=torch.Generator().manual_seed(0))


def told(seed=0, **settings):
    """A network far from uniform, which has something to say of every shift."""
    torch.manual_seed(seed)
    model = shifts.Told(**{"input_size": 5, "hidden_size": 8, **settings})
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 1), (-2, 1), (2, -2), (5, 0), (0, -5)])
def test_a_picture_moves_down_and_right_and_zeros_come_in(shift):
    expected = torch.zeros(5, 5)
    for row in range(5):
        for column in range(5):
            to = row + shift[0], column + shift[1]
            if min(to) >= 0 and max(to) < 5:
                expected[to] = PICTURES[1, row, column]
    others = torch.tensor([[0, 0], shift, [1, 1], [0, 0], [-1, 0], [2, 2]])
    moved = shifts.shifted(PICTURES, others)
    assert torch.equal(moved[1], expected) and torch.equal(moved[0], PICTURES[0])


def test_shifts_that_do_not_fit_are_told():
    with pytest.raises(files.LabError, match=r"Shifts are \(count, 2\)"):
        shifts.shifted(PICTURES, torch.zeros(5, 2, dtype=torch.long))


def test_no_shift_adds_nothing():
    """What is kept is a plain GenModel, and it computes the same to the last bit."""
    model = told()
    plain = model.plain()
    assert type(plain) is helpers.GenModel and plain.settings == model.settings
    assert (helpers.nats(model, PICTURES) == helpers.nats(plain, PICTURES)).all()
    torch.manual_seed(1)
    first, _ = helpers.sample(model, 5, batch=20, temperature=1.0)
    torch.manual_seed(1)
    assert torch.equal(first, helpers.sample(plain, 5, batch=20, temperature=1.0)[0])
    model._shifts = torch.tensor([[1, -1]]).expand(6, -1)
    assert np.abs(helpers.nats(model, PICTURES) - helpers.nats(plain, PICTURES)).min() > 1e-3


@pytest.mark.parametrize("shift", [None, (1, -2)])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_causal_whatever_it_is_told(shift, training):
    model = told().train(training)
    model._shifts = None if shift is None else torch.tensor([shift])
    assert not helpers.leaks(model, PICTURES[:1])


def test_it_learns_where_a_picture_is_from_what_it_is_told():
    """One picture with one dot. Untold, a shifted dot may be anywhere, and its place costs nats; told, it is known."""
    dot = torch.zeros(64, 7, 7)
    dot[:, 3, 3] = 1

    def untold(pictures):
        far = torch.randint(-2, 3, (len(pictures), 2)) * (torch.rand(len(pictures), 1) >= shifts.UNTOUCHED)
        return shifts.shifted(pictures, far)

    reached = {}
    for name, kind, prepare in (("told", shifts.Told, None), ("untold", helpers.GenModel, untold)):
        torch.manual_seed(0)
        model = kind(input_size=7, hidden_size=32, head="joint")
        helpers.train(model, dot, steps=400, learning_rate=0.01, prepare=prepare)
        reached[name] = helpers.nats(model, dot[:1])[0]
    # Untold it can do no better than the share of pictures that are in place: 0.3 and a 25th of the others.
    assert reached["told"] < 0.2 and reached["untold"] > 0.8 * -np.log(0.3 + 0.7 / 25)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_shifts_are_as_often_and_as_far_as_is_said(monkeypatch, noise):
    """And what predictions are conditioned on moves with what is to be predicted."""
    drawn, moved = [], shifts.shifted

    def spy(pictures, of):
        drawn.append(of)
        return moved(pictures, of)

    monkeypatch.setattr(shifts, "shifted", spy)
    model, pictures = told(most=3, input_size=9), torch.zeros(2000, 9, 9)
    helpers.train(model, pictures, steps=1, noise=noise)
    assert len(drawn) == 1 + (noise > 0) and torch.equal(drawn[0], drawn[-1])
    assert set(drawn[0].flatten().tolist()) == set(range(-3, 4))
    still = (drawn[0] == 0).all(1).float().mean().item()
    assert still == pytest.approx(shifts.UNTOUCHED + (1 - shifts.UNTOUCHED) / 49, abs=0.05)
    assert model._shifts is None


@pytest.mark.parametrize(
    "settings", [{"cell": "gru"}, {"num_layers": 2}, {"bidirectional": True}, {"output": "seq2vec", "window": 2}]
)
def test_networks_that_cannot_be_told_are_refused(settings):
    with pytest.raises(files.LabError, match="an LSTM of one layer"):
        told(**settings)


def test_no_shift_at_all_is_refused():
    with pytest.raises(files.LabError, match="most"):
        told(most=0)
