// The trained weights: loaded by a script tag, since a page opened from a file may not fetch, and checked before use.

import { crc32 } from "./bytes.js";

const FORMAT = 1; // tools/page.py writes the same number
const models = {}; // name -> the promise of a model

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

// The model of that name; an Error that says what is wrong where it cannot be had.
export function loadModel(name) {
  models[name] ||= load(name).catch((error) => {
    delete models[name]; // so that the next try asks again
    throw error;
  });
  return models[name];
}

function load(name) {
  const file = `weights-${name}.js`;
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onerror = () => {
      script.remove();
      reject(new Error(`The weights of ${name} did not load: is ${file} beside this page, and are you online?`));
    };
    script.onload = () => {
      script.remove();
      const store = window.pixelRNNWeights || {};
      try {
        if (!store[name]) throw new Error("They are damaged, or are something else.");
        resolve(unpackWeights(store[name]));
      } catch (error) {
        reject(new Error(`The weights of ${name} (${file}) cannot be used. ${error.message}`));
      }
      delete store[name]; // the text, which is not needed any more
    };
    document.head.append(script);
  });
}
