"""Laws of the documents that models learn from: every answer asked for is the true one."""

import random

import pytest

from lm2.babi import Statement, Story
from lm2.curriculum import COPIED, Document, WhereIs
from lm2.simulator import simulate
from lm2.tokens import Tokenizer
from lm2.world import answer


@pytest.fixture(scope="module")
def source() -> WhereIs:
    stories = [simulate(1, seed=seed).story for seed in range(6)]
    texts = [text for story in stories for line in story.lines for text in (line.text, f" {line.text}")]
    tokenizer = Tokenizer.train(texts + [" bathroom bedroom garden hallway kitchen office"] * 9, 500)
    return WhereIs(stories, tokenizer)


def _statements(text: str) -> list[str]:
    """The whole statements of a text, its questions with their answers left out."""
    parts = text.replace("\n", " ").replace("?", "?.").split(".")
    return [f"{part.split('Where')[0].strip()}." for part in (p.strip() for p in parts[:-1]) if " to the " in part and "Where" not in part]


def _plain(source: WhereIs, document: Document, until: int) -> str:
    return source._tokenizer.decode([token for segment in document.segments[:until] for token in segment])


def test_an_open_question_is_answered_with_the_last_place_of_the_person(source: WhereIs) -> None:
    for seed in range(200):
        document = source.open(random.Random(seed), 8)
        text = source._tokenizer.decode(document.segments[0])
        facts, question = text.rsplit(" Where", 1)
        asked, told = f"Where{question}".split("? ")
        assert answer(f"{asked}?", _statements(f"{facts} "))[0] == told
        assert document.answers == ((len(document.segments[0]) - 2,),)


def test_a_question_behind_segments_is_answered_by_the_whole_statements_above_it(source: WhereIs) -> None:
    checked = 0
    for seed in range(150):
        document = source.memory(random.Random(seed), 4, 16, questions=2)
        for asked in document.asked:
            text = _plain(source, document, asked.after) + source._tokenizer.decode(asked.ids)
            facts, question = text.rsplit("Where", 1)
            words, told = f"Where{question}".split("? ")
            if "Where" not in facts:  # answered documents are checked by their own answers
                assert answer(f"{words}?", _statements(f"{facts.strip()} "))[0] == told
                checked += 1
            assert 0 <= asked.distance <= asked.after
    assert checked > 250


def test_no_token_of_a_document_is_lost_between_its_segments(source: WhereIs) -> None:
    for seed in range(50):
        document = source.memory(random.Random(seed), 3, 12, questions=1)
        text = _plain(source, document, len(document.segments))
        assert source._tokenizer.encode(text).ids == tuple(token for segment in document.segments for token in segment)


def test_a_repeated_token_stood_behind_the_same_token_before(source: WhereIs) -> None:
    for seed in range(50):
        document = source.repeat(random.Random(seed))
        ids = document.segments[0]
        assert document.distance == COPIED
        for place in document.answers[0]:
            first = len(ids) - 1 - ids[::-1].index(ids[place], len(ids) - place)
            assert ids[first + 1] == ids[place + 1]


def test_the_same_seed_draws_the_same_document(source: WhereIs) -> None:
    assert source.memory(random.Random(3), 4, 16, questions=2) == source.memory(random.Random(3), 4, 16, questions=2)


def test_a_statement_of_another_task_is_refused(source: WhereIs) -> None:
    story = Story(id="x:0", task=4, lines=(Statement(line=1, text="the office"),))
    with pytest.raises(ValueError, match="the office"):
        WhereIs([story], source._tokenizer)
