// Two recordings of the same input side by side: which heads moved, and both maps of one of them with their difference.

import { colourAt, picture, topOf } from "./colour.js";
import { axesOf, headOf, page } from "./data.js";
import { byId, cssColour, make, sharpen, weightText } from "./dom.js";
import { shownOf } from "./shown.js";
import { UNSEEN, weightsInto } from "./softmax.js";
import { choose, on, state, theme } from "./state.js";
import { drawColumn, drawRow, everyNth, tickText, widestLabel } from "./ticks.js";

const { names: sideNames, numbers: layerNumbers, inputs } = page.compare;
const LARGEST_CELL = 30;
const MOST_TOLD = 10;
const SIDES = [0, 1, 2].map((i) => byId(`side-${i}`));
const MORE = { light: [228, 87, 46], dark: [255, 180, 84] };
const LESS = { light: [34, 114, 185], dark: [90, 167, 232] };

const pick = { input: 0, layer: 0, head: 0, cell: null };
let both = null; // The weights of the head on both sides, what differs, and the positions that are shown.
let geometryOfSides = [];

/** All weights of a head, of the positions that are shown. */
function matrixOf(layer, head, item, rows, columns) {
  const source = headOf(layer, head, item);
  const all = new Float32Array(source.queries * source.keys);
  for (const _ of weightsInto(source, all));
  const kept = new Float32Array(rows.length * columns.length);
  rows.forEach((row, r) => columns.forEach((column, c) => (kept[r * columns.length + c] = all[row * source.keys + column])));
  return kept;
}

/** Compute the chosen head on both sides. */
function loadBoth() {
  const input = inputs[pick.input];
  const axes = axesOf(input.first + pick.layer, input.item);
  const [rows, columns] = [shownOf(axes.queries), shownOf(axes.keys)];
  const sides = [input.first, input.second].map((start) => matrixOf(start + pick.layer, pick.head, input.item, rows, columns));
  const difference = sides[1].map((weight, i) => (weight < 0 || sides[0][i] < 0 ? NaN : weight - sides[0][i]));
  const largest = sides.reduce((most, side) => side.reduce((a, b) => Math.max(a, b), most), 0);
  const widest = difference.reduce((a, b) => Math.max(a, Math.abs(b) || 0), 0);
  both = { axes, rows, columns, sides, difference, top: topOf(largest, columns.length), widest };
  both.order = [...difference.keys()].filter((i) => Math.abs(difference[i]) > 0).sort((a, b) => Math.abs(difference[b]) - Math.abs(difference[a]));
  drawBoth();
  tellBoth();
}

/** The difference as a picture: one colour for more, one for less, the ground for the same. */
function pictureOfDifference() {
  const { difference, rows, columns, widest } = both;
  const canvas = make("canvas", { width: columns.length, height: rows.length });
  const image = canvas.getContext("2d").createImageData(columns.length, rows.length);
  difference.forEach((value, i) => {
    const colour = (value > 0 ? MORE : LESS)[theme()];
    const strength = Number.isNaN(value) || !widest ? 0 : Math.abs(value) / widest;
    image.data.set([...colour, Math.round(255 * strength)], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Draw the three maps. */
function drawBoth() {
  const { rows, columns, sides, top } = both;
  const pictures = [...sides.map((side) => picture(side, columns.length, rows.length, top)), pictureOfDifference()];
  geometryOfSides = SIDES.map((canvas, i) => drawSide(canvas, pictures[i]));
}

/** Draw one map with its labels, and give where it lies. */
function drawSide(canvas, image) {
  const { axes, rows, columns } = both;
  const width = canvas.parentElement.clientWidth;
  const probe = canvas.getContext("2d");
  probe.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const left = Math.min(90, widestLabel(probe, axes.queries, rows, 1) + 8);
  const above = Math.min(80, 0.8 * widestLabel(probe, axes.keys, columns, 1) + 18);
  const fit = (width - left - 0.6 * Math.min(80, above)) / columns.length;
  const cell = Math.min(LARGEST_CELL, fit >= 4 ? Math.floor(fit) : fit);
  const context = sharpen(canvas, width, above + cell * rows.length + 2);
  context.font = probe.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.imageSmoothingEnabled = false;
  context.fillStyle = cssColour("--raised");
  context.fillRect(left, above, cell * columns.length, cell * rows.length);
  context.drawImage(image, left, above, cell * columns.length, cell * rows.length);
  const [down, along] = [everyNth(cell), everyNth(cell, true)];
  const ink = (axis, at, chosen) => cssColour(chosen ? "--accent-ink" : axis.isSpecial[at] ? "--faint" : "--soft");
  rows.forEach((row, r) => {
    context.fillStyle = ink(axes.queries, row, pick.cell?.r === r);
    if (row % down === 0 || pick.cell?.r === r) drawRow(context, tickText(axes.queries, row, down), left - 5, above + (r + 0.5) * cell, left - 6);
  });
  columns.forEach((column, c) => {
    context.fillStyle = ink(axes.keys, column, pick.cell?.c === c);
    const beside = pick.cell && along > 1 && Math.abs(pick.cell.c - c) === 1; // no room for both labels
    if ((column % along === 0 && !beside) || pick.cell?.c === c) drawColumn(context, tickText(axes.keys, column, along), left + (c + 0.5) * cell, above - 6, above + 12);
  });
  if (pick.cell) {
    context.strokeStyle = cssColour("--ink");
    context.lineWidth = 1.5;
    context.strokeRect(left + pick.cell.c * cell, above + pick.cell.r * cell, cell, cell);
  }
  return { left, above, cell };
}

/** What the chosen head is called, and how much of it moved. */
function tellBoth() {
  const { axes, rows, columns, sides, difference, order, top, widest } = both;
  const layer = page.layers[inputs[pick.input].first + pick.layer];
  byId("sides-title").textContent = `Layer ${layerNumbers[pick.layer]} · head ${layer.heads[pick.head]}`;
  byId("sides-moved").textContent = `${inputs[pick.input].moved[pick.layer][pick.head].toFixed(2)} of its attention moved`;
  [...sideNames, "difference"].forEach((name, i) => (byId(`name-${i}`).textContent = name));
  byId("scale-top").textContent = top.toFixed(2);
  byId("scale-difference").textContent = widest.toFixed(2);
  const lines = order.slice(0, MOST_TOLD).map((i) => {
    const [r, c] = [Math.floor(i / columns.length), i % columns.length];
    const tokens = make("span", {}, make("bdi", {}, axes.queries.labels[rows[r]]), " → ", make("bdi", {}, axes.keys.labels[columns[c]]));
    const button = make("button", { type: "button" }, tokens, make("span", { class: "change" }, `${sides[0][i].toFixed(2)} → ${sides[1][i].toFixed(2)}`));
    button.addEventListener("click", () => pointAt({ r, c }));
    return make("li", {}, button);
  });
  byId("differences").replaceChildren(...lines);
  readOut(difference);
}

/** The pair under the pointer, in words. */
function readOut(difference) {
  const { axes, rows, columns, sides } = both;
  const readout = byId("readout");
  if (!pick.cell) {
    readout.replaceChildren("Point at a cell for its weights.");
    return;
  }
  const at = pick.cell.r * columns.length + pick.cell.c;
  const pair = [make("bdi", {}, axes.queries.labels[rows[pick.cell.r]]), " → ", make("bdi", {}, axes.keys.labels[columns[pick.cell.c]])];
  const [one, two] = sides.map((side) => weightText(side[at] < 0 ? UNSEEN : side[at]));
  Object.assign(readout.dataset, { first: sides[0][at], second: sides[1][at] });
  const sign = difference[at] >= 0 ? "+" : "−";
  readout.replaceChildren(...pair, `: ${sideNames[0]} `, make("strong", {}, one), `, ${sideNames[1]} `, make("strong", {}, two), ` (${sign}${Math.abs(difference[at]).toFixed(3)})`);
}

function pointAt(cell) {
  if (cell?.r === pick.cell?.r && cell?.c === pick.cell?.c) return;
  pick.cell = cell;
  drawBoth();
  readOut(both.difference);
}

/** The grid of heads, each coloured by how much it moved, and the list of those that moved most. */
function buildMoved() {
  const { first, moved } = inputs[pick.input];
  const heads = Math.max(...moved.map((layer) => layer.length));
  const most = Math.max(1e-9, ...moved.flat());
  const grid = byId("moved");
  const size = Math.max(12, Math.min(26, Math.floor((byId("moved-box").clientWidth - 30) / heads) - 2));
  grid.style.setProperty("--size", `${size}px`);
  grid.style.gridTemplateColumns = `20px repeat(${heads}, ${size}px)`;
  grid.replaceChildren(make("span"), ...Array.from({ length: heads }, (_, h) => make("span", {}, String(page.layers[first].heads[h] ?? h))));
  moved.forEach((layer, l) => {
    grid.append(make("span", {}, String(layerNumbers[l])));
    for (let h = 0; h < heads; h++) grid.append(h < layer.length ? cellOfHead(l, h, layer[h], most) : make("span"));
  });
  const order = moved.flatMap((layer, l) => layer.map((share, h) => ({ l, h, share }))).sort((a, b) => b.share - a.share);
  const lines = order.slice(0, MOST_TOLD).map(({ l, h, share }) => {
    const tag = make("span", { class: "tag" }, nameOfHead(l, h));
    const button = make("button", { type: "button", class: l === pick.layer && h === pick.head ? "here" : null }, tag, `moved ${share.toFixed(2)}`);
    button.addEventListener("click", () => lookAt(l, h));
    return make("li", {}, button);
  });
  byId("movers").replaceChildren(...lines);
}

function nameOfHead(l, h) {
  return `${layerNumbers[l]}.${page.layers[inputs[pick.input].first + l].heads[h]}`;
}

function cellOfHead(l, h, share, most) {
  const name = `layer and head ${nameOfHead(l, h)}: moved ${share.toFixed(2)}`;
  const button = make("button", { type: "button", title: name, "aria-label": name, "aria-pressed": String(l === pick.layer && h === pick.head) });
  button.style.background = colourAt(share / most);
  button.addEventListener("click", () => lookAt(l, h));
  return button;
}

/** Show another head of this input. */
function lookAt(l, h) {
  Object.assign(pick, { layer: l, head: h, cell: null });
  buildMoved();
  loadBoth();
}

/** Show another input, with the same head where one was chosen, else with the one that moved most. */
function lookAtInput(number, keep) {
  pick.input = number;
  const { moved } = inputs[number];
  if (keep) return lookAt(pick.layer, pick.head);
  const most = Math.max(...moved.flat());
  const layer = moved.findIndex((shares) => shares.includes(most));
  lookAt(layer, moved[layer].indexOf(most));
}

function buildInputs() {
  byId("inputs").hidden = inputs.length < 2;
  const select = byId("input");
  select.append(...inputs.map(({ name }, i) => make("option", { value: i }, name)));
  select.addEventListener("change", () => lookAtInput(Number(select.value), true));
}

function buildSwitches() {
  const buttons = [...byId("special").querySelectorAll("button")];
  const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === state.special)));
  buttons.forEach((button) => button.addEventListener("click", () => choose({ special: button.value })));
  byId("theme").addEventListener("click", () => choose({ theme: theme() === "dark" ? "light" : "dark" }));
  on("special", mark);
  mark();
}

function startCompare() {
  byId("title").textContent = page.title || page.model || "Two recordings";
  const heads = inputs[0].moved.reduce((sum, layer) => sum + layer.length, 0);
  byId("subtitle").textContent = [page.title && page.model, `${sideNames.join(" and ")} · ${layerNumbers.length} layers · ${heads} heads`].filter(Boolean).join(" · ");
  buildInputs();
  buildSwitches();
  SIDES.forEach((canvas, i) => {
    const follow = (event) => {
      const { left, above, cell } = geometryOfSides[i];
      const [c, r] = [Math.floor((event.offsetX - left) / cell), Math.floor((event.offsetY - above) / cell)];
      pointAt(r >= 0 && c >= 0 && r < both.rows.length && c < both.columns.length ? { r, c } : null);
    };
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerdown", follow);
  });
  for (const button of document.querySelectorAll("button[data-layer]")) {
    button.addEventListener("click", () => {
      lookAt(Number(button.dataset.layer), Number(button.dataset.head));
      byId("sides").scrollIntoView({ block: "start" });
    });
  }
  on("special", () => {
    pick.cell = null;
    loadBoth();
  });
  on("theme", () => {
    if (state.theme) document.documentElement.dataset.theme = state.theme;
    lookAt(pick.layer, pick.head);
  });
  lookAtInput(0, false);
  let drawnAt = byId("maps").clientWidth;
  new ResizeObserver(() => {
    // The maps set their own height; only another width is a reason to draw again.
    if (byId("maps").clientWidth === drawnAt) return;
    drawnAt = byId("maps").clientWidth;
    drawBoth();
  }).observe(byId("maps"));
  document.documentElement.dataset.ready = "true";
}

startCompare();
