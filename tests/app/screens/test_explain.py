"""Laws of `lm2 explain` and of the Slots screen."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.cli.main import main
from app.server import owner, results
from app.views.run import slots as views
from lm2.text.sequence import CONTINUED
from lm2.weights.checkpoint import Checkpoint
from probes.explain.contexts import SlotContext
from probes.explain.explain import SlotExplanation
from probes.explain.spec import Signal


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulated stories, which are quick to have, and no jobs of other tests."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    results.jobs.clear()
    yield
    results.jobs.clear()


def _rule(system: str, user: str) -> str:
    return (
        "Description: people"
        if "Description: ..." in system
        else json.dumps([1] * len(user.partition("\n\n")[2].splitlines()))
    )


@pytest.fixture
def spec(gated: Checkpoint, folder: Callable[[Checkpoint], str], tmp_path: Path) -> str:
    path = tmp_path / "spec.json"
    documents = {"kind": "Documents", "count": 6, "origin": "simulated"}
    path.write_text(
        json.dumps({"checkpoint": folder(gated), "documents": documents, "items": 8, "slots": [0, 2]}), encoding="utf-8"
    )
    return str(path)


def test_the_example_is_a_spec(capsys: pytest.CaptureFixture[str]) -> None:
    from probes.explain.spec import ExplainSpec

    assert main(["explain", "--example"]) == 0
    assert ExplainSpec.from_json(json.loads(capsys.readouterr().out)).model is None


def test_slots_are_explained_without_a_language_model(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["explain", spec, "--out", str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "written by" in said and "Descriptions" not in said
    assert sorted(path.name for path in out.iterdir()) == ["explanations.json", "report.md", "spec.json"]
    found = json.loads((out / "explanations.json").read_text(encoding="utf-8"))
    assert len(found["slots"]) == 10 and found["described"] == []


def test_what_a_language_model_said_can_be_replayed_without_it(
    spec: str, speaking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, server = tmp_path / "out", speaking(_rule)
    assert main(["explain", spec, "--out", str(out), "--device", "cpu", "--model", "m", "--model-url", server.url]) == 0
    assert "people" in capsys.readouterr().out and server.requests
    first = (out / "explanations.json").read_bytes()
    server.close()
    assert main(["explain", str(out / "spec.json"), "--out", str(out), "--device", "cpu", "--replay"]) == 0
    assert (out / "explanations.json").read_bytes() == first
    assert [load["slot"] for load in json.loads(first)["described"]] == [0, 2, 0, 2]
    assert (
        main(["explain", str(out / "spec.json"), "--out", str(tmp_path / "other"), "--device", "cpu", "--replay"]) == 2
    )
    assert "holds no transcript" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--model", "m"], "no address of 'm'"), (["--model-url", "http://127.0.0.1:1/v1"], "no language model is named"),
     (["--replay"], "no language model is named"), (["--model", "m", "--replay", "--model-url", "http://127.0.0.1:1/v1"],
         "not both"),
     (["--model", "m", "--model-url", "localhost"], "an address looks like")],
)  # fmt: skip
def test_a_language_model_needs_a_name_and_an_address(
    arguments: list[str], words: str, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", spec, "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1


def test_a_spec_or_folder_that_is_missing_is_told(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", spec]) == 2
    assert "--out DIR" in capsys.readouterr().err


def test_contexts_are_one_text_with_the_strongest_tokens_marked() -> None:
    contexts = tuple(
        SlotContext(
            group=group,
            segment=2,
            start=7,
            text="Mary 🙂 went",
            spans=((0, 4), (5, 6), (5, 6), (7, 11)),
            values=np.array(values),
        )
        for group, values in (("a", [0.1, 0.2, 0.3, 0.8]), ("b", [0.4, 0.1, 0.1, 0.2]))
    )
    view = views.strip(SlotExplanation(signal=Signal.READ, slot=3, share=0.1, contexts=contexts, keywords=(), items=()))
    assert view.pieces[:4] == ("Mary", " 🙂", CONTINUED, " went") and view.segment_of == (1, 1, 1, 1, 2, 2, 2, 2)
    assert view.weights.max() == view.high == 0.8 and view.weights[4] == 0.4
    assert [mark[:2] for mark in view.marks] == [(3, 4), (4, 5), (7, 8)]
    assert view.notes[7] == "0.200 · b, segment 2, token 10" and "reads slot 3" in view.legend


def _script() -> None:
    from app.screens.many_questions import slots
    from app.ui import state

    slots.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=60)
    for name, value in {"exam_questions": "6", **link}.items():
        test.query_params[name] = value
    return test.run()


def _finished(test: AppTest) -> AppTest:
    """Look again once nothing runs any more."""
    waited = threading.Event()
    for _ in range(1200):
        if all(job.phase.ended for job in results.jobs()._jobs.values()):
            test.run()
            assert not test.exception
            return test
        waited.wait(0.05)
    raise AssertionError("still running")


def _press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label.startswith(label)).click().run()
    return _finished(test)


def _words(test: AppTest) -> str:
    return " ".join(element.value for element in (*test.markdown, *test.caption, *test.info))


def test_a_slot_is_chosen_and_the_link_shows_it_to_others(gated: Checkpoint, folder) -> None:
    path = folder(gated)
    test = _press(_page(checkpoint=path), "Read 6")
    assert len(test.dataframe[0].value) == 5 and "Choose a slot" in _words(test)
    test.number_input(key="widget_slot").set_value(3).run()
    test.segmented_control(key="widget_side").set_value("wrote").run()
    assert [heading.value for heading in test.subheader] == ["All slots", "Slot 3, written"]
    assert (test.query_params["slot"], test.query_params["side"]) == ("3", "wrote")
    other = _page(checkpoint=path, slot="3", side="wrote")
    assert other.dataframe[1].value.equals(test.dataframe[1].value)
    assert test.code[0].value.startswith("lm2 explain slots-")


def test_nothing_is_asked_unless_the_owner_names_a_language_model(
    gated: Checkpoint, folder, speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = speaking(_rule)
    path = folder(gated)
    test = _press(_page(checkpoint=path, slot="1"), "Read 6")
    assert "Nothing leaves this machine" in _words(test) and not any(
        button.label.startswith("Describe") for button in test.button
    )
    assert not test.text_input, "a visitor types no address, no model and no folder"
    monkeypatch.setenv(owner.MODEL_URL, server.url)
    monkeypatch.setenv(owner.MODEL, "m")
    test.run()
    assert not server.requests
    _press(test, "Describe slot 1, read")
    assert test.dataframe[2].value["by, says the language model"].tolist() == ["people"]
    assert server.requests and "127.0.0.1" not in str(test.query_params)


def test_a_server_that_does_not_answer_is_told(
    gated: Checkpoint, folder, speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.explain.llm.time.sleep", lambda seconds: None)
    server = speaking(_rule)
    server.close()
    monkeypatch.setenv(owner.MODEL_URL, server.url)
    monkeypatch.setenv(owner.MODEL, "another")
    test = _press(_page(checkpoint=folder(gated), slot="1"), "Read 6")
    _press(test, "Describe slot 1, read")
    assert "does not answer" in _words(test)


@pytest.mark.parametrize("toy", ["rmt", "release", "armt"])
def test_other_memories_are_shown(toy: str, folder, request: pytest.FixtureRequest) -> None:
    test = _press(_page(checkpoint=folder(request.getfixturevalue(toy)), slot="0", side="wrote"), "Read 6")
    heading = "Slot 0, written" if toy == "rmt" else "Slot 0, read"
    assert [found.value for found in test.subheader] == ["All slots", heading]
    assert ("no write attention" in _words(test)) == (toy != "rmt")


def test_a_model_without_a_memory_is_explained(plain: Checkpoint, folder) -> None:
    test = _page(checkpoint=folder(plain))
    assert "no memory" in _words(test) and not test.button
