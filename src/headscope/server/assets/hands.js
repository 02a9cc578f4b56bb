// Hands on a map: pointer, wheel, two fingers and keyboard.

import { smallMap } from "./plane.js";
import { ARROWS, choose, state } from "./state.js";
import { fly, land } from "./viewport.js";

/** Listen on the plane of a pane. */
export function listenOnPlane(pane) {
  const { canvas, viewport } = pane;
  const fingers = new Map();
  let drag = null;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hover = (event) => choose({ cursor: inSmallMap(viewport, ...point(event)) ? null : viewport.pairAt(...point(event)) });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    land();
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, point(event));
    drag = { at: point(event), moved: fingers.size > 1, small: inSmallMap(viewport, ...point(event)) };
    if (drag.small) moveTo(viewport, ...point(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = point(event);
    if (fingers.size === 2 && fingers.has(event.pointerId)) return pinch(viewport, fingers, event.pointerId, now);
    if (!drag) return hover(event);
    if (drag.small) return moveTo(viewport, ...now);
    if (Math.hypot(now[0] - drag.at[0], now[1] - drag.at[1]) > 3) drag.moved = true;
    if (!drag.moved) return;
    viewport.pan(now[0] - drag.at[0], now[1] - drag.at[1]);
    drag.at = now;
    fingers.set(event.pointerId, now);
  });
  const up = (event) => {
    const held = drag;
    fingers.delete(event.pointerId);
    drag = fingers.size ? { at: [...fingers.values()][0], moved: true, small: false } : null;
    if (event.type === "pointercancel" || !held || held.moved || held.small) return;
    hover(event);
    pin(state.cursor);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => drag || choose({ cursor: null }));
  canvas.addEventListener("dblclick", (event) => {
    const to = { ...viewport.pairAt(...point(event)) };
    if (to.query !== undefined) fly(viewport, { q: to.query + 0.5, k: to.key + 0.5, w: viewport.w / 4 });
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    land();
    if (event.shiftKey) return viewport.pan(-event.deltaY, 0);
    viewport.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...point(event));
    hover(event);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => onKey(pane, event));
}

/** Pin a pair, or let the pinned one go when it is chosen again. */
export function pin(pair) {
  const again = pair && state.pin && pair.query === state.pin.query && pair.key === state.pin.key;
  choose({ pin: again ? null : pair });
}

function pinch(viewport, fingers, id, now) {
  const [other] = [...fingers].filter(([name]) => name !== id).map(([, at]) => at);
  const before = fingers.get(id);
  fingers.set(id, now);
  const far = (a) => Math.max(10, Math.hypot(a[0] - other[0], a[1] - other[1]));
  const middle = (a) => [(a[0] + other[0]) / 2, (a[1] + other[1]) / 2];
  const [from, to] = [middle(before), middle(now)];
  viewport.pan(to[0] - from[0], to[1] - from[1]);
  viewport.zoom(far(now) / far(before), ...to);
}

function inSmallMap(viewport, x, y) {
  if (viewport.isWhole || viewport.width < 260) return false;
  const small = smallMap(viewport);
  return x >= small.x - 4 && x <= small.x + small.width + 4 && y >= small.y - 4 && y <= small.y + small.height + 4;
}

function moveTo(viewport, x, y) {
  const small = smallMap(viewport);
  viewport.go(((y - small.y) / small.height) * viewport.queries, ((x - small.x) / small.width) * viewport.keys);
}

const ZOOMS = { "+": 2, "=": 2, "-": 0.5 };

function onKey({ viewport }, event) {
  if (event.ctrlKey || event.metaKey) return;
  const step = ARROWS[event.key];
  if (step && event.altKey) viewport.pan(-step[1] * 120, -step[0] * 120);
  else if (step) {
    // One cell of those that are seen, or ten.
    const far = 2 ** viewport.z * (event.shiftKey ? 10 : 1);
    const from = state.cursor ?? state.pin ?? { query: Math.floor(viewport.q), key: Math.floor(viewport.k) };
    const to = { query: clamp(from.query + step[0] * far, viewport.queries), key: clamp(from.key + step[1] * far, viewport.keys) };
    viewport.reveal(to);
    choose({ cursor: to });
  } else if (event.key === "Enter" || event.key === " ") pin(state.cursor);
  else if (ZOOMS[event.key]) zoomAt(viewport, ZOOMS[event.key]);
  else if (event.key === "0") viewport.go(viewport.q, viewport.k, viewport.whole);
  else if (event.key === "Escape") choose({ cursor: null, pin: null, marks: [] });
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** Zoom around the pair that is looked at, where it is seen, or around the middle. */
export function zoomAt(viewport, factor) {
  const pair = state.cursor ?? state.pin;
  const at = pair && [viewport.xOf(pair.key + 0.5), viewport.yOf(pair.query + 0.5)];
  const seen = at && at[0] >= 0 && at[1] >= 0 && at[0] <= viewport.width && at[1] <= viewport.height;
  viewport.zoom(factor, ...(seen ? at : []));
}

function clamp(value, count) {
  return Math.min(Math.max(0, value), count - 1);
}
