"""TokenSequence: a text as tokens with their positions in the text."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

PART = "\ufffd"
"""The spelling of a token that is only part of a character."""
CONTINUED = "◂"
"""Shown for a token that continues a character of the token before."""
NOTHING = "∅"
"""Shown for a token without characters: a blank that the tokenizer has put in front of a text."""


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """A text as tokens."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each token: U+FFFD for part of a character, its own name for the unknown token and the begin-of-text
    token, and empty for another token without characters."""
    spans: tuple[tuple[int, int], ...]
    """Character range of each token in `text`. Tokens that are parts of one character share its range. Blanks that the
    tokenizer drops belong to the next token, other dropped characters to none."""
    breaks: tuple[int, ...] = ()
    """Indexes of tokens that must begin a segment."""
    bos: bool = False
    """Whether the first token is a begin-of-text token, which has no characters: its span is (0, 0)."""

    def __len__(self) -> int:
        return len(self.ids)

    def within(self, start: int, end: int) -> tuple[int, ...]:
        """Indexes of the tokens that share a character with text[start:end]."""
        starts, ends = self._bounds
        candidates = range(bisect_right(ends, start), bisect_left(starts, end))
        return tuple(i for i in candidates if max(self.spans[i][0], start) < min(self.spans[i][1], end))

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        """For each token, the least start from it on and the largest end up to it, both sorted even where spans are
        not."""
        starts = list(accumulate((start for start, _ in reversed(self.spans)), min))[::-1]
        return starts, list(accumulate((end for _, end in self.spans), max))

    def first_after(self, length: int) -> int:
        """The index of the first token with a character after text[:length]; the number of tokens if there is none.

        This finds an answer's tokens in prompt and answer encoded together; encoded alone, a word can have others. The
        first token may also have the end of the prompt, or be a blank that the tokenizer puts before a part.
        """
        index = next(iter(self.within(length, len(self.text))), len(self))
        while index > self.bos and self.spans[index - 1] == (length, length):
            index -= 1
        return index

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The pieces for display: the first token of a character shows it whole, and the others `CONTINUED`."""
        pieces, done = [], 0
        for piece, (start, end) in zip(self.pieces, self.spans):
            if PART in piece or not piece:
                piece = (CONTINUED if start < done else "") + self.text[max(start, done) : end] or NOTHING
            pieces.append(piece)
            done = max(done, end)
        return tuple(pieces)
