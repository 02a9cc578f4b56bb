// The plane: the cells of a head as tiles, with the nearest coarser or finer ones where a tile has not come yet.

import { cssColour, sharpen } from "./dom.js";
import { differenceOf, highOf, pictureOf } from "./paint.js";
import { state } from "./state.js";
import { tilesIn } from "./tilestore.js";
import { valueOf } from "./wire.js";

const SIDE = 256;
const MAP = 112; // Pixels of the small map.

/** The top of the colours: what 99.9 % of the seen cells of one size are below, in steps so that it does not flicker. */
export function topOf(stores, viewport, pool) {
  let high = 0;
  for (const store of stores) for (const place of tilesIn(viewport, viewport.z)) high = Math.max(high, highOf((nearest(store, place) ?? {}).tile?.[pool] ?? {}));
  return high > 0 ? Math.min(1, 2 ** (Math.ceil(2 * Math.log2(high)) / 2)) : 0;
}

/** A scale for the cells: linear and root up to a top, logarithmic from a tenth of an equal weight to 1. */
export function scaleTo(top, keys) {
  const kind = state.scale;
  return kind === "log" ? { kind, floor: 1 / (10 * Math.max(10, keys)), top: 1, largest: 1 } : { kind, floor: 0, top: top || 1, largest: top || 1 };
}

/** The tile of a place, or the part of a coarser one: { tile, z, x, y }, or null. */
function nearest(store, [z, x, y]) {
  for (let up = z; up <= store.info.top; up++) {
    const at = [up, x >> (up - z), y >> (up - z)];
    const tile = store.get(...at);
    if (tile && tile.status !== "not yet") return { tile, z: at[0], x: at[1], y: at[2] };
  }
  return null;
}

/** Draw a head, or its difference from a second one, and return what of it is not exact: { missing, estimated, error }. */
export function drawPlane(canvas, viewport, [store, other], scale) {
  const { width, height } = viewport;
  const context = sharpen(canvas, width, height);
  const [x0, y0, x1, y1] = [viewport.xOf(0), viewport.yOf(0), viewport.xOf(viewport.keys), viewport.yOf(viewport.queries)];
  context.save();
  context.beginPath();
  context.rect(x0, y0, x1 - x0, y1 - y0);
  context.clip();
  context.fillStyle = cssColour("--ground");
  context.fillRect(0, 0, width, height);
  hatch(context, width, height);
  context.imageSmoothingEnabled = false;
  const found = { missing: 0, estimated: 0, error: 0 };
  for (const place of tilesIn(viewport, viewport.z)) {
    if (other) drawMoved(context, viewport, store, other, place, scale, found);
    else drawTile(context, viewport, store, place, scale, found);
  }
  if (viewport.w < 1 / 12) gaps(context, viewport);
  context.restore();
  context.strokeStyle = cssColour("--line");
  context.strokeRect(x0 - 0.5, y0 - 0.5, x1 - x0 + 1, y1 - y0 + 1);
  return found;
}

function drawTile(context, viewport, store, place, scale, found) {
  if (!store.isVisible(...place)) return;
  const near = nearest(store, place);
  if (!near) {
    found.missing++;
    return blank(context, viewport, place);
  }
  const { tile } = near;
  if (near.z !== place[0] && !store.get(...place)) found.missing++;
  if (tile.status === "estimate") {
    found.estimated++;
    found.error = Math.max(found.error, tile.error);
  }
  if (tile[state.pool].codes) lay(context, viewport, pictureOf(tile, state.pool, scale), near, place, tile);
}

function drawMoved(context, viewport, store, other, place, scale, found) {
  if (!store.isVisible(...place) && !other.isVisible(...place)) return;
  for (let up = place[0]; up <= Math.min(store.info.top, other.info.top); up++) {
    const at = [up, place[1] >> (up - place[0]), place[2] >> (up - place[0])];
    const [one, two] = [tileOr(store, at), tileOr(other, at)];
    if (!one || !two) continue;
    if (up !== place[0]) found.missing++;
    for (const tile of [one, two]) if (tile.status === "estimate") Object.assign(found, { estimated: found.estimated + 1, error: Math.max(found.error, tile.error) });
    return lay(context, viewport, differenceOf(one, two, state.pool, scale.top), { z: up, x: at[1], y: at[2] }, place, one);
  }
  found.missing++;
  blank(context, viewport, place);
}

/** A tile, or an empty one where the mask leaves nothing. */
function tileOr(store, place) {
  if (store.isVisible(...place)) {
    const tile = store.get(...place);
    return tile && tile.status !== "not yet" ? tile : null;
  }
  const side = SIDE * 2 ** place[0];
  const cells = (count, at) => Math.max(0, Math.min(SIDE, Math.ceil((count - at * side) / 2 ** place[0])));
  const [rows, columns] = [cells(store.info.queries, place[2]), cells(store.info.keys, place[1])];
  const none = { top: 0, codes: null };
  return rows && columns ? { status: "empty", rows, columns, exactRows: rows, error: 0, mean: none, max: none } : null;
}

/** Lay the part of a picture that belongs to a place where it belongs. */
function lay(context, viewport, picture, near, [z, x, y], { rows, columns }) {
  const cell = 2 ** near.z;
  const [q0, k0] = [near.y * SIDE * cell, near.x * SIDE * cell];
  const side = SIDE * 2 ** z;
  const [from, to] = [[y * side, x * side], [(y + 1) * side, (x + 1) * side]];
  const part = (position, origin, most) => Math.min(most, Math.max(0, (position - origin) / cell));
  const [r0, r1, c0, c1] = [part(from[0], q0, rows), part(to[0], q0, rows), part(from[1], k0, columns), part(to[1], k0, columns)];
  if (r1 <= r0 || c1 <= c0) return;
  const [left, top] = [viewport.xOf(k0 + c0 * cell), viewport.yOf(q0 + r0 * cell)];
  const [right, bottom] = [viewport.xOf(k0 + c1 * cell), viewport.yOf(q0 + r1 * cell)];
  // Whole device pixels, so that neighbours leave no seam.
  const ratio = window.devicePixelRatio || 1;
  const snap = (value) => Math.round(value * ratio) / ratio;
  context.drawImage(picture, c0, r0, c1 - c0, r1 - r0, snap(left), snap(top), snap(right) - snap(left), snap(bottom) - snap(top));
}

/** A place whose tile has not come: crossed, unlike what the mask forbids. */
function blank(context, viewport, [z, x, y]) {
  const side = SIDE * 2 ** z;
  const [left, top] = [viewport.xOf(x * side), viewport.yOf(y * side)];
  const [right, bottom] = [viewport.xOf((x + 1) * side), viewport.yOf((y + 1) * side)];
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  context.fillStyle = cssColour("--raised");
  context.fillRect(left, top, right - left, bottom - top);
  for (const lean of [1, -1]) hatch(context, viewport.width, viewport.height, lean, 12);
  context.restore();
}

/** What may not be seen: a quiet hatching. */
function hatch(context, width, height, lean = 1, apart = 6) {
  context.strokeStyle = cssColour("--hatch");
  context.lineWidth = 1;
  context.beginPath();
  for (let at = -height; at < width; at += apart) {
    context.moveTo(at, lean > 0 ? height : 0);
    context.lineTo(at + height, lean > 0 ? 0 : height);
  }
  context.stroke();
}

function gaps(context, viewport) {
  const { width, height, w } = viewport;
  context.fillStyle = cssColour("--ground");
  for (let k = Math.ceil(viewport.left); viewport.xOf(k) < width; k++) context.fillRect(viewport.xOf(k) - 0.5, 0, 1, height);
  for (let q = Math.ceil(viewport.top); q < viewport.top + height * w; q++) context.fillRect(0, viewport.yOf(q) - 0.5, width, 1);
}

/** The cell under a pair, from the tiles that are here: { z, mean, max, exact }, or null. */
export function cellUnder(store, viewport, { query, key }) {
  const side = SIDE * 2 ** viewport.z;
  const near = nearest(store, [viewport.z, Math.floor(key / side), Math.floor(query / side)]);
  if (!near) return null;
  const [r, c] = [(query >> near.z) - near.y * SIDE, (key >> near.z) - near.x * SIDE];
  const of = ({ top, codes }) => (codes ? valueOf(codes[r * near.tile.columns + c], top) : -1);
  return { z: near.z, mean: of(near.tile.mean), max: of(near.tile.max), exact: r < near.tile.exactRows || near.tile.status === "exact" };
}

/** Marks over the cells: the pinned pair, the pair under the pointer, what a search found. */
export function drawMarks(canvas, viewport) {
  const { width, height } = viewport;
  const context = sharpen(canvas, width, height);
  context.save();
  context.beginPath();
  context.rect(viewport.xOf(0), viewport.yOf(0), viewport.keys / viewport.w, viewport.queries / viewport.w);
  context.clip();
  context.fillStyle = cssColour("--accent");
  for (const [start, stop] of state.marks) {
    context.globalAlpha = 0.35;
    const wide = Math.max(1.5, (stop - start) / viewport.w);
    context.fillRect(viewport.xOf(start), 0, wide, height);
    context.fillRect(0, viewport.yOf(start), width, wide);
  }
  context.globalAlpha = 1;
  if (state.pin) cross(context, viewport, state.pin, cssColour("--accent"), 0.9);
  if (state.cursor) cross(context, viewport, state.cursor, cssColour("--ink"), 0.35);
  context.restore();
}

function cross(context, viewport, { query, key }, colour, alpha) {
  const one = 2 ** viewport.z;
  const [x, y] = [viewport.xOf(Math.floor(key / one) * one), viewport.yOf(Math.floor(query / one) * one)];
  const size = Math.max(2, one / viewport.w);
  context.strokeStyle = colour;
  context.globalAlpha = alpha;
  context.lineWidth = 1;
  context.strokeRect(-2, y - 0.5, viewport.width + 4, size + 1);
  context.strokeRect(x - 0.5, -2, size + 1, viewport.height + 4);
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.strokeRect(x - 1, y - 1, size + 2, size + 2);
}

/** The small map: where it lies on the plane. */
export function smallMap(viewport) {
  const scale = MAP / Math.max(viewport.queries, viewport.keys);
  const [width, height] = [Math.max(24, viewport.keys * scale), Math.max(24, viewport.queries * scale)];
  return { x: viewport.width - width - 10, y: 10, width, height };
}

/** Draw the whole head small, with a frame around what is seen of it. */
export function drawSmallMap(canvas, viewport, store, scaleOf) {
  if (viewport.isWhole || viewport.width < 260) return;
  const context = canvas.getContext("2d");
  const { x, y, width, height } = smallMap(viewport);
  context.fillStyle = cssColour("--ground");
  context.fillRect(x - 4, y - 4, width + 8, height + 8);
  const tile = store.get(store.info.top, 0, 0);
  context.imageSmoothingEnabled = true;
  if (tile?.[state.pool].codes) context.drawImage(pictureOf(tile, state.pool, scaleOf(tile)), x, y, width, height);
  context.strokeStyle = cssColour("--line");
  context.lineWidth = 1;
  context.strokeRect(x - 4.5, y - 4.5, width + 9, height + 9);
  context.strokeStyle = cssColour("--accent");
  context.lineWidth = 2;
  const [left, top] = [(viewport.left / viewport.keys) * width, (viewport.top / viewport.queries) * height];
  const [w, h] = [((viewport.width * viewport.w) / viewport.keys) * width, ((viewport.height * viewport.w) / viewport.queries) * height];
  context.strokeRect(x + left - Math.max(0, 5 - w) / 2, y + top - Math.max(0, 5 - h) / 2, Math.max(5, w), Math.max(5, h));
}
