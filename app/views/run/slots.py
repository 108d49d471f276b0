"""The passages of a slot's explanation as one text, coloured by the slot."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Strip
from lm2.text.sequence import CONTINUED

if TYPE_CHECKING:
    from probes.explain.contexts import SlotContext
    from probes.explain.explain import SlotExplanation

_MARK = "at least half of its passage's largest value"
_DOES = {"read": "reads", "write": "wrote"}
_MEANS = {
    "read": "share of the token's reading, mean over blocks and heads",
    "write": "write credit, in norms of what the slot was given",
}


def strip(explanation: SlotExplanation) -> Strip:
    """A slot's contexts, shown as segments and coloured by value."""
    contexts, side = explanation.contexts, explanation.signal.value
    values = np.concatenate([context.values for context in contexts])
    return Strip(
        pieces=tuple(piece for context in contexts for piece in _pieces(context)),
        segment_of=tuple(number for number, context in enumerate(contexts, start=1) for _ in context.spans),
        weights=values,
        notes=tuple(
            f"{value:.3f} · {context.group}, segment {context.segment}, token {context.start + i}"
            for context in contexts
            for i, value in enumerate(context.values)
        ),
        marks=tuple(_marks(contexts)),
        legend=(
            f"how much each token {_DOES[side]} slot {explanation.slot} ({_MEANS[side]}); largest is {values.max():.3f}"
        ),
        high=max(float(values.max()), 1e-9),
    )


def _pieces(context: SlotContext) -> list[str]:
    """Each token's characters with the blanks before them, or a sign for a token that continues a character."""
    ends = np.maximum.accumulate([0, *(right for _, right in context.spans)])
    return [context.text[left:right] or CONTINUED for left, right in pairwise(ends)]


def _marks(contexts: tuple[SlotContext, ...]) -> list[tuple[int, int, str]]:
    marks, start = [], 0
    for context in contexts:
        marks += [(start + int(i), start + int(i) + 1, _MARK) for i in np.flatnonzero(context.marked)]
        start += len(context.spans)
    return marks
