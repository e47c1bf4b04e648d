"""What every test run shares: one thread a process, kernels that store their figures, and no notebook cell that passes
without having run to its end."""

import os
import sys
import time
from pathlib import Path
from queue import Empty
from unittest import mock

# A copy of this file, beside the few cells of a test, finds the project by the environment that it runs in.
places = (Path(__file__).parent, Path(sys.prefix).parent)
sys.path.append(str(next(place / "tools" for place in places if (place / "tools" / "environment.py").is_file())))
import environment

# Workers and kernels inherit it, and must see none of the reader's own settings.
environment.shield()
# Before numpy or torch is imported: two workers, and the notebooks' kernels they start, share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbval.kernel
import pytest
from nbval.plugin import IPyNbCell

LONG = ("test_notebooks.py", "test_page.py")  # they take longer than any notebook


def started_anew(start, tries=3):
    """nbval's `start_new_kernel`, tried again where another program took a port of the kernel's before it did."""

    def start_new_kernel(*args, **settings):
        for left in reversed(range(tries)):
            try:
                return start(*args, **settings)
            except RuntimeError:  # "Kernel died before replying to kernel_info"
                if not left:
                    raise

    return start_new_kernel


nbval.kernel.start_new_kernel = started_anew(nbval.kernel.start_new_kernel)


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one at the end: of notebooks, by what their stored
    outputs say. (xdist would begin with the files that hold the most tests; pyproject.toml keeps it from that.)"""

    def seconds(item):
        if not isinstance(item, IPyNbCell):
            return 1e6 * (item.path.name in LONG)
        outputs = [output for cell in item.parent.nb.cells for output in cell.get("outputs", ())]
        claims = [row for output in outputs for row in output.get("metadata", {}).get("claims", ())]
        return 1 + sum(row["seconds"] for row in claims)

    of_file = {}
    for item in items:
        of_file.setdefault(item.path, seconds(item))
    items.sort(key=lambda item: -of_file[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """No cell is run after one that timed out: what it finds is unfinished. (nbval would run it and excuse it.)"""
    if isinstance(item, IPyNbCell) and item.parent.timed_out:
        pytest.fail("not run: an earlier cell of this notebook timed out", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """nbval waits the whole limit for a kernel that died, and for ever for a cell that prints on when interrupted."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    kernel, get_message = item.parent.kernel, item.parent.kernel.get_message
    given_up = time.monotonic() + item.config.option.nbval_cell_timeout + item.output_timeout

    def get_message_while_alive(stream, timeout):
        end = time.monotonic() + timeout
        while not (item.parent.timed_out and time.monotonic() > given_up):
            try:
                return get_message(stream, timeout=min(timeout, 1))
            except Empty:
                if not kernel.is_alive():
                    raise RuntimeError("The kernel died while it ran this cell.") from None
                if time.monotonic() > end:
                    raise
        raise Empty

    with mock.patch.object(kernel, "get_message", get_message_while_alive):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own, which makes skips of expected failures
def pytest_runtest_makereport(item, call):
    """A cell that timed out, was skipped or was expected to fail has failed, whatever else became of it."""
    report = yield
    if not isinstance(item, IPyNbCell):
        return report
    if item.parent.timed_out and report.when == "call":
        reason = f"took longer than {item.config.option.nbval_cell_timeout:g} s and was interrupted"
    elif hasattr(report, "wasxfail"):
        reason = f"was marked as expected to fail: {report.wasxfail}"
        del report.wasxfail
    elif report.skipped:
        reason = "was skipped"
    else:
        return report
    seen = report.longrepr if isinstance(report.longrepr, str) else ""  # where it was interrupted
    cell = f"cell {item.cell_num} ({item.cell.get('id', 'no id')}) of {item.parent.path.name}"
    report.outcome, report.longrepr = "failed", f"{reason}: {cell}\n{seen}".rstrip()
    return report
