// All heads: as small pictures by layer, in the order of a statistic, or by what they do; many heads as coloured squares.

import { arranged, everyHead, measureNames, measureOf } from "./arrange.js";
import { colourAt, picture } from "./colour.js";
import { axesOf, page } from "./data.js";
import { byId, cssColour, make, sharpen } from "./dom.js";
import { headName } from "./headline.js";
import { pooled } from "./shown.js";
import { ARROWS, choose, chosenHeads, on, state } from "./state.js";
import { dimmed } from "./search.js";
import { onThumbnail, thumbnail, thumbnailNow } from "./thumbnails.js";

const MOST_HIGH = 530; // Pixels that all squares may be high together.
const SQUARES = 200; // More heads than this are coloured squares; the picture comes on hover.
const heads = page.layers.reduce((sum, layer) => sum + (layer.derived ? 0 : layer.heads.length), 0);
const squares = heads > SQUARES;
let cells = new Map(); // "layer.head" by place -> { button, x, y, layer, head, row, column }
let rows = [];
let geometry = { size: 20, gap: 3, margin: 20 };
let context = null;

/** The statistic that colours the squares: the one they are sorted by, or how few keys a head looks at. */
function squareMeasure() {
  return measureNames().includes(state.grid) ? state.grid : (measureNames()[1] ?? null);
}

function paintOne(layer, head) {
  const cell = cells.get(`${layer}.${head}`);
  if (!cell || !context) return;
  const { size } = geometry;
  const { x, y } = cell;
  context.clearRect(x, y, size, size);
  if (squares) {
    const name = squareMeasure();
    const value = name ? measureOf(name, layer, head) : null;
    context.fillStyle = page.layers[layer].derived ? cssColour("--hatch") : value === null ? colourAt(0) : colourAt(value / topOfMeasure(name));
    context.fillRect(x, y, size, size);
    return;
  }
  const found = thumbnail(layer, head);
  if (found) context.drawImage(shrunk(found, size), x, y, size, size);
}

/** A picture of no more cells than pixels, or thin stripes would fade. */
function shrunk(found, size) {
  const fine = Math.max(1, Math.round(size * (window.devicePixelRatio || 1)));
  const [down, along] = [Math.min(found.down, fine), Math.min(found.along, fine)];
  context.imageSmoothingEnabled = along < fine && fine / along < 3;
  const values = pooled(found.values, found.along, [0, found.down], [0, found.along], down, along);
  return picture(values, along, down, found.scale);
}

/** Shares of weight go from 0 to 1, so that colours can be compared; entropies to the largest there is. */
function topOfMeasure(name) {
  return name === "entropy" ? Math.max(1e-9, ...page.heads.measures.entropy.flat().filter((value) => value !== null)) : 1;
}

/** Place all cells for the width there is, and paint those that are ready. */
function layout() {
  const width = byId("grid-box").clientWidth - 6;
  if (width < 60) return;
  const widest = Math.max(...page.layers.map((layer) => layer.heads.length));
  const margin = state.grid === "kind" ? 72 : state.grid === "layer" ? 24 : 0;
  const gap = widest > 24 ? 1 : widest > 16 ? 2 : 4;
  const fits = Math.floor((width - margin + gap) / Math.min(widest, 32)) - gap;
  // Squares are as small as it takes to see all of them, but no smaller than a finger can tell apart.
  const tallest = squares ? Math.max(14, Math.floor((MOST_HIGH - 16) / (page.layers.length + 1)) - gap) : 44;
  const size = Math.max(squares ? 8 : 10, Math.min(44, tallest, fits));
  const along = Math.max(1, Math.floor((width - margin + gap) / (size + gap)));
  geometry = { size, gap, margin };
  rows = arranged(along);
  const grid = byId("grid");
  grid.style.setProperty("--size", `${size}px`);
  grid.classList.toggle("dense", size < 15);
  grid.replaceChildren(...gridRows(size, gap, margin));
  const last = rows[rows.length - 1];
  const columns = Math.max(...rows.map((row) => row.cells.length));
  context = sharpen(byId("grid-canvas"), margin + columns * (size + gap), last.top + size + 4);
  grid.style.width = `${margin + columns * (size + gap)}px`;
  grid.style.height = `${last.top + Math.max(size, 14)}px`;
  for (const { layer, head } of cells.values()) paintOne(layer, head);
  markHeads();
  dim();
  drawGridNote();
}

/** The rows of the grid, as elements that lie over the canvas with the pictures. */
function gridRows(size, gap, margin) {
  cells = new Map();
  const every = size + gap < 12 ? 4 : 1;
  let top = state.grid === "layer" ? 16 : 0;
  const made = [];
  if (state.grid === "layer") made.push(numbersRow(size, gap, margin));
  rows.forEach((row, r) => {
    if (row.derived) top += 4;
    row.top = top;
    const line = make("div", { class: "grid-row", role: "row" });
    if (row.label && (r % every === 0 || state.grid !== "layer")) line.append(laid(make("span", { class: "grid-number", role: "rowheader", title: row.title }, row.label), 0, top, margin, size));
    row.cells.forEach(([layer, head], c) => {
      const x = margin + c * (size + gap);
      const button = laid(make("button", { class: row.derived ? "grid-cell derived" : "grid-cell", role: "gridcell", type: "button", tabindex: "-1", "aria-label": cellName(layer, head), title: squares ? null : cellName(layer, head), "data-head": `${layer}.${head}` }), x, top, size, size);
      cells.set(`${layer}.${head}`, { button, x, y: top, layer, head, row: r, column: c });
      line.append(button);
    });
    if (row.derived) {
      line.append(laid(make("span", { class: "grid-number", role: "rowheader", title: row.title }, row.derived), margin + size + 6, top - (size < 14 ? (14 - size) / 2 : 0), 130, Math.max(14, size)));
    }
    top += size + gap;
    made.push(line);
  });
  return [byId("grid-canvas"), ...made];
}

function laid(element, left, top, width, height) {
  Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  return element;
}

function numbersRow(size, gap, margin) {
  const same = page.layers.every((layer) => layer.derived || layer.heads.join() === page.layers[0].heads.join());
  const widest = Math.max(...page.layers.map((layer) => layer.heads.length));
  const every = size + gap < 18 ? 4 : 1;
  const numbers = Array.from({ length: widest }, (_, i) => (same ? page.layers[0].heads[i] : i));
  return make("div", { "aria-hidden": "true" }, ...numbers.map((number, i) => (i % every ? "" : laid(make("span", { class: "grid-number over" }, String(number)), margin + i * (size + gap), 0, size, 14))));
}

/** What a cell is called: the head, and what it does. */
function cellName(layer, head) {
  const said = page.heads?.said[layer][head][0];
  const cross = page.layers[layer].kind === "self" ? "" : ` (${page.layers[layer].kind})`;
  if (page.layers[layer].derived) return `Rollout, no head: ${said?.[1] ?? "derived from all heads"}`;
  const name = headName(layer, head).replace(" · ", " ").toLowerCase();
  return `${name}${cross}${said ? `: ${said[1]}` : ""}`;
}

/** Mark the chosen heads; the keyboard enters the grid at the first of them. */
function markHeads() {
  const chosen = new Set(chosenHeads().map((place) => place.join(".")));
  const current = `${state.layer}.${state.head}`;
  for (const [name, { button }] of cells) {
    button.tabIndex = name === current ? 0 : -1;
    button.setAttribute("aria-selected", String(chosen.has(name)));
  }
  const button = cells.get(current)?.button;
  if (byId("grid").contains(document.activeElement) && document.activeElement !== button) button?.focus({ preventScroll: true });
  if (button) keepCellInSight(button);
  const several = chosen.size > 1;
  for (const id of ["together-count", "combine", "together-end"]) byId(id).hidden = !several;
  byId("together-count").textContent = `${chosen.size} heads`;
}

/** Scroll the box of the grid, and never the page. */
function keepCellInSight(button) {
  const box = byId("grid-box");
  const [top, left] = [button.offsetTop, button.offsetLeft];
  if (top < box.scrollTop) box.scrollTop = top - 4;
  if (top + button.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + button.offsetHeight - box.clientHeight + 6;
  if (left < box.scrollLeft) box.scrollLeft = left - geometry.margin;
  if (left + button.offsetWidth > box.scrollLeft + box.clientWidth) box.scrollLeft = left + button.offsetWidth - box.clientWidth + 6;
}

/** Heads that the search and the chips leave out step back. */
function dim() {
  for (const { button, layer, head } of cells.values()) button.classList.toggle("dim", dimmed(layer, head));
}

function drawGridNote() {
  const name = squareMeasure();
  const top = name && squares ? topOfMeasure(name) : 1;
  const sorted = measureNames().includes(state.grid) ? `Sorted by ${state.grid}, largest first. ` : "";
  byId("grid-note").textContent = squares ? `${sorted}Colour: ${name}, from 0 to ${Number(top.toFixed(2))}. Hover a square for its picture.` : sorted;
  byId("grid-note").hidden = !byId("grid-note").textContent;
}

/** Look at several heads together, those whose queries and keys are those of the chosen one. */
function pickTogether(places) {
  const { queries, keys } = axesOf(state.layer, state.item);
  const alike = places.filter(([l]) => axesOf(l, state.item).queries === queries && axesOf(l, state.item).keys === keys);
  choose({ others: alike.filter(([l, h]) => l !== state.layer || h !== state.head).map((place) => place.join(".")).join(",") });
}

/** Choose a head; with Ctrl, Shift or Command add it to the others, or take it away. */
function pickHead(layer, head, more) {
  const name = `${layer}.${head}`;
  const others = state.others.split(",").filter(Boolean);
  if (!more) return choose({ layer, head, others: "" });
  if (name === `${state.layer}.${state.head}`) return;
  choose({ others: (others.includes(name) ? others.filter((other) => other !== name) : [...others, name]).join(",") });
}

function onGridKey(event) {
  const step = ARROWS[event.key];
  const at = cells.get(`${state.layer}.${state.head}`);
  if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
  let target = null;
  if (step) target = rows[at.row + step[0]]?.cells[Math.min(at.column + step[1], rows[at.row + step[0]].cells.length - (step[0] ? 1 : 0))];
  else if (event.key === "Home") target = rows[at.row].cells[0];
  else if (event.key === "End") target = rows[at.row].cells.at(-1);
  else return;
  if (target) choose({ layer: target[0], head: target[1], others: "" });
  event.preventDefault();
  event.stopPropagation();
}

/** The picture of the head under the pointer, where the grid has only squares. */
function showHovered(event) {
  const box = byId("peek");
  const button = event.target.closest?.(".grid-cell");
  box.hidden = !button || !squares;
  if (box.hidden) return;
  const [layer, head] = button.dataset.head.split(".").map(Number);
  const found = thumbnailNow(layer, head);
  const canvas = byId("peek-canvas");
  const peek = sharpen(canvas, 132, 132);
  peek.imageSmoothingEnabled = false;
  peek.drawImage(picture(found.values, found.along, found.down, found.scale), 0, 0, 132, 132);
  byId("peek-name").textContent = cellName(layer, head);
  const [area, at] = [byId("heads").getBoundingClientRect(), button.getBoundingClientRect()];
  box.style.left = `${Math.max(0, Math.min(at.left - area.left + 24, area.width - 164))}px`;
  box.style.top = `${at.bottom - area.top + 8}px`;
}

/** Build the grid. */
export function buildGrid() {
  const grid = byId("grid");
  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".grid-cell");
    if (button) pickHead(...button.dataset.head.split(".").map(Number), event.ctrlKey || event.metaKey || event.shiftKey);
  });
  grid.addEventListener("keydown", onGridKey);
  grid.addEventListener("pointerover", showHovered);
  grid.addEventListener("pointerleave", () => (byId("peek").hidden = true));
  byId("together-end").addEventListener("click", () => choose({ others: "" }));
  byId("together-layer").addEventListener("click", () => pickTogether(everyHead().filter(([l]) => l === state.layer)));
  byId("together-all").addEventListener("click", () => pickTogether(everyHead()));
  onThumbnail(squares, paintOne);
  layout();
  let width = byId("grid-box").clientWidth;
  new ResizeObserver(() => {
    if (byId("grid-box").clientWidth === width) return;
    width = byId("grid-box").clientWidth;
    layout();
  }).observe(byId("grid-box"));
  on("layer head others", markHeads);
  on("scale theme grid", layout);
  on("search kinds", dim);
}

