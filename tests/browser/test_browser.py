"""The app as a person meets it: Debian's chromium, driven by Playwright. Skipped, with a message, where there is none."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The app, served as `lm2 serve` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", str(port)], cwd=Path(__file__).parents[2])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def windows(browser) -> dict[str, "playwright.BrowserContext"]:
    """A window for each scheme. Pages of one share what the browser has loaded already, which takes seconds."""
    return {scheme: _window(browser, scheme) for scheme in ("light", "dark")}


def _window(browser, scheme: str) -> "playwright.BrowserContext":
    opened = browser.new_context(viewport={"width": 1440, "height": 1400}, color_scheme=scheme)
    opened.set_default_timeout(90_000)  # a busy machine is no error
    return opened


@pytest.fixture
def page(windows) -> Iterator["playwright.Page"]:
    opened = windows["light"].new_page()
    yield opened
    opened.close()


def _open(page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("canvas[data-rows]", state="attached")


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


def test_a_click_on_the_map_chooses_token_and_slot_and_the_link_reopens_them(page, windows, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5&layer=1")
    page.locator("canvas[data-rows]").first.click(position={"x": 300, "y": 100})
    page.wait_for_url(re.compile(r"slot=\d+"))
    page.wait_for_url(re.compile(r"token=\d+"))
    link = page.url
    slot = re.search(r"slot=(\d+)", link)[1]
    again = windows["light"].new_page()
    _open(again, link)
    playwright.expect(again.get_by_label("Slot", exact=True)).to_have_value(slot, timeout=60_000)
    playwright.expect(again.locator("canvas[data-rows]").first).to_have_attribute("aria-label", re.compile("block 1"))
    again.close()


def test_a_click_on_a_token_chooses_it(page, address: str) -> None:
    _open(page, f"{address}/?source=simulated&seed=5")
    page.locator('[data-token="7"]').first.click()
    page.wait_for_url(re.compile(r"token=7"))
    playwright.expect(page.get_by_label("Token", exact=True)).to_have_value("7")


_PLOT = ".js-plotly-plot .main-svg"
READY = {
    "run": _PLOT, "gates": _PLOT, "bank": _PLOT, "benchmark": _PLOT, "updates": _PLOT, "patching": "[data-token]",
    "ablations": "[data-token]", "experiments": '[data-testid="stButton"]', "sweeps": '[data-testid="stButton"]',
    "probes": '[data-testid="stButton"]', "slots": '[data-testid="stButton"]',
}  # fmt: skip
"""What is on each screen once it is there; some wait to be told what to run."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", READY)
def test_every_screen_opens_without_an_error(windows, address: str, screen: str, scheme: str) -> None:
    page = windows[scheme].new_page()
    page.goto(f"{address}/{screen}?source=simulated&seed=5")
    page.wait_for_selector(READY[screen])
    assert page.locator('[data-testid="stException"]').count() == 0
    page.close()


def test_token_text_is_never_read_as_html(page, address: str) -> None:
    _open(page, f"{address}/?source=text&text=%3Cimg%20src%3Dx%20onerror%3Dwindow.broken%3D1%3E%20moved")
    assert page.evaluate("window.broken") is None
    assert page.locator('img[src="x"]').count() == 0
