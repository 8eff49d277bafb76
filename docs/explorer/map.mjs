// The map of a function of two parameters, with the paths on it.

import { add, frame, inside, room } from "./chart.mjs";

const CELL = 6; // pixels between the points at which contours look at the function
const CONTOURS = 8;

// Line segments where the function crosses `level`, cell by cell of a grid of its values (marching squares).
function crossings(xs, ys, values, level, segments) {
  const between = (a, b, va, vb) => a + ((level - va) / (vb - va)) * (b - a);
  for (let j = 0; j + 1 < ys.length; j++) {
    for (let i = 0; i + 1 < xs.length; i++) {
      const [a, b, c, d] = [values[j][i], values[j][i + 1], values[j + 1][i + 1], values[j + 1][i]];
      const found = [];
      if (a > level !== b > level) found.push([between(xs[i], xs[i + 1], a, b), ys[j]]);
      if (b > level !== c > level) found.push([xs[i + 1], between(ys[j], ys[j + 1], b, c)]);
      if (d > level !== c > level) found.push([between(xs[i], xs[i + 1], d, c), ys[j + 1]]);
      if (a > level !== d > level) found.push([xs[i], between(ys[j], ys[j + 1], a, d)]);
      for (let k = 0; k + 1 < found.length; k += 2) segments.push([found[k], found[k + 1]]);
    }
  }
}

const drawn = new Map(); // contours by what they depend on

function contours(problem, scale) {
  const key = [problem.title, scale.left, scale.right, scale.top, scale.bottom].join();
  if (!drawn.has(key)) {
    const grid = (from, to) => Array.from({ length: Math.ceil((to - from) / CELL) + 1 }, (_, i) => from + i * CELL);
    const [xs, ys] = [grid(scale.left, scale.right), grid(scale.top, scale.bottom)];
    const values = ys.map((y) => xs.map((x) => problem.loss([scale.x.invert(x), scale.y.invert(y)])));
    const segments = [];
    for (let k = 0; k < CONTOURS; k++) crossings(xs, ys, values, problem.lowest * 4 ** k, segments);
    const pair = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;
    drawn.set(key, segments.map(([one, other]) => `M${pair(one)}L${pair(other)}`).join(""));
  }
  return drawn.get(key);
}

const SHAPES = {
  adamw: "M0,-6.5L6,4.5H-6Z",
  closed: "M5.5,0A5.5,5.5 0 1 1 -5.5,0A5.5,5.5 0 1 1 5.5,0Z",
  paper: "M-5,-5H5V5H-5Z",
};

// paths: [{ name, points }]. Returns { scale, move }: move(t) draws the first t steps of each over the map, in the SVG
// behind it, so that the rest, which is faint, need not be painted anew.
export function drawMap(svg, { problem, paths, height = room(svg, 0).width < 400 ? 230 : 320 }) {
  const { w, h } = room(svg, height);
  const { center, half } = problem.view;
  const unit = Math.max(half[0] / w, half[1] / h); // one unit is as long along both axes
  const axis = (i, pixels, label) => ({ domain: [center[i] - pixels * unit, center[i] + pixels * unit], label });
  const scale = frame(svg, axis(0, w, "θ₁"), axis(1, h, "θ₂"), height);
  const plot = inside(svg, scale);
  add(plot, "path", { class: "contour", d: contours(problem, scale) });
  const front = svg.nextElementSibling;
  front.setAttribute("viewBox", svg.getAttribute("viewBox"));
  front.replaceChildren();
  const over = inside(front, scale);
  const moving = paths.map(({ name, points }) => {
    const places = points.map(([x, y]) => [scale.x(x), scale.y(y)]);
    const ends = []; // of the first t steps in the text of all
    let text = "";
    for (const place of places) ends.push((text += `${place} `).length);
    add(plot, "polyline", { class: `faint ${name}`, points: text });
    return { name, places, text, ends, line: add(over, "polyline", { class: `line ${name}` }) };
  });
  for (const [x, y] of problem.minima)
    add(plot, "path", { class: "minimum", d: `M${scale.x(x) - 5},${scale.y(y)}h10m-5,-5v10` });
  for (const path of moving) path.marker = add(over, "path", { class: `marker ${path.name}`, d: SHAPES[path.name] });
  const move = (t) => moving.forEach(({ places, text, ends, line, marker }) => {
    line.setAttribute("points", text.slice(0, ends[t]));
    marker.setAttribute("transform", `translate(${places[t]})`);
  });
  return { scale, move };
}

// Lets a button be dragged about the map, or moved by arrow keys; `put` gets the point, in the map's units.
export function letDrag(button, scaleOf, put) {
  const box = button.parentElement;
  const place = ({ clientX, clientY }) => {
    const { left, top } = box.getBoundingClientRect();
    const { x, y } = scaleOf();
    put([x.invert(clientX - left), y.invert(clientY - top)]);
  };
  button.addEventListener("pointerdown", (event) => button.setPointerCapture(event.pointerId));
  button.addEventListener("pointermove", (event) => { if (button.hasPointerCapture(event.pointerId)) place(event); });
  button.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault(); // the page does not scroll
    const by = event.shiftKey ? 0.01 : 0.1;
    put(JSON.parse(button.dataset.at).map((x, i) => x + by * way[i]));
  });
}
