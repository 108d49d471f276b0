"""How often one would be right without reading: by the best constant answer, and by a guess among an answer and its
rivals."""

from collections.abc import Mapping, Sequence
from statistics import fmean


def best_constant(right: Mapping[str, float]) -> str:
    """Of some answers, with how often each is right if it is always given, the one that is right most often; of equal
    ones the first by alphabet."""
    return min(right, key=lambda answer: (-right[answer], answer))


def guess_share(rivals: Sequence[Sequence[str]]) -> float | None:
    """The share of questions that a guess among the answer and its rivals gets right. `rivals`: those of each question.

    None unless each question has rivals.
    """
    return fmean(1 / (1 + len(wrong)) for wrong in rivals) if all(rivals) else None
