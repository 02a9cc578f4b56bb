// What the colours mean, and what is left out.

import { colourAt } from "./colour.js";
import { page } from "./data.js";
import { byId, make, weightText } from "./dom.js";
import { state } from "./state.js";

const SAID = {
  shown: "",
  hidden: "Special tokens are hidden. The weights are the model’s own, so rows add up to less than 1.",
  renormalised: "Special tokens are hidden, and each row is divided by its sum over the keys that are shown. These are not the model’s own weights.",
};

/** Draw the scale under the map. */
export function drawLegend(shown) {
  const stops = Array.from({ length: 9 }, (_, i) => `${colourAt(i / 8)} ${(i * 12.5).toFixed(1)}%`);
  byId("legend-bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const log = state.scale === "log";
  const ticks = log ? ["≤ 10⁻⁴", "10⁻³", "0.01", "0.1", "1"] : [0, 0.5, 1].map((share) => scaleText(share * shown.top));
  byId("legend-ticks").replaceChildren(...ticks.map((tick) => make("span", {}, tick)));
  byId("legend-unseen").hidden = !shown.unseen;
  byId("legend-name").textContent = log ? "weight (logarithmic)" : "weight";
  byId("legend-note").textContent = SAID[state.special];
}

function scaleText(weight) {
  return weight === 0 || weight >= 0.01 ? String(Number(weight.toFixed(2))) : weightText(weight);
}

/** How exact the page is: said once, in the help. */
export function drawPrecision() {
  const wide = page.layers.reduce((count, layer) => count + layer.wide.filter(Boolean).length, 0);
  const text = `Every weight is computed here, in your browser, from q and k (16-bit${wide ? `; ${wide} of the key heads in 32-bit` : ""}). `;
  byId("precision").textContent = `${text}The largest difference from the exact weights, measured on a sample of the rows when the page was made: ${weightText(page.error)}.`;
}
