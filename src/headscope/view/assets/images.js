// Pictures and spectrograms that travel in the page, and which positions of an axis are patches of one.

import { page } from "./data.js";

const images = new Map();

/** The pictures within an axis: { at, rows, columns, image, source }. */
export function picturesOf(axis) {
  return axis.pictures ?? [];
}

/** Whether a position of an axis is a patch of a picture within it. */
export function isPatch(axis, position) {
  return picturesOf(axis).some(({ at, rows, columns }) => position >= at && position < at + rows * columns);
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
