"""A text that is steered from one word to another, beside the same text as it is and with a random direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.views.kinds import Line, Lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probes.causal.updates import TracedGeneration

AS_IT_IS, DIRECTION, RANDOM = "as it is", "with the direction", "with a random direction"


def logit_difference(walks: Mapping[str, TracedGeneration], words: tuple[int, int], toward: str, away: str) -> Lines:
    """The logit of one word less that of the other, as each new token is predicted."""
    first, second = words
    return Lines(
        lines=tuple(
            Line(name=name, values=walk.logits[:, first] - walk.logits[:, second]) for name, walk in walks.items()
        ),
        ticks=tuple(str(step) for step in range(1, len(walks[AS_IT_IS].ids) + 1)),
        x_title="token that the model writes",
        y_title=f"logit of {toward!r} less that of {away!r}",
    )
