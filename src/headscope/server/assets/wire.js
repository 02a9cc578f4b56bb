// Requests to the server, and the bytes of a tile.

const API = new URL("../api/v1/", import.meta.url);
const MAGIC = 0x31545348; // "HST1"
const STATUS = ["empty", "exact", "estimate", "not yet"];

/** An answer that is no success: its status, the server's sentence, and after how many seconds to ask again. */
export class Refused extends Error {
  constructor(status, sentence, after) {
    super(sentence);
    Object.assign(this, { status, after });
  }
}

async function ask(path, signal) {
  const answer = await fetch(new URL(path, API), { signal });
  if (answer.ok) return answer;
  const sentence = await answer.json().then(({ error }) => error, () => answer.statusText);
  throw new Refused(answer.status, sentence, Number(answer.headers.get("Retry-After")) || 1);
}

/** An answer in JSON. */
export async function askJSON(path, signal) {
  return (await ask(path, signal)).json();
}

/** One tile of a head. */
export async function askTile(head, z, x, y, signal) {
  return decodeTile(await (await ask(`tile/${head}/${z}/${x}/${y}?bits=16`, signal)).arrayBuffer());
}

/**
 * A tile as the protocol lays it out: { status, rows, columns, exactRows, error, generation, mean, max }, the last two
 * { top, codes }, with codes null where no cell has a value.
 */
export function decodeTile(buffer) {
  const head = new DataView(buffer);
  if (head.getUint32(0, true) !== MAGIC) throw new Error("this is no tile");
  const [rows, columns] = [head.getUint16(6, true), head.getUint16(8, true)];
  const full = buffer.byteLength > 32;
  const codesAt = (n) => (full ? new Uint16Array(buffer, 32 + 2 * n * rows * columns, rows * columns) : null);
  return {
    status: STATUS[head.getUint8(4)],
    rows,
    columns,
    exactRows: head.getUint16(10, true),
    mean: { top: head.getFloat32(12, true), codes: codesAt(0) },
    max: { top: head.getFloat32(16, true), codes: codesAt(1) },
    error: head.getFloat32(20, true),
    generation: head.getUint32(24, true),
  };
}

export const NOT_YET = 65535;
export const MASKED = 65534;
const LAST = 65533;

/** The value of a code: -1 where the mask forbids every pair of the cell, NaN where it is not yet known. */
export function valueOf(code, top) {
  if (code === NOT_YET) return NaN;
  return code === MASKED ? -1 : top * (code / LAST) ** 2;
}
