"""How samples are judged (tools/judge_samples.py): copies, other pictures and noise have the marks they deserve."""

import judge_samples
import numpy as np
import pytest
import torch

from pixelrnn.data import letters
from pixelrnn.models import weights
from support import checks, files


def test_precision_and_recall_of_points_by_hand():
    """Two clouds far apart; all that looks like one of them lies within it."""
    torch.manual_seed(0)
    first, second = torch.randn(200, 2), torch.randn(200, 2) + 50
    both = torch.cat([first, second])
    assert judge_samples.looks_like(first, both) == judge_samples.looks_like(second, both) == 1
    assert judge_samples.looks_like(first + 1000, both) == 0
    assert judge_samples.looks_like(both, first) == pytest.approx(0.5, abs=0.02)  # half of them is missed
    again = torch.randn(200, 2)
    assert 0.8 < judge_samples.looks_like(again, first) <= 1


def test_the_radius_is_the_distance_to_the_third_neighbour():
    others = torch.tensor([[0.0], [1.0], [2.0], [4.0], [100.0]])
    near = {at: judge_samples.looks_like(torch.tensor([[at]]), others) for at in (-4.0, -4.5, 110.0, 6.0, 195.0, 200.0)}
    assert near == {-4.0: 1, -4.5: 0, 110.0: 1, 6.0: 1, 195.0: 1, 200.0: 0}


def test_the_nearest_training_picture_of_a_copy_is_itself():
    training = torch.from_numpy(letters.load_letters().training[::20]).float()
    pictures = training[::40].clone()
    pictures[1:, 0, 0] = 1 - pictures[1:, 0, 0]
    near = judge_samples.nearest(pictures, training)
    by_hand = [(training - one).abs().sum((1, 2)).min().item() for one in pictures]
    assert near.tolist() == by_hand and near[0] == 0 and (near[1:] == 1).all()


def test_a_classifier_learns_what_it_is_to_describe_pictures_by():
    pictures = torch.zeros(400, 28, 28)
    pictures[::2, 5:10, 5:10] = 0.9
    pictures[1::2, 18:23, 5:10] = 0.9
    labels = torch.arange(400) % 2
    classifier = judge_samples.trained(pictures, labels, updates=30, batch=32)
    features = classifier.described(torch.bernoulli(pictures))
    assert features.shape == (400, 64) and not classifier.training
    assert (classifier.out(features).argmax(1) == labels).float().mean() > 0.95


def test_letters_are_labelled_by_their_families():
    training, labels, validation, test = judge_samples.parts_of("letters", None)
    families = letters.families().training
    assert len(training) == len(labels) == len(families) and len(validation) > len(test) > 1000
    for label in (0, 7):
        assert len(set(families[labels.numpy() == label])) == 1 and (labels == label).sum() >= judge_samples.LEAST
    few = families[labels.numpy() == -1]
    assert max(np.unique(few, return_counts=True)[1]) < judge_samples.LEAST


def test_labels_of_digits_come_from_an_npz(tmp_path, monkeypatch):
    monkeypatch.delenv("PIXELRNN_MNIST", raising=False)
    np.savez(tmp_path / "mnist.npz", y_train=np.arange(5, dtype=np.uint8))
    assert judge_samples.labels_of_digits(tmp_path / "mnist.npz").tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "other.npz", x_train=np.zeros(5))
    with pytest.raises(checks.LabError, match="no train_labels"):
        judge_samples.labels_of_digits(tmp_path / "other.npz")
    with pytest.raises(SystemExit, match=r"npz"):
        judge_samples.main(["digits"])


def test_judges_and_stores(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_samples, "MOST", 20)
    monkeypatch.setattr(judge_samples, "UPDATES", 2)
    monkeypatch.setattr(judge_samples, "ROOT", tmp_path)
    judge_samples.main(["letters"])
    protocol, names, labelled, numbers = files.read_table(tmp_path / "build" / "judged.csv", labels=2)
    assert names[2:] == list(judge_samples.COLUMNS) and protocol["weights"].keys() == {"letters"}
    assert [label for _, label in labelled] == [
        "test pictures",
        "samples, temperature 1",
        "samples, temperature 0.7",
        "validation pictures",
        "independent pixels",
        "untrained network",
    ]
    assert numbers[0, :3].tolist() == [20, 1, 1]


def test_what_is_stored_is_of_the_stored_weights_and_told_in_the_appendix():
    protocol, _, labelled, numbers = files.read_table(files.DATA / "samples" / "judged.csv", labels=2)
    assert protocol["weights"] == {name: weights.load(name)[1]["sha256"][:16] for name in weights.NAMES}
    note = (files.DATA.parent / "labnotes" / "appendix.md").read_text(encoding="utf-8")
    for (name, told), (_, precision, recall, nearest, *_, copies) in zip(labelled, numbers, strict=True):
        assert f"| {name}: {told} | {precision:.0%} | {recall:.0%} | {nearest:.0f} | {copies:.0f} |" in note
