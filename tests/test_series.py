"""The runner behind `make notebooks`, on notebooks of one cell."""

import nbformat
import pytest

import series

CLAIM = """import sys
sys.path[:0] = [{root!r}]
import matplotlib.pyplot as plt
import helpers
claims = helpers.Claims()
claims.check("sum", 2 + 2 == {four}, "4", "things", "holds", figure=4.0)
claims.table()
fig, ax = plt.subplots()
plt.show()"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(series, "BUILD", tmp_path / "build")
    series.NOTEBOOKS.mkdir()

    def write(name, four):
        parameters = nbformat.v4.new_code_cell("IMAGE = None", metadata={"tags": ["parameters"]})
        cell = nbformat.v4.new_code_cell(CLAIM.format(root=str(series.ROOT), four=four), id="the-sum")
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell], metadata=kernel), series.NOTEBOOKS / name)

    return write


def test_leaves_notebook_page_and_plots_and_prints_the_table(folders, capsys):
    folders("01_sums.ipynb", four=4)
    before = (series.NOTEBOOKS / "01_sums.ipynb").read_bytes()
    assert series.run(series.chosen(""), None) == 0
    printed = capsys.readouterr().out
    assert "sum" in printed and "holds" in printed and "this run: 4.0" in printed
    assert (series.BUILD / "01_sums.html").stat().st_size > 1000
    assert (series.BUILD / "plots" / "01_sums" / "the-sum.png").is_file()
    assert series.claims_of(nbformat.read(series.BUILD / "01_sums.ipynb", as_version=4))[0]["figure"] == [4.0]
    assert (series.NOTEBOOKS / "01_sums.ipynb").read_bytes() == before


def test_a_failing_claim_is_named_with_its_notebook_cell_and_figure(folders, capsys):
    folders("01_wrong.ipynb", four=5)
    folders("02_right.ipynb", four=4)
    assert series.run(series.chosen(""), None) == 1
    printed = capsys.readouterr().out
    assert (
        "FAILED: 01_wrong.ipynb, cell 2 (the-sum): AssertionError: sum: expected 4 things (holds), but measured 4.0"
        in printed
    )
    assert "02_right done" in printed  # one failure does not hide the others


def test_a_picture_of_ones_own_reaches_the_parameters_cell(folders, tmp_path):
    from PIL import Image

    folders("01_sums.ipynb", four=4)
    Image.new("RGB", (20, 20)).save(tmp_path / "mine.png")
    assert series.run(series.chosen("01"), str(tmp_path / "mine.png")) == 0
    executed = nbformat.read(series.BUILD / "01_sums.ipynb", as_version=4)
    assert str(tmp_path / "mine.png") in executed.cells[1].source


def test_a_notebook_that_takes_no_picture_is_left_out(folders, capsys):
    folders("01_sums.ipynb", four=4)
    notebook = nbformat.read(series.NOTEBOOKS / "01_sums.ipynb", as_version=4)
    notebook.cells[0].source = "SEEDS = [0]"
    nbformat.write(notebook, series.NOTEBOOKS / "02_without.ipynb")
    assert series.run(series.chosen(""), "coffee") == 0
    printed = capsys.readouterr().out
    assert "02_without learns from many pictures" in printed and "01_sums done" in printed
    assert not (series.BUILD / "02_without.ipynb").exists()


def test_says_what_is_wrong_before_running_anything(folders, tmp_path):
    folders("01_sums.ipynb", four=4)
    with pytest.raises(SystemExit, match="There is no file"):
        series.run(series.chosen(""), str(tmp_path / "none.png"))
    with pytest.raises(SystemExit, match="No notebook begins with '07'"):
        series.chosen("07")
