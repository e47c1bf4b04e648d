// The forward pass of the joint row: an LSTM over rows, and a masked layer along each row. No function here knows the
// page. Each names the Python that it equals; a test compares the two.
//
// Several pictures are computed at once, as a batch. In Python a batch is the first axis, (batch, features); here it is
// the last, so that the numbers of one feature stand side by side: x[feature * batch + number].
// Weights are 32-bit numbers, all else 64-bit ones: the logits are those of torch in float64 (to 13 digits), from which
// torch's own in float32 are up to 2e-5 away.
// Of the masked matrices, a model's arrays hold for each place the columns that it may see, and no others.

const MASKED = ["hidden0", "hidden1", "out"]; // the layers of JointHead that see themselves, in their order
export const TOGETHER = 3; // pictures in a batch that is computed fastest

// sums[at + i] += (row i of the matrix) . x, for `rows` rows of `inputs` weights that begin at weights[from], and each
// picture of the batch. Four rows at a time: their sums do not wait for each other.
export function addProduct(sums, at, weights, from, rows, inputs, x, batch) {
  if (batch === TOGETHER && rows % 4 === 0) return addProduct3(sums, at, weights, from, rows, inputs, x);
  for (let row = 0; row < rows; row++) {
    for (let b = 0; b < batch; b++) {
      let sum = 0;
      for (let i = 0, w = from + row * inputs; i < inputs; i++) sum += weights[w + i] * x[i * batch + b];
      sums[(at + row) * batch + b] += sum;
    }
  }
}

// The same for three pictures, written out: each number is read once for several products, so that it takes half the time.
function addProduct3(sums, at, weights, from, rows, inputs, x) {
  for (let row = 0; row < rows; row += 4) {
    const u = from + row * inputs;
    const v = u + inputs;
    const w = v + inputs;
    const z = w + inputs;
    let u0 = 0, u1 = 0, u2 = 0, v0 = 0, v1 = 0, v2 = 0, w0 = 0, w1 = 0, w2 = 0, z0 = 0, z1 = 0, z2 = 0;
    for (let i = 0, j = 0; i < inputs; i++, j += 3) {
      const x0 = x[j], x1 = x[j + 1], x2 = x[j + 2];
      const a = weights[u + i], b = weights[v + i], c = weights[w + i], d = weights[z + i];
      u0 += a * x0; u1 += a * x1; u2 += a * x2;
      v0 += b * x0; v1 += b * x1; v2 += b * x2;
      w0 += c * x0; w1 += c * x1; w2 += c * x2;
      z0 += d * x0; z1 += d * x1; z2 += d * x2;
    }
    const s = (at + row) * 3;
    sums[s] += u0; sums[s + 1] += u1; sums[s + 2] += u2;
    sums[s + 3] += v0; sums[s + 4] += v1; sums[s + 5] += v2;
    sums[s + 6] += w0; sums[s + 7] += w1; sums[s + 8] += w2;
    sums[s + 9] += z0; sums[s + 10] += z1; sums[s + 11] += z2;
  }
}

// Numbers from..to of a vector, each once for every picture of a batch.
function forBatch(vector, batch, from = 0, to = vector.length) {
  const repeated = new Float64Array((to - from) * batch);
  for (let i = 0; i < repeated.length; i++) repeated[i] = vector[from + Math.floor(i / batch)];
  return repeated;
}

export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// Before the first row. Equals orders._OrderConditioned.condition; zeros for a model that knows one order only.
export function firstState(model, batch) {
  return { hidden: forBatch(model.firstHidden, batch), cell: new Float64Array(model.hidden * batch) };
}

// Equals torch.nn.LSTM of one layer, gates in torch's order (input, forget, cell, output), for one more row.
export function lstm(model, row, state) {
  const batch = row.length / model.columns;
  const size = model.hidden * batch;
  const gates = forBatch(model.bias, batch);
  addProduct(gates, 0, model.inputWeight, 0, 4 * model.hidden, model.columns, row, batch);
  addProduct(gates, 0, model.hiddenWeight, 0, 4 * model.hidden, model.hidden, state.hidden, batch);
  const next = { hidden: new Float64Array(size), cell: new Float64Array(size) };
  for (let i = 0; i < size; i++) {
    const kept = sigmoid(gates[size + i]) * state.cell[i];
    next.cell[i] = kept + sigmoid(gates[i]) * Math.tanh(gates[2 * size + i]);
    next.hidden[i] = sigmoid(gates[3 * size + i]) * Math.tanh(next.cell[i]);
  }
  return next;
}

// Equals conditioned.Conditioned.step (and helpers.GenModel.step, which adds nothing): the state after one more row, and
// the features from which the next row is predicted. row: values 0 and 1 as -1 and 1 (helpers.GenModel.read_in), the
// start token, 0.5, as 0.
export function step(model, row, state) {
  const next = lstm(model, row, state);
  const features = forBatch(model.addedFeatures, row.length / model.columns);
  for (let i = 0; i < features.length; i++) features[i] += next.hidden[i];
  return { state: next, features };
}

// Equals joint_head.JointHead.begin: what each place gets from the rows above, and room for what each layer has seen.
export function begin(model, features) {
  const batch = features.length / model.hidden;
  const above = forBatch(model.aboveBias, batch);
  addProduct(above, 0, model.aboveWeight, 0, model.columns * model.embedding, model.hidden, features, batch);
  return { above, seen: MASKED.map(() => new Float64Array(above.length)), batch };
}

// Equals joint_head.MaskedLinear.at: one place, from the places of `x` that it sees. The weights of a place follow those of
// the places before it, which saw fewer: place * (place - 1) / 2 of them, and with `own` one more each.
function maskedAt(model, layer, place, x, inputs, outputs, own, batch) {
  const before = (place * (place - 1)) / 2 + (own ? place : 0);
  const sums = forBatch(model[`${layer}Bias`], batch, place * outputs, (place + 1) * outputs);
  const seen = (place + (own ? 1 : 0)) * inputs;
  addProduct(sums, 0, model[`${layer}Weight`], before * inputs * outputs, outputs, seen, x, batch);
  return sums;
}

// Equals joint_head.JointHead.at: the logits of one place, one a picture, given the values to its left (as `step` takes them).
export function logitsAt(model, place, left, { above, seen, batch }) {
  const size = model.embedding;
  const own = place * size * batch;
  const x = maskedAt(model, "left", place, left, 1, size, false, batch);
  for (let i = 0; i < x.length; i++) x[i] += above[own + i];
  for (let number = 0; number < MASKED.length; number++) {
    for (let i = 0; i < x.length; i++) seen[number][own + i] = Math.max(0, x[i]);
    const layer = MASKED[number];
    const y = maskedAt(model, layer, place, seen[number], size, layer === "out" ? 1 : size, true, batch);
    if (layer === "out") return y;
    for (let i = 0; i < x.length; i++) x[i] += y[i];
  }
}
