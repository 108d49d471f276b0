class TokenStrip {
  constructor(root) {
    this.root = root;
    this.text = element("div", "lm2-text");
    this.text.setAttribute("role", "group");
    this.footer = element("div", "lm2-footer");
    root.append(this.text, this.footer);
    this.tooltip = new Tooltip(root);
    this.listen();
  }

  update({ data, setTriggerValue }) {
    const { header, raw } = unpack(data);
    const before = this.header;
    this.header = header;
    this.weights = header.weighted ? typed(raw, Float32Array) : null;
    this.send = (token) => setTriggerValue("token", token);
    this.theme = themeOf(this.root);
    this.root.style.setProperty("--lm2-max-height", `${header.maxHeight}px`);
    this.text.setAttribute("aria-label", header.alt);
    const same = (name) => JSON.stringify(before?.[name]) === JSON.stringify(header[name]);
    if (!["pieces", "segmentOf", "marks"].every(same)) this.build();
    this.paint();
    this.explain();
    this.press(header.selected);
    this.tooltip.hide();
    if (!same("selected") && this.pressed) this.reveal(this.pressed);
  }

  destroy() {}

  /** One block per segment, one button per token. */
  build() {
    const { pieces, segmentOf, marks } = this.header;
    const focused = this.text.contains(this.text.getRootNode().activeElement);
    const blocks = [];
    this.tokens = pieces.map((piece, index) => {
      const token = element("span", "lm2-token", visible(piece) || "∅");
      token.dataset.token = index;
      token.setAttribute("role", "button");
      token.tabIndex = -1;
      if (!index || segmentOf[index] !== segmentOf[index - 1]) {
        const block = element("div", "lm2-segment");
        block.append(element("span", "lm2-number", String(segmentOf[index])));
        blocks.push(block);
      }
      blocks.at(-1).append(token);
      for (let k = piece.split("\n").length - 1; k > 0; k -= 1) blocks.at(-1).append(document.createElement("br"));
      return token;
    });
    this.markLabels = [...new Set(marks.map(([, , label]) => label))];
    for (const [start, stop, label] of marks) {
      for (const token of this.tokens.slice(start, stop)) {
        token.dataset.mark = token.dataset.mark ? `${token.dataset.mark}, ${label}` : label;
        token.style.setProperty("--lm2-mark", this.markColour(label));
      }
    }
    this.text.replaceChildren(...blocks);
    this.current = 0;
    if (this.tokens.length) this.tokens[0].tabIndex = 0;
    if (focused) this.focus(this.header.selected ?? 0);
  }

  markColour(label) {
    return MARKS[this.markLabels.indexOf(label) % MARKS.length];
  }

  /** Colour each token by its weight, or by its segment. */
  paint() {
    this.tokens.forEach((token, index) => {
      if (!this.weights) {
        token.style.background = `${SEGMENTS[this.header.segmentOf[index] % SEGMENTS.length]}40`;
        token.style.color = "";
        return;
      }
      const weight = this.weights[index];
      const colour = Number.isNaN(weight) ? null : weightColour(placeOf(weight, this.header));
      token.style.background = colour ? `rgb(${colour.join(" ")})` : "";
      token.style.color = colour ? readable(colour, this.theme) : "";
    });
  }

  explain() {
    const { legend, weighted, low, high, scale } = this.header;
    const stops = Array.from({ length: 17 }, (_, k) => `rgb(${weightColour(k / 16).join(" ")})`);
    const line = weighted
      ? legendLine(scale === "sqrt" ? `${legend} · square-root colours` : legend, gradient(stops), number(low), number(high))
      : element("div", "lm2-legend", legend);
    for (const label of this.markLabels) {
      const sample = element("span", "lm2-sample", label);
      sample.style.setProperty("--lm2-mark", this.markColour(label));
      line.append(sample);
    }
    this.footer.replaceChildren(line);
  }

  press(selected) {
    this.pressed?.removeAttribute("aria-pressed");
    this.pressed = selected === null ? null : this.tokens[selected];
    this.pressed?.setAttribute("aria-pressed", "true");
  }

  /** Scroll the text, never the page, until a token is visible. */
  reveal(token) {
    const [frame, box] = [this.text.getBoundingClientRect(), token.getBoundingClientRect()];
    if (box.top < frame.top || box.bottom > frame.bottom) {
      this.text.scrollTop += (box.top + box.bottom - frame.top - frame.bottom) / 2;
    }
  }

  listen() {
    const tokenOf = (event) => event.target.closest?.("[data-token]");
    this.text.addEventListener("click", (event) => {
      const token = tokenOf(event);
      if (token) this.choose(Number(token.dataset.token));
    });
    this.text.addEventListener("pointerover", (event) => this.hover(tokenOf(event)));
    this.text.addEventListener("pointerleave", () => this.tooltip.hide());
    this.text.addEventListener("scroll", () => this.tooltip.hide());
    this.text.addEventListener("focusin", (event) => this.hover(tokenOf(event)));
    this.text.addEventListener("focusout", () => this.tooltip.hide());
    this.text.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.tokens.length - 1;
    const targets = {
      ArrowLeft: () => this.current - 1,
      ArrowRight: () => this.current + 1,
      ArrowUp: () => this.lineAway(-1),
      ArrowDown: () => this.lineAway(1),
      Home: () => 0,
      End: () => last,
    };
    if (event.key in targets) this.focus(clamp(targets[event.key](), 0, last));
    else if (event.key === "Enter" || event.key === " ") this.choose(this.current);
    else if (event.key === "Escape") this.tooltip.hide();
    else return;
    event.preventDefault();
  }

  /** The token on the line above (-1) or below (1) that is nearest to the current one. */
  lineAway(direction) {
    const from = this.tokens[this.current].getBoundingClientRect();
    let best = this.current;
    let line = null;
    let nearest = Infinity;
    for (let index = this.current + direction; this.tokens[index]; index += direction) {
      const box = this.tokens[index].getBoundingClientRect();
      if (line === null && (box.top - from.top) * direction > 4) line = box.top;
      if (line !== null && Math.abs(box.top - line) > 4) break;
      if (line !== null && Math.abs(box.left - from.left) < nearest) {
        nearest = Math.abs(box.left - from.left);
        best = index;
      }
    }
    return best;
  }

  focus(index) {
    this.tokens[this.current].tabIndex = -1;
    this.current = index;
    const token = this.tokens[index];
    token.tabIndex = 0;
    this.reveal(token);
    token.focus({ preventScroll: true });
  }

  choose(index) {
    this.focus(index);
    this.press(index);
    this.send(index);
  }

  hover(token) {
    if (!token) return this.tooltip.hide();
    const index = Number(token.dataset.token);
    const { pieces, segmentOf, notes, first } = this.header;
    const lines = [`token ${first + index}: “${visible(pieces[index])}” · segment ${segmentOf[index]}`];
    if (token.dataset.mark) lines.push(`marked: ${token.dataset.mark}`);
    if (this.weights && !Number.isNaN(this.weights[index])) lines.push(`weight: ${number(this.weights[index])}`);
    if (notes[index]) lines.push(notes[index]);
    const [frame, box] = [this.root.getBoundingClientRect(), token.getBoundingClientRect()];
    this.tooltip.show(lines.join("\n"), box.left - frame.left, box.bottom - frame.top - 10);
  }
}

/** [red, green, blue, "/", alpha] at a place 0..1 of the scale: low weights are faint. */
function weightColour(place) {
  const alpha = Math.min(1, 1.6 * Math.sqrt(place) * Math.min(1, 0.25 + 1.5 * place));
  return [...colourAt(SEQUENTIAL, place), "/", alpha.toFixed(3)];
}

/** The text colour that is readable on a translucent colour over the page: the theme's own ("") where possible. */
function readable(colour, { background, textLuminance }) {
  const alpha = Number(colour[4]);
  const light = luminance(background.map((under, k) => alpha * colour[k] + (1 - alpha) * under));
  const contrast = (Math.max(light, textLuminance) + 0.05) / (Math.min(light, textLuminance) + 0.05);
  return contrast >= 4.5 ? "" : light > 0.179 ? "#000000" : "#ffffff";
}

export default (component) => live(component, (root) => new TokenStrip(root));
