"""A store whose maps are known: one small value everywhere, and single cells with a larger one."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lm2.model.config import LM2Config
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence

GROUND = 0.01
SEEN = """(peaks) => {
  let canvas = null; // in the page, or in a component of it
  for (const host of [document, ...document.querySelectorAll("*")]) {
    canvas ??= (host.shadowRoot ?? document).querySelector("canvas.lm2-map");
  }
  const [start, extent, top, deep] = ["start", "extent", "top", "deep"].map((name) => Number(canvas.dataset[name]));
  const box = JSON.parse(canvas.dataset.box), ratio = window.devicePixelRatio;
  const [wide, high] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  const [from, above] = [Math.round(box.left * ratio), Math.round(box.top * ratio)];
  const { data } = canvas.getContext("2d").getImageData(from, above, wide, high);
  const bright = (x, y) => data[4 * (y * wide + x) + 1] > 200; // the green of the largest value; the ground has less
  let inside = 0, seen = 0, all = 0;
  for (const [token, slot] of peaks) {
    const [left, right] = [token, token + 1].map((t) => ((t - start) / extent) * wide);
    const [upper, lower] = [slot, slot + 1].map((s) => ((s - top) / deep) * high);
    if (right <= 0 || left >= wide || lower <= 0 || upper >= high) continue;
    inside += 1;
    const near = (low, end, count) => [Math.max(0, Math.floor(low) - 2), Math.min(count - 1, Math.ceil(end) + 2)];
    const [[x0, x1], [y0, y1]] = [near(left, right, wide), near(upper, lower, high)];
    let found = false;
    for (let y = y0; y <= y1; y += 1) for (let x = x0; x <= x1; x += 1) found ||= bright(x, y);
    seen += found;
  }
  for (let pixel = 0; pixel < wide * high; pixel += 1) all += bright(pixel % wide, Math.floor(pixel / wide));
  return { inside, seen, all };
}"""
"""How many of some peaks (token, slot) are within what a page's viewer shows, how many of them are seen as pixels, and
how many pixels are as bright."""


@dataclass(kw_only=True)
class PlantedStore:
    """What `lm2.open_store` returns, as far as it is looked at."""

    config: LM2Config
    count: int
    """Tokens."""
    peaks: dict[tuple[int, int], float]
    """Values by (token, slot), the same in all blocks and heads."""
    segment: int = 2_048
    asked: list[tuple[int, slice]] = field(default_factory=list)
    """Levels and rows that were pooled."""

    @cached_property
    def tokens(self) -> TokenSequence:
        pieces = tuple(f"w{number} " for number in range(self.count))
        return TokenSequence(
            text="".join(pieces), ids=tuple(range(self.count)), pieces=pieces, spans=((0, 0),) * self.count
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        starts = range(0, self.count, self.segment)
        return tuple(
            Segment(index=index, start=start, ids=tuple(range(start, min(start + self.segment, self.count))))
            for index, start in enumerate(starts)
        )

    @property
    def whole(self) -> int:
        return len(self.segments)

    @property
    def tokens_whole(self) -> int:
        return self.count

    @cached_property
    def spec(self) -> RunSpec:
        return RunSpec(checkpoint="planted", text=self.tokens.text)

    @property
    def origin(self) -> dict[str, str]:
        return {"peaks": repr(self.peaks)}

    def largest(self, what: str, *, block: int, head: int | None) -> float:
        return max(self.peaks.values(), default=GROUND)

    def pooled(
        self, what: str, *, block: int, head: int | None, how: str, level: int, rows: slice = slice(None)
    ) -> np.ndarray:
        self.asked.append((level, rows))
        start, stop, _ = rows.indices(-(-self.count // 2**level))
        sizes = np.minimum(2**level, self.count - np.arange(start, stop) * 2**level)
        cells = np.full((stop - start, self.config.slots), GROUND, np.float32)
        for (token, slot), value in self.peaks.items():
            row = (token >> level) - start
            if 0 <= row < len(cells):
                cells[row, slot] = value if how == "max" else cells[row, slot] + (value - GROUND) / sizes[row]
        return cells
