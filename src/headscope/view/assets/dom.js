// Elements, and words for numbers. Every text from outside goes in as text, never as HTML.

import { theme } from "./state.js";

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A new element with attributes, text and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A number of things: "1 head", "2 heads". */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A weight for reading: four decimals, or powers of ten where those would be zeros. */
export function weightText(weight) {
  if (Number.isNaN(weight)) return "not a number";
  if (weight < 0) return "may not be seen";
  if (weight === 0) return "0";
  if (weight >= 0.001) return weight.toFixed(4);
  const [digits, power] = weight.toExponential(1).split("e");
  return `${digits} · 10${[...power].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("")}`;
}

/** A label cut to a number of letters; whole letters, not halves of pairs. */
export function shortLabel(label, longest) {
  const letters = [...label];
  return letters.length <= longest ? label : `${letters.slice(0, longest - 1).join("")}…`;
}

/** A label as a word in running text: the mark of the space before it is left out. */
export function wordOf(label, longest = 28) {
  const bare = label.replace(/^␣(?=.)/, "").replace(/^##(?=.)/, "");
  return shortLabel(bare, longest);
}

/** Whether a label begins a new word where the text it comes from marks that, in labels like "␣the" or "##ing". */
export function beginsWord(labels, i) {
  if (labels.marksSpaces === undefined) labels.marksSpaces = labels.some((label) => label.startsWith("␣"));
  return labels.marksSpaces ? labels[i].startsWith("␣") || i === 0 : !labels[i].startsWith("##");
}

/** A canvas made sharp for this screen: its size in CSS pixels, its context in the same. */
export function sharpen(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio);
  const h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

const colours = new Map();

/** The colour that a CSS variable has in the theme of the moment. */
export function cssColour(name) {
  const key = `${theme()} ${name}`;
  if (!colours.has(key)) {
    const probe = document.body.appendChild(make("span"));
    probe.style.color = `var(${name})`;
    colours.set(key, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(key);
}

/** Whether letters of a text are written from right to left. */
export function rightToLeft(labels) {
  const sample = labels.slice(0, 400).join("");
  const count = (pattern) => (sample.match(pattern) ?? []).length;
  return count(/[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/g) > count(/[a-z\u00c0-\u024f\u0370-\u052f]/gi);
}
