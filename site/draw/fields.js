// Which values a prediction can depend on, for the models of notes 5 and 6, worked out from their kernels as in note 6;
// a test compares each with the gradient of the Python model. A kernel is a list of [rows up, columns to the right].

const up = (rows, width) => rows.flatMap((row) => range(-width, width).map((column) => [row, column]));

function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

const ROWS = range(1, 40); // more than any picture here has
const ABOVE = up(ROWS, 40);
const LEFT = range(-40, -1).map((column) => [0, column]);
const WHOLE_ROW = range(-40, 40).map((column) => [0, column]);
const ITSELF = [[0, 0]];
const FIRST = [...up([1, 2, 3], 3), [0, -3], [0, -2], [0, -1]]; // 7 x 7, mask A
const BLOCK = [...up([1], 1), [0, -1], [0, 0]]; // 3 x 3, mask B
const TRIANGLE = [0, ...ROWS].flatMap((row) => up([row], row)); // the Row LSTM's recurrence
const NEAR_LEFT = range(-7, -1).map((column) => [0, column]);

// What a stack of kernels sees: what a layer sees, the layer above sees too, moved by its own kernel.
function stack(...kernels) {
  let seen = ITSELF;
  for (const kernel of kernels) {
    const found = new Map();
    for (const [u, r] of seen) for (const [v, s] of kernel) if (u + v <= 40) found.set((u + v) * 1000 + r + s, [u + v, r + s]);
    seen = [...found.values()];
  }
  return seen;
}

// The Diagonal BiLSTM sees all before, but for the last value of the row above, unless the first kernel reaches it.
function diagonal({ row, column, columns }) {
  const missed = columns - 1 - column > 3;
  return ABOVE.filter(([u, r]) => !(missed && u === 1 && r === columns - 1 - column)).concat(LEFT);
}

// A right-hand map that is not moved down has read its own row, from three columns to the left up to the last but one.
function diagonalNotMoved({ column, columns }) {
  return [...ABOVE, ...LEFT, ...range(0, columns - 2 - column).map((right) => [0, right])];
}

// name -> what it sees, and with which mistake. A function where it depends on the place.
export const FIELDS = {
  "joint row": { sees: [...ABOVE, ...LEFT], bug: "no masks in its head", leaking: [...ABOVE, ...WHOLE_ROW] },
  "independent row": { sees: ABOVE, bug: "input not shifted by one row", leaking: [...ABOVE, ...WHOLE_ROW] },
  "Row LSTM": {
    sees: stack(TRIANGLE, [[0, -1], [0, 0]], FIRST),
    bug: "mask B in the first layer",
    leaking: stack(TRIANGLE, [[0, -1], [0, 0]], [...FIRST, ...ITSELF]),
  },
  "Diagonal BiLSTM": { sees: diagonal, bug: "right-hand map not moved down", leaking: diagonalNotMoved },
  PixelCNN: {
    sees: stack(BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, FIRST),
    bug: "mask B in the first layer",
    leaking: stack(BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, [...FIRST, ...ITSELF]),
  },
  "Gated PixelCNN": {
    sees: [...up(range(1, 8), 7), ...NEAR_LEFT],
    bug: "vertical stack not moved down",
    leaking: up(range(0, 7), 7),
  },
};

// The receptive field of the prediction at (row, column) in a picture of rows x columns: a Uint8Array of 0 and 1.
export function fieldOf(name, broken, row, column, rows, columns) {
  const kernel = FIELDS[name][broken ? "leaking" : "sees"];
  const field = new Uint8Array(rows * columns);
  for (const [u, r] of typeof kernel === "function" ? kernel({ row, column, columns }) : kernel) {
    const inside = row - u >= 0 && row - u < rows && column + r >= 0 && column + r < columns;
    if (inside) field[(row - u) * columns + column + r] = 1;
  }
  return field;
}
