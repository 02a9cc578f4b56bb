// The small picture of every head: layers down, heads along.

import { axesOf, headOf, page } from "./data.js";
import { byId, make, sharpen } from "./dom.js";
import { picture, topOf } from "./colour.js";
import { Slices } from "./slices.js";
import { pooled, shownOf } from "./shown.js";
import { rowInto, UNSEEN } from "./softmax.js";
import { choose, on, state } from "./state.js";

const CELLS = 44; // A small picture has at most so many cells along each side.
const MOST_WEIGHTS = 2 ** 20; // Of larger heads a picture uses every n-th query only.
const MARGIN = 20;

const widest = Math.max(...page.layers.map((layer) => layer.heads.length));
const pictures = page.layers.map((layer) => layer.heads.map(() => null));
const painting = new Slices();
let buttons = [];
let geometry = { size: 20, gap: 3 };

/** Whether all layers call their heads by the same numbers. */
const sameNumbers = page.layers.every((layer) => layer.heads.join() === page.layers[0].heads.join());

/** The weights of one head, pooled to a small picture, a row at a time. */
function* smallPicture(layer, head) {
  const source = headOf(layer, head, state.item);
  const { queries, keys } = axesOf(layer, state.item);
  const [rows, columns] = [shownOf(queries), shownOf(keys)];
  const step = Math.max(1, Math.floor((rows.length * columns.length) / MOST_WEIGHTS));
  const [down, along] = [Math.min(CELLS, rows.length), Math.min(CELLS, columns.length)];
  const values = new Float32Array(down * along).fill(UNSEEN);
  const row = new Float32Array(source.keys);
  const line = new Float32Array(columns.length);
  let largest = 0;
  for (let r = 0; r < rows.length; r += step) {
    rowInto(source, rows[r], row, 0);
    let sum = 0;
    for (let c = 0; c < columns.length; c++) {
      line[c] = row[columns[c]];
      if (line[c] > 0) sum += line[c];
    }
    if (state.special === "renormalised" && sum > 0) for (let c = 0; c < line.length; c++) if (line[c] > 0) line[c] /= sum;
    const small = pooled(line, line.length, [0, 1], [0, line.length], 1, along);
    const to = Math.min(down - 1, Math.floor((r * down) / rows.length)) * along;
    for (let c = 0; c < along; c++) if (small[c] > values[to + c]) values[to + c] = small[c];
    for (const weight of small) if (weight > largest) largest = weight;
    yield;
  }
  pictures[layer][head] = { values, along, down, top: topOf(largest, columns.length) };
  paintOne(layer, head);
}

/** Compute all pictures anew, the chosen layer's first. */
function recompute() {
  for (const layer of pictures) layer.fill(null);
  document.documentElement.dataset.heads = "waiting";
  const order = page.layers.flatMap((layer, l) => layer.heads.map((_, h) => [l, h]));
  painting.start([...order.map(([l, h]) => smallPicture(l, h)), done()]);
}

function* done() {
  document.documentElement.dataset.heads = "ready";
}

let context = null;

function paintOne(layer, head) {
  const found = pictures[layer][head];
  if (!found || !context) return;
  const { size, gap } = geometry;
  const [x, y] = [head * (size + gap), layer * (size + gap)];
  context.clearRect(x, y, size, size);
  // Never more cells than pixels, or thin stripes would fade.
  const fine = Math.round(size * (window.devicePixelRatio || 1));
  const [down, along] = [Math.min(found.down, fine), Math.min(found.along, fine)];
  const values = pooled(found.values, found.along, [0, found.down], [0, found.along], down, along);
  context.imageSmoothingEnabled = along < fine && fine / along < 3;
  context.drawImage(picture(values, along, down, found.top), x, y, size, size);
}

/** Fit the pictures into the width there is, and paint those that are ready. */
function layout() {
  const width = byId("grid-box").clientWidth - MARGIN - 8;
  const gap = widest > 24 ? 1 : widest > 16 ? 2 : 4;
  const size = Math.max(7, Math.min(44, Math.floor((width + gap) / widest) - gap));
  geometry = { size, gap };
  const grid = byId("grid");
  grid.style.setProperty("--size", `${size}px`);
  grid.style.setProperty("--gap", `${gap}px`);
  grid.style.setProperty("--margin", `${MARGIN}px`);
  grid.classList.toggle("dense", size < 15);
  context = sharpen(byId("grid-canvas"), widest * (size + gap), page.layers.length * (size + gap));
  pictures.forEach((layer, l) => layer.forEach((_, h) => paintOne(l, h)));
}

/** Mark the chosen head, and let the keyboard start from it. */
function markHead() {
  for (const row of buttons) for (const button of row) {
    button.tabIndex = -1;
    button.removeAttribute("aria-selected");
  }
  const chosen = buttons[state.layer][state.head];
  chosen.tabIndex = 0;
  chosen.setAttribute("aria-selected", "true");
  if (buttons.some((row) => row.includes(document.activeElement))) chosen.focus();
  chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Build the grid. */
export function buildGrid() {
  const grid = byId("grid");
  const numbers = sameNumbers ? page.layers[0].heads : Array.from({ length: widest }, (_, i) => i);
  const head = make("div", { class: "grid-row grid-head", "aria-hidden": "true" }, make("span", { class: "grid-number" }));
  head.append(...numbers.map((number) => make("span", { class: "grid-number" }, String(number))));
  grid.append(head);
  buttons = page.layers.map((layer, l) => {
    const row = make("div", { class: "grid-row", role: "row" });
    const cross = layer.kind === "cross" ? "×" : "";
    row.append(make("span", { class: "grid-number", role: "rowheader", title: layer.name }, `${layer.number}${cross}`));
    const made = layer.heads.map((number, h) => {
      const name = `layer ${layer.number} head ${number}${cross ? ", cross-attention" : ""}`;
      const button = make("button", { class: "grid-cell", role: "gridcell", type: "button", "aria-label": name, title: name });
      button.addEventListener("click", () => choose({ layer: l, head: h }));
      return button;
    });
    row.append(...made);
    grid.append(row);
    return made;
  });
  new ResizeObserver(layout).observe(byId("grid-box"));
  layout();
  markHead();
  recompute();
  on("layer head", markHead);
  on("scale theme", layout);
  on("item special", recompute);
}
