const LABEL = 11; // px, row labels, ticks and token texts
const TEXT_CELL = 9; // px of cell width from which each token's text is written

/**
 * Axes, marks and colours around a map, on a canvas: what `header` and `theme` say of the columns and rows that are in
 * `view` (`extent` columns from `start` on, and `deep` rows from `top` on), with a `cursor` or null.
 *
 * A map says `segmented`, `rowLabel`, `columnLabel`, `segmentLabel` and `measureLabels`.
 */
class Axes extends Canvases {
  /** An empty canvas of the size that it has on the page, with the map's place on it in CSS and in device pixels. */
  begin() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.header.height * ratio);
    const context = this.canvas.getContext("2d");
    context.font = `${LABEL}px ${this.theme.font}`;
    const layout = this.layout(context);
    const device = Object.fromEntries(Object.entries(layout.box).map(([side, px]) => [side, Math.round(px * ratio)]));
    return { context, layout, device, ratio };
  }

  /** Everything but the map itself, by the layout in `drawn`. */
  drawAround(context, ratio) {
    const { box, cell, texts, labels } = this.drawn;
    context.scale(ratio, ratio);
    context.font = `${LABEL}px ${this.theme.font}`;
    if (this.segmented) this.drawSegments(context, box, cell);
    this.drawSelection(context, box);
    context.strokeStyle = this.theme.border;
    context.lineWidth = 1;
    context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
    this.drawRowLabels(context, box);
    this.drawColumnLabels(context, box, cell, texts);
    this.drawTitles(context, box, labels);
    this.drawBar(context, box);
  }

  /** Whether there is room for the line where a segment begins that is so wide (CSS pixels). */
  lineFits(width) {
    return width >= 5;
  }

  /** The map's rectangle in CSS pixels, and which labels the room allows. */
  layout(context) {
    const { header, view } = this;
    const width = this.canvas.clientWidth;
    this.labelWidths ??= this.measureLabels((text) => context.measureText(text).width);
    const left = 22 + this.labelWidths.row + 8;
    const right = width - (14 + 12 + 6 + this.labelWidths.bar + 24);
    const top = this.segmented ? 22 : 8;
    const box = { left: Math.round(left), top, width: Math.max(16, Math.round(right - left)) };
    const cell = box.width / view.extent;
    const texts = cell >= this.labelWidths.column + 8 ? "level" : cell >= TEXT_CELL ? "upright" : "ticks";
    const labels = texts === "upright" ? this.labelWidths.column + 8 : LABEL + 9;
    box.height = Math.max(16, Math.round(header.height - top - labels - 22));
    return { box, cell, texts, labels };
  }

  /** The rectangle of a cell; of a whole column or row if `row` or `column` is null (CSS pixels). */
  rectangle(row, column) {
    const { box, cell } = this.drawn;
    const high = box.height / this.view.deep;
    const [left, width] = column === null ? [box.left, box.width] : [box.left + (column - this.view.start) * cell, cell];
    const [top, height] = row === null ? [box.top, box.height] : [box.top + (row - this.view.top) * high, high];
    return [left, top, width, height];
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
    const { starts, columns, diverging } = this.header;
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
      if (from > box.left && this.lineFits((end - start) * cell)) {
        context.fillStyle = line;
        context.globalAlpha = diverging ? 0.45 : 0.7;
        context.fillRect(Math.round(from) - 0.5, box.top, 1, box.height);
      }
      context.globalAlpha = 1;
      const label = this.segmentLabel(index);
      const width = label ? context.measureText(label).width : 0;
      if (!label || from < free || from + width > right) return;
      context.fillStyle = this.theme.muted;
      context.textAlign = "left";
      context.textBaseline = "alphabetic";
      context.fillText(label, from, box.top - 9);
      free = from + width + 10;
    });
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

  drawRowLabels(context, box) {
    const { top, deep } = this.view;
    const high = box.height / deep;
    const step = niceStep((LABEL + 3) / high);
    context.fillStyle = this.theme.text;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let row = Math.ceil(Math.max(0, top - 0.5) / step) * step; row < top + deep; row += step) {
      const y = Math.max(box.top + 5, box.top + (row + 0.5 - top) * high);
      if (y > box.top + box.height) continue;
      context.fillText(fit(context, shortened(this.rowLabel(row)), this.labelWidths.row + 1), box.left - 7, y);
    }
  }

  drawColumnLabels(context, box, cell, texts) {
    const { columns, first } = this.header;
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
        upright(context, shortened(this.columnLabel(column)), x, bottom + 6, this.labelWidths.column + 1);
      } else {
        context.textAlign = "center";
        context.textBaseline = "top";
        context.fillText(texts === "level" ? shortened(this.columnLabel(column)) : String(first + column), x, bottom + 7);
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
