// What the colours mean, what is left out, and how exact the page is.

import { colourAt } from "./colour.js";
import { page } from "./data.js";
import { byId, make, weightText } from "./dom.js";
import { position } from "./scale.js";
import { state } from "./state.js";

const ABOUT_SPECIALS = {
  shown: "",
  hidden: "are hidden. The weights are the model’s own, so rows add up to less than 1.",
  renormalised: "are hidden, and each row is divided by its sum over the keys that are shown. These are not the model’s own weights.",
};
const NAMES = { linear: "", sqrt: ", square root", log: ", logarithmic", order: ": order within the row, not size" };
const VALUES = "Each weight is multiplied by the length of the value it carries, and each row divided by its sum.";

/** Draw the scale under the map. */
export function drawLegend(shown) {
  const { scale } = shown;
  const stops = Array.from({ length: 9 }, (_, i) => `${colourAt(i / 8)} ${(i * 12.5).toFixed(1)}%`);
  byId("legend-bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  byId("legend-ticks").replaceChildren(...ticksOf(scale).map(([at, text]) => tick(at, text)));
  byId("legend-unseen").hidden = !shown.unseen;
  byId("legend-name").textContent = `${state.weigh === "values" ? "value-weighted" : "weight"}${NAMES[scale.kind]}`;
  byId("legend-note").textContent = [clipText(scale), state.weigh === "values" ? VALUES : "", aboutSpecials()].filter(Boolean).join(" ");
}

/** What is left out, in the words of the switch that leaves it out. */
function aboutSpecials() {
  const said = ABOUT_SPECIALS[state.special];
  const noun = byId("special-name").textContent;
  return said && `${noun} ${noun.startsWith("Silence") ? said.replace("are", "is") : said}`;
}

function tick(at, text) {
  const span = make("span", {}, text);
  span.style.left = `${(100 * at).toFixed(1)}%`;
  span.style.transform = `translateX(-${(100 * at).toFixed(0)}%)`;
  return span;
}

/** Places along the bar, and what stands there. */
function ticksOf(scale) {
  if (scale.kind === "order") return [[0, "least of its row"], [1, "most"]];
  if (scale.kind === "log") {
    const powers = [];
    for (let weight = 1; weight > scale.floor * 2; weight /= 10) powers.unshift(weight);
    return [[0, `≤ ${short(scale.floor)}`], ...powers.map((weight) => [position(weight, scale), short(weight)]).filter(([at]) => at > 0.3)];
  }
  const middle = scale.kind === "sqrt" ? 0.25 : 0.5;
  return [[0, "0"], [0.5, short(middle * scale.top)], [1, `${clipped(scale) ? "≥ " : ""}${short(scale.top)}`]];
}

function clipped(scale) {
  return scale.top < 0.995 * scale.largest;
}

/** What is above the top of the scale. */
function clipText(scale) {
  if (scale.kind === "order") return "Order shows structure and exaggerates it: it says which key comes first in its row, and not by how much.";
  return clipped(scale) ? `The colours end at the 99.9th percentile, ${short(scale.top)}; the largest weight is ${short(scale.largest)}.` : "";
}

function short(weight) {
  return weight === 0 || weight >= 0.01 ? String(Number(weight.toFixed(weight < 0.1 ? 3 : 2))) : weightText(weight);
}

/** How exact the page is: said once, in the help. */
export function drawPrecision() {
  const wide = page.layers.reduce((count, layer) => count + layer.wide.filter(Boolean).length, 0);
  const text = `Every weight is computed here, in your browser, from q and k (16-bit${wide ? `; ${wide} of the key heads in 32-bit` : ""}). `;
  byId("precision").textContent = `${text}The largest difference from the exact weights, measured on a sample of the rows when the page was made: ${weightText(page.error)}.`;
  byId("missed").hidden = !page.missed?.length;
  byId("missed").replaceChildren(...(page.missed ?? []).map(([path, name, reason]) => make("li", {}, `${path} (${name}): ${reason}`)));
  byId("missed-title").hidden = byId("missed").hidden;
}
