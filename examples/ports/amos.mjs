// Amos in JavaScript, as a port for `amos-ref check --exec "node examples/ports/amos.mjs"`, and for the same with
// `--algorithm closed-form`. Of the closed form it has no recurrence, which has no formula for the t-th step.
// With --broken=extra_l2-sign, or --broken=t-from-1, it has a mistake, to see the check find it.

import { createInterface } from "node:readline";
import { init, oneMinusPower, slotsOf, step } from "../../docs/explorer/amos_step.mjs";
import { direct, halfLife, shrink, stepSlots } from "../../docs/explorer/closed_form.mjs";

const broken = process.argv.includes("--broken=extra_l2-sign");
const late = process.argv.includes("--broken=t-from-1");

// The sigma that is asked for as "init": the root mean square of the first entries, 0.5 if all are 0 or all are 1.
function measured(theta) {
  if (theta.every((x) => x === 0) || theta.every((x) => x === 1)) return 0.5;
  return Math.sqrt(theta.reduce((sum, x) => sum + x * x, 0) / theta.length);
}

// A DataView is big-endian unless told otherwise, as the protocol is.
function fromBits(text, dtype = "float64") {
  const bytes = Buffer.from(text, "hex");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return dtype === "float32"
    ? Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i))
    : Float64Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(8 * i));
}

function toBits(array) {
  const width = array.BYTES_PER_ELEMENT;
  const view = new DataView(new ArrayBuffer(array.length * width));
  array.forEach((x, i) => (width === 4 ? view.setFloat32(4 * i, x) : view.setFloat64(8 * i, x)));
  return Buffer.from(view.buffer).toString("hex");
}

let leaves = {}; // by name: what init of amos_step.mjs returns, with dtype and eta
let options = {};
let t = 0;

const paper = {
  hello: () => ({
    protocol: "amos-ref-port-1",
    name: "amos.mjs",
    options: ["learning_rate", "eta", "slot_shape", "beta", "momentum", "clip_value", "extra_l2", "c_coef", "d_coef",
      "epsilon"],
    dtypes: ["float64", "float32"],
    null_gradients: true,
    state: true,
    put: true,
    count: true,
  }),

  init(message) {
    t = 0;
    leaves = {};
    options = Object.fromEntries(Object.entries(message.options).map(([name, bits]) => [name, fromBits(bits)[0]]));
    if (broken) options.extra_l2 = -(options.extra_l2 ?? 0);
    for (const [name, { dtype, shape, slot_shape, eta, theta }] of Object.entries(message.leaves)) {
      const leaf = init(fromBits(theta, dtype), shape, slot_shape, options.momentum);
      leaves[name] = { ...leaf, dtype, eta: fromBits(eta)[0] };
    }
    return { ok: true };
  },

  step(message) {
    const xi = fromBits(message.learning_rate)[0];
    t += 1;
    const q = oneMinusPower(options.beta ?? 0.999, t);
    for (const [name, bits] of Object.entries(message.grads)) {
      const leaf = leaves[name];
      if (bits !== null) step(leaf, fromBits(bits, leaf.dtype), { ...options, xi, q, eta: leaf.eta });
    }
    return Object.fromEntries((options.momentum ? ["theta", "v", "b", "m"] : ["theta", "v", "b"]).map(shown));
  },

  put(message) {
    for (const [part, values] of Object.entries(message.values))
      for (const [name, bits] of Object.entries(values))
        leaves[name][part]?.set(fromBits(bits, part === "theta" ? leaves[name].dtype : "float64"));
    return { ok: true };
  },

  count(message) {
    t = fromBits(message.steps)[0];
    return { ok: true };
  },
};

function shown(part) {
  return [part, Object.fromEntries(Object.entries(leaves).map(([name, leaf]) => [name, toBits(leaf[part])]))];
}

// What the closed form does otherwise; t is the step to come.
const closed = {
  ...paper,

  hello: () => ({
    ...paper.hello(),
    protocol: "amos-ref-port-2",
    options: ["alpha_0", "half_life", "p_0", "decay", "q", "sigma", "slot_shape", "direction", "beta1", "beta2",
      "adam_epsilon", "epsilon", "clip_value"],
    words: { decay: ["inverse-time", "inverse-square"], direction: ["gradient", "adam", "sign"], sigma: ["init"] },
  }),

  init(message) {
    t = 0;
    leaves = {};
    const words = ["decay", "direction"];
    options = Object.fromEntries(Object.entries(message.options)
      .map(([name, x]) => [name, words.includes(name) ? x : fromBits(x)[0]]));
    options.decay ??= "inverse-time";
    options.half_life ??= halfLife[options.decay](options.alpha_0, options.p_0);
    for (const [name, { dtype, shape, slot_shape, sigma, theta }] of Object.entries(message.leaves)) {
      const slots = slot_shape.reduce((n, length) => n * length, 1);
      const leaf = { dtype, theta: fromBits(theta, dtype), slot: slotsOf(shape, slot_shape), slots, sigma: 0 };
      leaf.sigma = sigma === "init" ? measured(leaf.theta) : fromBits(sigma)[0];
      leaves[name] = { ...leaf, m: new Float64Array(leaf.theta.length), v: new Float64Array(leaf.theta.length) };
    }
    return { ok: true };
  },

  step(message) {
    const falls = shrink[options.decay](t + late, options.half_life);
    for (const [name, bits] of Object.entries(message.grads)) {
      const leaf = leaves[name];
      if (bits === null) continue;
      const u = direct(leaf, fromBits(bits, leaf.dtype), t, options);
      stepSlots(leaf, u, { q: 1, ...options, shrink: falls, sigma: leaf.sigma });
    }
    t += 1;
    return Object.fromEntries((options.direction === "adam" ? ["theta", "m", "v"] : ["theta"]).map(shown));
  },
};

let calls = paper;
for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (message.call === "hello") calls = message.algorithm === "closed-form" ? closed : paper;
  if (message.call === "bye") break;
  console.log(JSON.stringify(calls[message.call]?.(message) ?? { error: "unknown call" }));
}
