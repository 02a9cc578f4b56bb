// The chosen head as arcs over a line of text, or as lines between two: drawing. What is drawn is SVG with real text.

import { colourAt } from "./colour.js";
import { cssColour, wordOf } from "./dom.js";

const MADE_IN = "http://www.w3.org/2000/svg";
const SIZES = [[15, 16], [14, 12], [13, 9]]; // of a letter, and the gap between two words: the first that fits
const FAMILY = "ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const LINE = 26; // The height of a line of text.
const BETWEEN = 96; // Pixels between two lines of text.
const measuring = document.createElement("canvas").getContext("2d");

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(MADE_IN, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Where every word stands: `lines` hold { axis, side, positions }; the sides are "query", "key" or "both". */
export function layWords(lines, width, { above, below }) {
  const longest = (size, gap) => Math.max(...lines.map(({ axis, positions }) => positions.reduce((sum, i) => sum + widthOf(axis, i, size) + gap, 8)));
  const [size, gap] = SIZES.find((found) => longest(...found) <= width) ?? SIZES[SIZES.length - 1];
  const wider = Math.min(34, gap + Math.max(0, (width - longest(size, gap)) / Math.max(1, Math.max(...lines.map(({ positions }) => positions.length)))));
  const words = [];
  let right = 0;
  lines.forEach(({ axis, side, positions }, line) => {
    let x = 8;
    const y = above + line * (LINE + BETWEEN);
    for (const position of positions) {
      const wide = widthOf(axis, position, size);
      words.push({ axis, side, position, line, text: wordOf(axis.labels[position], 18), x, y, width: wide, middle: x + wide / 2 });
      x += wide + wider;
    }
    right = Math.max(right, x);
  });
  const height = above + (lines.length - 1) * (LINE + BETWEEN) + LINE + below + 10;
  return { words, size, width: Math.max(right, 40), height };
}

function widthOf(axis, position, size) {
  measuring.font = `600 ${size}px ${FAMILY}`;
  return Math.max(8, measuring.measureText(wordOf(axis.labels[position], 18)).width);
}

/** How high an arc rises over so many pixels. */
export function rise(distance, most) {
  return Math.min(most, 14 + 0.34 * distance);
}

/** The path of a link: an arc up or down on one line, a line between two. */
export function pathOf(from, to, { up, most }) {
  if (from.line !== to.line) {
    const down = from.line < to.line;
    const [y1, y2] = [from.y + (down ? LINE + 2 : -2), to.y + (down ? -2 : LINE + 2)];
    const bend = (y2 - y1) * 0.45;
    return `M${r(from.middle)} ${r(y1)}C${r(from.middle)} ${r(y1 + bend)} ${r(to.middle)} ${r(y2 - bend)} ${r(to.middle)} ${r(y2)}`;
  }
  const own = from === to;
  const [x1, x2] = own ? [from.middle - 5, from.middle + 5] : [from.middle, to.middle];
  const y = up ? from.y - 1 : from.y + LINE + (from.bar ? 8 : 1);
  const control = y + ((up ? -1 : 1) * 4 * (own ? 16 : rise(Math.abs(x2 - x1), most))) / 3;
  return `M${r(x1)} ${r(y)}C${r(x1)} ${r(control)} ${r(x2)} ${r(control)} ${r(x2)} ${r(y)}`;
}

function r(value) {
  return Math.round(value * 10) / 10;
}

/** One link as a path; the chosen word's links stand out. */
export function linkPath(link, shape) {
  const { weight, own, hue, from, to } = link;
  const path = svg("path", {
    d: pathOf(from, to, shape),
    fill: "none",
    stroke: own ? cssColour("--accent-ink") : (hue ?? colourAt(0.42 + 0.4 * weight)),
    "stroke-opacity": own ? 0.95 : hue ? 0.75 : 0.6,
    "stroke-width": r(1 + 6 * weight),
    "stroke-linecap": "round",
    "stroke-dasharray": shape.dashed ? `${r(3 + 6 * weight)} ${r(5 + 9 * weight)}` : null,
    "data-query": link.query,
    "data-key": link.key,
    "data-weight": weight.toFixed(5),
  });
  return path;
}

/** A word with its ground, and under it how much of its weight rests on special tokens. */
export function wordGroup(word, size) {
  const ground = svg("rect", { class: "ground", x: r(word.x - 4), y: word.y, width: r(word.width + 8), height: LINE, rx: 5 });
  const text = svg("text", { x: r(word.middle), y: word.y + LINE / 2, "font-size": size, "text-anchor": "middle", "dominant-baseline": "central" }, word.text);
  const group = svg("g", { class: "word", role: "option", "data-position": word.position, "data-side": word.side }, ground, text);
  if (word.bar) {
    group.append(
      svg("rect", { class: "track", x: r(word.x), y: word.y + LINE + 3, width: r(word.width), height: 4, rx: 2 }),
      svg("rect", { class: "rest", x: r(word.x), y: word.y + LINE + 3, width: 0, height: 4, rx: 2 }),
    );
  }
  return group;
}
