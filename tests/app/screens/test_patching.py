"""Laws of the Patching screen: whose answer is given, by the numbers of the runs themselves."""

from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from toys import REMEMBERING

from app.choices import context
from app.choices.selection import Patched, TextChoice, TextSource
from app.screens.one_text import patching as screen
from app.ui import donors
from app.views.run import text
from app.views.study import patching
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import BankEdit
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import save
from probes.causal.patching import PatchSpec, bank_edit, slots_alone

RECIPIENT = "Mary moved to the garden. John went to the office. Mary went to the kitchen.\fWhere is Mary?"
DONOR = (
    "Daniel went to the hallway. Mary went to the bedroom. Sandra went to the garden. John moved to the kitchen.\fWhere"
    " is John?"
)


def _context(whole: str, answer: str) -> context.Context:
    read = context.of_text(whole, "")
    (start, end), told = read.statements[-1], read.statements[:-1]
    return replace(read, quizzes=(context.Quiz(question=whole[start:end], end=end, answer=answer),), statements=told)


def _side(checkpoint, read: context.Context) -> screen._Side:
    spec = RunSpec(checkpoint=checkpoint.name, text=read.text, captures=(Capture(Site.READ_PATTERN),))
    trace = run(checkpoint, spec)
    asked = patching.patched_answer(trace, read, checkpoint.tokenizer)
    return screen._Side(checkpoint=checkpoint, context=read, trace=trace, asked=asked)


def _bank(recipient: screen._Side, donor: screen._Side, slots: tuple[int, ...] | None) -> BankEdit:
    return bank_edit(donor.context.text, donor.asked.segment, recipient.asked.segment, slots)


@pytest.fixture(scope="module", params=REMEMBERING)
def sides(request: pytest.FixtureRequest):
    checkpoint = request.getfixturevalue(request.param)
    return _side(checkpoint, _context(RECIPIENT, "kitchen")), _side(checkpoint, _context(DONOR, "kitchen"))


def test_a_question_is_asked_where_it_ends(sides) -> None:
    for side in sides:
        own, segment = side.asked, side.trace.segments[side.asked.segment]
        assert own.row == len(side.trace.tokens) - 1 and segment.start <= own.row < segment.end
        assert own.known and own.reply == patching.reply_of(
            side.trace, side.context, "kitchen", side.checkpoint.tokenizer
        )


def test_a_text_without_a_question_is_asked_what_the_model_says_behind_it(gated) -> None:
    side = _side(gated, context.of_text("Mary moved to the", ""))
    assert not side.asked.known
    assert side.asked.reply.token == side.trace.logits[-1].argmax()


def test_the_donors_answer_is_what_its_story_tells_of_the_recipients_question(sides) -> None:
    recipient, donor = sides
    assert donors.answer_from(donor.context, recipient.context) == "bedroom"
    assert screen._donors_reply(recipient, donor, Patched.BANK).words == "bedroom"
    assert screen._donors_reply(recipient, donor, Patched.STREAM) == donor.asked.reply


def test_a_story_that_does_not_say_and_a_question_that_is_none_have_no_answer() -> None:
    asked = _context(RECIPIENT, "kitchen")
    assert donors.answer_from(context.of_text("John went to the office.", ""), asked) is None
    assert donors.answer_from(context.of_text("It rained.", ""), asked) is None
    assert donors.answer_from(asked, context.of_text(DONOR, "")) is None


def test_each_slot_alone_is_what_a_run_of_its_own_says(sides) -> None:
    recipient, donor = sides
    checkpoint, row, own = recipient.checkpoint, recipient.asked.row, recipient.asked.reply
    wanted = patching.reply_of(recipient.trace, recipient.context, "bedroom", checkpoint.tokenizer)
    alone = slots_alone(checkpoint, screen._spec(recipient, donor, wanted))
    assert alone.changes.shape == (checkpoint.config.slots,) and alone.bytes == alone.changes.nbytes
    before = patching.logit_difference(recipient.trace.logits[row], own, wanted)
    for slot in (0, 3):
        changed = replace(recipient.trace.spec, captures=(), interventions=(_bank(recipient, donor, (slot,)),))
        after = patching.logit_difference(run(checkpoint, changed).logits[row], own, wanted)
        assert alone.changes[slot] == pytest.approx(after - before, abs=1e-4)
    assert np.array_equal(patching.slots(alone.changes).values, alone.changes)


def test_a_patchs_spec_goes_through_json_and_refuses_what_makes_no_sense(sides) -> None:
    recipient, donor = sides
    spec = screen._spec(recipient, donor, donor.asked.reply)
    assert PatchSpec.from_json(spec.to_json()) == spec and PatchSpec.from_json(spec.to_json()).digest == spec.digest
    for values, said in (
        ({"row": -1}, "row must not be negative"),
        ({"text": ""}, "text must be"),
        ({"size": 3}, r"no fields \['size'\]"),
    ):
        with pytest.raises(ValueError, match=said):
            PatchSpec.from_json(spec.to_json() | values)
    with pytest.raises(ValueError, match="there is no token 999"):
        slots_alone(recipient.checkpoint, replace(spec, row=999))


def test_a_whole_bank_makes_the_question_answered_as_in_the_donors_story(gated) -> None:
    recipient, donor = (
        _side(gated, _context(RECIPIENT, "kitchen")),
        _side(gated, _context(DONOR.replace("John?", "Mary?"), "bedroom")),
    )
    spec = replace(recipient.trace.spec, captures=(), interventions=(_bank(recipient, donor, None),))
    assert np.allclose(run(gated, spec).logits[recipient.asked.row], donor.trace.logits[donor.asked.row], atol=1e-5)


def test_the_last_blocks_stream_carries_the_donors_answer_over(sides) -> None:
    recipient, donor = sides
    checkpoint = recipient.checkpoint
    change = screen._activation(recipient, donor, Site.RESID_POST, checkpoint.config.n_layers - 1)
    after = run(checkpoint, replace(recipient.trace.spec, captures=(), interventions=(change,)))
    assert np.allclose(after.logits[recipient.asked.row], donor.trace.logits[donor.asked.row], atol=1e-5)


def test_questions_that_do_not_meet_are_refused_with_both_distances(gated) -> None:
    behind = _context(RECIPIENT, "kitchen")
    later = replace(behind, text=f"{RECIPIENT} kitchen")
    with pytest.raises(ValueError, match="[1-9] tokens .* 0 the donor's"):
        screen._activation(_side(gated, later), _side(gated, behind), Site.RESID_POST, 0)


def test_the_table_of_answers_has_each_runs_probability(sides) -> None:
    recipient, donor = sides
    wanted = patching.reply_of(recipient.trace, recipient.context, "bedroom", recipient.checkpoint.tokenizer)
    replies = [("recipient", recipient.asked.reply), ("donor", wanted)]
    table = patching.answers(
        [("before", recipient.trace, recipient.asked.row), ("own", donor.trace, donor.asked.row)], replies
    )
    for row, (_, reply) in zip(table.rows, replies):
        assert row[2] == pytest.approx(text.probabilities(recipient.trace, recipient.asked.row)[reply.token])
        assert row[3] == pytest.approx(text.probabilities(donor.trace, donor.asked.row)[reply.token])


def test_reading_is_shown_for_both_questions(sides) -> None:
    layers = sorted(sides[0].checkpoint.config.memory_layers)
    view = patching.reading(
        [(name, side.trace, side.asked.row) for name, side in zip(("recipient", "donor"), sides)], layers
    )
    assert view.values.shape == (2 * len(layers), sides[0].checkpoint.config.slots)
    own = sides[0].trace.across(Site.READ_PATTERN, layer=layers[0])[:, sides[0].asked.row].mean(0)
    assert np.allclose(view.values[0], own)


def test_neighbours_are_the_stories_behind_and_begin_again_behind_the_last() -> None:
    chosen = TextChoice(source=TextSource.SIMULATED, seed=donors.SEEDS - 1)
    assert [neighbour.seed for neighbour in donors.neighbours(chosen, 1, 2)] == [0, 1]
    last = donors.count(TextSource.STORY, 1) - 1
    assert [neighbour.index for neighbour in donors.neighbours(TextChoice(index=last - 1), 1, 2)] == [last, 0]
    pasted = donors.neighbours(TextChoice(source=TextSource.PASTED, pasted="a", task=3), 2, 1)
    assert [(one.source, one.index, one.task) for one in pasted] == [(TextSource.STORY, 1, 3)]


def _script() -> None:
    from app.screens.one_text import patching
    from app.ui import state

    patching.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=120)
    for name, value in ({"source": "simulated", "seed": "5", "donor_source": "simulated"} | link).items():
        test.query_params[name] = value
    return test.run()


def _errors(test: AppTest) -> list[str]:
    return [element.value for element in (*test.exception, *test.error)]


def test_the_model_answers_what_the_donors_bank_says() -> None:
    test = _page()
    assert not _errors(test)
    assert any("the donor's answer." in words.value for words in test.markdown)
    answers = test.dataframe[0].value
    assert answers["after"][1] > 0.9 > answers["before"][1]
    assert {metric.label for metric in test.metric} == {"All slots together", "The same alone, added up"}


def test_swapping_makes_the_donor_the_recipient() -> None:
    test = _page()
    before = [caption.value for caption in test.caption if caption.value.startswith("simulated story")]
    test.button[0].click().run()
    assert not _errors(test)
    after = [caption.value for caption in test.caption if caption.value.startswith("simulated story")]
    assert after == before[::-1] and before[0] != before[1]
    assert test.query_params["donor_index"] == "5"


@pytest.mark.parametrize("part", ["read", "stream"])
def test_an_activation_of_one_block_can_be_carried_over(part: str) -> None:
    test = _page(patched=part, patched_layer="1")
    assert not _errors(test)
    assert any("aligned at their ends" in caption.value for caption in test.caption)
    assert not test.metric


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"patched_slots": "99"}, "slots 0..15"), ({"donor_source": "text"}, "empty"),
        ({"donor_question": "15"}, "questions 0 to"),
        ({"source": "text"}, "empty"), ({"checkpoint": "babi-llama"}, "no memory"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_explained_in_a_sentence(link: dict[str, str], said: str) -> None:
    test = _page(**link)
    assert not _errors(test)
    assert any(said in element.value for element in (*test.warning, *test.info))


@pytest.mark.parametrize("kind", ["release", "rmt", "armt"])
def test_models_of_every_kind_are_taken(kind: str, request: pytest.FixtureRequest, tmp_path) -> None:
    toy = request.getfixturevalue(kind)
    save(tmp_path / "toy", toy.model, toy.tokenizer, "")
    test = _page(
        checkpoint=str(tmp_path / "toy"),
        source="text",
        text=RECIPIENT,
        donor_source="text",
        donor_text=DONOR,
        patched_slots="0,2",
    )
    assert not _errors(test)
    assert any("neither" in words.value or "answer." in words.value for words in test.markdown)
