// Drawings to begin with: four that a tap puts on the pad, the first of which draws itself on the first visit.

import { emptyPicture, stroke } from "./picture.js";

function arc(x, y, radius, first, last) {
  return Array.from({ length: 41 }, (_, i) => {
    const angle = ((first + ((last - first) * i) / 40) * Math.PI) / 180;
    return { x: x + radius * Math.cos(angle), y: y + radius * Math.sin(angle) };
  });
}

const line = (...points) => points.map(([x, y]) => ({ x, y }));

// Lines of points, in pixels of the picture.
export const EXAMPLES = {
  bow: [arc(14, 10, 5.5, 180, 360)],
  bar: [line([8.5, 6], [19.5, 6])],
  hook: [arc(14, 9, 5, 190, 400)],
  "two verticals": [line([9, 5], [9, 13]), line([18, 5], [18, 13])],
};

// The first `count` points of an example, drawn.
export function example(name, width, count = Infinity) {
  const picture = emptyPicture();
  for (const points of EXAMPLES[name]) {
    points.slice(0, Math.max(0, count)).forEach((point, i) => stroke(picture, points[Math.max(0, i - 1)], point, width, 1));
    count -= points.length;
  }
  return picture;
}

// The icon of an example, as the inside of an SVG.
export function icon(name) {
  const paths = EXAMPLES[name].map((points) => `M${points.map(({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`);
  return `<svg viewBox="5 2 18 14" aria-hidden="true"><path d="${paths.join("")}"/></svg>`;
}

// Whether this is the first visit; where the browser keeps nothing, each is. From then on it is not.
export function firstVisit() {
  try {
    const first = !localStorage.getItem("pixelRNN visited");
    localStorage.setItem("pixelRNN visited", "yes");
    return first;
  } catch {
    return true;
  }
}
