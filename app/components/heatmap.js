const MOST_ZOOM = 8; // columns left in view

/** How a heatmap is used: pointer, wheel and keyboard. */
class Heatmap extends HeatmapDrawing {
  constructor(root) {
    super();
    this.canvas = element("canvas", "lm2-map");
    this.canvas.setAttribute("role", "img");
    this.canvas.tabIndex = 0;
    this.note = element("span", "lm2-note");
    const caption = element("div", "lm2-caption");
    caption.append(this.note, element("span", "", "wheel zooms · drag pans · double-click resets · arrows and Enter choose"));
    root.append(this.canvas, caption);
    this.root = root;
    this.tooltip = new Tooltip(root);
    this.listen();
    this.watch(root);
  }

  /** Take new data. The zoom stays unless the number of columns has changed. */
  update({ data, setTriggerValue }) {
    const { header, raw } = unpack(data);
    const { rows, columns } = header;
    if (this.header?.columns !== columns) this.view = { start: 0, extent: columns };
    Object.assign(this.view, { top: 0, deep: rows });
    const chosen = (h) => h && [h.selectedRow, h.selectedColumn, h.rows, h.columns].join();
    if (chosen(this.header) !== chosen(header)) {
      const both = header.selectedRow !== null && header.selectedColumn !== null;
      this.cursor = both ? { row: header.selectedRow, column: header.selectedColumn } : null;
    }
    this.header = header;
    this.bits = typed(raw, Uint16Array);
    this.send = (cell) => setTriggerValue("cell", cell);
    this.theme = themeOf(this.root);
    this.tables = colourTables(header, this.theme.dark);
    this.ranks = null;
    this.labelWidths = null;
    this.canvas.style.height = `${header.height}px`;
    this.canvas.setAttribute("aria-label", header.alt);
    Object.assign(this.canvas.dataset, { rows, columns });
    this.tooltip.hide();
    this.redraw();
  }

  /** Show `extent` columns from `start` on. */
  look(start, extent) {
    Object.assign(this.view, { start: clamp(start, 0, this.header.columns - extent), extent });
    this.redraw();
  }

  /** Show `factor` times as many columns; `place` (0..1) of the view stays where it is. */
  zoom(factor, place) {
    const { columns } = this.header;
    const extent = clamp(this.view.extent * factor, Math.min(columns, MOST_ZOOM), columns);
    this.look(this.view.start + place * (this.view.extent - extent), extent);
  }

  listen() {
    const { canvas } = this;
    const position = (event) => {
      const edge = canvas.getBoundingClientRect();
      return [event.clientX - edge.left, event.clientY - edge.top];
    };
    let drag = null; // while the button is down: where the press began, and the view then
    let dragged = false; // whether the last press became a pan
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.drawn) return;
      drag = { x: event.clientX, start: this.view.start };
      dragged = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drawn) return;
      if (drag && Math.abs(event.clientX - drag.x) > 4) dragged = true;
      if (drag && dragged) {
        this.tooltip.hide();
        this.look(drag.start - (event.clientX - drag.x) / this.drawn.cell, this.view.extent);
      } else this.hover(this.cellAt(...position(event)), ...position(event));
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (drag = null));
    canvas.addEventListener("click", (event) => {
      const cell = dragged || event.detail > 1 || !this.drawn ? null : this.cellAt(...position(event));
      if (cell) this.choose(cell);
    });
    canvas.addEventListener("pointerleave", () => this.tooltip.hide());
    canvas.addEventListener("dblclick", () => this.look(0, this.header.columns));
    canvas.addEventListener("wheel", (event) => this.wheel(event, ...position(event)), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.tooltip.hide());
  }

  wheel(event, x, y) {
    if (!this.drawn) return;
    const { box, cell } = this.drawn;
    if (!this.cellAt(x, y)) return;
    const { start, extent } = this.view;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const full = extent === this.header.columns;
    if (full && (sideways || event.deltaY > 0)) return; // nowhere to go: the page may scroll
    event.preventDefault();
    this.tooltip.hide();
    if (sideways) this.look(start + (event.deltaX || event.deltaY) / cell, extent);
    else this.zoom(Math.exp(clamp(event.deltaY, -150, 150) * 0.003), (x - box.left) / box.width);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.drawn) return;
    const { rows, columns, selectedRow, selectedColumn } = this.header;
    if (event.key in ARROWS) {
      const [down, right] = ARROWS[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
      const from = this.cursor ?? { row: selectedRow ?? 0, column: selectedColumn ?? Math.floor(this.view.start) };
      this.cursor = { row: clamp(from.row + down, 0, rows - 1), column: clamp(from.column + right, 0, columns - 1) };
      const { start, extent } = this.view;
      const shift = Math.min(0, this.cursor.column - start) + Math.max(0, this.cursor.column + 1 - start - extent);
      this.view.start += shift;
      const [left, top, width, height] = this.rectangle(this.cursor.row, this.cursor.column);
      this.hover(this.cursor, left + width, top + height);
      this.redraw();
    } else if (event.key === "Enter" && this.cursor) this.choose(this.cursor);
    else if (event.key === "+" || event.key === "=") this.zoom(1 / 1.5, this.cursorPlace());
    else if (event.key === "-") this.zoom(1.5, this.cursorPlace());
    else if (event.key === "0") this.look(0, columns);
    else if (event.key === "Escape") this.tooltip.hide();
    else return;
    event.preventDefault();
  }

  /** Where the cursor is in the view, 0..1; the middle if it is outside. */
  cursorPlace() {
    const place = this.cursor ? (this.cursor.column + 0.5 - this.view.start) / this.view.extent : 0.5;
    return place >= 0 && place <= 1 ? place : 0.5;
  }

  choose(cell) {
    this.cursor = cell;
    this.redraw();
    this.send(cell);
  }

  hover(cell, x, y) {
    if (!cell) return this.tooltip.hide();
    const { columns, unit, columnLabels, rowLabels, columnTitle, rowTitle, valueTitle, first } = this.header;
    const value = HALF[this.bits[cell.row * columns + cell.column]] * unit;
    const label = visible(columnLabels[cell.column]);
    this.tooltip.show(
      `${columnTitle === "token" ? `token ${first + cell.column}: “${label}”` : label}\n` +
        `${rowTitle}: ${visible(rowLabels[cell.row])}\n${valueTitle}: ${number(value)}`,
      x,
      y,
    );
  }
}

export default (component) => live(component, (root) => new Heatmap(root));
