// One head in two recordings: its weights in both, and what differs.

import { axesOf, page } from "./data.js";
import { scaleFor, scaleKind } from "./scale.js";
import { Shown, shownOf, weightsOf } from "./shown.js";
import { state, theme } from "./state.js";

const MORE = { light: [203, 66, 24], dark: [255, 180, 84] };
const LESS = { light: [34, 114, 185], dark: [90, 167, 232] };
const TOPS = [0.1, 0.25, 0.5, 1]; // Where the scale of the differences may end: a few fixed ends, so that heads compare.

/** The weights of a head on one side, on the scale that both sides share. */
export class Side extends Shown {
  share(scale) {
    this.shared = scale;
  }

  get scale() {
    return this.shared;
  }
}

/** The second side minus the first: one colour for more, one for less, the ground for the same. */
export class Difference {
  constructor(first, second) {
    Object.assign(this, { rows: first.rows, columns: first.columns, unseen: first.unseen, empty: first.empty });
    this.values = second.values.map((weight, i) => (weight < 0 || first.values[i] < 0 ? NaN : weight - first.values[i]));
    const widest = this.values.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0);
    this.scale = { kind: "difference", largest: widest, top: TOPS.find((top) => widest <= top) ?? 1 };
  }

  at(row, column) {
    return this.values[row * this.columns.length + column];
  }

  /** The difference of most size in every block of cells. */
  pictureOf([r0, r1], [c0, c1], down, along) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [along, down];
    const most = new Float32Array(down * along).fill(NaN);
    for (let r = r0; r < r1; r++) {
      for (let c = c0; c < c1; c++) {
        const to = Math.floor(((r - r0) * down) / (r1 - r0)) * along + Math.floor(((c - c0) * along) / (c1 - c0));
        const value = this.at(r, c);
        if (!(Math.abs(value) <= Math.abs(most[to]))) most[to] = Number.isNaN(value) ? most[to] : value;
      }
    }
    const image = canvas.getContext("2d").createImageData(along, down);
    most.forEach((value, i) => {
      if (!Number.isNaN(value)) image.data.set(differenceColour(value, this.scale.top), 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}

/** The colour of a difference: red, green, blue and how strong. */
export function differenceColour(value, top) {
  return [...(value > 0 ? MORE : LESS)[theme()], Math.round(255 * Math.sqrt(Math.min(1, Math.abs(value) / top)))];
}

/** The chosen head of the chosen input on both sides: { axes, sides, difference, order }. */
export function bothSides() {
  const input = page.compare.inputs[state.input];
  const axes = axesOf(input.first + state.layer, input.item);
  const sides = [input.first, input.second].map((start) => {
    const made = weightsOf(start + state.layer, state.head, input.item, "weights");
    let step = made.next();
    while (!step.done) step = made.next();
    return new Side(step.value.weights, shownOf(axes.queries), shownOf(axes.keys), axes.keys.length);
  });
  const second = axesOf(input.second + state.layer, input.item);
  const difference = new Difference(...sides);
  rescale(sides);
  const order = largestDifferences(difference.values, 10);
  return { axes, second, sides, difference, order };
}

/** One scale for both sides, of the kind that is chosen. */
export function rescale(sides) {
  const kind = scaleKind();
  const scales = sides.map((side) => scaleFor(side.values, side.columns.length, kind));
  const shared = { ...scales[0], top: Math.max(...scales.map(({ top }) => top)), largest: Math.max(...scales.map(({ largest }) => largest)) };
  for (const side of sides) side.share(shared);
}

/** The places of the differences of most size. */
function largestDifferences(values, count) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]);
    if (!(size > 0) || (found.length === count && size <= Math.abs(values[found[count - 1]]))) continue;
    let at = found.length;
    while (at > 0 && Math.abs(values[found[at - 1]]) < size) at--;
    found.splice(at, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}
