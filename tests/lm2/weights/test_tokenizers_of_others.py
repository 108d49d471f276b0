"""Laws of lm2.text.tokens for the kinds of tokenizer that others' models bring: ids, places and text are those that the
model really met."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend, models
from tokenizers_of_others import FAMILIES
from transformers import PreTrainedTokenizerFast

from lm2.evaluation.recall import Memory, ask as ask_model
from lm2.model.config import SegmentEnd
from lm2.runs.generation import answers, generate
from lm2.runs.likelihood import log_likelihoods, perplexity
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.tasks.babi import Question as Asked, Statement, Story, ask
from lm2.tasks.babilong import mix
from lm2.tasks.books import Library
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.tasks.mmlu import LETTERS, ChoiceQuestion, Subject, ask as exam_ask, prompt as exam_prompt
from lm2.tasks.prompt import Prompt
from lm2.text.segments import is_full
from lm2.text.sequence import CONTINUED, NOTHING, TokenSequence
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint

TEXTS = (
    "Mary moved to the garden. Where is Mary?", " Mary  moved to\nthe\tgarden.", "日本 is 🙂 garden.", "日", "garden",
    "is Zoë <mask> the garden", "\n\nMary",
    "", " ", "Mary moved. ",
)  # fmt: skip
LOSSLESS = sorted(set(FAMILIES) - {"wordpiece"})


@pytest.fixture(params=FAMILIES)
def foreign(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(FAMILIES[request.param]())


@pytest.fixture(params=LOSSLESS)
def lossless(request: pytest.FixtureRequest) -> Tokenizer:
    """Those that drop no character."""
    return Tokenizer(FAMILIES[request.param]())


@pytest.fixture
def model(foreign: Tokenizer, plain: Checkpoint) -> Checkpoint:
    """A toy model that reads by this tokenizer; it has an id to spare."""
    assert foreign.size <= plain.config.d_vocab
    return replace(plain, tokenizer=foreign)


def prompt(answer: str = "garden", own_segment: bool = True) -> Prompt:
    statements = (
        Statement(line=1, text="Mary moved to the garden."),
        Statement(line=2, text="John went to the office."),
    )
    question = Asked(line=3, text="Where is Mary?", answer=answer, support=(1,))
    return ask(Story(id="s:0", task=1, lines=(*statements, question)), question, own_segment=own_segment)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers_without_the_tokens_around_a_text(family: str, text: str) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=FAMILIES[family]())
    assert list(Tokenizer(FAMILIES[family]()).encode(text).ids) == theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_give_the_text_back_and_spans_cover_it(lossless: Tokenizer, text: str) -> None:
    tokens = lossless.encode(text)
    assert "".join(tokens.shown).replace(CONTINUED, "").replace(NOTHING, "") == text
    assert {at for start, end in tokens.spans for at in range(start, end)} == set(range(len(text)))
    assert list(tokens.spans) == sorted(tokens.spans)
    for (start, end), piece in zip(tokens.spans, tokens.pieces):
        assert piece == text[start:end] or (set(piece.strip()) == {"\ufffd"} and end == start + 1)


@pytest.mark.parametrize("text", [text for text in TEXTS if "<mask>" not in text])
def test_decoding_gives_the_text_back_but_for_a_blank_in_front(lossless: Tokenizer, text: str) -> None:
    assert lossless.decode(lossless.encode(text).ids).removeprefix(" ") == text.removeprefix(" ")


def test_what_wordpiece_drops_is_known_and_what_it_does_not_know_is_said() -> None:
    tokens = Tokenizer(FAMILIES["wordpiece"]()).encode("Mary  moved\nto 日本. ")
    assert tokens.pieces == ("Mary", "  mov", "ed", "\nto", " [UNK]", " [UNK]", ".")
    assert tokens.spans == ((0, 4), (4, 9), (9, 11), (11, 14), (14, 16), (16, 17), (17, 18))


def test_what_else_a_tokenizer_drops_belongs_to_no_token() -> None:
    tokens = Tokenizer(FAMILIES["wordpiece"]()).encode("Mary \x01\ufffd moved")
    assert tokens.pieces == ("Mary", " mov", "ed") and tokens.spans == ((0, 4), (7, 11), (11, 13))


def test_each_part_between_form_feeds_is_encoded_as_a_text_of_its_own(foreign: Tokenizer) -> None:
    tokens = foreign.encode("Mary moved.\fWhere is Mary?")
    assert tokens.ids == foreign.encode("Mary moved.").ids + foreign.encode("Where is Mary?").ids
    assert (
        tokens.breaks == (len(foreign.encode("Mary moved.")),) and "".join(tokens.pieces) == "Mary moved.Where is Mary?"
    )


@pytest.mark.parametrize("answer", ["garden", "Mary", "the office"])
@pytest.mark.parametrize("own_segment", [True, False])
def test_answer_ids_come_from_prompt_and_answer_encoded_together(
    model: Checkpoint, answer: str, own_segment: bool
) -> None:
    asked = prompt(answer, own_segment)
    laid = encode_prompt(model, asked)
    before = model.tokenizer.encode(asked.text)
    assert (
        before.ids + laid.answer_ids == model.tokenizer.encode(f"{asked.text} {answer}").ids
        and laid.rows[0] == len(before) - 1
    )
    assert model.tokenizer.answer_at(before, asked.question_span[1], answer) == (len(before) - 1, laid.answer_ids[0])
    assert "".join(laid.tokens.pieces[place] for place in laid.answer).strip() == answer


def test_a_token_over_the_boundary_is_where_the_answer_begins(plain: Checkpoint) -> None:
    vocabulary = {piece: at for at, piece in enumerate([*"abcdefghijklmnopqrstuvwxyzWM ?.", "? ", "? g"])}
    merging = Tokenizer(Backend(models.BPE(vocab=vocabulary, merges=[("?", " "), ("? ", "g")])))
    laid = encode_prompt(
        replace(plain, tokenizer=merging),
        replace(prompt(), text="is a?", statement_spans=(), question_span=(0, 5), support=()),
    )
    assert laid.tokens.pieces[laid.answer.start] == "? g" and laid.rows[0] == 3
    assert merging.answer_at(merging.encode("is a?"), 5, "garden") == (3, vocabulary["? g"])


def test_what_a_model_says_is_right_where_it_is_the_answer(model: Checkpoint) -> None:
    said = ask_model(model, prompt(), Memory.ON)
    trace = run(model, RunSpec(checkpoint=model.name, text=prompt().text))
    token = int(trace.logits[-1].argmax())
    assert said.predicted.split()[:1] == model.tokenizer.piece(token).split()[:1]


def test_continuations_are_worth_what_the_logits_behind_the_context_say(model: Checkpoint) -> None:
    context = "Mary moved to the garden. Where is Mary?"
    logits = run(model, RunSpec(checkpoint=model.name, text=context)).logits[-1].astype(float)
    for word in ("garden", "office"):
        _, token = model.tokenizer.answer_at(model.tokenizer.encode(context), len(context), word)
        [found] = log_likelihoods(model, [(context, f" {word}")])
        assert found.tokens == 1 and found.log_probability == pytest.approx(
            logits[token] - np.logaddexp.reduce(logits), abs=1e-4
        )


@pytest.mark.parametrize("text", ["bathroom", "the bathroom", "garden bathroom"])
def test_what_a_tokenizer_does_not_know_has_no_likelihood(text: str, plain: Checkpoint) -> None:
    own = replace(plain, tokenizer=Tokenizer(FAMILIES["wordpiece"]()))
    assert log_likelihoods(own, [("Where is bathroom?", " garden")])[0].tokens == 1
    with pytest.raises(ValueError, match=f"no token for some of ' {text}'"):
        log_likelihoods(own, [("Where is Mary?", f" {text}")])
    with pytest.raises(ValueError, match="no token for some of .Mary"):
        perplexity(own, f"Mary {text}")


def test_an_answer_of_which_a_tokenizer_drops_a_character_has_no_number(plain: Checkpoint) -> None:
    """A BPE without bytes and without a token for the unknown says nothing of a character that it lacks."""
    dropping = Tokenizer(
        Backend(models.BPE(vocab={piece: at for at, piece in enumerate("acdefghijklmnopqrstuvwxyzWMJ ?.")}, merges=[]))
    )
    own = replace(plain, tokenizer=dropping)
    assert encode_prompt(own, prompt("garden")).answer_ids == dropping.encode(" garden").ids
    for ask_for in (
        lambda: encode_prompt(own, prompt("bathroom")),
        lambda: dropping.answer_at(dropping.encode("Where is Mary?"), 14, "bathroom"),
        lambda: log_likelihoods(own, [("Where is Mary?", " bathroom")]),
    ):
        with pytest.raises(ValueError, match="the tokenizer has no token for .*bathroom"):
            ask_for()


def test_letters_that_are_one_unknown_token_are_no_choice(foreign: Tokenizer, model: Checkpoint) -> None:
    question = ChoiceQuestion(
        text="Where is Mary?", choices=("the garden", "the office", "the kitchen", "is"), answer="B"
    )
    subject = Subject(name="anatomy", examples=(question,) * 5, questions=(question,))
    if foreign.unknown is None or foreign.unknown not in foreign.encode(" A").ids:
        asked = exam_prompt(subject, question)
        worth = [
            log_likelihood.log_probability
            for log_likelihood in log_likelihoods(model, [(asked, f" {letter}") for letter in LETTERS])
        ]
        assert len(set(worth)) == 4 and exam_ask(model, subject, question).predicted == LETTERS[int(np.argmax(worth))]
    else:
        with pytest.raises(ValueError, match="no token for some of ' A'"):
            exam_ask(model, subject, question)


WRITTEN = " Mary is 日🙂 garden."


def test_written_tokens_spell_what_was_written_blanks_and_characters_of_several_tokens_too(lossless: Tokenizer) -> None:
    before = lossless.encode("Where is")
    ids = lossless.encode(f"Where is{WRITTEN}").ids[len(before) :]
    assert lossless.decode_after(before.ids, ids) == WRITTEN
    whole = lossless.extended(before, ids)
    assert whole == lossless.encode(f"Where is{WRITTEN}")
    assert "".join(whole.shown).replace(CONTINUED, "") == whole.text
    assert lossless.decode_after(before.ids + ids[:-1], ids[-1:]) == "."


def test_a_character_that_is_not_whole_yet_is_marked(lossless: Tokenizer) -> None:
    before = lossless.encode("is")
    ids = lossless.encode("is 日").ids[len(before) :][:-1]
    spelt = lossless.extended(before, ids)
    assert spelt.text.rstrip("\ufffd") == "is " and spelt.text != "is " and len(spelt) == len(before) + len(ids)


def test_generation_spells_its_tokens_behind_the_text_alone_and_side_by_side(model: Checkpoint) -> None:
    texts = ["Mary moved to the", "John went to the office.\fWhere is"]
    alone = [generate(model, text, max_tokens=6) for text in texts]
    for text, made in zip(texts, alone):
        before = model.tokenizer.encode(text)
        assert (
            made.text
            == model.tokenizer.decode_after(before.ids, made.ids)
            == model.tokenizer.extended(before, made.ids).text[len(text) :]
        )
    assert answers(model, texts, max_tokens=6, stop="\x00") == [made.text for made in alone]


@pytest.mark.parametrize(
    ("token", "spelt"), [("▁garden", " garden"), ("▁", " "), ("e", "e"), ("<0x0A>", "\n"), ("<0xE6>", "\ufffd")]
)
@pytest.mark.parametrize("family", ["unigram", "merged"])
def test_a_token_alone_spells_what_it_does_within_a_text(family: str, token: str, spelt: str) -> None:
    backend = FAMILIES[family]()
    assert Tokenizer(backend).piece(backend.token_to_id(token)) == spelt


@pytest.mark.parametrize("family", ["bytes_alone", "merged"])
def test_a_part_of_a_character_alone_is_shown_by_its_bytes(family: str) -> None:
    own = Tokenizer(FAMILIES[family]())
    assert [own.shown(token) for token in own.encode("garden 日").ids[-3:]] == ["<E6>", "<97>", "<A5>"]
    assert [own.shown(token) for token in own.encode("is garden").ids[-1:]] == [" garden"]


def test_lengths_count_the_tokens_that_stand_in_the_text(foreign: Tokenizer) -> None:
    sentence = "Mary moved to the garden and John went to the office where the kitchen is"
    library = Library({"book": f"{sentence}. " * 60}, foreign)
    mixed = mix(prompt(), 500, library, foreign, seed=0)
    assert mixed.tokens == 200
    assert len(foreign.encode(mixed.text)) - 200 in (0, 1, 2), "a blank in front of the text, and the cut sentence"
    assert all(
        word in (*sentence.split(), "Mary", "moved", "to", "the", "garden", "John", "went", "office")
        for word in mixed.text.replace(".", "").split()[:-1]
    )


def shares(tokens: TokenSequence) -> Sequence[int]:
    return [at for at, shown in enumerate(tokens.shown) if shown.startswith(CONTINUED)]


def test_a_character_is_shown_whole_on_its_first_token_and_marked_on_the_others(lossless: Tokenizer) -> None:
    tokens = lossless.encode("is 日本🙂 garden")
    for character in "日本🙂":
        places = tokens.within(tokens.text.index(character), tokens.text.index(character) + 1)
        assert len(places) > 1
        assert [tokens.shown[place] for place in places] == [character, *[CONTINUED] * (len(places) - 1)]
    assert len(shares(tokens)) == 2 + 2 + 3


def test_chance_in_a_tokenizer_has_no_say() -> None:
    for family, name, value in (("merged", "dropout", 0.5), ("unigram", "alpha", 0.1)):
        backend = FAMILIES[family]()
        setattr(backend.model, name, value)
        if family == "unigram":
            backend.model.nbest_size = 64
        own = Tokenizer(backend)
        assert {own.encode("Mary moved to the garden.").ids for _ in range(8)} == {
            Tokenizer(FAMILIES[family]()).encode("Mary moved to the garden.").ids
        }


def test_it_is_written_as_it_came(foreign: Tokenizer) -> None:
    assert '"post_processor":null' not in Tokenizer(FAMILIES["trimming"]()).to_json()
    assert Tokenizer(Backend.from_str(foreign.to_json())).encode(TEXTS[0]) == foreign.encode(TEXTS[0])


def test_a_text_that_a_tokenizer_has_no_token_for_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer cannot encode 'ab'"):
        Tokenizer(Backend(models.WordPiece({"a": 0}, unk_token="[UNK]"))).encode("ab")


@pytest.mark.parametrize(("text", "at"), [("\ud800", 0), ("Mary\udcff", 4), ("日\f\ude00", 2)])
def test_half_a_character_is_refused_with_its_place(foreign: Tokenizer, text: str, at: int) -> None:
    with pytest.raises(ValueError, match=f"character {at} of it"):
        foreign.encode(text)
    with pytest.raises(ValueError, match=f"character {at} of it"):
        RunSpec(checkpoint="toy", text=text)


def test_an_answer_in_a_segment_of_its_own_begins_with_the_blank_put_in_front_of_it() -> None:
    tokens = Tokenizer(FAMILIES["merged"]()).encode("Mary.\f日")
    assert (
        tokens.pieces[2:] == ("", "\ufffd", "\ufffd", "\ufffd")
        and tokens.shown[2:4] == (NOTHING, "日")
        and tokens.first_after(6) == 2
    )


def test_a_segment_is_closed_by_the_same_tokens_in_a_text_and_as_they_are_written(foreign: Tokenizer) -> None:
    tokens = foreign.encode("Mary moved to the garden.\nJohn went to\n\nthe office. Where is Mary?\n garden.")
    closes = [is_full(2, 3, SegmentEnd.SENTENCE, piece) for piece in tokens.pieces]
    assert (
        closes == [is_full(2, 3, SegmentEnd.SENTENCE, foreign.piece(token)) for token in tokens.ids]
        and sum(closes) >= 3
    )


def test_an_answer_that_is_unknown_has_no_number(plain: Checkpoint) -> None:
    own = replace(plain, tokenizer=Tokenizer(FAMILIES["wordpiece"]()))
    assert own.tokenizer.piece(own.tokenizer.unknown) == " [UNK]"
    with pytest.raises(ValueError, match="no token for the answer 'bathroom'"):
        encode_prompt(own, prompt("bathroom"))
    with pytest.raises(ValueError, match="no token for the answer 'bathroom'"):
        own.tokenizer.answer_at(own.tokenizer.encode(prompt().text), prompt().question_span[1], "bathroom")
