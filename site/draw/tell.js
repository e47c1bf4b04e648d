// What the page tells its reader, and listeners whose errors it tells.

export const at = (id) => document.getElementById(id);
export const say = (id, text) => (at(id).textContent = text);

export function fail(error) {
  at("error").hidden = false;
  say("error", error.message);
}

// A function whose errors are told. The window's own events are not enough: where the page is opened from a file, they
// keep quiet about its script.
export function guarded(work) {
  return async (...values) => {
    try {
      return await work(...values);
    } catch (error) {
      console.error(error);
      fail(new Error(`This page has made a mistake: ${error}. Reload it.`));
    }
  };
}

export function on(target, kind, handler) {
  target.addEventListener(kind, guarded(handler));
}
