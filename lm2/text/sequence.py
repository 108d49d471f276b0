"""TokenSequence: a text as tokens, each with its place in the text."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

PART = "\ufffd"
"""What a token spells that is part of a character, and no character itself."""


CONTINUED = "◂"
"""Shown for a token that goes on with a character of the token before it."""


NOTHING = "∅"
"""Shown for a token that stands for no character: a blank that the tokenizer has put in front of a text."""


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """A text as tokens."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """What of the text the model has seen in each token. One that is part of a character spells U+FFFD, one that stands
    for whatever is unknown its own name, and one that stands for no character nothing."""
    spans: tuple[tuple[int, int], ...]
    """Character range of each token in `text`. Tokens that are parts of one character all have it; blanks that a
    tokenizer drops belong to the token after them, and what else it drops to none."""
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
        """Per token, the least start of it and those after it, and the largest end up to it: both rise, whatever the
        spans do."""
        lefts = list(accumulate((left for left, _ in reversed(self.spans)), min))[::-1]
        return lefts, list(accumulate((right for _, right in self.spans), max))

    def first_after(self, at: int) -> int:
        """The place of the first token that holds a character after text[:at]: where what was put after that begins;
        where there is none, how many tokens there are.

        This, of both encoded together, is the one way to an answer's tokens: encoded alone a word can be others. A
        token that holds the end of the one and the beginning of the other is the first, and so is a blank that the
        tokenizer puts in front of a part.
        """
        place = next(iter(self.within(at, len(self.text))), len(self))
        while place and self.spans[place - 1] == (at, at):
            place -= 1
        return place

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The pieces as people read them: a character that is several tokens stands on the first one, and `CONTINUED`
        on the others."""
        shown, done = [], 0
        for piece, (start, end) in zip(self.pieces, self.spans):
            if PART in piece or not piece:
                piece = (CONTINUED if start < done else "") + self.text[max(start, done) : end] or NOTHING
            shown.append(piece)
            done = max(done, end)
        return tuple(shown)
