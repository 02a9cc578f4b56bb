// From q and k to weights: the one formula of this page.
//
//   score = softcap·tanh(factor·q·k / softcap) + bias,   weight = exp(score - max) / (Σ exp(score - max) + exp(sink - max))
//
// Of short texts the scores themselves travel, in the place of q; then there is no k, and softcap and bias are in them.
//
// A key that a query may not see has the weight UNSEEN; a query that sees nothing has no weight anywhere.

export const UNSEEN = -1;

/** The products of one query with a run of keys, written to `out`: four keys at a time, since they share the query's numbers. */
function productsInto(q, base, k, [first, last], size, out, at) {
  let key = first;
  for (; key + 3 < last; key += 4) {
    let [one, two, three, four] = [0, 0, 0, 0];
    const [a, b, c, d] = [key * size, (key + 1) * size, (key + 2) * size, (key + 3) * size];
    for (let i = 0; i < size; i++) {
      const value = q[base + i];
      one += value * k[a + i];
      two += value * k[b + i];
      three += value * k[c + i];
      four += value * k[d + i];
    }
    out[at + key] = one;
    out[at + key + 1] = two;
    out[at + key + 2] = three;
    out[at + key + 3] = four;
  }
  for (; key < last; key++) {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += q[base + i] * k[key * size + i];
    out[at + key] = sum;
  }
}

/** Products to scores, in place; returns the largest, and whether any is more than nothing. */
function scoresInto(head, query, [first, last], out, at) {
  const { factor, softcap, bias } = head;
  let [largest, any] = [-Infinity, false];
  for (let key = first; key < last; key++) {
    let score = out[at + key] * factor;
    if (softcap !== null) score = softcap * Math.tanh(score / softcap);
    if (bias) score += bias(query, key);
    out[at + key] = score;
    if (score !== -Infinity) any = true;
    if (score > largest) largest = score;
  }
  return [largest, any];
}

/** The weights of one query over all keys, written to `out` from `at` on; returns their entropy, NaN where it sees no key. */
export function rowInto(head, query, out, at) {
  const { q, k, keys, size, sink } = head;
  const base = query * (k ? size : keys);
  const ends = head.runsOf(query);
  const runs = [];
  for (let run = 0; run < ends.length; run += 2) if (ends[run] < ends[run + 1]) runs.push([ends[run], ends[run + 1]]);
  let largest = sink === null ? -Infinity : sink;
  let any = false;
  out.fill(UNSEEN, at, at + keys);
  for (const run of runs) {
    if (k) productsInto(q, base, k, run, size, out, at);
    else out.set(q.subarray(base + run[0], base + run[1]), at + run[0]);
    const [most, some] = scoresInto(head, query, run, out, at);
    if (most > largest) largest = most;
    any ||= some;
  }
  let sum = sink === null ? 0 : Math.exp(sink - largest);
  const fromSink = sum;
  let weighted = 0; // Σ exp(s)·s, for the entropy.
  for (const [first, last] of runs) {
    for (let key = at + first; key < at + last; key++) {
      const less = out[key] - largest;
      const power = any ? Math.exp(less) : 0;
      sum += out[key] = power;
      if (power > 0) weighted += power * less;
    }
  }
  if (!any) return runs.length ? 0 : NaN;
  for (const [first, last] of runs) for (let key = at + first; key < at + last; key++) out[key] /= sum;
  return Math.max(0, (Math.log(sum) * (sum - fromSink) - weighted) / sum);
}

/** All weights of a head, a few rows at a time: yields the share that is done; returns how many keys a query looks at, on average. */
export function* weightsInto(head, out) {
  const step = Math.max(1, Math.floor(1e6 / (head.keys * (head.size + 8)))); // About a millisecond.
  let [total, count] = [0, 0];
  for (let query = 0; query < head.queries; query++) {
    const entropy = rowInto(head, query, out, query * head.keys);
    if (entropy >= 0) [total, count] = [total + Math.exp(entropy), count + 1];
    if (query % step === step - 1) yield (query + 1) / head.queries;
  }
  return count ? total / count : 0;
}
