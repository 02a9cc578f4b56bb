// Keys along a line: frames of sound with their seconds, or plain positions.

import { colourAt } from "./colour.js";
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
export function paintStrip(weights, places, own) {
  const { axis, canvas, height } = strip;
  const width = canvas.parentElement.clientWidth || 280;
  const context = sharpen(canvas, width, height + FOOT);
  const one = width / axis.length;
  for (let x = 0; x < width; x++) {
    // The largest weight of the keys that share this pixel.
    let place = -1;
    for (let k = Math.floor(x / one); k < Math.min(axis.length, Math.max(Math.floor(x / one) + 1, (x + 1) / one)); k++) place = Math.max(place, places[k]);
    context.fillStyle = place < 0 ? cssColour("--hatch") : colourAt(0.3 + 0.55 * place);
    const tall = place < 0 ? 3 : place * (height - 4);
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
  for (const key of roundTicks(axis, width)) {
    const x = Math.min(width, Math.max(0, (key + 0.5) * one));
    context.textAlign = x < 20 ? "left" : x > width - 30 ? "right" : "center";
    context.fillText(axis.kind === "tokens" || axis.kind === "positions" ? String(key) : secondsText(axis, key), x, height + 5);
  }
}

/** Round numbers along the strip: of keys, or of seconds. */
function roundTicks(axis, width) {
  const most = Math.max(2, Math.floor(width / 60));
  const unit = axis.seconds ?? 1;
  const long = axis.length * unit;
  const step = [1, 2, 5].flatMap((factor) => Array.from({ length: 9 }, (_, power) => factor * 10 ** (power - 3))).sort((a, b) => a - b).find((found) => long / found <= most && found >= unit) ?? long;
  const ticks = [];
  for (let at = 0; at < long; at += step) ticks.push(Math.min(axis.length - 1, Math.round(at / unit)));
  return ticks;
}

function secondsText(axis, key) {
  return `${Number((key * axis.seconds).toFixed(2))} s`;
}
