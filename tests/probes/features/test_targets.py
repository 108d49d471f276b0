"""Laws of probes.features.targets: every label is what the story says at its row, and every target is its text."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lm2.tasks.questions import UnanswerableError, answer
from lm2.tasks.sets.question_set import questions, write
from lm2.tasks.world import FactKind, understand
from lm2.weights.checkpoint import Checkpoint
from probes.features import target_names
from probes.features.collect import collect, labelled
from probes.features.documents import Documents
from probes.features.examples import Examples, RowPosition
from probes.features.sources import Change
from probes.features.target_names import expand
from probes.features.targets import OwnLabels
from probes.features.world_targets import NOBODY

TEXTS = (
    "place of Mary", "previous place of milk", "holder of milk", "answer", "fact told", "facts told", "question type",
    "segment", "distance",
    "token 3 back", "slot 5 overwritten", "label place of Mary", "labels own labels.csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def examples_of(gated: Checkpoint) -> Callable[..., Examples]:
    """Rows of some stories of some tasks."""
    return lambda *tasks, moment=RowPosition.STATEMENT: Examples.of(
        gated, Documents(questions=tuple(f"simulated:qa{task}" for task in tasks), count=3), moment
    )


def classes_of(examples: Examples, text: str) -> list[str | None]:
    labels = target_names.parse(text).label(examples)
    return [None if value < 0 else labels.names[value] for value in labels.values]


def so_far(examples: Examples) -> Iterator[tuple[list[str], str]]:
    """What each row has been told, and what it will be asked."""
    for i, count in zip(examples.document, examples.statements):
        prompt = examples.encoded_prompts[i].prompt
        yield [*prompt.statements[:count]], prompt.question


def answered(question: str, statements: list[str]) -> str | None:
    try:
        return answer(question, statements)[0]
    except UnanswerableError:
        return None


@pytest.mark.parametrize("text", TEXTS)
def test_a_target_is_its_text(text: str) -> None:
    assert str(target_names.parse(text)) == text


def test_a_text_that_is_none_is_told_which_there_are() -> None:
    for text in ("whereabouts of Mary", "token three back", "slot * overwritten"):
        with pytest.raises(ValueError, match="no target is called .* place of {name}, .* token {back} back"):
            target_names.parse(text)


@pytest.mark.parametrize("task", [1, 2, 9, 10])
def test_a_place_is_the_answer_to_where_it_is(examples_of: Callable[..., Examples], task: int) -> None:
    examples = examples_of(task)
    for target in expand(["place of *"], examples):
        question = f"Where is {target.name}?" if target.name[0].isupper() else f"Where is the {target.name}?"
        assert classes_of(examples, str(target)) == [
            answered(question, statements) for statements, _ in so_far(examples)
        ]


def test_a_previous_place_is_the_answer_to_where_it_was_before(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(3)
    for thing in ("milk", "football"):
        places = classes_of(examples, f"place of {thing}")
        before = [
            answered(f"Where was the {thing} before the {i}?", texts) if i else None
            for (texts, _), i in zip(so_far(examples), places)
        ]
        assert classes_of(examples, f"previous place of {thing}") == before and len(set(before)) > 2


def test_people_have_been_where_they_were_last_told_to_be(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(1)
    for (texts, _), before in zip(so_far(examples), classes_of(examples, "previous place of Mary")):
        went = [understand(text).words[1] for text in texts if text.startswith("Mary")]
        earlier = [place for place in went if place != went[-1]]
        assert before == (earlier[-1] if earlier else None)


def test_the_holder_is_who_took_or_got_it_last(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(5)
    for (texts, _), holder in zip(so_far(examples), classes_of(examples, "holder of milk")):
        facts = [fact for fact in map(understand, texts) if fact.words[1] == "milk"]
        last = facts[-1] if facts else None
        assert holder == (
            None
            if last is None
            else NOBODY
            if last.kind is FactKind.DROP
            else last.words[-1 if last.kind is FactKind.GIVE else 0]
        )


def test_what_the_question_rests_on_is_told_from_its_last_fact_on(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(2, moment=RowPosition.TOKEN)
    for row, (present, distance, count) in enumerate(
        zip(classes_of(examples, "fact told"), classes_of(examples, "distance"), classes_of(examples, "facts told"))
    ):
        encoded, i = examples.encoded_prompts[examples.document[row]], examples.place[row]
        done = [index for index, span in enumerate(encoded.statements) if span[-1] <= i]
        assert present == ("yes" if set(encoded.prompt.support) <= set(done) else "no")
        last = max(span[-1] for span in encoded.facts)
        assert distance == (str(encoded.segment_of(i) - encoded.segment_of(last)) if i >= last else None)
        assert count == (str(len(done)) if len(done) < 10 else "10+")


def test_a_question_keeps_its_type_and_its_answer(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(1, 6, moment=RowPosition.QUESTION)
    assert target_names.parse("question type").label(examples).names == ("Is _ in the _?", "Where is _?")
    assert classes_of(examples, "answer") == [encoded.prompt.answer for encoded in examples.encoded_prompts]


def test_tokens_back_are_those_of_the_text_and_rare_ones_are_unknown(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(1, moment=RowPosition.TOKEN)
    labels = target_names.parse("token 2 back").label(examples)
    assert len(labels.names) == 20
    for value, document, place in zip(labels.values, examples.document, examples.place):
        tokens = examples.encoded_prompts[document].tokens
        assert value < 0 or (
            place >= 2 and labels.names[value] == f"{tokens.ids[place - 2]} {tokens.pieces[place - 2]!r}"
        )
    assert (labels.values[examples.place < 2] == -1).all() and (labels.values >= 0).mean() > 0.5


def test_numbers_stand_in_their_order_and_before_words(examples_of: Callable[..., Examples]) -> None:
    names = target_names.parse("segment").label(examples_of(2, moment=RowPosition.TOKEN)).names
    assert names == tuple(map(str, range(len(names)))) and len(names) > 10
    assert target_names.parse("facts told").label(examples_of(2)).names[-2:] == ("9", "10+")


def test_a_star_stands_for_all_there_is_and_what_is_not_there_is_refused(examples_of: Callable[..., Examples]) -> None:
    examples = examples_of(2)
    assert [str(target) for target in expand(["holder of *", "holder of milk"], examples)] == [
        "holder of apple",
        "holder of football",
        "holder of milk",
    ]
    assert len(expand(["slot * overwritten"], examples)) == examples.slots
    with pytest.raises(ValueError, match="no person or object Bob; they have Daniel, John"):
        expand(["place of Bob"], examples)
    with pytest.raises(ValueError, match="no slot 5; they have 0, 1"):
        expand(["slot 5 overwritten"], examples)
    with pytest.raises(ValueError, match=r"'holder of \*' stands for nothing"):
        expand(["holder of *"], examples_of(1))


LABELS = [["mood", "glad", 0, 9], ["mood", "sad", 4, 40], ["mood", "calm", 12, 16], ["day", "Monday", 0, 4]]


@pytest.fixture
def others(gated: Checkpoint, tmp_path: Path) -> Callable[..., Examples]:
    """Rows of a file of questions whose sentences are not bAbI's."""

    def examples_of(*rows: dict[str, object], moment: RowPosition = RowPosition.TOKEN) -> Examples:
        path = tmp_path / "others.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return Examples.of(gated, Documents(questions=(str(path),)), moment)

    return examples_of


def test_a_label_of_the_set_is_that_of_the_last_character_and_of_several_the_one_that_starts_last(
    others: Callable[..., Examples],
) -> None:
    context = "Mary went to the kitchen. John went to the garden."
    examples = others({"context": context, "question": "Where is Mary?", "answer": "kitchen", "labels": LABELS})
    expected = []
    for place in examples.place:
        last = examples.encoded_prompts[0].tokens.spans[place][1] - 1
        expected.append("calm" if 12 <= last < 16 else "sad" if 4 <= last < 40 else "glad" if last < 4 else None)
    assert classes_of(examples, "label mood") == expected and {"calm", "sad", "glad", None} == set(expected)
    assert [str(target) for target in expand(["label *"], examples)] == ["label day", "label mood"]
    with pytest.raises(ValueError, match="no label night; they have day, mood"):
        expand(["label night"], examples)


@pytest.mark.parametrize("moment", RowPosition)
def test_a_set_read_back_from_a_file_has_its_rows_and_as_labels_its_places(
    gated: Checkpoint, tmp_path: Path, moment: RowPosition
) -> None:
    path = tmp_path / "simulated.jsonl"
    write(questions("simulated:qa1", 6).prompts, path)
    own = Examples.of(gated, Documents(count=6), moment)
    read = Examples.of(gated, Documents(questions=(str(path),)), moment)
    assert own.table().equals(read.table())
    for target in expand(["place of *"], own):
        assert classes_of(own, str(target)) == classes_of(own, f"label {target}") == classes_of(read, f"label {target}")


@pytest.mark.parametrize("text", ["place of *", "previous place of Mary", "holder of *", "question type"])
def test_what_only_babis_sentences_tell_is_refused_for_others_in_a_sentence(
    gated: Checkpoint, others: Callable[..., Examples], text: str
) -> None:
    examples = others({"context": "Mary went to the kitchen.", "question": "Where is Mary?", "answer": "kitchen"})
    with pytest.raises(ValueError, match="are those of bAbI's stories, and some of these documents are others"):
        [target.label(examples) for target in expand([text], examples)]
    assert len(expand(["answer", "fact told", "facts told", "segment", "token 0 back"], examples)) == 5
    for choice in ({"templates": True}, {"length": "4k"}):
        with pytest.raises(ValueError, match="are those of bAbI's stories"):
            Documents(questions=("pairs:?n=2",), count=2, **choice).load(gated.tokenizer)


def test_a_slot_is_overwritten_by_a_change_of_half_its_norm(
    gated: Checkpoint, examples_of: Callable[..., Examples]
) -> None:
    examples = examples_of(1, moment=RowPosition.SEGMENT)
    targets = expand(["slot * overwritten"], examples)
    (changes,) = collect(gated, examples, [Change()]).values()
    for target, labels in labelled(gated, examples, targets).labels.items():
        assert [labels.names[value] for value in labels.values] == [
            "yes" if change > 0.5 else "no" for change in changes[:, target.slot]
        ]
    with pytest.raises(ValueError, match="takes a run of the model"):
        targets[0].label(examples)


def test_own_labels_are_those_of_their_rows_and_join_groups(
    gated: Checkpoint, examples_of: Callable[..., Examples], tmp_path: Path
) -> None:
    examples = examples_of(1)
    path = tmp_path / "own.csv"
    path.write_text("note,row,label,group\na,12,sad,x\nb,0,glad,x\nc,25,,y\n")
    target = OwnLabels(file=str(path))
    result = labelled(gated, examples, [target])
    assert classes_of(examples, str(target)) == [
        "glad" if row == 0 else "sad" if row == 12 else None for row in range(len(examples))
    ]
    assert set(result.groups[:20]) == {examples.groups[0]} != {examples.groups[12]}
    assert set(result.groups[20:]) == {examples.groups[20]}
    table = examples.table().assign(label=lambda rows: rows["statement"])
    table.to_csv(path)
    assert classes_of(examples, str(target)) == list(examples.last_statement)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("row,label\n0,a\n", "no column group"),
        ("row,label,group\n-1,a,x\n", "row '-1'; there are rows 0 to 29"),
        ("row,label,group\n30,a,x\n", "row '30'"),
        ("row,label,group\n2,a,x\n2,b,x\n", "row '2' twice"),
        ("row,label,group\n2,a,\n", "no group to row 2"),
        ("", "not readable"),
        (None, "not readable"),
    ],
)
def test_a_file_of_labels_that_does_not_fit_is_refused(
    examples_of: Callable[..., Examples], tmp_path: Path, text: str | None, wrong: str
) -> None:
    path = tmp_path / "own.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=wrong):
        expand([f"labels {path}"], examples_of(1))


def test_labels_cannot_be_changed(examples_of: Callable[..., Examples]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        target_names.parse("answer").label(examples_of(1)).values[0] = 1
    assert target_names.parse("answer").label(examples_of(1)).values.dtype == np.int64
