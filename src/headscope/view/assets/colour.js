// From places on a scale to colours.

import { page } from "./data.js";
import { bytesOf } from "./decode.js";
import { position } from "./scale.js";
import { theme } from "./state.js";

const tables = { light: bytesOf(page.colours.light), dark: bytesOf(page.colours.dark) };
const NOT_A_NUMBER = [200, 60, 120];
const STEPS = 4096; // Places between which colours are looked up.

/** Write the colours of weights as pixels; what may not be seen stays clear. */
export function paint(weights, pixels, scale) {
  const table = tables[theme()];
  // One look-up instead of a root or a logarithm for every weight; only where that is exact to a colour's step.
  const direct = scale.kind === "log" || weights.length < STEPS;
  const steps = direct ? null : Uint16Array.from({ length: STEPS + 1 }, (_, i) => 3 * Math.round(255 * position((i / STEPS) ** 2 * scale.top, scale)));
  for (let i = 0, at = 0; i < weights.length; i++, at += 4) {
    const weight = weights[i];
    if (weight < 0) {
      pixels[at + 3] = 0;
      continue;
    }
    let r, g, b;
    if (Number.isNaN(weight)) [r, g, b] = NOT_A_NUMBER;
    else {
      const place = direct ? 3 * Math.round(255 * position(weight, scale)) : steps[weight >= scale.top ? STEPS : Math.round(STEPS * Math.sqrt(weight / scale.top))];
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
  const [r, g, b] = channelsAt(place);
  return `rgb(${r}, ${g}, ${b})`;
}

function channelsAt(place) {
  const at = 3 * Math.round(255 * Math.min(1, Math.max(0, place)));
  return tables[theme()].slice(at, at + 3);
}

/** The ink that is read best on the colour at a place: black or white. */
export function inkOn(place) {
  const [r, g, b] = [...channelsAt(place)].map((channel) => (channel / 255 <= 0.04 ? channel / 255 / 12.92 : ((channel / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#14161c" : "#ffffff";
}

/** A small picture of weights, one pixel each. */
export function picture(weights, columns, rows, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  paint(weights, image.data, scale);
  context.putImageData(image, 0, 0);
  return canvas;
}
