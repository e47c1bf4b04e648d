"""What is written agrees with what was measured: every row of a results table stands in a checked output."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import bench
import nbformat
import numpy as np
import pytest

from pixelrnn.evidence import stored_curves
from pixelrnn.models import configs

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTES = ROOT / "labnotes"


def rows_of(text):
    """The body rows of the Markdown tables whose head is that of a results table, cells stripped."""
    rows = re.findall(r"^\|(.+)\|\s*$", text, flags=re.M)
    rows = [tuple(cell.strip() for cell in row.split("|")) for row in rows]
    return [row for row in rows if not set(row[0]) <= {"-", ":"} and row[0] not in ("result", "note")]


def measured(path):
    """The rows of a notebook's stored table of claims, which nbval compares with those of a new run."""
    cells = nbformat.read(path, as_version=4).cells
    tables = [o.data["text/markdown"] for c in cells for o in c.get("outputs", ()) if "claims" in o.get("metadata", {})]
    return rows_of("\n".join(tables))


def results(path):
    """The text under a note's heading "Results"."""
    return path.read_text(encoding="utf-8").split("## Results")[1].split("\n## ")[0]


def test_every_notebook_has_a_note_of_its_name_and_stands_in_the_index():
    names = [path.stem for path in NOTEBOOKS]
    assert sorted(path.stem for path in NOTES.glob("[0-9]*.md")) == names
    index = (NOTES / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in names:
        assert f"({name}.md)" in index and f"notebooks/{name}.ipynb" in index
        assert f"notebooks/{name}.ipynb" in readme and f"labnotes/{name}.md" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_note_reports_the_rows_that_its_notebook_measures(path):
    assert rows_of(results(NOTES / f"{path.stem}.md")) == measured(path) != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_note_says_what_was_asked_what_differs_and_what_it_does_not_show(path):
    text = (NOTES / f"{path.stem}.md").read_text(encoding="utf-8")
    for heading in (
        "## Asked",
        "## Done",
        "## Results",
        "## What differs from the article, and why",
        "## What it does not show",
    ):
        assert heading in text


def test_the_index_claims_only_what_was_measured():
    text = (NOTES / "README.md").read_text(encoding="utf-8").split("## What holds")[1].split("\n\nThe article")[0]
    table = rows_of(text)
    assert {row[0] for row in table} == {path.stem[:2] for path in NOTEBOOKS}
    for note, *row in table:
        path = next(path for path in NOTEBOOKS if path.stem.startswith(note))
        assert tuple(row) in measured(path), row


def number_of(note, claim):
    """The numbers of the stored run that stand in a notebook's table, as text."""
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(note)]
    (row,) = [row for row in measured(path) if row[0] == claim]
    return row


def test_the_readme_is_short_and_its_first_notebook_near():
    """Words as a reader sees them: without addresses and tags."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before = re.split(r"\]\(notebooks/", readme)[0]
    shown = [re.sub(r"<[^>]*>|\]\([^)]*\)", " ", text).split() for text in (readme, before)]
    assert len(shown[0]) <= 900 and len(shown[1]) <= 200
    assert len(re.findall(r"(?m)^!\[", readme)) == 1


def test_the_numbers_of_the_readme_are_those_of_the_stored_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    usage = (NOTES / "usage.md").read_text(encoding="utf-8")
    name = "random LSTM, fitted readout, 512 x 512, 8 bits, 3 channels: free running, fraction of bits right"
    untrained = number_of("04", name)
    assert untrained[1:3] == ("1", "1 (all bits)") and f"{512 * 512 * 3 * 8:,} bits" in readme
    assert f"which has {(512 + 1) * 512 * 3 * 8:,} weights" in readme  # of 512 features and a bias
    mixed = {path.stem: stored_curves.load_benchmark(path)[1]["nats"][-1] for path in MIXTURES}
    assert f"**{min(mixed.values()):.2f} nats** of negative log-likelihood" in readme
    digits = json.loads((ROOT / "data" / "weights" / "digits.json").read_text(encoding="utf-8"))["nats"]["test"]
    alone = " and ".join(f"{own:.2f}" for own in digits["orders"])
    assert f"**{digits['mixture']:.2f} nats** per test image" in usage and f"{alone} alone" in usage
    assert number_of("01", "free running, fraction of pixels right: categorical")[1:3] == ("1", "1 (all pixels)")
    assert number_of("01", "free running, fraction of pixels right: regression")[2] == "under 0.05 (fraction)"
    assert "categorical output and one-hot input, in every run; with regression in none" in readme
    copying = number_of("02", "pictures on which copying the row above gets less than 0.1160 of the bits wrong")
    assert f"copying the row above is better in {copying[1]} of 3 pictures" in readme


STORED = sorted((ROOT / "data" / "benchmarks").glob("*.csv"))
MIXTURES = [path for path in STORED if "_orders-" in path.stem]  # of networks that were trained alone
BENCHMARKS = [path for path in STORED if path not in MIXTURES]
every_stored_run = pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)


def last_of_each_seed(path):
    """The protocol of a stored run, and for each seed its last row: (seconds, nats)."""
    protocol, table = stored_curves.load_benchmark(path)
    lasts = [np.flatnonzero(table["seed"] == seed)[-1] for seed in np.unique(table["seed"])]
    return protocol, [(table["seconds"][last], table["nats"][last]) for last in lasts]


def size_of(protocol):
    return ", ".join(map(str, protocol["sizes"].values()))


def benchmark_row(path):
    """A stored run as the leaderboard reports it: what it reached, on which machine, and what runs it again."""
    protocol, lasts = last_of_each_seed(path)
    nats, model = [value for _, value in lasts], protocol["model"]
    span = f"{min(nats):.2f}" + (f" to {max(nats):.2f}" if len(nats) > 1 else "")
    told = [protocol["data"], model, size_of(protocol), protocol["binarised"], f"{protocol['budget']:g}", len(nats)]
    machine = re.sub(r"\((R|TM)\)| CPU\b.*| \d+-Core.*| Processor.*", "", protocol["processor"])
    again = re.sub(r"--model .+? --data", f"--model {model} --data", protocol["command"])  # alone, without the others
    again = again.removeprefix("python tools/bench.py ").removesuffix(" --store")
    told += [span, f"{machine}, {protocol['threads']} threads", f"`{again}`"]
    return f"| {' | '.join(map(str, told))} |"


def leaderboard():
    """The rows of all stored runs, by data and then by mean nats, the lowest first."""

    def place(path):
        protocol, lasts = last_of_each_seed(path)
        return ("mnist", "letters", "digits").index(protocol["data"]), np.mean([nats for _, nats in lasts])

    return [benchmark_row(path) for path in sorted(BENCHMARKS, key=place)]


def reported_runs(text):
    """The rows of a page that begin as those of stored runs do."""
    return re.findall(r"^\| (?:mnist|letters|digits) \|.*\|$", text, flags=re.M)


def test_the_leaderboard_is_all_stored_runs_in_their_order():
    text = (NOTES / "benchmarks.md").read_text(encoding="utf-8")
    assert reported_runs(text) == leaderboard() != []
    for row in leaderboard():  # a wrong value, or a run that is missing, would be seen
        nats = row.split(" | ")[6]
        assert reported_runs(text.replace(row, row.replace(nats, "77.00"))) != leaderboard()
        assert reported_runs(text.replace(f"{row}\n", "")) != leaderboard()


@every_stored_run
def test_stored_runs_say_how_they_were_made(path):
    protocol, lasts = last_of_each_seed(path)
    assert protocol["command"].startswith("python tools/bench.py") and " /" not in protocol["command"]
    assert "--store" in protocol["command"] and {"processor", "threads", "torch"} <= set(protocol)
    counted = {"mnist": (50_000, 10_000), "letters": (18_768, 1902), "digits": (1297, 500)}[protocol["data"]]
    assert (protocol["training images"], protocol["measured images"]) == counted
    assert protocol["unit"] == "nats per image, mean over the test images"
    assert all(protocol["budget"] <= seconds < 1.04 * protocol["budget"] for seconds, _ in lasts)


def mixture_row(path):
    """A stored mixture as the leaderboard page reports it: its members, by order; what they reach alone, and mixed."""
    protocol, table = stored_curves.load_benchmark(path)
    members, orders_of = protocol["members"], {}
    for order in dict.fromkeys(member["order"] for member in members):
        seeds = tuple(str(member["seed"]) for member in members if member["order"] == order)
        orders_of.setdefault(seeds, []).append(str(order))
    who = [f"order {', '.join(orders)}: seed {', '.join(seeds)}" for seeds, orders in orders_of.items()]
    nats = [member["nats"] for member in members]
    told = ["; ".join(who), protocol["model"]]
    told += [size_of(protocol), protocol["binarised"], f"{protocol['budget']:g}", len(members)]
    told += [f"{min(nats):.2f} to {max(nats):.2f}", f"{table['nats'][-1]:.2f}"]
    return f"| {' | '.join(map(str, told))} |"


def test_the_stored_mixtures_stand_below_the_leaderboard_the_lowest_first():
    text = (NOTES / "benchmarks.md").read_text(encoding="utf-8")
    told = [row for row in text.splitlines() if row.startswith("| order ")]
    reached = {mixture_row(path): stored_curves.load_benchmark(path)[1]["nats"][-1] for path in MIXTURES}
    assert told == sorted(reached, key=reached.get) != []


@pytest.mark.parametrize("path", MIXTURES, ids=lambda path: path.stem)
def test_stored_mixtures_say_how_their_members_were_trained(path):
    protocol, table = stored_curves.load_benchmark(path)
    assert protocol["command"].startswith("python tools/bench.py --average ") and " /" not in protocol["command"]
    assert protocol["unit"] == "nats per image, mean over the test images" and protocol["training images"] == 50_000
    assert len(table["nats"]) == len(protocol["members"])
    for member in protocol["members"]:
        assert member["command"].startswith("python tools/bench.py --model") and "--members" in member["command"]
        assert member["threads"] == 1 and protocol["budget"] <= member["seconds"] < 1.04 * protocol["budget"]
        assert member["looks"][-1] == [member["seconds"], member["updates"], member["nats"]]


BENCHMARK_NOTE = NOTES / "07_what_a_minute_buys.md"


def cost_row(path):
    """A run of the benchmark as note 7 reports it: what it reached, and what it cost."""
    protocol, lasts = last_of_each_seed(path)
    told = [configs.NAMES.get(protocol["model"], protocol["model"]), size_of(protocol)]
    told += [f"{np.mean([nats for _, nats in lasts]):.2f}", f"{protocol['images per second']:,.0f}"]
    told += [f"{protocol[name]:,.0f}" for name in ("parameters", "peak memory", "sampled per second")]
    return f"| {' | '.join(map(str, told))} |"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in BENCHMARKS
        if re.search(r"mnist.*_150s$|letters.*_60s$", path.stem) and "static" not in path.stem
    ],
)
def test_the_benchmark_is_reported_as_it_was_run(path):
    assert cost_row(path) in BENCHMARK_NOTE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in BENCHMARKS if path.stem.endswith("_fixed_10s")])
def test_the_benchmark_on_digits_is_reported_as_it_was_run(path):
    told = []
    for run in (path.with_stem(path.stem.replace("_10s", "_2s")), path):
        protocol, lasts = last_of_each_seed(run)
        told += [f"{np.mean([nats for _, nats in lasts]):.2f}", f"{protocol['nats of training images']:.2f}"]
    row = f"| {configs.NAMES[protocol['model']]} | {' | '.join(told)} |"
    assert row in BENCHMARK_NOTE.read_text(encoding="utf-8")


def test_before_and_after_tuning_are_told_as_they_were_run():
    told = re.findall(
        r"^\| ([\d,]+) \| ([\d. to]+) \| (\d) \| \*(\S+)\* \| ([\d, ]+) \| ([\d. to]+) \| (\d) \|$",
        BENCHMARK_NOTE.read_text(encoding="utf-8"),
        flags=re.M,
    )
    assert len(told) == 4
    for budget, before, before_seeds, model, size, after, after_seeds in told:
        rest = f"dynamic | {budget.replace(',', '')}"
        for row in (
            f"| mnist | joint | 256 | {rest} | {before_seeds} | {before} |",
            f"| mnist | {model} | {size} | {rest} | {after_seeds} | {after} |",
        ):
            assert [stored for stored in leaderboard() if stored.startswith(row)], row


def test_shifted_images_and_mixtures_are_told_as_they_were_run():
    note = BENCHMARK_NOTE.read_text(encoding="utf-8")
    images, mixed = (
        re.search(rf"^- \*\*{start}.*$", note, flags=re.M).group() for start in ("More images", "Two orders")
    )
    everyone = max(MIXTURES, key=lambda path: len(stored_curves.load_benchmark(path)[1]["nats"]))
    protocol, table = stored_curves.load_benchmark(everyone)
    members, nats = protocol["members"], table["nats"]
    updates = [member["updates"] for member in members]
    gaps = [member["nats"] - member["nats of training images"] for member in members]
    assert f"{min(updates):,} to {max(updates):,} updates" in images and f"{min(gaps):.2f} to {max(gaps):.2f}" in images
    for of, text in (((0, 3), images), ((4, 7), mixed)):
        own = [member["nats"] for member in members if member["order"] in of]
        assert f"{min(own):.2f} to {max(own):.2f} nats" in text
    assert len(members) == 8
    for value in nats[[3, 5, 7]]:  # of two seeds, of three, and of all
        assert f"{value:.2f}" in mixed


@pytest.mark.parametrize(
    ("run", "training", "updates", "sampled"),
    [
        ("joint-average_dynamic_1800s", "{} per training image", "{} updates", "{} pictures a second"),
        ("joint-long_dynamic_600s", "79.04 and {}", "one alone {}", "instead of {}"),
    ],
)
def test_the_average_is_told_as_it_was_run(run, training, updates, sampled):
    note = BENCHMARK_NOTE.read_text(encoding="utf-8")
    paragraph = re.search(r"^- \*\*Three at once.*$", note, flags=re.M).group()
    protocol, table = stored_curves.load_benchmark(ROOT / "data" / "benchmarks" / f"mnist_{run}.csv")
    lasts = table["seconds"] >= protocol["budget"]
    reached, made = table["nats"][lasts], table["updates"][lasts]
    assert f"{min(reached):.2f} to {max(reached):.2f}" in paragraph
    assert training.format(f"{protocol['nats of training images']:.2f}") in paragraph
    assert updates.format(f"{min(made):,.0f} to {max(made):,.0f}") in paragraph
    assert sampled.format(f"{protocol['sampled per second']:,.0f}") in paragraph


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_the_stored_command_leads_to_the_stored_file(path):
    words = stored_curves.load_benchmark(path)[0]["command"].partition("tools/bench.py ")[2].split()
    units = int(words[words.index("--units") + 1]) if "--units" in words else None
    protocol = stored_curves.load_benchmark(path)[0]
    asked = {"data": protocol["data"], "static": "--static" in words, "seconds": protocol["budget"], "units": units}
    asked |= {"validation": False, "order": 0, "members": False, "store": True}
    assert bench.path_of(SimpleNamespace(**asked), protocol["model"], [0]) == path


def test_no_row_of_a_stored_run_is_left_over():
    """A table row, or the beginning of one, that no stored file bears out."""
    for path in (ROOT / "README.md", *NOTES.glob("*.md")):
        for row in reported_runs(path.read_text(encoding="utf-8")):
            assert [stored for stored in leaderboard() if stored.startswith(row)], row


@pytest.mark.parametrize(("run", "most"), [("joint_dynamic_150s", 84), ("joint_512-units_dynamic_900s", 80)])
def test_stored_runs_reach_what_is_said_of_them(run, most):
    (path,) = [path for path in BENCHMARKS if path.stem == f"mnist_{run}"]
    assert all(nats < most for _, nats in last_of_each_seed(path)[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_figure_in_a_note_would_be_seen(path):
    text = results(NOTES / f"{path.stem}.md")
    figure = rows_of(text)[-1][1]
    assert rows_of(text.replace(f"| {figure} |", "| 99% |")) != measured(path)
