"""Laws of slot explanations."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lm2.weights.checkpoint import Checkpoint
from probes.explain.corpus import corpus, halves, of_file
from probes.explain.explain import Explanations, describe_slots, explain
from probes.explain.llm import Chat
from probes.explain.report import context_rows, keyword_rows, markdown, tables, to_json
from probes.explain.scores import Text
from probes.explain.spec import ExplainSpec, Signal
from probes.features.documents import Documents


def _spec(checkpoint: Checkpoint, **chosen: object) -> ExplainSpec:
    return ExplainSpec(checkpoint=checkpoint.name, **{"documents": Documents(count=6), "items": 8, **chosen})


@pytest.fixture(scope="module")
def found(gated: Checkpoint) -> Explanations:
    return explain(gated, _spec(gated))


def test_every_slot_has_contexts_and_words_and_shares_sum_to_one(found: Explanations, gated: Checkpoint) -> None:
    slots = gated.config.slots
    assert [(slot.signal, slot.slot) for slot in found.slots] == [
        (signal, slot) for signal in Signal for slot in range(slots)
    ]
    for signal in Signal:
        here = [found.of(signal, slot) for slot in range(slots)]
        assert sum(one.share for one in here) == pytest.approx(1)
        assert all(one.contexts and one.keywords and len(one.items) in range(2, 9, 2) for one in here)
    with pytest.raises(KeyError, match="reads slot 77"):
        found.of(Signal.READ, 77)


def test_no_story_is_shown_and_scored_and_no_scored_passage_was_shown_word_for_word(found: Explanations) -> None:
    for slot in found.slots:
        assert not {context.group for context in slot.contexts} & {item.context.group for item in slot.items}
        assert not {context.text for context in slot.contexts} & {item.context.text for item in slot.items}


def test_the_same_spec_finds_the_same_and_steps_are_told(found: Explanations, gated: Checkpoint) -> None:
    heard = []
    again = explain(gated, _spec(gated), lambda done, total: heard.append((done, total)))
    assert to_json(again) == to_json(found)
    assert heard == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("kind", ["rmt", "release"])
def test_other_memories_are_explained_as_far_as_they_go(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    signals = (Signal.READ,) if kind == "release" else tuple(Signal)
    made = explain(checkpoint, _spec(checkpoint, signals=signals))
    assert len(made.slots) == len(signals) * checkpoint.config.slots


def test_a_report_is_complete_without_a_language_model(found: Explanations, gated: Checkpoint) -> None:
    (table,) = tables(found)
    assert len(table.rows) == gated.config.slots and len(table.rows[0]) == len(table.columns) == 5
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["described"] == []
    text = markdown(found, (), "lm2 explain spec.json --out there")
    assert "lm2 explain spec.json --out there" in text and text.count("\n## Slot ") == 2 * gated.config.slots
    assert len(keyword_rows(found)) == sum(len(slot.keywords) for slot in found.slots)
    assert list(context_rows(found)) == ["signal", "slot", "story", "segment", "token", "peak", "marked"]


def test_a_language_model_is_asked_for_the_slots_of_the_spec_alone(found: Explanations, speaking) -> None:
    said = "Description: the word `garden` | ![x](http://y)"
    server = speaking(lambda system, user: said if "Description: ..." in system else "[1, 0, 1, 0, 1]")
    asked = replace(found, spec=replace(found.spec, model="m", slots=(3,), signals=(Signal.WRITE,)))
    steps = []
    (one,) = described = describe_slots(
        asked, Chat("m", url=server.url), lambda done, total: steps.append((done, total))
    )
    assert (one.signal, one.slot) == (Signal.WRITE, 3) and set(one.texts) == set(Text)
    assert one.texts[Text.WORDS] == found.of(Signal.WRITE, 3).words and one.texts[Text.RANDOM] in found.random
    shown = server.requests[0]["body"]["messages"][1]["content"]
    assert all(context.with_marks() in shown for context in found.of(Signal.WRITE, 3).contexts)
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1)) and steps[-1][0] <= steps[-1][1]
    titles = [table.title for table in tables(asked, described)]
    assert titles == ["Slots", "Descriptions", "What the descriptions are worth"]
    assert "`the word 'garden' \\| ![x](http://y)`" in markdown(asked, described, "")  # as it is, and no picture
    assert (
        json.loads(json.dumps(to_json(asked, described), allow_nan=False))["described"][0]["texts"]["random"]
        == one.texts[Text.RANDOM]
    )


def test_a_model_that_talks_nonsense_is_wrong_everywhere(found: Explanations, speaking) -> None:
    asked = replace(found, spec=replace(found.spec, model="m", slots=(0,)))
    described = describe_slots(asked, Chat("m", url=speaking(lambda system, user: "Well ...").url))
    assert all(one.description is None for one in described)
    for row in tables(asked, described)[2].rows:
        assert row[3] == 0 and row[-2] == 100


def test_texts_of_a_single_segment_are_refused(gated: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "short.txt"
    file.write_text("Mary moved.\nJohn went.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="nothing reads a slot"):
        explain(gated, _spec(gated, file=str(file)))


def test_a_file_has_a_text_a_line_or_between_blank_lines_and_equal_ones_count_once(
    gated: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo\none\n", encoding="utf-8")
    assert [entry.text for entry in of_file(file)] == ["one", "two"]
    file.write_text("one\nmore\n \ntwo\n\n\nthree", encoding="utf-8")
    assert [entry.text for entry in of_file(file)] == ["one\nmore", "two", "three"]
    found = corpus(_spec(gated, file=str(file)), gated)
    assert len(found.shown) + len(found.scored) == 3
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not readable as text"):
        of_file(file)
    with pytest.raises(ValueError, match="at least 2 are needed, not 1"):
        halves(found.shown[:1], 0)


def test_halves_depend_on_the_seed_and_the_texts_on_nothing_else(gated: Checkpoint) -> None:
    one, same, other = (corpus(_spec(gated, seed=seed), gated) for seed in (0, 0, 1))
    assert one == same and one != other and one.digest == same.digest
    assert len(one.shown) == len(one.scored) == 3


def test_a_spec_goes_through_json_and_its_digest_tells_specs_apart() -> None:
    spec = ExplainSpec(checkpoint="m", signals=(Signal.WRITE,), slots=(1, 2), model="x", block=0)
    assert ExplainSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert len({spec.digest, replace(spec, seed=1).digest, replace(spec, model=None).digest}) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [({}, "needs checkpoint"), ([], "object with fields"),
        ({"checkpoint": "m", "colour": 1}, r"no fields \['colour'\]"),
     ({"checkpoint": "m", "signals": ["dance"]}, "signals must be of"),
     ({"checkpoint": "m", "signals": []}, "one at least"),
     ({"checkpoint": "m", "contexts": 0}, "contexts must be at least 1, not 0"),
     ({"checkpoint": "m", "items": "many"}, "whole number"),
     ({"checkpoint": "m", "slots": [1, 1]}, "twice"),
     ({"checkpoint": "m", "documents": {"kind": "Documents", "count": 0}}, "count must be at least 1"),
     ({"checkpoint": 3}, "checkpoint must be a text")],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(values: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExplainSpec.from_json(values)
