// What stands at the head of the row's panel: the keys as a picture or along a line, and queries that are no text.

import { byId, make, shortLabel } from "./dom.js";
import { isPatch, picturesOf } from "./images.js";
import { smallMultiples } from "./multiples.js";
import { PatchGrid } from "./patches.js";
import { targetKey } from "./reading.js";
import { placesOf } from "./scale.js";
import { choose, state } from "./state.js";
import { keyStrip, paintStrip } from "./strip.js";

const OVERVIEW = 80; // A text of more tokens gets an overview.
const MOST_OTHERS = 16; // Positions beside a picture that have a button each: class and register tokens.
const PHOTO = { both: "Both", weights: "Weights", picture: "Picture" };
let panel = {};

/** Build the parts that only change with the axes. */
export function buildPanel({ queries, keys, same, shift }) {
  if (panel.queries === queries && panel.keys === keys && panel.multiples?.layer === (panel.multiples ? state.layer : undefined)) return;
  panel = { queries, keys, same, shift, asking: [], grids: [], others: [], multiples: null, strip: false };
  const [key, asks] = [byId("row-keys"), byId("row-queries")];
  key.replaceChildren();
  asks.replaceChildren();
  const pickKey = (k) => (same ? k >= shift && choose({ query: k - shift }) : choose({ key: k, direction: "to" }));
  if (picturesOf(keys).length) buildPictures(key, keys, "keys", pickKey);
  else if (keys.kind !== "tokens" || keys.length > OVERVIEW) {
    key.append(keyStrip(keys, pickKey, keys.kind === "tokens" ? 44 : undefined));
    panel.strip = true;
  }
  const worded = (axis) => axis.kind === "tokens" || (axis.kind === "positions" && axis.length <= OVERVIEW);
  asks.hidden = same || (worded(queries) && worded(keys));
  if (asks.hidden) return;
  asks.append(make("h3", {}, "Queries"));
  const pickQuery = (query) => choose({ query, direction: "from" });
  if (picturesOf(queries).length) buildPictures(asks, queries, "queries", pickQuery);
  else buildAsking(asks, queries, pickQuery);
}

/** The pictures within an axis, buttons for what stands beside them, and how much of a picture is seen. */
function buildPictures(box, axis, side, pick) {
  const hover = (place) => choose({ cursor: place === null || (side === "keys" && state.direction === "to" && panel.same) ? null : side === "keys" ? { query: state.query, key: place } : { query: place, key: targetOf() } });
  const name = side === "keys" ? "The weights over the picture" : "What looks at the chosen key, over the picture";
  const grids = picturesOf(axis).map((region) => new PatchGrid(axis, region, { pick, hover, name }));
  panel.grids.push(...grids.map((grid) => ({ grid, side })));
  if (picturesOf(axis).some(({ image }) => image !== null && image !== undefined)) box.append(photoSwitch());
  box.append(...grids.map(({ element }) => element));
  const beside = axis.kind === "tokens" ? [] : axis.labels.map((_, i) => i).filter((i) => !isPatch(axis, i));
  if (beside.length && beside.length <= MOST_OTHERS) {
    const buttons = beside.map((i) => {
      const button = make("button", { type: "button", class: "ask", "data-position": i }, axis.labels[i], " ", make("span", { class: "rank-weight" }));
      button.addEventListener("click", () => pick(i));
      panel.others.push({ button, i, side });
      return button;
    });
    box.append(make("div", { class: "text", role: "group", "aria-label": "beside the picture" }, ...buttons));
  }
  if (side !== "keys") return;
  panel.multiples = smallMultiples(picturesOf(axis)[0]);
  if (panel.multiples) box.append(panel.multiples.element);
}

/** Weights, picture, or both. */
function photoSwitch() {
  const buttons = Object.entries(PHOTO).map(([value, name]) => make("button", { type: "button", value }, name));
  for (const button of buttons) button.addEventListener("click", () => choose({ photo: button.value }));
  panel.photo = buttons;
  return make("div", { class: "switch", role: "group", "aria-label": "Picture and weights" }, ...buttons);
}

/** For cross-attention with what is no text: the queries to choose from. */
function buildAsking(asks, queries, pick) {
  panel.asking = queries.labels.map((label, i) => {
    const chip = make("button", { type: "button", class: `ask${queries.isSpecial[i] ? " special" : ""}`, title: label }, make("bdi", {}, shortLabel(label, 28)));
    chip.addEventListener("click", () => pick(i));
    return chip;
  });
  asks.append(make("div", { class: "text", role: "group", "aria-label": "queries" }, ...panel.asking));
}

let panelHead = null;

function targetOf() {
  return targetKey(panelHead);
}

/** Fill the parts with the chosen row, and with the chosen column where queries lie in a picture. */
export function paintPanel(chosen, weights, places, scale) {
  panelHead = chosen;
  const { same, shift } = chosen.axes;
  const own = same ? state.query + shift : -1;
  const back = same && state.direction === "to";
  const column = panel.grids.some(({ side }) => side === "queries") || back ? shiftedColumn(chosen, back ? shift : 0) : null;
  for (const { grid, side } of panel.grids) {
    const values = side === "queries" || back ? column : weights;
    grid.paint(values, values === weights ? scale : placesOf(values, values.length).scale, side === "queries" ? state.query : own, values !== weights);
  }
  for (const { button, i, side } of panel.others) {
    const values = side === "queries" || back ? column : weights;
    button.lastChild.textContent = values[i] < 0 ? "" : values[i].toFixed(3);
    button.setAttribute("aria-pressed", String(side === "queries" ? i === state.query : i === own));
  }
  panel.photo?.forEach((button) => button.setAttribute("aria-pressed", String(button.value === state.photo)));
  panel.multiples?.paint();
  if (panel.strip) paintStrip(weights, places, own);
  panel.asking.forEach((chip, i) => chip.setAttribute("aria-pressed", String(i === state.query)));
}

/** What looks at the chosen key, by the positions of the keys where the queries are the last of them. */
function shiftedColumn(chosen, shift) {
  const column = chosen.column(targetKey(chosen));
  if (!shift) return column;
  const out = new Float32Array(column.length + shift).fill(-1);
  out.set(column, shift);
  return out;
}
