// On the first visit a stroke draws itself and is finished, so that one sees what the page does.

import { EXAMPLES, example } from "./examples.js";
import { nextFrame } from "./finish.js";
import { changed } from "./page.js";
import { state } from "./state.js";
import { say } from "./tell.js";

const DURATION = 900; // milliseconds

// Says whether the stroke was drawn to its end: not where the reader began to draw meanwhile.
export async function drawItself(name, pen) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches; // then it is there at once
  const started = performance.now();
  const points = EXAMPLES[name].flat().length;
  let part = 0;
  state.example = "shown";
  while (state.example && part < 1) {
    part = still ? 1 : Math.min(1, (performance.now() - started) / DURATION);
    state.picture = example(name, pen, Math.ceil(part * points));
    changed();
    say("status", "A stroke draws itself. Draw your own when you like.");
    if (part < 1) await nextFrame();
  }
  return state.example !== null;
}
