// The row and the column of the pair that is looked at: their weights beside the map, and their strongest places in words.

import { colourAt } from "./colour.js";
import { byId, cssColour, make, sharpen, shortLabel, weightText } from "./dom.js";
import { state } from "./state.js";
import { askJSON } from "./wire.js";

const PAUSE = 140; // Milliseconds that the pointer rests before its row and column are asked for.
const TOP = 10;

/** The row and the column of one head. */
export class Profiles {
  constructor(pane, arrived) {
    Object.assign(this, { pane, arrived, row: null, column: null, asked: "" });
  }

  /** Ask for the row and the column of the pinned pair, or of the one under the pointer. */
  follow() {
    const pair = state.pin ?? state.cursor;
    clearTimeout(this.timer);
    if (pair) this.timer = setTimeout(() => this.ask(pair), state.pin ? 20 : PAUSE);
  }

  async ask({ query, key }) {
    const { info, viewport } = this.pane;
    if (!info || query >= info.queries || key >= info.keys) return; // closed meanwhile, or of another size
    const part = (axis) => {
      const [start, stop] = viewport.seen(axis);
      const cells = Math.min(512, Math.max(16, Math.round((stop - start) / 2 ** viewport.z)));
      return `start=${start}&stop=${stop}&cells=${cells}&top=${TOP}`;
    };
    const asked = `${query} ${key} ${part("keys")} ${part("queries")} ${info.status.generation}`;
    if (asked === this.asked) return;
    this.asked = asked;
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    try {
      const [row, column] = await Promise.all([
        askJSON(`row/${info.id}/${query}?${part("keys")}`, signal),
        askJSON(`column/${info.id}/${key}?${part("queries")}`, signal),
      ]);
      Object.assign(this, { row, column });
      this.arrived();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.asked = "";
    }
  }

  draw() {
    drawBars(this.pane.rowCanvas, this.pane.viewport, this.row, true);
    drawBars(this.pane.columnCanvas, this.pane.viewport, this.column, false);
  }
}

/** The weights of a row under the map, or of a column beside it, on the scale of their largest. */
function drawBars(canvas, viewport, profile, along) {
  const room = along ? canvas.parentElement.clientHeight : canvas.parentElement.clientWidth;
  const context = along ? sharpen(canvas, viewport.width, room) : sharpen(canvas, room, viewport.height);
  if (!profile?.max.length) return;
  const top = profile.max.reduce((most, value) => Math.max(most, value), 0) || 1;
  canvas.dataset.top = top;
  const at = (position) => (along ? viewport.xOf(position) : viewport.yOf(position));
  for (let i = 0; i < profile.max.length; i++) {
    const from = at(profile.start + i * profile.step);
    const wide = Math.max(0.7, at(profile.start + (i + 1) * profile.step) - from);
    const share = Math.sqrt(profile.max[i] / top);
    const tall = share * (room - 18);
    context.fillStyle = colourAt(0.3 + 0.55 * share);
    if (along) context.fillRect(from, 0, wide, tall);
    else context.fillRect(0, from, tall, wide);
  }
  context.fillStyle = cssColour("--faint");
  context.font = "11px ui-sans-serif, system-ui, sans-serif";
  context.textBaseline = "bottom";
  if (along) context.fillText(`row, up to ${weightText(top)}`, 2, room - 1);
  else {
    context.translate(room - 2, viewport.height - 2);
    context.rotate(-Math.PI / 2);
    context.fillText(`column, up to ${weightText(top)}`, 0, 0);
  }
}

/** The strongest places of the row and the column as lists; `pick` is called with a pair. */
export async function listProfiles(profiles, labels, pick) {
  const { row, column, asked } = profiles;
  if (!row || !column) return;
  const [word, other] = await Promise.all([labels.labelOf("queries", row.index), labels.labelOf("keys", column.index)]);
  if (profiles.asked !== asked) return;
  byId("profile-hint").hidden = true;
  byId("row-title").hidden = byId("column-title").hidden = false;
  byId("row-title").replaceChildren(make("bdi", { class: "named" }, word), ` looks at`, make("span", { class: "hint" }, `query ${row.index}`));
  byId("column-title").replaceChildren(make("bdi", { class: "named" }, other), ` is looked at by`, make("span", { class: "hint" }, `key ${column.index}`));
  const whole = row.sum > 0.9995 ? "" : ` The part that is seen holds ${(100 * row.sum).toFixed(1)} % of it.`;
  byId("row-note").textContent = row.entropy === null ? "" : `Entropy ${row.entropy.toFixed(2)} nats.${whole}`;
  byId("column-note").textContent = column.status === "exact" ? "" : "Known when the pass has been through all rows.";
  fill("row-top", row.top, (position) => pick({ query: row.index, key: position }));
  fill("column-top", column.top, (position) => pick({ query: position, key: column.index }));
}

function fill(id, entries, pick) {
  const top = Math.max(...entries.map(({ weight }) => weight), 1e-9);
  const items = entries.map(({ position, weight, label }) => {
    const bar = make("span", { class: "rank-bar" });
    bar.style.width = `${(100 * weight) / top}%`;
    bar.style.background = colourAt(0.3 + 0.55 * Math.sqrt(weight / top));
    const button = make("button", { type: "button", class: "rank", "data-position": position, "data-weight": weight },
      make("bdi", { class: "rank-label" }, shortLabel(label.slice(0, 120).trim() || "␣", 60)), make("span", { class: "rank-place" }, String(position)), bar, make("span", { class: "rank-weight" }, weightText(weight)));
    button.addEventListener("click", () => pick(position));
    return make("li", {}, button);
  });
  byId(id).replaceChildren(...items);
}
