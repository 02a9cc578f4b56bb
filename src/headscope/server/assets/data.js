// The source of data for the modules that the map shares with the page: there it is a file, here it is a server.

import { askJSON } from "./wire.js";

/** The colours of both themes. */
export const page = { colours: await askJSON("colours") };

/** The recordings and their heads. */
export const index = await askJSON("recordings");

const places = new Map();
for (const recording of index.recordings)
  for (const layer of recording.layers)
    for (const head of layer.heads) head.ids.forEach((id, item) => places.set(id, { id, recording, layer, head, item }));

/** Where a head stands among the recordings: { id, recording, layer, head, item }, or undefined. */
export function placeOf(id) {
  return places.get(id);
}

/** The identifiers of all heads, in order. */
export const ids = [...places.keys()];

/** A head in words. */
export function nameOf(id) {
  const { recording, layer, head, item } = places.get(id);
  const several = index.recordings.length > 1 ? `${recording.name} · ` : "";
  return `${several}layer ${layer.number} head ${head.number}${layer.items > 1 ? ` · item ${item}` : ""}`;
}

const infos = new Map();

/** What a map needs to know of a head: asked for once. */
export async function infoOf(id) {
  if (!infos.has(id)) infos.set(id, await askJSON(`head/${id}`));
  return infos.get(id);
}

/** The axes of a head whose map is open. */
export function axesOf(id) {
  return infos.get(id).axes;
}
