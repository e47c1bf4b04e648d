// The page: its state, and what is shown of it.

import { chancesOfGiven, COUNT, finish, makeTiles } from "./finish.js";
import { paintBits, paintChances, paintDrawing } from "./paint.js";
import { emptyPicture, rowsWithInk, SIZE } from "./picture.js";
import { newSeed } from "./random.js";
import { Reader } from "./sampling.js";
import { showFields } from "./sees.js";
import { toFragment } from "./share.js";
import { loadModel } from "./weights.js";

export const at = (id) => document.getElementById(id);
export const say = (id, text) => (at(id).textContent = text);

// seed: of the continuations that are shown, null where there are none. cursor: the keyboard's pixel.
export const state = {
  name: "letters", picture: emptyPicture(), given: 0, temperature: 1, seed: null,
  reader: null, results: null, chosen: 0, run: 0, busy: false, cursor: null, undo: [],
};

export function fail(error) {
  at("error").hidden = false;
  say("error", error.message);
}

export const tiles = makeTiles(at("tiles"), choose);
const paintFields = showFields(() => state.picture);
let waiting = false;

// Paints in the next frame, once, however many changes come before it.
export function paintSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
  });
}

export function paint() {
  const { picture, given, results } = state;
  paintDrawing(at("pad"), picture, given, state.cursor);
  paintFields();
  at("given").value = given;
  say("given-value", given);
  at("temperature").value = state.temperature;
  say("temperature-value", state.temperature.toFixed(1));
  at("undo").disabled = !state.undo.length;
  say("shown", `(continuation ${state.chosen + 1})`);
  for (const id of ["adopt", "png", "apng"]) at(id).disabled = !results;
  tiles.forEach(({ button }, k) => button.setAttribute("aria-pressed", k === state.chosen));
  if (!state.reader) return;
  const { bits, logits } = state.reader.read(picture, given);
  paintBits(at("bits"), bits);
  if (results) paintChances(at("chances"), results.chances[state.chosen], results.given);
  else if (!state.busy) paintChances(at("chances"), chancesOfGiven(logits, state.temperature), given);
  const total = bits.reduce((sum, value) => sum + value, 0);
  const most = bits.indexOf(Math.max(...bits));
  const rows = given === 1 ? "1 row" : `${given} rows`;
  let text = given ? `${rows} given: ${total.toFixed(1)} bits` : "No rows given yet.";
  if (given) text += `, most of them in row ${most + 1} (${bits[most].toFixed(1)} bits). The more bits, the more surprised the network is.`;
  say("surprise", text);
  at("bits").setAttribute("aria-label", given ? `Bits of each given row, ${total.toFixed(1)} in all` : "Bits of each given row: none yet");
  let sum = 0;
  const line = (value, row) => `<tr><td>${row + 1}</td><td>${value.toFixed(2)}</td><td>${(sum += value).toFixed(2)}</td></tr>`;
  at("rows").innerHTML = bits.map(line).join("");
}

// The continuations that are shown are not those of the drawing any more.
export function outdated() {
  state.run++;
  state.busy = false;
  state.results = state.seed = null;
}

export function changed() {
  outdated();
  state.given = rowsWithInk(state.picture);
  say("status", "The drawing has changed. Lift the pen, or press Enter, for new continuations.");
  paintSoon();
}

export function remember() {
  state.undo.push(state.picture.slice());
  if (state.undo.length > 100) state.undo.shift();
}

export function keepInLink() {
  try {
    history.replaceState(null, "", toFragment(state));
  } catch {
    // Some browsers allow it to no page that is opened from a file: then the address stays as it is.
  }
}

export function clearTiles() {
  tiles.forEach(({ button, canvas, text }, k) => {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    text.textContent = "\u00a0";
    button.setAttribute("aria-label", `Continuation ${k + 1}: none yet`);
  });
}

function choose(k) {
  state.chosen = k;
  paint();
}

export async function proceed(seed = newSeed()) {
  if (!state.reader) return;
  outdated();
  if (state.given === SIZE) {
    say("status", `All ${SIZE} rows are given: nothing is left to sample. Give fewer rows.`);
    keepInLink();
    return paint();
  }
  const run = state.run;
  Object.assign(state, { busy: true, seed });
  say("status", "Sampling \u2026");
  const started = performance.now();
  const settings = { given: state.given, temperature: state.temperature, seed };
  const page = { tiles, shown: at("chances"), chosen: () => state.chosen, current: () => run === state.run };
  const results = await finish(state.reader, state.picture, settings, page);
  if (!results) return;
  Object.assign(state, { results, busy: false, milliseconds: performance.now() - started });
  const [least, most] = [Math.min(...results.bits), Math.max(...results.bits)].map((bits) => bits.toFixed(0));
  const rows = state.given === 1 ? "1 given row" : `${state.given} given rows`;
  say("status", `${COUNT} ways to go on from ${rows}, which take ${least} to ${most} bits. Choose one to see its probabilities.`);
  keepInLink();
  paint();
}

// Loads a set of weights; where that fails, the one before stays.
export async function use(name) {
  try {
    const model = await loadModel(name);
    Object.assign(state, { name, reader: new Reader(model) });
    at("error").hidden = true;
    const { what, data } = model.card;
    say("about", `The network: ${what}; here it reads in raster order. It learned from: ${data} (${model.card["licence of what it learned from"]}).`);
  } catch (error) {
    fail(error);
  }
  at("loading").hidden = true;
  document.querySelector(`[name=set][value=${state.name}]`).checked = true;
  for (const id of ["continue", "nothing"]) at(id).disabled = !state.reader;
}
