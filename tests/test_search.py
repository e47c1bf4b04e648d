"""The search for the settings of the benchmark's models, and the ablations, on little data."""

import dataclasses

import ablations
import numpy as np
import pytest
import search
import torch

from pixelrnn.data import letters
from pixelrnn.evidence import stored_curves
from pixelrnn.models import configs
from support import devices, files


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A small MNIST; trials share this process and are noted in place.tried, in place of being trained."""
    images = np.random.default_rng(0).integers(1, 254, (10_128, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", train_images=images, test_images=images[:4])
    monkeypatch.setenv("PIXELRNN_MNIST", str(tmp_path / "mnist.npz"))
    monkeypatch.setattr(search, "PATH", tmp_path / "search.csv")
    monkeypatch.setattr(ablations, "PATH", tmp_path / "ablations.csv")
    monkeypatch.setattr(
        devices, "in_processes", lambda calls, at_once: ((name, f(*a)) for name, (f, *a) in calls.items())
    )
    return tmp_path


@pytest.fixture
def some_letters(monkeypatch):
    """Few letters, whose bits must stay what they are."""
    parts = [np.random.default_rng(1).integers(0, 2, (count, 28, 28), np.uint8) for count in (64, 8, 8)]
    monkeypatch.setattr(letters, "load_letters", lambda: parts)


@pytest.fixture
def tried(monkeypatch):
    """Trials that are not trained: the nats are the distance of the settings from Muon, 0.02, width 128."""
    tried = []

    def trial(model, optimizer, width, rate, mnist, seconds):
        tried.append((model, optimizer, width, rate))
        return width, 7, 80 + abs(np.log2(rate / 0.02)) + abs(np.log2(width / 128)) + (optimizer == "adam")

    monkeypatch.setattr(search, "trial", trial)
    return tried


@pytest.mark.filterwarnings("ignore:The images at")
def test_tries_eight_settings_the_last_two_around_the_best(place, tried):
    search.main(["--model", "joint", "row-lstm"])
    assert len(tried) == len(set(tried)) == 16
    rates = [(name, 32, rate) for name, several in search.LEARNING_RATES.items() for rate in several]
    assert tried[6:12] == [("row-lstm", *one) for one in rates]
    assert tried[12:14] == [("joint", "muon", 128, 0.02), ("joint", "muon", 512, 0.02)]
    known = search.stored(place / "search.csv")
    assert search.best("joint", known) == ("muon", 128, 0.02) and search.best("row-lstm", known)[1] == 64


@pytest.mark.filterwarnings("ignore:The images at")
def test_a_search_goes_on_where_it_was_stopped(place, tried, monkeypatch):
    search.main(["--model", "joint"])
    before = search.stored(place / "search.csv")
    search.main(["--model", "joint"])
    assert len(tried) == 8 and search.stored(place / "search.csv") == before


@pytest.mark.filterwarnings("ignore:The images at")
@pytest.mark.parametrize("optimizer", search.LEARNING_RATES)
def test_a_trial_trains_and_measures_validation_images(place, optimizer):
    parameters, updates, nats = search.trial("joint", optimizer, 8, 0.01, None, 0.3)
    network = configs.BENCHMARK["joint"].build(28, 28, 8)
    assert parameters == sum(weight.numel() for weight in network.parameters())
    assert updates > 0 and 0 < nats < 600


@pytest.mark.filterwarnings("ignore:The images at")
def test_a_trial_that_fails_is_worse_than_any(place, monkeypatch):
    monkeypatch.setattr(search.helpers.SequenceModel, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    assert search.trial("joint", "adam", 8, 0.01, None, 0.3)[2] == float("inf")


def test_the_models_of_the_benchmark_are_the_best_of_the_stored_search():
    known = search.stored(files.DATA / "search" / "mnist.csv")
    for model, entry in configs.BENCHMARK.items():
        optimizer, width, rate = search.best(model, known)
        assert (entry.training["optimizer"], entry.training["learning_rate"]) == (optimizer, rate)
        assert search.width_of(model) == width


def test_without_mnist_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("PIXELRNN_MNIST", raising=False)
    with pytest.raises(SystemExit, match="Set the environment variable"):
        search.main(["--model", "joint"])


def network_of(name):
    torch.manual_seed(0)
    run = ablations.RUNS[name]
    entry = configs.MODELS[run.model]
    return run.change(entry.build(28, 28, **{**entry.sizes, **run.sizes})), entry


def test_a_head_that_does_not_see_values_to_the_left_reads_only_rows_above():
    pictures = torch.rand(1, 28, 28, requires_grad=True)
    for name, sees in (("as in the benchmark", True), ("values to the left are not seen", False)):
        network, _ = network_of(("why", name))
        (gradient,) = torch.autograd.grad(network.teacher_forced(pictures)[0, 5, 20], pictures)
        assert gradient[0, 4].abs().max() > 0 and (gradient[0, 5].abs().max() > 0) == sees


def test_a_changed_head_of_the_same_size_is_the_head_of_the_benchmark():
    network, entry = network_of(("why", "as in the benchmark"))
    changed = ablations._head(2)(entry.build(28, 28, **entry.sizes))
    changed.load_state_dict(network.state_dict())
    pictures = torch.bernoulli(torch.rand(2, 28, 28))
    assert torch.equal(changed.teacher_forced(pictures), network.teacher_forced(pictures))


def test_matched_models_have_as_many_parameters_as_those_of_the_paper():
    for question, name in ablations.RUNS:
        if "matched" in question and name != "MADE":
            assert 10_800 < sum(weight.numel() for weight in network_of((question, name))[0].parameters()) < 13_200


@pytest.mark.filterwarnings("ignore:The images at")
def test_ablations_are_measured_and_go_on_where_they_were_stopped(place, some_letters, monkeypatch):
    names = [("why", "no hidden layer in the head"), ("shifts", "conditioned on the shift, three views")]
    names += [("matched on letters", "joint row")]
    short = {name: dataclasses.replace(ablations.RUNS[name], seconds=0.2) for name in names}
    monkeypatch.setattr(ablations, "RUNS", short)
    ablations.main(["shifts"])
    machines, known = stored_curves.load_ablations(ablations.PATH)
    views = [known["shifts", f"conditioned on the shift, {how}", 0] for how in ("one view", "three views")]
    assert len(known) == 6 and views[0][:3] == views[1][:3] and views[0][3] != views[1][3]  # one training, three seeds
    assert list(machines) == ["shifts"] and len(machines["shifts"]) == 1
    monkeypatch.setattr(devices, "processor", lambda: "another")
    ablations.main([])
    machines, known = stored_curves.load_ablations(ablations.PATH)
    assert len(known) == 12 and len(machines["shifts"]) == 1
    assert all("another, " in machines[question][0] for question in ("why", "matched on letters"))
    monkeypatch.setattr(ablations, "trial", None)  # nothing is trained again
    ablations.main([])
