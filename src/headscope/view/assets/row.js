// The row of one query: what it looks at, as bars over the keys in their own shape, and the largest of them.

import { colourAt, position, topOf } from "./colour.js";
import { axesOf } from "./data.js";
import { byId, make, rightToLeft, shortLabel, weightText } from "./dom.js";
import { keyStrip, paintStrip } from "./strip.js";
import { paintPatches, patchGrid } from "./patches.js";
import { saidOf, shownOf } from "./shown.js";
import { choose, on, state } from "./state.js";

const RANKED = 10;
const LONG = 80; // A text of more tokens gets an overview.
const TALLEST = [26, 14]; // pixels of a bar for the largest weight; in a long text
let built = { name: "", chips: [], asking: [] };

/** Build and fill the panel of the chosen query's row; `chosen` holds the head's weights. */
export function drawPanel(chosen) {
  const { layer, item, query } = state;
  const { queries, keys, same, shift } = axesOf(layer, item);
  build(queries, keys, same, shift);
  const weights = chosen.row(query);
  let largest = 0;
  let sum = 0;
  let entropy = 0;
  for (const weight of weights) {
    if (weight > largest) largest = weight;
    if (weight > 0) {
      sum += weight;
      entropy -= weight * Math.log(weight);
    }
  }
  byId("row-token").textContent = shortLabel(queries.labels[query], 40);
  byId("row-place").textContent = `query ${query}`;
  largest = topOf(largest, shownOf(keys).length);
  built.paint(weights, largest, same ? query + shift : -1);
  built.asking.forEach((chip, i) => chip.setAttribute("aria-pressed", String(i === query)));
  fillRanking(weights, keys, largest);
  byId("row-sum").textContent = sumText(sum, entropy, weights);
  markKey();
}

function sumText(sum, entropy, weights) {
  if (!weights.some((weight) => weight >= 0)) return state.special === "shown" ? "This query may see no key: all its weights are 0." : "Nothing of what this query may see is shown.";
  const spread = sum > 0 ? Math.exp(entropy / sum + Math.log(sum)) : 0;
  const over = state.special === "shown" ? "" : " over the keys that are shown";
  return `Sum ${sum.toFixed(3)}${over}; spread like ${spread.toFixed(1)} equal keys.`;
}

/** The parts of the panel that only change with the axes. */
function build(queries, keys, same, shift) {
  const name = `${state.item} ${state.layer}`;
  if (built.queries === queries && built.keys === keys) return;
  built = { name, queries, keys, chips: [], asking: [] };
  const key = byId("row-keys");
  const asks = byId("row-queries");
  key.replaceChildren();
  asks.replaceChildren();
  asks.hidden = same;
  const pick = (k) => same && k >= shift && choose({ query: k - shift });
  if (keys.kind === "patches" && keys.grid) {
    key.append(patchGrid(keys, pick));
    built.paint = paintPatches;
  } else if (keys.kind === "tokens") {
    built.chips = keys.labels.map((label, k) => barChip(label, k, keys, same && k >= shift ? () => pick(k) : null));
    const long = keys.length > LONG;
    if (long) key.append(keyStrip(keys, (k) => scrollTo(built.chips[k]), 44));
    key.append(textOf(keys, built.chips, "keys"));
    built.paint = (weights, largest, own) => {
      paintChips(weights, largest, own);
      if (long) paintStrip(weights, largest, own);
    };
  } else {
    key.append(keyStrip(keys, pick));
    built.paint = paintStrip;
  }
  if (!same) buildAsking(asks, queries);
}

/** For cross-attention: the queries to choose from. */
function buildAsking(asks, queries) {
  built.asking = queries.labels.map((label, i) => {
    const chip = make("button", { type: "button", class: `ask${queries.isSpecial[i] ? " special" : ""}`, title: label }, make("bdi", {}, shortLabel(label, 28)));
    chip.addEventListener("click", () => choose({ query: i }));
    return chip;
  });
  asks.append(make("h3", {}, "Queries"), textOf(queries, built.asking, "queries"));
}

/** Chips in the reading direction of their text. */
function textOf(axis, chips, what) {
  return make("div", { class: `text${chips.length > LONG ? " long" : ""}`, role: "group", "aria-label": what, dir: rightToLeft(axis.labels) ? "rtl" : "ltr" }, ...chips);
}

/** A token with a bar over it. */
function barChip(label, k, keys, pick) {
  const bar = make("span", { class: "bar" });
  const chip = make(pick ? "button" : "span", { class: `chip${keys.isSpecial[k] ? " special" : ""}`, type: pick ? "button" : null }, bar, make("bdi", {}, shortLabel(label, 28)));
  if (pick) chip.addEventListener("click", pick);
  chip.addEventListener("pointerenter", () => choose({ cursor: { query: state.query, key: k } }));
  chip.addEventListener("pointerleave", () => choose({ cursor: null }));
  return chip;
}

function paintChips(weights, largest, own) {
  built.chips.forEach((chip, k) => {
    const weight = weights[k];
    const place = position(weight, largest);
    const bar = chip.firstChild;
    bar.style.height = `${Math.round(place * TALLEST[Number(built.chips.length > LONG)])}px`;
    bar.style.background = colourAt(0.3 + 0.55 * place);
    chip.classList.toggle("unseen", weight < 0);
    chip.classList.toggle("own", k === own);
    chip.title = `${built.keys.labels[k]} (${k}): ${saidOf(weight, built.keys, k)}`;
    if (chip.tagName === "BUTTON") chip.setAttribute("aria-pressed", String(k === own));
  });
  scrollTo(built.chips[weights.indexOf(weights.reduce((a, b) => Math.max(a, b), 0))]);
}

/** Bring a token into the part of a long text that is seen. */
function scrollTo(chip) {
  const text = chip?.parentElement;
  if (text && text.scrollHeight > text.clientHeight) text.scrollTop = chip.offsetTop - text.offsetTop - text.clientHeight / 2;
}

/** The largest weights of the row. */
function fillRanking(weights, keys, largest) {
  const seen = Array.from(weights.keys()).filter((k) => weights[k] > 0);
  const ranked = seen.sort((a, b) => weights[b] - weights[a]).slice(0, RANKED);
  byId("ranking").replaceChildren(
    ...ranked.map((k) => {
      const bar = make("span", { class: "rank-bar" });
      bar.style.width = `${(100 * position(weights[k], largest)).toFixed(1)}%`;
      bar.style.background = colourAt(0.3 + 0.55 * position(weights[k], largest));
      const label = make("span", { class: `rank-label${keys.isSpecial[k] ? " special" : ""}`, title: keys.labels[k] }, make("bdi", {}, keys.labels[k]));
      const line = make("li", {}, label, make("span", { class: "rank-place" }, keys.kind === "positions" ? "" : String(k)), make("span", { class: "rank-track" }, bar), make("span", { class: "rank-weight" }, weightText(weights[k])));
      line.addEventListener("pointerenter", () => choose({ cursor: { query: state.query, key: k } }));
      line.addEventListener("pointerleave", () => choose({ cursor: null }));
      return line;
    }),
  );
}

let marked = null;

/** The key under the pointer, marked in the text too. */
function markKey() {
  marked?.classList.remove("under");
  marked = state.cursor ? built.chips[state.cursor.key] : null;
  marked?.classList.add("under");
}

on("cursor", markKey);
