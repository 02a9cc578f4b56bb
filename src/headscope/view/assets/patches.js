// Keys that are patches of a picture: the weights where the patches are.

import { picture } from "./colour.js";
import { byId, cssColour, make, sharpen, weightText } from "./dom.js";
import { choose, state } from "./state.js";

const WIDTH = 272;
let grid = null;

/** The picture's grid of patches, and the tokens that are none (class, registers) beside it. */
export function patchGrid(axis, pick) {
  const [rows, columns] = axis.grid;
  const extra = axis.length - rows * columns;
  const cell = Math.max(2, Math.floor(Math.min(WIDTH / columns, WIDTH / rows)));
  const canvas = make("canvas", { id: "patch-canvas", tabindex: "0", role: "img", "aria-label": `the weights over ${rows} × ${columns} patches` });
  const others = Array.from({ length: extra }, (_, i) => make("button", { type: "button", class: "ask" }, axis.labels[i], " ", make("span", { class: "rank-weight" })));
  others.forEach((button, i) => button.addEventListener("click", () => pick(i)));
  grid = { axis, rows, columns, extra, cell, canvas, others };
  const keyAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const [c, r] = [Math.floor((event.clientX - box.left) / cell), Math.floor((event.clientY - box.top) / cell)];
    return r >= 0 && c >= 0 && r < rows && c < columns ? extra + r * columns + c : -1;
  };
  canvas.addEventListener("pointermove", (event) => {
    const key = keyAt(event);
    choose({ cursor: key < 0 ? null : { query: state.query, key } });
  });
  canvas.addEventListener("pointerleave", () => choose({ cursor: null }));
  canvas.addEventListener("click", (event) => {
    if (keyAt(event) >= 0) pick(keyAt(event));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step === undefined) return;
    pick(Math.min(axis.length - 1, Math.max(0, grid.own + step)));
    event.preventDefault();
    event.stopPropagation();
  });
  return make("div", { class: "patches" }, canvas, make("div", { class: "text" }, ...others), make("p", { class: "note", id: "patch-source" }, axis.source ?? ""));
}

/** Fill the grid with the weights of one row; `own` is the patch that asks, where it is among them. */
export function paintPatches(weights, places, own, scale) {
  const { rows, columns, extra, cell, canvas, others } = grid;
  grid.own = own;
  const context = sharpen(canvas, columns * cell, rows * cell);
  context.fillStyle = cssColour("--hatch");
  context.fillRect(0, 0, columns * cell, rows * cell);
  context.imageSmoothingEnabled = false;
  let most = 0;
  for (let k = extra; k < weights.length; k++) most = Math.max(most, weights[k]);
  const cells = scale.kind === "order" ? places : weights;
  context.drawImage(picture(cells.subarray(extra), columns, rows, patchScale(scale, weights, extra)), 0, 0, columns * cell, rows * cell);
  others.forEach((button, i) => {
    button.lastChild.textContent = weightText(weights[i]);
    button.setAttribute("aria-pressed", String(i === own));
  });
  if (own >= extra) {
    context.strokeStyle = cssColour("--accent");
    context.lineWidth = 2;
    context.strokeRect(((own - extra) % columns) * cell, Math.floor((own - extra) / columns) * cell, cell, cell);
  }
  const source = grid.axis.source ? `${grid.axis.source} · ` : "";
  byId("patch-source").textContent = `${source}${rows} × ${columns} patches; the largest weight is ${weightText(most)}`;
}

/** The scale of the patches alone: from their least to their largest where a head is so even that one colour is all there is. */
function patchScale(scale, weights, extra) {
  if (scale.kind !== "linear" && scale.kind !== "sqrt") return scale;
  let most = 0;
  for (let k = extra; k < weights.length; k++) most = Math.max(most, weights[k]);
  return { ...scale, top: most || 1 };
}
