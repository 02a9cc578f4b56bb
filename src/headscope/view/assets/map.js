// The heat map: cells, labels, marks, and a small whole where only a part is seen.

import { cssColour, sharpen } from "./dom.js";
import { Frame } from "./frame.js";
import { TURN, drawColumn, drawRow, everyNth, overhang, tickText, ticksBetween, widestLabel } from "./ticks.js";

const FONT = "12px ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const INSET = 96;
const TALL = 130; // The longest leaning label, in pixels.
const CORNER = 42; // The least room above the map: the words in its corner need it.

/** The heat map of a head on a canvas: drawing. What is drawn is { shown, axes, query, cursor }. */
export class HeatMap {
  /** `tall`: the most pixels that the map may be high where its box is as high as what is in it. */
  constructor(canvas, box, frame = new Frame()) {
    Object.assign(this, { canvas, box, frame, overview: null, tall: 0, labelled: { rows: [], columns: [] } });
  }

  draw(scene) {
    const [width, height] = [this.box.clientWidth, this.tall || this.box.clientHeight];
    const context = sharpen(this.canvas, width, height);
    this.scene = scene;
    if (!this.tall) this.box.style.height = "";
    if (!scene.shown || width < 40) return;
    context.font = FONT;
    layMap(this, context, width, height);
    if (this.tall) this.box.style.height = `${Math.ceil(this.frame.place.y + this.frame.place.height) + 8}px`;
    this.drawOn(context);
    const { x, y, width: wide, height: high } = this.frame.place;
    const { r, c } = this.frame.view;
    const { rows, columns } = this.labelled;
    Object.assign(this.canvas.dataset, { x, y, row: r, column: c, cellWidth: this.frame.cellWidth, cellHeight: this.frame.cellHeight, wide, high, rowLabels: rows.length, columnLabels: columns.length, labelGap: gapOf(rows, columns, this.frame), seam: firstFrom(scene.shown.columns, scene.axes.keys.second) });
  }

  /** Draw what `layMap` has placed. */
  drawOn(context) {
    const { scene, frame } = this;
    drawCells(context, frame, scene);
    drawMarks(context, frame, scene);
    this.labelled = drawTicks(context, frame, scene);
    if (frame.zoomed) drawInset(context, this);
  }
}

/** The least distance of two neighbouring labels, in pixels: no label stands on another. */
function gapOf(rows, columns, { cellHeight, cellWidth }) {
  const least = (ticks, size) => ticks.reduce((gap, tick, i) => (i ? Math.min(gap, (tick - ticks[i - 1]) * size) : gap), Infinity);
  return Math.min(least(rows, cellHeight), least(columns, cellWidth));
}

/** Room for the labels, and the map in what is left. */
function layMap({ frame, scene: { shown, axes } }, context, width, height) {
  frame.resize(shown.rows.length, shown.columns.length);
  const most = Math.min(150, width * 0.27);
  const steps = [everyNth((height - 90) / shown.rows.length), everyNth((width - 120) / shown.columns.length, true)];
  const left = Math.max(58, Math.min(most, widestLabel(context, axes.queries, shown.rows, steps[0]) + 12));
  const tall = Math.min(width < 480 || steps[1] > 2 ? 84 : TALL, widestLabel(context, axes.keys, shown.columns, steps[1]));
  const top = Math.max(CORNER, tall * Math.sin(-TURN) + 22);
  const size = Math.min(46, (width - left - 40) / shown.columns.length, (height - top) / (axes.same ? shown.rows.length : 1));
  const right = overhang(context, axes.keys, shown.columns, steps[1], size, tall);
  const like = shown.rows.length / shown.columns.length;
  const square = axes.same || (axes.queries.kind === axes.keys.kind && like > 0.5 && like < 2);
  frame.lay(left, top, width - left - right, height - top - 6, square);
  // In the middle of the room, where the room is wider than the map.
  frame.place.x += Math.max(0, Math.floor((width - left - right - frame.place.width) / 2));
}

/** The cells: one pixel each and then enlarged without smoothing, or the largest of several where cells are smaller than pixels. */
function drawCells(context, frame, { shown, axes }) {
  const { x, y, width, height } = frame.place;
  const { view } = frame;
  const ratio = window.devicePixelRatio || 1;
  const [r0, r1] = [Math.floor(view.r), Math.min(frame.rows, Math.ceil(view.r + view.rows))];
  const [c0, c1] = [Math.floor(view.c), Math.min(frame.columns, Math.ceil(view.c + view.columns))];
  const down = Math.min(r1 - r0, Math.round(((r1 - r0) * frame.cellHeight) * ratio));
  const along = Math.min(c1 - c0, Math.round(((c1 - c0) * frame.cellWidth) * ratio));
  const image = shown.pictureOf([r0, r1], [c0, c1], Math.max(1, down), Math.max(1, along));
  const [left, top] = frame.cornerOf(r0, c0);
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  drawUnseen(context, frame, shown);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, left, top, (c1 - c0) * frame.cellWidth, (r1 - r0) * frame.cellHeight);
  if (Math.min(frame.cellWidth, frame.cellHeight) >= 12) drawGaps(context, frame, r0, r1, c0, c1);
  drawSeam(context, frame, shown, axes);
  context.restore();
}

/** What may not be seen: a quiet hatching under the cells. */
function drawUnseen(context, frame, shown) {
  const { x, y, width, height } = frame.place;
  context.fillStyle = cssColour("--ground");
  context.fillRect(x, y, width, height);
  if (!shown.unseen) return;
  context.strokeStyle = cssColour("--hatch");
  context.lineWidth = 1;
  context.beginPath();
  for (let at = -height; at < width; at += 6) {
    context.moveTo(x + at, y + height);
    context.lineTo(x + at + height, y);
  }
  context.stroke();
}

/** Thin gaps between cells that are large enough. */
function drawGaps(context, frame, r0, r1, c0, c1) {
  const { x, y, width, height } = frame.place;
  context.fillStyle = cssColour("--ground");
  for (let r = r0; r <= r1; r++) context.fillRect(x, Math.round(frame.cornerOf(r, 0)[1]) - 0.5, width, 1);
  for (let c = c0; c <= c1; c++) context.fillRect(Math.round(frame.cornerOf(0, c)[0]) - 0.5, y, 1, height);
}

/** The seam between two texts on one axis. */
function drawSeam(context, frame, shown, axes) {
  const { x, y, width, height } = frame.place;
  context.fillStyle = cssColour("--soft");
  const [r, c] = [firstFrom(shown.rows, axes.queries.second), firstFrom(shown.columns, axes.keys.second)];
  if (r > 0) context.fillRect(x, Math.round(frame.cornerOf(r, 0)[1]) - 1, width, 1.5);
  if (c > 0) context.fillRect(Math.round(frame.cornerOf(0, c)[0]) - 1, y, 1.5, height);
}

function firstFrom(positions, start) {
  return start ? positions.findIndex((position) => position >= start) : -1;
}

/** The row that is looked at, and the cell under the pointer with its cross. */
function drawMarks(context, frame, { shown, query, cursor }) {
  const { x, y, width, height } = frame.place;
  const row = shown.rows.indexOf(query);
  context.save();
  context.beginPath();
  context.rect(x - 8, y - 4, width + 16, height + 8);
  context.clip();
  if (row >= 0) {
    drawRowMark(context, frame, frame.cornerOf(row, 0)[1]);
  }
  const cell = cellOf(shown, cursor);
  if (cell) {
    const [left, top] = frame.cornerOf(cell.r, cell.c);
    const [w, h] = [Math.max(3, frame.cellWidth), Math.max(3, frame.cellHeight)];
    context.strokeStyle = cssColour("--ink");
    context.globalAlpha = 0.22;
    context.lineWidth = 1;
    context.strokeRect(x, top - 0.5, width, h);
    context.strokeRect(left - 0.5, y, w, height);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeRect(left - 0.5, top - 0.5, w, h);
  }
  context.restore();
}

/** The row that is looked at: a frame around it, or arrows at its ends where it is thin. */
function drawRowMark(context, frame, top) {
  const { x, width } = frame.place;
  context.strokeStyle = context.fillStyle = cssColour("--accent");
  context.lineWidth = 1.5;
  if (frame.cellHeight >= 6) return context.strokeRect(x - 1.5, top - 1, width + 3, frame.cellHeight + 1);
  const y = top + frame.cellHeight / 2;
  for (const [tip, side] of [[x - 1, -1], [x + width + 1, 1]]) {
    context.beginPath();
    context.moveTo(tip, y);
    context.lineTo(tip + 7 * side, y - 4);
    context.lineTo(tip + 7 * side, y + 4);
    context.fill();
  }
  context.globalAlpha = 0.3;
  context.fillRect(x, y - 2.5, width, 1);
  context.fillRect(x, y + 1.5, width, 1);
  context.globalAlpha = 1;
}

/** The shown row and column of a cursor, or null. */
export function cellOf(shown, cursor) {
  if (!cursor) return null;
  const [r, c] = [shown.rows.indexOf(cursor.query), shown.columns.indexOf(cursor.key)];
  return r >= 0 && c >= 0 ? { r, c } : null;
}

function drawTicks(context, frame, { shown, axes, query, cursor }) {
  const { x, y } = frame.place;
  const { view } = frame;
  const cell = cellOf(shown, cursor);
  const chosen = shown.rows.indexOf(query);
  const down = ticksBetween(shown.rows, view.r, view.r + view.rows - 0.4, frame.cellHeight, [cell?.r, chosen].filter((r) => r >= 0)); // the one under the pointer first
  const style = (strong, special) => {
    context.fillStyle = cssColour(strong ? "--accent-ink" : special ? "--faint" : "--ink");
    context.font = strong ? `600 ${FONT}` : FONT;
  };
  for (const r of down.ticks) {
    const position = shown.rows[r];
    style(r === chosen || r === cell?.r, axes.queries.isSpecial[position] || shown.empty[r]);
    const [, top] = frame.cornerOf(r, 0);
    drawRow(context, tickText(axes.queries, position, down.step), x - 8, top + frame.cellHeight / 2, x - 10);
  }
  const along = ticksBetween(shown.columns, view.c, view.c + view.columns - 0.4, frame.cellWidth, cell ? [cell.c] : [], true);
  for (const c of along.ticks) {
    const position = shown.columns[c];
    style(c === cell?.c, axes.keys.isSpecial[position]);
    const [left] = frame.cornerOf(0, c);
    drawColumn(context, tickText(axes.keys, position, along.step), left + frame.cellWidth / 2, y - 9, TALL);
  }
  context.font = FONT.replace("12px", "11px");
  context.fillStyle = cssColour("--faint");
  context.textAlign = "right";
  context.textBaseline = "bottom";
  context.fillText("key →", x - 8, y - 24);
  context.fillText("query ↓", x - 8, y - 10);
  return { rows: down.ticks, columns: along.ticks };
}

/** Where the small whole lies, when only a part is seen. */
export function insetPlace(frame) {
  const { x, y, width } = frame.place;
  const scale = Math.min(INSET / frame.columns, INSET / frame.rows);
  const [w, h] = [Math.max(12, frame.columns * scale), Math.max(12, frame.rows * scale)];
  return { x: x + width - w - 8, y: y + 8, width: w, height: h };
}

function drawInset(context, map) {
  const { frame, scene: { shown } } = map;
  const { x, y, width, height } = insetPlace(frame);
  const look = `${shown.scale.kind} ${cssColour("--ground")}`;
  if (map.overview?.of !== shown || map.overview.look !== look) {
    const [down, along] = [Math.min(frame.rows, 2 * INSET), Math.min(frame.columns, 2 * INSET)];
    map.overview = { of: shown, look, canvas: shown.pictureOf([0, frame.rows], [0, frame.columns], down, along) };
  }
  context.fillStyle = cssColour("--ground");
  context.fillRect(x - 4, y - 4, width + 8, height + 8);
  context.imageSmoothingEnabled = true;
  context.drawImage(map.overview.canvas, x, y, width, height);
  context.strokeStyle = cssColour("--line");
  context.lineWidth = 1;
  context.strokeRect(x - 4.5, y - 4.5, width + 9, height + 9);
  const { view } = frame;
  context.strokeStyle = cssColour("--accent");
  context.lineWidth = 2;
  const w = Math.max(5, (view.columns / frame.columns) * width);
  const h = Math.max(5, (view.rows / frame.rows) * height);
  context.strokeRect(x + (view.c / frame.columns) * width, y + (view.r / frame.rows) * height, w, h);
}
