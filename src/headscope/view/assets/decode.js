// Base64 to numbers: sixteen-bit floats, thirty-two-bit floats, and runs of keys.

/** The bytes of a base64 text. */
export function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

let halfTable = null;

/** The value of every sixteen-bit float: 65536 of them, found once. */
function halves() {
  if (halfTable) return halfTable;
  halfTable = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) halfTable[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent) halfTable[bits] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
    else halfTable[bits] = sign * 2 ** -14 * (fraction / 1024);
  }
  return halfTable;
}

/** `count` floats of 16 or 32 bits that begin at a byte. */
export function floatsAt(bytes, start, count, bits) {
  if (bits === 32) return new Float32Array(bytes.slice(start, start + 4 * count).buffer);
  const table = halves();
  const given = new Uint16Array(bytes.slice(start, start + 2 * count).buffer);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = table[given[i]];
  return values;
}

/** Runs: start and stop, one after the other, for every item, head and query that has its own. */
export function runsFrom(entry) {
  const bytes = bytesOf(entry.data);
  return { shape: entry.shape, ends: entry.bits === 16 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer) };
}

/** A bias: whole, or one number for each offset between key and query. */
export function biasFrom(entry) {
  const bytes = bytesOf(entry.data);
  const values = floatsAt(bytes, 0, bytes.length / (entry.bits / 8), entry.bits);
  return { shape: entry.shape, form: entry.form, values };
}
