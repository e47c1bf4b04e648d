"""Several processes train one model as one process would, and stop together. Started by torchrun, this file is one of
those processes: each launch of two checks several things, since starting torch takes the most of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import bench

import helpers
from pixelrnn.evidence import stored_curves
from pixelrnn.models import saving
from support import checkpoints, checks, devices

pytestmark = pytest.mark.skipif(
    not dist.is_available() or sys.platform == "win32", reason="torchrun, and its signals, are wanted"
)
GREY = torch.linspace(0, 1, 8 * 5 * 4).reshape(8, 5, 4)


def weights_of(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]).tolist()


def trained(rank=0, **settings):
    """A small training in which all that is random is used; only rank 0's seed and probe are those of one process."""
    torch.manual_seed(rank)
    model = helpers.GenModel(4, 16, **settings)
    history = helpers.train(
        model,
        GREY,
        steps=5,
        batch_size=4,
        prepare=torch.bernoulli,
        context=helpers.flipped(0.1),
        optimizer="muon",
        probe=lambda _: {"drawn": torch.rand(1 + 2 * rank)[0].item()},
        probe_at=(2, 4),
    )
    return {"loss": history.loss, "weights": weights_of(model), "next": torch.rand(1).item()}


class Noted(torch.nn.Module):
    """Its loss draws a random number, and calls `before` with how many it has drawn."""

    def __init__(self, before=lambda count: None):
        super().__init__()
        self.weight, self.before = torch.nn.Parameter(torch.ones(1)), before
        self.drawn, self.sizes = [], []

    def loss(self, sequences):
        self.before(len(self.drawn))
        self.drawn.append(torch.rand(1).item())
        self.sizes.append(len(sequences))
        return (self.weight * sequences).square().mean() * self.drawn[-1]


def refused(**settings):
    """What `train` says of them."""
    try:
        helpers.train(helpers.GenModel(4, 3, norm=settings.pop("norm", None)), GREY, steps=1, **settings)
    except checks.LabError as error:
        return str(error)


def interrupted(rank):
    """Rank 1 alone is interrupted, within its third update."""
    model = Noted(lambda count: rank == 1 and count == 2 and os.kill(os.getpid(), signal.SIGINT))
    devices.someone_watches = lambda: True
    history = helpers.train(model, GREY, steps=50, batch_size=4)
    devices.someone_watches = lambda: False
    return {"interrupted": history.interrupted, "updates": len(history.loss), "weights": weights_of(model)}


def timed(rank):
    """The clock of rank 1 stands still."""
    helpers.time = SimpleNamespace(perf_counter=lambda: 0.0) if rank == 1 else time
    history = helpers.train(Noted(), GREY, seconds=0.1)
    helpers.time = time
    return history.seconds


def agreeing(folder):
    rank, _ = devices.process()
    print("said once")
    own_chance = Noted()
    helpers.train(own_chance, GREY, steps=3, batch_size=4)
    results = {
        "trained": trained(rank, dropout=0.0),
        "dropout": trained(rank, dropout=0.5),
        "drawn": own_chance.drawn,
        "sizes": own_chance.sizes,
        "uneven": refused(batch_size=3),
        "batch norm": refused(norm="batch"),
        "interrupted": interrupted(rank),
        "seconds": timed(rank),
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    if rank:
        bench.store = saving.save_model = None  # not to be called
    bench.main(["--data", "digits", "--seconds", "0.1", "--model", "joint-long", "--members"])

    def fail(count):
        if rank == 1 and count == 2:
            raise checks.LabError("Rank 1 is out of numbers.")

    helpers.train(Noted(fail), GREY, seconds=600)
    (folder / "not ended").touch()


def endless(folder):
    loss = helpers.GenModel.loss

    def noted(*arguments):
        (folder / f"started {devices.process()[0]}").touch()
        return loss(*arguments)

    helpers.GenModel.loss = noted
    with contextlib.suppress(SystemExit):
        bench.main(["--data", "digits", "--seconds", "600", "--model", "joint"])
    (folder / f"ended {os.environ['RANK']}").touch()


def killed(folder):
    """Rank 1 is ended by the system in its fourth update; started again, both reach the end, and once more without."""
    rank, _ = devices.process()

    def end(count):
        if count == 3 and not (folder / "killed").exists():
            (folder / f"{rank} in its fourth").touch()
        if rank == 1 and count == 3 and not (folder / "killed").exists():
            while not (folder / "0 in its fourth").exists():  # until then rank 0 may not have stored the third
                time.sleep(0.01)
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    results = []
    for path in (folder / "kept", folder / "whole"):
        torch.manual_seed(0)
        model = helpers.GenModel(4, 16, dropout=0.5)
        counted = []

        def noted(*arguments, loss=model.loss, counted=counted):
            end(len(counted))
            counted.append(1)
            return loss(*arguments)

        model.loss = noted
        settings = {
            "steps": 6,
            "batch_size": 4,
            "prepare": torch.bernoulli,
            "context": helpers.flipped(0.1),
            "optimizer": "muon",
        }
        kept = checkpoints.Checkpoint(path, {}, every=0.0)
        history = helpers.train(model, GREY, checkpoint=kept, **settings)
        results.append({"loss": history.loss, "weights": weights_of(model), "updates": len(counted)})
    (folder / f"{rank}.json").write_text(json.dumps(results))


@contextlib.contextmanager
def launched(scenario, folder):
    """The launcher of two processes, all of which end with the test."""
    words = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc_per_node=2", __file__]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *words, scenario, str(folder)], **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends those that it started
            process.communicate()


@pytest.fixture(scope="module")
def agreed(tmp_path_factory):
    """What both processes gave, rank 0's and rank 1's; how they ended; the folder."""
    folder = tmp_path_factory.mktemp("agreed")
    with launched("agreeing", folder) as process:
        printed, errors = process.communicate(timeout=300)
    assert (folder / "1.json").exists(), errors
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return results, SimpleNamespace(code=process.returncode, printed=printed, errors=errors), folder


def test_two_processes_train_as_one(agreed):
    """The same batches, binarised alike, noise and a probe that draws included, whatever rank 1's own seed is."""
    (two, _), alone = agreed[0], trained()
    np.testing.assert_allclose(two["trained"]["loss"], alone["loss"], rtol=1e-5)
    np.testing.assert_allclose(two["trained"]["weights"], alone["weights"], atol=1e-4)
    assert two["trained"]["next"] == alone["next"]
    assert [results["sizes"] for results in agreed[0]] == [[2, 2, 2]] * 2  # each half a batch


@pytest.mark.parametrize("run", ["trained", "dropout"])
def test_weights_losses_and_random_numbers_are_equal_on_all_ranks(agreed, run):
    first, second = agreed[0]
    assert first[run] == second[run]


def test_random_numbers_within_the_model_are_each_rank_s_own(agreed):
    first, second = agreed[0]
    assert len({*first["drawn"], *second["drawn"]}) == 6


def test_what_cannot_be_split_is_told_on_all_ranks(agreed):
    for results in agreed[0]:
        assert "A batch of 3 does not split evenly over 2 processes" in results["uneven"]
        assert "Use layer norm" in results["batch norm"]


def test_an_interrupt_of_one_stops_all_before_the_same_update(agreed):
    first, second = agreed[0]
    assert first["interrupted"] == second["interrupted"]
    assert first["interrupted"]["interrupted"] and first["interrupted"]["updates"] == 2


def test_time_is_rank_0_s(agreed):
    first, second = agreed[0]
    assert first["seconds"] == second["seconds"] and first["seconds"][-1] >= 0.1


def test_the_benchmark_is_printed_and_stored_once_and_says_how_many_processes(agreed):
    _, end, folder = agreed
    printed = end.printed
    assert printed.count("said once") == 1
    assert printed.count("joint-long, seed 0") == 1 and printed.count("Stored in") == 1
    path = folder / "build" / "digits_joint-long_fixed_0.1s_member0.csv"
    kept = path.parent / "checkpoints"
    assert set(path.parent.iterdir()) == {
        path,
        path.with_suffix(".safetensors"),
        path.with_suffix(".npz"),
        kept,
    } and not list(kept.iterdir())
    protocol, _ = stored_curves.load_benchmark(path)
    assert (protocol["processes"], protocol["threads"], protocol["peak memory"]) == (2, 1, None)
    assert protocol["command"].startswith(
        "python -m torch.distributed.run --nnodes=1 --nproc_per_node=2 tools/bench.py"
    )


def test_an_error_on_one_rank_ends_all_with_its_message(agreed):
    _, end, folder = agreed
    assert end.code and "Rank 1 is out of numbers." in end.errors
    assert not (folder / "not ended").exists()


def test_ctrl_c_ends_all_and_stores_nothing(tmp_path):
    with launched("endless", tmp_path) as process:
        for rank in (0, 1):
            while not (tmp_path / f"started {rank}").exists():
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)  # as a terminal does; torchrun passes it on
        printed, _ = process.communicate(timeout=300)
    assert printed.count("Interrupted: this run is not stored. The same command goes on after") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"started 0", "started 1", "ended 0", "ended 1", "build"}
    (kept,) = (tmp_path / "build").rglob("*.*")
    assert kept.name == "digits_joint_fixed_600s_seed0.safetensors"


def test_two_processes_go_on_after_one_was_killed(tmp_path):
    for code in (1, 0):
        with launched("killed", tmp_path) as process:
            _, errors = process.communicate(timeout=300)
        assert bool(process.returncode) == code, errors
    for rank in (0, 1):
        resumed, whole = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (resumed.pop("updates"), whole.pop("updates")) == (3, 6) and resumed == whole


def test_a_process_alone_needs_no_others(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with devices.several_processes(torch.device("cpu")):
        assert devices.process() == (0, 1)


@pytest.mark.parametrize("text", ["", " ", "1", None])
def test_a_variable_of_torchrun_that_is_empty_is_none(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text) if text is not None else monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", text or "")
    with devices.several_processes(devices.choose_device("cpu")):
        assert devices.process() == (0, 1)


@pytest.mark.parametrize("text", ["two", "-1", "1.0"])
def test_a_variable_of_torchrun_that_is_no_number_is_told(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(checks.LabError, match=r"WORLD_SIZE is .* Unset it"), devices.several_processes(None):
        pass


def test_processes_that_do_not_find_each_other_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(checks.LabError, match="torchrun"), devices.several_processes(torch.device("cpu")):
        pass


if __name__ == "__main__":
    bench.ROOT = Path(sys.argv[2])
    with devices.several_processes(torch.device("cpu")):
        {"agreeing": agreeing, "endless": endless, "killed": killed}[sys.argv[1]](bench.ROOT)
