"""Laws of links: they open what they name, and what they cannot open is told as the page opens."""

import base64
import zlib
from collections.abc import Mapping
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.choices import links
from app.choices.selection import CHOICES, LINKS, Selection, TextSource
from app.figures.palettes import Stretch
from app.figures.print.venues import Columns, Venue
from app.navigation import SCREENS
from app.screens.many_questions import sweeps
from app.screens.one_text import ablations
from app.server import cache
from app.ui import state
from app.views.study.benchmark import METRICS
from lm2.model.gates import GATES
from lm2.tasks import stories
from probes.estimators.probe import Family
from probes.experiments.registry import EXPERIMENTS
from probes.features.examples import RowPosition
from probes.stats.metrics import Metric

FREE = {
    "checkpoint", "text", "uploaded", "donor_text", "printed", "results", "rival", "probe_sources", "probe_targets",
    "probe_baselines", "probe_strengths",
    "probe_labels", "probe_target", "probe_source", "set", "probe_sets", "steer_toward", "steer_away", "store", "minus",
}  # fmt: skip
"""Texts that anything may be; what is not there is told by the screen that shows it."""
NASTY = ["zzz", "", " ", "-2", "99999999999", "1" * 5_000, "1e400", "nan", "1.5", "true", "1_0", "\uff11", "0-99999999",
    "\0", "\ud800", "~", "~!!!",
         "~AAAA", "~é", "../../etc/passwd", "<b>", "x" * 9_000, "0,0,0", "5-1"]  # fmt: skip
TEXT = "~tilde. Zoë 🙂 \0 took\fthe apple. " * 30


def _packed(content: bytes) -> str:
    return "~" + base64.urlsafe_b64encode(content).decode()


def _chosen(test: AppTest, link: str) -> Any:
    """What a session has chosen, by its name in a link."""
    return attrgetter(LINKS[link].path)(test.session_state["selection"])


def _read(**link: str) -> links.Link:
    return links.read(link, LINKS)


def _other(name: str) -> Any:
    """A value of a field that is not its default."""
    default, allowed = LINKS[name].default, LINKS[name].allowed
    if isinstance(default, Enum):
        return list(type(default))[-1]
    if isinstance(default, tuple):
        return (2, 3, 5)
    if isinstance(allowed, (tuple, range, dict)):
        return next(value for value in reversed(allowed) if value != default)
    if allowed is not None:
        return next(value for value in ("max", "qa2", "4k", "0.25", "7", "5-20-1") if value in allowed)
    return 7 if default is None or isinstance(default, int) else "~short"


@pytest.mark.parametrize("name", LINKS)
def test_a_link_gives_back_what_was_written_into_it(name: str) -> None:
    assert _read(**{name: links.write(_other(name))}) == ({name: _other(name)}, ())


@pytest.mark.parametrize("text", ["~", "~a", TEXT, "é" * 41, "a" * 200_000])
def test_a_text_comes_back_from_its_link_as_it_was(text: str) -> None:
    assert _read(text=links.write(text)) == ({"text": text}, ())


@pytest.mark.parametrize("value", NASTY, ids=lambda value: value.encode("utf-8", "backslashreplace").decode()[:20])
def test_a_value_is_taken_as_it_is_or_left_out_with_a_sentence(value: str) -> None:
    link = _read(**dict.fromkeys(LINKS, value))
    assert len(link.values) + len(link.problems) == len(LINKS)
    for problem in link.problems:
        assert (
            problem.startswith("This part of the link was left out: ")
            and problem.endswith(".")
            and len(problem) < 400
            and "\n" not in problem
        )
    for name, taken in link.values.items():
        assert taken == value or links.write(taken) == value or isinstance(taken, tuple), f"{name} became {taken!r}"
    Selection.of(link.values)


def test_every_text_is_of_a_closed_set_or_known_to_be_free() -> None:
    closed = {name: choice.allowed for name, choice in LINKS.items() if choice.allowed is not None}
    texts = {name for name, choice in LINKS.items() if isinstance(choice.default, str)}
    assert texts - set(closed) == FREE
    for name, allowed in closed.items():
        default = LINKS[name].default
        assert default is None or all(one in allowed for one in (default if isinstance(default, tuple) else [default]))


def test_no_two_fields_share_a_name_in_a_link() -> None:
    assert len(LINKS) == len(CHOICES)


def test_closed_sets_are_those_that_the_screens_offer() -> None:
    offered = {
        "gate": GATES, "metric": METRICS, "experiment": list(EXPERIMENTS),
        "ordered": [one.value for one in Metric],
        "effect": ["", *(one.value for one in Metric)], "grid": sweeps._GRIDS, "replacement": sweeps._REPLACEMENTS,
        "route": sweeps._ROUTES,
        "probe_moment": [one.value for one in RowPosition],
        "probe_family": [one.value for one in Family],
        "venue": [one.value for one in Venue], "columns": [column.value for column in Columns],
        "scale": [one.value for one in Stretch],
        "task": stories.TASKS,
    }  # fmt: skip
    for name, values in offered.items():
        assert set(LINKS[name].allowed) == set(values), name
    assert set(ablations._POLICIES) == set(type(LINKS["policy"].default))


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_cut_text_is_refused_and_not_shown_as_a_shorter_one(cut: int) -> None:
    link = _read(text=links.write(TEXT)[:-cut])
    assert "text" not in link.values and "copy the link again" in link.problems[0]


def test_a_text_that_unpacks_without_end_and_one_with_something_behind_it_are_refused() -> None:
    for content in (zlib.compress(b"a" * 50_000_000, 9), zlib.compress(b"a") + b"b", zlib.compress(b"\xed\xa0\x80")):
        link = _read(text=_packed(content))
        assert "text" not in link.values and len(link.problems) == 1


@pytest.mark.parametrize(("old", "values"), [
    ({"source": "text", "text": "Mary moved."}, {"source": TextSource.PASTED, "text": "Mary moved."}),
    ({"source": "text", "text": _packed(zlib.compress(b"Mary moved. " * 9, 9))}, {"text": "Mary moved. " * 9}),
    ({"source": "file", "text": "From a file."}, {"source": TextSource.FILE, "uploaded": "From a file.", "text": ""}),
    ({"slots": "0,3-5", "layer": "2", "slot": "4", "scale": "linear"},
        {"slots": (0, 3, 4, 5), "layer": 2, "slot": 4, "scale": "linear"}),
    ({"exam_task": "7", "exam_questions": "9"}, {"set": "babi:qa7", "exam_questions": 9}),
    ({"probe_tasks": "1,4-5"}, {"probe_sets": "simulated:qa1\nsimulated:qa4\nsimulated:qa5", "set": "babi:qa1"}),
    ({"probe_origin": "held out", "probe_seed": "7"}, {"probe_sets": "babi:qa1", "probe_draws": 7}),
    ({"probe_seed": "7"}, {"probe_sets": "simulated:qa1?seed=7", "probe_draws": 7}),
    ({"policy": "freeze", "input_gate": "0.5", "probe_strengths": "0.1, 1"},
        {"input_gate": "0.5", "probe_strengths": "0.1, 1"}),
], ids=str)  # fmt: skip
def test_links_of_earlier_versions_open(old: dict[str, str], values: dict[str, Any]) -> None:
    def script() -> None:
        from app.ui import state

        state.current()
        state.publish()

    test = AppTest.from_function(script)
    for name, value in old.items():
        test.query_params[name] = value
    test.run()
    assert {name: _chosen(test, name) for name in values} == values and not test.warning


def _page(screen: str, link: Mapping[str, str | list[str]]) -> AppTest:
    def script(screen: str) -> None:
        from app.navigation import SCREENS
        from app.ui import sidebar, state

        state.begin_page()
        sidebar.render()
        SCREENS[screen].render()
        state.publish()

    test = AppTest.from_function(script, kwargs={"screen": screen}, default_timeout=60)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


def _link_of(test: AppTest) -> dict[str, str]:
    """The link that a page has written."""
    return {name: value if isinstance(value, str) else value[0] for name, value in test.query_params.items()}


def _said(test: AppTest) -> list[str]:
    """Everything that a page says in words."""
    kinds = (test.warning, test.info, test.error, test.caption, test.markdown, test.success, test.code)
    return [element.value for kind in kinds for element in kind]


def _warned(test: AppTest) -> str:
    return _bare(" ".join(element.value for element in test.warning))


def _bare(text: str) -> str:
    """Without what keeps Markdown from being read as such."""
    return text.replace("\\", "").replace("`", "")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories of the simulator, which are quick to have."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


@pytest.mark.parametrize("screen", SCREENS)
def test_nonsense_in_every_field_is_told_at_once_on_every_screen_and_shows_no_path(
    screen: str, simulated: None
) -> None:
    closed = [name for name in LINKS if name not in FREE]
    nasty = [value for value in NASTY if "\ud800" not in value]
    link = {name: nasty[at % len(nasty)] for at, name in enumerate(closed)} | {
        "side": "zzz",
        "nobody": "1",
        "slots_url": "http://127.0.0.1:1",
        "context": "![a](http://b)",
    }
    test = _page(screen, link)
    assert not test.exception and not test.error
    left_out = links.read(link, LINKS).problems
    assert len(left_out) > 50 and all(_bare(problem) in _warned(test) for problem in left_out)
    assert not [said for said in _said(test) if str(Path(state.__file__).parents[2]) in said or "site-packages" in said]


THERE_IS_NONE = {
    "run": {"token": "99999"}, "memory": {"token": "99999", "slot": "999", "layer": "99", "head": "77"},
    "gates": {"layer": "99", "gate": "in"},
    "bank": {"segment": "999", "layer": "99"}, "updates": {"frozen": "999", "before": "888", "after": "777",
        "layer": "99", "head": "77", "step": "60"},
    "ablations": {"token": "99999", "freeze_at": "999", "since": "99", "policy": "freeze"},
    "patching": {"patched_layer": "99", "patched": "read"},
    "long": {}, "slots": {}, "probes": {}, "experiments": {}, "questions": {}, "sweeps": {}, "figure": {},
    "benchmark": {"at": "99999k", "shown": "qa99", "rival": "a - b"},
}  # fmt: skip


@pytest.mark.parametrize("screen", SCREENS)
def test_what_a_link_asks_for_and_is_not_there_is_told_at_once(screen: str, simulated: None) -> None:
    asked = THERE_IS_NONE[screen]
    test = _page(screen, {"source": "simulated", "statements": "2"} | asked)
    assert not test.exception and not test.error
    told = [name for name, value in asked.items() if f"asks for {name}={value}" in _warned(test)]
    # These are there.
    wanted = [name for name in asked if name not in ("policy", "patched", "gate")]
    assert told == wanted, _warned(test)


def test_a_mark_of_a_kept_text_fills_no_field_but_a_free_text(simulated: None) -> None:
    mark = f"@{cache.keep_text('a text that the server keeps')}"
    test = _page("run", dict.fromkeys(LINKS, mark))
    taken = {name for name in LINKS if _chosen(test, name) == "a text that the server keeps"}
    assert (
        not test.exception
        and taken <= FREE
        and all(f"left out: {name}=" in _warned(test) for name in ("layer", "side", "slots", "policy"))
    )


def test_a_story_that_is_not_there_is_told_and_not_replaced_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(stories.pick(1, at).story for at in range(2))
    monkeypatch.setattr(stories, "real_stories", lambda task: few)
    test = _page("run", {"index": "99"})
    assert "asks for index=99" in _warned(test) and not test.exception


def test_a_link_to_a_text_or_model_that_is_another_here_says_so_at_once(
    simulated: None, gated, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(folder(gated))
    made = _page("run", {"checkpoint": str(path), "index": "3"})
    link = _link_of(made)
    assert not made.warning and {"context", "weights"} <= set(link)
    assert not _page("run", link).warning
    other = stories.pick(1, 4)
    monkeypatch.setattr(stories, "pick", lambda task, index: other)
    assert "made with another text than this server shows" in _warned(_page("run", link))
    assert "made with another model than" in _warned(_page("run", link | {"weights": "0" * 12}))
    moved = _page("run", link)
    moved.number_input(key="widget_index").set_value(5).run()
    assert not moved.warning, "another story is another view"


def test_what_was_told_stays_until_something_else_is_chosen(simulated: None) -> None:
    test = _page("run", {"nobody": "1"})
    assert "nobody" in _warned(test) and "nobody" in _warned(test.run())
    test.number_input(key="widget_index").set_value(2).run()
    assert not test.warning


def test_a_field_that_a_link_names_more_than_once_is_told(simulated: None) -> None:
    test = _page("run", {"index": ["1", "3"]})
    assert _chosen(test, "index") == 3 and "'index' more than once: the last is taken" in _warned(test)


def test_all_that_is_told_of_a_link_stands_in_one_box(simulated: None) -> None:
    test = _page("run", {"nobody": "1", "side": "zzz"})
    (warning,) = test.warning
    assert [line[:2] for line in warning.value.splitlines()] == ["- ", "- "]


def test_a_link_to_other_documents_or_labels_of_probes_says_so_at_once(
    simulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "row,label,group\n" + "".join(f"{row},{'ab'[row % 2]},{row}\n" for row in range(20)), encoding="utf-8"
    )
    monkeypatch.setenv("LM2_FOLDERS", str(tmp_path))
    asked = {"probe_count": "20", "probe_targets": "answer", "probe_moment": "question", "probe_labels": str(labels)}
    made = _page("probes", asked)
    link = _link_of(made)
    assert {"documents", "labels"} <= set(link)
    assert not made.warning and not _page("probes", link).warning
    assert "made with other documents than" in _warned(_page("probes", link | {"documents": "0" * 12}))
    labels.write_text(labels.read_text(encoding="utf-8").replace("0,a,0", "0,b,0", 1), encoding="utf-8")
    assert "made with other labels than" in _warned(_page("probes", link))


def test_a_pasted_text_and_an_uploaded_file_are_two_texts(simulated: None) -> None:
    test = _page("run", {"source": "text", "text": "Mary moved to the garden."})
    test.segmented_control(key="widget_source").set_value(TextSource.FILE).run()
    assert any("No file yet" in info.value for info in test.info)
    test = _page("run", {"source": "file", "uploaded": "John moved.", "text": "Mary moved."})
    assert any("uploaded file" in caption.value for caption in test.caption)
    test.segmented_control(key="widget_source").set_value(TextSource.PASTED).run()
    assert (
        any("pasted text" in caption.value for caption in test.caption) and _chosen(test, "uploaded") == "John moved."
    )


@pytest.mark.parametrize(("screen", "link"), [
    ("run", {"source": "text", "text": links.write("Mary went. " * 2_000), "length": "1000000"}),
    ("updates", {"source": "text", "text": links.write("Mary went. " * 500), "length": "1000000", "written": "64"}),
    ("probes", {"probe_count": "2000", "probe_sets": "\n".join(f"simulated:qa{task}" for task in stories.TASKS)}),
    ("patching", {"donor_source": "simulated", "statements": "1000000000"}),
    ("slots", {"exam_questions": "1000000000"}),
], ids=str)  # fmt: skip
def test_a_link_that_would_cost_too_much_is_refused_in_a_sentence(
    screen: str, link: dict[str, str], simulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.cache._WORKING_BYTES", 150_000_000)
    cache._checkpoint.clear()
    test = _page(screen, link)
    cache._checkpoint.clear()
    assert not test.exception
    assert any("working memory" in said or "There are" in said or "one job may read" in said for said in _said(test))
