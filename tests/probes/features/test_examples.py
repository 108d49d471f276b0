"""Laws of probes.features.examples and probes.features.documents: which rows there are, what each knows, and which may
not be parted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.features.documents import Document, Documents, Origin
from probes.features.examples import Examples, RowPosition


@pytest.fixture(scope="module")
def rows(gated: Checkpoint) -> Callable[..., Examples]:
    return lambda moment, **choice: Examples.of(gated, Documents(**{"count": 4, **choice}), moment)


@pytest.mark.parametrize("moment", RowPosition)
def test_every_row_is_where_its_moment_says(rows: Callable[..., Examples], moment: RowPosition) -> None:
    examples = rows(moment, tasks=(1, 4))
    expected = []
    for at, encoded in enumerate(examples.encoded_prompts):
        ends = {span[-1] for span in encoded.statements}
        inside = {place for span in encoded.statements for place in span}
        for segment in encoded.segments:
            last = segment.end - 1
            for place in range(segment.start, segment.end):
                existing = {
                    RowPosition.SEGMENT: place == last and segment.index < encoded.segment,
                    RowPosition.STATEMENT: place in ends,
                    RowPosition.QUESTION: place == encoded.question[-1],
                    RowPosition.TOKEN: place in inside,
                }[moment]
                if existing:
                    expected.append(
                        (
                            at,
                            segment.index,
                            place - segment.start,
                            encoded.tokens.ids[place],
                            sum(end <= place for end in ends),
                        )
                    )
    columns = (examples.document, examples.segment, examples.position, examples.token, examples.statements)
    assert [tuple(map(int, row)) for row in zip(*columns)] == expected
    assert [
        examples.encoded_prompts[at].tokens.ids[place] for at, place in zip(examples.document, examples.place)
    ] == examples.token.tolist()


def test_what_is_read_ends_with_the_question_or_with_the_last_row(rows: Callable[..., Examples]) -> None:
    asked = rows(RowPosition.QUESTION)
    for encoded, segments in zip(asked.encoded_prompts, asked.read_segments):
        assert [token for segment in segments for token in segment.ids] == list(
            encoded.tokens.ids[: encoded.question.stop]
        )
    for encoded, segments in zip(asked.encoded_prompts, rows(RowPosition.SEGMENT).read_segments):
        assert segments == encoded.segments[: encoded.segment]


def test_pieces_hold_every_row_once(rows: Callable[..., Examples]) -> None:
    examples = rows(RowPosition.TOKEN)
    assert sorted(row for piece in examples.segment_rows.values() for row in range(piece.start, piece.stop)) == list(
        range(len(examples))
    )
    for (document, segment), piece in examples.segment_rows.items():
        assert set(examples.document[piece]) == {document} and set(examples.segment[piece]) == {segment}


def test_the_kind_of_a_row_is_the_last_statement_told(rows: Callable[..., Examples]) -> None:
    examples = rows(RowPosition.TOKEN)
    assert examples.last_statement[0] == "" and examples.statements[0] == 0
    for at, told, kind in zip(examples.document, examples.statements, examples.last_statement):
        assert kind == (examples.encoded_prompts[at].prompt.statements[told - 1] if told else "")


def test_rows_without_a_group_are_refused_and_so_are_no_rows(rows: Callable[..., Examples], gated: Checkpoint) -> None:
    examples = rows(RowPosition.STATEMENT)
    for groups in (examples.groups[:-1], np.where(np.arange(len(examples)) == 3, "", examples.groups)):
        with pytest.raises(ValueError, match="every row needs a group"):
            replace(examples, groups=groups)
    document, *_ = Documents(count=1).load(gated.tokenizer)
    alone = replace(
        document.prompt,
        text=document.prompt.question,
        statement_spans=(),
        support=(),
        question_span=(0, len(document.prompt.question)),
    )
    with pytest.raises(ValueError, match="none of 1 documents has a row where the moment is statement"):
        Examples.among(gated, [Document(alone, ("a",))], RowPosition.STATEMENT)


def test_documents_that_share_anything_are_one_group(gated: Checkpoint) -> None:
    prompts = [document.prompt for document in Documents(count=4).load(gated.tokenizer)]
    shared = [("a", "p"), ("b", "q"), ("c", "p"), ("d", "r")]
    examples = Examples.among(gated, list(map(Document, prompts, shared)), RowPosition.QUESTION)
    assert list(examples.groups) == ["a", "b", "a", "d"]


def test_simulated_documents_are_stories_from_a_seed_on(gated: Checkpoint) -> None:
    result = Documents(tasks=(2, 5), count=3, seed=7).load(gated.tokenizer)
    assert [document.shared for document in result] == [
        (f"qa{task}_simulated:{seed}",) for task in (2, 5) for seed in (7, 8, 9)
    ]
    assert result[1].prompt.question == simulate(2, seed=8).story.questions[-1].text


def test_held_out_questions_of_one_story_are_one_group(gated: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lm2.tasks.stories.questions",
        lambda task, count: tuple(document.prompt for document in Documents(count=2).load(gated.tokenizer)) * 2,
    )
    examples = Examples.of(gated, Documents(origin=Origin.HELD_OUT, count=4), RowPosition.QUESTION)
    assert list(examples.groups) == ["qa1_simulated:0", "qa1_simulated:1"] * 2


def test_documents_of_one_template_are_one_group_only_where_it_counts(rows: Callable[..., Examples]) -> None:
    assert len(set(rows(RowPosition.QUESTION, tasks=(4,), count=40).groups)) == 40
    examples = rows(RowPosition.QUESTION, tasks=(4,), count=40, templates=True)
    assert 1 < len(set(examples.groups)) < 40


def test_passages_do_not_overlap_and_those_who_share_one_are_one_group(
    gated: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = tmp_path / "books" / "test" / "book.txt"
    book.parent.mkdir(parents=True)
    sentences = [f"It was number {at} of the many things that nobody had ever counted before." for at in range(400)]
    book.write_text(" ".join(sentences))
    monkeypatch.setenv("LM2_DATA_DIR", str(tmp_path))
    chosen = Documents(count=3, length="1k")
    examples = Examples.of(gated, chosen, RowPosition.SEGMENT)
    assert [encoded.prompt.group for encoded in examples.encoded_prompts] == [
        f"qa1_simulated:{seed}" for seed in range(3)
    ]
    numbers = [{word for word in encoded.prompt.text.split() if word.isdigit()} for encoded in examples.encoded_prompts]
    assert numbers[0] and not numbers[0] & numbers[1]
    assert (
        set(examples.groups[examples.document == 0])
        == set(examples.groups[examples.document == 2])
        != set(examples.groups[examples.document == 1])
    )
    for encoded in examples.encoded_prompts:
        assert 600 < len(encoded.tokens) < 1000
        assert all(statement.endswith(".") for statement in encoded.prompt.statements)
    with pytest.raises(ValueError, match="no book .* has the 40,000 characters"):
        replace(chosen, length="4k").load(gated.tokenizer)
    monkeypatch.delenv("LM2_DATA_DIR")
    with pytest.raises(ValueError, match="set LM2_DATA_DIR"):
        chosen.load(gated.tokenizer)


def test_a_choice_of_documents_goes_through_json() -> None:
    chosen = Documents(tasks=(1, 3), count=9, origin=Origin.HELD_OUT, seed=2, length="4k", templates=True)
    assert Documents.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
    assert Documents.from_json({"tasks": [2]}) == Documents(tasks=(2,))


@pytest.mark.parametrize(
    ("choice", "wrong"),
    [
        ({"tasks": ()}, "tasks must be different"),
        ({"tasks": (11,)}, "from 1 to 10"),
        ({"tasks": (1, 1)}, "different"),
        ({"count": 0}, "1 document"),
        ({"seed": -1}, "a seed of at least 0"),
        ({"length": "0k"}, "more than 300 tokens"),
        ({"length": "long"}, "4k or 1M"),
        ({"origin": "real"}, "origin must be of"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choice: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Documents(**choice)


def test_the_table_has_a_line_for_every_row(rows: Callable[..., Examples]) -> None:
    examples = rows(RowPosition.STATEMENT)
    table = examples.table()
    assert list(table["row"]) == list(range(len(examples))) and list(table["group"]) == list(examples.groups)
    assert (
        set(table["token"]) == {"."}
        and set(table["checkpoint"]) == {examples.digest}
        and set(table["moment"]) == {"statement"}
    )
