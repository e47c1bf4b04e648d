"""Loss curves and benchmarks that are stored: written, read, and compared with this run's."""

import json

import numpy as np

from helpers import first_below
from support.checks import LabError
from support.files import NoFileError, plain, read_table, shortened, write_table


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


def load_ablations(path):
    """What `python tools/ablations.py` stored: the machines of each question, and (question, run, seed) -> (seconds,
    parameters, updates, nats)."""
    protocol, _, names, numbers = read_table(path, "`python tools/ablations.py` makes it.", labels=2)
    return protocol["machines"], {
        (*name, int(seed)): (seconds, int(parameters), int(updates), nats)
        for name, (seed, seconds, parameters, updates, nats) in zip(names, numbers.tolist(), strict=True)
    }


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
