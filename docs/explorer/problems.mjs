// Functions of two parameters, with gradients in + - * alone, so that any language computes the same bits.

// Half of (theta - minimum)^T H (theta - minimum), H = [[h11, h12], [h12, h22]].
function quadratic([h11, h12, h22], minimum, rest) {
  const apart = ([x, y]) => [x - minimum[0], y - minimum[1]];
  return {
    minima: [minimum],
    loss(theta) {
      const [x, y] = apart(theta);
      return (h11 * x * x + 2 * h12 * x * y + h22 * y * y) / 2;
    },
    gradient(theta) {
      const [x, y] = apart(theta);
      return [h11 * x + h12 * y, h12 * x + h22 * y];
    },
    start: [-1.5, 1.5],
    view: { center: [-0.1, 0.6], half: [2.2, 1.5] },
    lowest: 1 / 32, // the height of the first contour; each next one is four times as high
    ...rest,
  };
}

// view: what a map shows at least. every: in which steps the second entry gets a gradient at all.
// steepest: the greatest curvature, where it is the same everywhere.
export const PROBLEMS = {
  valley: quadratic([1, 0, 10], [1, 0.5], { title: "Valley, curvature 1 and 10", steepest: 10 }),
  tilted: quadratic([19, -24, 33], [1, 0.5], { title: "Tilted valley, curvature 1 and 51", steepest: 51 }),
  bowl: quadratic([1, 0, 1], [0, 0], {
    title: "Round bowl, minimum at 0", steepest: 1, view: { center: [0, 0], half: [2.2, 1.9] },
  }),
  rosenbrock: {
    title: "Rosenbrock’s curved valley",
    minima: [[1, 1]],
    loss: ([x, y]) => 100 * (y - x * x) * (y - x * x) + (1 - x) * (1 - x),
    gradient([x, y]) {
      const e = y - x * x;
      return [-400 * x * e - 2 * (1 - x), 200 * e];
    },
    start: [-0.5, 1.5],
    view: { center: [0.1, 0.9], half: [1.8, 1.2] },
    lowest: 0.25,
  },
  saddle: {
    title: "Saddle between two minima",
    minima: [[-1, 0], [1, 0]],
    loss: ([x, y]) => ((x * x - 1) * (x * x - 1)) / 4 + (y * y) / 2,
    gradient: ([x, y]) => [x * (x * x - 1), y],
    start: [0, 1.2],
    view: { center: [0, 0], half: [2, 1.5] },
    lowest: 1 / 64, // the third is at the height of the saddle, 1/4
  },
  rare: quadratic([1, 0, 1], [1, 1], {
    title: "Rare row: θ₂ in every tenth step", steepest: 1, every: 10, start: [-1, -1],
    view: { center: [0, 0], half: [2.2, 1.6] },
  }),
};

// The gradient of step t = 0, 1, ... with `offset` added as its noise.
export function gradientAt({ gradient, every = 1 }, theta, t, offset) {
  const [x, y] = gradient(theta);
  return Float64Array.of(x + offset[0], t % every === 0 ? y + offset[1] : 0);
}

// Pairs, uniform in (-noise, noise), by Park and Miller's generator.
export function* offsets(noise, seed) {
  let state = (seed * 1000003) % 2147483647;
  const next = () => noise * (2 * ((state = (state * 16807) % 2147483647) / 2147483647) - 1);
  while (true) yield [next(), next()];
}

// How far theta is from the nearest minimum.
export function distance({ minima }, theta) {
  return Math.min(...minima.map(([x, y]) => Math.sqrt((theta[0] - x) * (theta[0] - x) + (theta[1] - y) * (theta[1] - y))));
}
