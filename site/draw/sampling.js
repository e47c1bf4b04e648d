// What is done with the network: reading given rows, sampling the others. See helpers.py, section "Sampling".

import { begin, firstState, logitAt, sigmoid, step } from "./network.js";
import { randomFrom } from "./random.js";

// Equals helpers.SequenceModel.decode of a bit: 1 where chance < sigmoid(logit / temperature).
export function decode(logit, temperature, chance) {
  return Number(temperature === 0 ? logit > 0 : chance < sigmoid(logit / temperature));
}

// A row place by place; choose(logit, place) gives each value. Equals helpers.SequenceModel.one_by_one.
function oneByOne(model, features, choose) {
  const memory = begin(model, features);
  const left = new Float64Array(model.columns);
  const values = new Uint8Array(model.columns);
  const logits = new Float64Array(model.columns);
  for (let place = 0; place < model.columns; place++) {
    logits[place] = logitAt(model, place, left, memory);
    values[place] = choose(logits[place], place);
    left[place] = 2 * values[place] - 1;
  }
  return { values, logits };
}

// Equals helpers.GenModel.sample_step. chances: a number in [0, 1) for each value.
export function sampleRow(model, features, temperature, chances) {
  return oneByOne(model, features, (logit, place) => decode(logit, temperature, chances[place]));
}

// Logits of a row that is known: what helpers.GenModel.teacher_forced gives for it.
export function readRow(model, features, values) {
  return oneByOne(model, features, (_, place) => values[place]).logits;
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
    this.steps = [step(model, null, firstState(model))]; // before each row: state and features
  }

  // Reads the first `count` rows of a picture, a Uint8Array. Returns the logits of these rows, and their bits.
  read(picture, count) {
    const { columns } = this.model;
    const row = (number) => picture.slice(number * columns, (number + 1) * columns);
    let same = 0;
    while (same < Math.min(count, this.rows.length) && row(same).every((v, i) => v === this.rows[same].values[i])) same++;
    if (same < count) this.rows.length = same;
    for (let number = same; number < count; number++) {
      const values = row(number);
      const logits = readRow(this.model, this.steps[number].features, values);
      const bits = logits.reduce((sum, logit, place) => sum + bitsOf(logit, values[place]), 0);
      this.rows.push({ values, logits, bits });
      this.steps[number + 1] = step(this.model, values, this.steps[number].state);
    }
    return { logits: this.rows.slice(0, count).map((r) => r.logits), bits: this.rows.slice(0, count).map((r) => r.bits) };
  }
}

// Continuations of the first `given` rows of a picture, all of them one row further at each turn (a generator, so that
// the page can show each row). Equals helpers.sample, with the random numbers of `seed` in place of torch.rand.
// Yields { row, values, logits }: the row's number, and for each continuation its values and logits.
export function* continuations(reader, picture, { given, count, temperature, seed }) {
  const { model } = reader;
  reader.read(picture, given);
  const random = randomFrom(seed);
  const steps = Array(count).fill(reader.steps[given]);
  for (let row = given; row < model.rows; row++) {
    const chances = steps.map(() => Float64Array.from({ length: model.columns }, random));
    const sampled = steps.map(({ features }, k) => sampleRow(model, features, temperature, chances[k]));
    yield { row, values: sampled.map((s) => s.values), logits: sampled.map((s) => s.logits) };
    if (row + 1 < model.rows) sampled.forEach(({ values }, k) => (steps[k] = step(model, values, steps[k].state)));
  }
}
