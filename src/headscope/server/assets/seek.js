// Search in the text of a head: matches as a list, one of them marked on both sides of the map.

import { byId, make, shortLabel } from "./dom.js";
import { choose } from "./state.js";
import { askJSON } from "./wire.js";

const MOST = 50;

/** Wire up the search; `now()` gives the head's info, `go` is called with a match and its axis. */
export function buildSearch(now, go) {
  const [input, list, note] = [byId("seek"), byId("matches"), byId("matches-note")];
  let matches = [];
  let at = -1;
  let asked = "";
  const show = (n) => {
    at = (n + matches.length) % matches.length;
    [...list.querySelectorAll("button")].forEach((button, i) => button.setAttribute("aria-current", String(i === at)));
    list.querySelectorAll("button")[at]?.scrollIntoView({ block: "nearest" });
    const { start, stop } = matches[at];
    choose({ marks: [[start, stop]] });
    go(matches[at], byId("seek-axis").value);
  };
  const clear = () => {
    [matches, at, asked] = [[], -1, ""];
    list.replaceChildren();
    note.textContent = "";
    choose({ marks: [] });
  };
  const search = async () => {
    const text = input.value;
    if (!text.trim()) return clear();
    const axis = byId("seek-axis").value;
    const question = `search/${now().id}/${axis}?q=${encodeURIComponent(text)}&limit=${MOST}`;
    if (question === asked && matches.length) return show(at + 1);
    asked = question;
    note.textContent = "Searching …";
    try {
      const found = await askJSON(question);
      if (asked !== question) return;
      matches = found.matches;
      note.textContent = matches.length ? `${matches.length}${found.more ? " and more" : ""} · Enter: the next one` : `“${text}” is not in the ${axis}.`;
    } catch (error) {
      note.textContent = error.message;
      matches = [];
    }
    list.replaceChildren(...matches.map((match, i) => {
      const button = make("button", { type: "button", class: "place" }, make("bdi", {}, shortLabel(match.text, 200)), " ", make("span", { class: "hint" }, String(match.start)));
      button.addEventListener("click", () => show(i));
      return make("li", {}, button);
    }));
    if (matches.length) show(0);
  };
  byId("seek-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  input.addEventListener("input", () => input.value || clear());
}
