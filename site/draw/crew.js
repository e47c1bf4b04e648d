// The helpers that compute for the page, each with half of the continuations: two threads, so that the page answers the
// reader's hand meanwhile, whatever the processor.

import { makeAnswering } from "./answering.js";
import { TOGETHER } from "./network.js";

export const COUNT = 6; // continuations
const crew = [];

// ask(message): a promise of the answer. Answers come in the order of the messages.
function makeHelper() {
  const answer = makeAnswering();
  const turn = () => new Promise((resolve) => setTimeout(resolve)); // in which the page is shown
  const here = { ask: (message) => turn().then(() => answer(message)) };
  let worker;
  try {
    worker = new Worker(URL.createObjectURL(new Blob([pixelRNNWorker], { type: "text/javascript" })));
  } catch {
    return here; // some browsers give a page none
  }
  const waiting = [];
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.shift();
    if (data.error) reject(new Error(data.error));
    else resolve(data);
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.splice(0)) reject(new Error(event.message || "A thread of this page has ended."));
  };
  const ask = (message) =>
    new Promise((resolve, reject) => {
      waiting.push({ resolve, reject });
      worker.postMessage(message);
    });
  return { ask };
}

function helpers() {
  while (crew.length < COUNT / TOGETHER) crew.push(makeHelper());
  return crew;
}

const tellAll = (message) => Promise.all(helpers().map((helper) => helper.ask(message)));

// Packed weights, which each helper decodes and keeps; an Error where they are damaged.
export const keepWeights = (packed) => tellAll({ packed });

// Work with kept weights from now on.
export const useWeights = (name) => tellAll({ use: name });

// Logits and bits of the first `given` rows of a picture.
export function readRows(picture, given) {
  return helpers()[0].ask({ read: [picture, given] });
}

// Begins continuations with { given, temperature, seed }; a promise of the logits of the given rows.
export async function beginSampling(picture, settings) {
  const each = helpers().map((helper, k) => {
    const own = { ...settings, first: k * TOGETHER, count: TOGETHER, all: COUNT };
    return helper.ask({ sample: [picture, own] });
  });
  return (await Promise.all(each))[0].logits;
}

// The next row of those that were begun last: { row, values, logits }, null after the last row.
export async function nextRow() {
  const parts = (await tellAll({})).map((answer) => answer.row);
  if (!parts[0]) return null;
  const all = (what) => parts.flatMap((part) => part[what]);
  return { row: parts[0].row, values: all("values"), logits: all("logits") };
}
