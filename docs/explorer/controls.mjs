// The form's controls, made from the list of settings, and playing.

import { CHOICES, SLIDERS, STEPS } from "./settings.mjs";

const byId = (id) => document.getElementById(id);

function nearest(values, x) {
  return values.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(values[best] - x) ? i : best), 0);
}

function addSlider(name, { of, label, values }, change) {
  const row = document.createElement("div");
  row.className = "slider";
  row.innerHTML = `<label for="${name}">${label}</label><input type="range" id="${name}" min="0" max="${values.length - 1}">`
    + `<output id="${name}-value" for="${name}"></output>`;
  document.querySelector(`[data-controls="${of}"]`).append(row);
  byId(name).addEventListener("input", (event) => change({ [name]: values[event.target.value] }));
}

function addChoice(name, { of, label, options }, change) {
  const row = document.createElement("div");
  row.className = "choice";
  row.innerHTML = `<label for="${name}">${label}</label><select id="${name}"></select>`;
  document.querySelector(`[data-controls="${of}"]`).append(row);
  for (const [value, title] of Object.entries(options)) byId(name).add(new Option(title, value));
  byId(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
}

export function addControls(change) {
  for (const [name, choice] of Object.entries(CHOICES)) addChoice(name, choice, change);
  for (const [name, slider] of Object.entries(SLIDERS)) addSlider(name, slider, change);
}

export function showSlider(name, value) {
  byId(name).value = nearest(SLIDERS[name].values, value);
  byId(name).setAttribute("aria-valuetext", value);
  byId(`${name}-value`).textContent = value;
}

export function showControls(settings) {
  for (const name of Object.keys(SLIDERS)) showSlider(name, settings[name]);
  for (const name of Object.keys(CHOICES)) byId(name).value = settings[name];
  byId("end").disabled = settings.schedule === "constant";
  byId("seed").disabled = settings.noise === 0;
}

// The step that playing has come to; `jump` steps at once for those who want less motion.
export function stepAfter(from, seconds, speed, jump) {
  const gone = Math.floor(seconds * speed);
  return Math.min(from + gone - (gone % jump), STEPS);
}

// Plays from the step that `now` returns; `go` shows a step, `changed` hears whether it plays.
export function player({ now, go, changed }) {
  let frame = 0;
  const stop = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    changed(false);
  };
  const start = (speed) => {
    if (now() >= STEPS) go(0);
    const from = now();
    const jump = matchMedia("(prefers-reduced-motion: reduce)").matches ? 50 : 1;
    let begin;
    const next = (time) => {
      begin ??= time;
      const t = stepAfter(from, (time - begin) / 1000, speed, jump);
      if (t !== now()) go(t);
      if (t < STEPS) frame = requestAnimationFrame(next);
      else stop();
    };
    frame = requestAnimationFrame(next);
    changed(true);
  };
  return { stop, start, playing: () => frame !== 0 };
}
