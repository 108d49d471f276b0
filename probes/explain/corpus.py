"""Texts to explain slots by, in two halves: one is shown, and what was learnt from it is scored on the other."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lm2.files import read_text
from lm2.text.tokens import Tokenizer
from probes.explain.spec import ExplainSpec
from probes.stats.splits import folds, groups

MOST_CHARACTERS = 1_000_000
"""Of a text."""


class Entry(NamedTuple):
    """A text that is read from a fresh bank."""

    group: str
    """The story that it tells. Entries of one story are in the same half."""
    text: str
    """A form feed in it opens a new segment."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Entries in two halves, with no group in both."""

    shown: tuple[Entry, ...]
    scored: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all texts."""
        every = "".join(hashlib.sha256("\0".join(one).encode()).hexdigest() for one in (*self.shown, *self.scored))
        return hashlib.sha256(every.encode()).hexdigest()


def corpus(spec: ExplainSpec, tokenizer: Tokenizer) -> Corpus:
    """The spec's texts. Raises ValueError as `Documents.load`, `of_file` and `halves` do."""
    if spec.file is not None:
        return halves(of_file(Path(spec.file)), spec.seed)
    asked = spec.documents.load(tokenizer)
    belongs = groups(*zip(*(one.shared for one in asked)))
    return halves(
        [Entry(str(group), f"{one.prompt.text} {one.prompt.answer}") for group, one in zip(belongs, asked)], spec.seed
    )


def of_file(path: Path) -> tuple[Entry, ...]:
    """A UTF-8 file's texts: parted by blank lines where it has any, else one a line. Equal ones count once.

    A line ends with a line feed alone: a form feed opens a segment within a text.

    Raises ValueError for a file that cannot be read.
    """
    text = read_text(path).strip()
    parts = re.split(r"\n[^\S\n]*\n", text)
    texts = [part.strip() for part in (parts if len(parts) > 1 else text.split("\n"))]
    longest = max(enumerate(texts, start=1), key=lambda numbered: len(numbered[1]), default=(0, ""))
    if len(longest[1]) > MOST_CHARACTERS:
        raise ValueError(
            f"{path}: text {longest[0]} has {len(longest[1]):,} characters; texts are parted by blank lines, and have"
            f" at most {MOST_CHARACTERS:,}"
        )
    return tuple(Entry(f"{path.stem}:{at}", one) for at, one in enumerate(dict.fromkeys(filter(None, texts))))


def halves(entries: Sequence[Entry], seed: int) -> Corpus:
    """Whole groups to either side, as many entries on each as the groups allow. Raises ValueError for fewer than 2
    groups."""
    belongs = [entry.group for entry in entries]
    if len(set(belongs)) < 2:
        raise ValueError(
            f"explanations are scored on other texts than those shown: at least 2 are needed, not {len(set(belongs))}"
        )
    cut = folds(belongs, 2, seed)[0]
    return Corpus(shown=tuple(entries[at] for at in cut.train), scored=tuple(entries[at] for at in cut.test))
