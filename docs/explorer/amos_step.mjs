// One step of paper Amos for one array, in JavaScript. A port for node (examples/ports/amos.mjs) and the explorer use it.

// Which slot each element belongs to: axes where the slot has size 1 are averaged over.
export function slotsOf(shape, slotShape) {
  const slot = [...Array(shape.length - slotShape.length).fill(1), ...slotShape];
  const size = shape.reduce((n, length) => n * length, 1);
  return Int32Array.from({ length: size }, (_, i) => {
    let index = 0;
    let stride = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (slot[axis] !== 1) index += (i % shape[axis]) * stride;
      stride *= slot[axis];
      i = Math.floor(i / shape[axis]);
    }
    return index;
  });
}

// The state of an array before its first step; theta is a Float64Array or a Float32Array.
export function init(theta, shape = [theta.length], slotShape = [], momentum = 0) {
  const slots = slotShape.reduce((n, length) => n * length, 1);
  return {
    theta,
    slot: slotsOf(shape, slotShape),
    v: new Float64Array(slots),
    b: new Float64Array(slots),
    m: momentum ? new Float64Array(theta.length) : null,
  };
}

// The algorithm, for one slot. g2: the mean of g^2; v, b: the slot's state; xi: the learning rate; q: 1 - beta^t.
export function decide(g2, v, b, { xi, q, eta, beta = 0.999, extra_l2 = 0, c_coef = 0.25, d_coef = 0.25,
                                   epsilon = 2 ** -125 }) {
  v = beta * v + (1 - beta) * g2;
  const r = q / Math.max(v, epsilon);
  const c = 1 / Math.sqrt(1 + c_coef * Math.sqrt(xi) * b);
  const gamma = c * (xi * xi) * (r * g2);
  const d = 1 / (1 + d_coef * Math.sqrt(xi * eta) * b);
  const alpha = d * (xi * eta * Math.sqrt(r));
  const rho = d * (gamma / 2 + extra_l2);
  return { g2, v, r, c, gamma, d, alpha, rho, b: b + gamma * (1 + b) };
}

// Takes a step in place, with the options of `decide`; returns what it decided, slot by slot. g: the gradient.
export function step(leaf, g, options) {
  const { theta, slot, v, b, m } = leaf;
  const { momentum = 0, clip_value = Infinity } = options;
  const size = theta.length / v.length; // elements in a slot
  const g2 = new Float64Array(v.length);
  g = Float64Array.from(g, (x) => Math.min(Math.max(x, -clip_value), clip_value));
  g.forEach((x, i) => { g2[slot[i]] += (x * x) / size; });
  const decided = Array.from(g2, (mean, s) => decide(mean, v[s], b[s], options));
  decided.forEach((found, s) => { v[s] = found.v; b[s] = found.b; });
  g.forEach((x, i) => {
    const { alpha, rho } = decided[slot[i]];
    const delta = -(alpha * x + rho * theta[i]);
    if (m) m[i] = momentum * m[i] + (1 - momentum) * delta;
    theta[i] += m ? m[i] : delta; // a Float32Array rounds here, and only here
  });
  return decided;
}

// 1 - beta^t from the bits of t: no pow, and no cancellation.
export function oneMinusPower(beta, t) {
  let q = 0;
  for (const bit of t.toString(2)) {
    q *= 2 - q;
    if (bit === "1") q = 1 - beta + beta * q;
  }
  return q;
}
