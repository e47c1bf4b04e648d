"""Everything the PixelRNN lab notebook shares, in the order the data flows.

    data -> model -> training -> generation -> measurement -> pictures

A picture is an array (rows, columns, channels). It is flattened into a sequence (steps, input_size), one step a
row or a pixel, whose values lie in [0, 1]. A model sees a batch of sequences (batch, steps, input_size) and
predicts every step from the steps before it. What is predicted is compared with the same tensor, drawn from, or
turned back into a picture.

Source of the experiments: "PixelRNN, image generation with RNN (lab note 1: model architecture)", TeeTracker,
2022, called "the article" below.
"""

import contextlib
import copy
import csv
import io
import itertools
import json
import math
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import nn
from tqdm import tqdm

DATA = Path(__file__).parent / "data"

# A recurrent step waits for the one before it, and small steps share out badly: one thread is the fastest here.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


class LabError(ValueError):
    """Something the reader can mend: the message says what is wrong and what to do."""


def whole(name, value, minimum=1):
    """`value` if it is a whole number of at least `minimum`, else a LabError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise LabError(f"{name} must be a whole number of at least {minimum}, not {value!r}.")
    return int(value)


def choice(name, value, allowed):
    """`value` if it is one of `allowed`, else a LabError that lists them."""
    if value not in tuple(allowed):
        raise LabError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
    return value


# ======================================================================================================================
# Data: a picture becomes a sequence, and back again exactly
# ======================================================================================================================

# scikit-image carries these in its package, so that no download is needed.
BUNDLED = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")


def load_picture(source, size=None, gray=False):
    """A picture as uint8 (rows, columns, channels): 1 channel if `gray`, else 3 (red, green, blue).

    source: the name of a bundled picture (see BUNDLED), or the path of a PNG, JPEG, WebP or TIFF file. Transparent
        pixels are laid over white, 16-bit grey is scaled to 8 bits, a photograph is turned the way its camera was held.
    size: None keeps the picture's size; a whole number or (rows, columns) cuts the largest centred part of that shape
        and scales it with Pillow's Lanczos filter, which computes in integers: the same pixels on every machine.

    Raises LabError, which says what to do, for a file that is missing, damaged, animated, too large or not a picture.
    """
    if str(source) in BUNDLED:
        import skimage.data  # here, so that reading one's own file does not wait for scikit-image

        picture = Image.fromarray(getattr(skimage.data, str(source))())
    else:
        picture = _open(Path(os.path.expanduser(source)))
    picture = picture.convert("L" if gray else "RGB")
    if size is not None:
        rows, columns = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
        rows, columns = whole("size (rows)", rows), whole("size (columns)", columns)
        picture = ImageOps.fit(picture, (columns, rows), method=Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)  # grey: (rows, columns) -> (rows, columns, 1)


def _open(path):
    """The file's picture, whole in memory, upright, 8 bits a channel, without transparency."""
    if not path.is_file():
        raise LabError(
            f"There is no file {path}. Give the path of a picture, or one of the bundled names: {', '.join(BUNDLED)}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path)
            if getattr(picture, "n_frames", 1) > 1:
                raise LabError(f"{path} holds {picture.n_frames} frames. Save the one you want as a PNG of its own.")
            if picture.format not in FORMATS:
                raise LabError(f"{path} is a {picture.format} file. Save it as PNG, JPEG, WebP or TIFF.")
            picture.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LabError(f"{path} has too many pixels to open safely. Scale it down first. ({error})") from error
    except UnidentifiedImageError as error:
        raise LabError(f"{path} is not a picture that can be read. Save it as PNG, JPEG, WebP or TIFF.") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, LabError):
            raise
        raise LabError(f"{path} is damaged: {error}. Get a whole copy of the file.") from error
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey; 257 = 65535 / 255, so that black and white stay what they are
        values = np.asarray(picture)
        values = np.where(
            values == picture.info.get("transparency"), 65535, values
        )  # its one transparent value, if any
        picture = Image.fromarray(np.round(np.clip(values, 0, 65535) / 257).astype(np.uint8))
    elif picture.mode == "F":
        raise LabError(f"{path} holds floating-point values, whose black and white are unknown. Save it with 8 bits.")
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


def binarize(picture, threshold=128):
    """A picture of 0 and 1, uint8 of the same shape: 1 where a value is at least the threshold.

    threshold: a number, the same for every channel, or "otsu": for each channel the threshold that parts its values
        best (Otsu 1979, scikit-image).
    """
    picture = _checked_picture(picture)
    if threshold == "otsu":
        from skimage.filters import threshold_otsu

        # Otsu's threshold is the last value of the lower class, hence + 1.
        threshold = np.array([int(threshold_otsu(picture[..., channel])) + 1 for channel in range(picture.shape[-1])])
    elif not isinstance(threshold, int | float | np.number) or math.isnan(threshold):
        raise LabError(f"threshold must be a number or 'otsu', not {threshold!r}.")
    return (picture >= threshold).astype(np.uint8)


def flatten(picture, step="row"):
    """The picture as a sequence (steps, input_size), dtype kept.

    step: "row", the article's `reshape(image.shape[0], -1)`: (rows, columns * channels);
        "pixel": (rows * columns, channels).
    """
    picture = _checked_picture(picture)
    if choice("step", step, ("row", "pixel")) == "row":
        return picture.reshape(picture.shape[0], -1)  # (rows, columns, channels) -> (rows, columns * channels)
    return picture.reshape(-1, picture.shape[-1])  # (rows, columns, channels) -> (rows * columns, channels)


def unflatten(sequence, shape):
    """The picture (rows, columns, channels) that `flatten` turned into this sequence; `shape` is the picture's."""
    sequence = np.asarray(sequence)
    if sequence.size != math.prod(shape):
        raise LabError(f"A sequence of {sequence.size} values does not fill a picture of shape {tuple(shape)}.")
    return sequence.reshape(shape)  # (steps, input_size) -> (rows, columns, channels)


def to_bit_planes(sequence):
    """Bytes (steps, input_size), uint8, as the bits of their Gray code, (steps, input_size * 8), highest bit first.

    In Gray's code neighbouring numbers differ in one bit, so that a small step in grey does not flip all eight.
    """
    sequence = np.asarray(sequence)
    if sequence.dtype != np.uint8 or sequence.ndim != 2:
        raise LabError(f"Bit planes are made of bytes (steps, input_size), not of {sequence.dtype} {sequence.shape}.")
    gray = sequence ^ (sequence >> 1)
    return np.unpackbits(gray, axis=-1)  # (steps, input_size) -> (steps, input_size * 8)


def from_bit_planes(bits):
    """The inverse of `to_bit_planes`: bits (steps, input_size * 8) -> uint8 (steps, input_size)."""
    gray = np.packbits(np.asarray(bits, dtype=np.uint8), axis=-1)  # (steps, input_size * 8) -> (steps, input_size)
    for shift in (1, 2, 4):  # each bit is the parity of itself and all higher ones
        gray = gray ^ (gray >> shift)
    return gray


def to_batch(sequence, levels):
    """Whole numbers 0 .. levels - 1, (steps, input_size), as a batch of one in [0, 1]: float (1, steps, input_size)."""
    sequence = np.asarray(sequence)
    if sequence.ndim != 2 or sequence.size == 0:
        raise LabError(f"A sequence has the shape (steps, input_size), none of them 0; this one has {sequence.shape}.")
    if not np.isin(sequence, np.arange(whole("levels", levels, 2))).all():
        raise LabError(f"The sequence has values outside 0 .. {levels - 1}, or not whole. Binarise or round it first.")
    return torch.tensor(sequence, dtype=torch.float32)[None] / (levels - 1)


def to_levels(batch, levels):
    """The inverse of `to_batch`, for any batch: (batch, steps, input_size) in [0, 1] -> whole numbers, numpy."""
    return torch.round(batch.detach().cpu() * (whole("levels", levels, 2) - 1)).to(torch.int64).numpy()


def _checked_picture(picture):
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.size == 0:
        raise LabError(f"A picture has the shape (rows, columns, channels), none of them 0, not {picture.shape}.")
    if picture.shape[-1] not in (1, 3):
        raise LabError(f"A picture has 1 channel (grey) or 3 (colour), not {picture.shape[-1]}.")
    if not np.isfinite(picture).all():
        raise LabError("The picture has values that are not finite (NaN or infinite). Replace them first.")
    return picture


# ======================================================================================================================
# Model: the steps before predict the next
# ======================================================================================================================

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
READS = {"values": 1, "levels": 256}  # numbers that tell the recurrent layer one value of a step
PREDICTS = {"values": 1, "bits": 1, "levels": 256}  # numbers that the output layer gives for one value of a step
START = 0.5  # every value of the start token: half-way between black and white, a value that no bit has


class GenModel(nn.Module):
    """The article's model: a recurrent network over steps (rows or pixels), then one output layer.

    input_size: length of one step, e.g. columns * channels.
    hidden_size, num_layers, bidirectional: as in torch.nn.LSTM.
    cell: "lstm", "gru" or "rnn".
    norm: what stands between the recurrent and the output layer: None, "batch" (the article's optimisation; in
        training mode its statistics run over every step, later ones too) or "layer" (each step by itself).
    output: "seq2seq" (many-to-many) gives a prediction at every step; "seq2vec" (many-to-one) gives one at the last
        step, `y[:, -1, :]`, and is trained on windows of `window` steps.
    reads: how the recurrent layer is told a value: "values", a number from -1 to 1, or "levels", one-hot over 256
        levels (a value between two levels is shared between them).
    predicts: "values" in [0, 1] (mean squared error), "bits" (Bernoulli, logits) or "levels" (256-way categorical,
        logits).
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bidirectional=False,
        *,
        cell="lstm",
        norm=None,
        output="seq2seq",
        window=None,
        reads="values",
        predicts="bits",
    ):
        super().__init__()
        input_size, hidden_size = whole("input_size", input_size), whole("hidden_size", hidden_size)
        if choice("output", output, ("seq2seq", "seq2vec")) == "seq2vec":
            window = whole("window (of a seq2vec model)", window)
        elif window is not None:
            raise LabError("Only a seq2vec model has a window; a seq2seq model reads the whole sequence.")
        self.settings = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": whole("num_layers", num_layers),
            "bidirectional": choice("bidirectional", bidirectional, (False, True)),
            "cell": choice("cell", cell, CELLS),
            "norm": choice("norm", norm, (None, "batch", "layer")),
            "output": output,
            "window": window,
            "reads": choice("reads", reads, READS),
            "predicts": choice("predicts", predicts, PREDICTS),
        }
        self.input_size, self.output, self.window = input_size, output, window
        self.reads, self.predicts = reads, predicts
        features = hidden_size * (2 if bidirectional else 1)
        self.rnn = CELLS[cell](
            input_size * READS[reads], hidden_size, int(num_layers), batch_first=True, bidirectional=bidirectional
        )
        self.norm = {None: nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[norm](features)
        self.head = nn.Linear(features, input_size * PREDICTS[predicts])

    @property
    def streams(self):
        """Whether one more step can be predicted from the state the steps before it left."""
        return self.output == "seq2seq" and not self.rnn.bidirectional

    def forward(self, inputs):
        """Inputs (batch, steps, input_size) in [0, 1] -> outputs (batch, steps, ...), or (batch, ...) for seq2vec.

        "..." is input_size, and for "levels" (input_size, 256). The output at a step predicts the step after it.
        """
        y, _ = self.rnn(self.read_in(inputs))  # (batch, steps, features)
        if self.output == "seq2vec":
            y = y[:, -1, :]  # (batch, features): the only difference between the two
        return self.read_out(y)

    def step(self, inputs, state=None):
        """Like forward, from the state of the steps before (None: no steps): outputs of the last step, new state."""
        y, state = self.rnn(self.read_in(inputs), state)
        return self.read_out(y[:, -1, :]), state

    def read_in(self, inputs):
        """Inputs (..., input_size) -> what the recurrent layer reads; "levels": (..., input_size * 256)."""
        if self.reads == "values":
            return 2 * inputs - 1
        levels = torch.arange(256, device=inputs.device)
        one_hot = F.relu(1 - (255 * inputs[..., None] - levels).abs())  # (..., input_size, 256)
        return one_hot.flatten(-2)  # (..., input_size, 256) -> (..., input_size * 256)

    def read_out(self, y):
        """Recurrent outputs (..., features) -> outputs (..., input_size), for "levels" (..., input_size, 256)."""
        flat = y.reshape(-1, y.shape[-1])  # (..., features) -> (all, features): batch norm wants two axes
        if self.training and len(flat) == 1 and self.settings["norm"] == "batch":
            raise LabError("Batch norm needs more than one step to train on. Use layer norm, or a larger picture.")
        outputs = self.head(self.norm(flat)).reshape(*y.shape[:-1], self.input_size, -1)  # (..., input_size, 1 or 256)
        return outputs if self.predicts == "levels" else outputs.squeeze(-1)

    def teacher_forced(self, sequences):
        """Outputs for every step, each from the true steps before it: (batch, steps, ...)."""
        _check_sequences(self, sequences)
        batch, steps, _ = sequences.shape
        if self.output == "seq2seq":
            return self(_with_start(sequences[:, :-1]))
        if self.window > steps:
            raise LabError(
                f"A window of {self.window} steps is longer than the picture's {steps}. Choose a shorter one."
            )
        padded = _with_start(sequences[:, :-1], self.window)  # (batch, window + steps - 1, input_size)
        windows = padded.unfold(1, self.window, 1).transpose(2, 3)  # (batch, steps, window, input_size)
        return self(windows.flatten(0, 1)).unflatten(0, (batch, steps))  # (batch * steps, ...) -> (batch, steps, ...)

    def loss(self, sequences, told=None):
        """Mean loss per value, teacher-forced: squared error for "values", else negative log-likelihood in nats.

        told: the steps that stand before each prediction, where they are not the true ones (None: they are).
        """
        outputs = self.teacher_forced(sequences if told is None else told)
        if self.predicts == "values":
            return F.mse_loss(outputs, sequences)
        if self.predicts == "bits":
            return F.binary_cross_entropy_with_logits(outputs, sequences)
        return F.cross_entropy(outputs.flatten(0, -2), torch.round(sequences * 255).long().flatten())

    def decode(self, outputs):
        """The most probable values in [0, 1], (..., input_size); "values" are what they are, clipped."""
        if self.predicts == "values":
            return outputs.clamp(0, 1)
        if self.predicts == "bits":
            return (outputs > 0).float()
        return outputs.argmax(-1) / 255


def _with_start(sequences, tokens=1):
    """Sequences (batch, steps, input_size) with `tokens` start tokens before their first step."""
    return F.pad(sequences, (0, 0, tokens, 0), value=START)


def _check_sequences(model, sequences):
    """A clear error now rather than a puzzling one, or a silent NaN, later."""
    if sequences.ndim != 3 or 0 in sequences.shape or sequences.shape[-1] != model.input_size:
        shape = tuple(sequences.shape)
        raise LabError(f"The model reads (batch, steps, {model.input_size}), none of them 0; it was given {shape}.")
    low, high = torch.aminmax(sequences.detach())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise LabError("The sequence has values outside [0, 1], or NaN. `to_batch` scales a picture's values.")


def save_model(model, path):
    """The weights as safetensors, with the model's settings in the same file. Written whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    try:
        safetensors.torch.save_file(weights, unfinished, metadata={"settings": json.dumps(model.settings)})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_model(path):
    """The model that `save_model` wrote, in evaluation mode. Raises LabError for a missing or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise LabError(f"There is no weights file {path}. Train a model and write it with save_model.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = GenModel(**settings)
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"{path} is damaged or is not one of GenModel's: {reason}. Train and save it again.") from error
    return model.eval()


# ======================================================================================================================
# Training: one loop for every model
# ======================================================================================================================


@dataclass
class History:
    """What a training run leaves: the loss before each update, seconds of training after it, what the probe saw."""

    loss: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    probes: list = field(default_factory=list)  # one dict a probe, with the "step" it was taken at
    interrupted: bool = False

    def probed(self, name):
        """Steps and values of one measurement of the probe, as two arrays."""
        return np.array([probe["step"] for probe in self.probes]), np.array([probe[name] for probe in self.probes])


class TrainingError(LabError):
    """Training stopped by itself; `history` holds all that was measured, the model its last weights."""

    def __init__(self, message, history):
        super().__init__(message)
        self.history = history


def train(model, sequences, *, steps, learning_rate=0.01, clip=1.0, noise=0.0, probe=None, probe_at=()):
    """Minimise `model.loss(sequences)` with Adam for `steps` updates, the gradient's norm clipped to `clip`.

    The learning rate falls to 0 along half a cosine, so that the last weights have settled.

    It knows nothing of the model but `loss`. Set the seed before the model is built: torch.manual_seed.
    noise: the probability with which each value that the model is told, not those it must predict, is turned into its
        opposite, 1 - value, anew at each step.
    probe: called as probe(model) after each number of updates in `probe_at`; returns a dict of measurements. Its time
        is not counted.
    An interrupt (Ctrl-C, or the stop button) returns what was trained so far, with `history.interrupted` set.
    Raises TrainingError, before the update, when the loss or its gradient is not finite.
    """
    whole("steps", steps)
    if not isinstance(learning_rate, int | float) or not 0 < learning_rate < math.inf:
        raise LabError(f"learning_rate must be a number above 0, not {learning_rate!r}.")
    if not 0 <= noise <= 1:
        raise LabError(f"noise is a probability, from 0 to 1, not {noise!r}.")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history, seconds, probe_at = History(), 0.0, set(probe_at)

    def look(step):
        if probe is not None and step in probe_at:
            history.probes.append({"step": step, **probe(model)})

    try:
        look(0)
        with progress(range(steps), "training") as bar:
            for step in bar:
                started = time.perf_counter()
                model.train()
                optimizer.zero_grad()
                if noise:
                    told = torch.where(torch.rand_like(sequences) < noise, 1 - sequences, sequences)
                    loss = model.loss(sequences, told)
                else:
                    loss = model.loss(sequences)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
                # Coming back through a thousand steps a gradient can be so long that only its norm overflows. Clipping
                # has then made it 0, which does no harm; a gradient that is not finite itself, it has made NaN.
                usable = math.isfinite(norm) or all(w.grad.isfinite().all() for w in model.parameters())
                if not (math.isfinite(loss.item()) and usable):
                    message = f"At step {step} the loss is {loss.item()} and its gradient's norm {norm.item()}."
                    raise TrainingError(f"{message} Lower the learning rate (now {learning_rate}).", history)
                optimizer.step()
                schedule.step()
                seconds += time.perf_counter() - started
                history.loss.append(loss.item())
                history.seconds.append(seconds)
                look(step + 1)
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        model.eval()
    return history


@torch.no_grad()
def fit_readout(model, sequences):
    """Set the output layer of a model that predicts bits by one least-squares solve, and train nothing.

    The outputs asked for are 1 where a bit is 1 and -1 where it is 0, for each step told the true steps before it.
    Solved with all digits of double precision; among equally good solutions, the smallest.
    Returns the rank of the states (steps, features + 1) that it was solved from; with rank = steps it is exact.
    """
    states = []
    hook = model.head.register_forward_hook(lambda head, inputs, outputs: states.append(inputs[0]))
    model.eval().teacher_forced(sequences)
    hook.remove()
    states = F.pad(states[0].double(), (0, 1), value=1)  # (steps, features + 1): the last is the bias's
    wanted = 2 * sequences.flatten(0, 1).double() - 1  # (batch, steps, input_size) -> (batch * steps, input_size)
    solved = torch.linalg.lstsq(states, wanted, driver="gelsd")
    model.head.weight.copy_(solved.solution[:-1].T)
    model.head.bias.copy_(solved.solution[-1])
    return int(solved.rank)


def progress(iterable, label):
    """A progress bar for a person who is watching, and nothing in outputs that are stored."""
    return tqdm(iterable, desc=label, leave=False, file=sys.stderr, disable=not someone_watches())


def someone_watches():
    """True in a live notebook session and in a terminal; False under nbconvert, papermill, nbval and pytest."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return sys.stderr.isatty()
    # A front end with a person before it says that it can answer questions; the runners say that they cannot.
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))


# ======================================================================================================================
# Generation: nothing of the picture but the start token
# ======================================================================================================================


@contextlib.contextmanager
def _plain_recurrence():
    """Without oneDNN's fused recurrence: it rearranges all weights at every call, which for a single step is most of
    the work (2 to 5 times as long for one sequence)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32", UserWarning)  # the flag's setter speaks of hardware not in use
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@torch.no_grad()
def generate(model, steps, given=None, *, batch=1, levels=None, cached=True):
    """Free running: every step predicted from the steps generated before it, the first from the start token alone.

    given: steps to continue from, (batch, some steps, input_size), kept as they are; None starts from nothing.
    batch: how many sequences, where none is given.
    levels: each value is rounded to this many levels before it is fed back; None feeds back what is predicted.
    cached: keep the recurrent state, so that a step costs the same however many came before (a bidirectional or
        seq2vec model cannot, and reads its past again); False reads the past again for every model.

    Returns the sequences (batch, steps, input_size) and the outputs of the generated steps, (batch, steps - given,
    ...), both without gradient. The model is put in evaluation mode.
    """
    whole("steps", steps)
    if levels is not None:
        whole("levels", levels, 2)
    weight = model.head.weight
    sequences = torch.full((whole("batch", batch), 0, model.input_size), START, device=weight.device)
    if given is not None:
        _check_sequences(model, given)
        sequences = given.to(weight.device)
    if sequences.shape[1] >= steps:
        raise LabError(f"{sequences.shape[1]} steps are given and only {steps} wanted in all; nothing to generate.")
    model.eval()
    past, state, generated, outputs = _with_start(sequences, model.window or 1), None, [], []
    stream = cached and model.streams
    with _plain_recurrence() if stream else contextlib.nullcontext():
        for _ in range(steps - sequences.shape[1]):
            if stream:
                output, state = model.step(past, state)
                past = past[:, :0]  # the state holds it now
            elif model.output == "seq2vec":
                output = model(past[:, -model.window :])
            else:
                output = model(past)[:, -1]
            values = model.decode(output)
            if levels is not None:
                values = torch.round(values * (levels - 1)) / (levels - 1)
            past = torch.cat([past, values[:, None]], dim=1)  # (batch, input_size) -> (batch, 1, input_size)
            generated.append(values)
            outputs.append(output)
    return torch.cat([sequences, torch.stack(generated, 1)], 1), torch.stack(outputs, 1)


# ======================================================================================================================
# Measurement
# ======================================================================================================================


def fraction_exact(sequences, target, levels=256):
    """Fraction of values that are equal once both are rounded to `levels` levels (1.0: restored bit for bit)."""
    return float((to_levels(sequences, levels) == to_levels(target, levels)).mean())


def sampling_loss(logits, target):
    """The three things "loss 0.1160" can mean, for predicted bits and the true ones, all means over values.

    logits, target: (batch, steps, input_size), either teacher-forced or free running outputs, and the true bits.
    Returns "bce" (mean binary cross-entropy, nats per value), "wrong" (fraction of wrong bits) and "mse" (squared
    difference of probability and bit).
    """
    return {
        "bce": F.binary_cross_entropy_with_logits(logits, target).item(),
        "wrong": ((logits > 0) != (target > 0.5)).float().mean().item(),
        "mse": F.mse_loss(torch.sigmoid(logits), target).item(),
    }


def receptive_field(model, sequences, position):
    """How strongly the prediction at `position` depends on each step of the sequence: (steps,), numpy.

    The sum over values of |d (sum of outputs at `position`) / d step|, teacher-forced, in the mode the model is in
    (training or evaluation; its running statistics are left alone). Exactly 0 where there is no path.
    """
    model = copy.deepcopy(model)
    sequences = sequences.detach().clone()
    if model.reads == "levels":  # one-hot has no slope at a whole level, so look half-way to the next
        sequences = (sequences * 254 + 0.5) / 255
    sequences.requires_grad_()
    output = model.teacher_forced(sequences)[:, position].sum()
    (gradient,) = torch.autograd.grad(output, sequences)
    return gradient.abs().sum(dim=(0, 2)).numpy()  # (batch, steps, input_size) -> (steps,)


def leaks(model, sequences):
    """Whether any prediction depends on its own step or a later one, by gradient, in the mode the model is in."""
    return any(receptive_field(model, sequences, t)[t:].any() for t in range(sequences.shape[1]))


def first_below(steps, values, threshold):
    """The first of `steps` whose value is below the threshold, or None."""
    below = np.asarray(values) < threshold
    return int(np.asarray(steps)[below.argmax()]) if below.any() else None


class Claims:
    """The table of a notebook: for each claim what was measured, with its unit, and the verdict it bears.

    asserted: False on pictures or settings that are not the note's own; a verdict that does not hold is then said
        rather than raised.
    """

    def __init__(self, asserted=True):
        self.asserted, self.rows, self._since = asserted, [], time.perf_counter()

    def check(self, claim, holds, measured, unit, verdict, figure=None):
        """Record and print a claim; AssertionError if the verdict does not hold.

        measured: coarse enough to be the same on every machine, since it is compared. `figure` is the exact number (or
            numbers) of this run: kept in the notebook beside the table, and printed by `make notebooks`.
        """
        if not holds:
            if self.asserted:
                raise AssertionError(f"{claim}: expected {measured} {unit} ({verdict}), but measured {figure}")
            measured, unit, verdict = "otherwise", "see this run's figures", "not on this picture"
        now = time.perf_counter()
        if figure is not None:
            figure = [round(float(value), 6) if np.isfinite(value) else None for value in np.ravel(figure)]
        row = {"claim": claim, "measured": measured, "unit": unit, "verdict": verdict}
        self.rows.append({**row, "figure": figure, "seconds": round(now - self._since, 1)})
        self._since = now
        print(f"{claim}: {measured} {unit} -> {verdict}")

    def table(self):
        """Display the table; the exact figures go into the output's metadata, which nbval does not compare."""
        from IPython.display import display

        lines = ["| claim | measured | unit | verdict |", "|---|---|---|---|"]
        lines += ["| {claim} | {measured} | {unit} | {verdict} |".format(**row) for row in self.rows]
        text = "\n".join(lines)
        display({"text/markdown": text, "text/plain": text}, raw=True, metadata={"claims": self.rows})


def save_curves(path, settings, curves):
    """Loss curves of several seeds as CSV: a comment with the settings, then curve, step and a column for each seed.

    curves: name -> {seed: losses}, all of one length.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {json.dumps(settings)}\n")
        writer = csv.writer(file)
        seeds = list(next(iter(curves.values())))
        writer.writerow(["curve", "step", *(f"seed {seed}" for seed in seeds)])
        for name, losses in curves.items():
            for step, values in enumerate(zip(*(losses[seed] for seed in seeds), strict=True)):
                writer.writerow([name, step, *(f"{value:.4g}" for value in values)])


def load_curves(path, settings):
    """The reference curves, name -> (seeds, steps), or an empty dict (which says why) where they do not apply."""
    path = Path(path)
    if not path.is_file():
        print(f"Not compared with reference curves: there is no file {path.name}. `make reference` draws them.")
        return {}
    with path.open() as file:
        stored = json.loads(file.readline().removeprefix("# "))
        rows = list(csv.reader(file))[1:]
    settings = json.loads(json.dumps(settings))  # as they come back from a file: a tuple as a list
    if stored != settings:
        changed = ", ".join(
            f"{key} is {settings.get(key)!r}, not {stored.get(key)!r}"
            for key in {**stored, **settings}
            if settings.get(key) != stored.get(key)
        )
        print(f"Not compared with the reference curves: {changed}.")
        return {}
    names = dict.fromkeys(row[0] for row in rows)  # in the order of the file
    return {name: np.array([row[2:] for row in rows if row[0] == name], dtype=float).T for name in names}


def fraction_on_pace(losses, reference, factor=2.0):
    """How far a loss curve keeps pace with the reference seeds: the fraction of ten loss levels reached in time.

    The levels are spaced evenly in log from the first reference loss to twice the worst seed's best one. In time is no
    sooner than the earliest seed's step / factor and no later than the latest's * factor. Pace rather than height,
    because a loss that falls a thousandfold within some steps is far off at every one of them if it starts to fall a
    little later.

    losses: (steps,); reference: (seeds, steps).
    """
    levels = np.geomspace(np.median(reference[:, 0]), 2 * reference.min(1).max(), 11)[1:]
    in_time = 0
    for level in levels:
        arrivals = [first_below(range(reference.shape[1]), seed, level) for seed in reference]
        own = first_below(range(len(losses)), losses, level)
        in_time += own is not None and min(arrivals) / factor <= own <= max(arrivals) * factor
    return in_time / len(levels)


# ======================================================================================================================
# Pictures
# ======================================================================================================================

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "image.cmap": "cividis"})
plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False})


def as_picture(batch, shape):
    """The first sequence of a batch in [0, 1] as a picture to look at: uint8 of `shape` (rows, columns, channels)."""
    return unflatten(to_levels(batch[:1], 256)[0], shape).astype(np.uint8)


def show_pictures(pictures, title="", columns=None):
    """A grid of pictures, name -> uint8 (rows, columns, 1 or 3) or (rows, columns), each under its name."""
    columns = columns or len(pictures)
    rows = math.ceil(len(pictures) / columns)
    size = (2.1 * columns, 2.35 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(pictures) :]:
        ax.axis("off")
    for ax, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="lightgrey")  # an all-white picture is seen to be there
        picture = picture[..., 0] if picture.shape[2:] == (1,) else picture  # grey: (rows, columns, 1) -> two axes
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def difference(picture, original):
    """Where two pictures differ: uint8, white where they are equal, the darker the larger the difference."""
    return (255 - np.abs(picture.astype(int) - original.astype(int)).max(-1, keepdims=True)).astype(np.uint8)


def plot_losses(ax, curves, reference=None, x=None):
    """Loss curves, name -> one losses array or a list of them, over the reference bands of the same names.

    x: name -> what the horizontal axis shows for each of the losses (default: steps).
    """
    for color, (name, losses) in zip(itertools.cycle(COLORS), curves.items(), strict=False):
        if reference and name in reference:
            band = reference[name]
            label = f"{name}: reference, {len(band)} seeds"
            ax.fill_between(np.arange(band.shape[1]), band.min(0), band.max(0), color=color, alpha=0.2, label=label)
        for number, one in enumerate(np.atleast_2d(losses)):
            across = np.arange(len(one)) if x is None else np.atleast_2d(x[name])[number]
            _ = ax.plot(across, one, color=color, linewidth=1, label=name if number == 0 else None)
    ax.set(yscale="log", xlabel="training step")
    ax.legend(fontsize=8)


def frames(batch, shape, count):
    """The first sequence of a batch while it is generated: steps done -> picture, uint8 RGB, what is to come in blue.

    `count` pictures evenly spaced from none done to all, or as many as there are different ones.
    """
    picture = np.broadcast_to(as_picture(batch, shape), (*shape[:2], 3))
    steps = batch.shape[1]
    to_come = np.arange(picture[..., 0].size).reshape(shape[:2]) * steps // picture[..., 0].size  # step of each pixel
    times = np.linspace(0, steps, count).round().astype(int)
    return {int(t): np.where((to_come < t)[..., None], picture, np.uint8([86, 180, 233])) for t in times}


def filmstrip(batch, shape, count=6, title="", unit="steps"):
    """A row of pictures of one being generated, from the start token to its last step."""
    return show_pictures({f"{t} {unit}": frame for t, frame in frames(batch, shape, count).items()}, title)


def animated_png(batch, shape, count=32, scale=4, seconds=3.0):
    """The same as an animated PNG (bytes): `count` frames in `seconds`, then the finished picture for a second."""
    images = [Image.fromarray(frame) for frame in frames(batch, shape, count).values()]
    images = [i.resize((i.width * scale, i.height * scale), Image.Resampling.NEAREST) for i in images]
    durations = [int(1000 * seconds / len(images))] * (len(images) - 1) + [1000]
    file = io.BytesIO()
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return file.getvalue()
