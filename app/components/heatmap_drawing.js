/** How a heatmap looks: all rows of `bits`, and the columns in view. */
class HeatmapDrawing extends Axes {
  /** The cell that is drawn at a point of the canvas (CSS pixels); null outside. */
  cellAt(x, y) {
    const { box } = this.drawn;
    if (x < box.left || y < box.top || x >= box.left + box.width || y >= box.top + box.height) return null;
    const { rows, columns, unit } = this.header;
    const { perColumn, perRow, ratio, across: spans } = this.drawn;
    const across = (x - box.left) * ratio;
    const down = (y - box.top) * ratio;
    const single = (place, count) => {
      const index = Math.min(Math.floor(place), count - 1);
      return [index, index + 1];
    };
    const [left, right] = spans
      ? spans[Math.min(Math.floor(across), spans.length - 1)]
      : single(this.view.start + across * perColumn, columns);
    const [top, bottom] = perRow > 1 ? span(Math.floor(down), perRow, rows) : single(down * perRow, rows);
    let best = { row: top, column: left, size: -Infinity };
    for (let row = top; row < bottom; row += 1) {
      for (let column = left; column < right; column += 1) {
        const size = weightOf(HALF[this.bits[row * columns + column]] * unit, this.header);
        if (size > best.size) best = { row, column, size };
      }
    }
    return { row: best.row, column: best.column };
  }

  draw() {
    if (!this.header || !this.canvas.clientWidth) return;
    const { header, view } = this;
    const { context, layout, device, ratio } = this.begin();
    const perColumn = view.extent / device.width;
    const perRow = header.rows / device.height;
    const across = perColumn > 1 ? spans(view.start, view.extent, header.columns, header.starts, device.width) : null;
    this.drawn = { ...layout, ratio, perColumn, perRow, across };

    this.hatch(context, device, ratio);
    if (this.ranks?.target !== device.height) {
      this.ranks = poolRows(this.bits, this.tables.ranks, header.rows, header.columns, device.height);
      this.ranks.target = device.height;
    }
    drawRanks(context, this.ranks, header.columns, this.tables.colours, view.start, view.extent, device, across);
    this.drawAround(context, ratio);
    this.describe();
  }

  get segmented() {
    return this.header.starts.length > 1 || this.header.segmentLabels.length > 0;
  }

  rowLabel(row) {
    return this.header.rowLabels[row];
  }

  columnLabel(column) {
    return this.header.columnLabels[column];
  }

  segmentLabel(index) {
    return this.header.segmentLabels[index];
  }

  measureLabels(measure) {
    const { rowLabels, columnLabels } = this.header;
    const longest = (labels, most) => Math.min(most, Math.max(...labels.slice(0, 2000).map((label) => measure(shortened(label)))));
    const bar = [0, 0.5, 1].map((place) => number(valueAt(place, this.header)));
    return { row: longest(rowLabels, 110), column: longest(columnLabels, 76), bar: longest(bar, 60) };
  }

  /** The caption: what is shown, and how it is pooled. */
  describe() {
    const { rows, columns, rowNoun, columnNoun, pooling, starts } = this.header;
    const { perColumn, perRow, across } = this.drawn;
    const first = Math.floor(this.view.start);
    const last = Math.min(columns, Math.ceil(this.view.start + this.view.extent));
    const from = this.header.first;
    const window = last - first < columns ? `${columnNoun}s ${from + first}–${from + last - 1} of ${columns}` : counted(columns, columnNoun);
    const parts = [`${counted(rows, rowNoun)} × ${window}`];
    const pooled = perRow > 1 ? [counted(Math.ceil(perRow), rowNoun)] : [];
    if (across) pooled.push(counted(across.reduce((most, [from, to]) => Math.max(most, to - from), 1), columnNoun));
    if (pooled.length) {
      const crowded = across && starts.filter((start) => start > first && start < last).length >= across.length;
      parts.push(`each pixel the ${pooling} of up to ${pooled.join(" × ")}${crowded ? " of several segments" : ""}`);
    }
    this.note.textContent = parts.join(" · ");
  }
}
