"""The app in a browser: Debian's chromium, driven by Playwright. Skipped, with a message, if there is none."""

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from served import served

from app.navigation import SCREENS

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SIZE = {"width": 1440, "height": 1400}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, with a workspace of its own."""
    with served(tmp_path_factory.mktemp("workspace")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def windows(browser) -> dict[str, "playwright.BrowserContext"]:
    """A window for each scheme. Its pages share what the browser has loaded already, which takes seconds."""
    return {scheme: _window(browser, scheme) for scheme in ("light", "dark")}


def _window(browser, scheme: str) -> "playwright.BrowserContext":
    opened = browser.new_context(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
    opened.set_default_timeout(90_000)  # a busy machine is no error
    return opened


@pytest.fixture(scope="module")
def tabs(windows) -> dict[str, "playwright.Page"]:
    """A tab in each window, for all tests: another would compile the page's scripts again, for 6 s of a core."""
    return {scheme: window.new_page() for scheme, window in windows.items()}


@pytest.fixture
def page(tabs) -> "playwright.Page":
    """The light tab as if it were new: each address that a test opens is a session of its own."""
    tab = tabs["light"]
    tab.set_viewport_size(SIZE)
    tab.mouse.move(0, 0)
    return tab


def _open(page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("canvas[data-rows]", state="attached")
    _settle(page)


def _settle(page) -> None:
    """Wait for the end of the page's run: a click on what the last run left would call back the screen it was on."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def _go(page, screen: str) -> None:
    """Follow the sidebar's link, and wait until its screen is there."""
    page.get_by_role("link", name=screen, exact=True).click()
    page.wait_for_selector(f"h2:has-text('{screen}')")
    _settle(page)


def test_the_memory_map_is_drawn_and_says_its_numbers(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5")
    reads = page.locator("canvas[data-rows]").first
    assert reads.get_attribute("data-rows") == "16"
    assert int(reads.get_attribute("data-columns")) > 30
    assert re.search(r"read weight, block \d, mean over heads", reads.get_attribute("aria-label"))
    reads.hover(position={"x": 300, "y": 100})
    tooltip = page.locator(".lm2-tooltip:not([hidden])")
    playwright.expect(tooltip).to_contain_text(re.compile(r"slot \d+"))
    playwright.expect(tooltip).to_contain_text(re.compile(r"0\.\d+"))


def test_the_first_screen_opens_by_its_name_too(page, address: str) -> None:
    _open(page, f"{address}/memory?source=simulated&seed=5")
    playwright.expect(page.get_by_role("heading", name="Memory", exact=True)).to_be_visible()
    playwright.expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_click_on_the_map_chooses_token_and_slot_and_the_link_reopens_them(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5&layer=1")
    page.locator("canvas[data-rows]").first.click(position={"x": 300, "y": 100})
    page.wait_for_url(re.compile(r"slot=\d+"))
    page.wait_for_url(re.compile(r"token=\d+"))
    link = page.url
    slot = re.search(r"slot=(\d+)", link)[1]
    page.goto("about:blank")
    _open(page, link)
    playwright.expect(page.get_by_label("Slot", exact=True)).to_have_value(slot, timeout=60_000)
    playwright.expect(page.locator("canvas[data-rows]").first).to_have_attribute("aria-label", re.compile("block 1"))


def test_a_click_on_the_map_of_writes_colours_the_text_by_who_wrote(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5&layer=1")
    page.locator("canvas[data-rows]").nth(1).click(position={"x": 300, "y": 100})
    page.wait_for_url(re.compile(r"side=wrote"))
    playwright.expect(page.locator(".lm2-legend").first).to_contain_text("how much each token wrote slot")
    playwright.expect(page.locator(".lm2-legend").first).to_contain_text("colours as in the map")


POOLED = """(() => {
  const columns = 3000, starts = Array.from({ length: 240 }, (_, k) => 12 * k + (k % 3));
  starts[0] = 0;
  const results = [];
  for (const [start, extent, width] of [[0, 3000, 700], [0, 3000, 240], [100.5, 1500, 333], [7.25, 2000, 1999]]) {
    const seen = new Set();
    const first = Math.floor(start), end = Math.ceil(start + extent);
    const across = spans(start, extent, columns, starts, width);
    let mixed = 0;
    for (const [from, to] of across) {
      for (let column = from; column < to; column += 1) seen.add(column);
      mixed += starts.some((edge) => from < edge && edge < to);
    }
    results.push([across.length === width, mixed, end - first - seen.size]);
  }
  const ranks = (pooling) =>
    colourTables({ low: 0, high: 1, unit: 1, pooling, diverging: pooling === "most extreme" }, false).ranks;
  const half = (value) => HALF.findIndex((other) => Math.abs(other - value) < 1e-6); // exact for the values below
  const first = (pooling) => [0.125, 0.5, 0.75].sort((a, b) => ranks(pooling)[half(b)] - ranks(pooling)[half(a)])[0];
  return [results, ["largest", "least", "most extreme"].map(first)];
})()"""


def test_no_pixel_of_a_map_mixes_segments_none_is_left_out_and_the_extreme_that_matters_is_drawn(browser) -> None:
    page = browser.new_page()
    page.set_content("<p></p>")
    page.add_script_tag(path=Path(__file__).parents[2] / "app" / "components" / "common.js")
    across, shown = page.evaluate(POOLED)
    assert across == [[True, 0, 0]] * 4
    assert shown == [0.75, 0.125, 0.125]
    page.close()


def test_a_click_on_a_token_chooses_it(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5")
    page.locator('[data-token="7"]').first.click()
    page.wait_for_url(re.compile(r"token=7"))
    playwright.expect(page.get_by_label("Token", exact=True)).to_have_value("7")


_PLOT, _BUTTON, _MAP = ".js-plotly-plot .main-svg", '[data-testid="stBaseButton-primary"]', "canvas[data-rows]"
READY = {
    "memory": _MAP, "run": _PLOT, "gates": _PLOT, "bank": _PLOT, "benchmark": _PLOT, "updates": _PLOT,
    "patching": "[data-token]",
    "ablations": "[data-token]", "questions": _PLOT, "experiments": _BUTTON, "sweeps": _BUTTON,
    "probes": _BUTTON, "slots": _BUTTON, "long": _BUTTON,
    "figure": '[data-testid="stAlert"]',
}  # fmt: skip
"""What each screen shows once it is there; some wait for a click on a button."""
CHOSEN = {
    "memory": "&slot=4&token=63", "ablations": "&policy=freeze", "experiments": "&exam_questions=32",
    "sweeps": "&exam_questions=16&hidden=off",
    "probes": "&probe_count=80&probe_permutations=99", "slots": "&exam_questions=32&slot=4",
    "benchmark": "&metric=exact",
}  # fmt: skip
TOUR = os.environ.get("LM2_TOUR")
"""The folder for screenshots, set by `make screens`; then screens with a button run their job first."""
RESULT = {"experiments": _PLOT, "sweeps": _MAP, "probes": _MAP, "slots": "[data-token]"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", READY)
def test_every_screen_opens_without_an_error_and_can_be_photographed(
    tabs, address: str, screen: str, scheme: str, tmp_path: Path
) -> None:
    page = tabs[scheme]
    page.set_viewport_size(SIZE)
    page.goto(f"{address}/{'' if screen == 'memory' else screen}?source=simulated&seed=5{CHOSEN.get(screen, '')}")
    page.wait_for_selector(READY[screen], state="attached")
    if TOUR and scheme == "light" and screen in RESULT:
        _settle(page)
        page.locator(_BUTTON).first.click()
        page.wait_for_selector(RESULT[screen], state="attached", timeout=600_000)
    assert page.locator('[data-testid="stException"]').count() == 0
    if scheme == "light":
        _photograph(page, Path(TOUR or tmp_path) / f"{screen}.png")


def _photograph(page, path: Path) -> None:
    """Save what is in the window, in as few colours as a picture of a page needs."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    if TOUR:
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(4_000)  # until all is redrawn in the new size
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(128).save(path, optimize=True)
    assert image.size == (1280, 1000) and len(image.getcolors(1 << 24)) > 10


def test_a_panel_is_handed_out_put_into_a_figure_kept_by_name_and_opened_again(page, address: str) -> None:
    page.goto(f"{address}/bank?source=simulated&seed=5")
    page.wait_for_selector(_PLOT)
    _settle(page)
    page.get_by_text("For a paper").click()
    everything = page.get_by_role("button", name="Everything (.zip)")
    everything.wait_for()
    _settle(page)
    with page.expect_download() as download:
        everything.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"fig.pdf", "data.csv", "sidecar.json"} <= set(archive.namelist())
    for number, panel in enumerate(("Norms", "Change by segment"), start=1):
        if number > 1:
            page.locator('[data-testid="stExpander"]').get_by_text(panel, exact=True).click()
            playwright.expect(page.get_by_role("textbox", name="Title")).to_have_value(panel)
        _settle(page)
        page.get_by_role("button", name="Add to the figure").click()
        playwright.expect(page.get_by_text(f"{panel} is panel {number} of the figure")).to_be_visible(timeout=60_000)
    _go(page, "Figure")
    page.get_by_text("double", exact=True).click()
    page.wait_for_url(re.compile("columns=double"))
    page.wait_for_selector('[data-testid="stImage"] img')
    _settle(page)
    name = page.get_by_role("textbox", name="Name", exact=True)
    name.fill("two banks")
    name.press("Enter")
    if TOUR:
        _photograph(page, Path(TOUR) / "figure.png")
    save = page.locator(_BUTTON).filter(has_text="Save")
    playwright.expect(save).to_be_enabled(timeout=60_000)
    _settle(page)
    save.click()
    playwright.expect(page.get_by_text("reproduces it")).to_be_visible(timeout=60_000)
    page.goto("about:blank")
    page.goto(f"{address}/figure")
    page.wait_for_selector("h2:has-text('Figure')")
    _settle(page)
    page.get_by_role("combobox", name="Saved figures").click()
    page.get_by_role("option", name="two banks").click()
    playwright.expect(page.locator("button").filter(has_text="folder_open")).to_be_enabled()
    _settle(page)
    page.locator("button").filter(has_text="folder_open").click()
    compute = page.locator(_BUTTON).filter(has_text="Compute its 2 panels")
    compute.wait_for()
    _settle(page)
    compute.click()
    page.wait_for_selector('[data-testid="stImage"] img')
    assert page.locator('[data-testid="stException"]').count() == 0


def test_a_text_is_captured_and_its_map_is_zoomed_and_opened_again_by_the_link(page, windows, address: str) -> None:
    page.goto(f"{address}/long?source=simulated&seed=5&statements=60")
    page.locator(_BUTTON).filter(has_text="Capture it").wait_for()
    _run(page, "Capture it")
    page.get_by_role("button", name="Open it").click()
    viewed = page.locator("canvas.lm2-map[data-settled=true]")
    viewed.wait_for()
    _settle(page)
    if TOUR:
        _photograph(page, Path(TOUR) / "long.png")
    viewed.hover(position={"x": 300, "y": 100})
    for _ in range(3):
        page.mouse.wheel(0, -150)
    page.wait_for_url(re.compile(r"view=\d+-\d+-0"))
    _settle(page)
    viewed.click(position={"x": 300, "y": 100})
    page.wait_for_url(re.compile(r"map_slot=\d+"))
    link = page.url
    again = windows["light"].new_page()
    again.goto(link)
    again.locator("canvas.lm2-map[data-settled=true]").wait_for()
    shown = "canvas => [canvas.dataset.start, canvas.dataset.extent].map(Number).map(Math.round).join('-')"
    assert again.locator("canvas.lm2-map").evaluate(shown) in link
    playwright.expect(again.get_by_label("Slot", exact=True)).to_have_value(re.search(r"map_slot=(\d+)", link)[1])
    again.close()


def test_questions_of_ones_own_go_through_every_screen_by_clicks(page, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}/questions?exam_questions=12&probe_permutations=9&probe_baselines=tokens")
    page.wait_for_selector(_PLOT)
    _settle(page)
    _choose(page, "Question set", "Your own file")
    file = tmp_path / "lamps.jsonl"
    file.write_text("\n".join(map(json.dumps, _lamps())), encoding="utf-8")
    page.locator('input[type="file"][accept*="jsonl"]').set_input_files(file)
    page.wait_for_url(re.compile("set=lamps.jsonl"))
    playwright.expect(page.get_by_text("12 questions in 6 groups of lamps.jsonl")).to_be_visible(timeout=60_000)
    _settle(page)
    _run(page, "Ask all 12")
    playwright.expect(page.locator("[data-testid=stCode]")).to_contain_text(
        "lm2 eval --models babi-lm2-qa1", timeout=60_000
    )
    page.get_by_role("button", name="Open in Memory").click()
    page.wait_for_selector("canvas[data-rows]", state="attached")
    _settle(page)
    playwright.expect(page.get_by_text("question 0 of 24 questions of lamps.jsonl")).to_be_visible(timeout=60_000)
    _go(page, "Experiments")
    for title in ("Freeze, reset, carry, off", "Bank swap", "Write provenance"):
        _choose(page, "Experiment", title)
        _run(page, "Run about")
        page.wait_for_selector('[data-testid="stDataFrame"]')
    _go(page, "Sweeps")
    _run(page, "Run the sweep")
    page.wait_for_selector(_MAP, state="attached")
    _go(page, "Probes")
    page.wait_for_url(re.compile("probe_targets=label"))
    _run(page, "Fit the probes")
    page.wait_for_selector(_MAP, state="attached")
    assert page.locator('[data-testid="stException"]').count() == 0


def _lamps() -> Iterator[dict[str, object]]:
    """Questions that are not bAbI's, two about each of twelve contexts."""
    things, places = ("lamp", "book", "chair", "clock"), ("garden", "office", "kitchen", "hallway")
    for number in range(12):
        there = [(thing, places[(number + step * (number // 4 + 1)) % 4]) for step, thing in enumerate(things)]
        context = " ".join(f"The {thing} is in the {place}." for thing, place in there)
        for thing, place in (there[number % 4], there[(number + 1) % 4]):
            yield {
                "context": context,
                "question": f"Where is the {thing}?",
                "answers": [place],
                "facts": [f"The {thing} is in the {place}."],
                "rivals": [other for other in places if other != place],
                "labels": [["parity", ("even", "odd")[number % 2], 0, len(context)]],
            }


def _choose(page, label: str, option: str) -> None:
    """Choose an option of a select box."""
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(300)
    _settle(page)


def _run(page, label: str) -> None:
    """Press a screen's button, and wait until its job is done."""
    _settle(page)
    button = page.locator(_BUTTON).filter(has_text=label)
    button.click()
    playwright.expect(button).to_have_count(0, timeout=120_000)
    playwright.expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=120_000)
    _settle(page)


def test_token_text_is_never_read_as_html(page, address: str) -> None:
    _open(page, f"{address}/?source=text&text=%3Cimg%20src%3Dx%20onerror%3Dwindow.broken%3D1%3E%20moved")
    assert page.evaluate("window.broken") is None
    assert page.locator('img[src="x"]').count() == 0


def test_what_was_chosen_on_one_screen_is_chosen_on_the_next(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5&layer=1")
    for screen in ("Gates", "Bank", "Memory"):
        _go(page, screen)
        assert page.get_by_role("radiogroup", name="Block").get_by_role("radio", checked=True).inner_text() == "1", (
            screen
        )


def test_no_screen_asks_anybody_but_the_server_whatever_a_link_names(page, address: str) -> None:
    hostile = "source=text&text=Mary%20went.&checkpoint=" + quote(
        "![x](http://evil.example/a.png) :material/home: www.evil.example <b> $x$"
    )
    requested: list[str] = []

    def note(request) -> None:
        requested.append(request.url)

    page.on("request", note)
    for screen in sorted(SCREENS):
        page.goto(f"{address}/{screen}?{hostile}")
        page.wait_for_selector("[data-testid=stHeading]")
        _settle(page)
        assert page.locator("a[href*=evil], img[src*=evil], [data-testid=stMarkdownContainer] .katex").count() == 0
    playwright.expect(page.locator("[data-testid=stAlert]").first).to_contain_text("www.evil.example")
    page.remove_listener("request", note)
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
