"""What tests of screens do with a page."""

import re
import threading

from streamlit.testing.v1 import AppTest


def finished(test: AppTest) -> AppTest:
    """Look again until nothing runs any more, as the browser does every second."""
    waited = threading.Event()
    for _ in range(600):
        if not any(button.label == "Cancel" for button in test.button):
            return test
        waited.wait(0.1)
        test.run()
    raise AssertionError("still running")


def told(test: AppTest) -> str:
    """All that a page says in sentences, as a reader sees it."""
    return " ".join(as_read(element.value) for element in (*test.markdown, *test.caption, *test.info, *test.warning))


def as_read(markdown: str) -> str:
    """Markdown without the backslashes that keep its signs from being read as such."""
    return re.sub(r"\\([^\sA-Za-z0-9])", r"\1", markdown)
