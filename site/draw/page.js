// The page: its state, and what is shown of it.

import { chancesOfGiven, clearTile, COUNT, finish, makeTiles } from "./finish.js";
import { paintBits, paintChances, paintDrawing } from "./paint.js";
import { emptyPicture, rowsWithInk, SIZE } from "./picture.js";
import { newSeed } from "./random.js";
import { showFields } from "./sees.js";
import { toFragment } from "./share.js";
import { at, guarded, say } from "./tell.js";

// seed: of the continuations that are shown, null where there are none. cursor: the keyboard's pixel. name: the set of
// weights in use. wanted: the one that was chosen last, whose weights may still be loading.
export const state = {
  name: "letters", wanted: null, picture: emptyPicture(), given: 0, temperature: 1, seed: null,
  reader: null, results: null, chosen: 0, run: 0, busy: false, cursor: null, undo: [],
};

export const tiles = makeTiles(at("tiles"), choose);
const paintFields = showFields(() => state.picture);
let waiting = false;

// Paints in the next frame, once, however many changes come before it.
export function paintSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(guarded(() => {
    waiting = false;
    paint();
  }));
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
  say("shown", `(number ${state.chosen + 1})`);
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
  if (given) {
    text += `, the most in row ${most + 1} (${bits[most].toFixed(1)} bits).`;
    text += " The more bits, the more surprised the network is.";
  }
  say("surprise", text);
  const inAll = given ? `${total.toFixed(1)} in all` : "none yet";
  at("bits").setAttribute("aria-label", `Bits of each given row, ${inAll}`);
  let sum = 0;
  const line = (...cells) => `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  const lines = bits.map((value, row) => line(row + 1, value.toFixed(2), (sum += value).toFixed(2)));
  at("rows").innerHTML = lines.join("");
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

// Another drawing takes the place of this one, which Undo brings back where the two differ.
export function replace(picture) {
  if (picture.some((value, i) => value !== state.picture[i])) remember();
  state.picture = picture;
  changed();
}

export function keepInLink() {
  try {
    history.replaceState(null, "", toFragment(state));
  } catch {
    // Some browsers allow it to no page that is opened from a file: then the address stays as it is.
  }
}

export function clearTiles() {
  tiles.forEach(clearTile);
}

function choose(k) {
  state.chosen = k;
  paint();
}

export const proceed = guarded(async (seed = newSeed()) => {
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
  const taken = `${COUNT} ways to go on from ${rows}, which take ${least} to ${most} bits`;
  say("status", `${taken}. Choose one to see its probabilities.`);
  keepInLink();
  paint();
});
