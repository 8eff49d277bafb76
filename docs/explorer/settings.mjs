// What can be set, in which values, and how an address carries it; nothing here knows of a page.

import { PROBLEMS } from "./problems.mjs";

export const STEPS = 1000; // of a path

// The values a slider runs through: ten or so to a decade, all short.
function values(from, to) {
  const found = [];
  for (let power = -4; power <= 5; power++)
    for (const m of [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]) found.push(Number(`${m}e${power}`));
  return found.filter((x) => x >= from && x <= to);
}

const whole = (from, to, step = 1) => Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step);
const BETAS = [0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];

// Sliders by name. of: the panel they stand in.
export const SLIDERS = {
  t: { of: "time", label: "Steps taken, <i>t</i>", values: whole(0, STEPS) },
  noise: { of: "problem", label: "noise", values: [0, ...values(0.1, 20)] },
  seed: { of: "problem", label: "its seed", values: whole(1, 20) },
  xi: { of: "paper", label: "<i>ξ</i>, learning rate", values: values(0.001, 0.5) },
  eta: { of: "paper", label: "<i>η</i>, expected scale", values: values(0.01, 10) },
  beta: { of: "paper", label: "<i>β</i>, memory of <i>v</i>", values: BETAS },
  momentum: { of: "paper", label: "<i>μ</i>, momentum", values: [0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99] },
  alpha_0: { of: "closed", label: "<i>α</i>₀, first step", values: values(0.001, 0.5) },
  half_life: { of: "closed", label: "<i>T</i>, half-life", values: values(1, 10000) },
  sigma: { of: "closed", label: "<i>σ</i>, way to go", values: values(0.01, 10) },
  q: { of: "closed", label: "<i>q</i>, divides the decay", values: values(0.25, 4) },
  lr: { of: "adamw", label: "learning rate", values: values(0.001, 0.5) },
  weight_decay: { of: "adamw", label: "<i>λ</i>, weight decay", values: [0, ...values(0.001, 1)] },
  beta1: { of: "adamw", label: "<i>β</i>₁", values: [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99] },
  beta2: { of: "adamw", label: "<i>β</i>₂", values: BETAS.slice(1) },
  end: { of: "adamw", label: "planned end", values: whole(50, STEPS, 50) },
};

const mapped = (object, f) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, f(value)]));

export const CHOICES = {
  problem: { of: "problem", label: "function", options: mapped(PROBLEMS, ({ title }) => title) },
  slots: { of: "problem", label: "slots", options: { one: "one for both entries", each: "one for each entry" } },
  decay: {
    of: "closed", label: "plan",
    options: { "inverse-time": "1 / (1 + t/T)", "inverse-square": "1 / (1 + 0.414 t/T)²" },
  },
  direction: { of: "closed", label: "direction", options: { gradient: "the gradient", adam: "Adam’s", sign: "its sign" } },
  schedule: { of: "adamw", label: "schedule", options: { constant: "constant", linear: "linear to 0 at the end" } },
};

export const DEFAULTS = {
  t: STEPS, problem: "valley", noise: 4, seed: 1, slots: "one", start: null,
  xi: 0.1, eta: 1, beta: 0.98, momentum: 0,
  alpha_0: 0.1, half_life: 100, sigma: 1, q: 1, decay: "inverse-time", direction: "gradient",
  lr: 0.1, weight_decay: 0.01, beta1: 0.9, beta2: 0.999, schedule: "constant", end: 300,
};

// Where the map lets a start lie: inside what it shows at least, in hundredths.
export function within({ view: { center, half } }, point) {
  return point.map((x, i) => Math.round(100 * Math.min(Math.max(x, center[i] - half[i]), center[i] + half[i])) / 100);
}

export const startOf = ({ problem, start }) => start ?? PROBLEMS[problem].start;

// What differs from the defaults, as "xi=0.2&start=-1,0.5".
export function toAddress(settings) {
  return Object.keys(DEFAULTS)
    .filter((name) => String(settings[name]) !== String(DEFAULTS[name]))
    .map((name) => `${name}=${settings[name]}`)
    .join("&");
}

function read(name, text, problem) {
  if (CHOICES[name]) return Object.hasOwn(CHOICES[name].options, text) ? text : undefined;
  if (name === "start") {
    const point = text.split(",").map(Number);
    return point.length === 2 && point.every(Number.isFinite) ? within(PROBLEMS[problem], point) : undefined;
  }
  const { values } = SLIDERS[name];
  const x = text.trim() === "" ? NaN : Number(text);
  if (!(x >= values[0] && x <= values.at(-1))) return undefined;
  return ["t", "seed"].includes(name) ? Math.round(x) : x;
}

// The settings that an address carries; what it does not name, or names wrongly, is the default's.
export function fromAddress(address) {
  const given = new URLSearchParams(address.replace(/^[#?]/, ""));
  const settings = { ...DEFAULTS };
  for (const name of ["problem", ...Object.keys(DEFAULTS)]) {
    const found = given.has(name) ? read(name, given.get(name), settings.problem) : undefined;
    if (found !== undefined) settings[name] = found;
  }
  return settings;
}
