// What the map shows of a large head until all its weights are there: the small picture that came with the page.

import { picture } from "./colour.js";
import { axesOf } from "./data.js";
import { chosenHeads, state } from "./state.js";
import { pooled, shownOf } from "./shown.js";
import { thumbnail } from "./thumbnails.js";

/** As much of `Shown` as the map draws, or null where there is no small picture of what is chosen. */
export function previewOf() {
  const heads = chosenHeads();
  const found = heads.length === 1 && state.weigh === "weights" ? thumbnail(...heads[0]) : null;
  if (!found) return null;
  const { queries, keys } = axesOf(state.layer, state.item);
  const [rows, columns] = [shownOf(queries), shownOf(keys)];
  return { rows, columns, scale: found.scale, unseen: found.values.some((value) => value < 0), empty: [], pictureOf: (down, along) => enlarged(found, down, along, rows.length, columns.length) };
}

/** The cells of the small picture between two rows and two columns of the large one. */
function enlarged({ values, down, along, scale }, [r0, r1], [c0, c1], rows, columns) {
  const [top, bottom] = [Math.floor((r0 * down) / rows), Math.ceil((r1 * down) / rows)];
  const [left, right] = [Math.floor((c0 * along) / columns), Math.ceil((c1 * along) / columns)];
  return picture(pooled(values, along, [top, bottom], [left, right], bottom - top, right - left), right - left, bottom - top, scale);
}
