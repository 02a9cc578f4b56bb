// The page: builds its parts, and draws them again when a choice changes.

import { buildControls } from "./controls.js";
import { axesOf, page } from "./data.js";
import { byId } from "./dom.js";
import { buildFindings, saidHere } from "./findings.js";
import { buildGrid } from "./grid.js";
import { drawLegend, drawPrecision } from "./legend.js";
import { drawMap, frame } from "./map.js";
import { listenOnMap, pairText } from "./pointer.js";
import { drawPanel } from "./row.js";
import { Chosen, saidOf } from "./shown.js";
import { Slices } from "./slices.js";
import { on, readAddress, state, writeAddress } from "./state.js";

const chosen = new Chosen();
const loadingWork = new Slices();

/** Load the chosen head, at once where it is small, and show it. */
function load() {
  drawTitle();
  const loading = chosen.load();
  const { queries, keys } = axesOf(state.layer, state.item);
  const small = queries.length * keys.length * page.layers[state.layer].size < 2 ** 24;
  if (small) {
    while (!loading.next().done);
    loaded();
    return;
  }
  byId("map-box").classList.add("busy");
  loadingWork.start([loading, finish()]);
}

function* finish() {
  byId("map-box").classList.remove("busy");
  loaded();
}

function loaded() {
  redraw();
  if (chosen.shown) drawLegend(chosen.shown);
  drawPanel(chosen);
  drawTitle();
  drawReadout();
  writeAddress();
}

function redraw() {
  drawMap(chosen.shown, axesOf(state.layer, state.item), state.query);
  byId("zoom").hidden = !frame.zoomable && !frame.zoomed;
  byId("zoom-all").disabled = !frame.zoomed;
  byId("map").classList.toggle("zoomed", frame.zoomed);
}

function drawTitle() {
  const layer = page.layers[state.layer];
  const { queries, keys } = axesOf(state.layer, state.item);
  byId("head-title").textContent = page.single ? "One head" : `Layer ${layer.number} · head ${layer.heads[state.head]}`;
  byId("head-kind").textContent = layer.kind === "cross" ? `cross-attention: ${queries.length} ${queries.kind} look at ${keys.length} ${keys.kind}` : "";
  byId("head-name").textContent = layer.name;
  byId("head-said").replaceChildren(...saidHere());
  byId("head-spread").textContent = chosen.shown ? `A query looks at ${chosen.spread.toFixed(1)} of ${keys.length} keys, on average.` : "";
}

/** The pair under the cursor in words; the tip says the same beside the pointer. */
function drawReadout() {
  const readout = byId("readout");
  const { cursor } = state;
  if (!cursor || !chosen.shown) {
    readout.replaceChildren("Hover a cell for its weight; click a token for its row.");
    delete readout.dataset.weight;
    return;
  }
  const weight = cursor.query === state.query ? chosen.row(cursor.query)[cursor.key] : weightAt(cursor);
  Object.assign(readout.dataset, { weight, query: cursor.query, key: cursor.key });
  const strong = document.createElement("strong");
  strong.textContent = saidOf(weight, chosen.axes.keys, cursor.key);
  readout.replaceChildren(...pairText(cursor.query, cursor.key), " ", strong);
}

function weightAt({ query, key }) {
  const { rows, columns } = chosen.shown;
  return chosen.shown.at(rows.indexOf(query), columns.indexOf(key));
}

function drawHeader() {
  const axis = axesOf(state.layer, state.item).queries;
  const heads = page.layers.reduce((sum, layer) => sum + layer.heads.length, 0);
  byId("title").textContent = page.title || page.model || "One attention head";
  const parts = page.title && page.model ? [page.model] : [];
  if (!page.single) parts.push(`${page.layers.length} layers`, `${heads} heads`);
  byId("subtitle").textContent = [...parts, `${axis.length} ${axis.kind}`].join(" · ");
  document.body.classList.toggle("single", page.single);
}

function start() {
  readAddress();
  drawHeader();
  buildControls();
  buildFindings();
  drawPrecision();
  listenOnMap(() => chosen.shown, redraw);
  on("layer head item special", load);
  on("scale theme", loaded);
  on("query", () => {
    redraw();
    drawPanel(chosen);
    drawReadout();
    writeAddress();
  });
  on("cursor", () => {
    redraw();
    drawReadout();
  });
  on("item layer", drawHeader);
  new ResizeObserver(redraw).observe(byId("map-box"));
  load();
  if (!page.single) buildGrid();
  document.documentElement.dataset.ready = "true";
}

start();
