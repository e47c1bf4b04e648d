"""PixelCNNs of public repositories, built from their own code."""

import math
import sys
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from shared import given, mixture, pixels, public, stub, take
from torch import nn


def on_cpu():
    """`.cuda()` does nothing: the scripts expect a GPU."""
    nn.Module.cuda = torch.Tensor.cuda = lambda self, *_, **__: self


def last(out):
    """(batch, classes, *values) -> (batch, *values, classes)."""
    return out.movedim(1, -1)


def colours(classes_first, channels=3):
    """(batch, classes * channels, ...), classes or channels first, -> (batch, channels, ..., classes)."""
    shape = (-1, channels) if classes_first else (channels, -1)
    return lambda out: out.unflatten(1, shape).movedim(1 if classes_first else 2, -1)


def mixtures(rows=8, columns=8):
    return dict(predictions=mixture, order=pixels(rows, columns), at=24)


LABELS = torch.tensor([3, 1, 4, 1])
HOT = torch.eye(10)[LABELS]


@public("jzbontar/pixelcnn-pytorch", "PixelCNN")
def _(clone):
    code = (clone / "main.py").read_text()  # Python 2: only the class and the network are taken
    space = dict(nn=nn)
    exec(code[code.index("class MaskedConv2d") : code.index("print net")].replace("fm = 64", "fm = 8"), space)
    return space["net"], torch.rand(4, 1, 6, 6), {}


@public("singh-hrituraj/PixelCNN-Pytorch", "PixelCNN")
def _(clone):
    from Model import PixelCNN

    return PixelCNN(channels=8), torch.rand(4, 1, 6, 6), {}


@public("akashsara/pixelcnn-pytorch", "PixelCNN")
def _(clone):
    from pixelCNN import PixelCNN

    return PixelCNN(), torch.rand(4, 1, 6, 6), dict(at=16)


@public("akashsara/pixelcnn-pytorch", "PixelRCNN")
def _(clone):
    from pixelRCNN import PixelRCNN

    return PixelRCNN(3), torch.rand(4, 3, 6, 6), dict(predictions=colours(True), at=16)


@public("akashsara/pixelcnn-pytorch", "AutoregressiveColorPixelRCNN")
def _(clone):
    from autoregressivePixelRCNN import AutoregressiveColorPixelRCNN

    return (
        AutoregressiveColorPixelRCNN(3, 3 * 8, 12, "cpu"),
        torch.rand(4, 3, 6, 6),
        dict(predictions=colours(True), at=24),
    )


@public("akashsara/pixelcnn-pytorch", "ConditionalPixelCNN")
def _(clone):
    from conditionalPixelCNN import ConditionalPixelCNN

    return given(ConditionalPixelCNN(1, 8, 10), HOT), torch.rand(4, 1, 6, 6), {}


@public("axeloh/pixelcnn-pytorch", "PixelCNN")
def _(clone):
    import masked_cnn_layer

    masked_cnn_layer.MaskedConv2d.__init__.__defaults__ = (1, 0, False)  # stride, padding, use_cuda
    from pixelCNN import PixelCNN

    return PixelCNN(), torch.rand(4, 1, 6, 6), dict(at=16)


@public("axeloh/pixelcnn-pytorch", "AutoregressiveColorPixelRCNN")
def _(clone):
    on_cpu()
    import masked_cnn_layer

    masked_cnn_layer.MaskedConv2d.__init__.__defaults__ = (1, 0, False)
    masked_cnn_layer.np = np  # the file forgets to import it
    from autoregressivePixelRCNN import AutoregressiveColorPixelRCNN

    return AutoregressiveColorPixelRCNN(3, 3 * 4, 12), torch.rand(4, 3, 6, 6), dict(predictions=colours(True), at=24)


@public("axeloh/pixelcnn-pytorch", "ConditionalPixelCNN")
def _(clone):
    import masked_cnn_layer

    masked_cnn_layer.MaskedConv2d.__init__.__defaults__ = (1, 0, False)
    from conditionalPixelCNN import ConditionalPixelCNN

    return given(ConditionalPixelCNN(1, 8, 10), HOT), torch.rand(4, 1, 6, 6), {}


@public("henrhoi/pixelcnn-pytorch", "PixelCNN")
def _(clone):
    on_cpu(), stub("torchvision", "torchvision.utils")
    from pixelCNN import PixelCNN

    return PixelCNN(1, 8), torch.rand(4, 1, 6, 6), {}


@public("henrhoi/pixelcnn-pytorch", "PixelRCNN")
def _(clone):
    on_cpu(), stub("torchvision", "torchvision.utils")
    from pixelRCNN import PixelRCNN

    return PixelRCNN(3, 3 * 4, 12), torch.rand(4, 3, 6, 6), dict(predictions=colours(True), at=24)


@public("henrhoi/pixelcnn-pytorch", "AutoregressiveColorPixelRCNN")
def _(clone):
    on_cpu(), stub("torchvision", "torchvision.utils")
    from autoregressivePixelRCNN import AutoregressiveColorPixelRCNN

    return AutoregressiveColorPixelRCNN(3, 3 * 4, 12), torch.rand(4, 3, 6, 6), dict(predictions=colours(True), at=24)


@public("henrhoi/pixelcnn-pytorch", "ConditionalPixelCNN")
def _(clone):
    on_cpu(), stub("torchvision", "torchvision.utils")
    from conditionalPixelCNN import ConditionalPixelCNN

    return given(ConditionalPixelCNN(1, 8, 10), HOT), torch.rand(4, 1, 6, 6), {}


@public("pi-tau/pixelcnn", "PixelCNN (gated)")
def _(clone):
    from pixelcnn import PixelCNN

    model = PixelCNN((3, 5, 5), n_colors=16, n_blocks=3, filters=24, kernel_size=3)
    return model, torch.randint(0, 16, (4, 3, 5, 5)).float(), dict(predictions=last, at=32)


@public("jrbtaylor/pytorch_pixelcnn", "PixelCNN")
def _(clone):
    from model import PixelCNN

    return PixelCNN(1, 8, n_layers=3, n_scales=1, n_bins=16), torch.rand(4, 1, 6, 6), {}


@public("jrbtaylor/conditional-pixelcnn", "PixelCNN")
def _(clone):
    from model import PixelCNN

    return given(PixelCNN(1, 10, 8, n_layers=3, n_bins=4), HOT), torch.rand(4, 1, 6, 6), {}


@public("tuelwer/conditional-pixelcnn-pytorch", "PixelCNN")
def _(clone):
    from models import LabelNet, PixelCNN

    condition = LabelNet(output_shape=(6, 6))(HOT).detach()
    return given(PixelCNN(8, 3), condition), torch.rand(4, 1, 6, 6), {}


@public("rogertrullo/Gated-PixelCNN-Pytorch", "PixelCNN (gated)")
def _(clone):
    import GatedPixelCNN

    GatedPixelCNN.MaskedConv.__init__.__defaults__ = ("A", "V", False)  # mask_type, ver_or_hor, use_gpu
    return GatedPixelCNN.PixelCNN(nlayers=4, in_channels=1, nfeats=8, Klevels=4), torch.rand(4, 1, 6, 6), {}


@public("kkleidal/GatedPixelCNNPyTorch", "MNIST_PixelCNNNew")
def _(clone):
    from models.mnist_pixelcnn import MNIST_PixelCNNNew

    return MNIST_PixelCNNNew(layers=3, levels=8), torch.rand(4, 1, 6, 6), dict(predictions=last)


@public("Hauf3n/MADE-PixelCNN-PyTorch", "MADE_PixelCNN")
def _(clone):
    model = take(clone / "made_pixelcnn.ipynb").MADE_PixelCNN(pixelcnn_features=8)
    shape = lambda out: out.view(-1, 28, 28, 3, 4).movedim(3, 1)  # 28 rows are written into the model
    return model, torch.randint(0, 4, (2, 3, 28, 28)).float(), dict(predictions=shape, at=8)


@public("vvvm23/PixelCNN", "PixelCNN")
def _(clone):
    from model import PixelCNN

    return given(PixelCNN((3, 5, 5), 8, 3, 16, 10), LABELS), torch.rand(4, 3, 5, 5), dict(predictions=last, at=32)


@public("andiac/PixelCNN-Pytorch", "PixelCNN")
def _(clone):
    from Model import PixelCNN

    return PixelCNN(channels=8, in_channels=3, num_out=100), torch.rand(4, 3, 6, 6), mixtures(6, 6)


@public("andiac/PixelCNN-Pytorch", "FullPixelCNN")
def _(clone):
    from Model import FullPixelCNN

    return FullPixelCNN(res_num=3, in_channels=3, channels=8, out_channels=100), torch.rand(4, 3, 6, 6), mixtures(6, 6)


@public("andiac/PixelCNN-Pytorch", "LocalPixelCNN")
def _(clone):
    from Model import LocalPixelCNN

    return LocalPixelCNN(res_num=3, in_channels=3, channels=8, out_channels=100), torch.rand(4, 3, 6, 6), mixtures(6, 6)


@public("andiac/pixel-cnn-pp", "PixelCNN++")
def _(clone):
    from model import PixelCNN

    return PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=2), torch.rand(4, 3, 8, 8), mixtures()


@public("KimRass/VQ-VAE-PixelCNN", "PixelCNN")
def _(clone):
    stub("einops")
    from model import PixelCNN

    return PixelCNN(n_embeds=16, hidden_dim=8, n_res_blocks=2, n_conv_blocks=2), torch.randint(0, 16, (4, 7, 7)), {}


@public("kngwyu/pytorch-pixelcnn", "PixelCNNpp")
def _(clone):
    stub("torchvision")
    from pixelcnn.pixelcnn_pp import PixelCNNpp

    return (
        PixelCNNpp(3, num_layers=1, hidden_channel=4, num_logistic_mix=2, device="cpu"),
        torch.rand(4, 3, 8, 8),
        mixtures(),
    )


for conv, channels, settings in (
    ("MaskedConv2dBinary", 1, (6, 1, 7, 3, 8, 2)),
    ("MaskedConv2dColor", 3, (5, 3, 7, 3, 12, 4)),
):

    @public("ahernandez105/pixelCnn", f"PixelCnn ({conv})")
    def _(clone, conv=conv, channels=channels, settings=settings):
        import models

        example = torch.rand(4, channels, settings[0], settings[0])
        return (
            models.PixelCnn(*settings, getattr(models, conv)),
            example,
            dict(predictions=lambda out: out.movedim(2, -1)),
        )


@public("qbx2/pixelcnn-pytorch", "PixelCNN")
def _(clone):
    from models import PixelCNN

    return PixelCNN(3, 12), torch.randint(0, 256, (4, 3, 5, 5)).float(), dict(predictions=last, at=16)


@public("aleksandrinvictor/PixelCNN", "PixelCNN, colour")
def _(clone):
    from src.pixelcnn.model import PixelCNN

    logits = lambda out: colours(True)(out["logits"])
    return PixelCNN(3, 768, n_filters=16, n_layers=2), torch.rand(4, 3, 5, 5), dict(predictions=logits, at=32)


@public("aleksandrinvictor/PixelCNN", "PixelCNN, grey")
def _(clone):
    from src.pixelcnn.model import PixelCNN

    return (
        PixelCNN(1, 256, n_filters=16, n_layers=2),
        torch.rand(4, 1, 6, 6),
        dict(predictions=lambda out: colours(True, 1)(out["logits"])),
    )


@public("didriknielsen/pixelcnn_flow", "PixelCNN")
def _(clone):
    from pixelflow.networks.autoregressive import PixelCNN

    return PixelCNN(3, num_params=8, filters=6, num_blocks=3, output_filters=12), torch.rand(4, 3, 5, 5), {}


@public("didriknielsen/pixelcnn_flow", "DropPixelCNN")
def _(clone):
    from pixelflow.networks.autoregressive import DropPixelCNN

    return (
        DropPixelCNN(3, num_params=8, filters=6, num_blocks=3, output_filters=12, dropout=0.2),
        torch.rand(4, 3, 5, 5),
        {},
    )


@public("didriknielsen/pixelcnn_flow", "PixelCNNpp")
def _(clone):
    from pixelflow.networks.autoregressive import PixelCNNpp

    return PixelCNNpp(nr_resnet=1, nr_filters=4, nr_logistic_mix=2), torch.rand(4, 3, 8, 8), mixtures()


@public("davidemartinelli/PixelCNN", "PixelCNN")
def _(clone):
    stub("torchvision", "torchvision.datasets")
    import model

    conv = lambda self, x, weight: nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)
    model.AutoregressiveConv2d._conv_forward = conv  # as in the PyTorch of 2020, which took no bias
    return model.PixelCNN(n_channels=8, n_layers=4, kernel_size=5), torch.rand(4, 1, 6, 6), {}


@public("jfrancis71/PixelCNN", "PixelCNN")
def _(clone):
    from PixelCNN import PixelCNN

    return PixelCNN(3, 8, num_blocks=3, data_channel_width=4), torch.rand(4, 3, 5, 5), dict(predictions=colours(False))


@public("joejenb/PixelCNN", "PixelCNN (gated)")
def _(clone):
    from PixelCNN import PixelCNN

    config = SimpleNamespace(num_hiddens=8, num_channels=1, num_categories=256, representation_dim=6)
    return PixelCNN(config, "cpu"), torch.randint(0, 256, (4, 1, 6, 6)).float(), dict(predictions=last)


@public("zd-daniel/gated_pixelCNN", "PixelCNN++")
def _(clone):
    stub("torchvision", "torchvision.transforms", "datasets")
    from model import PixelCNN

    return PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=2), torch.rand(4, 3, 8, 8), mixtures()


@public("shovon-b/conditional_pixelCNN", "PixelCNN++, conditional")
def _(clone):
    from model import PixelCNN

    model = PixelCNN(
        nr_resnet=1, nr_filters=4, nr_logistic_mix=2, conditional=True, num_class=10, condition_strength="strong"
    )
    return given(model, LABELS), torch.rand(4, 3, 8, 8), mixtures()


@public("TryNotToFail/PixelCNN-", "PixelCNN++, conditional")
def _(clone):
    sys.modules["utils"] = import_module("best_past_utils")
    sys.modules["layers"] = import_module("best_past_layers")
    from best_past_model import PixelCNN

    return given(PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=2), LABELS % 4), torch.rand(4, 3, 8, 8), mixtures()


@public("elahekhodaie/PixelCnnPP", "PixelCNN++")
def _(clone):
    stub("torchvision", "torchvision.transforms")
    from pcnnpp import config

    config.device = "cpu"
    from pcnnpp.model import PixelCNN

    return PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=2), torch.rand(4, 3, 8, 8), mixtures()


@public("ngastellu/GatedPixelCNN_v1", "PixelCNN (gated)")
def _(clone):
    from models import PixelCNN

    return PixelCNN(8, 3, 1, 4, 3, 1, 1), torch.rand(4, 1, 6, 6), {}


@public("InfluenceFunctional/ChemicalPixelCNN", "PixelCNN_RES")
def _(clone):
    from models import PixelCNN_RES

    return PixelCNN_RES(5, 7, 2, 3, 1, 1), torch.rand(4, 1, 6, 6), {}


@public("EnzePeng/Betavae_Vqvae_PixelCnn", "PixelCNNPrior")
def _(clone):
    stub("torchvision", "torchvision.utils", "vq_vae", "dataset")
    from pixel_cnn import PixelCNNPrior

    return PixelCNNPrior(num_embeddings=16, hidden_dim=8, num_layers=4), torch.randint(0, 16, (4, 6, 6)), {}


@public("kryptologyst/PixelCNN-Autoregressive-Image-Generation", "PixelCNN")
def _(clone):
    model = take(clone / "src/pixelcnn/model.py").PixelCNN
    return (
        model(3, 8, num_layers=5, num_residual_blocks=2, num_classes=16),
        torch.rand(4, 3, 5, 5) * 2 - 1,
        dict(predictions=colours(True)),
    )


@public("yaorong368/pixelcnn_facelift", "GatedPixelCNN")
def _(clone):
    stub("torchvision", "torchvision.utils")
    from pixconcnn.models.gated_pixelcnn import GatedPixelCNN

    return (
        GatedPixelCNN((1, 6, 6), num_colors=8, num_filters=8, depth=4),
        torch.rand(4, 1, 6, 6),
        dict(predictions=last),
    )


@public("yaorong368/pixelcnn_facelift", "GatedPixelCNNRGB")
def _(clone):
    stub("torchvision", "torchvision.utils")
    from pixconcnn.models.gated_pixelcnn import GatedPixelCNNRGB

    model = GatedPixelCNNRGB((3, 5, 5), num_colors=8, num_filters=12, depth=4)
    for conv in model.modules():  # line 615 computes the padding with /, which PyTorch no longer takes
        if isinstance(conv, nn.Conv2d):
            conv.padding = tuple(int(number) for number in conv.padding)
    return model, torch.rand(4, 3, 5, 5), dict(predictions=last)


@public("pranayKD/basic_pixel_cnn_pytorch", "PixelCNN")
def _(clone):
    space = take(clone / "pixel_CNN.ipynb", Dataset=object)
    return space.PixelCNN(3, 8, 7, 1, 1, False, True), torch.rand(4, 1, 6, 6), {}


@public("huongdo108/autoregressive-generative-model-PixelCNN-ConditionalPixelCNN", "PixelCNN")
def _(clone):
    stub("torchvision", "torchvision.transforms", "tools", "tests")
    from PixelCNN_model import PixelCNN

    return PixelCNN(n_channels=8), torch.rand(4, 1, 6, 6), {}


@public("MarvinKrausser/pixelcnn", "DIYPixelCNN")
def _(clone):
    model = take(clone / "scripts/model.py").DIYPixelCNN(input_channels=3, hidden_channels=12)
    return model, torch.randint(0, 256, (4, 3, 6, 6)).float(), dict(predictions=last, at=36)


@public("MarvinKrausser/pixelcnn", "DIYPixelCNNGray")
def _(clone):
    model = take(clone / "scripts/model.py").DIYPixelCNNGray(hidden_channels=8)
    return model, torch.randint(0, 256, (4, 1, 6, 6)).float(), {}


@public("JakobLC/02456_PixelCNN_Project", "PixelCNN")
def _(clone):
    space = take(clone / "Scripts_used_to_train_models/standard.ipynb", cuda=False)
    return space.PixelCNN(num_layers=3, num_filters=8, color_levels=16), torch.rand(4, 1, 6, 6), {}


@public("JakobLC/02456_PixelCNN_Project", "GatedPixelCNN")
def _(clone):
    space = take(clone / "Scripts_used_to_train_models/gated.ipynb", cuda=False)
    return given(space.GatedPixelCNN(8, num_layers=3, color_levels=16), LABELS), torch.rand(4, 1, 6, 6), {}


@public("vim12345/PixelCNN-implementation", "PixelCNN")
def _(clone):
    return take(clone / "main.py").PixelCNN(num_filters=8), torch.rand(4, 3, 6, 6), dict(order=pixels(6, 6))


@public("Abdellah427/PixelCNN", "PixelCNN")
def _(clone):
    space = take(clone / "code.ipynb", N_FILTERS=8, RESIDUAL_BLOCKS=3, PIXEL_LEVELS=4)
    return space.PixelCNN(), torch.randint(0, 4, (4, 1, 6, 6)).float(), {}


@public("ArenGolazizian/PixelCNN-MNIST", "PixelCNN")
def _(clone):
    space = take(clone / "notebooks/PixelCNN-MNIST.ipynb")
    return space.PixelCNN(hidden_channels=8), torch.rand(4, 1, 6, 6), {}


@public("mxgx110/PixelCNN", "PixelCNN, MNIST")
def _(clone):
    space = take(clone / "PixelCNN_SingleChannel/PixelCNN_MNIST.py")
    return space.PixelCNN(1, 4, 7, 8), torch.rand(4, 1, 6, 6), {}


@public("mxgx110/PixelCNN", "PixelCNN, CIFAR-10")
def _(clone):
    space = take(clone / "PixelCNN_ThreeChannel/PixelCNN_CIFAR10_alternative.py")
    order = torch.arange(3 * 5 * 5).view(3, 5, 5)  # it samples all of red, then green, then blue
    return (
        space.PixelCNN(3, 4, 7, 8),
        torch.rand(4, 3, 5, 5),
        dict(predictions=lambda out: torch.stack(out, 1).movedim(2, -1), order=order),
    )


@public("ritheshkumar95/pytorch-vqvae", "GatedPixelCNN")
def _(clone):
    from modules import GatedPixelCNN

    return given(GatedPixelCNN(16, 8, n_layers=4), LABELS), torch.randint(0, 16, (4, 6, 6)), {}


@public("MishaLaskin/vqvae", "GatedPixelCNN")
def _(clone):
    from pixelcnn.models import GatedPixelCNN

    return given(GatedPixelCNN(16, 8, n_layers=4), LABELS), torch.randint(0, 16, (4, 6, 6)), {}


@public("phlippe/uvadlc_notebooks", "PixelCNN (tutorial 12)")
def _(clone):
    lightning = type("LightningModule", (nn.Module,), dict(save_hyperparameters=lambda self: None))
    file = clone / "docs/tutorial_notebooks/tutorial12/Autoregressive_Image_Modeling.ipynb"
    space = take(file, pl=MagicMock(LightningModule=lightning, Callback=object), train_set=[torch.zeros(1, 1, 6, 6)])
    return space.PixelCNN(c_in=1, c_hidden=8), torch.randint(0, 256, (4, 1, 6, 6)).float(), dict(predictions=last)


@public("vvvm23/PixelSnail", "PixelSnail")
def _(clone):
    from model import PixelSnail

    model = PixelSnail([6, 6], 16, 16, 7, 2, 2, 8, nb_out_res_block=1)
    return model, torch.randint(0, 16, (4, 6, 6)), dict(predictions=lambda out: last(out[0]))


@public("jhashekhar/pixel-cnn", "PixelCNN")
def _(clone):
    import layers
    import model

    model.MaskAConvBlock, model.MaskBConvBlock = layers.MaskAConvBlock, layers.MaskBConvBlock  # line 3 forgets them
    return model.PixelCNN(h=8, discrete_channel=16), torch.rand(4, 3, 6, 6), dict(order=pixels(6, 6), at=36)


@public("amogh344/PixelCNN-sfx", "PixelCNN1D")
def _(clone):
    model = take(clone / "model/pixelcnn.py").PixelCNN1D(hidden_dim=16)
    return model, torch.randint(0, 256, (4, 40)).float(), dict(next_value=True)


@public("clementchadebec/benchmark_VAE", "PixelCNN")
def _(clone):
    folder = clone / "src/pythae/models/normalizing_flows/pixelcnn"
    conv = take(folder / "utils.py").MaskedConv2d
    base = type("BaseNF", (nn.Module,), dict(__init__=lambda self, model_config: nn.Module.__init__(self)))
    model = take(folder / "pixelcnn_model.py", MaskedConv2d=conv, BaseNF=base, ModelOutput=dict).PixelCNN
    model = model(SimpleNamespace(input_dim=(1, 6, 6), n_embeddings=8, n_layers=4, kernel_size=5))
    data = type("Data", (nn.Module,), dict(forward=lambda self, x: self.model(dict(data=x))["out"]))()
    data.model = model
    return data, torch.randint(0, 8, (4, 1, 6, 6)).float(), dict(predictions=last, at=16)


@public("manonb42/PixelCNN", "Model")
def _(clone):
    return take(clone / "src/pixelcnn.py").Model(n_filters=8, n_layers=3), torch.rand(4, 1, 6, 6), {}


@public("katjath/PixelCNN-Tutorial", "SimplePixelCNN")
def _(clone):
    return (
        take(clone / "01_pixelcnn_intro.ipynb").SimplePixelCNN(n_filters=8, n_layers=5),
        torch.rand(4, 1, 6, 6),
        {},
    )


@public("gscriva/pixel-cnn", "PixelCNN")
def _(clone):
    settings = SimpleNamespace(
        bias=True,
        physics=SimpleNamespace(L=6),
        net_depth=4,
        net_width=8,
        kernel_size=5,
        res_block=True,
        final_conv=True,
        activation="prelu",
    )
    lightning = type("LightningModule", (nn.Module,), dict(save_hyperparameters=lambda self: None, hparams=settings))
    names = dict(pl=SimpleNamespace(LightningModule=lightning), hydra=MagicMock(), PROJECT_ROOT=clone)
    model = take(clone / "src/pl_modules/model.py", **names).PixelCNN()
    model.forward = model._forward  # forward() draws pictures; training calls _forward's computation
    return model, torch.randint(0, 2, (4, 1, 6, 6)) * 2.0 - 1, dict(predictions=last)


def torchlake(clone, folder):
    """The classes of its PixelCNNs, without the rest of the library, which needs torchvision."""
    lake, images = clone / "torchlake/common/models", clone / "torchlake/image_generation/models"
    base = take(lake / "model_base.py", ABC=object, abstractmethod=lambda f: f).ModelBase
    names = dict(ModelBase=base, ResBlock=take(lake / "residual.py").ResBlock, math=math)
    for file in ("pixelcnn/network.py", f"{folder}/network.py", f"{folder}/model.py"):
        names = vars(take(images / file, **names))
    return SimpleNamespace(**names)


@public("gitE0Z9/pytorch-implementations", "PixelCNN")
def _(clone):
    model = torchlake(clone, "pixelcnn").PixelCNN(3, 8, 4, 3)
    return model, torch.rand(4, 3, 5, 5), dict(predictions=lambda out: out.movedim(2, -1), at=32)


@public("gitE0Z9/pytorch-implementations", "GatedPixelCNN")
def _(clone):
    model = torchlake(clone, "gated_pixelcnn").GatedPixelCNN(3, 8, 4, 3)
    return model, torch.rand(4, 3, 5, 5), dict(predictions=lambda out: out.movedim(2, -1), at=32)


@public("wrrogers/PixelCNN-Interpolation", "PixelCNN")
def _(clone):
    from pixelcnn import PixelCNN

    return PixelCNN((3, 5, 5), 3, 12, 12, 3, 3, None), torch.rand(4, 3, 5, 5), dict(predictions=last, at=32)


@public("wrrogers/PixelCNN-Interpolation", "PixelSNAIL")
def _(clone):
    from pixelsnail import PixelSNAIL

    model = PixelSNAIL((3, 6, 6), 8, 2, 2, 1, 4, 8, n_logistic_mix=2, drop_rate=0.2)
    return model, torch.rand(4, 3, 6, 6), mixtures(6, 6)


def decoder(model):
    """p(picture | latent variables), with those fixed; 28 rows are written into it."""
    latent = torch.randn(1, 2, 1, 40, generator=torch.Generator().manual_seed(0))
    shape = lambda out: out.view(2, 1, 28, 28)
    return given(model, latent), torch.bernoulli(torch.full((2, 1, 28, 28), 0.3)), dict(predictions=shape, at=8)


@public("okviman/efficient-mixtures", "SingleLayerPixelCNNDecoder (MISVAE)")
def _(clone):
    from models.decoders import SingleLayerPixelCNNDecoder

    return decoder(SingleLayerPixelCNNDecoder(784, 40, device="cpu"))


@public("Lagergren-Lab/MixtureVAEs", "SingleLayerPixelCNNDecoder")
def _(clone):
    sys.path.insert(0, str(clone / "Exp_2D_and_MNIST_and_FashionMNIST_NLL"))
    from models.decoders import SingleLayerPixelCNNDecoder

    return decoder(SingleLayerPixelCNNDecoder(784, 40, device="cpu"))
