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

const closed = (entry) => "alpha_0" in entry.options;
let compared = 0;
let wrong = 0;
let tried = 0;

function run(entries, hello) {
  const messages = [{ call: "hello", ...hello }];
  const expected = []; // [index of the answer, case, stored step]
  for (const entry of entries) {
    const dtype = entry.id.split("/")[1];
    const stored = new Map(entry.steps.map((step) => [step.t, step]));
    const of = (step, part) => Object.fromEntries(Object.entries(step.leaves).map(([name, leaf]) => [name, leaf[part]]));
    const pre = of(entry.steps[0], "pre");
    const leaves = Object.fromEntries(Object.entries(entry.leaves).map(([name, { shape, slot_shape, eta, sigma }]) =>
      [name, { dtype, shape, slot_shape, ...(closed(entry) ? { sigma } : { eta }), theta: pre[name].theta }]));
    const rates = entry.steps.map((step) => step.learning_rate);
    const rate = { learning_rate: new Set(rates).size > 1 ? rates.join("") : rates[0] }; // none in the closed form
    const { sigma, ...options } = entry.options; // that sigma was measured; what it was stands with each leaf
    messages.push({ call: "init", ...rate, options, leaves });
    const first = entry.steps[0].t;
    const times = entry.cycle ? Array.from({ length: entry.steps.at(-1).t - first + 1 }, (_, k) => first + k) : [...stored.keys()];
    times.forEach((t, k) => {
      const step = stored.get(t);
      if (k === 1 && entry.flags.includes("injected-state")) {
        const values = {};
        for (const [name, state] of Object.entries(of(step, "pre")))
          for (const [part, bits] of Object.entries(state)) (values[part] ??= {})[name] = bits;
        messages.push({ call: "put", values });
      }
      if (k && t !== times[k - 1] + 1) messages.push({ call: "count", steps: bitsOf(t) });
      const grads = step ? of(step, "g") : entry.cycle[(t - first) % entry.cycle.length];
      messages.push({ call: "step", learning_rate: step?.learning_rate ?? rates[0], grads });
      if (step) expected.push([messages.length - 1, entry, step]);
    });
  }
  messages.push({ call: "bye" });
  compare(answersTo(messages), expected);
  tried += entries.length;
}

function answersTo(messages) {
  const input = messages.map((message) => JSON.stringify(message) + "\n").join("");
  const { stdout, status, error } = spawnSync(command, args, { input, encoding: "latin1", maxBuffer: 2 ** 30, stdio: ["pipe", "pipe", "inherit"] });
  if (error || status !== 0) throw error ?? new Error(`the port ended with status ${status}`);
  return stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

function compare(answers, expected) {
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
}

function bitsOf(x) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  return Buffer.from(view.buffer).toString("hex");
}

const planned = cases.filter((entry) => closed(entry) && entry.options.decay !== "recurrence"); // many ports have none
const ofPaper = cases.filter((entry) => !closed(entry));
if (ofPaper.length) run(ofPaper, { protocol: "amos-ref-port-1" });
if (planned.length) run(planned, { protocol: "amos-ref-port-2", algorithm: "closed-form" });
console.log(`${tried} cases, ${compared} numbers compared, ${wrong} beyond their tolerance`);
process.exitCode = tried && !wrong ? 0 : 1; // not exit(), which would cut off what is still to be written
