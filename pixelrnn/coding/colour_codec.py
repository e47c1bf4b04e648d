"""Lossless compression of colour pictures with the networks of notes 12 and 13.

As in codec.py both sides take the same steps and ask for the same probabilities, in the arithmetic of fixed_point.py.
Pixels that do not see each other are coded together: with a reach of r, column + (r + 1) * row grows from each pixel
that is seen to the one that sees it, so all pixels with the same sum can go at once. What comes first is written first
(a range coder; constriction, Bamler 2022), so that a photograph's probabilities need not be held until its end.
"""

import copy
import functools
import math

import constriction
import numpy as np
import torch

from pixelrnn.coding import file_format, fixed_point
from pixelrnn.coding.codec import PLAIN, digest
from pixelrnn.models import colour, photo
from pixelrnn.models.colour import CHANNELS, LEVELS, OUTSIDE
from support.checks import LabError

TOGETHER = 2**12  # pixels that are coded at once, at most, where there is more than one picture

_queue, _models = constriction.stream.queue, constriction.stream.model


def codes(model):
    """Whether this module codes with a model; codec.py has the others."""
    return isinstance(model, colour.ColourPixelCNN | photo.PhotoPixelCNN)


def compress(pictures, model):
    """Pictures as bytes, from which `decompress` gives them back, on every machine, with the same model.

    Every machine writes the same bytes too, unless a picture takes as many bits with the model as without, to the last
    digits of ordinary arithmetic, which decides that.

    pictures: red, green and blue from 0 to 255, uint8 (count, rows, columns, 3), numpy; the count may be 0.
    model: a ColourPixelCNN, whose pictures have its size, or a PhotoPixelCNN. A picture that takes more bits with it
        than without is coded without.

    Raises LabError for other pictures or models.
    """
    if not codes(model):
        raise LabError(f"Colour is coded with the networks of notes 12 and 13, and {type(model).__name__} is none.")
    pictures = np.asarray(pictures)
    check_shape(pictures.shape, model)
    if pictures.dtype.kind not in "biu" or (pictures.size and not 0 <= pictures.min() <= pictures.max() < LEVELS):
        raise LabError("Colour pictures have whole levels from 0 to 255, an array of whole numbers.")
    pictures = torch.from_numpy(pictures.astype(np.uint8))  # a copy: what Pillow gives may not be written to
    count, rows, columns, _ = pictures.shape
    head = {"arithmetic": "exact", "levels": LEVELS, "count": count, "steps": rows, "size": columns * CHANNELS}
    parts, prepared = [file_format.header(head, digest(model))], fixed_point.on_grid(model)
    for block in pictures.split(_block(rows, columns, prepared)) if count else ():
        coder = _queue.RangeEncoder()
        plain = _bits(model, block) > 8 * block[0].numel() - math.log2(PLAIN)
        coder.encode(plain.numpy().astype(np.int32), _modes())
        for one in block[plain]:
            coder.encode(one.numpy().astype(np.int32).reshape(-1), _models.Uniform(LEVELS))
        _write(coder, block[~plain], prepared)
        coded = coder.get_compressed().astype("<u4").tobytes()
        parts.append(file_format.write_block(coded, block.numpy().reshape(len(block), rows, -1)))
    return b"".join(parts)


def decompress(data, model):
    """The pictures, uint8 numpy (count, rows, columns, 3), that `compress` turned into these bytes with the same model.

    Raises LabError where the bytes are damaged, cut off or of another format, or where the weights are others: no wrong
    picture is returned.
    """
    head, place = file_format.read_header(data, digest(model))
    rows, columns = head["steps"], head["size"] // CHANNELS
    if head["size"] % CHANNELS or (head["arithmetic"], head["levels"]) != ("exact", LEVELS):
        raise LabError("The header is not of colour pictures.")
    check_shape((head["count"], rows, columns, CHANNELS), model)
    prepare = functools.cache(fixed_point.on_grid)  # not for bytes that are damaged

    def read(coded, many):
        coder = _queue.RangeDecoder(np.frombuffer(coded, "<u4").astype(np.uint32))
        block, plain = np.empty((many, rows, columns, CHANNELS), np.int32), coder.decode(_modes(), many) == 1
        for one in np.flatnonzero(plain):
            block[one] = coder.decode(_models.Uniform(LEVELS), block[one].size).reshape(block[one].shape)
        shape = (many - plain.sum(), rows, columns)
        block[~plain] = walk(prepare(model), shape, lambda found, place: coder.decode(_kind(), found))
        if not coder.maybe_exhausted():
            raise ValueError("bytes are left over")
        return block.reshape(many, rows, -1)

    found = file_format.read_blocks(data, place, head, _block(rows, columns, model), read)
    return found.reshape(-1, rows, columns, CHANNELS)


def walk(model, shape, choose):
    """The steps of both sides. model: on the grid. shape: (count, rows, columns).

    choose: probabilities (some, LEVELS), float64 numpy, and the place, (rows, columns, channel), of one value or more
        in each picture -> their levels, whole numbers (some,), by picture and then by place.
    Returns the pictures (count, rows, columns, 3), int16 numpy.
    """
    (count, rows, columns), reach = shape, model.reach
    padded = torch.full((count, rows + reach, columns + 2 * reach, CHANNELS), OUTSIDE, dtype=torch.int16)
    down, across = torch.arange(reach + 1)[:, None], torch.arange(2 * reach + 1)
    for time in range(columns + (reach + 1) * (rows - 1) if count else 0):
        first = max(0, -((columns - 1 - time) // (reach + 1)))
        row = torch.arange(first, min(rows - 1, time // (reach + 1)) + 1)
        if not len(row):  # in a picture narrower than the reach
            continue
        column = time - (reach + 1) * row
        squares = padded[:, row[:, None, None] + down, column[:, None, None] + across].flatten(0, 1).double()
        pixels = torch.zeros(len(squares), CHANNELS, dtype=torch.float64)
        of_each = row.repeat(count), column.repeat(count)
        with fixed_point.Exact(cut_off=True), torch.no_grad():
            before = _before(model, squares, *of_each)
        for channel in range(CHANNELS):
            found = _chances(model, channel, before, pixels)
            pixels[:, channel] = torch.from_numpy(np.asarray(choose(found, (row, column, channel)), np.float64))
        padded[:, row + reach, column + reach] = pixels.to(torch.int16).view(count, len(row), CHANNELS)
    return padded[:, reach:, reach : reach + columns].numpy()


def check_shape(shape, model):
    """Raises LabError unless the model codes pictures of this shape."""
    size = model.size if isinstance(model, colour.ColourPixelCNN) else None
    wanted = f"(count, {size or 'rows'}, {size or 'columns'}, {CHANNELS})"
    if len(shape) != 4 or shape[3] != CHANNELS or 0 in shape[1:] or (size and shape[1:3] != (size, size)):
        raise LabError(f"The model codes colour pictures {wanted}, not {shape}.")
    if math.prod(shape[1:]) > file_format.MOST:
        raise LabError(f"A picture has at most {file_format.MOST:,} values here.")


def _before(model, squares, rows, columns):
    """What stands before some pixels, from the squares around them (count, reach + 1, 2 * reach + 1, 3)."""
    if isinstance(model, photo.PhotoPixelCNN):
        rows, columns = torch.tensor(model.places).T + model.reach
        return model.before(squares[:, rows, columns])
    return model.before(squares, model.before.place[:, rows, columns].T[..., None, None]), model.near(squares)


@torch.no_grad()
def _chances(model, channel, before, pixels):
    """Of each level, float64 numpy (count, LEVELS), of one channel of pixels whose channels before it are known."""
    with fixed_point.Exact(cut_off=True):
        if isinstance(model, photo.PhotoPixelCNN):
            outputs, near = model.outputs(channel, before, pixels), None
        else:
            y, near = before
            outputs = model.outputs(channel, y, pixels[:, None, None], near).flatten(0, 2)
            near = near[:, 0, 0, :, channel]
    if model.head in ("softmax", "differences"):
        return fixed_point.categorical(outputs)
    if near is None:
        return fixed_point.chances(fixed_point.mixture(outputs))
    found = fixed_point.mixture(fixed_point.rounded(colour.placed(outputs)))
    if model.head == "copies":
        found = fixed_point.copied(found, outputs[:, 3 * colour.LOGISTICS :], near)
    return fixed_point.chances(found)


def _write(coder, pictures, model):
    def choose(found, place):
        rows, columns, channel = place
        levels = pictures[:, rows, columns, channel].flatten()
        coder.encode(levels.numpy().astype(np.int32), _kind(), found)
        return levels

    walk(model, pictures.shape[:3], choose)


@torch.no_grad()
def _bits(model, pictures):
    """Of each picture, in ordinary arithmetic; one by one, since what a pixel sees takes more memory than the pixel."""
    model = copy.deepcopy(model).cpu().float().eval()
    bits_of = model.bits_of if isinstance(model, photo.PhotoPixelCNN) else model.bits
    return torch.stack([bits_of(one[None]).sum() for one in pictures])


def _block(rows, columns, model):
    """Pictures of a block."""
    return max(1, TOGETHER // min(rows, -(-columns // (model.reach + 1))))


def _kind():
    return _models.Categorical(perfect=False)


def _modes():
    """The prior of the modes: whether a picture is coded plainly."""
    return _models.Bernoulli(PLAIN, perfect=False)
