// Numbers as text.

const minus = (text) => text.replaceAll("-", "−");

// Three digits.
export const short = (x) => minus(String(Number(x.toPrecision(3))));

// Seven digits, and no long row of zeros.
export const long = (x) => minus(x === 0 || Math.abs(x) >= 0.001 ? x.toPrecision(7) : x.toExponential(6));
