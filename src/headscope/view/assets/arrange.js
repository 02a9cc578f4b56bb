// In which order the grid shows the heads: by layer, by what they do, or by a statistic.

import { page } from "./data.js";
import { state } from "./state.js";

/** Short names of what heads do, in the order of the groups. */
export const KINDS = {
  previous: "previous",
  self: "self",
  next: "next",
  offset: "offset",
  local: "local",
  first: "first",
  special: "special",
  delimiter: "delimiter",
  duplicate: "duplicate",
  induction: "induction",
  columns: "columns",
  pair: "pair",
  broad: "everywhere",
  spread: "spread",
  rollout: "derived",
};

/** The kind of a head: that of its headline. */
export function kindOf(layer, head) {
  return page.heads?.said[layer][head][0][0] ?? "spread";
}

/** The statistics that the heads have. */
export function measureNames() {
  return Object.keys(page.heads?.measures ?? {});
}

/** A statistic of a head, or null. */
export function measureOf(name, layer, head) {
  return page.heads.measures[name][layer][head];
}

/** All heads of the model as places. */
export function everyHead() {
  return everyPlace().filter(([l]) => !page.layers[l].derived);
}

/** All heads, and what is derived from them. */
export function everyPlace() {
  return page.layers.flatMap((layer, l) => layer.heads.map((_, h) => [l, h]));
}

/** The last rows: what is derived from all heads, and is none. */
function derivedRows() {
  return page.layers.flatMap((layer, l) => (layer.derived ? [{ label: "", title: layer.name, derived: `${layer.number}, derived`, cells: [[l, 0]] }] : []));
}

/** The rows of the grid: { label, title, cells }, no longer than `along` unless they are layers. */
export function arranged(along) {
  if (state.grid === "kind") {
    return [...Object.keys(KINDS).flatMap((kind) => lines(everyHead().filter(([l, h]) => kindOf(l, h) === kind), along, KINDS[kind])), ...derivedRows()];
  }
  if (measureNames().includes(state.grid)) {
    const value = ([l, h]) => measureOf(state.grid, l, h) ?? -Infinity;
    return [...lines(everyHead().sort((a, b) => value(b) - value(a)), along, ""), ...derivedRows()];
  }
  const layers = page.layers.map((layer, l) => ({
    label: `${layer.number}${layer.kind === "cross" ? "×" : ""}`,
    title: layer.name,
    cells: layer.heads.map((_, h) => [l, h]),
  }));
  return [...layers.filter((_, l) => !page.layers[l].derived), ...derivedRows()];
}

/** A list of heads in lines; the first has a label. */
function lines(places, along, label) {
  const out = [];
  for (let i = 0; i < places.length; i += along) out.push({ label: i ? "" : label, title: label && `${places.length} heads`, cells: places.slice(i, i + along) });
  return out;
}
