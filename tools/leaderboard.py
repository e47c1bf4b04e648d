"""The tables of labnotes/benchmarks.md, made of the stored runs in data/benchmarks/.

`python tools/leaderboard.py` writes them anew between the page's two marks, the lowest nats first. Nothing is trained.
"""

import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where the modules are
from pixelrnn.evidence import stored_curves
from pixelrnn.models import configs

STORED = ROOT / "data" / "benchmarks"
PAGE = ROOT / "labnotes" / "benchmarks.md"
BEGIN, END = "<!-- tables of tools/leaderboard.py -->\n", "<!-- end of the tables -->\n"
HEADS = {  # of a table of networks, and of one of mixtures
    False: ("nats per image", "model", "standard error", "lowest to highest seed", "machine"),
    True: ("nats per image", "networks that are mixed", "each alone", "core-minutes", "machine"),
}
NAMES_OF_SIZES = {"last": "features in the last layers"}  # where the stored word does not say it
DATA = {"mnist": "MNIST", "letters": "letters", "digits": "digits of scikit-learn"}


@dataclass
class Run:
    """A row of the leaderboard: one network trained with several seeds, or a mixture of networks trained alone."""

    protocol: dict
    nats: float  # a mixture's own, or the mean over the seeds
    of_each: list  # nats of each seed, or of each network of a mixture

    @property
    def group(self):
        """What rows must have in common to stand in one table."""
        return self.protocol["data"], self.protocol["binarised"], self.protocol["budget"], self.is_mixture

    @property
    def is_mixture(self):
        return "members" in self.protocol

    @property
    def told(self):
        """The model and its sizes, in words."""
        model, sizes = self.protocol["model"], self.protocol["sizes"]
        sizes = [f"{size} {NAMES_OF_SIZES.get(name, name)}" for name, size in sizes.items()]
        sizes = [text.removesuffix("s") if text.startswith("1 ") else text for text in sizes]
        of_each_value = " for each value" * (model == "made")
        return f"{configs.NAMES.get(model, model)}, {', '.join(sizes)}{of_each_value}"

    def cells(self):
        """Of its table, in the order of HEADS."""
        low, high = (f"{edge(self.of_each):.2f}" for edge in (min, max))
        span, count = low if low == high else f"{low} to {high}", len(self.of_each)
        if self.is_mixture:
            minutes = sum(member["threads"] for member in self.protocol["members"]) * self.protocol["budget"] / 60
            return f"**{self.nats:.2f}**", f"{self.told}: {self._members()}", span, f"{minutes:g}", self.machine
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
        made = self.protocol["members"][0] if self.is_mixture else self.protocol
        name = re.sub(r"\((R|TM)\)| CPU\b.*| \d+-Core.*| Processor.*", "", made["processor"])
        cores = f"{made['threads']} core{'s' * (made['threads'] > 1)}" + " each" * self.is_mixture
        return ", ".join(filter(None, (name, made.get("instructions"), cores)))


def load(path):
    """A stored run."""
    protocol, table = stored_curves.load_benchmark(path)
    if "members" in protocol:
        return Run(protocol, table["nats"][-1], [member["nats"] for member in protocol["members"]])
    of_each = [table["nats"][table["seed"] == seed][-1] for seed in np.unique(table["seed"])]
    return Run(protocol, float(np.mean(of_each)), of_each)


def again(group):
    """What trains the runs of a table again."""
    data, binarised, budget, mixture = group
    if mixture:
        return "the commands are in the stored files, [below](#mixtures) for one"
    static = " --static" * (binarised == "static")
    command = f'`make bench BENCH="--model NAME --data {data} --seconds {budget:g}{static}"`'
    return f"{command}, with the units and seeds that the first line of the stored file names"


def time_of(budget):
    return f"{budget:g} seconds" if budget < 300 else f"{budget / 60:g} minutes"


def task(group):
    """Data and binarisation of a table."""
    data, binarised, *_ = group
    return f"{DATA[data]}, {binarised}" if binarised != "fixed" else DATA[data]


def title(group):
    *_, budget, mixture = group
    name = f"{task(group)}: {time_of(budget)}{' for each network of a mixture' * mixture}"
    return name[0].upper() + name[1:]


def table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def tables(folder=STORED):
    """The tables as Markdown: the best of each group first, then all runs of each group."""
    groups = {}
    for run in sorted(map(load, folder.glob("*.csv")), key=lambda run: (run.nats, run.told)):
        groups.setdefault(run.group, []).append(run)

    def place(group):
        data, binarised, budget, mixture = group
        return list(DATA).index(data), binarised == "static", mixture, budget

    text, best = ["## All stored runs\n"], []
    for group in sorted(groups, key=place):
        first, (*_, budget, mixture) = groups[group][0], group
        time = f"{len(first.of_each)} x {time_of(budget)}, one core each" if mixture else time_of(budget)
        cells = f"**{first.nats:.2f}**", task(group), time, first.told, first.machine
        best.append((place(group)[:2], first.nats, cells))
        rows = table(HEADS[mixture], [run.cells() for run in groups[group]])
        text.append(f"### {title(group)}\n\n{rows}\nTo repeat: {again(group)}.\n")
    head = "nats per image", "data", "training", "model", "machine"
    return "\n".join(["## The lowest of each table\n", table(head, [cells for *_, cells in sorted(best)]), *text])


def main():
    above, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, below = rest.partition(END)
    PAGE.write_text(f"{above}{BEGIN}\n{tables()}\n{END}{below}", encoding="utf-8")


if __name__ == "__main__":
    main()
