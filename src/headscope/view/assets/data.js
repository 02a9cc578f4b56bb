// The source of data: axes, layers, and each head's numbers when somebody looks at it. What a page needs of a recording
// it asks here (`page`, `items`, `itemOf`, `axesOf`, `headOf`, `lengthsOf`, `thumbnailOf`) and nowhere else: a page that is
// served from a folder has another file in this one's place.

import { biasFrom, bytesOf, floatsAt, runsFrom } from "./decode.js";

export const page = JSON.parse(document.getElementById("data").textContent);

const decoded = new Map();
const DECODED_AT_ONCE = 48;

/** A value that is made at the first call and kept; the oldest go when there are many. */
function kept(name, make) {
  if (!decoded.has(name)) {
    if (decoded.size >= DECODED_AT_ONCE) decoded.delete(decoded.keys().next().value);
    decoded.set(name, make());
  }
  return decoded.get(name);
}

for (const axis of page.axes) {
  axis.labels ??= Array.from({ length: axis.length }, (_, i) => String(i));
  axis.isSpecial = new Uint8Array(axis.length);
  for (const i of axis.special) axis.isSpecial[i] = 1;
  axis.second = secondText(axis);
}

/** Where the second of two texts begins that one axis holds, with special tokens between them; 0 where there is one text. */
function secondText(axis) {
  if (axis.kind !== "tokens") return 0;
  const starts = [];
  for (let i = 0; i < axis.length; i++) if (!axis.isSpecial[i] && (i === 0 || axis.isSpecial[i - 1])) starts.push(i);
  return starts.length === 2 ? starts[1] : 0;
}

export const items = Math.max(...page.layers.map((layer) => layer.chunks.length));

/** The batch item that a layer shows: some layers may have fewer than others. */
export function itemOf(layer, item) {
  return Math.min(item, page.layers[layer].chunks.length - 1);
}

/** What the queries and keys of a layer are, and whether they are the same positions. */
export function axesOf(layer, item) {
  const entry = page.layers[layer];
  const at = itemOf(layer, item);
  return kept(`axes ${entry.queries[at]} ${entry.keys[at]}`, () => {
    const queries = page.axes[entry.queries[at]];
    const keys = page.axes[entry.keys[at]];
    const shift = keys.length - queries.length;
    const same = shift >= 0 && (queries === keys || (queries.kind === keys.kind && queries.labels.every((label, i) => label === keys.labels[i + shift])));
    return { queries, keys, shift, same };
  });
}

/** The numbers of all heads of one layer and item. */
function numbersOf(layer, item) {
  const entry = page.layers[layer];
  const { queries, keys } = axesOf(layer, item);
  const name = entry.chunks[itemOf(layer, item)];
  return kept(`chunk ${name}`, () => {
    const bytes = bytesOf(document.getElementById(`chunk-${name}`).textContent);
    const share = entry.heads.length / entry.groups;
    const scored = entry.form === "scores";
    const of = queries.length * (scored ? keys.length : entry.size);
    const found = { q: [], k: [] };
    let at = 0;
    for (let group = 0; group < entry.groups; group++) {
      const bits = entry.wide[group] ? 32 : 16;
      for (let i = 0; i < share; i++, at += (of * bits) / 8) found.q.push(floatsAt(bytes, at, of, bits));
      if (scored) continue;
      const count = keys.length * entry.size;
      found.k.push(floatsAt(bytes, at, count, bits));
      at += (count * bits) / 8;
    }
    return found;
  });
}

/** Where the part of an item and head begins in numbers shaped (items or 1, heads or 1, …). */
function partOf(shape, item, head, size) {
  return ((shape[0] > 1 ? item : 0) * shape[1] + (shape[1] > 1 ? head : 0)) * size;
}

/** A function from a query to its runs: start, stop, start, stop, … */
function runsOfHead(layer, head, item, keys) {
  const place = page.layers[layer].runs;
  if (place === null) {
    const all = [0, keys];
    return () => all;
  }
  const { shape, ends } = kept(`runs ${place}`, () => runsFrom(page.runs[place]));
  const start = partOf(shape, item, head, shape[2] * shape[3] * 2);
  const one = shape[3] * 2;
  return (query) => ends.subarray(start + (shape[2] > 1 ? query : 0) * one, start + (shape[2] > 1 ? query : 0) * one + one);
}

/** A function from a query and a key to what is added to their score, or null. */
function biasOfHead(layer, head, item, queries, keys) {
  const place = page.layers[layer].bias;
  if (place === null) return null;
  const { shape, form, values } = kept(`bias ${place}`, () => biasFrom(page.biases[place]));
  if (form === "offset") {
    const start = partOf(shape, item, head, queries + keys - 1) + queries - 1;
    return (query, key) => values[start + key - query];
  }
  const start = partOf(shape, item, head, shape[2] * shape[3]);
  const down = shape[2] > 1 ? shape[3] : 0;
  const along = shape[3] > 1 ? 1 : 0;
  return (query, key) => values[start + query * down + key * along];
}

/** The key/value head that a head uses. */
function groupOf(layer, head) {
  const entry = page.layers[layer];
  return Math.floor(head / (entry.heads.length / entry.groups));
}

/** One head of one batch item, ready for the formula. */
export function headOf(layer, head, item) {
  const entry = page.layers[layer];
  const at = itemOf(layer, item);
  const { queries, keys } = axesOf(layer, item);
  const { q, k } = numbersOf(layer, item);
  return {
    q: q[head],
    k: k[groupOf(layer, head)] ?? null, // Without keys, q holds the scores themselves.
    queries: queries.length,
    keys: keys.length,
    size: entry.size,
    factor: entry.factors[at][head],
    softcap: entry.softcap,
    sink: entry.sinks === null ? null : entry.sinks[head],
    runsOf: runsOfHead(layer, head, at, keys.length),
    bias: biasOfHead(layer, head, at, queries.length, keys.length),
  };
}

/** The length of every value of a head, or null where values were not recorded. */
export function lengthsOf(layer, head, item) {
  const { lengths, groups } = page.layers[layer];
  if (!lengths) return null;
  const { keys } = axesOf(layer, item);
  return kept(`lengths ${layer} ${itemOf(layer, item)} ${head}`, () => {
    const place = itemOf(layer, item) * groups + groupOf(layer, head);
    return floatsAt(bytesOf(lengths), 2 * place * keys.length, keys.length, 16);
  });
}

const UNSEEN_BYTE = 255;
let thumbnailBytes = null;

/** The small picture of a head of the first item as it came with the page, or null: { values, along, down, top }. */
export function thumbnailOf(layer, head) {
  if (!page.thumbnails) return null;
  const { layers, data } = page.thumbnails;
  thumbnailBytes ??= bytesOf(data);
  const before = layers.slice(0, layer).reduce((sum, { size, tops }) => sum + size[0] * size[1] * tops.length, 0);
  const { size: [down, along], tops } = layers[layer];
  const bytes = thumbnailBytes.subarray(before + head * down * along, before + (head + 1) * down * along);
  const top = tops[head];
  return { values: Float32Array.from(bytes, (byte) => (byte === UNSEEN_BYTE ? -1 : top * (byte / 254) ** 2)), along, down, top };
}

/** What is said of a head: a list of { kind, text, query, key }, its headline first. */
export function saidOfHead(layer, head) {
  return (page.heads?.said[layer][head] ?? []).map(([kind, text, query, key]) => ({ kind, text, query, key }));
}
