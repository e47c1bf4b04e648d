"""The letters: rendered as when results were stored, and held out by family."""

import collections
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
    assert counts == [16_032, 1_193, 1_188]
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


def test_no_family_stands_in_two_parts_and_none_that_is_held_out_decides_a_mean(parts):
    families = letters.families()
    assert [len(part) for part in families] == [len(part) for part in parts]
    assert not set.intersection(*map(set, families[:2])) | set.intersection(*map(set, families[1:]))
    assert not set(families.training) & set(families.test)
    for held_out in families[1:]:
        assert max(collections.Counter(held_out).values()) == letters.CAP < len(held_out) / 40
    assert max(collections.Counter(families.training).values()) > 1000  # nothing to learn from is left out


def test_every_script_of_some_size_is_held_out_in_its_share():
    families = letters.families()
    scripts = [collections.Counter(map(letters.script, set(part))) for part in families]
    for name in ("LATIN", "CANADIAN", "ARABIC", "CYRILLIC", "GEORGIAN", "ARMENIAN", "HEBREW"):
        training, *held_out = (of[name] for of in scripts)
        assert all(abs(share / (training + sum(held_out)) - 0.1) < 0.05 for share in held_out), name


def test_the_cap_keeps_forms_of_many_fonts():
    """Chosen by their own bits, not in the order of fonts: "a" keeps some of its hundreds from all over the files."""
    _, parts, family, _ = letters._rendered()
    own = parts[family == "a"]
    assert (own != letters.LEFT_OUT).sum() == letters.CAP
    assert np.flatnonzero(own != letters.LEFT_OUT).std() > len(own) / 6


@pytest.mark.parametrize(
    ("letter", "base"), [("Ấ", "a"), ("ﬁ", "f"), ("ǅ", "d"), ("İ", "i"), ("Ω", "ω"), ("ß", "ß"), ("ª", "a"), ("b", "b")]
)
def test_forms_of_a_letter_have_one_base(letter, base):
    assert letters._base(letter) == base


def test_letters_that_look_alike_anywhere_are_one_family():
    family = letters._families([["b", "c"], ["a"], ["c", "d"], ["e"], ["d", "a"]])
    assert family == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}
