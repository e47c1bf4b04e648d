"""What the builders of public models share: the decorator that registers them, and how code is taken from a clone."""

import __future__

import ast
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn

PACKAGES = Path("packages")  # where packages are that this project does not need; __main__.py sets it
BUILDERS = {}  # (repository, model) -> a function: the clone's folder -> (model, example, settings of causality)


def public(repository, model):
    """Decorator: the function below builds this model of a repository from its clone, small."""

    def keep(build):
        if (repository, model) in BUILDERS:
            raise ValueError(f"{repository} {model} is built twice")
        BUILDERS[repository, model] = build
        return build

    return keep


def stub(*names):
    """Modules that a file imports and the model does not need."""
    sys.modules.update({name: MagicMock(name=name) for name in names})


def take(path, *names, cells="", **given):
    """The classes and functions called `names`, or all, of a file or notebook, without running the rest of it.

    cells: a regular expression; of a notebook, only cells where it is found. given: what the code finds beside torch.
    """
    sources = [Path(path).read_text(encoding="utf-8")]
    if str(path).endswith(".ipynb"):
        sources = ["".join(cell["source"]) for cell in json.loads(sources[0])["cells"] if cell["cell_type"] == "code"]
    space = {"torch": torch, "nn": nn, "F": nn.functional, "np": np, "math": math, "Variable": torch.autograd.Variable}
    space |= given
    for source in sources:
        if not re.search(cells, source):
            continue
        try:
            parts = ast.parse(re.sub(r"^( *)[%!][a-z].*", r"\1pass", source, flags=re.M)).body  # notebook commands
        except SyntaxError:
            continue
        parts = [part for part in parts if isinstance(part, ast.ClassDef | ast.FunctionDef)]
        parts = ast.Module([part for part in parts if part.name in names or not names], [])
        exec(compile(parts, str(path), "exec", __future__.annotations.compiler_flag), space)
    return SimpleNamespace(**space)


class Calls(nn.Module):
    """`model`, called as its repository's script calls it: call(model, batch) -> what the loss gets."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, batch):
        return self.call(self.model, batch)


def given(model, *conditions):
    """`model` with further arguments, such as labels, that it is allowed to see."""
    return Calls(model, lambda model, batch: model(batch, *conditions))


def pixels(rows, columns):
    """Order: whole pixels in raster order, their colours at the same time."""
    return torch.arange(rows * columns).view(rows, columns)


def mixture(out):
    """(batch, parameters, rows, columns): all that a pixel's three colours are sampled from, once for each of them."""
    return out.movedim(1, -1).unsqueeze(1).expand(-1, 3, -1, -1, -1)
