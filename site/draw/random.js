// Random numbers that can be repeated from their seed: "mulberry32" by Tommy Ettinger (public domain).

// Numbers in [0, 1) with 24 bits, as torch.rand gives them: a float32 holds each of them exactly.
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 8) / 2 ** 24;
  };
}

export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
