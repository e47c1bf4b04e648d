// What leaves the page: a link that holds the drawing in its fragment (which browsers send nowhere), and picture files.

import { paintContinuation } from "./paint.js";
import { pictureFromText, pictureToText, SIZE } from "./picture.js";
import { animatedPNG } from "./png.js";

const SETS = ["letters", "digits"];

export function toFragment({ name, given, temperature, seed, picture, chosen }) {
  const values = { set: name, rows: given, t: temperature, d: pictureToText(picture) };
  if (seed !== null) values.seed = seed; // with it, the link shows the same continuations
  if (seed !== null && chosen) values.tile = chosen + 1;
  return `#${new URLSearchParams(values)}`;
}

// What a link says, or null where it says nothing. Raises an Error where it says what cannot be.
export function fromFragment(fragment) {
  const values = new URLSearchParams(fragment.slice(1));
  if (!values.has("d")) return null;
  const number = (key, most, otherwise, least = 0) => {
    const value = Number(values.get(key) ?? otherwise);
    if (!(value >= least && value <= most)) throw new Error(`The link is damaged (${key}).`);
    return value;
  };
  const name = values.get("set");
  if (!SETS.includes(name)) throw new Error("The link names no set of weights of ours.");
  let picture;
  try {
    picture = pictureFromText(values.get("d"));
  } catch {
    throw new Error("The drawing in the link is damaged.");
  }
  const seed = values.has("seed") ? Math.floor(number("seed", 2 ** 32 - 1, 0)) : null;
  const chosen = Math.floor(number("tile", 6, 1, 1)) - 1;
  return { name, picture, given: Math.floor(number("rows", SIZE, 0)), temperature: number("t", 2, 1), seed, chosen };
}

// All continuations side by side, as far as `rows` rows, with `below` pixels of room below them.
function sheet(results, rows, size = 112, gap = 8, below = 0) {
  const canvas = document.createElement("canvas");
  canvas.width = 3 * size + 4 * gap;
  canvas.height = 2 * size + 3 * gap + below;
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  paper.fillStyle = "#d9d5cd";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  results.pictures.forEach((picture, k) => {
    paintContinuation(tile, picture, results.given, rows);
    const [x, y] = [gap + (k % 3) * (size + gap), gap + Math.floor(k / 3) * (size + gap)];
    paper.fillStyle = "#fff";
    paper.fillRect(x, y, size, size);
    paper.drawImage(tile, x, y);
  });
  return canvas;
}

// Where the page is, for a picture that is sent on; a file's place is nobody's business.
export function whereabouts({ protocol, host, pathname } = location) {
  return protocol.startsWith("http") ? `${host}${pathname.replace(/index\.html$/, "")}` : "PixelRNN lab notebook";
}

// With the title and the page's address below.
export function asPNG(results) {
  const canvas = sheet(results, SIZE, 224, 16, 40);
  const paper = canvas.getContext("2d");
  const line = canvas.height - 22;
  paper.fillStyle = "#1c1c1c";
  paper.font = "600 22px system-ui, sans-serif";
  paper.fillText("Finish your drawing", 16, line);
  paper.font = "18px system-ui, sans-serif";
  paper.textAlign = "right";
  paper.fillText(whereabouts(), canvas.width - 16, line, canvas.width - 270);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The browser made no PNG."))), "image/png");
  });
}

// Row by row; the finished picture first, since some programs show only that, and again, longer, at the end.
export function asAnimatedPNG(results) {
  const counts = [SIZE];
  for (let rows = results.given; rows <= SIZE; rows++) counts.push(rows);
  const frames = counts.map((rows, i) => {
    const canvas = sheet(results, rows);
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return { data, width, height, milliseconds: i === 0 || i === counts.length - 1 ? 1500 : 90 };
  });
  return animatedPNG(frames);
}

// Hands the picture and the address to the system's share sheet, or the address alone where that takes no files.
export async function share(blob, name, address) {
  const shared = { title: "Finish your drawing", url: address };
  const files = [new File([blob], name, { type: "image/png" })];
  if (navigator.canShare && navigator.canShare({ ...shared, files })) shared.files = files;
  await navigator.share(shared).catch((error) => {
    if (error.name !== "AbortError") throw error; // the reader has thought better of it
  });
}

// An Error where there is no blob: a browser that cannot make one gives null.
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
