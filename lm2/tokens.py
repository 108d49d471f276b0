"""Text to tokens and back: byte-level BPE by Hugging Face `tokenizers`, with every token's place in the text."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm2.files import read_text

END = "<|end|>"
"""The one special token: ends a text, and fills padding."""

BREAK = "\f"
"""A form feed in a text opens a new segment; it is no token itself."""


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """A text as tokens."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """What each token spells; a token that is part of a character spells U+FFFD."""
    spans: tuple[tuple[int, int], ...]
    """Character range of each token in `text`."""
    breaks: tuple[int, ...] = ()
    """Tokens before which the text asks for a new segment."""

    def __len__(self) -> int:
        return len(self.ids)

    def within(self, start: int, end: int) -> tuple[int, ...]:
        """The tokens that share a character with text[start:end]."""
        lefts, rights = self._edges
        near = range(bisect_right(rights, start), bisect_left(lefts, end))
        return tuple(at for at in near if max(self.spans[at][0], start) < min(self.spans[at][1], end))

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        """Per token, the least start of it and those behind it, and the largest end up to it: both rise, whatever the spans do."""
        lefts = list(accumulate((left for left, _ in reversed(self.spans)), min))[::-1]
        return lefts, list(accumulate((right for _, right in self.spans), max))


class Tokenizer:
    """A byte-level BPE: any text encodes, and decodes to itself."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Raises ValueError with the path when the file is no tokenizer of Hugging Face's JSON format."""
        try:
            return cls(tokenizers.Tokenizer.from_str(read_text(path)))
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception
            raise ValueError(f"{path} is not a tokenizer in Hugging Face's JSON format: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], pieces: int) -> "Tokenizer":
        """A new vocabulary of at most `pieces` tokens, learnt from `texts`."""
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @property
    def size(self) -> int:
        return self._backend.get_vocab_size()

    def to_json(self) -> str:
        return self._backend.to_str()

    def encode(self, text: str) -> TokenSequence:
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        breaks: list[int] = []
        start = 0
        for part in text.split(BREAK):
            encoding = self._backend.encode(part, add_special_tokens=False)
            if ids and encoding.ids:
                breaks.append(len(ids))
            ids += encoding.ids
            spans += [(start + left, start + right) for left, right in encoding.offsets]
            start += len(part) + len(BREAK)
        spelt = {token: self.piece(token) for token in set(ids)}
        return TokenSequence(
            text=text, ids=tuple(ids), pieces=tuple(spelt[token] for token in ids), spans=tuple(spans), breaks=tuple(breaks)
        )

    def decode(self, ids: Iterable[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def piece(self, token: int) -> str:
        """What one token spells."""
        return self.decode([token])
