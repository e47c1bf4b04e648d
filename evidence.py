"""The bookkeeping of evidence: claims and what was measured, loss curves of other seeds, stored benchmarks.

Models and measurements know nothing of it; notebooks write into it.
"""

import json
import math
import re
import time

import numpy as np

from files import LabError, NoFileError, plain, read_table, shortened, write_table
from helpers import first_below


class Claims:
    """The table of a notebook: for each claim this run's numbers, the bound they must meet, and the verdict.

    nbval compares bound, unit and verdict with the stored ones. This run's numbers differ between processors in their
    last digits, so they are asserted to meet the bound and left out of the comparison (tests/sanitize.cfg).

    asserted: False on pictures or settings that are not the note's own; a verdict that does not hold is then shown
        rather than raised.
    """

    def __init__(self, asserted=True):
        self.asserted, self.rows, self._since = asserted, [], time.perf_counter()

    def check(self, claim, holds, must_be, unit, verdict, this_run):
        """Record and print a claim; AssertionError if it does not hold.

        must_be: the bound as text, the same on every machine. this_run: the number of this run, or several (of seeds,
            of models), None among them where there is none.
        """
        values = np.ravel(np.asarray(this_run, dtype=float)).tolist()  # None becomes NaN
        values = [round(value, 6) if math.isfinite(value) else None for value in values]
        if not holds:
            if self.asserted:
                raise AssertionError(f"{claim}: must be {must_be} {unit} ({verdict}), but this run: {this_run}")
            verdict = "not on this picture"
        now = time.perf_counter()
        row = {"claim": claim, "this run": values, "must be": must_be, "unit": unit, "verdict": verdict}
        self.rows.append({**row, "seconds": round(now - self._since, 1)})
        self._since = now
        print(f"{claim}: this run {numbers(values)}; must be {must_be} {unit} -> {verdict}")

    def table(self):
        """Display the table; the exact numbers are in the output's metadata too, for `make notebooks`."""
        from IPython.display import display

        def written(cell):
            lines = ["| claim | this run | must be | unit | verdict |", "|---|---|---|---|---|"]
            for row in self.rows:
                cells = [row["claim"], numbers(row["this run"]), row["must be"], row["unit"], row["verdict"]]
                lines.append(f"| {' | '.join(cell(str(one)) for one in cells)} |")
            return "\n".join(lines)

        kinds = {"text/markdown": written(_in_markdown), "text/plain": written(str)}
        display(kinds, raw=True, metadata={"claims": self.rows})


def numbers(values):
    """Numbers of one run as text: up to three as they are, of more the smallest and the largest; "none" for None."""
    shown = ["none" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" for value in values]
    known = [value for value in values if value is not None]
    if len(set(shown)) == 1:
        return shown[0]
    if len(shown) <= 3 or not known:
        return ", ".join(shown)
    return f"{numbers([min(known)])} to {numbers([max(known)])}"


def _in_markdown(text):
    """Markdown, for a cell of a table too, that shows `text` letter by letter.

    What would be markup becomes an element of its own with the letter's number: neither Markdown nor MathJax, which
    looks for formulas in the page that Markdown has become, reads on across it. An underscore within a word is none.
    """
    markup = r"[\\`*|~<>&$]|(?<![^\W_])_|_(?![^\W_])|\](?=\()"
    text = re.sub(markup, lambda letter: f"<span>&#{ord(letter[0])};</span>", text)
    return text.replace("\n", "<br>")


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
