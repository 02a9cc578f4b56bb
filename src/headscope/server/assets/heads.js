// Which head is shown, which stands beside it, and the switches.

import { ids, index, nameOf, placeOf } from "./data.js";
import { byId, make } from "./dom.js";
import { choose, on, state, theme } from "./state.js";

const SCALES = ["sqrt", "linear", "log"];

/** Wire up the choice of heads, the switches, the dialog and the keys that work everywhere. */
export function buildControls(pane) {
  buildHeads();
  for (const name of ["pool", "scale", "together"]) wire(name);
  on("other", () => (byId("together").hidden = !state.other));
  byId("together").hidden = !state.other;
  byId("theme").addEventListener("click", toggleTheme);
  on("theme", markTheme);
  markTheme();
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("help").addEventListener("click", (event) => event.target === byId("help") && byId("help").close());
  document.addEventListener("keydown", (event) => onKey(event, pane));
}

/** Recording, layer, head and item: a list each, the shorter ones hidden; and the head beside. */
function buildHeads() {
  byId("other").append(make("option", { value: "" }, "alone"), ...ids.map((id) => make("option", { value: id }, nameOf(id))));
  byId("other").addEventListener("change", () => choose({ other: byId("other").value }));
  for (const [name, step] of [["head-before", -1], ["head-after", 1]]) byId(name).addEventListener("click", () => stepHead(step));
  for (const name of ["recording", "layer", "head", "item"]) byId(name).addEventListener("change", () => chooseHead(name));
  on("head other", fillHeads);
  fillHeads();
}

function fillHeads() {
  const place = placeOf(state.head);
  fill("recording", index.recordings.map(({ id, name }) => [id, name]), place.recording.id);
  fill("layer", place.recording.layers.map(({ number }) => [number, `layer ${number}`]), place.layer.number);
  fill("head", place.layer.heads.map(({ number }) => [number, `head ${number}`]), place.head.number);
  fill("item", place.head.ids.map((_, item) => [item, `item ${item}`]), place.item);
  byId("recording").hidden = index.recordings.length < 2;
  byId("item").hidden = place.head.ids.length < 2;
  byId("other").value = state.other;
  const at = ids.indexOf(state.head);
  byId("head-before").disabled = at <= 0;
  byId("head-after").disabled = at >= ids.length - 1;
}

function fill(id, entries, chosen) {
  byId(id).replaceChildren(...entries.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}

/** The head that the lists name; what a new recording or layer does not have becomes its first. */
function chooseHead(changed) {
  const one = (list, wanted, same) => list.find((entry) => same(entry, wanted)) ?? list[0];
  const recording = one(index.recordings, byId("recording").value, ({ id }, value) => id === value);
  const layer = one(recording.layers, Number(byId("layer").value), ({ number }, value) => number === value);
  const head = one(layer.heads, Number(byId("head").value), ({ number }, value) => number === value);
  const id = head.ids[Math.min(Number(byId("item").value) || 0, head.ids.length - 1)];
  choose({ head: id, ...(changed === "recording" ? { pin: null, cursor: null, marks: [], q: null, k: null, w: null } : {}) });
}

function stepHead(step) {
  const next = ids[ids.indexOf(state.head) + step];
  if (next) choose({ head: next });
}

/** A group of buttons of which one is pressed. */
function wire(name) {
  const buttons = [...byId(name).querySelectorAll("button")];
  const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === state[name])));
  buttons.forEach((button) => button.addEventListener("click", () => choose({ [name]: button.value })));
  on(name, mark);
  mark();
}

function toggleTheme() {
  choose({ theme: theme() === "dark" ? "light" : "dark" });
}

function markTheme() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  byId("theme").setAttribute("aria-pressed", String(theme() === "dark"));
}

function onKey(event, pane) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("select, input, textarea")) return;
  const { key } = event;
  if (key === "l") choose({ scale: SCALES[(SCALES.indexOf(state.scale) + 1) % SCALES.length] });
  else if (key === "p") choose({ pool: state.pool === "max" ? "mean" : "max" });
  else if (key === "d" && state.other) choose({ together: state.together === "side" ? "difference" : "side" });
  else if (key === "t") toggleTheme();
  else if (key === "[") stepHead(-1);
  else if (key === "]") stepHead(1);
  else if (key === "m") pane.canvas.focus();
  else if (key === "/") byId("seek").focus();
  else if (key === "b") byId("bookmark").click();
  else if (key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
}
