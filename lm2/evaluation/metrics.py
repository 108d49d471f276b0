"""How what a model answered is scored: from 0 to 1, by several rules."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from lm2.evaluation.cells import Answered, EvaluationCell
from lm2.tasks.babilong import official_score, same_answer

CHOICE = "choice"


def contains(answer: str, output: str) -> bool:
    """Whether an answer stands in an output as whole words, in any case."""
    return bool(re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", output, re.IGNORECASE))


def f1(answer: str, output: str) -> float:
    """The harmonic mean of the shares of the output's words that are the answer's, and of the answer's that are the
    output's, each word as often as it occurs (Rajpurkar et al. 2016, SQuAD). Case, punctuation and articles aside."""
    wanted, reply = _words(answer), _words(output)
    shared = sum((Counter(wanted) & Counter(reply)).values())
    return 2 * shared / (len(wanted) + len(reply)) if wanted and reply else float(wanted == reply)


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return tuple(word for word in bare.split() if word not in ("a", "an", "the"))


def chosen(item: Answered) -> bool:
    """Whether the target is likelier than each rival, by log-probability per character. (By token, what is likelier
    would depend on the tokenizer.)"""
    target, *rivals = (
        nats / len(text) for nats, text in zip(item.log_probabilities, (item.target, *item.rivals), strict=True)
    )
    return target > max(rivals)


METRICS: dict[str, Callable[[str, Answered, str], float]] = {
    "official": lambda task, item, output: official_score(task, item.question, item.target, output),
    "exact": lambda _, item, output: any(same_answer(answer, output) for answer in item.answers),
    "contains": lambda _, item, output: any(contains(answer, output) for answer in item.answers),
    "f1": lambda _, item, output: max(f1(answer, output) for answer in item.answers),
    CHOICE: lambda _, item, output: chosen(item),
}
"""Score an output as the answer to an item of a task."""


def metrics_of(cell: EvaluationCell, items: Sequence[Answered]) -> tuple[str, ...]:
    """BABILong's grid has its two rules; sets have the others, and choice if every item has rivals."""
    if cell.length:
        return "official", "exact"
    return ("exact", "contains", "f1", *((CHOICE,) if all(item.rivals for item in items) else ()))
