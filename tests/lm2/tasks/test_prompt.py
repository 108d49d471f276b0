"""Laws of prompts: a question stands after its context, and knows where."""

import pytest

from lm2.tasks.prompt import Prompt


@pytest.mark.parametrize("joint", ["\f", " "])
@pytest.mark.parametrize("context", ["", "Ada wrote notes."])
def test_a_question_stands_after_its_context_or_alone(context: str, joint: str) -> None:
    prompt = Prompt.after(context, "Who wrote?", answers=("Ada",), group="a", joint=joint)
    assert (prompt.context, prompt.question) == (context, "Who wrote?")
    assert prompt.text == (f"{context}{joint}Who wrote?" if context else "Who wrote?")


def test_in_another_context_it_is_the_same_question_about_the_same_statements() -> None:
    told = Prompt.after(
        "Ada wrote.",
        "Who?",
        answers=("Ada", "she"),
        group="a",
        statement_spans=((0, 10),),
        support=(0,),
        rivals=("Bob",),
    )
    moved = told.in_context("It rained. Ada wrote.", ((11, 21),))
    assert moved.context == "It rained. Ada wrote." and moved.statements == told.statements
    for name in ("question", "answers", "group", "support", "rivals", "task"):
        assert getattr(moved, name) == getattr(told, name)
