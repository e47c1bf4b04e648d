"""The tables of labnotes/benchmarks.md, made of the stored runs in data/benchmarks/.

`python tools/leaderboard.py` writes them anew between the page's two marks, the lowest nats first. Nothing is trained.
"""

import itertools
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where the modules are
from pixelrnn.evidence import errors, stored_curves
from pixelrnn.models import configs

STORED = ROOT / "data" / "benchmarks"
PAGE = ROOT / "labnotes" / "benchmarks.md"
BEGIN, END = "<!-- tables of tools/leaderboard.py -->\n", "<!-- end of the tables -->\n"
KINDS = ("compared", "runs", "mixtures")  # of tables: of networks whose nats are known for each picture, or not
HEADS = {
    "compared": ("place", "nats per image", "below the next", "model", "standard error", "of seeds", "parameters"),
    "runs": ("nats per image", "model", "standard error", "lowest to highest seed", "machine"),
    "mixtures": (
        "nats per image",
        "networks that are mixed",
        "standard error",
        "each alone",
        "core-minutes",
        "machine",
    ),
}
NAMES_OF_SIZES = {"last": "features in the last layers"}  # where the stored word does not say it
DATA = {"mnist": "MNIST", "letters": "letters", "digits": "digits of scikit-learn"}
APART = 2  # standard errors by which two models differ that have different places


@dataclass
class Run:
    """A row of the leaderboard: one network trained with several seeds, or a mixture of networks trained alone."""

    protocol: dict
    nats: float  # a mixture's own, or the mean over the seeds
    of_each: list  # nats of each seed, or of each network of a mixture
    measured: dict | None = None  # nats of each picture and each binarisation, where they are stored

    @property
    def group(self):
        """What rows must have in common to stand in one table."""
        return self.protocol["data"], self.protocol["binarised"], self.protocol["budget"], self.kind

    @property
    def kind(self):
        if "members" in self.protocol:
            return "mixtures"
        return "runs" if self.measured is None else "compared"

    @property
    def told(self):
        """The model and its sizes, in words."""
        model, sizes = self.protocol["model"], self.protocol["sizes"]
        sizes = [f"{size} {NAMES_OF_SIZES.get(name, name)}" for name, size in sizes.items()]
        sizes = [text.removesuffix("s") if text.startswith("1 ") else text for text in sizes]
        of_each_value = " for each value" * (model == "made")
        return f"{configs.NAMES.get(model, model)}, {', '.join(sizes)}{of_each_value}"

    @property
    def errors(self):
        """Standard errors of the mean: over pictures, over binarisations (0 where there is one), over seeds."""
        return _errors(**self.measured)

    def below(self, other):
        """By how many nats this run is below another, on the same pictures, and the standard error of that.

        Pictures and binarisations are paired. Seeds are not: a seed of one model has nothing to do with that of
        another.
        """
        apart, bits = (
            other.measured[name].mean(0) - self.measured[name].mean(0) for name in ("pictures", "binarisations")
        )
        paired = _errors(**{**self.measured, "pictures": apart[None], "binarisations": bits[None]})
        return float(apart.mean()), math.hypot(*paired, *(run.errors[-1] for run in (self, other)))

    def cells(self):
        """Of a table of networks alone, or of mixtures, in the order of HEADS."""
        low, high = (f"{edge(self.of_each):.2f}" for edge in (min, max))
        span, count = low if low == high else f"{low} to {high}", len(self.of_each)
        if self.kind == "mixtures":
            minutes = sum(member["threads"] for member in self.protocol["members"]) * self.protocol["budget"] / 60
            error = "not stored" if self.measured is None else f"{math.hypot(*self.errors):.2f}"
            return f"**{self.nats:.2f}**", f"{self.told}: {self._members()}", error, span, f"{minutes:g}", self.machine
        error = f"{np.std(self.of_each, ddof=1) / count**0.5:.2g} ({count} seeds)" if count > 1 else "one seed"
        return f"**{self.nats:.2f}**", self.told, error, span, self.machine

    def _members(self):
        """Which networks are mixed: their orders and seeds."""
        seeds_of = {}
        for member in self.protocol["members"]:
            seeds_of.setdefault(member["order"], []).append(str(member["seed"]))
        orders = itertools.groupby(seeds_of.items(), key=lambda one: one[1])  # orders of the same seeds together
        told = []
        for seeds, group in orders:
            names = [str(order) for order, _ in group]
            of, by = (word + "s" * (len(many) > 1) for word, many in (("order", names), ("seed", seeds)))
            told.append(f"{of} {', '.join(names)} ({by} {', '.join(seeds)})")
        return " and ".join(told)

    @property
    def machine(self):
        """The processor, its instructions where the file names them, and the cores of each training."""
        made = self.protocol["members"][0] if self.kind == "mixtures" else self.protocol
        name = re.sub(r"\((R|TM)\)| CPU\b.*| \d+-Core.*| Processor.*", "", made["processor"])
        cores = f"{made['threads']} core{'s' * (made['threads'] > 1)}" + " each" * (self.kind == "mixtures")
        return ", ".join(filter(None, (name, made.get("instructions"), cores)))


def _errors(pictures, binarisations, clusters=None, binarised=None):
    """Of nats (seeds, pictures) and (seeds, binarisations), the latter means over the first `binarised` pictures (None:
    all); clusters: (pictures,), or None. The mean over pictures is of one binarisation."""
    seeds, bits = pictures.mean(1), binarisations.mean(0)
    part = math.sqrt((binarised or pictures.shape[1]) / pictures.shape[1])
    return (
        errors.standard_error(pictures.mean(0), clusters),
        part * float(bits.std(ddof=1)) if len(bits) > 1 else 0.0,
        errors.standard_error(seeds) if len(seeds) > 1 else 0.0,
    )


def load(path):
    """A stored run."""
    protocol, table = stored_curves.load_benchmark(path)
    measured = None
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as held:
            measured = {name.partition(" ")[0]: held[name] for name in held.files}
    if "members" in protocol:
        return Run(protocol, table["nats"][-1], [member["nats"] for member in protocol["members"]], measured)
    of_each = [table["nats"][table["seed"] == seed][-1] for seed in np.unique(table["seed"])]
    return Run(protocol, float(np.mean(of_each)), of_each, measured)


def compared(runs):
    """Rows of a table of runs, the lowest nats first: those that errors cannot separate have one place."""
    rows = []
    for number, run in enumerate(runs):
        place = rows[-1][0] if number and not apart(runs[number - 1], run) else number + 1
        by = "{:.2f} ± {:.2f}".format(*run.below(runs[number + 1])) if number + 1 < len(runs) else ""
        *_, seeds = run.errors
        parameters = f"{run.protocol['parameters']:,}"
        of_seeds = f"{seeds:.2f} ({len(run.of_each)} seeds)" if len(run.of_each) > 1 else "one seed"
        error = f"{math.hypot(*run.errors):.2f}"
        rows.append((place, f"**{run.nats:.2f}**", by, run.told, error, of_seeds, parameters))
    return [(str(place), *cells) for place, *cells in rows]


def apart(lower, higher):
    """Whether the errors separate two runs that were measured on the same pictures."""
    by, error = lower.below(higher)
    return by > APART * error


def again(group, runs):
    """What trains the runs of a table again."""
    data, binarised, budget, kind = group
    if kind == "mixtures" and not any(run.protocol["model"] in configs.MODELS for run in runs):
        return "not by this version, which has another model in its place; the stored files have the settings"
    if kind == "mixtures":
        return "the commands are in the stored files, [below](#mixtures) for one"
    if kind == "runs":
        return "not by this version, whose seconds are those of one core; the stored file's first line has the settings"
    static = " --static" * (binarised == "static")
    command = f'`make bench BENCH="--model NAME --data {data} --seconds {budget:g}{static}"`'
    told = f"{command}, with the units and seeds that the first line of the stored file names"
    return f"{told}. Machine: {', '.join(dict.fromkeys(run.machine for run in runs))}"


def time_of(budget):
    return f"{budget:g} seconds" if budget < 300 else f"{budget / 60:g} minutes"


def task(group):
    """Data and binarisation of a table."""
    data, binarised, *_ = group
    return f"{DATA[data]}, {binarised}" if binarised != "fixed" else DATA[data]


def title(group):
    *_, budget, kind = group
    of = {"compared": " of one core", "runs": "", "mixtures": " for each network of a mixture"}[kind]
    name = f"{task(group)}: {time_of(budget)}{of}"
    return name[0].upper() + name[1:]


def table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def tables(folder=STORED):
    """The tables as Markdown: the best of each group first, then all runs of each group."""
    groups = {}
    for run in sorted(map(load, folder.glob("*.csv")), key=lambda run: (run.nats, run.told)):
        groups.setdefault(run.group, []).append(run)

    def place(group):
        data, binarised, budget, kind = group
        return list(DATA).index(data), binarised == "static", KINDS.index(kind), budget

    text, best = ["## All stored runs\n"], []
    for group in sorted(groups, key=place):
        runs, (*_, budget, kind) = groups[group], group
        first = runs[0]
        time = {
            "compared": f"{time_of(budget)}, one core",
            "runs": time_of(budget),
            "mixtures": f"{len(first.of_each)} x {time_of(budget)}, one core each",
        }[kind]
        cells = f"**{first.nats:.2f}**", task(group), time, first.told, first.machine
        best.append((place(group)[:2], first.nats, cells))
        rows = table(HEADS[kind], compared(runs) if kind == "compared" else [run.cells() for run in runs])
        text.append(f"### {title(group)}\n\n{rows}\nTo repeat: {again(group, runs)}.\n")
    head = "nats per image", "data", "training", "model", "machine"
    return "\n".join(["## The lowest of each table\n", table(head, [cells for *_, cells in sorted(best)]), *text])


def main():
    above, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, below = rest.partition(END)
    PAGE.write_text(f"{above}{BEGIN}\n{tables()}\n{END}{below}", encoding="utf-8")


if __name__ == "__main__":
    main()
