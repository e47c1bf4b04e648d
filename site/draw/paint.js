// Pictures on canvases. Each function draws all of its canvas anew.

import { SIZE } from "./picture.js";

const GIVEN = "#d55e00"; // the line below the given rows: the orange of the notebooks
const GRID = "rgba(0, 0, 0, 0.07)";

function cells(canvas) {
  const paper = canvas.getContext("2d");
  const cell = canvas.height / SIZE;
  paper.fillStyle = "#fff"; // paper, whatever colours the system forces on the page
  paper.fillRect(0, 0, canvas.width, canvas.height);
  const fill = (index, color, width = cell) => {
    paper.fillStyle = color;
    paper.fillRect((index % SIZE) * cell, Math.floor(index / SIZE) * cell, width, cell);
  };
  return { paper, cell, fill };
}

function grid(paper, cell) {
  paper.fillStyle = GRID;
  for (let i = 1; i < SIZE; i++) {
    paper.fillRect(i * cell, 0, 1, SIZE * cell);
    paper.fillRect(0, i * cell, SIZE * cell, 1);
  }
}

// How far the given part reaches; with its name, so that the line is not told by its colour alone.
function givenLine(paper, cell, given, named) {
  const y = Math.min(given * cell, SIZE * cell - 1.5);
  paper.fillStyle = GIVEN;
  paper.fillRect(0, Math.max(0, y - 1.5), SIZE * cell, 3);
  if (!named) return;
  paper.font = `600 ${cell * 1.1}px system-ui, sans-serif`;
  const text = given ? "given \u2191" : "nothing given";
  const below = given < SIZE - 2;
  paper.fillStyle = "#a84900";
  paper.textAlign = "right";
  paper.fillText(text, SIZE * cell - 4, below ? y + cell * 1.3 : y - cell * 0.5);
}

// Where most pictures stand that the networks learned from.
function frame(paper, cell) {
  paper.strokeStyle = "rgba(11, 90, 148, 0.35)";
  paper.lineWidth = 1;
  paper.setLineDash([cell / 2, cell / 2]);
  paper.strokeRect(4 * cell + 0.5, 4 * cell + 0.5, 20 * cell, 20 * cell);
  paper.setLineDash([]);
}

// A drawing; ink below the given rows is pale, since the network does not see it. cursor: the keyboard's pixel, or null.
export function paintDrawing(canvas, picture, given, cursor) {
  const { paper, cell, fill } = cells(canvas);
  picture.forEach((value, i) => value && fill(i, i < given * SIZE ? "#000" : "#c9c4bb"));
  grid(paper, cell);
  frame(paper, cell);
  givenLine(paper, cell, given, true);
  if (cursor === null) return;
  paper.strokeStyle = "#0b5a94";
  paper.lineWidth = 3;
  paper.strokeRect((cursor % SIZE) * cell - 1, Math.floor(cursor / SIZE) * cell - 1, cell + 2, cell + 2);
}

const small = document.createElement("canvas"); // a pixel of it is a value; enlarged at once, which is quick
small.width = small.height = SIZE;

// color(i): the colour of value i, a number 0xBBGGRR.
function paintValues(canvas, color) {
  const values = new Uint32Array(SIZE * SIZE).map((_, i) => 0xff000000 | color(i));
  const paper = small.getContext("2d");
  paper.putImageData(new ImageData(new Uint8ClampedArray(values.buffer), SIZE, SIZE), 0, 0);
  const large = canvas.getContext("2d");
  large.imageSmoothingEnabled = false;
  large.drawImage(small, 0, 0, canvas.width, canvas.height);
  return large;
}

// A continuation, as far as it is generated: `rows` rows. The given part is black, what was sampled is blue.
export function paintContinuation(canvas, picture, given, rows) {
  const ink = (i) => (i < given * SIZE ? 0x000000 : 0x8a4f0b);
  const paper = paintValues(canvas, (i) => (picture[i] && i < rows * SIZE ? ink(i) : 0xffffff));
  givenLine(paper, canvas.height / SIZE, given, false);
}

// From white (0) over blue to dark blue (1), in hundredths.
const SCALE = Array.from({ length: 101 }, (_, i) => {
  const stops = [[255, 255, 255], [33, 113, 181], [8, 48, 107]];
  const [at, from] = i < 60 ? [i / 60, 0] : [(i - 60) / 40, 1];
  const [red, green, blue] = stops[from].map((value, c) => Math.round(value + at * (stops[from + 1][c] - value)));
  return (blue << 16) | (green << 8) | red;
});

// The probability of ink of each pixel; NaN where it is not known yet.
export function paintChances(canvas, chances, given) {
  const color = (i) => (Number.isNaN(chances[i]) ? 0xeaedef : SCALE[Math.round(100 * chances[i])]);
  const paper = paintValues(canvas, color);
  givenLine(paper, canvas.height / SIZE, given, false);
}

// A bar for each given row, beside the row.
export function paintBits(canvas, bits) {
  const paper = canvas.getContext("2d");
  const cell = canvas.height / SIZE;
  paper.clearRect(0, 0, canvas.width, canvas.height);
  const color = getComputedStyle(canvas).color;
  const longest = Math.max(10, ...bits);
  paper.font = `${cell * 0.95}px system-ui, sans-serif`;
  bits.forEach((value, row) => {
    paper.fillStyle = "#3f8fcb";
    const room = canvas.width - 2.4 * cell;
    paper.fillRect(4, row * cell + 2, Math.max(1, (value / longest) * room), cell - 4);
    if (value < 0.5) return;
    paper.fillStyle = color;
    paper.fillText(value.toFixed(value < 9.95 ? 1 : 0), 8 + (value / longest) * room, (row + 0.85) * cell);
  });
}

// A receptive field: `target` is predicted, `seen` may be depended on, `leaks` may not. Leaks are crossed as well.
export function paintField(canvas, target, seen, leaks) {
  const { paper, cell, fill } = cells(canvas);
  seen.forEach((value, i) => value && fill(i, leaks[i] ? "#ffb27a" : "#9ecae1"));
  if (!leaks[target]) fill(target, "#ffd9b3");
  grid(paper, cell);
  paper.strokeStyle = "#8f3d00";
  paper.lineWidth = 2;
  paper.beginPath();
  leaks.forEach((value, i) => {
    if (!value) return;
    const [x, y] = [(i % SIZE) * cell, Math.floor(i / SIZE) * cell];
    paper.moveTo(x + 3, y + 3);
    paper.lineTo(x + cell - 3, y + cell - 3);
    paper.moveTo(x + cell - 3, y + 3);
    paper.lineTo(x + 3, y + cell - 3);
  });
  paper.stroke();
  paper.strokeStyle = "#000";
  paper.lineWidth = 3;
  paper.strokeRect((target % SIZE) * cell, Math.floor(target / SIZE) * cell, cell, cell);
}
