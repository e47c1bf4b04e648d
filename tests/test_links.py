"""Every link in README, notes and notebooks leads somewhere."""

import os
import re
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import links as tool
import mistune
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for kind in ("*.md", "data/*.md", "labnotes/*.md", "notebooks/*.ipynb") for path in ROOT.glob(kind))
parse = mistune.create_markdown(renderer="ast", plugins=["table", "url"])


def markdown(path):
    """The Markdown of a page or of a notebook's cells, each parsed by itself as Jupyter does."""
    if path.suffix != ".ipynb":
        return [path.read_text(encoding="utf-8")]
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def parts(path):
    """Every part of a page, those inside other parts included. Code is not looked into."""
    found = [part for text in markdown(path) for part in parse(text)]
    for part in found:  # grows while it is walked
        found += part.get("children", ())
    return found


def links(path):
    """The addresses that a page links to or shows, also by HTML."""
    found = []
    for part in parts(path):
        if part["type"] in ("link", "image"):
            found.append(part["attrs"]["url"])
        elif part["type"] in ("block_html", "inline_html"):
            found += re.findall(r"""\b(?:href|src)\s*=\s*["']?([^"'\s>]+)""", part["raw"])
    return found


def words(part):
    return part.get("raw", "") + "".join(words(child) for child in part.get("children", ()))


def anchors(path):
    """The names under which a page's headings are linked to: GitHub's for Markdown, Jupyter's for notebooks."""
    found = []
    for part in parts(path):
        if part["type"] == "heading":
            name = words(part).strip()
            if path.suffix != ".ipynb":
                name = re.sub(r"[^\w\- ]", "", name.lower())
            name = name.replace(" ", "-")
            found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


def is_spelt_as_stored(path):
    """Whether a file exists under exactly this name: Linux tells capitals apart, macOS and Windows do not."""
    inside = path.relative_to(ROOT).parts
    return all(part in os.listdir(ROOT.joinpath(*inside[:depth])) for depth, part in enumerate(inside))


def wrong(link, page):
    """What is wrong with a link of a page, or None."""
    address = urlsplit(link)
    if address.scheme or address.netloc:
        good = address.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", address.netloc)
        return None if good else "is no https address"
    target = Path(os.path.normpath(page.parent / unquote(address.path))) if address.path else page
    if not target.is_relative_to(ROOT) or not target.exists() or not is_spelt_as_stored(target):
        return "leads to no file of the project"
    if address.fragment and unquote(address.fragment) not in anchors(target):
        return f"leads to no heading; there are {', '.join(anchors(target))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    assert {link: wrong(link, page) for link in links(page) if wrong(link, page)} == {}


PAGE = """# One: `two`, three

## Again
## Again

| a table | [good](#again-1) |
|---|---|
| ![good](labnotes/draw.png) | [good](labnotes/README.md#lab-notes "title") |

[![good](labnotes/draw.png)](https://example.org/a?b=c#d) <https://example.org> https://example.org/bare [ref][1]
`[not](a-link)` <a href="#one-two-three">good</a>

    [not](a-link)

[1]: README.md
"""


def test_links_of_every_kind_are_found(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    found = links(path)
    assert sorted(set(found)) == [
        "#again-1",
        "#one-two-three",
        "README.md",
        "https://example.org",
        "https://example.org/a?b=c#d",
        "https://example.org/bare",
        "labnotes/README.md#lab-notes",
        "labnotes/draw.png",
    ]
    assert anchors(path) == ["one-two-three", "again", "again-1"]


def test_links_that_lead_nowhere_are_found():
    page = ROOT / "README.md"
    for link in (
        "absent.md",
        "labnotes/readme.md",
        "#no-such-heading",
        "labnotes/README.md#no-such-heading",
        "../elsewhere.md",
        "/etc",
        "http://example.org",
        "https://example",
        "https:///path",
        "//example.org",
        "file:///etc/hosts",
    ):
        assert wrong(link, page), link


@pytest.fixture
def published(tmp_path):
    """A copy of README and notebooks, and what stands in it."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return tmp_path, lambda: {path.name: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.*")}


def test_links_to_where_the_project_is_published_are_put_replaced_and_taken_away(published):
    root, texts = published
    tool.main("", root)
    plain = texts()
    for owner in ("someone/pixelrnn", "another-one/series.2"):
        tool.main(owner, root)
        for name, text in texts().items():
            path = f"notebooks/{name}" if name != "README.md" else "notebooks/01_grayscale_first_try.ipynb"
            assert text.count(f"https://colab.research.google.com/github/{owner}/blob/main/{path}") == 1, name
            assert text.count(f"https://mybinder.org/v2/gh/{owner}/main?labpath={path}") == 1, name
            assert text.count(f"git clone --quiet --depth 1 https://github.com/{owner} series") == (name != "README.md")
            if name != "README.md":
                cells = nbformat.reads(text, as_version=4).cells
                lines = next(cell.source for cell in cells if cell.cell_type == "code").splitlines()
                assert len(lines) - lines.count("") <= 25 and max(map(len, lines)) <= 100  # as in every cell
        assert f"git clone https://github.com/{owner} && cd {owner.split('/')[1]}" in texts()["README.md"]
    tool.main("", root)
    assert texts() == plain


def test_a_notebook_fetches_its_modules_on_colab_alone(published, monkeypatch):
    root, _ = published
    tool.main("someone/pixelrnn", root)
    notebook = nbformat.read(root / "notebooks" / "01_grayscale_first_try.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.cell_type == "code").split("\n\nimport sys")[0]
    asked = []
    monkeypatch.setattr(os, "system", asked.append)
    monkeypatch.setattr(os, "chdir", asked.append)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    exec(source)
    assert asked == []
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    exec(source)
    assert asked == ["git clone --quiet --depth 1 https://github.com/someone/pixelrnn series", "series/notebooks"]


def test_a_notebook_installs_on_colab_what_colab_lacks(published):
    root, texts = published
    tool.main("someone/pixelrnn", root)
    installs = {name: re.findall(r"pip install --quiet ([\w.= -]+)", text) for name, text in texts().items()}
    pinned = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8")))
    wanted = {"09": [" ".join(f"{name}=={pinned[name]}" for name in tool.NOT_ON_COLAB)]}
    wanted |= {"12": [f"constriction=={pinned['constriction']}"], "13": wanted["09"]}
    assert {name[:2]: packages for name, packages in installs.items() if packages} == wanted


@pytest.mark.parametrize("owner", ["pixelrnn", "a/b/c", "https://github.com/a/b", "a b/c", "$(x)/y"])
def test_a_name_that_is_no_repository_is_told_and_changes_nothing(owner, published):
    root, texts = published
    before = texts()
    with pytest.raises(SystemExit, match="OWNER is the name of a GitHub repository"):
        tool.main(owner, root)
    assert texts() == before


def answer(link):
    """None where a page answers or only refuses programs; otherwise what is wrong with it."""
    request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (a check of links)"})
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        return str(error) if error.code in (404, 410) else None
    except OSError as error:
        return str(error)
    return None


@pytest.mark.network
def test_pages_elsewhere_answer():
    elsewhere = sorted({link for page in PAGES for link in links(page) if urlsplit(link).scheme})
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(elsewhere, pool.map(answer, elsewhere), strict=True))
    assert {link: problem for link, problem in answers.items() if problem} == {}
