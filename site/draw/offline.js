// A service worker: where the page is served, it can be loaded again without a network. With one, every file is asked for
// anew, so that an old page is never shown.

const KEPT = "pixelRNN draw";
const FILES = ["index.html", "draw.css", "draw.js", "weights-digits.js"]; // letters are kept once they are used

self.oninstall = (event) => {
  self.skipWaiting();
  event.waitUntil(Promise.all(FILES.map((file) => fresh(new Request(file)))));
};
self.onactivate = (event) => event.waitUntil(self.clients.claim());
self.onfetch = (event) => {
  if (event.request.method === "GET") event.respondWith(fresh(event.request));
};

// The page has two addresses, of which each would keep a page of its own.
const keyOf = ({ url }) => url.replace(/[?#].*/, "").replace(/index\.html$/, "");

async function fresh(request) {
  const kept = await caches.open(KEPT);
  try {
    const answer = await fetch(request, { cache: "no-cache" });
    if (answer.ok) await kept.put(keyOf(request), answer.clone());
    return answer;
  } catch (error) {
    const last = await kept.match(keyOf(request));
    if (last) return last;
    throw error;
  }
}
