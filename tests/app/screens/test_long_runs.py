"""Laws of long runs: in the background, found again from anywhere, run once for all, told to stop."""

import threading
from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest

from app.server.jobs import Job
from app.views.kinds import Heatmap, Strip

PATIENCE = 30.0
LONG = "Mary moved to the garden. John went to the office. Mary went to the kitchen."


def _script(screen: str) -> None:
    from app.navigation import SCREENS
    from app.ui import sidebar

    sidebar.render()
    SCREENS[screen].render()


def _page(screen: str, **link: str) -> AppTest:
    test = AppTest.from_function(_script, kwargs={"screen": screen}, default_timeout=120)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


class Held:
    """Runs that stop behind their first segment until `gate` opens."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate, self.begun = threading.Event(), threading.Event()
        self.jobs: list[Job] = []


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    import lm2.runs.runner

    real, held, ask = lm2.runs.runner.run, Held(), Job.run

    def run(checkpoint, spec, *, on_segment, **named):
        def on_segment_held(done: int, count: int) -> None:
            held.begun.set()
            held.gate.wait(PATIENCE)
            on_segment(done, count)

        held.calls += 1
        return real(checkpoint, spec, on_segment=on_segment_held, **named)

    def followed(job: Job) -> None:
        held.jobs.append(job)
        ask(job)

    monkeypatch.setattr(lm2.runs.runner, "run", run)
    monkeypatch.setattr(Job, "run", followed)
    monkeypatch.setattr("app.server.results._SHORT_SEGMENTS", 0)
    yield held
    held.gate.set()
    for job in held.jobs:
        job.cancel()
        job.wait(PATIENCE)


@pytest.fixture
def link(gated, folder: Callable) -> dict[str, str]:
    """A text that no other test has run: the folder is this test's own."""
    return {"checkpoint": folder(gated), "source": "text", "text": LONG}


def _shown(test: AppTest) -> bool:
    return any("segments ·" in caption.value for caption in test.caption)


def _waits(test: AppTest) -> bool:
    assert not test.exception
    return any("background" in caption.value for caption in test.caption) and not _shown(test)


def test_a_long_text_runs_in_the_background_and_is_met_by_every_screen_and_session_that_asks_for_it(
    held: Held, link: dict[str, str]
) -> None:
    first = _page("memory", **link)
    assert _waits(first) and held.begun.wait(PATIENCE)
    others = [_page(screen, **link) for screen in ("run", "bank")]
    assert all(_waits(test) for test in (*others, first.run()))
    held.gate.set()
    assert held.jobs[0].wait(PATIENCE)
    assert all(_shown(test.run()) for test in (first, *others))
    assert held.calls == 1


def test_what_was_chosen_is_in_the_link_while_a_long_text_runs(held: Held, link: dict[str, str]) -> None:
    test = _page("memory", **link, slot="3")
    assert held.begun.wait(PATIENCE) and _waits(test)
    test.query_params.clear()
    test.run()
    assert test.query_params["slot"] == "3" and {"checkpoint", "source", "text"} <= set(test.query_params)


def test_a_long_text_whose_run_was_cancelled_says_so_and_is_run_again_when_asked(
    held: Held, link: dict[str, str]
) -> None:
    test = _page("run", **link)
    assert held.begun.wait(PATIENCE)
    next(button for button in test.button if button.label == "Cancel").click().run()
    assert held.jobs[0].cancelling, "and it stops at its next step"
    held.gate.set()
    assert held.jobs[0].wait(PATIENCE)
    test.run()
    assert any("Stopped after 1 segment." in caption.value for caption in test.caption) and held.calls == 1
    next(button for button in test.button if button.label == "Run the text").click().run()
    assert held.jobs[1].wait(PATIENCE)
    assert _shown(test.run()) and held.calls == 2


def test_why_a_long_text_could_not_be_run_is_told_once_and_it_can_be_tried_again(
    link: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm2.runs.runner

    real, full = lm2.runs.runner.run, [True]

    def run(*given, **named):
        if full[0]:
            raise OSError("there is no room left in /tmp")
        return real(*given, **named)

    monkeypatch.setattr(lm2.runs.runner, "run", run)
    test = _page("run", **link)
    assert not test.exception and any("no room left" in info.value for info in test.info)
    full[0] = False
    assert _shown(test.run())


def test_a_short_text_does_not_wait_for_a_long_one(
    held: Held, link: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _page("run", **link)
    assert held.begun.wait(PATIENCE)
    monkeypatch.setattr("app.server.results._SHORT_SEGMENTS", 250)
    done = threading.Thread(target=lambda: _page("run", **{**link, "text": "Mary left."}))
    done.start()
    held.begun.clear()
    assert held.begun.wait(PATIENCE), "it has begun though the long one has not ended"
    held.gate.set()
    done.join(PATIENCE)
    assert not done.is_alive()


def test_of_a_long_text_only_the_part_that_is_looked_at_is_drawn_and_its_tokens_keep_their_numbers(
    link: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app.ui.panels

    sent: dict[str, dict] = {}
    clicked: list[int | None] = [None]

    def strip(view: Strip, **options: object) -> int | None:
        sent["strip"] = vars(view) | options
        return clicked.pop() if clicked else None

    def heatmap(view: Heatmap, *, key: str, **options: object) -> None:
        sent[key] = vars(view) | options

    monkeypatch.setattr(app.ui.panels, "MOST_TOKENS", 10)
    monkeypatch.setattr(app.ui.panels, "token_strip", strip)
    monkeypatch.setattr(app.ui.panels, "heatmap", heatmap)
    link["text"] = f"{LONG} {LONG}"
    test = _page("memory", **link)
    count = max(
        int(caption.value.split(" tokens in")[0].split()[-1])
        for caption in test.caption
        if " tokens in" in caption.value
    )
    assert count > 20 and (sent["strip"]["first"], len(sent["strip"]["pieces"])) == (0, 10)
    test.number_input(key="widget_token").set_value(12).run()
    assert not test.exception
    assert (sent["strip"]["first"], sent["strip"]["selected"], len(sent["strip"]["pieces"])) == (10, 2, 10)
    for key in ("reads", "writes"):
        assert (sent[key]["first"], sent[key]["selected_column"], sent[key]["values"].shape[1]) == (10, 2, 10)
        assert sent[key]["column_labels"][0].startswith("10: ")
    clicked.append(5)
    test.run()
    assert test.session_state["selection"].run.token == 15
    for screen in ("run", "gates", "ablations"):
        test = _page(screen, **link, token=str(count - 1), gate="out")
        assert not test.exception and test.select_slider[0].value == (count - 1) // 10
    assert (sent["strip"]["first"], len(sent["strip"]["pieces"])) == ((count - 1) // 10 * 10, (count - 1) % 10 + 1)


def test_a_link_brings_back_a_text_that_is_too_long_for_it_while_the_server_has_it(
    link: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.choices.links.LONGEST", 64)
    monkeypatch.setattr("app.server.results._SHORT_SEGMENTS", 250)
    link["checkpoint"], text = "babi-lm2-qa1", f"{LONG} {LONG}"
    first = _page("run", **{**link, "text": text})
    mark = first.query_params["text"][0] if isinstance(first.query_params["text"], list) else first.query_params["text"]
    assert mark.startswith("@") and len(mark) == 65
    again = _page("run", **{**link, "text": mark})
    assert again.session_state["selection"].text.pasted == text and _shown(again)
    gone = _page("run", **{**link, "text": f"@{'0' * 64}"})
    assert not gone.exception and "server does not have it any more" in gone.session_state["notices"][0]
