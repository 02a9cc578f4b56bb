// What is seen, as a file: a picture, a table, a link, or the lines of Python that give the same numbers.

import { fragment } from "./address.js";
import { page } from "./data.js";
import { byId, make } from "./dom.js";
import { headName } from "./headline.js";
import { pythonLines } from "./python.js";
import { asSvg } from "./snapshot.js";
import { chosenHeads, state } from "./state.js";

const SCALE = 2;

/** Wire up the dialog. */
export function buildExports(map, chosen) {
  const dialog = byId("export");
  byId("export-open").addEventListener("click", () => {
    byId("export-link").value = linkText();
    byId("export-python").value = pythonLines(chosen);
    dialog.showModal();
  });
  const actions = {
    svg: () => save(new Blob([asSvg(map, chosen)], { type: "image/svg+xml" }), "svg"),
    png: () => asPng(asSvg(map, chosen)).then((blob) => save(blob, "png")),
    row: () => save(new Blob([rowCsv(chosen)], { type: "text/csv" }), "csv", `row-${state.query}`),
    map: () => save(new Blob([mapCsv(chosen)], { type: "text/csv" }), "csv", "map"),
  };
  for (const button of dialog.querySelectorAll("[data-save]")) button.addEventListener("click", () => actions[button.dataset.save]());
  for (const button of dialog.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
}

/** The address of what is seen; inside a frame without one, its fragment alone. */
function linkText() {
  return location.protocol === "about:" ? fragment() : `${location.href.split("#")[0]}${fragment()}`;
}

function copy(button) {
  const field = byId(button.dataset.copy);
  field.select();
  const said = (done) => {
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  if (!navigator.clipboard) return said(document.execCommand("copy"));
  navigator.clipboard.writeText(field.value).then(() => said(true), () => said(document.execCommand("copy")));
}

function save(blob, suffix, part = "") {
  const name = page.single ? "head" : chosenHeads().map(([l, h]) => `${page.layers[l].number}.${page.layers[l].heads[h]}`).join("-");
  const link = make("a", { href: URL.createObjectURL(blob), download: `${["headscope", name, part].filter(Boolean).join("-")}.${suffix}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** An SVG as a picture of twice its size. */
export async function asPng(text) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = make("canvas", { width: SCALE * image.width, height: SCALE * image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** A field of a CSV file; what a spreadsheet would take for a formula gets an apostrophe. */
function field(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(lines) {
  return `${lines.map((line) => line.map(field).join(",")).join("\n")}\n`;
}

/** A weight with seven digits; empty where it may not be seen or is hidden. */
function number(weight) {
  return weight < 0 ? "" : Number(weight.toPrecision(7));
}

/** The chosen row: a line for every key. */
export function rowCsv(chosen) {
  const { queries, keys } = chosen.axes;
  const row = chosen.row(state.query);
  return csv([["query", "query label", "key", "key label", "weight"], ...keys.labels.map((label, k) => [state.query, queries.labels[state.query], k, label, number(row[k])])]);
}

/** The map: a line for every query that is shown, a column for every key. */
export function mapCsv({ shown, axes }) {
  const header = [headName(state.layer, state.head), ...Array.from(shown.columns, (k) => `${k} ${axes.keys.labels[k]}`)];
  const lines = Array.from(shown.rows, (q, r) => [`${q} ${axes.queries.labels[q]}`, ...Array.from(shown.columns, (_, c) => number(shown.at(r, c)))]);
  return csv([header, ...lines]);
}
