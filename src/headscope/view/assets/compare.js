// Two recordings side by side: which heads moved, and of one of them both maps and their difference, moved as one.

import { keepAddress, readAddress } from "./address.js";
import { bothSides, rescale } from "./compared.js";
import { colourAt } from "./colour.js";
import { page } from "./data.js";
import { byId, make, weightText } from "./dom.js";
import { HeatMap } from "./map.js";
import { drawMovers, listenOnMovers, moverName } from "./movers.js";
import { listenOnMap, zoomBy } from "./pointer.js";
import { scaleKind } from "./scale.js";
import { choose, DEFAULTS, on, state, theme } from "./state.js";

const { names: sideNames, numbers: layerNumbers, inputs } = page.compare;
const TALLEST = 620;
const NUMBERED = 40; // In longer texts a word stands more than once: pairs have their positions.
const maps = [0, 1, 2].map((i) => new HeatMap(byId(`side-${i}`), byId(`side-${i}`).parentElement));
let both = null;

function parts() {
  return [...both.sides, both.difference];
}

/** Load the chosen head of the chosen input and show it. */
function loadBoth() {
  both = bothSides();
  drawBoth();
  describe();
}

/** Draw the three maps: the same part of each. */
function drawBoth() {
  if (!both) return;
  byId("maps").classList.toggle("long", parts()[0].columns.length > NUMBERED);
  parts().forEach((shown, i) => {
    const map = maps[i];
    map.frame.resize(shown.rows.length, shown.columns.length);
    const { view } = maps[0].frame;
    map.frame.view = { ...view };
    map.tall = Math.min(TALLEST, Math.max(160, map.box.clientWidth * Math.min(1.3, (shown.rows.length / shown.columns.length) * 0.8) + 90));
    map.draw({ shown, axes: i === 1 ? both.second : both.axes, query: state.query, cursor: state.cursor });
  });
  const { frame } = maps[0];
  byId("zoom").hidden = !frame.zoomable && !frame.zoomed;
  byId("zoom-all").disabled = !frame.zoomed;
  for (const { canvas } of maps) canvas.classList.toggle("zoomed", frame.zoomed);
}

/** One map was moved: the others follow. */
function follow(map) {
  for (const other of maps) other.frame.view = { ...map.frame.view };
  drawBoth();
}

/** What the chosen head is called, how much of it moved, what the scales are, and where it differs most. */
function describe() {
  const { axes, second, sides, difference, order } = both;
  const input = inputs[state.input];
  const [layerName, headName] = moverName(state.layer, state.head).split(".");
  const moved = input.moved[state.layer][state.head];
  byId("sides-title").textContent = `Layer ${layerName} · head ${headName}`;
  byId("sides-moved").textContent = `${moved.toFixed(2)} of its attention moved`;
  [...sideNames, `${sideNames[1]} − ${sideNames[0]}`].forEach((name, i) => (byId(`name-${i}`).textContent = name));
  maps.forEach(({ canvas }, i) => canvas.setAttribute("aria-label", `Heat map, ${["", "", "difference: "][i]}${byId(`name-${i}`).textContent}: queries down, keys along. Arrow keys move the cursor, Enter keeps the row.`));
  describeScales(sides[0].scale, difference.scale);
  const columns = difference.columns.length;
  const lines = order.map((i) => {
    const [r, c] = [Math.floor(i / columns), i % columns];
    const cell = { query: difference.rows[r], key: difference.columns[c] };
    const tokens = make("span", {}, ...pairNames(axes, second, cell));
    const button = make("button", { type: "button" }, tokens, make("span", { class: "change" }, `${sides[0].values[i].toFixed(2)} → ${sides[1].values[i].toFixed(2)}`));
    button.addEventListener("click", () => choose({ query: cell.query, cursor: cell }));
    return make("li", {}, button);
  });
  byId("differences").replaceChildren(...lines);
  readOut();
}

function describeScales(scale, difference) {
  const stops = Array.from({ length: 9 }, (_, i) => `${colourAt(i / 8)} ${(i * 12.5).toFixed(1)}%`);
  byId("weights-bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const kinds = { linear: "weight", sqrt: "weight, square root", log: "weight, logarithmic", order: "order within the row, not size" };
  byId("weights-name").textContent = kinds[scale.kind];
  byId("weights-ends").textContent = scale.kind === "order" ? "least to most" : `${weightText(scale.floor)} to ${Number(scale.top.toFixed(2))}${scale.top < scale.largest * 0.995 ? " (99.9th percentile)" : ""}`;
  byId("scale-difference").textContent = String(difference.top);
}

/** A pair of tokens; where the two texts differ there, both. */
function pairNames(axes, second, { query, key }) {
  const either = (one, other) => (one === other ? one : `${one} / ${other}`);
  const place = (axis, at) => (axis.length > NUMBERED && axis.kind !== "positions" ? make("span", { class: "place" }, ` ${at}`) : "");
  return [make("bdi", {}, either(axes.queries.labels[query], second.queries.labels[query])), place(axes.queries, query), " → ", make("bdi", {}, either(axes.keys.labels[key], second.keys.labels[key])), place(axes.keys, key)];
}

/** The pair under the cursor, in words. */
function readOut() {
  const { axes, second, sides, difference } = both;
  const readout = byId("readout");
  const { cursor } = state;
  const [r, c] = cursor ? [difference.rows.indexOf(cursor.query), difference.columns.indexOf(cursor.key)] : [-1, -1];
  if (r < 0 || c < 0) {
    readout.replaceChildren("Point at a cell for its weights.");
    for (const name of ["first", "second"]) delete readout.dataset[name];
    return;
  }
  const [one, two] = sides.map((side) => side.at(r, c));
  Object.assign(readout.dataset, { first: one, second: two });
  const change = difference.at(r, c);
  const said = Number.isNaN(change) ? "" : ` (${change >= 0 ? "+" : "−"}${Math.abs(change).toFixed(3)})`;
  readout.replaceChildren(...pairNames(axes, second, cursor), `: ${sideNames[0]} `, make("strong", {}, weightText(one)), `, ${sideNames[1]} `, make("strong", {}, weightText(two)), said);
}

/** The texts of both sides; tokens that differ stand out. */
function drawTexts() {
  const { texts, models } = inputs[state.input];
  texts.forEach((text, side) => {
    const box = byId(`text-${side}`);
    box.parentElement.hidden = !text.length;
    byId(`text-name-${side}`).textContent = models[side] ? `${sideNames[side]} · ${models[side]}` : sideNames[side];
    box.replaceChildren(...text.flatMap((token, i) => [token !== texts[1 - side][i] ? make("mark", {}, token) : token, " "]));
  });
  byId("texts-same").hidden = texts[0].join("\n") !== texts[1].join("\n");
  byId("text-1").parentElement.hidden ||= !byId("texts-same").hidden && models[0] === models[1];
}

function buildInputs() {
  byId("inputs").hidden = inputs.length < 2;
  const select = byId("input");
  select.append(...inputs.map(({ name }, i) => make("option", { value: i }, name)));
  select.addEventListener("change", () => choose({ input: Number(select.value) }));
  on("input", () => (select.value = String(state.input)));
}

function wireChoice(name, now, more = "") {
  const buttons = [...byId(name).querySelectorAll("button")];
  const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === now())));
  buttons.forEach((button) => button.addEventListener("click", () => choose({ [name]: button.value })));
  on(`${name} ${more}`, mark);
  mark();
}

function buildSwitches() {
  wireChoice("special", () => state.special);
  wireChoice("scale", () => scaleKind(), "input layer");
  byId("theme").addEventListener("click", () => choose({ theme: theme() === "dark" ? "light" : "dark" }));
  for (const [id, factor] of [["zoom-in", 1.6], ["zoom-out", 1 / 1.6], ["zoom-all", 0]]) {
    byId(id).addEventListener("click", () => {
      zoomBy(maps[0], factor, both.sides[0]);
      follow(maps[0]);
    });
  }
  for (const button of document.querySelectorAll("button[data-layer]")) {
    button.addEventListener("click", () => {
      choose({ layer: Number(button.dataset.layer), head: Number(button.dataset.head) });
      byId("sides").scrollIntoView({ block: "start" });
    });
  }
}

function drawTop() {
  const models = [...new Set(inputs[state.input].models.filter(Boolean))];
  byId("title").textContent = page.title || models.join(" and ") || "Two recordings";
  const heads = inputs[0].moved.reduce((sum, layer) => sum + layer.length, 0);
  byId("subtitle").textContent = [page.title && models.join(" and "), `${sideNames.join(" and ")} · ${layerNumbers.length} layers · ${heads} heads`].filter(Boolean).join(" · ");
}

/** At the beginning the head that moved most on the first input. */
function chooseMostMoved() {
  const { moved } = inputs[0];
  const most = Math.max(...moved.flat());
  const layer = moved.findIndex((shares) => shares.includes(most));
  Object.assign(DEFAULTS, { layer, head: moved[layer].indexOf(most) });
}

/** At the beginning the row of the largest difference, unless the address names another. */
function chooseMostDifferent() {
  const { difference, order } = both;
  if (order.length && !/[#&]query=/.test(location.hash)) choose({ query: difference.rows[Math.floor(order[0] / difference.columns.length)] });
}

function startCompare() {
  chooseMostMoved();
  readAddress();
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  drawTop();
  buildInputs();
  buildSwitches();
  maps.forEach((map) => listenOnMap(map, () => both && parts()[maps.indexOf(map)], () => follow(map)));
  listenOnMovers();
  drawMovers();
  drawTexts();
  on("layer head input special", loadBoth);
  on("scale", () => {
    rescale(both.sides);
    drawBoth();
    describe();
  });
  on("query cursor", () => {
    drawBoth();
    readOut();
  });
  on("input", () => {
    drawTop();
    drawTexts();
  });
  on("theme", () => {
    document.documentElement.dataset.theme = theme();
    loadBoth();
  });
  loadBoth();
  chooseMostDifferent();
  let drawnAt = byId("maps").clientWidth;
  new ResizeObserver(() => {
    // The maps set their own height; only another width is a reason to draw again.
    if (byId("maps").clientWidth === drawnAt) return;
    drawnAt = byId("maps").clientWidth;
    drawBoth();
  }).observe(byId("maps"));
  keepAddress();
  document.documentElement.dataset.ready = "true";
}

startCompare();
