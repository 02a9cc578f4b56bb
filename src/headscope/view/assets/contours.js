// The smallest set of cells that holds a share of the weight, and the line around it.

/** Which cells hold `share` of the sum, the heaviest first: { inside, count }. Cells that may not be seen hold nothing. */
export function massOf(values, share) {
  const order = Array.from(values.keys()).filter((i) => values[i] > 0).sort((a, b) => values[b] - values[a]);
  const total = order.reduce((sum, i) => sum + values[i], 0);
  const inside = new Uint8Array(values.length);
  let [sum, count] = [0, 0];
  while (count < order.length && sum < share * total - 1e-9) {
    inside[order[count]] = 1;
    sum += values[order[count++]];
  }
  return { inside, count };
}

/** The edges between inside and outside of a grid of cells, as one path: a list of [x1, y1, x2, y2] in cells. */
export function edgesOf(inside, rows, columns) {
  const edges = [];
  const at = (r, c) => (r >= 0 && c >= 0 && r < rows && c < columns ? inside[r * columns + c] : 0);
  for (let r = 0; r <= rows; r++) {
    for (let c = 0; c <= columns; c++) {
      if (at(r, c) !== at(r - 1, c)) edges.push([c, r, c + 1, r]);
      if (at(r, c) !== at(r, c - 1)) edges.push([c, r, c, r + 1]);
    }
  }
  return edges;
}

/** Draw the line around the cells: light on dark, so that it is seen on any picture. */
export function drawContour(context, edges, cellWidth, cellHeight, dash) {
  const path = new Path2D();
  for (const [x1, y1, x2, y2] of edges) {
    path.moveTo(x1 * cellWidth, y1 * cellHeight);
    path.lineTo(x2 * cellWidth, y2 * cellHeight);
  }
  context.save();
  context.lineCap = "square";
  context.strokeStyle = "rgb(0 0 0 / 70%)";
  context.lineWidth = dash ? 2.5 : 3.5;
  context.stroke(path);
  context.setLineDash(dash);
  context.strokeStyle = "#ffffff";
  context.lineWidth = dash.length ? 1.2 : 1.6;
  context.stroke(path);
  context.restore();
}
