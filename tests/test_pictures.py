"""What is drawn is what was given: the arrays behind each plot, and the frames of an animation."""

import io
import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from PIL import Image

import helpers
from support import checks, figures, plot_style

ROWS, COLUMNS = 6, 4
TO_COME = [86, 180, 233]
GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (ROWS, COLUMNS, 1), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
every_picture = pytest.mark.parametrize("picture", [GREY, COLOUR], ids=["grey", "colour"])
every_step = pytest.mark.parametrize("step", ["row", "pixel"])


def batch_of(picture, step="row"):
    return helpers.to_batch(helpers.flatten(picture, step), 256)


def in_rgb(picture):
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


@every_picture
@every_step
def test_as_picture_shows_the_first_sequence(picture, step):
    batch = batch_of(picture, step)
    shown = helpers.as_picture(torch.cat([batch, 1 - batch]), picture.shape)
    assert shown.dtype == np.uint8 and shown.shape == picture.shape
    assert (shown == picture).all()


# Grids


def test_show_pictures_shows_each_under_its_name():
    flat = GREY[..., 0] // 2
    figure = helpers.show_pictures({"grey": GREY, "colour": COLOUR, "flat": flat}, "Three pictures")
    assert figure.get_suptitle() == "Three pictures"
    assert [ax.get_title() for ax in figure.axes] == ["grey", "colour", "flat"]
    for ax, picture in zip(figure.axes, [GREY[..., 0], COLOUR, flat], strict=True):
        (image,) = ax.images
        assert (image.get_array() == picture).all()
        assert image.get_clim() == (0, 255)  # else a dark picture would be shown as bright as a light one
        assert image.get_interpolation() == "nearest"
        assert list(ax.get_xticks()) == list(ax.get_yticks()) == []


def test_a_wide_picture_takes_less_height_and_a_tall_one_no_more():
    heights = [helpers.show_pictures({"one": np.zeros(shape)}).get_figheight() for shape in ((4, 16), (8, 8), (16, 4))]
    assert heights[0] < heights[1] - 1 and heights[1] == heights[2]


def test_show_pictures_in_columns():
    figure = helpers.show_pictures({str(number): GREY for number in range(5)}, columns=2)
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 2)
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert not figure.axes[-1].axison


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (1, 1), (6, 1, 1), (1, 6, 3)])
def test_show_pictures_of_one_row_or_column(shape):
    picture = np.full(shape, 7, np.uint8)
    (image,) = helpers.show_pictures({"narrow": picture}).axes[0].images
    assert image.get_array().shape[:2] == shape[:2]


# Names that the reader chooses

ODD_NAMES = [
    "price $1_$2",
    "$x$",
    "_DSC1234",
    "__",
    "100%",
    r"a\$b\\frac{",
    "\"'`",
    "é",
    "two\nlines",
    "",
    "long " * 50,
    "x" * 250,
]


def drawn(figure):
    """The figure once it is drawn, in which a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), bbox_inches="tight")
    return figure


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_picture_stands_under_its_very_name(name):
    figure = drawn(helpers.show_pictures({name: GREY, "other": GREY}, title=name))
    assert figure.axes[0].get_title() == figure.get_suptitle() == name


def test_dollars_in_a_name_are_drawn_as_dollars():
    figure = helpers.show_pictures({"$xx$": GREY, "xx": GREY, "$x": GREY, "x": GREY})
    figure.canvas.draw()
    two, none, one, half = (ax.title.get_window_extent().width for ax in figure.axes)
    assert two - none > 1.5 * (one - half) > 0  # as a formula it would be no wider than its letters


@pytest.mark.parametrize("layout", ["constrained", "tight"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_curve_has_its_very_name_at_its_end(name, layout):
    figure, ax = plt.subplots(layout=layout)
    figures.plot_losses(ax, {name: [[1.0, 0.5], [1.0, 0.4]], "other": [2.0, 1.0]}, {name: np.ones((3, 2))})
    drawn(figure)
    assert {text.get_text() for text in ax.texts} == {name, "other"}


def test_names_at_line_ends_do_not_overlap_and_stay_within_the_height_of_the_axes():
    _, ax = plt.subplots(figsize=(4, 2))
    lines = {f"line {number}": ax.plot([0, 1], [0, 1 + number / 1000])[0] for number in range(6)}
    plot_style.label_ends(ax, lines)
    boxes = [text.get_window_extent() for text in sorted(ax.texts, key=lambda text: text.get_position()[1])]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
    assert boxes[-1].y1 <= ax.bbox.y1 + boxes[-1].height and all(box.x0 > ax.bbox.x1 for box in boxes)
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in lines.values()]


def test_names_at_line_ends_stand_at_their_lines_and_give_way_to_both_sides():
    _, ax = plt.subplots(figsize=(6, 4))
    heights = {"low": 0.05, "one": 0.500, "two": 0.501, "three": 0.502, "high": 0.9}
    ax.set_ylim(0, 1)
    plot_style.label_ends(ax, {name: ax.plot([0, 1], [height] * 2)[0] for name, height in heights.items()})
    places = {text.get_text(): text.get_position()[1] for text in ax.texts}
    for name in ("low", "two", "high"):  # the middle one of three that are close stays
        assert abs(places[name] - heights[name]) < 1e-3
    assert abs(places["one"] + places["three"] - 2 * places["two"]) < 1e-3 and places["one"] < places["three"] - 0.05


def test_a_curve_on_a_linear_axis_has_its_name_at_its_end():
    _, ax = plt.subplots()
    ax.set_ylim(0, 10)
    figures.plot_losses(ax, {"one": [9.0, 4.0]}, yscale="linear")
    assert ax.get_yscale() == "linear" and abs(ax.texts[0].get_position()[1] - 0.4) < 1e-3


def test_a_model_has_one_colour_whatever_variant_of_it():
    assert plot_style.color_of("categorical, no norm") == plot_style.color_of("categorical, batch norm")
    assert plot_style.color_of("categorical") != plot_style.color_of("regression")
    assert plot_style.color_of("another", "red") == "red"


def test_letters_that_no_font_has_and_bytes_that_are_no_letters_are_drawn_without_a_word():
    names = ["日本語", "tab\there", "\udcff.png"]
    code = f"import io, helpers, numpy\nfigure = helpers.show_pictures(dict.fromkeys({names!a}, numpy.zeros((2, 2))))\n"
    code += "figure.savefig(io.BytesIO())\nprint(ascii([ax.get_title() for ax in figure.axes]))"
    root = Path(helpers.__file__).parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == ascii(["日本語", "tab\there", "?.png"])


def test_pictures_are_named_after_their_files():
    paths = ["a/x.png", Path("b/x.jpg"), "c/x.y.png", "b/x (2).png", "astronaut"]
    assert list(plot_style.named(paths).items()) == [
        ("x", "a/x.png"),
        ("x (2)", Path("b/x.jpg")),
        ("x.y", "c/x.y.png"),
        ("x (2) (2)", "b/x (2).png"),
        ("astronaut", "astronaut"),
    ]
    assert plot_style.named("a/_DSC $1.png") == {"_DSC $1": "a/_DSC $1.png"}
    assert plot_style.named(Path("mine.png")) == {"mine": Path("mine.png")}


@pytest.mark.parametrize("sources", [[], (), None, 3, [None]])
def test_no_picture_is_told(sources):
    with pytest.raises(checks.LabError, match="picture"):
        plot_style.named(sources)


def test_difference_is_white_where_equal():
    original = np.array([[[0, 0, 0], [10, 20, 30], [255, 255, 255]]], np.uint8)
    picture = np.array([[[0, 0, 0], [10, 25, 10], [0, 255, 255]]], np.uint8)
    shown = helpers.difference(picture, original)
    assert shown.dtype == np.uint8
    assert shown.tolist() == helpers.difference(original, picture).tolist() == [[[255], [235], [0]]]


# Loss curves


def test_plot_losses_draws_every_seed_under_one_name():
    _, ax = plt.subplots()
    figures.plot_losses(ax, {"one": [3.0, 2.0, 1.0], "two": [[9.0, 8.0], [7.0, 6.0]]})
    assert [list(line.get_ydata()) for line in ax.lines] == [[3, 2, 1], [9, 8], [7, 6]]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0, 1, 2], [0, 1], [0, 1]]
    assert sorted(text.get_text() for text in ax.texts) == ["one", "two"]
    assert ax.get_yscale() == "log"
    assert len({line.get_color() for line in ax.lines}) == 2


def test_plot_losses_over_another_axis():
    _, ax = plt.subplots()
    figures.plot_losses(ax, {"one": [3.0, 2.0]}, x={"one": [0.5, 1.5]})
    (line,) = ax.lines
    assert list(line.get_xdata()) == [0.5, 1.5]


def test_plot_losses_draws_the_band_of_the_same_name():
    _, ax = plt.subplots()
    reference = {"one": np.array([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]), "other": np.ones((2, 3))}
    figures.plot_losses(ax, {"none": [1.0, 1.0, 1.0], "one": [3.0, 2.0, 1.0]}, reference)
    (band,) = [artist for artist in ax.collections if isinstance(artist, PolyCollection)]
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert corners == {(0, 1), (1, 2), (2, 3), (0, 4), (1, 5), (2, 6)}
    assert band.get_facecolor()[0, :3].tolist() == list(plt.matplotlib.colors.to_rgb(ax.lines[1].get_color()))


def test_plot_losses_leaves_no_curve_out():
    _, ax = plt.subplots()
    figures.plot_losses(ax, {str(number): [1.0, 0.5] for number in range(len(plot_style.COLORS) + 1)})
    assert len(ax.lines) == len(plot_style.COLORS) + 1


# Pictures while they are generated


@every_picture
@every_step
def test_frames_begin_with_nothing_and_end_with_the_picture(picture, step):
    batch = batch_of(picture, step)
    frames = helpers.frames(batch, picture.shape, 4)
    assert list(frames) == [0, batch.shape[1] // 3, batch.shape[1] * 2 // 3, batch.shape[1]]
    first, *_, last = frames.values()
    assert all(frame.shape == (ROWS, COLUMNS, 3) and frame.dtype == np.uint8 for frame in frames.values())
    assert (first == TO_COME).all()
    assert (last == in_rgb(picture)).all()


@every_picture
@every_step
def test_a_frame_shows_the_steps_so_far(picture, step):
    batch = batch_of(picture, step)
    for steps, frame in helpers.frames(batch, picture.shape, batch.shape[1] + 1).items():
        pixels = steps * (COLUMNS if step == "row" else 1)
        assert (frame.reshape(-1, 3)[:pixels] == in_rgb(picture).reshape(-1, 3)[:pixels]).all()
        assert (frame.reshape(-1, 3)[pixels:] == TO_COME).all()


def test_filmstrip_shows_the_frames():
    figure = helpers.filmstrip(batch_of(COLOUR), COLOUR.shape, count=4, title="A strip", unit="rows")
    assert figure.get_suptitle() == "A strip"
    assert [ax.get_title() for ax in figure.axes] == ["0 rows", "2 rows", "4 rows", "6 rows"]
    frames = helpers.frames(batch_of(COLOUR), COLOUR.shape, 4)
    for ax, frame in zip(figure.axes, frames.values(), strict=True):
        assert (ax.images[0].get_array() == frame).all()


@every_picture
@every_step
def test_animated_png(picture, step):
    data = helpers.animated_png(batch_of(picture, step), picture.shape, count=4, scale=3, seconds=2.0)
    assert data.startswith(b"\x89PNG") and b"acTL" in data  # the chunk that makes a PNG an animated one
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 1 + 4  # Pillow counts the still picture
    assert (np.asarray(image.convert("RGB"))[::3, ::3] == in_rgb(picture)).all()  # where nothing moves
    assert image.size == (3 * COLUMNS, 3 * ROWS)
    durations = []
    for number, frame in enumerate(helpers.frames(batch_of(picture, step), picture.shape, 4).values()):
        image.seek(1 + number)
        durations.append(image.info["duration"])
        assert (np.asarray(image.convert("RGB")) == np.kron(frame, np.ones((3, 3, 1), np.uint8))).all()
    assert durations == [500, 500, 500, 1000]
    assert (np.asarray(image.convert("RGB"))[::3, ::3] == in_rgb(picture)).all()


# Many pictures


def test_mosaic_keeps_every_pixel_and_parts_the_pictures():
    pictures = [np.full((2, 3, 1), value, np.uint8) for value in (10, 20, 30)]
    whole = helpers.mosaic(pictures, columns=2)
    assert whole.shape == (5, 7, 1)  # two rows of two, a line between
    for place, value in zip(((0, 0), (0, 4), (3, 0)), (10, 20, 30), strict=True):
        assert (whole[place[0] : place[0] + 2, place[1] : place[1] + 3] == value).all()
    assert (whole[2] != 10).all() and (whole[3:, 4:] == 255).all()  # a line; a blank where no picture is left


def test_mosaic_of_one_picture_is_the_picture():
    assert np.array_equal(helpers.mosaic([COLOUR], 1), COLOUR)


def test_frames_of_a_batch_show_all_its_sequences():
    batch = torch.stack([torch.zeros(4, 3), torch.ones(4, 3)])
    frames = helpers.frames(batch, (4, 3, 1), 3, columns=2)
    assert list(frames) == [0, 2, 4] and frames[4].shape == (4, 7, 3)
    assert (frames[2][:2, :3] == 0).all() and (frames[2][:2, 4:] == 255).all()
    assert (frames[2][2:, :3] == [86, 180, 233]).all() and (frames[2][2:, 4:] == [86, 180, 233]).all()


# Figures that several notes draw


@pytest.fixture
def shown(monkeypatch):
    """What a function of support/figures.py displays: the figure, drawn, and its alternative text."""
    kept = []
    monkeypatch.setattr(figures, "show_figure", lambda alt, figure: kept.append((drawn(figure), alt)))
    return kept


def test_maps_are_shown_side_by_side_with_a_frame_and_one_colour_bar(shown):
    maps = {"one": np.array([[1.0, np.nan], [2.0, 3.0]]), "two": np.array([[0.0, 5.0]])}
    figures.show_maps(maps, "Two maps", "two maps", mark=(1, 0), bar="what it is")
    ((figure, alt),) = shown
    assert alt == "two maps" and figure.get_suptitle() == "Two maps"
    one, two, bar = figure.axes
    assert (one.get_title(), two.get_title(), bar.get_ylabel()) == ("one", "two", "what it is")
    for ax in (one, two):
        assert ax.images[0].get_clim() == (0, 5)  # one scale, which the bar shows
        assert ax.patches[0].get_xy() == (-0.5, 0.5)  # row 1, column 0
    assert one.images[0].get_array().mask.tolist() == [[False, True], [False, False]]


def test_bars_are_means_with_a_dash_for_each_seed_and_a_text_above(shown):
    figures.show_bars({"joint": [1.0, 3.0], "other": 4}, "Bars", "two bars", "nats", "{:.0f} nats", levels={"floor": 1})
    ((figure, _),) = shown
    (ax,) = figure.axes
    assert [bar.get_height() for bar in ax.patches] == [2, 4] and ax.get_ylabel() == "nats"
    assert [text.get_text() for text in ax.texts] == ["2 nats", "4 nats", "floor"]
    assert ax.lines[0].get_ydata().tolist() == [1, 3] and ax.lines[-1].get_ydata() == [1, 1]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["joint", "other"]
    assert ax.patches[0].get_facecolor()[:3] == plt.matplotlib.colors.to_rgb(plot_style.color_of("joint"))


def test_lines_are_named_at_their_ends_in_one_panel_or_several(shown):
    lines = {"one": ([0, 1], [2, 3]), "several": ([0, 1], [[4, 5], [6, 7]])}
    figures.show_lines(lines, "Lines", "some lines", "x", "y", levels={"level": 4})
    figures.show_lines({"left": lines, "right": {"two": ([0], [1])}}, "Lines", "lines", "x", "y", yscale="log")
    (one, _), (two, _) = shown
    (ax,) = one.axes
    assert [list(line.get_ydata()) for line in ax.lines[:3]] == [[2, 3], [4, 5], [6, 7]]
    assert {text.get_text() for text in ax.texts} == {"one", "several", "level"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert [ax.get_title() for ax in two.axes] == ["left", "right"] and two.axes[1].get_yscale() == "log"
    assert len(two.axes[1].lines) == 1


def test_losses_are_shown_in_panels_with_their_levels_and_limits(shown):
    curves = {"left": {"one": [3.0, 2.0]}, "right": {"two": [[9.0, 8.0], [7.0, 6.0]]}}
    more = {"levels": {"right": {"floor": 5}}, "limits": {"right": (4, 10)}, "every": 10, "yscale": "linear"}
    figures.show_losses(curves, "Losses", "losses", "nats", **more)
    ((figure, _),) = shown
    left, right = figure.axes
    assert list(left.lines[0].get_xdata()) == [0, 10] and left.get_ylabel() == "nats"
    assert left.get_ylim()[0] <= 2 and left.get_ylim()[1] >= 3  # all of its curve is in sight
    assert right.get_ylim() == (4, 10) and right.lines[-1].get_ydata() == [5, 5]
    assert {text.get_text() for text in right.texts} == {"two", "floor"}


def test_panels_beyond_the_names_are_empty_and_columns_are_kept():
    figure, axes = figures.panels(["a", "b", "$c"], "title", columns=2)
    assert len(axes) == 3 and len(figure.axes) == 4 and not figure.axes[3].axison
    assert [ax.get_title() for ax in axes] == ["a", "b", "$c"]
    drawn(figure)


def test_pictures_with_alternative_text_are_displayed(monkeypatch):
    kept = []
    monkeypatch.setattr(helpers, "show_figure", lambda alt, figure: kept.append(alt))
    assert helpers.show_pictures({"one": GREY}, "title", "alt text") is None and kept == ["alt text"]
    batch = torch.zeros(1, GREY.shape[0], GREY.shape[1])
    assert helpers.filmstrip(batch, (*GREY.shape[:2], 1), count=2, alt="a strip") is None and kept[1:] == ["a strip"]
