"""Builds the page that finishes a drawing (site/draw/) into build/draw/, where it opens from a file, and offline.

    python tools/page.py [folder]

A page that is opened from a file may neither load modules nor fetch. So the modules are joined into one plain script,
and the weights are scripts too: base64 of 16-bit floats, without those that masks hide in raster order.
"""

import base64
import json
import re
import shutil
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np

import files
import helpers
import joint
import orders
import weights

SOURCES = ROOT / "site" / "draw"
FOLDER = ROOT / "build" / "draw"
FORMAT = 1  # of the packed weights; site/draw/weights.js reads the same number
IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+)\.js";\n', re.M)
EXPORT = re.compile(r"^export (?=(?:const|function\*?|class|async function) (\w+))", re.M)
DECLARED = re.compile(r"^(?:export )?(?:const|let|function\*?|class|async function) (\w+)", re.M)


def raster(model):
    """The network of a stored model that reads in raster order, a GenModel with a joint head."""
    member = model.in_order(0)
    settings = getattr(member, "settings", {})
    asked = {"cell": "lstm", "num_layers": 1, "norm": None, "head": "joint", "encoding": "values"}
    if not isinstance(member, helpers.GenModel) or {name: settings.get(name) for name in asked} != asked:
        raise files.LabError("The page runs a joint row with an LSTM of one layer; these weights are of another model.")
    return member


def parts(member):
    """name -> float32 array: all that site/draw/network.js reads, in its names; masked weights without the masked."""
    hidden = member.settings["hidden_size"]
    of_order = member.of_order[0].detach().numpy() if isinstance(member, orders._Conditioned) else np.zeros((2, hidden))
    rnn, head = member.rnn, member.head
    found = {"firstHidden": of_order[0], "addedFeatures": of_order[1]}
    found |= {"inputWeight": rnn.weight_ih_l0, "hiddenWeight": rnn.weight_hh_l0}
    found |= {"inputBias": rnn.bias_ih_l0, "hiddenBias": rnn.bias_hh_l0}
    found |= {"aboveWeight": head.above.weight, "aboveBias": head.above.bias}
    masked = {"left": head.left, "out": head.out} | {f"hidden{n}": layer for n, layer in enumerate(head.hidden)}
    for name, layer in masked.items():
        found |= {f"{name}Weight": _seen(layer), f"{name}Bias": layer.bias}
    return {
        name: np.asarray(getattr(part, "detach", lambda part=part: part)(), np.float32).ravel()
        for name, part in found.items()
    }


def _seen(layer):
    """The weights of a MaskedLinear that its mask leaves, place by place."""
    weight, places = layer.weight.detach().numpy(), layer.out_features // layer.outputs
    blocks = [
        weight[p * layer.outputs : (p + 1) * layer.outputs, : (p + layer.own) * layer.inputs] for p in range(places)
    ]
    return np.concatenate([block.ravel() for block in blocks])


def packed(name, model, card):
    """Stored weights as the page reads them, a dict for JSON."""
    member = raster(model)
    arrays = parts(member)
    data = np.concatenate(list(arrays.values())).astype("<f2").tobytes()
    return {
        "format": FORMAT,
        "name": name,
        "columns": member.input_size,
        "hidden": member.settings["hidden_size"],
        "embedding": joint.EMBEDDING,
        "parts": [[name, array.size] for name, array in arrays.items()],
        "card": {key: card.get(key) for key in ("what", "data", "licence of what it learned from", "sha256")},
        "crc32": zlib.crc32(data),
        "data": base64.b64encode(data).decode(),
    }


def bundle(sources=SOURCES, first="main"):
    """The modules that `first` leads to, as one plain script, whose exports are in `pixelRNN`."""
    order, texts = [], {}

    def add(name):
        if name in texts:
            return
        texts[name] = (sources / f"{name}.js").read_text(encoding="utf-8")
        for _, other in IMPORT.findall(texts[name]):
            add(other)
        order.append(name)

    add(first)
    declared = [(each, name) for name in order for each in DECLARED.findall(texts[name])]
    twice = {each for each, _ in declared if sum(each == other for other, _ in declared) > 1}
    if twice:  # in one script all modules share their names
        raise files.LabError(f"Two modules of {sources} declare {', '.join(sorted(twice))}. Rename one.")
    exports = {each for text in texts.values() for each in EXPORT.findall(text)}
    for name in order:
        wanted = {each for names, _ in IMPORT.findall(texts[name]) for each in names.split(", ")}
        if wanted - exports or re.search(r"^import", IMPORT.sub("", texts[name]), re.M):
            raise files.LabError(f"{name}.js imports what no module exports, or not in the way that the builder knows.")
    bodies = [f"// {name}.js\n{EXPORT.sub('', IMPORT.sub('', texts[name]))}" for name in order]
    returned = f"return {{ {', '.join(sorted(exports))} }};"
    return "\n".join(['"use strict";', "const pixelRNN = (() => {", *bodies, returned, "})();", ""])


def build(folder=FOLDER, sources=SOURCES, stored=None):
    """Write the page into a folder; stored: folder of the weights, data/weights/ if not given. Returns its files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    html = (sources / "index.html").read_text(encoding="utf-8")
    module = 'type="module" src="main.js"'
    if module not in html:
        raise files.LabError(f"index.html does not load main.js by {module}.")
    written = {"index.html": html.replace(module, 'defer src="draw.js"'), "draw.js": bundle(sources)}
    for name in weights.NAMES:
        text = json.dumps(packed(name, *weights.load(name, stored)))
        written[f"weights-{name}.js"] = f"(window.pixelRNNWeights ||= {{}}).{name} = {text};\n"
    for name, text in written.items():
        with files.written_whole(folder / name, "A file of the page") as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    shutil.copy(sources / "draw.css", folder)
    return sorted([*(folder / name for name in written), folder / "draw.css"])


def main(folder=FOLDER):
    try:
        for path in build(folder):
            print(f"{path.stat().st_size / 1000:8.1f} kB  {path}")
    except files.LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:2])
