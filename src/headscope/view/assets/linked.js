// A model with an encoder and a decoder has three maps: the other two beside the chosen one, at the same tokens.

import { colourAt, picture } from "./colour.js";
import { axesOf, headOf, page } from "./data.js";
import { byId, cssColour, make, sharpen, shortLabel, weightText } from "./dom.js";
import { headName } from "./headline.js";
import { targetKey } from "./reading.js";
import { rowInto } from "./softmax.js";
import { choose, state } from "./state.js";
import { thumbnailNow } from "./thumbnails.js";

const SIDE_LINKED = 118;
const MOST_QUERIES = 600; // Columns of more queries are not computed here.

/** The layers in groups over the same axes: [[query axis, key axis], places of layers]. */
function groupsOfLayers() {
  const groups = [];
  page.layers.forEach((layer, l) => {
    if (layer.derived) return;
    const { queries, keys } = axesOf(l, state.item);
    const group = groups.find((one) => one.queries === queries && one.keys === keys);
    if (group) group.layers.push(l);
    else groups.push({ queries, keys, layers: [l] });
  });
  return groups;
}

/** The other maps that share an axis with the chosen one: { layer, head, query } or { layer, head, key }. */
function linkedMaps(chosen) {
  const groups = groupsOfLayers();
  const own = groups.find(({ layers }) => layers.includes(state.layer));
  if (!own || groups.length < 2) return [];
  const depth = own.layers.indexOf(state.layer) / Math.max(1, own.layers.length - 1);
  const found = [];
  for (const group of groups) {
    if (group === own) continue;
    const layer = group.layers[Math.round(depth * (group.layers.length - 1))];
    const head = Math.min(state.head, page.layers[layer].heads.length - 1);
    if (group.queries === own.queries) found.push({ layer, head, query: state.query });
    else if (group.queries === own.keys) found.push({ layer, head, query: targetKey(chosen) });
    else if (group.keys === own.queries) found.push({ layer, head, key: state.query });
  }
  return found;
}

/** Draw the other maps; none where the model has no cross-attention. */
export function drawLinked(chosen) {
  const box = byId("linked");
  const maps = page.layers.some(({ kind }) => kind === "cross") && !chosen.axes.queries.grid ? linkedMaps(chosen) : [];
  box.hidden = !maps.length;
  byId("linked-maps").replaceChildren(...maps.map(linkedMap));
}

function linkedMap({ layer, head, query, key }) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const { queries, keys } = axesOf(layer, state.item);
  const weights = query !== undefined ? rowOf(layer, head, query) : columnOf(layer, head, key);
  const [from, to] = query !== undefined ? [queries, keys] : [keys, queries];
  const best = weights ? weights.indexOf(weights.reduce((a, b) => Math.max(a, b), -1)) : -1;
  const label = `“${shortLabel(from.labels[query ?? key], 14)}”`;
  const said = best < 0 || !(weights[best] > 0) ? label : `${label} ${query !== undefined ? "looks at" : "is looked at by"} “${shortLabel(to.labels[best], 14)}”: ${weightText(weights[best])}`;
  const kind = page.layers[layer].kind === "cross" ? "Cross-attention" : queries === axesOf(state.layer, state.item).queries ? "Same text" : "Other text";
  const button = make("button", { type: "button", class: "linked-map", "data-head": `${layer}.${head}`, "data-best": best, "data-weight": weights && best >= 0 ? weights[best].toFixed(5) : "" }, canvas, make("span", {}, make("b", {}, headName(layer, head)), make("span", { class: "note" }, kind), said));
  button.addEventListener("click", () => choose({ layer, head, others: "", ...(query !== undefined ? { query, direction: "from" } : { key, direction: "to" }) }));
  drawSmall(canvas, layer, head, (query ?? key) / from.length, 1 / from.length, query !== undefined);
  return button;
}

/** The small picture of a head, with the row or the column of the linked token framed. */
function drawSmall(canvas, layer, head, start, share, across) {
  const { values, along, down, scale } = thumbnailNow(layer, head);
  const context = sharpen(canvas, SIDE_LINKED, SIDE_LINKED);
  context.fillStyle = colourAt(0);
  context.imageSmoothingEnabled = false;
  context.drawImage(picture(values, along, down, scale), 0, 0, SIDE_LINKED, SIDE_LINKED);
  context.strokeStyle = cssColour("--accent");
  context.lineWidth = 2;
  const [at, size] = [start * SIDE_LINKED, Math.max(3, share * SIDE_LINKED)];
  context.strokeRect(across ? 1 : at, across ? at : 1, across ? SIDE_LINKED - 2 : size, across ? size : SIDE_LINKED - 2);
}

function rowOf(layer, head, query) {
  const source = headOf(layer, head, state.item);
  const row = new Float32Array(source.keys);
  rowInto(source, query, row, 0);
  return row;
}

function columnOf(layer, head, key) {
  const source = headOf(layer, head, state.item);
  if (source.queries > MOST_QUERIES) return null;
  return Float32Array.from({ length: source.queries }, (_, query) => rowOf(layer, head, query)[key]);
}
