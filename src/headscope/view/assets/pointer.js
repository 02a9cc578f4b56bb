// Hands on the map: pointer, wheel and keyboard move a cursor over its cells and choose rows.

import { axesOf } from "./data.js";
import { make, weightText } from "./dom.js";
import { cellOf, insetPlace } from "./map.js";
import { ARROWS, choose, place, state } from "./state.js";
import { TURN } from "./ticks.js";

/** Listen on a map. `look()` gives what is shown now, `redraw()` draws it again; `pick` chooses a cell of it. */
export function listenOnMap(map, look, redraw, { tip = null, pick = null, moved = () => {} } = {}) {
  const { canvas, frame } = map;
  let drag = null;
  const changed = () => {
    redraw();
    moved();
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hover = (event) => {
    const shown = look();
    const [x, y] = point(event);
    const cell = shown && !inInset(frame, x, y) ? frame.cellAt(x, y) : null;
    choose({ cursor: cell ? { query: shown.rows[cell.r], key: shown.columns[cell.c] } : null });
    showTip(map, tip, shown, cell, event.pointerType);
  };
  canvas.addEventListener("pointerdown", (event) => {
    drag = { at: point(event), moved: false, inset: inInset(frame, ...point(event)) };
    if (frame.zoomed) canvas.setPointerCapture(event.pointerId);
    if (drag.inset) moveInset(frame, ...point(event), changed);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag || !frame.zoomed) return hover(event);
    const [x, y] = point(event);
    if (drag.inset) return moveInset(frame, x, y, changed);
    if (Math.hypot(x - drag.at[0], y - drag.at[1]) > 3) drag.moved = true;
    if (drag.moved) {
      frame.pan(x - drag.at[0], y - drag.at[1]);
      drag.at = [x, y];
      if (tip) tip.hidden = true;
      changed();
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const held = drag;
    drag = null;
    if (held?.moved || held?.inset || !look()) return;
    hover(event);
    (pick ?? chooseRow)(frame, look(), ...point(event), map.labelled);
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerleave", () => {
    if (tip) tip.hidden = true;
    if (!drag) choose({ cursor: null });
  });
  canvas.addEventListener("wheel", (event) => {
    // The wheel belongs to the page, until the map is in focus or already zoomed.
    if (!frame.zoomable || !(frame.zoomed || event.ctrlKey || document.activeElement === canvas)) return;
    event.preventDefault();
    frame.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...point(event));
    changed();
    hover(event);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => onMapKey(map, tip, event, look(), changed));
  canvas.addEventListener("blur", () => tip && (tip.hidden = true));
}

/** Zoom a map by a factor around the cursor or the chosen row; 0 shows all of it. */
export function zoomBy(map, factor, shown) {
  const { frame } = map;
  if (!factor) return frame.reset();
  if (!shown) return frame.zoom(factor); // What is still being computed has no heaviest key.
  const cell = cellOf(shown, state.cursor) ?? cellOf(shown, { query: state.query, key: heaviest(shown) });
  if (!cell) return frame.zoom(factor);
  const [x, y] = frame.cornerOf(cell.r, cell.c);
  frame.zoom(factor, x + frame.cellWidth / 2, y + frame.cellHeight / 2);
  frame.reveal(cell.r, cell.c);
}

/** The key that the chosen row puts most on. */
function heaviest(shown) {
  const r = shown.rows.indexOf(state.query);
  let best = 0;
  for (let c = 1; r >= 0 && c < shown.columns.length; c++) if (shown.at(r, c) > shown.at(r, best)) best = c;
  return shown.columns[best];
}

/** Choose the row of a cell or of a label; above the map, that of the same token. */
function chooseRow(frame, shown, x, y, { rows, columns }) {
  const r = x < frame.place.x ? nearestLabel(rows, frame.rowAt(y), frame.cellHeight) : frame.rowAt(y);
  if (r >= 0) return choose({ query: shown.rows[r] });
  const c = nearestLabel(columns, frame.columnAbove(x, y, TURN), frame.cellWidth);
  const { same, shift } = axesOf(...place());
  if (c >= 0 && same && shown.columns[c] >= shift) choose({ query: shown.columns[c] - shift });
  else if (c >= 0 && !same) choose({ key: shown.columns[c], direction: "to" });
}

/** A label covers several thin rows: the one whose label is under the pointer, or the place itself beside all labels. */
function nearestLabel(labelled, at, size) {
  if (at < 0) return at;
  const near = labelled.reduce((best, i) => (Math.abs(i - at) < Math.abs(best - at) ? i : best), labelled[0] ?? at);
  return Math.abs(near - at) * size <= LABEL / 2 ? near : at;
}

function inInset(frame, x, y) {
  if (!frame.zoomed) return false;
  const inset = insetPlace(frame);
  return x >= inset.x - 4 && x <= inset.x + inset.width + 4 && y >= inset.y - 4 && y <= inset.y + inset.height + 4;
}

/** Show the part of the head around a point of the small whole. */
function moveInset(frame, x, y, redraw) {
  const inset = insetPlace(frame);
  frame.view.c = ((x - inset.x) / inset.width) * frame.columns - frame.view.columns / 2;
  frame.view.r = ((y - inset.y) / inset.height) * frame.rows - frame.view.rows / 2;
  frame.keepInside();
  redraw();
}

function onMapKey(map, tip, event, shown, redraw) {
  const { frame } = map;
  if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = ARROWS[event.key];
  if (step) {
    const far = event.shiftKey ? 10 : 1;
    const from = cellOf(shown, state.cursor) ?? { r: Math.max(0, shown.rows.indexOf(state.query)) - step[0] * far, c: -step[1] * far };
    const cell = { r: clamp(from.r + step[0] * far, shown.rows.length), c: clamp(from.c + step[1] * far, shown.columns.length) };
    frame.reveal(cell.r, cell.c);
    choose({ cursor: { query: shown.rows[cell.r], key: shown.columns[cell.c] } });
    showTip(map, tip, shown, cell, "keyboard");
    redraw();
  } else if ((event.key === "Enter" || event.key === " ") && state.cursor) choose({ query: state.cursor.query });
  else if (ZOOMS[event.key] !== undefined) {
    if (frame.zoomable || frame.zoomed) zoomBy(map, ZOOMS[event.key], shown);
    redraw();
  }
  else if (event.key === "Escape") {
    choose({ cursor: null });
    if (tip) tip.hidden = true;
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

const LABEL = 14; // The height of a label, in pixels.
const ZOOMS = { "+": 1.6, "=": 1.6, "-": 1 / 1.6, 0: 0 };

function clamp(value, count) {
  return Math.min(Math.max(0, value), count - 1);
}

/** What stands in the tip and in the line under the title: the two tokens, and the weight between them. */
export function pairText(query, key) {
  const { queries, keys } = axesOf(...place());
  return [make("bdi", {}, queries.labels[query]), " → ", make("bdi", {}, keys.labels[key])];
}

/** The tip beside a cell. */
function showTip({ box, frame, canvas }, tip, shown, cell, how) {
  if (!tip) return;
  tip.hidden = !cell;
  if (!cell) return;
  const [query, key] = [shown.rows[cell.r], shown.columns[cell.c]];
  const numbers = make("span", { class: "tip-places" }, `query ${query}, key ${key}`);
  tip.replaceChildren(make("span", { class: "tip-pair" }, ...pairText(query, key)), make("strong", {}, weightText(shown.at(cell.r, cell.c))), numbers);
  const [x, y] = frame.cornerOf(cell.r, cell.c);
  const left = x + frame.cellWidth + 12;
  const over = left + tip.offsetWidth > box.clientWidth;
  tip.style.left = `${Math.max(0, over ? x - tip.offsetWidth - 12 : left)}px`;
  const above = how === "touch" ? tip.offsetHeight + 24 : 0;
  tip.style.top = `${Math.min(Math.max(0, y + frame.cellHeight / 2 - tip.offsetHeight / 2 - above), canvas.clientHeight - tip.offsetHeight)}px`;
}
