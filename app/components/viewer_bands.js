const AT_ONCE = 4; // requests; a browser sends six to one server, and the page needs some of its own
const MOST_CELLS = 8e6; // of the bands that are kept: a byte and a drawn pixel for each, 40 MB
const PAUSE = 3000; // ms until a band that could not be had is asked for again

/**
 * The bands of one map. A band's columns are neighbours of 2 ** level tokens each, its rows all slots, 2 ** fold in each.
 * `ask(place, signal)` fetches one; `changed()` is called when there is something new to draw.
 */
class Bands {
  constructor(ask, changed) {
    Object.assign(this, { ask, changed, trouble: "" });
    this.kept = new Map(); // by key, the least recently used first
    this.asked = new Map(); // what ends each request
    this.queue = [];
    this.wanted = new Map();
    this.failed = new Set();
  }

  /** Ask for the bands that are needed, the most urgent first; nobody waits for any other any more. */
  want(places) {
    this.wanted = new Map(places.map((place) => [keyOf(place), place]));
    for (const [key, request] of this.asked) if (!this.wanted.has(key)) request.abort();
    this.queue = [...this.wanted].filter(([key, place]) => !this.get(place) && !this.asked.has(key) && !this.failed.has(key));
    this.next();
  }

  end() {
    this.want([]);
    this.changed = () => {};
  }

  get loading() {
    return this.asked.size > 0 || this.queue.length > 0;
  }

  get(place) {
    const band = this.kept.get(keyOf(place));
    if (band) {
      this.kept.delete(keyOf(place));
      this.kept.set(keyOf(place), band);
    }
    return band;
  }

  /** The bands that may stand in for finer ones, the coarsest first: none of them leaves a cell out. */
  coarser({ level, fold }) {
    const size = (band) => band.level + band.fold;
    return [...this.kept.values()]
      .filter((band) => band.level >= level && band.fold >= fold)
      .sort((one, other) => size(other) - size(one));
  }

  next() {
    while (this.queue.length && this.asked.size < AT_ONCE) this.fetch(...this.queue.shift());
  }

  async fetch(key, place) {
    const request = new AbortController();
    this.asked.set(key, request);
    try {
      this.keep(key, { ...place, ...(await this.ask(place, request.signal)) });
      this.trouble = "";
    } catch (error) {
      if (!request.signal.aborted) this.fail(key, error.message);
    }
    this.asked.delete(key);
    this.next();
    this.changed();
  }

  fail(key, words) {
    this.trouble = words;
    this.failed.add(key);
    setTimeout(() => {
      this.failed.delete(key);
      this.changed();
    }, PAUSE);
  }

  keep(key, band) {
    this.kept.set(key, band);
    let cells = 0;
    for (const other of this.kept.values()) cells += other.bytes.length;
    for (const [old, other] of this.kept) {
      if (cells <= MOST_CELLS) break;
      if (this.wanted.has(old)) continue;
      this.kept.delete(old);
      cells -= other.bytes.length;
    }
  }
}

const keyOf = ({ level, fold, band }) => `${level} ${fold} ${band}`;

/** How far to pool so that a pixel does not have more than one cell, with `per` cells on a pixel: a power of two. */
const poolingFor = (per) => Math.max(0, Math.ceil(Math.log2(per) - 1e-9));
