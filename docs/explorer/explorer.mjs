// The page: controls, charts, numbers and equations, kept at the same settings.

import { drawLines, measure } from "./chart.mjs";
import { addControls, player, showControls, showSlider } from "./controls.mjs";
import { long, short } from "./digits.mjs";
import { embed } from "./embedded.mjs";
import { EQUATIONS, inNumbers, inSymbols, numbersOf } from "./equations.mjs";
import { follow, rove } from "./links.mjs";
import { drawMap, letDrag } from "./map.mjs";
import { HORIZON, compute, recent, unstable } from "./model.mjs";
import { PRESETS, presetOf, settingsOf } from "./presets.mjs";
import { PROBLEMS } from "./problems.mjs";
import { STEPS, fromAddress, startOf, toAddress, within } from "./settings.mjs";

const byId = (id) => document.getElementById(id);
const NAMES = ["paper", "closed", "adamw"];
const T = Array.from({ length: STEPS + 1 }, (_, t) => t);

let settings = fromAddress(location.hash);
let preset = presetOf(settings); // whose sentence is shown
let result;
const moves = {}; // what the charts do when another step is shown
let mapScale;
let pointed; // the link that is pointed at

// Rows of the table. of: who has the number, everybody if it is not said; link: the equation that makes it.
const ROWS = [
  { name: "theta1", label: "<i>θ</i>₁" },
  { name: "theta2", label: "<i>θ</i>₂" },
  { name: "loss", label: "loss" },
  { name: "error", label: "distance |<i>ε</i>|" },
  { name: "recent", label: "its RMS, last 100" },
  { name: "predicted", label: "predicted", of: ["closed"] },
  { name: "length", label: "next step" },
  { name: "alpha", label: "<i>α</i>", link: "alpha" },
  { name: "rho", label: "<i>ρ</i>", link: "rho" },
  { name: "b", label: "clock <i>b</i>", of: ["paper"], link: "grown" },
  { name: "c", label: "<i>c</i>", of: ["paper"], link: "c" },
  { name: "d", label: "<i>d</i>", of: ["paper"], link: "d" },
  { name: "shrink", label: "plan e<sup>−2<i>S</i></sup>", of: ["closed"], link: "shrink" },
];

function addNumbers() {
  byId("numbers").innerHTML = ROWS.map(({ name, label, of = NAMES, link }) => {
    const cell = (who) => (of.includes(who)
      ? `<td data-of="${who}" data-name="${name}"${link ? ` data-link="${who} ${link}"` : ""}></td>` : "<td>–</td>");
    return `<tr><th scope="row">${label}</th>${NAMES.map(cell).join("")}</tr>`;
  }).join("");
  rove(byId("numbers"));
}

function addEquations() {
  const titles = { paper: "Paper Amos", closed: "Closed-form Amos", adamw: "AdamW" };
  byId("equations").innerHTML = NAMES.map((who) => `<ul class="${who}" aria-label="${titles[who]}"><li class="title">${titles[who]}</li>`
    + EQUATIONS.filter(({ of }) => of === who).map(({ name, label }) =>
      `<li data-link="${who} ${name}"><span>${label}</span><span class="math"></span><output></output></li>`).join("") + "</ul>").join("");
  rove(byId("equations"));
}

const equationOf = (link) => EQUATIONS.find(({ of, name }) => `${of} ${name}` === link);

// The different values that the slots have of a number, as text.
function slotsText(at, name, digits) {
  const texts = at.slots.map((slot) => digits(slot[name]));
  return [...new Set(texts)].join("\n");
}

function cellText(path, name) {
  const at = path[settings.t];
  if (name.startsWith("theta")) return long(at.theta[name.at(-1) - 1]);
  if (name === "recent") return long(recent(path, settings.t));
  return name in at ? long(at[name]) : slotsText(at, name, long);
}

function showNumbers() {
  for (const cell of document.querySelectorAll("td[data-of]")) cell.textContent = cellText(result[cell.dataset.of], cell.dataset.name);
  for (const item of document.querySelectorAll("#equations [data-link]")) {
    const { of, name } = equationOf(item.dataset.link);
    item.lastChild.textContent = slotsText(result[of][settings.t], name, short);
  }
  for (const place of document.querySelectorAll(".at-t")) place.textContent = settings.t;
  showReading();
}

// The equation that is pointed at, with its numbers; for each slot, if there are two.
function showReading() {
  const equation = equationOf(pointed);
  byId("reading").hidden = !equation;
  if (!equation) return;
  const { slots } = result[equation.of][settings.t];
  const lines = slots.map((slot) => inNumbers(equation, settings, numbersOf(equation.of, settings, settings.t, slot)));
  byId("reading").innerHTML = [...new Set(lines)].join("<br>");
}

// The powers of ten around the positive numbers of some lists, at most `most` decades.
function decades(lists, most) {
  const positive = lists.flat().filter((x) => x > 0);
  const high = Math.ceil(Math.log10(positive.reduce((a, b) => Math.max(a, b), 1e-12)));
  const low = Math.floor(Math.log10(positive.reduce((a, b) => Math.min(a, b), 10 ** high)));
  return [10 ** Math.max(Math.min(low, high - 1), high - most), 10 ** high];
}

function showPaths() {
  const problem = PROBLEMS[settings.problem];
  const map = drawMap(byId("map"), { problem, paths: NAMES.toReversed().map((name) => ({ name, points: result[name].map(({ theta }) => theta) })) });
  mapScale = map.scale;
  moves.map = map.move;
  const of = (who, read, name = who) => ({ name, x: T, y: result[who].map(read) });
  const errors = [...NAMES.toReversed().map((who) => of(who, (at) => at.error)), of("closed", (at) => at.predicted, "plan")];
  const decay = (who) => ({ ...of(who, ({ slots }) => slots[0].rho, `${who} second`), link: `${who} rho` });
  const sizes = NAMES.toReversed().flatMap((who) => [
    { ...of(who, (at) => at.length), link: `${who} alpha` }, decay(who),
  ]);
  for (const [id, lines, label, most] of [["errors", errors, "distance |ε|", 5], ["sizes", sizes, "α·RMS(u) and ρ", 8]])
    moves[id] = drawLines(byId(id), {
      x: { domain: [0, STEPS], label: "steps taken, t" },
      y: { domain: decades(lines.map(({ y }) => y), most), log: true, label }, lines,
    });
}

function showSchedules() {
  const { schedules } = result;
  const line = (name, key, rest) => ({ name, x: schedules.t, y: schedules[key], ...rest });
  const move = drawLines(byId("factors"), {
    x: { domain: [1, HORIZON], log: true, label: "steps taken, t" },
    y: { domain: [0.001, 1.3], log: true, label: "factor" },
    lines: [
      line("adamw", "planned"),
      line("paper", "d", { link: "paper d" }),
      line("paper second", "c", { link: "paper c" }),
      line("closed", "inverse-time", { link: settings.decay === "inverse-time" ? "closed shrink" : "" }),
      line("closed second", "inverse-square", { link: settings.decay === "inverse-square" ? "closed shrink" : "" }),
      line("closed", "inverse-time recurrence", { dots: true }),
      line("closed", "inverse-square recurrence", { dots: true }),
    ],
  });
  moves.factors = (t) => move(Math.max(t, 1));
}

function showStart() {
  const at = startOf(settings);
  const button = byId("start");
  button.dataset.at = JSON.stringify(at);
  button.setAttribute("aria-label", `Start, at ${at.map(short).join(" and ")}. The arrow keys move it.`);
  button.style.left = `${mapScale.x(at[0])}px`;
  button.style.top = `${mapScale.y(at[1])}px`;
}

function showWords() {
  for (const button of byId("presets").children) button.setAttribute("aria-pressed", button.value === preset);
  byId("story").innerHTML = preset ? PRESETS[preset].say(result) : "These are your own settings.";
  byId("cosine").textContent = short(result.cosine);
  byId("too-fast").hidden = result.cosine <= 1;
  const problem = PROBLEMS[settings.problem];
  const plain = settings.noise === 0 && settings.momentum === 0 && settings.slots === "one" && problem.steepest;
  const from = plain ? unstable(problem, result.paper) : undefined;
  byId("overshoot").hidden = from === undefined;
  byId("overshoot").innerHTML = `At step ${from} paper Amos’ <i>α</i> passes 2/${problem.steepest}, and its steps begin to overshoot.`;
}

function showStep() {
  window.explorer = { settings: { ...settings }, ...result };
  showSlider("t", settings.t);
  for (const move of Object.values(moves)) move(settings.t);
  showNumbers();
}

function draw({ schedulesToo = true } = {}) {
  showPaths();
  if (schedulesToo) showSchedules();
  showStart();
  for (const item of document.querySelectorAll("#equations [data-link]"))
    item.children[1].innerHTML = inSymbols(equationOf(item.dataset.link), settings);
  showStep();
}

function show() {
  const before = result?.schedules;
  result = compute(settings);
  showControls(settings);
  draw({ schedulesToo: result.schedules !== before });
  showWords();
}

const whole = () => `${location.href.split(/[?#]/)[0]}#${toAddress(settings)}`;

let writing;
function writeAddress() {
  byId("whole").href = whole();
  clearTimeout(writing); // browsers refuse too many changes in a short time
  writing = setTimeout(() => history.replaceState(null, "", `#${toAddress(settings)}`), 200);
}

// Shows other settings, those of a preset if it is named. Another step alone needs no new paths.
function change(changes, named) {
  const names = Object.keys(changes).filter((name) => String(changes[name]) !== String(settings[name]));
  const stepAlone = names.every((name) => name === "t");
  if (names.includes("problem") && !("start" in changes)) changes = { ...changes, start: null };
  settings = { ...settings, ...changes };
  preset = named ?? (stepAlone ? preset : presetOf(settings));
  if (stepAlone) showStep();
  else show();
  if (named) showWords();
  writeAddress();
}

const play = player({
  now: () => settings.t,
  go: (t) => change({ t }),
  changed: (playing) => { byId("play").textContent = playing ? "Pause" : "Play"; },
});

addControls((changes) => {
  if ("t" in changes) play.stop();
  change(changes);
});
addNumbers();
addEquations();
for (const [name, { title }] of Object.entries(PRESETS)) {
  const button = Object.assign(document.createElement("button"), { type: "button", value: name, textContent: title });
  button.addEventListener("click", () => { play.stop(); change(settingsOf(name), name); });
  byId("presets").append(button);
}
byId("play").addEventListener("click", () => (play.playing() ? play.stop() : play.start(Number(byId("speed").value))));
byId("step").addEventListener("click", () => { play.stop(); change({ t: Math.min(settings.t + 1, STEPS) }); });
byId("reset").addEventListener("click", () => { play.stop(); change(settingsOf("noise"), "noise"); });
byId("align").addEventListener("click", () => change({
  xi: settings.alpha_0, eta: settings.sigma, q: 1, momentum: 0, direction: "gradient",
}));
byId("share").addEventListener("click", async () => {
  await navigator.clipboard.writeText(whole());
  byId("share").textContent = "Copied";
  setTimeout(() => { byId("share").textContent = "Copy link"; }, 1500);
});
letDrag(byId("start"), () => mapScale, (point) => change({ start: within(PROBLEMS[settings.problem], point) }));
follow(byId("explorer"), (link) => { pointed = link; showReading(); });
// Not location.hash, which an address that was still to be written may have changed since.
addEventListener("hashchange", ({ newURL }) => { play.stop(); change(fromAddress(new URL(newURL).hash)); });

byId("back").hidden = !/\/explorer\/(index\.html)?$/.test(location.pathname); // inside the site
byId("not-started").remove();
byId("explorer").hidden = false;
byId("whole").href = whole();
embed(new URLSearchParams(location.search).get("show"));
const charts = document.querySelectorAll("svg[role=img]");
measure(charts);
show();
const observer = new ResizeObserver(() => { measure(charts); draw(); });
for (const svg of charts) observer.observe(svg);
