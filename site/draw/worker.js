// The script of a helper's thread. tools/page.py joins it into the page's, as text: a page opened from a file may not
// load it from beside itself.

import { makeAnswering } from "./answering.js";

const answer = makeAnswering();

self.onmessage = ({ data }) => {
  try {
    self.postMessage(answer(data));
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};
