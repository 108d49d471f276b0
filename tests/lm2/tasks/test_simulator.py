"""Laws of lm2.tasks.simulator. With LM2_DATA_DIR set, its sentence patterns are looked up in the official files."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

from lm2.tasks.babi import Question, Statement, Story, ask, prompts, split, stretch
from lm2.tasks.babi_files import read, write
from lm2.tasks.questions import answer
from lm2.tasks.simulator import simulate
from lm2.tasks.world import track

TASKS = range(1, 11)
PERSON = r"\b(?:Mary|John|Sandra|Daniel|Bill|Fred|Jeff|Julie)\b"
PLACE = r"\b(?:bathroom|bedroom|garden|hallway|kitchen|office|cinema|park|school)\b"
OBJECT = r"\b(?:apple|football|milk)\b"
# Statement forms by task, for machines without the official files; verbs stand for their kind.
FORMS = {
    1: {"P MOVE to the L."},
    4: {f"The L is {d} of the L." for d in ("north", "south", "east", "west")},
    9: {"P MOVE to the L.", "P is in the L.", "P is not in the L.", "P is no longer in the L."},
    10: {"P MOVE to the L.", "P is in the L.", "P is either in the L or the L."},
}
HANDLING = {"P MOVE to the L.", "P TAKE the O there.", "P DROP the O.", "P DROP the O there."}
FORMS |= dict.fromkeys((2, 3, 6, 8), HANDLING) | {task: HANDLING | {"P GIVE the O to P."} for task in (5, 7)}
VERBS = {
    "MOVE": "moved|went back|went|travelled|journeyed",
    "TAKE": "took|got|picked up|grabbed",
    "DROP": "left|dropped|discarded|put down",
    "GIVE": "gave|handed|passed",
}


def pattern(text: str) -> str:
    for names, letter in ((PERSON, "P"), (PLACE, "L"), (OBJECT, "O")):
        text = re.sub(names, letter, text)
    return text


def story_of(task: int, seed: int) -> Story:
    return simulate(task, seed=seed).story


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_story_and_another_seed_another(task: int) -> None:
    assert simulate(task, seed=3) == simulate(task, seed=3)
    assert len({story_of(task, seed).lines for seed in range(8)}) > 6


@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_is_of_a_form_of_the_task(task: int) -> None:
    for seed in range(10):
        for statement in story_of(task, seed).statements:
            form = pattern(statement.text)
            for kind, verbs in VERBS.items():
                form = re.sub(rf"^P (?:{verbs}) (?=to|the)", f"P {kind} ", form)
            assert form in FORMS[task], statement.text


DATA = os.environ.get("LM2_DATA_DIR")


@pytest.mark.skipif(DATA is None, reason="LM2_DATA_DIR is not set")
def test_every_sentence_pattern_occurs_in_the_official_file_of_its_task() -> None:
    official: dict[int | None, set[str]] = {}
    for story in read(Path(DATA or "") / "babi" / "babi-v1.2-en-train.tar.xz"):
        if (story.task or 0) in TASKS:
            official.setdefault(story.task, set()).update(line.text for line in story.lines)
    official = {task: {pattern(text) for text in texts} for task, texts in official.items()}
    for task in TASKS:
        ours = {pattern(line.text) for seed in range(20) for line in story_of(task, seed).lines}
        assert ours <= official[task]


@pytest.mark.parametrize("task", TASKS)
def test_answers_supports_and_worlds_follow_from_the_text(task: int) -> None:
    for seed in range(5):
        made = simulate(task, seed=seed)
        assert made.worlds == track([s.text for s in made.story.statements])
        for question in made.story.questions:
            prompt = ask(made.story, question)
            assert answer(prompt.question, prompt.statements) == (prompt.answer, prompt.support)


@pytest.mark.parametrize("task", TASKS)
def test_every_span_of_a_simulated_prompt_holds_its_statement(task: int) -> None:
    for prompt in prompts([story_of(task, 1)]):
        assert [prompt.text[start:end] for start, end in prompt.statement_spans] == [*prompt.statements]


@pytest.mark.parametrize("task", [2, 3, 5, 6, 7, 8])
def test_nobody_takes_drops_or_gives_what_is_elsewhere(task: int) -> None:
    for seed in range(20):
        before = track([])
        made = simulate(task, seed=seed)
        for statement, world in zip(made.story.statements, made.worlds, strict=True):
            match = re.fullmatch(r"(\w+) [a-z ]+ the (\w+)(?: there| to (\w+))?\.", statement.text)
            known = before[-1] if before else None
            if known is not None and match and match[2] in known.objects:
                thing, person = known.objects[match[2]], match[1]
                taking = re.search(VERBS["TAKE"], statement.text)
                assert thing.holder == (None if taking else person), statement.text
                places = {p for p in (thing.place, known.where(person), known.where(match[3] or person)) if p}
                assert len(places) <= 1, statement.text
            before = (world,)


@pytest.mark.parametrize(("statements", "questions"), [(10, 5), (11, 3), (7, 7), (4, 1), (3, 0)])
def test_questions_come_every_so_many_statements_and_the_last_ends_the_story(statements: int, questions: int) -> None:
    story = simulate(1, seed=0, statements=statements, questions=questions).story
    assert (len(story.statements), len(story.questions)) == (statements, questions)
    assert [line.line for line in story.lines] == list(range(1, len(story.lines) + 1))
    above = [len(story.before(q)) for q in story.questions]
    assert [b - a for a, b in pairwise(above)] == [statements // (questions or 1)] * max(questions - 1, 0)
    assert isinstance(story.lines[-1], Question if questions else Statement)


def test_given_names_are_the_only_names() -> None:
    names = {"people": ["Ada", "Bob"], "places": ["attic", "cellar"], "objects": ["lamp"]}
    story = simulate(2, seed=1, people=names["people"], places=names["places"], objects=names["objects"]).story
    words = set(re.findall(r"\w+", " ".join(line.text for line in story.lines)))
    assert words & {"Ada", "Bob", "attic", "cellar", "lamp"} and not re.search(PERSON + "|" + PLACE, str(words))


@pytest.mark.parametrize("task", [6, 9])
def test_yes_and_no_are_about_equally_often_the_answer(task: int) -> None:
    said = [q.answer for seed in range(60) for q in story_of(task, seed).questions]
    assert set(said) == {"yes", "no"} and 0.4 < said.count("yes") / len(said) < 0.6


def test_maybe_yes_and_no_are_all_answers_of_task_10() -> None:
    said = [q.answer for seed in range(60) for q in story_of(10, seed).questions]
    assert all(said.count(word) > len(said) * 0.15 for word in ("yes", "no", "maybe"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": 11}, "task is 11; expected one of 1 to 10"),
        ({"task": 1, "statements": 0}, "0 statements and 5 questions"),
        ({"task": 1, "statements": 3, "questions": 4}, "3 statements and 4 questions"),
        ({"task": 4, "statements": 3}, "a story of task 4 has 2 and 1"),
        ({"task": 1, "people": ["mary"]}, r"people are \('mary',\)"),
        ({"task": 1, "places": ["park"]}, r"places are \('park',\); expected at least 2"),
        ({"task": 4, "places": ["park", "office"]}, "expected at least 3"),
        ({"task": 1, "objects": ["milk"]}, "stories of this task have no objects"),
        ({"task": 5, "people": ["Mary"]}, "5 statements of task 5 told no answer"),
    ],
)
def test_arguments_that_give_no_story_are_refused_with_their_value(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(seed=0, **arguments)


def test_simulated_stories_write_read_and_split_as_files_do(tmp_path: Path) -> None:
    stories = [story_of(2, seed) for seed in range(10)]
    write(stories, tmp_path / "qa2_simulated.txt")
    assert read(tmp_path / "qa2_simulated.txt") == tuple(stories)
    assert [s.id for s in split(stories)[1]] == ["qa2_simulated:9"]


def test_a_stretched_story_keeps_its_answer_under_the_rules() -> None:
    filler = [s.text for seed in range(100, 120) for s in story_of(1, seed).statements]
    for seed in range(10):
        story = story_of(1, seed)
        for question in story.questions:
            longer = stretch(story, question, filler, statements=50)
            prompt = ask(longer, longer.questions[0])
            assert prompt.answer == question.answer
            assert answer(prompt.question, prompt.statements) == (prompt.answer, prompt.support)
