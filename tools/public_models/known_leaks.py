"""Public autoregressive models, of which most leak: each function builds one from its clone, small."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from shared import given, mixture, pixels, public, stub, take
from torch import nn

PIXELS = pixels(6, 6)  # order: whole pixels of a picture of 6 by 6


# ---------------------------------------------------------------------------------------------------------- j-min
@public("j-min/PixelCNN", "PixelCNN")
def _(clone):
    from models import PixelCNN

    return PixelCNN(n_channel=3, h=8, discrete_channel=4), torch.rand(4, 3, 6, 6), {}


# ------------------------------------------------------------------------------------------------------- e-hulten
GAUSSIAN = dict(predictions=lambda out: out.unflatten(1, (2, -1)).movedim(1, -1))  # chunk(out, 2, dim=1): mu, logp


@public("e-hulten/maf", "MADE, Gaussian")
def _(clone):
    from made import MADE

    return MADE(12, [64], random_order=False, seed=290713, gaussian=True), torch.randn(4, 12), GAUSSIAN


@public("e-hulten/maf", "MAF, mu and logp of its first layer")
def _(clone):
    from maf import MAF

    np.random.seed(0)
    return MAF(12, 5, [64]).layers[0].made, torch.randn(4, 12), GAUSSIAN


@public("e-hulten/made", "MADE")
def _(clone):
    from models import MADE

    return MADE(n_in=12, hidden_dims=[64], random_order=False, seed=290713), torch.rand(4, 12).round(), {}


@public("e-hulten/made", "MADE, random order")
def _(clone):
    from models import MADE

    model = MADE(n_in=12, hidden_dims=[64], random_order=True, seed=19)
    return model, torch.rand(4, 12).round(), dict(order=torch.as_tensor(model.masks[0]))


@public("e-hulten/made", "MADE, Gaussian")
def _(clone):
    from models import MADE

    return MADE(12, [64], random_order=False, seed=876, gaussian=True), torch.randn(4, 12), GAUSSIAN


# --------------------------------------------------------------------------------------------------- kamenbliznashki
@public("kamenbliznashki/pixel_models", "PixelSNAIL")
def _(clone):
    from pixelsnail import PixelSNAIL

    model = PixelSNAIL(
        (3, 6, 6),
        n_channels=8,
        n_res_layers=1,
        attn_n_layers=2,
        attn_nh=1,
        attn_dq=4,
        attn_dv=8,
        attn_drop_rate=0,
        n_logistic_mix=2,
        n_cond_classes=None,
    )
    return model, torch.rand(4, 3, 6, 6) * 2 - 1, dict(order=PIXELS, predictions=mixture)


@public("kamenbliznashki/pixel_models", "PixelCNN++")
def _(clone):
    from pixelcnnpp import PixelCNNpp

    model = PixelCNNpp((3, 8, 8), n_channels=8, n_res_layers=1, n_logistic_mix=2, n_cond_classes=None)
    return model, torch.rand(4, 3, 8, 8) * 2 - 1, dict(order=pixels(8, 8), predictions=mixture)


for name, norm in (("PixelCNN", True), ("PixelCNN, norm_layer=False", False)):

    @public("kamenbliznashki/pixel_models", name)
    def _(clone, norm=norm):
        from pixelcnn import PixelCNN

        sizes = {"n_bits": 2, "n_channels": 16, "n_out_conv_channels": 16, "kernel_size": 5, "n_res_layers": 3}
        model = PixelCNN((3, 6, 6), **sizes, n_cond_classes=None, norm_layer=norm)
        return model, torch.rand(4, 3, 6, 6) * 2 - 1, dict(predictions=lambda out: out.movedim(1, -1))


@public("kamenbliznashki/generative_models", "PixelSNAIL, top prior")
def _(clone):
    stub("torchvision", "torchvision.utils", "tensorboardX", "vqvae", "optim")
    from vqvae_prior import PixelSNAIL

    model = PixelSNAIL(
        [None, None, (6, 6)],
        n_channels=8,
        n_res_layers=1,
        n_out_stack_layers=1,
        n_cond_classes=5,
        n_bits=3,
        attn_n_layers=2,
        attn_nh=2,
        attn_dq=4,
        attn_dv=8,
        drop_rate=0,
    )
    codes = torch.rand(4, 1, 6, 6) * 2 - 1
    return given(model, torch.eye(5)[:4]), codes, dict(predictions=lambda out: out.movedim(1, -1))


@public("kamenbliznashki/generative_models", "PixelCNN, bottom prior")
def _(clone):
    stub("torchvision", "torchvision.utils", "tensorboardX", "vqvae", "optim")
    from vqvae_prior import PixelCNN

    model = PixelCNN(
        n_channels=8,
        n_out_conv_channels=16,
        kernel_size=5,
        n_res_layers=3,
        n_cond_stack_layers=1,
        n_cond_classes=5,
        n_bits=3,
        drop_rate=0,
    )
    model = given(
        model, torch.rand(1, 1, 4, 4).expand(4, -1, -1, -1) * 2 - 1, torch.eye(5)[:4]
    )  # codes of the top level, class label
    return model, torch.rand(4, 1, 8, 8) * 2 - 1, dict(predictions=lambda out: out.movedim(1, -1))


# ---------------------------------------------------------------------------------------------------------- ZWMDR
CLASSES_SECOND = dict(predictions=lambda out: out.movedim(1, -1))


@public("ZWMDR/PixelCNN", "PixelCNNRGB (CIFAR-10)")
def _(clone):
    from utils.init_models import initialize_model

    return initialize_model((3, 6, 6), 4, 5, 5, 6, "2D"), torch.rand(4, 3, 6, 6), CLASSES_SECOND


@public("ZWMDR/PixelCNN", "PixelCNN (MNIST)")
def _(clone):
    from utils.init_models import initialize_model

    return initialize_model((1, 6, 6), 2, 5, 7, 8, "2D"), torch.rand(4, 1, 6, 6), CLASSES_SECOND


@public("ZWMDR/PixelCNN", "PixelCNN_3D (MNIST)")
def _(clone):
    from utils.init_models import initialize_model

    model = initialize_model((1, 28, 28), 2, 4, 3, 4, "3D")  # its forward() has the size 28 by 28 written in
    return model, torch.rand(2, 1, 28, 28), dict(at=16, **CLASSES_SECOND)


# ---------------------------------------------------------------------------------------------------- DanielMinaya1


@public("DanielMinaya1/PixelRNN-PixelCNN", "Row LSTM")
def _(clone):
    from PixelRNN.model import PixelRNN_model

    return PixelRNN_model(num_layers=2, num_filters=8, input_size=6, type_rnn="row"), torch.rand(4, 1, 6, 6), {}


@public("DanielMinaya1/PixelRNN-PixelCNN", "Diagonal LSTM")
def _(clone):
    from PixelRNN.model import PixelRNN_model

    return PixelRNN_model(num_layers=2, num_filters=8, input_size=6, type_rnn="diagonal"), torch.rand(4, 1, 6, 6), {}


@public("DanielMinaya1/PixelRNN-PixelCNN", "PixelCNN")
def _(clone):
    from PixelCNN.model import PixelCNN_model

    return PixelCNN_model(num_channels=1, num_filters=8, num_layers=3), torch.rand(4, 1, 6, 6), {}


# ------------------------------------------------------------------------------------------------------ muneeb-amir
CLASSES_THIRD = dict(predictions=lambda out: out.movedim(2, -1))


def muneeb(clone):
    return take(clone / "pixelrnn_variants.ipynb", cells="class DiagonalBiLSTMLayer")


@public("muneeb-amir/pixelrnn-variants-cifar10", "Diagonal BiLSTM")
def _(clone):
    return muneeb(clone).DiagonalBiLSTM(3, hidden=12, n_layers=2), torch.rand(4, 3, 6, 6), CLASSES_THIRD


@public("muneeb-amir/pixelrnn-variants-cifar10", "Row LSTM")
def _(clone):
    return muneeb(clone).RowLSTM(3, hidden=12, n_layers=2), torch.rand(4, 3, 6, 6), CLASSES_THIRD


@public("muneeb-amir/pixelrnn-variants-cifar10", "PixelCNN")
def _(clone):
    return muneeb(clone).PixelCNN(3, hidden=12, n_layers=3), torch.rand(4, 3, 6, 6), CLASSES_THIRD


# -------------------------------------------------------------------------------------------------- Huzaifanasir95
CHANNELS_FOURTH = dict(predictions=lambda out: out.movedim(3, 1))  # out: batch, rows, columns, channels, classes


def huzaifa(clone):
    cells = r"class (MaskedConv2d|PixelCNN\(|SimplifiedRowLSTM|SimplifiedDiagonalBiLSTM)"
    return take(clone / "pixelrnn_implementation.ipynb", cells=cells)


@public("Huzaifanasir95/PixelRNN-CIFAR10-Implementation", "Diagonal BiLSTM")
def _(clone):
    model = huzaifa(clone).SimplifiedDiagonalBiLSTM(3, hidden_channels=8, num_layers=1, num_classes=256)
    return model, torch.randint(256, (4, 3, 6, 6)).float(), CHANNELS_FOURTH


@public("Huzaifanasir95/PixelRNN-CIFAR10-Implementation", "Row LSTM")
def _(clone):
    model = huzaifa(clone).SimplifiedRowLSTM(3, hidden_channels=8, num_layers=2, num_classes=256)
    return model, torch.randint(256, (4, 3, 6, 6)).float(), CHANNELS_FOURTH


@public("Huzaifanasir95/PixelRNN-CIFAR10-Implementation", "PixelCNN")
def _(clone):
    model = huzaifa(clone).PixelCNN(3, hidden_channels=8, num_layers=4, num_classes=256)
    return model, torch.randint(256, (4, 3, 6, 6)).float(), CHANNELS_FOURTH


# ----------------------------------------------------------------------------------------------------- kryptologyst
@public("kryptologyst/PixelRNN-Implementation", "PixelRNN")
def _(clone):
    from src.models.pixelrnn import PixelRNN

    def predictions(out):  # compute_loss() views it as batch, rows * columns, channels, mixtures, 3
        return out.unflatten(2, (3, -1)).unflatten(1, (6, 6)).movedim(3, 1)

    model = PixelRNN(in_channels=3, hidden_size=16, num_layers=2, num_mixtures=2, image_size=6)
    return model, torch.rand(4, 3, 6, 6) * 2 - 1, dict(predictions=predictions)


# --------------------------------------------------------------------------------------------------- nicklashansen
@public("nicklashansen/pixelcnn-made", "PixelCNN-MADE")
def _(clone):
    found = take(
        clone / "pixelcnn-made.py",
        "MaskedConv2d",
        "ResNetBlock",
        "PixelCNN",
        "MaskedLinear",
        "MADE",
        "Net",
        cuda=False,
        optim=torch.optim,
    )
    found.PixelCNN.__init__.__defaults__ = 2, 8  # layers and filters, fewer; the size 28 by 28 by 3 is written in
    net = found.Net()
    net.pixelcnn.register_forward_hook(lambda *args: args[-1].contiguous())  # newer PyTorch's layout; same numbers
    pictures = torch.randint(4, (2, 28, 28, 3)).float()  # its loss: y = X.view(-1), batch, rows, columns, channels
    return net, pictures, dict(order=torch.arange(28 * 28 * 3).view(28, 28, 3), at=16)


# ---------------------------------------------------------------------------------------------------------- golbin
class Aligned(nn.Module):
    """codes (batch, steps) -> what WaveNet.train() compares with the targets that the clone's DataLoader gives."""

    def __init__(self, net, collate):
        super().__init__()
        self.net, self.collate = net, collate

    def forward(self, codes):
        audio = F.one_hot(codes, 8).double().numpy()
        loader = SimpleNamespace(
            receptive_fields=self.net.receptive_fields,
            sample_size=0x1000,
            calc_sample_size=lambda audio: len(audio[0]),
            _variable=lambda a: torch.from_numpy(a).float(),
        )
        inputs, targets = next(self.collate(loader, audio))
        assert torch.equal(targets.long(), codes)  # so the output at t is for the code at t
        return self.net(inputs)


@public("golbin/WaveNet", "WaveNet")
def _(clone):
    stub("librosa")
    from wavenet.networks import WaveNet
    from wavenet.utils.data import DataLoader

    return Aligned(WaveNet(3, 2, 8, 16), DataLoader._collate_fn), torch.randint(8, (4, 20)), {}
