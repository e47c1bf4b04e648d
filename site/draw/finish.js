// Continuations on the page: sampled row by row, painted as they come.

import { beginSampling, COUNT, nextRow } from "./crew.js";
import { sigmoid } from "./network.js";
import { paintChances, paintContinuation } from "./paint.js";
import { emptyPicture, SIZE } from "./picture.js";
import { bitsOf } from "./sampling.js";
import { on } from "./tell.js";

const FRAME = 16; // milliseconds: no row is shown for less, so that one sees the rows come

export function nextFrame() {
  // A tab that is not seen gets no frames, and is not to wait for ever.
  return new Promise((resolve) => {
    const late = setTimeout(resolve, 200);
    requestAnimationFrame(() => {
      clearTimeout(late);
      resolve();
    });
  });
}

function chanceAt(logit, temperature) {
  return temperature === 0 ? Number(logit > 0) : sigmoid(logit / temperature);
}

// The probabilities of the given rows, from their logits; NaN below.
function chancesOfGiven(logits, temperature) {
  const chances = new Float64Array(SIZE * SIZE).fill(NaN);
  logits.forEach((row, number) => chances.set(row.map((logit) => chanceAt(logit, temperature)), number * SIZE));
  return chances;
}

// choose(k) where tile k is pressed; look(k) where its probabilities are asked for, by pointing or with the keyboard,
// look(null) where they are not any more.
export function makeTiles(list, choose, look) {
  return Array.from({ length: COUNT }, (_, k) => {
    const item = document.createElement("li");
    const canvas = '<canvas width="224" height="224" aria-hidden="true"></canvas>';
    item.innerHTML = `<button type="button" aria-pressed="${k === 0}">${canvas}<span></span></button>`;
    const button = item.firstChild;
    on(button, "click", () => choose(k));
    on(button, "pointerenter", ({ pointerType }) => pointerType !== "touch" && look(k));
    on(button, "pointerleave", ({ pointerType }) => pointerType !== "touch" && look(null));
    on(button, "focus", () => button.matches(":focus-visible") && look(k));
    on(button, "blur", () => look(null));
    list.append(item);
    const tile = { button, canvas: button.querySelector("canvas"), text: button.querySelector("span") };
    clearTile(tile, k);
    return tile;
  });
}

export function clearTile(tile, k) {
  tile.shown = null;
  tile.canvas.getContext("2d").clearRect(0, 0, tile.canvas.width, tile.canvas.height);
  tile.text.textContent = "\u00a0";
  tile.button.setAttribute("aria-label", `Continuation ${k + 1}: none yet`);
}

// What was sampled, or where it is looked at the probabilities from which that was.
export function paintTile(tile, results, k, looked) {
  tile.shown = results;
  if (looked === k) paintChances(tile.canvas, results.chances[k], results.given);
  else paintContinuation(tile.canvas, results.pictures[k], results.given, results.rows);
  if (results.rows < SIZE) return;
  tile.text.textContent = `${results.bits[k].toFixed(0)} bits`;
  tile.button.setAttribute("aria-label", `Continuation ${k + 1}: ${tile.text.textContent}`);
}

// Samples and paints. `current()` says whether this run is still wanted. `looked()`: the continuation whose probabilities
// are shown, or null. Returns the results, or null where another run has taken over.
export async function finish(picture, settings, { tiles, looked, current }) {
  const { given, temperature } = settings;
  const begun = beginSampling(picture, settings);
  let next = nextRow();
  const logits = await begun;
  const start = emptyPicture();
  start.set(picture.slice(0, given * SIZE));
  const results = { ...settings, rows: given, pictures: [], chances: [], bits: [] };
  for (let k = 0; k < COUNT; k++) {
    results.pictures.push(start.slice());
    results.chances.push(chancesOfGiven(logits, temperature));
    results.bits.push(0);
  }
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches; // then all rows appear at once
  const paint = () => tiles.forEach((tile, k) => paintTile(tile, results, k, looked()));
  const started = performance.now();
  for (let sampled = await next; sampled; sampled = await next) {
    if (!current()) return null; // before the next row is asked for, which would be one of the other run
    next = nextRow();
    for (let k = 0; k < COUNT; k++) {
      results.pictures[k].set(sampled.values[k], sampled.row * SIZE);
      results.chances[k].set(sampled.logits[k].map((logit) => chanceAt(logit, temperature)), sampled.row * SIZE);
      sampled.logits[k].forEach((logit, place) => (results.bits[k] += bitsOf(logit, sampled.values[k][place])));
    }
    results.rows = sampled.row + 1;
    if (still) continue;
    paint();
    if (performance.now() - started < (results.rows - given) * FRAME) await nextFrame();
  }
  if (!current()) return null;
  paint();
  return results;
}
