// How much every head moved: a grid of one fixed scale, and the list of those that moved most.

import { colourAt } from "./colour.js";
import { page } from "./data.js";
import { byId, make } from "./dom.js";
import { ARROWS, choose, on, state } from "./state.js";

const LISTED = 10;
const TICKS = [0, 0.1, 0.25, 0.5, 1];
let moverCells = [];

/** The place of a share on the fixed scale from 0 to 1: the square root, so that a tenth can be seen. */
function movedPlace(share) {
  return Math.sqrt(Math.min(1, Math.max(0, share)));
}

/** What a head is called, by the model's numbers. */
export function moverName(l, h) {
  const { inputs, numbers } = page.compare;
  return `${numbers[l]}.${page.layers[inputs[state.input].first + l].heads[h]}`;
}

/** Build the grid and the list of the chosen input. */
export function drawMovers() {
  const { inputs, numbers } = page.compare;
  const { first, moved } = inputs[state.input];
  const widest = Math.max(...moved.map((layer) => layer.length));
  const grid = byId("moved");
  const size = Math.max(12, Math.min(26, Math.floor((byId("moved-box").clientWidth - 30) / widest) - 2));
  grid.style.setProperty("--size", `${size}px`);
  grid.style.gridTemplateColumns = `24px repeat(${widest}, ${size}px)`;
  const every = size < 16 ? 4 : 1;
  const head = make("div", { class: "moved-row", "aria-hidden": "true" }, make("span"), ...Array.from({ length: widest }, (_, h) => make("span", {}, h % every ? "" : String(page.layers[first].heads[h] ?? h))));
  moverCells = moved.map((layer, l) => layer.map((share, h) => cellOfMover(l, h, share)));
  const rows = moved.map((layer, l) => {
    const empty = Array.from({ length: widest - layer.length }, () => make("span"));
    return make("div", { class: "moved-row", role: "row" }, make("span", { role: "rowheader" }, String(numbers[l])), ...moverCells[l], ...empty);
  });
  grid.replaceChildren(head, ...rows);
  const order = moved.flatMap((layer, l) => layer.map((share, h) => ({ l, h, share }))).sort((a, b) => b.share - a.share);
  const lines = order.slice(0, LISTED).map(({ l, h, share }) => {
    const button = make("button", { type: "button", "data-place": `${l}.${h}` }, make("span", { class: "tag" }, moverName(l, h)), `moved ${share.toFixed(2)}`);
    button.addEventListener("click", () => choose({ layer: l, head: h }));
    return make("li", {}, button);
  });
  byId("movers").replaceChildren(...lines);
  drawMovedScale();
  markMover();
}

/** The fixed scale under the grid. */
function drawMovedScale() {
  const stops = Array.from({ length: 9 }, (_, i) => `${colourAt(i / 8)} ${(i * 12.5).toFixed(1)}%`);
  byId("moved-bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  byId("moved-ticks").replaceChildren(
    ...TICKS.map((share) => {
      const tick = make("span", {}, String(share));
      tick.style.left = `${100 * movedPlace(share)}%`;
      tick.style.transform = `translateX(-${100 * movedPlace(share)}%)`;
      return tick;
    }),
  );
}

function cellOfMover(l, h, share) {
  const name = `layer ${page.compare.numbers[l]} head ${moverName(l, h).split(".")[1]}: moved ${share.toFixed(2)}`;
  const button = make("button", { type: "button", role: "gridcell", tabindex: "-1", title: name, "aria-label": name });
  button.style.background = colourAt(movedPlace(share));
  button.addEventListener("click", () => choose({ layer: l, head: h }));
  return button;
}

function markMover() {
  moverCells.forEach((row, l) => row.forEach((cell, h) => {
    const chosen = l === state.layer && h === state.head;
    cell.tabIndex = chosen ? 0 : -1;
    cell.setAttribute("aria-selected", String(chosen));
    if (chosen && byId("moved").contains(document.activeElement)) cell.focus({ preventScroll: true });
  }));
  for (const button of byId("movers").querySelectorAll("button")) button.classList.toggle("here", button.dataset.place === `${state.layer}.${state.head}`);
}

/** Arrows choose the head beside the chosen one. */
export function listenOnMovers() {
  byId("moved").addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const [l, h] = [state.layer + step[0], state.head + step[1]];
    if (moverCells[l]?.length) choose({ layer: l, head: Math.min(Math.max(0, h), moverCells[l].length - 1) });
    event.preventDefault();
  });
  on("layer head", markMover);
  on("input theme", drawMovers);
}
