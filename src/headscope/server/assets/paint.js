// Tiles as pictures: codes to colours by a table, one for each top of a tile.

import { paint } from "./colour.js";
import { cssColour } from "./dom.js";
import { theme } from "./state.js";
import { MASKED, NOT_YET, valueOf } from "./wire.js";

const FINE = 4096; // Steps of the table: sixteen codes share one, a quarter of a colour's step at most.
const SHARE = 0.999; // The colours end at this share of the cells that are not masked.

/** The value below which `SHARE` of a tile's cells lie; found once. */
export function highOf(part) {
  if (!part.codes) return 0;
  if (part.high === undefined) {
    const counts = new Uint32Array(256);
    let all = 0;
    for (const code of part.codes) if (code < MASKED) all++, counts[code >> 8]++;
    let above = all * (1 - SHARE);
    let bin = 255;
    while (bin > 0 && (above -= counts[bin]) > 0) bin--;
    part.high = part.top * ((bin + 1) / 256) ** 2;
  }
  return part.high;
}

/** A canvas of a tile's cells; masked cells are clear. Kept until another look is asked for. */
export function pictureOf(tile, pool, scale) {
  const part = tile[pool];
  const look = `${scale.kind} ${scale.top} ${scale.floor} ${theme()}`;
  if (part.look !== look) Object.assign(part, { look, canvas: drawCodes(tile, part, scale) });
  return part.canvas;
}

function drawCodes({ rows, columns }, { codes, top }, scale) {
  const table = tableOf(top, scale);
  const quiet = notYet();
  return canvasOf(columns, rows, (pixels) => {
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code < MASKED) pixels[i] = table[code >> 4];
      else if (code === NOT_YET && (i % columns >> 2) + (Math.floor(i / columns) >> 2) & 1) pixels[i] = quiet;
    }
  });
}

/** The colour of every sixteenth code, as one number of four bytes. */
function tableOf(top, scale) {
  const values = Float32Array.from({ length: FINE }, (_, i) => valueOf(16 * i, top));
  const bytes = new Uint8ClampedArray(4 * FINE);
  paint(values, bytes, scale);
  return new Uint32Array(bytes.buffer);
}

function canvasOf(columns, rows, fill) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  fill(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
  return canvas;
}

function notYet() {
  return packed(channels(cssColour("--line")));
}

function channels(colour) {
  return colour.match(/[\d.]+/g).slice(0, 3).map(Number);
}

function packed([r, g, b]) {
  return new Uint32Array(new Uint8ClampedArray([r, g, b, 255]).buffer)[0];
}

/** The difference of two tiles of one place, the first less the second: more in the accent's colour, less in blue, both from the ground. */
export function differenceOf(one, other, pool, top) {
  const look = `difference ${pool} ${top} ${theme()}`;
  const kept = (one.differences ??= new Map());
  if (kept.get(other)?.look !== look) kept.set(other, { look, canvas: drawDifference(one, other, pool, top) });
  return kept.get(other).canvas;
}

function drawDifference(one, other, pool, top) {
  const [rows, columns] = [Math.min(one.rows, other.rows), Math.min(one.columns, other.columns)];
  const ends = differenceEnds();
  const table = ends.map((end) => Uint32Array.from({ length: 256 }, (_, i) => packed(mixed(ends.ground, end, i / 255))));
  const at = (tile, r, c) => (tile[pool].codes ? valueOf(tile[pool].codes[r * tile.columns + c], tile[pool].top) : -1);
  return canvasOf(columns, rows, (pixels) => {
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const [a, b] = [at(one, r, c), at(other, r, c)];
        if ((a < 0 && b < 0) || Number.isNaN(a) || Number.isNaN(b)) continue;
        const moved = Math.max(0, a) - Math.max(0, b);
        pixels[r * columns + c] = table[moved < 0 ? 1 : 0][Math.round(255 * Math.sqrt(Math.min(1, Math.abs(moved) / top)))];
      }
    }
  });
}

/** The colours of more and of less, and the ground between them. */
export function differenceEnds() {
  return Object.assign([cssColour("--more"), cssColour("--less")].map(channels), { ground: channels(cssColour("--ground")) });
}

function mixed(from, to, share) {
  return from.map((channel, i) => channel + (to[i] - channel) * share);
}
