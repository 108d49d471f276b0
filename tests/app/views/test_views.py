"""Laws of views: numbers that leave a trace are the numbers that are drawn."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers_of_others import FAMILIES

from app.choices import context
from app.choices.toggles import Toggles
from app.figures.screen import draw
from app.figures.theme import DARK, LIGHT
from app.views.kinds import Heatmap
from app.views.run import bank, gates, memory, text
from app.views.study import ablations, patching
from lm2.model.config import MemoryKind
from lm2.model.gates import GATES
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.tasks.simulator import simulate
from lm2.text.sequence import CONTINUED
from lm2.text.tokens import Tokenizer
from probes.causal.compare import compare

SITES = (
    Site.READ_PATTERN,
    Site.WRITE_PATTERN,
    Site.GATE_IN,
    Site.GATE_FORGET,
    Site.GATE_OUT,
    Site.BANK_PRE,
    Site.BANK_POST,
)


@pytest.fixture(scope="module")
def trace(gated):
    spec = RunSpec(checkpoint=gated.name, text="Mary moved to the garden. " * 4, captures=tuple(map(Capture, SITES)))
    return run(gated, spec)


def test_a_read_column_and_a_write_row_within_a_segment_sum_to_one(trace, gated) -> None:
    for layer in gated.config.memory_layers:
        for head in ("mean", "0"):
            assert np.allclose(memory.read_map(trace, layer, head).sum(0), 1, atol=1e-5)
            written = memory.write_map(trace, layer, head)
            for segment in trace.segments:
                assert np.allclose(written[:, segment.start : segment.end].sum(1), 1, atol=1e-5)


def test_every_view_is_drawn_in_light_and_dark_with_the_numbers_it_holds(trace, gated) -> None:
    layers = tuple(sorted(gated.config.memory_layers))
    views = [
        memory.reads(trace, layers[0], "max", MemoryKind.GATED), memory.writes(trace, layers[0], "mean"),
        gates.per_slot(trace, "forget", layers), gates.per_token(trace, layers),
        bank.norms(trace, layers), bank.changes(trace, layers), bank.similarity(trace, layers, 0),
    ]  # fmt: skip
    for view in views:
        for theme in (LIGHT, DARK):
            assert np.allclose(draw.heatmap(view, theme).data[0].z, view.values, atol=1e-6)
        assert view.alt
    for gate in GATES:
        for lines in (gates.spread(trace, gate, layers[0]), gates.saturation(trace, gate, layers[0])):
            assert np.allclose(draw.lines(lines, LIGHT).data[-1].y, lines.lines[-1].values)
            assert lines.alt


def test_a_gate_map_has_a_column_for_each_segment_and_block(trace, gated) -> None:
    layers = tuple(sorted(gated.config.memory_layers))
    view = gates.per_slot(trace, "in", layers)
    assert view.values.shape == (gated.config.slots, len(trace.segments) * len(layers))
    assert np.allclose(view.values[:, len(layers)], trace.at(Site.GATE_IN, segment=1, layer=layers[0]).mean(-1))


def test_the_bank_starts_fresh_and_ends_as_the_run_left_it(trace, gated) -> None:
    held = bank.banks(trace, tuple(sorted(gated.config.memory_layers)))
    assert np.array_equal(held[0], np.eye(gated.config.slots, gated.config.slot_dim, dtype=np.float32))
    assert np.array_equal(held[-1], trace.bank)


def test_surprise_is_the_cross_entropy_of_each_token_in_bits(trace) -> None:
    bits = trace.surprisal
    assert np.isnan(bits[0])
    for token in range(1, 5):
        chance = text.probabilities(trace, token - 1)[trace.tokens.ids[token]]
        assert bits[token] == pytest.approx(-np.log2(chance), rel=1e-5)


def test_a_single_peak_survives_pooling_for_the_screen() -> None:
    values = np.zeros((3, 2000))
    values[1, 1234] = 1
    view = Heatmap(
        values=values, row_labels=tuple("abc"), column_labels=tuple(map(str, range(2000))), row_title="r",
        column_title="c",
        value_title="v", low=0, high=1,
    )  # fmt: skip
    figure = draw.heatmap(view, LIGHT)
    assert np.asarray(figure.data[0].z).max() == 1
    assert "largest of" in figure.layout.xaxis.title.text


def test_a_view_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="row and 1 column"):
        Heatmap(
            values=np.zeros((2, 2)),
            row_labels=("a", "b"),
            column_labels=("a",),
            row_title="",
            column_title="",
            value_title="",
            low=0,
            high=1,
        )


def test_marks_and_questions_of_a_story_point_at_their_own_words() -> None:
    story = simulate(1, seed=1).story
    asked = context.of_question(story, -1, "", own_segment=True)
    whole = context.of_story(story, "")
    for read in (asked, whole):
        for quiz in read.quizzes:
            assert read.text[: quiz.end].endswith(quiz.question)
        for start, end, word in read.marks:
            assert read.text[start:end] in {line.text for line in story.lines}, word
    assert len(whole.quizzes) == len(story.questions)


@pytest.mark.parametrize("wrong", ["", " \n", "\f", "x" * (context.MAX_CHARACTERS + 1)])
def test_a_text_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        context.of_text(wrong, "")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("own_segment", [True, False])
def test_a_model_that_says_the_answer_is_right_whatever_its_tokenizer(gated, family: str, own_segment: bool) -> None:
    own = replace(gated, tokenizer=Tokenizer(FAMILIES[family]()))
    read = context.of_question(simulate(1, seed=1).story, -1, "", own_segment=own_segment)
    [quiz] = read.quizzes
    read = replace(read, quizzes=(replace(quiz, answer="garden"),))
    trace = run(own, RunSpec(checkpoint=own.name, text=read.text))
    joint = own.tokenizer.encode(f"{read.text} garden").ids
    assert joint[: len(trace.tokens)] == trace.tokens.ids
    logits = np.zeros((len(trace.tokens), own.config.d_vocab), np.float32)
    logits[-1, joint[len(trace.tokens)]] = 50
    sure = replace(trace, logits=logits)
    [row] = text.quizzes(sure, read, own.tokenizer).rows
    assert row[1:3] == ("garden", pytest.approx(1)) and row[-1] == "yes"
    changed = ablations.quizzes(compare(sure, sure), read, own.tokenizer, ("garden", "office"))
    assert not any("first token" in column.name for column in changed.columns)
    [beside] = changed.rows
    assert beside[4:6] == (pytest.approx(1), pytest.approx(1)) and beside[6] == pytest.approx(50)
    asked = patching.patched_answer(sure, read, own.tokenizer)
    assert (asked.row, asked.reply.token) == (len(trace.tokens) - 1, joint[len(trace.tokens)])
    assert patching.top_reply(sure, asked.row, own.tokenizer).token == asked.reply.token


def test_saying_the_first_of_an_answers_tokens_is_not_yet_saying_the_answer(gated) -> None:
    own = replace(gated, tokenizer=Tokenizer(FAMILIES["unigram"]()))
    read = context.of_question(simulate(1, seed=1).story, -1, "", own_segment=True)
    [quiz] = read.quizzes
    read = replace(read, quizzes=(replace(quiz, answer="bedroom"),))
    trace = run(own, RunSpec(checkpoint=own.name, text=read.text))
    logits = np.zeros((len(trace.tokens), own.config.d_vocab), np.float32)
    logits[-1, own.tokenizer.encode(f"{read.text} bathroom").ids[len(trace.tokens)]] = (
        50  # the blank, with which both begin
    )
    trace = replace(trace, logits=logits)
    asked = text.quizzes(trace, read, own.tokenizer)
    [row] = asked.rows
    assert row[2] == pytest.approx(1) and row[-1] == "its first token"
    changed = ablations.quizzes(compare(trace, trace), read, own.tokenizer, ("bathroom", "bedroom"))
    toggled = ablations.record_table([ablations.record(trace, 0.0, Toggles(), read, own.tokenizer)])
    reply = patching.patched_answer(trace, read, own.tokenizer).reply
    patched = patching.answers([("recipient", trace, len(trace.tokens) - 1)], [("recipient", reply)])
    for table, count in ((asked, 1), (changed, 4), (toggled, 1), (patched, 1)):
        assert sum("first token" in column.name for column in table.columns) == count


def test_the_strip_shows_characters_whole_and_their_other_tokens_as_such(gated) -> None:
    trace = run(gated, RunSpec(checkpoint=gated.name, text="Zoë 🙂 日"))
    view = text.strip(trace, (), gated.tokenizer)
    assert "".join(view.pieces).replace(CONTINUED, "") == "Zoë 🙂 日" and "\ufffd" not in "".join(view.pieces)
    assert view.pieces.count(CONTINUED) > 3 and "🙂" in view.pieces


def test_foils_that_a_tokenizer_has_no_token_for_are_left_out(gated) -> None:
    own = replace(gated, tokenizer=Tokenizer(FAMILIES["wordpiece"]()))
    read = context.of_text("Mary moved to the garden. Where is Mary?", "")
    quiz = context.Quiz(question="Where is Mary?", end=len(read.text), answer="garden")
    trace = run(own, RunSpec(checkpoint=own.name, text=read.text))
    assert quiz.answerable(trace.tokens, own.tokenizer)
    assert not replace(quiz, answer="bathroom").answerable(trace.tokens, own.tokenizer)
    tables = [
        ablations.quizzes(compare(trace, trace), replace(read, quizzes=(quiz,)), own.tokenizer, answers).rows
        for answers in (("garden", "office"), ("garden", "office", "bathroom"))
    ]
    assert tables[0] == tables[1]
