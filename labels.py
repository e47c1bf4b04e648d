"""Names that people give their pictures, shown in plots letter by letter, whatever letters they are."""

import itertools
import warnings

import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np

from files import LabError, as_path

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


def legend(ax, names, **options):
    """A legend of `names`, name -> what was plotted, as they stand: also one that begins with an underscore, which
    Matplotlib would leave out. However long a name is, it takes no room from the axes."""
    box = ax.legend(names.values(), map(str, range(len(names))), **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set(**as_it_stands(name))
    box.set_in_layout(False)
    return box
