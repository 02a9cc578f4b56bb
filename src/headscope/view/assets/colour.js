// From weights to colours: linear up to the largest weight shown, or four decades of logarithm.

import { bytesOf } from "./decode.js";
import { page } from "./data.js";
import { state, theme } from "./state.js";

const LOG_FLOOR = 1e-4; // The ticks of the legend say so.

const tables = { light: bytesOf(page.colours.light), dark: bytesOf(page.colours.dark) };
const NOT_A_NUMBER = [200, 60, 120];

/** The top of the linear scale: the largest weight, or four times what equal weights would be where that is more. */
export function topOf(largest, keys) {
  return Math.max(largest, Math.min(1, 4 / keys));
}

/** Where a weight stands between nothing (0) and the most that the scale shows (1). */
export function position(weight, largest) {
  if (!(weight > 0)) return 0;
  if (state.scale === "log") return Math.max(0, Math.min(1, 1 - Math.log10(weight) / Math.log10(LOG_FLOOR)));
  return largest > 0 ? Math.min(1, weight / largest) : 0;
}

/** Write the colours of weights as pixels; what may not be seen stays clear. */
export function paint(weights, pixels, largest) {
  const table = tables[theme()];
  for (let i = 0, at = 0; i < weights.length; i++, at += 4) {
    const weight = weights[i];
    if (weight < 0) {
      pixels[at + 3] = 0;
      continue;
    }
    let r, g, b;
    if (Number.isNaN(weight)) [r, g, b] = NOT_A_NUMBER;
    else {
      const place = 3 * Math.round(255 * position(weight, largest));
      [r, g, b] = [table[place], table[place + 1], table[place + 2]];
    }
    pixels[at] = r;
    pixels[at + 1] = g;
    pixels[at + 2] = b;
    pixels[at + 3] = 255;
  }
}

/** The colour at a place between 0 and 1, for CSS. */
export function colourAt(place) {
  const table = tables[theme()];
  const at = 3 * Math.round(255 * place);
  return `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
}

/** A small picture of weights, one pixel each. */
export function picture(weights, columns, rows, largest) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  paint(weights, image.data, largest);
  context.putImageData(image, 0, 0);
  return canvas;
}
