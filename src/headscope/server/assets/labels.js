// The text along the axes of a head: labels of single positions, and where documents, paragraphs and sentences begin.

import { infoOf } from "./data.js";
import { shortLabel } from "./dom.js";
import { askJSON } from "./wire.js";

const LONGEST = 60; // letters
const BLOCK = 1024;
const BLOCKS = 200;
const OUTLINES = 60;

/** The text along both axes of a head. `arrived` is called when some of it comes. */
export class Labels {
  constructor(id, arrived) {
    Object.assign(this, { id, arrived, blocks: new Map(), outlines: new Map() });
  }

  /** The label of a position, or null while it has not come. */
  at(axis, position) {
    const found = this.block(axis, Math.floor(position / BLOCK));
    return found ? shown(found.labels[position % BLOCK]) : null;
  }

  block(axis, number) {
    const name = `${axis} ${number}`;
    return this.kept(this.blocks, name, BLOCKS, async () => {
      const { axes } = await infoOf(this.id);
      const stop = Math.min(axes[axis].length, (number + 1) * BLOCK);
      return askJSON(`text/${this.id}/${axis}?start=${number * BLOCK}&stop=${stop}`);
    });
  }

  /** The label of a position, waited for. */
  async labelOf(axis, position) {
    for (let tries = 0; tries < 100; tries++) {
      const found = this.at(axis, position);
      if (found !== null) return found;
      await new Promise((done) => setTimeout(done, 30));
    }
    return String(position);
  }

  /** Where documents, paragraphs and sentences begin between two positions: { position, level, text }, as many as fit. */
  outline(axis, start, stop, limit) {
    // The same question for every view that is nearly the same: a part three times as long, beginning at round places.
    const long = 2 ** Math.ceil(Math.log2(Math.max(64, stop - start)));
    const from = Math.max(0, Math.floor(start / long) * long);
    const name = `${axis} ${from} ${long} ${limit}`;
    const found = this.kept(this.outlines, name, OUTLINES, async () => {
      const { axes } = await infoOf(this.id);
      const to = Math.min(axes[axis].length, from + 2 * long);
      const answer = await askJSON(`outline/${this.id}/${axis}?start=${from}&stop=${to}&limit=${Math.min(200, 4 * limit)}`);
      return answer.entries.map((entry) => ({ ...entry, text: shown(entry.text) }));
    });
    return (found ?? this.lastOutline?.[axis] ?? []).filter(({ position }) => position >= start && position < stop);
  }

  /** What is known under a name, or null after asking for it. */
  kept(map, name, most, ask) {
    if (map.has(name)) return map.get(name);
    map.set(name, null);
    if (map.size > most) map.delete(map.keys().next().value);
    ask().then(
      (found) => {
        map.set(name, found);
        if (Array.isArray(found)) this.lastOutline = { ...this.lastOutline, [name.split(" ")[0]]: found };
        this.arrived();
      },
      () => setTimeout(() => map.delete(name), 2000),
    );
    return null;
  }
}

/** A label as it can be drawn: no longer than anyone reads, a space before a word goes, other white space has a sign. */
function shown(label) {
  const bare = shortLabel(label.slice(0, 2 * LONGEST), LONGEST).replace(/^[ Ġ▁](?=.)/, "").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return bare === " " || bare === "" ? "␣" : bare;
}
