"""The series as a site: `make site` writes build/site/ from the stored notebooks and lab notes, `make site-open` serves
it on this machine. Nothing is executed, and no network is needed.

    python tools/site.py build
    python tools/site.py open [--port 8000]

Sphinx's own sources (settings, styles, scripts) are in site/. The pages that `make notebooks` leaves in build/ do not
come from here: each is written when its notebook ends, and is one file, whole by itself.
"""

import argparse
import contextlib
import functools
import http.server
import importlib.util
import io
import logging
import os
import posixpath
import re
import shutil
import sys
import tempfile
import webbrowser
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import links
import nbformat

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where the modules are
from support import checks, files

OUT = ROOT / "build" / "site"
SOURCES = ROOT / "site"
PORT = 8000
KINDS = "markdown", "code"  # of cells
DOWNLOADS = "download"  # a folder, which Sphinx does not read
# Pages that are neither notes nor the front page, in the order of the menus.
FIRST = ("labnotes/usage.md", "labnotes/causality.md", "labnotes/public_models.md")
OTHERS = (
    "labnotes/answers.md",
    "labnotes/appendix.md",
    "labnotes/benchmarks.md",
    "labnotes/machines.md",
    "data/README.md",
    "data/weights/README.md",
)


# --- The text of a page -----------------------------------------------------------------------------------------------


def without_pictures_of_badges(text):
    """Badges for Colab and Binder, which `make links` sets, as words: their pictures come from other hosts."""
    badges = re.sub(r"\[!\[(Open in \w+)\]\([^)]*\)\]\(([^)]*)\)", r"[\1](\2)", text)
    return re.sub(r"(\[Open in Colab\]\([^)]*\)) (?=\[Open in Binder)", r"\1 · ", badges)


def with_links(text, place, pages, root, owner):
    """Markdown whose links lead to pages of the site; code is as it was.

    place: the page's path within the project, e.g. "labnotes/machines.md".
    pages: the paths of all pages of the site.
    owner: the GitHub repository that holds the project's other files; "" where nobody has said, and a link to such a
        file then becomes its words. A link to no file at all stays, and Sphinx says so.
    """

    def link(found):
        code, words, target = found.groups()
        address = urlsplit(target or "")
        if code or address.scheme or not address.path:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), unquote(address.path)))
        if path == "README.md":
            return f"[{words}]({posixpath.relpath('index.md', posixpath.dirname(place) or '.')})"
        if path in pages or not (root / path).exists():
            return found[0]
        return f"[{words}](https://github.com/{owner}/blob/{links.BRANCH}/{path})" if owner else words

    words = r"(?:[^\[\]`]|`[^`\n]*`)*"
    return re.sub(rf"(?s)(```.*?```|`[^`\n]*`)|(?<!!)\[({words})\]\(([^)\s]+)\)", link, text)


def title_first(text, source):
    """The line of links of a notebook below its title, where a lab note has it; `source` is a link to add, or ""."""
    title = re.search(r"(?m)^# .+$", text)
    if title is None:
        return text
    above, below = text[: title.start()].strip(), text[title.end() :].strip()
    line = [part for part in (*above.split("\n\n"), source) if part]
    return "\n\n".join(part for part in (title[0], " · ".join(line), below) if part)


def as_page(text, place, pages, root, owner, *also):
    """The Markdown of a page, or of the first cell of one, as the site has it; also: the end of its line of links."""
    source = [f"[source](https://github.com/{owner}/blob/{links.BRANCH}/{place})"] if owner else []
    source = " · ".join([*source, *also])
    return title_first(with_links(without_pictures_of_badges(text), place, pages, root, owner), source)


# --- The front page ---------------------------------------------------------------------------------------------------


def menu(caption, pages):
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def card(row, root):
    """A row of README's table of the series as a card, its picture above its words."""
    note, question, answer = (cell.strip() for cell in row.strip().strip("|").split(" | "))
    picture, rest = note.split("<br>", 1)
    found = re.fullmatch(r'\[<img src="(?P<file>[^"]+)" .*?alt="(?P<alt>[^"]*)">\]\((?P<target>[^)]+)\)', picture)
    lines = [rest, f"**{question}**", answer]
    if (root / found["file"]).exists():
        lines.insert(0, f"[![{found['alt']}]({found['file']})]({found['target']})")
    else:  # a note is written before its picture is
        print(f"{found['file']} is not there yet: its note stands on the front page without a picture.")
    return "\n\n".join((":::{container} card", *lines, ":::"))


def front_page(readme, root):
    """The front page: README, whose table of the series is turned into cards."""
    rows = re.findall(r"(?m)^\| \[<img .*$", readme)
    if not rows:
        raise checks.LabError("README.md has no table with a row for each note, which the site shows.")
    cards = "\n\n".join(("::::{container} cards", *(card(row, root) for row in rows), "::::\n"))
    above, below = re.split(r"(?m)(?:^\|.*\n)+", readme, maxsplit=1)
    head, heading, rest = above.partition("\n## ")
    drawing = '\n<p class="draw"><a href="draw/index.html">Draw something, and a model finishes it</a></p>\n'
    if (root / "site" / "draw").is_dir():
        picture = r"(?m)^\[?(!\[.*\]\(labnotes/draw\.png\))(\]\(.*\))?$"
        head = re.sub(picture, r'<a href="draw/index.html">\1</a>', head) + drawing
    return "".join([head, heading, rest, cards, below, "\n"])


# --- A notebook -------------------------------------------------------------------------------------------------------


def with_menu_and_folds(notebook, note):
    """The lab note of a notebook becomes a page below it in the menu; its first code, which imports, is folded."""
    first = {kind: next((cell for cell in notebook.cells if cell.cell_type == kind), None) for kind in KINDS}
    if first["markdown"] is not None and note:
        first["markdown"].source += f"\n\n```{{toctree}}\n:hidden:\n\nThe same on one page </{note}>\n```"
    if first["code"] is not None and "import " in first["code"].source and not first["code"].outputs:
        first["code"].metadata["tags"] = [*first["code"].metadata.get("tags", []), "hide-input"]
    return notebook


def without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return notebook


# --- Building ---------------------------------------------------------------------------------------------------------


def read(path):
    """The text of a page of the project."""
    with files.reading(path, "A page of the series") as path:
        return path.read_text(encoding="utf-8")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def prepare(root, scratch):
    """Write into `scratch` what Sphinx reads: the pages in the folders that they have in the project."""
    stored = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not stored:
        raise checks.LabError(f"There are no notebooks in {root / 'notebooks'}, of which the site is made.")
    owner = links.owner(root)
    notes = [path.relative_to(root).as_posix() for path in sorted((root / "labnotes").glob("[0-9][0-9]_*.md"))]
    first, others = ([place for place in places if (root / place).exists()] for places in (FIRST, OTHERS))
    index = [place for place in ["labnotes/README.md"] if (root / place).exists()]
    pages = {f"notebooks/{path.name}" for path in stored} | {*notes, *first, *others, *index, "index.md"}
    numbers = {Path(place).name[:2]: place.removesuffix(".md") for place in notes}
    for path in stored:
        with files.reading(path, "A notebook"):
            notebook = nbformat.read(path, as_version=4)
        place = f"notebooks/{path.name}"
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
        for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "markdown"):
            settings = () if number else (f"{{download}}`notebook without outputs <{DOWNLOADS}/{path.name}>`",)
            change = with_links if number else as_page
            cell.source = change(cell.source, place, pages, root, owner, *settings)
        write(scratch / place, nbformat.writes(with_menu_and_folds(notebook, numbers.get(path.name[:2]))))
        write(scratch / "notebooks" / DOWNLOADS / path.name, nbformat.writes(without_outputs(path)))
    for place in (*notes, *first, *others, *index):
        write(scratch / place, as_page(read(root / place), place, pages, root, owner))
    for picture in (root / "labnotes").glob("*.png"):
        shutil.copy(picture, scratch / "labnotes")
    front = front_page(without_pictures_of_badges(read(root / "README.md")), root)
    menus = [
        menu("Start", [place.removesuffix(".md") for place in first]),
        menu("Notes", [f"notebooks/{path.stem}" for path in stored]),
        menu("More", [place.removesuffix(".md") for place in (*index, *others)]),
    ]
    source = f"[source](https://github.com/{owner})\n\n" if owner else ""
    write(scratch / "index.md", with_links(front, "index.md", pages, root, owner) + source + "\n".join(menus))


def sphinx(scratch, out, doctrees, **settings):
    """Let Sphinx write the site; what it warns of (a link that leads nowhere, above all) is an error."""
    from sphinx.application import Sphinx  # only here: `open` does not need it, and it takes its time
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    try:
        with patch_docutils(SOURCES), docutils_namespace():
            Sphinx(scratch, SOURCES, out, doctrees, "html", settings, status=None, warning=warnings).build()
    except SphinxError as error:
        warnings.write(str(error))
    said = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(f"{scratch}{os.sep}", "").strip()
    if said:
        raise checks.LabError(f"The site is left as it was. Sphinx says what is wrong with its pages:\n{said}")


def add_font(site):
    """A font for formulas (STIX Two Math, SIL Open Font Licence, as ziamath carries it), of the signs that are used."""
    from fontTools import subset  # only here, as Sphinx
    from fontTools.ttLib import TTFont

    formulas = re.compile(r"(?s)<math.*?</math>")
    pages = (path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    signs = {sign for text in pages for formula in formulas.findall(text) for sign in unescape(formula)}
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    options = subset.Options(layout_features=["*"], notdef_outline=True)
    chosen = subset.Subsetter(options)
    chosen.populate(text="".join(sorted(signs)))
    folder = Path(importlib.util.find_spec("ziamath").origin).parent / "fonts"
    with TTFont(folder / "STIXTwoMath-Regular.ttf", recalcTimestamp=False) as font:  # the same at each build
        chosen.subset(font)
        font.flavor = "woff"
        font.save(site / "_static" / "mathematics.woff")


def address(owner):
    """Where the workflow publishes the site, "" where nobody has said."""
    user, _, name = owner.partition("/")
    return f"https://{user.lower()}.github.io/{name}/" if owner else ""


def add_drawing(sources, folder, address=""):
    """The page on which a model finishes a drawing, if the project has it: built by tools/page.py, which adds the
    weights to its scripts; a page that needs no building is copied."""
    if not sources.is_dir():
        return
    try:
        import page  # only here: it takes torch, and not every project has it
    except ModuleNotFoundError as error:
        if error.name != "page":
            raise
        shutil.copytree(sources, folder)
    else:
        page.build(folder, sources)
    for path in folder.glob("*.html"):  # only here is there a series to lead back to
        text = path.read_text(encoding="utf-8")
        text = text.replace('<a href="../index.html" hidden>', '<a href="../index.html">')
        path.write_text(text.replace('content="../_static/', f'content="{address or "../"}_static/'), encoding="utf-8")


def build(root=ROOT, out=OUT):
    """Write the site of the project in the folder `root` into the folder `out`, in place of the one that is there.

    Raises checks.LabError, and leaves the old site, where there are no notebooks, a page leads nowhere, or the folder
    cannot be written.
    """
    root, out = Path(root), Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as place:
            place = Path(place).resolve()
            prepare(root, place / "pages")
            published = address(links.owner(root))
            known = {"ogp_site_url": published, "html_context": {"drawing": (root / "site" / "draw").is_dir()}}
            sphinx(place / "pages", place / "site", place / "doctrees", **known)
            add_font(place / "site")
            add_drawing(root / "site" / "draw", place / "site" / "draw", published)
            (place / "site" / ".nojekyll").touch()  # GitHub Pages would leave out folders such as _static
            for left in ("objects.inv", ".buildinfo"):  # for other Sphinx projects, and for Sphinx itself
                (place / "site" / left).unlink(missing_ok=True)
            if out.exists():
                os.replace(out, place / "old")
            os.replace(place / "site", out)
    except OSError as error:
        advice = "It must lie in a folder that you may write to, with space left."
        raise checks.LabError(f"{out} cannot be written: {error}. {advice}") from error


# --- Serving ----------------------------------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site, in silence."""

    protocol_version = "HTTP/1.1"  # one connection for many files

    # Not by this machine's own list of types, which on Windows may call a script plain text.
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript",
        ".css": "text/css",
        ".svg": "image/svg+xml",
        ".wasm": "application/wasm",
    }

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """A server whose port is its own: Windows would lend it to a second one."""

    allow_reuse_address = os.name != "nt"

    def handle_error(self, request, client_address):
        """A browser that hangs up is nobody's news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(port=PORT, out=OUT):
    """A server of the site on this machine alone; port 0 is any that is free. Raises checks.LabError."""
    if not (Path(out) / "index.html").exists():
        raise checks.LabError(f"There is no site in {out} yet. `make site` builds it.")
    try:
        return Server(("127.0.0.1", port), functools.partial(Handler, directory=str(out)))
    except OSError as error:
        advice = f"Name another one: make site-open PORT={port + 1 if port < 65535 else PORT}"
        raise checks.LabError(f"Port {port} cannot be used: {error.strerror or error}. {advice}") from error


def port_of(text):
    """A port from what a reader wrote; an empty text is the usual one. Raises checks.LabError."""
    if not text:
        return PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise checks.LabError(f"PORT must be a whole number from 0 to 65535, not {text!r}.")
    return int(text)


def serve(port):
    """Serve the site, and show it, until Ctrl-C."""
    with server(port) as serving, contextlib.suppress(KeyboardInterrupt):
        address = f"http://127.0.0.1:{serving.server_address[1]}/"
        print(f"The site is at {address} (Ctrl-C ends it).", flush=True)
        webbrowser.open(address)
        serving.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=("build", "open"))
    parser.add_argument("--port", default="", help=f"of the server on this machine (default: {PORT})")
    arguments = parser.parse_args()
    with checks.ended_in_words():
        if arguments.command == "open":
            serve(port_of(arguments.port))
        else:
            build()
            size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file()) / 1e6
            print(f"The site is in {OUT.relative_to(ROOT)}/ ({size:.1f} MB). `make site-open` shows it.")


if __name__ == "__main__":
    main()
