// The address and the bookmarks: what is chosen, as a fragment that leads back to it.

import { ids } from "./data.js";
import { byId, make } from "./dom.js";
import { choose, DEFAULTS, on, state } from "./state.js";

const CHOICES = { together: ["side", "difference"], pool: ["max", "mean"], scale: ["linear", "sqrt", "log"], theme: ["light", "dark"] };
const PAUSE = 700; // Milliseconds between two entries of the history.
const KEPT = "headscope bookmarks";

/** The fragment for what is chosen. */
export function fragment() {
  const said = new URLSearchParams({ head: state.head });
  if (state.other) said.set("other", state.other);
  for (const name of ["q", "k", "w"]) if (state[name] !== null) said.set(name, Number(state[name].toPrecision(10)));
  if (state.pin) said.set("pin", `${state.pin.query},${state.pin.key}`);
  for (const name of Object.keys(CHOICES)) if (state[name] !== DEFAULTS[name]) said.set(name, state[name]);
  return `#${said.toString().replaceAll("%2C", ",")}`;
}

/** Choose what a fragment says; what it does not name, or names wrongly, is as at the beginning. */
export function readAddress(text = location.hash) {
  const said = new URLSearchParams(text.slice(1));
  const number = (name) => (said.has(name) && Number.isFinite(Number(said.get(name))) ? Number(said.get(name)) : null);
  const change = { ...DEFAULTS, theme: state.theme, marks: state.marks, q: number("q"), k: number("k"), w: number("w") };
  if (!(change.w > 0)) change.q = change.k = change.w = null;
  change.head = ids.includes(said.get("head")) ? said.get("head") : ids[0] ?? "";
  if (ids.includes(said.get("other"))) change.other = said.get("other");
  for (const [name, values] of Object.entries(CHOICES)) if (values.includes(said.get(name))) change[name] = said.get(name);
  const pin = /^(\d+),(\d+)$/.exec(said.get("pin") ?? "");
  if (pin) change.pin = { query: Number(pin[1]), key: Number(pin[2]) };
  choose(change);
}

let writtenAt = 0;
let writing = 0;

/** Follow the address, and write every choice to it when it rests. */
export function keepAddress() {
  on(Object.keys(DEFAULTS).filter((name) => !["cursor", "marks"].includes(name)).join(" "), () => {
    clearTimeout(writing);
    writing = setTimeout(write, 150);
  });
  addEventListener("popstate", () => location.hash !== fragment() && readAddress());
}

function write() {
  const wanted = fragment();
  if (location.hash === wanted) return;
  const now = performance.now();
  history[now - writtenAt > PAUSE && writtenAt ? "pushState" : "replaceState"](null, "", wanted);
  writtenAt = now;
}

/** Bookmarks of this browser: a name and a fragment each. */
export function buildBookmarks(nameNow) {
  const read = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
      return Array.isArray(found) ? found.filter((one) => typeof one?.name === "string" && typeof one?.at === "string") : [];
    } catch {
      return [];
    }
  };
  const keep = (list) => {
    try {
      localStorage.setItem(KEPT, JSON.stringify(list.slice(0, 200)));
    } catch {
      byId("bookmarks-note").textContent = "This browser keeps no bookmarks here; the address leads back as well.";
    }
    draw(list);
  };
  const draw = (list) => {
    byId("bookmarks-note").textContent = list.length ? "" : "None yet. b keeps what is seen.";
    byId("bookmarks").replaceChildren(...list.map(({ name, at }, i) => {
      const open = make("a", { href: at, class: "place" }, name);
      const remove = make("button", { type: "button", class: "remove", "aria-label": `Remove ${name}`, title: "Remove" }, "×");
      remove.addEventListener("click", () => keep(list.filter((_, other) => other !== i)));
      return make("li", {}, open, remove);
    }));
  };
  byId("bookmark").addEventListener("click", () => keep([{ name: nameNow(), at: fragment() }, ...read()]));
  draw(read());
}
