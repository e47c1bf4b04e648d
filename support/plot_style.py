"""The look of the plots: their style, the colour and name of each model, and the names that people give their pictures,
shown letter by letter, whatever letters they are."""

import itertools
import warnings

import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np

from support.checks import LabError
from support.files import as_path

# Letters that Matplotlib's own font lacks come from one of these, where it is installed; else a box stands for each.
FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Droid Sans Fallback")  # Linux
FONTS += ("Hiragino Sans", "Heiti TC", "Apple SD Gothic Neo", "Arial Unicode MS")  # macOS
FONTS += ("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Leelawadee UI", "Nirmala UI")  # Windows
INSTALLED = [font for font in FONTS if font in matplotlib.font_manager.get_font_names()]
plt.rcParams["font.family"] = ["sans-serif", *INSTALLED]
warnings.filterwarnings("ignore", message="Glyph [0-9]+ ")


def named(sources):
    """Pictures by name, name -> source: of files, the name without folder and ending; of two alike, one is numbered.

    sources: the path or the bundled name of a picture, or several. Raises LabError where there is none.
    """
    sources = list(sources) if np.iterable(sources) and not isinstance(sources, str) else [sources]
    if not sources:
        raise LabError("There is no picture to learn from. Give the path of one, or a bundled name.")
    names = {}
    for source in sources:
        stem = as_path(source, "A picture").stem
        alike = (f"{stem} ({number})" for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], alike) if name not in names)] = source
    return names


def as_it_stands(name):
    """A Text's properties that show a name letter by letter, in which Matplotlib would otherwise look for formulas.

    What stands in a file's name for bytes that are no letters cannot be shown, and becomes a question mark.
    """
    return {"text": str(name).encode("utf-8", "replace").decode("utf-8"), "parse_math": False}


# Okabe and Ito's palette, distinguished by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "image.cmap": "cividis"})
plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False})
# The same model has the same colour in all notes, and what is not trained is grey; a name is found by how it begins.
MODELS = {
    "categorical": "#0072B2",
    "regression": "#D55E00",
    "seq2seq": "#0072B2",
    "seq2vec": "#CC79A7",
    "article": "#0072B2",
    "independent row": "#0072B2",
    "independent head": "#0072B2",
    "joint": "#009E73",
    "left masked": "#E69F00",
    "pixel LSTM": "#56B4E9",
    "Row LSTM": "#D55E00",
    "Diagonal BiLSTM": "#CC79A7",
    "MADE": "#E69F00",
    "PixelCNN": "#000000",
    "Gated PixelCNN": "#8B4513",
    "softmax": "#0072B2",
    "logistics": "#D55E00",
    "copies": "#009E73",
    "differences": "#CC79A7",
    "clean": "#0072B2",
    "noisy": "#E69F00",
    "untrained": "#777777",
    "copying": "#777777",
}


def color_of(name, default=COLORS[0]):
    """The colour of a model in every plot of the series, by how its name begins; `default` for another name."""
    return next((color for begin, color in MODELS.items() if name.startswith(begin)), default)


def label_ends(ax, lines, fontsize=8):
    """Name lines at their right ends, name -> a Line2D, in place of a legend; names too close are moved apart.

    A very long name takes no room from the axes.
    """
    if not lines:
        return
    from scipy.optimize import isotonic_regression  # here, since its import takes as long as matplotlib's

    ax.figure.canvas.draw()  # only then are the limits final
    height = 1.5 * fontsize * ax.figure.dpi / 72 / ax.bbox.height  # of a name, as a fraction of the axes
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = {name: to_axes.transform((line.get_xdata()[-1], line.get_ydata()[-1]))[1] for name, line in lines.items()}
    ends = dict(sorted(ends.items(), key=lambda one: one[1]))
    steps = height * np.arange(len(ends))
    # Moved as little as can be (least squares), in their order, a name's height apart, and none above the axes.
    moved = isotonic_regression(np.nan_to_num(list(ends.values())) - steps).x
    places = steps + np.clip(moved, 0, 1 - steps[-1])
    for name, place in zip(ends, places, strict=True):
        text = ax.text(1.02, place, "", transform=ax.transAxes, va="center", fontsize=fontsize)
        text.set(color=lines[name].get_color(), in_layout=len(str(name)) < 40, **as_it_stands(name))
