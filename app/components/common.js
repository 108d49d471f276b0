// Shared by the components: Python puts this file before each of theirs.

const SEQUENTIAL = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const DIVERGING = ["#08519c", "#3182bd", "#6baed6", "#bdd7e7", "#f7f7f7", "#fdd0a2", "#fd8d3c", "#e6550d", "#a63603"];
const DIVERGING_DARK = ["#9ecae1", "#5aa2cf", "#2f78b5", "#1f4a73", "#20242c", "#6b3410", "#b5540f", "#ee8733", "#fdc692"];
const MARKS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7"];
const SEGMENTS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7"];

/** How far each arrow key goes: [down, right]. */
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** [red, green, blue], 0..255, at `place` (0..1) of a list of anchor colours. */
function colourAt(anchors, place) {
  const scaled = clamp(place, 0, 1) * (anchors.length - 1);
  const index = Math.min(Math.floor(scaled), anchors.length - 2);
  const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map((k) => {
    const [from, to] = [channel(anchors[index], k), channel(anchors[index + 1], k)];
    return Math.round(from + (scaled - index) * (to - from));
  });
}

const gradient = (colours) => `linear-gradient(to right, ${colours.join(", ")})`;

/** [red, green, blue] of any CSS colour. */
function rgb(colour) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** Relative luminance (WCAG), 0..1. */
function luminance(channels) {
  const [red, green, blue] = channels.map((v) => ((v / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Streamlit's theme at `element`: CSS colours, but [red, green, blue] for the background. */
function themeOf(element) {
  const style = getComputedStyle(element);
  const read = (name) => style.getPropertyValue(`--st-${name}`).trim();
  const background = rgb(read("background-color"));
  return {
    text: read("text-color"),
    textLuminance: luminance(rgb(read("text-color"))),
    muted: style.getPropertyValue("--lm2-muted").trim(),
    background,
    border: read("border-color"),
    primary: read("primary-color"),
    font: read("font") || "sans-serif",
    dark: luminance(background) < 0.2,
  };
}

/** The JSON header and the raw array bytes that Python packed into `data`. */
function unpack(data) {
  const length = new DataView(data.buffer, data.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
  return { header, raw: data.subarray(4 + length) };
}

/** `raw` bytes as an array of `Type`, copied only if they are not aligned. */
function typed(raw, Type) {
  const aligned = raw.byteOffset % Type.BYTES_PER_ELEMENT ? raw.slice() : raw;
  return new Type(aligned.buffer, aligned.byteOffset, aligned.byteLength / Type.BYTES_PER_ELEMENT);
}

/** The value of each of the 65,536 float16 bit patterns. */
const HALF = Float32Array.from({ length: 65536 }, (_, bits) => {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size =
    exponent === 31 ? (fraction ? NaN : Infinity)
    : exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15)
    : fraction * 2 ** -24;
  return bits & 32768 ? -size : size;
});

/** The place 0..1 of `value` on the colour map. */
function placeOf(value, { low, high, scale, diverging }) {
  const linear = clamp((value - low) / (high - low), 0, 1);
  if (scale !== "sqrt") return linear;
  const side = 2 * linear - 1; // -1..1 around the middle
  return diverging ? (1 + Math.sign(side) * Math.sqrt(Math.abs(side))) / 2 : Math.sqrt(linear);
}

/** The value at a place of the colour map: placeOf's inverse. */
function valueAt(place, { low, high, scale, diverging }) {
  const side = 2 * place - 1;
  const linear = scale !== "sqrt" ? place : diverging ? (1 + side * Math.abs(side)) / 2 : place * place;
  return low + linear * (high - low);
}

/** Of several cells that share a pixel, the one with the largest weight is shown: `pooling` as in app/views/pooling.py. */
function weightOf(value, { pooling, low, high }) {
  return pooling === "least" ? -value : pooling === "most extreme" ? Math.abs(value - (low + high) / 2) : value;
}

const anchorsOf = ({ diverging }, dark) => (!diverging ? SEQUENTIAL : dark ? DIVERGING_DARK : DIVERGING);

/** The pixel (ABGR) at a place 0..1 of the colour map. */
function pixelAt(anchors, place) {
  const [red, green, blue] = colourAt(anchors, place);
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/**
 * Ranks are bytes: of several cells that share a pixel, the one with the largest rank is shown; 0 is masked.
 * `ranks[bits]` is the rank of a float16, `colours[rank]` its pixel (ABGR).
 */
function colourTables(header, dark) {
  const anchors = anchorsOf(header, dark);
  const colours = new Uint32Array(256);
  const extreme = (level) => 2 * Math.abs(level - 128) + (level >= 128 ? 1 : 0);
  const rankOf = { "most extreme": extreme, least: (level) => 256 - level }[header.pooling] ?? ((level) => level);
  for (let level = 1; level < 256; level += 1) colours[rankOf(level)] = pixelAt(anchors, (level - 1) / 254);
  const ranks = Uint8Array.from(HALF, (value) =>
    Number.isNaN(value) ? 0 : rankOf(1 + Math.round(254 * placeOf(value * header.unit, header))),
  );
  return { ranks, colours, anchors };
}

/** Ranks of float16 `bits` [rows, columns], pooled by maximum to at most `target` rows. */
function poolRows(bits, ranks, rows, columns, target) {
  const height = Math.min(rows, target);
  const pooled = new Uint8Array(height * columns);
  for (let y = 0; y < height; y += 1) {
    const [first, last] = span(y, rows / height, rows);
    const to = y * columns;
    for (let row = first; row < last; row += 1) {
      const from = row * columns;
      for (let column = 0; column < columns; column += 1) {
        const rank = ranks[bits[from + column]];
        if (rank > pooled[to + column]) pooled[to + column] = rank;
      }
    }
  }
  return { pooled, height };
}

/** The cells [first, last) that pixel `pixel` covers with `per` cells per pixel, from cell `start` on. */
function span(pixel, per, count, start = 0) {
  const first = Math.min(Math.floor(start + pixel * per + 1e-9), count - 1);
  return [first, clamp(Math.ceil(start + (pixel + 1) * per - 1e-9), first + 1, count)];
}

/**
 * The columns [first, last) that each of `width` pixels shows, when columns [start, start + extent) of `columns` share them.
 * No pixel has columns of two segments, which begin at `starts`, unless more segments are in view than there are pixels.
 */
function spans(start, extent, columns, starts, width) {
  const per = extent / width;
  const end = Math.min(columns, Math.ceil(start + extent - 1e-9));
  const first = Math.floor(start + 1e-9);
  const edges = [first, ...starts.filter((start) => start > first && start < end)];
  if (edges.length > width) return Array.from({ length: width }, (_, pixel) => span(pixel, per, columns, start));
  const pixels = edges.map((edge, k) => (k ? Math.round((edge - start) / per) : 0));
  for (let k = 1; k < pixels.length; k += 1) pixels[k] = Math.max(pixels[k], pixels[k - 1] + 1);
  for (let k = pixels.length - 1, most = width; k >= 0; k -= 1) most = pixels[k] = Math.min(pixels[k], most - 1);
  return edges.flatMap((from, k) => {
    const [to, count] = [edges[k + 1] ?? end, (pixels[k + 1] ?? width) - pixels[k]];
    return Array.from({ length: count }, (_, pixel) => {
      const left = from + Math.floor((pixel * (to - from)) / count);
      return [left, Math.max(left + 1, from + Math.ceil(((pixel + 1) * (to - from)) / count))];
    });
  });
}

/** Draw columns [start, start + extent) of pooled ranks into `box` (device pixels); `across`: `spans`, if columns share pixels. */
function drawRanks(context, { pooled, height }, columns, colours, start, extent, box, across) {
  const first = Math.floor(start);
  const width = across ? box.width : Math.min(columns, Math.ceil(start + extent)) - first;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let x = 0; x < width; x += 1) {
    const [from, to] = across ? across[x] : [first + x, first + x + 1];
    for (let y = 0; y < height; y += 1) {
      let best = 0;
      for (let cell = y * columns + from; cell < y * columns + to; cell += 1) if (pooled[cell] > best) best = pooled[cell];
      pixels[y * width + x] = colours[best];
    }
  }
  const buffer = new OffscreenCanvas(width, height);
  buffer.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  const [left, wide] = across ? [0, width] : [start - first, extent];
  context.drawImage(buffer, left, 0, wide, height, box.left, box.top, box.width, box.height);
}

/** Four significant digits, without trailing zeros. */
function number(value) {
  if (Number.isNaN(value)) return "masked";
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size < 1e-4 || size >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A token's text with visible line breaks. */
const visible = (text) => text.replaceAll("\n", "⏎");

const counted = (amount, noun) => `${amount} ${noun}${amount === 1 ? "" : "s"}`;

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

/** The hover text of a component, shown near a point of `root` (CSS pixels) and inside it. */
class Tooltip {
  constructor(root) {
    this.root = root;
    this.box = element("div", "lm2-tooltip");
    this.box.setAttribute("role", "status");
    this.box.hidden = true;
    root.append(this.box);
  }

  show(text, x, y) {
    this.box.hidden = false;
    if (this.box.textContent !== text) this.box.textContent = text;
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const left = x + 14 + width > this.root.clientWidth ? x - 14 - width : x + 14;
    this.box.style.left = `${Math.max(0, left)}px`;
    this.box.style.top = `${y + 16 + height > this.root.clientHeight ? y - 12 - height : y + 16}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

/** A legend line: text, and a colour bar between two numbers, on one line. */
function legendLine(text, background, low, high) {
  const line = element("div", "lm2-legend");
  const bar = element("span", "lm2-bar");
  bar.style.background = background;
  const scale = element("span", "lm2-scale");
  scale.append(element("span", "lm2-end", low), bar, element("span", "lm2-end", high));
  line.append(element("span", "", text), scale);
  return line;
}

const instances = new WeakMap();

/**
 * Streamlit calls a component again for every rerun and theme change, on the same parent and without cleaning up in
 * between. So each parent keeps one view: `make(root)` once, then `view.update(component)` at every call, and
 * `view.destroy()` when the last call's destructor runs (an earlier call's may run late, and must do nothing).
 */
function live(component, make) {
  const { parentElement: parent } = component;
  let instance = instances.get(parent);
  if (!instance) {
    parent.querySelector(".lm2-root")?.remove();
    const root = element("div", "lm2-root");
    parent.append(root);
    instance = { root, view: make(root), calls: 0 };
    instances.set(parent, instance);
  }
  instance.calls += 1;
  const call = instance.calls;
  instance.view.update(component);
  return () => {
    if (instance.calls !== call) return;
    instance.view.destroy();
    instance.root.remove();
    instances.delete(parent);
  };
}

/** A component that draws on canvases: `draw` runs once a frame at most, and again when the watched node changes size. */
class Canvases {
  watch(node) {
    this.observer = new ResizeObserver(() => this.redraw());
    this.observer.observe(node);
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  redraw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }
}
