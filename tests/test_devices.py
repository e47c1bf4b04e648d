"""Any device: every tensor is made where the model is, results come back as numpy, and a device is tried before it is
trusted. The last tests run on a real GPU, where there is one."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import helpers
from pixelrnn.models import ensemble, paper
from support import checkpoints, checks, devices, files, joint_head

ROOT = Path(helpers.__file__).parent
OURS = {str(path) for path in (ROOT / "pixelrnn" / "models").glob("*.py")} | {helpers.__file__, joint_head.__file__}
MAKERS = {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand, torch.randint}
MAKERS |= {torch.randn, torch.randperm, torch.tensor, torch.zeros, torch.as_tensor, torch.from_numpy}

MODELS = {
    "independent": lambda: helpers.GenModel(4, 6),
    "joint": lambda: helpers.GenModel(4, 6, head="joint", norm="layer"),
    "levels": lambda: helpers.GenModel(4, 6, head="joint", encoding="one-hot", distribution="categorical", levels=2),
    "values": lambda: helpers.GenModel(4, 6, distribution="regression"),
    "seq2vec": lambda: helpers.GenModel(4, 6, output="seq2vec", window=2),
    "row-lstm": lambda: paper.PixelRNN(4, paper.RowLSTM, 4, 1),
    "diagonal-bilstm": lambda: paper.PixelRNN(4, paper.DiagonalBiLSTM, 4, 1),
    "pixelcnn": lambda: paper.PixelCNN(4, 4, 1, 4),
    "gated-pixelcnn": lambda: paper.GatedPixelCNN(4, 4, 1, 4),
    "made": lambda: paper.MADE(4, 4, 3),
    "average": lambda: ensemble.Average([helpers.GenModel(4, 6, head="joint") for _ in range(2)]),
}
SEQUENCES = (torch.rand(8, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def use(model):
    """Everything that is done with a model; returns the results that are numpy arrays."""
    helpers.train(
        model, SEQUENCES, steps=2, batch_size=4, prepare=torch.bernoulli, context=helpers.flipped(0.1), probe_at=[0, 2]
    )
    temperature = 0.0 if model.distribution == "regression" else 1.0
    helpers.sample(model, 4, batch=2, temperature=temperature)
    helpers.sample(model, 4, SEQUENCES[:, :2], temperature=temperature)
    helpers.sample_naively(model, 4, batch=2, temperature=temperature, values=5)
    results = [helpers.receptive_field(model, SEQUENCES, 2)]
    assert not helpers.leaks(model, SEQUENCES[:1])
    if model.distribution != "regression":
        results.append(helpers.nats(model, SEQUENCES))
    if isinstance(model, helpers.GenModel) and not model.joint:
        helpers.fit_head(model, SEQUENCES)
    return results


class OnNoDevice(TorchFunctionMode):
    """Notes each tensor that our code makes without saying where, and each that it turns into numpy where it is."""

    def __init__(self):
        super().__init__()
        self.faults, self.on_cpu = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        caller, result = sys._getframe(1), func(*args, **(kwargs or {}))
        if caller.f_code.co_filename in OURS:
            where = f"line {caller.f_lineno} of {caller.f_code.co_filename}"
            if func in MAKERS and (kwargs or {}).get("device") is None:
                self.faults.append(f"made on no device: {where}")
            if func is torch.Tensor.numpy and not any(args[0] is tensor for tensor in self.on_cpu):
                self.faults.append(f"not brought to the CPU before numpy: {where}")
        moved = func is torch.Tensor.cpu or any(tensor is args[0] for tensor in self.on_cpu) if args else False
        if moved and isinstance(result, torch.Tensor):
            self.on_cpu.append(result)
        return result


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_made_where_the_model_is(name):
    model = MODELS[name]()
    with OnNoDevice() as mode:
        results = use(model)
    assert not mode.faults
    assert all(isinstance(result, np.ndarray) and np.isfinite(result).all() for result in results)


def test_a_tensor_made_on_no_device_would_be_found():
    ours = {}
    exec(compile("def careless(torch): return torch.full((1, 2), 0.5).numpy()", helpers.__file__, "exec"), ours)
    with OnNoDevice() as mode:
        torch.full((1, 2), 0.5).numpy()  # not in our code
        ours["careless"](torch)
    assert [fault.split(":")[0] for fault in mode.faults] == [
        "made on no device",
        "not brought to the CPU before numpy",
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_another_precision_learns_and_samples(name, dtype):
    model = MODELS[name]().to(dtype)
    if dtype == torch.bfloat16:  # of which torch has no LSTM on every processor: sampling alone, without oneDNN
        with torch.backends.mkldnn.flags(enabled=False):
            sequences, _ = helpers.sample(model, 4, batch=2)
        assert sequences.dtype == torch.float32
    else:
        use(model)
        assert helpers.sample(model, 4)[0].dtype == torch.float64
    assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_probabilities_are_not_rounded_to_bfloat16():
    """The probability of a 1 is 0.9975; bfloat16 would make it 0.9961."""
    outputs, chance = torch.full((1, 1), 6.0, dtype=torch.bfloat16), torch.full((1, 1), 0.997)
    assert helpers.GenModel(1, 1).decode(outputs, 1.0, chance).item() == 1


# Which device


def test_the_cpu_is_chosen_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device() == devices.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", None, 3, "meta"])
def test_a_device_that_is_not_there_is_told(name):
    with pytest.raises(checks.LabError, match="There is no device"):
        devices.choose_device(name)


@pytest.mark.parametrize(("off", "chosen"), [(1e-6, "mps"), (0.5, "cpu"), (float("nan"), "cpu")])
def test_a_device_whose_lstm_is_wrong_is_passed_over(monkeypatch, off, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_lstm_difference", lambda device: off if device.type == "mps" else 0.0)
    assert devices.choose_device().type == chosen
    if chosen == "cpu":
        with pytest.raises(checks.LabError, match="off the CPU's values"):
            devices.choose_device("mps")


def test_the_comparison_finds_a_wrong_lstm(monkeypatch):
    assert devices._lstm_difference(torch.device("cpu")) == 0
    forward, calls = torch.nn.LSTM.forward, []

    def wrong_the_second_time(self, inputs):
        calls.append(1)
        outputs, state = forward(self, inputs)
        return outputs.roll(len(calls) - 1, 1), state

    monkeypatch.setattr(torch.nn.LSTM, "forward", wrong_the_second_time)
    assert devices._lstm_difference(torch.device("cpu")) > 0.01


SMALL = f"""import sys, threading; sys.path.insert(0, {str(files.DATA.parent)!r})
import torch
from support import devices
def largest():
    seen.append(float((torch.full((10**6,), 1e-30) * 1e-12).max()))
seen = []
largest()
another = threading.Thread(target=largest)
another.start(), another.join()
print(torch.get_num_threads(), seen)"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors may keep such numbers")
def test_no_thread_slows_down_on_numbers_too_small_for_normal_floating_point():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", SMALL], env=environment, capture_output=True, text=True)
    assert run.stdout == "2 [0.0, 0.0]\n", run.stdout + run.stderr


# On a real GPU

GPUS = [name for name in ("cuda", "mps") if getattr(torch, name).is_available()]


@pytest.mark.skipif(not GPUS, reason="there is no GPU here")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_the_values_of_the_cpu(name):
    device = devices.choose_device(GPUS[0])
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    elsewhere = MODELS[name]().to(device).eval()
    elsewhere.load_state_dict(model.state_dict())
    if model.distribution != "regression":
        np.testing.assert_allclose(helpers.nats(elsewhere, SEQUENCES), helpers.nats(model, SEQUENCES), rtol=1e-4)
    fields = [helpers.receptive_field(one, SEQUENCES, 2) for one in (elsewhere, model)]
    np.testing.assert_allclose(*fields, rtol=1e-3, atol=1e-5)
    assert all(np.isfinite(result).all() for result in use(elsewhere))
    assert {weight.device.type for weight in elsewhere.parameters()} == {device.type}
    torch.manual_seed(0)
    fast, _ = helpers.sample(elsewhere, 4, batch=16)
    assert fast.device.type == device.type
    # A GPU rounds products of other shapes in another way: what is no level differs in its last digits.
    torch.testing.assert_close(fast, helpers.sample_naively(elsewhere, 4, batch=16))


@pytest.mark.skipif(not GPUS, reason="there is no GPU here")
def test_a_gpu_trains_in_bfloat16_if_it_can():
    device = devices.choose_device(GPUS[0])
    model = helpers.GenModel(4, 6, head="joint").to(device)
    history = helpers.train(model, SEQUENCES, steps=20, bfloat16=devices.has_bfloat16(device))
    assert history.loss[-1] < history.loss[0]


@pytest.mark.skipif(not GPUS, reason="there is no GPU here")
@pytest.mark.parametrize("name", GPUS)
def test_a_training_that_was_stopped_goes_on_there(name, tmp_path):
    """Weights, optimisers and random numbers go back to the GPU, and forth."""

    def trained(steps, path=None):
        torch.manual_seed(0)
        model = helpers.GenModel(4, 8, dropout=0.5).to(name)
        kept = path and checkpoints.Checkpoint(path, {}, every=0.0)
        settings = {"batch_size": 4, "prepare": torch.bernoulli, "context": helpers.flipped(0.1), "optimizer": "muon"}
        settings |= {"checkpoint": kept, "probe": stop(steps), "probe_at": [steps]}
        history = helpers.train(model, SEQUENCES, steps=8, **settings)
        return np.concatenate([history.loss, *(weight.detach().cpu().ravel() for weight in model.parameters())])

    def stop(steps):
        def probe(model):
            if steps < 8:
                raise InterruptedError
            return {}

        return probe

    with pytest.raises(InterruptedError):
        trained(5, tmp_path / "run")
    assert checkpoints.read_updates(tmp_path / "run") == 4  # it ended before the fifth was kept
    np.testing.assert_allclose(trained(8, tmp_path / "run"), trained(8), rtol=1e-4, atol=1e-6)
