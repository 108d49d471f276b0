const SLOT_HEIGHT = 14; // px that a slot gets at most, unless all fit
const WHOLE = 512; // columns and rows of the whole map that is always there

/** How the viewer looks: the bands of the columns and rows in `view`, and coarser ones until they are there. */
class ViewerDrawing extends Axes {
  /** How many slots are in view when `extent` tokens are: as many as make cells square, but none is larger than it need be. */
  deepFor(extent, { width, height }) {
    const { rows } = this.header;
    return Math.min(rows, height * Math.max(extent / width, 1 / SLOT_HEIGHT));
  }

  /** The pooling at which each cell has a pixel or more. */
  poolingOf({ width, height }) {
    return { level: poolingFor(this.view.extent / width), fold: poolingFor(this.view.deep / height) };
  }

  /** The bands of a pooling for the columns [first, last) of the text. */
  places({ level, fold }, first, last) {
    const tokens = this.header.bandColumns * 2 ** level;
    const end = Math.ceil(clamp(last, 1, this.header.columns) / tokens);
    const start = Math.floor(clamp(first, 0, this.header.columns - 1) / tokens);
    return Array.from({ length: end - start }, (_, k) => ({ level, fold, band: start + k }));
  }

  draw() {
    if (!this.header || !this.canvas.clientWidth) return;
    const { context, layout, device, ratio } = this.begin();
    const { view, header } = this;
    view.deep = this.deepFor(view.extent, layout.box);
    view.top = clamp(view.top, 0, header.rows - view.deep);
    const pooling = this.poolingOf(device);
    const needed = this.places(pooling, view.start, view.start + view.extent);
    const whole = { level: poolingFor(header.columns / WHOLE), fold: poolingFor(header.rows / WHOLE) };
    const beside = this.places(pooling, view.start - view.extent / 2, view.start + 1.5 * view.extent);
    this.urgent = [...this.places(whole, 0, header.columns), ...needed, ...beside];
    const settled = needed.every((place) => this.bands.get(place));
    this.drawn = { ...layout, ratio, pooling, settled };

    this.hatch(context, device, ratio);
    context.save();
    context.beginPath();
    context.rect(device.left, device.top, device.width, device.height);
    context.clip();
    context.imageSmoothingEnabled = false;
    if (!settled) for (const band of this.bands.coarser(pooling)) this.paint(context, band, device);
    for (const place of needed) this.paint(context, this.bands.get(place), device);
    context.restore();
    this.drawAround(context, ratio);
    this.drawMarks(context, layout.box, layout.cell);
    this.describe();
    this.askSoon();
  }

  /** Draw the part of a band that is in view, each of its cells on whole pixels. */
  paint(context, band, device) {
    if (!band) return;
    const { view, header } = this;
    const [along, down] = [device.width / view.extent, device.height / view.deep];
    const [wide, deep] = [2 ** band.level, 2 ** band.fold];
    const origin = band.band * header.bandColumns; // its first column, counted in columns of its level
    const left = Math.max(0, Math.floor(view.start / wide) - origin);
    const right = Math.min(band.columns, Math.ceil((view.start + view.extent) / wide) - origin);
    const top = Math.floor(view.top / deep);
    const bottom = Math.min(band.rows, Math.ceil((view.top + view.deep) / deep));
    if (left >= right || top >= bottom) return;
    const x = (column) => device.left + Math.round((Math.min((origin + column) * wide, header.columns) - view.start) * along);
    const y = (row) => device.top + Math.round((Math.min(row * deep, header.rows) - view.top) * down);
    const [from, above] = [x(left), y(top)];
    const size = [x(right) - from, y(bottom) - above];
    context.drawImage(this.picture(band), left, top, right - left, bottom - top, from, above, ...size);
  }

  /** A band in the colours of now. */
  picture(band) {
    if (band.colours !== this.colours) {
      const image = new ImageData(band.columns, band.rows);
      const pixels = new Uint32Array(image.data.buffer);
      for (let cell = 0; cell < pixels.length; cell += 1) pixels[cell] = this.colours[band.bytes[cell]];
      band.picture ??= new OffscreenCanvas(band.columns, band.rows);
      band.picture.getContext("2d").putImageData(image, 0, 0);
      band.colours = this.colours;
    }
    return band.picture;
  }

  /** Thin marks below the map, at least 2 px wide, for the ranges of tokens that have a label. */
  drawMarks(context, box, cell) {
    const labels = this.markLabels;
    for (const [start, stop, label] of this.header.marks) {
      const from = Math.max(box.left, box.left + (start - this.view.start) * cell);
      const to = Math.min(box.left + box.width, Math.max(box.left + (stop - this.view.start) * cell, from + 2));
      if (to <= from) continue;
      context.fillStyle = MARKS[labels.indexOf(label) % MARKS.length];
      context.fillRect(from, box.top + box.height + 2, to - from, 4);
    }
  }

  /** Arrowheads at the edges for the chosen token and slot, which hide no cell, and a frame around the cursor. */
  drawSelection(context, box) {
    const { selectedRow, selectedColumn } = this.header;
    context.fillStyle = this.theme.primary;
    const arrow = (x, y, across, down) => {
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x - 6 * across - 4 * down, y - 6 * down - 4 * across);
      context.lineTo(x - 6 * across + 4 * down, y - 6 * down + 4 * across);
      context.fill();
    };
    if (selectedColumn !== null) {
      const [left, , width] = this.rectangle(null, selectedColumn);
      const x = left + width / 2;
      if (x >= box.left && x <= box.left + box.width) arrow(x, box.top, 0, 1);
    }
    if (selectedRow !== null) {
      const [, top, , height] = this.rectangle(selectedRow, null);
      const y = top + height / 2;
      if (y >= box.top && y <= box.top + box.height) arrow(box.left, y, 1, 0);
    }
    if (!this.cursor) return;
    const [first, last] = [this.rectangle(this.cursor.row, this.cursor.column), this.pooledCell(this.cursor)];
    context.save();
    context.beginPath();
    context.rect(box.left - 3, box.top - 3, box.width + 6, box.height + 6);
    context.clip();
    this.outline(context, [first[0], first[1], last.columns * first[2], last.rows * first[3]], 1.5);
    context.restore();
  }

  /** The cell that is drawn where a token and slot are: its first token and slot, and how many of each it pools. */
  pooledCell({ row, column }) {
    const { level, fold } = this.drawn.pooling;
    const [first, top] = [(column >> level) << level, (row >> fold) << fold];
    return {
      column: first,
      row: top,
      columns: Math.min(2 ** level, this.header.columns - first),
      rows: Math.min(2 ** fold, this.header.rows - top),
    };
  }

  /** The token and slot at a point of the canvas (CSS pixels); null outside. */
  cellAt(x, y) {
    const { box } = this.drawn;
    if (x < box.left || y < box.top || x >= box.left + box.width || y >= box.top + box.height) return null;
    const { start, extent, top, deep } = this.view;
    const column = Math.floor(start + ((x - box.left) / box.width) * extent);
    const row = Math.floor(top + ((y - box.top) / box.height) * deep);
    return { column: Math.min(column, this.header.columns - 1), row: Math.min(row, this.header.rows - 1) };
  }

  /** The value of a token and slot as it is drawn; null while its band is not there. */
  drawnValue({ row, column }) {
    const { level, fold } = this.drawn.pooling;
    const at = column >> level;
    const band = this.bands.get({ level, fold, band: Math.floor(at / this.header.bandColumns) });
    const byte = band?.bytes[(row >> fold) * band.columns + (at % this.header.bandColumns)];
    return byte ? valueAt((byte - 1) / 254, { ...this.header, scale: "sqrt" }) : null;
  }

  get segmented() {
    return this.header.starts.length > 1;
  }

  /** A line would hide a part of the cells beside it, which may be single pixels. */
  lineFits(width) {
    return width >= 5 && this.drawn.cell * 2 ** this.drawn.pooling.level >= 4;
  }

  rowLabel(row) {
    return String(row);
  }

  columnLabel(column) {
    return this.pieces?.first <= column ? (this.pieces.texts[column - this.pieces.first] ?? "…") : "…";
  }

  segmentLabel(index) {
    return `segment ${index}`;
  }

  measureLabels(measure) {
    const bar = [0, 0.5, 1].map((place) => number(valueAt(place, this.header)));
    return { row: measure(String(this.header.rows)), column: 76, bar: Math.min(60, Math.max(...bar.map(measure))) };
  }

  /** The words for what a cell pools; empty if it is one token and slot. */
  pooledWords({ level, fold }) {
    const axes = [[level, "token"], [fold, "slot"]].filter(([power]) => power).map(([power, noun]) => counted(2 ** power, noun));
    return axes.length ? `${this.header.pooling} of ${axes.join(" × ")}` : "";
  }

  /** The caption: what is shown, how it is pooled, and whether that is all. */
  describe() {
    const { view, header, drawn, bands } = this;
    const range = (noun, start, extent, count) => {
      const [first, last] = [Math.floor(start), Math.min(count, Math.ceil(start + extent)) - 1];
      return last - first + 1 < count ? `${noun}s ${grouped(first)}–${grouped(last)} of ${grouped(count)}` : `${grouped(count)} ${noun}s`;
    };
    const pooled = this.pooledWords(drawn.pooling);
    this.note.textContent = [
      range("token", view.start, view.extent, header.columns),
      range("slot", view.top, view.deep, header.rows),
      pooled ? `each cell the ${pooled}` : "each cell one token and slot",
      ...(bands.trouble ? [`not all could be read: ${bands.trouble}`] : drawn.settled ? [] : ["finer cells are loading"]),
    ].join(" · ");
    this.thumb.style.left = `${(100 * view.start) / header.columns}%`;
    this.thumb.style.width = `${(100 * view.extent) / header.columns}%`;
    Object.assign(this.canvas.dataset, { ...view, ...drawn.pooling, settled: drawn.settled, box: JSON.stringify(drawn.box) });
  }
}

/** A whole number with a comma between each three digits. */
const grouped = (value) => value.toLocaleString("en");
