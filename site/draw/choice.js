// Which network the page uses: the one that was chosen last, however late its weights come.

import { useWeights } from "./crew.js";
import { loadWeights } from "./load.js";
import { paint } from "./page.js";
import { state } from "./state.js";
import { at, fail, say } from "./tell.js";

// Loads a set of weights. Where that fails, the one before stays; where another is chosen meanwhile, nothing happens.
// Says whether continuations are to be sampled with it: not where the drawing was cleared meanwhile, or is being drawn.
export async function use(name) {
  const { run } = state;
  state.wanted = name;
  check(name);
  at("error").hidden = true;
  const card = await loadWeights(name).catch((error) => ({ error }));
  if (state.wanted !== name) return false;
  const asked = state.run === run || state.busy || state.results !== null;
  if (card.error) {
    state.wanted = state.name;
    fail(card.error);
  } else {
    useWeights(name);
    Object.assign(state, { name, card });
    const { what, data } = card;
    const source = `${data} (${card["licence of what it learned from"]})`;
    say("about", `The network: ${what}; on this page in raster order alone. It learned from: ${source}.`);
  }
  check(state.card && state.name);
  if (at("status").textContent.startsWith("Loading")) say("status", "None yet: draw, and lift the pen.");
  for (const id of ["continue", "nothing"]) at(id).disabled = !state.card;
  paint();
  return asked && !card.error;
}

// Where no network is in use, none is checked: so each can be chosen, and loaded again.
function check(name) {
  for (const input of document.querySelectorAll("[name=set]")) input.checked = input.value === name;
}
