"""Two runs of one text compared token by token: how far the next-token predictions differ."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from lm2.runs.trace import Trace, read_only

_ROWS = 1024
"""Tokens compared at once, because a long text's distributions in float64 would be larger than its trace."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run, and a run of the same text under interventions. Row t is about the prediction after token t."""

    before: Trace
    after: Trace
    kl: Float[np.ndarray, "token"]
    """KL(before || after) of the next-token distributions, in nats."""
    change: Float[np.ndarray, "token"]
    """Log-probability of the actual next token, after minus before, in nats; NaN for the text's last token."""

    def top(self, count: int) -> Int[np.ndarray, "rank"]:
        """The `count` tokens with the largest KL, largest first; of equal ones, the earlier first."""
        return np.argsort(-self.kl, kind="stable")[:count]

    @property
    def bytes(self) -> int:
        """Bytes held in arrays, both runs included."""
        return self.kl.nbytes + self.change.nbytes + self.before.bytes + self.after.bytes


def compare(before: Trace, after: Trace) -> Comparison:
    """Compare two runs of one text, computed in float64.

    Raises ValueError unless both have the same tokens and vocabulary.
    """
    if before.tokens.ids != after.tokens.ids or before.logits.shape != after.logits.shape:
        raise ValueError(
            f"only runs of one text can be compared, token by token: these have {len(before.tokens)} and"
            f" {len(after.tokens)} tokens and logits of shapes {before.logits.shape} and {after.logits.shape}"
        )
    count = len(before.tokens)
    following = np.array([*before.tokens.ids[1:], 0])
    kl, change = np.empty(count), np.empty(count)
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        p, q = (log_softmax(trace.logits[rows].astype(np.float64), axis=-1) for trace in (before, after))
        kl[rows] = np.maximum(0, (np.exp(p) * (p - q)).sum(-1))  # rounding alone could make it negative
        change[rows] = (q - p)[np.arange(len(p)), following[rows]]
    change[-1] = np.nan
    return Comparison(before=before, after=after, kl=read_only(kl), change=read_only(change))
