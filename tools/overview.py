"""Makes the README's pictures: labnotes/overview.png, and for each note a small one, labnotes/NN.png.

    python tools/overview.py

The wide picture is computed anew, in about a minute: a picture restored by an untrained network (note 4), letters and
digits sampled from the stored weights (note 8), and the stored benchmark (note 7). The small ones are plots that the
notebooks carry.
"""

import base64
import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import helpers
from helpers import GenModel
from pixelrnn.evidence import stored_curves
from pixelrnn.models import configs, weights
from support import files
from support.plot_style import color_of

NOTES = ROOT / "labnotes"
THUMBNAILS = {
    1: "parting",
    2: "blurred",
    3: "field-maps",
    4: "noise-pictures",
    5: "alphabet",
    6: "field",
    7: "mnist-figure",
    8: "completions",
    9: "where",
}
WIDTH = 480  # pixels of a small picture


def restored(size=512):
    """The astronaut, sampled by an untrained LSTM after one least-squares solve (uint8), and whether it is exact."""
    picture = helpers.load_picture("astronaut", size)
    bits = helpers.to_batch(helpers.to_bit_planes(helpers.flatten(picture)), levels=2)
    torch.manual_seed(0)
    model = GenModel(bits.shape[-1], size)
    helpers.fit_readout(model, bits)
    sampled = helpers.sample(model, size)[0]
    written = helpers.unflatten(helpers.from_bit_planes(helpers.to_levels(sampled, 2)[0]), picture.shape)
    return written, bool((sampled == bits).all())


def sampled(name, count=36, columns=6):
    """Pictures sampled from stored weights, in one."""
    model, _ = weights.load(name)
    torch.manual_seed(0)
    return helpers.sheet(model.sample(count), columns)


def benchmark():
    """Nats per test image of each model of the stored benchmark, by the name that plots use."""
    found = {}
    for name in configs.BENCHMARK:
        _, table = stored_curves.load_benchmark(files.DATA / "benchmarks" / f"mnist_{name}_dynamic_150s.csv")
        found[configs.NAMES[name]] = np.mean(
            [table["nats"][table["seed"] == seed][-1] for seed in np.unique(table["seed"])]
        )
    return dict(sorted(found.items(), key=lambda item: item[1]))


def wide():
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3), width_ratios=(1, 1, 1, 1.5), layout="constrained")
    picture, exact = restored()
    assert exact
    shown = {
        "Written by a random LSTM\nwith a fitted readout": picture,
        "Letters that nobody wrote:\nsamples": sampled("letters"),
        "Digits that nobody wrote:\nsamples": sampled("digits"),
    }
    for ax, (title, image) in zip(axes, shown.items(), strict=False):
        image = image[..., 0] if image.shape[-1] == 1 else image
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title, fontsize=12)
        ax.axis("off")
    nats = benchmark()
    colors = [color_of(name, "#777777") for name in nats]
    axes[3].scatter(list(nats.values()), list(nats), color=colors, zorder=3)
    for name, value in nats.items():
        axes[3].annotate(f"{value:.1f}", (value, name), (7, 0), textcoords="offset points", va="center", fontsize=9)
    axes[3].set(xlim=(75, 165), xlabel="nats per test image (lower is better)")
    axes[3].invert_yaxis()
    axes[3].set_title("MNIST after 150 s of training\non two CPU cores", fontsize=12, loc="right")
    figure.savefig(NOTES / "overview.png", dpi=100)


def small():
    for number, cell_id in THUMBNAILS.items():
        (path,) = (ROOT / "notebooks").glob(f"{number:02}_*.ipynb")
        (cell,) = [cell for cell in nbformat.read(path, as_version=4).cells if cell.id == cell_id]
        plot = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
        image = Image.open(io.BytesIO(base64.b64decode(plot))).convert("RGB")
        image.thumbnail((WIDTH, WIDTH))
        image.quantize(64).save(NOTES / f"{number:02}.png", optimize=True)


if __name__ == "__main__":
    small()
    wide()
