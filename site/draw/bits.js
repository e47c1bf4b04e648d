// The bits of each given row, which a helper reads while somebody draws.

import { readRows } from "./crew.js";
import { paintBits } from "./paint.js";
import { state } from "./state.js";
import { at, guarded, say } from "./tell.js";

let reading = false;
let again = false;

// Reads the drawing as it is now and shows its bits; of many changes that come while one is read, the last alone.
export const readBits = guarded(async () => {
  again = true;
  if (reading) return;
  reading = true;
  try {
    while (again) {
      again = false;
      const { picture, given } = state;
      const { bits } = await readRows(picture, given);
      if (given === state.given) showBits(bits, given);
    }
  } finally {
    reading = false;
  }
});

function showBits(bits, given) {
  paintBits(at("bits"), bits);
  const total = bits.reduce((sum, value) => sum + value, 0);
  const rows = given === 1 ? "1 row" : `${given} rows`;
  say("surprise", given ? `${rows} given: ${total.toFixed(1)} bits` : "Nothing is given yet.");
  const inAll = given ? `${total.toFixed(1)} in all` : "none yet";
  at("bits").setAttribute("aria-label", `Bits of each given row, ${inAll}`);
  let sum = 0;
  const line = (...cells) => `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  const lines = bits.map((value, row) => line(row + 1, value.toFixed(2), (sum += value).toFixed(2)));
  at("rows").innerHTML = lines.join("");
}
