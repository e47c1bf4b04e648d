"""Builds the page that finishes a drawing (site/draw/) into build/draw/, where it opens from a file, and offline.

    python tools/page.py              (again where sources or weights have changed)
    python tools/page.py --browser    (the browsers that tests use, or what to install)
    python tools/page.py --measure    (bytes, and milliseconds of six continuations)

A page that is opened from a file may neither load modules nor fetch. So the modules are joined into one plain script,
and the weights are scripts too: base64 of 16-bit floats, without those that masks hide in raster order.
"""

import argparse
import base64
import json
import os
import re
import shutil
import statistics
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np

import helpers
from pixelrnn.models import conditioned, weights
from support import checks, files, joint_head

SOURCES = ROOT / "site" / "draw"
FOLDER = ROOT / "build" / "draw"
PAGES = {"index": ("main", "draw"), "sees": ("sees", "fields")}  # page -> its first module, the script made of it
NETWORKS = {"digits": "drawn-digits", "letters": "drawn-letters"}  # the page's names -> stored weights
COPIED = ("draw.css", "offline.js")
FORMAT = 1  # of the packed weights; site/draw/weights.js reads the same number
IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+)\.js";\n', re.M)
EXPORT = re.compile(r"^export (?=(?:const|function\*?|class|async function) (\w+))", re.M)
DECLARED = re.compile(r"^(?:export )?(?:const|let|function\*?|class|async function) (\w+)", re.M)


def raster(model):
    """The network of a stored model that reads in raster order: a GenModel with a joint head."""
    member = model.in_order(0)
    settings = getattr(member, "settings", {})
    asked = {"cell": "lstm", "num_layers": 1, "norm": None, "head": "joint", "encoding": "values"}
    if not isinstance(member, helpers.GenModel) or {name: settings.get(name) for name in asked} != asked:
        raise checks.LabError(
            "The page runs a joint row with an LSTM of one layer; these weights are of another model."
        )
    return member


def parts(member):
    """name -> float32 array: all that site/draw/network.js reads, in its names; masked weights without the masked."""
    hidden = member.settings["hidden_size"]
    first, added = member.condition(1) if isinstance(member, conditioned.Conditioned) else np.zeros((2, hidden))
    rnn, head = member.rnn, member.head
    found = {"firstHidden": first, "addedFeatures": added}
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
        "embedding": joint_head.EMBEDDING,
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
        raise checks.LabError(f"Two modules of {sources} declare {', '.join(sorted(twice))}. Rename one.")
    exports = {each for text in texts.values() for each in EXPORT.findall(text)}
    for name in order:
        wanted = {each for names, _ in IMPORT.findall(texts[name]) for each in names.split(", ")}
        if wanted - exports or re.search(r"^import", IMPORT.sub("", texts[name]), re.M):
            raise checks.LabError(
                f"{name}.js imports what no module exports, or not in the way that the builder knows."
            )
    bodies = [f"// {name}.js\n{EXPORT.sub('', IMPORT.sub('', texts[name]))}" for name in order]
    returned = f"return {{ {', '.join(sorted(exports))} }};"
    return "\n".join(['"use strict";', "const pixelRNN = (() => {", *bodies, returned, "})();", ""])


def build(folder=FOLDER, sources=SOURCES, stored=None):
    """Write the page into a folder; stored: folder of the weights, data/weights/ if not given. Returns its files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, (first, script) in PAGES.items():
        html = (sources / f"{name}.html").read_text(encoding="utf-8")
        module = f'type="module" src="{first}.js"'
        if module not in html:
            raise checks.LabError(f"{name}.html does not load {first}.js by {module}.")
        written[f"{name}.html"] = html.replace(module, f'defer src="{script}.js"')
        written[f"{script}.js"] = bundle(sources, first)
    helper = json.dumps(bundle(sources, "worker"))  # which the page gives to its threads
    written["draw.js"] = f"const pixelRNNWorker = {helper};\n" + written["draw.js"]
    for name, network in NETWORKS.items():
        text = json.dumps(packed(name, *weights.load(network, stored)))
        written[f"weights-{name}.js"] = f"(window.pixelRNNWeights ||= {{}}).{name} = {text};\n"
    for name, text in written.items():
        with files.written_whole(folder / name, "A file of the page") as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    for name in COPIED:
        shutil.copy(sources / name, folder)
    return sorted(folder / name for name in (*written, *COPIED))


BROWSERS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "firefox": ("firefox-esr", "firefox"),
}


def browser(name="chromium"):
    """The path of a browser: the system's, or the one that playwright has fetched. LabError where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise checks.LabError("The page is tested with playwright: `make setup` installs it.") from error
    for program in BROWSERS[name]:
        if shutil.which(program):
            return shutil.which(program)
    with sync_playwright() as driver:
        path = getattr(driver, name).executable_path
        if os.path.exists(path):
            return path
    advice = f"`apt install {BROWSERS[name][0]}` on Debian, `python -m playwright install {name}` elsewhere"
    raise checks.LabError(f"No {name.title()} is installed, in which the page is tested. Install one: {advice}.")


def print_browsers():
    """The path of each browser, or what to install for it. LabError where there is none at all."""
    missing = []
    for name in BROWSERS:
        try:
            print(browser(name))
        except checks.LabError as error:
            missing.append(str(error))
    if len(missing) == len(BROWSERS):
        raise checks.LabError("\n".join(missing))
    for advice in missing:
        print(advice)


TASKS = """window.tasks = [];
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => tasks.push(entry.duration)))
        .observe({ type: "longtask", buffered: true });"""


def longest(page):
    """The longest task since the last call, in milliseconds; browsers report those from 50 on."""
    page.wait_for_timeout(500)
    return page.evaluate("[Math.round(Math.max(0, ...tasks.splice(0)))]")[0] or "under 50"


def measure(folder=FOLDER, runs=7, throttled=6):
    """Print bytes, how long six continuations take, of nothing (28 rows) and of 13 given rows, medians, and the longest
    task of the page's thread, in which it does not answer.

    With the processor slowed down by `throttled` as well, which stands for a phone's; Chromium slows the page's thread
    alone, not the helpers'. Reported, and not asserted.
    """
    from playwright.sync_api import sync_playwright

    first = sum(path.stat().st_size for path in build(folder) if path.name != "weights-digits.js")
    print(f"{first / 1000:.1f} kB with one set of weights")
    with sync_playwright() as driver, driver.chromium.launch(executable_path=browser()) as chromium:
        page = chromium.new_page()
        session = page.context.new_cdp_session(page)
        page.add_init_script(TASKS)
        for rate in (1, throttled):
            session.send("Emulation.setCPUThrottlingRate", {"rate": rate})
            page.goto((Path(folder) / "index.html").as_uri())
            page.wait_for_function("pixelRNN.state.card")
            print(f"longest task while the page loads: {longest(page)} ms")
            for rows in (0, 13):
                page.evaluate(f"pixelRNN.state.given = {rows}")
                run = "pixelRNN.proceed().then(() => pixelRNN.state.milliseconds)"
                times = [page.evaluate(run) for _ in range(runs)]
                words = f"processor {rate} times slower" if rate > 1 else "processor as it is"
                spread = f"{min(times):.0f} to {max(times):.0f}"
                print(f"six continuations of {rows} rows, {words}: {statistics.median(times):.0f} ms ({spread})")
                print(f"longest task meanwhile: {longest(page)} ms")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--browser", action="store_true", help="say which browsers the tests use")
    parser.add_argument("--measure", action="store_true", help="print bytes and milliseconds")
    chosen = parser.parse_args(words)
    try:
        if chosen.browser:
            print_browsers()
        elif chosen.measure:
            measure()
        else:
            for path in build():
                print(f"{path.stat().st_size / 1000:8.1f} kB  {path}")
    except checks.LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
