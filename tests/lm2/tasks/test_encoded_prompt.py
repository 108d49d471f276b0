"""Laws of lm2.tasks.encoded_prompt: where a question, its facts and its answer lie, as one checkpoint reads them."""

import pytest

from lm2.runs.runner import prepare, run
from lm2.tasks.babi import Question, Statement, Story, ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.weights.checkpoint import Checkpoint

STATEMENTS = ("Mary moved to the garden.", "John went to the office.", "Daniel travelled to the kitchen.")


def asked(
    checkpoint: Checkpoint,
    *support: int,
    answer: str = "garden",
    own_segment: bool = True,
    segment_length: int | None = 6,
) -> EncodedPrompt:
    lines = tuple(Statement(line=at, text=text) for at, text in enumerate(STATEMENTS, start=1))
    question = Question(line=4, text="Where is Mary?", answer=answer, support=support)
    prompt = ask(Story(id="s:0", task=1, lines=(*lines, question)), question, own_segment=own_segment)
    return encode_prompt(checkpoint, prompt, segment_length)


def spelt(one: EncodedPrompt, tokens: range) -> str:
    return "".join(one.tokens.pieces[place] for place in tokens)


@pytest.mark.parametrize("own_segment", [True, False])
@pytest.mark.parametrize("answer", ["garden", "Daniel travelled,Mary"])
def test_tokens_spell_statements_question_and_answer(gated: Checkpoint, answer: str, own_segment: bool) -> None:
    one = asked(gated, 1, answer=answer, own_segment=own_segment)
    assert tuple(spelt(one, tokens).strip() for tokens in one.statements) == STATEMENTS
    assert spelt(one, one.question).strip() == "Where is Mary?"
    assert spelt(one, one.answer) == f" {answer}"
    assert [*one.question, *one.answer] == list(range(one.question.start, len(one.tokens)))


def test_it_is_laid_out_as_a_run_feeds_it(gated: Checkpoint) -> None:
    one = asked(gated, 1)
    assert (one.tokens, one.segments) == prepare(gated, one.spec)
    assert one.spec.text == f"{one.prompt.text} garden" and one.spec.segment_length == 6
    assert asked(gated, 1, segment_length=None).spec.segment_length is None


def test_rows_are_those_that_predict_the_answer(gated: Checkpoint) -> None:
    one = asked(gated, 1, answer="Daniel travelled,Mary")
    assert len(one.rows) == len(one.answer_ids) > 1
    assert one.rows == tuple(range(one.question.stop - 1, len(one.tokens) - 1))
    assert gated.tokenizer.decode(one.answer_ids) == " Daniel travelled,Mary"
    assert run(gated, one.spec).logits[list(one.rows)].shape == (len(one.answer), gated.config.d_vocab)


@pytest.mark.parametrize(
    ("support", "distance"), [((1,), 3), ((2,), 2), ((3,), 1), ((1, 3), 1), ((3, 1), 1), ((), None)]
)
def test_facts_are_the_supporting_statements_and_the_last_to_end_is_how_far_back_they_lie(
    gated: Checkpoint, support: tuple[int, ...], distance: int | None
) -> None:
    one = asked(gated, *support)
    assert one.facts == tuple(one.statements[line - 1] for line in support)
    assert one.distance == distance


def test_a_question_is_in_the_segment_in_which_it_begins(gated: Checkpoint) -> None:
    assert asked(gated, 1).segment == 3
    one = asked(gated, 1, own_segment=False, segment_length=20)
    assert one.segments[0].end in one.question and one.segment == 0 and one.distance == 0
    assert one.segment_of(one.question[-1]) == 1


def test_what_cannot_be_run_cannot_be_put(gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="segment_length must be at least 1 token, not -1"):
        asked(gated, 1, segment_length=-1)
