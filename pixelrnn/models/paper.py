"""The models of the PixelRNN paper and those it is compared with, beside helpers.GenModel: note 6 reads this file.

    layers -> Row LSTM -> Diagonal BiLSTM -> PixelRNN -> PixelCNN -> Gated PixelCNN -> MADE

Each is a PixelModel: it reads binary pictures as helpers' sequences, (batch, rows, columns * channels),
and gives a logit for every value, which depends on the values before it alone: the rows above, the pixels to the left,
and in its own pixel red before green before blue. Inside it works on maps, (batch, features, rows, columns). Features
are parted into as many groups as there are channels, and a mask says which groups of its own pixel a group sees: those
before it ("A", of the first layer), or those and itself ("B", of all others).

A network is written once, in `network`, and computed in three ways, which the layers (see Layer) know: all rows at
once, to train; one known row, to go on from; one pixel, to sample.

Sources: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016 (arXiv 1601.06759), "the
paper" below; van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016 (arXiv 1606.05328);
Germain et al., "MADE", 2015 (arXiv 1502.03509).
"""

import torch
import torch.nn.functional as F
from torch import nn

from helpers import SequenceModel, _at_least_float32, _check_sequences
from support.checks import LabError, choice, whole
from support.files import plain
from support.joint_head import MaskedLinear

# ======================================================================================================================
# A model of pixels, and the layers it is made of
# ======================================================================================================================


class PixelModel(SequenceModel):
    """What all of them share; a model adds `network`."""

    encoding, distribution, levels, joint, streams, window = "values", "bernoulli", 2, True, True, None

    def __init__(self, columns, channels=1, **settings):
        """settings: a model's own, by which a file that keeps it builds it again."""
        super().__init__()
        self.settings = plain({"columns": columns, "channels": channels, **settings})
        self.columns, self.channels = whole("columns", columns), whole("channels", channels)
        self.input_size = self.columns * self.channels

    def network(self, x, call):
        """Maps (batch, channels, ...) in [-1, 1] -> logits (batch, channels, ...); `call(layer, x)` is a layer's."""
        raise NotImplementedError

    def teacher_forced(self, sequences):
        """Logits of every value from the true ones before it: (batch, rows, columns * channels)."""
        _check_sequences(self, sequences)
        maps = self._maps(sequences).movedim(-1, 1)  # (batch, rows, columns, channels) -> (batch, channels, ...)
        logits = self.network(maps, lambda layer, x: layer(x))
        return logits.movedim(1, -1).flatten(2)  # -> (batch, rows, columns * channels)

    def step(self, sequences, states=None):
        """Read known rows, (batch, rows, columns * channels), after those that the states hold (None: none).

        Returns what `sample_step` samples the next row from, and the states of the layers. The start token, which
        helpers puts before the first row, is left out: above the first row are the zeros of the layers' padding.
        """
        if states is None:
            states, sequences = {}, sequences[:, 1:]
        for row in self._maps(sequences).unbind(1):  # (batch, columns, channels)
            before, states = states, {}

            def call(layer, x, before=before, after=states):
                x, after[layer] = layer.row(x, before.get(layer))
                return x

            self.network(row.movedim(-1, 1), call)
        return (len(sequences), states), states

    def sample_step(self, features, temperature=0.0):
        """The next row (batch, columns * channels) and its logits; each value is asked for once, and only its own pixel
        is computed."""
        batch, states = features
        weight = next(self.parameters())
        chance = torch.rand(batch, self.input_size, device=weight.device) if temperature else None
        x = weight.new_zeros(batch, self.channels, self.columns)  # 0 is not sampled yet; -1 and 1 are
        logits, memories = weight.new_empty(batch, self.input_size), {}

        def call(layer, x):
            if layer not in memories:
                memories[layer] = layer.begin(states.get(layer), batch, self.columns)
            return layer.pixel(x, place // self.channels, memories[layer])

        for place in range(self.input_size):
            column, channel = divmod(place, self.channels)
            logits[:, place] = self.network(x[..., column], call)[:, channel]
            own = None if chance is None else chance[:, place]
            x[:, channel, column] = 2 * self.decode(logits[:, place], temperature, own) - 1
        values = (x.movedim(1, 2).flatten(1) + 1) / 2  # (batch, channels, columns) -> (batch, columns * channels)
        return _at_least_float32(values), logits

    def _maps(self, sequences):
        """Sequences (batch, rows, columns * channels) in [0, 1] -> (batch, rows, columns, channels) in [-1, 1]."""
        dtype = next(self.parameters()).dtype
        return (2 * sequences - 1).to(dtype).unflatten(-1, (-1, self.channels))


class Layer(nn.Module):
    """A layer computed in three ways, which agree.

    forward(x): all rows at once, (batch, inputs, rows, columns) -> (batch, outputs, rows, columns).
    row(x, state): one row that is known, (batch, inputs, columns) -> (batch, outputs, columns), and the layer's state
        after it; None is the state before the first row.
    begin(state, batch, columns): what the layer remembers while the next row is sampled; `pixel` changes it.
    pixel(x, column, memory): one pixel, (batch, inputs) -> (batch, outputs), those to its left having been asked for.
        Asked again (for the next channel), it forgets what it was given before. x may change afterwards: in the last
        channel of the pixel, which no pixel but those to its right may see.

    What a state or a memory holds is each layer's own. For a masked convolution of 3 x 3, for example, the state is the
    input row above, (batch, inputs, 1, columns). `begin` keeps three things: what that row adds to every column of the
    output, the weights for the row itself, and the inputs of this row so far. `pixel` adds what those inputs bring.
    """


class MaskedConv(Layer):
    """A convolution that sees what lies before a pixel, and of its own pixel the groups that `kind` allows.

    kind: "A" and "B", see above; "rows" sees all of its own row, and belongs where that row is known.
    size: of the kernel, (rows, columns), odd. parts: the outputs are several maps, e.g. gates, each with all groups.
    """

    def __init__(self, kind, inputs, outputs, size=(1, 1), channels=1, parts=1):
        super().__init__()
        choice("kind", kind, ("A", "B", "rows"))
        group_out = torch.arange(outputs // parts).repeat(parts) * channels // (outputs // parts)
        group_in = torch.arange(inputs) * channels // inputs
        allowed = torch.gt if kind == "A" else torch.ge
        up, left = size[0] // 2, size[1] // 2
        # Rows below the own one are left out of the kernel altogether.
        mask = torch.ones(outputs, inputs, up + 1, size[1])
        if kind != "rows":
            mask[:, :, up, left] = allowed(group_out[:, None], group_in).float()
            mask[:, :, up, left + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)
        whole_kernel = nn.Conv2d(inputs, outputs, (up + 1, size[1]))  # for torch's own initial weights
        self.weight, self.bias = whole_kernel.weight, whole_kernel.bias
        self.up, self.left = up, left

    def forward(self, x):
        x = F.pad(x, (self.left, self.left, self.up, 0))
        return F.conv2d(x, self.weight * self.mask, self.bias)

    def row(self, x, state):
        """state: the `up` input rows above, (batch, inputs, up, columns)."""
        rows = torch.cat([self._above(state, *x.shape), x[:, :, None]], 2)  # (batch, inputs, up + 1, columns)
        y = F.conv2d(F.pad(rows, (self.left, self.left)), self.weight * self.mask, self.bias)
        return y[:, :, 0], rows[:, :, 1:]

    def begin(self, state, batch, columns):
        above = self._above(state, batch, self.weight.shape[1], columns)
        kernel = self.weight * self.mask
        sum_above = self.bias[:, None].expand(batch, -1, columns)
        if self.up:
            sum_above = sum_above + F.conv2d(F.pad(above, (self.left, self.left)), kernel[:, :, : self.up])[:, :, 0]
        own = kernel[:, :, self.up, : self.left + 1].flatten(1)  # (outputs, inputs * (left + 1))
        row = above.new_zeros(batch, self.weight.shape[1], self.left)
        return {"above": sum_above, "own": own, "row": [*row.unbind(2)]}  # (batch, inputs) for each column to the left

    def pixel(self, x, column, memory):
        row = memory["row"]
        row[column + self.left :] = [x]
        window = torch.stack(row[column:], 2) if self.left else x[:, :, None]  # (batch, inputs, left + 1)
        return F.linear(window.flatten(1), memory["own"]) + memory["above"][:, :, column]

    def _above(self, state, batch, inputs, columns):
        return self.weight.new_zeros(batch, inputs, self.up, columns) if state is None else state


def _lstm(gates, cell):
    """The paper's equation 3: gates (batch, 4 * features, ...) -> new hidden and cell, (batch, features, ...) each."""
    output, forget, enter, content = gates.chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(content)
    return torch.sigmoid(output) * torch.tanh(cell), cell


# ======================================================================================================================
# The paper's recurrent layers
# ======================================================================================================================


class RowRecurrence(Layer):
    """The paper's section 3.1, state-to-state: the hidden row above, convolved along the row, is added to the gates.

    gates (batch, 4 * features, ...) -> hidden (batch, features, ...).
    """

    def __init__(self, features):
        super().__init__()
        self.above = nn.Conv1d(features, 4 * features, 3, padding=1, bias=False)

    def forward(self, gates):
        rows, state = [], None
        for row in gates.unbind(2):
            hidden, state = self.row(row, state)
            rows.append(hidden)
        return torch.stack(rows, 2)

    def row(self, gates, state):
        """state: hidden and cell of the row above, (batch, features, columns) each."""
        hidden, cell = self._before(state, len(gates), gates.shape[-1])
        hidden, cell = _lstm(gates + self.above(hidden), cell)
        return hidden, (hidden, cell)

    def begin(self, state, batch, columns):
        hidden, cell = self._before(state, batch, columns)
        return self.above(hidden), cell

    def pixel(self, gates, column, memory):
        above, cell = memory
        return _lstm(gates + above[..., column], cell[..., column])[0]

    def _before(self, state, batch, columns):
        zeros = self.above.weight.new_zeros(batch, self.above.in_channels, columns)
        return (zeros, zeros) if state is None else state


def skew(x):
    """Each row shifted right by its number, so that a diagonal stands upright: columns -> columns + rows - 1."""
    rows, columns = x.shape[-2:]
    x = F.pad(x, (0, rows)).flatten(-2)  # rows of columns + rows values, read on as rows of one less: each starts later
    return x[..., : rows * (columns + rows - 1)].unflatten(-1, (rows, columns + rows - 1))


def unskew(x):
    """The inverse of `skew`."""
    rows, wide = x.shape[-2:]
    return F.pad(x.flatten(-2), (0, rows)).unflatten(-1, (rows, wide + 1))[..., : wide - rows + 1]


class DiagonalRecurrence(Layer):
    """The paper's section 3.2, state-to-state: the pixel to the left and the one above are added to the gates.

    Along the skewed map that is a convolution of the column before, 2 high. `mirrored` runs from the upper right; it
    sees the pixels to the right, so its output is moved down by one row, where they are known.

    gates (batch, 4 * features, ...) -> hidden (batch, features, ...).
    """

    def __init__(self, features, mirrored):
        super().__init__()
        self.before = nn.Conv1d(features, 4 * features, 2, bias=False)  # of the column before: above, beside
        self.mirrored = mirrored

    def forward(self, gates):
        gates = gates.flip(3) if self.mirrored else gates
        hidden = cell = gates.new_zeros(len(gates), self.before.in_channels, gates.shape[2])  # (batch, features, rows)
        diagonals = []
        for diagonal in skew(gates).unbind(3):  # (batch, 4 * features, rows); left of the picture all stay 0
            hidden, cell = _lstm(diagonal + self.before(F.pad(hidden, (1, 0))), cell)
            diagonals.append(hidden)
        hidden = unskew(torch.stack(diagonals, 3))
        return F.pad(hidden.flip(3)[:, :, :-1], (0, 0, 1, 0)) if self.mirrored else hidden

    def row(self, gates, state):
        """state: hidden of the row above, (batch, features, columns), in its own order if mirrored."""
        memory = self.begin(state, len(gates), gates.shape[-1])
        above = memory["above"]
        own = [self._next(one, column, memory) for column, one in enumerate(self._turned(gates).unbind(2))]
        own = self._turned(torch.stack(own, 2))
        return (self._turned(above) if self.mirrored else own), own

    def begin(self, state, batch, columns):
        zeros = self.before.weight.new_zeros(batch, self.before.in_channels, columns)
        return {"above": zeros if state is None else self._turned(state), "states": [(zeros[..., 0], zeros[..., 0])]}

    def pixel(self, gates, column, memory):
        return self._turned(memory["above"])[..., column] if self.mirrored else self._next(gates, column, memory)

    def _next(self, gates, column, memory):
        """The hidden state (batch, features) of a pixel, after the one beside it."""
        states = memory["states"]
        hidden, cell = states[column]
        from_above = F.linear(memory["above"][..., column], self.before.weight[..., 0])
        hidden, cell = _lstm(gates + from_above + F.linear(hidden, self.before.weight[..., 1]), cell)
        states[column + 1 :] = [(hidden, cell)]
        return hidden

    def _turned(self, row):
        return row.flip(-1) if self.mirrored else row


class RowLSTM(nn.Module):
    """Input-to-state, a masked 1 x 3 convolution; state-to-state; up to the width of the map, with a residual
    connection: 2 * features in and out."""

    def __init__(self, features, channels=1):
        super().__init__()
        self.to_gates = MaskedConv("B", 2 * features, 4 * features, (1, 3), channels, parts=4)
        self.recurrence = RowRecurrence(features)
        self.up = MaskedConv("B", features, 2 * features, channels=channels)

    def network(self, x, call):
        return x + call(self.up, call(self.recurrence, call(self.to_gates, x)))


class DiagonalBiLSTM(nn.Module):
    """The same with two recurrences, from either upper corner, whose sum sees all that comes before but the last value
    of the row above (see note 6); input-to-state is a masked 1 x 1 convolution for each."""

    def __init__(self, features, channels=1):
        super().__init__()
        width = 2 * features, 4 * features
        self.to_gates = nn.ModuleList(MaskedConv("B", *width, channels=channels, parts=4) for _ in range(2))
        self.recurrences = nn.ModuleList(DiagonalRecurrence(features, mirrored) for mirrored in (False, True))
        self.up = MaskedConv("B", features, 2 * features, channels=channels)

    def network(self, x, call):
        left, right = (call(r, call(g, x)) for r, g in zip(self.recurrences, self.to_gates, strict=True))
        return x + call(self.up, left + right)


LAYERS = {"RowLSTM": RowLSTM, "DiagonalBiLSTM": DiagonalBiLSTM}


# ======================================================================================================================
# The models
# ======================================================================================================================


class PixelRNN(PixelModel):
    """The paper's table 1: a 7 x 7 convolution with mask A, recurrent layers, two 1 x 1 convolutions with mask B.

    layer: RowLSTM or DiagonalBiLSTM, or its name. features: h of the paper. layers: how many.
    """

    def __init__(self, columns, layer, features, layers, channels=1):
        layer = LAYERS[choice("layer", layer, LAYERS)] if isinstance(layer, str) else layer
        super().__init__(columns, channels, layer=layer.__name__, features=features, layers=layers)
        width = 2 * _grouped(features, channels)
        self.first = MaskedConv("A", channels, width, (7, 7), channels)
        self.layers = nn.ModuleList(layer(features, channels) for _ in range(whole("layers", layers)))
        self.last = MaskedConv("B", width, width, channels=channels)
        self.out = MaskedConv("B", width, channels, channels=channels)

    def network(self, x, call):
        x = call(self.first, x)
        for layer in self.layers:
            x = layer.network(x, call)
        return call(self.out, F.relu(call(self.last, F.relu(x))))


class PixelCNN(PixelModel):
    """The paper's section 3.4 and figure 5: the recurrent layers replaced by residual blocks of masked convolutions.

    features: h of the paper, half the width of the maps. layers: number of blocks. last: width before the output.
    """

    def __init__(self, columns, features, layers, last, channels=1):
        super().__init__(columns, channels, features=features, layers=layers, last=last)
        width = 2 * _grouped(features, channels)
        self.first = MaskedConv("A", channels, width, (7, 7), channels)
        sizes = ((width, features, (1, 1)), (features, features, (3, 3)), (features, width, (1, 1)))
        self.blocks = nn.ModuleList(
            nn.ModuleList(MaskedConv("B", *size, channels) for size in sizes) for _ in range(whole("layers", layers))
        )
        self.last = MaskedConv("B", width, _grouped(last, channels), channels=channels)
        self.out = MaskedConv("B", last, channels, channels=channels)

    def network(self, x, call):
        x = call(self.first, x)
        for block in self.blocks:
            y = x
            for layer in block:
                y = call(layer, F.relu(y))
            x = x + y
        return call(self.out, F.relu(call(self.last, F.relu(x))))


def _gated(x):
    """(batch, 2 * features, ...) -> (batch, features, ...): arXiv 1606.05328, equation 2."""
    content, gate = x.chunk(2, 1)
    return torch.tanh(content) * torch.sigmoid(gate)


class VerticalStack(Layer):
    """All that a Gated PixelCNN sees of the rows above, without PixelCNN's blind spot (arXiv 1606.05328, 2.2).

    Convolutions over whole known rows, (batch, channels, ...) -> for each layer the link to the horizontal stack, moved
    down by one row: (batch, layers * 2 * features, ...).
    """

    def __init__(self, features, layers, channels):
        super().__init__()
        sizes = [(channels, (7, 7)), *[(features, (3, 3))] * layers]
        self.convs = nn.ModuleList(MaskedConv("rows", inputs, 2 * features, size) for inputs, size in sizes)
        self.links = nn.ModuleList(MaskedConv("rows", 2 * features, 2 * features) for _ in sizes)

    def network(self, x, call):
        links = []
        for conv, link in zip(self.convs, self.links, strict=True):
            y = call(conv, x)
            links.append(call(link, y))
            x = _gated(y)
        return torch.cat(links, 1)

    def forward(self, x):
        return F.pad(self.network(x, lambda layer, x: layer(x))[:, :, :-1], (0, 0, 1, 0))

    def row(self, x, state):
        """state: the states of the convolutions, and the links of the row, which the next row sees."""
        before, above = ({}, None) if state is None else state
        after = {}

        def call(layer, x):
            x, after[layer] = layer.row(x, before.get(layer))
            return x

        links = self.network(x, call)
        return (torch.zeros_like(links) if above is None else above), (after, links)

    def begin(self, state, batch, columns):
        width = sum(link.weight.shape[0] for link in self.links)
        return self.links[0].weight.new_zeros(batch, width, columns) if state is None else state[1]

    def pixel(self, x, column, memory):
        return memory[..., column]


class GatedPixelCNN(PixelModel):
    """arXiv 1606.05328: a vertical stack that sees the rows above and a horizontal one along the row, with gates.

    features: width of the maps. layers: after the first. last: width before the output, which sees all layers.
    """

    def __init__(self, columns, features, layers, last, channels=1):
        super().__init__(columns, channels, features=features, layers=layers, last=last)
        _grouped(features, channels)
        self.vertical = VerticalStack(features, whole("layers", layers), channels)
        kinds = [("A", channels, 2 * features, (1, 7)), *[("B", features, 2 * features, (1, 3))] * layers]
        self.rows = nn.ModuleList(MaskedConv(*kind, channels, parts=2) for kind in kinds)
        one = {"channels": channels}
        self.residuals = nn.ModuleList(MaskedConv("B", features, features, **one) for _ in kinds)
        self.skips = nn.ModuleList(MaskedConv("B", features, features, **one) for _ in kinds)
        self.last = MaskedConv("B", features, _grouped(last, channels), **one)
        self.out = MaskedConv("B", last, channels, **one)

    def network(self, x, call):
        links, skips = call(self.vertical, x).chunk(len(self.rows), 1), 0
        for number, (row, link) in enumerate(zip(self.rows, links, strict=True)):
            y = _gated(call(row, x) + link)
            skips = skips + call(self.skips[number], y)
            y = call(self.residuals[number], y)
            x = x + y if number else y  # the picture itself is not passed on: a value would see itself
        return call(self.out, F.relu(call(self.last, F.relu(skips))))


class Everywhere(Layer):
    """A linear layer from all values before (and their own if `own`) to each value of the picture, as in MADE.

    (batch, channels * inputs, rows, columns) -> (batch, channels * outputs, rows, columns).
    """

    def __init__(self, rows, columns, channels, inputs, outputs, own):
        super().__init__()
        self.linear = MaskedLinear(rows * columns * channels, inputs, outputs, own)
        self.shape = rows, columns, channels

    def forward(self, x):
        rows, columns, _ = self.shape
        if x.shape[2:] != (rows, columns):
            raise LabError(f"This MADE is of {rows} x {columns} pixels; the pictures have {tuple(x.shape[2:])}.")
        y = self.linear(self._values(x.flatten(2)))  # (batch, ..., rows * columns) -> (batch, all)
        return y.unflatten(1, (rows, columns, -1)).movedim(3, 1)  # -> (batch, channels * outputs, rows, columns)

    def row(self, x, state):
        """state: all that came before, (batch, values * inputs)."""
        columns = x.shape[-1]
        memory = self.begin(state, len(x), columns)
        y = [self.pixel(x[..., column], column, memory) for column in range(columns)]
        return torch.stack(y, 2), torch.cat([memory["before"], self._values(x)], 1)

    def begin(self, state, batch, columns):
        before = self.linear.weight.new_zeros(batch, 0) if state is None else state
        if before.shape[1] == self.linear.in_features:
            raise LabError(f"This MADE is of {self.shape[0]} rows and samples no more.")
        return {"before": before, "row": []}

    def pixel(self, x, column, memory):
        channels, row = self.shape[2], memory["row"]
        row[column:] = [x]
        values = torch.cat([memory["before"], *row], 1)  # (batch, values * inputs): all up to this pixel
        first = values.shape[1] // self.linear.inputs - channels
        return torch.cat([self.linear.at(first + channel, values) for channel in range(channels)], 1)

    @staticmethod
    def _values(x):
        """(batch, channels * inputs, places) -> (batch, places * channels * inputs), in the order of the values."""
        return x.movedim(1, 2).flatten(1)


class MADE(PixelModel):
    """arXiv 1502.03509, in the order of the rows and with one hidden layer: every value has `units` hidden units of its
    own, which see all values before it. Its pictures have a fixed number of rows."""

    def __init__(self, rows, columns, units, channels=1):
        super().__init__(columns, channels, rows=rows, units=units)
        shape = whole("rows", rows), columns, channels
        self.hidden = Everywhere(*shape, 1, whole("units", units), own=False)
        self.out = Everywhere(*shape, units, 1, own=True)

    def network(self, x, call):
        return call(self.out, F.relu(call(self.hidden, x)))


def _grouped(features, channels):
    if whole("features", features) % channels:
        raise LabError(f"The features must part into {channels} equal groups, one a channel; {features} do not.")
    return features


MODELS = (PixelRNN, PixelCNN, GatedPixelCNN, MADE)  # which a file may hold, see saving.save_model
