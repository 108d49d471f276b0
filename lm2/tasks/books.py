"""Books to hide facts in, and the tokenizers by which lengths are counted: each read once, until its files change."""

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from lm2.files import State, read_text, state
from lm2.tasks.stories import files_state
from lm2.text.sequence import TokenSequence
from lm2.text.tokens import Tokenizer
from lm2.weights import bundled

SHORTEST_SENTENCE = 10
"""Sentences of fewer tokens are left out."""
LENGTH_TOKENIZER = "babi-lm2"
"""The bundled checkpoint whose tokenizer counts lengths, whatever model reads: all are asked the same questions."""


class Library:
    """Sentences of books, as they stand, to hide facts among."""

    def __init__(self, books: dict[str, str], tokenizer: Tokenizer) -> None:
        """`books`: texts by name. Raises ValueError when there is none, or one without sentences to take."""
        from nltk.tokenize.punkt import PunktSentenceTokenizer  # a second to import, and only mixing needs it

        self._names, self._books, self._tokenizer = sorted(books), books, tokenizer
        self._splitter = PunktSentenceTokenizer()  # no trained parameters, as the benchmark uses it
        empty = [name for name, text in books.items() if not any(True for _ in self._sentences(text, 0, 20_000))]
        if empty or not books:
            raise ValueError(
                f"a library needs books with sentences of at least {SHORTEST_SENTENCE} tokens; there are none in"
                f" {empty or 'it'}"
            )

    @classmethod
    def read(cls, path: Path, tokenizer: Tokenizer) -> "Library":
        """A text file, or every .txt and .txt.xz of a folder. Raises ValueError with the path."""
        files = [path] if path.is_file() else sorted([*path.glob("*.txt"), *path.glob("*.txt.xz")])
        if not files:
            raise ValueError(f"{path} has no books: expected .txt or .txt.xz files")
        return cls({file.name.partition(".")[0]: read_text(file) for file in files}, tokenizer)

    def passage(self, tokens: int, rng: random.Random) -> tuple[list[tuple[str, int]], str]:
        """Sentences that follow one another, each with its number of tokens, `tokens` in all; and the books' names.

        Reading starts anywhere in any book; where a book ends, another is opened. The last sentence is cut.
        """
        sentences: list[tuple[str, int]] = []
        names: list[str] = []
        missing = tokens
        while missing > 0:
            name = rng.choice(self._names)
            text = self._books[name]
            start = rng.randrange(len(text))
            names.append(name)
            for sentence, read in self._sentences(text, start, 10 * missing):
                count = min(len(read), missing)
                if count < len(read):  # cut before the first character that is not whole
                    sentence = read.text[1 : min(read.spans[count - 1][1], read.spans[count][0])]
                sentences.append((sentence, count))
                missing -= count
                if not missing:
                    break
        return sentences, ", ".join(dict.fromkeys(names))

    def _sentences(self, text: str, start: int, characters: int) -> Iterator[tuple[str, TokenSequence]]:
        """Sentences of text[start:] with their tokens after a blank, without the short ones and without the first and
        the last, which are likely cut."""
        part = text[start : start + max(characters, 2_000)]
        spans = self._splitter.span_tokenize(part)  # one by one: a reader has enough long before the part ends
        next(spans, None)
        for (first, stop), _ in pairwise(spans):
            sentence = part[first:stop]
            tokens = self._tokenizer.encode_after(f" {sentence}")
            if len(tokens) >= SHORTEST_SENTENCE:
                yield sentence, tokens


def length_tokenizer(name: str = LENGTH_TOKENIZER) -> Tokenizer:
    """A bundled checkpoint's tokenizer, or that of a tokenizer.json. Raises ValueError as `Tokenizer.load` does."""
    path = bundled.FOLDER / name / "tokenizer.json" if name in bundled.bundled_names() else Path(name)
    return _read_tokenizer(path, state(path))


@lru_cache(maxsize=2)
def _read_tokenizer(path: Path, _state: State) -> Tokenizer:
    return Tokenizer.load(path)


def read_library(path: Path, tokenizer: Tokenizer) -> Library:
    """The books of a text or folder of texts. Raises ValueError as `Library.read` does."""
    return _read_library(path, files_state(path), tokenizer)


@lru_cache(maxsize=2)
def _read_library(path: Path, _state: State, tokenizer: Tokenizer) -> Library:
    return Library.read(path, tokenizer)
