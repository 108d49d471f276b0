"""Laws of the screens, driven without a browser."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.choices.selection import Selection

SCREENS = ("run", "memory", "gates", "bank")


def _page(screen: str, **link: str) -> AppTest:
    """A screen, opened by a link."""
    test = AppTest.from_function(_script, kwargs={"screen": screen}, default_timeout=120)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


def _script(screen: str) -> None:
    from app.navigation import SCREENS
    from app.ui import sidebar, state

    sidebar.render()
    SCREENS[screen].render()
    state.publish()


def _errors(test: AppTest) -> list[str]:
    return [element.value for element in (*test.exception, *test.error)]


@pytest.mark.parametrize("screen", SCREENS)
def test_each_screen_shows_a_story(screen: str) -> None:
    test = _page(screen)
    assert not _errors(test)
    assert any("segments" in caption.value for caption in test.caption)


@pytest.mark.parametrize("screen", SCREENS)
def test_an_empty_text_is_explained_and_nothing_breaks(screen: str) -> None:
    test = _page(screen, source="text")
    assert not _errors(test)
    assert any("empty" in info.value for info in test.info)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_text_of_many_segments_is_shown(screen: str) -> None:
    test = _page(screen, source="text", text="Mary moved to the garden. " * 60)
    assert not _errors(test)
    assert any("segments" in caption.value for caption in test.caption)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_text_of_one_token_is_shown(screen: str) -> None:
    test = _page(screen, source="text", text="a")
    assert not _errors(test)
    assert any("1 tokens in 1 segments" in caption.value for caption in test.caption)


def test_a_checkpoint_that_is_not_there_is_explained() -> None:
    test = _page("memory", checkpoint="babi-lm")
    assert not _errors(test)
    assert any("did you mean 'babi-lm2'" in info.value for info in test.info)


def test_a_device_that_is_not_there_is_explained() -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    assert any("mps" in info.value for info in _page("run", device="mps").info)


def test_a_begin_of_text_token_that_the_tokenizer_lacks_is_explained() -> None:
    test = _page("run", bos="on")
    assert not test.exception and any("no begin-of-text token" in info.value for info in test.info)


def test_a_link_opens_the_view_it_names() -> None:
    test = _page("gates", gate="in", layer="1", source="simulated", seed="7", statements="6", task="2")
    assert not _errors(test)
    assert any("simulated story of qa2, seed 7" in caption.value for caption in test.caption)
    assert any("block 1" in heading.value for heading in test.subheader)
    assert any("input gate" in caption.value for caption in test.caption)


def test_the_url_says_what_was_chosen() -> None:
    test = _page("memory")
    test.number_input(key="widget_slot").set_value(3).run()
    assert test.query_params["slot"] == "3"
    assert not _errors(test)


def test_nonsense_in_a_link_falls_back_to_the_default_and_is_told() -> None:

    def script() -> None:
        from app.ui import state

        state.current()
        state.publish()

    test = AppTest.from_function(script)
    test.query_params["layer"] = "many"
    test.query_params["text"] = "~!!!"
    test.run()
    assert test.session_state["selection"] == Selection()
    assert not test.exception
    assert [warning.value for warning in test.warning if "layer='many'" in warning.value]


def test_moving_a_widget_does_not_run_the_model_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm2.runs.runner

    calls = []
    real = lm2.runs.runner.run
    monkeypatch.setattr(lm2.runs.runner, "run", lambda *given, **named: (calls.append(1), real(*given, **named))[1])
    test = _page("memory", source="simulated", seed="4321")
    before = len(calls)
    test.number_input(key="widget_slot").set_value(2).run()
    test.number_input(key="widget_token").set_value(5).run()
    assert before == 1 and len(calls) == 1


@pytest.mark.parametrize("asked", ["own segment", "same text", "whole story"])
def test_a_story_can_be_asked_in_every_way(asked: str) -> None:
    test = _page("run", asked=asked, source="simulated", seed="3")
    assert not _errors(test)
    rows = test.dataframe[0].value
    assert len(rows) == (5 if asked == "whole story" else 1)
    assert rows["its probability"].between(0, 1).all()


def test_no_file_under_app_hides_a_package_or_a_module_of_python() -> None:
    import sys

    taken = {"torch", "numpy", "plotly", "streamlit", "lm2", "probes", "tests", *sys.stdlib_module_names}
    assert not [path.name for path in Path(app.__path__[0]).glob("*.py") if path.stem in taken]


TEXT = "Mary moved to the garden. John went to the office. Mary went to the kitchen."


@pytest.mark.parametrize("screen", SCREENS)
def test_a_model_with_the_released_arithmetic_is_shown(screen: str, release, folder) -> None:
    test = _page(screen, checkpoint=folder(release), source="text", text=TEXT)
    assert not _errors(test)
    assert not [info.value for info in test.info if "no site" in info.value]
    if screen == "gates":
        assert "see the future" in test.warning[0].value
        assert "out" not in test.segmented_control(key="widget_gate").options


@pytest.mark.parametrize("screen", SCREENS)
def test_a_model_with_memory_tokens_is_shown(screen: str, rmt, folder) -> None:
    test = _page(screen, checkpoint=folder(rmt), source="text", text=TEXT)
    assert not _errors(test)
    assert any("no gates" in info.value for info in test.info) == (screen == "gates")


@pytest.mark.parametrize("screen", SCREENS)
def test_a_model_with_an_associative_memory_is_shown(screen: str, armt, folder) -> None:
    test = _page(screen, checkpoint=folder(armt), source="text", text=TEXT)
    assert not _errors(test)
    if screen == "gates":
        assert test.segmented_control(key="widget_gate").options == ["in"]


@pytest.mark.parametrize("screen", SCREENS)
def test_a_model_without_memory_is_shown_or_said_to_have_none(screen: str, plain, folder) -> None:
    test = _page(screen, checkpoint=folder(plain), source="text", text=TEXT)
    assert not _errors(test)
    assert any("no memory" in info.value for info in test.info) == (screen != "run")


def test_where_only_one_block_can_be_kept_another_one_runs_the_text_again(monkeypatch, gated, folder) -> None:
    monkeypatch.setattr("app.server.cache._RUN_BYTES", 0)
    test = _page("gates", checkpoint=folder(gated), source="text", text=TEXT)
    assert any("only block 2" in caption.value for caption in test.caption)
    test.segmented_control(key="widget_layer").set_value(0).run()
    assert not _errors(test)
    assert any("only block 0" in caption.value for caption in test.caption)
    assert any("block 0" in heading.value for heading in test.subheader)


def test_a_broken_checkpoint_is_explained(gated, folder) -> None:
    path = Path(folder(gated))
    (path / "model.safetensors").write_bytes(b"x" * 100)
    test = _page("memory", checkpoint=str(path))
    assert not _errors(test)
    assert any("model.safetensors" in info.value for info in test.info)
