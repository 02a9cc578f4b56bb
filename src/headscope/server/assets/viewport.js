// Which part of the head is seen: the middle and the positions per pixel stand in `state`, so that both maps share them.

import { choose, state } from "./state.js";

const CLOSEST = 32; // Pixels of one weight when all the way in.
const MARGIN = 1.04;

/** What is seen of a head of so many queries and keys on a plane of so many pixels. */
export class Viewport {
  constructor() {
    Object.assign(this, { queries: 1, keys: 1, width: 1, height: 1 });
  }

  /** Positions per pixel when the whole head is seen. */
  get whole() {
    return Math.max((this.queries / this.height) * MARGIN, (this.keys / this.width) * MARGIN, 1 / CLOSEST);
  }

  get w() {
    return Math.min(this.whole, state.w ?? this.whole);
  }

  get isWhole() {
    return this.w >= this.whole * 0.999;
  }

  /** The zoom whose cells take one to two pixels. */
  get z() {
    return Math.max(0, Math.ceil(Math.log2(this.w) - 1e-9));
  }

  get q() {
    return within(state.q ?? this.queries / 2, (this.height * this.w) / 2, this.queries);
  }

  get k() {
    return within(state.k ?? this.keys / 2, (this.width * this.w) / 2, this.keys);
  }

  get top() {
    return this.q - (this.height * this.w) / 2;
  }

  get left() {
    return this.k - (this.width * this.w) / 2;
  }

  xOf(key) {
    return (key - this.left) / this.w;
  }

  yOf(query) {
    return (query - this.top) / this.w;
  }

  /** The pair at a point, or null beside the head. */
  pairAt(x, y) {
    const [query, key] = [Math.floor(this.top + y * this.w), Math.floor(this.left + x * this.w)];
    return query >= 0 && key >= 0 && query < this.queries && key < this.keys ? { query, key } : null;
  }

  /** The positions of an axis that are seen: [first, last + 1]. */
  seen(axis) {
    const [from, size, count] = axis === "keys" ? [this.left, this.width, this.keys] : [this.top, this.height, this.queries];
    return [Math.max(0, Math.floor(from)), Math.min(count, Math.ceil(from + size * this.w))];
  }

  /** Zoom by a factor, keeping what is at a point where it is. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const [key, query] = [this.left + x * this.w, this.top + y * this.w];
    const w = Math.min(this.whole, Math.max(1 / CLOSEST, this.w / factor));
    this.go(query + (this.height / 2 - y) * w, key + (this.width / 2 - x) * w, w);
  }

  pan(dx, dy) {
    this.go(this.q - dy * this.w, this.k - dx * this.w, this.w);
  }

  /** Show a place: its middle and how near. */
  go(q, k, w = this.w) {
    const all = w >= this.whole * 0.999;
    if (all) return choose({ q: null, k: null, w: null });
    choose({
      q: within(q, (this.height * w) / 2, this.queries),
      k: within(k, (this.width * w) / 2, this.keys),
      w,
    });
  }

  /** The middle and nearness at which a window [first query, first key, last query + 1, last key + 1] fills the plane. */
  placeOf([q0, k0, q1, k1]) {
    const w = Math.max(((q1 - q0) / this.height) * 1.1, ((k1 - k0) / this.width) * 1.1, 1 / CLOSEST);
    return { q: (q0 + q1) / 2, k: (k0 + k1) / 2, w };
  }

  /** Move as little as needed for a pair to be seen. */
  reveal({ query, key }) {
    const half = (size) => Math.max(1, (size * this.w) / 2 - 1);
    const q = Math.min(Math.max(this.q, query + 1 - half(this.height)), query + half(this.height));
    const k = Math.min(Math.max(this.k, key + 1 - half(this.width)), key + half(this.width));
    if (q !== this.q || k !== this.k) this.go(q, k);
  }
}

/** A middle moved so that no more than needed is seen beyond the ends; beside the text where all fits. */
function within(middle, half, count) {
  return half * 2 >= count ? half * 0.99 : Math.min(Math.max(middle, half), count - half);
}

let flight = 0;

/** Fly to a place in a third of a second, or at once where less motion is wanted. */
export function fly(viewport, to, done = () => {}) {
  const mine = ++flight;
  const from = { q: viewport.q, k: viewport.k, w: viewport.w };
  const began = performance.now();
  const long = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 330;
  const step = (now) => {
    if (mine !== flight) return;
    const share = long ? Math.min(1, Math.max(0, (now - began) / long)) : 1;
    const eased = share * share * (3 - 2 * share);
    const mix = (a, b) => a + (b - a) * eased;
    viewport.go(mix(from.q, to.q), mix(from.k, to.k), share === 1 ? to.w : Math.exp(mix(Math.log(from.w), Math.log(to.w))));
    if (share < 1) requestAnimationFrame(step);
    else done();
  };
  requestAnimationFrame(step);
}

/** Stop a flight: a hand is on the map. */
export function land() {
  flight++;
}
