"""BABILong: bAbI facts hidden among the sentences of a book, and the scoring of what a model answers.

Kuratov et al. 2024, arXiv 2406.10149. Built as the benchmark is built, but seeded item by item, so that an item does
not depend on how many were drawn before it, and with the place of every fact kept. Lengths count the tokens of facts
and book with a named tokenizer; 300 of them are left for the prompt, as in the published sets.
"""

import random
import re
from dataclasses import dataclass

from lm2.shown import shown
from lm2.tasks.books import Library
from lm2.tasks.prompt import Prompt
from lm2.text.tokens import Tokenizer

PROMPT_TOKENS = 300
"""What a length leaves for instructions and question."""
LONGEST = 10_000_000
"""Tokens: the longest of the published lengths."""

_PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
_SURE = ("no", "yes")
_PAIRS = ("e,e", "e,n", "e,s", "n,e", "n,n", "n,w", "s,e", "s,s", "s,w", "w,n", "w,s", "w,w")
LABELS: dict[int, tuple[str, ...]] = {
    **dict.fromkeys((1, 2, 3, 4, 11, 12, 13), _PLACES),
    5: ("bill", "fred", "jeff", "mary", "apple", "football", "milk"),
    **dict.fromkeys((6, 9, 17, 18), _SURE),
    7: ("none", "one", "three", "two"),
    8: ("apple", "football", "milk", "nothing"),
    10: ("maybe", "no", "yes"),
    14: ("bedroom", "cinema", "kitchen", "office", "park", "school"),
    15: ("cat", "mouse", "sheep", "wolf"),
    16: ("gray", "green", "white", "yellow"),
    19: _PAIRS,
    20: ("bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired"),
}
"""The words that the official rule looks for, by task."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Facts of one question among sentences of a book."""

    text: str
    """Facts and book; the question is not part of it."""
    question: str
    answer: str
    task: int
    story_id: str
    fact_spans: tuple[tuple[int, int], ...]
    """Characters of each fact in `text`; tokens are found with `TokenSequence.within`."""
    support: tuple[int, ...]
    """Which of the facts justify the answer."""
    tokens: int
    """Of facts and book, counted when they were mixed."""
    book: str
    """Where the prose is from; empty where there is none."""


def length_tokens(name: str) -> int:
    """Nominal tokens of a length's name: "0k" is 0, "4k" is 4,000, "1M" is 1,000,000.

    Raises ValueError for any other spelling.
    """
    match = re.fullmatch(r"(\d+)([kM])", name)
    if match is None:
        raise ValueError(f"a length is a whole number and k or M, like 4k or 1M, not {shown(name)}")
    tokens = int(match[1][:9]) * (1_000 if match[2] == "k" else 1_000_000)
    if tokens > LONGEST or len(match[1]) > 9:
        raise ValueError(f"a length is at most {LONGEST:,} tokens, not {shown(name)}")
    return tokens


def fits(prompt: Prompt, length: int) -> bool:
    """Whether an item is asked at this nominal length: at most an eighth of the tokens in rows, the question counted;
    all at 0."""
    return length == 0 or len(prompt.statements) + 1 <= max(0, length - PROMPT_TOKENS) // 8


def mix(prompt: Prompt, length: int, library: Library | None, tokenizer: Tokenizer, *, seed: int) -> Mixture:
    """Hide the facts of one question in `length` - 300 tokens of facts and book; at 0, facts alone.

    A fact's place is drawn uniformly from the gaps between sentences, with replacement, and the facts keep their order.
    The same prompt, length, books and seed give the same mixture.

    Raises ValueError when facts alone are longer than that, and for a length above 0 without books.
    """
    facts = [*prompt.statements]
    counts = [len(tokenizer.encode_after(f" {fact}")) for fact in facts]
    rng = random.Random(f"{seed}/{prompt.group}/{prompt.question_span[0]}/{length}")
    sentences: list[tuple[str, int]] = []
    book = ""
    if length:
        missing = length - PROMPT_TOKENS - sum(counts)
        if missing < 0:
            raise ValueError(f"{len(facts)} facts are {sum(counts)} tokens long, more than {length} - {PROMPT_TOKENS}")
        if library is None:
            raise ValueError(f"a length of {length} tokens needs books to hide the facts in")
        sentences, book = library.passage(missing, rng)
    gaps = sorted(rng.randrange(len(sentences) + 1) for _ in facts)
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for gap in range(len(sentences) + 1):
        for fact in facts[len(spans) : len(spans) + gaps.count(gap)]:
            spans.append((at, at + len(fact)))
            parts.append(fact)
            at += len(fact) + 1
        if gap < len(sentences):
            parts.append(sentences[gap][0])
            at += len(sentences[gap][0]) + 1
    return Mixture(
        text=" ".join(parts),
        question=prompt.question,
        answer=prompt.answer,
        task=prompt.task or 0,
        story_id=prompt.group,
        fact_spans=tuple(spans),
        support=prompt.support,
        tokens=sum(counts) + sum(count for _, count in sentences),
        book=book,
    )


def official_score(task: str | int, question: str, target: str, output: str) -> bool:
    """Whether the benchmark's own rule counts an output as right.

    Lower case; what stands before the first full stop (and any context or example tag); the task's labels that occur in
    it as substrings, without those that occur in the question; right if that is the target and nothing else, or, for
    a target that is a list, all of its items and nothing else.

    Under this rule "none" contains "one", so no output is ever right where the answer of qa7 is "none".

    Raises ValueError for a task outside qa1..qa20.
    """
    reply = output.lower()
    for stop in (".", "<context>", "<example>"):
        reply = reply.partition(stop)[0]
    asked = question.lower()
    labels = {label for label in _labels(task) if label in reply and label not in asked}
    wanted = target.lower()
    items = wanted.split(",") if "," in wanted and len(wanted) > 3 else [wanted]
    return labels == set(items)


def exact_score(task: str | int, question: str, target: str, output: str) -> bool:
    """Whether an output is the target, as `same_answer` compares them. Raises ValueError as `official_score` does."""
    _labels(task)
    return same_answer(target, output)


def same_answer(target: str, output: str) -> bool:
    """Whether they are equal: case, outer blanks and all after the first full stop (not one within the target) aside;
    lists in any order."""
    wanted = target.lower().strip()
    reply = ".".join(output.lower().strip().split(".")[: wanted.rstrip(".").count(".") + 1])
    return sorted(map(str.strip, reply.split(","))) == sorted(map(str.strip, wanted.rstrip(".").split(",")))


def _labels(task: str | int) -> tuple[str, ...]:
    number = str(task).removeprefix("qa")
    if not number.isdecimal() or int(number) not in LABELS:
        raise ValueError(f"a task is qa1 to qa20, not {task!r}")
    return LABELS[int(number)]
