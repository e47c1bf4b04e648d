"""Judges what the page's networks make of 13 drawings, each with two pens: `python tools/judge_drawings.py`.

    python tools/judge_drawings.py [letters digits] [--updates 1500] [--temperature 0.7]

Six continuations of each drawing are judged by a classifier that is trained here, on held-out skeletons' sisters, to
tell a letter (or a digit) from what is none: half of one below half of another, a piece of one, samples of a network
that has hardly learned. Beside them stand the stored weights of notes 5 to 9, which learned pictures in the middle, as
they are and with the drawing fitted: moved and scaled to where their pictures stand. Writes a sheet for each into
build/drawings/. Digits need MNIST (PIXELRNN_MNIST).
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import helpers
from pixelrnn.data import strokes
from pixelrnn.models import weights
from support import checks

BUILD = ROOT / "build" / "drawings"
PENS = {"thin": 2.0, "thick": 2.6}  # as site/draw/index.html has them
COUNT = 6  # continuations of a drawing
SEEDS = 5
STANDS = {"letters": (5, 14, 13), "digits": (5, 14, 11)}  # stored pictures: top row, middle column, width (medians)


def arc(x, y, radius, first, last):
    """Points on a circle; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(first, last, 60))
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)


# The drawings, in pixels of the pad: one or two lines of points (x, y) each. The first eight are tops of digits and of
# letters that anybody would draw.
DRAWINGS = {
    "bow": [arc(14, 10, 5.5, 180, 360)],
    "bar": [[(8.5, 6), (19.5, 6)]],
    "hook": [arc(14, 9, 5, 190, 400)],
    "two verticals": [[(9, 5), (9, 13)], [(18, 5), (18, 13)]],
    "ring": [arc(14, 9, 4, 0, 360)],
    "vertical": [[(14, 5), (14, 14)]],
    "slanted": [[(17, 5), (12, 14)]],
    "corner": [[(18, 6), (9.5, 6), (9.5, 13)]],
    "roof": [[(9.5, 14), (14, 4.5), (18.5, 14)]],
    "cross": [[(14, 4), (14, 14)], [(9, 9), (19, 9)]],
    "large bow": [arc(14, 14, 11.5, 180, 360)],
    "bow at the left": [arc(7, 9, 4.5, 180, 360)],
    "small bow": [arc(14, 10, 3, 180, 360)],
}
PLAUSIBLE = 8


def points_of(lines):
    """Lines of points (x, y) as points close together: row and column of each, float32 (1, points, 2)."""
    found = []
    for line in lines:
        for (x, y), (to_x, to_y) in itertools.pairwise(line):
            steps = math.ceil(4 * math.hypot(to_x - x, to_y - y)) or 1
            found += [(y + i / steps * (to_y - y), x + i / steps * (to_x - x)) for i in range(steps + 1)]
    return torch.tensor(found, dtype=torch.float32)[None]


def drawing(lines, pen):
    points = points_of(lines)
    return strokes.drawn(points[..., 0], points[..., 1], torch.tensor([[pen]]))[0]


def fitted(lines, stands):
    """Lines moved and scaled so that they stand where the stored pictures do; at most twice as large or small."""
    points = points_of(lines)[0]
    top, middle, width = stands
    (low, left), (_, right) = points.amin(0).tolist(), points.amax(0).tolist()
    scale = min(2.0, max(0.5, width / max(right - left, width / 2)))
    return [
        [((x - (left + right) / 2) * scale + middle, (y - low) * scale + top + 1) for x, y in line] for line in lines
    ]


def rows_given(picture, fewer=0):
    """Rows down to the last one with ink."""
    return max(1, int(picture.any(1).nonzero().max()) + 1 - fewer)


def continuations(network, picture, rows, temperature, seed, count=COUNT):
    torch.manual_seed(seed)
    given = picture[None, :rows].repeat(count, 1, 1)
    if rows == strokes.SIZE:
        return given
    return helpers.sample(network, strokes.SIZE, given, temperature=temperature)[0]


class Judge(nn.Module):
    """Logits that a picture is a letter (or a digit): (count, rows, columns) -> (count,)."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs in ((1, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 9, 1))

    def forward(self, pictures):
        return self.layers(pictures[:, None])[:, 0]


def no_pictures(points, beginner):
    """Pictures that are none, as many as skeletons: a third each two halves, pieces, and samples of a beginner."""
    pictures = strokes.redrawn(points, sides=(17, 27))
    third = len(pictures) // 3
    cut = torch.randint(9, 20, (len(pictures), 1, 1))
    above = torch.arange(strokes.SIZE)[None, :, None] < cut
    halves = torch.where(above, pictures, pictures.roll(1, 0))[:third]
    pieces = (pictures * torch.where(torch.rand(len(pictures), 1, 1) < 0.5, above, ~above))[third : 2 * third]
    return torch.cat([halves, pieces, beginner[torch.randint(len(beginner), (len(pictures) - 2 * third,))]])


def beginners(points, count=600):
    """Samples of a small network after 150 updates."""
    torch.manual_seed(1)
    network = helpers.GenModel(strokes.SIZE, 64, head="joint")
    helpers.train(network, points, steps=150, batch_size=64, prepare=strokes.redrawn)
    return helpers.sample(network, strokes.SIZE, batch=count, temperature=1.0)[0]


def train_judge(part, beginner, updates, batch=64):
    torch.manual_seed(0)
    judge = Judge()
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    target = torch.cat([torch.ones(batch), torch.zeros(batch)])
    for _ in range(updates):
        chosen = part[torch.randint(len(part), (2 * batch,))]
        pictures = torch.cat([strokes.redrawn(chosen[:batch]), no_pictures(chosen[batch:], beginner)])
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(judge(pictures), target).backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


@torch.no_grad()
def accepted(judge, pictures):
    """Which pictures the judge takes for letters (or digits)."""
    return (judge(pictures) > 0).numpy()


def sheet(pictures, taken, rows, path, title):
    """pictures: drawing -> (COUNT, 28, 28). A frame is blue where the judge takes the picture, orange where not."""
    figure, axes = plt.subplots(len(pictures), COUNT, figsize=(1.1 * COUNT + 1.6, 1.1 * len(pictures)))
    for line, name in zip(axes, pictures, strict=True):
        for number, axis in enumerate(line):
            picture = pictures[name][number].numpy().copy()
            picture[rows[name] :] *= 0.7
            axis.imshow(picture, cmap="Greys", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.axhline(rows[name] - 0.5, color="#d55e00", linewidth=0.8)
            for side in axis.spines.values():
                side.set(color="#0072b2" if taken[name][number] else "#d55e00", linewidth=2)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)


def judged(name, networks, judge, temperature, fewer):
    """Prints, for each network and pen, of how many of 6 x 13 continuations (and of the plausible eight) are taken."""
    for label, (network, fit) in networks.items():
        for pen, width in PENS.items():
            shares = []
            for seed in range(SEEDS):
                pictures, taken, rows = {}, {}, {}
                for drawn, lines in DRAWINGS.items():
                    picture = drawing(fitted(lines, STANDS[name]) if fit else lines, width)
                    rows[drawn] = rows_given(picture, fewer)
                    pictures[drawn] = continuations(network, picture, rows[drawn], temperature, seed)
                    taken[drawn] = accepted(judge, pictures[drawn])
                if seed == 0:
                    words = f"{name}, {label}, {pen} pen"
                    sheet(pictures, taken, rows, BUILD / f"{words.replace(', ', '-').replace(' ', '_')}.png", words)
                counts = np.array([taken[drawn].sum() for drawn in DRAWINGS])
                shares.append((counts.sum(), counts[:PLAUSIBLE].sum()))
            total, plausible = np.mean(shares, 0)
            spread = [int(each[0]) for each in shares]
            print(f"{label:28s} {pen:6s} {total:5.1f} of 78 {spread}   {plausible:5.1f} of 48", flush=True)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=weights.NAMES, help="letters, digits (default: both)")
    parser.add_argument("--updates", type=int, default=1500, help="of the judge")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--fewer", type=int, default=0, help="rows with ink that are not given")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        for name in chosen.names:
            parts = strokes.letters() if name == "letters" else strokes.digits(chosen.mnist)
            beginner = beginners(parts.training)
            judge = train_judge(parts.training, beginner[:500], chosen.updates)
            torch.manual_seed(2)
            held_out = parts.test[torch.randint(len(parts.test), (900,))]
            none = accepted(judge, no_pictures(held_out, beginner[500:]))
            halves, pieces, poor = (f"{part.mean():.0%}" for part in np.split(none, 3))
            right = accepted(judge, strokes.redrawn(held_out)).mean()
            print(
                f"{name}: of what is held out, the judge takes {right:.0%}; "
                f"of two halves {halves}, of pieces {pieces}, of a beginner's samples {poor}"
            )
            stored, drawn = (weights.load(each, None)[0].in_order(0) for each in (name, f"drawn-{name}"))
            torch.manual_seed(0)
            untrained = helpers.GenModel(strokes.SIZE, 320, head="joint").eval()
            networks = {
                "untrained": (untrained, False),
                "stored": (stored, False),
                "stored, drawing fitted": (stored, True),
                "learned drawings": (drawn, False),
            }
            judged(name, networks, judge, chosen.temperature, chosen.fewer)
    except checks.LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
