// From q and k to weights: the one formula of this page.
//
//   score = softcap·tanh(factor·q·k / softcap) + bias,   weight = exp(score - max) / (Σ exp(score - max) + exp(sink - max))
//
// Of short texts the scores themselves travel, in the place of q; then there is no k, and softcap and bias are in them.
//
// A key that a query may not see has the weight UNSEEN; a query that sees nothing has no weight anywhere.

export const UNSEEN = -1;

/** The product of a query and a key; four sums side by side, which a processor does at once. */
function dotOf(q, base, k, other, size) {
  let one = 0;
  let two = 0;
  let three = 0;
  let four = 0;
  let i = 0;
  for (; i + 3 < size; i += 4) {
    one += q[base + i] * k[other + i];
    two += q[base + i + 1] * k[other + i + 1];
    three += q[base + i + 2] * k[other + i + 2];
    four += q[base + i + 3] * k[other + i + 3];
  }
  for (; i < size; i++) one += q[base + i] * k[other + i];
  return one + two + three + four;
}

/** The weights of one query over all keys, written to `out` from `at` on. */
export function rowInto(head, query, out, at) {
  const { q, k, keys, size, factor, softcap, sink } = head;
  const base = query * (k ? size : keys);
  const ends = head.runsOf(query);
  let largest = sink === null ? -Infinity : sink;
  let any = false;
  out.fill(UNSEEN, at, at + keys);
  for (let run = 0; run < ends.length; run += 2) {
    for (let key = ends[run]; key < ends[run + 1]; key++) {
      const dot = k ? dotOf(q, base, k, key * size, size) : q[base + key];
      let score = dot * factor;
      if (softcap !== null) score = softcap * Math.tanh(score / softcap);
      if (head.bias) score += head.bias(query, key);
      out[at + key] = score;
      if (score !== -Infinity) any = true;
      if (score > largest) largest = score;
    }
  }
  let sum = sink === null ? 0 : Math.exp(sink - largest);
  for (let run = 0; run < ends.length; run += 2) {
    for (let key = at + ends[run]; key < at + ends[run + 1]; key++) {
      out[key] = any ? Math.exp(out[key] - largest) : 0;
      sum += out[key];
    }
  }
  for (let run = 0; any && run < ends.length; run += 2) {
    for (let key = at + ends[run]; key < at + ends[run + 1]; key++) out[key] /= sum;
  }
}

/** All weights of a head, a few rows at a time: yields the share that is done. */
export function* weightsInto(head, out) {
  const step = Math.max(1, Math.floor(1e6 / (head.keys * (head.size + 8)))); // About a millisecond.
  for (let query = 0; query < head.queries; query++) {
    rowInto(head, query, out, query * head.keys);
    if (query % step === step - 1) yield (query + 1) / head.queries;
  }
}
