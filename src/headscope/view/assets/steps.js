// The steps of a generation: a slider over the queries at which the model made its tokens, one after the other.

import { axesOf, page } from "./data.js";
import { byId, shortLabel } from "./dom.js";
import { choose, on, state } from "./state.js";

/** The query of the first step where the chosen layer has the steps, or -1. */
function firstStep() {
  if (!page.generated) return -1;
  const { queries } = axesOf(state.layer, state.item);
  return queries === page.axes[page.generated.axis] ? queries.length - page.generated.texts.length : -1;
}

function drawSteps() {
  const first = firstStep();
  byId("steps").hidden = first < 0;
  if (first < 0) return;
  const { texts } = page.generated;
  const step = state.query - first + 1;
  const slider = byId("step");
  Object.assign(slider, { min: 1, max: texts.length, value: Math.max(1, step) });
  const labels = axesOf(state.layer, state.item).queries.labels;
  const said = step < 1 ? `of ${texts.length}: choose one` : `${step} of ${texts.length}: reads “${shortLabel(labels[state.query], 16)}”, makes “${shortLabel(texts[step - 1], 16)}”`;
  byId("step-said").textContent = said;
  slider.setAttribute("aria-valuetext", said);
}

/** Wire up the slider. */
export function listenOnSteps() {
  byId("step").addEventListener("input", () => choose({ query: firstStep() + Number(byId("step").value) - 1, direction: "from" }));
  on("layer item query", drawSteps);
  drawSteps();
}
