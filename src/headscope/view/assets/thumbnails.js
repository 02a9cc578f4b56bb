// The small picture of every head: as it came with the page, or computed here where something else is to be shown.

import { axesOf, headOf, page, thumbnailOf } from "./data.js";
import { everyPlace } from "./arrange.js";
import { scaleFor, scaleKind, topOf } from "./scale.js";
import { pooled, rowFactor, shownOf } from "./shown.js";
import { Slices } from "./slices.js";
import { rowInto, UNSEEN } from "./softmax.js";
import { on, state } from "./state.js";

const CELLS = 44; // A small picture has at most so many cells along each side.
const MOST_WEIGHTS = 2 ** 20; // Of larger heads a picture uses every n-th query only.
let pictures = new Map();
const painting = new Slices();

/** The picture of a head: { values, along, down, scale }, or null while it is not there yet. */
export function thumbnail(layer, head) {
  const found = pictures.get(`${layer}.${head}`);
  if (!found) return null;
  const kind = scaleKind() === "order" ? "sqrt" : scaleKind();
  if (found.scale?.kind !== kind) {
    found.scale = scaleFor(found.values, axesOf(layer, state.item).keys.length, kind);
    if (kind === "linear" || kind === "sqrt") found.scale.top = found.top;
  }
  return found;
}

/** The picture of a head, computed at once where it is not there. */
export function thumbnailNow(layer, head) {
  if (!thumbnail(layer, head)) for (const _ of smallPicture(layer, head)) void _;
  return thumbnail(layer, head);
}

/** The weights of one head, pooled to a small picture, a row at a time. */
function* smallPicture(layer, head) {
  const source = headOf(layer, head, state.item);
  const { queries, keys } = axesOf(layer, state.item);
  const [rows, columns] = [shownOf(queries), shownOf(keys)];
  const step = Math.max(1, Math.floor((rows.length * columns.length) / MOST_WEIGHTS));
  const [down, along] = [Math.min(CELLS, rows.length), Math.min(CELLS, columns.length)];
  const values = new Float32Array(down * along).fill(UNSEEN);
  const row = new Float32Array(source.keys);
  const line = new Float32Array(columns.length);
  let largest = 0;
  for (let r = 0; r < rows.length; r += step) {
    rowInto(source, rows[r], row, 0);
    const factor = rowFactor(row, 0, columns);
    for (let c = 0; c < columns.length; c++) line[c] = row[columns[c]] < 0 ? UNSEEN : row[columns[c]] * factor;
    const small = pooled(line, line.length, [0, 1], [0, line.length], 1, along);
    const to = Math.min(down - 1, Math.floor((r * down) / rows.length)) * along;
    for (let c = 0; c < along; c++) if (small[c] > values[to + c]) values[to + c] = small[c];
    for (const weight of small) if (weight > largest) largest = weight;
    yield;
  }
  pictures.set(`${layer}.${head}`, { values, along, down, top: topOf(largest, columns.length) });
}

/** Call `then` for every head whose picture is ready, now and after each change of what is shown. */
export function onThumbnail(onlyOnDemand, then) {
  const start = () => {
    pictures = new Map();
    const asMade = state.special === "shown" && state.item === 0;
    if (asMade && page.thumbnails) for (const [l, h] of everyPlace()) pictures.set(`${l}.${h}`, thumbnailOf(l, h));
    document.documentElement.dataset.heads = "waiting";
    for (const place of everyPlace()) then(...place);
    const missing = onlyOnDemand ? [] : everyPlace().filter(([l, h]) => !pictures.has(`${l}.${h}`));
    missing.sort((a, b) => Math.abs(a[0] - state.layer) - Math.abs(b[0] - state.layer));
    painting.start([...missing.map((place) => painted(place, then)), done()]);
  };
  on("item special", start);
  start();
}

function* painted([layer, head], then) {
  yield* smallPicture(layer, head);
  then(layer, head);
}

function* done() {
  document.documentElement.dataset.heads = "ready";
}
