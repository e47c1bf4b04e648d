"""The claims of lab note 4 in a form that takes a second: what restoring a picture does and does not prove."""

import numpy as np
import pytest
import torch

import helpers

ROWS = 16
PICTURE = helpers.load_picture("astronaut", ROWS)
NOISE = np.random.default_rng(0).integers(0, 256, PICTURE.shape, dtype=np.uint8)
SHUFFLED = np.random.default_rng(0).permutation(PICTURE)
KINDS = {"picture": PICTURE, "rows shuffled": SHUFFLED, "noise": NOISE}


def planes(picture):
    return helpers.to_batch(helpers.to_bit_planes(helpers.flatten(picture)), 2)


def fraction_restored(model, sequences):
    return helpers.fraction_exact(helpers.sample(model, sequences.shape[1])[0], sequences, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_all_eight_bits_are_restored_trained_and_untrained(kind):
    sequences = planes(KINDS[kind])
    torch.manual_seed(0)
    trained, solved = (helpers.GenModel(sequences.shape[-1], 64, norm=norm) for norm in ("layer", None))
    assert fraction_restored(trained, sequences) < 0.7 and fraction_restored(solved, sequences) < 0.7
    helpers.train(trained, sequences, steps=150)
    helpers.fit_head(solved, sequences)
    assert fraction_restored(trained, sequences) == fraction_restored(solved, sequences) == 1
    written = helpers.to_levels(helpers.sample(solved, ROWS)[0], 2)[0]
    assert np.array_equal(helpers.unflatten(helpers.from_bit_planes(written), PICTURE.shape), KINDS[kind])


@pytest.mark.parametrize("hidden_size, restored", [(ROWS - 3, False), (ROWS - 1, True)])
def test_noise_needs_as_many_numbers_as_rows(hidden_size, restored):
    torch.manual_seed(0)
    model = helpers.GenModel(planes(NOISE).shape[-1], hidden_size)
    assert helpers.fit_head(model, planes(NOISE)) == hidden_size + 1
    assert (fraction_restored(model, planes(NOISE)) == 1) == restored


def test_noise_in_training_helps_against_damage():
    wrong = {}
    sequences = planes(PICTURE)
    given = sequences[:, : ROWS // 2].repeat(8, 1, 1)
    for noise in (0.0, 0.2):
        torch.manual_seed(0)
        model = helpers.GenModel(sequences.shape[-1], 64, norm="layer")
        helpers.train(model, sequences, steps=200, context=helpers.flipped(noise))
        flips = torch.rand(given[:, -1].shape, generator=torch.Generator().manual_seed(0)) < 0.45
        damaged = given.clone()
        damaged[:, -1] = torch.where(flips, 1 - given[:, -1], given[:, -1])
        after = helpers.sample(model, ROWS, damaged)[0][:, ROWS // 2 :]
        wrong[noise] = float((after != sequences[:, ROWS // 2 :]).float().mean())
    assert wrong[0.2] < wrong[0.0]
