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
from probes.features.documents import Document, Documents
from probes.features.examples import Examples, RowPosition


@pytest.fixture(scope="module")
def rows(gated: Checkpoint) -> Callable[..., Examples]:
    return lambda moment, **choice: Examples.of(gated, Documents(**{"count": 4, **choice}), moment)


@pytest.mark.parametrize("moment", RowPosition)
def test_every_row_is_where_its_moment_says(rows: Callable[..., Examples], moment: RowPosition) -> None:
    examples = rows(moment, questions=("simulated:qa1", "simulated:qa4"))
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
    result = Documents(questions=("simulated:qa2?seed=7", "simulated:qa5?seed=7"), count=3).load(gated.tokenizer)
    assert [document.shared for document in result] == [
        (f"qa{task}_simulated:{seed}",) for task in (2, 5) for seed in (7, 8, 9)
    ]
    assert result[1].prompt.question == simulate(2, seed=8).story.questions[-1].text


def test_held_out_questions_of_one_story_are_one_group(gated: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lm2.tasks.stories.every_question",
        lambda task, count: tuple(document.prompt for document in Documents(count=2).load(gated.tokenizer)) * 2,
    )
    examples = Examples.of(gated, Documents(questions=("babi:qa1",), count=4), RowPosition.QUESTION)
    assert list(examples.groups) == ["qa1_simulated:0", "qa1_simulated:1"] * 2


def test_documents_of_one_template_are_one_group_only_where_it_counts(rows: Callable[..., Examples]) -> None:
    assert len(set(rows(RowPosition.QUESTION, questions=("simulated:qa4",), count=40).groups)) == 40
    examples = rows(RowPosition.QUESTION, questions=("simulated:qa4",), count=40, templates=True)
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
    stories = Documents(questions=("babi:qa1", "babi:qa3"), count=9, seed=2, length="4k", templates=True)
    for chosen in (stories, Documents(questions=("pairs:?n=4", "mine.jsonl")), Documents(questions=("mine.jsonl",))):
        assert Documents.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize(
    ("values", "questions"),
    [
        ({"tasks": [2, 1], "origin": "simulated", "seed": 7}, ("simulated:qa2?seed=7", "simulated:qa1?seed=7")),
        ({"tasks": [1], "origin": "held out", "seed": 7}, ("babi:qa1",)),
        ({"tasks": [3], "origin": "simulated", "seed": 0, "length": "4k"}, ("simulated:qa3",)),
    ],
)
def test_stories_of_tasks_are_written_as_they_were_before_there_were_other_sets(
    values: dict[str, object], questions: tuple[str, ...]
) -> None:
    written = {"kind": "Documents", "count": 5, "length": None, "templates": False} | values
    chosen = Documents.from_json(written)
    assert chosen.questions == questions and chosen.to_json() == written
    assert list(chosen.to_json()) == ["kind", "tasks", "count", "origin", "seed", "length", "templates"]


def test_the_form_of_json_that_names_sets_is_for_what_tasks_cannot_express() -> None:
    assert "tasks" in Documents(questions=("simulated:qa1?seed=5",)).to_json()
    for questions in (("simulated:qa1", "babi:qa1"), ("simulated:qa1?people=Anna,Paul",), ("babilong:qa1@4k",)):
        assert Documents(questions=questions).to_json()["questions"] == list(questions)
    hidden = Documents(questions=("simulated:qa1?seed=5",), length="4k")
    assert (hidden.seed, hidden.to_json()["questions"]) == (0, ["simulated:qa1?seed=5"])


def test_the_files_of_documents_are_all_that_are_read_besides_the_data_folder() -> None:
    names = ("mine.jsonl", "passkey:?text=a.txt", "passkey:", "babilong:qa1@4k?books=b", "mmlu:?path=c", "pairs:")
    assert Documents(questions=names).files == ("mine.jsonl", "a.txt", "b", "c")


@pytest.mark.parametrize(
    ("choice", "wrong"),
    [
        ({"questions": ()}, "questions must hold one text"),
        ({"questions": ("babi:qa11",)}, "qa1 to qa10"),
        ({"questions": ("babi:qa1", "babi:qa1?")}, "names a set twice"),
        ({"count": 0}, "count must be at least 1"),
        ({"seed": -1, "length": "4k"}, "seed must be at least 0"),
        ({"length": "0k"}, "more than 300 tokens"),
        ({"length": "long"}, "4k or 1M"),
        ({"questions": "babi:qa1"}, "a sequence"),
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
