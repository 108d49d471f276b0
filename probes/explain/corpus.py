"""Texts to explain slots by, in two halves: one is shown, and what was found in it is scored on the other."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lm2.files import read_text
from lm2.tasks.encoded_prompt import encode_prompts
from lm2.weights.checkpoint import Checkpoint
from probes.explain.spec import ExplainSpec
from probes.stats.splits import folds, groups

MAX_CHARACTERS = 1_000_000
"""Of one text."""


class Entry(NamedTuple):
    """A text that is read from a fresh bank."""

    group: str
    """Its story. Entries of one story are in the same half."""
    text: str
    """A form feed in it opens a new segment."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Entries in two halves, with no group in both."""

    shown: tuple[Entry, ...]
    scored: tuple[Entry, ...]
    skipped: tuple[str, ...] = ()
    """Documents that the tokenizer cannot take, and why."""

    @property
    def digest(self) -> str:
        """SHA-256 of all texts."""
        digests = (hashlib.sha256("\0".join(entry).encode()).hexdigest() for entry in (*self.shown, *self.scored))
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def corpus(spec: ExplainSpec, checkpoint: Checkpoint) -> Corpus:
    """The spec's texts. Raises ValueError as `Documents.load`, `encode_prompts`, `of_file` and `halves` do."""
    if spec.file is not None:
        return halves(of_file(Path(spec.file)), spec.seed)
    documents = spec.documents.load(checkpoint.tokenizer)
    encoded_prompts, skipped = encode_prompts(
        checkpoint, [document.prompt for document in documents], spec.segment_length
    )
    taken = {encoded.prompt for encoded in encoded_prompts}
    documents = [document for document in documents if document.prompt in taken]
    stories = groups(*zip(*(document.shared for document in documents)))
    entries = [
        Entry(str(story), f"{document.prompt.text} {document.prompt.answer}")
        for story, document in zip(stories, documents)
    ]
    return replace(halves(entries, spec.seed), skipped=tuple(skipped))


def of_file(path: Path) -> tuple[Entry, ...]:
    """The texts of a UTF-8 file: separated by blank lines if it has any, otherwise one a line. Equal ones count once.

    Only a line feed ends a line: a form feed opens a segment within a text.

    Raises ValueError for a file that cannot be read.
    """
    text = read_text(path).strip()
    blocks = re.split(r"\n[^\S\n]*\n", text)
    texts = [block.strip() for block in (blocks if len(blocks) > 1 else text.split("\n"))]
    number, longest = max(enumerate(texts, start=1), key=lambda numbered: len(numbered[1]))
    if len(longest) > MAX_CHARACTERS:
        raise ValueError(
            f"{path}: text {number} has {len(longest):,} characters; texts are separated by blank lines, and have"
            f" at most {MAX_CHARACTERS:,}"
        )
    return tuple(Entry(f"{path.stem}:{i}", text) for i, text in enumerate(dict.fromkeys(filter(None, texts))))


def halves(entries: Sequence[Entry], seed: int) -> Corpus:
    """Splits whole groups, into halves as equal as the groups allow. Raises ValueError for fewer than 2 groups."""
    stories = [entry.group for entry in entries]
    if len(set(stories)) < 2:
        raise ValueError(
            f"explanations are scored on other texts than those shown: at least 2 are needed, not {len(set(stories))}"
        )
    fold = folds(stories, 2, seed)[0]
    return Corpus(shown=tuple(entries[i] for i in fold.train), scored=tuple(entries[i] for i in fold.test))
