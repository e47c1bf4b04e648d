"""Models in files: weights as safetensors, with the model's name and settings."""

import json

import safetensors
import safetensors.torch
import torch
from torch import nn

import orders
import paper
from files import LabError, reading, written_whole
from helpers import GenModel


def _built(name, settings):
    """The model of this series with that name and these settings, and new weights, on the CPU."""
    models = {model.__name__: model for model in (GenModel, *paper.MODELS, orders.Mixture, orders.Shared)}
    if name not in models:
        raise LabError(f"{name!r} is none of the models of this series, {', '.join(models)}.")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # so that what is sampled later is what it was
        return models[name](**settings)


def _structure(model):
    """What a model's weights belong to: the kinds of its parts, by name, and the shape of each weight."""
    kinds = [(type(part).__module__, type(part).__qualname__) for part in model.modules()]
    return kinds, {name: weight.shape for name, weight in model.state_dict().items()}


def save_model(model, path):
    """The weights as safetensors, with the model's name and settings in the same file. Written whole or not at all.

    model: one of this series (GenModel, or of paper.py), on any device and of any dtype. Of one that torch.compile or
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
        model = _built(settings.pop("model", "GenModel"), settings)  # the first files named no model
        dtypes = [weight.dtype for weight in weights.values() if weight.is_floating_point()]
        model.to(*dtypes[:1])  # the masks too, which are not in the file
        model.load_state_dict(weights, assign=True)
    return model.eval()
