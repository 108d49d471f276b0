"""Plans: where each unit of interventions begins to change a document, which units run side by side, and the cost."""

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
    """How far a unit's effect is followed before the answer is read."""

    EXACT = "exact"
    """Through everything after it, as in a run."""
    ANSWER = "answer"
    """Only through the tokens that predict the answer: a different question, and many times faster."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Units that run side by side."""

    segment: int
    """The first segment that they change."""
    layer: int
    """The first block of it that they change."""
    apart: bool
    """Whether they read another bank than they write to, so that a segment is computed twice."""
    units: tuple[int, ...]
    """Their indexes."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Work in forward passes of one segment of one document."""

    units: int
    naive: float
    """If every unit takes a run of the whole document."""
    planned: float
    """Of the clean run, and of what each unit computes again."""


def plan(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit], route: Route, size: int) -> tuple[Pack, ...]:
    """Packs of at most `size` units, in the order in which they begin. Units that change nothing are in none.

    Raises ValueError for a size below 1, and for units that the answer's route cannot follow.
    """
    if size < 1:
        raise ValueError(f"a pack holds at least 1 unit, not {size}")
    answering = {encoded.segment_of(row) for row in encoded.rows}
    segments = encoded.segments[: max(answering) + 1]
    if route is Route.ANSWER:
        _check_alone(config, encoded, units)
        segments = segments[-1:]
    groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        for segment in segments:
            # Without looking back, a read-only change shows only in the segments that answer.
            seen = segment.index in answering or config.lookback != 0
            blocks = [change.first_block(config, segment) for change in unit if seen or not change.read_only]
            layers = [layer for layer in blocks if layer is not None]
            if layers:
                groups[segment.index, min(layers), any(change.read_only for change in unit)].append(index)
                break
    return tuple(
        Pack(segment=segment, layer=layer, apart=apart, units=tuple(members[start : start + size]))
        for (segment, layer, apart), members in sorted(groups.items())
        for start in range(0, len(members), size)
    )


def layer_of(hook_name: str, config: LM2Config) -> int:
    """The block of a hook point, as in `Pack.layer`."""
    if hook_name.startswith("blocks."):
        return int(hook_name.split(".")[1])
    return BEFORE if hook_name == Site.EMBED.template else config.n_layers


def _check_alone(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit]) -> None:
    """Raises ValueError for units that the answer's route cannot follow."""
    if not config.causal:
        raise ValueError(
            f"in {config.memory.design.title} all tokens of a segment depend on each other: the answer's cannot be"
            " computed alone"
        )
    segment, last = (encoded.segment_of(row) for row in (encoded.rows[0], encoded.rows[-1]))
    if segment != last:
        raise ValueError(
            f"the answer is predicted in segments {segment} to {last}: it can be computed alone in one segment only"
        )
    for change in dict.fromkeys(change for unit in units for change in unit):
        segments = (change.segment,) if isinstance(change, Reset) else getattr(change, "segments", None)
        if segments != (segment,):
            raise ValueError(
                f"{change} is not of segment {segment} alone, the answer's: its effect on the answer needs all tokens"
            )
        if isinstance(change, Edit) and Axis.KEY in change.site.axes:
            raise ValueError(
                f"{change.site.name} has the keys of earlier tokens, which are not computed again for the answer alone"
            )


def answer_part(encoded: EncodedPrompt, units: Sequence[Unit]) -> Segment:
    """The part of the answer's segment that its route computes: the rows from the first to the last that predict the
    answer, or to the segment's end if a unit patches tokens, which are aligned there."""
    segment = encoded.segments[encoded.segment_of(encoded.rows[0])]
    aligned = any(
        isinstance(change, Edit) and isinstance(change.operation, Patch) and Axis.TOKEN in change.site.axes
        for unit in units
        for change in unit
    )
    start, end = encoded.rows[0], segment.end if aligned else encoded.rows[-1] + 1
    return Segment(index=segment.index, start=start, ids=segment.ids[start - segment.start : end - segment.start])


def cost(config: LM2Config, encoded: EncodedPrompt, units: Sequence[Unit], route: Route = Route.EXACT) -> Cost:
    """The cost of a document under these units. Raises ValueError as `plan` does."""
    last = encoded.segment_of(encoded.rows[-1])
    share = len(answer_part(encoded, units).ids) / len(encoded.segments[last].ids) if route is Route.ANSWER else 1.0
    planned = last + 1.0
    for pack in plan(config, encoded, units, route, max(1, len(units))):
        first = (config.n_layers - max(0, pack.layer)) / config.n_layers
        planned += len(pack.units) * (first * share + (last - pack.segment) * (2 if pack.apart else 1))
    return Cost(units=len(units), naive=len(units) * len(encoded.segments), planned=planned)
