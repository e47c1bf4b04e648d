"""PixelRNNs, MADEs and other masked networks, audio models, transformers; built from their own code."""

from types import SimpleNamespace

import numpy as np
import torch
from shared import pixels, public, stub, take
from torch import nn
from torch.nn import functional as F


class Lines(nn.Module):
    """A module whose forward is a function of others: what a training script does between data and loss."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.parts, self.does = nn.ModuleDict(modules), forward

    def forward(self, x):
        return self.does(SimpleNamespace(**dict(self.parts)), x)


TOKENS = dict(next_value=True, predictions=lambda out: out[0] if isinstance(out, tuple) else out)
PAIRS = dict(predictions=lambda out: out.unflatten(1, (2, -1)).movedim(1, -1))  # two parameters of each value

# PixelRNN


def xzhu():
    return take(
        "Binary PixelRNN.py",
        "Config",
        "MaskedConv1d",
        "MaskedConv2d",
        "RowLSTMLayer",
        "RowLSTM",
        "skew",
        "unskew",
        "DiagonalLSTM",
        "PixelRNN_model",
        device=torch.device("cpu"),
    )


@public("XZHU1216/PixelRNN", "PixelRNN, diagonal LSTM")
def _(clone):
    model = xzhu().PixelRNN_model(num_layers=2, num_filters=4, input_size=6, type_rnn="diagonal")
    return model, torch.rand(4, 3, 6, 6), dict(order=pixels(6, 6))


@public("XZHU1216/PixelRNN", "PixelRNN, row LSTM")
def _(clone):  # the row LSTM takes pictures of 32 x 32 or 28 x 28 only
    code = xzhu()
    code.Config.dataset = "mnist"
    return code.PixelRNN_model(1, 2, 28, type_rnn="row"), torch.rand(4, 1, 28, 28), dict(at=24)


@public("heechan95/PixelRNN-pytorch", "PixelRNN, row LSTM")
def _(clone):
    names = "_padding", "MaskedConv2d", "MaskedConv1d", "RowLSTMCell", "RowLSTM", "PixelRNN"
    code = take("PixelRNN pytorch.ipynb", *names)
    return code.PixelRNN(num_layers=2, hidden_dims=4, input_size=6), torch.rand(4, 1, 6, 6), {}


@public("kzhangucsb/pixelrnn", "PixelGRUNet")
def _(clone):
    code = take("pixelrnn_1.py", "pixelGRUlayer", "PixelGRUNet")
    return code.PixelGRUNet(8, 4), torch.rand(4, 3, 5, 5), dict(at=16)


def fazal():
    path = "i222362_FzalZamanKhan.ipynb"
    return take(path, "MaskedConv2d", "PixelCNN", "RowLSTM")


@public(
    "FazalZamanKhan/CNN-for-CIFAR--10-RNN-for-Next--Word-Prediction-PixelCNN-Row-LSTM-and-Diagonal-BiLSTM-PixelRNN-",
    "PixelCNN",
)
def _(clone):
    example = torch.randint(0, 256, (4, 3, 6, 6))
    return fazal().PixelCNN(3, 4, 3), example, dict(order=pixels(6, 6), predictions=lambda out: out.movedim(2, -1))


@public(
    "FazalZamanKhan/CNN-for-CIFAR--10-RNN-for-Next--Word-Prediction-PixelCNN-Row-LSTM-and-Diagonal-BiLSTM-PixelRNN-",
    "row LSTM",
)
def _(clone):
    model = fazal().RowLSTM(3, 8, 2)
    return model, torch.rand(4, 3, 6, 6), dict(order=pixels(6, 6), predictions=lambda out: out.movedim(2, -1))


def umer():
    names = "MaskedConv2d", "PixelCNN", "RowLSTM", "RowLSTMPixelRNN", "skew", "unskew", "DiagonalLSTM"
    return take("A1.ipynb", *names, "DiagonalBiLSTMPixelRNN")


UMER_PICTURES = torch.randint(0, 256, (4, 3, 6, 6), generator=torch.Generator().manual_seed(0))
UMER_SETTINGS = dict(order=pixels(6, 6), predictions=lambda out: out.movedim(2, -1))


@public("umer-khann/DeepLearning-CNN-RNN-PixelRNN", "PixelCNN")
def _(clone):
    return umer().PixelCNN(2, 4), UMER_PICTURES, UMER_SETTINGS


@public("umer-khann/DeepLearning-CNN-RNN-PixelRNN", "row LSTM")
def _(clone):
    return umer().RowLSTMPixelRNN(2, 4), UMER_PICTURES, UMER_SETTINGS


@public("umer-khann/DeepLearning-CNN-RNN-PixelRNN", "diagonal BiLSTM")
def _(clone):
    return umer().DiagonalBiLSTMPixelRNN(1, 4), UMER_PICTURES, UMER_SETTINGS


@public("umer-khann/DeepLearning-CNN-RNN-PixelRNN", "PixelCNN, as its loss pairs logits and targets")
def _(clone):
    loss_rows = lambda out: out.transpose(1, 2).reshape(-1, 3, 6, 6, 256)  # as its train_model flattens logits
    return umer().PixelCNN(2, 4), UMER_PICTURES, dict(order=pixels(6, 6), predictions=loss_rows)


@public("SunnyHaze/PixelRNN-Pokemon-Creation", "PixelRNN (LSTM)")
def _(clone):
    model = take("main.py", "PixelRNN").PixelRNN(input_size=7, hidden_size=8)
    one_hot = F.one_hot(torch.arange(80).view(4, 20) % 7).float()  # (batch, pixels, colours)
    return model, one_hot, dict(order=torch.arange(20)[:, None], next_value=True, predictions=lambda out: out[0])


@public("CodeHashe/PixelRNN", "PixelRNN, row LSTM")
def _(clone):
    model = take("PixelRNN.ipynb", "RowLSTM", "PixelRNN").PixelRNN(hidden_dim=4, num_layers=2)
    return model, UMER_PICTURES, dict(order=pixels(6, 6), predictions=lambda out: out.movedim(2, -1))


@public("Han1018/PixelRNN", "PixelCNN")
def _(clone):
    from src.models import PixelCNN

    settings = dict(order=pixels(6, 6), predictions=lambda out: out.movedim(1, -1))
    return PixelCNN(n_channel=3, h=4, layers=2, feature_maps=8), torch.rand(4, 3, 6, 6), settings


# MADE and its kind


def kamen(seed=0):
    stub("torchvision", "torchvision.transforms", "torchvision.utils", "data")
    import maf

    torch.manual_seed(seed)
    return maf


@public("kamenbliznashki/normalizing_flows", "MADE")
def _(clone):
    made = kamen().MADE(8, 32, 1)
    return nn.Sequential(made.net_input, made.net), torch.randn(4, 8), PAIRS


@public("kamenbliznashki/normalizing_flows", "MADE, --input_order random")
def _(clone):
    made = kamen().MADE(8, 32, 1, input_order="random")
    return nn.Sequential(made.net_input, made.net), torch.randn(4, 8), dict(order=made.input_degrees, **PAIRS)


@public("kamenbliznashki/normalizing_flows", "MADEMOG")
def _(clone):
    made = kamen().MADEMOG(2, 8, 32, 1)
    split = lambda out: out.view(-1, 6, 8).movedim(1, -1)
    return nn.Sequential(made.net_input, made.net), torch.randn(4, 8), dict(predictions=split)


@public("kamenbliznashki/normalizing_flows", "BNAF")
def _(clone):
    from bnaf import BNAF

    return BNAF(8, 1, 32), torch.randn(4, 8), dict(next_value=True, predictions=lambda out: torch.stack(out, -1))


@public("ikostrikov/pytorch-flows", "MADE")
def _(clone):
    import flows

    made = flows.MADE(8, 32)
    return nn.Sequential(made.joiner, made.trunk), torch.randn(4, 8), PAIRS


@public("ikostrikov/pytorch-flows", "MADESplit")
def _(clone):
    import flows

    both = lambda m, x: torch.stack([m.s_trunk(m.s_joiner(x)), m.t_trunk(m.t_joiner(x))], -1)
    made = flows.MADESplit(8, 32)
    return Lines(lambda parts, x: both(parts.made, x), made=made), torch.randn(4, 8), dict(predictions=lambda out: out)


UNFLIPPED = dict(next_value=True, predictions=lambda out: out[0].flip(1))


@public("tonyduan/normalizing-flows", "MAF")
def _(clone):
    from src.flows import MAF

    return MAF(8), torch.randn(4, 8), UNFLIPPED


@public("tonyduan/normalizing-flows", "NSF_AR")
def _(clone):
    from src.flows import NSF_AR

    return NSF_AR(8), torch.randn(4, 8), dict(next_value=True, predictions=lambda out: out[0])


@public("karpathy/pytorch-normalizing-flows", "MAF (ARMLP)")
def _(clone):
    from nflib.flows import MAF

    return MAF(8, parity=False).net, torch.randn(4, 8), PAIRS


@public("karpathy/pytorch-normalizing-flows", "SlowMAF")
def _(clone):
    from nflib.flows import SlowMAF

    return SlowMAF(8, parity=False), torch.randn(4, 8), UNFLIPPED


@public("minimrbanana/pytorch-made", "MADE")
def _(clone):
    from made import MADE

    model = MADE(8, [32, 32], 16, natural_ordering=False)
    return model, torch.randn(4, 8), dict(order=torch.from_numpy(model.m[-1]), **PAIRS)


@public("airalcorn2/pytorch-nade", "NADE")
def _(clone):
    from nade import NADE

    return Lines(lambda parts, x: parts.nade({"pixels": x}), nade=NADE(36, 8)), torch.rand(4, 36), {}


@public("axeloh/made-pytorch", "MADE")
def _(clone):
    torch.Tensor.cuda = lambda tensor: tensor  # its layers call .cuda()
    from made import MADE

    return MADE(36, use_cuda=False), torch.rand(4, 36), {}


@public("benja263/generative_models", "MADE, one-hot")
def _(clone):
    from AutoRegressive.MADE.model import MADE

    example = torch.randint(0, 4, (4, 1, 6, 6))
    return MADE((1, 6, 6), 4, [64, 64], one_hot=True), example, dict(predictions=lambda out: out.movedim(1, -1))


@public("benja263/generative_models", "GatedPixelCNN")
def _(clone):
    from AutoRegressive.GatedPixelCNN.model import GatedPixelCNN

    model = GatedPixelCNN((1, 6, 6), 4, num_layers=2, num_h_filters=6, num_o_filters=6)
    return model, torch.randint(0, 4, (4, 1, 6, 6)), dict(predictions=lambda out: out.movedim(1, -1))


@public("benja263/generative_models", "GatedPixelCNN, color_conditioning")
def _(clone):
    from AutoRegressive.GatedPixelCNN.model import GatedPixelCNN

    model = GatedPixelCNN((3, 6, 6), 4, num_layers=2, num_h_filters=6, num_o_filters=6, color_conditioning=True)
    return model, torch.randint(0, 4, (4, 3, 6, 6)), dict(predictions=lambda out: out.movedim(1, -1))


@public("ritchie46/vi-torch", "MADE")
def _(clone):
    from models import MADE

    return MADE(8, 32), torch.rand(4, 8), {}


@public("ritchie46/vi-torch", "AutoRegressiveNN of IAF")
def _(clone):
    from flows.iaf import AutoRegressiveNN

    model = AutoRegressiveNN(8, 32, 1)
    return Lines(lambda parts, x: parts.net(x, torch.zeros(1)), net=model), torch.rand(4, 8), {}


@public("riannevdberg/sylvester-flows", "IAF, one step")
def _(clone):
    from models.flows import IAF

    features, hidden, mean, gate = IAF(8, num_flows=1, num_hidden=1, h_size=16).flows[0]
    both = lambda p, x: torch.stack([head(p.hidden(p.features(x))) for head in (p.mean, p.gate)], -1)
    model = Lines(both, features=features, hidden=hidden, mean=mean, gate=gate)
    return model, torch.randn(4, 8), dict(predictions=lambda out: out)


@public("pclucas14/iaf-vae", "ARMultiConv2d")
def _(clone):
    from layers import ARMultiConv2d

    convolutions = ARMultiConv2d([8] * 2, [2] * 2, SimpleNamespace(z_size=2, h_size=8))
    model = Lines(lambda parts, z: torch.stack(parts.net(z, torch.zeros(1, 8, 6, 6)), -1), net=convolutions)
    return model, torch.randn(4, 2, 6, 6), dict(order=pixels(6, 6), predictions=lambda out: out)


@public("bayesiains/nflows", "MADE")
def _(clone):
    stub("UMNN", "nflows.transforms.UMNN")
    from nflows.transforms.made import MADE

    return MADE(8, 32, output_multiplier=2), torch.randn(4, 8), dict(predictions=lambda out: out.view(-1, 8, 2))


@public("VincentStimper/normalizing-flows", "MADE, permute_mask")
def _(clone):
    from normflows.nets.made import MADE

    model = MADE(8, 32, output_multiplier=2, permute_mask=True)
    degrees = model.final_layer.degrees[::2]  # each input's place, as the output layer has it
    return model, torch.randn(4, 8), dict(order=degrees, predictions=lambda out: out.view(-1, 8, 2))


@public("probabilists/zuko", "MaskedAutoregressiveTransform")
def _(clone):
    import zuko

    order = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    transform = zuko.flows.MaskedAutoregressiveTransform(8, order=order, hidden_features=[32, 32])
    return transform.hyper, torch.randn(4, 8), dict(order=order, predictions=lambda out: out.view(-1, 8, 2))


@public("pyro-ppl/pyro", "AutoRegressiveNN")
def _(clone):
    names = "sample_mask_indices", "create_mask", "MaskedLinear", "ConditionalAutoRegressiveNN", "AutoRegressiveNN"
    code = take("pyro/nn/auto_reg_nn.py", *names)
    order = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    model = code.AutoRegressiveNN(8, [32, 32], permutation=order, skip_connections=True)
    return model, torch.randn(4, 8), dict(order=order.argsort(), predictions=lambda out: torch.stack(out, -1))


@public("AWehenkel/Normalizing-Flows", "AutoregressiveConditioner")
def _(clone):
    stub("UMNN", "UMNN.NeuralIntegral", "UMNN.ParallelNeuralIntegral")
    from NF.Conditionners.AutoregressiveConditioner import AutoregressiveConditioner

    return AutoregressiveConditioner(8, [32, 32], 3), torch.randn(4, 8), dict(predictions=lambda out: out)


# Audio


@public("r9y9/wavenet_vocoder", "WaveNet")
def _(clone):
    from wavenet_vocoder import WaveNet

    model = WaveNet(16, layers=4, stacks=2, residual_channels=8, gate_channels=8, skip_out_channels=8, cin_channels=-1)
    model = Lines(lambda parts, x: parts.net(F.one_hot(x, 16).float().mT), net=model)
    return model, torch.randint(0, 16, (4, 40)), dict(next_value=True, predictions=lambda out: out.mT)


@public("kan-bayashi/PytorchWaveNetVocoder", "WaveNet")
def _(clone):
    from wavenet_vocoder.nets.wavenet import WaveNet

    model = WaveNet(16, n_aux=2, n_resch=8, n_skipch=8, dilation_depth=3, dilation_repeat=2)
    model = Lines(lambda parts, x: parts.net(x, torch.ones(len(x), 2, 40)), net=model)
    return model, torch.randint(0, 16, (4, 40)), TOKENS


@public("jcd496/PyTorch-WaveNet", "WaveNet")
def _(clone):
    from model import WaveNet

    net = WaveNet(2, 3, False, residual_channels=4, dilation_channels=4, skip_channels=8, end_channels=8)

    def outputs(parts, x):  # zeros for the first samples, which the network has no outputs for
        last = parts.net(F.one_hot(x, 256).float().mT).view(len(x), -1, 256)
        return F.pad(last, (0, 0, x.shape[1] - last.shape[1], 0))

    return Lines(outputs, net=net), torch.randint(0, 256, (4, 40)), TOKENS


@public("deepsound-project/samplernn-pytorch", "SampleRNN")
def _(clone):
    for name in "uniform", "constant", "kaiming_uniform", "orthogonal":  # removed from newer torch
        setattr(nn.init, name, getattr(nn.init, name + "_"))
    from model import Predictor, SampleRNN

    predictor = Predictor(SampleRNN([2, 2, 4], 1, 8, True, 16, weight_norm=True))
    silence = torch.full((4, 16), 8)  # what the data begins with
    inputs = lambda x: torch.cat([silence[: len(x)], x], 1)[:, :-1]
    return Lines(lambda parts, x: parts.net(inputs(x), True), net=predictor), torch.randint(0, 16, (4, 32)), {}


@public("fatchord/WaveRNN", "WaveRNN")
def _(clone):
    stub("librosa", "utils.display", "utils.dsp", "utils.distribution")
    np.cumproduct = np.cumprod  # its old name
    from models.fatchord_version import WaveRNN

    net = WaveRNN(8, 8, 4, 2, (2, 2), 3, 4, 8, 1, hop_length=4, sample_rate=16)
    mels = torch.randn(4, 3, 14, generator=torch.Generator().manual_seed(0))
    model = Lines(lambda parts, x: parts.net(x, mels[: len(x)]), net=net)
    return model, torch.rand(4, 40) * 2 - 1, TOKENS


# Transformers and language models

NAMES = torch.randint(0, 9, (4, 12), generator=torch.Generator().manual_seed(0))


def makemore():
    stub("torch.utils.tensorboard")
    import makemore

    return makemore, makemore.ModelConfig(block_size=12, vocab_size=9, n_layer=2, n_embd=8, n_embd2=8, n_head=2)


@public("karpathy/makemore", "Transformer")
def _(clone):
    code, config = makemore()
    return code.Transformer(config), NAMES, TOKENS


@public("karpathy/makemore", "BoW")
def _(clone):
    code, config = makemore()
    return code.BoW(config), NAMES, TOKENS


@public("karpathy/makemore", "RNN")
def _(clone):
    code, config = makemore()
    return code.RNN(config, "rnn"), NAMES, TOKENS


@public("karpathy/makemore", "RNN (GRU)")
def _(clone):
    code, config = makemore()
    return code.RNN(config, "gru"), NAMES, TOKENS


@public("karpathy/makemore", "MLP")
def _(clone):
    code, config = makemore()
    return code.MLP(config), NAMES, TOKENS


def sahaj(**given):
    stub("seaborn")
    from image_transformer import ImageTransformer

    sizes = dict(nlayers=2, hidden_size=16, filter_size=16, num_heads=2, total_key_depth=0, total_value_depth=0)
    return ImageTransformer(SimpleNamespace(channels=3, dropout=0.1, image_size=6, num_mixtures=2, **sizes, **given))


@public("sahajgarg/image_transformer", "ImageTransformer, categorical, global attention")
def _(clone):
    return sahaj(distr="cat", attn_type="global"), torch.rand(4, 3, 6, 6), {}


@public("sahajgarg/image_transformer", "ImageTransformer, categorical, local attention")
def _(clone):
    return sahaj(distr="cat", attn_type="local_1d", block_length=8), torch.rand(4, 3, 6, 6), {}


@public("sahajgarg/image_transformer", "ImageTransformer, mixture of logistics, local attention")
def _(clone):
    model = sahaj(distr="dmol", attn_type="local_1d", block_length=8)
    same = lambda out: out.unsqueeze(1).expand(-1, 3, -1, -1, -1)  # parameters of a pixel: of its three channels
    return model, torch.rand(4, 3, 6, 6), dict(order=pixels(6, 6), predictions=same)


@public("kaushik333/Image-GPT", "GPT2")
def _(clone):
    stub("utils")
    from gpt_arch import GPT2

    net = GPT2(8, 9, 4, 4, 2, 2)
    return Lines(lambda parts, x: parts.net(x.T).transpose(0, 1), net=net), torch.randint(0, 9, (4, 16)), {}


@public("myoons/image-gpt-pytorch", "ImageGPT")
def _(clone):
    from model import ImageGPT, ImageGPTConfig

    return ImageGPT(ImageGPTConfig(dict(n_layers=2, n_pixels=4))), torch.randint(0, 6, (4, 16)), {}


@public("dannydonns/min-image-gpt", "GPT")
def _(clone):
    from gpt_model import GPT

    return GPT(9, 16, 2, 8, 16, 2, 0.1), torch.randint(0, 9, (4, 16)), TOKENS


@public("atishay-nar/image-GPT", "ImageGPT")
def _(clone):
    from src.image_gpt import ImageGPT

    config = SimpleNamespace(NUM_CLUSTERS=9, EMBED_DIM=8, NUM_HEADS=2, NUM_LAYERS=2, IMAGE_SIZE=4)
    return ImageGPT(config), torch.randint(0, 9, (4, 15)), TOKENS


@public("puhuk/image-gpt", "GPT2")
def _(clone):
    from gpt2 import GPT2

    net = GPT2(8, 2, 2, 16, 9, 10, 15, 0.0, 0.0, 0, (0.9, 0.95), 0.0)
    return Lines(lambda parts, x: parts.net(x, None)[0], net=net), torch.randint(0, 9, (4, 15)), TOKENS


def former(kind):
    stub("torch.utils.tensorboard")
    from former import GTransformer

    return GTransformer(8, 2, 2, 16, 9, attention_type=kind), torch.randint(0, 9, (4, 16)), TOKENS


for kind in "default", "wide", "gpt2", "narrow", "relative":
    public("pbloem/former", f"GTransformer, {kind} attention")(lambda clone, kind=kind: former(kind))


@public("spro/char-rnn.pytorch", "CharRNN")
def _(clone):
    from model import CharRNN

    def steps(parts, x):  # as in train()
        hidden, outputs = parts.net.init_hidden(len(x)), []
        for step in range(x.shape[1]):
            output, hidden = parts.net(x[:, step], hidden)
            outputs.append(output)
        return torch.stack(outputs, 1)

    return Lines(steps, net=CharRNN(9, 8, 9, n_layers=2)), torch.randint(0, 9, (4, 16)), TOKENS


@public("CompVis/taming-transformers", "GPT of the transformer stage")
def _(clone):
    stub("transformers")
    from taming.modules.transformer.mingpt import GPT

    return GPT(9, 16, n_layer=2, n_head=2, n_embd=8), torch.randint(0, 9, (4, 16)), TOKENS


@public("Yuqifu03/VQGAN-on-GPT-and-pixelRNN", "GPTTokens")
def _(clone):
    path = "codes/FashionMNIST/vqgan_transformer.py"
    code = take(path, "exists", "default", "CausalSelfAttention", "TransformerBlock", "GPTTokens")
    return code.GPTTokens(9, 16, dim=8, n_layers=2, n_heads=2), torch.randint(0, 9, (4, 16)), TOKENS


LETTERS = torch.randint(0, 9, (4, 32), generator=torch.Generator().manual_seed(0))


@public("lucidrains/x-transformers", "TransformerWrapper, Decoder")
def _(clone):
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(dim=16, depth=2, heads=2, attn_dim_head=8, polar_pos_emb=True, pre_and_post_norm=True)
    return TransformerWrapper(num_tokens=9, max_seq_len=32, attn_layers=layers), LETTERS, TOKENS


@public("lucidrains/linear-attention-transformer", "LinearAttentionTransformerLM")
def _(clone):
    from linear_attention_transformer import LinearAttentionTransformerLM

    sizes = dict(num_tokens=9, dim=16, depth=2, max_seq_len=32, heads=2, dim_head=8, local_attn_window_size=8)
    model = LinearAttentionTransformerLM(
        **sizes, causal=True, blindspot_size=2, n_local_attn_heads=1, shift_tokens=True
    )
    return model, LETTERS, TOKENS


@public("lucidrains/sinkhorn-transformer", "SinkhornTransformerLM")
def _(clone):
    from sinkhorn_transformer import SinkhornTransformerLM

    sizes = dict(num_tokens=9, dim=16, depth=2, max_seq_len=32, heads=4, bucket_size=4, n_local_attn_heads=2)
    return SinkhornTransformerLM(**sizes, causal=True), LETTERS, TOKENS


@public("lucidrains/reformer-pytorch", "ReformerLM")
def _(clone):
    from reformer_pytorch import ReformerLM

    sizes = dict(num_tokens=9, dim=16, depth=2, max_seq_len=32, heads=2, bucket_size=4, n_hashes=4)
    model = ReformerLM(**sizes, causal=True, ff_chunks=2, lsh_dropout=0.1, weight_tie=True, n_local_attn_heads=1)
    return model, LETTERS, TOKENS


@public("lucidrains/routing-transformer", "RoutingTransformerLM")
def _(clone):
    from routing_transformer import RoutingTransformerLM

    sizes = dict(num_tokens=9, dim=16, depth=2, max_seq_len=32, heads=2, dim_head=8, window_size=8)
    model = RoutingTransformerLM(**sizes, causal=True, n_local_attn_heads=(2, 1))
    model(LETTERS)  # the first batch sets the means of the clusters
    return model, LETTERS, TOKENS
