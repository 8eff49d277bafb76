// Everything that the page shows, computed from its settings; nothing here knows of a page.

import * as paper from "./amos_step.mjs";
import * as closed from "./closed_form.mjs";

export const STEPS = 1000; // of a path
export const HORIZON = 10000; // of a schedule

// Half of (theta - minimum)^T H (theta - minimum), H = [[h11, h12], [h12, h22]].
export const PROBLEMS = {
  valley: { title: "Valley, curvature 1 and 10", h: [1, 0, 10], minimum: [1, 0.5] },
  bowl: { title: "Round bowl, minimum at 0", h: [1, 0, 1], minimum: [0, 0] },
  tilted: { title: "Tilted valley, curvature 1 and 51", h: [19, -24, 33], minimum: [1, 0.5] },
  noisy: { title: "Valley with noisy gradients", h: [1, 0, 10], minimum: [1, 0.5], noise: 4 },
};
export const START = [-1.5, 1.5];

export const DEFAULTS = {
  problem: "tilted", t: 100,
  alpha_0: 0.05, half_life: 20, decay: "inverse-time", q: 1, sigma: 1.5,
  xi: 0.05, eta: 1.5, beta: 0.99, momentum: 0,
};

const NO_OFFSET = [0, 0];

function gradient({ h, minimum }, theta, offset) {
  const x = theta[0] - minimum[0];
  const y = theta[1] - minimum[1];
  return Float64Array.of(h[0] * x + h[1] * y + offset[0], h[1] * x + h[2] * y + offset[1]);
}

// Added to gradient t = 0, 1, ...: uniform in (-noise, noise) by Park and Miller's generator, the same for both.
function* offsets({ noise = 0 }) {
  let state = 1;
  const next = () => noise * (2 * ((state = (state * 16807) % 2147483647) / 2147483647) - 1);
  while (true) yield noise ? [next(), next()] : NO_OFFSET;
}

// Where each algorithm is after t = 0, 1, ..., STEPS steps, and what its next step does.
function path(problem, advance) {
  const theta = Float64Array.from(START);
  const noise = offsets(problem);
  return Array.from({ length: STEPS + 1 }, (_, t) => {
    const before = Array.from(theta);
    const [x, y] = theta.map((entry, i) => entry - problem.minimum[i]);
    const error = Math.sqrt(x * x + y * y);
    const g = gradient(problem, theta, noise.next().value);
    const length = Math.sqrt((g[0] * g[0] + g[1] * g[1]) / 2);
    const decided = advance(theta, g, t);
    return { theta: before, error, ...decided, length: decided.alpha * length };
  });
}

export function paperPath(problem, { xi, eta, beta, momentum }) {
  let leaf;
  return path(problem, (theta, g, t) => {
    leaf ??= paper.init(theta, [2], [], momentum);
    const old = leaf.b[0];
    const q = paper.oneMinusPower(beta, t + 1);
    const [{ alpha, rho, c, d }] = paper.step(leaf, g, { xi, q, eta, beta, momentum });
    return { alpha, rho, c, d, b: old };
  });
}

export function closedPath(problem, { alpha_0, half_life, decay, q, sigma }) {
  return path(problem, (theta, g, t) => {
    const shrink = closed.shrink[decay](t, half_life);
    return { ...closed.step(theta, g, { shrink, alpha_0, q, sigma }), shrink };
  }).map((at, t, all) => ({ ...at, predicted: all[0].error * Math.sqrt(at.shrink) }));
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
  const found = { t: TIMES };
  for (const [decay, shrink] of Object.entries(closed.shrink)) {
    found[decay] = TIMES.map((t) => shrink(t, half_life));
    found[`${decay} recurrence`] = sampled(closed.recurrence(decay, half_life));
  }
  const decided = sampled(factors(settings));
  return { ...found, c: decided.map((at) => at.c), d: decided.map((at) => at.d) };
}

export function compute(settings) {
  const problem = PROBLEMS[settings.problem];
  return {
    problem,
    paper: paperPath(problem, settings),
    closed: closedPath(problem, settings),
    schedules: schedules(settings),
    cosine: closed.cosine[settings.decay](settings.alpha_0, settings.half_life),
  };
}
