// The controls by which something leaves the page.

import { keepInLink } from "./page.js";
import { asAnimatedPNG, asPNG, download, share, toFragment } from "./share.js";
import { state } from "./state.js";
import { at, on, say } from "./tell.js";

const address = () => new URL(toFragment(state), location.href).href; // some browsers keep it out of a file's

async function copyLink() {
  keepInLink();
  try {
    await navigator.clipboard.writeText(address());
    say("shared", "The link is copied. It holds your drawing, and shows the same continuations.");
  } catch {
    say("shared", `Copy this address: it holds your drawing. ${address()}`);
  }
}

// Gives give(blob, name) what make(results) makes; a browser may keep pages from reading canvases, or have too little
// memory.
async function save(make, what, ending, give = download) {
  const { results, name } = state; // another network may be chosen while the picture is made
  say("shared", "");
  try {
    await give(await make(results), `${name}${ending}.png`);
  } catch (error) {
    console.error(error);
    say("shared", `This browser gives no ${what}. It may keep pages from reading pictures, or have too little memory.`);
  }
}

export function listenToSharing() {
  on(at("link"), "click", copyLink);
  on(at("png"), "click", () => save(asPNG, "PNG", ""));
  on(at("apng"), "click", () => save(asAnimatedPNG, "animated PNG", "-animated"));
  on(at("share"), "click", () => save(asPNG, "picture to share", "", (blob, name) => share(blob, name, address())));
  at("share").hidden = !navigator.share;
}
