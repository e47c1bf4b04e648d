"""Shifted pictures: they move as asked, and a network conditioned on shifts is a plain one where nothing is shifted."""

import numpy as np
import pytest
import torch

import helpers
from pixelrnn.models import augmentation
from support import checks

PICTURES = torch.bernoulli(torch.full((6, 5, 5), 0.4), generator=torch.Generator().manual_seed(0))


def conditioned(seed=0, **settings):
    """A network far from uniform, which has something to say of every shift."""
    torch.manual_seed(seed)
    model = augmentation.ShiftConditioned(**{"input_size": 5, "hidden_size": 8, **settings})
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
    moved = augmentation.shifted(PICTURES, others)
    assert torch.equal(moved[1], expected) and torch.equal(moved[0], PICTURES[0])


@pytest.mark.parametrize(
    "wrong", [torch.zeros(5, 2, dtype=torch.long), torch.zeros(6, 3, dtype=torch.long), torch.zeros(6, 2)]
)
def test_shifts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(checks.LabError, match=r"Shifts are whole numbers \(count, 2\)"):
        augmentation.shifted(PICTURES, wrong)


def test_no_shift_adds_nothing():
    """What is kept is a plain GenModel, and it computes the same to the last bit."""
    model = conditioned()
    plain = model.plain()
    assert type(plain) is helpers.GenModel and plain.settings == model.settings
    assert (helpers.nats(model, PICTURES) == helpers.nats(plain, PICTURES)).all()
    torch.manual_seed(1)
    first, _ = helpers.sample(model, 5, batch=20, temperature=1.0)
    torch.manual_seed(1)
    assert torch.equal(first, helpers.sample(plain, 5, batch=20, temperature=1.0)[0])
    moved = model.on(torch.tensor([[1, -1]]).expand(6, -1))
    assert np.abs(helpers.nats(moved, PICTURES) - helpers.nats(plain, PICTURES)).min() > 1e-3
    assert (helpers.nats(model, PICTURES) == helpers.nats(plain, PICTURES)).all()  # which the view leaves as it is


@pytest.mark.parametrize("shift", [None, (1, -2)])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_causal_for_any_shift(shift, training):
    model = conditioned().train(training)
    assert not helpers.leaks(model.on(None if shift is None else torch.tensor([shift])), PICTURES[:1])


def test_it_learns_from_the_shift_where_a_picture_is():
    """One picture with one dot. A model that is not conditioned on the shift cannot know where the dot is."""
    dot = torch.zeros(64, 7, 7)
    dot[:, 3, 3] = 1

    def moved(pictures):
        far = torch.randint(-2, 3, (len(pictures), 2)) * (torch.rand(len(pictures), 1) >= augmentation.UNSHIFTED)
        return augmentation.shifted(pictures, far)

    reached = {}
    for name, kind, prepare in (("conditioned", augmentation.ShiftConditioned, None), ("not", helpers.GenModel, moved)):
        torch.manual_seed(0)
        model = kind(input_size=7, hidden_size=32, head="joint")
        helpers.train(model, dot, steps=400, learning_rate=0.01, prepare=prepare)
        reached[name] = helpers.nats(model, dot[:1])[0]
    # Not conditioned it can do no better than the share of pictures that are in place: 0.3 and a 25th of the others.
    assert reached["conditioned"] < 0.2 and reached["not"] > 0.8 * -np.log(0.3 + 0.7 / 25)


@pytest.mark.parametrize("context", [None, helpers.flipped(0.2)], ids=["itself", "damaged"])
def test_shifts_are_as_often_and_as_far_as_is_said(monkeypatch, context):
    """And what predictions are conditioned on moves with what is to be predicted."""
    drawn, moved = [], augmentation.shifted

    def spy(pictures, of):
        drawn.append(of)
        return moved(pictures, of)

    monkeypatch.setattr(augmentation, "shifted", spy)
    model, pictures = conditioned(most=3, input_size=9), torch.zeros(2000, 9, 9)
    helpers.train(model, pictures, steps=1, context=context)
    assert len(drawn) == 1 + (context is not None) and torch.equal(drawn[0], drawn[-1])
    assert set(drawn[0].flatten().tolist()) == set(range(-3, 4))
    still = (drawn[0] == 0).all(1).float().mean().item()
    assert still == pytest.approx(augmentation.UNSHIFTED + (1 - augmentation.UNSHIFTED) / 49, abs=0.05)
    assert model.given is None


@pytest.mark.parametrize(
    "settings", [{"cell": "gru"}, {"num_layers": 2}, {"bidirectional": True}, {"output": "seq2vec", "window": 2}]
)
def test_networks_that_cannot_be_conditioned_are_refused(settings):
    with pytest.raises(checks.LabError, match="an LSTM of one layer"):
        conditioned(**settings)


def test_no_shift_at_all_is_refused():
    with pytest.raises(checks.LabError, match="most"):
        conditioned(most=0)
