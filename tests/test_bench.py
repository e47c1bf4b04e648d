"""`make bench`, on a small MNIST: what is stored says how it was made, and nothing is lost or passed off."""

import json
import time
from types import SimpleNamespace

import bench
import numpy as np
import pytest
import torch

import helpers
from pixelrnn.data import datasets
from pixelrnn.evidence import stored_curves
from pixelrnn.models import augmentation, configs, orders, saving
from support import checks, devices, files

pytestmark = pytest.mark.filterwarnings("ignore:The images at")  # which are not MNIST's


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project with a small MNIST, which has its path in the environment; runs share this process."""
    images = np.zeros((10_128, 28, 28), np.uint8)
    images[:, 10:18, 10:18] = 255
    images[:, 14, 14] = 254  # binary images are refused
    np.savez(tmp_path / "mnist.npz", train_images=images, test_images=images[:20])
    monkeypatch.setenv("PIXELRNN_MNIST", str(tmp_path / "mnist.npz"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "SAMPLED", 2)
    monkeypatch.setattr(bench, "isolated", lambda function, *arguments: function(*arguments))
    return tmp_path


SMALL = ["--seconds", "0.5", "--units", "4", "--model", "joint"]


def test_stores_protocol_and_a_row_for_each_look(place):
    bench.main([*SMALL, "--seeds", "1", "2", "--store"])
    protocol, table = stored_curves.load_benchmark(
        place / "data" / "benchmarks" / "mnist_joint_4-units_dynamic_0.5s.csv"
    )
    expected = "python tools/bench.py --model joint --data mnist --seconds 0.5 --units 4 --seeds 1 2 --store"
    assert protocol["command"] == expected
    assert (protocol["training images"], protocol["measured images"], protocol["threads"]) == (128, 20, 1)
    model = helpers.GenModel(28, 4, head="joint")
    assert protocol["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert protocol["images per second"] > 0 and protocol["sampled per second"] > 0 and protocol["peak memory"] >= 0
    assert set(table["seed"]) == {1, 2}
    for seed in (1, 2):
        own = table["seed"] == seed
        assert table["seconds"][own][-1] >= 0.5 and (np.diff(table["updates"][own]) > 0).all()
        assert table["nats"][own][-1] < 28 * 28 * np.log(2)  # an untrained model's


def test_stores_the_nats_of_each_picture_and_of_five_binarisations_of_some(place, monkeypatch):
    images = np.random.default_rng(0).integers(1, 254, (20, 28, 28), np.uint8)
    np.savez(place / "mnist.npz", **{**np.load(place / "mnist.npz"), "test_images": images})
    monkeypatch.setattr(bench, "SEVERAL", 8)
    bench.main([*SMALL, "--seeds", "1", "2"])
    path = place / "build" / "mnist_joint_4-units_dynamic_0.5s.csv"
    _, table = stored_curves.load_benchmark(path)
    with np.load(path.with_suffix(".npz")) as held:
        pictures, of_each, count = (held[name] for name in ("pictures", "binarisations", "binarised pictures"))
    assert pictures.shape == (2, 20) and of_each.shape == (2, 5) and count == 8
    np.testing.assert_allclose(pictures[:, :8].mean(1), of_each[:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        pictures.mean(1), [table["nats"][table["seed"] == seed][-1] for seed in (1, 2)], atol=1e-3
    )
    assert [len(set(of_seed)) for of_seed in of_each.tolist()] == [5, 5] and (pictures.std(1) > 0).all()


def test_seconds_are_those_that_the_core_worked(place, monkeypatch):
    """What runs beside takes no time of a training; a GPU works while its process waits."""
    train, clocks = helpers.train, []
    monkeypatch.setattr(
        helpers, "train", lambda *a, **settings: clocks.append(settings["clock"]) or train(*a, **settings)
    )
    bench.main(["--data", "digits", "--seconds", "0.01", "--units", "4", "--model", "joint", "--device", "cpu"])
    assert clocks == [time.process_time] and bench.clock_of(torch.device("cuda")) is time.perf_counter


def test_the_public_static_files_are_enough_for_static_runs(place):
    rng = np.random.default_rng(0)
    for name, count in zip(datasets.STATIC_FILES, (128, 4, 6), strict=True):
        np.savetxt(place / name, rng.integers(0, 2, (count, 784)), fmt="%d")
    bench.main([*SMALL, "--static", "--mnist", str(place)])
    path = place / "build" / "mnist_joint_4-units_static_0.5s.csv"
    protocol, _ = stored_curves.load_benchmark(path)
    assert (protocol["static bits"], protocol["training images"], protocol["measured images"]) == (bench.PUBLIC, 128, 6)
    with np.load(path.with_suffix(".npz")) as held:
        assert held["binarisations"].shape == (1, 1)  # these bits are given
    bench.main([*SMALL, "--static"])
    protocol, _ = stored_curves.load_benchmark(path)
    assert (protocol["static bits"], protocol["measured images"]) == ("our own", 20)


def test_nats_of_training_images_are_of_those(place):
    images = np.load(place / "mnist.npz")["train_images"]
    noise = np.random.default_rng(0).integers(0, 250, (20, 28, 28), np.uint8)  # in the mean no more ink than paper
    np.savez(place / "mnist.npz", train_images=images, test_images=noise)
    bench.main(SMALL)
    protocol, table = stored_curves.load_benchmark(place / "build" / "mnist_joint_4-units_dynamic_0.5s.csv")
    assert protocol["nats of training images"] < 28 * 28 * np.log(2) < table["nats"][-1]


def test_what_it_stored_says_how_to_do_it_again(place):
    bench.main([*SMALL])
    (first,) = (place / "build").glob("*.csv")
    command = json.loads(first.open().readline()[2:])["command"].split()
    first.unlink()
    bench.main(command[2:])
    assert list((place / "build").glob("*.csv")) == [first]


@pytest.mark.parametrize("name", configs.MODELS)
def test_every_model_of_the_benchmark_runs(place, name):
    """On digits of 8 x 8, with its own recipe; one update is enough."""
    bench.main(["--data", "digits", "--seconds", "0.01", "--model", name, "--device", "cpu"])
    (path,) = (place / "build").glob(f"digits_{name}_fixed_0.01s.csv")
    protocol, table = stored_curves.load_benchmark(path)
    assert protocol["model"] == name and (protocol["training images"], protocol["measured images"]) == (1297, 500)
    assert 0 < table["nats"][-1] < 100
    wanted = configs.MODELS[name].training.get("bfloat16", False)
    assert protocol["bfloat16"] == (wanted and devices.has_bfloat16("cpu"))  # what was used, not what was asked for
    assert (protocol["device"], protocol["processes"]) == ("cpu", 1)


MEMBERS = ["--data", "digits", "--model", "joint", "--units", "4", "--seconds", "0.05", "--members"]


def test_members_are_averaged_and_said_who_trained_how_long(place):
    for seed in ("0", "1"):
        bench.main([*MEMBERS, "--seeds", seed])
    weights = [place / "build" / f"digits_joint_4-units_fixed_0.05s_member{seed}.safetensors" for seed in (1, 0)]
    bench.main(["--average", *map(str, weights), "--device", "cpu"])
    protocol, table = stored_curves.load_benchmark(
        place / "build" / "digits_joint_4-units_fixed_0.05s_orders-0-seeds-0-1.csv"
    )
    ends = [stored_curves.load_benchmark(path.with_suffix(".csv"))[1] for path in weights]
    seconds, updates, nats = ([end[name][-1] for end in ends] for name in ("seconds", "updates", "nats"))
    assert table["seed"].tolist() == [1, 0] and table["updates"].tolist() == np.cumsum(updates).tolist()
    np.testing.assert_allclose(table["seconds"], np.cumsum(seconds), atol=0.06)
    assert abs(table["nats"][0] - nats[0]) < 0.002  # an average of one, on the same pictures
    assert min(nats) - 5 < table["nats"][1] < np.mean(nats) + 0.002
    assert [member["seconds"] for member in protocol["members"]] == seconds
    assert [member["looks"][-1] for member in protocol["members"]] == [
        list(map(float, end)) for end in zip(seconds, updates, nats, strict=True)
    ]
    assert protocol["command"].endswith(f"--average {weights[0].name} {weights[1].name} --device cpu")


def test_a_member_stored_before_sizes_had_names_is_told(place):
    bench.main([*MEMBERS, "--seeds", "0"])
    weights = place / "build" / "digits_joint_4-units_fixed_0.05s_member0.safetensors"
    table = weights.with_suffix(".csv")
    table.write_text(table.read_text(encoding="utf-8").replace('"sizes"', '"size"'), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"says nothing of sizes.*Train this member again"):
        bench.main(["--average", str(weights), "--device", "cpu"])


def test_members_of_several_orders_are_mixed_and_kept(place):
    bench.main([*MEMBERS, "--seeds", "0", "1"])
    bench.main([*MEMBERS, "--seeds", "0", "--order", "3"])
    names = ["member0", "member1", "order3_member0"]
    weights = [place / "build" / f"digits_joint_4-units_fixed_0.05s_{name}.safetensors" for name in names]
    bench.main(["--average", *map(str, weights), "--device", "cpu"])
    path = place / "build" / "digits_joint_4-units_fixed_0.05s_orders-0-seeds-0-1_orders-3-seeds-0.csv"
    protocol, table = stored_curves.load_benchmark(path)
    assert [(member["order"], member["seed"]) for member in protocol["members"]] == [(0, 0), (0, 1), (3, 0)]
    mixture = saving.load_model(path.with_suffix(".safetensors"))
    assert mixture.orders == [0, 3] and [type(model).__name__ for model in mixture.models] == ["Average", "GenModel"]
    held_out = bench.pictures(SimpleNamespace(data="digits", members=True), 0)[1]
    assert abs(mixture.nats(held_out).mean() - table["nats"][-1]) < 0.002
    turned, _ = stored_curves.load_benchmark(weights[2].with_suffix(".csv"))
    assert turned["order"] == 3 and "--order 3" in turned["command"]


def test_networks_that_look_three_times_are_averaged(place):
    bench.main([*MEMBERS[:3], "joint-views", *MEMBERS[4:], "--seeds", "0", "1"])
    stem = "digits_joint-views_4-units_fixed_0.05s"
    weights = [place / "build" / f"{stem}_member{seed}.safetensors" for seed in (0, 1)]
    assert [type(saving.load_model(path)) for path in weights] == [augmentation.ShiftConditioned] * 2
    bench.main(["--average", *map(str, weights), "--device", "cpu", "--store"])
    stored = place / "data" / "benchmarks" / f"{stem}_orders-0-seeds-0-1.csv"
    protocol, _ = stored_curves.load_benchmark(stored)
    assert protocol["learning_rate"] == configs.MODELS["joint-views"].training["learning_rate"]
    assert protocol["parameters"] == 2 * sum(weight.numel() for weight in saving.load_model(weights[0]).parameters())
    assert sorted(path.suffix for path in stored.parent.iterdir()) == [".csv", ".npz"]  # weights stay in build/
    mixture = saving.load_model(place / "build" / f"{stored.stem}.safetensors")
    assert all(abs(member["nats in one view"] - member["nats"]) > 1e-3 for member in protocol["members"])
    held_out = bench.pictures(SimpleNamespace(data="digits", members=True), 0)[1]
    with np.load(stored.with_suffix(".npz")) as held:
        assert np.allclose(held["pictures"], mixture.nats(held_out)[None], atol=1e-3)
    assert mixture.orders == [0]


def test_grey_values_are_predicted_from_bits_where_the_model_says_so(place, monkeypatch):
    given = {}

    class TrainedError(Exception):
        pass

    def train(model, images, *, prepare, context, **others):
        given[type(model)] = prepare(images[:3]), context
        raise TrainedError

    monkeypatch.setattr(helpers, "train", train)
    for name in ("joint-views", "joint"):
        with pytest.raises(TrainedError):
            bench.main(["--seconds", "0.1", "--units", "4", "--model", name, "--device", "cpu"])
    (grey, context), (bits, none) = (given[kind] for kind in (augmentation.ShiftConditioned, helpers.GenModel))
    assert context is torch.bernoulli and ((grey > 0) & (grey < 1)).any()  # one pixel of the small MNIST is grey
    assert none is None and set(bits.unique().tolist()) <= {0, 1}


def test_a_member_of_another_order_learned_turned_pictures(place):
    bench.main([*MEMBERS[:-3], "--seconds", "1.5", "--members", "--seeds", "0", "--order", "3"])
    model = saving.load_model(place / "build" / "digits_joint_4-units_fixed_1.5s_order3_member0.safetensors")
    held_out = bench.pictures(SimpleNamespace(data="digits", members=True), 0)[1]
    own, other = (helpers.nats(model, orders.turned(held_out, order)).mean() for order in (3, 0))
    assert own < other - 0.3  # nats: digits look much alike upside down


def test_a_network_of_several_orders_is_measured_as_their_mixture():
    torch.manual_seed(0)
    model = configs.MODELS["joint-orders"].build(8, 8, 16)
    held_out = bench.pictures(SimpleNamespace(data="digits", members=False), 0)[1]
    mixed, own = model.nats(held_out, each=True)
    np.testing.assert_array_equal(bench.nats_of(model, held_out), mixed)
    assert mixed.mean() < own.mean() - 1e-3 and len(own) == 8  # untrained, its orders differ a little
    plain = model.in_order(0)
    np.testing.assert_array_equal(bench.nats_of(plain, held_out), own[0])


def test_letters_are_a_data_set_of_the_benchmark():
    asked = SimpleNamespace(data="letters", validation=False)
    training, test = bench.pictures(asked, 0)
    asked.validation = True
    assert len(training) > 5 * len(test) > 5_000 and len(bench.pictures(asked, 0)[1]) != len(test)


def test_members_hold_out_the_same_digits():
    def held_out(seed, members):
        return bench.pictures(SimpleNamespace(data="digits", members=members), seed)[1]

    assert held_out(0, True).equal(held_out(1, True)) and not held_out(0, False).equal(held_out(1, False))


def test_members_that_do_not_go_together_are_told(place):
    bench.main([*MEMBERS, "--seeds", "0", "1"])
    bench.main([*MEMBERS, "--seeds", "2", "--seconds", "0.04"])
    first, second, other = sorted((place / "build").glob("*.safetensors"), key=lambda path: path.stem[-1])
    with pytest.raises(SystemExit, match="differ in budget"):
        bench.main(["--average", str(first), str(other)])
    with pytest.raises(SystemExit, match=r"differ in seed or order; these are .*\(0, 0\), \(0, 0\)"):
        bench.main(["--average", str(first), str(first)])
    second.with_suffix(".csv").unlink()
    with pytest.raises(SystemExit, match="Copy it here with its weights"):
        bench.main(["--average", str(first), str(second)])
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--average", str(first), "--seconds", "3"])
    assert stopped.value.code == 2


def test_what_cannot_be_a_member_is_told_before_it_is_trained(place, monkeypatch):
    monkeypatch.setattr(helpers, "train", None)
    with pytest.raises(SystemExit, match="joint head"):
        bench.main(["--data", "digits", "--model", "independent", "--members"])


def test_a_device_that_is_not_here_is_told(place):
    with pytest.raises(SystemExit, match="no device 'nowhere'"):
        bench.main([*SMALL, "--device", "nowhere"])


def test_a_run_has_a_process_of_its_own():
    import os

    assert bench.isolated(os.getpid) != os.getpid()


def test_without_store_the_reported_runs_are_left_alone(place, capsys):
    bench.main([*SMALL[:-1], "independent", "--static", "--validation"])
    assert not (place / "data").exists()
    path = place / "build" / "mnist_independent_4-units_static_0.5s_validation.csv"
    assert capsys.readouterr().out.endswith(f"Stored in build/{path.name}.\n")
    assert json.loads(path.open().readline()[2:])["unit"] == "nats per image, mean over the validation images"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, helpers.TrainingError("no", None)])
def test_a_run_that_does_not_end_loses_no_other_and_is_not_stored(place, monkeypatch, stop):
    loss, seeds = helpers.GenModel.loss, []
    monkeypatch.setattr(bench.torch, "manual_seed", lambda seed: seeds.append(seed))

    def stopped(model, sequences, context=None):
        if seeds[-1] == 2:
            raise stop
        return loss(model, sequences, context)

    monkeypatch.setattr(helpers.GenModel, "loss", stopped)
    with pytest.raises(SystemExit, match="130" if stop is KeyboardInterrupt else "no"):
        bench.main([*SMALL, "--seeds", "1", "2", "3"])
    _, table = stored_curves.load_benchmark(place / "build" / "mnist_joint_4-units_dynamic_0.5s.csv")
    assert set(table["seed"]) == {1} and seeds == [1, 2]


def test_an_interrupt_between_two_runs_keeps_the_first(place, monkeypatch, capsys):
    def isolated(function, arguments, name, seed):
        if seed == 2:
            raise KeyboardInterrupt
        return function(arguments, name, seed)

    monkeypatch.setattr(bench, "isolated", isolated)
    with pytest.raises(SystemExit, match="130"):
        bench.main([*SMALL, "--seeds", "1", "2"])
    _, table = stored_curves.load_benchmark(place / "build" / "mnist_joint_4-units_dynamic_0.5s.csv")
    assert set(table["seed"]) == {1} and "Interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *(["--model", "joint", "--units", word] for word in ("0", "-3", "1.5", "nan", "many", "\u00b2")),
        *(["--seconds", word] for word in ("0", "-1", "nan", "inf", "ten")),
        *(["--seeds", word] for word in ("-1", "0.5", str(2**64))),
        ["--data", "digits", "--static"],
        ["--units", "4"],
        ["--model", "nothing"],
        ["--units", "4", "--model", "pixelcnn"],
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_told(place, monkeypatch, words):
    monkeypatch.setattr(bench, "bench", lambda arguments: [])
    with pytest.raises(SystemExit) as stopped:
        bench.main(words)
    assert stopped.value.code == 2


def test_without_mnist_it_says_what_to_do(place, monkeypatch):
    monkeypatch.delenv("PIXELRNN_MNIST")
    with pytest.raises(SystemExit, match=r"not part of this project\. Set the environment variable"):
        bench.main(SMALL)


def test_units_that_are_no_number_of_units_are_told(place, monkeypatch, capsys):
    monkeypatch.setattr(bench, "bench", lambda arguments: [])
    with pytest.raises(SystemExit):
        bench.main(["--model", "joint", "--units", "0"])
    assert "--units: it must be a whole number of at least 1, not 0" in capsys.readouterr().err


def test_where_nothing_can_be_stored_what_was_found_is_told(tmp_path):
    path = tmp_path / "results" / "digits.csv"
    bench.store(path, {"model": "joint \u2192"}, [(0, 0.5, 7, 20.5)])
    old = path.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        checks.LabError, match=r"file stands where its folder should be[^$]*\n1,0.5,8,20.25\n2,0.5,9,20.0"
    ):
        bench.store(tmp_path / "file" / path.name, {}, [(1, 0.5, 8, 20.25), (2, 0.5, 9, 20.0)])
    with pytest.raises(checks.LabError, match=r"settings cannot be written[^$]*\n1,0.5,8,20.25"):
        bench.store(path, {"model": helpers}, [(1, 0.5, 8, 20.25)])
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]
    protocol, table = stored_curves.load_benchmark(path)
    assert protocol == {"model": "joint \u2192"} and table["updates"].tolist() == [7]
