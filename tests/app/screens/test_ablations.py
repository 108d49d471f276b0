"""Laws of the Ablations screen: what is toggled is what runs, and what is shown is what ran."""

from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.choices import context
from app.choices.ranges import numbers
from app.choices.selection import Selection
from app.choices.toggles import ManualChange, Policy, Toggles, head_changes
from app.views.run import text
from app.views.study import ablations
from lm2.runs.interventions import Persistence
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.shown import ranges
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import save
from probes.causal.compare import compare

TEXT = (
    "Mary moved to the garden. John went to the office. Mary went to the kitchen. Daniel went to the hallway.\fWhere is"
    " Mary?"
)
OTHERS = (
    "Sandra went to the bedroom. John moved to the kitchen. Mary went to the office.",
    "Mary went to the hallway. John moved to the garden.",
)
EVERY = {
    "off": Toggles(policy=Policy.OFF),
    "frozen": Toggles(policy=Policy.FREEZE, freeze_at=1),
    "reset": Toggles(policy=Policy.RESET),
    "carried over": Toggles(policy=Policy.CARRY, others=2),
    "silent": Toggles(silent=(0,), since=1),
    "slots from another story": Toggles(slots=(0, 2), since=2),
    "slots of a mean, read only": Toggles(
        slots=(1,), slot_change=ManualChange.MEAN, others=2, persistence=Persistence.READ_ONLY
    ),
    "slots as at the start": Toggles(slots=(3, 4), slot_change=ManualChange.INITIAL),
    "slots at zero": Toggles(slots=(3,), slot_change=ManualChange.ZERO),
    "a head of a mean": Toggles(heads=(1,), head_change=ManualChange.MEAN, others=2),
    "a head at zero": Toggles(heads=(0,), head_change=ManualChange.ZERO, blocks=(2,)),
    "statements muted": Toggles(muted=(0, 2)),
    "all at once": Toggles(
        policy=Policy.CARRY,
        silent=(2,),
        slots=(0, 1),
        slot_change=ManualChange.MEAN,
        heads=(1,),
        head_change=ManualChange.ZERO,
        muted=(1,),
    ),
}
GATED_ONLY = {
    "a head from another story": Toggles(heads=(0, 1)),
    "gates": Toggles(input_gate="0", forget_gate="1", output_gate="0.5", blocks=(0,)),
}


def _specs(checkpoint, toggled: Toggles) -> tuple[RunSpec, RunSpec]:
    """The text's run without and with the toggles."""
    spec = RunSpec(checkpoint=checkpoint.name, text=TEXT)
    trace = run(checkpoint, spec)
    statements = context.of_text(TEXT, "").statements
    changes = toggled.interventions(
        checkpoint.config, trace.tokens, len(trace.segments), statements, OTHERS[: toggled.borrowed]
    )
    return spec, replace(spec, interventions=changes)


@pytest.mark.parametrize("numbered", [(), (0,), (0, 3, 4, 5), (7, 9, 10)])
def test_numbers_and_how_they_are_written_undo_each_other(numbered: tuple[int, ...]) -> None:
    assert numbers(ranges(numbered)) == numbered


@pytest.mark.parametrize("wrong", ["a", "3-", "-3", "5-3", "1;2", "0-9999999999"])
def test_numbers_written_otherwise_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="0,3-5"):
        numbers(wrong)


def test_nothing_toggled_changes_nothing_and_says_nothing(checkpoint) -> None:
    spec, toggled = _specs(checkpoint, Toggles())
    assert toggled == spec
    assert Toggles().words == () and Toggles().borrowed == 0


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["gated", "rmt"])
def test_whatever_is_toggled_runs_changes_the_text_and_goes_through_json(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(kind)
    spec, toggled = _specs(checkpoint, EVERY[name])
    assert RunSpec.from_json(toggled.to_json()) == toggled
    assert np.abs(run(checkpoint, toggled).logits - run(checkpoint, spec).logits).max() > 1e-5
    assert EVERY[name].words


@pytest.mark.parametrize("name", GATED_ONLY)
def test_heads_and_gates_of_a_gated_memory_can_be_changed(name: str, gated) -> None:
    spec, toggled = _specs(gated, GATED_ONLY[name])
    assert np.abs(run(gated, toggled).logits - run(gated, spec).logits).max() > 1e-5


def test_slots_that_change_places_change_nothing_that_a_gated_model_says(gated) -> None:
    spec, toggled = _specs(gated, Toggles(slots=(0, 2, 3), slot_change=ManualChange.PERMUTE))
    assert toggled.interventions[0].operation.order == (3, 1, 0, 2, 4)
    assert np.allclose(run(gated, toggled).logits, run(gated, spec).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Toggles(slots=(99,)), "slots 0..4"), (Toggles(slots=(99, 0), slot_change=ManualChange.PERMUTE), "slots 0..4"),
        (Toggles(silent=(1,)), "block"),
        (Toggles(slots=(3,), slot_change=ManualChange.PERMUTE), "two slots"), (Toggles(heads=(2,)), "heads 0..1"),
        (Toggles(muted=(5,)), "statements 0..4"),
        (Toggles(forget_gate="2"), "from 0 to 1"), (Toggles(forget_gate="x"), "from 0 to 1"),
        (Toggles(slots=(1,), since=50), "segment 50"),
        (Toggles(policy=Policy.RESET, reset_at=50), "segment 50"),
        (Toggles(heads=(0,), head_change=ManualChange.INITIAL), "BankEdit"),
        (Toggles(heads=(0,), head_change=ManualChange.PERMUTE), "no order"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(wrong: Toggles, said: str, gated) -> None:
    with pytest.raises(ValueError, match=said):
        run(gated, _specs(gated, wrong)[1])


def test_a_pattern_of_another_story_is_not_offered_where_heads_have_no_values_of_their_own(gated, rmt) -> None:
    assert ManualChange.RESAMPLE in head_changes(gated.config)
    assert ManualChange.RESAMPLE not in head_changes(rmt.config)


def test_a_selection_holds_toggles() -> None:
    for toggled in (*EVERY.values(), *GATED_ONLY.values()):
        assert Selection.of(vars(toggled)).toggles == toggled


@pytest.fixture(scope="module")
def asked() -> context.Context:
    quiz = context.Quiz(question="Where is Mary?", end=len(TEXT), answer="kitchen")
    return context.Context(text=TEXT, origin="", quizzes=(quiz,))


@pytest.fixture(scope="module")
def found(gated):
    return compare(*(run(gated, spec) for spec in _specs(gated, EVERY["off"])))


def test_the_table_of_answers_has_the_numbers_of_both_runs(found, asked, gated) -> None:
    tokenizer = gated.tokenizer
    [row] = ablations.quizzes(found, asked, tokenizer, ("kitchen", "garden", "office")).rows
    first, *foils = (tokenizer.encode(f" {answer}").ids[0] for answer in ("kitchen", "garden", "office"))
    for at, trace in enumerate((found.before, found.after)):
        logits, chance = trace.logits[-1], text.probabilities(trace, len(trace.tokens) - 1)
        assert row[2 + at] == tokenizer.piece(int(logits.argmax())).strip()
        assert row[4 + at] == pytest.approx(chance[first])
        assert row[6 + at] == pytest.approx(logits[first] - logits[foils].mean(), abs=1e-5)


def test_an_answer_without_rivals_has_no_logit_difference(found, asked, gated) -> None:
    [row] = ablations.quizzes(found, asked, gated.tokenizer, ("kitchen",)).rows
    assert np.isnan(row[-2:]).all()


def test_the_text_is_coloured_by_divergence_and_the_legend_says_how_far(found, asked, gated) -> None:
    view = ablations.strip(found, text.marks(found.after, asked), gated.tokenizer)
    assert view.weights.max() == view.high and view.weights.argmax() == found.kl.argmax()
    assert "nats" in view.legend and f"{found.kl.max():.3g}" in view.legend
    assert len(view.notes) == len(view.pieces)
    same = ablations.strip(compare(found.before, found.before), (), gated.tokenizer)
    assert not same.weights.any()


def test_lines_and_table_hold_what_was_compared(found, gated) -> None:
    change, kl = ablations.lines(found).lines
    assert np.array_equal(kl.values, found.kl) and np.array_equal(change.values, found.change, equal_nan=True)
    table = ablations.most_changed(found, gated.tokenizer, 5)
    assert [row[3] for row in table.rows] == sorted(found.kl, reverse=True)[:5]


def test_a_run_is_remembered_with_the_answers_probability(found, asked, gated) -> None:
    one = ablations.record(found.after, 0.5, EVERY["off"], asked, gated.tokenizer)
    chance = text.probabilities(found.after, len(found.after.tokens) - 1)[gated.tokenizer.encode(" kitchen").ids[0]]
    assert ablations.record_table([one]).rows == (
        ("memory off", pytest.approx(chance), 0.5, found.after.spec.digest[:10]),
    )
    unasked = ablations.record(found.after, 0.5, Toggles(), context.of_text(TEXT, ""), gated.tokenizer)
    assert tuple(ablations.record_table([unasked]).as_columns()) == ("toggled", "KL, mean (nats)", "spec")


def test_a_pasted_text_has_its_sentences_and_a_story_its_statements_to_be_muted() -> None:
    pasted = context.of_text("Mary left.  John?! \n went\fa", "")
    assert [pasted.text[start:end] for start, end in pasted.statements] == ["Mary left.", "John?!", "went", "a"]
    story = simulate(1, seed=1).story
    for read in (context.of_story(story, ""), context.of_question(story, -1, "", own_segment=True)):
        told = [read.text[start:end] for start, end in read.statements]
        assert told == [line.text for line in story.statements[: len(told)]] and told


def _script() -> None:
    from app.screens.one_text import ablations
    from app.ui import state

    ablations.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=120)
    for name, value in ({"source": "simulated", "seed": "5"} | link).items():
        test.query_params[name] = value
    return test.run()


def _errors(test: AppTest) -> list[str]:
    return [element.value for element in (*test.exception, *test.error)]


def test_with_nothing_toggled_the_screen_says_what_to_do() -> None:
    test = _page()
    assert not _errors(test)
    assert any("Nothing is changed" in info.value for info in test.info)
    assert test.button[0].disabled and test.button[1].disabled


def test_toggling_shows_both_answers_and_undoing_takes_it_back() -> None:
    test = _page(ablated="Runs")
    test.segmented_control(key="widget_policy").set_value(Policy.OFF).run()
    test.pills(key="widget_silent").set_value([1, 0]).run()
    assert not _errors(test)
    assert test.query_params["policy"] == "off" and test.query_params["silent"] == "0-1"
    answers = test.dataframe[0].value
    assert answers["probability, before"][0] > 0.9 > answers["probability, after"][0]
    assert list(test.dataframe[-1].value["toggled"]) == ["nothing", "memory off", "memory off; blocks 0-1 silent"]
    test.button[0].click().run()
    assert "silent" not in test.query_params and test.query_params["policy"] == "off"
    test.button[0].click().run()
    assert any("Nothing is changed" in info.value for info in test.info)
    assert not _errors(test)


def test_what_has_run_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm2.runs.runner

    calls = []
    real = lm2.runs.runner.run
    monkeypatch.setattr(lm2.runs.runner, "run", lambda *given, **named: (calls.append(1), real(*given, **named))[1])
    test = _page(seed="8642")
    policy = test.segmented_control(key="widget_policy")
    for value in (Policy.OFF, Policy.ON, Policy.OFF):
        policy.set_value(value).run()
    assert len(calls) == 2


def test_another_slot_from_the_same_story_does_not_read_that_story_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm2.runs.runner

    calls = []
    real = lm2.runs.runner.source_activations
    monkeypatch.setattr(lm2.runs.runner, "source_activations", lambda *given: (calls.append(1), real(*given))[1])
    test = _page(seed="7531", toggling="Slots", ablated="Runs")
    for slots in ([1], [1, 2], [5]):
        test.pills(key="widget_slots").set_value(slots).run()
    assert not _errors(test)
    assert len(calls) == 1
    assert test.dataframe[-1].value["KL, mean (nats)"].nunique() == 4


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"slots": "99"}, "slots 0..15"),
        ({"muted": "88"}, "statement 88"),
        ({"forget_gate": "7"}, "from 0 to 1"),
        ({"silent": "9"}, "blocks 0..3"),
    ],
)
def test_a_link_that_names_what_is_not_there_is_refused_in_a_sentence(link: dict[str, str], said: str) -> None:
    test = _page(**link)
    assert not _errors(test)
    assert said in test.warning[0].value


def test_a_link_opens_what_was_toggled() -> None:
    test = _page(slots="0-3", slot_change="zero", since="2", persistence="read_only", forget_gate="1", muted="0")
    assert not _errors(test)
    assert any("slots 0-3 zeroed from segment 2 on, read only" in words.value for words in test.markdown)
    assert any(
        "forget gate at 1" in words.value and "statement 0 cannot write" in words.value for words in test.markdown
    )


@pytest.mark.parametrize("kind", ["plain", "release", "rmt", "armt"])
def test_models_of_every_kind_are_taken_or_explained(kind: str, request: pytest.FixtureRequest, tmp_path) -> None:
    toy = request.getfixturevalue(kind)
    save(tmp_path / "toy", toy.model, toy.tokenizer, "")
    test = _page(
        checkpoint=str(tmp_path / "toy"),
        source="text",
        text=TEXT,
        slots="1",
        heads="0",
        head_change="zero",
        ablated="Most changed",
    )
    assert not _errors(test)
    if kind == "plain":
        assert any("no memory" in info.value for info in test.info)
    else:
        assert any(heading.value == "Tokens after which predictions changed most" for heading in test.subheader)


@pytest.mark.parametrize("part", ["Memory", "Slots", "Heads and gates", "Statements"])
def test_a_part_of_the_toggles_opens_by_its_link_and_leaves_the_others_toggles_alone(part: str) -> None:
    test = _page(toggling=part, policy="off", slots="1", heads="0", muted="0")
    assert not _errors(test)
    drawn = {one.key for one in (*test.segmented_control, *test.pills, *test.multiselect)}
    own = {
        "Memory": "widget_policy",
        "Slots": "widget_slots",
        "Heads and gates": "widget_heads",
        "Statements": "widget_muted",
    }
    assert own[part] in drawn and not drawn & (set(own.values()) - {own[part]})
    assert any("memory off" in words.value and "slot 1" in words.value for words in test.markdown)


@pytest.mark.parametrize("part", ["Chosen token", "Most changed", "Along the text", "Runs", "Run it again"])
def test_a_part_of_the_changes_opens_by_its_link(part: str) -> None:
    test = _page(ablated=part, policy="off")
    assert not _errors(test)
    assert test.session_state["widget_ablated"] == part


def test_an_empty_text_is_explained() -> None:
    test = _page(source="text")
    assert not _errors(test)
    assert any("empty" in info.value for info in test.info)
