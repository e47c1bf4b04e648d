"""Photographs, and the network of note 13 that reads them."""

import copy
import json

import numpy as np
import photos as tool
import pytest
import torch

from causality import causality
from pixelrnn.coding import colour_codec
from pixelrnn.data import photos
from pixelrnn.models import photo, saving, weights
from support import checks, files

ALL = torch.arange(256)
CHELSEA = torch.from_numpy(photos.photograph("chelsea"))
FEW = CHELSEA[100:164, 100:164][None]
LIGHTS = torch.stack([torch.zeros(6, 6, 3), torch.full((6, 6, 3), 255)]).byte()  # no contrast, the outermost levels


# --- Photographs ------------------------------------------------------------------------------------------------------


def test_photographs_have_a_licence_and_their_size():
    sizes = {name: photos.photograph(name).shape for name in photos.LICENCES}
    assert (
        sizes["astronaut"] == (512, 512, 3) and sizes["chelsea"] == (300, 451, 3) and sizes["rocket"] == (213, 320, 3)
    )
    assert {*photos.TESTED} | {*photos.HALVED} == {*photos.LICENCES} and not {*photos.TESTED} & {*photos.HALVED}
    assert all(photos.photograph(name).dtype == np.uint8 for name in photos.LICENCES)
    with pytest.raises(checks.LabError, match="'astronaut', 'chelsea'"):
        photos.photograph("camera")


def test_halves_are_means_of_four_pixels():
    picture = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    assert photos.halved(picture).tolist() == [[[8, 8, 10], [14, 14, 16]], [[32, 32, 34], [38, 38, 40]]]  # 7.5 is 8


def test_patches_are_what_stands_in_the_photograph():
    patches = photos.patches(CHELSEA.numpy())
    assert patches.shape == (9 * 14, 32, 32, 3) and (patches[15] == CHELSEA.numpy()[32:64, 32:64]).all()


def test_pictures_are_turned_and_none_of_the_views_is_another():
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    views = photos.turned(picture)
    assert (views[1][0] == picture[3]).all() and (views[2][1, 2] == picture[2, 1]).all()
    assert (views[3][0, 2] == picture[2, 3]).all() and len({view.tobytes() for view in views}) == 4


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_windows_hold_the_nearest_pixels_before():
    places = photo.offsets()
    assert len(places) == 18 and places[:4] == [(-1, 0), (0, -1), (-1, -1), (-1, 1)]
    assert all(place < (0, 0) for place in places) and max(row**2 + column**2 for row, column in places) == 10
    found = photo.windows(FEW, places)
    assert found.shape == (1, 64, 64, 18, 3)
    for number, (row, column) in enumerate(places):
        assert (found[0, 10, 20, number] == FEW[0, 10 + row, 20 + column]).all()
    assert (found[0, 0, 0] == -1).all() and (found[0, 0, 1] == -1).all(-1).sum() == 17


def test_drawn_windows_are_of_the_pictures_half_mirrored_and_half_cut():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)  # no two pixels are the same
    small = np.random.default_rng(1).integers(0, 256, (10, 20, 3), np.uint8)
    places = photo.offsets()
    before, pixels = photos.Pool([small, picture], places).draw(4000, torch.Generator().manual_seed(0))
    place_of = {tuple(picture[row, column]): (row, column) for row in range(40) for column in range(50)}
    found = [(place_of.get(tuple(own.tolist())), window) for own, window in zip(pixels, before, strict=True)]
    inner = [(at, window) for at, window in found if at and at[0] >= 3 and 3 <= at[1] < 47]
    assert 0.89 < sum(at is not None for at, _ in found) / 4000 < 0.93  # 2,000 of 2,200 pixels are in the larger one
    rows, columns = zip(*(at for at, _ in inner), strict=True)
    assert abs(np.mean(rows) - 21) < 0.7 and abs(np.mean(columns) - 24.5) < 0.7
    ways = {"as it is": 0, "mirrored": 0}
    for (row, column), window in inner:
        inside = window[:, 0] >= 0
        for way, sign in (("as it is", 1), ("mirrored", -1)):
            true = torch.tensor(np.array([picture[row + r, column + sign * c] for r, c in places]))
            ways[way] += inside.sum() > 4 and bool((window == true)[inside].all())
    outside = torch.stack([window[:, 0] < 0 for _, window in inner]).float().mean(0)  # the share of each place
    inside = torch.tensor([(32 + row) / 32 * (32 - abs(column)) / 32 for row, column in places])
    assert (outside - (1 - inside) / 2).abs().max() < 0.016  # half of the windows are cut, at three edges
    assert abs(ways["mirrored"] / sum(ways.values()) - 0.5) < 0.03 and sum(ways.values()) > 0.95 * len(inner)
    with pytest.raises(checks.LabError, match="one picture or more"):
        photos.Pool([], places)


# --- The network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("head", photo.HEADS)
def test_probabilities_sum_to_one_are_causal_and_are_those_of_the_bits(head, in_order):
    torch.manual_seed(0)
    model = photo.PhotoPixelCNN(head, 16, in_order=in_order)
    for pictures in (FEW[:, :6, :6], LIGHTS):
        window, pixels = photo.windows(pictures, model.places).flatten(0, 2), pictures.flatten(0, 2)
        log_p = model.log_probabilities(window, pixels, ALL.expand(len(pixels), 3, -1))
        assert torch.allclose(log_p.exp().sum(-1), torch.ones(len(pixels), 3), atol=1e-4)
        own = log_p.gather(-1, pixels.long()[..., None])[..., 0]
        assert torch.allclose(model.bits_of(pictures).flatten(0, 2), -own / np.log(2), atol=1e-4)

    class Some(torch.nn.Module):
        def forward(self, pictures):
            window, pixels = photo.windows(pictures, model.places).flatten(0, 2), pictures.flatten(0, 2)
            log_p = model.log_probabilities(window, pixels, torch.arange(0, 256, 51).expand(len(pixels), 3, -1))
            return log_p.view(*pictures.shape, -1)

    found = causality(Some(), FEW[:, :4, :4].long() // 51 * 51, order=torch.arange(48).view(4, 4, 3))
    assert found.causal
    same_pixel = found.uses["evaluation"].reshape(16, 3, 16, 3)[range(16), :, range(16)]
    assert same_pixel.any() == in_order


def test_a_head_of_differences_begins_at_the_mean_nearby_moved_by_the_channel_before():
    model = photo.PhotoPixelCNN("differences", 8)
    with torch.no_grad():
        for head in model.heads:
            head[-1].bias[255] += 9  # no difference
    window = torch.full((1, 18, 3), -1)
    window[0, :4] = torch.tensor([[10, 20, 30], [10, 20, 30], [20, 30, 40], [20, 30, 40]])
    log_p = model.log_probabilities(window, torch.tensor([[19, 27, 0]]), ALL.expand(1, 3, -1))
    assert log_p.argmax(-1).tolist() == [[15, 25 + 4, 35 + 2]]  # red is 4 above its mean, green 2


def test_levels_that_are_moved_and_stretched_change_the_logistics_alike():
    """Where the mean and the contrast themselves are not read."""
    torch.manual_seed(0)
    model = photo.PhotoPixelCNN("logistics", 16)
    with torch.no_grad():
        model.read.weight[:, -4:] = 0
    window, pixels = photo.windows(FEW[:, 20:24, 20:24] // 4, model.places)[0, 3, 3][None], FEW[:, 23, 23] // 4
    outputs = [model(2 * window + 1, 2 * pixels + 1), model(window, pixels)]
    contrasts = [model.nearby(one)[1] for one in (2 * window + 1, window)]
    scale = torch.exp(outputs[0][..., 10:] - outputs[1][..., 10:])
    assert torch.allclose(scale, (contrasts[0] / contrasts[1])[..., None].expand_as(scale), rtol=0.05)
    assert 1.5 < float(contrasts[0] / contrasts[1]) < 2


def test_other_pictures_and_settings_get_an_error_that_says_what_is_wanted():
    model = photo.PhotoPixelCNN(features=8)
    for wrong in (FEW[..., :1], FEW.movedim(-1, 1), FEW[0], torch.cat([FEW, FEW[..., :1]], -1)):
        with pytest.raises(checks.LabError, match=r"red, green and blue, \(batch, rows, columns, 3\), not "):
            model.bits_of(wrong)
    with pytest.raises(checks.LabError, match="red, green and blue"):
        photo.bits_while_learning(model, FEW[0, :, :, 0])
    for wrong in (FEW / 255.0, FEW.long() + 256, FEW.long() - 256):
        with pytest.raises(checks.LabError, match="whole levels from 0 to 255"):
            model.bits_of(wrong)
    for settings, told in (({"head": "gauss"}, "head"), ({"features": 0}, "features"), ({"layers": -1}, "layers")):
        with pytest.raises(checks.LabError, match=told):
            photo.PhotoPixelCNN(**settings)
    for settings, told in (({"rows": 0}, "rows"), ({"updates": -1}, "updates")):
        with pytest.raises(checks.LabError, match=told):
            photo.bits_while_learning(model, FEW[0], **settings)


# --- Learning as it reads ---------------------------------------------------------------------------------------------


def test_a_network_learns_from_rows_it_has_read_and_from_no_other():
    torch.manual_seed(0)
    model, picture = photo.PhotoPixelCNN(features=16), FEW[0, :40]
    before = copy.deepcopy(model.state_dict())
    bits, still = photo.bits_while_learning(model, picture), model.bits_of(picture[None])[0]
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert torch.allclose(bits[:8], still[:8], atol=1e-5) and bits[8:].mean() < still[8:].mean() - 0.05
    assert torch.allclose(photo.bits_while_learning(model, picture, updates=0), still, atol=1e-5)
    changed = picture.clone()
    changed[24, 30, 1] += 77
    others = photo.bits_while_learning(model, changed)
    assert torch.equal(others[:24], bits[:24]) and torch.equal(others[24, :30], bits[24, :30])
    assert torch.equal(others[24, 30, 0], bits[24, 30, 0]) and not torch.equal(others[24, 30, 1], bits[24, 30, 1])
    assert (others[32:] != bits[32:]).any(-1).all(-1).any()  # rows whose windows do not reach it: learned


# --- What is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "in_order"), [("softmax", True), ("differences", True), ("logistics", False)])
def test_a_network_of_photographs_is_kept_in_a_file(head, in_order, tmp_path):
    model = photo.PhotoPixelCNN(head, 8, layers=1, in_order=in_order).eval()
    saving.save_model(model, tmp_path / "photo.safetensors")
    assert torch.equal(saving.load_model(tmp_path / "photo.safetensors").bits_of(FEW), model.bits_of(FEW))


@pytest.mark.parametrize("name", tool.STORED)
def test_stored_networks_reach_the_bits_on_their_cards(name):
    model, card = weights.load(name)
    bits = model.bits_of(torch.from_numpy(photos.photograph(tool.HELD_OUT))[None]).mean().item()
    assert abs(bits - card["bits of a value"][tool.HELD_OUT]) < 0.002 and model.head == tool.STORED[name]
    assert tool.HELD_OUT not in card["licence of what it learned from"]


def test_stored_tables_have_all_rows_and_their_order():
    _, names, labels, numbers = files.read_table(files.DATA / "photographs" / "bits.csv", labels=2)
    expected = [[kind, name] for kind in tool.KINDS for name in photos.TESTED for _ in tool.SEEDS]
    assert labels == expected and names[2:] == ["seed", "updates", "training", "whole", "patches", "while learning"]
    seeds, updates, _, whole, patches, learning = numbers.T
    assert seeds.tolist() == [*tool.SEEDS] * 4 * len(tool.KINDS) and (updates > 500).all()
    assert (whole < patches).all() and (learning < whole).all()
    _, _, labels, numbers = files.read_table(files.DATA / "photographs" / "codes.csv", labels=2)
    assert labels == [[code, name] for code in tool.CODES for name in photos.TESTED]
    for code in ("PNG", "JPEG XL", "JPEG XL, channels apart"):
        bits = 8 * len(tool.CODES[code](CHELSEA.numpy())) / CHELSEA.numel()
        assert abs(bits - numbers[labels.index([code, "chelsea"]), 0]) < 0.02  # other versions may differ a little
    _, names, labels, numbers = files.read_table(files.DATA / "photographs" / "files.csv", labels=1)
    assert [name for (name,) in labels] == [*photos.TESTED]
    promised, whole, together, each, *_ = numbers.T
    assert (promised < whole).all() and (whole < promised + 0.002).all() and (whole < together).all()
    assert (each > together + 0.13).all() and (each < together + 0.15).all()


def test_the_tool_trains_and_stores_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "KINDS", {"logistics": {"features": 8}})
    monkeypatch.setattr(tool, "SEEDS", (0,))
    monkeypatch.setattr(photos, "TESTED", ("chelsea",))
    monkeypatch.setattr(tool, "path_of", lambda name, store: tmp_path / f"{name}.csv")
    monkeypatch.setattr(photos, "patches", lambda picture: picture[:32, :32][None])
    learned = []
    monkeypatch.setattr(
        tool,
        "pool",
        lambda held_out: learned.append(held_out) or photos.Pool([photos.photograph("rocket")], photo.offsets()),
    )
    tool.main(["bits", "--seconds", "0.5"])
    protocol, _, labels, numbers = files.read_table(tmp_path / "bits.csv", labels=2)
    assert protocol["seconds"] == 0.5 and labels == [["logistics", "chelsea"]] and learned == ["chelsea"]
    assert numbers[0, 1] > 0 and 2 < numbers[0, 3] < 6 and numbers[0, 5] < numbers[0, 3]
    with pytest.raises(SystemExit, match="seconds"):
        tool.main(["bits", "--seconds", "0"])


@pytest.fixture
def small_photographs(monkeypatch, tmp_path):
    """What the tool's files are of, and its table in a folder of its own."""
    whole = photos.photograph
    monkeypatch.setattr(photos, "photograph", lambda name: np.ascontiguousarray(whole(name)[100:132, 100:164]))
    monkeypatch.setattr(photos, "TESTED", ("chelsea",))
    monkeypatch.setattr(tool, "KINDS", {"logistics": {"features": 8}})
    monkeypatch.setattr(tool, "path_of", lambda name, store: tmp_path / f"{name}.csv")


def test_the_tool_writes_and_reads_files(small_photographs, tmp_path):
    tool.main(["files", "--seconds", "0.5"])
    _, names, labels, numbers = files.read_table(tmp_path / "files.csv", labels=1)
    promised, whole, together, each, *_ = numbers[0]
    assert labels == [["chelsea"]] and names[1:5] == ["promised", "whole", "patches in one file", "patches"]
    assert promised < whole < promised + 0.12 and together < each < together + 0.08  # some 60 bytes of 6,144 values


def test_the_tool_stores_no_file_that_cannot_be_read_again(small_photographs, monkeypatch, tmp_path):
    right = colour_codec.decompress
    monkeypatch.setattr(colour_codec, "decompress", lambda data, model: right(data, model) ^ 1)
    with pytest.raises(SystemExit, match="Another photograph was read than was written"):
        tool.main(["files", "--seconds", "0.1"])
    assert not (tmp_path / "files.csv").exists()


def test_a_pool_has_all_photographs_but_the_one_held_out(monkeypatch):
    monkeypatch.setattr(photos, "photograph", lambda name: np.full((4, 4, 3), [*photos.LICENCES].index(name), np.uint8))
    levels = tool.pool("coffee").levels.unique().tolist()
    assert levels == [-1, *(number for number, name in enumerate(photos.LICENCES) if name != "coffee")]


def test_what_is_written_of_the_stored_networks_is_on_their_cards():
    told = (weights.FOLDER / "README.md").read_text(encoding="utf-8")
    for name in tool.STORED:
        path, card_path = weights.paths(name)
        card = json.loads(card_path.read_text(encoding="utf-8"))
        bits = card["bits of a value"][tool.HELD_OUT]
        assert f"{card['parameters']:,} parameters, {path.stat().st_size:,} bytes, {bits:.2f} bits" in told
