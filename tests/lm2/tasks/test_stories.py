"""Laws of where questions come from."""

from pathlib import Path

import pytest

from lm2.tasks import stories


def test_without_a_data_folder_the_simulator_serves_and_every_question_is_of_another_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    asked = stories.questions(1, 5)
    assert len({prompt.group for prompt in asked}) == 5
    assert asked == stories.questions(1, 5)


def test_held_out_questions_are_the_last_of_every_story_before_any_story_is_asked_twice(data_dir: Path) -> None:
    asked = stories.questions(1, 256)
    ids = [prompt.group for prompt in asked]
    assert len(set(ids[:220])) == 220 and set(ids[220:]) <= set(ids[:220])
    assert len(set(zip(ids, [prompt.text for prompt in asked]))) == 256


@pytest.mark.parametrize(("task", "count", "words"), [(0, 1, "not of qa0"), (11, 1, "not of qa11"), (1, 0, "not 0")])
def test_questions_that_are_not_there_are_refused(task: int, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stories.questions(task, count)


def test_more_questions_than_there_are_are_refused_with_their_number(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="20 held-out stories of qa3 have 100 questions, not 101"):
        stories.questions(3, 101)
