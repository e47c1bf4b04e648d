"""Drawings of networks: what the notebooks show of a model before they run it; pictures beside their errors."""

import io
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from PIL import Image

from support.display import show_figure, show_png
from support.plot_style import as_it_stands, color_of

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


def pictures_and_errors(original, pictures, alt):
    """Display pictures, name -> uint8 (rows, columns, 1 or 3), beside the original; below each its grey-level error.

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
    show_figure(alt, figure)


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
    """The joint head along a row: which column of a layer sees which of the layer below.

    Values enter only the columns to their right; in all other layers a column sees those to its left and itself. The
    state of the rows above enters every column.
    """
    names = ("values $x$", "$a$, from the values\nand the state $h$", "$a$ + masked layer\n(twice)", "logits $z$")
    for level, name in enumerate(names):
        ax.text(-0.5, level, name, ha="right", va="center", fontsize=9)
        for place in range(places):
            fill = FILLS[0] if level in (0, len(names) - 1) else FILLS[1]
            text = f"x{place + 1}" if level == 0 else f"z{place + 1}" if level == len(names) - 1 else ""
            ax.text(place, level, text.center(5), ha="center", va="center", fontsize=9, bbox={**BOX, "facecolor": fill})
            for seen in range(place + (level > 1) if level else 0):
                ax.annotate("", (place, level - 0.22), (seen, level - 0.78), arrowprops=ARROW | {"color": "#777777"})
    ax.set(xlim=(-2.2, places - 0.5), ylim=(-0.4, len(names) - 0.6))
    ax.axis("off")


def last_output_or_all(alt, bidirectional=False):
    """Display seq2vec, which has a prediction at the last of four rows, beside seq2seq, which has one at each of them.

    bidirectional: with the second state, which goes to the left, in orange, and what follows from it in the titles.
    """
    seq2seq = [(f"row {t}", "LSTM", "head", f"row {t + 1}") for t in (1, 2, 3, 4)]
    seq2vec = [(row, "LSTM", "", "") for row, *_ in seq2seq[:-1]] + seq2seq[-1:]
    ends = (", bidirectional: causal", ", bidirectional: target leakage") if bidirectional else (": y[:, -1, :]", ": y")
    networks = {f"seq2vec{ends[0]}": (seq2vec, False), f"seq2seq{ends[1]}": (seq2seq, False)}
    networks_unrolled(networks, alt, bidirectional)


def field_maps(fields, title, alt):
    """Display which rows of the picture each prediction depends on, name -> bool (predicted row, row of the picture).

    Dark where it does. The diagonal, a prediction's own row, is orange; rows are counted from 1.
    """
    figure, axes = plt.subplots(1, len(fields), figsize=(3 * len(fields), 4), sharey=True, layout="constrained")
    for ax, (name, field) in zip(axes, fields.items(), strict=True):
        rows = len(field)
        ax.imshow(field, cmap="Blues", vmin=0, vmax=1.3, extent=(0.5, rows + 0.5, rows + 0.5, 0.5))
        ax.plot([1, rows], [1, rows], color="#D55E00", linewidth=1)
        leaks = np.triu(field).any()
        ax.set(title=f"{name}\n{'target leakage' if leaks else 'causal'}", xlabel="row of the picture")
        ax.grid(False)
    axes[0].set_ylabel("predicted row")
    figure.suptitle(title)
    show_figure(alt, figure)


def raster_order(picture, place, alt):
    """Display a binary picture (rows, columns), and beside it the numbers of its pixels in raster order.

    The pixels before number `place` are light grey, that pixel itself dark.
    """
    numbers = 1 + np.arange(picture.size).reshape(picture.shape)
    shades = np.where(numbers < place, 0.75, np.where(numbers == place, 0.35, 1))
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), layout="constrained")
    axes[0].imshow(picture, cmap="gray")
    axes[0].set_title(f"A digit, {' x '.join(map(str, picture.shape))}, binary")
    axes[1].imshow(shades, cmap="gray", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(numbers):
        axes[1].text(column, row, number, ha="center", va="center", fontsize=8)
    axes[1].set_title(f"Raster order: value {place} may see values 1 to {place - 1}")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    show_figure(alt, figure)


def skewing(rows, columns, alt):
    """Display an animation: each row of a picture shifts right by its number; then the diagonals, which have become
    columns, are computed one after another (blue)."""
    figure, ax = plt.subplots(figsize=(6.2, 2.9), layout="constrained")

    def update(time):
        """Rows shift right until time 1; then the diagonals are computed, the last at time 2."""
        ax.clear()
        for row, column in np.ndindex(rows, columns):
            across = column + row * min(time, 1)
            done = column + row < round((time - 1) * (rows + columns - 1))
            color = "#bcd9ec" if done else "white"
            ax.add_patch(plt.Rectangle((across, row), 0.9, 0.9, facecolor=color, edgecolor="black"))
            ax.text(across + 0.45, row + 0.45, f"{row},{column}", ha="center", va="center", fontsize=8)
        ax.set(xlim=(-0.1, rows + columns - 0.9), ylim=(rows, -0.1))
        ax.set_title("Skewed rows: a column holds one diagonal (blue: computed so far)")
        ax.axis("off")

    times = [*np.linspace(0, 1, 6), *(1 + np.arange(1, rows + columns) / (rows + columns - 1))]
    show_png(animated_figure(figure, update, times), alt)


def dependence(matrices, title, alt):
    """Display which prediction (a row) depends on which value (a column), name -> bool (values, values).

    Blue: on a value before it, left of the diagonal. Orange: on its own value or on a later one, a leak.
    """
    shades = ListedColormap(["white", "#bcd9ec", "#D55E00"])
    figure, axes = plt.subplots(1, len(matrices), figsize=(2.3 * len(matrices), 3), layout="constrained")
    for ax, (name, depends) in zip(axes, matrices.items(), strict=True):
        leaks, ends = np.triu(depends), [-0.5, len(depends) - 0.5]
        ax.imshow(np.where(leaks, 2, depends), cmap=shades, vmin=0, vmax=2)
        ax.plot(ends, ends, color="black", linewidth=0.8)
        ax.set_title(f"{name}\n{leaks.sum()} leaks", fontsize=8)
        ax.set(xticks=[], yticks=[], xlabel="value", ylabel="prediction")
        ax.grid(False)
    figure.suptitle(title)
    show_figure(alt, figure)


def two_measures(networks, measures, title, alt, xlabel, levels, near):
    """Display two measures of networks, name -> (one of each seed, the other of each seed), on two scales.

    measures: what the hollow and the filled points are. levels: text -> a number, dotted lines. near: (lowest, highest)
    of the second, linear scale.
    """
    size = 9, 1.1 + 0.42 * len(networks)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for ax in axes:
        for place, both in enumerate(networks.values()):
            ax.plot([np.mean(of) for of in both], [place, place], color="lightgrey", linewidth=1, zorder=1)
            for values, fill in zip(both, ("none", "#D55E00"), strict=True):
                ax.plot(values, [place] * len(values), "o", color="#D55E00", markerfacecolor=fill, markersize=7)
        for text, value in levels.items():
            ax.axvline(value, color="black", linestyle=":", linewidth=0.8)
            ax.annotate(text, (value, -0.45), (4, 0), textcoords="offset points", fontsize=8, va="bottom")
        ax.set(xlabel=xlabel, yticks=range(len(networks)), yticklabels=list(networks))
        ax.set(ylim=(len(networks) - 0.5, -0.9))
    axes[0].set(xscale="log")
    axes[0].set_title("all, on a logarithmic scale", fontsize=9)
    axes[1].set(xlim=near)
    axes[1].set_title(f"from {near[0]} to {near[1]} nats", fontsize=9)
    for measure, fill in zip(measures, ("none", "#D55E00"), strict=True):
        axes[0].plot([], [], "o", color="#D55E00", markerfacecolor=fill, label=measure)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title)
    show_figure(alt, figure)


def colour_masks(masks, title, alt):
    """Display masks of the colours of one pixel, name -> (3 outputs, 3 inputs): blue where a row's colour sees."""
    figure, axes = plt.subplots(1, len(masks), figsize=(2.2 * len(masks), 2.3), layout="constrained")
    for ax, (name, mask) in zip(axes, masks.items(), strict=True):
        ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.6)
        ax.set_title(name, fontsize=9)
        ax.set(xticks=range(3), xticklabels="RGB", xlabel="is seen", yticks=range(3), yticklabels="RGB", ylabel="sees")
        ax.grid(False)
    figure.suptitle(title)
    show_figure(alt, figure)


def receptive_fields(fields, analytic, mark, alt, least=-8, crossed=None):
    """Display how much one prediction depends on each value, name -> gradient (rows, columns), all on one scale.

    analytic: name -> bool (rows, columns), outlined. mark: (row, column) of the value that is predicted, in orange.
    crossed: name -> bool (rows, columns), where a cross stands; for some of the names.
    The scale: log10 of the gradient, relative to the largest of the model; all below `least` looks the same.
    """
    figure, axes = plt.subplots(2, math.ceil(len(fields) / 2), figsize=(11, 4.4), layout="constrained")
    for ax, (name, field) in zip(axes.flat, fields.items(), strict=True):
        rows, columns = field.shape
        relative = np.where(field > 0, np.log10(np.maximum(field / field.max(), 1e-30)), np.nan)
        shown = ax.imshow(relative, vmin=least, vmax=0, interpolation="nearest")
        fine = np.kron(np.pad(analytic[name], 1), np.ones((9, 9)))  # so that the line follows squares
        extent = (-1.5, columns + 0.5, -1.5, rows + 0.5)
        ax.contour(fine, [0.5], colors="black", linewidths=1, extent=extent)
        corner = mark[1] - 0.5, mark[0] - 0.5
        ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2))
        if crossed and name in crossed:
            up, right = np.nonzero(crossed[name])
            ax.plot(right, up, "x", color="black", markersize=4)
        ax.set_title(f"{name}: {(field > 0).sum()} values", fontsize=9)
        ax.set(xticks=[], yticks=[], xlim=(-0.7, columns - 0.3), ylim=(rows - 0.3, -0.7))
        ax.grid(False)
    figure.suptitle("What the prediction of the orange value depends on (black line: the analytic receptive field)")
    bar = figure.colorbar(shown, ax=axes, extend="min", shrink=0.8)
    bar.set_label("log10 of the gradient,\nrelative to the model's largest")
    show_figure(alt, figure)


def end_points(of_panels, alt, xlabel, hollow=None, levels=None, width=7.0):
    """Display where models ended, panel -> {name: nats of each seed}: a point a seed, the lowest mean on top.

    The means stand at the right. hollow: panel -> {name: a number}, hollow points in the same rows. levels: panel ->
    {text: a number}, dotted lines.
    """
    height = 1.1 + 0.34 * max(map(len, of_panels.values()))
    figure, axes = plt.subplots(1, len(of_panels), figsize=(width, height), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(wspace=0.12)  # room for the means
    for ax, (panel, ends) in zip(axes[0], of_panels.items(), strict=True):
        ranking = sorted(ends, key=lambda name: np.mean(ends[name]))
        for place, name in enumerate(ranking):
            color, values = color_of(name), np.ravel(ends[name])
            ax.plot(values, [place] * len(values), "o", color=color, markersize=5)
            if hollow:
                ax.plot(hollow[panel][name], place, "s", color=color, markerfacecolor="none", markersize=7)
            beside = {"transform": ax.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 9}
            ax.text(1.13, place, f"{values.mean():.2f}", **beside)
        ax.text(1.13, -0.75, "mean", **beside)
        for text, value in (levels or {}).get(panel, {}).items():
            ax.axvline(value, color="black", linestyle=":", linewidth=0.8)
            ax.annotate(text, (value, len(ranking) - 0.6), (-4, 0), textcoords="offset points", fontsize=8, ha="right")
        ax.set(yticks=range(len(ranking)), yticklabels=ranking, ylim=(len(ranking) - 0.4, -0.6), xlabel=xlabel)
        ax.set_title(panel, fontsize=10)
    show_figure(alt, figure)


def networks_unrolled(networks, alt, bidirectional=False):
    """Display recurrent networks unrolled in time, title -> (steps, fed_back) as of `unrolled`, side by side.

    bidirectional: with the second state, which goes to the left, in orange.
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(9 if len(networks) == 1 else 10, 3.4), squeeze=False)
    for ax, (title, (steps, fed_back)) in zip(axes[0], networks.items(), strict=True):
        unrolled(ax, steps, fed_back)
        if bidirectional:
            backward(ax, len(steps))
        ax.set_title(title)
    show_figure(alt, figure)


def after_one_wrong_pixel(original, continued, wrong_at):
    """How a picture goes on after one wrong pixel, name -> continuation, as an animated PNG (bytes), side by side.

    original: uint8 (rows, columns, 1). continued: pictures of that shape, equal to it up to the pixel `wrong_at`, in
    raster order. Pixels that are wrong become orange, those to come are blue; a circle marks the first wrong one.
    """
    figure, axes = plt.subplots(1, len(continued), figsize=(3.2 * len(continued), 4.1), layout="constrained")
    figure.suptitle("After one wrong pixel (circled). Orange: wrong; blue: still to come")
    row, column = divmod(wrong_at, original.shape[1])

    def colored(picture, done):
        colors = np.repeat(picture.reshape(-1, 1), 3, axis=1).astype(float)  # (steps, 3)
        errors = picture.ravel() != original.ravel()
        colors[errors] = 0.3 * colors[errors] + 0.7 * np.array([230, 159, 0])
        colors[done:] = 86, 180, 233
        return colors.astype(np.uint8).reshape(*original.shape[:2], 3)

    shown = {}
    for ax, (name, picture) in zip(axes, continued.items(), strict=True):
        ax.set(xticks=[], yticks=[])
        ax.set_title("").set(**as_it_stands(name))
        ax.grid(False)
        shown[name] = ax.imshow(colored(picture, picture.size))
        ax.plot(column, row, "o", ms=12, mfc="none", mec="black", mew=2, clip_on=False)

    def update(done):
        for name, image in shown.items():
            image.set_data(colored(continued[name], done))

    return animated_figure(figure, update, np.linspace(wrong_at + 1, original.size, 33).round().astype(int))


def cached_sampling(alt, side=8, row=4, place=3):
    """Display what is computed for one value of a picture (side, side), that at `row` and `place`: naively, and where
    the state of the LSTM and the layers of the head are kept."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
    order, value = np.arange(side * side).reshape(side, side), row * side + place
    kept = np.where(order < row * side, 1, np.where(order < value, 4, 0)) + 3 * (order == value)
    colors = plt.matplotlib.colors.ListedColormap(["white", "#bcd9ec", "#f5d3ba", "#D55E00", "#b9dfb0"])
    for ax, image in zip(axes, (np.where(order == value, 3, 2), kept), strict=True):
        ax.imshow(image, cmap=colors, vmin=0, vmax=4)
        ax.set(xticks=np.arange(0.5, side - 1), yticks=np.arange(0.5, side - 1))
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        ax.text(place, row, "?", ha="center", va="center", color="white", weight="bold")
    texts = [(0, 1.5, f"computed:\nall {side * side}, of which\none is used")]
    texts += [(1, 1.5, "rows above: kept,\nthe state of the LSTM")]
    texts += [(1, row + 1, "green, to the left: kept, layers of the head"), (1, row + 2.5, "not computed")]
    for panel, height, text in texts:
        axes[panel].text((side - 1) / 2, height, text, ha="center", va="center")
    axes[0].set_title("naive: the whole picture for a value")
    axes[1].set_title("cached: one place for a value")
    show_figure(alt, figure)


def picture_rows(rows, title, alt, above=None, size=0.95):
    """Display rows of pictures, name -> pictures (rows, columns) or (rows, columns, 3), each row beside its name.

    above: what stands above the pictures: a text for each of a row's, name -> texts; a row may have none. size: of a
    picture, in inches.
    """
    columns = max(map(len, rows.values()))
    shape = size * columns + 0.5, (size + (0.2 if above else 0)) * len(rows) + 0.5
    figure, axes = plt.subplots(len(rows), columns, figsize=shape, squeeze=False, layout="constrained")
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture, text in itertools.zip_longest(line, pictures, (above or {}).get(name, ())):
            ax.imshow(picture, cmap="gray", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color="lightgrey")
            ax.grid(False)
            ax.set_title(text or "", fontsize=9)
        line[0].set_ylabel(name, fontsize=10)
    figure.suptitle(title)
    show_figure(alt, figure)


def intervals(values, ones, first, alt):
    """Display how an interval shrinks: a line for each of some values (0 or 1), cut by P(1), `ones`; the part of the
    true value is the whole of the next line. first: the number of the first of them in its picture."""
    figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for row, (value, one) in enumerate(zip(values, ones, strict=True)):
        parts = [(0, 1 - one, "0"), (1 - one, one, "1")]  # where it begins, its length, whose it is
        for begin, length, name in parts:
            color = "#009E73" if float(name) == value else "#dddddd"
            ax.barh(-row, length, 0.5, begin, color=color, edgecolor="white")
            if length > 0.05:
                ax.text(begin + length / 2, -row, name, ha="center", va="center")
        begin, length = parts[int(value)][:2]
        if row < len(values) - 1:
            ends = [[begin, begin + length], [0, 1]]
            ax.plot(ends, [-row - 0.25, -row - 0.75], color="#009E73", linewidth=0.8)
        ax.text(1.02, -row, f"p = {length:.3f}, {-np.log2(length):.2f} bits", va="center", fontsize=9)
    names = [f"value {first + row}" for row in range(len(values))]
    ax.set(yticks=-np.arange(len(values)), yticklabels=names, xlim=(0, 1))
    ax.set_title("Green: the part of the true value, which is the whole of the next line")
    ax.grid(False)
    show_figure(alt, figure)


def code_lengths(pictures, bits, title, alt):
    """Display the code length of each value, bits (count, rows, columns), as heat maps on one scale, with the outline
    of the ink of the pictures, of the same shape."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(3 * len(pictures), 3.4), layout="constrained")
    for ax, picture, costs in zip(axes, pictures, bits, strict=True):
        image = ax.imshow(costs, cmap="magma", vmin=0, vmax=float(bits.max()), interpolation="nearest")
        ax.contour(picture, [0.5], colors="white", linewidths=0.7)
        ax.set(xticks=[], yticks=[], title=f"{costs.sum():.0f} bits")
        ax.grid(False)
    figure.colorbar(image, ax=axes, label="bits of the value", shrink=0.9)
    figure.suptitle(title)
    show_figure(alt, figure)
