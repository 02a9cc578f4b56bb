// Where to look: strong far pairs, stripes, columns, blocks and changes that the pass over the head has found.

import { byId, make, shortLabel } from "./dom.js";
import { askJSON } from "./wire.js";

const TITLES = {
  pair: "Far pairs",
  stripe: "Stripes: the same distance again and again",
  column: "Columns: keys that many look at",
  block: "Blocks",
  change: "Changes along the text",
};
const FEW = 5;

/** The list of places of a head; `go` is called with the one that was chosen. */
export class Places {
  constructor(go) {
    Object.assign(this, { go, list: [], status: "", open: new Set() });
  }

  /** Ask for the places of a head. */
  async ask(id) {
    this.id = id;
    const { places, status } = await askJSON(`places/${id}`);
    if (this.id !== id) return;
    Object.assign(this, { list: places, status });
    this.draw();
  }

  draw() {
    const kinds = Object.keys(TITLES).filter((kind) => this.list.some((place) => place.kind === kind));
    byId("places-note").textContent = this.status === "exact" ? (kinds.length ? "" : "Nothing stands out.") : "Of the rows so far; more may come.";
    byId("places").replaceChildren(...kinds.flatMap((kind) => this.partOf(kind)));
  }

  partOf(kind) {
    const all = this.list.filter((place) => place.kind === kind);
    const seen = this.open.has(kind) ? all : all.slice(0, FEW);
    const items = seen.map((place) => {
      const button = make("button", { type: "button", class: "place", title: place.text }, make("bdi", {}, shortLabel(place.text, 200)));
      button.addEventListener("click", () => this.go(place));
      return make("li", {}, button);
    });
    if (all.length > seen.length) {
      const more = make("button", { type: "button", class: "place more" }, `${all.length - seen.length} more`);
      more.addEventListener("click", () => {
        this.open.add(kind);
        this.draw();
      });
      items.push(make("li", {}, more));
    }
    return [make("h3", {}, TITLES[kind]), make("ul", {}, ...items)];
  }
}
