// One map: its canvases, the tiles, text and statistics of its head, and the part that is seen.

import { infoOf, nameOf } from "./data.js";
import { byId } from "./dom.js";
import { Labels } from "./labels.js";
import { drawMarks, drawPlane, drawSmallMap, scaleTo } from "./plane.js";
import { Profiles } from "./profiles.js";
import { drawRuler, Tracks } from "./rulers.js";
import { state } from "./state.js";
import { tilesIn, TileStore } from "./tilestore.js";
import { Viewport } from "./viewport.js";
import { highOf } from "./paint.js";

/** One of the two maps. `drawSoon` asks for a new picture, `say` shows a sentence. */
export class Pane {
  constructor(number, drawSoon, say) {
    Object.assign(this, { number, drawSoon, say, viewport: new Viewport(), trackTops: {}, id: "", info: null, stores: [] });
    this.box = byId(`pane-${number}`);
    for (const name of ["canvas", "marks", "keysCanvas", "queriesCanvas", "rowCanvas", "columnCanvas"]) this[name] = this.box.querySelector(`.${name}`);
    this.profiles = new Profiles(this, () => this.arrived());
  }

  arrived() {
    this.drawSoon();
    this.afterProfiles?.();
  }

  /** Show a head, and perhaps its difference from another one. */
  async open(id, other = "") {
    const wanted = `${id} ${other}`;
    if (this.wanted === wanted) return;
    this.wanted = wanted;
    const infos = await Promise.all([id, other].filter(Boolean).map(infoOf));
    if (this.wanted !== wanted) return;
    if (this.id !== id) {
      this.labels = new Labels(id, this.drawSoon);
      this.tracks = new Tracks(id, this.drawSoon);
      Object.assign(this.profiles, { row: null, column: null, asked: "" });
    }
    for (const store of this.stores) if (!infos.includes(store.info)) store.want([]);
    this.stores = infos.map((info) => this.stores.find((store) => store.info === info) ?? new TileStore(info, this.drawSoon, this.say));
    Object.assign(this, { id, info: infos[0] });
    Object.assign(this.viewport, { queries: this.info.queries, keys: this.info.keys });
    this.box.querySelector(".pane-name").textContent = other ? `${nameOf(id)} less ${nameOf(other)}` : nameOf(id);
    this.canvas.setAttribute("aria-label", `Heat map of ${nameOf(id)}: queries down, keys along. Arrow keys move the cursor, plus and minus zoom, Enter pins.`);
    this.resize();
  }

  close() {
    this.wanted = "";
    for (const store of this.stores) store.want([]);
    Object.assign(this, { id: "", info: null, stores: [] });
  }

  resize() {
    const [plane, keys, queries] = [".plane", ".keys", ".queries"].map((name) => this.box.querySelector(name));
    Object.assign(this.viewport, { width: Math.max(40, plane.clientWidth), height: Math.max(40, plane.clientHeight) });
    Object.assign(this, { topRoom: keys.clientHeight, leftRoom: queries.clientWidth });
    this.drawSoon();
  }

  /** Ask for what is in view. */
  want() {
    for (const store of this.stores) {
      const seen = tilesIn(this.viewport, Math.min(this.viewport.z, store.info.top));
      store.want([...seen, [store.info.top, 0, 0]]);
    }
  }

  draw(top) {
    const { viewport, stores } = this;
    this.want();
    const scale = scaleTo(top, viewport.keys);
    if (stores.length > 1) scale.top = top || 1;
    const found = drawPlane(this.canvas, viewport, stores, scale);
    drawSmallMap(this.canvas, viewport, stores[0], (tile) => scaleTo(highOf(tile[state.pool]), viewport.keys));
    drawMarks(this.marks, viewport);
    drawRuler(this.keysCanvas, this, "keys");
    drawRuler(this.queriesCanvas, this, "queries");
    this.profiles.follow();
    this.profiles.draw();
    Object.assign(this.canvas.dataset, {
      z: viewport.z, left: viewport.left, top: viewport.top, w: viewport.w, missing: found.missing, estimated: found.estimated,
      busy: Number(stores.some((store) => store.busy)),
    });
    return found;
  }
}
