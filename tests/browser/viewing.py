"""How fast and how true the viewer of long texts is, through Chromium, at full size: 131,072 tokens by 2,048 slots.

`PYTHONPATH=tests/support python tests/browser/viewing.py FOLDER` captures such a run of a model with random weights
into FOLDER if it is not there yet, serves it as `lm2 serve` does, and drives the page by wheel and drag. In 100 tokens
the query is scaled until the read goes to one slot alone: single cells, which all have to be seen at every zoom.

A refresh is the time from an event to the frame in which all that is in view is drawn as finely as it should be. Quiet
machines only: Chromium and the server share the cores.
"""

import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from planted_store import SEEN
from playwright.sync_api import Page, sync_playwright
from served import served

from lm2.model.config import BankStart, LM2Config
from lm2.model.lm2 import LM2
from lm2.model.memory import MemoryKind
from lm2.model.sites import Site
from lm2.runs.interventions import Edit
from lm2.runs.operations import Scale
from lm2.runs.spec import RunSpec
from lm2.stores.capture import capture
from lm2.stores.store import Store
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint, load

TOKENS, SLOTS, PEAKS = 131_072, 2_048, 100
NAME = "planted"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-precise-memory-info"]  # fmt: skip
WATCH = """() => {
  for (const { shadowRoot } of document.querySelectorAll("*")) {
    window.canvas ??= shadowRoot?.querySelector("canvas.lm2-map");
  }
  window.begun = null;
  const begin = (event) => (window.begun ??= event.timeStamp);
  canvas.addEventListener("wheel", begin);
  canvas.addEventListener("pointermove", (event) => event.buttons && begin(event));
  window.refreshed = (before) => new Promise((resolve) => {
    const look = () => {
      const { start, extent, settled } = canvas.dataset;
      if (window.begun !== null && `${start} ${extent}` !== before && settled === "true") {
        resolve(performance.now() - window.begun);
        window.begun = null;
      } else requestAnimationFrame(look);
    };
    look();
  });
}"""
VIEW = "`${canvas.dataset.start} ${canvas.dataset.extent}`"


def _store(folder: Path) -> Store:
    """The captured run, which is made if it is not there."""
    path = folder / "captures" / NAME
    folder.joinpath("captures").mkdir(parents=True, exist_ok=True)
    tokenizer = load("babi-lm2-qa1", "cpu").tokenizer
    config = LM2Config(
        memory=MemoryKind.GATED, d_vocab=tokenizer.size, d_model=64, n_layers=1, n_heads=4, n_key_value_heads=2,
        d_mlp=64, segment_length=2_048, attention_window=2_048, slots=SLOTS, slot_dim=64, memory_heads=1,
        memory_layers=(0,), bank_start=BankStart.LEARNED,
    )  # fmt: skip
    model = LM2(config)
    model.initialise(torch.Generator().manual_seed(0))
    checkpoint = Checkpoint(name="random", model=model, tokenizer=tokenizer, digest="random-0")
    pieces: list[str] = []
    count = 0
    while count < TOKENS:
        story = simulate(1, seed=len(pieces), statements=60, questions=1).story
        pieces.append("".join(f"{statement.text}\n" for statement in story.statements))
        count += len(tokenizer.encode(pieces[-1]))
    tokens = tuple(sorted(np.random.default_rng(3).choice(TOKENS, PEAKS, replace=False).tolist()))
    planted = Edit(site=Site.READ_Q, operation=Scale(by=1e6), tokens=tokens)
    spec = RunSpec(checkpoint="random", text="".join(pieces), interventions=(planted,))
    began = time.perf_counter()
    store = capture(checkpoint, spec, path)
    print(f"captured in {time.perf_counter() - began:.0f} s")
    return store


def _peaks(store: Store) -> list[list[int]]:
    (planted,) = store.spec.interventions
    assert isinstance(planted, Edit) and planted.tokens is not None
    rows = [store.reads(block=0, head=0, tokens=slice(token, token + 1))[0] for token in planted.tokens]
    assert all(row.max() > 0.99 for row in rows)
    return [[token, int(row.argmax())] for token, row in zip(planted.tokens, rows)]


def _tell(what: str, milliseconds: list[float]) -> None:
    ordered = sorted(milliseconds)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    print(f"{what:32} median {statistics.median(ordered):4.0f} ms, p95 {p95:4.0f} ms, n = {len(ordered)}", flush=True)


def _open(page: Page, url: str) -> float:
    """Milliseconds from the canvas being there to the first map on it."""
    page.goto(url)
    page.wait_for_selector("canvas.lm2-map", state="attached")
    began = time.perf_counter()
    page.wait_for_selector("canvas.lm2-map[data-settled=true]")
    return 1000 * (time.perf_counter() - began)


def _wheel(page: Page, delta: int) -> float:
    """Milliseconds until one step of the wheel is drawn."""
    before = page.evaluate(VIEW)
    page.mouse.wheel(0, delta)
    return page.evaluate("before => refreshed(before)", before)


def _drag(page: Page, x: float, y: float, right: int) -> float:
    """Milliseconds until a short drag is drawn, from its last movement."""
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right / 2, y)
    page.evaluate("window.begun = null")
    before = page.evaluate(VIEW)
    page.mouse.move(x + right, y)
    refreshed = page.evaluate("before => refreshed(before)", before)
    page.mouse.up()
    return refreshed


def main(folder: Path) -> None:
    store = _store(folder)
    peaks = _peaks(store)
    print(f"{store.tokens_whole:,} tokens x {store.config.slots:,} slots, {len(peaks)} planted cells")
    link = f"long?store={NAME}&map_head=0"
    with served(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        _open(page, f"{address}/{link}")  # the server imports, and lays out the small maps
        page.wait_for_selector('[data-testid="stDataFrame"]', timeout=600_000)
        page.close()
        first = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            first.append(_open(page, f"{address}/{link}"))
            page.close()
        _tell("first paint", first)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        _open(page, f"{address}/{link}")
        page.wait_for_selector('[data-testid="stDataFrame"]', timeout=600_000)
        page.evaluate(WATCH)
        box = page.locator("canvas.lm2-map").bounding_box()
        assert box is not None
        zooms, pans, heap = [], [], 0
        draw = np.random.default_rng(5)
        for journey in range(4):
            token, slot = peaks[int(draw.integers(len(peaks)))]
            page.locator("canvas.lm2-map").focus()
            page.keyboard.press("0")
            page.wait_for_selector("canvas.lm2-map[data-settled=true]")
            for step in range(16):
                seen = page.evaluate(SEEN, peaks)
                assert seen["seen"] == seen["inside"], seen
                if step == 0:
                    assert seen["inside"] == len(peaks), seen
                    print(f"journey {journey}: {seen['seen']} of {seen['inside']} seen in the whole text", flush=True)
                view, inner = page.evaluate("[{ ...canvas.dataset }, JSON.parse(canvas.dataset.box)]")
                across = (token + 0.5 - float(view["start"])) / float(view["extent"])
                down = (slot + 0.5 - float(view["top"])) / float(view["deep"])
                page.mouse.move(box["x"] + inner["left"] + across * inner["width"],
                                box["y"] + inner["top"] + down * inner["height"])  # fmt: skip
                zooms.append(_wheel(page, -200))
                heap = max(heap, page.evaluate("performance.memory.usedJSHeapSize"))
                if float(page.evaluate("canvas.dataset.extent")) < store.tokens_whole / 2:
                    pans += [_drag(page, box["x"] + 700, box["y"] + 200, right) for right in (-220, 160)]
        _tell("zoom by a step of the wheel", zooms)
        _tell("pan by a drag", pans)
        print(f"JavaScript heap at most {heap / 1e6:.0f} MB")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
