// The vectors of `amos-ref vectors export --format zip` (or json) over a port in any language that speaks the protocol of
// docs/protocol.md. Every case runs from its first pre; theta, v, b and m must stay within tolerance of post.
//
//   amos-ref vectors export --format zip --output vectors.zip
//   node examples/vectors/run.mjs vectors.zip node examples/ports/amos.mjs

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const [file, command, ...args] = process.argv.slice(2);

// A DataView is big-endian unless told otherwise, as the vectors are.
function numbers(text, digits) {
  const view = new DataView(Uint8Array.from(Buffer.from(text, "hex")).buffer);
  return Array.from({ length: text.length / digits }, (_, i) => (digits === 8 ? view.getFloat32(4 * i) : view.getFloat64(8 * i)));
}

// The archive is not compressed, so the lines with cases stand in it as they are; what is to be refused is not tried here.
const cases = readFileSync(file, "latin1").split("\n").filter((line) => line.startsWith('   {"id":'))
  .map((line) => JSON.parse(line.replace(/,$/, "")))
  .filter(({ id, error }) => /\/float(64|32)$/.test(id) && !error);

const messages = [{ call: "hello", protocol: "amos-ref-port-1" }];
const expected = []; // [index of the answer, case, stored step]
for (const entry of cases) {
  const dtype = entry.id.split("/")[1];
  const stored = new Map(entry.steps.map((step) => [step.t, step]));
  const of = (step, part) => Object.fromEntries(Object.entries(step.leaves).map(([name, leaf]) => [name, leaf[part]]));
  const pre = of(entry.steps[0], "pre");
  const leaves = Object.fromEntries(Object.entries(entry.leaves).map(([name, { shape, slot_shape, eta }]) =>
    [name, { dtype, shape, slot_shape, eta, theta: pre[name].theta }]));
  const rates = entry.steps.map((step) => step.learning_rate);
  messages.push({ call: "init", learning_rate: new Set(rates).size > 1 ? rates.join("") : rates[0], options: entry.options, leaves });
  for (let t = 1; t <= entry.steps.at(-1).t; t++) {
    const step = stored.get(t);
    if (t === 2 && entry.flags.includes("injected-state")) {
      const values = {};
      for (const [name, state] of Object.entries(of(step, "pre")))
        for (const [part, bits] of Object.entries(state)) (values[part] ??= {})[name] = bits;
      messages.push({ call: "put", values });
    }
    const grads = step ? of(step, "g") : entry.cycle[(t - 1) % entry.cycle.length];
    messages.push({ call: "step", learning_rate: step?.learning_rate ?? rates[0], grads });
    if (step) expected.push([messages.length - 1, entry, step]);
  }
}
messages.push({ call: "bye" });

const input = messages.map((message) => JSON.stringify(message) + "\n").join("");
const { stdout, status, error } = spawnSync(command, args, { input, encoding: "latin1", maxBuffer: 2 ** 30, stdio: ["pipe", "pipe", "inherit"] });
if (error || status !== 0) throw error ?? new Error(`the port ended with status ${status}`);
const answers = stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
let compared = 0;
let wrong = 0;
for (const [index, entry, step] of expected)
  for (const [name, { post, tolerance }] of Object.entries(step.leaves))
    for (const [part, bits] of Object.entries(tolerance ?? {})) {
      if (part !== "theta" && !answers[index][part]) continue; // a port need not show its state
      const narrow = entry.id.endsWith("32") ? 8 : 16;
      const allowed = numbers(bits, 16);
      const want = numbers(post[part], part === "theta" ? narrow : 16);
      const shown = answers[index][part]?.[name] ?? "";
      const got = numbers(shown, want.length && shown.length / want.length === 8 ? 8 : 16);
      want.forEach((x, i) => {
        compared++;
        if (Math.abs(got[i] - x) <= allowed[i]) return; // false for a NaN
        wrong++;
        console.log(`${entry.id} step ${step.t}: ${part}[${i}] of ${name} is ${got[i]}, should be ${x} within ${allowed[i]}`);
      });
    }
console.log(`${cases.length} cases, ${compared} numbers compared, ${wrong} beyond their tolerance`);
process.exit(cases.length && !wrong ? 0 : 1);
