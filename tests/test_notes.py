"""What is written agrees with what was measured: every row of a results table stands in a checked output."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import bench
import leaderboard
import nbformat
import numpy as np
import pytest
from quoted import numbers_in, shown_by, stands_among

from pixelrnn.evidence import stored_curves
from pixelrnn.evidence.results import span
from pixelrnn.models import configs, weights
from support import files

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTES = ROOT / "labnotes"


def rows_of(text):
    """The body rows of the Markdown tables whose head is that of a results table, cells stripped."""
    rows = re.findall(r"^\|(.+)\|\s*$", text, flags=re.M)
    rows = [tuple(cell.strip() for cell in row.split("|")) for row in rows]
    return [row for row in rows if not set(row[0]) <= {"-", ":"} and row[0] not in ("result", "note")]


def tables(path, kind):
    """The rows of a notebook's stored table: a reader's "results", or all its "claims", which nbval compares."""
    cells = nbformat.read(path, as_version=4).cells
    found = [o.data["text/markdown"] for c in cells for o in c.get("outputs", ()) if kind in o.get("metadata", {})]
    return rows_of("\n".join(found))


def results(path):
    """The text under a note's heading "Results"."""
    return path.read_text(encoding="utf-8").split("## Results")[1].split("\n## ")[0]


def words_of(text):
    """The number of words as a reader sees them: without addresses and tags."""
    return len(re.sub(r"<[^>]*>|\]\([^)]*\)", " ", text).split())


def test_every_notebook_has_a_note_of_its_name_and_stands_in_the_index():
    names = [path.stem for path in NOTEBOOKS]
    assert sorted(path.stem for path in NOTES.glob("[0-9]*.md")) == names
    index = (NOTES / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in names:
        assert f"({name}.md)" in index and f"notebooks/{name}.ipynb" in index
        assert f"notebooks/{name}.ipynb" in readme and f"labnotes/{name}.md" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_note_reports_what_a_reader_of_its_notebook_is_shown(path):
    assert rows_of(results(NOTES / f"{path.stem}.md")) == tables(path, "results") != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_note_is_one_page_answer_results_differences_and_limits(path):
    text = (NOTES / f"{path.stem}.md").read_text(encoding="utf-8")
    headings = ["Answer", "Results", "What differs from the article, and why", "What it does not show"]
    assert re.findall(r"(?m)^## (.+)$", text) == headings
    assert words_of(text) <= 600
    number = int(path.stem[:2])
    assert f"](answers.md#note-{number})" in text and f"](appendix.md#note-{number})" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_answer_of_a_note_quotes_values_that_its_notebook_shows(path):
    answer = (NOTES / f"{path.stem}.md").read_text(encoding="utf-8").split("## Answer")[1].split("\n## ")[0]
    known = shown_by(nbformat.read(path, as_version=4))
    assert all(stands_among(number, known) for number in numbers_in(answer)), answer


def number_of(note, claim):
    """The numbers of the stored run that stand in a notebook's table of checks, as text."""
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(note)]
    (row,) = [row for row in tables(path, "claims") if row[0] == claim]
    return row


def test_the_readme_is_short_and_its_first_notebook_near():
    """Words as a reader sees them: without addresses and tags."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before = re.split(r"\]\(notebooks/", readme)[0]
    assert words_of(readme) <= 900 and words_of(before) <= 200
    assert len(re.findall(r"(?m)^\[!\[", readme)) == 1  # which leads to the page


def test_the_numbers_of_the_readme_are_those_of_the_stored_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    usage = (NOTES / "usage.md").read_text(encoding="utf-8")
    name = "random LSTM, fitted head, 512 x 512, 8 bits, 3 channels: free running, fraction of bits right"
    untrained = number_of("04", name)
    assert untrained[1:3] == ("1", "1 (all bits)") and f"{512 * 512 * 3 * 8:,} bits" in readme
    assert f"a linear layer with {(512 + 1) * 512 * 3 * 8:,} weights" in readme  # of 512 features and a bias
    mixed = {path.stem: stored_curves.load_benchmark(path)[1]["nats"][-1] for path in MIXTURES}
    assert f"**{min(mixed.values()):.2f} nats** of negative log-likelihood" in readme
    digits = json.loads((ROOT / "data" / "weights" / "digits.json").read_text(encoding="utf-8"))["nats"]["test"]
    alone = " and ".join(f"{own:.2f}" for own in digits["orders"])
    assert f"**{digits['mixture']:.2f} nats** per test image" in usage and f"{alone} alone" in usage
    assert number_of("01", "free running, fraction of pixels right: categorical")[1:3] == ("1", "1 (all pixels)")
    assert number_of("01", "free running, fraction of pixels right: regression")[2] == "under 0.05 (fraction)"
    assert "categorical head and one-hot input, in every run; with regression in none" in readme
    copying = number_of("02", "pictures on which copying the row above gets less than 0.1160 of the bits wrong")
    assert f"copying the row above is better in {copying[1]} of 3 pictures" in readme


STORED = sorted((ROOT / "data" / "benchmarks").glob("*.csv"))
ABLATIONS = ROOT / "data" / "ablations" / "nats.csv"
MIXTURES = [path for path in STORED if "_orders-" in path.stem]  # of networks that were trained alone
BENCHMARKS = [path for path in STORED if path not in MIXTURES]
every_stored_run = pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)


def last_of_each_seed(path):
    """The protocol of a stored run, and for each seed its last row: (seconds, nats)."""
    protocol, table = stored_curves.load_benchmark(path)
    lasts = [np.flatnonzero(table["seed"] == seed)[-1] for seed in np.unique(table["seed"])]
    return protocol, [(table["seconds"][last], table["nats"][last]) for last in lasts]


def test_the_leaderboard_is_all_stored_runs_one_table_for_each_time_the_lowest_first():
    text = (NOTES / "benchmarks.md").read_text(encoding="utf-8")
    assert f"{leaderboard.BEGIN}\n{leaderboard.tables()}\n{leaderboard.END}" in text
    best, *each = re.split(r"(?m)^### .*$", leaderboard.tables())
    value = r"^\| (?:\d \| )?\*\*([\d.]+)\*\* \|"  # after its place, where there is one
    rows = [[float(nats) for nats in re.findall(value, part, flags=re.M)] for part in each]
    assert sum(map(len, rows)) == len(STORED) and all(part == sorted(part) != [] for part in rows)
    lowest = [float(nats) for nats in re.findall(value, best, flags=re.M)]
    assert sorted(lowest) == sorted(part[0] for part in rows)
    mnist = [run.nats for run in map(leaderboard.load, STORED) if run.protocol["data"] == "mnist"]
    assert f"{lowest[0]:.2f}" == f"{min(mnist):.2f}"


def test_a_row_of_the_leaderboard_by_hand(tmp_path):
    protocol = {"model": "joint", "sizes": {"units": 256}, "data": "mnist", "binarised": "static", "budget": 600.0}
    protocol |= {"processor": "AMD EPYC", "instructions": "AVX2", "threads": 2}
    names, unordered = ["seed", "seconds", "updates", "nats"], enumerate((82.0, 80.0, 81.0))
    rows = [(seed, seconds, 9, nats if seconds == 600 else 99) for seed, nats in unordered for seconds in (30, 600)]
    files.write_table(tmp_path / "run.csv", protocol, names, rows)
    text = leaderboard.tables(tmp_path)
    row = "| **81.00** | joint row, 256 units | 0.58 (3 seeds) | 80.00 to 82.00 | AMD EPYC, AVX2, 2 cores |"
    assert "### MNIST, static: 10 minutes\n\n| nats per image | model |" in text and f"{row}\n" in text
    row = "| **81.00** | MNIST, static | 10 minutes | joint row, 256 units | AMD EPYC, AVX2, 2 cores |\n"
    assert row in text and "To repeat: not by this version" in text
    members = [{**protocol, "order": order, "seed": 0, "nats": 79.0 + order, "threads": 1} for order in (0, 3)]
    files.write_table(tmp_path / "mix.csv", {**protocol, "members": members}, names, [(0, 1, 1, 79), (0, 2, 2, 78.5)])
    row = (
        "| **78.50** | joint row, 256 units: orders 0, 3 (seed 0) | not stored | 79.00 to 82.00 | 20 | AMD EPYC, AVX2,"
    )
    assert f"{row} 1 core each |\n" in leaderboard.tables(tmp_path)


def test_a_table_of_models_compared_picture_by_picture_by_hand(tmp_path):
    """Two models that errors cannot separate have one place, however close the third is to nobody."""
    rng = np.random.default_rng(0)
    hard, bits = rng.normal(80, 20, 400), rng.normal(0, 0.1, 5)
    names, noise = ["seed", "seconds", "updates", "nats"], {"joint": 0.0, "row-lstm": 0.001, "made": 5.0}
    for model, more in noise.items():
        pictures = np.stack([hard + more + rng.normal(0, 1, 400) for _ in range(2)])
        pictures += 80 + more - pictures.mean()  # the mean is known
        protocol = {"model": model, "sizes": {"units": 8}, "data": "mnist", "binarised": "dynamic", "budget": 150.0}
        protocol |= {"processor": "AMD EPYC", "instructions": "AVX2", "threads": 1, "parameters": 1234}
        rows = [(seed, 150, 9, own.mean()) for seed, own in enumerate(pictures)]
        files.write_table(tmp_path / f"{model}.csv", protocol, names, rows)
        np.savez(tmp_path / f"{model}.npz", pictures=pictures, binarisations=pictures.mean(1)[:, None] + bits)
    text = leaderboard.tables(tmp_path)
    assert "### MNIST, dynamic: 150 seconds of one core\n\n| place | nats per image |" in text
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith(("| 1", "| 2", "| 3"))]
    assert [row[:2] for row in rows] == [["1", "**80.00**"], ["1", "**80.00**"], ["3", "**85.00**"]]
    assert rows[0][-1] == "1,234" and "Machine: AMD EPYC, AVX2, 1 core." in text
    assert '`make bench BENCH="--model NAME --data mnist --seconds 150"`' in text
    joint, _, made = sorted(map(leaderboard.load, tmp_path.glob("*.csv")), key=lambda run: run.nats)
    pictures, binarised, seeds = joint.errors
    assert pictures == pytest.approx(joint.measured["pictures"].mean(0).std(ddof=1) / 20)
    assert binarised == pytest.approx(bits.std(ddof=1))
    assert seeds == pytest.approx(joint.measured["pictures"].mean(1).std(ddof=1) / 2**0.5)
    assert rows[0][4] == f"{np.hypot(np.hypot(pictures, binarised), seeds):.2f}"
    by, error = joint.below(made)
    assert by == pytest.approx(5, abs=1e-4) and 0.05 < error < 0.1 < pictures  # paired: pictures are hard for both
    assert rows[1][2].startswith("5.00 ± ") and rows[0][2].startswith("0.00 ± ") and rows[2][2] == ""


def test_pictures_of_one_family_count_as_one_in_the_leaderboard():
    measured = {"pictures": np.repeat(np.arange(10.0), 5)[None], "binarisations": np.array([[4.5]])}
    alone = leaderboard.Run({}, 4.5, [4.5], measured)
    together = leaderboard.Run({}, 4.5, [4.5], {**measured, "clusters": np.repeat(np.arange(10), 5)})
    assert together.errors[0] == pytest.approx(5**0.5 * alone.errors[0], rel=0.15) and alone.errors[1:] == (0, 0)


@every_stored_run
def test_stored_runs_say_how_they_were_made(path):
    protocol, lasts = last_of_each_seed(path)
    assert protocol["command"].startswith("python tools/bench.py") and " /" not in protocol["command"]
    assert "--store" in protocol["command"] and {"processor", "threads", "torch"} <= set(protocol)
    counted = {"mnist": (50_000, 10_000), "letters": (16_032, 1188), "digits": (1297, 500)}[protocol["data"]]
    assert (protocol["training images"], protocol["measured images"]) == counted
    assert protocol["unit"] == "nats per image, mean over the test images"
    assert all(protocol["budget"] <= seconds < 1.04 * protocol["budget"] for seconds, _ in lasts)


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


BENCHMARK_NOTE = NOTES / "appendix.md"


def size_of(protocol):
    return ", ".join(map(str, protocol["sizes"].values()))


def cost_row(path):
    """A run of the benchmark as note 7 reports it: what it reached, and what it cost."""
    protocol, lasts = last_of_each_seed(path)
    told = [configs.NAMES.get(protocol["model"], protocol["model"]), size_of(protocol)]
    told += [f"{np.mean([nats for _, nats in lasts]):.2f}", f"{protocol['images per second']:,.0f}"]
    told += [f"{protocol[name]:,.0f}" for name in ("parameters", "peak memory", "sampled per second")]
    return f"| {' | '.join(map(str, told))} |"


@pytest.mark.parametrize(
    "path",
    [path for path in BENCHMARKS if re.search(r"(mnist|letters).*_60s$", path.stem)],
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
    assert len(told) == 2
    for budget, before, before_seeds, model, size, after, after_seeds in told:
        for name, sizes, reached, seeds in (("joint", "256", before, before_seeds), (model, size, after, after_seeds)):
            found = [leaderboard.load(path) for path in BENCHMARKS]
            wanted = "mnist", "dynamic", float(budget.replace(",", "")), "runs"
            found = [run for run in found if run.group == wanted and run.protocol["model"] == name]
            (run,) = [run for run in found if size_of(run.protocol) == sizes]
            low, high = (f"{edge(run.of_each):.2f}" for edge in (min, max))
            assert reached == (low if low == high else f"{low} to {high}") and int(seeds) == len(run.of_each)


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


def test_eight_minutes_are_told_as_they_were_run():
    note = BENCHMARK_NOTE.read_text(encoding="utf-8")
    paragraph = re.search(r"^\*\*Eight minutes.*$", note, flags=re.M).group()
    paths = [path for path in BENCHMARKS if path.stem.endswith("dynamic_480s")]
    assert len(paths) == 3
    for path in paths:
        _, table = stored_curves.load_benchmark(path)
        assert f"{table['nats'][-1]:.2f}" in paragraph and f"{table['updates'][-1]:,.0f}" in paragraph


def test_ablations_are_told_as_they_were_measured():
    note = BENCHMARK_NOTE.read_text(encoding="utf-8")
    runs = {}  # question -> what -> (parameters, updates, nats) of each seed
    for (question, what, _), (_, *measured) in stored_curves.load_ablations(ABLATIONS)[1].items():
        runs.setdefault(question, {}).setdefault(what, []).append(measured)
    letters = runs.pop("matched on letters")
    for question, each_change in runs.items():
        for what, seeds in each_change.items():
            parameters, updates, nats = zip(*seeds, strict=True)
            cells = [what, f"{parameters[0]:,}", span(updates), span(nats, 2)]
            if question == "matched":
                assert parameters[0] == letters[what][0][0]
                _, updates, nats = zip(*letters[what], strict=True)
                cells += [span(updates), span(nats, 2)]
            assert f"| {' | '.join(cells)} |" in note


@pytest.mark.parametrize("run", ["1800s_orders-0-3-seeds-0", "3600s_orders-0-seeds-0-1"])
def test_three_views_are_told_as_they_were_run(run):
    note = BENCHMARK_NOTE.read_text(encoding="utf-8")
    paragraph = re.search(r"^- \*\*Three views.*$", note, flags=re.M).group()
    path = ROOT / "data" / "benchmarks" / f"mnist_joint-views_dynamic_{run}.csv"
    protocol, table = stored_curves.load_benchmark(path)
    for member in protocol["members"]:
        told = [member[key] for key in ("nats", "nats in one view", "nats of training images")]
        assert all(f"{value:.2f}" in paragraph for value in told) and f"{member['updates']:,}" in paragraph
    assert f"**{table['nats'][-1]:.2f}**" in paragraph


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


@pytest.mark.parametrize(("run", "most"), [("joint_dynamic_60s", 86), ("joint_512-units_dynamic_900s", 80)])
def test_stored_runs_reach_what_is_said_of_them(run, most):
    (path,) = [path for path in BENCHMARKS if path.stem == f"mnist_{run}"]
    assert all(nats < most for _, nats in last_of_each_seed(path)[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_value_in_a_note_would_be_seen(path):
    text = results(NOTES / f"{path.stem}.md")
    value = rows_of(text)[-1][1]
    assert rows_of(text.replace(f"| {value} |", "| **99%** |")) != tables(path, "results")


def test_how_far_the_stored_networks_can_be_trusted_is_told_as_it_was_measured():
    text = (NOTES / "benchmarks.md").read_text(encoding="utf-8")
    of = {name: weights.load(name)[1]["standard errors"] for name in ("digits", "letters")}
    digits, letters = of.values()
    assert f"{digits['mixture']:.2f} nats over images (digits) and {letters['mixture']:.2f} over families" in text
    *first, last = (f"{nats:.2f}" for nats in digits["binarisations"])
    assert f"{', '.join(first)} and {last} nats" in text and len(first) == 4
    assert f"{digits['below the first order']:.2f} ± {digits['of that']:.2f} nats below" in text
    assert f"{letters['below the first order']:.1f} ± {letters['of that']:.1f} for letters" in text
