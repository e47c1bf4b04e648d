// The forward pass of the joint row: an LSTM over rows, and a masked layer along each row. No function here knows the
// page. Each names the Python that it equals; a test compares the two.
//
// A model's arrays hold only what raster order needs: of the masked matrices, for each place the columns it may see.

const MASKED = ["hidden0", "hidden1", "out"]; // the layers of JointHead that see themselves, in their order

// sums[at + i] += (row i of the matrix) . x, for `rows` rows of `inputs` numbers that begin at weights[from].
// Four rows at a time: their sums do not wait for each other, which makes it three times as fast.
export function addProduct(sums, at, weights, from, rows, inputs, x) {
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    const w0 = from + row * inputs;
    const w1 = w0 + inputs;
    const w2 = w1 + inputs;
    const w3 = w2 + inputs;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let i = 0; i < inputs; i++) {
      const value = x[i];
      s0 += weights[w0 + i] * value;
      s1 += weights[w1 + i] * value;
      s2 += weights[w2 + i] * value;
      s3 += weights[w3 + i] * value;
    }
    sums[at + row] += s0;
    sums[at + row + 1] += s1;
    sums[at + row + 2] += s2;
    sums[at + row + 3] += s3;
  }
  for (; row < rows; row++) {
    let sum = 0;
    for (let i = 0, w = from + row * inputs; i < inputs; i++) sum += weights[w + i] * x[i];
    sums[at + row] += sum;
  }
}

export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// Equals helpers.GenModel.read_in for bits: a value 0 or 1 enters as -1 or 1.
export function readIn(values) {
  return Float64Array.from(values, (value) => 2 * value - 1);
}

// Before the first row. Equals orders._Conditioned._first_state; zeros for a model that knows one order only.
export function firstState(model) {
  return { hidden: Float64Array.from(model.firstHidden), cell: new Float64Array(model.hidden) };
}

// Equals torch.nn.LSTM of one layer, gates in torch's order (input, forget, cell, output), for one more row.
// row: what `readIn` gives.
export function lstm(model, row, state) {
  const size = model.hidden;
  const gates = new Float64Array(4 * size);
  for (let i = 0; i < gates.length; i++) gates[i] = model.inputBias[i] + model.hiddenBias[i];
  addProduct(gates, 0, model.inputWeight, 0, 4 * size, model.columns, row);
  addProduct(gates, 0, model.hiddenWeight, 0, 4 * size, size, state.hidden);
  const next = { hidden: new Float64Array(size), cell: new Float64Array(size) };
  for (let i = 0; i < size; i++) {
    const kept = sigmoid(gates[size + i]) * state.cell[i];
    next.cell[i] = kept + sigmoid(gates[i]) * Math.tanh(gates[2 * size + i]);
    next.hidden[i] = sigmoid(gates[3 * size + i]) * Math.tanh(next.cell[i]);
  }
  return next;
}

// Equals orders._Conditioned.step (and helpers.GenModel.step, which adds nothing): the state after one more row, and
// the features from which the next row is predicted. values: that row; null stands for the start token, 0.5 each.
export function step(model, values, state) {
  const row = values ? readIn(values) : new Float64Array(model.columns);
  const next = lstm(model, row, state);
  const features = next.hidden.map((value, i) => value + model.addedFeatures[i]);
  return { state: next, features };
}

// Equals joint.JointHead.begin: what each place gets from the rows above, and room for what each layer has seen.
export function begin(model, features) {
  const size = model.columns * model.embedding;
  const above = Float64Array.from(model.aboveBias);
  addProduct(above, 0, model.aboveWeight, 0, size, model.hidden, features);
  return { above, seen: MASKED.map(() => new Float64Array(size)) };
}

// Equals joint.MaskedLinear.at for one place, given as many places of `x` as it sees. The weights of a place follow
// those of the place before, which saw one place less: place * (place - 1) / 2 places stand before, with `own` one more
// for each.
export function maskedAt(model, layer, place, x, inputs, outputs, own) {
  const weights = model[`${layer}Weight`];
  const before = (place * (place - 1)) / 2 + (own ? place : 0);
  const sums = new Float64Array(outputs);
  for (let i = 0; i < outputs; i++) sums[i] = model[`${layer}Bias`][place * outputs + i];
  addProduct(sums, 0, weights, before * inputs * outputs, outputs, (place + (own ? 1 : 0)) * inputs, x);
  return sums;
}

// Equals joint.JointHead.at: the logit of one place, given the values to its left (as `readIn` gives them).
export function logitAt(model, place, left, { above, seen }) {
  const size = model.embedding;
  let x = maskedAt(model, "left", place, left, 1, size, false);
  for (let i = 0; i < size; i++) x[i] += above[place * size + i];
  for (const [number, layer] of MASKED.entries()) {
    for (let i = 0; i < size; i++) seen[number][place * size + i] = Math.max(0, x[i]);
    const y = maskedAt(model, layer, place, seen[number], size, layer === "out" ? 1 : size, true);
    if (layer === "out") return y[0];
    for (let i = 0; i < size; i++) x[i] += y[i];
  }
}
