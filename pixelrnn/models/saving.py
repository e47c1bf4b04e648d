"""Models in files: weights as safetensors, with the model's name and settings."""

import contextlib
import json
import math

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import GenModel
from pixelrnn.models import augmentation, colour, ensemble, orders, paper, photo
from support.checks import LabError
from support.files import reading, written_whole

MODELS = (GenModel, augmentation.ShiftConditioned, *paper.MODELS, ensemble.Average, orders.Mixture, orders.Shared)
MODELS += (colour.ColourPixelCNN, photo.PhotoPixelCNN)


class _AsMuchAs(TorchDispatchMode):
    """Building a model within it stops where that takes far more than these weights: in a file that is no damaged one,
    the weights are all that its settings build, and to build one weight takes a few operations and a few times its
    numbers (initial values, masks); 12 and 8 at most with the models of this series.
    """

    def __init__(self, weights):
        super().__init__()
        self.operations = 1000 + 100 * len(weights)
        self.numbers = 2**20 + 20 * sum(weight.numel() for weight in weights.values())

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        first = args[0] if args else ()
        if isinstance(first, torch.Tensor):
            self.numbers -= first.numel()
        elif isinstance(first, list | tuple) and all(isinstance(length, int) for length in first):
            self.numbers -= math.prod(first)  # the shape of a new one, before memory is taken for it
        self.operations -= 1
        if self.operations < 0 or self.numbers < 0:
            raise LabError("Its settings ask for far more than its weights hold.")
        return operation(*args, **(kwargs or {}))


def _check_numbers(settings, most):
    """Raises LabError where a number in settings, however deep, is beyond `most`: before lists so long are made."""
    if isinstance(settings, dict | list):
        for value in settings.values() if isinstance(settings, dict) else settings:
            _check_numbers(value, most)
    elif isinstance(settings, int | float) and not abs(settings) <= most:
        raise LabError(f"Its settings ask for {settings!r} of something, and its weights are far fewer.")


def _built(name, settings, within=None):
    """The model of this series with that name and these settings, and new weights, on the CPU."""
    models = {model.__name__: model for model in MODELS}
    if name not in models:
        raise LabError(f"{name!r} is none of the models of this series, {', '.join(models)}.")
    within = within or contextlib.nullcontext()
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), within:  # what is sampled later is what it was
        return models[name](**settings)


def _structure(model):
    """What a model's weights belong to: the kinds of its parts, by name, and the shape of each weight."""
    kinds = [(type(part).__module__, type(part).__qualname__) for part in model.modules()]
    return kinds, {name: weight.shape for name, weight in model.state_dict().items()}


def save_model(model, path):
    """The weights as safetensors, with the model's name and settings in the same file. Written whole or not at all.

    model: one of this series (MODELS), on any device and of any dtype. Of one that torch.compile or
        DistributedDataParallel wraps, the model inside is saved.

    Raises LabError, the old file untouched, where it cannot be written, or where `load_model` would not give it back.
    """
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    name = type(model).__name__
    try:
        settings = getattr(model, "settings", {})  # a model of the reader's own may have none
        if _structure(_built(name, settings)) != _structure(model):
            raise LabError("It is no longer what its settings build.")
        metadata = {"settings": json.dumps({"model": name, **settings})}  # one entry: several come in any order
    except (AttributeError, TypeError, ValueError) as error:
        advice = "safetensors.torch.save_model writes the weights of any model, without its settings."
        raise LabError(f"save_model cannot keep this {name}: {error} Nothing was written. {advice}") from error
    # Copies, since safetensors refuses weights that share their memory, as tied ones do.
    weights = {
        name: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, weight in model.state_dict().items()
    }
    with written_whole(path, "A name for the weights file") as unfinished:
        unfinished.write_bytes(safetensors.torch.save(weights, metadata))  # the file of save_file is its owner's alone


def load_model(path):
    """The model that `save_model` wrote, on the CPU, in evaluation mode, of the dtype it had.

    Raises LabError for a file that is missing, damaged or not to be read.
    """
    with reading(path, "A weights file", "Train a model and write it with save_model.") as path:
        # Read at once: safe_open opens a file twice, between which another process may put a new one in its place.
        data = path.read_bytes()
        weights = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        settings = json.loads(header.get("__metadata__", {}).get("settings", "null"))
        if not isinstance(settings, dict):
            raise LabError("It holds no settings of a model.")
        # A model of few weights may have a million levels or steps of a window, which take none.
        _check_numbers(settings, max(10**6, sum(weight.numel() for weight in weights.values())))
        name = settings.pop("model", "GenModel")  # the first files named no model
        model = _built(name, settings, _AsMuchAs(weights))
        dtypes = [weight.dtype for weight in weights.values() if weight.is_floating_point()]
        model.to(*dtypes[:1])  # the masks too, which are not in the file
        model.load_state_dict(weights, assign=True)
    return model.eval()
