// Pictures and spectrograms that travel in the page, and which positions of an axis are patches of one.

import { page } from "./data.js";

const images = new Map();

/** The pictures within an axis: { at, rows, columns, cells, image, source }. */
export function picturesOf(axis) {
  return axis.pictures ?? [];
}

/** The place of a position in the grid of a picture, or null where it is no patch of it. */
export function patchOf({ at, rows, columns, cells }, position) {
  const i = position - at;
  if (!cells) return i >= 0 && i < rows * columns ? i : null;
  return cells[i] ?? null;
}

/** The position whose patch is at a place of the grid, or null where the axis does not have it. */
export function positionAt({ at, cells }, cell) {
  if (!cells) return at + cell;
  const i = cells.indexOf(cell);
  return i < 0 ? null : at + i;
}

/** The values of an axis where their patches are; -1, as for what may not be seen, for those that the axis does not have. */
export function onGrid({ at, rows, columns, cells }, values) {
  if (!cells) return values.subarray(at, at + rows * columns);
  const out = new Float32Array(rows * columns).fill(-1);
  cells.forEach((cell, i) => cell !== null && (out[cell] = values[at + i]));
  return out;
}

/** Which rows and columns a window of a picture has, "" for a whole picture: "rows 12–13, 0–4, columns 0–6". */
export function windowName(axis) {
  const [region] = picturesOf(axis);
  if (!region?.cells) return "";
  const places = region.cells.filter((cell) => cell !== null);
  const [rows, columns] = [(cell) => Math.floor(cell / region.columns), (cell) => cell % region.columns].map((of) => spans([...new Set(places.map(of))]));
  return places.length ? `rows ${rows}, columns ${columns}` : "beyond the picture";
}

/** Numbers in their order, those that follow each other in one span. */
function spans(numbers) {
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}

/** Whether a position of an axis is a patch of a picture within it. */
export function isPatch(axis, position) {
  return picturesOf(axis).some((region) => patchOf(region, position) !== null);
}

/** An image by its number, or null until it is decoded; `ready` is called then. */
export function imageOf(number, ready) {
  const source = page.images?.[number];
  if (source === undefined) return null;
  if (!images.has(number)) {
    const image = new Image();
    images.set(number, { image, waiting: [] });
    image.onload = () => {
      const { waiting } = images.get(number);
      images.set(number, { image, waiting: null });
      for (const then of waiting) then();
    };
    image.src = source;
  }
  const entry = images.get(number);
  if (entry.waiting === null) return entry.image;
  entry.waiting.push(ready);
  return null;
}
