// The page's beginning, and what each control does.

import { drawItself } from "./alive.js";
import { use } from "./choice.js";
import { EXAMPLES, example, firstVisit, icon } from "./examples.js";
import { makePad } from "./pad.js";
import { changed, clearTiles, keepInLink, outdated, paint, paintSoon } from "./page.js";
import { proceed, replace, takeBack } from "./page.js";
import { emptyPicture, rowsWithInk, SIZE } from "./picture.js";
import { listenToSharing } from "./send.js";
import { fromFragment } from "./share.js";
import { remember, state } from "./state.js";
import { at, fail, guarded, on, say } from "./tell.js";

const PEN = 2; // the width of an example's pen where the eraser is chosen

// What the link says, at the beginning and when another link is put in. One that is damaged changes nothing.
const fromLink = guarded(async () => {
  let link = null;
  let damage = "";
  try {
    link = fromFragment(location.hash);
  } catch (error) {
    damage = error.message;
  }
  if (link) {
    if (!rowsWithInk(state.picture)) state.picture = link.picture; // there is nothing for Undo to bring back
    replace(link.picture);
    Object.assign(state, { given: link.given, temperature: link.temperature, chosen: link.chosen });
  }
  paint();
  const used = link || state.wanted === null ? use(link ? link.name : state.name) : null;
  const kept = rowsWithInk(state.picture) ? "Your drawing stays." : "Starting with an empty drawing.";
  if (damage) fail(new Error(`${damage} ${kept}`));
  const first = used && !link && !damage && firstVisit();
  const shown = first ? drawItself("bow", pen()) : null;
  if ((await used) && link) await proceed(link.seed ?? undefined);
  if (await shown) await proceed();
});

const pen = () => Number(document.querySelector("[name=pen]:checked").value);

function blank() {
  replace(emptyPicture());
  nothingYet();
}

function nothingYet() {
  clearTiles();
  keepInLink();
  say("status", "None yet: draw, and lift the pen.");
}

function undo() {
  if (!takeBack()) return;
  if (rowsWithInk(state.picture)) proceed();
  else nothingYet();
}

makePad(at("pad"), {
  picture: () => state.picture,
  pen,
  before: remember,
  changed,
  lifted: () => proceed(),
  enter: () => proceed(),
  moving(pixel) {
    state.cursor = pixel;
    const place = pixel === null ? "" : `row ${Math.floor(pixel / SIZE) + 1}, column ${(pixel % SIZE) + 1}`;
    say("place", place && `${place}: ${state.picture[pixel] ? "ink" : "paper"}`);
    paintSoon();
  },
});

for (const name of Object.keys(EXAMPLES)) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", title: `Example: ${name}`, innerHTML: icon(name) });
  button.setAttribute("aria-label", `Example: ${name}`);
  at("examples").append(button);
  on(button, "click", () => {
    replace(example(name, pen() || PEN));
    state.example = "tapped";
    proceed();
  });
}

on(at("continue"), "click", () => proceed());
on(at("nothing"), "click", () => {
  blank();
  proceed();
});
on(at("clear"), "click", blank);
on(at("undo"), "click", undo);
on(document, "keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  undo();
});
on(at("adopt"), "click", () => {
  replace(state.results.pictures[state.chosen].slice());
  say("status", "The chosen continuation is your drawing now. Erase a part, or give fewer rows.");
});

on(at("given"), "input", () => {
  outdated();
  state.given = Number(at("given").value);
  paintSoon();
});
on(at("temperature"), "input", () => {
  outdated();
  state.temperature = Number(at("temperature").value);
  paintSoon();
});
on(at("given"), "change", () => proceed());
on(at("temperature"), "change", () => proceed(state.last ?? undefined)); // the same random numbers show what it does
for (const input of document.querySelectorAll("[name=set]")) {
  on(input, "change", async () => {
    if (await use(input.value)) proceed();
  });
}

listenToSharing();
on(window, "hashchange", fromLink);
if (location.protocol.startsWith("http") && navigator.serviceWorker) {
  navigator.serviceWorker.register("offline.js").catch(() => {}); // where it may not, the page needs the network
}
fromLink();
