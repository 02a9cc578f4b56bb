// Which heads are sought: by their number, by the words of what is said of them, by what they do.

import { page } from "./data.js";
import { state } from "./state.js";

/** Whether a head is left out by the search or by the chips of kinds. */
export function dimmed(layer, head) {
  if (page.layers[layer].derived) return false;
  const kinds = state.kinds.split(",").filter(Boolean);
  const said = page.heads?.said[layer][head] ?? [];
  if (kinds.length && !said.some(([kind]) => kinds.includes(kind))) return true;
  return !matches(layer, head, said, state.search);
}

/** Whether a search finds a head: every word of it in the head's number or in what is said of it. */
function matches(layer, head, said, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return true;
  const entry = page.layers[layer];
  const number = `${entry.number}.${entry.heads[head]}`;
  const text = `${said.map(([kind, line]) => `${kind} ${line}`).join(" ")} ${entry.name}`.toLowerCase();
  return words.every((word) => (/^\d+\.\d*$/.test(word) ? number === word || (word.endsWith(".") && number.startsWith(word)) : text.includes(word)));
}
