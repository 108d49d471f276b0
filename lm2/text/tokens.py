"""Text to tokens and back, by Hugging Face `tokenizers`: ours are byte-level BPEs; every token has its place in the
text."""

import json
import re
from collections.abc import Iterable, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm2.files import read_text
from lm2.serialize import as_text
from lm2.shown import shown
from lm2.text.sequence import PART, TokenSequence

END = "<|end|>"
"""The one special token: ends a text, and fills padding."""

MOST_BYTES = 256 * 1024**2
"""Of a tokenizer's file; the largest vocabularies take a tenth of that."""

LARGEST_ID = 2**24
"""Of a token in a file."""

BREAK = "\f"
"""A form feed in a text opens a new segment; it is no token itself."""


_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
"""What SentencePiece calls a byte that is a token."""

_OWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _OWN} | {
    chr(0x100 + at): byte for at, byte in enumerate(byte for byte in range(0x100) if byte not in _OWN)
}
"""The byte that each character of a byte-level vocabulary stands for: printable ones for themselves, the others from
U+0100 on."""


class Tokenizer:
    """Any text becomes tokens, and tokens become text. No token is put before or after a text, and nothing is cut off
    or filled up."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes `backend` over, without what it does beyond tokens: adding some, trimming their places, truncating,
        padding, chance."""
        self._json = backend.to_str()
        backend.post_processor = None
        backend.no_truncation()
        backend.no_padding()
        for chance in ("dropout", "alpha"):
            if getattr(backend.model, chance, None) is not None:
                setattr(backend.model, chance, None)
        self._backend = backend
        added = {token: each.content for token, each in backend.get_added_tokens_decoder().items()}
        self._plain = {token: content for token, content in added.items() if PART in self._decode([token])}
        """Added tokens that the decoder takes for bytes, though they are written as they are."""
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        """Rows that a model needs: one more than the largest id."""
        self._pieces: dict[int, str] = {}
        self._front = next(([token] for token in sorted(vocabulary.values()) if PART not in self.decode([token])), [])
        self.unknown = self._unknown_token()
        """The one token that stands for whatever the vocabulary lacks; None where there is none."""

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Raises ValueError with the path when the file is no tokenizer of Hugging Face's JSON format, or one that the
        library would number anew."""
        try:
            text = read_text(path, MOST_BYTES)
            backend, values = tokenizers.Tokenizer.from_str(text), json.loads(text)
            largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
            if largest > LARGEST_ID:  # the library writes one down by counting up to it
                raise ValueError(f"it has a token of id {largest:,}, expected at most {LARGEST_ID:,}")
            _check_added(values, backend)
            return cls(backend)
        except BaseException as error:  # noqa: BLE001 - the Rust library raises plain Exception, and its panics are not even that
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is not a tokenizer in Hugging Face's JSON format: {said}") from error

    @classmethod
    def train(cls, texts: Iterable[str], pieces: int) -> "Tokenizer":
        """A new vocabulary of at most `pieces` tokens, learnt from `texts`."""
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=pieces, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def to_json(self) -> str:
        """The whole tokenizer as it came, with what is not used here."""
        return self._json

    def encode(self, text: str) -> TokenSequence:
        """A text as tokens. What stands between two form feeds is encoded as a text of its own: a tokenizer that puts a
        blank in front of a text puts one in front of each, as a word has it that follows a blank.

        Raises ValueError for a character that UTF-8 does not have, and where the tokenizer has no token for what it
        does not know.
        """
        as_text("what is encoded", text)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        breaks: list[int] = []
        start = 0
        for part in text.split(BREAK):
            found, places = self._encode(part)
            if ids and found:
                breaks.append(len(ids))
            ids += found
            spans += [(start + left, start + right) for left, right in places]
            start += len(part) + len(BREAK)
        return self._sequence(text, ids, spans, tuple(breaks))

    def answer_at(self, tokens: TokenSequence, end: int, answer: str) -> tuple[int, int]:
        """Where a text is answered after its first `end` characters: the place of the token that predicts the answer,
        and the answer's first token; of both encoded together, the first that holds a character of the answer or
        differs from the text's own.

        Raises ValueError where the tokenizer has no token for the answer, or one for whatever is unknown, or nothing
        before it.
        """
        joint = self.encode(f"{tokens.text[:end]} {answer}")
        alike = next((at for at, (own, other) in enumerate(zip(joint.ids, tokens.ids)) if own != other), len(tokens))
        place = min(joint.first_after(end), alike)
        if not 0 < place < len(joint) or not self.knows(joint, end):
            raise ValueError(
                f"the tokenizer has no token for the answer {answer!r}, or not for all of it, after"
                f" {tokens.text[:end][-40:]!r}"
            )
        return place - 1, joint.ids[place]

    def knows(self, tokens: TokenSequence, at: int) -> bool:
        """Whether each character after text[:at] but blanks is in a token, and in none that stands for whatever is
        unknown.

        What a tokenizer drops or does not know is another text to a model: no number is that of this one.
        """
        place = tokens.first_after(at)
        held = {where for left, right in tokens.spans[place:] for where in range(left, right)}
        dropped = any(where not in held and not tokens.text[where].isspace() for where in range(at, len(tokens.text)))
        return not dropped and self.unknown not in tokens.ids[place:]

    def encode_after(self, text: str) -> TokenSequence:
        """A text without form feeds as it is encoded after a full stop. Raises ValueError for one without tokens, and
        as `encode` does."""
        tokens = self.encode(f".{text}")
        place = tokens.first_after(1)
        return self._sequence(
            text, tokens.ids[place:], [(max(left - 1, 0), right - 1) for left, right in tokens.spans[place:]], ()
        )

    def decode(self, ids: Iterable[int]) -> str:
        """What tokens spell that begin a text."""
        text, run = "", []
        for token in ids:
            if token in self._plain:
                text, run = text + self._decode(run) + self._plain[token], []
            else:
                run.append(token)
        return text + self._decode(run)

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What tokens spell after others: with the blank that a text does not begin with, and whole characters of
        several tokens."""
        return self._spell(before, ids)[0]

    def piece(self, token: int) -> str:
        """What one token spells within a text; U+FFFD where it is part of a character."""
        if token not in self._pieces:
            self._pieces[token] = self._joined(self._front, [token])
        return self._pieces[token]

    def shown(self, token: int) -> str:
        """What one token spells, as people read it: the bytes of a character that is not whole are written <E6>."""
        piece, name = self.piece(token), self._backend.id_to_token(token)
        if PART not in piece or name is None:
            return piece
        fallback = _FALLBACK.fullmatch(name)
        own = [int(fallback[1], 16)] if fallback else [_BYTES.get(character) for character in name]
        known = bytes(byte for byte in own if byte is not None)
        if len(known) < len(own):  # some are of no kind that is known here
            return piece
        return "".join(
            f"<{ord(each) - 0xDC00:02X}>" if each >= "\udc80" else each
            for each in known.decode("utf-8", "surrogateescape")
        )

    def spelt(self, ids: Sequence[int]) -> TokenSequence:
        """Tokens and what they spell within a text."""
        text, spans = self._spell(self._front, ids)
        return self._sequence(text, ids, spans, ())

    def followed(self, tokens: TokenSequence, ids: Sequence[int]) -> TokenSequence:
        """A sequence with more tokens after it, and what they spell after its text."""
        spelt, places = self._spell(tokens.ids, ids)
        end = len(tokens.text)
        spans = (*tokens.spans, *((end + left, end + right) for left, right in places))
        return self._sequence(tokens.text + spelt, (*tokens.ids, *ids), spans, tokens.breaks)

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)

    def _sequence(
        self, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], breaks: tuple[int, ...]
    ) -> TokenSequence:
        pieces, done = [], 0
        for token, (start, end) in zip(ids, spans):
            piece = self.piece(token)
            pieces.append(piece if PART in piece or token == self.unknown else text[max(start, done) : end])
            done = max(done, end)
        return TokenSequence(text=text, ids=tuple(ids), pieces=tuple(pieces), spans=tuple(spans), breaks=breaks)

    def _encode(self, part: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and places of a text without form feeds."""
        try:
            encoding = self._backend.encode(part, add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception
            raise ValueError(f"the tokenizer cannot encode {part[:40]!r}: {error}") from error
        ids, places = encoding.ids, self._by_character(part, encoding.ids, encoding.offsets)
        spans, done = [], 0
        for at, (start, end) in enumerate(places):
            if places[at + 1 : at + 2] and places[at + 1][0] == start and self.piece(ids[at]).isspace():
                end = start  # a blank that is not in the text, in front of its first word
            while done < start and part[start - 1].isspace():
                start -= 1
            spans.append((start, end))
            done = max(done, end)
        return ids, spans

    def _by_character(self, part: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Places, where several tokens share the whole of a stretch that is unknown and spelt byte by byte, by the
        bytes of each character."""
        places, at = list(offsets), 0
        while at < len(ids):
            stop = at + 1
            while stop < len(ids) and offsets[stop] == offsets[at]:
                stop += 1
            start, end = offsets[at]
            if stop > at + 1 and end > start + 1:
                spelt, spans = self._spell(self._front, ids[at:stop])
                if spelt == part[start:end]:
                    places[at:stop] = [(start + left, start + right) for left, right in spans]
            at = stop
        return places

    def _spell(self, before: Sequence[int], ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """What tokens spell after others, and where in it each of them stands: token by token, the parts of a character
        together.

        All at once would not do: of bytes one after the other, some decoders spell none where one is wrong.
        """
        text, spans, start = "", [], 0
        while start < len(ids):
            last = [*ids[start - 1 : start]] or [*before[-1:]]
            front = last if last and PART not in self.piece(last[0]) else self._front
            stop, spelt = start + 1, self._joined(front, ids[start : start + 1])
            while spelt.endswith(PART) and stop < len(ids) and PART in self.piece(ids[stop]):
                stop += 1
                spelt = self._joined(front, ids[start:stop])
            done = 0
            for count in range(1, stop - start + 1):
                grown = self._joined(front, ids[start : start + count])
                whole = len(commonprefix([grown, spelt]))
                end = min(max(done, whole) + (len(grown) > whole), len(spelt))
                spans.append((len(text) + (done if end > done else max(done - 1, 0)), len(text) + end))
                done = max(done, whole)
            text += spelt
            start = stop
        return text, spans

    def _joined(self, front: list[int], ids: Sequence[int]) -> str:
        """What tokens spell right after a token."""
        return self.decode([*front, *ids])[len(self.decode(front)) :]

    def _unknown_token(self) -> int | None:
        try:
            found = self._backend.model.tokenize("\U0010fffd")
        except Exception:  # noqa: BLE001 - the Rust library raises plain Exception: it has no such token
            return None
        return found[0].id if len(found) == 1 else None


def _check_added(values: dict[str, Any], backend: tokenizers.Tokenizer) -> None:
    """Raise ValueError where the library gives an added token of a file another id than the file does: it counts on
    from the vocabulary."""
    for added in values.get("added_tokens") or []:
        number = backend.token_to_id(added["content"])
        if number != added["id"]:
            raise ValueError(
                f"its added token {shown(added['content'])} is of id {added['id']:,}, and the library numbers it"
                f" {number}"
            )
