// What is seen as one SVG: the sentence, the text with its arcs, the map with its labels and scale. Texts stay texts.

import { svg } from "./arcs.js";
import { colourAt } from "./colour.js";
import { page } from "./data.js";
import { byId, cssColour, shortLabel } from "./dom.js";
import { position } from "./scale.js";
import { state } from "./state.js";
import { everyNth, tickText, TURN } from "./ticks.js";

const MOST_VECTORS = 64; // Cells along a side that are drawn one by one; more are a picture.
const LETTERS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const MARGIN = 24;
const SIDE = 560;
const HIGHEST = 110;

/** The picture as text. */
export function asSvg(map, chosen) {
  const parts = [];
  let y = MARGIN;
  const title = [byId("head-title").textContent, byId("headline").textContent].filter(Boolean).join(": ");
  const note = [byId("title").textContent, page.title ? page.model : ""].filter(Boolean).join(" · ");
  parts.push(words(title, MARGIN, y + 14, { "font-size": 17, "font-weight": 650 }), words(note, MARGIN, y + 36, { "font-size": 12, fill: cssColour("--soft") }));
  y += 52;
  let width = Math.max(480, 9.4 * title.length + 2 * MARGIN);
  const arcs = byId("arcs");
  if (arcs) {
    const copy = arcs.cloneNode(true);
    for (const [name, value] of [["x", MARGIN], ["y", y], ["fill", cssColour("--ink")], ["font-family", LETTERS]]) copy.setAttribute(name, value);
    for (const name of ["tabindex", "role", "aria-activedescendant", "id"]) copy.removeAttribute(name);
    for (const bar of copy.querySelectorAll(".track")) bar.setAttribute("fill", cssColour("--line"));
    for (const bar of copy.querySelectorAll(".rest")) bar.setAttribute("fill", cssColour("--soft"));
    parts.push(copy);
    width = Math.max(width, Number(arcs.getAttribute("width")) + 2 * MARGIN);
    y += Number(arcs.getAttribute("height")) + 20;
  }
  const drawn = mapGroup(map, chosen, MARGIN, y);
  parts.push(...drawn.parts);
  width = Math.max(width, drawn.right + MARGIN);
  const height = drawn.bottom + MARGIN;
  const root = svg("svg", { xmlns: "http://www.w3.org/2000/svg", width: Math.ceil(width), height: Math.ceil(height), viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`, "font-family": LETTERS }, svg("title", {}, title), svg("rect", { width: "100%", height: "100%", fill: cssColour("--ground") }), ...parts);
  return new XMLSerializer().serializeToString(root);
}

function words(text, x, y, attributes = {}) {
  return svg("text", { x, y, fill: cssColour("--ink"), "font-size": 12, ...attributes }, text);
}

/** The part of the map that is seen, with labels and scale. */
function mapGroup({ frame }, { shown, axes }, x, y) {
  const view = frame.view;
  const [r0, r1] = [Math.floor(view.r), Math.min(shown.rows.length, Math.ceil(view.r + view.rows))];
  const [c0, c1] = [Math.floor(view.c), Math.min(shown.columns.length, Math.ceil(view.c + view.columns))];
  const cell = Math.min(30, SIDE / Math.max(r1 - r0, c1 - c0));
  const [left, top] = [x + 120, y + HIGHEST];
  const [width, height] = [(c1 - c0) * cell, (r1 - r0) * cell];
  const parts = [svg("rect", { x: left, y: top, width, height, fill: cssColour("--raised") }), cellsOf(shown, [r0, r1], [c0, c1], left, top, cell)];
  const steps = [everyNth(cell), everyNth(cell, true)];
  for (let r = r0; r < r1; r++) {
    if (shown.rows[r] % steps[0] && steps[0] > 1) continue;
    const label = tickText(axes.queries, shown.rows[r], steps[0]).join(" ").trim();
    parts.push(words(shortLabel(label, 17), left - 8, top + (r - r0 + 0.5) * cell + 4, { "text-anchor": "end", "font-weight": shown.rows[r] === state.query ? 650 : null, fill: cssColour(shown.rows[r] === state.query ? "--accent-ink" : "--ink") }));
  }
  for (let c = c0; c < c1; c++) {
    if (shown.columns[c] % steps[1] && steps[1] > 1) continue;
    const label = tickText(axes.keys, shown.columns[c], steps[1]).join(" ").trim();
    const [tx, ty] = [left + (c - c0 + 0.5) * cell + 3, top - 8];
    parts.push(words(shortLabel(label, 17), tx, ty, { transform: `rotate(${(TURN * 180) / Math.PI} ${tx} ${ty})` }));
  }
  parts.push(...scaleOf(shown, left, top + height + 18));
  return { parts, right: left + width + 70, bottom: top + height + 56 };
}

/** The cells as rectangles, or as a picture where there are many. */
function cellsOf(shown, [r0, r1], [c0, c1], left, top, cell) {
  const columns = shown.columns.length;
  if (Math.max(r1 - r0, c1 - c0) > MOST_VECTORS) {
    const most = 2 * SIDE;
    const image = shown.pictureOf([r0, r1], [c0, c1], Math.min(r1 - r0, most), Math.min(c1 - c0, most));
    return svg("image", { href: image.toDataURL(), x: left, y: top, width: (c1 - c0) * cell, height: (r1 - r0) * cell, "image-rendering": "pixelated", preserveAspectRatio: "none" });
  }
  const group = svg("g", { "shape-rendering": "crispEdges" });
  for (let r = r0; r < r1; r++) {
    for (let c = c0; c < c1; c++) {
      const weight = shown.drawn[r * columns + c];
      if (weight < 0) continue;
      group.append(svg("rect", { x: left + (c - c0) * cell, y: top + (r - r0) * cell, width: cell, height: cell, fill: colourAt(position(weight, shown.scale)), "data-weight": shown.at(r, c).toFixed(5), "data-query": shown.rows[r], "data-key": shown.columns[c] }));
    }
  }
  return group;
}

/** The scale and what it says. */
function scaleOf(shown, x, y) {
  const bar = svg("g", {});
  for (let i = 0; i < 60; i++) bar.append(svg("rect", { x: x + 2.5 * i, y, width: 2.6, height: 9, fill: colourAt(i / 59) }));
  const ticks = [...byId("legend-ticks").children].map((tick) => words(tick.textContent, x + (150 * parseFloat(tick.style.left)) / 100, y + 22, { "font-size": 11, fill: cssColour("--soft"), "text-anchor": parseFloat(tick.style.left) < 5 ? "start" : parseFloat(tick.style.left) > 95 ? "end" : "middle" }));
  return [bar, ...ticks, words(byId("legend-name").textContent, x + 162, y + 9, { "font-size": 11, fill: cssColour("--soft") })];
}

