// What the page holds, and the drawings before, which Undo brings back.

import { emptyPicture } from "./picture.js";

const MOST = 100; // drawings that are kept

// seed: of the continuations that are shown, null where there are none. last: the seed that was used last. chosen: the
// tile that can be drawn on. looked: the tile that shows its probabilities, or null. before: the drawing ahead of a change
// that may not have come yet. cursor: the keyboard's pixel. name: the set of weights in use. wanted: the one that was
// chosen last, whose weights may still be loading. example: null, or "shown" where the drawing drew
// itself, and is not the reader's, or "tapped" where it is an example that the reader chose.
export const state = {
  name: "digits", wanted: null, picture: emptyPicture(), given: 0, temperature: 0.7, seed: null, last: null,
  card: null, results: null, chosen: 0, looked: null, run: 0, busy: false, cursor: null, undo: [], before: null,
  example: null,
};

// Ahead of what may change the drawing. One that drew itself goes.
export function remember() {
  if (state.example === "shown") state.picture = emptyPicture();
  state.example = null;
  state.before = state.picture.slice();
}

// After it: the drawing before is kept if it was another one, so that Undo takes no step at which nothing happens.
export function keepEarlier() {
  if (!state.before || state.before.every((value, i) => value === state.picture[i])) return;
  state.undo.push(state.before);
  if (state.undo.length > MOST) state.undo.shift();
  state.before = null;
}

// Brings the drawing before back. Says whether there was one.
export function earlier() {
  if (!state.undo.length) return false;
  state.picture = state.undo.pop();
  state.before = null;
  return true;
}
