"""The page that finishes a drawing (site/draw/): its network is the Python one, value for value, and it works in a real
browser with mouse, fingers and keyboard, offline, with damaged files, on a phone's width."""

import base64
import contextlib
import functools
import http.server
import io
import itertools
import json
import re
import shutil
import threading

import judge_drawings
import numpy as np
import page as builder
import pytest
import torch
from PIL import Image

import helpers
from pixelrnn.data import letters
from pixelrnn.models import configs, paper, weights
from support import checks, files

SIZE, COUNT = 28, 6
PATIENCE = 60_000  # milliseconds that a test waits for what should come, on a machine that is busy
each = pytest.mark.parametrize("name", builder.NETWORKS)


# --- The builder, which needs no browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    builder.build(folder)
    return folder


def test_the_picture_of_the_page_is_animated_and_begins_with_its_end():
    with Image.open(files.DATA.parent / "labnotes" / "draw.png") as picture:
        assert picture.n_frames > 10
        frames = []
        for number in (0, 1, picture.n_frames - 1):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")).copy())
    assert np.array_equal(frames[0], frames[2]) and not np.array_equal(frames[0], frames[1])


def packed_in(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text[text.index(" = ") + 3 :].rstrip(";\n"))


def test_the_page_and_one_set_of_weights_are_under_two_and_a_half_megabytes(built):
    for name in builder.NETWORKS:
        used = [path for path in built.iterdir() if not path.name.startswith("weights-")]
        assert sum(path.stat().st_size for path in [*used, built / f"weights-{name}.js"]) < 2_500_000


@each
def test_packed_weights_are_those_that_are_stored(built, name):
    packed, member = packed_in(built / f"weights-{name}.js"), builder.raster(weights.load(builder.NETWORKS[name])[0])
    numbers = np.frombuffer(base64.b64decode(packed["data"]), "<f2").astype(np.float32)
    parts = dict(zip((part for part, _ in packed["parts"]), np.split(numbers, ends(packed["parts"])), strict=True))
    assert np.array_equal(parts["hiddenWeight"], member.rnn.weight_hh_l0.detach().numpy().ravel())
    for part, layer in {"left": member.head.left, "hidden1": member.head.hidden[1], "out": member.head.out}.items():
        assert np.array_equal(parts[f"{part}Weight"], layer.weight.detach().numpy()[layer.mask.numpy() > 0])
    assert packed["card"]["sha256"] == weights.load(builder.NETWORKS[name])[1]["sha256"]


def ends(parts):
    return list(itertools.accumulate(count for _, count in parts))[:-1]


def test_weights_of_another_model_are_refused():
    for model in (helpers.GenModel(4, 3), helpers.GenModel(4, 3, 2, head="joint"), paper.PixelCNN(4, 2, 1, 2)):
        with pytest.raises(checks.LabError, match="The page runs a joint row"):
            builder.raster(type("Stored", (), {"in_order": lambda self, order, model=model: model})())


def test_modules_that_cannot_be_joined_are_told(tmp_path):
    (tmp_path / "main.js").write_text('import { a } from "./b.js";\nconst c = a;\n')
    for text, told in (
        ("export const a = 1;\nconst c = 2;\n", "declare c"),
        ("const a = 1;\n", "imports what no module exports"),
        ("import * as x from './y.js';\nexport const a = 1;\n", "not in the way that the builder knows"),
    ):
        (tmp_path / "b.js").write_text(text)
        with pytest.raises(checks.LabError, match=told):
            builder.bundle(tmp_path)
    (tmp_path / "b.js").write_text("export const a = 1;\n")
    assert builder.bundle(tmp_path).index("const a = 1") < builder.bundle(tmp_path).index("const c = a")


def test_modules_are_small_and_the_files_ask_for_nothing_outside():
    sources = sorted(builder.SOURCES.iterdir())
    assert {path.suffix for path in sources} == {".html", ".css", ".js"}
    for path in sources:
        text = path.read_text(encoding="utf-8")
        own = text.replace("await fetch(request, ", "") if path.name == "offline.js" else text  # what the page asks for
        assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest", own), path.name
        assert path.suffix != ".js" or len(text.splitlines()) <= 150, path.name
        assert ("addEventListener" in text) == (path.name == "tell.js"), path.name  # so that all tell of their errors
    ids = re.findall(r'\bid="([\w-]+)"', (builder.SOURCES / "index.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_where_no_browser_is_the_tool_says_what_to_install(monkeypatch):
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    monkeypatch.setattr(builder.os.path, "exists", lambda path: False)
    with pytest.raises(SystemExit, match=r"No Chromium is installed.*apt install chromium"):
        builder.main(["--browser"])


def test_one_browser_is_enough_and_what_to_install_for_the_other_is_told(monkeypatch, capsys):
    here = {"chromium": "/somewhere/chromium"}
    monkeypatch.setattr(builder.shutil, "which", here.get)
    monkeypatch.setattr(builder.os.path, "exists", lambda path: False)
    builder.main(["--browser"])
    assert re.search(
        r"(?s)/somewhere/chromium\nNo Firefox is installed.*apt install firefox-esr", capsys.readouterr().out
    )


# --- A browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browsers():
    """browsers(name): that browser, started when it is first asked for. Where it cannot be had, the test is skipped."""
    paths = {}
    for name in builder.BROWSERS:
        with contextlib.suppress(checks.LabError):
            paths[name] = builder.browser(name)
    if not paths:
        pytest.skip("No browser is installed, see `python tools/page.py --browser`.")
    from playwright import sync_api

    sync_api.expect.set_options(timeout=PATIENCE)
    with sync_api.sync_playwright() as driver:
        started, too_old = {}, set()

        def start(name):
            if name not in paths:
                pytest.skip(f"No {name} is installed, see `python tools/page.py --browser`.")
            if name not in started and name not in too_old:
                kind = getattr(driver, name)
                system = name == "firefox" and paths[name] != kind.executable_path
                try:
                    started[name] = kind.launch(executable_path=paths[name], channel="moz-firefox" if system else None)
                except sync_api.Error as error:
                    if "unknown command" not in str(error):
                        raise
                    too_old.add(name)
            if name in too_old:
                pytest.skip(f"{paths[name]} is too old for playwright, which sends it a command that it does not know.")
            return started[name]

        yield start
        for browser in started.values():
            browser.close()


@pytest.fixture(scope="module")
def chromium(browsers):
    return browsers("chromium")


PHONE = {"width": 390, "height": 844}
# Rows are not waited for one by one, but where a test is about that.
USUAL = {"viewport": {"width": 1000, "height": 900}, "reduced_motion": "reduce", "service_workers": "block"}
# playwright can set none of these in the system's Firefox.
FIREFOX = {"viewport": USUAL["viewport"]} | dict.fromkeys(
    ("color_scheme", "reduced_motion", "forced_colors", "contrast"), "null"
)
both = pytest.mark.parametrize("engine", builder.BROWSERS, indirect=True)


@pytest.fixture
def engine(request):
    """The name of the browser of a test: Chromium, where the test does not ask for both."""
    return getattr(request, "param", "chromium")


@pytest.fixture(scope="module")
def common(browsers):
    """common(engine): where windows open that need no settings of their own: a new context for each takes longer."""
    contexts = {}

    def context(engine):
        if engine not in contexts:
            contexts[engine] = browsers(engine).new_context(**(USUAL if engine == "chromium" else FIREFOX))
        return contexts[engine]

    yield context
    for each_context in contexts.values():
        each_context.close()


@pytest.fixture
def visit(browsers, common, engine, built):
    """visit(...): the page in a window of its own, its network loaded. In the end no window may have asked for anything
    but the page's own files or, except where `errors` are expected, have had an error on its console.

    first: as on a first visit, when a stroke draws itself. script: run before the page's own.
    """
    opened, seen = [], []

    def visit(
        fragment="",
        folder=built,
        address=None,
        errors=False,
        ready=True,
        page="index",
        first=False,
        script="",
        **options,
    ):
        address = address or folder.as_uri()
        usual = USUAL if engine == "chromium" else FIREFOX
        context = browsers(engine).new_context(**usual | options) if options else common(engine)
        context.set_default_timeout(PATIENCE)
        window = context.new_page()
        opened.append(context if options else window)
        visited = "removeItem('pixelRNN visited')" if first else "setItem('pixelRNN visited', 'yes')"
        window.add_init_script(f"try {{ localStorage.{visited} }} catch {{}} {script}")
        if not errors:
            window.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
            window.on("pageerror", lambda error: seen.append(str(error)))
        window.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else seen.append(r.url))
        window.goto(f"{address}/{page}.html{fragment}")
        if ready:
            window.wait_for_function("pixelRNN.state.card")
        if page == "index":  # what stands under "More" is used by most tests
            window.evaluate("document.getElementById('more').open = true")
        return window

    yield visit
    for window in opened:
        window.close()
    assert not seen


@contextlib.contextmanager
def serving(folder):
    """A folder on a server of this machine: its address, and what ends it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    yield f"http://127.0.0.1:{server.server_port}", stop
    stop()


@pytest.fixture
def served(built):
    """The page's address on a server of this machine."""
    with serving(built) as (address, _):
        yield address


def picture(text):
    """Rows of . and #, on an empty picture of 28 x 28: (28, 28), uint8."""
    rows = [[letter == "#" for letter in line.ljust(SIZE, ".")] for line in text.split()]
    return np.array(rows + [[False] * SIZE] * (SIZE - len(rows)), np.uint8)


EMPTY = ". " * 7
BOW = picture(EMPTY + "..........######## .........########## ........###......### ........###......###")
BAR = picture(EMPTY + "......############### ......###############")


def cases():
    """Pictures of every kind: letters that the network never saw, drawings, noise, an empty and a full one."""
    noise = (np.random.default_rng(0).random((2, SIZE, SIZE)) < 0.5).astype(np.uint8)
    held_out = letters.load_letters().test[::400]
    return np.stack([*held_out, BOW, BAR, *noise, np.zeros((SIZE, SIZE), np.uint8), np.ones((SIZE, SIZE), np.uint8)])


def link(name, drawing, rows, temperature=1, seed=None):
    bits = base64.urlsafe_b64encode(np.packbits(drawing).tobytes()).decode().rstrip("=")
    return f"#set={name}&rows={rows}&t={temperature}&d={bits}" + (f"&seed={seed}" if seed is not None else "")


def results(window):
    """What is shown, once all is sampled: pictures (6, 28, 28)."""
    window.wait_for_function("pixelRNN.state.results")
    shown = as_text(window, "pixelRNN.state.results.pictures.map((picture) => Array.from(picture))")
    return np.array(shown, np.uint8).reshape(-1, SIZE, SIZE)


def as_text(window, expression):
    """What an expression gives, handed over as one text: number by number, playwright takes ten times as long."""
    return json.loads(window.evaluate(f"(async () => JSON.stringify(await ({expression})))()"))


def soon(locator):
    """Playwright's assertions, which wait: what the page shows, it paints in its next frame."""
    from playwright import sync_api

    return sync_api.expect(locator)


def put_in(window, fragment):
    """A link, as if it was put into the address bar; done once the page has read it."""
    read = "new Promise((done) => addEventListener('hashchange', done))"
    window.evaluate(f"(fragment) => {{ const read = {read}; location.hash = fragment; return read; }}", fragment)


def shown_at(window, identity):
    """The text of a part of the page that comes or changes, once it is there."""
    window.wait_for_function(
        "(id) => !document.getElementById(id).hidden && document.getElementById(id).textContent", arg=identity
    )
    return window.inner_text(f"#{identity}")


def drawn(window):
    return np.array(window.evaluate("Array.from(pixelRNN.state.picture)"), np.uint8).reshape(SIZE, SIZE)


def given(window):
    return window.evaluate("pixelRNN.state.given")


# --- The network is the Python one ------------------------------------------------------------------------------------

LOGITS = """async (pictures) => {
    const read = await Promise.all(pictures.map((picture) => pixelRNN.readRows(Uint8Array.from(picture), 28)));
    return read.map(({ logits, bits }) => ({ logits: logits.map((row) => Array.from(row)), bits }));
}"""


def read_by(window, pictures):
    read = as_text(window, f"({LOGITS})({pictures.reshape(len(pictures), -1).tolist()})")
    return np.array([r["logits"] for r in read]), np.array([r["bits"] for r in read])


@both
@each
def test_logits_and_bits_are_those_of_torch(visit, name):
    pictures = cases()
    logits, bits = read_by(visit(link(name, BOW, 11)), pictures)
    member, sequences = weights.load(builder.NETWORKS[name])[0].in_order(0), torch.tensor(pictures, dtype=torch.float32)
    with torch.no_grad():
        assert np.abs(logits - member.teacher_forced(sequences).numpy()).max() < 1e-4
        expected = member.losses(sequences).double().sum(2).numpy() / np.log(2)
    assert bits.shape == (len(pictures), SIZE) and np.abs(bits - expected).max() < 1e-3


def random_numbers(seed):
    """Mulberry32, as in random.js: numbers of 24 bits in [0, 1)."""
    state = seed
    while True:
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        t = (state ^ (state >> 15)) * (state | 1) & 0xFFFFFFFF
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & 0xFFFFFFFF)) & 0xFFFFFFFF
        yield ((t ^ (t >> 14)) >> 8) / 2**24


def continued(name, drawing, rows, temperature, seed, monkeypatch):
    """Continuations by helpers.sample with the page's random numbers; and the distance of each number from the
    probability that it is compared with."""
    numbers, chances = random_numbers(seed), []

    def rand(*shape, device=None):
        chances.append(torch.tensor(list(itertools.islice(numbers, int(np.prod(shape)))), dtype=torch.float32))
        return chances[-1].reshape(shape)

    before = torch.tensor(drawing[None, :rows], dtype=torch.float32).expand(COUNT, -1, -1) if rows else None
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", rand)
        member = weights.load(builder.NETWORKS[name])[0].in_order(0)
        values, outputs = helpers.sample(member, SIZE, before, batch=COUNT, temperature=temperature)
    if not temperature:
        return values.numpy(), outputs.abs().numpy()
    chances = torch.stack(chances).reshape(SIZE - rows, COUNT, SIZE).transpose(0, 1)
    return values.numpy(), (chances - torch.sigmoid(outputs / temperature)).abs().numpy()


@both
@pytest.mark.parametrize(
    ("name", "drawing", "rows", "temperature", "seed"),
    [
        ("letters", BOW, 11, 1, 1),
        ("letters", BAR, 9, 0.7, 2),
        ("letters", BOW, 0, 1, 3),
        ("letters", BOW, 11, 0, 4),
        ("digits", BAR, 9, 1, 5),
        ("digits", BOW, 12, 1.5, 4294967295),
    ],
)
def test_continuations_are_those_of_python_with_the_same_random_numbers(
    visit, monkeypatch, name, drawing, rows, temperature, seed
):
    shown = results(visit(link(name, drawing, rows, temperature, seed)))
    expected, distance = continued(name, drawing, rows, temperature, seed, monkeypatch)
    assert np.array_equal(shown[:, :rows], np.broadcast_to(drawing[:rows], (COUNT, rows, SIZE)))
    # No random number is so near the probability it is compared with that float32's rounding could decide: with the
    # seeds above the nearest is 6e-5 away.
    assert distance.min() > 1e-5
    assert np.array_equal(shown, expected)


def test_the_random_numbers_are_those_of_the_formula(visit):
    window = visit()
    for seed in (0, 1, 2**32 - 1):
        mine = list(itertools.islice(random_numbers(seed), 2000))
        assert mine == window.evaluate(f"Array.from({{ length: 2000 }}, pixelRNN.randomFrom({seed}))")
        assert min(mine) >= 0 and max(mine) < 1 and 0.45 < np.mean(mine) < 0.55


BREAKS = {
    "the gates in another order": (
        "network",
        "sigmoid(gates[size + i]) * state.cell",
        "sigmoid(gates[i]) * state.cell",
    ),
    "no tanh of the cell": ("network", "Math.tanh(next.cell[i])", "next.cell[i]"),
    "no bias": ("weights", "value + model.hiddenBias[i]", "value"),
    "no start state": (
        "network",
        "hidden: forBatch(model.firstHidden, batch)",
        "hidden: new Float64Array(256 * batch)",
    ),
    "nothing added to the features": ("network", "features[i] += next", "features[i] = next"),
    "no residual connection": ("network", "x[i] += y[i]", "x[i] = y[i]"),
    "no rectifier": ("network", "Math.max(0, x[i])", "x[i]"),
    "a mask that hides too much": ("network", "(own ? 1 : 0)) * inputs", "0) * inputs"),
    "values 0 and 1": ("sampling", "2 * values[b][place] - 1", "values[b][place]"),
    "halves without their sign": ("weights", "bits & 0x8000 ? -size : size", "size"),
}


@pytest.fixture(scope="module")
def difference(chromium, built):
    """difference(code): the largest difference between torch's logits and those of this script (or not a number)."""
    model, card = weights.load("letters")  # conditioned on the reading order, which uses all parts of the network
    member = model.in_order(0)
    with torch.no_grad():
        expected = member.teacher_forced(torch.tensor(BOW[None], dtype=torch.float32)).numpy()
    html = re.sub(r"<(script|link)[^>]*>(</script>)?", "", (built / "index.html").read_text(encoding="utf-8"))
    packed = f"window.pixelRNNWeights = {{ letters: {json.dumps(builder.packed('letters', model, card))} }};"

    with chromium.new_page() as window:
        window.set_content(html)
        window.add_script_tag(content=packed)

        def difference(code):
            # Each script takes the place of the one before. The page's own start would load the weights by their
            # address, which a page without one does not have.
            code = code.replace("\nfromLink();\n", "\n").replace("const pixelRNN = ", "globalThis.pixelRNN = ")
            window.evaluate("delete globalThis.pixelRNN")
            window.add_script_tag(content=code)
            keep = "pixelRNN.keepWeights(window.pixelRNNWeights.letters).then(() => pixelRNN.useWeights('letters'))"
            window.evaluate(keep)
            return np.abs(read_by(window, BOW[None])[0].astype(float) - expected).max()

        yield difference


def test_the_script_has_no_mistake_of_these(difference):
    assert difference(builder.bundle()) < 1e-4


@pytest.mark.parametrize("mistake", BREAKS)
def test_a_function_that_is_broken_on_purpose_is_found(difference, mistake):
    module, right, wrong = BREAKS[mistake]
    assert (builder.SOURCES / f"{module}.js").read_text(encoding="utf-8").count(right) == 1
    assert not difference(builder.bundle().replace(right, wrong)) < 1e-2


# --- Drawing ----------------------------------------------------------------------------------------------------------

ARCH = ((8, 12), (9, 8), (12, 6), (16, 6), (19, 8), (20, 12))  # x and y, in pixels of the drawing


def places(window, points=ARCH, canvas="#pad"):
    """Points of the drawing as points of the window."""
    window.locator(canvas).scroll_into_view_if_needed()
    box = window.locator(canvas).bounding_box()
    return [(box["x"] + box["width"] * x / SIZE, box["y"] + box["height"] * y / SIZE) for x, y in points]


def draw_with_mouse(window, points=ARCH, steps=1):
    first, *others = places(window, points)
    window.mouse.move(*first)
    window.mouse.down()
    for point in others:
        window.mouse.move(*point, steps=steps)
    window.mouse.up()


def inked(canvas_values):
    return np.array(canvas_values).reshape(SIZE, SIZE) > 0


# The middle of each pixel of a canvas, as 1 where it is dark.
DARK = """(canvas) => {
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from({ length: 784 }, (_, i) => {
        const [x, y] = [((i % 28) + 0.5) * width / 28, (Math.floor(i / 28) + 0.5) * height / 28];
        const place = 4 * (Math.floor(y) * width + Math.floor(x));
        return Number(data[place + 3] > 200 && data[place] < 60 && data[place + 1] < 100);
    });
}"""


@both
def test_what_is_drawn_with_the_mouse_stays_and_is_continued_each_time_anew(visit):
    window = visit()
    assert window.evaluate("[pixelRNN.state.name, pixelRNN.state.temperature]") == ["digits", 0.7]
    draw_with_mouse(window, steps=4)
    first, drawing, rows = results(window), drawn(window), given(window)
    assert 20 < drawing.sum() < 200 and rows == np.flatnonzero(drawing.any(1)).max() == 12
    assert np.array_equal(inked(window.locator("#pad").evaluate(DARK))[:6], drawing[:6] > 0)
    tiles = window.locator("#tiles canvas").all()
    assert len(tiles) == COUNT
    for tile, shown in zip(tiles, first, strict=True):
        assert np.array_equal(inked(tile.evaluate(DARK))[14:], shown[14:] > 0)
    window.get_by_role("button", name="Sample again").click()
    again = results(window)
    assert all(np.array_equal(shown[:rows], drawing[:rows]) for shown in (*first, *again))
    assert len({shown.tobytes() for shown in (*first, *again)}) > 6
    assert "12 rows given: " in window.inner_text("#surprise")


def test_fingers_draw_and_do_not_scroll(visit):
    window = visit(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    (x, y), *others = places(window)
    touch = window.context.new_cdp_session(window)
    before = window.evaluate("scrollY")
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for x, y in others:
        second = {"x": x / 2, "y": y + 90, "id": 1}  # a second finger draws nothing
        points = [{"x": x, "y": y, "id": 0}, second]
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
    # Another finger is lifted, which does not end the stroke of the first.
    window.locator("#pad").evaluate("(pad) => pad.dispatchEvent(new PointerEvent('pointerup', { pointerId: 99 }))")
    assert drawn(window).any() and not window.evaluate("pixelRNN.state.busy || pixelRNN.state.results")
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    shown, drawing = results(window), drawn(window)
    assert 20 < drawing.sum() < 200 and given(window) == 12 and window.evaluate("scrollY") == before
    assert all(np.array_equal(one[:12], drawing[:12]) for one in shown)


@both
def test_the_keyboard_draws_and_samples(visit):
    window = visit()
    window.focus("#pad")
    for key in (*["ArrowDown"] * 4, *["ArrowRight"] * 9, "Space", *["Shift+ArrowRight"] * 3, "Shift+ArrowDown"):
        window.keyboard.press(key)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[4, 9:13] = expected[5, 12] = 1
    assert np.array_equal(drawn(window), expected)
    assert window.inner_text("#place") == "row 6, column 13: ink"
    window.keyboard.press("Enter")
    assert all(np.array_equal(one[:6], expected[:6]) for one in results(window))
    window.keyboard.press("Space")  # takes the ink away
    assert drawn(window).sum() == 4 and window.evaluate("pixelRNN.state.results") is None


def test_every_control_is_reached_and_seen_with_the_tab_key(visit):
    window = visit(link("letters", BOW, 11))
    results(window)
    reached = []
    for _ in range(40):
        window.keyboard.press("Tab")
        found = window.evaluate(
            "[document.activeElement.id || document.activeElement.name || document.activeElement.tagName,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if found[0] == "BODY":
            break
        reached.append(found[0])
        assert found[1] == "solid", found
    wanted = "set pen pad continue nothing clear given temperature adopt link png apng"
    assert set(wanted.split()) <= set(reached) and reached.count("BUTTON") == COUNT


def test_a_pen_draws_with_one_end_and_erases_with_the_other(visit):
    window = visit()
    pen = window.context.new_cdp_session(window)
    ink = []
    for button, buttons in (("left", 1), ("right", 2)):
        for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), places(window), strict=False):
            event = {"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "pointerType": "pen"}
            pen.send("Input.dispatchMouseEvent", event)
        results(window)
        ink.append(drawn(window).sum())
    assert ink[0] > 8 and ink[1] < ink[0] / 2


@both
def test_eraser_undo_clear_and_start_from_nothing(visit):
    window = visit()
    draw_with_mouse(window)
    before = drawn(window)
    window.get_by_label("eraser").check()
    draw_with_mouse(window, ARCH[:3])
    assert 0 < drawn(window).sum() < before.sum()
    window.get_by_role("button", name="Undo").click()
    assert np.array_equal(drawn(window), before)
    window.get_by_role("button", name="Start from nothing").click()
    shown = results(window)
    assert not drawn(window).any() and given(window) == 0 and shown[:, :20].any()
    window.get_by_role("button", name="Undo").click()
    window.get_by_role("button", name="Clear").click()
    assert not drawn(window).any() and window.evaluate("pixelRNN.state.results") is None


@both
def test_whatever_takes_the_place_of_the_drawing_can_be_undone(visit):
    window = visit()
    undo = window.get_by_role("button", name="Undo")
    put_in(window, link("letters", BOW, 11))
    results(window)
    soon(undo).to_be_disabled()  # nothing had been drawn
    put_in(window, link("letters", BOW, 9))
    assert np.array_equal(drawn(window), BOW)
    soon(undo).to_be_disabled()
    for replace in (
        lambda: put_in(window, link("digits", BAR, 9)),
        lambda: put_in(window, link("letters", 0 * BOW, 0)),
        lambda: [window.get_by_role("button", name="Clear").click() for _ in range(2)],
        lambda: [window.get_by_role("button", name="Start from nothing").click() for _ in range(2)],
        window.get_by_role("button", name="Draw on from the chosen one").click,
    ):
        results(window)
        replace()
        window.wait_for_function("!document.getElementById('undo').disabled")
        assert not np.array_equal(drawn(window), BOW)
        undo.click()  # once is enough
        assert np.array_equal(drawn(window), BOW)
        window.wait_for_function("document.getElementById('undo').disabled")


@both
def test_undo_takes_no_step_at_which_nothing_happens_and_keeps_the_focus(visit):
    window = visit()
    undo = window.get_by_role("button", name="Undo")
    window.get_by_role("button", name="Clear").click()
    window.get_by_label("eraser").check()
    draw_with_mouse(window)
    soon(undo).to_be_disabled()
    window.get_by_label("thin").check()
    draw_with_mouse(window)
    first = drawn(window)
    draw_with_mouse(window)  # over itself
    results(window)
    undo.focus()
    window.keyboard.press("Enter")
    assert first.any() and not drawn(window).any()
    soon(undo).to_be_disabled()
    assert window.evaluate("document.activeElement.id") == "pad"
    window.wait_for_timeout(100)
    assert window.evaluate("pixelRNN.state.results === null && !pixelRNN.state.busy")  # nothing is sampled from nothing
    assert "None yet" in window.inner_text("#status")


@both
def test_ctrl_z_takes_back_wherever_the_focus_is(visit):
    window = visit()
    draw_with_mouse(window)
    first = drawn(window)
    draw_with_mouse(window, [(8, 20), (14, 20)])
    window.focus("#temperature")
    window.keyboard.press("Control+Shift+z")
    assert not np.array_equal(drawn(window), first)
    window.keyboard.press("Control+z")
    assert np.array_equal(drawn(window), first) and len(results(window)) == COUNT


@both
def test_without_a_drawing_the_address_says_nothing(visit):
    window = visit()
    draw_with_mouse(window)
    results(window)
    assert "d=" in window.url
    window.get_by_role("button", name="Clear").click()
    window.wait_for_function("!location.hash")
    window.reload()
    window.wait_for_function("pixelRNN.state.card")
    assert not drawn(window).any()
    window.get_by_role("button", name="Start from nothing").click()
    results(window)
    assert "seed=" in window.url  # what is shown can be sent


def test_both_sliders_have_their_names(visit):
    window = visit()
    for name, identity in (("Temperature", "temperature"), ("Rows given", "given")):
        assert window.get_by_role("slider", name=name, exact=True).get_attribute("id") == identity


def test_the_seed_stays_when_the_temperature_moves_and_not_otherwise(visit):
    window = visit(link("letters", BOW, 11, seed=7))
    first = results(window)
    window.locator("#temperature").fill("0.3")
    colder = results(window)
    assert window.evaluate("pixelRNN.state.seed") == 7 and not np.array_equal(first, colder)
    window.locator("#temperature").fill("1")
    assert np.array_equal(results(window), first)
    window.get_by_role("button", name="Sample again").click()
    results(window)
    assert window.evaluate("pixelRNN.state.seed") != 7


def lost_with_its_capture(window):
    first, second, third = places(window, [(8, 20), (9, 20), (14, 20)])
    window.mouse.move(*first)
    window.mouse.down()
    window.mouse.move(*second)  # with it the pad has the capture that it asked for
    window.evaluate("document.getElementById('pad').releasePointerCapture(1)")
    window.mouse.move(*third)
    assert drawn(window)[20, 8] and not drawn(window)[20, 11:].any()
    results(window)  # as if the pen had been lifted
    window.mouse.up()


def lost_without_a_word(pointer):
    def lost(window):
        (x, y), elsewhere = places(window, [(8, 20), (20, 24)])
        settings = f"{{ pointerId: {pointer}, clientX: {x}, clientY: {y}, buttons: 1 }}"
        window.locator("#pad").evaluate(f"""(pad) => {{
            pad.setPointerCapture = () => {{}}; // there is no such pointer
            pad.dispatchEvent(new PointerEvent("pointerdown", {settings}));
            delete pad.setPointerCapture;
        }}""")
        if pointer == 1:  # the mouse, which comes back with no button pressed
            window.mouse.move(*elsewhere)
            results(window)
        assert drawn(window)[20, 8] and not drawn(window)[22:].any()

    return lost


LOST = {
    "with its capture": lost_with_its_capture,
    "a mouse": lost_without_a_word(1),
    "a pen": lost_without_a_word(7),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_stroke_whose_end_is_not_told_does_not_lock_the_pad(visit, lost):
    window = visit()
    LOST[lost](window)
    pen = window.context.new_cdp_session(window)
    before = drawn(window)
    for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), places(window), strict=False):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "pointerType": "pen"}
        pen.send("Input.dispatchMouseEvent", event)
    results(window)
    assert drawn(window)[:13].sum() > 8
    assert np.array_equal(drawn(window)[14:], before[14:])  # no line from the one stroke to the other


@both
def test_the_given_rows_can_be_fewer_or_all(visit):
    window = visit(link("letters", BOW, 11))
    results(window)
    window.locator("#given").fill("9")
    shown = results(window)
    assert all(np.array_equal(one[:9], BOW[:9]) for one in shown)
    assert not all(np.array_equal(one[9:11], BOW[9:11]) for one in shown) and np.array_equal(drawn(window), BOW)
    window.locator("#given").fill("28")
    window.wait_for_function("document.getElementById('status').textContent.includes('nothing is left to sample')")


@both
def test_temperature_0_gives_one_continuation_and_a_high_one_six(visit):
    window = visit(link("letters", BOW, 11))
    for temperature, most in ((0, 1), (2, 6)):
        window.locator("#temperature").fill(str(temperature))
        assert len({one.tobytes() for one in results(window)}) == most


@both
def test_a_continuation_that_is_chosen_shows_its_probabilities_and_can_be_drawn_on(visit):
    window = visit(link("letters", BOW, 11, seed=3))
    shown = results(window)
    window.locator("#tiles button").nth(4).click()
    assert window.locator("#tiles button").nth(4).get_attribute("aria-pressed") == "true"
    likely = np.array(window.evaluate("Array.from(pixelRNN.state.results.chances[4])")).reshape(SIZE, SIZE)
    tile = window.locator("#tiles canvas").nth(4)
    looked = inked(tile.evaluate(DARK))  # the mouse is on it
    assert looked[12:][likely[12:] > 0.95].all() and not looked[12:][likely[12:] < 0.3].any()
    window.mouse.move(0, 0)
    assert np.array_equal(inked(tile.evaluate(DARK))[12:], shown[4][12:] > 0)
    assert window.url.endswith("tile=5")
    other = visit(window.url.partition("index.html")[2])
    results(other)
    assert other.locator("#tiles button").nth(4).get_attribute("aria-pressed") == "true"
    window.bring_to_front()  # a window behind another has no focus
    window.locator("#tiles button").nth(4).press("Tab")  # with the keyboard, the next one is looked at
    likely = np.array(window.evaluate("Array.from(pixelRNN.state.results.chances[5])")).reshape(SIZE, SIZE)
    looked = inked(window.locator("#tiles canvas").nth(5).evaluate(DARK))
    assert looked[12:][likely[12:] > 0.95].all() and not looked[12:][likely[12:] < 0.3].any()
    window.keyboard.press("Tab")  # and now it is not
    assert np.array_equal(inked(window.locator("#tiles canvas").nth(5).evaluate(DARK))[12:], shown[5][12:] > 0)
    window.get_by_role("button", name="Draw on from the chosen one").click()
    assert np.array_equal(drawn(window), shown[4])


def test_a_finger_sees_the_probabilities_of_a_tile_and_then_the_tile_again(visit):
    window = visit(link("letters", BOW, 11, seed=3), has_touch=True, is_mobile=True, viewport=PHONE)
    shown = results(window)
    tile, canvas = window.locator("#tiles button").nth(2), window.locator("#tiles canvas").nth(2)
    for probabilities in (True, False):
        tile.tap()
        assert np.array_equal(inked(canvas.evaluate(DARK))[12:], shown[2][12:] > 0) != probabilities


@both
def test_a_new_stroke_ends_the_sampling_before_it(visit):
    window = visit()
    after = """async () => {
        const older = pixelRNN.proceed(1);
        const newer = pixelRNN.proceed(2);
        await older;
        const between = pixelRNN.state.results;
        await newer;
        return [between, pixelRNN.state.results.seed];
    }"""
    assert window.evaluate(after) == [None, 2]
    window.evaluate("() => { pixelRNN.proceed(1); }")  # not waited for
    draw_with_mouse(window)
    assert all(np.array_equal(one[:12], drawn(window)[:12]) for one in results(window))


def test_with_reduced_motion_all_rows_appear_at_once(visit):
    painted = {}
    for motion in ("reduce", "no-preference"):
        window = visit(link("letters", BOW, 11), reduced_motion=motion)
        results(window)
        window.evaluate("""() => {
            window.painted = 0;
            const draw = CanvasRenderingContext2D.prototype.drawImage;
            CanvasRenderingContext2D.prototype.drawImage = function (...words) {
                window.painted += this.canvas.closest("#tiles") !== null;
                return draw.apply(this, words);
            };
        }""")
        # So slow that rows come in several turns, with which they would be seen.
        window.context.new_cdp_session(window).send("Emulation.setCPUThrottlingRate", {"rate": 8})
        window.get_by_role("button", name="Sample again").click()
        results(window)
        painted[motion] = window.evaluate("window.painted")
    assert painted["reduce"] == COUNT and painted["no-preference"] > 3 * COUNT


def test_a_faint_frame_shows_where_most_pictures_stand(visit):
    window = visit()
    at = """(x, y) => Array.from(document.getElementById("pad").getContext("2d").getImageData(x, y, 1, 1).data)"""
    line = [window.evaluate(f"({at})({4 * 16}, {y})") for y in range(5 * 16 + 2, 7 * 16)]  # 16 pixels a value
    assert any(blue - red > 20 for red, _, blue, _ in line) and any(blue - red < 5 for red, _, blue, _ in line)
    assert all(max(pixel[:3]) > 150 for pixel in line)  # faint


# --- A first visit ----------------------------------------------------------------------------------------------------


@both
def test_on_the_first_visit_a_stroke_draws_itself_and_is_finished(visit, engine):
    seen = """window.grown = new Set();
        setInterval(() => typeof pixelRNN === "object" && grown.add(pixelRNN.state.picture.join("")), 5);"""
    moving = {"reduced_motion": "no-preference"} if engine == "chromium" else {}
    window = visit(first=True, script=seen, **moving)
    shown, bow = results(window), python_drawing("bow")
    assert np.array_equal(drawn(window), bow) and window.evaluate("grown.size") > 3  # it has grown
    assert all(np.array_equal(one[:10], bow[:10]) for one in shown) and given(window) == 10
    assert "Now draw your own." in window.inner_text("#status")
    assert window.evaluate("location.hash") == ""
    soon(window.locator("#undo")).to_be_disabled()
    draw_with_mouse(window, [(5, 3), (5, 8)])  # which takes the place of what was shown
    own = drawn(window)
    assert not own[:, 9:].any() and own[3:8, 5].all()
    window.get_by_role("button", name="Undo").click()
    assert not drawn(window).any()


def test_with_reduced_motion_the_stroke_is_there_at_once(visit):
    seen = "window.grown = new Set(); requestAnimationFrame(function look() { requestAnimationFrame(look);"
    window = visit(first=True, script=f"{seen} grown.add(document.getElementById('pad')?.toDataURL()); }});")
    assert len(results(window)) == COUNT and np.array_equal(drawn(window), python_drawing("bow"))
    assert window.evaluate("grown.size") <= 3  # no page yet, an empty pad, the stroke


def test_a_stroke_that_draws_itself_gives_way_and_comes_once(visit):
    window = visit(first=True, ready=False, reduced_motion="no-preference")
    window.wait_for_function("pixelRNN.state.given > 5")
    draw_with_mouse(window, [(5, 3), (5, 8)])
    shown = results(window)
    window.wait_for_timeout(1200)  # longer than the stroke takes
    assert not drawn(window)[:, 9:].any() and np.array_equal(results(window), shown)
    visited = visit(first=True, script="localStorage.setItem('pixelRNN visited', 'yes');")
    linked = visit(link("digits", BAR, 9), first=True)
    assert np.array_equal(drawn(linked), BAR) and len(results(linked)) == COUNT
    assert not drawn(visited).any() and visited.evaluate("pixelRNN.state.results") is None


def python_drawing(name, pen=2.0):
    return judge_drawings.drawing(judge_drawings.DRAWINGS[name], pen).numpy()


@both
def test_examples_are_drawings_that_one_can_draw_on(visit):
    window = visit()
    for pen, width in (("thin", 2.0), ("thick", 2.6)):
        window.get_by_label(pen).check()
        for name in ("bow", "bar", "hook", "two verticals"):
            window.get_by_role("button", name=f"Example: {name}").click()
            shown, expected = results(window), python_drawing(name, width)
            assert (drawn(window) != expected).sum() <= 2  # pixels at the very edge of the pen
            assert all(np.array_equal(one[:6], drawn(window)[:6]) for one in shown)
            assert f"rows={given(window)}" in window.url
    before = drawn(window)
    draw_with_mouse(window, [(13, 7), (14, 7)])
    assert np.array_equal(drawn(window) & before, before) and drawn(window)[7, 13]
    soon(window.locator("#examples")).to_be_hidden()
    window.get_by_role("button", name="Clear").click()
    soon(window.locator("#examples")).to_be_visible()
    window.get_by_label("eraser").check()
    window.get_by_role("button", name="Example: bar").click()
    assert (drawn(window) != python_drawing("bar")).sum() <= 2


# --- Threads ----------------------------------------------------------------------------------------------------------

NO_THREADS = {
    "none": "delete window.Worker;",
    "forbidden": "window.Worker = class { constructor() { throw Error('no') } };",
}


@pytest.mark.parametrize("way", NO_THREADS)
def test_without_threads_the_page_computes_by_itself(visit, way):
    fragment = link("letters", BOW, 11, seed=7)
    shown = results(visit(fragment))
    window = visit(fragment, script=NO_THREADS[way])
    assert np.array_equal(results(window), shown) and "11 rows given: " in window.inner_text("#surprise")


def test_the_thread_of_the_page_reads_and_samples_nothing(visit):
    """So that it answers whoever draws, however slow the processor is."""
    window = visit()
    window.evaluate("""() => {
        window.steps = 0;
        const read = pixelRNN.Reader.prototype.read;
        pixelRNN.Reader.prototype.read = function (...words) { steps++; return read.apply(this, words); };
    }""")
    draw_with_mouse(window)
    results(window)
    assert window.evaluate("steps") == 0


COUNTED = """window.sent = 0;
const whole = window.Worker;
window.Worker = class extends whole { postMessage(message) { sent++; super.postMessage(message); } };"""


def test_the_bits_are_those_of_the_last_drawing_and_are_read_once(visit):
    window = visit(link("letters", BOW, 11), script=COUNTED)
    results(window)
    for given in ([3, 5, 11], [11, 2]):  # each while the one before is read
        window.evaluate(f"{given}.forEach((rows) => {{ pixelRNN.state.given = rows; pixelRNN.paint(); }})")
        window.wait_for_function(f"document.getElementById('surprise').textContent.startsWith('{given[-1]} rows')")
        assert len(window.locator("#rows tr").all()) == given[-1]
    window.wait_for_timeout(100)
    before = window.evaluate("sent")
    window.wait_for_timeout(200)
    assert window.evaluate("sent") == before


def test_another_network_is_another_network(visit):
    window, pictures = visit(link("letters", BOW, 11)), BOW[None]
    for name in ("digits", "letters"):
        window.locator(f"[value={name}]").click()
        window.wait_for_function(f"pixelRNN.state.name === '{name}' && pixelRNN.state.results")
        logits, _ = read_by(window, pictures)
        member = weights.load(builder.NETWORKS[name])[0].in_order(0)
        with torch.no_grad():
            expected = member.teacher_forced(torch.tensor(pictures, dtype=torch.float32)).numpy()
        assert np.abs(logits - expected).max() < 1e-4


def test_a_thread_that_ends_is_told(visit):
    end = """const whole = window.Worker;
        window.Worker = class extends whole {
            postMessage(message) {
                if (message.sample) this.onerror({ message: "out of memory" });
                else super.postMessage(message);
            }
        };"""
    window = visit(script=end, errors=True)
    draw_with_mouse(window)
    assert "out of memory" in shown_at(window, "error")


# --- Links and files --------------------------------------------------------------------------------------------------


@both
def test_a_link_holds_the_drawing_and_shows_the_same_continuations(visit):
    window = visit()
    draw_with_mouse(window)
    window.locator("#temperature").fill("0.8")
    shown = results(window)
    fragment = window.evaluate("location.hash")
    other = visit(fragment)
    assert np.array_equal(results(other), shown) and np.array_equal(drawn(other), drawn(window))
    assert other.evaluate("[pixelRNN.state.given, pixelRNN.state.temperature]") == [12, 0.8]
    other.evaluate(f"location.hash = '{link('digits', BAR, 9)}'")  # a link that is put in
    other.wait_for_function("pixelRNN.state.name === 'digits' && pixelRNN.state.results")
    assert np.array_equal(drawn(other), BAR) and other.locator("[value=digits]").is_checked()


def test_the_link_is_copied(visit):
    window = visit(permissions=["clipboard-read", "clipboard-write"])
    draw_with_mouse(window)
    shown = results(window)
    window.get_by_role("button", name="Copy link").click()
    window.wait_for_function("document.getElementById('shared').textContent.includes('copied')")
    address = window.evaluate("navigator.clipboard.readText()")
    assert np.array_equal(results(visit(address[address.index("#") :])), shown)


@pytest.mark.parametrize(
    ("fragment", "told"),
    [
        ("#set=letters&rows=3&d=AAAA", "drawing in the link is damaged"),
        ("#set=letters&rows=3&d=%%%", "drawing in the link is damaged"),
        (link("letters", BOW, 29), r"damaged \(rows\)"),
        (link("letters", BOW, 9, "hot"), r"damaged \(t\)"),
        (link("<b>faces</b>", BOW, 9), "no set of weights"),
    ],
)
def test_a_damaged_link_is_told_and_the_page_works(visit, fragment, told):
    window = visit(fragment)
    window.wait_for_function("!document.getElementById('error').hidden")
    assert re.search(told, window.inner_text("#error")) and not drawn(window).any()
    assert "Starting with an empty drawing." in window.inner_text("#error")
    draw_with_mouse(window)
    assert len(results(window)) == COUNT


@pytest.mark.parametrize("drawing", [BOW, 0 * BOW])
def test_a_damaged_link_that_is_put_in_changes_nothing(visit, drawing):
    window = visit(link("digits", drawing, 11, 0.5, seed=3))
    shown, status = results(window), window.inner_text("#status")
    put_in(window, "#set=letters&rows=3&t=1&d=abc")
    told = "Your drawing stays." if drawing.any() else "Starting with an empty drawing."
    assert shown_at(window, "error") == f"The drawing in the link is damaged. {told}"
    put_in(window, "")  # a link that says nothing
    soon(window.locator("#error")).to_be_visible()
    assert np.array_equal(drawn(window), drawing) and window.inner_text("#status") == status
    assert window.evaluate("[pixelRNN.state.name, pixelRNN.state.temperature]") == ["digits", 0.5]
    soon(window.locator("#png")).to_be_enabled()
    soon(window.locator("#undo")).to_be_disabled()
    window.get_by_role("button", name="Draw on from the chosen one").click()
    assert np.array_equal(drawn(window), shown[0])


def test_pictures_are_saved_still_and_animated(visit):
    window = visit(link("letters", BOW, 11, seed=1))
    shown = results(window)
    saved = {}
    for button in ("Save PNG", "Save animated PNG"):
        with window.expect_download() as download:
            window.get_by_role("button", name=button, exact=True).click()
        saved[button] = Image.open(download.value.path())
    still, moving = saved.values()
    assert (still.format, moving.format) == ("PNG", "PNG") and not getattr(still, "is_animated", False)
    assert moving.n_frames == 1 + (SIZE - 11 + 1)
    frames = []
    for number in range(moving.n_frames):
        moving.seek(number)
        frames.append(np.asarray(moving.convert("L")))
    assert np.array_equal(frames[0], frames[-1]) and not np.array_equal(frames[1], frames[-1])
    ink = [int((frame < 90).sum()) for frame in frames[1:]]
    assert ink == sorted(ink) and ink[-1] > ink[0]  # row by row
    left = frames[0][8 : 8 + 112, 8 : 8 + 112][2::4, 2::4] < 90  # the first continuation, one value a pixel of it
    assert np.array_equal(left[:10], shown[0][:10] > 0) and np.array_equal(left[12:], shown[0][12:] > 0)
    below = np.asarray(still.convert("L"))[2 * 224 + 3 * 16 :] < 120  # the title, and where the page is
    assert len(below) == 40 and below[:, :230].sum() > 200 and below[:, 500:].sum() > 100
    where = "pixelRNN.whereabouts({ protocol: 'https:', host: 'x.org', pathname: '/series/draw/index.html' })"
    assert window.evaluate(where) == "x.org/series/draw/"
    assert window.evaluate("pixelRNN.whereabouts()") == "PixelRNN lab notebook"  # a file's place is nobody's business


@pytest.mark.parametrize("broken", ["toBlob = (use) => use(null)", "toBlob = () => { throw Error('no') }", None])
def test_where_the_browser_gives_no_picture_the_page_says_so(visit, broken):
    window = visit(link("letters", BOW, 11), errors=True)
    results(window)
    if broken:
        name, button = "PNG", "#png"
        window.evaluate(f"() => {{ HTMLCanvasElement.prototype.{broken}; }}")
    else:
        name, button = "animated PNG", "#apng"
        window.evaluate("() => { CanvasRenderingContext2D.prototype.getImageData = () => { throw Error('no'); } }")
    window.locator(button).click()
    assert f"This browser gives no {name}." in shown_at(window, "shared")


SHARE = """navigator.share = async (shared) => {
    window.shared = { ...shared, files: (shared.files || []).map((file) => [file.name, file.type, file.size]) };
    if (window.refusal) throw new DOMException("no", window.refusal);
};
navigator.canShare = (shared) => window.takesFiles || !shared.files;"""


def test_the_share_sheet_gets_the_picture_and_the_link_where_there_is_one(visit):
    plain = visit(script="delete Navigator.prototype.share;")
    soon(plain.locator("#share")).to_be_hidden()
    window = visit(link("letters", BOW, 11, seed=3), script=SHARE, errors=True)
    results(window)
    for takes in (False, True):
        window.evaluate(f"window.shared = null; window.takesFiles = {str(takes).lower()}")
        window.get_by_role("button", name="Share").click()
        window.wait_for_function("window.shared")
        shared = window.evaluate("window.shared")
        assert shared["title"] == "Finish your drawing" and shared["url"] == window.url and "seed=3" in shared["url"]
        assert [(name, kind, size > 5000) for name, kind, size in shared["files"]] == takes * [
            ("letters.png", "image/png", True)
        ]
    for refusal, told in (("AbortError", ""), ("DataError", "This browser gives no picture to share.")):
        window.evaluate(f"window.shared = null; window.refusal = '{refusal}'")
        window.get_by_role("button", name="Share").click()
        window.wait_for_function("window.shared")
        window.wait_for_timeout(50)
        assert window.inner_text("#shared").startswith(told) and bool(window.inner_text("#shared")) == bool(told)


def test_a_mistake_in_any_control_is_told_where_the_page_is_a_file(visit):
    window = visit(link("letters", BOW, 11), errors=True)
    results(window)

    def told(act):
        window.evaluate("document.getElementById('error').hidden = true")
        act()
        return "This page has made a mistake: Error: broken on purpose." in shown_at(window, "error")

    broken = "= () => { throw new Error('broken on purpose'); }"
    window.evaluate(f"() => {{ window.matchMedia {broken}; }}")  # which sampling asks
    assert told(window.get_by_role("button", name="Sample again").click)
    assert told(lambda: window.locator("#pad").press("Enter")) and told(lambda: draw_with_mouse(window))
    window.evaluate(f"() => {{ CanvasRenderingContext2D.prototype.fillRect = window.btoa {broken}; }}")
    for act in (
        lambda: window.locator("#tiles button").nth(2).click(),
        lambda: window.locator("#given").press("ArrowLeft"),
        lambda: window.locator("#pad").press("Space"),
        lambda: window.locator("#clear").click(),
        lambda: window.locator("#link").click(),
        lambda: window.locator("[value=digits]").click(),
        lambda: put_in(window, link("letters", BAR, 9)),
    ):
        assert told(act)


# --- Offline, damaged, small ------------------------------------------------------------------------------------------


def test_the_page_works_offline_once_it_is_loaded(visit, served):
    window = visit(address=served, errors=True, offline=False)  # the browser itself tells that it is offline
    window.context.set_offline(True)
    draw_with_mouse(window)
    assert len(results(window)) == COUNT
    window.get_by_label("letters").click()  # whose weights have not been loaded: digits stay chosen
    window.wait_for_function("!document.getElementById('error').hidden")
    assert "weights of letters did not load" in window.inner_text("#error")
    assert window.locator("[value=digits]").is_checked()
    draw_with_mouse(window, [(3, 3), (9, 3)])
    assert len(results(window)) == COUNT
    window.context.set_offline(False)
    window.get_by_label("letters").check()
    window.wait_for_function("pixelRNN.state.name === 'letters' && pixelRNN.state.results")
    soon(window.locator("#error")).to_be_hidden()


def test_a_served_page_can_be_loaded_again_without_a_network_and_is_never_an_old_one(chromium, built, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(built, folder)
    with serving(folder) as (address, stop), chromium.new_context() as context:
        window = context.new_page()
        window.goto(f"{address}/index.html")
        window.wait_for_function("navigator.serviceWorker.controller !== null")
        html = (folder / "index.html").read_text(encoding="utf-8")
        (folder / "index.html").write_text(html.replace("<h1>Finish your drawing", "<h1>Another page"))
        window.reload()
        assert window.inner_text("h1") == "Another page"
        (folder / "index.html").write_text(html)
        window.goto(f"{address}/")
        assert window.inner_text("h1") == "Finish your drawing"
        stop()
        for place in ("index.html", "", f"index.html{link('digits', BAR, 9)}"):
            window.goto("about:blank")
            window.goto(f"{address}/{place}")
            assert window.inner_text("h1") == "Finish your drawing"
            window.wait_for_function("pixelRNN.state.card")
        assert len(results(window)) == COUNT


def test_the_second_set_is_loaded_when_it_is_asked_for(visit):
    asked = []
    window = visit()
    window.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    draw_with_mouse(window)
    results(window)
    assert asked == []
    window.get_by_label("letters").check()
    window.wait_for_function("pixelRNN.state.name === 'letters' && pixelRNN.state.results")
    assert asked == ["weights-letters.js"]
    window.get_by_label("digits").check()
    window.wait_for_function("pixelRNN.state.name === 'digits' && pixelRNN.state.results")
    assert asked == ["weights-letters.js"]


def late(window, name):
    """Holds the weights of that name back. Returns what lets them come, or with `fails` not come."""
    routes = []
    window.route(f"**/weights-{name}.js", lambda route: routes.append(route))

    def come(fails=False):
        while not routes:
            window.wait_for_timeout(20)
        routes[0].abort() if fails else routes[0].continue_()
        window.unroute(f"**/weights-{name}.js")
        window.wait_for_function(f"!document.querySelector('script[src*={name}]')")

    return come


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("first", ["control", "link"])
@pytest.mark.parametrize("last", ["control", "link"])
def test_weights_that_come_late_do_not_override_the_last_choice(visit, served, first, last, fails):
    window = visit(link("letters", BOW, 11), address=served, errors=True)
    results(window)
    come = late(window, "digits")
    for way, name, drawing in ((first, "digits", BAR), (last, "letters", BOW)):
        if way == "link":
            put_in(window, link(name, drawing, 9, seed=5))
        else:
            window.locator(f"[value={name}]").click()
        assert window.locator(f"[value={name}]").is_checked()
    window.wait_for_function("document.getElementById('status').textContent.includes('6 ways')")
    shown, drawing, status = results(window), drawn(window), window.inner_text("#status")
    come(fails)
    if not fails:
        window.evaluate(DECODED)
    assert window.evaluate("pixelRNN.state.name") == "letters" and window.locator("[value=letters]").is_checked()
    assert np.array_equal(results(window), shown) and np.array_equal(drawn(window), drawing)
    assert window.inner_text("#status") == status
    soon(window.locator("#error")).to_be_hidden()
    window.locator("[value=digits]").click()
    window.wait_for_function("pixelRNN.state.name === 'digits' && pixelRNN.state.results")


DECODED = "pixelRNN.loadWeights('digits').then(() => 0)"  # waits until it is


def test_while_weights_load_the_page_goes_on_and_what_is_done_meanwhile_holds(visit, served):
    window = visit(link("letters", BOW, 11), address=served, errors=True)
    shown = results(window)
    come = late(window, "digits")
    window.locator("[value=digits]").click()
    put_in(window, "#d=abc")  # damaged: no choice
    soon(window.locator("#png")).to_be_enabled()
    come(fails=True)
    assert "weights of digits did not load" in shown_at(window, "error")
    assert np.array_equal(results(window), shown) and window.locator("[value=letters]").is_checked()
    come = late(window, "digits")
    window.locator("[value=digits]").click()
    put_in(window, "#d=abcd")
    window.get_by_role("button", name="Clear").click()
    come()
    window.evaluate(DECODED)
    assert window.evaluate("[pixelRNN.state.name, pixelRNN.state.busy]") == ["digits", False]
    assert window.inner_text("#status") == "None yet: draw, and lift the pen."
    soon(window.locator("#error")).to_be_visible()
    assert "The link names no set of weights of ours." in window.inner_text("#error")


def test_where_no_weights_load_none_are_chosen_and_each_can_be_tried_again(visit, built, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(built, folder)
    for name in builder.NETWORKS:
        (folder / f"weights-{name}.js").unlink()
    window = visit(folder=folder, errors=True, ready=False)
    for name in ("digits", "letters"):
        shown_at(window, "error")
        window.locator(f"[value={name}]").click()
        window.wait_for_function(f"document.getElementById('error').textContent.includes('weights of {name} did')")
        window.wait_for_function("document.querySelectorAll('[name=set]:checked').length === 0")
    shutil.copy(built / "weights-letters.js", folder)
    window.locator("[value=letters]").click()
    assert len(results(window)) == COUNT and window.locator("[value=letters]").is_checked()


def changed_letter(text):
    place = text.index('"data": "') + 100_000
    return f"{text[:place]}{'A' if text[place] != 'A' else 'B'}{text[place + 1 :]}"


DAMAGE = {
    "a letter changed": (changed_letter, "checksum differs"),
    "cut off": (lambda text: text[:200_000], "damaged, or are something else"),
    "no base64": (lambda text: text.replace('"data": "', '"data": "!'), "They are damaged"),
    "another format": (
        lambda text: text.replace('"format": 1', '"format": 2'),
        "of format 2; this page reads format 1",
    ),
    "other sizes": (lambda text: text.replace('["outBias", 28]', '["outBias", 27]'), "damaged: some are missing"),
    "missing": (None, "did not load: is weights-digits.js beside this page"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_are_told_in_place_and_the_other_set_works(visit, built, tmp_path, kind):
    damage, told = DAMAGE[kind]
    folder = tmp_path / "page"
    shutil.copytree(built, folder)
    path = folder / "weights-digits.js"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    if damage:
        assert damage(text) != text
        path.write_text(damage(text), encoding="utf-8")
    window = visit(folder=folder, errors=True, ready=False)
    window.wait_for_function("!document.getElementById('error').hidden")
    assert told in window.inner_text("#error") and "Loading" not in window.inner_text("#status")
    soon(window.locator("#continue")).to_be_disabled()
    draw_with_mouse(window)  # no dead canvas: the drawing is there, and the other set finishes it
    assert drawn(window).any()
    window.get_by_label("letters").check()
    assert len(results(window)) == COUNT
    soon(window.locator("#error")).to_be_hidden()


def test_a_missing_script_is_told_in_place(visit, built, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(built, folder)
    (folder / "draw.js").unlink()
    window = visit(folder=folder, errors=True, ready=False)
    assert "its script did not load" in window.inner_text("#status")


@pytest.mark.parametrize("page", ["index", "sees"])
@pytest.mark.parametrize("width", [360, 390, 1000])
def test_nothing_is_cut_off_at_this_width(visit, width, page):
    settings = {"viewport": {"width": width, "height": 740}, "is_mobile": width < 500}
    window = visit(link("letters", BOW, 11), page=page, ready=page == "index", **settings)
    if page == "index":
        results(window)
    assert window.evaluate("document.documentElement.scrollWidth") == width
    for control in window.locator("button, select, canvas, input, summary").filter(visible=True).all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 19, control
    for button in window.locator("button, select").filter(visible=True).all():
        assert button.bounding_box()["height"] >= 44


SCREENS = {"laptop": (1280, 720), "desktop": (1440, 900), "phone": (390, 844), "phone on its side": (844, 390)}


@pytest.mark.parametrize("screen", SCREENS)
def test_pad_and_continuations_are_in_sight_together_and_nothing_moves(visit, screen):
    width, height = SCREENS[screen]
    small = {"is_mobile": True, "has_touch": True} if "phone" in screen else {}
    window = visit(viewport={"width": width, "height": height}, reduced_motion="no-preference", **small)
    window.evaluate("document.getElementById('more').open = false")
    two_frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    window.evaluate(two_frames)  # in which that has moved what is below
    window.evaluate("""() => {
        window.moved = 0;
        const count = (list) => list.getEntries().forEach(({ value }) => (window.moved += value));
        new PerformanceObserver(count).observe({ type: "layout-shift" });
    }""")
    for _ in range(2):  # the first time tiles are empty
        draw_with_mouse(window, steps=3)
        results(window)
    boxes = [window.locator(part).bounding_box() for part in ("#pad", "#tiles li:first-child", "#tiles li:last-child")]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= height for box in boxes), boxes
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes), boxes
    assert window.evaluate("scrollY") == 0
    window.wait_for_timeout(200)
    assert window.evaluate("window.moved") == 0
    window.evaluate("document.querySelector('h1').style.height = '90px'")
    window.wait_for_function("window.moved > 0")  # so what moves is seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_drawing_is_seen_where_the_system_forces_its_colours(visit, scheme):
    window = visit(link("letters", BOW, 11), color_scheme=scheme, forced_colors="active")
    results(window)
    pad, ink = window.locator("#pad"), np.argwhere(BOW)[3]
    seen = np.asarray(Image.open(io.BytesIO(pad.screenshot())).convert("L")).astype(int)
    scale = seen.shape[0] / SIZE
    at = lambda row, column: seen[int((row + 0.5) * scale), int((column + 0.5) * scale)]  # noqa: E731
    assert at(*ink) < 60 and at(2, 2) > 200
    chosen, other = (
        window.locator("#tiles button").nth(k).evaluate("(tile) => getComputedStyle(tile).borderStyle") for k in (0, 1)
    )
    assert chosen != other  # not by colour alone


@pytest.mark.parametrize("page", ["index", "sees"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, scheme, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    window = visit(color_scheme=scheme, page=page, ready=page == "index")
    serious = []
    for state in ("before", "after")[: 2 if page == "index" else 1]:
        if state == "after":
            draw_with_mouse(window)
            results(window)
            window.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        found = axe.run(window, options={"preload": False}).response["violations"]
        serious += [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


# --- What does it see? ------------------------------------------------------------------------------------------------

GRID = (11, 23)


def small_models():
    models = configs.small_models(*GRID, hidden=16)
    return {name: models[name][0] for name in models if name not in ("pixel LSTM", "MADE")}


def with_the_bug(name, model):
    """The mistake that the page's switch names, in the Python model."""
    if name == "joint row":
        for layer in (model.head.left, *model.head.hidden, model.head.out):
            layer.mask.fill_(1)
    elif name == "independent row":
        model.teacher_forced = lambda sequences: model(sequences)
    elif name in ("Row LSTM", "PixelCNN"):
        first = model.first
        first.mask.copy_(paper.MaskedConv("B", 1, first.mask.shape[0], (7, 7)).mask)
    elif name == "Diagonal BiLSTM":
        right, pad = model.layers[0].recurrences[1], torch.nn.functional.pad
        forward = right.forward
        right.forward = lambda gates: forward(pad(gates, (0, 0, 0, 1)))[:, :, 1:]
    else:
        vertical = model.vertical
        vertical.forward = lambda x: vertical.network(x, lambda layer, x: layer(x))
    return model


@pytest.mark.parametrize("bug", [False, True])
def test_receptive_fields_are_those_of_the_gradient(visit, bug):
    window = visit(page="sees", ready=False)
    sequences = torch.randint(0, 2, (6, *GRID)).float()
    models = small_models()
    assert list(models) == ["independent row", "joint row", "Row LSTM", "Diagonal BiLSTM", "PixelCNN", "Gated PixelCNN"]
    assert set(window.evaluate("Object.keys(pixelRNN.FIELDS)")) == set(models)
    for name, model in models.items():
        model = with_the_bug(name, model) if bug else model
        for row, place in ((0, 0), (0, 22), (4, 0), (4, 11), (10, 3), (10, 12), (10, 19), (10, 20), (10, 22)):
            shown = window.evaluate(
                f"Array.from(pixelRNN.fieldOf('{name}', {str(bug).lower()}, {row}, {place}, 11, 23))"
            )
            found = helpers.receptive_field(model, sequences, row, place).ravel() > 0
            assert np.array_equal(found, np.array(shown) > 0), (name, row, place)
            leak = found[row * GRID[1] + place :].any()
            assert leak == bug or (name == "Diagonal BiLSTM" and place == 22)  # which there reads nothing of its own


def test_the_key_of_the_field_keeps_its_colours_where_the_system_forces_others(visit):
    window = visit(page="sees", ready=False, color_scheme="dark", forced_colors="active")
    seen = window.locator(".swatch.seen").evaluate("(part) => getComputedStyle(part).backgroundColor")
    assert seen == "rgb(158, 202, 225)"


def test_pointing_at_a_pixel_lights_its_field_and_the_switch_shows_the_leak(visit):
    window = visit(page="sees", ready=False)
    text = window.locator("#field-text")
    for column, row in ((5.5, 20.5), (12.5, 10.5)):
        window.mouse.move(*places(window, [(column, row)], "#field")[0])
        assert f"Row {row + 0.5:.0f}, column {column + 0.5:.0f}" in text.inner_text()
    assert "Row 11, column 13: the joint row sees 292 of 292 values before it." in text.inner_text()
    window.get_by_label("Model").select_option("Diagonal BiLSTM")
    assert "sees 291 of 292" in text.inner_text()
    window.get_by_label("with a bug").check()
    assert "its own value and 14 later ones: target leakage" in text.inner_text()
    window.focus("#field")
    for key in ("ArrowLeft", "ArrowUp"):
        window.keyboard.press(key)
    assert "Row 10, column 12" in text.inner_text()
    leaks = window.locator("#field").evaluate("""(canvas) => {
        const at = (column) => canvas.getContext("2d").getImageData(16 * column + 8, 9 * 16 + 3, 1, 1).data;
        return [at(5), at(20)].map((pixel) => Array.from(pixel).slice(0, 3));
    }""")
    assert leaks == [[0x9E, 0xCA, 0xE1], [0xFF, 0xB2, 0x7A]]
