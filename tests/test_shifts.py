"""Shifted pictures: they move as asked, and a network that learned from them looks at each picture in three places."""

import numpy as np
import pytest
import torch

import helpers
from pixelrnn.coding import codec
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


def views_by_hand(model, pictures):
    """Logits of each view (views, count, rows, columns), shifted back; NaN where a value has left the view."""
    seen = []
    for by in augmentation.VIEWS:
        shifts = torch.tensor([[0, by]]).expand(len(pictures), -1)
        logits = model.on(shifts).teacher_forced(augmentation.shifted(pictures, shifts))
        width = pictures.shape[-1]
        columns = [logits[..., at + by] if 0 <= at + by < width else logits[..., 0] * np.nan for at in range(width)]
        seen.append(torch.stack(columns, -1))
    return torch.stack(seen)


def test_outputs_are_the_mean_of_the_views_in_which_a_value_is():
    model = conditioned()
    views = views_by_hand(model, PICTURES)
    assert len(views) == 3 and views.std(0)[..., 2].min() > 0  # which differ
    assert torch.allclose(model.teacher_forced(PICTURES), views.nanmean(0), atol=1e-6)


def test_the_view_in_its_place_is_a_plain_joint_row():
    """The shift adds nothing where there is none."""
    model = conditioned()
    plain = helpers.GenModel(**model.settings)
    plain.load_state_dict({name: weight for name, weight in model.state_dict().items() if name != "of_shift.weight"})
    still = model.on(torch.zeros(6, 2, dtype=torch.long))
    assert torch.equal(still.teacher_forced(PICTURES), plain.teacher_forced(PICTURES))
    assert np.abs(helpers.nats(model, PICTURES) - helpers.nats(plain, PICTURES)).min() > 1e-3
    assert model.given is None  # a view leaves it as it is


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_sees_what_teacher_forcing_sees(temperature):
    model = conditioned()
    torch.manual_seed(1)
    sampled, outputs = helpers.sample(model, 5, batch=20, temperature=temperature)
    torch.manual_seed(1)
    assert torch.equal(sampled, helpers.sample_naively(model, 5, batch=20, temperature=temperature))
    assert torch.allclose(outputs, model.teacher_forced(sampled), atol=1e-5)
    given = sampled[:, :2]
    torch.manual_seed(1)
    finished, _ = helpers.sample(model, 5, given=given, temperature=temperature)
    torch.manual_seed(1)
    again, _ = helpers.sample(model, 5, given=given, temperature=temperature, cached=False)
    assert torch.equal(finished, again) and torch.equal(finished[:, :2], given)


def test_files_have_what_was_coded_with_the_mean_of_views():
    model = conditioned()
    assert torch.equal(codec.decompress(codec.compress(PICTURES, model), model), PICTURES)


@pytest.mark.parametrize("shift", [None, (1, -1)])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_causal_for_any_shift(shift, training):
    model = conditioned().train(training)
    assert not helpers.leaks(model if shift is None else model.on(torch.tensor([shift])), PICTURES[:1])


def moved_anywhere(pictures):
    """As training pictures are, without a word of where."""
    return augmentation.shifted(pictures, augmentation.some_shifts(len(pictures)))


def test_it_learns_from_the_shift_where_a_picture_is():
    """One picture with one dot. A model that is not conditioned on the shift cannot know where the dot is."""
    dot = torch.zeros(64, 7, 7)
    dot[:, 3, 3] = 1
    reached = {}
    for kind, prepare in ((augmentation.ShiftConditioned, None), (helpers.GenModel, moved_anywhere)):
        torch.manual_seed(0)
        model = kind(input_size=7, hidden_size=32, head="joint")
        helpers.train(model, dot, steps=400, learning_rate=0.01, prepare=prepare)
        reached[kind] = helpers.nats(model, dot[:1])[0]
    # Not conditioned it can do no better than the share of pictures that are in place, one of 15.
    assert reached[augmentation.ShiftConditioned] < 0.2 and reached[helpers.GenModel] > 0.8 * np.log(15)


@pytest.mark.parametrize("context", [None, helpers.flipped(0.2)], ids=["itself", "damaged"])
def test_shifts_are_as_often_and_as_far_as_is_said(monkeypatch, context):
    """And what predictions are conditioned on moves with what is to be predicted."""
    drawn, moved = [], augmentation.shifted

    def spy(pictures, of):
        drawn.append(of)
        return moved(pictures, of)

    monkeypatch.setattr(augmentation, "shifted", spy)
    model, pictures = conditioned(input_size=9), torch.zeros(3000, 9, 9)
    helpers.train(model, pictures, steps=1, context=context)
    assert len(drawn) == 1 + (context is not None) and torch.equal(drawn[0], drawn[-1])
    places, counts = drawn[0].unique(dim=0, return_counts=True)
    assert places.tolist() == [[row, column] for row in range(-2, 3) for column in range(-1, 2)]
    assert (counts / 3000).sub(1 / 15).abs().max() < 0.02


@pytest.mark.parametrize(
    "settings", [{"cell": "gru"}, {"num_layers": 2}, {"bidirectional": True}, {"output": "seq2vec", "window": 2}]
)
def test_networks_that_cannot_be_conditioned_are_refused(settings):
    with pytest.raises(checks.LabError, match="an LSTM of one layer"):
        conditioned(**settings)


@pytest.mark.parametrize("settings", [{"encoding": "one-hot", "levels": 2}, {"distribution": "categorical"}])
def test_other_values_than_bits_are_refused(settings):
    with pytest.raises(checks.LabError, match="bits"):
        conditioned(**settings)
