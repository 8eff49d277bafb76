// The equations of a step, typeset, with symbols or with the numbers of one step in their places.

import { oneMinusPower } from "./amos_step.mjs";
import { short } from "./digits.mjs";

const SYMBOLS = {
  alpha: "α", rho: "ρ", gamma: "γ", xi: "ξ", eta: "η", beta: "β", momentum: "μ", sigma: "σ", weight_decay: "λ",
  half_life: "T", grown: "b", lr_t: ["lr", "t"], g2: ["g", 2], u2: ["u", 2], alpha_0: ["α", 0],
  step: "t",
};

const mi = (text) => `<mi>${text}</mi>`;
const mo = (text) => `<mo>${text}</mo>`;
const mn = (text) => `<mn>${text}</mn>`;
const root = (inside) => `<msqrt><mrow>${inside}</mrow></msqrt>`;
const over = (top, bottom) => `<mfrac><mrow>${top}</mrow><mrow>${bottom}</mrow></mfrac>`;
const one = mn(1);
const quarter = over(one, mn(4));
const times = mo("·");

function symbol(name) {
  if (name === "shrink") return `<msup>${mi("e")}<mrow>${mo("−")}${mn(2)}${mi("S")}</mrow></msup>`;
  if (name.endsWith("_hat")) return `<mover>${mi(name[0])}${mo("^")}</mover>`;
  const text = SYMBOLS[name] ?? name;
  return Array.isArray(text) ? `<msub>${text.map(mi).join("")}</msub>` : mi(text);
}

// of, name: whose number, and which. right(x): the right side, x(name) being a symbol or its number.
// label: what it is in words.
export const EQUATIONS = [
  { of: "adamw", name: "u", label: "direction", right: (x) => over(x("m_hat"), root(x("v_hat"))) },
  { of: "adamw", name: "alpha", label: "step size", right: (x) => x("lr_t") },
  { of: "adamw", name: "rho", label: "weight decay", right: (x) => x("lr_t") + times + x("weight_decay") },
  { of: "paper", name: "r", label: "one over the mean of past g², for step t",
    right: (x) => over(one + mo("−") + `<msup>${x("beta")}${x("step")}</msup>`, x("v")) },
  { of: "paper", name: "c", label: "slows the clock",
    right: (x) => over(one, root(one + mo("+") + quarter + root(x("xi")) + times + x("b"))) },
  { of: "paper", name: "gamma", label: "growth of the clock, g₂ = mean(g²)",
    right: (x) => x("c") + times + `<msup>${x("xi")}${mn(2)}</msup>` + times + x("r") + times + x("g2") },
  { of: "paper", name: "d", label: "slows the steps",
    right: (x) => over(one, one + mo("+") + quarter + root(x("xi") + times + x("eta")) + times + x("b")) },
  { of: "paper", name: "alpha", label: "step size",
    right: (x) => x("d") + times + x("xi") + times + x("eta") + times + root(x("r")) },
  { of: "paper", name: "rho", label: "weight decay", right: (x) => x("d") + times + over(x("gamma"), mn(2)) },
  { of: "paper", name: "grown", label: "clock",
    right: (x) => x("b") + mo("+") + x("gamma") + times + mo("(") + one + mo("+") + x("b") + mo(")") },
  { of: "closed", name: "shrink", label: "the plan",
    right: (x, { decay }) => decay === "inverse-time"
      ? over(one, one + mo("+") + x("t") + mo("/") + x("half_life"))
      : `<msup><mrow>${mo("(")}${one}${mo("+")}${mn(0.414)}${times}${x("t")}${mo("/")}${x("half_life")}${mo(")")}</mrow>`
        + `<mrow>${mo("−")}${mn(2)}</mrow></msup>` },
  { of: "closed", name: "alpha", label: "step size",
    right: (x) => x("alpha_0") + times + over(x("sigma"), root(x("u2"))) + times + x("shrink") },
  { of: "closed", name: "rho", label: "weight decay",
    right: (x) => over(`<msup>${x("alpha_0")}${mn(2)}</msup>`, mn(2) + x("q")) + times + x("shrink") },
];

const math = (inside) => `<math><mrow>${inside}</mrow></math>`;

// The equation in symbols.
export function inSymbols({ name, right }, settings) {
  return math(symbol(name) + mo(name === "grown" ? "←" : "=") + right(symbol, settings));
}

// Everything that the equations of `of` take, for step t and one slot of what a path has there.
export function numbersOf(of, settings, t, slot) {
  const found = { ...settings, ...slot, t, step: t + 1 }; // steps taken, and the number of the next one
  if (of !== "adamw") return found;
  const [q1, q2] = [settings.beta1, settings.beta2].map((beta) => oneMinusPower(beta, t + 1));
  return { ...found, lr_t: slot.alpha, m_hat: slot.m / q1, v_hat: slot.v / q2 };
}

// The equation with the numbers of one step in it: `numbers` as numbersOf returns them.
export function inNumbers({ name, right }, settings, numbers) {
  const number = (key) => mn(short(numbers[key]));
  return math(symbol(name) + mo("=") + right(number, settings) + mo("=") + `<mn class="result">${short(numbers[name])}</mn>`);
}
