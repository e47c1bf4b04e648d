"""The site (`make site`): every note, figure and link is there, nothing is executed, no other host is asked."""

import importlib.util
import posixpath
import re
import shutil
import socket
import sys
import threading
import types
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urlsplit

import links as linking
import nbformat
import pytest
from fontTools.ttLib import TTFont
from pygments.styles import get_style_by_name

from support import checks

ROOT = Path(__file__).parent.parent
# By its path: `import site` is a module of Python's own.
SPEC = importlib.util.spec_from_file_location("tools_site", ROOT / "tools" / "site.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

# myst-parser calls what Sphinx 11 will not have; the pins keep them together.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Check CHANGES:PendingDeprecationWarning")
NOTES = sorted([*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("labnotes/[0-9]*.md")])
KERNEL = "jupyter_client.provisioning.LocalProvisioner.launch_kernel"  # what starts any kernel on this machine


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, the names of its places, its styles, its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.styles, self.text, self.inside = [], [], "", ""
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = {attributes["id"] for _, attributes in self.tags if attributes.get("id")}
        self.styles += [attributes["style"] for _, attributes in self.tags if attributes.get("style")]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside == "style":
            self.styles.append(data)
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def pages_of(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the series, built once."""
    out = tmp_path_factory.mktemp("built") / "site"
    with mock.patch(KERNEL, side_effect=AssertionError("a kernel was started")) as started:
        tool.build(out=out)
    assert not started.called
    return out


@pytest.fixture(scope="module")
def pages(site):
    return pages_of(site)


README = """# Small

A series of one.

![Two letters](labnotes/draw.png)

With Python 3.11 or newer:

```
git clone <this repository> && cd <its folder>
```

## The series

From an article.

| Note | Question | Answer |
|---|---|---|
| [<img src="labnotes/01.png" width="160" alt="A loss that falls">](notebooks/01_one.ipynb)<br>**1** \
[notebook](notebooks/01_one.ipynb), [lab note](labnotes/01_one.md) | Why? | So. |

[All](labnotes/01_one.md)

## Contribute

See [the code](helpers.py).
"""


@pytest.fixture
def project(tmp_path):
    """A project of one note, whose notebook would fail if it were executed."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    (root / "labnotes").mkdir()
    (root / "README.md").write_text(README, encoding="utf-8")
    (root / "helpers.py").touch()
    (root / "labnotes" / "01_one.md").write_text("# One\n\n[notebook](../notebooks/01_one.ipynb)\n", encoding="utf-8")
    for name in ("01", "draw"):
        shutil.copy(ROOT / "labnotes" / "01.png", root / "labnotes" / f"{name}.png")
    text = "See [`helpers`](../helpers.py), not `[this](../helpers.py)`, $x^2$."
    top = f"[lab note](../labnotes/01_one.md)\n\n# One\n\n{text}"
    cells = [nbformat.v4.new_markdown_cell(top), nbformat.v4.new_code_cell("raise SystemExit('executed')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / "01_one.ipynb")
    return root


def test_every_note_is_there_and_in_the_menu(pages):
    menu = {link["href"] for link in pages["index.html"].all("a") if "reference internal" in link.get("class", "")}
    for path in NOTES:
        page = path.relative_to(ROOT).with_suffix(".html").as_posix()
        assert page in pages and page in menu
    assert {"labnotes/benchmarks.html", "labnotes/machines.html", "labnotes/README.html"} <= menu
    assert {"labnotes/usage.html", "labnotes/causality.html"} <= menu


def test_the_front_page_shows_the_picture_of_each_note(pages):
    shown = {picture["src"] for picture in pages["index.html"].all("img")}
    stored = {f"_images/{path.stem[:2]}.png" for path in NOTES}
    assert len(stored) > 8 and stored | {"_images/draw.png"} <= shown
    assert pages["index.html"].all("a").count({"href": "draw/index.html"}) == 2  # README's own picture leads there, too


def test_a_page_leads_to_the_next_and_the_one_before(pages):
    for note in NOTES[1:-1]:
        page = pages[note.relative_to(ROOT).with_suffix(".html").as_posix()]
        assert {"next", "prev"} <= {link.get("rel") for link in page.all("link")}, note


def is_elsewhere(address):
    return bool(urlsplit(address.strip()).netloc)


def fetched_from_elsewhere(page):
    """What a browser that opens the page would ask another host for."""
    found = []
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "xlink:href", "action"):
            if tag != "a" and is_elsewhere(attributes.get(name) or ""):
                found.append((tag, attributes[name]))
    return found + [address for style in page.styles for address in addresses(style) if is_elsewhere(address)]


def addresses(style):
    """The files that a stylesheet loads."""
    return re.findall(r"""(?:url\(|@import\s)\s*["']?([^"')\s;]+)""", style)


def test_nothing_is_fetched_from_another_host(site, pages):
    assert {name: fetched_from_elsewhere(page) for name, page in pages.items() if fetched_from_elsewhere(page)} == {}
    for path in site.rglob("*.css"):
        assert [address for address in addresses(path.read_text(encoding="utf-8")) if is_elsewhere(address)] == []


def test_what_would_be_fetched_from_another_host_is_found(tmp_path):
    for text in (
        '<script src="https://example.org/a.js"></script>',
        '<link rel="stylesheet" href="//example.org/a.css">',
        '<img src="https://example.org/a.png">',
        "<style>@import 'https://example.org/a.css';</style>",
        '<p style="background: url(https://example.org/a.png)">',
    ):
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        assert fetched_from_elsewhere(Page(tmp_path / "page.html")), text
    (tmp_path / "page.html").write_text('<a href="https://example.org">good</a>', encoding="utf-8")
    assert not fetched_from_elsewhere(Page(tmp_path / "page.html"))


def test_every_picture_has_its_alternative_text_and_its_size(pages):
    for name, page in pages.items():
        if name.startswith("draw/"):  # which has tests of its own
            continue
        for picture in page.all("img"):
            assert picture.get("alt", "").strip() and ".png" not in picture["alt"], (name, picture)
            assert int(picture["width"]) > 0 and int(picture["height"]) > 0


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_figures_of_a_notebook_are_there_as_it_describes_them(path, pages):
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", ())]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    said = [output.metadata["image/png"]["alt"] for output in figures]
    assert [picture["alt"] for picture in pages[f"notebooks/{path.stem}.html"].all("img")] == said


def test_formulas_need_no_script(pages):
    page = pages["notebooks/05_from_one_picture_to_many.html"]
    assert len(page.all("math")) > 10 and "\\prod" not in page.text
    assert not any("mathjax" in (script.get("src") or "").lower() for script in page.all("script"))


def broken(site, pages):
    """The links and files of each page that lead nowhere."""
    found = []
    for name, page in pages.items():
        for tag, attributes in page.tags:
            address = urlsplit(attributes.get("href" if tag in ("a", "link") else "src") or "")
            if address.scheme or address.netloc or tag in ("svg", "use"):
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(address.path)))
            target = target if address.path else name
            place, known = unquote(address.fragment), pages.get(target)
            if not (known or (site / target).is_file()) or (place and known and place not in known.ids):
                found.append((name, tag, address.geturl()))
    return found


def test_every_link_leads_somewhere(site, pages):
    links = [link for page in pages.values() for link in page.all("a") if urlsplit(link.get("href") or "").path]
    assert len(links) > 500
    assert broken(site, pages) == []


def test_links_to_notes_lead_to_their_pages_and_not_to_files(site, pages):
    for name, page in pages.items():
        for link in page.all("a"):
            address = urlsplit(link.get("href") or "")
            if not address.netloc and "download" not in link:
                assert not address.path.endswith((".ipynb", ".md", ".py")), (name, link)
    sources = [path for path in site.rglob("*") if path.suffix in (".ipynb", ".md", ".py")]
    assert {path.name for path in sources} == {path.name for path in NOTES if path.suffix == ".ipynb"}


def test_each_notebook_can_be_had_without_its_outputs(site, pages):
    for path in NOTES:
        if path.suffix == ".ipynb":
            link = next(each for each in pages[f"notebooks/{path.stem}.html"].all("a") if "download" in each)
            had = nbformat.read(site / "notebooks" / link["href"], as_version=4)
            stored = nbformat.read(path, as_version=4)
            assert [cell.source for cell in had.cells] == [cell.source for cell in stored.cells]
            assert not any(cell.get("outputs") or cell.get("execution_count") for cell in had.cells)


def test_the_menu_has_one_entry_for_each_note_and_leads_to_the_drawing(site, pages):
    for name in ("index.html", "notebooks/05_from_one_picture_to_many.html"):
        assert len([link for link in pages[name].all("a") if link.get("class") == "sidebar-draw"]) == 1
    front = (site / "index.html").read_text(encoding="utf-8")
    levels = re.findall(r'<li class="toctree-l(\d)[^"]*"><a class="[^"]*" href="(labnotes|notebooks)/\d\d_', front)
    assert levels == [("1", "notebooks"), ("2", "labnotes")] * (len(NOTES) // 2)


def test_a_page_says_what_a_link_to_it_shows(pages):
    for name, page in pages.items():
        if name in ("search.html", "genindex.html", "404.html"):
            continue
        said = {meta.get("property", ""): meta["content"] for meta in page.all("meta") if "content" in meta}
        assert said["og:title"] and said["og:image"].endswith(".png") and len(said["og:description"]) > 40, name
        assert not re.search("note \\d+ →|lab note ·", said["og:description"]), name


def test_formulas_have_a_font_with_all_their_signs(site, pages):
    with TTFont(site / "_static" / "mathematics.woff") as font:
        known = set(font.getBestCmap())
        assert font.get("MATH") and (site / "_static" / "mathematics.woff").stat().st_size < 100_000
    text = (site / "notebooks" / "05_from_one_picture_to_many.html").read_text(encoding="utf-8")
    formulas = re.findall("(?s)<math.*?</math>", text)
    shown = unescape(re.sub("<[^>]*>", "", "".join(formulas)))
    signs = {ord(sign) for sign in shown if sign.isprintable()}
    assert len(formulas) > 10 and signs <= known | {0xA0, 0x2003, 0x2009}, [hex(sign) for sign in signs - known]


def luminance(color):
    digits = color.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("scheme", ["pygments_style", "pygments_dark_style"])
def test_colours_of_code_stand_out(scheme):
    """A contrast of 4.5 : 1 and more (WCAG 2)."""
    name = re.search(rf'(?m)^{scheme} = "(.*?)"', (ROOT / "site" / "conf.py").read_text(encoding="utf-8"))[1]
    style = get_style_by_name(name)
    for token, look in style:
        if look["color"] and "Error" not in str(token):
            light, dark = sorted((luminance(look["color"]), luminance(style.background_color)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, token


def test_a_figure_leads_to_its_file(site, pages):
    page = pages["notebooks/05_from_one_picture_to_many.html"]
    links = [link["href"] for link in page.all("a") if link.get("class") == "figure"]
    assert len(links) >= 3 and all((site / "notebooks" / link).is_file() for link in links)


def test_the_site_is_small(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 15e6


def built(project, name="site"):
    tool.build(project, project.parent / name)
    return project.parent / name


def test_the_same_notebooks_give_the_same_site(project):
    with mock.patch(KERNEL, side_effect=AssertionError("a kernel was started")) as started:
        one, two = ({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
                    for out in (built(project, "one"), built(project, "two")))  # fmt: skip
    assert one == two and len(one) > 20
    assert not started.called


def test_links_to_files_of_the_project_become_words_until_it_is_published(project):
    pages = pages_of(built(project))
    page = pages["notebooks/01_one.html"]
    assert "helpers.py" not in {link.get("href", "").rpartition("/")[2] for link in page.all("a")}
    assert "not [this](../helpers.py)" in page.text
    assert "blob/main" not in str(page.all("a")) and broken(project.parent / "site", pages) == []
    linking.main("someone/pixelrnn", project)
    pages = pages_of(built(project))
    links = [link.get("href") for link in pages["notebooks/01_one.html"].all("a")]
    blob = "https://github.com/someone/pixelrnn/blob/main"
    assert {f"{blob}/helpers.py", f"{blob}/notebooks/01_one.ipynb"} <= set(links)
    assert "https://colab.research.google.com/github/someone/pixelrnn/blob/main/notebooks/01_one.ipynb" in links
    assert f"{blob}/labnotes/01_one.md" in [link.get("href") for link in pages["labnotes/01_one.html"].all("a")]
    assert {name: fetched_from_elsewhere(page) for name, page in pages.items() if fetched_from_elsewhere(page)} == {}


@pytest.mark.parametrize("builder", ["none", "page.py"])
def test_a_page_of_its_own_is_taken_along_and_linked(builder, project, monkeypatch):
    def build(folder, sources):
        shutil.copytree(sources, folder)
        (folder / "built.js").touch()

    page = types.SimpleNamespace(build=build) if builder == "page.py" else None  # None: there is no such module
    monkeypatch.setitem(sys.modules, "page", page)
    assert "draw/index.html" not in str(pages_of(built(project))["index.html"].all("a"))
    (project / "site" / "draw").mkdir(parents=True)
    text = '<meta property="og:image" content="../_static/draw.png"><a href="../index.html" hidden>the series</a>'
    (project / "site" / "draw" / "index.html").write_text(text, encoding="utf-8")
    out = built(project)
    assert (out / "draw" / "index.html").read_text(encoding="utf-8") == text.replace(" hidden", "")
    assert (out / "draw" / "built.js").exists() == (builder == "page.py")
    assert pages_of(out)["index.html"].all("a").count({"href": "draw/index.html"}) == 2  # the picture and the words
    assert 'class="sidebar-draw"' in (out / "notebooks" / "01_one.html").read_text(encoding="utf-8")


# --- What can go wrong ------------------------------------------------------------------------------------------------


def test_a_project_without_notebooks_is_told(tmp_path):
    with pytest.raises(checks.LabError, match="There are no notebooks in"):
        tool.build(tmp_path, tmp_path / "site")


def test_a_damaged_notebook_is_named(project):
    (project / "notebooks" / "01_one.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(checks.LabError, match=r"01_one\.ipynb is damaged"):
        built(project)


def test_a_readme_without_the_series_is_told(project):
    (project / "README.md").write_text("# Nothing\n", encoding="utf-8")
    with pytest.raises(checks.LabError, match="no table with a row for each note"):
        built(project)


def test_a_link_that_leads_nowhere_is_named_and_the_old_site_stays(project):
    out = built(project)
    before = (out / "labnotes" / "01_one.html").read_bytes()
    (project / "labnotes" / "01_one.md").write_text("# One\n\n[none](absent.md)\n", encoding="utf-8")
    with pytest.raises(checks.LabError, match=r"(?s)left as it was.*01_one\.md.*absent\.md"):
        built(project)
    assert (out / "labnotes" / "01_one.html").read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["project", "site"]


def test_a_folder_that_cannot_be_written_is_told(project):
    (project.parent / "file").touch()
    with pytest.raises(checks.LabError, match="cannot be written"):
        tool.build(project, project.parent / "file" / "site")


def test_a_site_that_is_not_there_or_a_port_that_is_taken_is_told(tmp_path):
    with pytest.raises(checks.LabError, match="There is no site in"):
        tool.server(0, tmp_path)
    (tmp_path / "index.html").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(checks.LabError, match=r"Port \d+ cannot be used"):
            tool.server(taken.getsockname()[1], tmp_path)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "8000 ", "$(x)"])
def test_a_port_that_is_none_is_told(port):
    with pytest.raises(checks.LabError, match="PORT must be"):
        tool.port_of(port)
    assert (tool.port_of(""), tool.port_of("8001")) == (tool.PORT, 8001)


# --- In a browser -----------------------------------------------------------------------------------------------------

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served."""
    with tool.server(0, site) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives a browser, is missing")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser of the names {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])  # which root has not
        yield started
        started.close()


@pytest.fixture
def opened(browser, address):
    """opened(**settings): a tab as wide as a phone, with a list of what has gone wrong in it."""
    contexts = []

    def opened(**settings):
        contexts.append(browser.new_context(viewport={"width": 390, "height": 844}, **settings))
        tab, wrong = contexts[-1].new_page(), []

        def asked(request):
            if not request.url.startswith((address, "data:", "blob:")):
                wrong.append(f"asks for {request.url}")

        def unanswered(request):
            if request.failure != "net::ERR_ABORTED":  # by leaving the page
                wrong.append(f"{request.failure} for {request.url}")

        tab.on("request", asked)
        tab.on("response", lambda answer: answer.status < 400 or wrong.append(f"{answer.status} for {answer.url}"))
        tab.on("requestfailed", unanswered)
        tab.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        return tab, wrong

    yield opened
    for context in contexts:
        context.close()


def test_no_page_asks_another_host_nor_fails_nor_is_wider_than_a_phone(opened, address, pages):
    tab, wrong = opened()
    for name in pages:
        tab.goto(address + name, wait_until="load")
        # Those that wait until they are near are fetched, too.
        tab.evaluate("Promise.all([...document.images].map(one => { one.loading = 'eager'; return one.decode(); }))")
        if tab.evaluate("document.documentElement.scrollWidth") > 390:
            wrong.append(f"{name} is wider than the window")
    tab.wait_for_load_state("networkidle")
    assert wrong == []


# The code that is wider than its place.
CUT = """[...document.querySelectorAll("article .cell_input pre")]
    .filter((code) => code.offsetParent && code.scrollWidth > code.clientWidth + 1).map((code) => code.textContent)"""


@pytest.mark.parametrize("width", [320, 1000, 1020, 1280, 1366, 1440, 1500])
def test_the_menus_beside_a_page_do_not_make_it_wider_than_the_window(width, opened, address):
    tab, wrong = opened()
    tab.set_viewport_size({"width": width, "height": 800})
    for name in ("index", "notebooks/05_from_one_picture_to_many", "labnotes/benchmarks"):
        tab.goto(f"{address}{name}.html")
        assert tab.evaluate("document.documentElement.scrollWidth") == width, name
        if width >= 1280 and name.startswith("notebooks"):
            assert tab.evaluate(CUT) == []
    assert wrong == []


def test_the_search_finds_a_page(opened, address):
    tab, wrong = opened()
    tab.goto(f"{address}search.html?q=leaderboard")
    tab.wait_for_selector("#search-results li a")
    found = tab.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    assert any(urlsplit(link).path == "/labnotes/benchmarks.html" for link in found)
    tab.goto(f"{address}search.html?q=qwertzuiop")
    tab.wait_for_selector("#search-results >> text=did not match any documents")
    assert wrong == []


def test_the_tables_of_the_leaderboard_sort(opened, address):
    tab, wrong = opened()
    tab.goto(f"{address}labnotes/benchmarks.html")
    table, other = tab.locator("table").first, tab.locator("#mnist-dynamic-10-minutes table")
    column = "rows => rows.map(row => parseFloat(row.cells[0].textContent))"
    nats = lambda of: of.locator("tbody tr").evaluate_all(column)  # noqa: E731
    before, elsewhere = nats(table), nats(other)
    head = table.locator("th button", has_text="nats")
    head.click()
    assert nats(table) == sorted(before) != before
    head.click()
    assert nats(table) == sorted(before, reverse=True) and nats(other) == elsewhere
    assert table.locator("th[aria-sort]").evaluate_all("heads => heads.map(head => head.ariaSort)") == ["descending"]
    other.locator("th button", has_text="model").click()
    models = other.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert models == sorted(models, key=str.lower) and nats(other) != elsewhere
    assert tab.locator("table.sorts").count() == tab.locator("table").count() > 10
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_dimmed_in_the_dark_and_never_inverted(scheme, opened, address):
    tab, wrong = opened(color_scheme=scheme)
    tab.goto(f"{address}notebooks/01_grayscale_first_try.html")
    filters = tab.locator("article img").evaluate_all("all => all.map(one => getComputedStyle(one).filter)")
    assert len(filters) > 5
    assert set(filters) == ({"none"} if scheme == "light" else {"brightness(0.72)"})
    assert wrong == []


def test_code_is_copied_with_one_click(opened, address):
    tab, wrong = opened(permissions=["clipboard-read", "clipboard-write"])
    tab.goto(f"{address}notebooks/01_grayscale_first_try.html")
    notebook = nbformat.read(ROOT / "notebooks" / "01_grayscale_first_try.ipynb", as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = next(cell.source for cell in codes[1:] if "hide-input" not in cell.metadata.get("tags", []))
    tab.locator(".cell_input").filter(visible=True).first.hover()  # the code that imports is folded
    tab.locator(".cell_input button.copybtn").filter(visible=True).first.click()
    tab.wait_for_selector(".copybtn.success")
    assert tab.evaluate("navigator.clipboard.readText()").strip() == first.strip()
    assert tab.locator(".output.stream button.copybtn").count() == 0
    assert wrong == []
