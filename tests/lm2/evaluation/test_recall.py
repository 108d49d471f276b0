"""Laws of lm2.evaluation.recall: what is asked, how far back its fact lies, and how sure a share is."""

from dataclasses import replace

import pytest

from lm2.evaluation.recall import Memory, ask as ask_model, recall
from lm2.tasks.babi import Question, Statement, Story, ask
from lm2.tasks.prompt import Prompt
from lm2.weights.checkpoint import Checkpoint


def prompt(*support: int, answer: str = "garden", story: str = "s:0", own_segment: bool = True) -> Prompt:
    """Three statements of six tokens each, and a question."""
    statements = ("Mary moved to the garden.", " John went to the office.", " Daniel travelled to the kitchen.")
    lines = tuple(Statement(line=at + 1, text=text.strip()) for at, text in enumerate(statements))
    question = Question(line=4, text="Where is Mary?", answer=answer, support=support)
    return ask(Story(id=story, task=1, lines=(*lines, question)), question, own_segment=own_segment)


@pytest.mark.parametrize(("support", "distance"), [((1,), 3), ((2,), 2), ((3,), 1), ((1, 3), 1), ((), None)])
def test_distance_is_counted_in_segments_from_the_end_of_the_last_supporting_fact(
    gated: Checkpoint, support: tuple[int, ...], distance: int | None
) -> None:
    one = prompt(*support)
    # So three segments of six, and the question's own.
    assert len(gated.tokenizer.encode(one.text.split("\f")[0])) == 18
    assert ask_model(gated, one, Memory.ON, segment_length=6).distance == distance


# The first fact is tokens 0..5 of 18: with segments of 5 it ends in the second of four, of 7 in the first of three, ...
@pytest.mark.parametrize(("length", "distance"), [(5, 3), (7, 3), (9, 2), (18, 1), (100, 1)])
def test_a_fact_that_is_cut_counts_where_it_ends(gated: Checkpoint, length: int, distance: int) -> None:
    assert ask_model(gated, prompt(1), Memory.ON, segment_length=length).distance == distance


def test_a_question_in_the_segment_of_its_fact_is_at_distance_zero(gated: Checkpoint) -> None:
    assert ask_model(gated, prompt(3, own_segment=False), Memory.ON, segment_length=100).distance == 0


def test_an_answer_is_right_exactly_when_it_is_what_the_model_would_have_said(gated: Checkpoint) -> None:
    one = ask_model(gated, prompt(1), Memory.ON)
    assert one.right is (one.predicted == one.answer)
    said = one.predicted
    again = ask_model(gated, replace(prompt(1), answers=(said,)), Memory.ON)
    if len(gated.tokenizer.encode(f" {said}")) == 1:
        assert again.right and again.predicted == said


@pytest.mark.parametrize("memory", list(Memory))
def test_recall_runs_with_the_memory_on_frozen_or_reset(gated: Checkpoint, memory: Memory) -> None:
    heard: list[int] = []
    questions = [prompt(1), prompt(2, story="s:1"), prompt(3, story="s:1")]
    report = recall(gated, questions, memory, segment_length=6, on_question=heard.append)
    assert heard == [1, 2, 3]
    assert (report.memory, report.segment_length) == (memory, 6)
    assert (report.overall.n, report.overall.groups) == (3, 2)
    assert {distance: found.n for distance, found in report.by_distance.items()} == {1: 1, 2: 1, 3: 1}


def test_with_the_memory_reset_what_was_said_before_the_question_makes_no_difference(gated: Checkpoint) -> None:
    other = replace(prompt(1), text=prompt(1).text.replace("garden", "office"))
    reset = [ask_model(gated, one, Memory.RESET, segment_length=6).predicted for one in (prompt(1), other)]
    assert reset[0] == reset[1]


def test_models_without_memory_and_released_ones_can_be_asked(plain: Checkpoint, release: Checkpoint) -> None:
    assert recall(plain, [prompt(1)]).overall.n == 1
    assert recall(release, [prompt(1)]).segment_length == 16
    with pytest.raises(ValueError, match="has no bank"):
        recall(plain, [prompt(1)], Memory.FROZEN)


def test_no_question_is_refused(gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no question"):
        recall(gated, [])
