// Hands on the map: pointer, wheel and keyboard move a cursor over its cells and choose rows.

import { axesOf } from "./data.js";
import { byId, make, weightText } from "./dom.js";
import { cursorCell, frame, insetPlace } from "./map.js";
import { ARROWS, choose, state } from "./state.js";
import { TURN } from "./ticks.js";

/** Listen on the map. `look()` gives what is shown now, `redraw()` draws it again. */
export function listenOnMap(look, redraw) {
  const map = byId("map");
  let drag = null;
  const point = (event) => {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hover = (event) => {
    const shown = look();
    const [x, y] = point(event);
    const cell = shown && !inInset(x, y) ? frame.cellAt(x, y) : null;
    choose({ cursor: cell ? { query: shown.rows[cell.r], key: shown.columns[cell.c] } : null });
    showTip(shown, cell, event.pointerType);
  };
  map.addEventListener("pointerdown", (event) => {
    drag = { at: point(event), moved: false, inset: inInset(...point(event)) };
    if (frame.zoomed) map.setPointerCapture(event.pointerId);
    if (drag.inset) moveInset(...point(event), redraw);
  });
  map.addEventListener("pointermove", (event) => {
    if (!drag || !frame.zoomed) return hover(event);
    const [x, y] = point(event);
    if (drag.inset) return moveInset(x, y, redraw);
    if (Math.hypot(x - drag.at[0], y - drag.at[1]) > 3) drag.moved = true;
    if (drag.moved) {
      frame.pan(x - drag.at[0], y - drag.at[1]);
      drag.at = [x, y];
      byId("tip").hidden = true;
      redraw();
    }
  });
  map.addEventListener("pointerup", (event) => {
    const held = drag;
    drag = null;
    if (held?.moved || held?.inset || !look()) return;
    hover(event);
    chooseRow(look(), ...point(event));
  });
  map.addEventListener("pointercancel", () => (drag = null));
  map.addEventListener("pointerleave", () => {
    byId("tip").hidden = true;
    if (!drag) choose({ cursor: null });
  });
  map.addEventListener("wheel", (event) => {
    if (!frame.zoomable) return;
    event.preventDefault();
    frame.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...point(event));
    redraw();
    hover(event);
  }, { passive: false });
  map.addEventListener("keydown", (event) => onMapKey(event, look(), redraw));
  map.addEventListener("blur", () => (byId("tip").hidden = true));
  for (const [id, factor] of [["zoom-in", 1.6], ["zoom-out", 1 / 1.6], ["zoom-all", 0]]) {
    byId(id).addEventListener("click", () => {
      if (factor) frame.zoom(factor);
      else frame.reset();
      redraw();
    });
  }
}

/** Choose the row of a cell or of a label; above the map, that of the same token. */
function chooseRow(shown, x, y) {
  const r = frame.rowAt(y);
  if (r >= 0) return choose({ query: shown.rows[r] });
  const c = frame.columnAbove(x, y, TURN);
  const { same, shift } = axesOf(state.layer, state.item);
  if (c >= 0 && same && shown.columns[c] >= shift) choose({ query: shown.columns[c] - shift });
}

function inInset(x, y) {
  if (!frame.zoomed) return false;
  const inset = insetPlace();
  return x >= inset.x - 4 && x <= inset.x + inset.width + 4 && y >= inset.y - 4 && y <= inset.y + inset.height + 4;
}

/** Show the part of the head around a point of the small whole. */
function moveInset(x, y, redraw) {
  const inset = insetPlace();
  frame.view.c = ((x - inset.x) / inset.width) * frame.columns - frame.view.columns / 2;
  frame.view.r = ((y - inset.y) / inset.height) * frame.rows - frame.view.rows / 2;
  frame.keepInside();
  redraw();
}

function onMapKey(event, shown, redraw) {
  if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = ARROWS[event.key];
  if (step) {
    const far = event.shiftKey ? 10 : 1;
    const from = cursorCell(shown) ?? { r: Math.max(0, shown.rows.indexOf(state.query)) - step[0] * far, c: -step[1] * far };
    const cell = { r: clamp(from.r + step[0] * far, shown.rows.length), c: clamp(from.c + step[1] * far, shown.columns.length) };
    frame.reveal(cell.r, cell.c);
    choose({ cursor: { query: shown.rows[cell.r], key: shown.columns[cell.c] } });
    showTip(shown, cell, "keyboard");
    redraw();
  } else if ((event.key === "Enter" || event.key === " ") && state.cursor) choose({ query: state.cursor.query });
  else if (event.key === "+" || event.key === "=") byId("zoom-in").click();
  else if (event.key === "-") byId("zoom-out").click();
  else if (event.key === "0") byId("zoom-all").click();
  else if (event.key === "Escape") {
    choose({ cursor: null });
    byId("tip").hidden = true;
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function clamp(value, count) {
  return Math.min(Math.max(0, value), count - 1);
}

/** What stands in the tip and in the line under the title: the two tokens, and the weight between them. */
export function pairText(query, key) {
  const { queries, keys } = axesOf(state.layer, state.item);
  return [make("bdi", {}, queries.labels[query]), " → ", make("bdi", {}, keys.labels[key])];
}

/** The tip beside a cell. */
function showTip(shown, cell, how) {
  const tip = byId("tip");
  tip.hidden = !cell;
  if (!cell) return;
  const [query, key] = [shown.rows[cell.r], shown.columns[cell.c]];
  const numbers = make("span", { class: "tip-places" }, `query ${query}, key ${key}`);
  tip.replaceChildren(make("span", { class: "tip-pair" }, ...pairText(query, key)), make("strong", {}, weightText(shown.at(cell.r, cell.c))), numbers);
  const box = byId("map-box");
  const [x, y] = frame.cornerOf(cell.r, cell.c);
  const left = x + frame.cellWidth + 12;
  const over = left + tip.offsetWidth > box.clientWidth;
  tip.style.left = `${Math.max(0, over ? x - tip.offsetWidth - 12 : left)}px`;
  const above = how === "touch" ? tip.offsetHeight + 24 : 0;
  tip.style.top = `${Math.min(Math.max(0, y + frame.cellHeight / 2 - tip.offsetHeight / 2 - above), box.clientHeight - tip.offsetHeight)}px`;
}
