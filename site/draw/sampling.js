// What is done with the network: reading given rows, sampling the others. See helpers.py, section "Sampling".

import { begin, firstState, logitsAt, sigmoid, step } from "./network.js";
import { randomFrom } from "./random.js";

// Equals helpers.SequenceModel.decode of a bit: 1 where chance < sigmoid(logit / temperature).
export function decode(logit, temperature, chance) {
  return Number(temperature === 0 ? logit > 0 : chance < sigmoid(logit / temperature));
}

// One row of each picture of a batch, place by place; choose(logit, place, number) gives each value. Equals
// helpers.SequenceModel.one_by_one. Returns the row as `step` takes it, and for each picture its values and logits.
function oneByOne(model, features, choose) {
  const memory = begin(model, features);
  const { batch } = memory;
  const row = new Float64Array(model.columns * batch);
  const values = Array.from({ length: batch }, () => new Uint8Array(model.columns));
  const logits = Array.from({ length: batch }, () => new Float64Array(model.columns));
  for (let place = 0; place < model.columns; place++) {
    const outputs = logitsAt(model, place, row, memory);
    for (let b = 0; b < batch; b++) {
      logits[b][place] = outputs[b];
      values[b][place] = choose(outputs[b], place, b);
      row[place * batch + b] = 2 * values[b][place] - 1;
    }
  }
  return { row, values, logits };
}

// Equals helpers.GenModel.sample_step. chances: for each picture a number in [0, 1) for each value.
export function sampleRow(model, features, temperature, chances) {
  return oneByOne(model, features, (logit, place, b) => decode(logit, temperature, chances[b][place]));
}

// A row that is known: its logits are what helpers.GenModel.teacher_forced gives for it.
export function readRow(model, features, values) {
  return oneByOne(model, features, (_, place) => values[place]);
}

// The bits that a value takes at a logit: -log2 of its probability, also where that is 0 in floating point.
export function bitsOf(logit, value) {
  const against = value ? -logit : logit;
  return (Math.max(0, against) + Math.log1p(Math.exp(-Math.abs(against)))) / Math.LN2;
}

// Reads a picture row by row and keeps what it has read: while somebody draws, only changed rows are read again.
export class Reader {
  constructor(model) {
    this.model = model;
    this.rows = []; // for each row read: its values, logits and bits
    this.steps = [step(model, new Float64Array(model.columns), firstState(model, 1))]; // before each row
  }

  // Reads the first `count` rows of a picture, a Uint8Array: their logits, and the bits of each row.
  read(picture, count) {
    const { columns } = this.model;
    const row = (number) => picture.slice(number * columns, (number + 1) * columns);
    let same = 0;
    while (same < Math.min(count, this.rows.length) && row(same).every((v, i) => v === this.rows[same].values[i])) same++;
    if (same < count) this.rows.length = same;
    for (let number = same; number < count; number++) {
      const values = row(number);
      const read = readRow(this.model, this.steps[number].features, values);
      const logits = read.logits[0];
      const bits = logits.reduce((sum, logit, place) => sum + bitsOf(logit, values[place]), 0);
      this.rows.push({ values, logits, bits });
      this.steps[number + 1] = step(this.model, read.row, this.steps[number].state);
    }
    const wanted = this.rows.slice(0, count);
    return { logits: wanted.map((each) => each.logits), bits: wanted.map((each) => each.bits) };
  }
}

// A step of one picture as that of a batch of pictures which all begin with it.
function repeated({ state, features }, batch) {
  const repeat = (vector) => Float64Array.from({ length: vector.length * batch }, (_, i) => vector[Math.floor(i / batch)]);
  return { state: { hidden: repeat(state.hidden), cell: repeat(state.cell) }, features: repeat(features) };
}

// Continuations of the first `given` rows of a picture, all of them one row further at each turn (a generator, so that
// the page can show each row). Equals helpers.sample, with the random numbers of `seed` in place of torch.rand. Of `all`
// continuations, `count` are sampled here, from number `first` on, with the random numbers that they have among all.
// Yields { row, values, logits }: the row's number, and for each continuation its values and logits.
export function* continuations(reader, picture, { given, first, count, all, temperature, seed }) {
  const { model } = reader;
  reader.read(picture, given);
  const random = randomFrom(seed);
  let { state, features } = repeated(reader.steps[given], count);
  for (let row = given; row < model.rows; row++) {
    const chances = Array.from({ length: all }, () => Array.from({ length: model.columns }, random));
    const sampled = sampleRow(model, features, temperature, chances.slice(first, first + count));
    yield { row, values: sampled.values, logits: sampled.logits };
    if (row + 1 < model.rows) ({ state, features } = step(model, sampled.row, state));
  }
}
