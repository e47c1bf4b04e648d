"""Sets up .venv with the pinned packages: `make setup`, and what every other target does first.

    python3 tools/setup.py            # what the notebooks need: requirements.txt
    python3 tools/setup.py --tests    # and what contributors need: tests/requirements.txt

An environment that is half made is finished; one whose Python is gone is made again. uv installs, since it takes a
fraction of pip's time and knows where torch's builds are: on Linux without an NVIDIA card the CPU build, a tenth of
what pip fetches. pip installs where its own settings, or PIP_ARGS, say where packages come from, and where uv cannot.
TORCH names another build, as `uv pip install --torch-backend` does: cpu, auto, cu130 ...
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import environment

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = {"requirements.txt": ".ready", "tests/requirements.txt": ".ready-tests"}  # file -> its mark in .venv
REMOVE = "`make clean` removes .venv; the same command then sets it up anew."
AGAIN = "type the same command again."
NVIDIA = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/nvidia-smi")
SOURCES = re.compile(r"\b(index-url|extra-index-url|find-links|no-index)=")  # in pip's settings
# Run in .venv: which of some pins are not installed there.
MISSING = """
import importlib.metadata, sys
for pin in sys.argv[1:]:
    name, version = pin.split("==")
    try:
        found = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != version:
        print(name)
"""


def run(*words, quiet=False):
    """A command in the shielded environment: its result, with what it said where it is `quiet`."""
    return subprocess.run(
        list(map(str, words)), cwd=ROOT, env=environment.shielded(os.environ), capture_output=quiet, text=quiet
    )


def works(*words):
    """Whether .venv's Python is there and does this."""
    try:
        return run(PYTHON, *words, quiet=True).returncode == 0
    except OSError:  # it is not there, or leads nowhere
        return False


def make_environment():
    """.venv with a Python that runs and has pip, or the end, with what to do."""
    if not works("-c", "import sys; sys.exit(sys.version_info < (3, 11))"):
        if VENV.is_symlink():  # what it names stays
            VENV.unlink()
        elif VENV.exists():
            if not (VENV / "pyvenv.cfg").is_file() and (VENV.is_file() or any(VENV.iterdir())):
                sys.exit(f"{VENV} is there, and is no environment of Python. Move it away, or remove it.")
            print("The Python of .venv is gone or too old: it is made again.", flush=True)
            shutil.rmtree(VENV)
        made = run(sys.executable, "-m", "venv", VENV, quiet=True)
        if made.returncode and not works("-c", ""):
            sys.exit(f"{made.stdout}{made.stderr}\n.venv could not be made. Once that is solved, {AGAIN}")
    if not works("-m", "pip", "--version") and not works("-m", "ensurepip"):
        venv = f"python3.{sys.version_info.minor}-venv"
        sys.exit(f".venv has no pip. On Debian and Ubuntu: `apt install {venv}`. {REMOVE}")


def build_of_torch():
    """The build that uv is asked for, or None for the one that PyPI has."""
    if os.environ.get("TORCH"):
        return os.environ["TORCH"]
    if sys.platform != "linux":  # elsewhere PyPI's is small
        return None
    return "auto" if shutil.which("nvidia-smi") or any(map(os.path.exists, NVIDIA)) else "cpu"


def install(files):
    """Install requirement files with their constraints, by uv or by pip; the end where neither can."""
    words = [word for file in files for word in ("-r", file)] + ["-c", "constraints.txt"]
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--no-user")
    own = shlex.split(os.environ.get("PIP_ARGS", ""))
    named = own or SOURCES.search(run(PYTHON, "-m", "pip", "config", "list", quiet=True).stdout)
    if own and os.environ.get("TORCH"):
        sys.exit("TORCH lets uv choose a build, PIP_ARGS lets pip. Give one of them.")
    build = build_of_torch()
    print(f"Installing {' and '.join(files)} into .venv (once) ...", flush=True)
    if os.environ.get("TORCH") or not named:
        backend = [f"--torch-backend={build}"] if build else []
        uv = (PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON, *backend)
        for command in ((*pip, "uv", "-c", "constraints.txt"), (*uv, *words)):
            done = run(*command, quiet=True)
            if done.returncode:
                break
        else:
            return
        print(
            f"{done.stderr.strip()}\nuv cannot install. pip tries, which on Linux may fetch torch for CUDA.", flush=True
        )
    if run(*pip, *own, *words).returncode:
        sys.exit(f"The packages could not be installed; pip says why above. Once that is solved, {AGAIN}")


def check(files):
    """The end where an installation that went well has put the packages elsewhere."""
    lines = [line.partition("#")[0].strip() for file in files for line in (ROOT / file).read_text("utf-8").splitlines()]
    missing = run(PYTHON, "-c", MISSING, *filter(None, lines), quiet=True).stdout.split()
    if missing:
        advice = "Do `pip config list` or PIP_ARGS name a target, prefix, root or dry run? Take that away."
        sys.exit(f"The installation ended well, but .venv has no {', '.join(missing)}. {advice}")


def main(words):
    files = list(READY) if "--tests" in words else ["requirements.txt"]
    try:
        make_environment()
        install(files)
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on.")
    check(files)
    for file in files:  # last, so that an interrupted installation is taken up again
        (VENV / READY[file]).touch()


if __name__ == "__main__":
    main(sys.argv[1:])
