// Weights are loaded by a script tag, since a page opened from a file may not fetch.

import { keepWeights } from "./crew.js";

const cards = {}; // name -> the promise of a card

// Has the helpers keep the weights of that name; a promise of their card, or of an Error that says what is wrong.
export function loadWeights(name) {
  cards[name] ||= load(name).catch((error) => {
    delete cards[name]; // so that the next try asks again
    throw error;
  });
  return cards[name];
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
    script.onload = async () => {
      script.remove();
      const packed = (window.pixelRNNWeights || {})[name];
      try {
        if (!packed) throw new Error("They are damaged, or are something else.");
        delete window.pixelRNNWeights[name]; // the text, which is not needed any more
        await keepWeights(packed);
        resolve(packed.card);
      } catch (error) {
        reject(new Error(`The weights of ${name} (${file}) cannot be used. ${error.message}`));
      }
    };
    document.head.append(script);
  });
}
