"""Checks published autoregressive models again: python tools/public_models --clones FOLDER [NAME ...]

data/public_models/models.csv says which models, of which commit, and what was found. Clone a repository into
FOLDER/owner+name and check out that commit; what is not there is passed over. NAME is a part of a repository's or a
model's name. Each model is built from its own code, small, in a process of its own, in its clone. That code is not
ours: read it before you run it. Some models need packages that this project does not (einops and others): install them
into a folder of their own, and pass it as --packages. What was checked as published on PyPI is installed below that
folder, each version for itself, as transformers-5.10.4 or espnet-202412 (pip install --target). `--table` writes the
tables of labnotes/public_models.md and checks nothing.
"""

import argparse
import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import shared

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GROUPS = ("known_leaks", "pixelcnns", "recurrent_flows_audio", "transformers_and_others")
VERDICTS = ("leaks", "leaks in training", "causal")


def models():
    """What was found, a dict for each model."""
    with open(ROOT / "data" / "public_models" / "models.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def builders():
    """(repository, model) -> what builds it."""
    for group in GROUPS:
        importlib.import_module(group)
    return shared.BUILDERS


def verdict_of(result):
    """One of VERDICTS for a Causality."""
    modes = [mode for mode in result.leaks if result.leaks[mode] or result.mixed[mode]]
    return "causal" if not modes else "leaks in training" if modes == ["training"] else "leaks"


def check(repository, model, clones):
    """Build one model and check it, in this process: prints the verdict and what causality.py says."""
    import torch

    sys.path.insert(0, str(ROOT))
    from causality import causality

    build = builders()[repository, model]
    clone = Path(clones).resolve() / repository.replace("/", "+")
    if clone.is_dir():
        os.chdir(clone)
        sys.path.insert(0, str(clone))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, example, settings = build(clone)
    result = causality(network, example, **settings)
    print(f"verdict: {verdict_of(result)}")  # after what the model itself may have printed
    print(result)


def other_commit(one, clones):
    """ " (at another commit, ...)" where a clone is not at the commit of the table."""
    command = ["git", "-C", str(Path(clones) / one["repository"].replace("/", "+")), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    commit = done.stdout.strip()
    differs = not done.returncode and len(one["commit"]) == 40 and commit != one["commit"]
    return f" (at another commit, {commit[:10]})" if differs else ""


def tables():
    """Verdict -> its table in the page, as Markdown."""
    rows = {verdict: [one for one in models() if one["verdict"] == verdict] for verdict in VERDICTS}
    lines = {
        "leaks": ["| model, repository, commit, place | what | reported |", "|---|---|---|"],
        "leaks in training": ["| model, repository, commit | batch norm at | without eval() |", "|---|---|---|"],
        "causal": ["| repository, commit | models |", "|---|---|"],
    }

    def line(*texts):
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    for one in rows["leaks"]:
        where = f"{one['model']}<br>{place(one)}<br>{one['where']}"
        lines["leaks"].append(line(where, one["why"], one["reported"] or "not found"))
    for one in rows["leaks in training"]:
        at = one["where"].replace(";", "<br>")
        lines["leaks in training"].append(line(f"{one['model']}<br>{place(one)}", at, one["why"].partition("; ")[2]))
    names = {}
    for one in rows["causal"]:
        names.setdefault(place(one), []).append(one["model"])
    lines["causal"] += [line(where, "; ".join(found)) for where, found in names.items()]
    return {verdict: "\n".join(found) for verdict, found in lines.items()}


def place(one):
    """Repository and commit of a row, for a table."""
    return f"{one['repository']}, {one['commit'] if one['commit'].startswith('PyPI') else one['commit'][:10]}"


def page(text):
    """The page with its tables as models.csv has them."""
    for verdict, table in tables().items():
        start, end = f"<!-- {verdict} -->\n", f"\n<!-- end of {verdict} -->"
        before, _, rest = text.partition(start)
        text = before + start + table + end + rest.partition(end)[2]
    return text


def main():
    """Exit status 1 if a model cannot be built or its verdict is another one; 2 if there was none to check."""
    parser = argparse.ArgumentParser(prog="python tools/public_models", description="Checks published models again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the names of repositories or models")
    parser.add_argument("--clones", metavar="FOLDER", help="where the clones are, each as owner+name")
    parser.add_argument("--packages", metavar="FOLDER", help="further packages that some of the models need")
    parser.add_argument("--table", action="store_true", help="write the tables of the page")
    parser.add_argument("--one", nargs=2, metavar=("REPOSITORY", "MODEL"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.packages:
        shared.PACKAGES = Path(asked.packages).resolve()
        sys.path.insert(0, str(shared.PACKAGES))
    if asked.table:
        path = HERE.parent.parent / "labnotes" / "public_models.md"
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
        return 0
    if not asked.clones:
        parser.error("say where the clones are: --clones FOLDER")
    if asked.one:
        check(*asked.one, asked.clones)
        return 0
    checked = wrong = 0
    for one in models():
        name = f"{one['repository']} {one['model']}"
        there = (Path(asked.clones) / one["repository"].replace("/", "+")).is_dir()
        if one["commit"].startswith("PyPI "):
            project = one["repository"].rpartition("/")[2]
            there = (shared.PACKAGES / f"{project}-{one['commit'].removeprefix('PyPI ')}").is_dir()
        if not there or (asked.names and not any(part in name for part in asked.names)):
            continue
        command = [sys.executable, str(HERE), "--clones", asked.clones, "--one", one["repository"], one["model"]]
        command += ["--packages", asked.packages] if asked.packages else []
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        found, _, text = done.stdout.rpartition("verdict: ")[2].partition("\n")
        checked += 1
        name += other_commit(one, asked.clones)
        if done.returncode or found != one["verdict"]:
            wrong += 1
            print(
                f"OTHER  {name}: {found or 'failed'}, not {one['verdict']}",
                text or done.stderr[-2000:],
                sep="\n",
                flush=True,
            )
        else:
            print(f"same   {name}: {found}", flush=True)
    if not checked:
        print(f"no clone of these models in {asked.clones}: they are looked for as owner+name", file=sys.stderr)
        return 2
    print(f"{checked} models checked, {checked - wrong} with the verdict of models.csv")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
