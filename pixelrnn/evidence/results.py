"""A notebook's results: numbers, the bounds that they must meet, and baselines that miss these.

Models and measurements know nothing of it; notebooks write into it.
"""

import math
import operator
import os
import re
import time

import numpy as np

from pixelrnn.evidence.stored_curves import fraction_in_time, load_curves, save_curves
from support.checks import LabError
from support.display import show_markdown, show_table
from support.files import DATA


class Claims:
    """A notebook's results: for each of them this run's numbers, the bound they must meet, and baselines that miss it.

    nbval compares names and bounds with the stored ones. The numbers differ between processors in their last digits, so
    they are left out of its comparison (tests/sanitize.cfg): `check` has asserted what is said of them.

    note: the name of a notebook, whose reference curves lie in data/reference/; None: there are none.
    reference: the loss curves of other seeds, name -> (seeds, steps); empty where they do not apply.
    settings: what its numbers depend on. With other settings than those of the reference curves (a reader's own
        picture, another size), results are shown and not asserted, and curves are not compared: `asserted` is False.
    Raises LabError for reference curves that are there and cannot be read.
    """

    def __init__(self, note=None, **settings):
        self.rows, self._since, self.reference = [], time.perf_counter(), {}
        self.settings, self.path = settings, DATA / "reference" / f"{note}.csv"
        self.asserted = note is None or RECORD in os.environ
        if not self.asserted:
            self.reference = load_curves(self.path, self.settings)
            self.asserted = bool(self.reference)

    def check(self, result, this_run, must_be, **baselines):
        """Record a result; AssertionError if one of its numbers misses the bound, or a baseline meets it.

        this_run: a number or several (of seeds, of models), each of which must meet the bound; None never does.
        must_be: the bound, then its unit: "under 0.05 of the pixels", "at most 50 steps", "0.8 to 1.2 times", "9 runs"
            (exactly). The words are those of BOUNDS.
        baselines: name, with _ for a space -> number or several; each must miss the bound, else the bound says nothing.
        """
        meets = _bound(must_be)
        row = {"result": result, "this run": _listed(this_run), "must be": must_be}
        row["baseline"] = {name.replace("_", " "): _listed(values) for name, values in baselines.items()}
        holds = bool(row["this run"]) and all(map(meets, row["this run"]))
        wrong = [] if holds else [f"this run: {numbers(row['this run'])}"]
        wrong += [
            f"the baseline meets it too: {name} {numbers(values)}"
            for name, values in row["baseline"].items()
            if not values or any(map(meets, values))
        ]
        if wrong and self.asserted:
            raise AssertionError(f"{result}: must be {must_be}, but {'; '.join(wrong)}")
        row["must be"] += " (not so here)" if wrong else ""
        now = time.perf_counter()
        self.rows.append({**row, "seconds": round(now - self._since, 1)})
        self._since = now

    def compare(self, seeds, curves, every=1):
        """Check that this run's loss curves fall as fast as the reference curves, where these apply.

        `make reference` stores this run's curves instead. Raises LabError where the stored curves are of other names.
        curves: name -> a loss curve for each of `seeds`, a loss at each `every` steps.
        """
        if RECORD in os.environ:
            by_seed = {name: dict(zip(seeds, losses, strict=True)) for name, losses in curves.items()}
            save_curves(self.path, self.settings, by_seed, every)
        elif self.reference:
            if curves.keys() != self.reference.keys():
                raise LabError(f"The curves in {self.path.name} are of {', '.join(self.reference)}: `make reference`.")
            floor, reached, flat = self.settings.get("floor", 0.0), [], []
            for name, band in self.reference.items():
                own = curves[name]
                reached += [fraction_in_time(losses, band, floor=floor) for losses in own]
                flat.append(fraction_in_time([own[0][0]] * len(own[0]), band, floor=floor))
            in_time, flat = (sum(one >= 0.9 for one in fractions) for fractions in (reached, flat))
            name = "loss curves that fall as fast as those of the reference seeds"
            self.check(name, in_time, f"{len(reached)} of {len(reached)} curves", never_falling=flat)

    def table(self):
        """Display all that was checked; the exact numbers are in the output's metadata too, for `make notebooks`."""
        cells = [in_words(row) for row in self.rows]
        show_table(("result", "this run", "must be", "baseline"), cells, metadata={"claims": self.rows})


def show_results(*rows):
    """Display the results that a reader takes away: a sentence, what was measured, what chance or a simple rule gives.

    What was measured stands in bold, by which nbval knows that it is not to be compared (tests/sanitize.cfg).
    """
    cells = [(sentence, f"**{measured}**", compared) for sentence, measured, compared in rows]
    lines = [
        "| result | measured | for comparison |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
    show_markdown("\n".join(lines), {"results": [list(row) for row in rows]})


def span(values, digits=0, unit=""):
    """The smallest and the largest of a number or several as text, "98 to 101 nats"; None counts as none."""
    known = [value for value in np.ravel(np.asarray(values, dtype=float)) if math.isfinite(value)]
    if not known:
        return "none"
    return " to ".join(dict.fromkeys(f"{edge:,.{digits}f}" for edge in (min(known), max(known)))) + unit


def percent(fractions, digits=0):
    """The smallest and the largest of a fraction or several as text, "80% to 93%"; None counts as none."""
    return span(100 * np.asarray(fractions, dtype=float), digits, "%").replace(" to ", "% to ")


RECORD = "PIXELRNN_RECORD"  # `make reference` sets this environment variable
BOUNDS = {"under": operator.lt, "over": operator.gt, "at most": operator.le, "at least": operator.ge, "": operator.eq}


def _bound(text):
    """Whether a number meets a bound such as "under 0.05 of the pixels", as a function; LabError if it is none."""
    number = r"(-?\d[\d,]*(?:\.\d+)?)"
    found = re.match(rf"(?:({'|'.join(filter(None, BOUNDS))}) )?{number}(?: to {number})?(?= |$)", text)
    if not found or (found[1] and found[3]):
        raise LabError(f'A bound is written as "under 0.05 of the pixels" or "0.8 to 1.2", not as {text!r}.')
    low, high = (float(value.replace(",", "")) if value else None for value in found.groups()[1:])
    if high is None:
        return lambda value: value is not None and BOUNDS[found[1] or ""](value, low)
    return lambda value: value is not None and low <= value <= high


def _listed(values):
    """A number or several as a list of floats, None for what is not there."""
    values = np.ravel(np.asarray(values, dtype=float)).tolist()  # None becomes NaN
    return [float(f"{value:.9g}") if math.isfinite(value) else None for value in values]


def in_words(row):
    """A row of a table of results as text: result, this run, must be, baseline."""
    baselines = [f"{name} {numbers(values)}" for name, values in row["baseline"].items()]
    return row["result"], numbers(row["this run"]), row["must be"], "; ".join(baselines)


def numbers(values):
    """Numbers of one run as text: up to three as they are, of more the smallest and the largest; "none" for None."""
    shown = ["none" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" for value in values]
    known = [value for value in values if value is not None]
    if len(set(shown)) == 1:
        return shown[0]
    if len(shown) <= 3 or not known:
        return ", ".join(shown)
    text = " to ".join(dict.fromkeys(numbers([one]) for one in (min(known), max(known))))
    return text if len(known) == len(values) else f"{text}, or none"
