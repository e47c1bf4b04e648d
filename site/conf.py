"""Sphinx's settings for the site of the series: `make site` (tools/site.py prepares the pages and calls Sphinx).

Nothing is executed, and no page asks another host for anything: formulas are turned into MathML, which browsers show by
themselves; scripts and styles come with the site.
"""

import base64
import hashlib
import html
import re
from pathlib import Path
from urllib.parse import unquote

import latex2mathml.converter
import nbformat
from docutils import nodes
from PIL import Image

project = "PixelRNN lab notebook"
html_title = project
language = "en"
smartquotes = False  # the words as they stand in the notebooks
extensions = ["myst_nb", "sphinx_copybutton", "sphinxext.opengraph"]

nb_execution_mode = "off"  # the pages show the outputs that the notebooks carry
nb_render_markdown_format = "myst"  # tables, too, which plain CommonMark does not have
nb_ipywidgets_js = {}  # by default from another host
nb_code_prompt_show = "Show the code"  # of cells that are folded: settings, results, checks
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_static_path = ["static", "../labnotes/draw.png"]
templates_path = ["templates"]
exclude_patterns = ["notebooks/download"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/draw.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_css_files = ["lab.css"]
html_theme_options = {  # the colours of the page that finishes a drawing (site/draw/draw.css)
    "light_css_variables": {"color-brand-primary": "#0b5a94", "color-brand-content": "#0b5a94"},
    "dark_css_variables": {"color-brand-primary": "#8cc4f0", "color-brand-content": "#8cc4f0"},
}
html_favicon = "static/icon.svg"
html_math_renderer = "mathml"
html_copy_source = False  # the notebooks again, pictures included, would double the size
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False
html_permalinks_icon = "#"
pygments_style = "a11y-light"  # each colour has a contrast of 4.5 : 1 and more
pygments_dark_style = "monokai"
# What a link to a page shows where it is sent on. tools/site.py says where the site is published (ogp_site_url).
ogp_site_name = project
ogp_image = "_static/draw.png"
ogp_use_first_image = True
ogp_social_cards = {"enable": False}
ogp_enable_meta_description = False
# The code of a notebook and of its modules is copied; what a cell printed is not.
copybutton_selector = "div.highlight:not(.highlight-none *):not(.output.stream *):not(.output.text_plain *) > pre"


# --- Formulas ---------------------------------------------------------------------------------------------------------


def mathml(tex, display):
    """A formula as MathML. Sphinx writes each line of a displayed one itself: `aligned` is latex2mathml's `align*`."""
    return latex2mathml.converter.convert(tex.replace("{aligned}", "{align*}"), display=display)


def inline_formula(writer, node):
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def displayed_formula(writer, node):
    writer.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


# --- Figures ----------------------------------------------------------------------------------------------------------


def alternative_texts(path):
    """The alternative text of each figure that a notebook carries, by the name under which myst-nb writes the file."""
    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                picture = base64.b64decode(output.data["image/png"])
                alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
                found[f"{hashlib.sha256(picture).hexdigest()}.png"] = alt
    return found


def describe_figures(app, doctree):
    """myst-nb leaves the alternative text in an output's metadata where it is; a reader's browser needs it."""
    path = Path(app.env.doc2path(app.env.docname))
    texts = alternative_texts(path) if path.suffix == ".ipynb" else {}
    for figure in doctree.findall(nodes.image):
        alt = texts.get(Path(figure["uri"]).name)
        if alt:
            figure["alt"] = alt


def give_figures_their_size(app, pagename, templatename, context, doctree):
    """With its size a figure keeps its place before it is there; those further down are fetched when they are near. A
    figure that leads nowhere leads to its file, which browsers show as large as it is."""
    first = True
    stored = {name: place for place, name in app.builder.images.items()}  # they are copied when all pages are written

    def sized(found):
        nonlocal first
        name = unquote(html.unescape(found["source"])).rpartition("/")[2]
        with Image.open(Path(app.srcdir, stored[name])) as picture:
            width, height = picture.size
        lazy, first = "" if first else ' loading="lazy"', False
        figure = f'{found["tag"][:-1].rstrip("/ ")} width="{width}" height="{height}" decoding="async"{lazy}>'
        if found["link"]:
            return f"{found['link']}{figure}"
        return f'<a class="figure" href="{found["source"]}" title="Larger">{figure}</a>'

    if context.get("body"):
        figures = r'(?P<link><a [^>]*>\s*)?(?P<tag><img [^>]*?src="(?P<source>[^":]+)"[^>]*>)'
        context["body"] = re.sub(figures, sized, context["body"])


def describe_links(app, pagename, templatename, context, doctree):
    """What a link to a page says of it, where it is sent on, begins below the line of links to other notes."""
    above = r'(?i)(?<=og:description" content=")[^"]*?\bindex (· notebook without outputs )?'
    links_above = f"{above}(?=question|answer|each|protocols)"
    context["metatags"] = re.sub(links_above, "", context.get("metatags", ""))


def add_sorting(app, pagename, templatename, context, doctree):
    """Only the page of the benchmark has a table to sort."""
    if pagename == "labnotes/benchmarks":
        app.add_js_file("sort.js", loading_method="defer")


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.connect("doctree-read", describe_figures)
    app.connect("html-page-context", give_figures_their_size, priority=900)  # once the pictures have their names
    app.connect("html-page-context", describe_links, priority=900)  # once sphinxext.opengraph has written
    app.connect("html-page-context", add_sorting)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
