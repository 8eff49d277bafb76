// One step of Amos for one array, in JavaScript; a browser page can import it as it stands.

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

// Takes a step in place. g: the gradient; xi: the learning rate; q: 1 - beta^t.
export function step(leaf, g, { xi, q, eta, beta = 0.999, momentum = 0, clip_value = Infinity, extra_l2 = 0,
                                c_coef = 0.25, d_coef = 0.25, epsilon = 2 ** -125 }) {
  const { theta, slot, v, b, m } = leaf;
  const size = theta.length / v.length; // elements in a slot
  const alpha = new Float64Array(v.length);
  const rho = new Float64Array(v.length);
  const g2 = new Float64Array(v.length);
  g = Float64Array.from(g, (x) => Math.min(Math.max(x, -clip_value), clip_value));
  g.forEach((x, i) => { g2[slot[i]] += (x * x) / size; });
  for (let s = 0; s < v.length; s++) {
    v[s] = beta * v[s] + (1 - beta) * g2[s];
    const r = q / Math.max(v[s], epsilon);
    const c = 1 / Math.sqrt(1 + c_coef * Math.sqrt(xi) * b[s]);
    const gamma = c * xi * xi * r * g2[s];
    const d = 1 / (1 + d_coef * Math.sqrt(xi * eta) * b[s]);
    alpha[s] = d * xi * eta * Math.sqrt(r);
    rho[s] = d * (gamma / 2 + extra_l2);
    b[s] += gamma * (1 + b[s]);
  }
  g.forEach((x, i) => {
    const delta = -(alpha[slot[i]] * x + rho[slot[i]] * theta[i]);
    if (m) m[i] = momentum * m[i] + (1 - momentum) * delta;
    theta[i] += m ? m[i] : delta; // a Float32Array rounds here, and only here
  });
}

// q = 1 - beta^t from that of t - 1 (0 before the first step): no pow, and no cancellation.
export function nextPower(q, beta) {
  return 1 - beta + beta * q;
}
