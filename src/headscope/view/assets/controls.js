// Switches, and the keyboard.

import { items, page } from "./data.js";
import { byId, make } from "./dom.js";
import { ARROWS, choose, on, state, theme } from "./state.js";

const SPECIALS = ["shown", "hidden", "renormalised"];

/** Wire up the switches in the head of the page, the help, and the keys that work everywhere. */
export function buildControls() {
  wire("scale");
  wire("special");
  byId("special").hidden = !page.axes.some((axis) => axis.special.length && axis.special.length < axis.length);
  byId("theme").addEventListener("click", toggleTheme);
  on("theme", markTheme);
  markTheme();
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("help").addEventListener("click", (event) => {
    if (event.target === byId("help")) byId("help").close();
  });
  buildItems();
  document.addEventListener("keydown", onKey);
}

/** A group of buttons of which one is pressed. */
function wire(name) {
  const buttons = [...byId(name).querySelectorAll("button")];
  const markPressed = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === state[name])));
  buttons.forEach((button) => button.addEventListener("click", () => choose({ [name]: button.value })));
  on(name, markPressed);
  markPressed();
}

function toggleTheme() {
  choose({ theme: theme() === "dark" ? "light" : "dark" });
}

function markTheme() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  byId("theme").setAttribute("aria-pressed", String(theme() === "dark"));
}

/** The choice of a batch item, where there are several. */
function buildItems() {
  byId("items").hidden = items < 2;
  const select = byId("item");
  for (let item = 0; item < items; item++) select.append(make("option", { value: item }, `${item} of ${items}`));
  select.addEventListener("change", () => choose({ item: Number(select.value) }));
  const markItem = () => (select.value = String(state.item));
  on("item", markItem);
  markItem();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.closest("select, input, textarea")) return;
  const step = ARROWS[event.key];
  if (step) {
    // The next head that exists: layers may differ in how many they have.
    const head = state.head + step[1];
    const layer = state.layer + step[0];
    if (layer >= 0 && layer < page.layers.length && head >= 0) choose({ layer, head });
  } else if (event.key === "l") choose({ scale: state.scale === "log" ? "linear" : "log" });
  else if (event.key === "s" && !byId("special").hidden) choose({ special: SPECIALS[(SPECIALS.indexOf(state.special) + 1) % 3] });
  else if (event.key === "t") toggleTheme();
  else if (event.key === "[") choose({ query: state.query - 1 });
  else if (event.key === "]") choose({ query: state.query + 1 });
  else if (event.key === "m") byId("map").focus();
  else if (event.key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
}
