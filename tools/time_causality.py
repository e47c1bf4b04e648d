"""How long causality.py takes for a PixelCNN, and whether its verdicts are right: python tools/time_causality.py

A PixelCNN of 15 layers with 64 features on 28 x 28 pixels, right and with three mistakes: mask B first, a layer without
a mask, a row too many in a late layer. A right verdict is what counts; seconds are those of this machine, with what
else it does.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))  # where causality.py is

from causality import causality

LAYERS, FEATURES, PIXELS = 15, 64, 28


class MaskedConv(nn.Conv2d):
    """A convolution of odd size that sees what comes before its centre, and with `centre` the centre too."""

    def __init__(self, inputs, outputs, size, centre, rows=0, masked=True):
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + centre :] = 0
        mask[size // 2 + 1 + rows :] = 0
        self.register_buffer("mask", mask if masked else torch.ones(size, size))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


def pixelcnn(first=0, late=None):
    """A PixelCNN; first: whether the first mask has its centre; late: settings of its tenth layer."""
    layers = [MaskedConv(1, FEATURES, 7, first)]
    for number in range(1, LAYERS - 1):
        settings = late if late and number == 9 else {}
        layers += [nn.ReLU(), MaskedConv(FEATURES, FEATURES, 3, 1, **settings)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(FEATURES, 1, 1))


def main():
    """Print a line for each model; exit status 1 if a verdict is wrong."""
    torch.manual_seed(0)
    example = (torch.rand(4, 1, PIXELS, PIXELS) > 0.5).float()
    wrong = 0
    cases = {
        "right": (pixelcnn(), True),
        "mask B first": (pixelcnn(first=1), False),
        "a layer without a mask": (pixelcnn(late={"masked": False}), False),
        "a row too many": (pixelcnn(late={"rows": 1}), False),
    }
    machine = f"{torch.get_num_threads()} threads, {os.cpu_count()} cores"
    print(f"{LAYERS} layers, {FEATURES} features, {PIXELS} x {PIXELS}, {machine}")
    for name, (model, causal) in cases.items():
        start = time.perf_counter()
        result = causality(model, example)
        seconds = time.perf_counter() - start
        wrong += result.causal != causal
        verdict = "causal" if result.causal else f"leaks, first seen in layer {result.layers['evaluation']}"
        print(f"{name:24} {seconds:5.1f} s  {verdict}{'' if result.causal == causal else '  WRONG'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
