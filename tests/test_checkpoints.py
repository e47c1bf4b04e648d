"""A training that was stopped, in whatever way, goes on and reaches bit for bit what it would have reached. Started by
itself, this file is a training that ends itself."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import bench
import numpy as np
import pytest
import torch
import train_weights

import helpers
from pixelrnn.evidence import stored_curves
from pixelrnn.models import augmentation, configs, orders, weights
from support import checkpoints, checks, devices, files

GREY = torch.linspace(0, 1, 10 * 4 * 4).reshape(10, 4, 4)
STEPS, STOP = 9, 5
MODELS = {
    "dropout": lambda: helpers.GenModel(4, 6, dropout=0.5),
    "batch norm": lambda: helpers.GenModel(4, 6, norm="batch"),
    "shifts": lambda: augmentation.ShiftConditioned(input_size=4, hidden_size=6),
    "orders": lambda: orders.Shared([0, 3], input_size=4, hidden_size=6),
}


class StoppedError(Exception):
    pass


def trained(path=None, model="dropout", before=lambda number: None, every=0.0, **settings):
    """All that is random is used, and `before` is called ahead of each update: weights and history."""
    torch.manual_seed(0)
    model, count = MODELS[model](), 0
    loss = model.loss

    def noted(*arguments):
        nonlocal count
        before(count)
        count += 1
        return loss(*arguments)

    model.loss = noted
    settings = {"steps": STEPS, "batch_size": 4, "context": helpers.flipped(0.1), "probe_at": (0, 2, 7), **settings}
    kept = None if path is None else checkpoints.Checkpoint(path, {"run": "a"}, every)
    history = helpers.train(
        model,
        GREY,
        prepare=torch.bernoulli,
        probe=lambda _: {"drawn": torch.rand(1).item(), "array": np.float32(0.1)},
        checkpoint=kept,
        **settings,
    )
    return model.state_dict(), history


def stop(number):
    if number == STOP:
        raise StoppedError


def assert_equal(first, second):
    (weights, history), (others, other) = first, second
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    assert history.loss == other.loss
    assert [probe["drawn"] for probe in history.probes] == [probe["drawn"] for probe in other.probes]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_stopped_reaches_what_one_that_was_not_reaches(tmp_path, model, optimizer):
    whole = trained(model=model, optimizer=optimizer)
    path = tmp_path / "run.safetensors"
    with pytest.raises(StoppedError):
        trained(path, model, stop, optimizer=optimizer)
    assert checkpoints.read_updates(path) == STOP
    counted = []
    assert_equal(trained(path, model, counted.append, optimizer=optimizer), whole)
    assert len(counted) == STEPS - STOP


def test_where_the_whole_set_is_a_batch_too(tmp_path):
    whole = trained(batch_size=None)
    with pytest.raises(StoppedError):
        trained(tmp_path / "run", before=stop, batch_size=None)
    assert_equal(trained(tmp_path / "run", batch_size=None), whole)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_run_that_was_killed_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    killed = subprocess.run([sys.executable, __file__, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL and checkpoints.read_updates(path) == STOP
    assert_equal(trained(path), trained())


@pytest.mark.skipif(os.name == "nt", reason="a signal to this process is POSIX")
@pytest.mark.parametrize(("model", "watched"), [*((model, False) for model in MODELS), ("dropout", True)])
def test_ctrl_c_waits_for_the_update_and_keeps_it(tmp_path, monkeypatch, model, watched):
    monkeypatch.setattr(devices, "someone_watches", lambda: watched)
    path = tmp_path / "run.safetensors"

    def interrupt(number):
        if number == STOP:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # by a terminal and by the process that waits

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.nullcontext() if watched else pytest.raises(KeyboardInterrupt):
            assert trained(path, model, interrupt, every=1000.0)[1].interrupted
    finally:
        assert signal.signal(signal.SIGINT, handler) is signal.default_int_handler
    assert checkpoints.read_updates(path) == STOP + 1
    assert_equal(trained(path, model), trained(model=model))


def test_a_budget_of_seconds_goes_on_where_it_was(tmp_path, monkeypatch):
    path, now = tmp_path / "run.safetensors", itertools.count()
    monkeypatch.setattr(helpers, "time", SimpleNamespace(perf_counter=lambda: next(now)))  # a second an update
    settings = {"steps": None, "seconds": STEPS, "probe_at": (0, 1, STEPS - 0.5)}
    with pytest.raises(StoppedError):
        trained(path, before=stop, **settings)
    resumed = trained(path, **settings)
    assert resumed[1].seconds == list(range(1, STEPS + 1))
    assert [probe["step"] for probe in resumed[1].probes] == [0, 1, STEPS]
    assert_equal(resumed, trained(**settings))


def test_a_checkpoint_is_written_when_its_time_has_come_and_at_the_end(tmp_path, monkeypatch):
    written, write = [], checkpoints.Checkpoint._write

    def noted(self, *place):
        written.append(len(self.history.loss))
        write(self, *place)

    monkeypatch.setattr(checkpoints.Checkpoint, "_write", noted)
    trained(tmp_path / "run", every=1000.0)
    assert written == [STEPS]
    trained(tmp_path / "run", every=0.0)  # it is complete: nothing is left to do
    assert written == [STEPS, STEPS] and trained(tmp_path / "run")[1].loss == trained()[1].loss


def test_what_cannot_be_taken_up_is_told_and_stays(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(path)
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")

    def told(changed, match, **settings):
        path.write_bytes(changed)
        with pytest.raises(checks.LabError, match=rf"(?s){match}.*Remove .*run.safetensors to begin anew"):
            trained(path, **settings)
        assert path.read_bytes() == changed

    for place in (0, 9, head // 2, head + 5, head + (len(data) - head) // 2, len(data) - 1):
        told(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "checkpoint")
    told(data[: len(data) // 2], "damaged")
    told(data.replace(b'\\"format\\": 1', b'\\"format\\": 9'), "format 9")
    told(data.replace(b'\\"run\\": \\"a\\"', b'\\"run\\": \\"b\\"'), "another run: run differ")
    told(data, "damaged", model="orders")
    told(b"", "damaged")
    path.unlink()
    assert_equal(trained(path), trained())


def test_what_cannot_be_written_is_told_before_hours_of_work(tmp_path):
    (tmp_path / "file").touch()
    files.check_writable(tmp_path / "new" / "a", tmp_path / "b")
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "new"}
    with pytest.raises(checks.LabError, match="a file stands where its folder should be"):
        files.check_writable(tmp_path / "b", tmp_path / "file" / "a")
    (tmp_path / "b").write_text("kept")
    files.check_writable(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "kept"


# --- Processes of their own -------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_each_call_has_a_process_of_its_own_and_one_that_ends_is_told_by_its_name():
    calls = {
        "refused": (checks.whole, "steps", 0),
        "killed": (signal.raise_signal, signal.SIGKILL),
        "ended": (os._exit, 7),
        "one": (os.getpid,),
        "another": (os.getpid,),
    }
    found = {}
    with pytest.raises(checks.LabError) as told:
        for name, result in devices.in_processes(calls, at_once=2):
            found[name] = result
    assert set(found) == {"one", "another"} and len({*found.values(), os.getpid()}) == 3
    assert sorted(str(told.value).splitlines()) == [
        "ended: its process was ended by the system (code 7).",
        "killed: its process was ended by the system (SIGKILL, as where memory runs out).",
        "steps must be a whole number of at least 1, not 0.",
    ]


def test_models_come_back_from_their_processes():
    """Read long after they have ended: what they send must not be theirs."""
    results = devices.in_processes({"a": (torch.nn.Linear, 300, 300), "b": (torch.nn.Linear, 2, 3)}, at_once=2)
    shapes = {}
    for name, model in results:
        time.sleep(2)
        shapes[name] = tuple(model.weight.shape)
    assert shapes == {"a": (300, 300), "b": (3, 2)}


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" in status.read_text()


LINGERS = """import os, pathlib, signal, sys, time
sys.path.insert(0, {root!r})
place = pathlib.Path(__file__).parent

def linger():
    (place / "part").write_text(str(os.getpid()))
    (place / "part").rename(place / "pid")
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (place / "said").touch()
        raise

if __name__ == "__main__":
    import lingers
    from support import devices
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(devices.in_processes({{"a": (lingers.linger,)}}))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals to one process are POSIX")
@pytest.mark.parametrize("kind", [signal.SIGINT, getattr(signal, "SIGKILL", None)])
def test_the_end_of_the_process_that_asks_ends_the_others(tmp_path, kind):
    (tmp_path / "lingers.py").write_text(LINGERS.format(root=str(ROOT)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(tmp_path / "lingers.py")], **pipes) as asks:
        wait_for((tmp_path / "pid").exists)
        asks.send_signal(kind)
        printed, errors = asks.communicate(timeout=120)
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())))
    assert (printed == "interrupted\n") == (kind == signal.SIGINT) == (tmp_path / "said").exists()
    assert "Traceback" not in errors


# --- The tools --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project in which all runs share this process, an update takes a hundredth of a second by its clock, and
    checkpoints are written after each."""
    now = itertools.count()
    monkeypatch.setattr(helpers, "time", SimpleNamespace(perf_counter=lambda: next(now) / 100))
    monkeypatch.setattr(bench, "clock_of", lambda device: helpers.time.perf_counter)
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(train_weights, "BUILD", tmp_path / "build")
    monkeypatch.setattr(bench, "SAMPLED", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(bench, "isolated", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(
        devices, "in_processes", lambda calls, at_once: ((name, f(*a)) for name, (f, *a) in calls.items())
    )
    real = checkpoints.Checkpoint.__init__
    monkeypatch.setattr(checkpoints.Checkpoint, "__init__", lambda self, path, run: real(self, path, run, 0.0))
    return tmp_path


@pytest.fixture
def losses(monkeypatch):
    """losses.count: how many there were; losses.stop(number, error, seed): that one of this seed raises."""

    class Losses:
        count, of_seed, stopping = 0, {}, None

        def stop(self, number, error, seed=0):
            self.of_seed, self.stopping = {}, (seed, number, error)

    losses, loss = Losses(), helpers.SequenceModel.loss

    def counted(*arguments):
        seed = torch.initial_seed()
        number = losses.of_seed.get(seed, 0)
        if losses.stopping and losses.stopping[:2] == (seed, number):
            (*_, error), losses.stopping = losses.stopping, None
            raise error
        losses.of_seed[seed] = number + 1
        losses.count += 1
        return loss(*arguments)

    monkeypatch.setattr(helpers.SequenceModel, "loss", counted)
    return losses


BENCH = ["--data", "digits", "--seconds", "0.5", "--units", "4", "--model", "joint", "--device", "cpu"]


def test_the_benchmark_goes_on_and_says_so(place, losses):
    """Stopped within the second run, it takes that up, and only measures the first anew."""
    command, path = [*BENCH, "--seeds", "0", "1"], place / "build" / "digits_joint_4-units_fixed_0.5s.csv"
    bench.main(BENCH)
    assert "times taken up" not in stored_curves.load_benchmark(path)[0]
    losses.count = 0
    losses.stop(20, checks.LabError("the power went"), seed=1)
    with pytest.raises(SystemExit, match="the power went"):
        bench.main(command)
    kept = {path.stem[-1]: checkpoints.read_updates(path) for path in (place / "build" / "checkpoints").iterdir()}
    assert kept["1"] == 20 and kept["0"] + 20 == losses.count
    bench.main(command)
    protocol, table = stored_curves.load_benchmark(path)
    ends = table["updates"][len(bench.LOOKS) - 1 :: len(bench.LOOKS)]
    assert protocol["times taken up"] == 1 and ends[0] == kept["0"] and sum(ends) == losses.count
    assert not list((place / "build" / "checkpoints").iterdir())


def test_a_run_that_is_stopped_after_its_last_update_is_only_measured(place, losses, monkeypatch):
    sample = helpers.sample
    monkeypatch.setattr(helpers, "sample", lambda *_, **__: checks.whole("power", 0))
    with pytest.raises(SystemExit, match="power"):
        bench.main(BENCH)
    monkeypatch.setattr(helpers, "sample", sample)
    (kept,) = (place / "build" / "checkpoints").iterdir()
    updates = checkpoints.read_updates(kept)
    bench.main(BENCH)
    _, table = stored_curves.load_benchmark(place / "build" / "digits_joint_4-units_fixed_0.5s.csv")
    assert table["updates"][-1] == updates and len(table["updates"]) == len(bench.LOOKS)


@pytest.mark.skipif(os.name == "nt", reason="a signal to this process is POSIX")
def test_ctrl_c_during_the_benchmark_says_how_to_go_on(place, monkeypatch, capsys):
    loss, count = helpers.SequenceModel.loss, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(helpers.SequenceModel, "loss", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit, match="130"):
            bench.main(BENCH)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert "not stored. The same command goes on after 4 updates." in capsys.readouterr().out


def test_the_benchmark_looks_where_it_will_write_first(place, losses):
    (place / "build").write_text("")
    with pytest.raises(SystemExit, match="cannot be written"):
        bench.main(BENCH)
    assert losses.count == 0


@pytest.fixture
def few(place, monkeypatch):
    pictures = (torch.arange(300 * 28 * 28).reshape(300, 28, 28) % 7 == 0).float()
    monkeypatch.setattr(train_weights, "pictures", lambda name, mnist=None: [pictures, pictures[:7], pictures[:5]])
    monkeypatch.setattr(train_weights, "trusted", lambda *words: {})  # which is of all pictures
    return place


def test_weights_go_on_and_what_is_finished_is_not_trained_again(few, losses, tmp_path):
    words = ["digits", "--updates", "6", "--folder"]
    train_weights.main([*words, str(tmp_path / "whole")])
    losses.count = 0
    losses.stop(9, checks.LabError("out of memory"))  # the second network's fourth update
    with pytest.raises(SystemExit, match="out of memory"):
        train_weights.main([*words, str(tmp_path / "stopped")])
    kept = {path.name: checkpoints.read_updates(path) for path in (few / "build" / "checkpoints").iterdir()}
    assert kept == {f"weights_digits_order{order}_seed0.safetensors": n for order, n in ((0, 6), (3, 3))}
    losses.count = 0
    train_weights.main([*words, str(tmp_path / "stopped")])
    assert losses.count == 3 and not list((few / "build" / "checkpoints").iterdir())
    whole, stopped = (weights.paths("digits", tmp_path / name)[0].read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_weights_that_cannot_be_stored_are_not_trained(few, losses):
    (few / "file").touch()
    with pytest.raises(SystemExit, match="a file stands where its folder should be"):
        train_weights.main(["letters", "--updates", "2", "--folder", str(few / "file" / "weights")])
    assert losses.count == 0


def test_ctrl_c_during_make_weights_says_how_to_go_on(few, losses, capsys):
    losses.stop(4, KeyboardInterrupt())
    with pytest.raises(SystemExit, match="130"):
        train_weights.main(["letters", "--updates", "6", "--folder", str(few)])
    assert "goes on: weights_letters_orders_seed0 after 4 updates" in capsys.readouterr().out


def test_a_changed_recipe_does_not_go_on_with_the_old_weights(few, losses, monkeypatch):
    losses.stop(4, checks.LabError("stop"))
    with pytest.raises(SystemExit, match="stop"):
        train_weights.main(["letters", "--updates", "6", "--folder", str(few)])
    monkeypatch.setattr(configs.WEIGHTS["letters"], "training", {**configs.LETTERS, "clip": 1.0})
    with pytest.raises(SystemExit, match="another run: training differ"):
        train_weights.main(["letters", "--updates", "6", "--folder", str(few)])


if __name__ == "__main__":
    trained(Path(sys.argv[1]), before=lambda number: number == STOP and os.kill(os.getpid(), signal.SIGKILL))
