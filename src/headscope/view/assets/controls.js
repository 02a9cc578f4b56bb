// Switches, and the few keys that work everywhere. Arrow keys belong to the element in focus, scrolling to the page.

import { axesOf, itemOf, items, page } from "./data.js";
import { byId, make } from "./dom.js";
import { windowName } from "./images.js";
import { scaleKind } from "./scale.js";
import { choose, on, state, theme } from "./state.js";

const SPECIALS = ["shown", "hidden", "renormalised"];
const SCALES = ["linear", "sqrt", "log", "order"];

/** Wire up the switches, the help, and the keys that work everywhere. */
export function buildControls() {
  wire("scale", () => scaleKind(), "layer item");
  for (const name of ["special", "weigh", "direction", "combine"]) wire(name, () => state[name]);
  byId("special").hidden = !page.axes.some((axis) => axis.special.length && axis.special.length < axis.length);
  byId("special-name").textContent = specialNoun();
  byId("weigh").hidden = !page.layers.some((layer) => layer.lengths);
  byId("theme").addEventListener("click", toggleTheme);
  on("theme", markTheme);
  markTheme();
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("fold").addEventListener("click", toggleFold);
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  buildItems();
  buildTabs();
  document.addEventListener("keydown", onKey);
}

/** What the special positions are: tokens, the silence that fills a sound up, or what stands beside the patches. */
function specialNoun() {
  const kinds = new Set(page.axes.filter(({ special }) => special.length).map(({ kind }) => kind));
  if (kinds.size === 1 && kinds.has("frames")) return "Silence at the end";
  return kinds.has("frames") ? "Special tokens, silence" : "Special tokens";
}

/** A group of buttons of which one is pressed. */
function wire(name, now, more = "") {
  const buttons = [...byId(name).querySelectorAll("button")];
  const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === now())));
  buttons.forEach((button) => button.addEventListener("click", () => choose({ [name]: button.value })));
  on(`${name} ${more}`, mark);
  mark();
}

function toggleTheme() {
  choose({ theme: theme() === "dark" ? "light" : "dark" });
}

function markTheme() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  byId("theme").setAttribute("aria-pressed", String(theme() === "dark"));
}

/** The map alone, as large as it can be, or with the panels beside it. */
function toggleFold() {
  const folded = document.body.classList.toggle("folded");
  byId("fold").setAttribute("aria-pressed", String(folded));
}

/** The choice of a batch item, where there are several. */
function buildItems() {
  byId("items").hidden = items < 2;
  const select = byId("item");
  select.addEventListener("change", () => choose({ item: Number(select.value) }));
  let shown = -1;
  const mark = () => {
    if (shown !== state.layer) select.replaceChildren(...optionsOf(state.layer));
    shown = state.layer;
    select.value = String(itemOf(state.layer, state.item));
  };
  on("item layer", mark);
  mark();
}

/** The items of a layer; windows of a picture, of which layers have different ones, by their rows and columns. */
function optionsOf(layer) {
  const count = page.layers[layer].chunks.length;
  return Array.from({ length: count }, (_, item) => {
    const name = windowName(axesOf(layer, item).keys);
    return make("option", { value: item }, `${item} of ${count}${name ? ` · ${name}` : ""}`);
  });
}

/** In a narrow frame the map, the row and the findings share one place: tabs. */
function buildTabs() {
  const tabs = [...byId("tabs").querySelectorAll("button")];
  const open = (name) => {
    document.body.dataset.tab = name;
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.value === name)));
  };
  tabs.forEach((tab) => tab.addEventListener("click", () => open(tab.value)));
  open("look");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("select, input, textarea")) return;
  const { key } = event;
  if (key === "l") choose({ scale: SCALES[(SCALES.indexOf(scaleKind()) + 1) % SCALES.length] });
  else if (key === "s" && !byId("special").hidden) choose({ special: SPECIALS[(SPECIALS.indexOf(state.special) + 1) % 3] });
  else if (key === "v" && !byId("weigh").hidden) choose({ weigh: state.weigh === "weights" ? "values" : "weights" });
  else if (key === "r") choose({ direction: state.direction === "from" ? "to" : "from" });
  else if (key === "t") toggleTheme();
  else if (key === "w") toggleFold();
  else if (key === "[") choose({ query: state.query - 1 });
  else if (key === "]") choose({ query: state.query + 1 });
  else if (key === "m") byId("map").focus();
  else if (key === "g" && !page.single) document.querySelector(".grid-cell[tabindex='0']")?.focus();
  else if (key === "f" && !byId("findings").hidden) byId("findings-list").focus();
  else if (key === "/" && !byId("finding-tools").hidden) byId("search").focus();
  else if (key === "e") byId("export-open").click();
  else if (key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
}
