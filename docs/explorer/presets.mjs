// Settings that each show one claim of the text, with a sentence whose numbers are those on the screen.

import { short } from "./digits.mjs";
import { recent, unstable } from "./model.mjs";
import { PROBLEMS } from "./problems.mjs";
import { DEFAULTS } from "./settings.mjs";

// say: what to see, from the three paths; the first preset is the default.
export const PRESETS = {
  noise: {
    title: "Noise",
    changes: {},
    say: ({ adamw, paper, closed }) => `Every gradient carries noise. AdamW at a constant learning rate never comes to
      rest: over the last 100 steps it is ${short(recent(adamw, 1000))} from the minimum. Both Amos make their steps
      smaller by themselves, paper Amos by a clock and the closed form by a plan, and end at
      ${short(recent(paper, 1000))} and ${short(recent(closed, 1000))}. Of the 20 seeds, paper Amos ends closer than AdamW
      with all, and the closed form with 18.`,
  },
  plan: {
    title: "A planned end",
    changes: { schedule: "linear", end: 300 },
    say: ({ adamw, paper }) => `AdamW’s learning rate falls to 0 at step 300, as planned, and AdamW stays where it is:
      ${short(adamw[300].error)} from the minimum. Paper Amos, which was told no end, is ${short(paper[300].error)} away
      at that step and goes on, to ${short(recent(paper, 1000))} over its last 100 steps. Of the 20 seeds, AdamW’s place is
      still the closer one with 9.`,
  },
  small: {
    title: "η too small",
    changes: { eta: 0.05 },
    say: ({ paper }) => `Paper Amos is told that entries are of size 0.05, but they are of size 1. Its steps are a
      twentieth as long, and they fall before the way is done: after 300 steps it is still ${short(paper[300].error)}
      from the minimum, and after 1,000 steps ${short(paper[1000].error)}.`,
  },
  large: {
    title: "η too large",
    changes: { eta: 10, t: 300 },
    say: ({ paper }) => `Paper Amos is told that entries are of size 10, but they are of size 1. Its first step has the
      length ${short(paper[0].length)}, ten times that of the others, and noise throws it about: over the last 100 steps
      up to step 300 it is ${short(recent(paper, 300))} from the minimum.`,
  },
  clock: {
    title: "The clock",
    changes: { problem: "bowl", noise: 20, beta: 0.99, t: 100 },
    say: ({ paper }) => `Under steady gradients <i>b</i> grows as exp(<i>ξ</i>²<i>t</i>) − 1. Here <i>ξ</i> = 0.1, so
      <i>ξ</i>²<i>t</i> is 1 after 100 steps (an epoch, if <i>ξ</i> is one over the root of its batches), and <i>b</i> is
      ${short(paper[100].slots[0].b)} instead of <i>e</i> − 1 = 1.72. Then <i>c</i> slows it down: at step 1,000
      <i>b</i> is ${short(paper[1000].slots[0].b)}, and <i>d</i> is down to ${short(paper[1000].slots[0].d)}.`,
  },
  half: {
    title: "Half-life",
    changes: { t: 100 },
    say: ({ closed }) => `The closed form’s first step has the length ${short(closed[0].length)}. After <i>T</i> = 100
      steps it is half of that, ${short(closed[100].length)}, and so is its decay: ${short(closed[0].slots[0].rho)}
      becomes ${short(closed[100].slots[0].rho)}. No gradient has a say in this. After another 100 steps a third is left.`,
  },
  frozen: {
    title: "Frozen steps",
    changes: { xi: 0.3, eta: 0.2, noise: 20 },
    say: ({ paper, closed }) => `Here <i>ξ</i> = 0.3, so the clock counts 90 epochs of 11 steps. After 300 steps paper
      Amos is ${short(paper[300].error)} from the minimum, and after 1,000 steps ${short(paper[1000].error)}: its steps
      are ${short(paper[1000].length)} long, and they freeze wherever they are. The closed form’s sum of steps has no
      limit, and it still gets to ${short(closed[1000].error)}.`,
  },
  spikes: {
    title: "Spikes without noise",
    changes: { problem: "tilted", noise: 0, xi: 0.05, eta: 1.5, beta: 0.99, alpha_0: 0.05, half_life: 20, sigma: 1.5 },
    say({ paper }) {
      const from = unstable(PROBLEMS.tilted, paper);
      const top = peak(paper, from);
      const { b: before } = paper[from].slots[0];
      const { b: after } = paper[top + 20].slots[0];
      return `Without noise the gradient vanishes. <i>v</i> forgets how large it was, so <i>α</i> grows while the clock
        stands still. At step ${from} <i>α</i> passes 2/51 = 0.0392, from where steps along the steep direction (curvature
        51) overshoot by more than they correct. What was left there grows until the distance peaks at
        ${short(paper[top].error)} in step ${top}. The spike moves the clock, from <i>b</i> = ${short(before)} to
        ${short(after)}, and the next one comes.`;
    },
  },
  rare: {
    title: "A rare row",
    changes: { problem: "rare", noise: 1, seed: 3, slots: "each" },
    say: ({ paper }) => `θ₂ has a gradient in every tenth step, as the row of a rare word has. With a slot of its own, its
      steps are longer when they come: its <i>α</i> is ${short(paper[1000].slots[1].alpha)} at the end, and that of θ₁ is
      ${short(paper[1000].slots[0].alpha)}. Its clock <i>b</i> has had a tenth of the gradients and is at
      ${short(paper[1000].slots[1].b)}, more than half of the ${short(paper[1000].slots[0].b)} of θ₁.`,
  },
  rosenbrock: {
    title: "The way around",
    changes: { problem: "rosenbrock", noise: 0, t: 50 },
    say: ({ paper }) => `The closed form’s plan assumes that the distance falls. The valley leads around: in 50 steps
      paper Amos lowers the loss from ${short(paper[0].loss)} to ${short(paper[50].loss)} while its distance to the
      minimum rises from ${short(paper[0].error)} to ${short(paper[50].error)}.`,
  },
  saddle: {
    title: "A saddle",
    changes: { problem: "saddle", noise: 0.001, t: 40 },
    say: ({ adamw, paper, closed }) => `The start lies on the ridge, and only noise of size 0.001 pushes to a side. AdamW
      divides each entry by its own size, so it does not see how small the push is: it is within 0.5 of a minimum after
      ${near(adamw)} steps. Both Amos divide by the size of the whole slot, and take ${near(closed)} (closed form) and
      ${near(paper)} steps (paper).`,
  },
};

const near = (path) => path.findIndex(({ error }) => error < 0.5);

// The step of the greatest distance in the 150 steps from `from`.
function peak(path, from) {
  const errors = path.slice(from, from + 150).map(({ error }) => error);
  return from + errors.indexOf(Math.max(...errors));
}

export const settingsOf = (name) => ({ ...DEFAULTS, ...PRESETS[name].changes });

// The preset whose settings these are, whatever step is shown.
export function presetOf(settings) {
  const same = (other) => Object.keys(DEFAULTS).every((key) => key === "t" || String(settings[key]) === String(other[key]));
  const found = Object.keys(PRESETS).filter((name) => same(settingsOf(name)));
  return found.find((name) => settingsOf(name).t === settings.t) ?? found[0];
}
