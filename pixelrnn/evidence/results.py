"""The bookkeeping of evidence: results and their bounds, loss curves of other seeds, stored benchmarks.

Models and measurements know nothing of it; notebooks write into it.
"""

import json
import math
import operator
import os
import re
import time

import numpy as np

from helpers import first_below
from support.display import show_table
from support.files import DATA, LabError, NoFileError, plain, read_table, shortened, write_table


class Claims:
    """A notebook's results: for each of them this run's numbers, the bound they must meet, and baselines that miss it.

    nbval compares names and bounds with the stored ones. The numbers differ between processors in their last digits, so
    they are left out of its comparison (tests/sanitize.cfg): `check` has asserted what is said of them.

    note: the name of a notebook, whose reference curves lie in data/reference/; None: there are none.
    settings: what its numbers depend on. With other settings than those of the reference curves (a reader's own
        picture, another size), results are shown and not asserted, and curves are not compared: `asserted` is False.
    Raises LabError for reference curves that are there and cannot be read.
    """

    def __init__(self, note=None, **settings):
        self.rows, self._since, self._stored = [], time.perf_counter(), {}
        self.settings, self.path = settings, DATA / "reference" / f"{note}.csv"
        self.asserted = note is None or RECORD in os.environ
        if not self.asserted:
            self._stored = load_curves(self.path, self.settings)
            self.asserted = bool(self._stored)

    def check(self, result, this_run, must_be, **baselines):
        """Record and print a result; AssertionError if one of its numbers misses the bound, or a baseline meets it.

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
        result, this_run, must_be, baseline = in_words(row)
        print(f"{result}: {this_run}; must be {must_be}" + (f"; {baseline}" if baseline else ""))

    def reference(self, seeds, curves, every=1):
        """The loss curves of other seeds, name -> (seeds, steps), after a check that this run's keep up with them.

        Empty where they do not apply. `make reference` stores this run's curves instead. Raises LabError where the
        stored curves are of other names.
        curves: name -> a loss curve for each of `seeds`, a loss at each `every` steps.
        """
        if RECORD in os.environ:
            by_seed = {name: dict(zip(seeds, losses, strict=True)) for name, losses in curves.items()}
            save_curves(self.path, self.settings, by_seed, every)
        elif self._stored:
            if curves.keys() != self._stored.keys():
                raise LabError(f"The curves in {self.path.name} are of {', '.join(self._stored)}: `make reference`.")
            floor, reached, flat = self.settings.get("floor", 0.0), [], []
            for name, band in self._stored.items():
                own = curves[name]
                reached += [fraction_in_time(losses, band, floor=floor) for losses in own]
                flat.append(fraction_in_time([own[0][0]] * len(own[0]), band, floor=floor))
            self.check(
                "loss curves: fraction of ten thresholds reached in time", reached, "at least 0.9", never_falling=flat
            )
        return self._stored

    def table(self):
        """Display the table; the exact numbers are in the output's metadata too, for `make notebooks`."""
        cells = [in_words(row) for row in self.rows]
        show_table(("result", "this run", "must be", "baseline"), cells, metadata={"claims": self.rows})


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


def save_curves(path, settings, curves, every=1):
    """Loss curves of several seeds as CSV: a comment with the settings, then curve, step and a column for each seed.

    curves: name -> {seed: losses}, those of a name of one length, a loss at each `every` steps.

    Raises LabError, the old file untouched, for curves or settings that are not so, or a file that cannot be written.
    """
    seeds = list(next(iter(curves.values()), ()))
    rows = []
    for name, losses in curves.items():
        if set(losses) != set(seeds) or len({len(losses[seed]) for seed in seeds}) != 1:
            raise LabError(f"The curves of {name!r} must be of the seeds {seeds}, and all of one length.")
        for step, values in enumerate(zip(*(losses[seed] for seed in seeds), strict=True)):
            rows.append([name, step * every, *(f"{value:.4g}" for value in values)])
    if not rows:
        raise LabError("There are no curves to save.")
    write_table(path, settings, ["curve", "step", *(f"seed {seed}" for seed in seeds)], rows)


def load_curves(path, settings):
    """The reference curves, name -> (seeds, steps), or an empty dict (which says why) where they do not apply.

    Raises LabError for a file that is there, but cannot be read or is damaged.
    """
    try:
        stored, _, labels, numbers = read_table(path, "`make reference` makes the curves.", labels=1)
    except NoFileError as error:
        print(f"Not compared with the reference curves: {error}")
        return {}
    # As they come back from a file; what JSON does not keep is of no reference.
    settings = json.loads(json.dumps(plain(settings), default=repr))
    if stored != settings:
        changed = ", ".join(
            f"{key} is {shortened(repr(settings.get(key)))}, not {shortened(repr(stored.get(key)))}"
            for key in {**stored, **settings}
            if settings.get(key) != stored.get(key)
        )
        print(f"Not compared with the reference curves: {changed}.")
        return {}
    names = [name for (name,) in labels]
    return {name: numbers[[one == name for one in names], 1:].T for name in dict.fromkeys(names)}  # in the file's order


def load_benchmark(path):
    """What `make bench` stored: its protocol (a dict) and its table, name of a column -> numbers, numpy."""
    protocol, names, _, numbers = read_table(path, "`make bench` stores such files.")
    return protocol, dict(zip(names, numbers.T, strict=True))


def fraction_in_time(losses, reference, factor=2.0, floor=0.0):
    """How far a loss curve stays within the reference seeds: the fraction of ten loss levels reached in time.

    Losses count from `floor` times the best reference loss: 0 for a loss that falls towards 0, a little below 1 for a
    likelihood, which does not. The levels are spaced evenly in log from the first reference loss to twice the worst
    seed's best one. In time is no sooner than the earliest seed's step / factor and no later than the latest's *
    factor. Steps rather than heights, because a loss that falls a thousandfold within some steps is far off at every
    step if it starts to fall a little later.

    losses: (steps,); reference: (seeds, steps).
    """
    floor = floor * reference.min()
    losses, reference = np.asarray(losses) - floor, reference - floor
    levels = np.geomspace(np.median(reference[:, 0]), 2 * reference.min(1).max(), 11)[1:]
    in_time = 0
    for level in levels:
        arrivals = [first_below(range(reference.shape[1]), seed, level) for seed in reference]
        own = first_below(range(len(losses)), losses, level)
        in_time += own is not None and min(arrivals) / factor <= own <= max(arrivals) * factor
    return in_time / len(levels)
