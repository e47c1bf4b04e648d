// The page that shows receptive fields (sees.html).

import { FIELDS, fieldOf } from "./fields.js";
import { moved, pointOf } from "./pad.js";
import { paintField } from "./paint.js";
import { SIZE } from "./picture.js";
import { at, on, say } from "./tell.js";

const canvas = at("field");
const model = at("model");
const bug = at("bug");
let target = 10 * SIZE + 12;

for (const name of Object.keys(FIELDS)) model.append(new Option(name, name));

function show() {
  const [row, column] = [Math.floor(target / SIZE), target % SIZE];
  const seen = fieldOf(model.value, bug.checked, row, column, SIZE, SIZE);
  const leaks = seen.map((value, i) => (value && i >= target ? 1 : 0));
  paintField(canvas, target, seen, leaks);
  say("bug-name", FIELDS[model.value].bug);
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
  say("field-text", `${text}.`);
}

on(canvas, "pointermove", (event) => {
  const { x, y } = pointOf(canvas, event);
  const within = (value) => Math.min(SIZE - 1, Math.max(0, Math.floor(value)));
  const pixel = within(y) * SIZE + within(x);
  if (pixel === target) return;
  target = pixel;
  show();
});
on(canvas, "pointerdown", (event) => {
  const { x, y } = pointOf(canvas, event);
  target = Math.min(SIZE - 1, Math.floor(y)) * SIZE + Math.min(SIZE - 1, Math.floor(x));
  show();
});
on(canvas, "keydown", (event) => {
  const next = moved(target, event.key);
  if (next === null || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  target = next;
  show();
});
on(model, "change", show);
on(bug, "change", show);
show();
