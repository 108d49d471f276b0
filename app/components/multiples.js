class Multiples extends Canvases {
  constructor(root) {
    super();
    this.root = root;
    this.title = element("div", "lm2-title");
    this.grid = element("div", "lm2-grid");
    this.grid.setAttribute("role", "group");
    this.scroll = element("div", "lm2-scroll");
    this.scroll.append(this.grid);
    this.footer = element("div", "lm2-footer");
    root.append(this.title, this.scroll, this.footer);
    this.listen();
    this.watch(this.grid);
  }

  update({ data, setTriggerValue }) {
    const { header, raw } = unpack(data);
    const before = this.header;
    this.header = header;
    this.bits = typed(raw, Uint16Array);
    this.send = (panel) => setTriggerValue("panel", panel);
    this.tables = colourTables(header, false);
    this.root.style.setProperty("--lm2-heads", header.shape[1]);
    this.root.style.setProperty("--lm2-panel-height", `${header.panelHeight}px`);
    this.title.textContent = header.title;
    this.grid.setAttribute("aria-label", header.alt);
    const same = (name) => JSON.stringify(before?.[name]) === JSON.stringify(header[name]);
    if (!["layerLabels", "headLabels"].every(same)) this.build();
    this.name();
    this.press(header.selected);
    this.footer.replaceChildren(
      legendLine(
        `${header.note}${header.scale === "sqrt" ? "; square-root colours" : ""}`,
        gradient(SEQUENTIAL),
        number(header.low),
        number(header.high),
      ),
    );
    this.redraw();
  }

  build() {
    const { layerLabels, headLabels } = this.header;
    this.panels = layerLabels.map((_, layer) =>
      headLabels.map((__, head) => {
        const panel = element("canvas", "lm2-panel");
        panel.setAttribute("role", "button");
        panel.tabIndex = -1;
        Object.assign(panel.dataset, { layer, head });
        return panel;
      }),
    );
    this.grid.replaceChildren(
      element("span", "lm2-name"),
      ...headLabels.map((label) => element("span", "lm2-name", label)),
      ...layerLabels.flatMap((label, layer) => [element("span", "lm2-name lm2-layer", label), ...this.panels[layer]]),
    );
    this.current = this.panels[0][0];
    this.current.tabIndex = 0;
  }

  /** The float16 bits [rows, columns] of one panel. */
  cells(layer, head) {
    const [, heads, rows, columns] = this.header.shape;
    const size = rows * columns;
    return this.bits.subarray((layer * heads + head) * size, (layer * heads + head + 1) * size);
  }

  /** Hover text and spoken name of each panel: its layer and head, and its largest value. */
  name() {
    const { layerLabels, headLabels, unit } = this.header;
    this.each((panel, layer, head) => {
      const largest = this.cells(layer, head).reduce((most, bits) => (HALF[bits] > most ? HALF[bits] : most), -Infinity);
      panel.title = `layer ${layerLabels[layer]}, head ${headLabels[head]} · largest ${number(largest * unit)}`;
      panel.setAttribute("aria-label", panel.title);
    });
  }

  each(act) {
    this.panels.forEach((row, layer) => row.forEach((panel, head) => act(panel, layer, head)));
  }

  draw() {
    if (!this.header || !this.grid.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const [, , rows, columns] = this.header.shape;
    const box = { left: 0, top: 0, height: Math.round(this.header.panelHeight * ratio) };
    const widths = this.panels[0].map((panel) => Math.max(1, Math.round(panel.clientWidth * ratio)));
    this.each((panel, layer, head) => {
      box.width = widths[head];
      panel.width = box.width;
      panel.height = box.height;
      const context = panel.getContext("2d");
      const ranks = poolRows(this.cells(layer, head), this.tables.ranks, rows, columns, box.height);
      const { starts } = this.header;
      const across = columns > box.width ? spans(0, columns, columns, starts, box.width) : null;
      drawRanks(context, ranks, columns, this.tables.colours, 0, columns, box, across);
      const lines = starts.filter(Boolean).map((start) => Math.round((start / columns) * box.width));
      if (box.width / (lines.length + 1) < 20 * ratio) return;
      context.fillStyle = "rgb(255 255 255 / 45%)";
      for (const line of lines) context.fillRect(line, 0, ratio, box.height);
    });
  }

  press(selected) {
    this.each((panel, layer, head) =>
      panel.setAttribute("aria-pressed", String(selected !== null && layer === selected[0] && head === selected[1])),
    );
  }

  listen() {
    this.grid.addEventListener("click", (event) => this.choose(event.target.closest(".lm2-panel")));
    this.grid.addEventListener("keydown", (event) => {
      const [down, right] = ARROWS[event.key] ?? [0, 0];
      if (down || right) {
        const { layer, head } = this.current.dataset;
        this.focus(this.panels[Number(layer) + down]?.[Number(head) + right]);
      } else if (event.key === "Enter" || event.key === " ") this.choose(this.current);
      else return;
      event.preventDefault();
    });
  }

  focus(panel) {
    if (!panel) return;
    this.current.tabIndex = -1;
    this.current = panel;
    panel.tabIndex = 0;
    panel.focus();
  }

  choose(panel) {
    if (!panel) return;
    const [layer, head] = [Number(panel.dataset.layer), Number(panel.dataset.head)];
    this.focus(panel);
    this.press([layer, head]);
    this.send({ layer, head });
  }
}

export default (component) => live(component, (root) => new Multiples(root));
