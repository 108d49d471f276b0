"""Where each unit of interventions begins to change a document, which of them go side by side, and what that costs.
Nothing runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lm2.model.config import LM2Config
from lm2.model.sites import Axis, Site
from lm2.runs.donors import Patch
from lm2.runs.interventions import BEFORE, Edit, Reset
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.text.segments import Segment
from probes.causal.batch import Unit


class Route(Enum):
    """How far a unit reaches before the answer is read."""

    EXACT = "exact"
    """Into everything behind it, as in a run."""
    ANSWER = "answer"
    """Into the tokens that predict the answer alone: another question, and many times faster."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Units that go side by side."""

    segment: int
    """The first one that they change."""
    layer: int
    """The first block of it that they change."""
    apart: bool
    """Whether the bank that they read is not the one that they write to, so that a segment is fed twice."""
    units: tuple[int, ...]
    """Their indexes."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Work in forward passes of one segment of one document."""

    units: int
    naive: float
    """Of a whole document for every unit."""
    planned: float
    """Of the clean run, and of what each unit computes anew."""


def plan(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit], route: Route, size: int) -> tuple[Pack, ...]:
    """The packs, of at most `size` units, in the order of their beginnings. Units that change nothing are in none.

    Raises ValueError for a size below 1, and on the answer's route for what it cannot follow.
    """
    if size < 1:
        raise ValueError(f"a pack holds at least 1 unit, not {size}")
    asked = {encoded.segment_of(row) for row in encoded.rows}
    segments = encoded.segments[: max(asked) + 1]
    if route is Route.ANSWER:
        _check_alone(config, encoded, units)
        segments = segments[-1:]
    groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        for segment in segments:
            seen = segment.index in asked or config.lookback != 0  # what is only read shows in no other segment
            layers = [change.first_block(config, segment) for change in unit if seen or not change.read_only]
            there = [layer for layer in layers if layer is not None]
            if there:
                groups[segment.index, min(there), any(change.read_only for change in unit)].append(index)
                break
    return tuple(
        Pack(segment=segment, layer=layer, apart=apart, units=tuple(members[at : at + size]))
        for (segment, layer, apart), members in sorted(groups.items())
        for at in range(0, len(members), size)
    )


def layer_of(hook_name: str, config: LM2Config) -> int:
    """The block that a hook point is in, as `Pack.layer` counts."""
    if hook_name.startswith("blocks."):
        return int(hook_name.split(".")[1])
    return BEFORE if hook_name == Site.EMBED.template else config.n_layers


def _check_alone(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit]) -> None:
    """Raise ValueError for what the answer's route cannot follow."""
    if not config.causal:
        raise ValueError(
            f"in {config.memory.design.title} all tokens of a segment depend on each other: the answer's cannot be"
            " computed alone"
        )
    at = {encoded.segment_of(row) for row in encoded.rows}
    if len(at) > 1:
        raise ValueError(
            f"the answer is predicted in segments {min(at)} to {max(at)}: it can be computed alone in one segment only"
        )
    (segment,) = at
    for change in dict.fromkeys(change for unit in units for change in unit):
        inside = (
            change.segment == segment if isinstance(change, Reset) else getattr(change, "segments", None) == (segment,)
        )
        if not inside:
            raise ValueError(
                f"{change} is not of segment {segment} alone, the answer's: its effect on the answer needs all tokens"
            )
        if isinstance(change, Edit) and Axis.KEY in change.site.axes:
            raise ValueError(
                f"{change.site.name} has the keys of earlier tokens, which are not computed anew with the answer alone"
            )


def answer_part(encoded: EncodedPrompt, units: Sequence[Unit]) -> Segment:
    """The part of the answer's segment that its route computes: from the first row that predicts a token of the answer
    to the last.

    To the segment's end where a unit patches tokens: donors are laid to the end.
    """
    segment = encoded.segments[encoded.segment_of(encoded.rows[0])]
    laid = any(
        isinstance(change, Edit) and isinstance(change.operation, Patch) and Axis.TOKEN in change.site.axes
        for unit in units
        for change in unit
    )
    start, end = encoded.rows[0], segment.end if laid else encoded.rows[-1] + 1
    return Segment(index=segment.index, start=start, ids=segment.ids[start - segment.start : end - segment.start])


def cost(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit], route: Route = Route.EXACT) -> Cost:
    """What a document costs under these units. Raises ValueError as `plan` does."""
    last = encoded.segment_of(encoded.rows[-1])
    share = len(answer_part(encoded, units).ids) / len(encoded.segments[last].ids) if route is Route.ANSWER else 1.0
    planned = last + 1.0
    for pack in plan(config, encoded, units, route, max(1, len(units))):
        first = (config.n_layers - max(0, pack.layer)) / config.n_layers
        planned += len(pack.units) * (first * share + (last - pack.segment) * (2 if pack.apart else 1))
    return Cost(units=len(units), naive=len(units) * len(encoded.segments), planned=planned)
