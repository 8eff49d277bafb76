// Closed-form Amos for one array, in JavaScript: the step, its schedule, and the recurrence behind it. A port for node
// (examples/ports/amos.mjs) and the explorer use it.

import { oneMinusPower } from "./amos_step.mjs";

// exp(-2 S_t) in closed form; 1/2 at t = half_life.
export const shrink = {
  // p_t = p_0 exp(-S_t), x = 2 alpha_0 p_0 t
  "inverse-time": (t, half_life) => 1 / (1 + t / half_life),
  // p constant, x = alpha_0 p t
  "inverse-square": (t, half_life) => {
    const x = (t / half_life) * (Math.sqrt(2) - 1);
    return 1 / (1 + x * (2 + x));
  },
};

// The cosine p_0 that a half-life stands for.
export const cosine = {
  "inverse-time": (alpha_0, half_life) => 1 / (2 * alpha_0 * half_life),
  "inverse-square": (alpha_0, half_life) => (Math.sqrt(2) - 1) / (alpha_0 * half_life),
};

// exp(-2 S_t), t = 0, 1, ..., by the recurrence S_{t+1} = S_t + p_t alpha_0 exp(-S_t).
export function* recurrence(decay, half_life) {
  const falling = decay === "inverse-time";
  const k = (falling ? 1 : Math.sqrt(2) - 1) / half_life; // alpha_0 p, twice that for a falling p
  for (let r = 0; ; r += k * Math.exp(-r)) yield Math.exp(falling ? -r : -2 * r); // r is S, twice that likewise
}

// u2: the mean of u^2.
export function decide(u2, { shrink, alpha_0, q, sigma, epsilon = 2 ** -125 }) {
  const alpha = alpha_0 * (sigma / Math.sqrt(Math.max(u2, epsilon))) * shrink;
  return { u2, alpha, rho: ((alpha_0 * alpha_0) / (2 * q)) * shrink };
}

// The half-life that a cosine stands for, so that the step functions need only one of the two.
export const halfLife = {
  "inverse-time": (alpha_0, p_0) => 1 / (2 * alpha_0 * p_0),
  "inverse-square": (alpha_0, p_0) => (Math.sqrt(2) - 1) / (alpha_0 * p_0),
};

// The direction of step t, from the gradient; leaf has m and v for Adam's.
export function direct({ m, v }, g, t, { direction = "gradient", clip_value = Infinity, beta1 = 0.9, beta2 = 0.999,
                                         adam_epsilon = 1e-8 }) {
  g = Float64Array.from(g, (x) => Math.min(Math.max(x, -clip_value), clip_value));
  if (direction === "sign") return g.map(Math.sign);
  if (direction !== "adam") return g;
  const q1 = oneMinusPower(beta1, t + 1);
  const q2 = oneMinusPower(beta2, t + 1);
  return g.map((x, i) => {
    m[i] = beta1 * m[i] + (1 - beta1) * x;
    v[i] = beta2 * v[i] + (1 - beta2) * (x * x);
    return m[i] / q1 / (Math.sqrt(v[i] / q2) + adam_epsilon);
  });
}

// Takes a step in place along the direction u, slot by slot, with the options of `decide`; returns what it decided.
// slot[i] is the slot of entry i, of which there are `slots`.
export function stepSlots({ theta, slot, slots }, u, options) {
  const size = theta.length / slots;
  const u2 = new Float64Array(slots);
  u.forEach((x, i) => { u2[slot[i]] += (x * x) / size; });
  const decided = Array.from(u2, (mean) => decide(mean, options));
  u.forEach((x, i) => {
    const { alpha, rho } = decided[slot[i]];
    theta[i] -= alpha * x + rho * theta[i]; // a Float32Array rounds here, and only here
  });
  return decided;
}
