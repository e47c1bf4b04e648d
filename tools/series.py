"""Runs the notebooks, two at a time: `make notebooks` (into build/), `make reference` (the stored loss curves),
`make stored` (refreshes the outputs that the notebooks carry).

    python tools/series.py run [--notebook 02] [--image path/to/mine.png]
    python tools/series.py reference [--notebook 02]
    python tools/series.py stored [--notebook 02]
"""

import argparse
import asyncio
import base64
import contextlib
import copy
import html
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import environment
import latex2mathml.converter
import nbclient
import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
REFERENCE_SEEDS = [100, 101, 102, 103, 104]  # none of them a notebook's own, so that a curve is never its own reference
LOG_EVERY = 30  # seconds between two lines on what is running, where nobody watches

SILENT = logging.getLogger("series.silent")  # what goes wrong in a kernel is raised, and said once
SILENT.disabled = True


# --- Which notebooks, with which parameters ---------------------------------------------------------------------------


def is_code(cell):
    """Whether a cell is executed, and counted."""
    return cell.cell_type == "code" and bool(cell.source.strip())


@dataclass
class Run:
    """One notebook on its way: what is shown of it meanwhile, and what is left of it in the end."""

    path: Path
    notebook: nbformat.NotebookNode
    place: str  # in the series, as printed
    cell: int = 0  # the code cell it is in, counted from 1
    started: float | None = None
    ended: bool = False
    failure: str | None = None

    @property
    def code(self):
        """The cells that are executed, in order: cell number n is the one with execution count n."""
        return [cell for cell in self.notebook.cells if is_code(cell)]

    @property
    def running(self):
        return self.started is not None and not self.ended

    def __str__(self):
        where = f"cell {self.cell}/{len(self.code)}" if self.cell else "starting"
        return f"{where}, {time.perf_counter() - self.started:.0f} s"


def chosen(prefix):
    """The notebooks in order, or those whose name begins with `prefix`."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in paths if path.name.startswith(prefix)]
    if not found:
        there = ", ".join(path.stem for path in paths) or f"none in {NOTEBOOKS}"
        sys.exit(f"No notebook begins with {prefix!r}. There are: {there}.")
    return found


def load(path):
    """A notebook; the reader learns which one is damaged, before any is run."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds: no JSON, no notebook, a version that it does not know
        sys.exit(f"{path.name} cannot be read as a notebook: {error}")


def planned(notebooks):
    """A run for each notebook."""
    return [Run(path, load(path), f"[{number}/{len(notebooks)}]") for number, path in enumerate(notebooks, 1)]


def parameters_cell(notebook):
    """The index of the cell tagged `parameters`, or -1."""
    return next((i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())), -1)


def takes(notebook, name):
    """Whether `name` is one of a notebook's parameters."""
    index = parameters_cell(notebook)
    return index >= 0 and re.search(rf"^{name}\b", notebook.cells[index].source, re.MULTILINE) is not None


def set_parameters(runs, parameters):
    """Sets parameters (name -> value) of all runs, each in a new cell below the notebook's own."""
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    for run in runs if parameters else ():
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
        run.notebook.cells.insert(parameters_cell(run.notebook) + 1, cell)


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def claims_of(notebook):
    """The rows of a notebook's table of claims, with the exact numbers of that run."""
    return [row for output in outputs_of(notebook) for row in output.get("metadata", {}).get("claims", ())]


# --- Running them -----------------------------------------------------------------------------------------------------


def usable_cores():
    """How many cores this process may use."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show(text, end="\n"):
    """Print a line; in a terminal it takes the place of the status line, which is one that ends in nothing."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns - 1
        text = f"\r{text if end else text[:columns]:<{columns}}"
    print(text, end=end, flush=True)


async def show_progress(runs):
    """A status line for those who watch; for a log, a line for each running notebook now and then."""
    while True:
        await asyncio.sleep(1 if sys.stdout.isatty() else LOG_EVERY)
        running = [run for run in runs if run.running]
        if sys.stdout.isatty():
            show("   ".join(f"{run.path.stem[:2]}: {run}" for run in running), end="")
        else:
            for run in running:
                show(f"{run.place} {run.path.stem} {run}")


async def execute_cells(run, inherited):
    """Execute all cells in a kernel of their own, which is gone afterwards, whatever happens."""
    client = nbclient.NotebookClient(
        run.notebook,
        kernel_name="python3",
        timeout=None,
        iopub_timeout=60,  # on a busy machine outputs come late, and none may be missing in silence
        raise_on_iopub_timeout=True,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        extra_arguments=["--log-level=ERROR"],  # a kernel's start is nobody's news
        log=SILENT,
    )
    # Not client.execute(): it sets signal handlers of its own, of which two at a time would get into each other's way.
    try:
        await start_kernel(client, inherited)
        for index, cell in enumerate(run.notebook.cells):
            if is_code(cell):
                run.cell += 1
                await client.async_execute_cell(cell, index, execution_count=run.cell)
    finally:
        await stop_kernel(client)


async def start_kernel(client, inherited, tries=3):
    """Start the kernel. Its ports are free when they are chosen, and another program may take one before the kernel
    does; it then dies at once, and is started anew with other ports."""
    for left in reversed(range(tries)):
        client.km = client.create_kernel_manager()
        try:
            await client.async_start_new_kernel(env=inherited)
            await client.async_start_new_kernel_client()
            return
        except RuntimeError:  # "Kernel died before replying to kernel_info"
            if not left:
                raise
            await stop_kernel(client)


async def stop_kernel(client):
    if client.kc is not None:
        client.kc.stop_channels()
    if client.km is not None and client.km.has_kernel:
        await client.km.shutdown_kernel(now=True)


def failure_of(run, error):
    """What went wrong, in words with notebook and cell, or None.

    error: what executing the cells raised, or None. A figure that cannot be shown leaves an error among the outputs
        of a cell that passes.
    """
    for number, cell in enumerate(run.code, 1):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", ()):
                return f"{run.path.name}, cell {number} ({cell.id}): {output.ename}: {' '.join(output.evalue.split())}"
    if error is None:
        return None
    if isinstance(error, nbclient.exceptions.DeadKernelError):
        error = "its kernel died (out of memory, or a crash)"
    else:
        error = f"{type(error).__name__}: {error}"
    where = f", cell {run.cell} ({run.code[run.cell - 1].id})" if run.cell else ""
    return f"{run.path.name}{where}: {error}"


async def execute_one(run, slots, inherited, keep):
    """Run one notebook top to bottom when there is a slot for it, and hand it to `keep`."""
    async with slots:
        run.started, error = time.perf_counter(), None
        show(f"{run.place} {run.path.stem} ...")
        for cell in run.code:  # what the notebook carries is of another run
            cell.outputs, cell.execution_count = [], None
        try:
            await execute_cells(run, inherited)
        except Exception as raised:
            if asyncio.current_task().cancelling():  # nbclient takes every cancellation for a kernel's death
                raise asyncio.CancelledError from None
            error = raised
        run.failure = failure_of(run, error)
        try:
            keep(run)
        except Exception as raised:  # a full disk, a page that cannot be made: the table is not lost with it
            run.failure = run.failure or f"{run.path.name}, what it leaves cannot be written: {raised}"
        run.ended = True
        state = "FAILED" if run.failure else "done"
        show(f"{run.place} {run.path.stem} {state} after {time.perf_counter() - run.started:.0f} s")


async def execute_all(runs, at_a_time, keep):
    inherited = environment.shielded(os.environ)
    if at_a_time > 1:
        inherited.setdefault("OMP_NUM_THREADS", "1")  # each has its core
        # The longest first, as the outputs that they carry tell, so that none is left alone at the end.
        runs = sorted(runs, key=lambda run: -sum(row["seconds"] for row in claims_of(run.notebook)))
    slots = asyncio.Semaphore(at_a_time)
    progress = asyncio.create_task(show_progress(runs))
    try:
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(execute_one(run, slots, inherited, keep))
    finally:
        progress.cancel()


def execute(runs, keep):
    """Run notebooks, as many at a time as there are cores, at most two; keep(run) is called as each of them ends.

    Ctrl-C ends it: runs that have not ended are then left as they are.
    """
    at_a_time = max(1, min(2, usable_cores(), len(runs)))
    # A selector loop, since the kernels' sockets do not work with the one that Windows has by default.
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(execute_all(runs, at_a_time, keep))


def conclude(runs):
    """Print what failed and what was left out. Returns how many failed; KeyboardInterrupt if it had been stopped."""
    for run in runs:
        if run.failure:
            print(f"FAILED: {run.failure}")
    left = [run for run in runs if not run.ended]
    if left:
        print(f"Stopped. Left out: {', '.join(run.path.stem for run in left)}.", flush=True)
        raise KeyboardInterrupt
    return sum(run.failure is not None for run in runs)


# --- What is left of them ---------------------------------------------------------------------------------------------


def make_build():
    """The folder build/, or the end."""
    with contextlib.suppress(OSError):  # said below
        BUILD.mkdir(exist_ok=True)
    check_writable(BUILD)


def check_writable(folder):
    """The end where a folder cannot be written: what cannot be kept is not computed."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        sys.exit(
            f"{folder} cannot be written: {error.strerror}. It must be a folder that you may write to, with space left."
        )


def write(notebook, path):
    """Write a notebook whole, or leave the old one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    nbformat.write(notebook, unfinished)
    os.replace(unfinished, path)


# What display.show_code shows is Markdown, which the exporter sets in the letters of text, and wraps; printed lines
# are broken within words; a long formula is wider than a phone.
STYLE = """
.jp-RenderedMarkdown pre {font: 13px monospace; white-space: pre; overflow-x: auto}
.jp-RenderedText pre {word-break: normal; overflow-wrap: anywhere}
.formula {overflow-x: auto; overflow-y: hidden; margin: 1em 0}
"""


def with_formulas(markdown):
    """Markdown whose TeX has become MathML, which browsers show with no script from the network; code is as it was."""

    def formula(found):
        code, block, inline = found.groups()
        if code:
            return code
        tex = (block or inline).replace("{aligned}", "{align*}")  # the name that latex2mathml knows
        if inline:
            return latex2mathml.converter.convert(tex)
        return f'<div class="formula">{latex2mathml.converter.convert(tex, display="block")}</div>'

    return re.sub(r"(?s)(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", formula, markdown)


def write_page_and_plots(notebook, stem):
    """An HTML page of an executed notebook, and each of its figures under the id of the cell that drew it."""
    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    page, _ = HTMLExporter().from_notebook_node(shown, {"metadata": {"name": stem}})
    # The exporter says of every figure that it has no description, where display.show_figure has given it one.
    figures = [output.get("metadata", {}) for output in outputs_of(notebook) if "image/png" in output.get("data", {})]
    said = iter([metadata.get("image/png", {}).get("alt", "") for metadata in figures])
    page = re.sub(r'alt="No description[^"]*"', lambda none: f'alt="{html.escape(next(said, ""))}"', page)
    page = page.replace("</head>", f"<style>{STYLE}</style></head>", 1)
    (BUILD / f"{stem}.html").write_text(page, encoding="utf-8")
    plots = BUILD / "plots" / stem
    shutil.rmtree(plots, ignore_errors=True)
    plots.mkdir(parents=True, exist_ok=True)
    for cell in notebook.cells:
        pictures = [
            output.data["image/png"] for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
        ]
        for number, picture in enumerate(pictures, 1):
            name = cell.id if len(pictures) == 1 else f"{cell.id}-{number}"
            (plots / f"{name}.png").write_bytes(base64.b64decode(picture))


def picture(image):
    """A picture as the notebooks' parameter IMAGE: a bundled name or a whole path. A wrong one ends it all, at once."""
    import helpers
    from support import (
        checks,  # only here: the notebooks import torch in their own processes
        photographs,
    )

    try:
        helpers.load_picture(image)
    except checks.LabError as error:
        sys.exit(str(error))
    return image if image in photographs.BUNDLED else str(Path(image).expanduser().resolve())


def run(notebooks, image):
    """Run the series into build/ and print their results. Returns how many notebooks failed."""
    parameters = {} if image is None else {"IMAGE": picture(image)}
    make_build()
    runs = []
    for each in planned(notebooks):
        if image is not None and not takes(each.notebook, "IMAGE"):
            print(f"{each.place} {each.path.stem} learns from many pictures and takes none of yours: left out")
        else:
            runs.append(each)
    set_parameters(runs, parameters)

    def keep(run):
        write(run.notebook, BUILD / run.path.name)
        write_page_and_plots(run.notebook, run.path.stem)

    execute(runs, keep)
    print()
    print_table([(run.path.stem[:2], row) for run in runs if run.ended for row in claims_of(run.notebook)])
    if any(run.ended for run in runs):
        print(f"\nExecuted notebooks, pages and plots are in {BUILD.name}/.")
    return conclude(runs)


def print_table(rows):
    """Each result with this run's numbers, the bound they must meet, the baselines, and the seconds it took."""
    from pixelrnn.evidence import results  # only here, as above

    lines = [("note", "result", "this run", "must be", "baseline", "seconds")]
    for note, row in rows:
        lines.append((note, *results.in_words(row), str(row["seconds"])))
    lines.insert(1, tuple("-" * max(map(len, column)) for column in zip(*lines, strict=True)))
    for line in lines:
        print("  ".join(f"{cell:<{len(rule)}}" for cell, rule in zip(line, lines[1], strict=True)).rstrip())


def reference(notebooks):
    """Regenerate the stored loss curves: each notebook, its own recipe, five seeds that it does not use itself."""
    make_build()
    check_writable(ROOT / "data" / "reference")
    runs = planned(notebooks)
    set_parameters(runs, {"SEEDS": REFERENCE_SEEDS})
    os.environ["PIXELRNN_RECORD"] = "1"  # results.RECORD, for the kernels
    execute(runs, lambda run: write(run.notebook, BUILD / f"reference_{run.path.name}"))
    return conclude(runs)


def stored(notebooks):
    """Run the notebooks in place, so that they carry the outputs of this run, and nothing of this machine."""

    def keep(run):
        if run.failure:
            return
        run.notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        write(run.notebook, run.path)

    check_writable(NOTEBOOKS)
    runs = planned(notebooks)
    execute(runs, keep)
    return conclude(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=("run", "reference", "stored"))
    parser.add_argument("--notebook", default="", help="the number of one notebook, e.g. 02 (default: all)")
    parser.add_argument("--image", help="a picture to run the series on: a path, or the name of a bundled picture")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # our arrows, a reader's names, on a terminal without UTF-8
    notebooks = chosen(arguments.notebook)
    try:
        if arguments.command == "run":
            sys.exit(run(notebooks, arguments.image or None) > 0)
        os.environ.pop("PIXELRNN_MNIST", None)  # what is stored must not depend on what this machine has
        sys.exit({"reference": reference, "stored": stored}[arguments.command](notebooks) > 0)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell tells it


if __name__ == "__main__":
    main()
