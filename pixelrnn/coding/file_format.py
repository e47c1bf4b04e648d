"""The format of a file of compressed pictures.

A header (FIELDS, a text that says what computed floats, a checksum), then blocks of pictures: the coder's bytes with
their number, their checksum, and the checksum of the pictures. The last finds a machine that computes other
probabilities.
"""

import platform
import struct
import zlib

import numpy as np
import torch

from support.checks import LabError

MAGIC, FORMAT = b"PRNN", 1
# Magic, format, arithmetic, steps, values of a step, levels, count, digest of the weights, length of the text.
FIELDS = struct.Struct("<4sBBIIIQ8sB")
BLOCK = struct.Struct("<III")  # bytes that follow, their checksum, the checksum of the pictures
MOST = 2**24  # values of a picture
ARITHMETIC = ("exact", "float")


def read_header(data, weights=None):
    """The header of a file as a dict, and where its first block begins. Raises LabError where there is none, or where
    it is not of these weights, given by their digest."""
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
    if weights not in (None, head["weights"]):
        raise LabError("These pictures were compressed with other weights; they can only be read with those.")
    return head, end + 4


def header(head, weights):
    """The bytes of a header: `head` as `read_header` gives it, the digest of the weights, and for floats, which only
    the same machine is sure to compute, this machine's text. Files in exact arithmetic are the same on every
    machine."""
    threads, text = torch.get_num_threads(), ""
    if head["arithmetic"] == "float":
        text = f"torch {torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()} x{threads}"
    text = text.encode()[:255]
    sizes = (head[name] for name in ("steps", "size", "levels", "count"))
    fields = FIELDS.pack(MAGIC, FORMAT, ARITHMETIC.index(head["arithmetic"]), *sizes, weights, len(text)) + text
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def write_block(coded, block):
    """The bytes of a block: what the coder wrote, and checksums of it and of its pictures, whole numbers."""
    return BLOCK.pack(len(coded), zlib.crc32(coded), checksum(block)) + coded


def read_blocks(data, place, head, size, read):
    """The pictures of all blocks, whole numbers of the smallest type, numpy (count, steps, size).

    size: pictures of a block. read(coded, many) -> whole numbers (many, steps, size). Raises LabError where the bytes
    are damaged or cut off, or where others are read than were written.
    """
    count = head["count"]
    if -(-count // size) * BLOCK.size > len(data) - place:
        raise LabError(f"The file is cut off: {count:,} pictures need more than its {len(data):,} bytes.")
    kind = np.min_scalar_type(head["levels"] - 1)
    blocks = [np.zeros((0, head["steps"], head["size"]), kind)]
    for start in range(0, count, size):
        many = min(size, count - start)
        where = f"pictures {start + 1:,} to {start + many:,}" if many > 1 else f"picture {start + 1:,}"
        coded, of_pictures, place = _coded(data, place, where)
        try:
            block = read(coded, many)
        except (AssertionError, ValueError) as error:  # constriction's, where probabilities do not fit the bytes
            raise LabError(_differs(head, where)) from error
        if checksum(block) != of_pictures:
            raise LabError(_differs(head, where))
        blocks.append(block.astype(kind))
    if place != len(data):
        raise LabError(f"After the last picture come {len(data) - place:,} bytes that belong to nothing.")
    return np.concatenate(blocks)


def _coded(data, place, where):
    """The bytes of the next block, the checksum of its pictures, and where the block after it begins."""
    begin = place + BLOCK.size
    length, own, of_pictures = BLOCK.unpack_from(data, place) if begin <= len(data) else (len(data), 0, 0)
    if begin + length > len(data):
        raise LabError(f"The file is cut off before the end of {where}.")
    coded = data[begin : begin + length]
    if length % 4 or zlib.crc32(coded) != own:
        raise LabError(f"The file is damaged in {where}: a checksum differs. Fetch the file again.")
    return coded, of_pictures, begin + length


def checksum(block):
    """Of whole numbers, numpy, whatever their type."""
    return zlib.crc32(np.ascontiguousarray(block, "<i4").tobytes())


def _differs(head, where):
    """What is said where other pictures are read than were written."""
    cause = "The file is damaged, or was damaged before its checksum was computed."
    if head["arithmetic"] == "float":
        cause = (
            f"It was compressed in floating-point arithmetic by {head['text']}; read it there, or with its settings."
        )
    return f"Reading {where} gives other pictures than were written. {cause}"
