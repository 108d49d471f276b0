const LEAST_EXTENT = 8; // tokens left in view
const STEP = 1.5; // zoom of a key or a button
const LINK_PAUSE = 350; // ms after the last movement until Python is told where the view is

/** How a map of any length is used: pointer, wheel, keyboard and buttons. Only a choice, or a rest, reaches Python. */
class Viewer extends ViewerAsking {
  constructor(root) {
    super();
    this.root = root;
    this.canvas = element("canvas", "lm2-map");
    this.canvas.setAttribute("role", "img");
    this.canvas.tabIndex = 0;
    const track = element("div", "lm2-track");
    this.thumb = element("div", "lm2-thumb");
    track.append(this.thumb);
    this.note = element("span", "lm2-note");
    this.legend = element("div", "lm2-legend");
    const caption = element("div", "lm2-caption");
    caption.append(this.note, this.buttons());
    const help = "wheel zooms · drag pans · arrows move the cursor, Enter chooses · + − 0, Home, End";
    root.append(this.canvas, track, caption, this.legend, element("div", "lm2-legend", help));
    this.tooltip = new Tooltip(root);
    this.cursor = null;
    this.listen();
    this.watch(root);
  }

  /** Take new data. The view stays unless the text is another one. */
  update({ data, setTriggerValue }) {
    const { header } = unpack(data);
    const before = this.header;
    this.header = header;
    this.trigger = setTriggerValue;
    const same = (...names) => before && names.every((name) => JSON.stringify(before[name]) === JSON.stringify(header[name]));
    if (!same("text", "rows")) {
      const [start, extent, top] = header.view ?? [0, header.columns, 0];
      this.view = { start, extent: Math.min(extent, header.columns), top, deep: header.rows };
      this.pieces = this.cursor = null;
      this.labelWidths = null;
    }
    if (!same("map", "token", "columns")) {
      this.bands?.end();
      this.tooltip.hide();
      this.bands = new Bands((place, signal) => this.askBand(place, signal), () => this.redraw());
      this.labelWidths = null;
    }
    if (this.drawn && !same("selectedRow", "selectedColumn")) this.reveal(header.selectedRow, header.selectedColumn);
    this.theme = themeOf(this.root);
    const anchors = anchorsOf(header, this.theme.dark);
    this.tables = { anchors };
    this.colours = Uint32Array.from({ length: 256 }, (_, byte) =>
      byte ? pixelAt(anchors, placeOf(valueAt((byte - 1) / 254, { ...header, scale: "sqrt" }), header)) : 0,
    );
    this.markLabels = [...new Set(header.marks.map(([, , label]) => label))];
    this.explainMarks();
    this.canvas.style.height = `${header.height}px`;
    this.canvas.setAttribute("aria-label", header.alt);
    this.redraw();
  }

  destroy() {
    super.destroy();
    this.bands.end();
    for (const timer of [this.asking, this.resting, this.telling]) clearTimeout(timer);
  }

  buttons() {
    const group = element("span", "lm2-buttons");
    for (const [sign, words, act] of [
      ["−", "zoom out", () => this.zoom(STEP)],
      ["+", "zoom in", () => this.zoom(1 / STEP)],
      ["whole", "the whole text", () => this.look({ start: 0, extent: this.header.columns, top: 0 })],
    ]) {
      const button = element("button", "lm2-button", sign);
      button.title = words;
      button.setAttribute("aria-label", words);
      button.addEventListener("click", act);
      group.append(button);
    }
    return group;
  }

  explainMarks() {
    this.legend.replaceChildren(
      ...this.markLabels.map((label, index) => {
        const sample = element("span", "lm2-sample", label);
        sample.style.setProperty("--lm2-mark", MARKS[index % MARKS.length]);
        return sample;
      }),
    );
  }

  /** Change the view, within the map. */
  look(change) {
    Object.assign(this.view, change);
    const { view, header } = this;
    view.extent = clamp(view.extent, Math.min(LEAST_EXTENT, header.columns), header.columns);
    view.start = clamp(view.start, 0, header.columns - view.extent);
    if (this.drawn) view.deep = this.deepFor(view.extent, this.drawn.box);
    view.top = clamp(view.top, 0, header.rows - view.deep);
    this.redraw();
    this.tellSoon();
  }

  /** Tell Python where the view is, once it rests and no button is down. */
  tellSoon() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const { start, extent, top } = this.view;
      if (this.drag) this.tellSoon();
      else this.trigger("view", [start, extent, top].map(Math.round));
    }, LINK_PAUSE);
  }

  /** Show `factor` times as many tokens; the point at the places `across` and `down` (0..1) of the view stays there. */
  zoom(factor, across = this.cursorPlace(0), down = this.cursorPlace(1)) {
    if (!this.drawn) return;
    const { view, header } = this;
    const [column, row] = [view.start + across * view.extent, view.top + down * view.deep];
    const extent = clamp(view.extent * factor, Math.min(LEAST_EXTENT, header.columns), header.columns);
    this.look({ extent, start: column - across * extent, top: row - down * this.deepFor(extent, this.drawn.box) });
  }

  /** Where the cursor is in the view, 0..1, along (0) or down (1); the middle if it is outside. */
  cursorPlace(axis) {
    const { start, extent, top, deep } = this.view;
    const [place, first, count] = axis ? [this.cursor?.row, top, deep] : [this.cursor?.column, start, extent];
    const share = (place + 0.5 - first) / count;
    return share >= 0 && share <= 1 ? share : 0.5;
  }

  /** Move the view as little as shows a token and a slot; null for either. */
  reveal(row, column) {
    const { start, extent, top, deep } = this.view;
    const shift = (place, first, count) =>
      place === null || (place >= first && place + 1 <= first + count) ? first : place + 0.5 - count / 2;
    this.look({ start: shift(column, start, extent), top: shift(row, top, deep) });
  }

  listen() {
    const { canvas } = this;
    const position = (event) => {
      const edge = canvas.getBoundingClientRect();
      return [event.clientX - edge.left, event.clientY - edge.top];
    };
    this.drag = null; // while the button is down: where the press began, and the view then
    let dragged = false; // whether the last press became a pan
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.drawn) return;
      this.drag = { x: event.clientX, y: event.clientY, ...this.view };
      dragged = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drawn) return;
      const { drag } = this;
      const [right, below] = drag ? [event.clientX - drag.x, event.clientY - drag.y] : [0, 0];
      if (drag && Math.hypot(right, below) > 4) dragged = true;
      if (drag && dragged) {
        const { box } = this.drawn;
        this.leave();
        this.look({ start: drag.start - (right / box.width) * drag.extent, top: drag.top - (below / box.height) * drag.deep });
      } else this.hover(this.cellAt(...position(event)), ...position(event));
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (this.drag = null));
    canvas.addEventListener("click", (event) => {
      const cell = dragged || event.detail > 1 || !this.drawn ? null : this.cellAt(...position(event));
      if (cell) this.choose(cell);
    });
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("blur", () => this.leave());
    canvas.addEventListener("wheel", (event) => this.wheel(event, ...position(event)), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  wheel(event, x, y) {
    if (!this.drawn || !this.cellAt(x, y)) return;
    const { box } = this.drawn;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const whole = this.view.extent === this.header.columns;
    if (whole && (sideways || event.deltaY > 0)) return; // nowhere to go: the page may scroll
    event.preventDefault();
    this.leave();
    const { start, extent } = this.view;
    if (sideways) this.look({ start: start + ((event.deltaX || event.deltaY) / box.width) * extent });
    else this.zoom(Math.exp(clamp(event.deltaY, -150, 150) * 0.003), (x - box.left) / box.width, (y - box.top) / box.height);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.drawn) return;
    const { start, extent } = this.view;
    const { columns } = this.header;
    const acts = {
      "+": () => this.zoom(1 / STEP),
      "=": () => this.zoom(1 / STEP),
      "-": () => this.zoom(STEP),
      0: () => this.look({ start: 0, extent: columns, top: 0 }),
      Home: () => this.look({ start: 0 }),
      End: () => this.look({ start: columns - extent }),
      PageUp: () => this.look({ start: start - extent }),
      PageDown: () => this.look({ start: start + extent }),
      Enter: () => this.cursor && this.choose(this.cursor),
      Escape: () => this.leave(),
    };
    if (event.key in ARROWS) this.step(...ARROWS[event.key].map((step) => step * (event.shiftKey ? 10 : 1)));
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
  }

  /** Move the cursor by cells as they are drawn; at first it is in the middle of the view. */
  step(down, right) {
    const { start, extent, top, deep } = this.view;
    const { rows, columns } = this.header;
    const { level, fold } = this.drawn.pooling;
    const from = this.cursor ?? { row: Math.floor(top + deep / 2), column: Math.floor(start + extent / 2) };
    this.cursor = this.pooledCell({
      row: clamp(from.row + down * 2 ** fold, 0, rows - 1),
      column: clamp(from.column + right * 2 ** level, 0, columns - 1),
    });
    const shift = (place, size, first, count) => first + Math.min(0, place - first) + Math.max(0, place + size - first - count);
    const { column, row, columns: wide, rows: high } = this.cursor;
    this.look({ start: shift(column, wide, start, extent), top: shift(row, high, top, deep) });
    const [left, above, width, height] = this.rectangle(row, column);
    this.hover(this.cursor, left + wide * width, above + high * height);
  }

  /** Choose the token and slot of a cell, in a pooled one those of its largest value. */
  async choose(cell) {
    const inside = await this.inside(cell);
    if (!inside) return;
    this.cursor = { row: inside.slot, column: inside.token };
    this.redraw();
    this.trigger("cell", { token: inside.token, slot: inside.slot });
  }
}

export default (component) => live(component, (root) => new Viewer(root));
