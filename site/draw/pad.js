// Drawing on a canvas with a mouse, a pen, fingers or the keyboard.

import { SIZE, stroke } from "./picture.js";
import { on } from "./tell.js";

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// The pixel that an arrow key leads to, or null for another key.
export function moved(pixel, key) {
  if (!ARROWS[key]) return null;
  const [down, right] = ARROWS[key];
  const within = (value) => Math.min(SIZE - 1, Math.max(0, value));
  return within(Math.floor(pixel / SIZE) + down) * SIZE + within((pixel % SIZE) + right);
}

// Where an event is on a canvas, in pixels of the picture.
export function pointOf(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const border = canvas.clientLeft;
  return {
    x: ((event.clientX - box.left - border) / canvas.clientWidth) * SIZE,
    y: ((event.clientY - box.top - border) / canvas.clientHeight) * SIZE,
  };
}

// Makes a canvas a drawing pad. It asks `picture()` for the picture that it changes, and `pen()` for the width (0: an
// eraser), and calls before() ahead of a change, changed() after each, changed(true) after one by the keyboard, lifted()
// when the pen is lifted, moving(pixel) when the keyboard's place changes (null: it has left), and enter().
export function makePad(canvas, { picture, pen, before, changed, lifted, moving, enter }) {
  let pointer = null; // the one that draws: a second finger does not
  let last = null;
  let cursor = 0;

  const draw = (event) => {
    const point = pointOf(canvas, event);
    const erase = pen() === 0 || (event.buttons & 34) !== 0; // the right button, or the other end of a pen
    stroke(picture(), last || point, point, pen() || 3.2, erase ? 0 : 1);
    last = point;
    changed();
  };
  const lift = (event) => {
    if (event.pointerId !== pointer) return;
    pointer = last = null;
    lifted();
  };
  on(canvas, "pointerdown", (event) => {
    // A pointer without capture has gone, though nothing told the end of its stroke.
    const another = pointer !== event.pointerId && pointer !== null && canvas.hasPointerCapture(pointer);
    if (another || (event.pointerType === "mouse" && event.button === 1)) return;
    pointer = event.pointerId;
    last = null;
    canvas.setPointerCapture(pointer);
    moving(null);
    before();
    draw(event);
  });
  on(canvas, "pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    if (event.buttons === 0) return lift(event); // lifted where the page was not told
    const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    (all.length ? all : [event]).forEach(draw);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) on(canvas, end, lift);
  on(canvas, "contextmenu", (event) => event.preventDefault());

  on(canvas, "keydown", (event) => {
    const next = moved(cursor, event.key);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (next !== null) {
      cursor = next;
      if (event.shiftKey) set(1);
    } else if (event.key === " ") {
      set(1 - picture()[cursor]);
    } else if (event.key === "Enter") {
      enter();
    } else return;
    event.preventDefault();
    moving(cursor);
  });
  on(canvas, "focus", () => canvas.matches(":focus-visible") && moving(cursor));
  on(canvas, "blur", () => moving(null));

  function set(value) {
    before();
    picture()[cursor] = value;
    changed(true);
  }
}
