"""How fast the screens answer, through Chromium: `python tests/browser/speed.py ADDRESS`, with `lm2 serve` running
there.

First paint is the first heading after opening a link on a warm server; the others run from the click or key to the
moment the page shows what it asked for. Quiet machines only: Chromium, the server and the model share the cores.
The first line is what Streamlit itself takes: a page that holds three buttons and a line of text.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
STORY = "source=simulated&seed=5"
BARE = """
import streamlit as st

@st.fragment
def page():
    st.markdown("Toggled: " + st.segmented_control("Memory", ["on", "off", "frozen"], default="on"))

page()
"""


def _seconds(page: Page, action: Callable[[], None]) -> float:
    # Whoever uses it looks before pressing again: what the last press still draws is not the next one's.
    page.wait_for_timeout(1000)
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _tell(what: str, seconds: list[float]) -> None:
    print(
        f"{what:42} median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s, n = {len(seconds)}",
        flush=True,
    )


def _opened(page: Page, url: str) -> list[float]:
    """Seconds to the first heading and to the first map, or the text where there is no map."""
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("h2")
    heading = time.perf_counter() - began
    page.wait_for_selector(
        "[data-token]" if "/ablations" in url else "canvas[data-rows], .js-plotly-plot .main-svg", state="attached"
    )
    return [heading, time.perf_counter() - began]


def _press(page: Page, group: str, option: str, shown: Callable[[Page], None]) -> float:
    button = page.get_by_role("radiogroup", name=group).get_by_role("radio", name=option, exact=True)
    return _seconds(page, lambda: (button.click(), shown(page)))


def _slide(page: Page, slider: str, key: str, shown: Callable[[Page], None]) -> float:
    page.get_by_role("slider", name=slider).focus()
    return _seconds(page, lambda: (page.keyboard.press(key), shown(page)))


@contextmanager
def _bare() -> Iterator[str]:
    """The address of a page with next to nothing on it."""
    with socket.socket() as free, tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        script.write(BARE)
        script.flush()
        free.close()
        flags = [
            "--server.address=127.0.0.1",
            f"--server.port={port}",
            "--server.headless=true",
            "--server.fileWatcherType=none",
        ]
        server = subprocess.Popen(
            [Path(sys.executable).parent / "streamlit", "run", script.name, *flags], stdout=subprocess.DEVNULL
        )
        try:
            while True:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def main(address: str) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def fresh(path: str) -> tuple[Page, list[float]]:
            page = browser.new_page(viewport={"width": 1440, "height": 1400})
            return page, _opened(page, f"{address}/{path}{'' if '?' in path else '?'}{STORY}")

        with _bare() as nothing:
            page = browser.new_page(viewport={"width": 1440, "height": 1400})
            page.goto(nothing)
            said = lambda words: lambda p: p.locator("p", has_text=f"Toggled: {words}").wait_for()
            said("on")(page)
            _tell(
                "Streamlit alone: one control",
                [_press(page, "Memory", option, said(option)) for option in ["off", "frozen", "on"] * 4],
            )
            page.close()
        page, _ = fresh("")  # the server imports and loads
        opened = []
        for _ in range(6):
            page.close()
            page, seconds = fresh("")
            opened.append(seconds)
        _tell("first heading", [heading for heading, _ in opened])
        _tell("memory map", [whole for _, whole in opened])
        blocks = [str(at % 3) for at in range(12)]
        map_of = lambda block: (
            lambda p: p.locator(f"canvas[data-rows][aria-label*='block {block},']").first.wait_for(state="attached")
        )
        _tell("Memory: another block", [_press(page, "Block", block, map_of(block)) for block in blocks])
        page.close()
        page, _ = fresh("gates")
        spread_of = lambda block: lambda p: p.get_by_role("heading", name=f"Spread in block {block}").wait_for()
        _tell("Gates: another block", [_press(page, "Block", block, spread_of(block)) for block in blocks])
        page.close()
        page, _ = fresh("bank")
        after = lambda at: lambda p: p.get_by_role("heading", name=f"after segment {at}").wait_for()
        steps = [
            ("ArrowLeft", 4),
            ("ArrowLeft", 3),
            ("ArrowLeft", 2),
            ("ArrowRight", 3),
            ("ArrowRight", 4),
            ("ArrowRight", 5),
        ] * 2
        _tell("Bank: another segment", [_slide(page, "After segment", key, after(at)) for key, at in steps])
        page.close()
        page, _ = fresh("ablations?policy=off&")
        toggled = lambda words: lambda p: p.locator("p", has_text="Toggled:").filter(has_text=words).wait_for()
        policies = [("frozen", "writes frozen"), ("reset", "bank reset"), ("off", "memory off")] * 4
        _tell(
            "Ablations: what the memory may do",
            [_press(page, "Memory", option, toggled(words)) for option, words in policies],
        )
        page.close()
        page, _ = fresh("")
        told = lambda count: lambda p: p.wait_for_url(f"**statements={count}*")
        _tell(
            "Memory: a longer story, run anew",
            [_slide(page, "Statements", "ArrowRight", told(count)) for count in range(11, 19)],
        )
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
