"""Codes without a network that learn from the same training pictures as the networks do (note 9).

Classical codes have seen no letters or digits before. These have: a context template, which is what JBIG has instead of
a network, with counts of training pictures; and zstd with a dictionary.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import constriction
import numpy as np

# Where the values lie on which the next is conditioned: rows up, columns to the right. The first is JBIG1's template of
# three lines (ITU-T T.82), the second that of JBIG2's generic regions (ITU-T T.88, template 0, with its usual adaptive
# pixels); the third is larger than those of any standard.
TEMPLATES = {
    10: [(2, -1), (2, 0), (2, 1), *((1, column) for column in range(-2, 3)), (0, -2), (0, -1)],
    16: [*((2, c) for c in range(-2, 3)), *((1, c) for c in range(-3, 4)), *((0, c) for c in range(-4, 0))],
    22: [
        *((3, c) for c in range(-1, 2)),
        *((2, c) for c in range(-3, 4)),
        *((1, c) for c in range(-4, 5)),
        *((0, c) for c in range(-3, 0)),
    ],
}
AHEAD = 0.1  # of each value in each context, counted before the first picture


class ContextTemplate:
    """Predicts each value by how often it was 1 in training pictures where the values around it were the same.

    pixels: of the template, one of TEMPLATES. What lies outside a picture counts as 0.
    """

    def __init__(self, pixels):
        self.template = TEMPLATES[pixels]
        self.counts = np.full((2, 2**pixels), AHEAD)  # of 0 and of 1 in each context

    def learn(self, pictures):
        """Add the counts of binary pictures, uint8 (count, rows, columns)."""
        contexts, values = self._contexts(pictures).ravel(), pictures.ravel()
        for value in (0, 1):
            self.counts[value] += np.bincount(contexts[values == value], minlength=self.counts.shape[1])
        return self

    def chances(self, pictures):
        """The probability that each value is 1, (count, rows, columns)."""
        return (self.counts[1] / self.counts.sum(0))[self._contexts(pictures)]

    def bits(self, pictures):
        """-log2 of each picture's probability: (count,)."""
        ones = self.chances(pictures)
        return -np.log2(np.where(pictures == 1, ones, 1 - ones)).sum((1, 2))

    def encode(self, pictures):
        """Pictures as bytes, in one stream of a range coder."""
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(pictures.ravel().astype(np.int32), _bernoulli(), self.chances(pictures).ravel())
        return coder.get_compressed().tobytes()

    def decode(self, data, shape):
        """The pictures of this shape, value by value: what is decoded decides the next context."""
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, np.uint32))
        pictures, ones = np.zeros(shape, np.uint8), self.counts[1] / self.counts.sum(0)
        for picture in pictures:
            for row in range(shape[1]):
                for column in range(shape[2]):
                    context = 0
                    for up, right in self.template:
                        inside = row >= up and 0 <= column + right < shape[2]
                        context = 2 * context + (int(picture[row - up, column + right]) if inside else 0)
                    picture[row, column] = coder.decode(_bernoulli(), ones[context][None])[0]
        return pictures

    def _contexts(self, pictures):
        """The context of each value as a number: (count, rows, columns)."""
        _, rows, columns = pictures.shape
        padded = np.pad(pictures, ((0, 0), (4, 0), (4, 4))).astype(np.int32)
        contexts = np.zeros(pictures.shape, np.int32)
        for up, right in self.template:
            contexts = 2 * contexts + padded[:, 4 - up : 4 - up + rows, 4 + right : 4 + right + columns]
        return contexts


def _bernoulli():
    return constriction.stream.model.Bernoulli(perfect=False)


class Zstd:
    """zstd with a dictionary of training pictures, where the program is installed."""

    there = shutil.which("zstd") is not None

    def learn(self, pictures):
        """Make the dictionary of packed pictures, uint8 (count, rows, columns)."""
        packed = np.packbits(pictures.reshape(len(pictures), -1), axis=1)
        with tempfile.TemporaryDirectory() as folder:
            samples, self.dictionary = Path(folder, "samples"), Path(folder, "dictionary")
            samples.write_bytes(packed.tobytes())
            self._run(["--train", samples, f"-B{packed.shape[1]}", "-o", self.dictionary])
            self.data = self.dictionary.read_bytes()
        return self

    def encode(self, pictures):
        """Pictures as bytes: those of one file."""
        return self._with_dictionary(["-19", "--no-check", "-c"], np.packbits(pictures).tobytes())

    def decode(self, data, shape):
        bits = np.unpackbits(np.frombuffer(self._with_dictionary(["-d", "-c"], data), np.uint8))
        return bits[: np.prod(shape)].reshape(shape)

    def _with_dictionary(self, words, data):
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.data)
            file.flush()
            return self._run([*words, "-D", file.name], data)

    def _run(self, words, data=b""):
        return subprocess.run(["zstd", "-q", *words], input=data, capture_output=True, check=True).stdout
