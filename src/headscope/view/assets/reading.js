// The text itself: as a line with arcs where it is short, coloured by the chosen token's weights where it is long.

import { layWords, linkPath, svg, wordGroup } from "./arcs.js";
import { colourAt, inkOn } from "./colour.js";
import { axesOf } from "./data.js";
import { byId, cssColour, make, weightText } from "./dom.js";
import { isPatch } from "./images.js";
import { buildPassage, paintPassage } from "./passage.js";
import { placesOf } from "./scale.js";
import { saidOf } from "./shown.js";
import { ARROWS, choose, on, state } from "./state.js";

export const MOST_ARCS = 40; // Words with arcs; longer texts are coloured.
const OWN_LEAST = 0.05; // The chosen word has arcs for smaller weights than the others.
const ROOM = { above: 92, below: 54 };
const HUES = ["#1f77b4", "#2a8f3c", "#9b4fc4", "#c77700", "#108a8a"];
let built = { name: "" };
let preview = null; // The word under the pointer: { side, position, direction }.
let source = null; // The head that is shown.

/** The positions of an axis that stand in the line of text: special tokens leave it, unless there is nothing else. */
function lineOf(axis) {
  const all = Array.from({ length: axis.length }, (_, i) => i);
  const content = all.filter((i) => !axis.isSpecial[i] && !isPatch(axis, i));
  return content.length ? content : all;
}

/** How the text is shown: with arcs, coloured, or not at all (pictures and sounds have their own place). */
export function readingOf({ queries, keys, same }) {
  const worded = (axis) => axis.kind === "tokens" || axis.kind === "positions";
  if (!worded(queries) || !worded(keys)) return "none";
  const counts = (same ? [keys] : [queries, keys]).map((axis) => lineOf(axis).length);
  if (Math.max(...counts) <= MOST_ARCS) return "arcs";
  return queries.kind === "tokens" || keys.kind === "tokens" ? "passage" : "none";
}

/** The key that the chosen head is looked at through in the direction "to". */
export function targetKey(chosen) {
  const { same, shift } = chosen.axes;
  if (same) return state.query + shift;
  if (state.key !== null) return state.key;
  const row = chosen.row(state.query);
  return row.indexOf(row.reduce((a, b) => Math.max(a, b), -1));
}

/** Draw the text for the chosen head. */
export function drawReading(chosen) {
  source = chosen;
  const { axes } = chosen;
  const mode = readingOf(axes);
  const width = byId("reading").clientWidth;
  byId("say").dataset.mode = mode;
  byId("arc-controls").hidden = mode !== "arcs";
  byId("direction").hidden = mode === "none";
  byId("texts").hidden = !(mode === "arcs" && axes.same && axes.queries.second);
  const name = [mode, state.item, mode === "arcs" ? width : 0, sizesOf(axes), chosen.shown?.unseen].join(" ");
  if (built.name !== name || built.axes !== axes) {
    built = { name, axes, mode };
    byId("reading").replaceChildren();
    if (mode === "arcs") buildArcs(axes, width);
    if (mode === "passage") buildPassage(byId("reading"), axes, chosen);
  }
  if (mode === "arcs") paintArcs();
  if (mode === "passage") paintPassage(chosen, targetKey(chosen));
  noteReading(mode);
}

function sizesOf({ queries, keys }) {
  return `${queries.length} ${keys.length}`;
}

function noteReading(mode) {
  const special = built.axes.keys.special.length > 0 && built.axes.keys.special.length < built.axes.keys.length;
  const bar = special && state.special === "shown" ? "Grey bar: share on special tokens. " : "";
  const lines = built.axes.same && !built.two ? "Arcs above look back, below look ahead. " : built.two && built.axes.same ? "Dashed: from the second text to the first, or ahead. " : "";
  const said = {
    arcs: `${bar}${lines}Hover a word, click to keep it, Shift for what looks at it.`,
    passage: state.direction === "from" ? "Coloured: what the framed token looks at. Click a token to choose it." : "Coloured: what looks at the framed token. Click a token to choose it.",
    none: "",
  };
  byId("reading-note").textContent = said[mode];
}

/** The words of the text, once for an axis and a width. */
function buildArcs(axes, width) {
  const pair = axes.same && axes.queries.second;
  const all = lineOf(axes.keys);
  const lines = pair
    ? [all.filter((i) => i < pair), all.filter((i) => i >= pair)].map((positions) => ({ axis: axes.keys, side: "both", positions }))
    : axes.same
      ? [{ axis: axes.keys, side: "both", positions: all }]
      : [{ axis: axes.queries, side: "query", positions: lineOf(axes.queries) }, { axis: axes.keys, side: "key", positions: lineOf(axes.keys) }];
  built.two = lines.length > 1;
  const ahead = axes.same && looksAhead();
  const room = { above: axes.same ? ROOM.above : 8, below: axes.same && (ahead || pair) ? ROOM.below : 4 };
  const laid = layWords(lines, width - 4, room);
  const special = axes.keys.special.length > 0 && all.length < axes.keys.length;
  for (const word of laid.words) word.bar = special && word.side !== "key";
  const strip = svg("svg", { id: "arcs", width: laid.width, height: laid.height, viewBox: `0 0 ${laid.width} ${laid.height}`, role: "listbox", "aria-label": "The text. Arrow keys choose a word.", tabindex: 0 });
  const links = svg("g", { id: "links", "aria-hidden": "true" });
  const groups = laid.words.map((word) => wordGroup(word, laid.size));
  strip.append(links, ...groups);
  byId("reading").append(strip);
  Object.assign(built, { words: laid.words, groups, links, room, strip });
  groups.forEach((group, i) => listenOnWord(group, laid.words[i]));
  strip.addEventListener("keydown", onArcsKey);
}

/** Whether any query may see a key after its own place. */
function looksAhead() {
  if (!source.shown?.unseen) return true;
  const { queries, keys, shift } = source.axes;
  const own = queries.length > 1 ? 0 : -1;
  return own >= 0 && keys.length > shift + 1 && source.weights[shift + 1] >= 0;
}

function listenOnWord(group, word) {
  group.addEventListener("pointerenter", (event) => show({ ...word, direction: event.shiftKey || word.side === "key" ? "to" : state.direction }));
  group.addEventListener("pointerleave", () => show(null));
  group.addEventListener("click", (event) => pick(word, event.shiftKey ? "to" : null));
}

function show(word) {
  preview = word;
  paintArcs();
}

/** Choose a word as the query; as what is looked at, with Shift or where it can only be that. */
export function pick(word, direction) {
  const { shift } = source.axes;
  if (word.side === "key") return choose({ key: word.position, direction: "to" });
  const query = word.side === "both" ? word.position - shift : word.position;
  if (query < 0) return;
  choose({ query, ...(direction ? { direction } : word.side === "query" ? { direction: "from" } : {}) });
}

/** Arrows along the words of the line in focus, up and down between two lines. */
function onArcsKey(event) {
  const step = ARROWS[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = built.words.findIndex(isChosen);
  const from = built.words[Math.max(0, at)];
  const line = built.words.filter((word) => word.line === from.line + step[0]);
  const next = step[0] ? line.sort((a, b) => Math.abs(a.middle - from.middle) - Math.abs(b.middle - from.middle))[0] : built.words[at + step[1]];
  if (next) pick(next, event.shiftKey ? "to" : null);
  event.preventDefault();
  event.stopPropagation();
}

/** Whether a word is the chosen one, in the direction of the moment. */
function isChosen(word) {
  const { shift, same } = source.axes;
  if (same) return word.position - shift === state.query;
  return state.direction === "to" ? word.side === "key" && word.position === targetKey(source) : word.side === "query" && word.position === state.query;
}

/** What stands in the middle: the word under the pointer, or the chosen one: { query } or { key }. */
function centre() {
  const { same, shift } = source.axes;
  const direction = preview?.direction ?? state.direction;
  if (!preview) return direction === "to" ? { key: targetKey(source) } : { query: state.query };
  if (preview.side === "key") return { key: preview.position };
  const query = preview.side === "both" ? preview.position - shift : preview.position;
  return direction === "to" && same ? { key: query + shift } : { query };
}

/** Links of all words, and grounds of the words that the one in the middle looks at, or that look at it. */
function paintArcs() {
  const { same, shift, queries, keys } = source.axes;
  if (!source.shown || !built.words) return;
  const wordAt = (side, position) => built.words.find((word) => (word.side === side || word.side === "both") && word.position === position);
  const middle = centre();
  const several = source.parts.length > 1 && state.combine !== "count";
  const parts = several ? source.parts.slice(0, HUES.length) : [source.weights];
  const links = [];
  parts.forEach((weights, part) => {
    for (const from of built.words) {
      const query = from.side === "both" ? from.position - shift : from.position;
      if (from.side === "key" || query < 0) continue;
      const row = source.row(query, weights);
      for (const to of built.words) {
        if (to.side === "query" || !wanted(from, to)) continue;
        const own = middle.query === query || middle.key === to.position;
        const weight = row[to.position];
        if (weight >= (own ? Math.min(OWN_LEAST, state.least) : state.least)) links.push({ query, key: to.position, weight, own: own && !several, hue: several ? HUES[part] : null, from, to });
      }
    }
  });
  links.sort((a, b) => Number(a.own) - Number(b.own) || a.weight - b.weight);
  built.links.replaceChildren(...links.map((link) => linkPath(link, shapeOf(link))));
  if (built.two && same) for (const group of built.groups) group.dataset.line = "";
  paintWords(middle, wordAt, { queries, keys, same, shift });
}

/** Whether a link of a pair of texts is among those that are asked for. */
function wanted(from, to) {
  if (!built.two || !built.axes.same || state.texts === "all") return true;
  return state.texts === "AB"[from.line] + "AB"[to.line];
}

/** Up for looking back, down for looking ahead; with two lines, arcs stay outside and those ahead are dashed. */
function shapeOf({ from, to }) {
  const back = to.position <= from.position;
  if (!built.axes.same) return { up: true, most: ROOM.above };
  if (!built.two) return { up: back, most: back ? built.room.above - 8 : built.room.below - 14 };
  return { up: from.line === 0, most: from.line === 0 ? built.room.above - 8 : built.room.below - 14, dashed: from.line === to.line ? !back : from.line === 1 };
}

function paintWords(middle, wordAt, { queries, keys, same, shift }) {
  const to = middle.key !== undefined;
  const weights = to ? source.column(middle.key) : source.row(middle.query);
  const { places } = placesOf(weights, weights.length);
  const centreWord = to ? wordAt("key", middle.key) : wordAt("query", same ? middle.query + shift : middle.query);
  built.words.forEach((word, i) => {
    const group = built.groups[i];
    const place = same ? (to ? word.position - shift : word.position) : word.side === (to ? "query" : "key") ? word.position : -1;
    const weight = place >= 0 ? weights[place] : -1;
    const shown = weight >= OWN_LEAST ? places[place] : 0;
    const [ground, text] = group.children;
    const chosen = word === centreWord;
    const filled = shown > 0 && !chosen;
    const at = 0.1 + 0.75 * shown;
    ground.setAttribute("fill", chosen ? cssColour("--accent-wash") : filled ? colourAt(at) : "transparent");
    ground.setAttribute("stroke", chosen ? cssColour("--accent-ink") : "transparent");
    text.setAttribute("fill", chosen ? cssColour("--accent-ink") : filled ? inkOn(at) : cssColour(weight < 0 && place >= 0 && !to ? "--faint" : "--ink"));
    text.setAttribute("font-weight", chosen ? 650 : 400);
    group.setAttribute("aria-selected", String(isChosen(word)));
    group.setAttribute("aria-label", labelOf(word, chosen, to, weight, place, keys));
    if (word.bar) barOf(group, word, queries, shift, same);
  });
  const active = built.groups[built.words.findIndex(isChosen)];
  for (const group of built.groups) group.removeAttribute("id");
  if (active) {
    active.id = "word-chosen";
    built.strip.setAttribute("aria-activedescendant", "word-chosen");
    keepInSight(active);
  }
}

function labelOf(word, chosen, to, weight, place, keys) {
  if (chosen || place < 0) return word.text;
  const said = to ? weightText(weight) : saidOf(weight, keys, place);
  return `${word.text}: ${said}`;
}

/** The share of a query's weight on special tokens. */
function barOf(group, word, queries, shift, same) {
  const query = same ? word.position - shift : word.position;
  const [track, rest] = [...group.children].slice(2);
  const keys = source.axes.keys;
  let share = 0;
  if (query >= 0) for (const key of keys.special) share += Math.max(0, source.weights[query * keys.length + key]);
  rest.setAttribute("width", String(Math.round(10 * word.width * Math.min(1, share)) / 10));
  for (const part of [track, rest]) part.setAttribute("visibility", state.special === "shown" ? "visible" : "hidden");
  group.dataset.special = share.toFixed(4);
}

/** Scroll the line so that a word is seen, without moving the page. */
function keepInSight(group) {
  const box = byId("reading");
  const { x, width } = group.getBBox();
  if (x < box.scrollLeft) box.scrollLeft = x - 20;
  else if (x + width > box.scrollLeft + box.clientWidth) box.scrollLeft = x + width - box.clientWidth + 20;
}

/** Wire up what stands beside the text. */
export function listenOnReading() {
  const least = byId("least");
  const mark = () => {
    least.value = String(state.least);
    byId("least-said").textContent = state.least.toFixed(2);
  };
  least.addEventListener("input", () => choose({ least: Number(least.value) }));
  byId("texts-choice").addEventListener("change", () => choose({ texts: byId("texts-choice").value }));
  on("least", mark);
  on("texts", () => (byId("texts-choice").value = state.texts));
  mark();
  byId("texts-choice").value = state.texts;
}
