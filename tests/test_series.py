"""The runner behind `make notebooks`, on notebooks of a few cells."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import nbformat
import nbval.kernel
import pytest
import series
from jupyter_client.connect import LocalPortCache

CLAIM = """import sys
sys.path[:0] = [{root!r}]
import matplotlib.pyplot as plt
from pixelrnn.evidence.results import Claims
claims = Claims()
claims.check("sum", 2 + 2, "{four} things", zero=0)
claims.table()
from support.display import show_figure
fig, ax = plt.subplots()
show_figure('axes, "empty"')"""

ROW = """from IPython.display import display
row = {{"result": {claim!r}, "this run": [4.0], "must be": "4 things", "baseline": {{"zero": [0]}}, "seconds": 0.1}}
display({{"text/plain": "a table"}}, raw=True, metadata={{"claims": [row]}})"""
WAIT = """import pathlib, time
for _ in range(1000):  # at most, should nobody come
    time.sleep(0.05 * (not pathlib.Path({path!r}).exists()))
assert pathlib.Path({path!r}).exists()"""


def write_notebook(path, *sources, seconds=None):
    """A notebook of a parameters cell and others, that carries a claim of so many `seconds` where they are given."""
    parameters = nbformat.v4.new_code_cell("IMAGE = None", metadata={"tags": ["parameters"]}, id="parameters")
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources, 2)]
    if seconds is not None:
        row = {"result": "stale", "this run": [], "must be": "", "baseline": {}, "seconds": seconds}
        output = nbformat.v4.new_output("display_data", {"text/plain": ""}, metadata={"claims": [row]})
        cells[-1].outputs = [output]
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, *cells]), path)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(series, "BUILD", tmp_path / "build")
    series.NOTEBOOKS.mkdir()

    def write(name, four):
        parameters = nbformat.v4.new_code_cell("IMAGE = None", metadata={"tags": ["parameters"]})
        cell = nbformat.v4.new_code_cell(CLAIM.format(root=str(series.ROOT), four=four), id="the-sum")
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell], metadata=kernel), series.NOTEBOOKS / name)

    return write


def test_leaves_notebook_page_and_plots_and_prints_the_table(folders, capsys):
    folders("01_sums.ipynb", four=4)
    before = (series.NOTEBOOKS / "01_sums.ipynb").read_bytes()
    assert series.run(series.chosen(""), None) == 0
    printed = capsys.readouterr().out
    assert "this run" in printed and re.search(r"\n01 +sum +4 +4 things +zero 0 +\d", printed)
    page = (series.BUILD / "01_sums.html").read_text(encoding="utf-8")
    assert len(page) > 1000 and 'alt="axes, &quot;empty&quot;"' in page and "No description" not in page
    assert (series.BUILD / "plots" / "01_sums" / "the-sum.png").is_file()
    assert series.claims_of(nbformat.read(series.BUILD / "01_sums.ipynb", as_version=4))[0]["this run"] == [4.0]
    assert (series.NOTEBOOKS / "01_sums.ipynb").read_bytes() == before


def test_formulas_of_a_page_need_no_network():
    source = "Cost `$x$` of $x_{<i}$, |\n\n$$\\begin{aligned} a &= \\frac{1}{N} \\\\ b &= 2 \\end{aligned}$$\n\n"
    source += "```\n$y$ $$z$$\n```"
    shown = series.with_formulas(source)
    assert shown.count("<math ") == 2 and "`$x$`" in shown and "\n$y$ $$z$$\n" in shown
    assert "<mfrac>" in shown and "aligned" not in shown and "&amp;" not in shown and "<mi>&" not in shown
    for path in sorted((series.ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                left = re.sub(r"(?s)```.*?```|`[^`]*`", "", series.with_formulas(cell.source))
                assert "$" not in left and "\\" not in left, (path.name, cell.id)


def test_a_failing_claim_is_named_with_its_notebook_cell_and_figure(folders, capsys):
    folders("01_wrong.ipynb", four=5)
    folders("02_right.ipynb", four=4)
    assert series.run(series.chosen(""), None) == 1
    printed = capsys.readouterr().out
    assert "FAILED: 01_wrong.ipynb, cell 2 (the-sum): AssertionError: sum: must be 5 things, but this run: 4" in printed
    assert "02_right done" in printed  # one failure does not hide the others


@pytest.fixture
def port_taken(monkeypatch):
    """A function: of as many kernels as it is told, the next ones, each gets a port that another program has taken."""
    find, ports = LocalPortCache.find_available_port, []
    monkeypatch.setattr(LocalPortCache, "find_available_port", lambda cache, ip: ports.pop(0)() or find(cache, ip))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        free = [lambda: None]  # of five ports that a kernel gets
        yield lambda kernels: ports.extend(([lambda: taken] + free * 4) * kernels + free * 5)


@pytest.mark.parametrize(("kernels", "failed"), [(1, 0), (3, 1)])
def test_a_kernel_whose_port_another_program_took_is_started_anew(kernels, failed, folders, port_taken, capsys):
    folders("01_right.ipynb", four=4)
    port_taken(kernels)
    assert series.run(series.chosen(""), None) == failed
    told = "FAILED: 01_right.ipynb: RuntimeError: Kernel died" if failed else "01_right done"
    assert told in capsys.readouterr().out


def test_so_is_one_of_nbval(port_taken):
    port_taken(1)
    kernel, client = nbval.kernel.start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    assert kernel.is_alive()
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_a_picture_of_ones_own_reaches_the_parameters_cell(folders, tmp_path):
    from PIL import Image

    write_notebook(series.NOTEBOOKS / "01_sums.ipynb", ROW.format(claim="sum"))
    Image.new("RGB", (20, 20)).save(tmp_path / "mine.png")
    assert series.run(series.chosen("01"), str(tmp_path / "mine.png")) == 0
    executed = nbformat.read(series.BUILD / "01_sums.ipynb", as_version=4)
    assert str(tmp_path / "mine.png") in executed.cells[1].source


def test_a_notebook_that_takes_no_picture_is_left_out(folders, capsys):
    write_notebook(series.NOTEBOOKS / "01_sums.ipynb", ROW.format(claim="sum"))
    notebook = nbformat.read(series.NOTEBOOKS / "01_sums.ipynb", as_version=4)
    notebook.cells[0].source = "SEEDS = [0]"
    nbformat.write(notebook, series.NOTEBOOKS / "02_without.ipynb")
    assert series.run(series.chosen(""), "coffee") == 0
    printed = capsys.readouterr().out
    assert "02_without learns from many pictures" in printed and "01_sums done" in printed
    assert not (series.BUILD / "02_without.ipynb").exists()


def test_says_what_is_wrong_before_running_anything(folders, tmp_path):
    folders("01_sums.ipynb", four=4)
    with pytest.raises(SystemExit, match="There is no file"):
        series.run(series.chosen(""), str(tmp_path / "none.png"))
    with pytest.raises(SystemExit, match="No notebook begins with '07'"):
        series.chosen("07")


# --- Two at a time ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(series, "usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def started(printed):
    return [line.split()[1] for line in printed.splitlines() if line.endswith(" ...")]


def test_two_run_at_a_time_and_the_table_keeps_their_order(folders, two_cores, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(series, "LOG_EVERY", 0.1)
    thread = "import os\nassert os.environ['OMP_NUM_THREADS'] == '1'"
    write_notebook(series.NOTEBOOKS / "01_waits.ipynb", WAIT.format(path=str(tmp_path / "go")), ROW.format(claim="a"))
    tell = f"import pathlib, time\ntime.sleep(0.5)\npathlib.Path({str(tmp_path / 'go')!r}).touch()"
    write_notebook(series.NOTEBOOKS / "02_tells.ipynb", thread, ROW.format(claim="b"), tell)
    assert series.run(series.chosen(""), None) == 0  # one at a time, the first would wait in vain
    printed = capsys.readouterr().out
    assert "[1/2] 01_waits cell 2/3, " in printed  # which cell it is in, for a log
    assert printed.index("01    a") < printed.index("02    b")


def test_the_longest_starts_first_and_what_it_carried_is_not_its_result(folders, two_cores, capsys):
    for name, seconds in (("01_short", 1), ("02_long", 70), ("03_longer", 90)):
        write_notebook(series.NOTEBOOKS / f"{name}.ipynb", "1 / 0", "2", seconds=seconds)
    assert series.run(series.chosen(""), None) == 3
    printed = capsys.readouterr().out
    assert started(printed) == ["03_longer", "02_long", "01_short"] and "stale" not in printed


def test_on_one_core_one_runs_at_a_time_in_order(folders, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(series, "usable_cores", lambda: 1)
    alone = (
        f"import os, time\nos.mkdir({str(tmp_path / 'busy')!r})\ntime.sleep(0.5)\nos.rmdir({str(tmp_path / 'busy')!r})"
    )
    for name, seconds in (("01_a", 1), ("02_b", 2)):
        write_notebook(series.NOTEBOOKS / f"{name}.ipynb", alone, seconds=seconds)
    assert series.run(series.chosen(""), None) == 0
    assert started(capsys.readouterr().out) == ["01_a", "02_b"]


def test_a_terminal_has_a_status_line(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    series.show("05: cell 12/29, 84 s   06: cell 3/26, 80 s", end="")
    series.show("[5/6] 05 done")
    status, line = terminal.getvalue().split("\r")[1:]
    assert status == "05: cell 12/29, 84 s   06: cell 3/26, 8"  # never wraps
    assert line == f"{'[5/6] 05 done':<39}\n"  # and is covered whole


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_dead_kernel_or_a_figure_that_is_not_drawn_fails_its_notebook_alone(folders, capsys):
    write_notebook(series.NOTEBOOKS / "01_dies.ipynb", "import os", "os._exit(1)", ROW.format(claim="never"))
    broken = "class Figure:\n    def _repr_png_(self):\n        raise ValueError('not drawn')\ndisplay(Figure())"
    write_notebook(series.NOTEBOOKS / "02_undrawn.ipynb", broken, ROW.format(claim="after it"))
    write_notebook(series.NOTEBOOKS / "03_good.ipynb", ROW.format(claim="good"))
    assert series.run(series.chosen(""), None) == 2
    printed = capsys.readouterr().out
    assert "FAILED: 01_dies.ipynb, cell 3 (cell-3): its kernel died" in printed
    assert "FAILED: 02_undrawn.ipynb, cell 2 (cell-2): ValueError: not drawn" in printed
    assert "02    after it" in printed and "03_good done" in printed and "03    good" in printed
    assert (series.BUILD / "01_dies.ipynb").is_file()  # as far as it came


def test_what_a_reader_has_set_for_other_programs_changes_nothing(folders, tmp_path, monkeypatch, capsys):
    for name, value in {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().InlineBackend.figure_formats = {'svg'}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    drawn = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nplt.show()"
    write_notebook(series.NOTEBOOKS / "01_draws.ipynb", drawn, "import warnings\nwarnings.warn('mild')", "assert False")
    assert series.run(series.chosen(""), None) == 1
    assert "FAILED: 01_draws.ipynb, cell 4 (cell-4): AssertionError" in capsys.readouterr().out
    assert (series.BUILD / "plots" / "01_draws" / "cell-2.png").is_file()


def test_a_build_folder_that_cannot_be_written(folders, capsys):
    write_notebook(series.NOTEBOOKS / "01_good.ipynb", ROW.format(claim="good"))
    series.BUILD.touch()
    with pytest.raises(SystemExit, match="build cannot be written"):
        series.run(series.chosen(""), None)
    series.BUILD.unlink()
    (series.BUILD / "01_good.html").mkdir(parents=True)  # in the place of its page
    assert series.run(series.chosen(""), None) == 1
    printed = capsys.readouterr().out
    assert "01    good" in printed  # the table is not lost with the page
    assert "FAILED: 01_good.ipynb, what it leaves cannot be written" in printed


def test_a_damaged_notebook_is_named_before_any_is_run(folders):
    write_notebook(series.NOTEBOOKS / "01_good.ipynb", "1")
    (series.NOTEBOOKS / "02_damaged.ipynb").write_text("<<<<<<< HEAD")
    with pytest.raises(SystemExit, match=r"02_damaged\.ipynb cannot be read as a notebook"):
        series.run(series.chosen(""), None)


def test_outputs_are_stored_of_notebooks_that_pass(folders, capsys):
    write_notebook(series.NOTEBOOKS / "01_fails.ipynb", "1 / 0", seconds=1)
    write_notebook(series.NOTEBOOKS / "02_passes.ipynb", "", "6 * 7", seconds=1)
    before = (series.NOTEBOOKS / "01_fails.ipynb").read_bytes()
    assert series.stored(series.chosen("")) == 1
    assert "FAILED: 01_fails.ipynb, cell 2 (cell-2): ZeroDivisionError" in capsys.readouterr().out
    assert (series.NOTEBOOKS / "01_fails.ipynb").read_bytes() == before
    last = nbformat.read(series.NOTEBOOKS / "02_passes.ipynb", as_version=4).cells[-1]
    assert last.execution_count == 2 and last.outputs[0].data["text/plain"] == "42"
    assert sorted(path.name for path in series.NOTEBOOKS.iterdir()) == ["01_fails.ipynb", "02_passes.ipynb"]


def test_reference_seeds_reach_the_notebooks(folders, monkeypatch):
    monkeypatch.setenv("PIXELRNN_RECORD", "")  # so that it is put back
    write_notebook(
        series.NOTEBOOKS / "01_records.ipynb",
        "import os\nassert os.environ['PIXELRNN_RECORD'] and len(SEEDS) == 5 and 0 not in SEEDS",
    )
    assert series.reference(series.chosen("")) == 0


@pytest.mark.skipif(os.name == "nt", reason="a signal to one process, or to a terminal's group, is POSIX")
@pytest.mark.parametrize("send", [os.kill, getattr(os, "killpg", None)], ids=["to the runner alone", "to the group"])
def test_ctrl_c_keeps_what_is_finished_and_leaves_no_kernel(tmp_path, send):
    (tmp_path / "tools").mkdir()
    for tool in (series, series.environment):
        shutil.copy(tool.__file__, tmp_path / "tools")
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "01_quick.ipynb", ROW.format(claim="row \u2192 row"))
    busy = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    write_notebook(tmp_path / "notebooks" / "02_busy.ipynb", busy)
    write_notebook(tmp_path / "notebooks" / "03_busy.ipynb", "import time\ntime.sleep(600)")
    # A test run in the background hands on that SIGINT is ignored; a person's terminal does not.
    code = "import runpy, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"sys.path.insert(0, {str(tmp_path / 'tools')!r})\n"
    code += f"runpy.run_path({str(tmp_path / 'tools' / 'series.py')!r}, run_name='__main__')"
    runner = subprocess.Popen(
        [sys.executable, "-c", code, "run"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    try:
        while "01_quick done" not in runner.stdout.readline():
            assert runner.poll() is None
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
            assert runner.poll() is None
            time.sleep(0.05)
        send(runner.pid, signal.SIGINT)
        printed, _ = runner.communicate(timeout=60)
    finally:
        runner.kill()
    assert runner.returncode == 130
    assert "01    row \\u2192 row" in printed  # in letters that this terminal has
    assert printed.endswith("Stopped. Left out: 02_busy, 03_busy.\n")
    assert (tmp_path / "build" / "01_quick.html").is_file() and not (tmp_path / "build" / "02_busy.ipynb").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- The Makefile -----------------------------------------------------------------------------------------------------

NAMES = [
    "price $1_$2.png",
    "$(shell touch executed).png",
    "`touch executed`.png",
    "$(touch executed).png",
    "${HOME}$$.png",
    'it\'s "quoted".png',
    '"; touch executed; "',
    "a; touch executed & (b) | c > d.png",
    "--help",
    "Gr\u00f6\u00dfe \u2192 \u65e5\u672c.png",
    "*?[a]#%~\\.png",
    "two\nlines",
]


@pytest.fixture
def make(tmp_path):
    """make(target, **variables): what the target's Python was given, as [words, environment]."""
    if shutil.which("make") is None or os.name == "nt":
        pytest.skip("needs make")
    place = tmp_path / "a $HOME `of` 'its' own"
    (place / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(series.ROOT / "Makefile", place)
    tell = "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))"
    (place / "tools").mkdir()
    shutil.copy(series.ROOT / "tools" / "environment.py", place / "tools")
    (place / "tools" / "series.py").write_text(tell)
    (place / "tools" / "bench.py").write_text(tell)
    (place / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"")
    (place / ".venv" / "bin" / "python").chmod(0o755)

    def make(target, by="words", **variables):
        command = ["make", "-s", "-o", ".venv/.ready", target]
        if by == "words":
            command += [f"{name}={value}" for name, value in variables.items()]
        environment = {**os.environ, **(variables if by == "environment" else {}), "MPLBACKEND": "Agg"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not (place / "executed").exists()
        return json.loads(done.stdout)

    return make


@pytest.mark.parametrize("by", ["words", "environment"])
def test_a_name_reaches_python_letter_by_letter_and_is_never_executed(make, by):
    for name in NAMES:
        assert make("notebooks", by, IMAGE=name)[0] == ["run", "--notebook=", f"--image={name}"]
        assert make("stored", by, NB=name)[0] == ["stored", f"--notebook={name}"]


def test_options_of_the_benchmark_are_split_and_never_executed(make):
    options = "--mnist 'my $HOME/mnist.npz' $(shell touch executed) `touch executed`"
    split = ["--mnist", "my $HOME/mnist.npz", "$(shell", "touch", "executed)", "`touch", "executed`"]
    assert make("bench", BENCH=options)[0] == split
    assert make("bench")[0] == []


def test_no_recipe_uses_a_launcher_which_holds_the_path_of_its_installation():
    text = (series.ROOT / "Makefile").read_text()
    assert re.findall(r"\$\(BIN\)/\S*", text) and set(re.findall(r"\$\(BIN\)/(\S*)", text)) == {"python"}


def test_every_recipe_but_the_set_up_runs_shielded():
    recipes = re.findall(r"(?m)^\t(.*)", (series.ROOT / "Makefile").read_text())
    assert {line.split()[0] for line in recipes} == {"$(RUN)", "$(SETUP)", "rm", "@awk"}


def test_make_alone_lists_every_target_and_runs_none():
    if shutil.which("make") is None or os.name == "nt":
        pytest.skip("needs make")
    said = subprocess.run(["make"], cwd=series.ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"(?m)^\.PHONY: help (.*)", (series.ROOT / "Makefile").read_text())[1].split()
    assert sorted(re.findall(r"(?m)^  make ([\w-]+) +\S.{5,}", said)) == sorted(phony)
    places = [said.index(words) for words in ("For readers", "make notebooks", "For contributors", "make lint")]
    assert places == sorted(places)
