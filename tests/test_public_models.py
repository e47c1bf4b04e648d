"""tools/public_models: what is told of other people's code is whole, and its page says the same."""

import csv
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from causality import causality

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tools" / "public_models"
PAGE = (ROOT / "labnotes" / "public_models.md").read_text(encoding="utf-8")


@pytest.fixture
def public(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("public_models_main", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_verdict_says_where_it_is_from_and_how_it_was_confirmed(public):
    rows = public.models()
    assert len({(one["repository"], one["model"]) for one in rows}) == len(rows) > 200
    for one in rows:
        assert re.fullmatch(r"[0-9a-f]{40}|PyPI [\d.]+", one["commit"]), one
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", one["repository"]) and one["verdict"] in public.VERDICTS, one
        assert one["confirmed"] and (one["verdict"] == "causal" or one["why"]), one
        assert one["where"] or one["verdict"] != "leaks", one
        assert bool(one["kind"]) == (one["verdict"] != "causal"), one
        assert (one["kind"] == "batch norm") == (one["verdict"] == "leaks in training"), one


def test_each_model_that_is_told_of_can_be_built_and_no_other(public):
    assert set(public.builders()) == {(one["repository"], one["model"]) for one in public.models()}


def test_the_page_has_the_verdicts_and_counts_them(public):
    assert public.page(PAGE) == PAGE
    rows = public.models()
    counts, repositories = Counter(one["verdict"] for one in rows), len({one["repository"] for one in rows})
    assert f"{len(rows)} published models of {repositories} repositories" in PAGE
    text = f"{len(rows)} published models of {repositories} repositories"
    assert text in (ROOT / "labnotes" / "causality.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{counts['leaks']} of {len(rows)} see a target or later values" in readme
    table = [int(number) for number in re.findall(r"^\| [^|]* \| (\d+) \|$", PAGE, re.M)]
    assert table == [counts[verdict] for verdict in ("causal", "leaks in training", "leaks")]


def test_the_page_tells_the_stored_likelihoods_of_both_modes():
    with open(ROOT / "data" / "public_models" / "likelihood_by_mode.csv", encoding="utf-8", newline="") as file:
        training, evaluation, anew = csv.DictReader(file)

    def value(row, name, digits):
        return f"{float(row[name]):.{digits}f}"

    bounds = [f"{value(row, 'bound', 1)} ({value(row, 'standard error', 1)})" for row in (training, evaluation, anew)]
    assert f"| {' | '.join(bounds)} |" in PAGE and f"{training['pictures']} test pictures" in PAGE
    assert f"| {value(training, 'pixels', 1)} | {value(evaluation, 'pixels', 1)} | {value(anew, 'pixels', 1)} |" in PAGE
    assert f"| {value(training, 'moved', 2)}, {value(training, 'moved most', 2)} | 0, 0 | 0, 0 |" in PAGE
    assert f"| {value(training, 'upper half moved', 2)} | 0 | 0 |" in PAGE
    for row in (evaluation, anew):
        assert [float(row[name]) for name in ("moved", "moved most", "upper half moved")] == [0, 0, 0]


def test_a_verdict_is_of_all_modes(public):
    norm = torch.nn.BatchNorm1d(4)
    assert public.verdict_of(causality(torch.square, torch.rand(2, 4))) == "leaks"
    assert (
        public.verdict_of(causality(torch.nn.Sequential(norm), torch.rand(4, 4), next_value=True))
        == "leaks in training"
    )
    assert public.verdict_of(causality(lambda x: x.cumsum(1), torch.rand(2, 4), next_value=True)) == "causal"


def test_clones_that_are_not_there_are_told(tmp_path):
    command = [sys.executable, str(FOLDER), "--clones", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "owner+name" in done.stderr


def test_a_clone_is_checked_in_its_folder_and_another_verdict_is_told(tmp_path):
    clone = tmp_path / "singh-hrituraj+PixelCNN-Pytorch"  # a stand-in of our own, which leaks
    clone.mkdir()
    text = "import torch\n\nclass PixelCNN(torch.nn.Module):\n    def __init__(self, **settings):\n"
    text += (
        "        super().__init__()\n        print('a model')\n\n    def forward(self, x):\n        return x.square()\n"
    )
    (clone / "Model.py").write_text(text, encoding="utf-8")
    command = [sys.executable, str(FOLDER), "--clones", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "leaks, not leaks in training" in done.stdout, done.stdout + done.stderr
    assert "1 models checked, 0 with the verdict" in done.stdout
