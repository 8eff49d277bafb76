// AdamW for one array, in JavaScript: what both Amos are compared with. Its direction is the closed form's "adam".

import { direct } from "./closed_form.mjs";

// Takes step t = 0, 1, ... in place; leaf has theta, m and v. Returns the direction and the two numbers that scale it.
export function step(leaf, g, t, { lr, weight_decay, ...options }) {
  const u = direct(leaf, g, t, { ...options, direction: "adam" });
  const rho = lr * weight_decay;
  u.forEach((x, i) => { leaf.theta[i] -= lr * x + rho * leaf.theta[i]; });
  return { u, alpha: lr, rho };
}
