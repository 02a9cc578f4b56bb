// Where the map lies on its canvas, and which part of the head it shows.

const MOST = 46; // The largest cell, in pixels.
const CLOSEST = 30; // How large a cell becomes by zooming.

/** The part of a head that is seen, in cells, and the place on the canvas where it is drawn. */
export class Frame {
  constructor() {
    this.rows = this.columns = 1;
    this.view = { r: 0, c: 0, rows: 1, columns: 1 };
    this.place = { x: 0, y: 0, width: 1, height: 1 };
  }

  /** A head of another size: all of it is seen. */
  resize(rows, columns) {
    if (rows === this.rows && columns === this.columns) return;
    this.rows = rows;
    this.columns = columns;
    this.reset();
  }

  reset() {
    this.view = { r: 0, c: 0, rows: this.rows, columns: this.columns };
  }

  get zoomed() {
    return this.view.rows < this.rows || this.view.columns < this.columns;
  }

  /** Whether zooming is worth it: the cells are small. */
  get zoomable() {
    return Math.min(this.place.width / this.columns, this.place.height / this.rows) < CLOSEST / 2;
  }

  get cellWidth() {
    return this.place.width / this.view.columns;
  }

  get cellHeight() {
    return this.place.height / this.view.rows;
  }

  /** Lay the map into a room; square cells where rows and columns are the same things. */
  lay(x, y, width, height, square) {
    let w = Math.min(width / this.columns, MOST);
    let h = Math.min(height / this.rows, MOST);
    if (square) w = h = Math.min(w, h);
    if (w >= 5) w = Math.floor(w);
    if (h >= 5) h = Math.floor(h);
    this.place = { x, y, width: Math.max(1, w * this.columns), height: Math.max(1, h * this.rows) };
  }

  /** The cell at a point of the canvas, or null beside the map. */
  cellAt(x, y) {
    const c = Math.floor(this.view.c + (x - this.place.x) / this.cellWidth);
    const r = Math.floor(this.view.r + (y - this.place.y) / this.cellHeight);
    const { x: left, y: top, width, height } = this.place;
    const inside = x >= left && x < left + width && y >= top && y < top + height;
    return inside && r >= 0 && c >= 0 && r < this.rows && c < this.columns ? { r, c } : null;
  }

  /** The row at a height, also beside the map, or -1. */
  rowAt(y) {
    const r = Math.floor(this.view.r + (y - this.place.y) / this.cellHeight);
    return y >= this.place.y && y < this.place.y + this.place.height && r < this.rows ? r : -1;
  }

  /** The column whose leaning label stands at a point above the map, or -1. */
  columnAbove(x, y, turn) {
    const up = this.place.y - 9 - y;
    const c = Math.floor(this.view.c + (x - up / Math.tan(-turn) - this.place.x) / this.cellWidth);
    return up > 0 && c >= 0 && c < this.columns ? c : -1;
  }

  /** The left upper corner of a cell. */
  cornerOf(r, c) {
    return [this.place.x + (c - this.view.c) * this.cellWidth, this.place.y + (r - this.view.r) * this.cellHeight];
  }

  /** Zoom by a factor, keeping the point under the pointer where it is. */
  zoom(factor, x = this.place.x + this.place.width / 2, y = this.place.y + this.place.height / 2) {
    const closest = Math.max(this.place.width, this.place.height) / CLOSEST;
    const along = Math.min(this.columns, Math.max(closest, this.view.columns / factor, 4));
    const down = Math.min(this.rows, Math.max(closest, this.view.rows / factor, 4));
    const fx = Math.min(1, Math.max(0, (x - this.place.x) / this.place.width));
    const fy = Math.min(1, Math.max(0, (y - this.place.y) / this.place.height));
    const c = this.view.c + fx * (this.view.columns - along);
    const r = this.view.r + fy * (this.view.rows - down);
    this.view = { r, c, rows: down, columns: along };
    this.keepInside();
  }

  /** Move what is seen by so many pixels. */
  pan(dx, dy) {
    this.view.c -= dx / this.cellWidth;
    this.view.r -= dy / this.cellHeight;
    this.keepInside();
  }

  /** Move what is seen so that a cell is in it. */
  reveal(r, c) {
    const { view } = this;
    if (r < view.r) view.r = r;
    if (r + 1 > view.r + view.rows) view.r = r + 1 - view.rows;
    if (c < view.c) view.c = c;
    if (c + 1 > view.c + view.columns) view.c = c + 1 - view.columns;
    this.keepInside();
  }

  keepInside() {
    this.view.c = Math.min(Math.max(0, this.view.c), this.columns - this.view.columns);
    this.view.r = Math.min(Math.max(0, this.view.r), this.rows - this.view.rows);
  }
}
