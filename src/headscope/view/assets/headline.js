// What is said of the chosen head: one sentence, its other findings, and an offer where special tokens take over.

import { axesOf, itemOf, page, saidOfHead } from "./data.js";
import { byId, make } from "./dom.js";
import { chosenHeads, choose, state } from "./state.js";

const MOST_ALSO = 2;
const TAKE_OVER = 0.5;
const TOGETHER = 24; // Names of fewer letters are not broken over two lines.
const COMBINED = { mean: "their mean", max: "the largest weight among them", count: "the share of them with a weight of 0.1 or more" };

/** A text whose quoted parts keep their own writing direction. */
export function withQuotes(text) {
  return text.split(/("[^"]*")/).filter(Boolean).map((part) => (part.startsWith('"') ? make("bdi", { class: part.length < TOGETHER ? "named together" : "named" }, part) : part));
}

/** The name of a head, by the model's numbers. */
export function headName(layer, head) {
  if (page.layers[layer].derived) return "Rollout";
  return page.single ? "One head" : `Layer ${page.layers[layer].number} · head ${page.layers[layer].heads[head]}`;
}

/** Whether findings speak of what is shown: they are about the first batch item. */
export function findingsHold() {
  return itemOf(state.layer, state.item) === 0;
}

/** Write the headline of the chosen head, or of the chosen heads. */
export function drawHeadline(chosen) {
  const heads = chosenHeads();
  const { queries, keys } = axesOf(state.layer, state.item);
  const layer = page.layers[state.layer];
  if (heads.length > 1) {
    byId("head-title").textContent = `${heads.length} heads`;
    byId("headline").textContent = COMBINED[state.combine];
    byId("also").textContent = heads.map(([l, h]) => `${page.layers[l].number}.${page.layers[l].heads[h]}`).join(", ");
  } else {
    const [first, ...rest] = findingsHold() ? saidOfHead(state.layer, state.head) : [];
    byId("head-title").textContent = headName(state.layer, state.head);
    byId("headline").replaceChildren(...withQuotes(first?.text ?? spreadText(chosen, keys)));
    byId("also").replaceChildren(...rest.slice(0, MOST_ALSO).flatMap(({ text }, i) => [i ? " · " : "also: ", ...withQuotes(text)]));
  }
  byId("also").hidden = !byId("also").textContent;
  byId("head-kind").textContent = layer.kind === "self" ? "" : `${layer.kind === "cross" ? "cross-attention" : layer.kind}: ${queries.length} ${queries.kind} look at ${keys.length} ${keys.kind}`;
  byId("head-name").textContent = layer.name;
  offerHiding(heads);
}

function spreadText(chosen, keys) {
  return chosen.shown ? `spread over about ${Math.round(chosen.spread)} of ${keys.length} ${keys.kind}` : "";
}

/** Where most of a head's weight rests on special tokens, offer to leave them out. */
function offerHiding(heads) {
  const share = heads.length === 1 ? page.heads?.measures.special?.[state.layer]?.[state.head] : null;
  const { keys } = axesOf(state.layer, state.item);
  const offer = state.special === "shown" && share >= TAKE_OVER && keys.special.length < keys.length;
  byId("offer").hidden = !offer;
  if (!offer) return;
  const button = make("button", { type: "button", class: "plain" }, "Hide them");
  button.addEventListener("click", () => choose({ special: "hidden" }));
  byId("offer").replaceChildren(`${share.toFixed(2)} of this head’s weight rests on special tokens. `, button);
}
