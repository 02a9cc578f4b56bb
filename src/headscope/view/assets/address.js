// The address: all that is chosen stands in its fragment, so that a link, Back and Forward lead to what was seen.

import { page } from "./data.js";
import { choose, DEFAULTS, on, state } from "./state.js";

const CHOICES = {
  scale: ["linear", "sqrt", "log", "order"],
  special: ["shown", "hidden", "renormalised"],
  weigh: ["weights", "values"],
  direction: ["from", "to"],
  combine: ["mean", "max", "count"],
  texts: ["all", "AA", "AB", "BA", "BB"],
  photo: ["both", "weights", "picture"],
  theme: ["light", "dark"],
};
const TEXTS = ["grid", "kinds", "search", "view"];
const PAUSE = 700; // Milliseconds between two entries of the history: a held key makes one.

/** The model's own numbers of a head, by its place: "3.1". */
export function nameOf(layer, head) {
  return `${page.layers[layer].number}.${page.layers[layer].heads[head]}`;
}

/** The place of a head, by the model's numbers; null where there is none. */
export function placeOf(layerNumber, headNumber) {
  const layer = page.layers.findIndex(({ number }) => String(number) === String(layerNumber));
  const head = layer < 0 ? -1 : page.layers[layer].heads.findIndex((number) => String(number) === String(headNumber));
  return head < 0 ? null : [layer, head];
}

/** The fragment for what is chosen: layer, head and query always, everything else where it is not as at the beginning. */
export function fragment() {
  const layer = page.layers[state.layer];
  const said = new URLSearchParams({ layer: layer.number, head: layer.heads[state.head], query: state.query });
  if (state.key !== null) said.set("key", state.key);
  if (state.input) said.set("input", state.input);
  if (state.item) said.set("item", state.item);
  if (state.others) said.set("with", state.others.split(",").map((name) => nameOf(...name.split(".").map(Number))).join(","));
  if (state.least !== DEFAULTS.least) said.set("least", state.least);
  for (const name of [...Object.keys(CHOICES), ...TEXTS]) if (state[name] !== DEFAULTS[name]) said.set(name, state[name]);
  return `#${said.toString().replaceAll("%2C", ",")}`;
}

/** Choose what a fragment says; what it does not name, or names wrongly, is as at the beginning. */
export function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^\d+$/.test(said.get(name) ?? "") ? Number(said.get(name)) : NaN);
  const { layer, head, query, key, item, input, cursor, theme, ...rest } = DEFAULTS;
  const change = { ...rest, item: number("item") || 0, input: number("input") || 0, key: said.has("key") ? number("key") : null, theme: state.theme };
  const place = placeOf(said.get("layer"), said.get("head"));
  [change.layer, change.head] = place ?? [layer, head];
  change.query = Number.isNaN(number("query")) ? query : number("query");
  for (const [name, values] of Object.entries(CHOICES)) if (values.includes(said.get(name))) change[name] = said.get(name);
  for (const name of TEXTS) if (said.has(name)) change[name] = said.get(name);
  if (!["layer", "kind", ...Object.keys(page.heads?.measures ?? {})].includes(change.grid)) change.grid = "layer";
  if (!/^(\d+(\.\d+)?,){3}\d+(\.\d+)?$/.test(change.view)) change.view = "";
  const least = Number(said.get("least"));
  if (said.has("least") && least >= 0 && least <= 1) change.least = least;
  const others = (said.get("with") ?? "").split(",").map((name) => placeOf(...name.split(".")));
  change.others = others.filter(Boolean).map((found) => found.join(".")).join(",");
  choose(change);
}

let writtenAt = 0;

/** Keep what is chosen in the address: a new entry of the history, or in quick succession the same. */
function writeAddress() {
  const wanted = fragment();
  if (location.hash === wanted) return;
  const now = performance.now();
  try {
    if (now - writtenAt > PAUSE && writtenAt) history.pushState(null, "", wanted);
    else history.replaceState(null, "", wanted);
    writtenAt = now;
  } catch {
    // Inside a notebook's frame a page has no address; there it is not needed.
  }
}

/** Follow the address from now on, and write every choice to it. */
export function keepAddress() {
  writeAddress();
  on(Object.keys(DEFAULTS).filter((name) => name !== "cursor").join(" "), writeAddress);
  addEventListener("popstate", () => {
    if (location.hash !== fragment()) readAddress();
  });
}
