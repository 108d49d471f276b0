"""How the heads of a store's maps read and write, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lm2.model.config import LM2Config
from lm2.model.sites import Axis, Site
from lm2.runs.interventions import BankIntervention, Intervention


@dataclass(frozen=True, kw_only=True)
class HeadRow:
    """One head of a block's memory. A distribution is what a token reads, over slots, or what a slot is written from,
    over the tokens of a segment."""

    block: int
    head: int
    entropy: float
    """Of the distributions, in bits: their mean."""
    top: float
    """The largest share of a distribution: the mean."""
    effective: float
    """Slots, or tokens, that would have that entropy if all had the same share."""
    distance: float | None
    """How many segments ago what is read was written: the mean over all that is read, where input and forget gates say
    how much of a slot is new; None where this has no meaning."""


def head_row(
    block: int,
    head: int,
    statistics: Float[np.ndarray, "segment statistic"],
    mass: Float[np.ndarray, "segment slot"] | None,
    lengths: np.ndarray,
    ages: Float[np.ndarray, "segment slot"] | None,
) -> HeadRow:
    """`mass`: the mean of what tokens read; None for writes. `ages`: as `slot_ages` has them."""
    entropy, top, count, _ = statistics.sum(0, dtype=np.float64).tolist()
    entropy, top = (entropy / count, top / count) if count else (np.nan, np.nan)
    distance = None
    if ages is not None and mass is not None:
        weight = mass * lengths[:, None]
        weight[0] = 0  # nothing has been written before the first segment
        distance = float((weight * ages).sum() / weight.sum()) if weight.sum() else None
    return HeadRow(block=block, head=head, entropy=entropy, top=top, effective=2.0**entropy, distance=distance)


def has_ages(config: LM2Config, interventions: Sequence[Intervention]) -> bool:
    """Whether the gates alone say how old a slot is: they decide what of it stays, and nothing else changes it."""
    gates = config.memory.design.gates
    sites = {name: gate.site for name, gate in gates.items() if gate.site.axes[0] is Axis.SLOT}
    return (
        sites.get("in") is Site.GATE_IN
        and sites.get("forget") is Site.GATE_FORGET
        and not config.memory.design.reads_own_writes
        and not any(isinstance(change, BankIntervention) for change in interventions)
    )


def slot_ages(
    admitted: Mapping[int, Float[np.ndarray, "segment slot"]], kept: Mapping[int, Float[np.ndarray, "segment slot"]]
) -> Float[np.ndarray, "segment slot"]:
    """How many segments ago what a slot holds at the start of each segment was written, in the mean: where the blocks,
    one after the other, admit and keep these shares of it. What was there before the first segment was written then."""
    new, old = 0.0, 1.0
    for block in sorted(admitted):
        new, old = admitted[block] + kept[block] * new, kept[block] * old
    stays = np.asarray(old / np.maximum(new + old, np.finfo(np.float32).tiny))
    ages = np.zeros_like(stays)
    for segment in range(1, len(ages)):
        ages[segment] = 1 + stays[segment - 1] * ages[segment - 1]
    return ages
