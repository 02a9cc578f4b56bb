// Text, numbers and a statistic along the sides of the map: documents from afar, single tokens from near.

import { cssColour, sharpen } from "./dom.js";
import { state } from "./state.js";
import { drawColumn, drawRow, everyNth } from "./ticks.js";
import { askJSON } from "./wire.js";

const FONT = "12px ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const NEAR = 9; // Pixels of a token from which every label can be read.
const TRACK = 26; // Pixels of the statistic.
const NUMBERS = 14;
const APART = { document: 15, paragraph: 15, sentence: 15 };
const RANK = ["document", "paragraph", "sentence"];

/** A statistic along an axis, in parts of 256 cells that are asked for when they are seen. */
export class Tracks {
  constructor(id, arrived) {
    Object.assign(this, { id, arrived, parts: new Map(), generation: 0 });
  }

  part(name, z, x) {
    const key = `${name} ${z} ${x}`;
    const found = this.parts.get(key);
    if (found === undefined || (found && found.status !== "exact" && found.generation !== this.generation)) {
      if (this.parts.size > 300) this.parts.delete(this.parts.keys().next().value);
      const generation = this.generation;
      this.parts.set(key, found ? { ...found, generation } : null);
      askJSON(`track/${this.id}/${name}/${z}/${x}`).then(
        (part) => {
          this.parts.set(key, { ...part, generation });
          this.arrived();
        },
        () => setTimeout(() => this.parts.delete(key), 2000),
      );
    }
    return this.parts.get(key);
  }
}

/** Draw the ruler of an axis beside its plane. */
export function drawRuler(canvas, pane, axis) {
  const along = axis === "keys";
  const { viewport } = pane;
  const [width, height] = along ? [viewport.width, pane.topRoom] : [pane.leftRoom, viewport.height];
  const context = sharpen(canvas, width, height);
  const ruler = {
    context, pane, axis, along, length: along ? width : height, room: along ? height : width,
    at: (position) => (along ? viewport.xOf(position) : viewport.yOf(position)),
    size: 1 / viewport.w,
  };
  context.font = FONT;
  drawTrack(ruler);
  drawNumbers(ruler);
  if (ruler.size >= NEAR) drawTokens(ruler);
  else drawOutline(ruler);
  drawHere(ruler);
}

function drawTrack({ context, pane, axis, along, length, room, at }) {
  const { viewport, info, tracks } = pane;
  const name = along ? "received" : "entropy";
  const z = viewport.z;
  const cell = 2 ** z;
  const [start, stop] = viewport.seen(axis);
  const parts = [];
  for (let x = Math.floor(start / (256 * cell)); x * 256 * cell < stop; x++) parts.push([x, tracks.part(name, z, x)]);
  const values = [];
  for (const [x, part] of parts) part?.max.forEach((most, i) => values.push([x * 256 + i, part.mean[i], most]));
  const inside = values.filter(([i, , most]) => most !== null && (i + 1) * cell > start && i * cell < stop);
  const top = inside.reduce((most, [, , value]) => Math.max(most, value), 0);
  pane.trackTops[name] = top;
  const edge = room - TRACK;
  for (const [i, mean, most] of inside) {
    const [from, to] = [Math.max(0, at(i * cell)), Math.min(length, at(Math.min(info[axis], (i + 1) * cell)))];
    for (const [value, colour] of [[most, "--track-most"], [mean, "--track"]]) {
      const tall = top ? Math.max(0.5, (value / top) * (TRACK - 6)) : 0;
      context.fillStyle = cssColour(colour);
      if (along) context.fillRect(from, room - tall, Math.max(0.6, to - from), tall);
      else context.fillRect(room - tall, from, tall, Math.max(0.6, to - from));
    }
  }
  context.fillStyle = cssColour("--line");
  if (along) context.fillRect(0, edge, length, 0.5);
  else context.fillRect(edge, 0, 0.5, length);
}

/** Round positions, as numbers. */
function drawNumbers({ context, pane, axis, along, length, room, at, size }) {
  const step = everyNth(size / (along ? 5 : 3.2));
  const [start, stop] = pane.viewport.seen(axis);
  context.font = FONT.replace("12px", "11px");
  context.fillStyle = cssColour("--faint");
  for (let position = Math.ceil(start / step) * step; position < stop; position += step) {
    const place = at(position + (size > NEAR ? 0.5 : 0));
    if (place < 8 || place > length - 8) continue;
    if (along) {
      context.textAlign = "center";
      context.textBaseline = "bottom";
      context.fillText(String(position), place, room - TRACK - 1);
    } else {
      context.save();
      context.translate(room - TRACK - 2, place);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.textBaseline = "bottom";
      context.fillText(String(position), 0, 0);
      context.restore();
    }
  }
  context.font = FONT;
}

function drawTokens(ruler) {
  const { pane, axis, size, along } = ruler;
  const [start, stop] = pane.viewport.seen(axis);
  const step = everyNth(size, along);
  for (let position = Math.ceil(start / step) * step; position < stop; position += step) {
    const text = pane.labels.at(axis, position);
    if (text !== null) drawText(ruler, text, ruler.at(position + 0.5), isHere(axis, position) ? "here" : "paragraph");
  }
}

function isHere(axis, position) {
  const pair = state.cursor ?? state.pin;
  return pair !== null && (axis === "keys" ? pair.key : pair.query) === position;
}

/** Where documents, paragraphs and sentences begin: the higher first, the others where there is room between them. */
function drawOutline(ruler) {
  const { pane, axis, length, at } = ruler;
  const [start, stop] = pane.viewport.seen(axis);
  const entries = pane.labels.outline(axis, start, stop, Math.max(8, Math.floor(length / APART.sentence)));
  const taken = [];
  for (const level of RANK) {
    for (const entry of entries) {
      const place = at(entry.position) + 7;
      if (entry.level !== level || place < 6 || place > length - 4) continue;
      if (taken.some((other) => Math.abs(other - place) < APART[level])) continue;
      taken.push(place);
      drawText(ruler, entry.text, place, level);
    }
  }
}

function drawText({ context, along, room }, text, place, level) {
  context.font = level === "document" || level === "here" ? `600 ${FONT}` : FONT;
  context.fillStyle = cssColour({ document: "--ink", paragraph: "--ink", sentence: "--soft", here: "--accent-ink" }[level]);
  const edge = room - TRACK - NUMBERS - 3;
  if (along) drawColumn(context, [text, ""], place, edge, (edge - 4) / Math.sin(0.9));
  else drawRow(context, [text, ""], edge, place, edge - 6);
}

/** Where the pair under the pointer stands on this axis. */
function drawHere({ context, axis, along, room, at, size }) {
  for (const [pair, colour] of [[state.pin, "--accent"], [state.cursor, "--ink"]]) {
    if (!pair) continue;
    const place = at((axis === "keys" ? pair.key : pair.query) + 0.5);
    context.fillStyle = cssColour(colour);
    const wide = Math.max(2, Math.min(size, 3));
    if (along) context.fillRect(place - wide / 2, room - TRACK, wide, TRACK);
    else context.fillRect(room - TRACK, place - wide / 2, TRACK, wide);
  }
}
