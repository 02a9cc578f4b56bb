// The tiles of one head: asked for in the order in which they are needed, kept while there is room, dropped when nobody looks.

import { askTile } from "./wire.js";

const AT_ONCE = 6; // Requests on the way.
const KEPT = 260; // Tiles in memory: 64 MB of codes.
const SIDE = 256;

/** The tiles of one head. `arrived` is called after each new one, `failed` with an error that will not go away. */
export class TileStore {
  constructor(info, arrived, failed) {
    Object.assign(this, { info, arrived, failed });
    this.tiles = new Map();
    this.ranges = new Map();
    this.asked = new Map();
    this.wanted = [];
    this.generation = info.status.generation;
    this.paused = 0;
  }

  /** The tile, or undefined while it has not come. */
  get(z, x, y) {
    const name = `${z}/${x}/${y}`;
    const tile = this.tiles.get(name);
    if (tile) {
      this.tiles.delete(name);
      this.tiles.set(name, tile);
    }
    return tile;
  }

  /** Whether the mask leaves anything of a tile. */
  isVisible(z, x, y) {
    const [low, high] = this.rangeOf(z, y);
    return x >= low >> z && x <= high >> z && high >= 0;
  }

  /** The first and the last fine tile of keys that a row of tiles may see; found once. */
  rangeOf(z, y) {
    const name = `${z}/${y}`;
    if (!this.ranges.has(name)) this.ranges.set(name, this.findRange(z, y));
    return this.ranges.get(name);
  }

  findRange(z, y) {
    const { first, last } = this.info.visible;
    const [from, to] = [y << z, Math.min(first.length, (y + 1) << z)];
    let [low, high] = [Infinity, -1];
    for (let band = from; band < to; band++) {
      if (first[band] > last[band]) continue;
      low = Math.min(low, first[band]);
      high = Math.max(high, last[band]);
    }
    return [low, high];
  }

  /** Ask for what is in view, the most important first; requests for anything else end. */
  want(places) {
    this.wanted = places.filter(([z, x, y]) => this.isVisible(z, x, y));
    const names = new Set(this.wanted.map((place) => place.join("/")));
    for (const [name, abort] of this.asked) if (!names.has(name)) abort.abort();
    this.askNext();
  }

  /** The head's exact levels have grown: tiles that were not exact may look different. */
  grown(generation) {
    if (generation === this.generation) return;
    this.generation = generation;
    this.askNext();
  }

  get busy() {
    return this.asked.size > 0 || this.wanted.some((place) => this.isNeeded(place));
  }

  isNeeded([z, x, y]) {
    const tile = this.tiles.get(`${z}/${x}/${y}`);
    if (!tile) return true;
    return tile.status !== "exact" && tile.status !== "empty" && tile.generation !== this.generation;
  }

  askNext() {
    if (performance.now() < this.paused) return;
    for (const place of this.wanted) {
      if (this.asked.size >= AT_ONCE) return;
      if (!this.asked.has(place.join("/")) && this.isNeeded(place)) this.ask(...place);
    }
  }

  async ask(z, x, y) {
    const name = `${z}/${x}/${y}`;
    const abort = new AbortController();
    const generation = this.generation;
    this.asked.set(name, abort);
    try {
      const tile = await askTile(this.info.id, z, x, y, abort.signal);
      // Asked for at this state of the pass: not again before it has grown.
      if (tile.status !== "exact" && tile.status !== "empty") tile.generation = generation;
      this.keep(name, tile);
      this.arrived();
    } catch (error) {
      if (error.name !== "AbortError") this.wait(error);
    } finally {
      this.asked.delete(name);
      this.askNext();
    }
  }

  keep(name, tile) {
    this.tiles.delete(name);
    this.tiles.set(name, tile);
    while (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
  }

  /** The server is busy or away: ask again in a while. Anything else is said. */
  wait(error) {
    const away = error instanceof TypeError;
    if (error.status !== 503) this.failed(away ? "The server does not answer; trying again." : error.message);
    if (error.status !== 503 && !away) return (this.paused = Infinity);
    this.paused = performance.now() + 1000 * (error.after ?? 2);
    setTimeout(() => this.askNext(), 1000 * (error.after ?? 2) + 5);
  }
}

/** The tiles that cover a part of the plane, the nearest to its middle first. */
export function tilesIn(viewport, z) {
  const side = SIDE * 2 ** z;
  const [[q0, q1], [k0, k1]] = [viewport.seen("queries"), viewport.seen("keys")];
  const found = [];
  for (let y = Math.floor(q0 / side); y * side < q1; y++) for (let x = Math.floor(k0 / side); x * side < k1; x++) found.push([z, x, y]);
  const far = ([, x, y]) => Math.hypot((x + 0.5) * side - viewport.k, (y + 0.5) * side - viewport.q);
  return found.sort((a, b) => far(a) - far(b));
}
