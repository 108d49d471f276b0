"""Slot explanations -> the contexts as one text, coloured by the slot."""

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


def strip(one: SlotExplanation) -> Strip:
    """A slot's contexts, one below the other in the place of segments, coloured by value."""
    contexts = one.contexts
    values = np.concatenate([context.values for context in contexts])
    return Strip(
        pieces=tuple(piece for context in contexts for piece in _pieces(context)),
        segment_of=tuple(at for at, context in enumerate(contexts, start=1) for _ in context.spans),
        weights=values,
        notes=tuple(
            f"{value:.3f} · {context.group}, segment {context.segment}, token {context.start + at}"
            for context in contexts
            for at, value in enumerate(context.values)
        ),
        marks=tuple(_marks(contexts)),
        legend=(
            f"how much each token {_DOES[one.signal.value]} slot {one.slot} ({_MEANS[one.signal.value]}); largest is"
            f" {values.max():.3f}"
        ),
        high=max(float(values.max()), 1e-9),
    )


def _pieces(context: SlotContext) -> list[str]:
    """Each token's characters with the blanks before them; a token that goes on with a character of the one before it
    is shown as such."""
    ends = np.maximum.accumulate([0, *(right for _, right in context.spans)])
    return [context.text[left:right] or CONTINUED for left, right in pairwise(ends)]


def _marks(contexts: tuple[SlotContext, ...]) -> list[tuple[int, int, str]]:
    found, start = [], 0
    for context in contexts:
        found += [(start + int(at), start + int(at) + 1, _MARK) for at in np.flatnonzero(context.marked)]
        start += len(context.spans)
    return found
