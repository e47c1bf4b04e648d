"""The weights that come with the series: they are the ones on their cards, reach what these say, and damage is told."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import train_weights

import helpers
from pixelrnn.data import datasets, letters, strokes
from pixelrnn.evidence import errors
from pixelrnn.models import configs, orders, weights
from support import checks

mixed = pytest.mark.parametrize("name", weights.NAMES)
each = pytest.mark.parametrize("name", weights.NAMES + weights.DRAWN)


@each
def test_stored_weights_are_small_and_have_a_card(name):
    model, card = weights.load(name)
    path = weights.FOLDER / f"{name}.safetensors"
    assert path.stat().st_size <= 4_000_000
    assert card["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32} and not model.training
    assert {"what", "data", "command", "updates", "nats", "licence of what it learned from", "torch"} <= set(card)


@each
def test_the_recipe_is_the_one_that_the_card_tells(name):
    _, card = weights.load(name)
    recipe = configs.WEIGHTS[name]
    assert (card["what"], card["data"], card["updates"]) == (recipe.what, recipe.data, recipe.updates)
    assert card["training"] == recipe.training and card["members"] == json.loads(json.dumps(recipe.members))


@each
def test_storing_in_16_bits_moves_the_nats_by_less_than_a_hundredth(name):
    _, card = weights.load(name)
    for part in ("validation", "test"):
        assert abs(card["nats"][part]["mixture"] - card["nats in 32 bits"][part]["mixture"]) < 0.01


def test_the_weights_of_letters_reach_the_nats_on_their_card():
    model, card = weights.load("letters")
    test = torch.tensor(letters.load_letters().test[: weights.FIRST], dtype=torch.float32)
    stored = card["nats"][f"first {weights.FIRST} of test"]
    assert model.nats(test).mean() == pytest.approx(stored, abs=0.05)
    torch.manual_seed(0)
    assert orders.Shared(**model.settings).nats(test).mean() > 5 * stored


@pytest.mark.skipif(not os.environ.get("PIXELRNN_MNIST"), reason="MNIST is not given")
def test_the_weights_of_digits_reach_the_nats_on_their_card():
    model, card = weights.load("digits")
    test = train_weights.pictures("digits")[2][: weights.FIRST]
    assert model.nats(test).mean() == pytest.approx(card["nats"][f"first {weights.FIRST} of test"], abs=0.05)


@mixed
def test_samples_are_far_from_those_of_an_untrained_model(name):
    """Judged by the stored model: its own samples cost what held-out pictures do, an untrained network's far more."""
    model, card = weights.load(name)
    torch.manual_seed(0)
    own = model.nats(model.sample(32)).mean()
    untrained = orders.Shared(orders.ORDERS, input_size=28, hidden_size=8).sample(32)
    assert own == pytest.approx(card["nats"]["test"]["mixture"], rel=0.35)
    assert model.nats(untrained).mean() > 5 * own


# --- Damage -----------------------------------------------------------------------------------------------------------


def small():
    return orders.Mixture([0, 3], [helpers.GenModel(4, 3, head="joint") for _ in range(2)])


@pytest.fixture
def folder(tmp_path):
    weights.store("letters", small(), {"what": "small"}, tmp_path)
    return tmp_path


def test_what_is_stored_comes_back_in_32_bits(folder):
    model, card = weights.load("letters", folder)
    assert card["what"] == "small" and model.orders == [0, 3]
    pictures = torch.rand(3, 4, 4).round()
    torch.manual_seed(0)
    assert np.allclose(model.nats(pictures), small().nats(pictures), atol=0.01)


def test_weights_that_are_not_those_of_the_card_are_refused(folder):
    path = folder / "letters.safetensors"
    data = bytearray(path.read_bytes())
    for place in (0, 20, len(data) // 2, len(data) - 1):
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(checks.LabError, match=r"checksum is not the one on its card.*make weights"):
            weights.load("letters", folder)
        data[place] ^= 1
    path.write_bytes(data[:-1])
    with pytest.raises(checks.LabError, match="checksum"):
        weights.load("letters", folder)
    path.write_bytes(data)
    weights.load("letters", folder)


@pytest.mark.parametrize("missing", ["letters.safetensors", "letters.json"])
def test_missing_weights_are_told(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(checks.LabError, match=rf"no file .*{missing}.*git checkout data/weights"):
        weights.load("letters", folder)


@pytest.mark.parametrize("card", ["", "{", "[]", "null", "{}", '{"format": 2}', '{"format": "1"}', "\xff"])
def test_a_card_of_another_format_is_told(folder, card):
    (folder / "letters.json").write_text(card, encoding="latin-1")
    with pytest.raises(checks.LabError, match=r"letters.json is damaged or is something else.*make weights"):
        weights.load("letters", folder)


@pytest.mark.parametrize("name", ["Letters", "../letters", "", None])
def test_other_names_are_told(name):
    with pytest.raises(checks.LabError, match="name must be one of 'digits', 'letters'"):
        weights.load(name)


# --- make weights -----------------------------------------------------------------------------------------------------


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Few pictures, and all in this process."""
    pictures = torch.zeros(300, 28, 28)
    pictures[:, 10:18, 10:18] = 1
    points = torch.from_numpy(strokes.skeleton(np.kron(pictures[0], np.ones((4, 4)))))

    def some(name, mnist=None):
        training = points.repeat(300, 1, 1) if name in weights.DRAWN else pictures
        return [training, pictures[:7], pictures[:5]]

    monkeypatch.setattr(train_weights, "pictures", some)
    monkeypatch.setattr(letters, "families", lambda: SimpleNamespace(test=list("abcde")))
    monkeypatch.setattr(datasets, "binarized_tests", lambda mnist: pictures[:5].expand(5, -1, -1, -1))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)

    def networks(name, updates, mnist):
        return [train_weights.train(name, member, updates, mnist) for member in configs.WEIGHTS[name].members]

    monkeypatch.setattr(train_weights, "networks", networks)
    return tmp_path


@each
def test_weights_are_trained_measured_and_stored(few, name, capsys):
    train_weights.main([name, "--updates", "12", "--folder", str(few)])
    model, card = weights.load(name, few)
    assert str(few) in capsys.readouterr().out and str(few) not in json.dumps(card)
    assert card["command"] == f"python tools/train_weights.py {name} --updates 12" and card["updates"] == 12
    pictures = train_weights.pictures(name)[2]
    assert card["nats"]["test"]["mixture"] == pytest.approx(model.nats(pictures).mean(), abs=0.01)
    assert card["nats"]["test"]["mixture"] < 0.9 * 784 * np.log(2)  # an untrained network: 784 ln 2
    order = 3 if name in weights.NAMES else 0
    nats = helpers.nats(model.in_order(order), orders.turned(pictures, order)).mean()
    assert card["nats"]["test"]["orders"][model.orders.index(order)] == pytest.approx(nats, abs=0.01)


@pytest.mark.parametrize(("words", "told"), [(["numbers"], "A name must be one of"), (["--updates", "0"], "--updates")])
def test_what_cannot_be_trained_is_told(words, told):
    with pytest.raises(SystemExit, match=told):
        train_weights.main(words)


def test_digits_without_mnist_say_what_to_do_before_anything_is_trained(monkeypatch):
    monkeypatch.delenv("PIXELRNN_MNIST", raising=False)
    with pytest.raises(SystemExit, match="Set the environment variable PIXELRNN_MNIST"):
        train_weights.main(["digits"])


# --- What is said of them ---------------------------------------------------------------------------------------------


@each
def test_the_table_of_the_weights_is_that_of_their_cards(name):
    _, card = weights.load(name)
    size, nats = (weights.FOLDER / f"{name}.safetensors").stat().st_size, card["nats"]
    told = [name, card["what"], f"{card['updates']:,}", f"{card['parameters']:,}", f"{size:,}"]
    told += [f"{nats[part]['mixture']:.2f}" for part in ("validation", "test")]
    told += [f"{np.mean(nats['test']['orders']):.2f}"]
    assert f"| {' | '.join(told)} |" in (weights.FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_weights_of_drawn_letters_reach_the_nats_on_their_card():
    model, card = weights.load("drawn-letters")
    test = train_weights.pictures("drawn-letters")[2][: weights.FIRST]
    assert model.nats(test).mean() == pytest.approx(card["nats"][f"first {weights.FIRST} of test"], abs=0.05)
    stored, _ = weights.load("letters")  # which expects them in the middle, as printed
    assert helpers.nats(stored.in_order(0), test).mean() > 1.5 * model.nats(test).mean()


def test_the_leaderboard_tells_what_the_stored_weights_reach():
    text = (train_weights.ROOT / "labnotes" / "benchmarks.md").read_text(encoding="utf-8")
    digits, letters = (weights.load(name)[1]["nats"]["test"] for name in weights.NAMES)
    alone = " and ".join(f"{own:.2f}" for own in digits["orders"])
    assert f"{alone} nats per test image alone, **{digits['mixture']:.2f}** mixed" in text
    mean = np.mean(letters["orders"])
    assert f"{mean:.2f} nats per test letter in the mean of its orders, **{letters['mixture']:.2f}** mixed" in text


@mixed
def test_the_card_says_how_far_its_mean_can_be_trusted(name):
    """Forms of one letter are alike, so that the error over families is the larger one."""
    _, card = weights.load(name)
    told = card["standard errors"]
    assert 0 < told["of that"] < told["mixture"] and told["below the first order"] > 5 * told["of that"]
    if name == "digits":
        assert len(told["binarisations"]) == 5 and told["binarisations"][0] == card["nats"]["test"]["mixture"]


def test_errors_of_letters_are_over_their_families(monkeypatch):
    torch.manual_seed(0)
    pictures, families = torch.bernoulli(torch.rand(6, 8, 8)), list("aaabbc")
    model = orders.Shared([0, 3], input_size=8, hidden_size=4)
    monkeypatch.setattr(letters, "families", lambda: SimpleNamespace(test=families))
    mixed, own = model.nats(pictures, each=True)
    told = train_weights.trusted("letters", model, [None, None, pictures], None)
    assert told["mixture"] == pytest.approx(errors.standard_error(mixed, families), abs=1e-4)
    assert abs(told["mixture"] - errors.standard_error(mixed)) > 0.01
    assert told["of that"] == pytest.approx(errors.standard_error(own[0] - mixed, families), abs=1e-4)
