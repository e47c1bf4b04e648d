"""What keeps the series installable and its workflow in step: pinned versions, hooks, the spelling check."""

import importlib
import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import links
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
PYTHONS = [str(version) for version in WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]]
SYSTEMS = [("linux", "Linux", "posix"), ("darwin", "Darwin", "posix"), ("win32", "Windows", "nt")]
MACHINES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": name,
        "os_name": kind,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python, (system, name, kind) in itertools.product(PYTHONS, SYSTEMS)
]


DIRECT = ("requirements.txt", "tests/requirements.txt")


def requirements(*names):
    lines = [line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


def pins(*names):
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in requirements(*names)}


def installed(name, version):
    """The installed package, or None where it is absent or, as in the job with the newest, not the pinned one."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if found.version.split("+")[0] == version else None


def lines_of(found):
    """What an installed package requires. A build of torch for a GPU, other than PyPI's, brings libraries of its own,
    in versions of its own."""
    own = found.name == "torch" and found.version.partition("+")[2] not in ("", "cpu")
    return [line for line in found.requires or () if not (own and "platform_system" in line)]


def required(pinned):
    """The names that DIRECT leads to on any machine, extras included, and what each one is required by."""
    asked = [(requirement, "directly") for requirement in requirements(*DIRECT)]
    names, done = {}, set()
    for requirement, by in asked:  # grows while it is walked
        name = canonicalize_name(requirement.name)
        names.setdefault(name, by)
        found = installed(name, pinned.get(name))
        for extra in {"", *requirement.extras} if found else ():
            if (name, extra) in done:
                continue
            done.add((name, extra))
            for line in lines_of(found):
                needed = Requirement(line)
                if not needed.marker or any(needed.marker.evaluate({**m, "extra": extra}) for m in MACHINES):
                    asked.append((needed, name))
    return names


def test_requirements_and_constraints_name_one_version_of_each_package():
    for name in (*DIRECT, "constraints.txt"):
        assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in requirements(name)), name
    direct, all_pins = pins(*DIRECT), pins("constraints.txt")
    assert len(all_pins) == len(requirements("constraints.txt")) and len(direct) == len(requirements(*DIRECT))
    assert {name: all_pins.get(name) for name in direct} == direct


def test_everything_that_is_installed_is_pinned():
    pinned = pins("constraints.txt")
    assert {name: by for name, by in required(pinned).items() if name not in pinned} == {}


CUDA = [  # of the metadata of PyPI's torch 2.13.0 for Linux
    'cuda-toolkit[cublas,cudart,cufft,cufile,cupti]==13.0.3; platform_system == "Linux"',
    'cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"',
    'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"',
    'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"',
]


@pytest.mark.parametrize(
    ("version", "lines", "unpinned"),
    [
        ("2.13.0", CUDA, set()),
        ("2.13.0+cpu", [], set()),
        ("2.13.0+rocm7.1", ['pytorch-triton-rocm==3.7; platform_system == "Linux"'], set()),
        ("2.13.0+rocm7.1", ["something-new"], {"something-new"}),
        ("2.13.0", ['nvidia-new-cu13==1; platform_system == "Linux"'], {"nvidia-new-cu13"}),
    ],
)
def test_builds_of_torch_are_told_apart(monkeypatch, version, lines, unpinned):
    torch = SimpleNamespace(name="torch", version=version, requires=lines)
    distribution = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda name: torch if name == "torch" else distribution(name)
    )
    pinned = pins("constraints.txt")
    assert set(required(pinned)) - set(pinned) == unpinned


def test_what_is_pinned_installs_on_every_python():
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    for name, version in pins("constraints.txt").items():
        found = installed(name, version)
        asks = SpecifierSet((found and found.metadata.get("Requires-Python")) or "")
        assert all(asks.contains(f"{python}.0") for python in PYTHONS), f"{name} {version} asks for Python {asks}"


def test_the_hooks_are_of_the_versions_that_are_installed():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    versions = {hook["repo"].rpartition("/")[2].removesuffix("-pre-commit"): hook["rev"] for hook in hooks["repos"]}
    direct = pins(*DIRECT)
    assert versions == {name: f"v{direct[name]}" for name in ("ruff", "codespell")}


# What each part of the project may import of the others: one way, and never back. Tests may import all of it.
HOUSE = {
    "causality.py": set(),
    "support": {"support"},
    "helpers.py": {"support", "causality"},
    "pixelrnn": {"support", "helpers", "pixelrnn"},
    "notebooks": {"support", "helpers", "pixelrnn", "causality"},
    "tools": {"support", "helpers", "pixelrnn", "causality", "tools"},
}
# Of the folders of pixelrnn: data and models stand side by side, and coding on the models.
ROOMS = {"data": set(), "models": set(), "evidence": set(), "coding": {"models"}}


def code_of(place):
    """Path -> Python code, of a module, of a folder's modules, or of notebooks."""
    paths = [ROOT / place] if place.endswith(".py") else [*(ROOT / place).rglob("*.py")]
    code = {path: path.read_text(encoding="utf-8") for path in paths}
    for path in (ROOT / place).glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        code[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return code


@pytest.mark.parametrize("place", HOUSE)
def test_imports_run_one_way(place):
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    own = {"support", "helpers", "pixelrnn", "causality", "conftest"}
    code = code_of(place)
    assert code
    for path, text in code.items():
        names = {name.partition(".")[0] for name in links.imported(text)}
        reached = names & own | ({"tools"} if names & tools else set())
        assert reached <= HOUSE[place], f"{path.name} imports {reached - HOUSE[place]}"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_the_rooms_of_the_notes_run_one_way(room):
    assert {path.name for path in (ROOT / "pixelrnn").iterdir() if path.is_dir()} - {"__pycache__"} == set(ROOMS)
    for path, text in code_of(f"pixelrnn/{room}").items():
        reached = {name.split(".")[1] for name in links.imported(text) if name.startswith("pixelrnn.")}
        assert reached - {room} <= ROOMS[room], f"{path.name} imports {reached - {room} - ROOMS[room]}"


def tracked():
    """The Python files that belong to the project, as paths from its root."""
    git = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if git.returncode or not git.stdout:
        pytest.skip("this copy of the project is none of git's")
    return git.stdout.splitlines()


def test_nothing_else_stands_in_the_root():
    """A reader who opens the folder sees what to read, and what a stranger takes."""
    assert {name for name in tracked() if "/" not in name} == {"helpers.py", "causality.py", "conftest.py"}


def texts():
    """What a person reads: every page of Markdown, and the same of notebooks."""
    found = [path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *ROOT.glob("[dl]*/**/*.md"))]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        found += [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    return found


def test_modules_that_the_texts_name_are_there():
    named = {name for text in texts() for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert len(named) > 5 and named <= {*tracked()}


def test_what_the_texts_name_of_a_module_is_in_it():
    paths = [Path(name) for name in tracked() if not name.startswith(("tests/", "tools/"))]
    modules = {path.stem: ".".join(path.with_suffix("").parts) for path in paths}
    named = {pair for text in texts() for pair in re.findall(r"`([a-z_]+)\.([A-Za-z_]\w*)(?:\(.*?\))?`", text)}
    found = {(module, name) for module, name in named if module in modules and name != "py"}
    assert len(found) > 10
    assert [pair for pair in found if not hasattr(importlib.import_module(modules[pair[0]]), pair[1])] == []


def test_the_workflow_runs_what_there_is():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    targets = re.findall(r"\bmake (?:PYTHON=\S+ )?([\w-]+)", commands)
    assert {"test", "lint", "check-links"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert "macos-latest" in str(WORKFLOW) and "windows-latest" in str(WORKFLOW)


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_each_workflow_asks_for_little_ends_in_time_and_runs_what_there_is(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}  # a job that needs more says so itself
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v0"))
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert re.search(rf"^{target}:", makefile, re.M), target


def codespell(*paths):
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml"), *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("kind", ["code", "markdown"])
def test_spelling_is_checked_in_the_cells_of_notebooks_and_not_in_their_pictures(tmp_path, kind):
    misspelt = "teh"  # codespell:ignore
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[kind]
    picture = nbformat.v4.new_output("display_data", {"image/png": f"aaaa/{misspelt}+aaa/{misspelt}=\n"})
    shown = nbformat.v4.new_code_cell("plot", outputs=[picture])
    for source, mistakes in ((f"# first\n# {misspelt} second\nlast", 1), ("# the second", 0)):
        path = tmp_path / f"{mistakes}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[make(source), shown]), path)
        result = codespell(path)
        assert result.stdout.count(f"{misspelt} ==>") == mistakes and bool(result.returncode) == bool(mistakes)


def test_no_module_has_the_name_of_a_standard_one():
    """`python tools/x.py` puts tools/ first on the path, where the standard library would find it. (site is loaded
    before that; compression is new in Python 3.14.)"""
    names = {path.stem for folder in (ROOT, ROOT / "tools") for path in folder.glob("*.py")} - {"site"}
    assert not names & {*sys.stdlib_module_names, "compression"}
