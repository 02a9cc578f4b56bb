// Labels along the sides of the map: as many as fit, the rest left out, long ones cut.

import { cssColour, shortLabel } from "./dom.js";

export const TURN = (-52 * Math.PI) / 180; // How labels of columns lean.
const LONGEST = 26; // letters
const LONGEST_NUMBERED = 11;
const SPACING = 12; // pixels between two rows of labels
const LEANING = 13.5; // between two that lean
const AIRY = 1.35; // Where most labels are left out, those that stay have more room.

/** Label every how many-th position, when one takes `size` pixels: 1, 2, 5, 10, 20, 50, … */
export function everyNth(size, leaning = false) {
  const least = leaning ? LEANING : SPACING;
  if (size >= least) return 1;
  for (let step = 1; ; step *= 10) for (const factor of [1, 2, 5]) if (step * factor > 1 && step * factor * size >= AIRY * least) return step * factor;
}

/** The text of a label on the map, and its number where most are left out. */
export function tickText(axis, position, step) {
  const numbered = step > 2 && axis.kind === "tokens";
  return [shortLabel(axis.labels[position], numbered ? LONGEST_NUMBERED : LONGEST), numbered ? String(position) : ""];
}

/** The text, cut so that it is no longer than so many pixels. */
function fitted(context, text, longest) {
  for (let letters = [...text].length; letters > 1; letters--) {
    const cut = shortLabel(text, letters);
    if (context.measureText(cut).width <= longest) return cut;
  }
  return text;
}

/** How far leaning labels reach beyond the right end of columns that are `size` pixels wide. */
export function overhang(context, axis, positions, step, size, longest) {
  let most = 0;
  for (let back = 0; back < Math.min(positions.length, Math.ceil(longest / size)); back++) {
    const text = tickText(axis, positions[positions.length - 1 - back], step).join(" ");
    most = Math.max(most, Math.min(longest, context.measureText(text).width) * Math.cos(TURN) - (back + 0.5) * size);
  }
  return Math.ceil(most) + 8;
}

/** The widest label in pixels, among those that may be shown. */
export function widestLabel(context, axis, positions, step) {
  const known = (axis.widest ??= new Map());
  const name = `${step} ${positions.length} ${positions[0]} ${context.font}`;
  if (known.has(name)) return known.get(name);
  let widest = 0;
  for (let i = 0; i < positions.length; i += Math.max(1, Math.floor(positions.length / 600))) {
    widest = Math.max(widest, context.measureText(tickText(axis, positions[i], step).join(" ")).width);
  }
  known.set(name, Math.ceil(widest));
  return Math.ceil(widest);
}

/**
 * The positions to label between two ends: every n-th, and those that are wanted, the first of them before the others.
 * Whatever is closer than labels need gives way: a regular one to a wanted one, a wanted one to an earlier wanted one.
 */
export function ticksBetween(positions, first, last, size, wanted, leaning = false) {
  const step = everyNth(size, leaning);
  const room = step === 1 ? 0 : AIRY * (leaning ? LEANING : SPACING);
  const inside = (i) => i >= Math.ceil(first) && i < last;
  const close = (i, others) => others.some((other) => other !== i && Math.abs(other - i) * size < room);
  const kept = wanted.filter(inside).reduce((found, i) => (close(i, found) ? found : [...found, i]), []);
  const ticks = [];
  for (let i = Math.ceil(first); i < last; i++) {
    const regular = step === 1 || positions[i] % step === 0;
    if (kept.includes(i) || (regular && !close(i, kept))) ticks.push(i);
  }
  return { ticks, step };
}

/** Draw a label whose right end is at a point, its number before it. */
export function drawRow(context, [text, number], x, y, longest) {
  context.textAlign = "right";
  context.textBaseline = "middle";
  const before = number ? context.measureText(` ${number}`).width : 0;
  const cut = fitted(context, text, longest - before);
  context.fillText(cut, x, y);
  context.fillStyle = cssColour("--faint");
  context.fillText(number, x - context.measureText(`${cut} `).width, y);
}

/** Draw a leaning label whose left end is at a point, its number after it. */
export function drawColumn(context, [text, number], x, y, longest) {
  context.save();
  context.translate(x, y);
  context.rotate(TURN);
  context.textAlign = "left";
  context.textBaseline = "middle";
  const cut = fitted(context, text, longest - (number ? context.measureText(` ${number}`).width : 0));
  context.fillText(cut, 0, 0);
  context.fillStyle = cssColour("--faint");
  context.fillText(number, context.measureText(`${cut} `).width, 0);
  context.restore();
}
