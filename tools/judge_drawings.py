"""Judges what the page's networks make of 13 drawings, each with two pens: `python tools/judge_drawings.py`.

    python tools/judge_drawings.py [letters digits] [--temperature 0.7] [--store]

Six continuations of each drawing are judged by a classifier, trained here to tell a letter (or a digit) from what is
none: half of one below half of another, a piece of one, samples of a network that has hardly learned. So are the halves
of held-out pictures that are small, large, thin and thick. Beside the page's networks stand an untrained one and the
weights of notes 5 to 9, which learned pictures in the middle: of drawings as they are, and of drawings that are moved
and scaled to where their pictures stand. Writes a sheet for each into build/drawings/. Digits need MNIST.
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
from support import checks, files

BUILD = ROOT / "build" / "drawings"
TABLE = ROOT / "data" / "drawings" / "judged.csv"
PENS = {"thin": 2.0, "thick": 2.6}  # as site/draw/index.html has them
COUNT = 6  # continuations of a drawing
SEEDS = 5
FITTED_PEN = 2.4
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


def fitted(picture, stands):
    """A drawing moved and scaled so that it stands where the stored pictures do, at most twice as large or small, its
    skeleton drawn again with a pen of their width."""
    larger = np.kron(picture.numpy(), np.ones((strokes.FINE, strokes.FINE)))
    points = torch.from_numpy(strokes.skeleton(larger))
    top, middle, width = stands
    (low, left), (_, right) = points.amin(0).tolist(), points.amax(0).tolist()
    scale = min(2.0, max(0.5, width / max(right - left, width / 2)))
    row = (points[:, 0] - low) * scale + top + 1
    column = (points[:, 1] - (left + right) / 2) * scale + middle
    return strokes.drawn(row[None], column[None], torch.tensor([[FITTED_PEN]]))[0]


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


def sheet(made, taken, path, title):
    """made: drawing -> its continuations, rows given. Frames are blue where the judge takes it, else orange."""
    figure, axes = plt.subplots(len(made), COUNT, figsize=(0.8 * COUNT, 0.8 * len(made)), layout="constrained")
    for line, (name, (pictures, rows)) in zip(axes, made.items(), strict=True):
        for number, axis in enumerate(line):
            picture = pictures[number].numpy().copy()
            picture[rows:] *= 0.7
            axis.imshow(picture, cmap="Greys", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.axhline(rows - 0.5, color="#d55e00", linewidth=0.8)
            for side in axis.spines.values():
                side.set(visible=True, color="#0072b2" if taken[name][number] else "#d55e00", linewidth=2)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)


def completed(network, fit, picture, temperature, seed, fewer, count=COUNT):
    """Continuations of a drawing, and how many of its rows were given."""
    picture = fitted(picture, fit) if fit else picture
    rows = rows_given(picture, fewer)
    return continuations(network, picture, rows, temperature, seed, count), rows


def judged(name, networks, judge, temperature, fewer):
    """Rows of the table: of how many continuations of the 13 drawings, and of the plausible eight, the judge takes."""
    for label, (network, fit) in networks.items():
        for pen, width in PENS.items():
            counts = []
            for seed in range(SEEDS):
                made = {
                    drawn: completed(network, fit, drawing(lines, width), temperature, seed, fewer)
                    for drawn, lines in DRAWINGS.items()
                }
                taken = {drawn: accepted(judge, pictures) for drawn, (pictures, _) in made.items()}
                if seed == 0:
                    words = f"{name}, {label}, {pen} pen"
                    sheet(made, taken, BUILD / f"{words.replace(', ', '-').replace(' ', '_')}.png", words)
                counts.append([taken[drawn].sum() for drawn in DRAWINGS])
            for what, part in {"all drawings": counts, "plausible": [each[:PLAUSIBLE] for each in counts]}.items():
                shares = np.sum(part, 1) / (COUNT * len(part[0]))
                yield [name, label, f"{what}, {pen} pen", *shares]


# Held-out letters and digits, drawn in these ways, of which the upper part is given.
TREATED = {
    "in all ways": {},
    "small": {"sides": (12, 14)},
    "large": {"sides": (25, 27)},
    "thin": {"pens": (1.2, 1.4)},
    "thick": {"pens": (3.0, 3.2)},
}
PART = 0.5  # of their height, which is given


def treated(name, networks, judge, held_out, temperature, count=60):
    """The same of held-out pictures, one continuation of each, and of the pictures themselves."""
    for what, settings in TREATED.items():
        torch.manual_seed(4)
        pictures = strokes.redrawn(held_out[:count], **settings)
        yield [name, "the pictures themselves", f"held-out, {what}", accepted(judge, pictures).mean()]
        tops = []
        for picture in pictures:
            ink = picture.any(1).nonzero()[:, 0]
            cut = int(ink.min() + PART * (ink.max() + 1 - ink.min()))
            tops.append(torch.cat([picture[:cut], torch.zeros_like(picture[cut:])]))
        for label, (network, fit) in networks.items():
            made = [completed(network, fit, top, temperature, seed, 0, 1)[0] for seed, top in enumerate(tops)]
            yield [name, label, f"held-out, {what}", accepted(judge, torch.cat(made)).mean()]


def networks_of(name):
    """label -> a network, and where its pictures stand if drawings are fitted to them."""
    stored, drawn = (weights.load(each)[0].in_order(0) for each in (name, f"drawn-{name}"))
    torch.manual_seed(0)
    return {
        "untrained": (helpers.GenModel(strokes.SIZE, 320, head="joint").eval(), None),
        "stored": (stored, None),
        "stored, drawing fitted": (stored, STANDS[name]),
        "learned drawings": (drawn, None),
    }


def quality(name, judge, held_out, beginner):
    """How many of held-out pictures, and of what is none, the judge takes."""
    torch.manual_seed(3)
    yield [name, "the judge", "held-out pictures", accepted(judge, strokes.redrawn(held_out)).mean()]
    parts = accepted(judge, no_pictures(held_out, beginner)).reshape(3, -1)
    for what, part in zip(("two halves", "pieces", "samples of a beginner"), parts, strict=True):
        yield [name, "the judge", what, part.mean()]


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="letters, digits (default: both)")
    parser.add_argument("--updates", type=int, default=1500, help="of the judge")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--fewer", type=int, default=1, help="rows with ink that are not given")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--store", action="store_true", help=f"keep the table in {TABLE.relative_to(ROOT)}")
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)
    rows = []
    try:
        for name in chosen.names or weights.NAMES:
            parts = strokes.letters() if name == "letters" else strokes.digits(chosen.mnist)
            beginner = beginners(parts.training)
            judge = train_judge(parts.training, beginner[:500], chosen.updates)
            torch.manual_seed(2)
            held_out = parts.test[torch.randint(len(parts.test), (900,))]
            networks = networks_of(name)
            for found in (
                *quality(name, judge, held_out, beginner[500:]),
                *judged(name, networks, judge, chosen.temperature, chosen.fewer),
                *treated(name, networks, judge, held_out, chosen.temperature),
            ):
                of, network, what, *shares = found
                rows.append(
                    [of, network, what, *(f"{share:.3f}" for share in (np.mean(shares), min(shares), max(shares)))]
                )
                print(
                    f"{of:8s} {network:24s} {what:28s} {np.mean(shares):4.0%}  ({min(shares):.0%} to {max(shares):.0%})"
                )
        if chosen.store:
            settings = {"updates": chosen.updates, "temperature": chosen.temperature, "fewer": chosen.fewer}
            names = ["pictures", "network", "drawings", "share", "least", "most"]
            files.write_table(TABLE, settings | {"seeds": SEEDS, "torch": torch.__version__}, names, rows)
    except checks.LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
