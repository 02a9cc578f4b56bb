// What is shown of a head: its weights without the special tokens, where those are hidden, and rows made to add up again.

import { topOf } from "./colour.js";
import { axesOf, headOf } from "./data.js";
import { weightText } from "./dom.js";
import { state } from "./state.js";
import { UNSEEN, rowInto, weightsInto } from "./softmax.js";

const ALL = new Map();

/** The positions of an axis that are shown. */
export function shownOf(axis) {
  const hide = state.special !== "shown" && axis.special.length < axis.length;
  const name = `${hide} ${axis.length} ${hide ? axis.special : ""}`;
  if (!ALL.has(name)) ALL.set(name, Int32Array.from({ length: axis.length }, (_, i) => i).filter((i) => !hide || !axis.isSpecial[i]));
  return ALL.get(name);
}

/** What to say of a weight in a row: special tokens that are hidden have none. */
export function saidOf(weight, axis, key) {
  return weight < 0 && axis.isSpecial[key] && state.special !== "shown" ? "hidden" : weightText(weight);
}

/** What one row is multiplied by so that the keys that are shown add up to 1. */
function rowFactor(weights, start, columns) {
  if (state.special !== "renormalised") return 1;
  let sum = 0;
  for (const key of columns) if (weights[start + key] > 0) sum += weights[start + key];
  return sum > 0 ? 1 / sum : 1;
}

/** The weights that are shown, as a matrix of their own. */
export class Shown {
  constructor(weights, rows, columns, keys) {
    this.rows = rows;
    this.columns = columns;
    this.values = new Float32Array(rows.length * columns.length);
    this.largest = 0;
    this.unseen = false;
    this.empty = new Uint8Array(rows.length);
    for (let r = 0, at = 0; r < rows.length; r++) {
      const start = rows[r] * keys;
      const factor = rowFactor(weights, start, columns);
      let any = false;
      for (let c = 0; c < columns.length; c++, at++) {
        const weight = weights[start + columns[c]];
        this.values[at] = weight < 0 ? UNSEEN : weight * factor;
        if (weight < 0) this.unseen = true;
        else any = true;
        if (this.values[at] > this.largest) this.largest = this.values[at];
      }
      if (!any) this.empty[r] = 1;
    }
    this.top = topOf(this.largest, columns.length);
  }

  /** The weight of one shown row and column. */
  at(row, column) {
    return this.values[row * this.columns.length + column];
  }
}

/** The head that is chosen, with all its weights; made in slices where it is large. */
export class Chosen {
  constructor() {
    this.name = "";
    this.weights = null;
    this.shown = null;
  }

  /** Yields while it computes; afterwards `shown` is what the map draws. */
  *load() {
    const { layer, head, item, special } = state;
    const name = `${layer} ${head} ${item}`;
    this.shown = null;
    this.head = headOf(layer, head, item);
    this.axes = axesOf(layer, item);
    if (this.name !== name) {
      this.weights = null;
      this.name = "";
      const weights = new Float32Array(this.head.queries * this.head.keys);
      yield* weightsInto(this.head, weights);
      this.weights = weights;
      this.name = name;
      this.spread = effectiveKeys(weights, this.head.queries, this.head.keys);
    }
    if (special === state.special) this.shown = new Shown(this.weights, shownOf(this.axes.queries), shownOf(this.axes.keys), this.head.keys);
  }

  /** One query's weights over all keys, hidden ones as UNSEEN. */
  row(query) {
    const keys = this.head.keys;
    const row = this.weights ? this.weights.slice(query * keys, (query + 1) * keys) : new Float32Array(keys);
    if (!this.weights) rowInto(this.head, query, row, 0);
    const columns = shownOf(this.axes.keys);
    const factor = rowFactor(row, 0, columns);
    const shown = new Float32Array(keys).fill(UNSEEN);
    for (const key of columns) shown[key] = row[key] < 0 ? UNSEEN : row[key] * factor;
    return shown;
  }
}

/** The mean over the queries of how many keys one looks at: exp(entropy). */
export function effectiveKeys(weights, queries, keys) {
  let total = 0;
  let count = 0;
  for (let query = 0; query < queries; query++) {
    let entropy = 0;
    let any = false;
    for (let at = query * keys; at < (query + 1) * keys; at++) {
      if (weights[at] >= 0) any = true;
      if (weights[at] > 0) entropy -= weights[at] * Math.log(weights[at]);
    }
    if (any) {
      total += Math.exp(entropy);
      count++;
    }
  }
  return count ? total / count : 0;
}

/** The largest weight of every block of cells: `down` by `along` blocks of the cells from (r0, c0) to before (r1, c1). */
export function pooled(values, columns, [r0, r1], [c0, c1], down, along) {
  const out = new Float32Array(down * along).fill(UNSEEN);
  const of = new Int32Array(c1 - c0);
  for (let c = c0; c < c1; c++) of[c - c0] = Math.min(along - 1, Math.floor(((c - c0) * along) / (c1 - c0)));
  for (let r = r0; r < r1; r++) {
    const to = Math.min(down - 1, Math.floor(((r - r0) * down) / (r1 - r0))) * along;
    for (let c = c0; c < c1; c++) {
      const weight = values[r * columns + c];
      if (weight > out[to + of[c - c0]] || Number.isNaN(weight)) out[to + of[c - c0]] = weight;
    }
  }
  return out;
}
