// The page's beginning, and what each control does.

import { makePad } from "./pad.js";
import { at, changed, clearTiles, fail, keepInLink, outdated, paint, paintSoon, proceed, remember, say, state, use } from "./page.js";
import { emptyPicture, SIZE } from "./picture.js";
import { asAnimatedPNG, asPNG, download, fromFragment } from "./share.js";

// What the link says, at the beginning and when another link is put in.
async function fromLink() {
  outdated();
  let link = null;
  let damaged = null;
  try {
    link = fromFragment(location.hash);
  } catch (error) {
    damaged = error;
  }
  if (link) {
    Object.assign(state, { picture: link.picture, given: link.given, temperature: link.temperature });
  }
  paint();
  await use(link ? link.name : state.name);
  if (damaged) fail(damaged);
  paint();
  if (link) await proceed(link.seed ?? undefined);
}

function blank() {
  remember();
  state.picture = emptyPicture();
  changed();
  clearTiles();
  say("status", "None yet: draw, and lift the pen.");
}

makePad(at("pad"), {
  picture: () => state.picture,
  pen: () => Number(document.querySelector("[name=pen]:checked").value),
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

at("continue").addEventListener("click", () => proceed());
at("nothing").addEventListener("click", () => {
  blank();
  proceed();
});
at("clear").addEventListener("click", blank);
at("undo").addEventListener("click", () => {
  state.picture = state.undo.pop();
  changed();
  proceed();
});
at("adopt").addEventListener("click", () => {
  remember();
  state.picture = state.results.pictures[state.chosen].slice();
  changed();
  say("status", "The chosen continuation is your drawing now. Erase a part, or give fewer rows.");
});

at("given").addEventListener("input", () => {
  outdated();
  state.given = Number(at("given").value);
  paintSoon();
});
at("temperature").addEventListener("input", () => {
  outdated();
  state.temperature = Number(at("temperature").value);
  paintSoon();
});
for (const id of ["given", "temperature"]) at(id).addEventListener("change", () => proceed());
for (const input of document.querySelectorAll("[name=set]")) {
  input.addEventListener("change", async () => {
    outdated();
    await use(input.value);
    paint();
    if (state.name === input.value) proceed();
  });
}

at("link").addEventListener("click", async () => {
  keepInLink();
  try {
    await navigator.clipboard.writeText(location.href);
    say("shared", "The link is copied. It holds your drawing, and shows the same continuations.");
  } catch {
    say("shared", `Copy the address of this page: it holds your drawing. ${location.href}`);
  }
});
at("png").addEventListener("click", async () => download(await asPNG(state.results), `${state.name}.png`));
at("apng").addEventListener("click", async () => {
  try {
    download(await asAnimatedPNG(state.results), `${state.name}-animated.png`);
  } catch {
    say("shared", "This browser cannot write an animated PNG.");
  }
});
addEventListener("hashchange", fromLink);
addEventListener("unhandledrejection", (event) => fail(new Error(`This page has made a mistake: ${event.reason}. Reload it.`)));
fromLink();
