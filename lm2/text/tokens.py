"""Text to tokens and back, by Hugging Face `tokenizers`. Our own vocabularies are byte-level BPEs."""

import json
import re
from collections.abc import Iterable, Sequence
from copy import copy
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
"""The only special token, at the end of a text."""
MOST_BYTES = 256 * 1024**2
"""Largest file of a tokenizer that is read; the largest vocabularies take a tenth of that."""
LARGEST_ID = 2**24
"""Largest token id in a file that is read."""
BREAK = "\f"
"""A form feed in a text begins a new segment; it is not a token."""
_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
"""SentencePiece's name of a token that is a byte."""
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + i): byte for i, byte in enumerate(byte for byte in range(0x100) if byte not in _PRINTABLE)
}
"""The byte of each character in a byte-level vocabulary: printable bytes are themselves, others follow from U+0100."""


class Tokenizer:
    """Text to tokens and back, without truncation, padding or randomness; at most one token is added, in front."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes over `backend` and changes it."""
        self._json = backend.to_str()
        backend.post_processor = None
        backend.no_truncation()
        backend.no_padding()
        for random in ("dropout", "alpha"):
            if getattr(backend.model, random, None) is not None:
                setattr(backend.model, random, None)
        self._backend = backend
        added = {token: entry.content for token, entry in backend.get_added_tokens_decoder().items()}
        self._plain = {token: content for token, content in added.items() if PART in self._decode([token])}
        """Added tokens that the decoder takes for bytes, though they spell themselves."""
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        """One more than the largest id: the embeddings that a model needs."""
        self._pieces: dict[int, str] = {}
        self._front = next(([token] for token in sorted(vocabulary.values()) if PART not in self.decode([token])), [])
        self.unknown = self._unknown_token()
        """The token for everything that the vocabulary lacks; None where there is none."""
        self.bos: int | None = None
        """The begin-of-text token; None where there is none."""
        self.adds_bos = False
        """Whether texts begin with it by default."""

    def with_bos(self, name: str, *, added: bool) -> "Tokenizer":
        """The same tokenizer with a begin-of-text token; `added`: whether texts begin with it by default. Raises
        ValueError for one that is not in the vocabulary."""
        token = self._backend.token_to_id(name)
        if token is None:
            raise ValueError(f"the begin-of-text token {shown(name)} is not in the vocabulary")
        tokenizer = copy(self)
        tokenizer.bos, tokenizer.adds_bos = token, added
        return tokenizer

    @property
    def bos_name(self) -> str | None:
        return None if self.bos is None else self._backend.id_to_token(self.bos)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Raises ValueError with the path for a file that is not a tokenizer in Hugging Face's JSON format, or has ids
        that the library would change."""
        try:
            text = read_text(path, MOST_BYTES)
            backend, values = tokenizers.Tokenizer.from_str(text), json.loads(text)
            largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
            if largest > LARGEST_ID:  # the library counts up to it when it saves
                raise ValueError(f"it has a token of id {largest:,}, expected at most {LARGEST_ID:,}")
            _check_added(values, backend)
            return cls(backend)
        except BaseException as error:  # noqa: BLE001 - the Rust library raises plain Exception, and its panics are not even that
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is not a tokenizer in Hugging Face's JSON format: {reason}") from error

    @classmethod
    def train(cls, texts: Iterable[str], pieces: int) -> "Tokenizer":
        """Train a vocabulary of at most `pieces` tokens."""
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
        """The tokenizer as it was given, with the parts that are not used here."""
        return self._json

    def encode(self, text: str, bos: bool | None = None) -> TokenSequence:
        """A text as tokens. Parts between form feeds are encoded as separate texts, so a tokenizer that puts a blank in
        front of a text puts one in front of each.

        `bos`: whether the begin-of-text token comes first; None, as the tokenizer has it.

        Raises ValueError for a character that UTF-8 or the tokenizer cannot encode, and for a `bos` that the tokenizer
        does not have.
        """
        as_text("what is encoded", text)
        bos = self.adds_bos if bos is None else bos
        if bos and self.bos is None:
            raise ValueError("this model's tokenizer has no begin-of-text token")
        ids: list[int] = [self.bos] if bos and self.bos is not None else []
        spans: list[tuple[int, int]] = [(0, 0)] * len(ids)
        breaks: list[int] = []
        start = 0
        for part in text.split(BREAK):
            part_ids, part_spans = self._encode(part)
            if len(ids) > bos and part_ids:
                breaks.append(len(ids))
            ids += part_ids
            spans += [(start + left, start + right) for left, right in part_spans]
            start += len(part) + len(BREAK)
        return self._sequence(text, ids, spans, tuple(breaks), bos)

    def answer_at(self, tokens: TokenSequence, end: int, answer: str) -> tuple[int, int]:
        """The index of the token that predicts an answer after the first `end` characters, and the answer's first
        token: with both encoded together, the first that has a character of the answer or differs from the text's.

        Raises ValueError where the tokenizer does not know the answer, or no token comes before it.
        """
        joint = self.encode(f"{tokens.text[:end]} {answer}", tokens.bos)
        same = next((i for i, (new, old) in enumerate(zip(joint.ids, tokens.ids)) if new != old), len(tokens))
        index = min(joint.first_after(end), same)
        if not 0 < index < len(joint) or not self.knows(joint, end):
            raise ValueError(
                f"the tokenizer has no token for the answer {answer!r}, or not for all of it, after"
                f" {tokens.text[:end][-40:]!r}"
            )
        return index - 1, joint.ids[index]

    def knows(self, tokens: TokenSequence, start: int) -> bool:
        """Whether every character of text[start:] except blanks is in a token other than the unknown one.

        Otherwise the model reads another text.
        """
        first = tokens.first_after(start)
        covered = {i for left, right in tokens.spans[first:] for i in range(left, right)}
        dropped = any(i not in covered and not tokens.text[i].isspace() for i in range(start, len(tokens.text)))
        return not dropped and self.unknown not in tokens.ids[first:]

    def encode_after(self, text: str) -> TokenSequence:
        """A text without form feeds, encoded as after a full stop. Raises ValueError as `encode` does."""
        tokens = self.encode(f".{text}", bos=False)
        first = tokens.first_after(1)
        return self._sequence(
            text, tokens.ids[first:], [(max(left - 1, 0), right - 1) for left, right in tokens.spans[first:]]
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens that begin a text."""
        text, run = "", []
        for token in ids:
            if token in self._plain:
                text, run = text + self._decode(run) + self._plain[token], []
            else:
                run.append(token)
        return text + self._decode(run)

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text of tokens that follow others."""
        return self._spell(before, ids)[0]

    def piece(self, token: int) -> str:
        """The text of one token within a text; U+FFFD for part of a character."""
        if token not in self._pieces:
            self._pieces[token] = self._joined(self._front, [token])
        return self._pieces[token]

    def shown(self, token: int) -> str:
        """The text of one token for display, where bytes of an incomplete character are written like <E6>."""
        piece, name = self.piece(token), self._backend.id_to_token(token)
        if PART not in piece or name is None:
            return piece
        fallback = _FALLBACK.fullmatch(name)
        values = [int(fallback[1], 16)] if fallback else [_BYTES.get(character, -1) for character in name]
        if min(values) < 0:  # another kind of vocabulary
            return piece
        characters = bytes(values).decode("utf-8", "surrogateescape")
        return "".join(
            f"<{ord(character) - 0xDC00:02X}>" if character >= "\udc80" else character for character in characters
        )

    def from_ids(self, ids: Sequence[int]) -> TokenSequence:
        """Tokens within a text."""
        text, spans = self._spell(self._front, ids)
        return self._sequence(text, ids, spans)

    def extended(self, tokens: TokenSequence, ids: Sequence[int]) -> TokenSequence:
        """A sequence with more tokens and their text."""
        text, new_spans = self._spell(tokens.ids, ids)
        end = len(tokens.text)
        spans = (*tokens.spans, *((end + left, end + right) for left, right in new_spans))
        return self._sequence(tokens.text + text, (*tokens.ids, *ids), spans, tokens.breaks, tokens.bos)

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)

    def _sequence(
        self,
        text: str,
        ids: Sequence[int],
        spans: Sequence[tuple[int, int]],
        breaks: tuple[int, ...] = (),
        bos: bool = False,
    ) -> TokenSequence:
        pieces, done = [], 0
        for token, (start, end) in zip(ids, spans):
            piece = self.piece(token)
            pieces.append(piece if PART in piece or token == self.unknown else text[max(start, done) : end])
            done = max(done, end)
        if bos:
            pieces[0] = self.bos_name or ""
        return TokenSequence(
            text=text, ids=tuple(ids), pieces=tuple(pieces), spans=tuple(spans), breaks=breaks, bos=bos
        )

    def _encode(self, part: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and spans of a text without form feeds."""
        try:
            encoding = self._backend.encode(part, add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception
            raise ValueError(f"the tokenizer cannot encode {part[:40]!r}: {error}") from error
        ids, offsets = encoding.ids, self._by_character(part, encoding.ids, encoding.offsets)
        spans, done = [], 0
        for index, (start, end) in enumerate(offsets):
            if offsets[index + 1 : index + 2] and offsets[index + 1][0] == start and self.piece(ids[index]).isspace():
                end = start  # a blank that the tokenizer has put before the first word
            while done < start and part[start - 1].isspace():
                start -= 1
            spans.append((start, end))
            done = max(done, end)
        return ids, spans

    def _by_character(self, part: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Offsets in which the byte tokens of a stretch of unknown characters, which share one offset, have that of
        their own character."""
        offsets, index = list(offsets), 0
        while index < len(ids):
            start, end = offsets[index]
            stop = index + 1
            while stop < len(ids) and offsets[stop] == (start, end):
                stop += 1
            if stop > index + 1 and end > start + 1:
                text, spans = self._spell(self._front, ids[index:stop])
                if text == part[start:end]:
                    offsets[index:stop] = [(start + left, start + right) for left, right in spans]
            index = stop
        return offsets

    def _spell(self, before: Sequence[int], ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of tokens that follow others, and their spans in it.

        The tokens of one character are decoded together, but no more: of several bytes in a row, some decoders drop all
        if one is invalid.
        """
        text, spans, start = "", [], 0
        while start < len(ids):
            last = [*ids[start - 1 : start]] or [*before[-1:]]
            front = last if last and PART not in self.piece(last[0]) else self._front
            stop, piece = start + 1, self._joined(front, ids[start : start + 1])
            while piece.endswith(PART) and stop < len(ids) and PART in self.piece(ids[stop]):
                stop += 1
                piece = self._joined(front, ids[start:stop])
            done = 0
            for count in range(1, stop - start + 1):
                prefix = self._joined(front, ids[start : start + count])
                common = len(commonprefix([prefix, piece]))
                end = min(max(done, common) + (len(prefix) > common), len(piece))
                spans.append((len(text) + (done if end > done else max(done - 1, 0)), len(text) + end))
                done = max(done, common)
            text += piece
            start = stop
        return text, spans

    def _joined(self, front: list[int], ids: Sequence[int]) -> str:
        """The text of tokens right after `front`."""
        return self.decode([*front, *ids])[len(self.decode(front)) :]

    def _unknown_token(self) -> int | None:
        try:
            tokens = self._backend.model.tokenize("\U0010fffd")
        except Exception:  # noqa: BLE001 - the Rust library raises plain Exception: it has no such token
            return None
        return tokens[0].id if len(tokens) == 1 else None


def _check_added(values: dict[str, Any], backend: tokenizers.Tokenizer) -> None:
    """Raise ValueError where the library, which numbers added tokens after the vocabulary, changes an id."""
    for added in values.get("added_tokens") or []:
        number = backend.token_to_id(added["content"])
        if number != added["id"]:
            raise ValueError(
                f"its added token {shown(added['content'])} is of id {added['id']:,}, and the library numbers it"
                f" {number}"
            )
