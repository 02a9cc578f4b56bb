// The map of `headscope serve`: builds its parts, and draws them again when something changes.

import { colourAt } from "./colour.js";
import { ids, index, nameOf, placeOf } from "./data.js";
import { byId, make, weightText } from "./dom.js";
import { listenOnPlane, pin, zoomAt } from "./hands.js";
import { buildControls } from "./heads.js";
import { buildBookmarks, keepAddress, readAddress } from "./link.js";
import { Pane } from "./pane.js";
import { Places } from "./places.js";
import { cellUnder, scaleTo, topOf } from "./plane.js";
import { listProfiles } from "./profiles.js";
import { position } from "./scale.js";
import { buildSearch } from "./seek.js";
import { choose, on, state, theme } from "./state.js";
import { fly } from "./viewport.js";
import { askJSON } from "./wire.js";

const REST = 160; // Milliseconds that the pointer rests before the exact cell is asked for.
let frame = 0;
let frames = [];

function drawSoon() {
  frame ||= requestAnimationFrame(draw);
}

function say(sentence) {
  byId("trouble").textContent = sentence;
  byId("trouble").hidden = !sentence;
}

const panes = [0, 1].map((number) => new Pane(number, drawSoon, say));
const [main] = panes;
const places = new Places(goTo);

const isBeside = () => Boolean(state.other) && state.together === "side";

/** Open what is chosen: one head, two side by side, or one less another. */
async function open() {
  byId("maps").classList.toggle("two", isBeside());
  panes[1].box.hidden = !isBeside();
  try {
    await Promise.all([
      main.open(state.head, state.other && !isBeside() ? state.other : ""),
      isBeside() ? panes[1].open(state.other) : panes[1].close(),
    ]);
    say("");
  } catch (error) {
    return say(error.message);
  }
  for (const pane of panes) if (pane.info) pane.resize();
  const { recording } = placeOf(state.head);
  byId("title").textContent = recording.name;
  byId("subtitle").textContent = [recording.model, `${main.info.queries.toLocaleString("en")} × ${main.info.keys.toLocaleString("en")} ${main.info.axes.keys.kind}`].filter(Boolean).join(" · ");
  document.title = `${nameOf(state.head)} · ${recording.name} · headscope`;
  places.ask(state.head).catch((error) => say(error.message));
  watch();
}

function draw(now) {
  frame = 0;
  const shown = panes.filter(({ info }) => info);
  if (!shown.length) return;
  const top = topOf(shown.flatMap(({ stores }) => stores), main.viewport, state.pool);
  const found = shown.map((pane) => pane.draw(top));
  drawLegend(top, found);
  drawReadout();
  frames = [...frames.filter((at) => now - at < 1000), now];
  document.body.dataset.frames = frames.length;
  if (shown.some(({ stores }) => stores.some((store) => store.busy))) setTimeout(drawSoon, 60);
}

/** What the colours mean at this zoom, and what of it is not exact yet. */
function drawLegend(top, found) {
  const isDifference = main.stores.length > 1;
  const scale = scaleTo(top, main.viewport.keys);
  const stops = Array.from({ length: 9 }, (_, i) => `${colourAt(i / 8)} ${(i * 12.5).toFixed(1)}%`);
  byId("legend-bar").style.background = isDifference ? "linear-gradient(to right, var(--less), var(--ground), var(--more))" : `linear-gradient(to right, ${stops.join(", ")})`;
  const { z } = main.viewport;
  const cell = z ? `${state.pool} of ${2 ** z} × ${2 ** z} weights` : "one weight";
  const kinds = { sqrt: "square root", linear: "linear", log: "logarithmic" };
  byId("legend-name").textContent = `${isDifference ? "difference, " : ""}a cell: ${cell} · ${isDifference ? "square root" : kinds[scale.kind]}`;
  const ends = isDifference ? [[0, `−${shortText(top)}`], [0.5, "0"], [1, `+${shortText(top)}`]]
    : scale.kind === "log" ? [0.0001, 0.01, 1].filter((weight) => weight >= scale.floor).map((weight) => [position(weight, scale), shortText(weight)])
      : [[0, "0"], [position(top / 4, scale), shortText(top / 4)], [1, `${top < 1 ? "≥ " : ""}${shortText(top)}`]];
  byId("legend-ticks").replaceChildren(...ends.map(([at, text]) => {
    const span = make("span", {}, text);
    span.style.left = `${100 * at}%`;
    span.style.transform = `translateX(-${100 * at}%)`;
    return span;
  }));
  const estimated = found.some((one) => one.estimated);
  const error = Math.max(...found.map((one) => one.error));
  byId("exactness").textContent = estimated ? `Estimate from a sample of rows${error ? `: means ± ${weightText(error)}, maxima at least what is shown` : ""}.` : found.some((one) => one.missing) ? "Loading …" : "Exact.";
  byId("exactness").dataset.kind = estimated ? "estimate" : found.some((one) => one.missing) ? "loading" : "exact";
  const { entropy = 0, received = 0 } = main.trackTops;
  byId("tracks-note").textContent = `Along the sides: entropy of each query, up to ${entropy.toFixed(2)} nats; received by each key, up to ${weightText(received)}.`;
}

/** A weight on the legend: no more digits than it needs. */
function shortText(weight) {
  return weight >= 0.001 ? String(Number(weight.toPrecision(2))) : weightText(weight);
}

let resting = 0;
let exact = null; // The cell that the server has computed: { name, answer }

/** The cell under the pointer in numbers and words. */
function drawReadout() {
  const pair = state.cursor ?? state.pin;
  const readout = byId("readout");
  if (!pair) {
    readout.replaceChildren("Hover a cell for its weight; click to pin its row and column.");
    for (const name of ["mean", "max", "query", "key"]) delete readout.dataset[name];
    return;
  }
  const parts = [];
  for (const pane of panes.filter(({ info }) => info)) parts.push(...readoutOf(pane, pair, readout));
  readout.replaceChildren(...parts);
}

function readoutOf(pane, pair, readout) {
  const found = pane.stores.map((store) => cellUnder(store, pane.viewport, pair));
  if (!found[0]) return [];
  const [{ z, mean, max }] = found;
  const cell = [pair.query >> z, pair.key >> z];
  const name = `${pane.id} ${z} ${cell}`;
  const holder = exact?.name === name ? exact.answer : null;
  if (pane === main) Object.assign(readout.dataset, { z, mean: holder?.mean ?? mean, max: holder?.max ?? max, query: pair.query, key: pair.key, exact: Number(Boolean(holder?.exact)) });
  const from = z && holder?.query != null ? { query: holder.query, key: holder.key } : pair;
  const word = (axis, at) => make("bdi", {}, pane.labels.at(axis, at) ?? "…");
  const said = [word("queries", from.query), " → ", word("keys", from.key), " "];
  if (found.every((one) => !one || one.max < 0)) return [...said, "may not be seen. "];
  const value = pane.stores.length > 1 ? `difference ${signed(Math.max(0, mean) - Math.max(0, found[1]?.mean ?? 0))}` : z ? `max ${weightText(holder?.max ?? max)}, mean ${weightText(holder?.mean ?? mean)}` : weightText(holder?.max ?? max);
  const where = z && !holder ? `queries ${cell[0] << z}–${((cell[0] + 1) << z) - 1}, keys ${cell[1] << z}–${((cell[1] + 1) << z) - 1}` : `query ${from.query}, key ${from.key}`;
  return [...said, make("strong", {}, value), make("span", { class: "hint" }, where), " "];
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${weightText(Math.abs(value))}`;
}

/** Ask for the exact cell under the pointer when it rests. */
function askCell() {
  clearTimeout(resting);
  const pair = state.cursor ?? state.pin;
  if (!pair || !main.info) return;
  resting = setTimeout(async () => {
    const { z } = main.viewport;
    const cell = [pair.query >> z, pair.key >> z];
    const name = `${main.id} ${z} ${cell}`;
    if (exact?.name === name) return;
    try {
      exact = { name, answer: await askJSON(`cell/${main.id}/${z}/${cell[1]}/${cell[0]}`) };
      drawSoon();
    } catch {
      exact = null; // The tile's own numbers stay.
    }
  }, REST);
}

let watching = 0;

/** Follow the passes over the heads that are shown, once a second while they run. */
async function watch() {
  clearTimeout(watching);
  const shown = panes.flatMap(({ stores }) => stores);
  const before = main.info.status.phase;
  await Promise.all(shown.map(async (store) => {
    if (isSettled(store.info.status)) return;
    store.info.status = await askJSON(`status/${store.info.id}`).catch(() => store.info.status);
    store.grown(store.info.status.generation);
  }));
  for (const pane of panes) if (pane.info) pane.tracks.generation = pane.info.status.generation;
  drawProgress();
  const { phase } = main.info.status;
  const waits = places.status !== "exact" && phase !== "failed";
  if (phase !== before || waits) places.ask(state.head).catch(() => {});
  if (waits || shown.some(({ info }) => !isSettled(info.status))) watching = setTimeout(watch, 1000);
  drawSoon();
}

/** Whether nothing changes any more: the levels are exact, and the file is known to be the one that was written. */
function isSettled({ phase, verified }) {
  return phase === "failed" || (phase === "exact" && verified);
}

function drawProgress() {
  const { phase, done, remaining, error, verified } = main.info.status;
  const left = remaining >= 1 ? `, about ${Math.ceil(remaining)} s left` : "";
  const texts = { waiting: "The exact pass has not begun.", estimate: "Sampling rows …", filling: `Exact rows: ${Math.floor(100 * done)} %${left}.`, failed: error ?? "", exact: "" };
  byId("progress").textContent = [verified ? "" : "The file is being checked.", texts[phase]].filter(Boolean).join(" ");
  byId("progress-bar").hidden = phase === "exact" || phase === "failed";
  byId("progress-bar").value = done;
}

/** Fly to a place of the list. */
function goTo(place) {
  fly(main.viewport, main.viewport.placeOf(place.window), () => {
    if (place.kind === "pair") choose({ pin: { query: place.query, key: place.key } });
    else if (place.kind === "column") choose({ pin: { query: Math.min(main.info.queries - 1, Math.floor(main.viewport.q)), key: place.key } });
  });
}

/** Go to what a search found: both sides where queries and keys are the same, else the one that was searched. */
function goToMatch({ start, stop }, axis) {
  const { viewport, info } = main;
  const middle = (start + stop) / 2;
  const near = Math.min(viewport.w, 1 / 14);
  const at = info.same ? { k: middle, q: middle - info.shift } : axis === "keys" ? { k: middle, q: viewport.q } : { q: middle, k: viewport.k };
  fly(viewport, { q: Math.max(0, at.q), k: Math.max(0, at.k), w: near });
}

main.afterProfiles = () => main.labels && listProfiles(main.profiles, main.labels, (pair) => {
  choose({ pin: pair });
  main.viewport.reveal(pair);
});

if (!ids.length) say("There is no head in these recordings.");
else {
  readAddress();
  buildControls(main);
  buildSearch(() => main.info, goToMatch);
  buildBookmarks(() => {
    const [k, q] = [Math.round(main.viewport.k), Math.round(main.viewport.q)];
    return `${nameOf(state.head)}, ${main.viewport.isWhole ? "all" : `query ${q}, key ${k}`}`;
  });
  for (const pane of panes) listenOnPlane(pane);
  for (const [id, factor] of [["zoom-out", 0.5], ["zoom-in", 2]]) byId(id).addEventListener("click", () => zoomAt(main.viewport, factor));
  byId("zoom-all").addEventListener("click", () => choose({ q: null, k: null, w: null }));
  byId("unpin").addEventListener("click", () => pin(null));
  on("head other together", open);
  on("q k w pool scale theme cursor pin marks", drawSoon);
  on("cursor pin q k w", askCell);
  on("theme", () => (document.documentElement.dataset.theme = theme()));
  new ResizeObserver(() => panes.forEach((pane) => pane.info && pane.resize())).observe(byId("maps"));
  keepAddress();
  await open();
  document.body.dataset.ready = "1";
}
byId("version").textContent = index.version;
