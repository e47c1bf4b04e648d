"""Everything the PixelRNN lab notebook shares, in the order the data flows.

    data -> model -> training -> sampling -> measurement -> pictures

A picture is an array (rows, columns, channels). It is flattened into a sequence (steps, input_size), one step a
row or a pixel, whose values lie in [0, 1]. A model sees a batch of sequences (batch, steps, input_size) and
predicts every step from the steps before it. What is predicted is compared with the same tensor, sampled from, or
turned back into a picture. pixelrnn/models holds the models that later notes add; what is done with them is done here.

Source of the experiments: "PixelRNN, image generation with RNN (lab note 1: model architecture)", TeeTracker,
2022, called "the article" below.
"""

import contextlib
import copy
import io
import math
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from causality import causality
from support import checkpoints, devices
from support.checks import LabError, _check_sequences, _checked_picture, _numbers, check_tensor, choice, number, whole
from support.display import show_figure
from support.joint_head import JointHead
from support.optimizers import make_optimizers
from support.photographs import open_picture
from support.plot_style import as_it_stands

# scikit-image imports pooch, and pooch a progress bar that asks, in a notebook, for widgets which nothing here uses.
warnings.filterwarnings("ignore", message="IProgress not found")


# ======================================================================================================================
# Data: a picture becomes a sequence, and back again exactly
# ======================================================================================================================


def load_picture(source, size=None, gray=False):
    """A picture as uint8 (rows, columns, channels): 1 channel if `gray`, else 3 (red, green, blue).

    source: the name of a bundled picture (photographs.BUNDLED), or the path of a PNG, JPEG (also a phone's MPO: its
        first picture), WebP, TIFF, AVIF, BMP or GIF file with one picture. Transparent pixels are laid over white,
        16-bit values are scaled to 8 bits, a photograph is turned the way its camera was held.
    size: None keeps the picture's size; a whole number or (rows, columns) cuts the largest centred part of that shape
        and scales it with Pillow's Lanczos filter, which computes in integers: the same pixels on every machine.

    Raises LabError, which says what to do, for a file that is missing, unreadable, damaged, animated, too large, not a
    picture, or of values whose black and white are unknown (signed, 32-bit or floating-point).
    """
    picture = open_picture(source).convert("L" if gray else "RGB")
    if size is not None:
        try:
            rows, columns = size
        except (TypeError, ValueError):  # not two
            rows = columns = size
        rows, columns = whole("size (rows)", rows), whole("size (columns)", columns)
        if rows * columns > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise LabError(f"size asks for {rows} x {columns} pixels, too many to make safely. Choose a smaller one.")
        picture = ImageOps.fit(picture, (columns, rows), method=Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)  # grey: (rows, columns) -> (rows, columns, 1)


def binarize(picture, threshold=128):
    """A picture of 0 and 1, uint8 of the same shape: 1 where a value is at least the threshold.

    picture: whole numbers 0 .. 255 (rows, columns, channels).
    threshold: a number, above 0 and up to 255, the same for every channel; or "otsu": for each channel the threshold
        that parts its values best (Otsu 1979, scikit-image).
    """
    picture = _checked_picture(picture)
    if picture.dtype.kind not in "ui" or picture.min() < 0 or picture.max() > 255:
        raise LabError(
            f"binarize takes whole numbers 0 .. 255, not {picture.dtype} from {picture.min()} to {picture.max()}. "
            "Convert the picture first, from [0, 1] for instance with np.round(255 * picture).astype(np.uint8)."
        )
    picture = picture.astype(np.uint8)
    if isinstance(threshold, str) and threshold == "otsu":
        from skimage.filters import threshold_otsu

        # Otsu's threshold is the last value of the lower class, hence + 1.
        threshold = np.array([int(threshold_otsu(picture[..., channel])) + 1 for channel in range(picture.shape[-1])])
    elif (
        isinstance(threshold, bool)
        or not isinstance(threshold, int | float | np.integer | np.floating)
        or not 0 < threshold <= 255  # not NaN either
    ):
        raise LabError(f"threshold must be a number above 0 and up to 255, or 'otsu', not {threshold!r}.")
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
    sequence = _numbers("A sequence", sequence)
    shape = tuple(whole("Each length in a picture's shape", length) for length in np.ravel(shape))
    if sequence.size != math.prod(shape):
        raise LabError(f"A sequence of {sequence.size} values does not fill a picture of shape {shape}.")
    return sequence.reshape(shape)  # (steps, input_size) -> (rows, columns, channels)


def to_bit_planes(sequence):
    """Bytes (steps, input_size), uint8, as the bits of their Gray code, (steps, input_size * 8), highest bit first.

    In Gray's code neighbouring numbers differ in one bit, so that a small step in grey does not flip all eight.
    """
    sequence = _numbers("A sequence", sequence)
    if sequence.dtype != np.uint8 or sequence.ndim != 2:
        raise LabError(f"Bit planes are made of bytes (steps, input_size), not of {sequence.dtype} {sequence.shape}.")
    gray = sequence ^ (sequence >> 1)
    return np.unpackbits(gray, axis=-1)  # (steps, input_size) -> (steps, input_size * 8)


def from_bit_planes(bits):
    """The inverse of `to_bit_planes`: bits (steps, input_size * 8) -> uint8 (steps, input_size)."""
    bits = _numbers("Bits", bits)
    if bits.ndim != 2 or bits.shape[-1] % 8 or not np.isin(bits, (0, 1)).all():
        raise LabError(f"Bit planes are 0 and 1, (steps, input_size * 8), not {bits.dtype} {bits.shape}.")
    gray = np.packbits(bits.astype(np.uint8), axis=-1)  # (steps, input_size * 8) -> (steps, input_size)
    for shift in (1, 2, 4):  # each bit is the parity of itself and all higher ones
        gray = gray ^ (gray >> shift)
    return gray


def to_batch(sequence, levels):
    """Whole numbers 0 .. levels - 1, (steps, input_size), as a batch of one in [0, 1]: (1, steps, input_size).

    Its dtype is torch's default, float32 unless it was set otherwise.
    """
    sequence, levels = _numbers("A sequence", sequence), whole("levels", levels, 2)
    if sequence.ndim != 2 or sequence.size == 0:
        raise LabError(f"A sequence has the shape (steps, input_size), none of them 0; this one has {sequence.shape}.")
    if not (sequence.min() >= 0 and sequence.max() < levels and (sequence == np.floor(sequence)).all()):
        raise LabError(f"The sequence has values outside 0 .. {levels - 1}, or not whole. Binarise or round it first.")
    numbers = np.ascontiguousarray(sequence, np.int64)  # torch takes no flipped array and no foreign byte order
    return torch.tensor(numbers, dtype=torch.get_default_dtype())[None] / (levels - 1)


def to_levels(batch, levels):
    """The inverse of `to_batch`, for any batch: (batch, steps, input_size) in [0, 1] -> whole numbers, numpy."""
    check_tensor(batch)
    return torch.round(batch.detach().cpu() * (whole("levels", levels, 2) - 1)).to(torch.int64).numpy()


# ======================================================================================================================
# Model: the steps before predict the next
# ======================================================================================================================

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
ENCODINGS = ("values", "one-hot")
DISTRIBUTIONS = ("regression", "bernoulli", "categorical")
START = 0.5  # every value of the start token: half-way between black and white, a value that no bit has


class SequenceModel(nn.Module):
    """What every model of this series is asked for: it gives `teacher_forced` outputs, and this turns them into a loss
    or into values. It has its `encoding` and `distribution`, its `levels` and `input_size`, whether the values
    of a step are predicted from each other (`joint`), and whether it is `causal`: no prediction depends on its own
    value or a later one. For sampling it has `step` and `sample_step`, and says whether it `streams` and how many
    steps its `window` has (or None).
    """

    causal = True

    def losses(self, sequences, context=None):
        """Loss of each value, teacher-forced, (batch, steps, input_size): squared error for regression, else negative
        log-likelihood in nats.

        context: what each prediction is conditioned on, where it is not the true sequences (None: it is).
        """
        outputs = _at_least_float32(self.teacher_forced(sequences if context is None else context))
        sequences = sequences.to(outputs)
        if self.distribution == "regression":
            return F.mse_loss(outputs, sequences, reduction="none")
        if self.distribution == "bernoulli":
            return F.binary_cross_entropy_with_logits(outputs, sequences, reduction="none")
        levels = torch.round(sequences * (self.levels - 1)).long()
        return F.cross_entropy(outputs.movedim(-1, 1), levels, reduction="none")  # cross_entropy's levels are axis 1

    def loss(self, sequences, context=None):
        """Mean of `losses` over all values."""
        return self.losses(sequences, context).mean()

    def decode(self, outputs, temperature=0.0, chance=None):
        """Values in [0, 1], (..., input_size): the most probable at temperature 0, else sampled from softmax(logits /
        temperature), where `chance` (..., input_size), uniform in [0, 1), decides. Regression is what it is, clipped.
        """
        outputs = _at_least_float32(outputs)
        if self.distribution == "regression":
            return outputs.clamp(0, 1)
        if self.distribution == "bernoulli":
            return (outputs > 0 if temperature == 0 else chance < torch.sigmoid(outputs / temperature)).to(outputs)
        if temperature == 0:
            return outputs.argmax(-1).to(outputs) / (self.levels - 1)
        logits = (outputs - outputs.amax(-1, keepdim=True)) / max(temperature, 1e-30)  # at most 0, however low it is
        below = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # P(level <= 0), P(level <= 1), ...
        return (below <= chance[..., None]).sum(-1).to(outputs) / (self.levels - 1)

    def one_by_one(self, output_at, y, temperature):
        """A step sampled value by value, (batch, input_size), and its outputs, by a model that has `read_in`.

        output_at(place, left) gives the outputs of one value, (batch, levels or 1), from those to its left, (batch,
        place * per_input). y (batch, features) only says how many, of what type and where.
        """
        chance = torch.rand(len(y), self.input_size, device=y.device) if temperature else None
        left, values, outputs = y[:, :0], [], []
        for place in range(self.input_size):
            output = output_at(place, left)
            outputs.append(output if self.distribution == "categorical" else output.squeeze(-1))
            values.append(self.decode(outputs[-1], temperature, None if chance is None else chance[:, place]))
            left = torch.cat([left, self.read_in(values[-1][:, None])], 1)  # (batch, (place + 1) * per_input)
        return torch.stack(values, 1), torch.stack(outputs, 1)


@dataclass(frozen=True)
class Settings:
    """What a GenModel is made of; a setting that cannot do raises a LabError that names it.

    input_size: length of one step, e.g. columns * channels.
    hidden_size, num_layers, bidirectional: as in torch.nn.LSTM.
    cell: the recurrent layer, "lstm", "gru" or "rnn".
    norm: what stands between the recurrent layer and the head: None, "batch" (the article's optimisation; in training
        mode its statistics run over every step, later ones too) or "layer" (each step by itself).
    dropout: the probability with which each feature is left out before the head, in training mode only.
    output: "seq2seq" (many-to-many) gives a prediction at every step; "seq2vec" (many-to-one) gives one at the last
        step, `y[:, -1, :]`, and is trained on windows of `window` steps.
    head: "independent" (the article's linear layer) predicts all values of a step at once from the steps before;
        "joint" predicts each from the steps before and the values to its left, see joint_head.JointHead.
    encoding: how a value enters the network: "values", a number from -1 to 1, or "one-hot" over the levels (a value
        between two levels is shared between them).
    distribution: what is predicted of a value: "regression" (a number in [0, 1], mean squared error), "bernoulli" (the
        logit of a bit) or "categorical" (a logit for each level).
    levels: how many levels a value has where it is one-hot or categorical.
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    cell: str = "lstm"
    norm: str | None = None
    dropout: float = 0.0
    output: str = "seq2seq"
    window: int | None = None
    head: str = "independent"
    encoding: str = "values"
    distribution: str = "bernoulli"
    levels: int = 256

    CHOICES: ClassVar = {
        "bidirectional": (False, True),
        "cell": CELLS,
        "norm": (None, "batch", "layer"),
        "output": ("seq2seq", "seq2vec"),
        "head": ("independent", "joint"),
        "encoding": ENCODINGS,
        "distribution": DISTRIBUTIONS,
    }

    def __post_init__(self):
        checked = {name: whole(name, getattr(self, name)) for name in ("input_size", "hidden_size", "num_layers")}
        checked |= {name: choice(name, getattr(self, name), allowed) for name, allowed in self.CHOICES.items()}
        checked |= {"bidirectional": bool(self.bidirectional), "levels": whole("levels", self.levels, 2)}
        checked["dropout"] = number(
            "dropout", self.dropout, most=math.nextafter(1, 0)
        )  # all left out: nothing to learn
        if self.output == "seq2vec":
            checked["window"] = whole("window (of a seq2vec model)", self.window)
        elif self.window is not None:
            raise LabError("Only a seq2vec model has a window; a seq2seq model reads the whole sequence.")
        if self.head == "joint" and self.distribution == "regression":
            raise LabError('A joint head gives probabilities: its distribution is "bernoulli" or "categorical".')
        self.__dict__.update(checked)  # Python's own numbers, where numpy's were given


class GenModel(SequenceModel):
    """The article's model: a recurrent network over steps (rows or pixels), then a head that predicts the next step.

    Its arguments are those of Settings; all but the article's four are given by name.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, bidirectional=False, **others):
        super().__init__()
        s = Settings(input_size, hidden_size, num_layers, bidirectional, **others)
        self.settings = asdict(s)
        self.input_size, self.window, self.levels, self.joint = s.input_size, s.window, s.levels, s.head == "joint"
        self.encoding, self.distribution = s.encoding, s.distribution
        per_input = s.levels if s.encoding == "one-hot" else 1  # numbers that enter the network for one value
        per_output = s.levels if s.distribution == "categorical" else 1  # numbers that the head gives for one value
        features = s.hidden_size * (2 if s.bidirectional else 1)
        self.rnn = CELLS[s.cell](
            s.input_size * per_input, s.hidden_size, s.num_layers, batch_first=True, bidirectional=s.bidirectional
        )
        self.norm = {None: nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[s.norm](features)
        self.dropout = nn.Dropout(s.dropout)
        self.head = (
            JointHead(features, s.input_size, per_input, per_output)
            if self.joint
            else nn.Linear(features, s.input_size * per_output)
        )

    @property
    def streams(self):
        """Whether one more step can be predicted from the state the steps before it left."""
        return self.settings["output"] == "seq2seq" and not self.rnn.bidirectional

    @property
    def causal(self):
        """Whether no prediction depends on itself or what comes after it, in evaluation mode."""
        return self.settings["output"] == "seq2vec" or not self.rnn.bidirectional

    def forward(self, inputs, targets=None):
        """Inputs (batch, steps, input_size) in [0, 1] -> outputs (batch, steps, ...), or (batch, ...) for seq2vec.

        "..." is input_size, categorical: (input_size, levels). The output at a step predicts the step after it.
        targets: for a joint head the true steps that are predicted, (batch, steps, input_size) or (batch, input_size)
            for seq2vec, of which each value is shown to those on its right.
        """
        return self.read_out(self.features(inputs), targets)

    def features(self, inputs):
        """Inputs (batch, steps, input_size) -> what the head predicts from, (batch, steps or none, features)."""
        y, _ = self.rnn(self.read_in(inputs))  # (batch, steps, features)
        if self.settings["output"] == "seq2vec":
            y = y[:, -1, :]  # (batch, features): the only difference between the two
        return y

    def step(self, inputs, state=None):
        """Like features, from the state of the steps before (None: no steps): those of the last step, new state."""
        y, state = self.rnn(self.read_in(inputs), state)
        return y[:, -1, :], state

    def read_in(self, inputs):
        """Inputs (..., input_size) -> what enters the network; one-hot: (..., input_size * levels)."""
        dtype = next(self.parameters()).dtype
        if self.encoding == "values":
            return (2 * inputs - 1).to(dtype)
        levels = torch.arange(self.levels, device=inputs.device)
        one_hot = F.relu(1 - ((self.levels - 1) * inputs[..., None] - levels).abs())  # (..., input_size, levels)
        return one_hot.flatten(-2).to(dtype)  # (..., input_size, levels) -> (..., input_size * levels)

    def read_out(self, y, targets=None):
        """Features (..., features) -> outputs (..., input_size), categorical: (..., input_size, levels)."""
        flat = y.reshape(-1, y.shape[-1])  # (..., features) -> (all, features): batch norm wants two axes
        if self.training and len(flat) == 1 and self.settings["norm"] == "batch":
            raise LabError("Batch norm needs more than one step to train on. Use layer norm, or a larger picture.")
        flat = self.dropout(self.norm(flat))
        if self.joint:
            if targets is None:
                raise LabError("A joint head predicts a value from those to its left as well: give it the steps too.")
            flat = self.head(flat, self.read_in(targets).reshape(len(flat), -1))  # (all, input_size * ...) each
        else:
            flat = self.head(flat)
        outputs = flat.reshape(*y.shape[:-1], self.input_size, -1)  # (..., input_size, levels or 1)
        return outputs if self.distribution == "categorical" else outputs.squeeze(-1)

    def teacher_forced(self, sequences):
        """Outputs for every step, each from the true values before it: (batch, steps, ...)."""
        _check_sequences(self, sequences)
        batch, steps, _ = sequences.shape
        if self.settings["output"] == "seq2seq":
            return self(_with_start(sequences[:, :-1]), sequences)
        if self.window > steps:
            raise LabError(
                f"A window of {self.window} steps is longer than the picture's {steps}. Choose a shorter one."
            )
        padded = _with_start(sequences[:, :-1], self.window)  # (batch, window + steps - 1, input_size)
        windows = padded.unfold(1, self.window, 1).transpose(2, 3)  # (batch, steps, window, input_size)
        outputs = self(windows.flatten(0, 1), sequences.flatten(0, 1))  # (batch * steps, ...)
        return outputs.unflatten(0, (batch, steps))  # (batch * steps, ...) -> (batch, steps, ...)

    def sample_step(self, y, temperature=0.0):
        """The next step (batch, input_size) from its features (batch, features), and the outputs it was sampled from.

        A joint head is asked for each value once those to its left are sampled, and computes that value's part alone.
        """
        if not self.joint:
            outputs = self.read_out(y)
            chance = torch.rand(len(y), self.input_size, device=y.device) if temperature else None
            return self.decode(outputs, temperature, chance), outputs
        return self.one_by_one(self.places(y), y, temperature)

    def places(self, y):
        """For `one_by_one`: (place, left) -> the outputs of that value of the step after features (batch, features)."""
        above, seen = self.head.begin(self.norm(y))
        return lambda place, left: self.head.at(place, left, above, seen)


def _at_least_float32(tensor):
    """Losses and probabilities are not rounded to bfloat16, which has three digits; float64 stays as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _with_start(sequences, tokens=1):
    """Sequences (batch, steps, input_size) with `tokens` start tokens before their first step."""
    return F.pad(sequences, (0, 0, tokens, 0), value=START)


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


def train(
    model,
    sequences,
    *,
    steps=None,
    seconds=None,
    batch_size=None,
    prepare=None,
    optimizer="adam",
    learning_rate=0.01,
    weight_decay=0.0,
    clip=1.0,
    context=None,
    bfloat16=False,
    probe=None,
    probe_at=(),
    checkpoint=None,
    clock=None,
):
    """Minimise `model.loss(sequences)` for a number of `steps` (updates) or a budget of `seconds`.

    It knows nothing of the model but `loss`. Set the seed before the model is built: torch.manual_seed.
    batch_size: None takes all sequences at every step; else that many, in an order shuffled anew at each pass.
    prepare: called on each batch, e.g. torch.bernoulli, which binarises grey values anew each time.
    optimizer: "adam", or "muon", which orthogonalises the updates of matrices (Jordan et al. 2024) and leaves vectors
        to Adam. The learning rate falls to 0 along half a cosine, so that the last weights have settled.
    weight_decay: the share of a weight, times the learning rate, that is taken off it at each step (as in AdamW; with
        "muon" off matrices only). clip: the longest the gradient may be; it is shortened to this norm.
    context: called on each batch, gives what predictions are conditioned on, where that is not the batch itself:
        flipped(0.1) damages it, torch.bernoulli turns grey values, which are then predicted, into bits.
    bfloat16: multiply matrices with 8 bits of precision (torch.autocast), Muon's too; weights and loss keep theirs.
        Where there are no instructions for it (`has_bfloat16`), a warning, and float32.
    probe: called as probe(model) once each number of `probe_at` (steps, or seconds where the budget is in seconds) is
        reached; returns a dict of measurements. Its time is not counted.
    checkpoint: a checkpoints.Checkpoint, kept now and then; where there is one already, training goes on from it.
    clock: what seconds are counted by, if not the time that passes: time.process_time counts this process's work alone.
    Sequences are moved to the model's device. Within `several_processes` each takes a part of every batch; call it in
    all of them with the same arguments. Loss, gradients, seconds and an interrupt are common to all.
    An interrupt (Ctrl-C, or the stop button) returns what was trained so far, with `history.interrupted` set, to a
    person who is watching; a run that nobody watches (nbval, nbconvert, papermill, pytest) ends with it.
    Raises TrainingError, before the update, when the loss or its gradient is not finite.
    """
    if (steps is None) == (seconds is None):
        raise LabError("Give train a number of steps or a budget of seconds, one of them.")
    budget = whole("steps", steps) if seconds is None else number("seconds", seconds, above=True)
    if sequences is not None:  # a model of the reader's own may need none, or other numbers; ours check what they read
        check_tensor(sequences, floating=prepare is None and context is not None)
    learning_rate = number("learning_rate", learning_rate, above=True)
    weight_decay = number("weight_decay", weight_decay)
    clip = math.inf if clip is None else number("clip", clip, above=True)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise LabError("All weights of this model are frozen (requires_grad is False): there is nothing to train.")
    optimizers = make_optimizers(weights, choice("optimizer", optimizer, ("adam", "muon")), learning_rate, weight_decay)
    if batch_size is not None and whole("batch_size", batch_size) > len(sequences):
        raise LabError(
            f"A batch of {batch_size} cannot be taken from {len(sequences)} sequences. Choose a smaller one."
        )
    device, clock = weights[0].device, clock or time.perf_counter
    checkpoint = checkpoint or checkpoints.NoCheckpoint()
    processes = devices.Processes(model, device, notes=checkpoint.path is not None)
    autocast = devices.autocast(device, bfloat16)
    sequences = None if sequences is None else sequences.to(device)
    batches, history = checkpoints.Batches(sequences, batch_size), History()
    probe_at = sorted(probe_at)

    def done():
        """Steps, or seconds, so far."""
        return len(history.loss) if seconds is None else sum(history.seconds[-1:])

    def look():
        if probe is not None and probe_at and done() >= probe_at[0]:
            probe_at[:] = [at for at in probe_at if at > done()]
            history.probes.append({"step": len(history.loss), **probe(model)})
            processes.agree()

    def updates():
        while done() < budget:
            yield len(history.loss)

    try:
        with processes, checkpoint, devices.progress(updates(), "training", steps) as bar:
            checkpoint.begin(model, optimizers, batches, history, processes)
            probe_at = [at for at in probe_at if at > done() or not history.probes]
            look()
            for step in bar:
                checkpoint.mark()
                processes.begin_update()
                started = clock()
                batch = next(batches)
                batch = batch if prepare is None else prepare(batch)
                model.train()
                for part in optimizers:
                    part.zero_grad()
                    for group in part.param_groups:
                        group["lr"] = learning_rate * (1 + math.cos(math.pi * done() / budget)) / 2
                given = [] if context is None else [context(batch)]
                with autocast(), processes.own_chance(step):
                    loss = model.loss(processes.share(batch), *map(processes.share, given))
                loss.backward()
                loss = processes.mean(loss, weights).item()
                norm = nn.utils.clip_grad_norm_(weights, clip)
                # Coming back through a thousand steps a gradient can be so long that only its norm overflows. Clipping
                # has then made it 0, which does no harm; a gradient that is not finite itself, it has made NaN.
                usable = norm.isfinite() or all(w.grad.isfinite().all() for w in weights if w.grad is not None)
                if not (math.isfinite(loss) and usable):
                    message = f"At step {step} the loss is {loss} and its gradient's norm {norm.item()}."
                    raise TrainingError(f"{message} Lower the learning rate (now {learning_rate}).", history)
                with autocast():  # Muon's matrix products; Adam has none
                    for part in optimizers:
                        part.step()
                history.seconds.append(processes.rank_0_says(sum(history.seconds[-1:]) + clock() - started))
                history.loss.append(loss)
                look()
                checkpoint.keep()
    except KeyboardInterrupt:
        if not devices.someone_watches():
            raise
        history.interrupted = True
    finally:
        model.eval()
    return history


def flipped(probability):
    """For `train`'s context: a batch in which each value is its opposite, 1 - value, with this probability."""
    probability = number("probability", probability, most=1)
    return lambda batch: torch.where(torch.rand_like(batch) < probability, 1 - batch, batch)


@torch.no_grad()
def fit_head(model, sequences):
    """Set the linear head of a model that predicts bits by one least-squares solve, and train nothing.

    The outputs asked for are 1 where a bit is 1 and -1 where it is 0, for each step given the true steps before it.
    Solved with all digits of double precision; among equally good solutions, the smallest.
    Returns the rank of the states (steps, features + 1) that it was solved from; with rank = steps it is exact.
    """
    if model.joint:
        raise LabError(
            'Only a linear head can be solved for; this model has a joint head. Build it with "independent".'
        )
    sequences, states = sequences.to(next(model.parameters()).device), []
    hook = model.head.register_forward_hook(lambda head, inputs, outputs: states.append(inputs[0]))
    model.eval().teacher_forced(sequences)
    hook.remove()
    # On the CPU, which alone has this solver, and double precision whatever the device.
    states = F.pad(states[0].cpu().double(), (0, 1), value=1)  # (steps, features + 1): the last is the bias's
    wanted = 2 * sequences.cpu().flatten(0, 1).double() - 1  # (batch, steps, input_size) -> (batch * steps, input_size)
    solved = torch.linalg.lstsq(states, wanted, driver="gelsd")
    model.head.weight.copy_(solved.solution[:-1].T)
    model.head.bias.copy_(solved.solution[-1])
    return int(solved.rank)


# ======================================================================================================================
# Sampling: nothing of the picture but the start token
# ======================================================================================================================


@contextlib.contextmanager
def plain_recurrence():
    """Without oneDNN's fused recurrence: it rearranges all weights at every call, which for a single step is most of
    the work (2 to 5 times as long for one sequence)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32", UserWarning)  # the flag's setter speaks of hardware not in use
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _start_of(model, batch, steps):
    """Sequences of a model on its device, in which nothing is generated yet: (batch, steps, input_size)."""
    for name, values in model.state_dict().items():  # NaN is above no threshold: all values would be 0, without a word
        some = values.is_floating_point() and values.numel()
        if some and not all(math.isfinite(end) for end in torch.aminmax(values)):
            raise LabError(f"{name} of this model holds NaN or infinite numbers. Load its weights, or train it, again.")
    weight = next(model.parameters())
    shape, dtype = (whole("batch", batch), steps, model.input_size), torch.promote_types(weight.dtype, torch.float32)
    return torch.full(shape, START, dtype=dtype, device=weight.device)


def _check_temperature(model, temperature):
    if number("temperature", temperature) and model.distribution == "regression":
        raise LabError(
            "This model is a regression, without probabilities: there is nothing to sample at a temperature."
        )


@torch.no_grad()
def sample(model, steps, given=None, *, batch=1, levels=None, temperature=0.0, cached=True):
    """Free running: every step predicted from the steps generated before it, the first from the start token alone.

    given: steps to continue from, (batch, some steps, input_size), kept as they are; None starts from nothing.
    batch: how many sequences, where none is given.
    levels: a model that predicts values has them rounded to this many levels before they are fed back; None feeds
        back what is predicted.
    temperature: 0 takes the most probable values, 1 samples from the model's distribution; logits are divided by it,
        so that below 1 the distribution is sharper. Set the seed before: torch.manual_seed.
    cached: keep the recurrent state, so that a step costs the same however many came before (a bidirectional or
        seq2vec model cannot, and reads its past again); False reads the past again for every model.

    Returns the sequences (batch, steps, input_size) and the outputs of the generated steps, (batch, steps - given,
    ...), both without gradient. The model is put in evaluation mode.
    """
    whole("steps", steps)
    if levels is not None:
        whole("levels", levels, 2)
    _check_temperature(model, temperature)
    sequences = _start_of(model, batch, 0)
    if given is not None:
        _check_sequences(model, given)
        sequences = given.to(sequences)
    if sequences.shape[1] >= steps:
        raise LabError(f"{sequences.shape[1]} steps are given and only {steps} wanted in all; nothing to generate.")
    model.eval()
    past, state, generated, outputs = _with_start(sequences, model.window or 1), None, [], []
    stream = cached and model.streams
    with plain_recurrence() if stream else contextlib.nullcontext():
        for _ in range(steps - sequences.shape[1]):
            if stream:
                features, state = model.step(past, state)
                past = past[:, :0]  # the state holds it now
            else:
                features, _ = model.step(past[:, -model.window :] if model.window else past)
            values, output = model.sample_step(features, temperature)
            if levels is not None:
                values = torch.round(values * (levels - 1)) / (levels - 1)
            past = torch.cat([past, values[:, None]], dim=1)  # (batch, input_size) -> (batch, 1, input_size)
            generated.append(values)
            outputs.append(output)
    return torch.cat([sequences, torch.stack(generated, 1)], 1), torch.stack(outputs, 1)


@torch.no_grad()
def sample_naively(model, steps, batch=1, temperature=0.0, values=None):
    """The same as `sample` from nothing, by running the model on whole sequences once for each value.

    It needs no code for generation in the model, which is why it is what many implementations do; here it is what
    `sample` is compared with. values: stop after so many, None samples all. Returns (batch, steps, input_size).
    """
    sequences = _start_of(model, batch, whole("steps", steps))
    _check_temperature(model, temperature)
    values = steps * model.input_size if values is None else whole("values", values)
    model.eval()
    for index in range(values):
        step, place = divmod(index, model.input_size)
        if place == 0:
            chance = torch.rand(batch, model.input_size, device=sequences.device) if temperature else None
        outputs = model.teacher_forced(sequences)[:, step]  # (batch, input_size), or (batch, input_size, levels)
        sequences[:, step, place] = model.decode(outputs, temperature, chance)[:, place]
    return sequences


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


@torch.no_grad()
def nats(model, sequences):
    """Negative log-likelihood of each sequence by the chain rule, in nats: (batch,), float64, numpy.

    Computed from logits, in evaluation mode. Raises LabError where a model or the values allow no likelihood: a model
    that reads what it predicts has none, however small its loss.
    """
    if model.distribution == "regression":
        raise LabError('Regression gives no probabilities. Let the distribution be "bernoulli" or "categorical".')
    if not model.causal:
        raise LabError("A bidirectional seq2seq model reads what it predicts; its loss is no likelihood.")
    _check_sequences(model, sequences)
    sequences = sequences.to(next(model.parameters()).device)
    top = 1 if model.distribution == "bernoulli" else model.levels - 1
    if not torch.allclose(top * sequences, torch.round(top * sequences), atol=1e-3):
        raise LabError(f"A likelihood is of values on the model's {top + 1} levels; these lie between. Binarise first.")
    model.eval()
    # Summed on the CPU, since MPS has no float64. A part of 100 stays in a processor's cache.
    return np.concatenate([model.losses(part).cpu().double().sum((1, 2)).numpy() for part in sequences.split(100)])


def multiply_adds(call):
    """The work of `call()`: how many multiplications, each with an addition, its matrix products and convolutions make.

    The same on every machine, where seconds are not. Element-wise work is left out.
    """
    with plain_recurrence(), FlopCounterMode(display=False) as counter:  # the fused recurrence would not be counted
        call()
    return counter.get_total_flops() // 2


def bits_per_dimension(total, dimensions):
    """Nats of a sequence of that many values, as bits a value."""
    return total / (dimensions * math.log(2))


@torch.inference_mode(False)  # where a caller has switched gradients off, they are switched on
def receptive_field(model, sequences, position, place=None):
    """How strongly a prediction depends on each step of the sequence: (steps,), numpy; 0 where no path.

    The sum of |d (sum of outputs at step `position`) / d value| over the values of each step, teacher-forced, in the
    mode the model is in (training or evaluation; its running statistics are left alone). With `place`, only the
    outputs of that value of the step, and the field value by value: (steps, input_size).
    """
    check_tensor(sequences)
    model = copy.deepcopy(model)
    sequences = sequences.detach().to(next(model.parameters()).device, copy=True)
    if model.encoding == "one-hot":  # one-hot has no slope at a whole level, so look half-way to the next
        top = model.levels - 1
        sequences = (torch.floor(sequences * top).clamp(max=top - 1) + 0.5) / top
    sequences.requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrence has no backward pass in evaluation mode
        outputs = model.teacher_forced(sequences)[:, position]  # (batch, input_size) or (batch, input_size, levels)
        (gradient,) = torch.autograd.grad((outputs if place is None else outputs[:, place]).sum(), sequences)
    field = gradient.abs().sum(0)  # (batch, steps, input_size) -> (steps, input_size)
    return (field.sum(1) if place is None else field).cpu().numpy()


def leaks(model, sequences):
    """Whether any prediction depends on itself, on what comes after it or on other pictures, in the model's own mode.

    After a value come those to its right and all later steps; where the head is independent, its whole step. Measured
    by causality.py, which does the same for models from elsewhere: by gradient and by changing values.
    """
    check_tensor(sequences)
    sequences = sequences.detach().to(next(model.parameters()).device)
    order = None if model.joint else np.arange(sequences.shape[1])[:, None]
    mode = "training" if model.training else "evaluation"
    at = max(2, sequences[0].numel() if model.joint else sequences.shape[1])  # all places of the order
    settings = {"order": order, "predictions": torch.clone, "modes": mode, "at": at}
    return not causality(model.teacher_forced, sequences, **settings).causal


def first_below(steps, values, threshold):
    """The first of `steps` whose value is below the threshold, or None."""
    below = np.asarray(values) < threshold
    return int(np.asarray(steps)[below.argmax()]) if below.any() else None


# ======================================================================================================================
# Pictures
# ======================================================================================================================


def as_picture(batch, shape):
    """The first sequence of a batch in [0, 1] as a picture to look at: uint8 of `shape` (rows, columns, channels)."""
    return unflatten(to_levels(batch[:1], 256)[0], shape).astype(np.uint8)


def show_pictures(pictures, title="", alt="", columns=None):
    """A grid of pictures, name -> uint8 (rows, columns, 1 or 3) or (rows, columns), each under its name.

    Displayed with alternative text, `alt`; without it the figure is returned.
    """
    columns = columns or len(pictures)
    rows = math.ceil(len(pictures) / columns)
    tall = max(picture.shape[0] / picture.shape[1] for picture in pictures.values())  # wide pictures need less height
    size = (2.1 * columns, (2.1 * min(1, max(0.2, tall)) + 0.25) * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(pictures) :]:
        ax.axis("off")
    for ax, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="lightgrey")  # an all-white picture is seen to be there
        picture = picture[..., 0] if picture.shape[2:] == (1,) else picture  # grey: (rows, columns, 1) -> two axes
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title("", fontsize=9).set(**as_it_stands(name))
    figure.suptitle("").set(**as_it_stands(title))
    return show_figure(alt, figure) if alt else figure


def difference(picture, original):
    """Where two pictures differ: uint8, white where they are equal, the darker the larger the difference."""
    return (255 - np.abs(picture.astype(int) - original.astype(int)).max(-1, keepdims=True)).astype(np.uint8)


def mosaic(pictures, columns):
    """Pictures of one shape (rows, columns, channels), uint8, as one: `columns` side by side, light lines between."""
    pictures = [np.pad(picture, ((0, 1), (0, 1), (0, 0)), constant_values=200) for picture in pictures]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], 1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows)[:-1, :-1]


def sheet(batch, columns):
    """Grey pictures (count, rows, columns) in [0, 1] as one, uint8, `columns` side by side."""
    return mosaic([as_picture(one[None], (*one.shape, 1)) for one in batch], columns)


def frames(batch, shape, count, columns=1):
    """The sequences of a batch while they are generated: steps done -> picture, uint8 RGB, what is to come in blue.

    `count` pictures evenly spaced from none done to all, or as many as there are different ones; the sequences are
    laid side by side, `columns` in a row.
    """
    pictures = [np.broadcast_to(as_picture(one[None], shape), (*shape[:2], 3)) for one in batch]
    steps, pixels = batch.shape[1], math.prod(shape[:2])
    to_come = np.arange(pixels).reshape(*shape[:2], 1) * steps // pixels  # step of each pixel
    blue, times = np.uint8([86, 180, 233]), np.linspace(0, steps, count).round().astype(int)
    return {int(t): mosaic([np.where(to_come < t, picture, blue) for picture in pictures], columns) for t in times}


def filmstrip(batch, shape, count=6, title="", alt="", unit="steps"):
    """A row of pictures of one being generated, from the start token to its last step."""
    return show_pictures({f"{t} {unit}": frame for t, frame in frames(batch, shape, count).items()}, title, alt)


def animated_png(batch, shape, count=32, scale=4, seconds=3.0, columns=1):
    """The same as an animated PNG (bytes): `count` frames in `seconds`, then the finished picture for a second.

    A page that shows no animations shows the finished picture.
    """
    images = [Image.fromarray(frame) for frame in frames(batch, shape, count, columns).values()]
    images = [i.resize((i.width * scale, i.height * scale), Image.Resampling.NEAREST) for i in images]
    durations = [int(1000 * seconds / len(images))] * (len(images) - 1) + [1000]
    file = io.BytesIO()
    still = images[-1]  # default_image: it is not one of the frames
    still.save(file, "PNG", save_all=True, append_images=images, default_image=True, duration=durations, loop=0)
    return file.getvalue()
