// Everything that the page shows, computed from its settings; nothing here knows of a page.

import * as adamw from "./adamw.mjs";
import * as paper from "./amos_step.mjs";
import * as closed from "./closed_form.mjs";
import { PROBLEMS, distance, gradientAt, offsets } from "./problems.mjs";
import { STEPS, startOf } from "./settings.mjs";

export const HORIZON = 10000; // of a schedule
const ENTRIES = { one: [], each: [2] }; // shapes of the slots of an array with two entries

// Where an algorithm is after t = 0, 1, ..., STEPS steps, and what its next step does. `advance` takes that step and
// returns its direction u, and what was decided for each slot; alpha and rho are among it.
function path(settings, advance) {
  const problem = PROBLEMS[settings.problem];
  const theta = Float64Array.from(startOf(settings));
  const noise = offsets(settings.noise, settings.seed);
  return Array.from({ length: STEPS + 1 }, (_, t) => {
    const at = { theta: Array.from(theta), error: distance(problem, theta), loss: problem.loss(theta) };
    const { u, slots } = advance(theta, gradientAt(problem, theta, t, noise.next().value), t);
    const [x, y] = [slots[0].alpha * u[0], slots.at(-1).alpha * u[1]];
    return { ...at, slots, length: Math.sqrt((x * x + y * y) / 2) };
  });
}

export function paperPath(settings) {
  const { xi, eta, beta, momentum } = settings;
  let leaf;
  return path(settings, (theta, g, t) => {
    leaf ??= paper.init(theta, [2], ENTRIES[settings.slots], momentum);
    const old = Array.from(leaf.b);
    const q = paper.oneMinusPower(beta, t + 1);
    const decided = paper.step(leaf, g, { xi, q, eta, beta, momentum });
    return { u: g, slots: decided.map((found, s) => ({ ...found, b: old[s], grown: found.b })) };
  });
}

export function closedPath(settings) {
  const { alpha_0, half_life, decay, q, sigma, direction } = settings;
  const slot = paper.slotsOf([2], ENTRIES[settings.slots]);
  const leaf = { slot, slots: slot[1] + 1, m: new Float64Array(2), v: new Float64Array(2) };
  return path(settings, (theta, g, t) => {
    const shrink = closed.shrink[decay](t, half_life);
    const u = closed.direct(leaf, g, t, { direction });
    const decided = closed.stepSlots({ ...leaf, theta }, u, { shrink, alpha_0, q, sigma });
    return { u, slots: decided.map((found) => ({ ...found, shrink })) };
  }).map((at, _, [first]) => ({ ...at, predicted: first.error * Math.sqrt(at.slots[0].shrink) }));
}

// AdamW's learning rate in step t = 0, 1, ..., over its first one.
export const planned = ({ schedule, end }) => (t) => (schedule === "linear" ? Math.max(1 - t / end, 0) : 1);

export function adamwPath(settings) {
  const { lr, weight_decay, beta1, beta2 } = settings;
  const [m, v, factor] = [new Float64Array(2), new Float64Array(2), planned(settings)];
  return path(settings, (theta, g, t) => {
    const options = { lr: lr * factor(t), weight_decay, beta1, beta2 };
    const { u, alpha, rho } = adamw.step({ theta, m, v }, g, t, options);
    return { u, slots: [0, 1].map((i) => ({ m: m[i], v: v[i], u: u[i], alpha, rho })) };
  });
}

// Whole numbers from 1 to HORIZON, close to evenly spaced in their logarithms.
export const TIMES = [...new Set(Array.from({ length: 81 }, (_, i) => Math.round(HORIZON ** (i / 80))))];

function sampled(values) {
  const found = [];
  let t = 0;
  for (const value of values) {
    if (t === TIMES[found.length] && found.push(value) === TIMES.length) return found;
    t += 1;
  }
}

// Paper Amos under gradients of constant size: r g2 = 1, whatever beta.
function* factors({ xi, eta }) {
  for (let b = 0; ;) {
    const found = paper.decide(1, 0, b, { xi, q: 1, eta, beta: 0 });
    yield found;
    b = found.b;
  }
}

export function schedules(settings) {
  const { half_life } = settings;
  const found = { t: TIMES, planned: TIMES.map(planned(settings)) };
  for (const [decay, shrink] of Object.entries(closed.shrink)) {
    found[decay] = TIMES.map((t) => shrink(t, half_life));
    found[`${decay} recurrence`] = sampled(closed.recurrence(decay, half_life));
  }
  const decided = sampled(factors(settings));
  return { ...found, c: decided.map((at) => at.c), d: decided.map((at) => at.d) };
}

// The first step whose alpha is above 2 over the steepest curvature: from there, along the steepest direction, every
// step lands farther from the minimum than it began. undefined if there is none, or curvature is not constant.
export function unstable({ steepest }, path) {
  const found = path.findIndex(({ slots }) => slots.some(({ alpha }) => alpha > 2 / steepest));
  return found < 0 ? undefined : found;
}

// The root mean square of the distance over the last 100 steps up to t: what noise leaves.
export function recent(path, t) {
  const last = path.slice(Math.max(t - 99, 0), t + 1);
  return Math.sqrt(last.reduce((sum, { error }) => sum + error * error, 0) / last.length);
}

// Makes a part anew only if one of the settings has changed that it depends on: most sliders move one path.
function kept(make, names) {
  let [wanted, made] = [];
  return (settings) => {
    const given = JSON.stringify(names.map((name) => settings[name]));
    if (given !== wanted) [wanted, made] = [given, make(settings)];
    return made;
  };
}

const WALK = ["problem", "start", "noise", "seed"];
const PARTS = {
  paper: kept(paperPath, [...WALK, "slots", "xi", "eta", "beta", "momentum"]),
  closed: kept(closedPath, [...WALK, "slots", "alpha_0", "half_life", "decay", "q", "sigma", "direction"]),
  adamw: kept(adamwPath, [...WALK, "lr", "weight_decay", "beta1", "beta2", "schedule", "end"]),
  schedules: kept(schedules, ["xi", "eta", "half_life", "schedule", "end"]),
};

export function compute(settings) {
  const found = Object.fromEntries(Object.entries(PARTS).map(([name, make]) => [name, make(settings)]));
  return { ...found, cosine: closed.cosine[settings.decay](settings.alpha_0, settings.half_life) };
}
