"""The set-up finishes what is half made and says what to do, and a run sees nothing of the reader's own settings."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import environment
import nbformat
import pytest
import series
import setup

READERS = {  # what people have in their shells, and what breaks a run
    "IPYTHONDIR": "mine",
    "JUPYTER_PATH": "mine",
    "LC_ALL": "tr_TR.UTF-8",
    "MATPLOTLIBRC": "mine",
    "MPLBACKEND": "Qt5Agg",
    "PIP_TARGET": "elsewhere",
    "PIP_USER": "yes",
    "PYTHONINSPECT": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONPATH": "mine",
    "PYTHONWARNINGS": "error",
}
KEPT = {"PIP_INDEX_URL": "https://example.org", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2", "HOME": "/home/me"}


def test_what_would_change_a_run_is_left_behind_and_the_rest_is_kept():
    seen = environment.shielded({**READERS, **KEPT})
    assert {name: seen[name] for name in KEPT} == KEPT
    assert not {name for name in READERS if seen.get(name) == READERS[name]}
    assert seen["PYTHONUTF8"] == "1" and environment.shielded(seen) == seen


def test_a_command_runs_shielded_and_prints_in_the_letters_of_its_terminal():
    tell = "import json, os, sys; print(json.dumps([dict(os.environ), sys.stdout.encoding, sys.argv, '\\u2192']))"
    command = [sys.executable, environment.__file__, "-c", tell, "a b", "$c"]
    whole = {**os.environ, **READERS, "PYTHONIOENCODING": "ascii"}
    del whole["PYTHONINSPECT"]  # of the launcher itself, which `make` starts with -E
    del whole["PYTHONPATH"]
    for name, encoding in (("ascii", "ascii"), ("utf-8", "utf-8")):
        run = subprocess.run(command, env={**whole, "PYTHONIOENCODING": name}, capture_output=True, text=True)
        seen, used, words, _ = json.loads(run.stdout)
        assert used == encoding and words[1:] == ["a b", "$c"]
        assert not {name for name in READERS if seen.get(name) == READERS[name]}


def test_kernels_of_the_series_see_no_settings_of_the_reader(tmp_path, monkeypatch):
    (tmp_path / "profile_default").mkdir()
    (tmp_path / "profile_default" / "ipython_config.py").write_text("get_config().InteractiveShell.banner1 = 1 / 0")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    for name in ("IPYTHONDIR", "MATPLOTLIBRC", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    source = "import matplotlib, locale\n"
    source += "[__debug__, matplotlib.rcParams['text.usetex'], locale.getpreferredencoding()]"
    path = series.NOTEBOOKS / "01.ipynb"
    run = series.Run(path, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), "[1/1]")
    series.execute([run], lambda run: None)
    assert run.failure is None
    assert run.notebook.cells[0].outputs[-1].data["text/plain"].lower() == "[true, false, 'utf-8']"


def test_a_project_that_may_only_be_read_has_its_folder_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "build").write_text("a file where the folder should be")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    folder = environment.no_settings()
    assert not folder.startswith(str(tmp_path)) and os.listdir(folder) == ["matplotlibrc"]


# --- The set-up -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An environment to set up, in which nothing is fetched: `asked` has the commands that would."""
    asked, run = [], setup.run

    def fake(*words, quiet=False):
        words = [str(word) for word in words]
        if "install" not in words and "config" not in words:
            return run(*words, quiet=quiet)
        asked.append(words[1:])
        said = tmp_path / "pip.conf"
        failed = "uv" in words[:3] and (tmp_path / "no uv").exists()
        return SimpleNamespace(returncode=int(failed), stdout=said.read_text() if said.exists() else "", stderr="")

    monkeypatch.setattr(setup, "PYTHON", tmp_path / ".venv" / setup.PYTHON.relative_to(setup.VENV))
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "run", fake)
    for name in ("TORCH", "PIP_ARGS"):
        monkeypatch.delenv(name, raising=False)
    return SimpleNamespace(path=tmp_path, asked=asked)


def test_a_half_made_environment_is_finished_and_one_without_python_is_made_again(place):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", setup.VENV], check=True)
    (setup.VENV / "kept").touch()
    setup.make_environment()
    assert setup.works("-m", "pip", "--version") and (setup.VENV / "kept").exists()
    if os.name != "nt":  # where there are no links
        for link in setup.PYTHON.parent.glob("python*"):
            link.unlink()
            link.symlink_to("/nowhere/python3")
        assert not setup.works("-c", "")
        setup.make_environment()
        assert setup.works("-m", "pip", "--version") and not (setup.VENV / "kept").exists()


def test_a_folder_that_is_no_environment_is_left_alone(place):
    setup.VENV.mkdir()
    (setup.VENV / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="no environment of Python"):
        setup.make_environment()
    (setup.VENV / "thesis.tex").rename(place.path / "thesis.tex")
    setup.VENV.rmdir()
    setup.VENV.write_text("a file of the reader's")
    with pytest.raises(SystemExit, match="no environment of Python"):
        setup.make_environment()
    setup.VENV.unlink()
    if os.name != "nt":
        setup.VENV.symlink_to(place.path, target_is_directory=True)
        setup.make_environment()
        assert setup.VENV.is_dir() and not setup.VENV.is_symlink()
    assert (place.path / "thesis.tex").exists()


def test_without_ensurepip_it_says_what_to_install(place, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", setup.VENV], check=True)
    monkeypatch.setattr(setup, "works", lambda *words: words[0] == "-c")
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv.*make clean"):
        setup.make_environment()


def test_nothing_is_marked_as_ready_that_is_not_there(place, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", setup.VENV], check=True)
    monkeypatch.setattr(setup, "make_environment", lambda: None)
    with pytest.raises(SystemExit, match=r"has no torch, numpy.*pip config list"):
        setup.main([])
    assert not (setup.VENV / ".ready").exists()
    monkeypatch.setattr(setup, "check", lambda files: None)
    setup.main([])
    assert (setup.VENV / ".ready").exists() and not (setup.VENV / ".ready-tests").exists()
    setup.main(["--tests"])
    assert (setup.VENV / ".ready-tests").exists() and "tests/requirements.txt" in place.asked[-1]


def test_what_is_there_is_what_was_pinned():
    setup.check(setup.READY)  # the environment of this run, in whatever build of torch


def installers(place):
    return ["uv" if words[1] == "uv" else "pip" for words in place.asked if "-r" in words]


def test_uv_takes_the_build_of_torch_that_suits_the_machine(place, monkeypatch):
    monkeypatch.setattr(setup.sys, "platform", "linux")
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup, "NVIDIA", ())
    setup.install(["requirements.txt"])
    assert installers(place) == ["uv"] and "--torch-backend=cpu" in place.asked[-1]
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    setup.install(["requirements.txt"])
    assert "--torch-backend=auto" in place.asked[-1]
    monkeypatch.setenv("TORCH", "cu130")
    setup.install(["requirements.txt"])
    assert "--torch-backend=cu130" in place.asked[-1]
    monkeypatch.delenv("TORCH")
    monkeypatch.setattr(setup.sys, "platform", "darwin")
    setup.install(["requirements.txt"])
    assert not [word for word in place.asked[-1] if "torch" in word]


def test_pip_installs_where_its_settings_say_from_where_and_where_uv_cannot(place, monkeypatch, capsys):
    (place.path / "pip.conf").write_text("global.index-url='https://example.org/simple'\n")
    setup.install(["requirements.txt"])
    (place.path / "pip.conf").write_text(":env:.timeout='180'\n")
    monkeypatch.setenv("PIP_ARGS", "--extra-index-url 'https://example.org/a b'")
    setup.install(["requirements.txt"])
    assert place.asked[-1][4:7] == ["--no-user", "--extra-index-url", "https://example.org/a b"]
    monkeypatch.delenv("PIP_ARGS")
    assert installers(place) == ["pip", "pip"]
    (place.path / "no uv").touch()
    setup.install(["requirements.txt"])
    assert installers(place)[2:] == ["uv", "pip"] and "uv cannot install" in capsys.readouterr().out
