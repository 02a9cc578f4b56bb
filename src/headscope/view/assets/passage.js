// A long text, coloured by the weights of the chosen token: what it looks at, or what looks at it.

import { colourAt, inkOn } from "./colour.js";
import { beginsWord, byId, make, rightToLeft, weightText, wordOf } from "./dom.js";
import { isPatch, picturesOf } from "./images.js";
import { placesOf } from "./scale.js";
import { saidOf } from "./shown.js";
import { ARROWS, choose, on, state } from "./state.js";

const FAINT_PLACE = 0.04; // Weights below this place on the scale leave the paper as it is.
let texts = []; // The texts that are seen: { side, axis, box, words, painted }.
let shift = 0;
let isSame = true;

/** Build the text of the keys; with another text as the queries, that one above it. */
export function buildPassage(box, axes) {
  ({ shift, same: isSame } = axes);
  const sides = axes.same ? [["both", axes.keys]] : [["query", axes.queries], ["key", axes.keys]];
  texts = sides.filter(([, axis]) => axis.kind === "tokens").map(([side, axis]) => textOf(side, axis));
  for (const { side, box: text } of texts) {
    if (!axes.same) box.append(make("h3", {}, side === "query" ? "Queries" : "Keys"));
    box.append(text);
  }
}

function textOf(side, axis) {
  const box = make("div", { class: "passage", role: "listbox", tabindex: "0", "aria-label": `${side === "query" ? "The queries" : side === "key" ? "The keys" : "The text"}. Arrow keys choose a token.`, dir: rightToLeft(axis.labels) ? "rtl" : "ltr" });
  const words = axis.labels.map((label, i) => {
    const word = make("span", { class: `token${axis.isSpecial[i] ? " special" : ""}`, role: "option", "data-position": i }, wordOf(label));
    if (isPatch(axis, i)) {
      word.hidden = true;
      if (picturesOf(axis).some(({ at }) => at === i)) box.append(" ", pictureMark(axis, i), " ");
    } else if (beginsWord(axis.labels, i) && i) box.append(" ");
    box.append(word);
    return word;
  });
  const text = { side, axis, box, words, painted: new Float32Array(axis.length).fill(-2) };
  const placeOf = (event) => Number(event.target.closest?.(".token")?.dataset.position ?? -1);
  box.addEventListener("click", (event) => {
    if (placeOf(event) >= 0) pickToken(text, placeOf(event), event.shiftKey);
  });
  box.addEventListener("pointerover", (event) => {
    const at = placeOf(event);
    choose({ cursor: at >= 0 && side !== "query" && state.direction === "from" ? { query: state.query, key: at } : null });
  });
  box.addEventListener("pointerleave", () => choose({ cursor: null }));
  box.addEventListener("keydown", (event) => onPassageKey(event, text));
  return text;
}

/** What stands in a text for the patches of a picture. */
function pictureMark(axis, start) {
  const { rows, columns } = picturesOf(axis).find(({ at }) => at === start);
  return make("span", { class: "picture-mark", title: "The patches are in the panel of the row." }, `▦ ${rows} × ${columns} patches`);
}

function pickToken({ side }, at, reverse) {
  if (side === "key") return choose({ key: at, direction: "to" });
  const query = side === "both" ? at - shift : at;
  if (query >= 0) choose({ query, ...(reverse ? { direction: "to" } : side === "query" ? { direction: "from" } : {}) });
}

function chosenIn({ side }) {
  return side === "key" ? (state.key ?? -1) : side === "both" ? state.query + shift : state.query;
}

/** Left and right along the tokens, up and down to the nearest of the next line. */
function onPassageKey(event, text) {
  const step = ARROWS[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = Math.max(0, chosenIn(text));
  let next = step[0] ? inLine(text.words, at, step[0]) : at + step[1];
  while (!step[0] && text.words[next]?.hidden) next += step[1];
  if (next >= 0 && next < text.words.length) pickToken(text, next, event.shiftKey);
  event.preventDefault();
  event.stopPropagation();
}

/** The word above or below another one. */
function inLine(words, at, down) {
  const [x, y] = [words[at].offsetLeft, words[at].offsetTop];
  let best = at;
  for (let i = at + down, line = null; i >= 0 && i < words.length; i += down) {
    const top = words[i].offsetTop;
    if (top === y) continue;
    line ??= top;
    if (top !== line) break;
    if (best === at || Math.abs(words[i].offsetLeft - x) < Math.abs(words[best].offsetLeft - x)) best = i;
  }
  return best;
}

/** Colour the tokens by the chosen one's row, or by its column. */
export function paintPassage(chosen, target) {
  const to = state.direction === "to";
  const weights = to ? chosen.column(target) : chosen.row(state.query);
  const { places } = placesOf(weights, weights.length);
  for (const text of texts) {
    const coloured = isSame || text.side === (to ? "query" : "key");
    const offset = isSame && to ? shift : 0;
    text.words.forEach((word, i) => {
      const place = coloured ? (places[i - offset] ?? -1) : 0;
      if (place !== text.painted[i]) paintToken(word, place);
      text.painted[i] = place;
    });
    Object.assign(text, { weights: coloured ? weights : null, offset, to });
    const marked = text.box.querySelector(".own");
    const own = text.words[to && text.side === "key" ? target : chosenIn(text)];
    if (marked !== own) {
      marked?.classList.remove("own");
      marked?.removeAttribute("aria-selected");
      marked?.removeAttribute("id");
    }
    if (!own) continue;
    own.classList.add("own");
    own.id = `token-${text.side}`;
    own.setAttribute("aria-selected", "true");
    text.box.setAttribute("aria-activedescendant", own.id);
    keepTokenInSight(text.box, own);
  }
}

function paintToken(word, place) {
  const filled = place > FAINT_PLACE;
  word.style.background = filled ? colourAt(0.06 + 0.8 * place) : "";
  word.style.color = filled ? inkOn(0.06 + 0.8 * place) : "";
  word.classList.toggle("unseen", place < 0);
}

/** Scroll the box of the text, and never the page, so that a token is seen. */
function keepTokenInSight(box, word) {
  if (box.scrollHeight <= box.clientHeight) return;
  const top = word.offsetTop;
  if (top < box.scrollTop || top + word.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
}

/** What the texts say of a token, for the tip of the pointer. */
function tellTokens(event) {
  const word = event.target.closest?.(".token");
  const text = word && texts.find(({ box }) => box.contains(word));
  if (!text?.weights) return;
  const i = Number(word.dataset.position);
  const weight = text.weights[i - text.offset];
  word.title = `${text.axis.labels[i]} (${i}): ${weight === undefined ? "no query" : text.to ? weightText(weight) : saidOf(weight, text.axis, i)}`;
}

/** Forget which colours were painted: the theme has changed. */
function repaintLater() {
  for (const text of texts) text.painted.fill(-2);
}

/** Wire up the parts of long texts that are there from the beginning. */
export function listenOnPassage() {
  byId("reading").addEventListener("pointerover", tellTokens);
  on("theme", repaintLater);
}
