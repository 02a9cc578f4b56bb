// What is chosen, and who wants to know when it changes.

import { axesOf, items, page } from "./data.js";

/** What is chosen before anybody chooses: `address.js` writes what differs from it. */
export const DEFAULTS = {
  layer: page.start.layer,
  head: page.start.head,
  item: 0,
  query: page.start.query,
  input: 0, // which of several inputs, where two recordings are compared
  key: null, // what is looked at, where keys are other things than queries; null is the heaviest of the row
  cursor: null, // { query, key }: the cell under the pointer, or under the keyboard's cursor
  scale: null, // or "linear", "sqrt", "log", "order"; null follows the length
  special: page.start.special ?? "shown", // or "hidden", or "renormalised"
  weigh: "weights", // or "values": times the length of the value
  direction: "from", // or "to": what looks at the chosen token
  others: "", // heads that are looked at together with the chosen one: "layer.head,layer.head", by place
  combine: "mean", // or "max", or "count"
  least: 0.15, // the smallest weight that has an arc
  photo: "both", // or "weights", or "picture": what is seen of a picture and its weights
  texts: "all", // or "AA", "AB", "BA", "BB": which links of a pair of texts
  grid: "layer", // or "kind", or the name of a statistic
  kinds: "", // kinds of heads that are sought: "previous,pair"
  search: "",
  view: "", // the part of the map that is seen: "row,column,rows,columns"
  theme: null, // null follows the system
};

export const state = { ...DEFAULTS };

/** What the arrow keys mean: rows down, columns along. */
export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const listeners = [];

/** How many layers there are to choose from. */
const layerCount = page.compare ? page.compare.numbers.length : page.layers.length;

/** The layer and the item that what is chosen stands for: with two recordings, those of the first one. */
export function place() {
  const input = page.compare?.inputs[state.input];
  return input ? [input.first + state.layer, input.item] : [state.layer, state.item];
}

/** Call `then` after each change of one of the named things. */
export function on(names, then) {
  listeners.push({ names: names.split(" "), then });
}

/** Change what is chosen; a head that does not exist becomes the nearest one that does. */
export function choose(change) {
  const [before, queriesBefore] = [{ ...state }, axesOf(...place()).queries];
  Object.assign(state, change);
  const within = (value, count) => Math.min(Math.max(Number.isInteger(value) ? value : 0, 0), count - 1);
  state.input = within(state.input, page.compare?.inputs.length ?? 1);
  state.layer = within(state.layer, layerCount);
  state.head = within(state.head, page.layers[state.layer].heads.length);
  state.item = within(state.item, items);
  const { queries, keys } = axesOf(...place());
  state.query = within(state.query, queries.length);
  if (state.key !== null && !(state.key < keys.length)) state.key = null;
  if (state.special !== "shown" && queries.isSpecial[state.query] && queries.special.length < queries.length) state.query = nearestContent(queries, state.query, before.query);
  if (["layer", "head", "item", "input"].some((name) => state[name] !== before[name])) {
    if (!("cursor" in change)) state.cursor = null;
    if (!("view" in change)) state.view = queriesBefore === queries ? state.view : "";
  }
  const changed = Object.keys(state).filter((name) => state[name] !== before[name]);
  for (const { names, then } of listeners) if (changed.some((name) => names.includes(name))) then();
}

/** The nearest query that is not special: in the direction of a step, else wherever there is one. */
function nearestContent(axis, query, before) {
  const step = query < before ? -1 : 1;
  for (const way of [step, -step]) for (let i = query; i >= 0 && i < axis.length; i += way) if (!axis.isSpecial[i]) return i;
  return query;
}

/** The chosen heads by place: the one that is shown first, and those that were added to it. */
export function chosenHeads() {
  const others = state.others.split(",").filter(Boolean).map((name) => name.split(".").map(Number));
  const exists = ([layer, head]) => page.layers[layer]?.heads[head] !== undefined && !(layer === state.layer && head === state.head);
  return [[state.layer, state.head], ...others.filter(exists)];
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** Light or dark: what was chosen, or what the system asks for. */
export function theme() {
  return state.theme ?? (prefersDark.matches ? "dark" : "light");
}

prefersDark.addEventListener("change", () => {
  if (!state.theme) for (const { names, then } of listeners) if (names.includes("theme")) then();
});
