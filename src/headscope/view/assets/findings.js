// What the heads do: one line for each head, those with the most informative finding first; chips and a search.

import { everyHead, kindOf, KINDS, measureNames } from "./arrange.js";
import { page, saidOfHead } from "./data.js";
import { byId, counted, make } from "./dom.js";
import { findingsHold, withQuotes } from "./headline.js";
import { dimmed } from "./search.js";
import { ARROWS, choose, on, state } from "./state.js";

const LINES = 120; // Lines in the document; more come as the list is scrolled.
let order = [];
let matching = [];
let listed = 0;

/** Build the list, the chips and the search. */
export function buildFindings() {
  byId("findings").hidden = !page.heads || page.single;
  byId("finding-tools").hidden = !page.heads || page.single;
  if (!page.heads || page.single) return;
  const first = new Set(page.heads.order.map((place) => place.join(".")));
  order = [...page.heads.order, ...everyHead().filter((place) => !first.has(place.join(".")))];
  buildChips();
  buildModes();
  const search = byId("search");
  search.addEventListener("input", () => choose({ search: search.value }));
  const list = byId("findings-list");
  list.addEventListener("click", (event) => showLine(event.target.closest("[data-head]")));
  list.addEventListener("keydown", onListKey);
  list.addEventListener("scroll", () => {
    if (list.scrollTop + list.clientHeight > list.scrollHeight - 200) more();
  });
  fill();
  on("search kinds", fill);
  on("layer head item", markLines);
}

/** The kinds that are there, as switches with how many heads each has. */
function buildChips() {
  const counts = new Map();
  for (const [l, h] of everyHead()) for (const kind of new Set(saidOfHead(l, h).map((said) => said.kind))) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const chips = Object.keys(KINDS).filter((kind) => counts.has(kind)).map((kind) => {
    const chip = make("button", { type: "button", class: "kind", value: kind }, KINDS[kind], " ", make("span", { class: "count" }, String(counts.get(kind))));
    chip.addEventListener("click", () => {
      const kinds = state.kinds.split(",").filter(Boolean);
      choose({ kinds: (kinds.includes(kind) ? kinds.filter((other) => other !== kind) : [...kinds, kind]).join(",") });
    });
    return chip;
  });
  byId("kinds").replaceChildren(...chips);
  const mark = () => chips.forEach((chip) => chip.setAttribute("aria-pressed", String(state.kinds.split(",").includes(chip.value))));
  on("kinds", mark);
  mark();
}

/** How the grid is ordered. */
function buildModes() {
  const select = byId("grid-mode");
  select.append(make("option", { value: "layer" }, "by layer"), make("option", { value: "kind" }, "by what they do"));
  select.append(...measureNames().map((name) => make("option", { value: name }, `by ${name}`)));
  select.addEventListener("change", () => choose({ grid: select.value }));
  const mark = () => (select.value = state.grid);
  on("grid", mark);
  mark();
}

/** The lines that the search and the chips leave. */
function fill() {
  if (byId("search").value !== state.search) byId("search").value = state.search;
  matching = order.filter(([l, h]) => !dimmed(l, h));
  listed = 0;
  byId("findings-list").replaceChildren();
  byId("findings-count").textContent = matching.length === order.length ? counted(order.length, "head") : `${matching.length} of ${counted(order.length, "head")}`;
  more();
  markLines();
}

/** The next lines. */
function more() {
  const next = matching.slice(listed, listed + LINES);
  listed += next.length;
  byId("findings-list").append(...next.map(lineOfHead));
}

/** One head: its number, its sentence, and how many more findings it has. */
function lineOfHead([l, h]) {
  const [first, ...rest] = saidOfHead(l, h);
  const tag = make("span", { class: "tag" }, `${page.layers[l].number}.${page.layers[l].heads[h]}`);
  const parts = [tag, make("span", { class: "line" }, ...withQuotes(first.text))];
  if (rest.length) parts.push(make("span", { class: "rest", title: rest.map(({ text }) => text).join("\n") }, `+${rest.length}`));
  return make("li", { role: "option", "data-head": `${l}.${h}`, "data-kind": kindOf(l, h), id: `line-${l}-${h}` }, ...parts);
}

/** Go to a head, and to the row that is spoken of. Findings are about the first batch item. */
function showLine(line) {
  if (!line) return;
  const [layer, head] = line.dataset.head.split(".").map(Number);
  const { query, key } = saidOfHead(layer, head)[0];
  const change = { layer, head, item: 0, others: "" };
  if (Number.isInteger(query)) change.query = query;
  if (Number.isInteger(query) && Number.isInteger(key)) change.cursor = { query, key };
  choose(change);
}

/** Up and down along the lines, from the one of the chosen head. */
function onListKey(event) {
  const step = ARROWS[event.key]?.[0];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = matching.findIndex(([l, h]) => l === state.layer && h === state.head);
  const next = Math.min(Math.max(0, at + step), matching.length - 1);
  while (next >= listed && listed < matching.length) more();
  showLine(byId("findings-list").children[next]);
  event.preventDefault();
  event.stopPropagation();
}

function markLines() {
  const list = byId("findings-list");
  for (const old of list.querySelectorAll(".here")) {
    old.classList.remove("here");
    old.setAttribute("aria-selected", "false");
  }
  const line = findingsHold() ? byId(`line-${state.layer}-${state.head}`) : null;
  list.removeAttribute("aria-activedescendant");
  if (!line) return;
  line.classList.add("here");
  line.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", line.id);
  const top = line.offsetTop;
  if (top < list.scrollTop || top + line.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
}
