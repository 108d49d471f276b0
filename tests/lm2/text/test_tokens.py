"""Laws of lm2.text.tokens: any text encodes, and decodes to itself; every token has its place in it."""

import random
import unicodedata
from pathlib import Path

import pytest

from lm2.text.sequence import TokenSequence
from lm2.text.tokens import BREAK, END, Tokenizer

TEXTS = [
    "", " ", "a", "Mary moved to the bathroom.", "🙂", "👩‍👩‍👧 family", "Zoë", "Zoe\u0308", "日本語テキスト", "עברית",
    "\x00\x01\x07", "tab\tnew\nline\r\n",
    "\u200b\ufeff", "é" * 50, "<|end|>", "a" * 300, "𝔘𝔫𝔦", "\u2028 \u00a0",
]  # fmt: skip


def any_text(seed: int) -> str:
    chance = random.Random(seed)
    points = [
        chance.choice((chance.randrange(0x80), chance.randrange(0x3000), chance.randrange(0x110000))) for _ in range(40)
    ]
    return "".join(chr(p) for p in points if unicodedata.category(chr(p)) != "Cs" and chr(p) != BREAK)


@pytest.mark.parametrize("text", [*TEXTS, *(any_text(seed) for seed in range(40))])
def test_any_text_decodes_to_itself_and_its_spans_cover_it(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens.ids) == text
    assert len(tokens.ids) == len(tokens.pieces) == len(tokens.spans) == len(tokens)
    covered = {at for start, end in tokens.spans for at in range(start, end)}
    assert covered == set(range(len(text)))
    assert all(0 <= start < end <= len(text) for start, end in tokens.spans)
    assert list(tokens.spans) == sorted(tokens.spans)
    for (start, end), piece in zip(tokens.spans, tokens.pieces):
        assert piece == text[start:end] or "\ufffd" in piece


def test_a_token_that_is_part_of_a_character_spells_the_replacement_character(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("🙂")
    assert len(tokens) > 1 and set(tokens.pieces) == {"\ufffd"} and set(tokens.spans) == {(0, 1)}


def test_a_form_feed_is_a_break_and_no_token(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Mary.\fJohn.")
    first = len(tokenizer.encode("Mary."))
    assert tokens.breaks == (first,)
    assert tokens.ids == tokenizer.encode("Mary.").ids + tokenizer.encode("John.").ids
    assert tokens.text[slice(*tokens.spans[first])] == tokens.pieces[first]


@pytest.mark.parametrize(
    ("text", "breaks"),
    [("\f", 0), ("\fMary", 0), ("Mary\f", 0), ("Mary\f\fJohn", 1), ("a\fb\fc", 2), ("\f\fa\f\fb\f", 1)],
)
def test_breaks_stand_only_between_tokens(tokenizer: Tokenizer, text: str, breaks: int) -> None:
    tokens = tokenizer.encode(text)
    assert len(tokens.breaks) == breaks
    assert all(0 < at < len(tokens) for at in tokens.breaks)
    assert tokenizer.decode(tokens.ids) == text.replace(BREAK, "")
    for (start, end), piece in zip(tokens.spans, tokens.pieces):
        assert text[start:end] == piece


def test_the_tokens_within_a_range_are_those_that_share_a_character_with_it(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Mary moved to the office. Where is Zoë 🙂?")
    start = tokens.text.index("office")
    found = tokens.within(start, start + len("office"))
    assert "office" in "".join(tokens.pieces[at] for at in found)
    assert tokens.within(0, len(tokens.text)) == tuple(range(len(tokens)))
    assert tokens.within(3, 3) == ()
    smile = tokens.text.index("🙂")
    assert len(tokens.within(smile, smile + 1)) > 1


def test_a_places_name_is_one_token_where_the_training_text_had_it_often(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" garden")) == 1
    assert tokenizer.size <= 360


def test_the_same_texts_train_the_same_tokenizer() -> None:
    texts = ["Mary moved to the garden."] * 3
    assert Tokenizer.train(texts, 280).to_json() == Tokenizer.train(texts, 280).to_json()


def test_a_tokenizer_comes_back_from_its_file(tokenizer: Tokenizer, tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json(), encoding="utf-8")
    assert Tokenizer.load(path).encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"model": 3}'])
def test_a_foreign_file_is_refused_with_its_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        Tokenizer.load(path)


def test_a_file_that_is_no_text_or_not_there_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.json", "missing.json"):
        with pytest.raises(ValueError, match=f"{name} is not a tokenizer"):
            Tokenizer.load(tmp_path / name)


def test_the_end_mark_is_one_token(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(END)) == 1


def test_tokens_of_a_span_are_found_whatever_order_spans_are_in() -> None:
    # Marks around the text spell nothing; one character is two tokens.
    spans = ((0, 0), (0, 4), (4, 4), (4, 6), (6, 9), (6, 9), (9, 12), (0, 0))
    tokens = TokenSequence(text="Mary, 🙂 left", ids=(1,) * len(spans), pieces=("",) * len(spans), spans=spans)
    for start in range(13):
        for end in range(start, 14):
            assert tokens.within(start, end) == tuple(
                at for at, (a, b) in enumerate(spans) if max(a, start) < min(b, end)
            )


def test_finding_a_span_in_a_long_text_looks_at_few_tokens() -> None:
    class Counted(tuple):
        looks = 0

        def __getitem__(self, at: int) -> tuple[int, int]:
            Counted.looks += 1
            return super().__getitem__(at)

    spans = Counted((at, at + 1) for at in range(5000))
    tokens = TokenSequence(text="a" * 5000, ids=(1,) * 5000, pieces=("a",) * 5000, spans=spans)
    assert tokens.within(4000, 4003) == (4000, 4001, 4002)
    before = Counted.looks
    assert all(tokens.within(at, at + 1) == (at,) for at in range(5000))
    assert Counted.looks - before <= 4 * 5000
