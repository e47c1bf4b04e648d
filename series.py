"""Runs the notebooks: `make notebooks` (into build/), `make reference` (the stored loss curves), `make stored`
(refreshes the outputs that the notebooks carry).

    python series.py run [--notebook 02] [--image path/to/mine.png]
    python series.py reference [--notebook 02]
    python series.py stored [--notebook 02]
"""

import argparse
import base64
import os
import shutil
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import papermill
from nbconvert import HTMLExporter

ROOT = Path(__file__).parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
QUIET = ["--log-level=ERROR"]  # a kernel's start is nobody's news
REFERENCE_SEEDS = [100, 101, 102, 103, 104]  # none of them a notebook's own, so that a curve is never its own reference


def chosen(prefix):
    """The notebooks in order, or those whose name begins with `prefix`."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in paths if path.name.startswith(prefix)]
    if not found:
        sys.exit(f"No notebook begins with {prefix!r}. There are: {', '.join(path.stem for path in paths)}.")
    return found


def execute(path, output, parameters):
    """Run one notebook top to bottom into `output`. Returns None, or what went wrong, in words."""
    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters,
            cwd=str(NOTEBOOKS),
            kernel_name="python3",
            progress_bar=sys.stderr.isatty(),
            extra_arguments=QUIET,
        )
    except papermill.PapermillExecutionError as error:
        cells = nbformat.read(output, as_version=4).cells
        cell = next(c for c in cells if c.metadata.get("papermill", {}).get("exception"))
        return f"{path.name}, cell {error.exec_count} ({cell.id}): {error.ename}: {error.evalue}"
    return None


def claims_of(notebook):
    """The rows of a notebook's table of claims, with the exact figures of that run."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [row for output in outputs for row in output.get("metadata", {}).get("claims", ())]


def write_page_and_plots(notebook, stem):
    """An HTML page of an executed notebook, and each of its figures under the id of the cell that drew it."""
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": stem}})
    (BUILD / f"{stem}.html").write_text(page, encoding="utf-8")
    plots = BUILD / "plots" / stem
    shutil.rmtree(plots, ignore_errors=True)
    plots.mkdir(parents=True)
    for cell in notebook.cells:
        pictures = [
            output.data["image/png"] for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
        ]
        for number, picture in enumerate(pictures, 1):
            name = cell.id if len(pictures) == 1 else f"{cell.id}-{number}"
            (plots / f"{name}.png").write_bytes(base64.b64decode(picture))


def run(notebooks, image):
    """Run the series into build/ and print what was claimed and measured. Returns how many notebooks failed."""
    parameters = {}
    if image is not None:
        import helpers  # only here: the notebooks import torch in their own processes

        try:
            helpers.load_picture(image)  # a wrong path is said now rather than by each notebook
        except helpers.LabError as error:
            sys.exit(str(error))
        parameters["IMAGE"] = image if image in helpers.BUNDLED else str(Path(image).expanduser().resolve())
    BUILD.mkdir(exist_ok=True)
    rows, failures = [], []
    for number, path in enumerate(notebooks, 1):
        if image is not None and "IMAGE" not in papermill.inspect_notebook(str(path)):
            print(
                f"[{number}/{len(notebooks)}] {path.stem} learns from many pictures and takes none of yours: left out"
            )
            continue
        print(f"[{number}/{len(notebooks)}] {path.stem} ...", flush=True)
        started, output = time.perf_counter(), BUILD / path.name
        failure = execute(path, output, parameters)
        notebook = nbformat.read(output, as_version=4)
        write_page_and_plots(notebook, path.stem)
        rows += [(path.stem[:2], row) for row in claims_of(notebook)]
        failures += [failure] if failure else []
        state = "FAILED" if failure else "done"
        print(
            f"[{number}/{len(notebooks)}] {path.stem} {state} after {time.perf_counter() - started:.0f} s", flush=True
        )
    print_table(rows)
    print(f"\nExecuted notebooks, pages and plots are in {BUILD.name}/.")
    for failure in failures:
        print(f"FAILED: {failure}")
    return len(failures)


def print_table(rows):
    """note, claim, measured, unit, verdict, seconds: the printed measurement first, this run's figures below it."""
    head = ("note", "claim", "measured", "unit", "verdict", "seconds")
    lines = [(note, *(str(row[key]) for key in head[1:])) for note, row in rows]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    print("\n" + form.format(*head).rstrip())
    print("  ".join("-" * width for width in widths))
    for line, (_, row) in zip(lines, rows, strict=True):
        print(form.format(*line).rstrip())
        if row["figure"] is not None:
            print(f"      this run: {', '.join(str(figure) for figure in row['figure'])}")


def reference(notebooks):
    """Regenerate the stored loss curves: each notebook, its own recipe, five seeds that it does not use itself."""
    BUILD.mkdir(exist_ok=True)
    failures = []
    for path in notebooks:
        print(f"{path.stem} with seeds {REFERENCE_SEEDS} ...", flush=True)
        parameters = {"SEEDS": REFERENCE_SEEDS, "RECORD": True}
        failure = execute(path, BUILD / f"reference_{path.name}", parameters)
        failures += [failure] if failure else []
    for failure in failures:
        print(f"FAILED: {failure}")
    return len(failures)


def stored(notebooks):
    """Run the notebooks in place, so that they carry the outputs of this run, and nothing of this machine."""
    for path in notebooks:
        print(f"{path.stem} ...", flush=True)
        notebook = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOKS)}},
            record_timing=False,
            extra_arguments=QUIET,
        )
        client.execute()
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=("run", "reference", "stored"))
    parser.add_argument("--notebook", default="", help="the number of one notebook, e.g. 02 (default: all)")
    parser.add_argument("--image", help="a picture to run the series on: a path, or the name of a bundled picture")
    arguments = parser.parse_args()
    notebooks = chosen(arguments.notebook)
    if arguments.command != "run":
        os.environ.pop("PIXELRNN_MNIST", None)  # what is stored must not depend on what this machine has
    if arguments.command == "run":
        sys.exit(run(notebooks, arguments.image) > 0)
    sys.exit({"reference": reference, "stored": stored}[arguments.command](notebooks) > 0)


if __name__ == "__main__":
    main()
