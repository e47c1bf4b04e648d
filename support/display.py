"""What a notebook's page shows besides text: tables, code of the modules, figures with alternative text."""

import base64
import inspect
import io
import re
import textwrap

import matplotlib.pyplot as plt


def show_table(head, rows, metadata=None):
    """Display rows of cells, text or numbers, as a table under the cells of `head`."""

    def written(cell):
        lines = [head, ["---"] * len(head), *([cell(str(one)) for one in row] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    _display({"text/markdown": written(in_markdown), "text/plain": written(str)}, metadata)


def show_markdown(text, metadata=None):
    """Display Markdown."""
    _display({"text/markdown": text, "text/plain": text}, metadata)


def show_code(*pieces):
    """Display functions, methods or classes as they stand in their module, highlighted, each docstring cut to its first
    paragraph."""
    sources = [textwrap.dedent(inspect.getsource(piece)).rstrip() for piece in pieces]
    source = "\n\n".join(re.sub(r'(?s)(""".+?)(?:\n\n.*?)?\s*"""', r'\1"""', source) for source in sources)
    _display({"text/markdown": f"```python\n{source}\n```", "text/plain": source})


def in_markdown(text):
    """Markdown, for a cell of a table too, that shows `text` letter by letter.

    What would be markup becomes an element of its own with the letter's number: neither Markdown nor MathJax, which
    looks for formulas in the page that Markdown has become, reads on across it. An underscore within a word is none.
    """
    markup = r"[\\`*|~<>&$]|(?<![^\W_])_|_(?![^\W_])|\](?=\()"
    text = re.sub(markup, lambda letter: f"<span>&#{ord(letter[0])};</span>", text)
    return text.replace("\n", "<br>")


def show_figure(alt, figure=None):
    """Display a figure (default: the current one) with alternative text, in place of plt.show()."""
    figure, file = figure or plt.gcf(), io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    plt.close(figure)
    show_png(file.getvalue(), alt)


def show_png(picture, alt):
    """Display a PNG (bytes), animated or not, with alternative text."""
    kinds = {"image/png": base64.b64encode(picture).decode(), "text/plain": alt}
    _display(kinds, {"image/png": {"alt": alt}})


def _display(kinds, metadata=None):
    from IPython.display import display  # only here: a module of the notebooks that a script may import without IPython

    display(kinds, raw=True, metadata=metadata or {})
