const REST = 140; // ms that the pointer rests until a cell is looked into
const ASK_PAUSE = 30; // ms in which movements are taken together before bands are asked for

/** What the viewer asks the server that the page is from: bands, texts of tokens, and what is in a cell under the pointer. */
class ViewerAsking extends ViewerDrawing {
  async ask(what, parameters, signal) {
    const query = new URLSearchParams({ ...this.header.map, ...parameters });
    const answer = await fetch(`/lm2/${what}?${query}`, { headers: { "lm2-session": this.header.token }, signal });
    if (!answer.ok) throw new Error(answer.status < 500 ? await answer.text() : `the server answers ${answer.status}`);
    return answer;
  }

  async askBand(place, signal) {
    const answer = await this.ask("band", place, signal);
    const [rows, columns] = ["lm2-rows", "lm2-columns"].map((name) => Number(answer.headers.get(name)));
    return { rows, columns, bytes: new Uint8Array(await answer.arrayBuffer()) };
  }

  /** Ask for what is needed now, once for all movements of a moment. */
  askSoon() {
    this.asking ??= setTimeout(() => {
      this.asking = null;
      this.bands.want(this.urgent);
      if (this.drawn.texts !== "ticks") this.askPieces();
    }, ASK_PAUSE);
  }

  /** The texts of the tokens in view, and of some on either side. */
  async askPieces() {
    const { start, extent } = this.view;
    const [first, last] = [Math.max(0, Math.floor(start)), Math.min(this.header.columns, Math.ceil(start + extent))];
    if (this.piecesAsked || (this.pieces?.first <= first && last <= this.pieces.first + this.pieces.texts.length)) return;
    this.piecesAsked = true;
    const from = Math.max(0, first - 256);
    try {
      this.pieces = { first: from, texts: await (await this.ask("tokens", { first: from, count: last - from + 256 })).json() };
    } catch (error) {
      this.bands.trouble = error.message;
    }
    this.redraw();
    this.piecesAsked = false;
  }

  leave() {
    clearTimeout(this.resting);
    this.looking = null;
    this.tooltip.hide();
  }

  /** Say what is drawn at a cell at once, and what is in it when the pointer rests there. */
  hover(cell, x, y) {
    if (!cell) return this.leave();
    const pooled = this.pooledCell(cell);
    const place = JSON.stringify([pooled, this.drawn.pooling]);
    if (this.looking?.place === place) return this.tooltip.show(this.looking.words, x, y);
    this.leave();
    const range = (noun, first, count) => (count > 1 ? `${noun}s ${grouped(first)}–${grouped(first + count - 1)}` : `${noun} ${grouped(first)}`);
    const value = this.drawnValue(cell);
    const lines = [`${range("token", pooled.column, pooled.columns)} · ${range("slot", pooled.row, pooled.rows)}`];
    lines.push(value === null ? "loading …" : `${this.pooledWords(this.drawn.pooling) || this.header.valueTitle}: about ${number(value)}`);
    const looking = { place, words: lines.join("\n") };
    this.looking = looking;
    this.tooltip.show(looking.words, x, y);
    this.resting = setTimeout(async () => {
      const inside = await this.inside(cell);
      if (this.looking !== looking || !inside) return;
      looking.words = this.wordsOf(inside, pooled, lines[0]);
      this.tooltip.show(looking.words, x, y);
    }, REST);
  }

  /** What is in the drawn cell at a place: its largest value with token and slot, its mean, the text around; null if it cannot be had. */
  async inside({ row, column }) {
    const { level, fold } = this.drawn.pooling;
    try {
      return await (await this.ask("cell", { level, fold, column: column >> level, row: row >> fold })).json();
    } catch {
      return null; // the caption says why, if bands cannot be had either
    }
  }

  wordsOf(inside, pooled, range) {
    const { token, slot, value, parts, mean, before, piece, after } = inside;
    const single = pooled.columns * pooled.rows === 1;
    const lines = [`… ${visible(before)}[${visible(piece)}]${visible(after)} …`];
    if (single) lines.push(`token ${grouped(token)} · slot ${grouped(slot)}`, `${this.header.valueTitle}: ${number(value)}`);
    else {
      lines.push(`${this.header.valueTitle}: at most ${number(value)}, at token ${grouped(token)}, slot ${grouped(slot)}`);
      lines.push(`mean ${number(mean)} of ${range}`);
    }
    if (parts.length === 2) lines.push(`${number(parts[0])} in this store, ${number(parts[1])} in the other`);
    const labels = this.header.marks.filter(([start, stop]) => start <= token && token < stop).map(([, , label]) => label);
    if (labels.length) lines.push(`marked: ${labels.join(", ")}`);
    return lines.join("\n");
  }
}
