"""Lossless compression with the models of this series (note 9).

To compress is to sample, with the pictures saying every value; to decompress is to sample, with the file saying it. So
all three take the same steps, those of `helpers.sample`, and a model needs no code of its own: only `decode`, which
turns the outputs for a value into that value, is exchanged. Entropy coding is left to constriction (Bamler 2022), whose
asymmetric numeral systems (ANS) come closer to -log2 p than its range coder: that spends 0.0002 bits more a value.
Both sides must compute the same probabilities to the last bit; fixed_point.py sees to that.

A picture is coded in one of several modes: in one of the model's reading orders, or plainly, without the model.
"""

import copy
import functools
import hashlib
import json
import math

import constriction
import numpy as np
import torch

import helpers
from pixelrnn.coding import file_format, fixed_point
from pixelrnn.coding.file_format import ARITHMETIC, MOST
from pixelrnn.models import orders
from support.checks import LabError, choice

PICTURES, VALUES = 2048, 2**23  # of a block, at most; probabilities of values: they are held side by side
PLAIN = 2**-8  # the probability with which a picture is expected to be coded without the model
FLOAT_GRID = 2**16  # to which "float" rounds probabilities, so that fewer differ between machines

_stack, _queue, _models = (getattr(constriction.stream, name) for name in ("stack", "queue", "model"))


def compress(pictures, model, arithmetic="exact", nats=None):
    """Pictures as bytes, from which `decompress` gives them back, with the same model.

    pictures: (count, steps, input_size), torch or numpy, values in [0, 1] on the model's levels; the count may be 0.
    model: any of this series that can be sampled. Of reading orders, the best for each picture is taken. A picture that
        takes more bits with the model than without is coded without. It is put in evaluation mode.
    arithmetic: "exact" can be decompressed everywhere. "float" takes models with layer norm or batch norm too, but only
        the same processor, torch and number of threads are sure to give the pictures back.
    nats: of each order and picture (orders, count), where they are known: those of `model.nats(pictures, each=True)`.
        They say which order is the best.

    Raises LabError for other pictures or models.
    """
    choice("arithmetic", arithmetic, ARITHMETIC)
    return encoded(_symbols(pictures, model, levels_of(model)), model, arithmetic, nats)


def encoded(symbols, model, arithmetic, nats=None):
    """`compress` for pictures that are checked and given as levels: whole numbers (count, steps, input_size), numpy."""
    head = {"arithmetic": arithmetic, "levels": levels_of(model)}
    head |= dict(zip(("count", "steps", "size"), symbols.shape, strict=True))
    if nats is not None and np.shape(nats) != (len(_orders(model)), len(symbols)):
        told = f"({len(_orders(model))}, {len(symbols)})"
        raise LabError(f"nats has the shape (orders, pictures), here {told}, not {np.shape(nats)}.")
    prepared, parts = _prepared(model, arithmetic), [file_format.header(head, digest(model))]
    for start in range(0, len(symbols), _block(head)):
        block = symbols[start : start + _block(head)].astype(np.int32)
        coder = _Encoder()
        known = None if nats is None else nats[:, start : start + _block(head)]
        _write_block([coder] * len(block), block, model, prepared, arithmetic, known)
        parts.append(file_format.write_block(coder.bytes(), block))
    return b"".join(parts)


def streams(pictures, model):
    """Each picture as a stream of its own: a list of bytes, without header or checksum, to measure what that costs.

    By a range coder, which ends in half as many bits as ANS.
    """
    symbols, prepared = _symbols(pictures, model, levels_of(model)), _prepared(model, "exact")
    coders = [_queue.RangeEncoder() for _ in symbols]
    for start in range(0, len(symbols), PICTURES):
        part = slice(start, start + PICTURES)
        _write_block(coders[part], symbols[part].astype(np.int32), model, prepared, "exact")
    return [_bytes(coder) for coder in coders]


def decompress(data, model):
    """The pictures (count, steps, input_size), float32, that `compress` turned into these bytes with the same model.

    Raises LabError where the bytes are damaged, cut off or of another format, where the weights are others, or where
    this machine computes other probabilities: no wrong picture is returned.
    """
    symbols = decoded(data, model)
    return torch.from_numpy(symbols.astype(np.float32)) / (levels_of(model) - 1)


def decoded(data, model):
    """`decompress`, which gives levels: whole numbers, numpy, of the smallest type that holds the model's."""
    head, place = file_format.read_header(data, digest(model))
    wide = model.size if isinstance(model, orders.Orders) else model.input_size
    high = wide if isinstance(model, orders.Orders) else head["steps"]
    if (head["steps"], head["size"], head["levels"]) != (high, wide, levels_of(model)):
        raise LabError("The header is of pictures for another model than that of its weights.")
    prepare = functools.cache(_prepared)  # not for bytes that are damaged

    def read(coded, many):
        return _read_block(coded, prepare(model, head["arithmetic"]), head, many)

    return file_format.read_blocks(data, place, head, _block(head), read)


def walk(model, steps, batch, choose):
    """The steps that sampling, compressing and decompressing share.

    choose: outputs of some values, (batch, values) or categorical (batch, values, levels), -> their levels, whole
        numbers (batch, values), numpy. It is asked for all values, in the order in which the model predicts them.
    Returns the levels (batch, steps, input_size), int32 numpy.
    """

    def decode(outputs, temperature=0.0, chance=None):
        many = outputs.reshape(batch, -1, *outputs.shape[-1:] * (model.distribution == "categorical"))
        chosen = np.ascontiguousarray(choose(many), np.float64) / top
        shape = outputs.shape[:-1] if model.distribution == "categorical" else outputs.shape
        return torch.from_numpy(chosen).to(outputs).reshape(shape)

    top = levels_of(model) - 1
    view = copy.copy(model)  # the same weights
    view.decode = decode  # an attribute of the view alone, which hides the method
    sequences, _ = helpers.sample(view, steps, batch=batch)
    return torch.round(sequences * top).to(torch.int32).numpy()


def probabilities(outputs, arithmetic):
    """constriction's model of some values, and their probabilities, float64 numpy: from outputs (batch, values), of a
    1, (batch * values,); from outputs (batch, values, levels), of each level, (batch * values, levels)."""
    flat = outputs.detach().flatten(0, 1).cpu()
    if arithmetic == "exact":
        chances = fixed_point.bernoulli(flat) if flat.ndim == 1 else fixed_point.categorical(flat)
    else:
        flat = flat.double()
        chances = (torch.sigmoid(flat) if flat.ndim == 1 else torch.softmax(flat, -1)).numpy()
        chances = np.clip(np.round(chances * FLOAT_GRID), 1, FLOAT_GRID - 1) / FLOAT_GRID
    kind = _models.Bernoulli if flat.ndim == 1 else _models.Categorical
    return kind(perfect=False), chances


def digest(model):
    """8 bytes that say which weights a model has, and which model it is."""
    record = hashlib.sha256(json.dumps([type(model).__name__, getattr(model, "settings", None)]).encode())
    for name, weight in model.state_dict().items():
        record.update(name.encode())
        record.update(weight.detach().cpu().double().numpy().astype("<f8").tobytes())
    return record.digest()[:8]


def _block(head):
    """Pictures of a block."""
    return max(1, min(PICTURES, VALUES // (head["steps"] * head["size"] * head["levels"])))


def _read_block(payload, prepared, head, many):
    coder = _stack.AnsCoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    block = np.zeros((many, head["steps"], head["size"]), np.int32)
    chosen = coder.decode(_modes(prepared), many)
    for number, order in enumerate(_orders(prepared)):
        selected = chosen == number
        if selected.any():
            model = _in_order(prepared, order)
            with _arithmetic(head["arithmetic"]):
                levels = walk(model, head["steps"], int(selected.sum()), _reader(coder, head["arithmetic"]))
            block[selected] = levels if order is None else orders.turned_back(torch.from_numpy(levels), order).numpy()
    plain = chosen == len(_orders(prepared))
    if plain.any():
        values = coder.decode(_models.Uniform(head["levels"]), int(plain.sum()) * block[0].size)
        block[plain] = values.reshape(-1, *block.shape[1:])
    if not coder.is_empty():
        raise ValueError("bytes are left over")
    return block


def _reader(coder, arithmetic):
    return lambda outputs: coder.decode(*probabilities(outputs, arithmetic)).reshape(outputs.shape[:2])


class _Encoder:
    """The last value that this coder is given must be the first that the decoder reads, so all wait for the end."""

    def __init__(self):
        self.waiting = []

    def encode(self, values, kind, *chances):
        self.waiting.append((values, kind, *chances))

    def bytes(self):
        coder = _stack.AnsCoder()
        for values, kind, *chances in reversed(self.waiting):
            coder.encode_reverse(values, kind, *chances)
        return _bytes(coder)


def _bytes(coder):
    return coder.get_compressed().astype("<u4").tobytes()


def _write_block(coders, block, model, prepared, arithmetic, nats=None):
    """Encode pictures, each by its coder, which may be one for all: the mode of each, then their values by mode."""
    chosen = _best_modes(model, block, nats)
    for coder, number in zip(coders, chosen, strict=True):
        coder.encode(np.array([number], np.int32), _modes(model))
    for number, order in enumerate(_orders(model)):
        selected = np.flatnonzero(chosen == number)
        if len(selected):
            pictures = torch.from_numpy(block[selected])
            pictures = pictures if order is None else orders.turned(pictures, order)
            _write([coders[one] for one in selected], _in_order(prepared, order), pictures, arithmetic)
    for one in np.flatnonzero(chosen == len(_orders(model))):
        coders[one].encode(block[one].reshape(-1), _models.Uniform(levels_of(model)))


def _write(coders, model, pictures, arithmetic):
    """Encode pictures (batch, steps, input_size), whole numbers, torch, as this model reads them."""
    known, place = pictures.flatten(1).numpy(), 0
    together = all(coder is coders[0] for coder in coders)

    def choose(outputs):
        nonlocal place
        values = np.ascontiguousarray(known[:, place : place + outputs.shape[1]])
        place += outputs.shape[1]
        kind, chances = probabilities(outputs, arithmetic)
        if together:
            coders[0].encode(values.reshape(-1), kind, chances)
        else:
            for coder, row, chance in zip(coders, values, np.split(chances, len(coders)), strict=True):
                coder.encode(row, kind, chance)
        return values

    with _arithmetic(arithmetic):
        walk(model, pictures.shape[1], len(pictures), choose)


def _arithmetic(arithmetic):
    return fixed_point.Exact() if arithmetic == "exact" else torch.no_grad()


def _prepared(model, arithmetic):
    return fixed_point.on_grid(model) if arithmetic == "exact" else copy.deepcopy(model)


def _orders(model):
    return model.orders if isinstance(model, orders.Orders) else [None]


def _in_order(model, order):
    return model if order is None else model.in_order(order)


def _modes(model):
    """The prior of the modes: each order of the model is as probable as the others, coding plainly has 1/256. So no
    picture, however strange to the model, takes more than 8 bits beyond those of its values."""
    count = len(_orders(model))
    return _models.Categorical(np.array([(1 - PLAIN) / count] * count + [PLAIN]), perfect=False)


def _best_modes(model, block, nats=None):
    """For each picture the number of the mode that takes the fewest bits, int32."""
    levels = levels_of(model)
    if nats is None:
        pictures = torch.from_numpy(block).float() / (levels - 1)
        several = isinstance(model, orders.Orders)
        nats = np.stack(model.nats(pictures, each=True)[1] if several else [helpers.nats(model, pictures)])
    nats = nats - math.log((1 - PLAIN) / len(nats))
    plain = np.full((1, len(block)), block[0].size * math.log(levels) - math.log(PLAIN))
    return np.concatenate([nats, plain]).argmin(0).astype(np.int32)


def levels_of(model):
    """How many levels a value of the model has. Raises LabError for one that cannot be coded."""
    if not isinstance(model, helpers.SequenceModel | orders.Orders):
        raise LabError(f"Pictures are coded with the models of this series, and {type(model).__name__} is none.")
    model = _in_order(model, _orders(model)[0])
    if model.distribution == "regression" or not model.causal:
        raise LabError("This model gives no probabilities, or it reads what it predicts: it cannot code pictures.")
    return 2 if model.distribution == "bernoulli" else model.levels


def _symbols(pictures, model, levels):
    """Pictures in [0, 1] as whole numbers (count, steps, input_size), numpy, of the smallest type, checked."""
    pictures = torch.as_tensor(pictures).detach().cpu()
    check_shape(tuple(pictures.shape), model)
    whole = np.empty(pictures.shape, np.min_scalar_type(levels - 1))
    some = max(1, VALUES // math.prod(pictures.shape[1:]))  # at once: in double precision they take eight bytes a value
    for start in range(0, len(pictures), some):
        values = pictures[start : start + some].double() * (levels - 1)
        symbols = torch.round(values)
        if not (torch.isfinite(values).all() and (symbols >= 0).all() and (symbols < levels).all()):
            raise LabError("Pictures have values from 0 to 1.")
        if not torch.allclose(values, symbols, rtol=0, atol=1e-3):
            raise LabError(f"The model codes {levels} levels; these pictures have values between them. Binarise first.")
        whole[start : start + some] = symbols.numpy()
    return whole


def check_shape(shape, model):
    """Raises LabError unless the model codes pictures of this shape."""
    size = model.size if isinstance(model, orders.Orders) else model.input_size
    square = isinstance(model, orders.Orders) and len(shape) == 3 and shape[1] != size
    if len(shape) != 3 or shape[2] != size or square or not shape[1]:
        raise LabError(f"The model codes pictures (count, {'steps' if not square else size}, {size}), not {shape}.")
    if shape[1] * shape[2] > MOST:
        raise LabError(f"A picture has at most {MOST:,} values here.")
