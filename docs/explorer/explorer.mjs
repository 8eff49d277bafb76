// The page: controls, charts and the table of numbers, kept at the same settings.

import { drawLines, drawMap } from "./chart.mjs";
import { DEFAULTS, HORIZON, PROBLEMS, STEPS, compute } from "./model.mjs";

// The values a slider runs through: ten or so to a decade, all short.
function values(from, to) {
  const found = [];
  for (let power = -4; power <= 5; power++)
    for (const m of [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]) found.push(Number(`${m}e${power}`));
  return found.filter((x) => x >= from && x <= to);
}

const SLIDERS = {
  t: Array.from({ length: STEPS + 1 }, (_, t) => t),
  alpha_0: values(0.001, 0.5),
  half_life: values(1, 10000),
  q: values(0.25, 4),
  sigma: values(0.1, 10),
  xi: values(0.001, 0.5),
  eta: values(0.1, 10),
  beta: [0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999],
  momentum: [0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99],
};

const settings = { ...DEFAULTS };
const byId = (id) => document.getElementById(id);
const shown = (x) => String(x).replaceAll("-", "−");

// Seven digits, and no long row of zeros.
const sevenDigits = (x) => shown(x === 0 || Math.abs(x) >= 0.001 ? x.toPrecision(7) : x.toExponential(6));

function showControls() {
  for (const [name, list] of Object.entries(SLIDERS)) {
    byId(name).value = list.indexOf(settings[name]);
    byId(name).setAttribute("aria-valuetext", settings[name]);
    byId(`${name}-value`).textContent = settings[name];
  }
  for (const name of ["problem", "decay"]) byId(name).value = settings[name];
}

function showNumbers(result) {
  const closed = result.closed[settings.t];
  const paper = result.paper[settings.t];
  const cells = {
    closed: { ...closed, theta1: closed.theta[0], theta2: closed.theta[1] },
    paper: { ...paper, theta1: paper.theta[0], theta2: paper.theta[1] },
  };
  for (const cell of document.querySelectorAll("td[data-of]")) {
    const { of, name } = cell.dataset;
    cell.textContent = sevenDigits(cells[of][name]);
  }
  byId("cosine").textContent = shown(Number(result.cosine.toPrecision(3)));
  byId("too-fast").hidden = result.cosine <= 1;
  document.querySelectorAll(".at-t").forEach((place) => { place.textContent = settings.t; });
}

// The powers of ten around the positive numbers of some lists, at most `most` decades.
function decades(lists, most) {
  const positive = lists.flat().filter((x) => x > 0);
  const high = Math.ceil(Math.log10(positive.reduce((a, b) => Math.max(a, b))));
  const low = Math.floor(Math.log10(positive.reduce((a, b) => Math.min(a, b))));
  return [10 ** Math.max(Math.min(low, high - 1), high - most), 10 ** high];
}

function showPaths({ problem, closed, paper }) {
  const of = (path, key) => path.map((at) => at[key]);
  const t = SLIDERS.t;
  const steps = { domain: [0, STEPS], label: "steps taken, t" };
  drawMap(byId("map"), {
    problem,
    at: settings.t,
    paths: [
      { name: "closed", points: of(closed, "theta") },
      { name: "paper", points: of(paper, "theta"), square: true },
    ],
  });
  const line = (name, path, key) => ({ name, x: t, y: of(path, key) });
  const errors = [line("paper", paper, "error"), line("closed", closed, "error"), line("plan", closed, "predicted")];
  const sizes = [line("paper", paper, "length"), line("closed", closed, "length"),
    line("paper second", paper, "rho"), line("closed second", closed, "rho")];
  for (const [id, lines, label, most] of [["errors", errors, "distance |ε|", 5], ["sizes", sizes, "α·RMS(g) and ρ", 8]])
    drawLines(byId(id), {
      x: steps, y: { domain: decades(lines.map(({ y }) => y), most), log: true, label }, lines, at: settings.t,
    });
}

function showSchedules({ schedules }) {
  const line = (name, key, dots) => ({ name, x: schedules.t, y: schedules[key], dots });
  drawLines(byId("factors"), {
    x: { domain: [1, HORIZON], log: true, label: "steps taken, t" },
    y: { domain: [0.001, 1.3], log: true, label: "factor" },
    at: Math.max(settings.t, 1),
    lines: [
      line("paper", "d"),
      line("paper second", "c"),
      line("closed", "inverse-time"),
      line("closed second", "inverse-square"),
      line("closed", "inverse-time recurrence", true),
      line("closed", "inverse-square recurrence", true),
    ],
  });
}

function show() {
  const result = compute(settings);
  window.explorer = { settings: { ...settings }, ...result };
  showControls();
  showNumbers(result);
  showPaths(result);
  showSchedules(result);
}

function change(changes) {
  Object.assign(settings, changes);
  show();
}

for (const [name, list] of Object.entries(SLIDERS)) {
  byId(name).max = list.length - 1;
  byId(name).addEventListener("input", (event) => change({ [name]: list[event.target.value] }));
}
for (const [name, { title }] of Object.entries(PROBLEMS)) byId("problem").add(new Option(title, name));
for (const name of ["problem", "decay"]) byId(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
byId("reset").addEventListener("click", () => change(DEFAULTS));
byId("align").addEventListener("click", () => change({ xi: settings.alpha_0, eta: settings.sigma, q: 1, momentum: 0 }));

byId("not-started").remove();
byId("explorer").hidden = false;
show();
new ResizeObserver(show).observe(byId("explorer"));
