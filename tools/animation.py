"""Makes the README's picture: the page that finishes a drawing, at work (labnotes/draw.png, animated).

    python tools/animation.py

The real page (site/draw/, built by tools/page.py) is opened in Chromium; a hand draws a bow, and the network of digits
goes on at temperature 0.7, with a seed whose six continuations are of several kinds. The finished picture comes first,
since some readers show only that; sentences and buttons are left out, which are too small to read there. Needs what the
page's tests need: playwright, and a Chromium that `shutil.which` finds.
"""

import datetime
import io
import math
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where the modules are

import page

from support import checks, files

OUT = ROOT / "labnotes" / "draw.png"
ANGLES = range(200, 341, 20)  # of a bow
STROKE = [(14 + 5.5 * math.cos(math.radians(a)), 11 + 5.5 * math.sin(math.radians(a))) for a in ANGLES]  # columns, rows
SEED, TEMPERATURE = 32, 0.7
SIZE = {"width": 1000, "height": 640}
FINISHED, EACH, PAUSE = 2500, 110, 1500  # milliseconds for which a frame stays: the first, others, the last
LEFT_OUT = ".aside, .bar, #examples, #status, #tiles span { display: none !important }"
ROW = 17  # milliseconds of the page's time from one picture to the next


def recorded(folder):
    """Frames of a visit to the page in this folder, RGB pictures: drawing, then six continuations row by row."""
    from playwright.sync_api import sync_playwright  # here, so that its lack is told by `main`

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=page.browser())
        visit = browser.new_page(viewport=SIZE)
        visit.clock.install()  # so that the page waits while a picture of it is taken
        visit.add_init_script(f"crypto.getRandomValues = (numbers) => numbers.fill({SEED});")
        nothing = "A" * 131  # 784 bits in base64
        visit.goto(f"{(folder / 'index.html').as_uri()}#set=digits&rows=0&t={TEMPERATURE}&d={nothing}")
        visit.wait_for_function("pixelRNN.state.results")
        visit.locator("#clear").click()
        visit.add_style_tag(content=LEFT_OUT)
        visit.clock.pause_at(datetime.datetime.now() + datetime.timedelta(hours=1))
        work, pad = visit.locator(".work").bounding_box(), visit.locator("#pad").bounding_box()
        work |= {"height": work["height"] + 4}  # with the lower border
        scale, frames = pad["width"] / 28, []

        def look():
            frames.append(Image.open(io.BytesIO(visit.screenshot(clip=work))).convert("RGB"))

        def to(column, row):
            visit.mouse.move(pad["x"] + column * scale, pad["y"] + row * scale)

        look()
        to(*STROKE[0])
        visit.mouse.down()
        last = STROKE[0]
        for point in STROKE[1:]:
            for part in range(1, 3):  # the page paints in its next frame
                to(*(a + part / 2 * (b - a) for a, b in zip(last, point, strict=True)))
                visit.clock.run_for(ROW)
                look()
            last = point
        visit.mouse.up()
        while len(frames) < 300:  # until it says that all are there, and nothing moves any more
            visit.clock.run_for(ROW)
            look()
            if "ways" in visit.locator("#status").text_content() and frames[-1] == frames[-2]:
                break
        browser.close()
    return [frame for number, frame in enumerate(frames) if number == 0 or frame != frames[number - 1]]


def main():
    try:
        with tempfile.TemporaryDirectory() as folder:
            page.build(Path(folder))
            frames = recorded(Path(folder))
    except (ImportError, checks.LabError) as error:
        sys.exit(str(error))
    palette = frames[-1].quantize(64, Image.Quantize.FASTOCTREE)  # one for all: then only what changes is stored
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in (frames[-1], *frames)]
    settings = {"save_all": True, "append_images": frames[1:], "loop": 0}
    with files.written_whole(OUT, "The picture") as unfinished:
        durations = [FINISHED] + [EACH] * (len(frames) - 2) + [PAUSE]
        frames[0].save(unfinished, "PNG", duration=durations, **settings)
    print(f"{OUT}: {len(frames)} frames, {OUT.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
