"""The letters: rendered as when results were stored, and held out by family."""

from pathlib import Path

import numpy as np
import pytest

from pixelrnn.data import letters


@pytest.fixture(scope="module")
def parts():
    return letters.load_letters()


def test_are_rendered_as_where_results_were_stored(capsys):
    letters.load_letters()
    assert capsys.readouterr().out == ""


def test_another_rendering_is_said_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(letters, "RENDERED", "another")
    assert len(letters.load_letters().test)
    assert "cannot be compared" in capsys.readouterr().out


def test_are_many_binary_pictures_in_three_parts(parts):
    counts = [len(part) for part in parts]
    readme = (Path(__file__).parent.parent / "data" / "README.md").read_text(encoding="utf-8")
    assert counts == [18_768, 2_641, 1_902]
    assert all(f"{count:,}" in readme for count in (sum(counts), *counts))
    for part in parts:
        assert part.dtype == np.uint8 and part.shape[1:] == (28, 28) and set(np.unique(part)) == {0, 1}
        assert part.any((1, 2)).all()


def test_grey_ones_are_the_same_letters(parts):
    for binary, grey in zip(parts, letters.load_letters(grey=True), strict=True):
        assert ((grey >= 128) == binary).all() and len(np.unique(grey)) > 200


def test_no_picture_stands_in_two_parts_or_twice(parts):
    pictures = [picture.tobytes() for part in parts for picture in part]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize(
    ("letter", "base"), [("Ấ", "a"), ("ﬁ", "f"), ("ǅ", "d"), ("İ", "i"), ("Ω", "ω"), ("ß", "ß"), ("ª", "a"), ("b", "b")]
)
def test_forms_of_a_letter_have_one_base(letter, base):
    assert letters._base(letter) == base


def test_letters_that_look_alike_anywhere_are_one_family():
    family = letters._families([["b", "c"], ["a"], ["c", "d"], ["e"], ["d", "a"]])
    assert family == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}
