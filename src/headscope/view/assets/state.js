// What is chosen, and who wants to know when it changes.

import { axesOf, items, page } from "./data.js";

export const state = {
  layer: page.start.layer,
  head: page.start.head,
  item: 0,
  query: page.start.query,
  cursor: null, // { query, key }: the cell under the pointer, or under the keyboard's cursor
  scale: "linear", // or "log"
  special: "shown", // or "hidden", or "renormalised"
  theme: null, // null follows the system
};

/** What the arrow keys mean: rows down, columns along. */
export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const listeners = [];

/** Call `then` after each change of one of the named things. */
export function on(names, then) {
  listeners.push({ names: names.split(" "), then });
}

/** Change what is chosen; a head that does not exist becomes the nearest one that does. */
export function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  const within = (value, count) => Math.min(Math.max(Number.isInteger(value) ? value : 0, 0), count - 1);
  state.layer = within(state.layer, page.layers.length);
  state.head = within(state.head, page.layers[state.layer].heads.length);
  state.item = within(state.item, items);
  state.query = within(state.query, axesOf(state.layer, state.item).queries.length);
  if (state.layer !== before.layer || state.head !== before.head || state.item !== before.item) {
    if (!("cursor" in change)) state.cursor = null;
  }
  const changed = Object.keys(state).filter((name) => state[name] !== before[name]);
  for (const { names, then } of listeners) if (changed.some((name) => names.includes(name))) then();
}

const STORED = ["layer", "head", "item", "query"];

/** Read the choice from the address, so that a link can point at a head: page.html#layer=3&head=1&query=12. */
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const change = {};
  for (const name of STORED) if (/^\d+$/.test(given.get(name) ?? "")) change[name] = Number(given.get(name));
  choose(change);
}

/** Keep the choice in the address, where the page has one of its own. */
export function writeAddress() {
  const wanted = `#${STORED.map((name) => `${name}=${state[name]}`).join("&")}`;
  try {
    if (location.hash !== wanted) history.replaceState(null, "", wanted);
  } catch {
    // Inside a notebook's frame a page has no address; there it is not needed.
  }
}

/** Light or dark: what was chosen, or what the system asks for. */
export function theme() {
  return state.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { names, then } of listeners) if (names.includes("theme")) then();
});
