// The same row in every head of the layer: one small picture for each, over the patches.

import { picture } from "./colour.js";
import { headOf, page } from "./data.js";
import { make, sharpen, weightText } from "./dom.js";
import { onGrid } from "./images.js";
import { ownScale } from "./patches.js";
import { scaleFor } from "./scale.js";
import { rowInto } from "./softmax.js";
import { choose, state } from "./state.js";

const SMALL_SIDE = 56;
const MOST_MULTIPLES = 64; // Heads of a layer that are shown.

/** Build the small pictures of a layer; `paint()` draws the chosen query's row in each. */
export function smallMultiples(region) {
  const { layer } = state;
  const heads = page.layers[layer].heads.slice(0, MOST_MULTIPLES);
  if (heads.length < 2) return null;
  const buttons = heads.map((number, h) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const button = make("button", { type: "button", class: "multiple", "data-head": h }, canvas, make("span", {}, String(number)));
    button.addEventListener("click", () => choose({ head: h, others: "" }));
    return button;
  });
  const element = make("div", { class: "multiples" }, make("h3", {}, "This row in every head of the layer"), make("div", { class: "text", role: "group", "aria-label": "Heads of the layer" }, ...buttons));
  const paint = () => buttons.forEach((button, h) => paintOneHead(button, layer, h, region));
  return { element, paint, layer };
}

function paintOneHead(button, layer, head, region) {
  const { rows, columns } = region;
  const source = headOf(layer, head, state.item);
  const row = new Float32Array(source.keys);
  rowInto(source, Math.min(state.query, source.queries - 1), row, 0);
  const part = onGrid(region, row);
  const cell = SMALL_SIDE / Math.max(rows, columns);
  const context = sharpen(button.firstChild, Math.round(columns * cell), Math.round(rows * cell));
  context.imageSmoothingEnabled = false;
  context.drawImage(picture(part, columns, rows, ownScale(scaleFor(row, row.length), part)), 0, 0, Math.round(columns * cell), Math.round(rows * cell));
  let [sum, largest] = [0, 0];
  for (const weight of part) if (weight > 0) [sum, largest] = [sum + weight, Math.max(largest, weight)];
  const said = `head ${page.layers[layer].heads[head]}: ${sum.toFixed(2)} of the weight on the picture, largest ${weightText(largest)}`;
  button.title = said;
  button.setAttribute("aria-label", said);
  button.setAttribute("aria-pressed", String(head === state.head));
  Object.assign(button.dataset, { sum: sum.toFixed(4), largest: largest.toFixed(5) });
}
