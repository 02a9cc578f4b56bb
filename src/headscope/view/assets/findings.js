// What the heads do, in plain words; a click shows the head.

import { itemOf, page } from "./data.js";
import { byId, make } from "./dom.js";
import { choose, on, state } from "./state.js";

let lines = [];

/** Build the list of findings. */
export function buildFindings() {
  byId("findings").hidden = page.findings.length === 0;
  byId("findings-count").textContent = String(page.findings.length);
  lines = page.findings.map((finding) => {
    const layer = page.layers[finding.layer];
    const tag = page.single ? null : make("span", { class: "tag" }, `${layer.number}.${layer.heads[finding.head]}`);
    const button = make("button", { type: "button" }, ...(tag ? [tag] : []), make("span", {}, ...withQuotes(finding.text)));
    button.addEventListener("click", () => show(finding));
    byId("findings-list").append(make("li", {}, button));
    return button;
  });
  markLines();
  on("layer head item", markLines);
}

/** A text whose quoted parts keep their own writing direction. */
function withQuotes(text) {
  return text.split(/("[^"]*")/).map((part) => (part.startsWith('"') ? make("bdi", {}, part) : part));
}

/** Go to the head of a finding, and to the row it speaks of. Findings are about the first batch item. */
function show(finding) {
  const change = { layer: finding.layer, head: finding.head, item: 0 };
  if (Number.isInteger(finding.query)) change.query = finding.query;
  if (Number.isInteger(finding.query) && Number.isInteger(finding.key)) change.cursor = { query: finding.query, key: finding.key };
  choose(change);
}

function markLines() {
  page.findings.forEach((finding, i) => lines[i].classList.toggle("here", isHere(finding)));
}

function isHere(finding) {
  return finding.layer === state.layer && finding.head === state.head && itemOf(state.layer, state.item) === 0;
}

/** What is said about the head that is shown, in nodes for a paragraph. */
export function saidHere() {
  return withQuotes(page.findings.filter(isHere).slice(0, 3).map((finding) => finding.text).join(" · "));
}
