// The trained weights, checked before use.

import { crc32 } from "./bytes.js";

const FORMAT = 1; // tools/page.py writes the same number

// The number that 16 bits stand for (IEEE 754 half precision).
function fromHalf(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
  return bits & 0x8000 ? -size : size;
}

// What tools/page.py packed, as a model: its sizes, its card, and an array for each part.
export function unpackWeights(packed) {
  if (!packed || packed.format !== FORMAT) {
    throw new Error(`They are of format ${packed && packed.format}; this page reads format ${FORMAT}.`);
  }
  let text;
  try {
    text = atob(packed.data);
  } catch {
    throw new Error("They are damaged.");
  }
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i); // Uint8Array.from takes ten times as long
  if (crc32(bytes) !== packed.crc32) throw new Error("They are damaged: their checksum differs.");
  const halves = new DataView(bytes.buffer);
  const { columns, hidden, embedding, card } = packed;
  const model = { name: packed.name, columns, rows: columns, hidden, embedding, card };
  let place = 0;
  for (const [part, count] of packed.parts) {
    model[part] = new Float32Array(count);
    for (let i = 0; i < count; i++, place += 2) model[part][i] = fromHalf(halves.getUint16(place, true));
  }
  model.bias = model.inputBias.map((value, i) => value + model.hiddenBias[i]); // torch keeps the two apart
  if (place !== bytes.length) throw new Error("They are damaged: some are missing.");
  return model;
}
