// The page: builds its parts, and draws them again when a choice changes.

import { keepAddress, readAddress } from "./address.js";
import { buildControls } from "./controls.js";
import { axesOf, page } from "./data.js";
import { byId, counted } from "./dom.js";
import { buildExports } from "./exports.js";
import { buildFindings } from "./findings.js";
import { buildGrid } from "./grid.js";
import { drawHeadline } from "./headline.js";
import { drawLegend, drawPrecision } from "./legend.js";
import { drawLinked } from "./linked.js";
import { HeatMap } from "./map.js";
import { listenOnPassage } from "./passage.js";
import { listenOnMap, pairText, zoomBy } from "./pointer.js";
import { drawReading, listenOnReading } from "./reading.js";
import { drawPanel, listenOnRow } from "./row.js";
import { previewOf } from "./preview.js";
import { Chosen, saidOf } from "./shown.js";
import { Slices } from "./slices.js";
import { listenOnSteps } from "./steps.js";
import { chosenHeads, choose, on, state } from "./state.js";

const TALLEST_MAP = 520; // Pixels, where the parts of the page stand below one another.
const AT_ONCE = 2 ** 24; // Multiplications that are done before the next frame.
const chosen = new Chosen();
const map = new HeatMap(byId("map"), byId("map-box"));
const { frame } = map;
const loadingWork = new Slices(30); // Nobody can do much before the head is there.

/** Load the chosen head, at once where it is small, and show it. */
function load() {
  const loading = chosen.load();
  const { queries, keys } = axesOf(state.layer, state.item);
  if (chosenHeads().length * queries.length * keys.length * page.layers[state.layer].size < AT_ONCE) {
    while (!loading.next().done);
    loaded();
    return;
  }
  document.body.classList.add("busy");
  drawHeadline(chosen);
  redraw();
  loadingWork.start([loading, finish()]);
}

function* finish() {
  document.body.classList.remove("busy");
  loaded();
}

function loaded() {
  if (!chosen.shown) return;
  applyView();
  redraw();
  drawLegend(chosen.shown);
  drawHeadline(chosen);
  byId("head-spread").textContent = `A query looks at ${chosen.spread.toFixed(1)} of ${counted(chosen.axes.keys.length, "key")}, on average.`;
  drawToken();
}

/** What depends on the chosen token. */
function drawToken() {
  if (!chosen.shown) return;
  drawReading(chosen);
  drawPanel(chosen);
  drawLinked(chosen);
  drawReadout();
}

/** Draw the map: of a head that is still being computed its small picture, enlarged. */
function redraw() {
  map.tall = matchMedia("(max-width: 900px)").matches ? Math.min(0.92 * window.innerWidth, TALLEST_MAP) : 0;
  map.draw({ shown: chosen.shown ?? previewOf(), axes: axesOf(state.layer, state.item), query: state.query, cursor: state.cursor });
  byId("zoom").hidden = !frame.zoomable && !frame.zoomed;
  byId("zoom-all").disabled = !frame.zoomed;
  byId("map").classList.toggle("zoomed", frame.zoomed);
}

/** The part of the map that is seen, as the address names it. */
function viewNow() {
  const { r, c, rows, columns } = frame.view;
  return frame.zoomed ? [r, c, rows, columns].map((value) => Math.round(value * 10) / 10).join(",") : "";
}

/** Show the part of the map that was chosen, unless it is seen already. */
function applyView() {
  frame.resize(chosen.shown.rows.length, chosen.shown.columns.length);
  if (state.view === viewNow()) return;
  frame.reset();
  const [r, c, rows, columns] = state.view.split(",").map(Number);
  if (!(r + rows <= frame.rows + 1 && c + columns <= frame.columns + 1 && rows >= 1 && columns >= 1)) return;
  frame.view = { r, c, rows: Math.min(rows, frame.rows), columns: Math.min(columns, frame.columns) };
  frame.keepInside();
}

/** After zooming or moving: what is seen is a part of what is chosen. */
function moved() {
  choose({ view: viewNow() });
}

/** The pair under the cursor in words. */
function drawReadout() {
  const readout = byId("readout");
  const { cursor } = state;
  if (!cursor || !chosen.shown) {
    readout.replaceChildren("Hover a cell for its weight; click a token for its row.");
    delete readout.dataset.weight;
    return;
  }
  const weight = chosen.row(cursor.query)[cursor.key];
  Object.assign(readout.dataset, { weight, query: cursor.query, key: cursor.key });
  const strong = document.createElement("strong");
  strong.textContent = saidOf(weight, chosen.axes.keys, cursor.key);
  readout.replaceChildren(...pairText(cursor.query, cursor.key), " ", strong);
}

function drawHeader() {
  const axis = axesOf(state.layer, state.item).queries;
  const layers = page.layers.filter(({ derived }) => !derived);
  const heads = layers.reduce((sum, layer) => sum + layer.heads.length, 0);
  byId("title").textContent = byId("title").title = page.title || page.model || "One attention head";
  const parts = page.title && page.model ? [page.model] : [];
  if (!page.single) parts.push(counted(layers.length, "layer"), counted(heads, "head"));
  byId("subtitle").textContent = [...parts, axis.length === 1 ? `1 ${axis.kind === "patches" ? "patch" : axis.kind.slice(0, -1)}` : `${axis.length} ${axis.kind}`].join(" · ");
  document.body.classList.toggle("single", page.single);
}

function listenOnZoom() {
  for (const [id, factor] of [["zoom-in", 1.6], ["zoom-out", 1 / 1.6], ["zoom-all", 0]]) {
    byId(id).addEventListener("click", () => {
      zoomBy(map, factor, chosen.shown);
      moved();
      redraw();
    });
  }
}

function start() {
  readAddress();
  drawHeader();
  buildControls();
  buildFindings();
  drawPrecision();
  listenOnPassage();
  listenOnReading();
  listenOnRow();
  listenOnSteps();
  listenOnMap(map, () => chosen.shown, redraw, { tip: byId("tip"), moved });
  listenOnZoom();
  on("view", () => {
    if (!chosen.shown || state.view === viewNow()) return;
    applyView();
    redraw();
  });
  on("layer head item special others combine weigh", load);
  on("scale theme", loaded);
  on("query key direction least texts photo", () => {
    redraw();
    drawToken();
  });
  on("cursor", () => {
    redraw();
    drawReadout();
  });
  on("item layer", drawHeader);
  let width = 0;
  new ResizeObserver(() => {
    redraw();
    if (byId("reading").clientWidth !== width && chosen.shown) drawReading(chosen);
    width = byId("reading").clientWidth;
  }).observe(byId("map-box"));
  load();
  if (!page.single) buildGrid();
  buildExports(map, chosen);
  keepAddress();
  document.documentElement.dataset.ready = "true";
}

start();
