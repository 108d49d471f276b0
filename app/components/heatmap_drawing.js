const LABEL = 11; // px, row labels, ticks and token texts
const TEXT_CELL = 9; // px of cell width from which each token's text is written

/** How a heatmap looks: what `header`, `bits`, `view` (start and extent, columns), `cursor` and `theme` say, on a canvas. */
class HeatmapDrawing extends Canvases {
  /** The map's rectangle in CSS pixels, and which labels the room allows. */
  layout(context) {
    const { header, view } = this;
    const width = this.canvas.clientWidth;
    const measure = (text) => context.measureText(text).width;
    if (!this.labelWidths) {
      const longest = (labels, most) => Math.min(most, Math.max(...labels.slice(0, 2000).map((label) => measure(shortened(label)))));
      const bar = [0, 0.5, 1].map((place) => number(valueAt(place, header)));
      this.labelWidths = {
        row: longest(header.rowLabels, 110),
        column: longest(header.columnLabels, 76),
        bar: longest(bar, 60),
      };
    }
    const left = 22 + this.labelWidths.row + 8;
    const right = width - (14 + 12 + 6 + this.labelWidths.bar + 24);
    const top = header.starts.length > 1 || header.segmentLabels.length ? 22 : 8;
    const box = { left: Math.round(left), top, width: Math.max(16, Math.round(right - left)) };
    const cell = box.width / view.extent;
    const texts = cell >= this.labelWidths.column + 8 ? "level" : cell >= TEXT_CELL ? "upright" : "ticks";
    const labels = texts === "upright" ? this.labelWidths.column + 8 : LABEL + 9;
    box.height = Math.max(16, Math.round(header.height - top - labels - 22));
    return { box, cell, texts, labels };
  }

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

  /** The rectangle of a cell; of a whole column or row if `row` or `column` is null (CSS pixels). */
  rectangle(row, column) {
    const { box, cell } = this.drawn;
    const high = box.height / this.header.rows;
    const [left, width] = column === null ? [box.left, box.width] : [box.left + (column - this.view.start) * cell, cell];
    const [top, height] = row === null ? [box.top, box.height] : [box.top + row * high, high];
    return [left, top, width, height];
  }

  draw() {
    const { canvas, header, view, theme } = this;
    if (!header || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(header.height * ratio);
    const context = canvas.getContext("2d");
    context.font = `${LABEL}px ${theme.font}`;
    const { box, cell, texts, labels } = this.layout(context);
    const device = Object.fromEntries(Object.entries(box).map(([side, px]) => [side, Math.round(px * ratio)]));
    const perColumn = view.extent / device.width;
    const perRow = header.rows / device.height;
    const across = perColumn > 1 ? spans(view.start, view.extent, header.columns, header.starts, device.width) : null;
    this.drawn = { box, cell, ratio, perColumn, perRow, across };

    this.hatch(context, device, ratio);
    if (this.ranks?.target !== device.height) {
      this.ranks = poolRows(this.bits, this.tables.ranks, header.rows, header.columns, device.height);
      this.ranks.target = device.height;
    }
    drawRanks(context, this.ranks, header.columns, this.tables.colours, view.start, view.extent, device, across);

    context.scale(ratio, ratio);
    context.font = `${LABEL}px ${theme.font}`;
    this.drawSegments(context, box, cell);
    this.drawSelection(context, box);
    context.strokeStyle = theme.border;
    context.lineWidth = 1;
    context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
    this.drawRowLabels(context, box);
    this.drawColumnLabels(context, box, cell, texts);
    this.drawTitles(context, box, labels);
    this.drawBar(context, box);
    this.describe();
  }

  /** The grey hatching that shows through masked cells. */
  hatch(context, box, ratio) {
    const size = Math.round(6 * ratio);
    const tile = new OffscreenCanvas(size, size);
    const ink = tile.getContext("2d");
    ink.fillStyle = this.theme.dark ? "#3a3d45" : "#e4e5e9";
    ink.fillRect(0, 0, size, size);
    ink.strokeStyle = this.theme.dark ? "#5b5f69" : "#bcbfc7";
    ink.lineWidth = ratio;
    ink.beginPath();
    for (const shift of [-size, 0, size]) {
      ink.moveTo(shift, size);
      ink.lineTo(shift + size, 0);
    }
    ink.stroke();
    context.fillStyle = context.createPattern(tile, "repeat");
    context.fillRect(box.left, box.top, box.width, box.height);
  }

  /** Lines where segments begin, and above the map a tinted band with their labels. */
  drawSegments(context, box, cell) {
    const { starts, segmentLabels, columns, diverging } = this.header;
    if (starts.length < 2 && !segmentLabels.length) return;
    const right = box.left + box.width;
    const line = diverging ? this.theme.text : "#ffffff";
    let free = box.left;
    starts.forEach((start, index) => {
      const end = starts[index + 1] ?? columns;
      const from = Math.max(box.left, box.left + (start - this.view.start) * cell);
      const to = Math.min(right, box.left + (end - this.view.start) * cell);
      if (to <= box.left || from >= right) return;
      context.fillStyle = SEGMENTS[index % SEGMENTS.length];
      context.globalAlpha = 0.75;
      context.fillRect(from, box.top - 5, to - from, 3);
      if (from > box.left && (end - start) * cell >= 5) {
        context.fillStyle = line;
        context.globalAlpha = diverging ? 0.45 : 0.7;
        context.fillRect(Math.round(from) - 0.5, box.top, 1, box.height);
      }
      context.globalAlpha = 1;
      const label = segmentLabels[index];
      const width = label ? context.measureText(label).width : 0;
      if (!label || from < free || from + width > right) return;
      context.fillStyle = this.theme.muted;
      context.textAlign = "left";
      context.textBaseline = "alphabetic";
      context.fillText(label, from, box.top - 9);
      free = from + width + 10;
    });
  }

  drawSelection(context, box) {
    const { selectedRow, selectedColumn } = this.header;
    context.save();
    context.beginPath();
    context.rect(box.left - 3, box.top - 3, box.width + 6, box.height + 6);
    context.clip();
    if (selectedRow !== null) this.outline(context, this.rectangle(selectedRow, null), 1.5);
    if (selectedColumn !== null) this.outline(context, this.rectangle(null, selectedColumn), 1.5);
    if (this.cursor) this.outline(context, this.rectangle(this.cursor.row, this.cursor.column), 2);
    context.restore();
  }

  outline(context, [left, top, width, height], line) {
    const pad = line / 2;
    const [x, y] = [Math.round(left), Math.round(top)];
    const [right, bottom] = [Math.round(left + Math.max(width, 2)), Math.round(top + Math.max(height, 2))];
    for (const [colour, extra] of [["rgb(255 255 255 / 55%)", 2], [this.theme.primary, 0]]) {
      context.strokeStyle = colour;
      context.lineWidth = line + extra;
      context.strokeRect(x - pad, y - pad, right - x + line, bottom - y + line);
    }
  }

  drawRowLabels(context, box) {
    const { rowLabels, rows } = this.header;
    const high = box.height / rows;
    const step = niceStep((LABEL + 3) / high);
    context.fillStyle = this.theme.text;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let row = 0; row < rows; row += step) {
      const y = Math.max(box.top + 5, box.top + (row + 0.5) * high);
      context.fillText(fit(context, shortened(rowLabels[row]), this.labelWidths.row + 1), box.left - 7, y);
    }
  }

  drawColumnLabels(context, box, cell, texts) {
    const { columnLabels, columns, first } = this.header;
    const { start, extent } = this.view;
    const bottom = box.top + box.height;
    const centre = (column) => box.left + (column - start + 0.5) * cell;
    const step = texts === "ticks" ? niceStep(60 / cell) : 1;
    const last = Math.min(columns - 1, Math.ceil(start + extent));
    for (let column = Math.ceil(Math.max(0, start - 0.5) / step) * step; column <= last; column += step) {
      const x = centre(column);
      if (x < box.left || x > box.left + box.width) continue;
      context.fillStyle = this.theme.text;
      if (texts === "upright") {
        context.textAlign = "right";
        context.textBaseline = "middle";
        upright(context, shortened(columnLabels[column]), x, bottom + 6, this.labelWidths.column + 1);
      } else {
        context.textAlign = "center";
        context.textBaseline = "top";
        context.fillText(texts === "level" ? shortened(columnLabels[column]) : String(first + column), x, bottom + 7);
        context.fillStyle = this.theme.border;
        context.fillRect(x - 0.5, bottom + 1, 1, 4);
      }
    }
  }

  drawTitles(context, box, labels) {
    const { rowTitle, columnTitle, valueTitle, scale } = this.header;
    context.fillStyle = this.theme.muted;
    context.font = `12px ${this.theme.font}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(columnTitle, box.left + box.width / 2, box.top + box.height + labels + 11);
    upright(context, rowTitle, 9, box.top + box.height / 2, box.height + 30);
    const high = this.header.height; // the title of the values has the right edge for itself
    const title = scale === "sqrt" ? `${valueTitle} (√)` : valueTitle;
    upright(context, title, this.canvas.clientWidth - 9, high / 2, high - 8);
    context.font = `${LABEL}px ${this.theme.font}`;
  }

  drawBar(context, box) {
    const left = box.left + box.width + 14;
    const paint = context.createLinearGradient(0, box.top + box.height, 0, box.top);
    this.tables.anchors.forEach((colour, k) => paint.addColorStop(k / (this.tables.anchors.length - 1), colour));
    context.fillStyle = paint;
    context.fillRect(left, box.top, 12, box.height);
    context.strokeStyle = this.theme.border;
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, box.top - 0.5, 13, box.height + 1);
    context.fillStyle = this.theme.text;
    context.textAlign = "left";
    [["bottom", 0], ["middle", 0.5], ["top", 1]].forEach(([baseline, place]) => {
      context.textBaseline = baseline;
      context.fillText(number(valueAt(place, this.header)), left + 18, box.top + (1 - place) * box.height);
    });
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

/** Write text at (x, y), turned to run upwards and cut to `width` pixels. */
function upright(context, text, x, y, width) {
  context.save();
  context.translate(x, y);
  context.rotate(-Math.PI / 2);
  context.fillText(fit(context, text, width), 0, 0);
  context.restore();
}

/** A label for an axis, without spaces around it; a mark if it is nothing but spaces. */
const shortened = (text) => visible(text).trim() || "␣";

/** The smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= least) ?? 1;
}

/** `text`, cut with an ellipsis if it is wider than `width` pixels. */
function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return `${text.slice(0, length)}…`;
}
