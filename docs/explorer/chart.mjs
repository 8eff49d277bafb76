// A small drawing room for charts of lines, as SVG. Colours and strokes are the style sheet's, by class.

const MARGIN = { left: 58, right: 18, top: 8, bottom: 36 };

export function add(parent, name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return parent.appendChild(element);
}

const round = (x) => Math.round(x * 100) / 100;

function linear([from, to], [start, end]) {
  const scale = (x) => round(start + ((x - from) / (to - from)) * (end - start));
  scale.invert = (pixel) => from + ((pixel - start) / (end - start)) * (to - from);
  return scale;
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

const widths = new Map(); // of charts, in pixels

// To be called when the page has another size: asked between two drawings, a browser would lay out the page each time.
export function measure(charts) {
  for (const svg of charts) widths.set(svg, svg.clientWidth || 320);
}

// How many pixels there are for what is drawn.
export function room(svg, height) {
  const width = widths.get(svg);
  return { width, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
}

// Empties the SVG, fits it to the width it has on the page, and draws axes; returns the two scales.
export function frame(svg, x, y, height) {
  const { width } = room(svg, height);
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
export function inside(svg, { left, right, top, bottom }) {
  const id = `${svg.id}-inside`;
  const clip = add(svg, "clipPath", { id });
  add(clip, "rect", { x: left, y: top, width: right - left, height: bottom - top });
  return add(svg, "g", { "clip-path": `url(#${id})` });
}

// lines: [{ name, x, y, dots, link }]; `name` becomes the class. Returns a function that marks an x, by moving the element
// behind the SVG: what does not move need not be painted anew.
export function drawLines(svg, { x, y, lines, height = 220 }) {
  const scale = frame(svg, x, y, height);
  const plot = inside(svg, scale);
  for (const { name, x: xs, y: ys, dots, link } of lines) {
    const places = xs.map((value, i) => [scale.x(value), scale.y(ys[i])]);
    const data = link ? { "data-link": link } : {};
    if (!dots) add(plot, "polyline", { class: `line ${name}`, points: places.join(" "), ...data });
    else places.forEach(([cx, cy], i) => { if (i % 4 === 0) add(plot, "circle", { class: `dot ${name}`, cx, cy, r: 2.6 }); });
  }
  const now = svg.nextElementSibling;
  Object.assign(now.style, { top: `${scale.top}px`, height: `${scale.bottom - scale.top}px` });
  return (at) => { now.style.transform = `translateX(${scale.x(at)}px)`; };
}
