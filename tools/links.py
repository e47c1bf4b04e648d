"""Puts the links that need to know where the project is published: badges for Colab and Binder in README and notebooks,
the address to clone, and the lines by which a notebook on Colab fetches the modules beside it and what Colab lacks.

    python tools/links.py name/repository      (again with another name: they are replaced)
    python tools/links.py ""                   (takes them away)
"""

import ast
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
BRANCH = "main"
COLAB = "https://colab.research.google.com/"
BINDER = "https://mybinder.org/"
NOWHERE = "git clone <this repository> && cd <its folder>"
FETCH = """import os

# Colab has this notebook alone
if "COLAB_RELEASE_TAG" in os.environ and not os.path.exists("helpers.py"):
    os.system("git clone --quiet --depth 1 https://github.com/{owner} series")
    os.chdir("series/notebooks")
{install}
"""
INSTALL = """    os.system("pip install --quiet {packages}")
"""
# Of what requirements.txt names, what notebooks on Colab do not find there.
NOT_ON_COLAB = ("constriction", "imagecodecs")


def badges(owner, path):
    """The line of badges that open a notebook (path within the project) where nothing has to be installed."""
    colab = f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]({COLAB}github/{owner}/blob/{BRANCH}/{path})"
    binder = f"[![Open in Binder]({BINDER}badge_logo.svg)]({BINDER}v2/gh/{owner}/{BRANCH}?labpath={path})"
    return f"{colab} {binder}\n\n"


def imported(text):
    """The dotted names that Python code imports: of `from a import b` both a and a.b, whichever is the module."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name}


def imports(text, seen=None):
    """The names of all modules that Python code leads to, through modules of this project."""
    seen = set() if seen is None else seen
    for name in imported(text) - seen:
        seen.add(name)
        path = ROOT / f"{name.replace('.', '/')}.py"
        if path.is_file():
            imports(path.read_text(encoding="utf-8"), seen)
    return seen


def fetching(notebook, owner):
    """The lines by which a notebook on Colab gets the modules, and the packages that Colab lacks."""
    found = imports("\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    packages = [re.search(rf"(?m)^{name}==\S+", pins)[0] for name in NOT_ON_COLAB if name in found]
    return FETCH.format(owner=owner, install=INSTALL.format(packages=" ".join(packages)) if packages else "")


def owner(root=ROOT):
    """The repository that was set last, "name/repository", or "" where the project is published nowhere."""
    found = re.search(r"git clone https://github\.com/(\S+) && cd", (root / "README.md").read_text(encoding="utf-8"))
    return found[1] if found else ""


def without_badges(text):
    return re.sub(r"\[!\[Open in Colab\].*\n\n", "", text)


def set_in_readme(path, owner, first):
    """Badges of the first notebook above the first paragraph, and the command that clones."""
    text = without_badges(path.read_text(encoding="utf-8"))
    clone = f"git clone https://github.com/{owner} && cd {owner.split('/')[-1]}" if owner else NOWHERE
    text = re.sub(r"git clone .* && cd .*", lambda _: clone, text, count=1)
    title, rest = text.split("\n\n", 1)
    path.write_text(f"{title}\n\n{badges(owner, first) if owner else ''}{rest}", encoding="utf-8")


def set_in_notebook(path, owner, place):
    """Badges above its title, and what fetches the modules in its first code cell; the outputs stay valid."""
    notebook = nbformat.read(path, as_version=4)
    top, first = notebook.cells[0], next(cell for cell in notebook.cells if cell.cell_type == "code")
    top.source = (badges(owner, place) if owner else "") + without_badges(top.source)
    lines = re.escape(FETCH).replace(re.escape("{owner}"), r"\S+").replace(re.escape("{install}"), "(    .*\n)?")
    first.source = re.sub(lines, "", first.source)
    first.source = (fetching(notebook, owner) if owner else "") + first.source
    nbformat.write(notebook, path)


def main(owner, root=ROOT):
    if owner and not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", owner):
        sys.exit(f"OWNER is the name of a GitHub repository, e.g. OWNER=someone/pixelrnn, not {owner!r}.")
    notebooks = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    set_in_readme(root / "README.md", owner, f"notebooks/{notebooks[0].name}")
    for path in notebooks:
        set_in_notebook(path, owner, f"notebooks/{path.name}")


if __name__ == "__main__":
    main(sys.argv[1])
