// The vectors of `amos-ref vectors export --format lines` over a port: that of the explorer. For a
// port of your own, put it into `start`, `paper` and `closed`.
//
//   amos-ref vectors export --format lines | node run.mjs

import { readFileSync } from "node:fs";
import { init, oneMinusPower, step } from "../../docs/explorer/amos_step.mjs";
import { direct, halfLife, shrink, stepSlots } from "../../docs/explorer/closed_form.mjs";

function start(entry, scale, shape, slotShape) {
  const theta = new entry.Numbers(shape.reduce((n, length) => n * length, 1));
  const leaf = { ...init(theta, shape, slotShape, entry.options.momentum), scale };
  const entries = () => new Float64Array(theta.length); // of the closed form's state
  return entry.closed ? { ...leaf, slots: leaf.v.length, m: entries(), v: entries() } : leaf;
}

function paper(leaf, g, t, xi, options) {
  step(leaf, g, { ...options, eta: leaf.scale, xi, q: oneMinusPower(options.beta, t) });
}

function closed(leaf, g, t, _, options) {
  const { decay, alpha_0, p_0, half_life = halfLife[decay](alpha_0, p_0) } = options;
  const now = { ...options, sigma: leaf.scale, shrink: shrink[decay](t, half_life) };
  stepSlots(leaf, direct(leaf, g, t, options), now);
}

const number = (digits) => Buffer.from(digits, "hex").readDoubleBE();
const isNumber = (word) => /^[0-9a-f]{16}$/.test(word);
let [cases, compared, wrong] = [0, 0, 0];
let entry, t, rate;

for (const line of readFileSync(0, "latin1").split("\n")) {
  const [what, name, ...words] = line.split(" ");
  const leaf = entry?.leaves[name];
  if (what === "case") {
    const Numbers = { float64: Float64Array, float32: Float32Array }[words[1]];
    entry = { id: name, Numbers, closed: words[0] === "closed-form", options: {}, leaves: {} };
  } else if (what === "option")
    entry.options[name] = isNumber(words[0]) ? number(words[0]) : words[0];
  else if (!entry?.Numbers || entry.options.decay === "recurrence") continue; // not of this port
  else if (what === "leaf") {
    cases += Object.keys(entry.leaves).length === 0;
    const [shape, slotShape] = words.slice(1).map((text) => JSON.parse(text));
    entry.leaves[name] = start(entry, number(words[0]), shape, slotShape);
  } else if (what === "set") leaf[words[0]].set(words.slice(1).map(number));
  else if (what === "step") [t, rate] = [Number(name), words.length ? number(words[0]) : NaN];
  else if (what === "grad")
    (entry.closed ? closed : paper)(leaf, words.map(number), t, rate, entry.options);
  else if (what === "want")
    for (let i = 1; i < words.length; i += 2, compared++) {
      const [got, want] = [leaf[words[0]][(i - 1) / 2], number(words[i])];
      if (Math.abs(got - want) <= number(words[i + 1])) continue; // false for a NaN
      wrong++;
      console.log(`${entry.id} step ${t}: ${words[0]} of ${name} is ${got}, should be ${want}`);
    }
}
console.log(`${cases} cases, ${compared} numbers compared, ${wrong} beyond their tolerance`);
process.exitCode = cases && !wrong ? 0 : 1; // not exit(), which would cut off what is to be written
