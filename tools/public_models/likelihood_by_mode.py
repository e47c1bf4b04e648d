"""What batch norm in training mode does to a published likelihood: python likelihood_by_mode.py CLONE MNIST.npz

CLONE: okviman/efficient-mixtures at 32627c1ca328577f2f6fb2daef3ed151140fc24a, with the weights it publishes (400
mixture components). Its decoder is a PixelCNN with batch norm, and its scripts compute test likelihoods without having
called eval(), so in training mode. Here the same weights, the same test pictures, the same latent variables (one
sample of the first component for each picture) are measured in both modes. MNIST.npz: test_images or x_test.

Prints nats per picture: the bound -log p(x, z) + log q(z|x) and its part -log p(x|z), means over the pictures, batches
of 100; how far -log p(x|z) of a picture moves with the other pictures of its batch; and how far predictions of the
upper half move with the lower half.
"""

import io
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import torch

BATCH, BATCHES = 100, 5


def load(clone):
    """The published model, from its clone."""
    sys.path.insert(0, str(clone))
    unused = types.ModuleType("models.load_pretrained_model")  # loads a network for CIFAR
    unused.load_resnet = None
    sys.modules["models.load_pretrained_model"] = unused
    from models.misvae import MISVAECNN

    model = MISVAECNN(S=400, n_A=1, device="cpu", estimator="s2a", seed=0)
    archive = zipfile.ZipFile(next((clone / "saved_models").glob("*.zip")))
    (name,) = (one for one in archive.namelist() if one.endswith("/best_model") and "MACOSX" not in one)
    model.load_state_dict(torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True))
    return model


@torch.no_grad()
def measure(model, state, pictures, training, latent=None):
    """(bound, -log p(x|z), probabilities of the pixels, latent variables); noise depends on a picture's place alone."""
    model.load_state_dict(state)  # a pass in training mode changes the running statistics
    model.train(training)
    mean, deviation = model.encoder(pictures, torch.ones(model.S))
    if latent is None:
        random = [torch.Generator().manual_seed(place) for place in range(len(pictures))]
        noise = torch.stack([torch.randn(1, mean.shape[-1], generator=one) for one in random])
        latent = (mean[:, :1] + noise * deviation[:, :1]).unsqueeze(0)
    chances = model.decoder(pictures, latent)
    _, joint, posterior = model.get_log_w(pictures, latent, mean, deviation, chances)
    bits = pictures.view(1, -1, 1, 784)
    pixels = bits * torch.log(chances + 1e-8) + (1 - bits) * torch.log(1 - chances + 1e-8)
    return (posterior - joint)[0, :, 0], -pixels.sum(-1)[0, :, 0], chances[0, :, 0], latent


def main(clone, mnist):
    """Print what was measured."""
    model, arrays = load(Path(clone).resolve()), np.load(mnist)
    images = arrays["test_images" if "test_images" in arrays.files else "x_test"].reshape(-1, 28, 28)
    random = np.random.default_rng(0)
    pictures = torch.tensor(random.binomial(1, images[: BATCH * BATCHES] / 255), dtype=torch.float32).unsqueeze(1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        results = [measure(model, state, batch, training) for batch in pictures.split(BATCH)]
        bound, pixels = (torch.cat([one[part] for one in results]) for part in (0, 1))
        error = float(bound.std() / len(bound) ** 0.5)
        mode = "training" if training else "evaluation"
        print(f"{mode} mode, {len(bound)} test pictures: bound {bound.mean():.2f} nats (standard error {error:.2f}),")
        print(f"    -log p(x|z) {pixels.mean():.2f}")
        first, half = pictures[:BATCH], BATCH // 2
        other = torch.cat([first[:half], pictures[BATCH : BATCH + half]])
        moved = (measure(model, state, other, training)[1][:half] - results[0][1][:half]).abs()
        print(
            f"    half of the batch exchanged: it moves by {moved.mean():.3f} for the others, at most {moved.max():.3f}"
        )
        turned = first.clone()
        turned[0, 0, 14:] = 1 - turned[0, 0, 14:]
        after = measure(model, state, turned, training, results[0][3])[2]
        upper = (after[0, :392] - results[0][2][0, :392]).abs().max()
        print(f"    lower half of a picture inverted: predictions of its upper half move by at most {upper:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python likelihood_by_mode.py CLONE MNIST.npz")
    main(*sys.argv[1:])
