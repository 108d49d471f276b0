"""Results of a sweep: the map of its units, joint effects, curves, and the documents of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Heatmap, Line, Lines, Table
from probes.findings import columns_of, mean
from probes.stats.metrics import Metric

if TYPE_CHECKING:
    from probes.stats.effects import Effect
    from probes.sweeps.grid import ModelPart
    from probes.sweeps.result import SweepResult

SIGNIFICANT = 0.05
"""The largest q of a significant cell."""
LISTED = 10
"""Units in the ranking."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Swept:
    """A finished sweep with its statistics, which take longer to compute than to draw."""

    result: SweepResult
    effects: Mapping[Metric, Mapping[int, Effect]]
    """Effects of the measured units."""
    joints: Mapping[Metric, tuple[tuple[Effect, Effect | None, Effect | None], ...]]
    """The joint effect, the sum of the single effects and their difference; None if not all singles were measured."""
    curves: Mapping[Metric, Mapping[str, tuple[Effect, ...]]]
    stability: float
    """Mean overlap (Jaccard) of the `LISTED` units with the largest effects with those of resampled stories."""


def statistics(result: SweepResult) -> Swept:
    """Computes all statistics of a sweep."""
    from probes.stats.effects import Redundancy, topk_stability  # SciPy takes half a second to import

    metrics = result.spec.metrics
    return Swept(
        result=result,
        effects={metric: dict(zip(result.measured, result.effects(metric))) for metric in metrics},
        joints={
            metric: tuple(
                (joint.joint, joint.singles, joint.difference) if isinstance(joint, Redundancy) else (joint, None, None)
                for joint in result.joint_effects(metric)
            )
            for metric in metrics
        },
        curves={metric: result.curves(metric) for metric in metrics},
        stability=topk_stability(
            result.differences(result.values, result.metric),
            result.stories,
            min(LISTED, len(result.measured)),
            result.spec.seed,
        ),
    )


def metric_name(value: str) -> str:
    return value.replace("_", " ").replace("kl", "KL")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The places of a grid's units on its map."""

    rows: tuple[tuple[str, int | None], ...]
    """(kind of part, its number)"""
    columns: tuple[tuple[int | None, int | None, float | None], ...]
    """(segments before the answer's, block, clamped value)"""
    places: Mapping[tuple[int, int], int]
    """The unit at (row, column)."""

    def of(self, unit: int) -> tuple[int, int] | None:
        return next((place for place, other in self.places.items() if other == unit), None)


def layout(parts: tuple[ModelPart, ...]) -> Layout:
    """Rows are slots, heads or parts; columns are blocks within segments, earlier segments first."""
    row_of = [(part.what, part.index) for part in parts]
    column_of = [(part.back, part.layer, part.value) for part in parts]
    rows = list(dict.fromkeys(row_of))
    columns = sorted(set(column_of), key=lambda column: (-(column[0] or 0), column[1] or 0, column[2] or 0))
    places = {
        (rows.index(row), columns.index(column)): unit for unit, (row, column) in enumerate(zip(row_of, column_of))
    }
    return Layout(rows=tuple(rows), columns=tuple(columns), places=places)


def effect_map(swept: Swept, metric: Metric, *, hide: bool) -> Heatmap:
    """The mean effect of every measured unit; `hide` masks those that are not significant."""
    result, effects = swept.result, swept.effects[metric]
    grid = layout(result.parts)
    values = np.full((len(grid.rows), len(grid.columns)), np.nan)
    masked = np.ones(values.shape, bool)
    for place, unit in grid.places.items():
        if unit in effects:
            values[place] = effects[unit].mean
            masked[place] = hide and not effects[unit].q <= SIGNIFICANT
    limit = float(np.nanmax(np.abs(values))) or 1.0
    backs = [back for back, _, _ in grid.columns]
    starts = tuple(backs.index(back) for back in dict.fromkeys(backs)) if grid.columns[0][1] is not None else (0,)
    return Heatmap(
        values=values,
        row_labels=tuple(what if number is None else f"{what} {number}" for what, number in grid.rows),
        column_labels=tuple(map(column_label, grid.columns)),
        row_title=_row_title(grid),
        column_title=_column_title(grid),
        value_title=f"change of {swept.result.label(metric)}, mean over documents",
        low=-limit,
        high=limit,
        diverging=True,
        masked=masked,
        boundaries=starts,
        segment_labels=tuple(segment_name(backs[start]) for start in starts) if len(starts) > 1 else (),
        row_noun=grid.rows[0][0],
        row_kinds=tuple(what for what, _ in grid.rows),
        column_noun="segment",
        column_kinds=tuple((block, value) for _, block, value in grid.columns),
    )


def _row_title(grid: Layout) -> str:
    kinds = {what for what, _ in grid.rows}
    if grid.columns[0][2] is not None:
        return "gate"
    return kinds.pop() if len(kinds) == 1 else "part"


def _column_title(grid: Layout) -> str:
    back, layer, value = grid.columns[0]
    if value is not None:
        return "value, clamped in all blocks and segments"
    if layer is None:
        return "segment"
    if len({column[0] for column in grid.columns}) > 1:
        return "block, within each segment"
    return f"block, {back} segments before the answer's" if back else "block, in the answer's segment"


def column_label(column: tuple[int | None, int | None, float | None]) -> str:
    back, layer, value = column
    if value is not None:
        return f"at {value:g}"
    return segment_name(back) if layer is None else f"block {layer}"


def segment_name(back: int | None) -> str:
    return f"{back} before" if back else "the answer's"


def map_note(swept: Swept, metric: Metric) -> str:
    """What the numbers and signs of the map are."""
    effects = list(swept.effects[metric].values())
    first, significant = effects[0], sum(effect.q <= SIGNIFICANT for effect in effects)
    worse = "positive (orange)" if metric.harm > 0 else "negative (blue)"
    return (
        f"Change from each document's own unedited run, mean over {first.n} documents of {first.groups} stories;"
        f" {worse}: the model does worse. {significant} of {len(effects)} cells have q ≤ {SIGNIFICANT:g} (sign flips of"
        " whole stories, Benjamini and Hochberg over the map)."
    )


def baseline_note(swept: Swept, metric: Metric) -> str:
    """How the model answers with nothing replaced."""
    baseline, left_out = swept.result.baseline, len(swept.result.left_out)
    right = (
        f"{baseline[Metric.EXACT].mean():.1%} of {len(swept.result.prompts)} questions are answered; "
        if Metric.EXACT in baseline
        else ""
    )
    missing = (
        f" {left_out} more documents are left out: they lack the segments, or a story to take a value from."
        if left_out
        else ""
    )
    label = swept.result.label(metric)
    return f"With nothing replaced {right}{label} is {baseline[metric].mean():.2f} on average.{missing}"


def ranking(swept: Swept, metric: Metric) -> Table | None:
    """The units with the largest effects on the ranking's metric; None if the screening's estimates are unreliable."""
    order = swept.result.ranking()
    if order is None:
        return None
    effects = swept.effects[metric]
    rows = [
        (swept.result.parts[unit].label, mean(effects[unit]), effects[unit].d_z, effects[unit].q)
        for unit in order[:LISTED]
    ]
    return Table(columns=columns_of(("unit", "effect", "d_z", "q"), rows))


def ranking_note(swept: Swept, metric: Metric) -> str:
    """How far the ranking depends on the sample of stories."""
    words = (
        f"Change of {swept.result.label(metric)}; units ranked by the size of their change of"
        f" {metric_name(swept.result.metric.value)}, whatever its sign."
    )
    if len(swept.result.measured) <= LISTED or not np.isfinite(swept.stability):
        return words
    return (
        f"{words} When stories are resampled, the {LISTED} units with the largest change overlap with these by"
        f" {swept.stability:.0%} (Jaccard, mean)."
    )


def effect_note(swept: Swept, unit: int, metric: Metric) -> str:
    """A unit's effect in words."""
    effect = swept.effects[metric][unit]
    return (
        f"Change of {swept.result.label(metric)}: {mean(effect):+.3f} on average, d_z {effect.d_z:.2f}, p"
        f" {effect.p:.2g}, q {effect.q:.2g}; {effect.n} documents of {effect.groups} stories; 95 % interval by"
        f" {effect.interval.value}."
    )


def joints(swept: Swept, metric: Metric) -> Table:
    """The effect of units replaced together beside the sum of their single effects, with 95 % intervals."""
    rows = []
    for joint, effects in zip(swept.result.joints, swept.joints[metric]):
        label = joint.label.replace("segment 0 before", "the answer's segment")
        for words, effect in zip(("at once", "added up", "difference"), effects):
            if effect is not None:
                rows.append((f"{label} ({len(joint.members)})", words, mean(effect)))
    return Table(columns=columns_of(("units", "replaced", "mean"), rows))


def cumulative(swept: Swept, metric: Metric) -> Lines | None:
    """The effect by the number of units replaced together; None if units exclude each other."""
    if not swept.curves[metric]:
        return None
    lines = []
    for order, effects in swept.curves[metric].items():
        values, low, high = np.array([(effect.mean, effect.low, effect.high) for effect in effects]).T
        lines.append(Line(name=order, values=values, low=low, high=high))
    return Lines(
        lines=tuple(lines),
        ticks=tuple(map(str, swept.result.counts)),
        x_title="units replaced together",
        y_title=f"change of {swept.result.label(metric)}, mean over documents",
    )


def documents(swept: Swept, unit: int, metric: Metric) -> Table:
    """The effect of a unit in each document, the most harmful first."""
    result = swept.result
    i = result.measured.index(unit)
    before, after = result.baseline[metric], result.values[metric][i]
    right = result.baseline[Metric.EXACT], result.values[Metric.EXACT][i]
    rows = []
    for document in np.argsort(-metric.harm * (after - before), kind="stable"):
        prompt = result.prompts[document]
        values = after[document] - before[document], before[document], after[document]
        answered = ("yes" if exact[document] else "no" for exact in right)
        rows.append((prompt.group, prompt.question, prompt.answer, *map(float, values), *answered))
    headers = (
        "story",
        "question",
        "answer",
        f"change of {swept.result.label(metric)}",
        "as it is",
        "replaced",
        "right as it is",
        "right replaced",
    )
    return Table(columns=columns_of(headers, rows))


def screening_note(swept: Swept) -> str | None:
    """How well the estimates agree with the measurements; None if all units were measured."""
    screening = swept.result.screening
    if screening is None:
        return None
    return (
        f"Screened: {len(swept.result.parts)} units estimated by joint integrated gradients,"
        f" {len(swept.result.measured)} of them measured ({len(screening.top)} with the largest estimates,"
        f" {len(screening.random)} drawn at random). r(estimated, measured) = {screening.r:.3f}, slope"
        f" {screening.slope:.2f}. Units that were only estimated are hatched."
    )
