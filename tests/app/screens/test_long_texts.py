"""Laws of the Long texts screen: a text is captured once and looked at from then on, and a click goes everywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import finished, told
from streamlit.testing.v1 import AppTest

from app.components.viewer import Viewed
from app.export import workspace
from lm2.runs.spec import RunSpec
from lm2.stores.capture import capture
from lm2.stores.store import Store

TEXT = "Mary moved to the garden. John went to the office. Mary went to the kitchen. " * 3


def _script() -> None:
    from app.navigation import SCREENS
    from app.ui import sidebar

    sidebar.render()
    SCREENS["long"].render()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=120)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(workspace.VARIABLE, str(tmp_path / "space"))
    return tmp_path / "space"


@pytest.fixture
def store(gated, space: Path) -> Store:
    return capture(gated, RunSpec(checkpoint="toy-gated", text=TEXT), space / "captures" / "kept")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the viewer was last given; its entry `does` is what it says that a user did."""
    import app.screens.one_text.long_texts as screen

    given: dict = {}

    def viewer(source, **options) -> Viewed:
        given.update(options, source=source)
        return given.pop("does", Viewed())

    monkeypatch.setattr(screen, "viewer", viewer)
    return given


def test_the_text_of_the_sidebar_is_captured_as_a_job_and_opened(
    gated, folder: Callable, space: Path, shown: dict
) -> None:
    test = _page(checkpoint=folder(gated), source="text", text=TEXT)
    assert not test.exception and "No capture is open" in told(test) and not shown
    next(button for button in test.button if button.label == "Capture it").click().run()
    finished(test)
    next(button for button in test.button if button.label == "Open it").click().run()
    assert not test.exception
    (name,) = (path.name for path in (space / "captures").iterdir())
    assert test.session_state["selection"].long.store == name
    assert f"{shown['tokens']} tokens" in told(test) and shown["slots"] == gated.config.slots


def test_a_click_on_the_map_chooses_token_and_slot_whose_largest_weights_are_listed(store: Store, shown: dict) -> None:
    test = _page(store="kept", map_block="2", map_head="1")
    shown["does"] = Viewed(cell=(17, 3))
    test.run()
    assert not test.exception
    chosen = test.session_state["selection"].long
    assert (chosen.token, chosen.slot) == (17, 3) == (shown["token"], shown["slot"])
    weights = store.reads(block=2, head=1)
    slots, tokens, heads = (frame.value for frame in test.dataframe)
    assert slots["slot"].tolist() == np.argsort(-weights[17]).tolist()
    assert tokens["weight"].tolist() == pytest.approx(np.sort(weights[:, 3])[::-1][:8].tolist(), rel=1e-4)
    assert {"entropy (bits)", "largest share", "effective slots"} <= set(heads.columns) and len(heads) == 4


def test_where_the_map_was_moved_is_in_the_link_and_a_link_opens_it_there(store: Store, shown: dict) -> None:
    test = _page(store="kept")
    assert shown["view"] is None
    shown["does"] = Viewed(view=(5, 20, 1))
    test.run()
    assert test.query_params["view"] in ("5-20-1", ["5-20-1"])
    _page(store="kept", view="5-20-1", map="writes", pooled="mean")
    assert shown["view"] == (5, 20, 1)
    assert (shown["source"].query["what"], shown["source"].query["how"]) == ("writes", "mean")


def test_a_panel_opens_its_head_and_facts_of_the_same_text_are_marked(
    gated, store: Store, shown: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    import app.screens.one_text.long_texts as screen

    clicks = [(0, 1)]
    monkeypatch.setattr(screen, "multiples", lambda **given: clicks.pop() if clicks else None)
    test = _page(store="kept", source="text", text=TEXT)
    assert not test.exception
    assert (test.session_state["selection"].long.block, test.session_state["selection"].long.head) == (0, "1")
    assert shown["source"].query["head"] == "1" and shown["starts"][0] == 0


def test_two_captures_of_a_text_are_subtracted_and_of_other_texts_are_not(
    build, gated_config, store: Store, space: Path, shown: dict
) -> None:
    other = build(gated_config, seed=7)
    capture(other, RunSpec(checkpoint="toy", text=TEXT), space / "captures" / "other")
    capture(other, RunSpec(checkpoint="toy", text="Mary left."), space / "captures" / "short")
    test = _page(store="kept", minus="other")
    assert not test.exception and shown["low"] == -shown["high"] and "difference" in shown["value_title"]
    assert "captures are of other texts" in told(_page(store="kept", minus="short"))


@pytest.mark.parametrize(("link", "words"), [("/etc", "not in a folder"), ("nothing", "store")])
def test_what_is_no_store_is_refused_in_a_sentence(space: Path, link: str, words: str) -> None:
    test = _page(store=link)
    assert not test.exception and words in told(test)
