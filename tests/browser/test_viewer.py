"""The viewer of long texts in a browser, with real wheel, drag and keys, on a map of 131,072 tokens x 2,048 slots.

There is no server: the tests answer what the viewer asks for, and may take their time over it.
"""

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from beside_the_page import get
from planted_store import SEEN, PlantedStore

from app.components.browser import sources
from app.server import access
from app.server.access import Access
from app.server.bands import COLUMNS

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
TOKENS, SLOTS = 131_072, 2_048
ADDRESS = "http://viewer.test/"
PAGE = """<style>
:root { --st-text-color: #31333f; --st-background-color: #fff; --st-border-color: #ccc; --st-font: sans-serif;
  --st-primary-color: #d33; --st-secondary-background-color: #eee; }
body { margin: 0; }
%s</style><div id="root" class="lm2-root"></div><script>%s
const viewer = new Viewer(document.getElementById("root")), sent = [];
const setTriggerValue = (name, value) => sent.push([name, value]);
const show = (data) => viewer.update({ data: Uint8Array.from(data), setTriggerValue });
</script>"""


@pytest.fixture(scope="module")
def peaks() -> dict[tuple[int, int], float]:
    draw = np.random.default_rng(3)
    return {(int(draw.integers(TOKENS)), int(draw.integers(SLOTS))): 1.0 for _ in range(100)}


@pytest.fixture(scope="module")
def store(gated_config, peaks) -> PlantedStore:
    return PlantedStore(config=replace(gated_config, slots=SLOTS, slot_dim=SLOTS), count=TOKENS, peaks=peaks)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Held:
    """Requests that are answered only when `let_go` is called."""

    def __init__(self) -> None:
        self.holding: Callable[[dict[str, str]], bool] = lambda query: False
        self.routes: list[playwright.Route] = []
        self.answer: Callable[[playwright.Route], None] = lambda route: None

    def take(self, route: "playwright.Route") -> None:
        query = dict(parse_qsl(urlsplit(route.request.url).query))
        if self.holding(query):
            self.routes.append(route)
        else:
            self.answer(route)

    def let_go(self) -> None:
        self.holding = lambda query: False
        for route in self.routes:
            self.answer(route)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def page(browser, store: PlantedStore, held: Held, monkeypatch: pytest.MonkeyPatch) -> Iterator["playwright.Page"]:
    monkeypatch.setattr("lm2.stores.store.open_store", lambda path: store)
    elsewhere, session = ThreadPoolExecutor(1), Access()
    session.open(Path("planted"))

    def answer(route: "playwright.Route") -> None:
        url = urlsplit(route.request.url)
        header = {access.HEADER: route.request.headers[access.HEADER]}
        reply = elsewhere.submit(get, url.path, dict(parse_qsl(url.query)), header).result()  # this thread has a loop
        route.fulfill(status=reply.status, headers=reply.headers, body=reply.body)

    held.answer = answer
    parts = sources("viewer")
    document = PAGE % (parts["css"], parts["js"].partition("export default")[0])
    tab = browser.new_page(viewport={"width": 1440, "height": 800})
    tab.route(ADDRESS, lambda route: route.fulfill(content_type="text/html; charset=utf-8", body=document))
    tab.route("**/lm2/**", held.take)
    tab.goto(ADDRESS)
    header = {
        "token": session.token, "map": {"store": "0", "what": "reads", "how": "max", "block": "0", "head": "1"},
        "text": "planted", "bandColumns": COLUMNS, "columns": TOKENS, "rows": SLOTS,
        "starts": list(range(0, TOKENS, 2048)), "marks": [[50_000, 50_004, "fact"]],
        "low": 0, "high": 1, "diverging": False, "valueTitle": "read weight",
        "rowTitle": "slot", "columnTitle": "token", "pooling": "max", "first": 0, "view": None, "selectedRow": None,
        "selectedColumn": None, "scale": "sqrt", "height": 640, "alt": "A map of planted peaks",
    }  # fmt: skip
    _show(tab, header)
    yield tab
    tab.close()


def _show(page, header: dict) -> None:
    text = json.dumps(header).encode()
    page.evaluate("data => show(data)", list(struct.pack("<I", len(text)) + text))


def _settled(page) -> dict[str, float]:
    """Wait until all is drawn as finely as it should be; what is shown."""
    page.wait_for_function("!viewer.asking && viewer.drawn?.settled && !viewer.bands.loading", polling=20)
    return page.evaluate("({ ...viewer.view, ...viewer.drawn.pooling })")


def _point(page, across: float, down: float) -> tuple[float, float]:
    box = page.evaluate("viewer.drawn.box")
    return box["left"] + across * box["width"], box["top"] + down * box["height"]


def _wheel(page, times: int) -> None:
    for _ in range(times):
        page.mouse.wheel(0, -150)


def test_all_of_a_hundred_single_cells_are_seen_however_far_the_wheel_zooms(page, peaks) -> None:
    token, slot = sorted(peaks)[40]
    places = list(map(list, peaks))
    levels = set()
    for _ in range(10):
        shown = _settled(page)
        seen = page.evaluate(SEEN, places)
        assert seen["seen"] == seen["inside"] > 0
        if not levels:
            assert seen["inside"] == 100 and 100 <= seen["all"] <= 100 * 9, "and nothing else is bright"
        levels.add((shown["level"], shown["fold"]))
        page.mouse.move(*_point(page, (token + 0.5 - shown["start"]) / shown["extent"],
                                (slot + 0.5 - shown["top"]) / shown["deep"]))  # fmt: skip
        _wheel(page, 2)
    assert len(levels) > 6 and _settled(page)["extent"] < 100


def test_the_wheel_zooms_at_the_pointer_a_drag_pans_and_neither_tells_python_before_it_rests(page) -> None:
    whole = _settled(page)
    assert (whole["extent"], whole["deep"]) == (TOKENS, SLOTS)
    page.mouse.move(*_point(page, 0.25, 0.5))
    _wheel(page, 6)
    zoomed = _settled(page)
    under = zoomed["start"] + 0.25 * zoomed["extent"]
    assert zoomed["extent"] < TOKENS / 10 and under == pytest.approx(TOKENS / 4, rel=0.01)
    page.wait_for_function("sent.length")
    page.evaluate("sent.length = 0")
    page.mouse.down()
    for step in range(1, 9):
        page.mouse.move(*_point(page, 0.25 + 0.02 * step, 0.5))
    assert page.evaluate("sent.length") == 0
    page.mouse.up()
    panned = _settled(page)
    assert panned["start"] == pytest.approx(zoomed["start"] - 0.16 * zoomed["extent"], rel=0.01)
    page.wait_for_function("sent.length")
    assert page.evaluate("sent") == [["view", [round(panned[name]) for name in ("start", "extent", "top")]]]


def test_keys_move_zoom_and_go_to_the_ends(page) -> None:
    _settled(page)
    page.locator("canvas").focus()
    for _ in range(8):
        page.keyboard.press("+")
    zoomed = _settled(page)
    assert zoomed["extent"] == pytest.approx(TOKENS / 1.5**8, rel=0.01)
    page.keyboard.press("End")
    assert _settled(page)["start"] == pytest.approx(TOKENS - zoomed["extent"])
    page.keyboard.press("PageUp")
    assert _settled(page)["start"] == pytest.approx(TOKENS - 2 * zoomed["extent"])
    page.keyboard.press("Home")
    assert _settled(page)["start"] == 0
    page.keyboard.press("-")
    assert _settled(page)["extent"] == pytest.approx(1.5 * zoomed["extent"])
    page.keyboard.press("0")
    assert (_settled(page)["extent"], _settled(page)["deep"]) == (TOKENS, SLOTS)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("viewer.cursor.column") > TOKENS / 2


def test_coarser_cells_stay_until_finer_ones_are_there_and_what_is_left_behind_is_not_waited_for(
    page, held, peaks
) -> None:
    places = list(map(list, peaks))
    level = _settled(page)["level"]
    held.holding = lambda query: int(query.get("level", level)) < level
    page.mouse.move(*_point(page, 0.5, 0.5))
    _wheel(page, 4)
    page.wait_for_function("viewer.bands.asked.size > 0")
    page.wait_for_timeout(100)
    seen = page.evaluate(SEEN, places)
    assert seen["seen"] == seen["inside"] > 0, "they are drawn from the coarser bands"
    assert page.locator(".lm2-note").inner_text().endswith("finer cells are loading")
    left = page.evaluate("viewer.requests = [...viewer.bands.asked.values()], viewer.requests.length")
    page.keyboard.press("Tab")
    page.locator("canvas").focus()
    page.keyboard.press("0")
    page.wait_for_function("viewer.requests.every((request) => request.signal.aborted)")
    assert left > 0
    held.let_go()
    _settled(page)


def test_the_caption_says_what_is_pooled_and_the_pointer_what_is_in_a_cell(page, peaks) -> None:
    shown = _settled(page)
    words = (
        f"131,072 tokens · 2,048 slots · each cell the max of {2 ** shown['level']} tokens × {2 ** shown['fold']} slots"
    )
    assert page.locator(".lm2-note").inner_text() == words
    token, slot = next(iter(peaks))
    page.mouse.move(*_point(page, (token + 0.5) / TOKENS, (slot + 0.5) / SLOTS))
    tooltip = page.locator(".lm2-tooltip")
    playwright.expect(tooltip).to_contain_text(f"[w{token} ]w{token + 1} ")
    playwright.expect(tooltip).to_contain_text(f"read weight: at most 1, at token {token:,}, slot {slot:,}")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("sent.some(([name]) => name === 'cell')")
    assert page.evaluate("sent.find(([name]) => name === 'cell')[1]") == {"token": token, "slot": slot}


def test_what_a_server_refuses_is_said_and_asked_for_again(page, held: Held) -> None:
    _settled(page)
    real = held.answer
    held.answer = lambda route: route.fulfill(status=403, body="this page's session has ended: reload the page")
    page.mouse.move(*_point(page, 0.5, 0.5))
    _wheel(page, 3)
    note = page.locator(".lm2-note")
    playwright.expect(note).to_have_text(re.compile("not all could be read: this page's session has ended"))
    held.answer = real
    _settled(page)
    playwright.expect(note).not_to_have_text(re.compile("could"))
