// What a helper answers, in a thread of its own (worker.js) or, where a browser gives none, in the page's.

import { continuations, Reader } from "./sampling.js";
import { unpackWeights } from "./weights.js";

// Returns answer(message) -> object. Messages: { packed }: decode these weights and keep them. { use: name }: work with
// those. { read: [picture, given] }: logits and bits of the given rows. { sample: [picture, settings] }: their logits, and
// continuations are begun. {}: one row more of those, or null where there is none left.
export function makeAnswering() {
  const models = {};
  let reader = null;
  let rows = null;
  return ({ packed, use, read, sample }) => {
    if (packed) models[packed.name] = unpackWeights(packed);
    else if (use) reader = new Reader(models[use]);
    else if (read) return reader.read(...read);
    else if (sample) {
      const [picture, settings] = sample;
      rows = continuations(reader, picture, settings);
      return reader.read(picture, settings.given);
    } else return { row: rows.next().value ?? null };
    return {};
  };
}
