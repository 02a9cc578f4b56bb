// Keys along a line: frames of sound with their seconds, or plain positions.

import { colourAt, position } from "./colour.js";
import { cssColour, make, sharpen } from "./dom.js";
import { choose, state } from "./state.js";

const HEIGHT = 120;
const FOOT = 18;
let strip = null;

/** A strip of bars over a line of keys; a low one where it only gives the overview of a long text. */
export function keyStrip(axis, pick, height = HEIGHT) {
  const canvas = make("canvas", { id: "strip-canvas", role: "img", "aria-label": "the weights along the keys" });
  strip = { axis, canvas, height };
  const keyAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(axis.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * axis.length)));
  };
  canvas.addEventListener("pointermove", (event) => choose({ cursor: { query: state.query, key: keyAt(event) } }));
  canvas.addEventListener("pointerleave", () => choose({ cursor: null }));
  canvas.addEventListener("click", (event) => pick(keyAt(event)));
  return make("div", { class: "strip" }, canvas);
}

/** Fill the strip with one row; `own` is the place of the query, where it is on the same line. */
export function paintStrip(weights, largest, own) {
  const { axis, canvas, height } = strip;
  const width = canvas.parentElement.clientWidth || 280;
  const context = sharpen(canvas, width, height + FOOT);
  const one = width / axis.length;
  for (let x = 0; x < width; x++) {
    // The largest weight of the keys that share this pixel.
    let weight = -1;
    for (let k = Math.floor(x / one); k < Math.min(axis.length, Math.max(Math.floor(x / one) + 1, (x + 1) / one)); k++) weight = Math.max(weight, weights[k]);
    const place = position(weight, largest);
    context.fillStyle = weight < 0 ? cssColour("--hatch") : colourAt(0.3 + 0.55 * place);
    const tall = weight < 0 ? 3 : place * (height - 4);
    context.fillRect(x, height - tall, 1, tall);
  }
  context.fillStyle = cssColour("--line");
  context.fillRect(0, height, width, 1);
  if (own >= 0) {
    context.fillStyle = cssColour("--accent");
    context.fillRect(Math.min(width - 2, (own + 0.5) * one - 1), 0, 2, height + 4);
  }
  drawFoot(context, strip, width, one);
}

function drawFoot(context, { axis, height }, width, one) {
  context.font = "11px ui-sans-serif, system-ui, sans-serif";
  context.fillStyle = cssColour("--faint");
  context.textBaseline = "top";
  const ticks = Math.max(1, Math.min(width > 400 ? 6 : 3, axis.length - 1));
  for (let i = 0; i <= ticks; i++) {
    const key = Math.round((i * (axis.length - 1)) / ticks);
    context.textAlign = i === 0 ? "left" : i === ticks ? "right" : "center";
    context.fillText(axis.kind === "tokens" ? String(key) : axis.labels[key], Math.min(width, Math.max(0, (key + 0.5) * one)), height + 5);
  }
}
