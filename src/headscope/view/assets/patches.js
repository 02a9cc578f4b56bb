// Positions that are patches of a picture: the weights where the patches are, over the picture itself.

import { colourAt, picture } from "./colour.js";
import { drawContour, edgesOf, massOf } from "./contours.js";
import { cssColour, make, sharpen, weightText } from "./dom.js";
import { imageOf, onGrid, patchOf, positionAt, windowName } from "./images.js";
import { position } from "./scale.js";
import { ARROWS, state } from "./state.js";

const WIDEST = 340;
const CONTOURS = [[0.8, [3, 3]], [0.5, []]]; // Shares of the weight, and how their lines are dashed.

/** The grid of one picture within an axis. `pick` chooses a position, `hover` points at one or at null. */
export class PatchGrid {
  constructor(axis, region, { pick, hover, name }) {
    Object.assign(this, { axis, region, pick, hover, name, last: null });
    this.canvas = make("canvas", { class: "patch-canvas", tabindex: "0", role: "application", "aria-roledescription": "picture" });
    this.note = make("p", { class: "note patch-note" });
    this.element = make("div", { class: "patches" }, this.canvas, this.note);
    this.canvas.addEventListener("pointermove", (event) => hover(this.positionAt(event)));
    this.canvas.addEventListener("pointerleave", () => hover(null));
    this.canvas.addEventListener("click", (event) => this.positionAt(event) !== null && pick(this.positionAt(event)));
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** The position whose patch is under the pointer, or null. */
  positionAt(event) {
    const { rows, columns } = this.region;
    const box = this.canvas.getBoundingClientRect();
    const [c, r] = [Math.floor(((event.clientX - box.left) / box.width) * columns), Math.floor(((event.clientY - box.top) / box.height) * rows)];
    return r >= 0 && c >= 0 && r < rows && c < columns ? positionAt(this.region, r * columns + c) : null;
  }

  /** Arrow keys go to the next patch in their direction, across those that are not there. */
  onKey(event) {
    const step = ARROWS[event.key];
    const { at, rows, columns, cells } = this.region;
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const first = cells?.find((cell) => cell !== null) ?? 0;
    const own = patchOf(this.region, this.last?.own ?? at) ?? first;
    let [r, c] = [Math.floor(own / columns) + step[0], (own % columns) + step[1]];
    for (; r >= 0 && c >= 0 && r < rows && c < columns; [r, c] = [r + step[0], c + step[1]]) {
      const next = positionAt(this.region, r * columns + c);
      if (next === null) continue;
      this.pick(next);
      break;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Draw the values of all positions of the axis; `own` is the position that is chosen among them. */
  paint(values, scale, own, column = false) {
    this.last = { values, scale, own, column };
    const { rows, columns, cells, image, source } = this.region;
    const cell = Math.max(2, Math.floor(Math.min((this.element.clientWidth || 272) / columns, WIDEST / columns, WIDEST / rows)));
    const [width, height] = [columns * cell, rows * cell];
    const context = sharpen(this.canvas, width, height);
    const photo = imageOf(image, () => this.last && this.paint(this.last.values, this.last.scale, this.last.own, this.last.column));
    const part = onGrid(this.region, values);
    context.fillStyle = cssColour("--hatch");
    context.fillRect(0, 0, width, height);
    if (photo && state.photo !== "weights") context.drawImage(photo, 0, 0, width, height);
    if (!photo || state.photo !== "picture") drawWeights(context, part, this.region, cell, ownScale(scale, part), photo && state.photo === "both");
    if (cells) drawVeil(context, cells, columns, cell, width, height);
    const masses = CONTOURS.map(([share, dash]) => {
      const { inside, count } = massOf(part, share);
      if (count < (cells ? cells.length : part.length)) drawContour(context, edgesOf(inside, rows, columns), cell, cell, dash);
      return count;
    });
    const place = patchOf(this.region, own);
    if (place !== null) drawOwn(context, place, columns, cell);
    this.describe(part, source, masses, column);
  }

  describe(part, source, [most, half], column) {
    const { rows, columns, cells } = this.region;
    const count = cells ? cells.filter((cell) => cell !== null).length : rows * columns;
    const what = cells ? `${count} of ${rows} × ${columns} patches` : `${rows} × ${columns} patches`;
    let [sum, largest] = [0, 0];
    for (const value of part) if (value > 0) [sum, largest] = [sum + value, Math.max(largest, value)];
    Object.assign(this.canvas.dataset, { sum: sum.toFixed(4), half, most });
    this.canvas.setAttribute("aria-label", `${this.name}: ${what}. Arrow keys choose one.`);
    const over = column ? `Column: the weights of ${count} patches on the chosen key, sum ${sum.toFixed(2)}` : `${sum.toFixed(3)} of the weight on ${cells ? what : `${count} patches`}`;
    const named = windowName(this.axis);
    const said = `${named ? `Window: ${named}. ` : ""}${over}, largest ${weightText(largest)}. Lines: half of it on ${half}, four fifths on ${most}.`;
    this.note.textContent = `${source ? `${source} · ` : ""}${said}`;
  }
}

/** The cells in colour; over a picture the lighter the less they weigh. */
function drawWeights(context, values, { rows, columns }, cell, scale, over) {
  context.imageSmoothingEnabled = false;
  if (!over) return context.drawImage(picture(values, columns, rows, scale), 0, 0, columns * cell, rows * cell);
  for (let i = 0; i < values.length; i++) {
    if (values[i] < 0) continue;
    const place = position(values[i], scale);
    context.globalAlpha = 0.12 + 0.66 * place;
    context.fillStyle = colourAt(place);
    context.fillRect((i % columns) * cell, Math.floor(i / columns) * cell, cell, cell);
  }
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
}

/** A veil over the patches that are not in the window. */
function drawVeil(context, cells, columns, cell, width, height) {
  const path = new Path2D();
  path.rect(0, 0, width, height);
  for (const place of cells) if (place !== null) path.rect((place % columns) * cell, Math.floor(place / columns) * cell, cell, cell);
  context.save();
  context.globalAlpha = 0.6;
  context.fillStyle = cssColour("--ground");
  context.fill(path, "evenodd");
  context.restore();
}

function drawOwn(context, place, columns, cell) {
  const [x, y] = [(place % columns) * cell, Math.floor(place / columns) * cell];
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.lineWidth = 4;
  context.strokeRect(x, y, cell, cell);
  context.strokeStyle = cssColour("--accent");
  context.lineWidth = 2;
  context.strokeRect(x, y, cell, cell);
}

/** The scale of the patches alone: up to their largest, as a class token may take nearly all of a row. */
export function ownScale(scale, values) {
  const kind = scale.kind === "order" ? "sqrt" : scale.kind;
  if (kind !== "linear" && kind !== "sqrt") return scale;
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return { ...scale, kind, top: most || 1 };
}
