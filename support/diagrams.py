"""Drawings of networks: what the notebooks show of a model before they run it; pictures beside their errors."""

import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from support.plot_style import as_it_stands

BOX = {"boxstyle": "round,pad=0.35", "edgecolor": "black"}
FILLS = ("white", "#bcd9ec", "#f5d3ba", "white")  # input, recurrent layer, output layer, prediction
ARROW = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0}


def unrolled(ax, steps, fed_back=False):
    """A recurrent network unrolled in time: the state goes to the right.

    steps: for each step the names of its boxes, from the input upwards; "" where a box is left out.
    fed_back: dashed arrows from each prediction to the next input, as in free running.
    """
    top = len(steps[0]) - 1
    for step, names in enumerate(steps):
        for level, (name, fill) in enumerate(zip(names, FILLS, strict=False)):
            if name:
                ax.text(step, level, name, ha="center", va="center", fontsize=9, bbox={**BOX, "facecolor": fill})
            if name and level:
                ax.annotate("", (step, level - 0.3), (step, level - 0.7), arrowprops=ARROW)
        if step < len(steps) - 1:
            ax.annotate("", (step + 0.66, 1), (step + 0.34, 1), arrowprops=ARROW)
            if fed_back:
                dashed = ARROW | {"linestyle": "--", "color": "#D55E00"}
                ax.annotate("", (step + 0.8, 0.1), (step + 0.3, top - 0.1), arrowprops=dashed)
    ax.set(xlim=(-0.6, len(steps) - 0.4), ylim=(-0.4, top + 0.4))
    ax.axis("off")


def backward(ax, count):
    """Over `unrolled`, of `count` steps: the second state of a bidirectional layer, which goes to the left."""
    for step in range(1, count):
        ax.annotate("", (step - 0.66, 0.84), (step - 0.34, 0.84), arrowprops=ARROW | {"color": "#D55E00"})


def pictures_and_errors(original, pictures):
    """Pictures, name -> uint8 (rows, columns, 1 or 3), beside the original; below each its error in grey levels.

    The error of a pixel is the largest absolute difference of its channels: dark where the two are equal.
    """
    columns = 1 + len(pictures)
    figure, axes = plt.subplots(2, columns, figsize=(2.3 * columns, 5), layout="constrained")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for ax, (name, picture) in zip(axes[0], {"original": original, **pictures}.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title("", fontsize=9).set(**as_it_stands(name))
    for ax, picture in zip(axes[1, 1:], pictures.values(), strict=True):
        error = np.abs(picture.astype(int) - original.astype(int)).max(-1)  # (rows, columns)
        shown = ax.imshow(error, cmap="magma", vmin=0, vmax=255, interpolation="nearest")
    axes[1, 0].axis("off")
    inset = axes[1, 0].inset_axes((0.02, 0.5, 0.9, 0.08))
    figure.colorbar(shown, cax=inset, orientation="horizontal", ticks=(0, 128, 255))
    inset.set_title("error (grey levels)", fontsize=9)
    return figure


def animated_figure(figure, update, times, seconds=4.0):
    """A figure as an animated PNG (bytes): update(time) changes it before each frame.

    The finished frame, that of the last time, comes first and stays for two seconds: a page that shows no animation
    shows it alone. Then the frames of all times follow, in `seconds`.
    """
    images = []
    for time in (times[-1], *times):
        update(time)
        figure.savefig(file := io.BytesIO(), format="png")
        figure.set_layout_engine("none")  # stays as it is now
        images.append(Image.open(file).convert("RGB"))
    # One palette for all frames: then the file holds only what changes from one to the next.
    colors = Image.fromarray(np.concatenate([images[index] for index in (0, 1, len(images) // 2)]))
    palette = colors.quantize(256, Image.Quantize.FASTOCTREE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    plt.close(figure)
    durations = [2000] + [int(1000 * seconds / len(times))] * len(times)
    images[0].save(file := io.BytesIO(), "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return file.getvalue()


def masked_row(ax, places):
    """The joint head along a row: which place of a layer sees which of the layer below.

    Values enter only the places to their right; in all other layers a place sees those to its left and itself.
    """
    names = ("values", "places", "hidden", "logits")
    for level, name in enumerate(names):
        ax.text(-0.6, level, name, ha="right", va="center", fontsize=9)
        for place in range(places):
            fill = FILLS[0] if level in (0, len(names) - 1) else FILLS[1]
            text = f"x{place + 1}" if level == 0 else f"p(x{place + 1})" if level == len(names) - 1 else ""
            ax.text(place, level, text.center(5), ha="center", va="center", fontsize=9, bbox={**BOX, "facecolor": fill})
            for seen in range(place + (level > 1) if level else 0):
                ax.annotate("", (place, level - 0.22), (seen, level - 0.78), arrowprops=ARROW | {"color": "#777777"})
    ax.set(xlim=(-1.4, places - 0.5), ylim=(-0.4, len(names) - 0.6))
    ax.axis("off")
