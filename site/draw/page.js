// The page: its state, and what is shown of it.

import { readBits } from "./bits.js";
import { COUNT } from "./crew.js";
import { clearTile, finish, makeTiles, paintTile } from "./finish.js";
import { paintDrawing } from "./paint.js";
import { rowsGiven, rowsWithInk, SIZE } from "./picture.js";
import { newSeed } from "./random.js";
import { toFragment } from "./share.js";
import { earlier, keepEarlier, remember, state } from "./state.js";
import { at, guarded, say } from "./tell.js";

export const tiles = makeTiles(at("tiles"), choose, look);
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
  at("given").value = given;
  say("given-value", given);
  at("temperature").value = state.temperature;
  say("temperature-value", state.temperature.toFixed(1));
  enable("undo", state.undo.length > 0);
  for (const id of ["adopt", "share", "png", "apng"]) enable(id, results !== null);
  tiles.forEach(({ button }, k) => button.setAttribute("aria-pressed", k === state.chosen));
  at("examples").hidden = !state.example && rowsWithInk(picture) > 0;
  if (state.card) readBits();
}

// The continuations that are shown are not those of the drawing any more.
export function outdated() {
  state.run++;
  state.busy = false;
  state.results = state.seed = null;
}

// A control that can be used or not. The focus does not get lost with the one that has it.
function enable(id, can) {
  const has = document.activeElement === at(id);
  at(id).disabled = !can;
  if (has && !can) at("pad").focus({ preventScroll: true });
}

// whole: also the last row of the drawing is meant as it is, as with the keyboard, whose pen has no round end.
export function changed(whole = false) {
  keepEarlier();
  outdated();
  state.given = whole ? rowsWithInk(state.picture) : rowsGiven(state.picture);
  say("status", "Lift the pen, or press Enter, for new continuations.");
  paintSoon();
}

// Another drawing takes the place of this one, which Undo brings back where the two differ.
export function replace(picture) {
  remember();
  state.picture = picture;
  changed();
}

// The drawing before the last change. Says whether there was one.
export function takeBack() {
  if (!earlier()) return false;
  changed();
  return true;
}

// Without a drawing of the reader's, or continuations, the address says nothing.
export function keepInLink() {
  const empty = state.example === "shown" || (!rowsWithInk(state.picture) && state.seed === null);
  try {
    history.replaceState(null, "", empty ? location.pathname + location.search : toFragment(state));
  } catch {
    // Some browsers allow it to no page that is opened from a file: then the address stays as it is.
  }
}

export function clearTiles() {
  tiles.forEach(clearTile);
}

function choose(k) {
  const again = state.looked === k && state.chosen === k;
  state.chosen = k;
  if (matchMedia("(hover: none)").matches) look(again ? null : k);
  if (state.results) keepInLink();
  paint();
}

function look(k) {
  const changing = new Set([state.looked, k]);
  state.looked = k;
  tiles.forEach((tile, number) => {
    if (changing.has(number) && tile.shown) paintTile(tile, tile.shown, number, k);
  });
}

export const proceed = guarded(async (seed = newSeed()) => {
  if (!state.card) return;
  outdated();
  if (state.given === SIZE) {
    say("status", `All ${SIZE} rows are given: nothing is left to sample. Give fewer rows.`);
    keepInLink();
    return paint();
  }
  const run = state.run;
  Object.assign(state, { busy: true, seed, last: seed });
  say("status", "Sampling \u2026");
  const started = performance.now();
  const settings = { given: state.given, temperature: state.temperature, seed };
  const page = { tiles, looked: () => state.looked, current: () => run === state.run };
  const results = await finish(state.picture, settings, page);
  if (!results) return;
  Object.assign(state, { results, busy: false, milliseconds: performance.now() - started });
  const [least, most] = [Math.min(...results.bits), Math.max(...results.bits)].map((bits) => bits.toFixed(0));
  const rows = state.given === 1 ? "1 row" : `${state.given} rows`;
  const yours = state.example === "shown" ? " Now draw your own." : "";
  say("status", `${COUNT} ways to go on from ${rows}: ${least} to ${most} bits.${yours}`);
  keepInLink();
  paint();
});
