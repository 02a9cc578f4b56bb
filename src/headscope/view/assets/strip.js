// Keys along a line: frames of sound with their spectrogram and seconds, or plain positions.

import { colourAt } from "./colour.js";
import { itemOf, page } from "./data.js";
import { cssColour, make, sharpen } from "./dom.js";
import { imageOf } from "./images.js";
import { shownOf } from "./shown.js";
import { choose, state } from "./state.js";

const HEIGHT = 120;
const FOOT = 18;
const SOUND = 56; // The height of the spectrogram under the bars.
const SPAN = 0.5; // The share of the weight whose shortest stretch is marked.
let strip = null;

/** A strip of bars over a line of keys; a low one where it only gives the overview of a long text. */
export function keyStrip(axis, pick, height = HEIGHT) {
  const canvas = make("canvas", { id: "strip-canvas", role: "img", "aria-label": "the weights along the keys" });
  const note = make("p", { class: "note", id: "strip-note" });
  strip = { axis, canvas, height, note, sound: axis.strip === null || axis.strip === undefined ? 0 : SOUND };
  const keyAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const [first, last] = rangeOf(axis);
    return Math.min(last, Math.max(first, first + Math.floor(((event.clientX - box.left) / box.width) * (last - first + 1))));
  };
  canvas.addEventListener("pointermove", (event) => choose({ cursor: { query: state.query, key: keyAt(event) } }));
  canvas.addEventListener("pointerleave", () => choose({ cursor: null }));
  canvas.addEventListener("click", (event) => pick(keyAt(event)));
  return make("div", { class: "strip" }, canvas, note);
}

/** The first and the last key that are shown: silence at the end of a sound is left out where it is hidden. */
function rangeOf(axis) {
  const shown = shownOf(axis);
  return [shown[0], shown[shown.length - 1]];
}

/** The shortest stretch of keys with a share of the weight: [first, last], or null where there is none. */
export function spanOf(weights, share = SPAN) {
  const values = Array.from(weights, (weight) => Math.max(0, weight));
  const wanted = share * values.reduce((sum, value) => sum + value, 0);
  if (!(wanted > 0)) return null;
  let best = null;
  for (let first = 0, last = -1, sum = 0; first < values.length; sum -= values[first++]) {
    while (sum < wanted - 1e-9 && last + 1 < values.length) sum += values[++last];
    if (sum < wanted - 1e-9) break;
    if (!best || last - first < best[1] - best[0]) best = [first, last];
  }
  return best;
}

/** When the chosen token was spoken, by time warping over the heads that move along with the sound; or null. */
function spokenSpan() {
  const entry = page.layers[state.layer];
  const timed = page.times && itemOf(state.layer, state.item) === 0 && entry.queries[0] === page.times.axis && entry.kind === "cross";
  return timed ? page.times.spans[state.query] : null;
}

/** Fill the strip with one row; `own` is the place of the query, where it is on the same line. */
export function paintStrip(weights, places, own) {
  strip.last = [weights, places, own];
  const { axis, canvas, height, sound } = strip;
  const width = canvas.parentElement.clientWidth || 280;
  const context = sharpen(canvas, width, height + sound + FOOT);
  const [start, end] = rangeOf(axis);
  const one = width / (end - start + 1);
  for (let x = 0; x < width; x++) {
    // The largest weight of the keys that share this pixel.
    let place = -1;
    const first = start + Math.floor(x / one);
    for (let k = first; k < Math.min(end + 1, Math.max(first + 1, start + (x + 1) / one)); k++) place = Math.max(place, places[k]);
    context.fillStyle = place < 0 ? cssColour("--hatch") : colourAt(0.3 + 0.55 * place);
    const tall = place < 0 ? 3 : place * (height - 4);
    context.fillRect(x, height - tall, 1, tall);
  }
  context.fillStyle = cssColour("--line");
  context.fillRect(0, height, width, 1);
  if (sound) drawSound(context, width, start, end);
  const span = axis.kind === "frames" ? spanOf(weights) : null;
  if (span) drawSpan(context, (span[0] - start) * one, (span[1] + 1 - start) * one, height + sound);
  const spoken = axis.kind === "frames" ? spokenSpan() : null;
  if (spoken) drawSpoken(context, (spoken[0] - start) * one, (spoken[1] - start) * one, height + sound);
  if (own >= start && own <= end) {
    context.fillStyle = cssColour("--accent");
    context.fillRect(Math.min(width - 2, (own - start + 0.5) * one - 1), 0, 2, height + sound + 4);
  }
  drawFoot(context, width, one, start, end);
  const half = span ? `Half of the weight lies between ${secondsText(axis, span[0])} and ${secondsText(axis, span[1] + 1)}.` : "";
  strip.note.textContent = [spoken ? spokenText(axis, spoken) : "", half].filter(Boolean).join(" ");
  Object.assign(canvas.dataset, { start, end, span: span ? span.join(",") : "", spoken: spoken ? spoken.join(",") : "" });
}

/** The spectrogram on the same time axis. */
function drawSound(context, width, start, end) {
  const { axis, height, sound } = strip;
  const image = imageOf(axis.strip, () => strip.last && paintStrip(...strip.last));
  if (!image) return;
  const each = image.width / axis.length;
  context.drawImage(image, start * each, 0, (end - start + 1) * each, image.height, 0, height + 1, width, sound - 2);
}

/** The stretch with half of the weight: a bracket through bars and sound. */
function drawSpan(context, left, right, bottom) {
  context.fillStyle = cssColour("--accent");
  context.globalAlpha = 0.16;
  context.fillRect(left, 0, Math.max(2, right - left), bottom);
  context.globalAlpha = 1;
  context.fillRect(left, bottom, Math.max(2, right - left), 3);
}

/** When the chosen token was spoken: a line with ends above the bars. */
function drawSpoken(context, left, right, bottom) {
  context.fillStyle = cssColour("--ink");
  context.fillRect(left, 1, Math.max(2, right - left), 2);
  for (const x of [left, Math.max(left + 2, right) - 1]) context.fillRect(x, 1, 1, bottom);
}

function spokenText(axis, [first, stop]) {
  const heads = page.times.heads.map(([layer, head]) => `${layer}.${head}`).join(", ");
  return `Spoken from ${secondsText(axis, first)} to ${secondsText(axis, stop)}, by the weights of heads ${heads}.`;
}

function drawFoot(context, width, one, start, end) {
  const { axis, height, sound } = strip;
  context.font = "11px ui-sans-serif, system-ui, sans-serif";
  context.fillStyle = cssColour("--faint");
  context.textBaseline = "top";
  for (const key of roundTicks(axis, width, start, end)) {
    const x = Math.min(width, Math.max(0, (key - start + 0.5) * one));
    context.textAlign = x < 20 ? "left" : x > width - 30 ? "right" : "center";
    context.fillText(axis.kind === "frames" ? secondsText(axis, key) : String(key), x, height + sound + 5);
  }
}

/** Round numbers along the strip: of keys, or of seconds. */
function roundTicks(axis, width, start, end) {
  const most = Math.max(2, Math.floor(width / 60));
  const unit = axis.seconds ?? 1;
  const long = (end - start + 1) * unit;
  const step = [1, 2, 5].flatMap((factor) => Array.from({ length: 9 }, (_, power) => factor * 10 ** (power - 3))).sort((a, b) => a - b).find((found) => long / found <= most && found >= unit) ?? long;
  const ticks = [];
  for (let at = 0; at < long; at += step) ticks.push(Math.min(end, start + Math.round(at / unit)));
  return ticks;
}

function secondsText(axis, key) {
  return `${Number((key * axis.seconds).toFixed(2))} s`;
}
