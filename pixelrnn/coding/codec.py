"""Lossless compression with the models of this series (note 9).

    python codec.py pack letters.npz letters.prnn
    python codec.py unpack letters.prnn letters.npz

To compress is to sample, with the pictures saying every value; to decompress is to sample, with the file saying it. So
all three take the same steps, those of `helpers.sample`, and a model needs no code of its own: only `decode`, which
turns the outputs for a value into that value, is exchanged. Entropy coding is left to constriction (Bamler 2022), whose
asymmetric numeral systems (ANS) come closer to -log2 p than its range coder: that spends 0.0002 bits more a value.
Both sides must compute the same probabilities to the last bit; exact.py sees to that.

A file is a header (FIELDS, a text that says what computed it, a checksum) and blocks of pictures: the coder's bytes
with their number, their checksum, and the checksum of the pictures. The last finds a machine that computes other
probabilities.
"""

import argparse
import contextlib
import copy
import hashlib
import json
import math
import platform
import struct
import sys
import zlib

try:
    import constriction
    import numpy as np
    import torch

    import helpers
    from pixelrnn.coding import fixed_point
    from pixelrnn.models import orders, saving, weights
    from support import files
    from support.files import LabError
except (ModuleNotFoundError, KeyboardInterrupt) as error:
    if __name__ != "__main__":
        raise
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    advice = (
        "Run `make notebooks` once, then .venv/bin/python -m pixelrnn.coding.codec (Windows: .venv\\Scripts\\python)."
    )
    sys.exit(f"{sys.executable} has no {error.name}; the Python in .venv of this project has. {advice}")

MAGIC, FORMAT = b"PRNN", 1
# Magic, format, arithmetic, steps, values of a step, levels, count, digest of the weights, length of the text.
FIELDS = struct.Struct("<4sBBIIIQ8sB")
BLOCK = struct.Struct("<III")  # bytes that follow, their checksum, the checksum of the pictures
PICTURES, VALUES = 2048, 2**23  # of a block, at most; probabilities of values: they are held side by side
MOST = 2**24  # values of a picture
LARGEST = 2**29  # bytes of an array of pictures in a file: 680,000 of 28 x 28, which take hours
ARITHMETIC = ("exact", "float")
PLAIN = 2**-8  # the probability with which a picture is expected to be coded without the model
FLOAT_GRID = 2**16  # to which "float" rounds probabilities, so that fewer differ between machines

_stack, _queue, _models = (getattr(constriction.stream, name) for name in ("stack", "queue", "model"))


def compress(pictures, model, arithmetic="exact"):
    """Pictures as bytes, from which `decompress` gives them back, with the same model.

    pictures: (count, steps, input_size), torch or numpy, values in [0, 1] on the model's levels; the count may be 0.
    model: any of this series that can be sampled. Of reading orders, the best for each picture is taken. A picture that
        takes more bits with the model than without is coded without. It is put in evaluation mode.
    arithmetic: "exact" can be decompressed everywhere. "float" takes models with layer norm or batch norm too, but only
        the same processor, torch and number of threads are sure to give the pictures back.

    Raises LabError for other pictures or models.
    """
    files.choice("arithmetic", arithmetic, ARITHMETIC)
    return _compressed(_symbols(pictures, model, _levels(model)), model, arithmetic)


def _compressed(symbols, model, arithmetic):
    """The same of whole numbers that are checked (count, steps, input_size), numpy."""
    head = {"arithmetic": arithmetic, "levels": _levels(model)}
    head |= dict(zip(("count", "steps", "size"), symbols.shape, strict=True))
    ready, parts = _ready(model, arithmetic), [_header(head, model)]
    for start in range(0, len(symbols), _block(head)):
        block = symbols[start : start + _block(head)].astype(np.int32)
        coder = _Encoder()
        _write_block([coder] * len(block), block, model, ready, arithmetic)
        data = coder.bytes()
        parts += [BLOCK.pack(len(data), zlib.crc32(data), _checksum(block)), data]
    return b"".join(parts)


def streams(pictures, model):
    """Each picture as a stream of its own: a list of bytes, without header or checksum, to measure what that costs.

    By a range coder, which ends in half as many bits as ANS.
    """
    symbols, ready = _symbols(pictures, model, _levels(model)), _ready(model, "exact")
    coders = [_queue.RangeEncoder() for _ in symbols]
    for start in range(0, len(symbols), PICTURES):
        part = slice(start, start + PICTURES)
        _write_block(coders[part], symbols[part].astype(np.int32), model, ready, "exact")
    return [_bytes(coder) for coder in coders]


def decompress(data, model):
    """The pictures (count, steps, input_size), float32, that `compress` turned into these bytes with the same model.

    Raises LabError where the bytes are damaged, cut off or of another format, where the weights are others, or where
    this machine computes other probabilities: no wrong picture is returned.
    """
    symbols = _decompressed(data, model)
    return torch.from_numpy(symbols.astype(np.float32)) / (_levels(model) - 1)


def _decompressed(data, model):
    """The same as whole numbers, numpy, of the smallest type that holds the model's levels."""
    head, place = read_header(data)
    if head["weights"] != digest(model):
        raise LabError("These pictures were compressed with other weights; they can only be read with those.")
    wide = model.size if isinstance(model, orders.Orders) else model.input_size
    high = wide if isinstance(model, orders.Orders) else head["steps"]
    if (head["steps"], head["size"], head["levels"]) != (high, wide, _levels(model)):
        raise LabError("The header is of pictures for another model than that of its weights.")
    count, size = head["count"], _block(head)
    if -(-count // size) * BLOCK.size > len(data) - place:
        raise LabError(f"The file is cut off: {count:,} pictures need more than its {len(data):,} bytes.")
    ready, kind = _ready(model, head["arithmetic"]), np.min_scalar_type(head["levels"] - 1)
    blocks = [np.zeros((0, head["steps"], head["size"]), kind)]
    for start in range(0, count, size):
        many = min(size, count - start)
        where = f"pictures {start + 1:,} to {start + many:,}"
        payload, checksum, place = _payload(data, place, where)
        try:
            block = _read_block(payload, ready, head, many)
        except (AssertionError, ValueError) as error:  # constriction's, where probabilities do not fit the bytes
            raise LabError(_differs(head, where)) from error
        if _checksum(block) != checksum:
            raise LabError(_differs(head, where))
        blocks.append(block.astype(kind))
    if place != len(data):
        raise LabError(f"After the last picture come {len(data) - place:,} bytes that belong to nothing.")
    return np.concatenate(blocks)


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

    top = _levels(model) - 1
    model.decode = decode  # an attribute of this model only, which hides the method
    try:
        sequences, _ = helpers.sample(model, steps, batch=batch)
    finally:
        del model.decode
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


def read_header(data):
    """The header of a file as a dict, and where its first block begins. Raises LabError where there is none."""
    if data[:4] != MAGIC:
        raise LabError("It does not begin like a file of compressed pictures.")
    names = "magic", "format", "arithmetic", "steps", "size", "levels", "count", "weights", "text"
    cut = LabError("The file is cut off within its header.")
    if len(data) < FIELDS.size:
        raise cut
    head = dict(zip(names, FIELDS.unpack_from(data), strict=True))
    if head["format"] != FORMAT:
        raise LabError(f"It is of format {head['format']}; this version reads format {FORMAT}.")
    end = FIELDS.size + head["text"]
    if len(data) < end + 4:
        raise cut
    if zlib.crc32(data[:end]) != int.from_bytes(data[end : end + 4], "little"):
        raise LabError("The header is damaged: its checksum differs. Fetch the file again.")
    head["text"] = data[FIELDS.size : end].decode("utf-8", "replace")
    head["arithmetic"] = ARITHMETIC[head["arithmetic"] % 2]
    if not 0 < head["steps"] * head["size"] <= MOST or head["levels"] < 2:
        raise LabError(f"A picture of {head['steps']:,} x {head['size']:,} values is none that is written here.")
    return head, end + 4


def _header(head, model):
    threads = torch.get_num_threads()
    text = f"torch {torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()} x{threads}"
    text = text.encode()[:255]
    sizes = (head[name] for name in ("steps", "size", "levels", "count"))
    fields = FIELDS.pack(MAGIC, FORMAT, ARITHMETIC.index(head["arithmetic"]), *sizes, digest(model), len(text)) + text
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def _block(head):
    """Pictures of a block."""
    return max(1, min(PICTURES, VALUES // (head["steps"] * head["size"] * head["levels"])))


def _payload(data, place, where):
    """The bytes of the next block, the checksum of its pictures, and where the block after it begins."""
    begin = place + BLOCK.size
    length, own, checksum = BLOCK.unpack_from(data, place) if begin <= len(data) else (len(data), 0, 0)
    if begin + length > len(data):
        raise LabError(f"The file is cut off before the end of {where}.")
    payload = data[begin : begin + length]
    if length % 4 or zlib.crc32(payload) != own:
        raise LabError(f"The file is damaged in {where}: a checksum differs. Fetch the file again.")
    return payload, checksum, begin + length


def _read_block(payload, ready, head, many):
    coder = _stack.AnsCoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    block = np.zeros((many, head["steps"], head["size"]), np.int32)
    chosen = coder.decode(_ways(ready), many)
    for number, order in enumerate(_orders(ready)):
        own = chosen == number
        if own.any():
            model = _in_order(ready, order)
            with _arithmetic(head["arithmetic"]):
                levels = walk(model, head["steps"], int(own.sum()), _reader(coder, head["arithmetic"]))
            block[own] = levels if order is None else orders.turned_back(torch.from_numpy(levels), order).numpy()
    plain = chosen == len(_orders(ready))
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


def _write_block(coders, block, model, ready, arithmetic):
    """Encode pictures, each by its coder, which may be one for all: the way of each, then their values by way."""
    chosen = _best_ways(model, block)
    for coder, number in zip(coders, chosen, strict=True):
        coder.encode(np.array([number], np.int32), _ways(model))
    for number, order in enumerate(_orders(model)):
        own = np.flatnonzero(chosen == number)
        if len(own):
            pictures = torch.from_numpy(block[own])
            pictures = pictures if order is None else orders.turned(pictures, order)
            _write([coders[one] for one in own], _in_order(ready, order), pictures, arithmetic)
    for one in np.flatnonzero(chosen == len(_orders(model))):
        coders[one].encode(block[one].reshape(-1), _models.Uniform(_levels(model)))


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
            for coder, own, chance in zip(coders, values, np.split(chances, len(coders)), strict=True):
                coder.encode(own, kind, chance)
        return values

    with _arithmetic(arithmetic):
        walk(model, pictures.shape[1], len(pictures), choose)


def _arithmetic(arithmetic):
    return fixed_point.Exact() if arithmetic == "exact" else torch.no_grad()


def _ready(model, arithmetic):
    return fixed_point.on_grid(model) if arithmetic == "exact" else copy.deepcopy(model)


def _orders(model):
    return model.orders if isinstance(model, orders.Orders) else [None]


def _in_order(model, order):
    return model if order is None else model.in_order(order)


def _ways(model):
    """How a picture can be coded: in each order of the model alike, or, rarely, plainly, which costs 8 bits more than
    its values. So no picture, however strange to the model, takes more than that."""
    count = len(_orders(model))
    return _models.Categorical(np.array([(1 - PLAIN) / count] * count + [PLAIN]), perfect=False)


def _best_ways(model, block):
    """For each picture the number of the way that takes the fewest bits, int32."""
    levels = _levels(model)
    pictures = torch.from_numpy(block).float() / (levels - 1)
    own = model.nats(pictures, each=True)[1] if isinstance(model, orders.Orders) else [helpers.nats(model, pictures)]
    own = np.stack(own) - math.log((1 - PLAIN) / len(own))
    plain = np.full((1, len(block)), block[0].size * math.log(levels) - math.log(PLAIN))
    return np.concatenate([own, plain]).argmin(0).astype(np.int32)


def _levels(model):
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
    _check_shape(tuple(pictures.shape), model)
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


def _check_shape(shape, model):
    size = model.size if isinstance(model, orders.Orders) else model.input_size
    square = isinstance(model, orders.Orders) and len(shape) == 3 and shape[1] != size
    if len(shape) != 3 or shape[2] != size or square or not shape[1]:
        raise LabError(f"The model codes pictures (count, {'steps' if not square else size}, {size}), not {shape}.")
    if shape[1] * shape[2] > MOST:
        raise LabError(f"A picture has at most {MOST:,} values here.")


def _checksum(block):
    return zlib.crc32(np.ascontiguousarray(block, "<i4").tobytes())


def _differs(head, where):
    cause = "The file is damaged, or was damaged before its checksum was computed."
    if head["arithmetic"] == "float":
        cause = (
            f"It was compressed in floating-point arithmetic by {head['text']}; read it there, or with its settings."
        )
    return f"Reading {where} gives other pictures than were written. {cause}"


def load_weights(name):
    """A model by the name of stored weights, or by the path of a file that `saving.save_model` wrote."""
    return weights.load(name)[0] if name in weights.NAMES else saving.load_model(name)


def read_pictures(path, model):
    """Pictures of an .npz file, whole numbers (count, rows, columns) on the model's levels, numpy, and the names of the
    other arrays in it; the name of the pictures' is "pictures", or it is the only one."""
    advice = "An .npz of pictures (count, rows, columns) is wanted; numpy.savez(path, pictures=...) writes one."
    with files.reading(path, "An .npz file of pictures", advice) as path:
        held = files.arrays_of(path)
        if "pictures" not in held and len(held) != 1:
            raise LabError(f'It has the arrays {", ".join(held)}, and none is called "pictures"')
        name = "pictures" if "pictures" in held else next(iter(held))
        shape, kind = held.pop(name)
        if kind.kind not in "biu":
            raise LabError(f"Its pictures are of type {kind}; whole numbers from 0 are wanted")
        _check_shape(shape, model)
        if math.prod(shape) * kind.itemsize > LARGEST:
            told = f"Its {shape[0]:,} pictures take {math.prod(shape) * kind.itemsize:,} bytes in memory"
            raise LabError(f"{told}, more than {LARGEST:,}: split it into several files")
        with np.load(path, allow_pickle=False) as arrays:
            pictures = arrays[name]
        top = _levels(model) - 1
        if pictures.size and not 0 <= pictures.min() <= pictures.max() <= top:
            raise LabError(f"The model codes whole numbers from 0 to {top}; its pictures hold others")
    return pictures.astype(np.min_scalar_type(top), copy=False), list(held)


@contextlib.contextmanager
def _in_memory():
    """Where memory ends, as numpy, Python or torch say it, a LabError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise LabError("These pictures take more memory than there is. Nothing was written. Take fewer.") from error


@_in_memory()
def pack(source, path, name="letters", arithmetic="exact"):
    """Compress the pictures of an .npz file into another file; the weights are named as for `load_weights`.

    Returns their number, the bytes of the file, and the names of arrays in the .npz that are not in it.
    """
    model = load_weights(name)
    pictures, others = read_pictures(source, model)
    data = _compressed(pictures, model, files.choice("arithmetic", arithmetic, ARITHMETIC))
    with files.written_whole(path, "A name for compressed pictures") as unfinished:
        unfinished.write_bytes(data)
    return len(pictures), len(data), others


@_in_memory()
def unpack(source, path, name=None):
    """Write the pictures of a compressed file to an .npz file; of stored weights, the right ones are found."""
    with files.reading(source, "A file of compressed pictures") as path_of_source:
        data = path_of_source.read_bytes()
        head, _ = read_header(data)
    models = (load_weights(one) for one in ([name] if name else weights.NAMES))
    model = next((one for one in models if digest(one) == head["weights"]), None)
    if model is None:
        advice = "Name them by --weights, as when the file was written."
        raise LabError(f"It was compressed with other weights than {name or 'the stored ones'}. {advice}")
    whole = _decompressed(data, model)
    with files.written_whole(path, "A name for an .npz file") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, pictures=whole)
    return len(whole), len(data)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, told in (("pack", "pictures (.npz) -> compressed file"), ("unpack", "and back")):
        one = commands.add_parser(command, help=told, description=told)
        one.add_argument("source")
        one.add_argument("path")
        one.add_argument("--weights", help=f"{', '.join(weights.NAMES)}, or a file of weights (pack: letters)")
    commands.choices["pack"].add_argument("--arithmetic", choices=ARITHMETIC, default=ARITHMETIC[0])
    arguments, others = parser.parse_args(words), []
    try:
        if arguments.command == "pack":
            name = arguments.weights or "letters"
            count, size, others = pack(arguments.source, arguments.path, name, arguments.arithmetic)
        else:
            count, size = unpack(arguments.source, arguments.path, arguments.weights)
    except LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        told = f"Interrupted. Nothing was written; {arguments.path}, where it was there, is as it was."
        print(told, file=sys.stderr)
        sys.exit(130)  # as a shell tells it
    each = f", {8 * size / count:.1f} bits each" if count else ""
    print(f"{count:,} pictures, {size:,} bytes compressed{each}: {arguments.path}")
    if others:
        print(f"Not in that file: {', '.join(others)}. Keep {arguments.source} for them.", file=sys.stderr)


if __name__ == "__main__":
    main()
