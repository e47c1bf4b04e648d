// An animated PNG (the PNG specification, third edition), from frames of RGBA values.

import { crc32 } from "./bytes.js";

function number(value, bytes = 4) {
  return Array.from({ length: bytes }, (_, i) => (value >>> (8 * (bytes - 1 - i))) & 255);
}

function chunk(name, data) {
  const named = new Uint8Array(4 + data.length);
  named.set(Array.from(name, (letter) => letter.charCodeAt(0)));
  named.set(data, 4);
  return [new Uint8Array(number(data.length)), named, new Uint8Array(number(crc32(named)))];
}

// The rows of a frame without transparency, each after the number of its filter (0: none), deflated.
async function deflated({ data, width, height }) {
  const raw = new Uint8Array(height * (1 + 3 * width));
  for (let row = 0, to = 0, from = 0; row < height; row++) {
    to++;
    for (let column = 0; column < width; column++, from += 4, to += 3) raw.set(data.subarray(from, from + 3), to);
  }
  const stream = new Blob([raw]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// frames: { data, width, height, milliseconds } each, all of one size. Plays for ever.
export async function animatedPNG(frames) {
  const { width, height } = frames[0];
  const parts = [new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10])];
  parts.push(...chunk("IHDR", [...number(width), ...number(height), 8, 2, 0, 0, 0]));
  parts.push(...chunk("acTL", [...number(frames.length), ...number(0)]));
  let sequence = 0;
  for (const [i, frame] of frames.entries()) {
    const place = [...number(width), ...number(height), ...number(0), ...number(0)];
    const delay = [...number(frame.milliseconds, 2), ...number(1000, 2), 0, 0];
    parts.push(...chunk("fcTL", [...number(sequence++), ...place, ...delay]));
    const data = await deflated(frame);
    if (i === 0) parts.push(...chunk("IDAT", data));
    else {
      const numbered = new Uint8Array(4 + data.length);
      numbered.set(number(sequence++));
      numbered.set(data, 4);
      parts.push(...chunk("fdAT", numbered));
    }
  }
  parts.push(...chunk("IEND", []));
  return new Blob(parts, { type: "image/png" });
}
