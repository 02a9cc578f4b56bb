// What is shown of a head: its weights without the special tokens, where those are hidden, and rows made to add up again.

import { picture } from "./colour.js";
import { axesOf, headOf, lengthsOf } from "./data.js";
import { weightText } from "./dom.js";
import { orderOf, scaleFor, scaleKind } from "./scale.js";
import { chosenHeads, state } from "./state.js";
import { UNSEEN, weightsInto } from "./softmax.js";

const ALL = new Map();
const COUNTED = 0.1; // The weight from which a head counts among "how many heads".

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
export function rowFactor(weights, start, columns) {
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
    const all = columns.length === keys;
    const asTheyAre = all && rows.length * keys === weights.length && state.special !== "renormalised";
    this.values = asTheyAre ? weights : new Float32Array(rows.length * columns.length);
    this.unseen = false;
    this.empty = new Uint8Array(rows.length);
    for (let r = 0, at = 0; r < rows.length; r++) {
      const start = rows[r] * keys;
      const factor = rowFactor(weights, start, columns);
      let any = false;
      for (let c = 0; c < columns.length; c++, at++) {
        const weight = weights[start + (all ? c : columns[c])];
        if (!asTheyAre) this.values[at] = weight < 0 ? UNSEEN : weight * factor;
        if (weight < 0) this.unseen = true;
        else any = true;
      }
      if (!any) this.empty[r] = 1;
    }
  }

  /** The scale of the moment for these weights. */
  get scale() {
    const kind = scaleKind();
    if (this.found?.kind !== kind) this.found = scaleFor(this.values, this.columns.length, kind);
    return this.found;
  }

  /** What is drawn: the weights, or their order within each row. */
  get drawn() {
    if (this.scale.kind !== "order") return this.values;
    this.order ??= orderOf(this.values, this.rows.length, this.columns.length);
    return this.order;
  }

  /** A part of what is drawn as a picture: `down` by `along` blocks of the cells from (r0, c0) to before (r1, c1). */
  pictureOf(rows, columns, down, along) {
    return picture(pooled(this.drawn, this.columns.length, rows, columns, down, along), along, down, this.scale);
  }

  /** The weight of one shown row and column. */
  at(row, column) {
    return this.values[row * this.columns.length + column];
  }
}

/** The chosen head, or several heads together, with all weights; made in slices where they are large. */
export class Chosen {
  constructor() {
    this.name = "";
    this.weights = null;
    this.shown = null;
    this.parts = []; // The weights of each of several heads, where they are few enough to be drawn one by one.
  }

  /** Yields while it computes; afterwards `shown` is what the map draws. */
  *load() {
    const { item, special, combine, weigh } = state;
    this.axes = axesOf(state.layer, item);
    const heads = chosenHeads().filter(([layer]) => sameAxes(axesOf(layer, item), this.axes));
    const name = `${heads.join(" ")} ${item} ${heads.length > 1 ? combine : ""} ${weigh}`;
    this.shown = null;
    this.heads = heads;
    const { queries, keys } = this.axes;
    if (this.name !== name) {
      this.weights = null;
      this.name = "";
      const parts = [];
      for (const [layer, head] of heads) parts.push(yield* weightsOf(layer, head, item, weigh));
      this.parts = parts.map(({ weights }) => weights);
      this.weights = combined(this.parts, combine);
      this.name = name;
      this.spread = parts.length === 1 && weigh === "weights" ? parts[0].spread : effectiveKeys(this.weights, queries.length, keys.length);
    }
    if (special === state.special) this.shown = new Shown(this.weights, shownOf(queries), shownOf(keys), keys.length);
  }

  /** One query's weights over all keys, hidden ones as UNSEEN. */
  row(query, weights = this.weights) {
    const keys = this.axes.keys.length;
    const columns = shownOf(this.axes.keys);
    const factor = rowFactor(weights, query * keys, columns);
    const shown = new Float32Array(keys).fill(UNSEEN);
    for (const key of columns) {
      const weight = weights[query * keys + key];
      shown[key] = weight < 0 ? UNSEEN : weight * factor;
    }
    return shown;
  }

  /** What every query puts on one key, hidden ones as UNSEEN. */
  column(key, weights = this.weights) {
    const keys = this.axes.keys.length;
    const columns = shownOf(this.axes.keys);
    const shown = new Float32Array(this.axes.queries.length).fill(UNSEEN);
    for (const query of shownOf(this.axes.queries)) {
      const weight = weights[query * keys + key];
      shown[query] = weight < 0 ? UNSEEN : weight * rowFactor(weights, query * keys, columns);
    }
    return shown;
  }
}

function sameAxes(one, other) {
  return one.queries === other.queries && one.keys === other.keys;
}

/** All weights of one head; each times the length of its value, and the row divided by its sum, where that is chosen. With them how many keys a query of the head looks at, on average. */
export function* weightsOf(layer, head, item, weigh = state.weigh) {
  const source = headOf(layer, head, item);
  const weights = new Float32Array(source.queries * source.keys);
  const spread = yield* weightsInto(source, weights);
  const lengths = weigh === "values" ? lengthsOf(layer, head, item) : null;
  if (lengths) for (let query = 0; query < source.queries; query++) weighByLength(weights.subarray(query * source.keys, (query + 1) * source.keys), lengths);
  return { weights, spread };
}

function weighByLength(row, lengths) {
  let sum = 0;
  for (let key = 0; key < row.length; key++) if (row[key] > 0) sum += row[key] *= lengths[key];
  if (sum > 0) for (let key = 0; key < row.length; key++) if (row[key] > 0) row[key] /= sum;
}

/** Several heads as one: their mean, their largest weight, or the share of them with a weight of `COUNTED` or more. */
function combined(parts, how) {
  if (parts.length === 1) return parts[0];
  const out = new Float32Array(parts[0].length).fill(UNSEEN);
  for (let i = 0; i < out.length; i++) {
    let [sum, most, count, seen] = [0, UNSEEN, 0, false];
    for (const part of parts) {
      const weight = part[i];
      if (weight < 0) continue;
      seen = true;
      sum += weight;
      if (weight > most) most = weight;
      if (weight >= COUNTED) count++;
    }
    if (seen) out[i] = how === "max" ? most : (how === "count" ? count : sum) / parts.length;
  }
  return out;
}

/** The mean over the queries of how many keys one looks at: exp(entropy). */
export function effectiveKeys(weights, queries, keys) {
  let total = 0;
  let count = 0;
  for (let query = 0; query < queries; query++) {
    let entropy = 0;
    let any = false;
    for (let at = query * keys; at < (query + 1) * keys; at++) {
      const weight = weights[at];
      if (weight >= 0) any = true;
      if (weight > 1e-5) entropy -= weight * Math.log(weight);
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
  if (down === r1 - r0 && along === c1 - c0) {
    for (let r = r0; r < r1; r++) out.set(values.subarray(r * columns + c0, r * columns + c1), (r - r0) * along);
    return out;
  }
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
