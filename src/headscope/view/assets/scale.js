// From weights to places between nothing (0) and the most that is shown (1): linear, square root, logarithm, or order.

import { axesOf } from "./data.js";
import { place, state } from "./state.js";

const LONG = 64; // Keys from which the square root is the scale unless another was chosen.
const SHARE = 0.999; // Of the weights of a long text so many are below the top of the square root.
const BINS = 4096;
const COUNTED_WEIGHTS = 2 ** 18;

/** The kind of scale that is used: the chosen one, or the one that suits the length. */
export function scaleKind() {
  return state.scale ?? (axesOf(...place()).keys.length > LONG ? "sqrt" : "linear");
}

/** The top of the linear scale: the largest weight, or four times what equal weights would be where that is more. */
export function topOf(largest, keys) {
  return Math.max(largest, Math.min(1, 4 / keys));
}

/** The scale for some weights: its kind, where it begins and ends, and the largest weight. */
export function scaleFor(values, keys, kind = scaleKind()) {
  let largest = 0;
  for (let i = 0; i < values.length; i++) if (values[i] > largest) largest = values[i];
  const scale = { kind, largest, floor: 0, top: topOf(largest, keys) };
  if (kind === "sqrt" && keys > LONG) scale.top = Math.min(largest || 1, Math.max(quantile(values, largest, keys), 1 / keys));
  if (kind === "log") Object.assign(scale, { floor: 1 / (10 * Math.max(10, keys)), top: 1 });
  if (kind === "order") Object.assign(scale, { top: 1 });
  return scale;
}

/** The weight below which `SHARE` of those lie that may be seen; in steps of a 4096th of the root of the largest. */
function quantile(values, largest, keys) {
  if (!(largest > 0)) return 0;
  const counts = new Uint32Array(BINS + 1);
  let all = 0;
  const step = stepThrough(values.length, keys);
  for (let i = 0; i < values.length; i += step) {
    if (!(values[i] >= 0)) continue;
    counts[Math.floor(BINS * Math.sqrt(values[i] / largest))]++;
    all++;
  }
  let above = all * (1 - SHARE);
  let bin = BINS;
  while (bin > 0 && (above -= counts[bin]) > 0) bin--;
  return largest * ((bin + 1) / BINS) ** 2;
}

/** Where a weight stands on a scale. For the order it is the place itself: see `orderOf`. */
export function position(weight, scale) {
  if (!(weight > 0)) return 0;
  if (scale.kind === "log") return Math.max(0, Math.min(1, 1 - Math.log10(weight) / Math.log10(scale.floor)));
  const share = scale.top > 0 ? Math.min(1, weight / scale.top) : 0;
  return scale.kind === "sqrt" ? Math.sqrt(share) : share;
}

/** Of very many weights every so many are counted: a step that meets each diagonal and each column as often as the others. */
function stepThrough(count, keys) {
  const shares = (a, b) => (b ? shares(b, a % b) : a);
  let step = Math.max(1, Math.ceil(count / COUNTED_WEIGHTS));
  while ([keys - 1, keys, keys + 1].some((other) => shares(step, other) > 1)) step++;
  return step;
}

/** Every weight's place in the order of its row, cubed so that the top tenth stands out: 1 for the largest of a row. */
export function orderOf(values, rows, columns) {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * columns, (r + 1) * columns);
    const sorted = Float32Array.from(row).sort();
    const unseen = firstAbove(sorted, -0.5);
    const count = Math.max(1, columns - unseen);
    for (let c = 0; c < columns; c++) out[r * columns + c] = row[c] < 0 ? row[c] : ((firstAbove(sorted, row[c]) - unseen) / count) ** 3;
  }
  return out;
}

/** How many of sorted values are not above a value. */
function firstAbove(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The places of one row of weights, for bars and coloured words: { places, scale }; a row has a top of its own. */
export function placesOf(row, keys) {
  const kind = scaleKind();
  const scale = scaleFor(row, keys, kind === "sqrt" ? "sqrt" : kind);
  if (kind === "sqrt") scale.top = topOf(scale.largest, keys);
  const source = kind === "order" ? orderOf(row, 1, row.length) : row;
  return { scale, places: Float32Array.from(source, (weight) => (weight < 0 ? -1 : position(weight, scale))) };
}
