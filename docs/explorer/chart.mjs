// A small drawing room: line charts and a map of a path, as SVG. Colours and strokes are the style sheet's, by class.

const MARGIN = { left: 58, right: 18, top: 8, bottom: 36 };

function add(parent, name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return parent.appendChild(element);
}

const round = (x) => Math.round(x * 100) / 100;

function linear([from, to], [start, end]) {
  return (x) => round(start + ((x - from) / (to - from)) * (end - start));
}

function logarithmic([from, to], range) {
  const scale = linear([Math.log(from), Math.log(to)], range);
  return (x) => scale(Math.log(Math.max(x, from / 1000))); // 0 leaves the chart below, as any small number does
}

const scaled = (axis, range) => (axis.log ? logarithmic : linear)(axis.domain, range);

// Powers of ten, or about `count` round numbers.
function ticks({ domain: [from, to], log }, count) {
  if (log) {
    const [low, high] = [Math.ceil(Math.log10(from) - 1e-9), Math.floor(Math.log10(to) + 1e-9)];
    const every = Math.ceil((high - low) / count) || 1;
    return Array.from({ length: Math.floor((high - low) / every) + 1 }, (_, i) => 10 ** (low + i * every));
  }
  const power = 10 ** Math.floor(Math.log10((to - from) / count));
  const step = power * [1, 2, 5, 10].find((m) => (to - from) / (power * m) <= count);
  const first = Math.ceil(from / step - 1e-9);
  return Array.from({ length: Math.floor(to / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function label(x, log) {
  if (!log || (x >= 0.001 && x <= 1000)) return String(Number(x.toPrecision(3))).replace("-", "−");
  const power = Math.round(Math.log10(x));
  return `10${power < 0 ? "⁻" : ""}${[...String(Math.abs(power))].map((digit) => SUPERSCRIPTS[digit]).join("")}`;
}

// Empties the SVG, fits it to the width it has on the page, and draws axes; returns the two scales.
function frame(svg, x, y, height) {
  const width = svg.clientWidth || 320;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
  const scale = { x: scaled(x, [left, right]), y: scaled(y, [bottom, top]), left, right, top, bottom };
  for (const value of ticks(x, Math.max(2, Math.floor(width / 80)))) {
    add(svg, "line", { class: "grid", x1: scale.x(value), x2: scale.x(value), y1: top, y2: bottom });
    add(svg, "text", { x: scale.x(value), y: bottom + 14, "text-anchor": "middle" }, label(value, x.log));
  }
  for (const value of ticks(y, Math.max(2, Math.floor(height / 45)))) {
    add(svg, "line", { class: "grid", x1: left, x2: right, y1: scale.y(value), y2: scale.y(value) });
    add(svg, "text", { x: left - 5, y: scale.y(value) + 4, "text-anchor": "end" }, label(value, y.log));
  }
  const middle = (top + bottom) / 2;
  add(svg, "text", { class: "axis", x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, x.label);
  add(svg, "text", { class: "axis", "text-anchor": "middle", transform: `translate(11 ${middle}) rotate(-90)` }, y.label);
  return scale;
}

// Draws inside the axes only.
function inside(svg, { left, right, top, bottom }) {
  const id = `${svg.id}-inside`;
  const clip = add(svg, "clipPath", { id });
  add(clip, "rect", { x: left, y: top, width: right - left, height: bottom - top });
  return add(svg, "g", { "clip-path": `url(#${id})` });
}

const points = (xs, ys, scale) => xs.map((x, i) => `${scale.x(x)},${scale.y(ys[i])}`).join(" ");

// lines: [{ name, x, y, dots }]; at: an x to mark; `name` becomes the class.
export function drawLines(svg, { x, y, lines, at, height = 240 }) {
  const scale = frame(svg, x, y, height);
  const plot = inside(svg, scale);
  add(plot, "line", { class: "now", x1: scale.x(at), x2: scale.x(at), y1: scale.top, y2: scale.bottom });
  for (const line of lines) {
    if (!line.dots) add(plot, "polyline", { class: `line ${line.name}`, points: points(line.x, line.y, scale) });
    else line.x.forEach((value, i) => {
      if (i % 4 === 0) add(plot, "circle", { class: `dot ${line.name}`, cx: scale.x(value), cy: scale.y(line.y[i]), r: 2.6 });
    });
  }
}

// The points at one height of the quadratic (h11, h12, h22), `level` standard half-widths from its minimum.
function contour({ h: [a, b, c], minimum }, level) {
  const angle = Math.atan2(2 * b, a - c) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const along = level / Math.sqrt(a * cos * cos + 2 * b * cos * sin + c * sin * sin);
  const across = level / Math.sqrt(a * sin * sin - 2 * b * cos * sin + c * cos * cos);
  return Array.from({ length: 97 }, (_, i) => {
    const [u, v] = [along * Math.cos((i * Math.PI) / 48), across * Math.sin((i * Math.PI) / 48)];
    return [minimum[0] + u * cos - v * sin, minimum[1] + u * sin + v * cos];
  });
}

const flat = (list, scale) => list.map(([x, y]) => `${scale.x(x)},${scale.y(y)}`).join(" ");

function cross(plot, [x, y], scale) {
  const [cx, cy] = [scale.x(x), scale.y(y)];
  add(plot, "path", { class: "minimum", d: `M${cx - 5},${cy}h10M${cx},${cy - 5}v10` });
}

// paths: [{ name, points, square }]; the first `at` steps of each are drawn, the rest is faint.
export function drawMap(svg, { problem, paths, at, center = [-0.1, 0.6], height }) {
  const width = svg.clientWidth || 320;
  height ??= width < 400 ? 230 : 320;
  const [w, h] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
  const unit = Math.max(4.4 / w, 3 / h) / 2; // one unit is as long along both axes
  const domain = (axis, pixels) => [center[axis] - pixels * unit, center[axis] + pixels * unit];
  const scale = frame(svg, { domain: domain(0, w), label: "θ₁" }, { domain: domain(1, h), label: "θ₂" }, height);
  const plot = inside(svg, scale);
  for (const level of [0.25, 0.5, 1, 2, 4, 8, 16])
    add(plot, "polyline", { class: "contour", points: flat(contour(problem, level), scale) });
  for (const { name, points: all } of paths) {
    add(plot, "polyline", { class: `faint ${name}`, points: flat(all.slice(at), scale) });
    add(plot, "polyline", { class: `line ${name}`, points: flat(all.slice(0, at + 1), scale) });
  }
  cross(plot, problem.minimum, scale);
  for (const { name, points: all, square } of paths) {
    const [x, y] = [scale.x(all[at][0]), scale.y(all[at][1])];
    if (square) add(plot, "rect", { class: `marker ${name}`, x: x - 4.5, y: y - 4.5, width: 9, height: 9 });
    else add(plot, "circle", { class: `marker ${name}`, cx: x, cy: y, r: 5 });
  }
  const [x, y] = [scale.x(paths[0].points[0][0]), scale.y(paths[0].points[0][1])];
  add(plot, "text", { class: "start", x: x - 6, y: y - 8, "text-anchor": "end" }, "start");
}
