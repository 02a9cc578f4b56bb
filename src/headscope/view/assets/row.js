// The row of one query: what it looks at, what looks at it, as a picture of the keys, as lists, and as a table.

import { colourAt } from "./colour.js";
import { byId, make, shortLabel, weightText } from "./dom.js";
import { buildPanel, paintPanel } from "./panel.js";
import { targetKey } from "./reading.js";
import { placesOf } from "./scale.js";
import { saidOf, shownOf } from "./shown.js";
import { choose, on, state } from "./state.js";

const RANKED = 10;
const RANKED_BACK = 5;
let last = null; // What the panel shows: for the table, when it is opened.

/** Build and fill the panel of the chosen query's row; `chosen` holds the head's weights. */
export function drawPanel(chosen) {
  const { queries, keys } = chosen.axes;
  const { query } = state;
  buildPanel(chosen.axes);
  const weights = chosen.row(query);
  const { places, scale } = placesOf(weights, shownOf(keys).length);
  last = { chosen, weights };
  byId("row-token").textContent = shortLabel(queries.labels[query], 40);
  byId("row-place").textContent = `query ${query}`;
  paintPanel(chosen, weights, places, scale);
  fillRanking("ranking", weights, places, keys, RANKED, (k) => ({ query, key: k }));
  drawBack(chosen, queries, keys);
  byId("row-sum").textContent = sumText(weights);
  fillTable();
  markKey();
}

function sumText(weights) {
  if (!weights.some((weight) => weight >= 0)) return state.special === "shown" ? "This query may see no key: all its weights are 0." : "Nothing of what this query may see is shown.";
  let sum = 0;
  let entropy = 0;
  for (const weight of weights) {
    if (!(weight > 0)) continue;
    sum += weight;
    entropy -= weight * Math.log(weight);
  }
  const spread = sum > 0 ? Math.exp(entropy / sum + Math.log(sum)) : 0;
  const over = state.special === "shown" ? "" : " over the keys that are shown";
  return `Sum ${sum.toFixed(3)}${over}; spread like ${spread.toFixed(1)} equal keys.`;
}

/** What looks at the chosen token: the same place as a key, or the key that was chosen. */
function drawBack(chosen, queries, keys) {
  const key = targetKey(chosen);
  const column = chosen.column(key);
  byId("back-token").textContent = shortLabel(keys.labels[key] ?? "", 24);
  const { places } = placesOf(column, column.length);
  fillRanking("ranking-back", column, places, queries, RANKED_BACK, (q) => ({ query: q, key }));
}

/** The largest weights of a row or of a column. */
function fillRanking(id, weights, places, axis, most, cellOfPlace) {
  const seen = Array.from(weights.keys()).filter((k) => weights[k] > 0);
  const ranked = largest(seen, weights, most);
  byId(id).replaceChildren(
    ...ranked.map((k) => {
      const bar = make("span", { class: "rank-bar" });
      bar.style.width = `${(100 * places[k]).toFixed(1)}%`;
      bar.style.background = colourAt(0.3 + 0.55 * places[k]);
      const label = make("span", { class: `rank-label${axis.isSpecial[k] ? " special" : ""}`, title: axis.labels[k] }, make("bdi", {}, axis.labels[k]));
      const line = make("li", {}, label, make("span", { class: "rank-place" }, axis.kind === "positions" ? "" : String(k)), make("span", { class: "rank-track" }, bar), make("span", { class: "rank-weight" }, weightText(weights[k])));
      line.addEventListener("pointerenter", () => choose({ cursor: cellOfPlace(k) }));
      line.addEventListener("pointerleave", () => choose({ cursor: null }));
      return line;
    }),
  );
}

/** The places of the largest values, largest first, without sorting them all. */
function largest(places, values, count) {
  const found = [];
  for (const place of places) {
    if (found.length === count && values[place] <= values[found[count - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < values[place]) at--;
    found.splice(at, 0, place);
    if (found.length > count) found.pop();
  }
  return found;
}

/** The row as a table, for those who read with other eyes; filled when it is open. */
function fillTable() {
  if (!byId("row-table").open || !last) return;
  const { keys } = last.chosen.axes;
  const lines = shownOf(keys).values();
  byId("row-cells").replaceChildren(...Array.from(lines, (k) => make("tr", {}, make("th", { scope: "row" }, String(k)), make("td", {}, keys.labels[k]), make("td", { class: "number" }, saidOf(last.weights[k], keys, k)))));
}

/** The row that is shown: for exports. */
export function shownRow() {
  return last;
}

let marked = [];

/** The word under the pointer, marked in the text too. */
function markKey() {
  for (const word of marked) word.classList.remove("under");
  marked = state.cursor ? [...document.querySelectorAll(`#reading [data-position="${state.cursor.key}"]:not([data-side="query"])`)] : [];
  for (const word of marked) word.classList.add("under");
}

/** Wire up the table. */
export function listenOnRow() {
  byId("row-table").addEventListener("toggle", fillTable);
  on("cursor", markKey);
}
