// Pictures of 28 x 28 values 0 and 1, in a Uint8Array: what the reader draws.

import { fromLinkText, toLinkText } from "./bytes.js";

export const SIZE = 28;

export function emptyPicture() {
  return new Uint8Array(SIZE * SIZE);
}

// How many rows there are down to the last one with ink.
export function rowsWithInk(picture) {
  return Math.floor(picture.lastIndexOf(1) / SIZE) + 1;
}

// How many rows of a drawing are given: those with ink but the last, which holds the round end of the pen. A network takes
// such an end for the end of a line.
export function rowsGiven(picture) {
  const rows = rowsWithInk(picture);
  return rows > 1 ? rows - 1 : rows;
}

// A round pen at (x, y), in pixels from the corner; width in pixels. Returns nothing; changes the picture.
function dot(picture, x, y, width, value) {
  const radius = Math.max(width, 1) / 2;
  for (let row = Math.floor(y - radius); row <= y + radius; row++) {
    for (let column = Math.floor(x - radius); column <= x + radius; column++) {
      if (row < 0 || column < 0 || row >= SIZE || column >= SIZE) continue;
      const inside = Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius;
      const under = Math.floor(x) === column && Math.floor(y) === row;
      if (inside || under) picture[row * SIZE + column] = value;
    }
  }
}

// The pen moved from one point to another.
export function stroke(picture, from, to, width, value) {
  const steps = Math.ceil(4 * Math.hypot(to.x - from.x, to.y - from.y)) || 1;
  for (let i = 0; i <= steps; i++) {
    const part = i / steps;
    dot(picture, from.x + part * (to.x - from.x), from.y + part * (to.y - from.y), width, value);
  }
}

// 784 values as 98 bytes, in letters that a link may hold.
export function pictureToText(picture) {
  const bytes = new Uint8Array(picture.length / 8);
  picture.forEach((value, i) => (bytes[i >> 3] |= value << (7 - (i & 7))));
  return toLinkText(bytes);
}

export function pictureFromText(text) {
  const bytes = fromLinkText(text);
  if (bytes.length !== (SIZE * SIZE) / 8) throw new Error("The drawing in the link is damaged.");
  return emptyPicture().map((_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
}
