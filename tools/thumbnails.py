"""Makes the small picture of each note, labnotes/NN.png, from plots that the notebooks carry.

python tools/thumbnails.py
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).parent.parent
NOTES = ROOT / "labnotes"
THUMBNAILS = {
    1: "parting",
    2: "blurred",
    3: "field-maps",
    4: "noise-pictures",
    5: "alphabet",
    6: "field",
    7: "mnist-figure",
    8: "completions",
    9: "where",
    10: "two-measures",
    11: "curves",
    12: "first",
    13: "first-figure",
}
WIDTH = 480  # pixels of a small picture


def main():
    for number, cell_id in THUMBNAILS.items():
        (path,) = (ROOT / "notebooks").glob(f"{number:02}_*.ipynb")
        (cell,) = [cell for cell in nbformat.read(path, as_version=4).cells if cell.id == cell_id]
        plot = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
        image = Image.open(io.BytesIO(base64.b64decode(plot))).convert("RGB")
        image.thumbnail((WIDTH, WIDTH))
        image.quantize(64).save(NOTES / f"{number:02}.png", optimize=True)


if __name__ == "__main__":
    main()
