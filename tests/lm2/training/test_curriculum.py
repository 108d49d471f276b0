"""Laws of the documents that models learn from: every answer asked for is the true one."""

import random

import pytest

from lm2.model.config import SegmentEnd
from lm2.tasks.babi import prompts
from lm2.tasks.questions import answer
from lm2.tasks.simulator import simulate
from lm2.text.segments import split_segments
from lm2.text.tokens import Tokenizer
from lm2.training.curriculum import TASKS, Lessons, Phase, Stage, TrainingDocument

BOOK = " ".join(
    f"It was on the {day} day of that march, said the old man to his niece, that we saw the river."
    for day in map(str, range(300))
)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    lines = [line.text for task in TASKS for seed in range(8) for line in simulate(task, seed=seed).story.lines]
    return Tokenizer.train([BOOK, *lines, *(f" {line}" for line in lines)], 900)


@pytest.fixture(scope="module")
def lessons(words: Tokenizer) -> Lessons:
    stories = [simulate(task, seed=100 + seed).story for task in TASKS for seed in range(6)]
    return Lessons(stories, [BOOK], words, SegmentEnd.SENTENCE)


def _statements(text: str) -> list[str]:
    """The whole statements of a text of facts and questions with their answers."""
    parts = text.replace("\n", " ").split(".")
    return [f"{part.split('?')[-1].strip()}." for part in parts[:-1] if "?" not in part]


def _asked(words: Tokenizer, document: TrainingDocument) -> list[tuple[list[str], str, str]]:
    """(statements above it, question, answer) of every question."""
    found = []
    for one in document.questions:
        before = words.decode([token for segment in document.segments[: one.after] for token in segment])
        text, said = words.decode(one.ids[: -one.answer]), words.decode(one.ids[-one.answer :])
        above, question = max(
            text.rpartition(". "), text.rpartition(".\n"), ("", "", text), key=lambda parts: len(parts[0])
        )[::2]
        if "? " in question:
            question = question.rpartition("? ")[2]
        found.append(
            (
                _statements(f"{before} {above}. " if above else f"{before} "),
                question.strip(),
                said.strip().removesuffix("."),
            )
        )
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["open", "memory"])
def test_every_question_is_answered_by_the_statements_above_it(
    lessons: Lessons, words: Tokenizer, task: int, kind: str
) -> None:
    checked = 0
    for seed in range(60):
        rng = random.Random(seed)
        document = lessons.open(rng, task, 8) if kind == "open" else lessons.memory(rng, task, 9, 0, 16, 3, 3)
        for statements, question, said in _asked(words, document):
            assert answer(question, statements)[0] == said
            checked += 1
    assert checked > 40


def test_prose_changes_no_answer_and_loses_no_statement(lessons: Lessons, words: Tokenizer) -> None:
    longer = 0
    for seed in range(40):
        document = lessons.memory(random.Random(seed), 1, 9, 120, 24, 2, 2)
        text = words.decode([token for segment in document.segments for token in segment])
        longer += "river" in text or "march" in text
        for one in document.questions:
            before = words.decode([token for segment in document.segments[: one.after] for token in segment])
            own = words.decode(one.ids)
            facts = [
                f"{part.strip()}."
                for part in f"{before} {own}".replace("\n", " ").split(".")
                if " to the " in part and "?" not in part
            ]
            facts = [
                fact[fact.rindex(name) :]
                for fact in facts
                for name in ("Mary", "John", "Sandra", "Daniel")
                if f"{name} " in fact
            ][:99]
            question = own.rpartition("?")[0].rpartition(".")[2].strip() + "?"
            if "Where is" in question and own.count("?") == 1 and before.count("?") == 0:
                assert answer(question, facts)[0] == own.rpartition("?")[2].strip().removesuffix(".")
    assert longer > 20


def test_documents_are_cut_as_texts_are(lessons: Lessons, words: Tokenizer) -> None:
    for seed in range(40):
        document = lessons.memory(random.Random(seed), 2, 12, 60, 16, 1, 1)
        assert all(len(segment) <= 16 for segment in document.segments)
    story = simulate(2, seed=5).story
    document = lessons.exam(story, story.questions[-1], 16)
    prompt = list(prompts([story]))[-1]
    segments = [segment.ids for segment in split_segments(words.encode(prompt.text), 16, SegmentEnd.SENTENCE)]
    asked = document.questions[0]
    assert [*document.segments, asked.ids[: -asked.answer]] == segments
    assert words.decode(asked.ids[-asked.answer :]) == f" {prompt.answer}."


def test_a_repeated_token_stood_behind_the_same_token_before(lessons: Lessons) -> None:
    for seed in range(50):
        asked = lessons.repeat(random.Random(seed)).questions[0]
        ids = asked.ids
        for place in range(len(ids) - asked.answer, len(ids)):
            first = ids.index(ids[place - 1], max(0, len(ids) - 2 * (asked.answer + 1)))
            assert ids[first + 1] == ids[place]


def test_the_same_seed_draws_the_same_document(lessons: Lessons) -> None:
    one, other = (lessons.memory(random.Random(3), 5, 12, 50, 16, 4, 4) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"tasks": (11,)}, {"tasks": ()}, {"statements": (1, 4)}, {"prose": (-1, 0)}, {"lengths": (2,)}],
)
def test_a_stage_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="a stage needs"):
        Stage(**{"steps": 1, "phase": Phase.MEMORY} | change)
