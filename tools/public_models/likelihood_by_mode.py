"""What batch norm in training mode does to a published likelihood: python likelihood_by_mode.py CLONE MNIST.npz

CLONE: okviman/efficient-mixtures at 32627c1ca328577f2f6fb2daef3ed151140fc24a, with the weights it publishes (400
mixture components). Its decoder is a PixelCNN with batch norm, and its scripts compute test likelihoods without having
called eval(), so in training mode. Here the same weights, the same test pictures, the same latent variables (one
sample of the first component for each picture) are measured in training mode, in evaluation mode, and in evaluation
mode with averages of batch norm made anew, from 1,000 training pictures: what is left between the first and the last
is what the leak is worth. MNIST.npz: train_images and test_images, or x_train and x_test.

Writes data/public_models/likelihood_by_mode.csv, a row for each mode, nats per picture: the bound -log p(x, z) +
log q(z|x) and its standard error over pictures; its part -log p(x|z), batches of 100; how far that moves for a picture
when half of its batch is exchanged, mean and largest; and how far predictions of a picture's upper half move when its
lower half is inverted.
"""

import csv
import io
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import torch

BATCH = 100
STORED = Path(__file__).resolve().parents[2] / "data" / "public_models" / "likelihood_by_mode.csv"
NAMES = ["mode", "pictures", "bound", "standard error", "pixels", "moved", "moved most", "upper half moved"]


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


def binarized(arrays, names, count, seed):
    """The first pictures of an array that has one of two names, each pixel a sample: (count, 1, 28, 28)."""
    images = arrays[next(name for name in names if name in arrays.files)].reshape(-1, 28, 28)[:count]
    return torch.tensor(np.random.default_rng(seed).binomial(1, images / 255), dtype=torch.float32).unsqueeze(1)


def averages_of(model, state, pictures):
    """The same weights with batch norm's averages made anew: the means over these pictures' batches."""
    model.load_state_dict(state)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a mean, and not a moving one
    for batch in pictures.split(BATCH):
        measure(model, model.state_dict(), batch, True)
    return {name: value.clone() for name, value in model.state_dict().items()}


def main(clone, mnist):
    """Measure the three, write and print the table."""
    model, arrays = load(Path(clone).resolve()), np.load(mnist)
    pictures, seen = (
        binarized(arrays, names, count, seed)
        for names, count, seed in ((("test_images", "x_test"), 500, 0), (("train_images", "x_train"), 1000, 1))
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    anew = averages_of(model, state, seen)
    rows = []
    cases = ("training", state, True), ("evaluation", state, False), ("evaluation, averages made anew", anew, False)
    for name, state, training in cases:
        results = [measure(model, state, batch, training) for batch in pictures.split(BATCH)]
        bound, pixels = (torch.cat([one[part] for one in results]) for part in (0, 1))
        error = float(bound.std() / len(bound) ** 0.5)
        first, half = pictures[:BATCH], BATCH // 2
        other = torch.cat([first[:half], pictures[BATCH : BATCH + half]])
        moved = (measure(model, state, other, training)[1][:half] - results[0][1][:half]).abs()
        turned = first.clone()
        turned[0, 0, 14:] = 1 - turned[0, 0, 14:]
        after = measure(model, state, turned, training, results[0][3])[2]
        upper = (after[0, :392] - results[0][2][0, :392]).abs().max()
        values = len(bound), bound.mean(), error, pixels.mean(), moved.mean(), moved.max(), upper
        rows.append([name, *(f"{float(value):.5g}" for value in values)])
    with open(STORED, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([NAMES, *rows])
    print(STORED.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python likelihood_by_mode.py CLONE MNIST.npz")
    main(*sys.argv[1:])
