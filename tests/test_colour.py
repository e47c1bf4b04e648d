"""Icons, the network of note 12 and its three heads."""

import json
import math

import icon_sheet
import icons as tool
import numpy as np
import pytest
import torch
from PIL import Image

from causality import causality
from pixelrnn.data import icons
from pixelrnn.evidence.results import span
from pixelrnn.models import colour, layers_in_colour, saving, weights
from support import checks, files

LOADED = icons.load_icons()
FEW = torch.from_numpy(LOADED.validation[:3])


# --- Icons ------------------------------------------------------------------------------------------------------------


def test_icons_are_parted_by_family_and_all_different():
    families = icons.families()
    assert [len(part) for part in LOADED] == [len(part) for part in families] == [2841, 365, 364]
    assert all(part.shape[1:] == (16, 16, 3) and part.dtype == np.uint8 for part in LOADED)
    assert not set(families.training) & set(families.test) and not set(families.validation) & set(families.test)
    assert len(np.unique(np.concatenate(LOADED).reshape(3570, -1), axis=0)) == 3570


def test_no_icon_of_the_test_is_a_variant_of_one_to_learn_from():
    """Measured anew, without the tool that made the split."""
    held_out, others = LOADED.test, np.concatenate([LOADED.training, LOADED.validation])
    most = 0
    for one in held_out:
        equal, drawn = (others == one).all(-1), ((others != 255) | (one != 255)).any(-1)
        most = max(most, ((equal & drawn).sum((1, 2)) / drawn.sum((1, 2))).max())
    assert 0.5 < most < icon_sheet.ALIKE


def test_the_tool_makes_families_of_names_and_of_pixels():
    pictures = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)
    pictures[3] = pictures[1]
    pictures[3, :4] = 0  # a quarter of its pixels
    names = ["box", "cup", "cup-blue", "tea"]
    assert icon_sheet.families(names, pictures).tolist() == [0, 1, 1, 1]
    pictures[3, :5] = 0
    assert icon_sheet.families(names, pictures).tolist() == [0, 1, 1, 3]


def test_a_sheet_that_is_not_the_stored_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "icons.webp"
    monkeypatch.setattr(icons, "SHEET", path)
    with pytest.raises(checks.LabError, match="git checkout data/icons"):
        icons.load_icons()
    Image.new("RGB", (960, 960)).save(path, lossless=True)
    with pytest.raises(checks.LabError, match=r"not those of the stored sheet.*git checkout data/icons"):
        icons.load_icons()


# --- Heads ------------------------------------------------------------------------------------------------------------

ALL = torch.arange(256)


def test_a_level_has_what_a_logistic_has_between_its_edges():
    outputs = torch.randn(50, 15, generator=torch.Generator().manual_seed(0))
    found = colour.logistics(outputs, ALL.expand(50, -1)).double().exp()
    weights_, means, scales = outputs.double()[:, None].chunk(3, -1)
    means, scales = 127.5 * (means + torch.linspace(-0.9, 0.9, 5) + 1), 127.5 * torch.exp(scales - 2)
    upper, lower = (torch.sigmoid((ALL[:, None] + side - means) / scales) for side in (0.5, -0.5))
    upper[:, 255], lower[:, 0] = 1, 0
    assert torch.allclose(found, (torch.softmax(weights_, -1) * (upper - lower)).sum(-1), atol=1e-6)


def test_a_logistic_however_narrow_has_a_probability_and_a_gradient():
    outputs = torch.tensor([[0.0] * 5 + [-5.0] * 5 + [-40.0] * 5, [0.0] * 5 + [9.0] * 5 + [40.0] * 5]).requires_grad_()
    found = colour.logistics(outputs, ALL.expand(2, -1))
    assert found.isfinite().all() and torch.allclose(found.exp().sum(-1), torch.ones(2), atol=1e-3)
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    assert gradient.isfinite().all()


def test_copies_add_the_levels_nearby_and_none_from_outside():
    outputs = torch.zeros(1, 22)
    near = torch.tensor([[7, 7, 200, -1, -1, -1]])  # four choices, as likely: new, 7, 7 and 200
    new = colour.logistics(outputs, ALL[None]).exp() / 4
    new[0, 7] += 2 / 4
    new[0, 200] += 1 / 4
    assert torch.allclose(colour.copies(outputs, ALL[None], near).exp(), new, atol=1e-6)


@pytest.mark.parametrize("head", colour.HEADS)
def test_probabilities_of_all_levels_are_those_of_each(head):
    random = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(40, colour.HEADS[head][1], generator=random)
    near = torch.randint(-1, 256, (40, 6), generator=random)
    near[:, 1], near[::2, 0], near[::3, 2] = near[:, 3], colour.OUTSIDE, 255
    found, each = colour.probabilities(head, outputs, near), colour.HEADS[head][0](outputs, ALL.expand(40, -1), near)
    assert torch.allclose(found, each.exp(), atol=1e-5) and (found >= 0).all()


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("head", colour.HEADS)
def test_probabilities_sum_to_one_are_causal_and_are_those_that_are_sampled_from(head, in_order):
    torch.manual_seed(0)
    model = colour.ColourPixelCNN(head, 16, size=5, in_order=in_order)
    torch.nn.init.normal_(model.before.place)
    few, levels = FEW[:, 5:10, 5:10], ALL.expand(3, 5, 5, 3, -1)
    log_p = model.log_probabilities(few, levels)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(3, 5, 5, 3), atol=1e-5)
    own = log_p.gather(-1, few.long()[..., None])[..., 0]
    assert torch.allclose(model.bits(few), -own / math.log(2), atol=1e-5)

    class Some(torch.nn.Module):
        def forward(self, pictures):
            return model.log_probabilities(pictures, torch.arange(0, 256, 51).expand(*pictures.shape, -1))

    assert causality(Some(), few.long() // 51 * 51, order=torch.arange(75).view(5, 5, 3)).causal
    again = colour.sample(model, few, known_rows=2, temperature=0)
    assert torch.equal(again[:, :2], few[:, :2].long())
    assert torch.equal(model.log_probabilities(again, levels).argmax(-1)[:, 2:], again[:, 2:])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_samples_have_the_frequencies_of_the_probabilities(temperature):
    torch.manual_seed(0)
    model = colour.ColourPixelCNN("logistics", 8, size=1)
    blank, random = torch.zeros(4000, 1, 1, 3), torch.Generator().manual_seed(0)
    expected = model.log_probabilities(blank[:1], ALL.expand(1, 1, 1, 3, -1))[0, 0, 0, 0]
    expected = torch.softmax(expected / temperature, -1)
    reds = colour.sample(model, blank, temperature=temperature, generator=random)[:, 0, 0, 0]
    counts = torch.bincount(reds, minlength=256).float().view(8, 32).sum(1) / 4000
    assert (counts - expected.view(8, 32).sum(1)).abs().max() < 0.03


def test_other_pictures_and_settings_get_an_error_that_says_what_is_wanted():
    model = colour.ColourPixelCNN(features=8)
    for wrong in (FEW[..., :1], FEW.movedim(-1, 1), FEW[:, :8], FEW[0]):
        with pytest.raises(checks.LabError, match=r"red, green and blue, \(batch, 16, 16, 3\), not "):
            model.bits(wrong)
    for wrong in (FEW / 255.0, FEW.long() + 1, FEW.long() - 1):
        with pytest.raises(checks.LabError, match="whole levels from 0 to 255"):
            model.bits(wrong)
    for settings, told in (({"head": "gauss"}, "head"), ({"reach": 1}, "reach"), ({"features": 0}, "features")):
        with pytest.raises(checks.LabError, match=told):
            colour.ColourPixelCNN(**settings)
    with pytest.raises(checks.LabError, match="temperature"):
        colour.sample(model, FEW, temperature=-1)
    with pytest.raises(checks.LabError, match="known_rows"):
        colour.sample(model, FEW, known_rows=17)


# --- The layers of notes 5 and 6 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", layers_in_colour.MODELS)
def test_layers_in_colour_have_probabilities_that_sum_to_one_and_are_causal(name):
    torch.manual_seed(0)
    model, few = layers_in_colour.LayersInColour(name, 4), FEW[:2, 4:8, 6:10].long()
    log_p = model.log_probabilities(few, ALL.expand(2, 4, 4, 3, -1))
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(2, 4, 4, 3), atol=1e-4)
    own = log_p.gather(-1, few[..., None])[..., 0]
    assert torch.allclose(model.bits(few), -own / math.log(2), atol=1e-4)

    class Some(torch.nn.Module):
        def forward(self, pictures):
            return model.log_probabilities(pictures, torch.arange(0, 256, 51).expand(*pictures.shape, -1))

    found = causality(Some(), few // 51 * 51, order=torch.arange(48).view(4, 4, 3))
    uses = found.uses["evaluation"]
    assert found.causal and uses[47].any() and uses[46, 45] and uses[47, 45] and uses[47, 46]  # green sees red...
    changed = few.clone()  # mixtures of a channel are those of its own group of outputs
    changed[:, 3, 3, 2] = (changed[:, 3, 3, 2] + 99) % 256
    assert torch.equal(model(changed), model(few))


def test_layers_in_colour_refuse_other_pictures():
    model = layers_in_colour.LayersInColour("PixelCNN")
    for wrong in (FEW[..., :1], FEW.movedim(-1, 1), FEW[0], FEW[:, :, :8]):
        with pytest.raises(checks.LabError, match=r"red, green and blue, \(batch, rows, 16, 3\), not "):
            model.bits(wrong)
    with pytest.raises(checks.LabError, match="whole levels from 0 to 255"):
        model.bits(FEW / 255.0)
    with pytest.raises(checks.LabError, match="name"):
        layers_in_colour.LayersInColour("U-Net")


# --- What is stored ---------------------------------------------------------------------------------------------------


def test_a_network_of_colours_is_kept_in_a_file(tmp_path):
    model = colour.ColourPixelCNN("logistics", 8, layers=1, in_order=False).eval()
    saving.save_model(model, tmp_path / "colour.safetensors")
    assert torch.equal(saving.load_model(tmp_path / "colour.safetensors").bits(FEW), model.bits(FEW))


def test_the_stored_network_reaches_the_bits_on_its_card():
    model, card = weights.load("icons")
    with torch.no_grad():
        bits = torch.cat([model.bits(few).mean((1, 2, 3)) for few in torch.from_numpy(LOADED.test).split(91)])
    assert abs(float(bits.mean()) - card["bits of a value"]["test"]) < 0.002
    assert weights.paths("icons")[0].stat().st_size < 4e6


def test_stored_tables_have_all_rows_and_their_order():
    _, _, labels, numbers = files.read_table(files.DATA / "icons" / "bits.csv", labels=1)
    assert [name for (name,) in labels] == [kind for kind in tool.KINDS for _ in tool.SEEDS]
    seeds, updates, training, validation, test, error = numbers.T
    assert seeds.tolist() == [*tool.SEEDS] * len(tool.KINDS) and (updates > 500).all()
    assert (training < test).all() and (abs(validation - test) < 0.3).all() and (error < 0.2).all()
    _, _, labels, numbers = files.read_table(files.DATA / "icons" / "layers.csv", labels=1)
    assert [name for (name,) in labels] == [name for name in layers_in_colour.MODELS for _ in tool.SEEDS]
    assert numbers[:, 0].tolist() == [*tool.SEEDS] * 4 and (numbers[:, 2] < numbers[:, 4]).all()
    _, _, labels, numbers = files.read_table(files.DATA / "icons" / "codes.csv", labels=1)
    assert [name for (name,) in labels] == ["stored network, in files", *tool.CODES, "xz after the training icons"]
    of_card = weights.load("icons")[1]["bits of a value"]["test"]
    assert of_card + 0.5 < numbers[0, 0] < of_card + 0.6 and of_card < numbers[0, 1] < of_card + 0.005
    webp = tool.bits_of(tool.CODES["WebP"], LOADED.test)
    assert np.allclose(numbers[2, :2], webp, atol=0.02)  # another version of Pillow may write a little more or less


def test_a_sheet_for_people_has_gaps():
    few = LOADED.test[:3]
    sheet = icons.as_sheet(few, 2, gap=1)
    assert sheet.shape == (36, 36, 3) and np.array_equal(sheet[1:17, 19:35], few[1])
    assert (sheet[[0, 17, 18, 35]] == 255).all() and (sheet[:, [0, 17, 18, 35]] == 255).all()
    assert np.array_equal(icons.as_sheet(few, 3), np.concatenate(few, 1))


def test_the_bits_of_a_file_are_of_one_that_can_be_read_again(monkeypatch):
    few, model = LOADED.test[:2], colour.ColourPixelCNN(features=8).eval()
    monkeypatch.setattr(tool.colour_codec, "compress", lambda pictures, model: b"%d bytes" % len(pictures))
    monkeypatch.setattr(tool.colour_codec, "decompress", lambda data, model: few)
    assert tool.bits_in_file(few, model) == 8 * len(b"2 bytes") / few.size
    with pytest.raises(checks.LabError, match="Other pictures were read than were written"):
        tool.bits_in_file(few[::-1], model)


def test_the_tool_trains_and_stores_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "KINDS", {"logistics": {"head": "logistics", "features": 8}})
    monkeypatch.setattr(tool, "SEEDS", (0,))
    monkeypatch.setattr(tool, "path_of", lambda name, store: tmp_path / f"{name}.csv")
    tool.main(["bits", "--seconds", "1"])
    protocol, names, labels, numbers = files.read_table(tmp_path / "bits.csv", labels=1)
    assert (
        protocol["seconds"] == 1
        and labels == [["logistics"]]
        and names[2:] == ["updates", *icons.PARTS, "standard error"]
    )
    assert numbers[0, 1] > 0 and 2 < numbers[0, 4] < 9
    with pytest.raises(SystemExit, match="seconds"):
        tool.main(["bits", "--seconds", "0"])


def test_what_is_written_of_the_stored_network_is_on_its_card():
    path, card_path = weights.paths("icons")
    card, told = (
        json.loads(card_path.read_text(encoding="utf-8")),
        (weights.FOLDER / "README.md").read_text(encoding="utf-8"),
    )
    assert f"{card['parameters']:,} parameters, {path.stat().st_size:,} bytes; {card['updates']:,} updates" in told
    bits = card["bits of a value"]
    assert f"{bits['training']:.2f} on training icons, {bits['validation']:.2f} on validation icons" in told
    assert f"{bits['test']:.2f} on test icons" in told


def test_the_appendix_has_the_stored_table():
    """Ranges of the seeds."""
    _, _, labels, numbers = files.read_table(files.DATA / "icons" / "bits.csv", labels=1)
    appendix = (files.DATA.parent / "labnotes" / "appendix.md").read_text(encoding="utf-8")
    for kind in tool.KINDS:
        rows = numbers[[name == kind for (name,) in labels]]
        updates, *bits, error = (
            span(values, digits) for values, digits in zip(rows.T[1:], (0, 2, 2, 2, 2), strict=True)
        )
        assert f"| {' | '.join((kind, updates, *bits, error))} |" in appendix
