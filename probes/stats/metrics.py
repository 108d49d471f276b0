"""The effect of an intervention on one document: a number from the logits of the rows that predict its answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax


class Metric(Enum):
    """A function of the logits. `label` has the unit; `harm` is the sign of a change for the worse."""

    LOGIT_DIFFERENCE = "logit_difference", "answer logit difference (logits)", -1
    """The answer's first token less the mean of its foils. Linear in the logits, so it hides neither helping nor
    hindering parts."""
    LOG_PROBABILITY = "log_probability", "answer log-probability (nats)", -1
    """Sum over the answer's tokens."""
    KL = "kl", "KL(clean || edited) at the answer (nats)", 1
    """Mean over the answer's rows. Never negative: its p says that something changed, but not in which direction."""
    CROSS_ENTROPY = "cross_entropy", "next-token cross-entropy (nats per token)", 1
    """Mean over all rows given."""
    EXACT = "exact", "exact match (share)", -1
    """1 where every token of the answer is the most probable one, else 0."""

    label: str
    harm: int

    def __new__(cls, value: str, label: str, harm: int) -> "Metric":
        member = object.__new__(cls)
        member._value_, member.label, member.harm = value, label, harm
        return member


def first_token(answer_tokens: Iterable[int]) -> str:
    """What the name of a number ends with that reads the first token of each answer: nothing if no answer has more.
    `answer_tokens`: how many each has."""
    return ", first token" if any(count > 1 for count in answer_tokens) else ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The tokens that the rows of a document should predict."""

    ids: tuple[int, ...]
    """The answer's tokens, predicted by the last rows."""
    foils: tuple[int, ...] = ()
    """First tokens of the task's wrong answers, each once."""
    before: tuple[int, ...] = ()
    """Predicted by the rows before those, one token per row, for the cross-entropy."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("an answer needs at least one token")
        if min(self.ids + self.foils + self.before) < 0:
            raise ValueError(f"token ids must be 0 or more, not {min(self.ids + self.foils + self.before)}")
        if self.ids[0] in self.foils or len(set(self.foils)) < len(self.foils):
            raise ValueError(
                f"foils must differ from each other and from the answer's first token {self.ids[0]}, not {self.foils}"
            )


def measure(
    metric: Metric, answer: Answer, logits: Float[np.ndarray, "row d_vocab"], baseline: Float[np.ndarray, "row d_vocab"]
) -> float:
    """`metric` of the edited run's `logits`, in float64. `baseline`: the clean run's, used only by KL.

    Row r predicts token r of `answer.before + answer.ids`.

    Raises ValueError for other shapes, for ids beyond d_vocab and for a logit difference without foils.
    """
    targets = answer.before + answer.ids
    rows = len(targets)
    if logits.ndim != 2 or len(logits) != rows or logits.shape != baseline.shape:
        raise ValueError(
            f"logits and baseline must both be [row, d_vocab] with {rows} rows, not {logits.shape} and {baseline.shape}"
        )
    if max(targets + answer.foils) >= logits.shape[1]:
        raise ValueError(f"token ids must be below d_vocab {logits.shape[1]}, not {max(targets + answer.foils)}")
    edited = logits[-len(answer.ids) :].astype(np.float64)
    match metric:
        case Metric.LOGIT_DIFFERENCE:
            if not answer.foils:
                raise ValueError("a logit difference needs at least one foil")
            return float(edited[0, answer.ids[0]] - edited[0, list(answer.foils)].mean())
        case Metric.LOG_PROBABILITY:
            return float(log_softmax(edited, axis=-1)[np.arange(len(answer.ids)), answer.ids].sum())
        case Metric.KL:
            clean = log_softmax(baseline[-len(answer.ids) :].astype(np.float64), axis=-1)
            edited = log_softmax(edited, axis=-1)
            # Rounding could make it negative.
            return max(0.0, float((np.exp(clean) * (clean - edited)).sum(-1).mean()))
        case Metric.CROSS_ENTROPY:
            return -float(log_softmax(logits.astype(np.float64), axis=-1)[np.arange(rows), targets].mean())
        case Metric.EXACT:
            return float((edited.argmax(-1) == answer.ids).all())
