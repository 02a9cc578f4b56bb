// What is chosen on the map: every change goes through `choose`, which calls those who listen for it.

export const DEFAULTS = {
  head: "", // identifiers of the head that is shown, and of the one beside it
  other: "",
  together: "side", // or "difference"
  pool: "max", // or "mean": what a cell that pools several weights shows
  scale: "sqrt",
  q: null, // The middle of what is seen, in positions, and how many positions a pixel holds; null shows all.
  k: null,
  w: null,
  cursor: null, // { query, key } under the pointer
  pin: null, // { query, key } that was clicked
  marks: [], // [start, stop] of keys that a search found
  theme: null, // null follows the system
};

export const state = { ...DEFAULTS };

/** What the arrow keys mean: rows down, columns along. */
export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const listeners = [];

/** Call `then` after each change of one of the named things. */
export function on(names, then) {
  listeners.push({ names: names.split(" "), then });
}

/** Change what is chosen. */
export function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  const changed = Object.keys(state).filter((name) => state[name] !== before[name]);
  for (const { names, then } of listeners) if (changed.some((name) => names.includes(name))) then();
}

/** The place whose axes the shared modules ask for: the head. */
export function place() {
  return [state.head];
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** Light or dark: what was chosen, or what the system asks for. */
export function theme() {
  return state.theme ?? (prefersDark.matches ? "dark" : "light");
}

prefersDark.addEventListener("change", () => {
  if (!state.theme) for (const { names, then } of listeners) if (names.includes("theme")) then();
});
