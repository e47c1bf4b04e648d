"""Which of the reader's own settings a run of the series ignores, in one list for all that starts one.

    python tools/environment.py -m jupyterlab notebooks    # that command, so shielded

`make` starts everything by it. tools/series.py, conftest.py and tools/setup.py shield what they start themselves, for
those without make. Needs the standard library alone, since the set-up uses it.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DROPPED = re.compile(
    # What changes how Python runs, finds modules or prints; what only says where it keeps its own files may stay.
    r"PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$|PYCACHEPREFIX$|FAULTHANDLER$)\w*"
    r"|MPLBACKEND|JUPYTER_PATH|JUPYTER_PREFER_ENV_PATH"  # another backend, other people's kernels
    r"|LC_ALL|LANGUAGE"
    # Where pip and uv put packages, or whether. Where they fetch them from, and by which proxy, is the reader's to say.
    r"|PIP_(USER|TARGET|PREFIX|ROOT|DRY_RUN|NO_DEPS|REQUIREMENT|CONSTRAINT|EDITABLE|PYTHON|REQUIRE_HASHES)"
    r"|UV_(TARGET|PREFIX|DRY_RUN|NO_DEPS|CONSTRAINT|OVERRIDE|EXCLUDE_NEWER|SYSTEM_PYTHON|TORCH_BACKEND|OFFLINE)"
)
SET = {"PYTHONUTF8": "1"} | dict.fromkeys(("LC_COLLATE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME"), "C")


def no_settings():
    """A folder with nobody's settings: an empty matplotlibrc, and no profile of IPython yet."""
    folder = ROOT / "build" / "no_settings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "matplotlibrc").touch()
    except OSError:  # a project that may only be read
        folder = Path(tempfile.mkdtemp(prefix="no_settings_"))
        (folder / "matplotlibrc").touch()
    return str(folder)


def shielded(environment):
    """The environment of a run: `environment` without what would change its figures, outputs or packages.

    A reader's matplotlibrc may want LaTeX, an IPython profile may show figures as SVG or run a script first.
    """
    kept = {name: value for name, value in environment.items() if not DROPPED.fullmatch(name)}
    folder = no_settings()
    return kept | SET | {"IPYTHONDIR": folder, "MATPLOTLIBRC": folder}


def shield():
    """The same for this process and all that it starts; what Python has read at its own start stays."""
    changed = shielded(os.environ)
    for name in set(os.environ) - set(changed):
        del os.environ[name]
    os.environ.update(changed)


def main(words):
    # UTF-8 in files; what is printed is in the letters that this terminal has.
    changed = shielded(os.environ) | {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"}
    command = [sys.executable, *words]
    if os.name == "nt":  # where exec returns to the shell at once
        sys.exit(subprocess.run(command, env=changed).returncode)
    sys.stdout.flush()
    os.execve(sys.executable, command, changed)


if __name__ == "__main__":
    main(sys.argv[1:])
