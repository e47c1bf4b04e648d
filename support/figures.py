"""Figures that several notes draw: maps side by side, bars, lines that are named at their ends, loss curves.

Each `show_...` displays its figure with alternative text (`alt`). `title` stands above all panels. What is shown is a
dict, name -> data, a panel or a line each; a name that is a model's has its colour.
"""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np

from support.display import show_figure
from support.plot_style import COLORS, as_it_stands, color_of, label_ends

ORANGE, GREY = "#D55E00", "#777777"


def panels(names, title="", size=(2.4, 2.4), columns=None, **subplots):
    """A figure and its axes (a list), one under each of the names; size: width and height of one, in inches."""
    names = list(names)
    columns = columns or len(names)
    rows = math.ceil(len(names) / columns)
    size = size[0] * columns, (size[1] + 0.25) * rows + (0.25 if title else 0)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **subplots)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        ax.set_title("", fontsize=10 if len(names) == 1 else 9).set(**as_it_stands(name))
    figure.suptitle("").set(**as_it_stands(title))
    return figure, list(axes.flat[: len(names)])


def show_maps(maps, title, alt, size=(2.4, 2.4), columns=None, mark=None, labels=("", ""), bar="", **imshow):
    """Arrays (rows, columns), name -> array, as pictures side by side; NaN stays white.

    mark: (row, column) that an orange frame shows. labels: of the two axes. bar: what one colour bar for all says;
    the scale is then common. imshow: cmap, vmin, vmax...
    """
    figure, axes = panels(maps, title, size, columns)
    if bar:
        every = np.concatenate([np.ravel(values) for values in maps.values()]).astype(float)
        imshow = {"vmin": np.nanmin(every), "vmax": np.nanmax(every), **imshow}
    for ax, values in zip(axes, maps.values(), strict=True):
        shown = ax.imshow(values, interpolation="nearest", **imshow)
        ax.set(xticks=[], yticks=[], xlabel=labels[0], ylabel=labels[1])
        ax.grid(False)
        if mark is not None:
            corner = mark[1] - 0.5, mark[0] - 0.5
            ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2))
    if bar:
        figure.colorbar(shown, ax=axes, label=bar, shrink=0.8)
    show_figure(alt, figure)


def show_bars(values, title, alt, ylabel, text="{:.3g}", size=(8, 3.6), levels=None, **axes):
    """Bars, name -> a number or one of each seed (a dash each, the bar their mean), the mean written above as `text`.

    text: a format, or a function from the mean to a text. levels: text -> height of a dotted line. axes: ylim...
    """
    figure, (ax,) = panels([title], size=size)
    written = text if callable(text) else text.format
    for place, (name, numbers) in enumerate(values.items()):
        numbers = np.ravel(numbers)
        ax.bar(place, numbers.mean(), color=color_of(name.replace("\n", " "), "#999999"), alpha=0.5)
        if len(numbers) > 1:
            ax.plot([place] * len(numbers), numbers, "k_", markersize=12)
        above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
        ax.annotate(written(numbers.mean()), (place, numbers.max()), **above)
    draw_levels(ax, levels)
    ax.set(xticks=range(len(values)), ylabel=ylabel)
    ax.set_xticklabels(list(values), fontsize=9)
    ax.margins(y=0.15)
    ax.grid(False, axis="x")
    ax.set(**axes)
    show_figure(alt, figure)


def show_lines(lines, title, alt, xlabel, ylabel, marker=".", size=(4.8, 3.4), levels=None, **axes):
    """Lines, panel -> {name: (x, y), y one of each seed or several}, or name -> (x, y) where there is one panel.

    Lines are named at their right ends. levels: text -> height of a dotted line, in each panel. axes: yscale, ylim...
    """
    of_panels = lines if isinstance(next(iter(lines.values())), dict) else {"": lines}
    figure, drawn = panels(of_panels, title, size)
    for ax, named in zip(drawn, of_panels.values(), strict=True):
        ends = {}
        for color, (name, (x, y)) in zip(itertools.cycle(COLORS), named.items(), strict=False):
            for one in np.atleast_2d(np.asarray(y, dtype=float)):
                (ends[name],) = ax.plot(x, one, marker=marker, color=color_of(name, color), linewidth=1)
        ax.set(xlabel=xlabel, **axes)
        draw_levels(ax, levels)
        label_ends(ax, ends)
    drawn[0].set_ylabel(ylabel)
    show_figure(alt, figure)


def show_losses(curves, title, alt, ylabel, size=(4.8, 3.4), levels=None, limits=None, **losses):
    """Loss curves, panel -> {name: losses}, or name -> losses where there is one panel; see `plot_losses`.

    levels: panel -> {text: height of a dotted line}. limits: panel -> (lowest, highest). losses: of `plot_losses`.
    """
    of_panels = curves if isinstance(next(iter(curves.values())), dict) else {"": curves}
    figure, axes = panels(of_panels, title, size)
    for ax, (panel, of_panel) in zip(axes, of_panels.items(), strict=True):
        if limits and panel in limits:
            ax.set_ylim(limits[panel])
        plot_losses(ax, of_panel, **losses)
        draw_levels(ax, (levels or {}).get(panel))
    axes[0].set_ylabel(ylabel)
    show_figure(alt, figure)


def plot_losses(ax, curves, reference=None, x=None, every=1, yscale="log"):
    """Loss curves, name -> one losses array or a list of them, over the bands of the reference seeds.

    every: training steps between two losses.
    x: name -> what the horizontal axis shows for each of the losses (default: training steps).
    """
    lines, used = {}, []
    for color, (name, losses) in zip(itertools.cycle(COLORS), curves.items(), strict=False):
        used.append(color := color_of(name, color))
        style = ("-", "--", ":")[(used.count(color) - 1) % 3]  # variants of one model
        if reference and name in reference:
            band = reference[name]
            ax.fill_between(every * np.arange(band.shape[1]), band.min(0), band.max(0), color=color, alpha=0.2)
        for run, one in enumerate(np.atleast_2d(losses)):
            across = every * np.arange(len(one)) if x is None else np.atleast_2d(x[name])[run]
            (lines[name],) = ax.plot(across, one, style, color=color, linewidth=1)
    ax.set(yscale=yscale, xlabel="training step")
    label_ends(ax, lines)


def draw_levels(ax, levels):
    """Dotted lines at some heights, text -> height, each text below its line at the right; None: there are none."""
    for text, height in (levels or {}).items():
        ax.axhline(height, color=GREY, linestyle=":", linewidth=1)
        side = {"va": "top", "ha": "right", "fontsize": 8, "color": "black"}
        ax.text(0.99, height, text, transform=ax.get_yaxis_transform(), **side)
