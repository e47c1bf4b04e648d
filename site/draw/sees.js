// The part of the page that shows receptive fields.

import { FIELDS, fieldOf } from "./fields.js";
import { moved, pointOf } from "./pad.js";
import { paintField } from "./paint.js";
import { SIZE } from "./picture.js";
import { on } from "./tell.js";

// picture(): the drawing, shown above the field. Returns what paints it anew.
export function showFields(picture) {
  const canvas = document.getElementById("field");
  const model = document.getElementById("model");
  const bug = document.getElementById("bug");
  let target = 10 * SIZE + 12;

  for (const name of Object.keys(FIELDS)) model.append(new Option(name, name));

  function paint() {
    const [row, column] = [Math.floor(target / SIZE), target % SIZE];
    const seen = fieldOf(model.value, bug.checked, row, column, SIZE, SIZE);
    const leaks = seen.map((value, i) => (value && i >= target ? 1 : 0));
    paintField(canvas, picture(), target, seen, leaks);
    document.getElementById("bug-name").textContent = FIELDS[model.value].bug;
    const count = (values) => values.reduce((sum, value) => sum + value, 0);
    const leaked = count(leaks);
    let text = `Row ${row + 1}, column ${column + 1}: the ${model.value} sees`;
    text += ` ${count(seen) - leaked} of ${target} values before it`;
    if (leaked) {
      const later = leaked - leaks[target];
      const own = leaks[target] ? "its own value" : "";
      const others = later ? `${later} later ${later === 1 ? "one" : "ones"}` : "";
      text += `, and ${[own, others].filter(Boolean).join(" and ")}: target leakage`;
    }
    document.getElementById("field-text").textContent = `${text}.`;
  }

  on(canvas, "pointermove", (event) => {
    const { x, y } = pointOf(canvas, event);
    const within = (value) => Math.min(SIZE - 1, Math.max(0, Math.floor(value)));
    const pixel = within(y) * SIZE + within(x);
    if (pixel === target) return;
    target = pixel;
    paint();
  });
  on(canvas, "pointerdown", (event) => {
    const { x, y } = pointOf(canvas, event);
    target = Math.min(SIZE - 1, Math.floor(y)) * SIZE + Math.min(SIZE - 1, Math.floor(x));
    paint();
  });
  on(canvas, "keydown", (event) => {
    const next = moved(target, event.key);
    if (next === null || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    target = next;
    paint();
  });
  on(model, "change", paint);
  on(bug, "change", paint);
  paint();
  return paint;
}
