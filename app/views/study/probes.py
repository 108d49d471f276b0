"""Results of linear probes: scores by source and segment, baselines, and misclassified rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Best, Heatmap, Line, Lines, Table, visible
from app.views.markdown import plain
from lm2.intervals import Bounded
from probes.findings import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from probes.features.examples import Examples
    from probes.features.sources import Source
    from probes.features.targets import Target
    from probes.probing.directions import TopTokens
    from probes.probing.result import ProbeCell, ProbeResult
    from probes.stats.scores import Estimate
    from probes.stats.selectivity import Choice

ALL = "all"
"""All segments together, in the place of a segment's number."""
_AROUND = 24
"""Tokens to either side of a row's token that are shown."""
_MISREAD = 20
_MOST_ROWS = 24
"""With more, the map leaves out the baselines of other models."""

Place = tuple["Source", "Target", "int | str"]
"""A source, a target and a segment."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """A finished probe with its statistics, which take longer to compute than to draw."""

    result: ProbeResult
    cells: Mapping[Place, ProbeCell]
    controls: Mapping[Place, Estimate]
    """Balanced accuracies of the control task."""
    best: Mapping[Target, Choice]
    """The best of several sources; empty if there is one source."""

    @property
    def rows(self) -> tuple[Source, ...]:
        """The sources and their baselines; if these are many, only baselines that all sources share."""
        plan = self.result.plan
        few = len(plan.sources) + len(plan.baselines) <= _MOST_ROWS
        return (*plan.sources, *(baseline for baseline in plan.baselines if few or baseline.label == baseline.name))

    @property
    def columns(self) -> tuple[int | str, ...]:
        return (ALL, *self.result.segments)

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self.result.plan.labels)


def statistics(result: ProbeResult) -> Probed:
    """Computes all statistics of a probe."""
    from probes.stats.predictions import Measure
    from probes.stats.scores import estimates  # SciPy takes half a second to import

    plan, cells = result.plan, result.cells
    controls = [
        result.control(source, target).where((plan.examples.segment == segment) | (segment == ALL))
        for source, target, segment in cells
    ]
    return Probed(
        result=result,
        cells=cells,
        best={target: result.best(target) for target in plan.labels} if len(plan.sources) > 1 else {},
        controls=dict(zip(cells, estimates(Measure.BALANCED_ACCURACY, controls, plan.spec.seed))),
    )


def has_classes(cell: ProbeCell) -> bool:
    """Whether the cell has rows of two classes or more."""
    return cell.score.n > 0 and cell.score.chance < 1


def source_name(probed: Probed, source: Source) -> str:
    """The source, marked if the probe of some fold and target did not converge."""
    unconverged = any(probed.result.readings[source, target].unconverged for target in probed.targets)
    return f"{source} !" if unconverged else str(source)


def score_map(probed: Probed, target: Target) -> Heatmap:
    """The headline score of every source, for all segments together and for each."""
    cells = [[probed.cells[source, target, segment] for segment in probed.columns] for source in probed.rows]
    score = cells[0][0].score
    return Heatmap(
        values=np.array([[cell.headline.value for cell in row] for row in cells]),
        row_labels=tuple(source_name(probed, source) for source in probed.rows),
        column_labels=tuple(map(str, probed.columns)),
        row_title="source",
        column_title="segment",
        value_title=f"{score.headline.label} of {target}",
        low=score.chance,
        high=1.0,
        masked=np.array([[not has_classes(cell) for cell in row] for row in cells]),
        boundaries=(0, 1) if len(probed.columns) > 1 else (),
        segment_labels=("", "one by one") if len(probed.columns) > 1 else (),
        row_kinds=tuple(map(str, probed.rows)),
        column_noun="segment",
    )


def map_note(probed: Probed, target: Target) -> str:
    """What the numbers and colours of the map are."""
    plan, cell = probed.result.plan, probed.cells[probed.rows[0], target, ALL]
    words = (
        f"Rows that the probe has not seen, pooled over {plan.spec.folds} folds of whole groups; “all” pools the"
        f" segments. Colours go from chance ({cell.score.chance:.3f}) to 1. The most frequent of"
        f" {len(plan.labels[target].names)} classes has {cell.score.majority:.0%} of the rows."
    )
    cells = [probed.cells[source, target, segment] for source in probed.rows for segment in probed.columns]
    if not all(map(has_classes, cells)):
        words += " Hatched: no rows, or rows of one class alone."
    if len(probed.rows) < len(plan.sources) + len(plan.baselines):
        words += " The curves of each source show what an untrained model and one without a memory give."
    if any(source_name(probed, source).endswith("!") for source in probed.rows):
        words += " !: the probes of some folds did not converge, so their numbers may change."
    return words


def curves(probed: Probed, source: Source, target: Target) -> Lines:
    """Balanced accuracy by segment: the task, the control task, and each baseline."""
    from probes.stats.predictions import Measure

    segments = probed.result.segments

    def scores(of: Source) -> list[Estimate]:
        return [probed.cells[of, target, segment].score.estimates[Measure.BALANCED_ACCURACY] for segment in segments]

    lines = {
        str(source): scores(source),
        "control task": [probed.controls[source, target, segment] for segment in segments],
        **{label: scores(baseline) for label, baseline in probed.result.baselines_of(source).items()},
    }
    known = np.array([has_classes(probed.cells[source, target, segment]) for segment in segments])
    return Lines(
        lines=tuple(_line(label, estimates, known) for label, estimates in lines.items()),
        ticks=tuple(map(str, segments)),
        x_title="segment",
        y_title=Measure.BALANCED_ACCURACY.label,
        y_range=(0, 1.02),
    )


def _line(label: str, estimates: Sequence[Estimate], known: np.ndarray) -> Line:
    values, low, high = (
        np.where(known, [getattr(estimate, end) for estimate in estimates], np.nan) for end in ("value", "low", "high")
    )
    return Line(name=label, values=values, low=low, high=high)


def source_table(probed: Probed, target: Target) -> Table:
    """The statistics of each source and baseline, for all segments together."""
    names = list(dict.fromkeys(label for source in probed.rows for label in probed.cells[source, target, ALL].gains))
    rows = []
    for source in probed.rows:
        cell = probed.cells[source, target, ALL]
        gains = [cell.gains[label].value if label in cell.gains else np.nan for label in names]
        scores = source_name(probed, source), _bounded(cell.headline), _bounded(cell.selectivity)
        rows.append((*scores, *gains, cell.compression, cell.p, cell.q, cell.score.n, cell.score.groups))
    label = probed.cells[probed.rows[0], target, ALL].score.headline.label
    beyond = [f"beyond {name}" for name in names]
    headers = ("source", label, "selectivity", *beyond, "compression", "p", "q", "rows", "groups")
    return Table(columns=columns_of(headers, rows), best={label: Best.HIGHEST} if len(rows) > 1 else {})


def target_table(probed: Probed, source: Source) -> Table:
    """The scores of one source for each target, in all segments and in the last, beside its baselines."""
    baselines, last = probed.result.baselines_of(source), probed.result.segments[-1]
    rows = []
    for target in probed.targets:
        cell = probed.cells[source, target, ALL]
        estimates = cell.headline, probed.cells[source, target, last].headline, cell.selectivity
        beside = [probed.cells[baseline, target, ALL].headline.value for baseline in baselines.values()]
        rows.append((str(target), *map(_bounded, estimates), *beside))
    label = probed.cells[source, probed.targets[0], ALL].score.headline.label
    return Table(columns=columns_of(("target", label, f"in segment {last}", "selectivity", *baselines), rows))


def gains(cell: ProbeCell) -> Table:
    """The bits of a cell beyond each baseline."""
    rows = [(label, _bounded(gain)) for label, gain in cell.gains.items()]
    return Table(columns=columns_of(("beyond", "bits per row"), rows))


def _bounded(estimate: Estimate) -> Bounded:
    return Bounded(estimate.value, estimate.low, estimate.high)


def best_source_note(probed: Probed, target: Target) -> str | None:
    """The score of the best source; None if there is one source."""
    if target not in probed.best:
        return None
    choice, plan = probed.best[target], probed.result.plan
    chosen = ", ".join(f"{source} in {count}" for source, count in zip(plan.sources, choice.chosen) if count)
    return (
        "Best source, chosen in each fold without the rows that evaluate it:"
        f" {probed.cells[plan.sources[0], target, ALL].score.headline.label} {choice.estimate}; it was {chosen} of"
        f" {plan.spec.folds} folds."
    )


def verdict(cell: ProbeCell) -> str:
    """What a cell shows and does not show, as Markdown."""
    if not has_classes(cell):
        return "Nothing to distinguish here"
    if not cell.headline.low > cell.score.chance:
        return "Not distinguishable from chance; **use not tested**"
    unbeaten = [] if cell.selectivity.low > 0 else ["the control task"]
    unbeaten += [label for label, gain in cell.gains.items() if not gain.low > 0]
    limit = f", but not beyond {', '.join(map(plain, unbeaten))}" if unbeaten else ""
    return f"**Decodable{limit}; use not tested**"


def erasable(probed: Probed, target: Target) -> bool:
    """Whether the erasure experiment covers the target: the place of a person for whom a qa1 question asks."""
    prompts = [encoded.prompt for encoded in probed.result.plan.examples.encoded_prompts]
    questions = {prompt.question for prompt in prompts if prompt.task == 1}
    return str(target) in {question.replace("Where is", "place of").removesuffix("?") for question in questions}


def description(cell: ProbeCell) -> str:
    """A cell's numbers in words."""
    if not has_classes(cell):
        return f"{cell.score.n} rows: {'all of one class' if cell.score.n else 'none has this target'}."
    return (
        f"{cell.score.headline.label.capitalize()} {cell.headline}, chance {cell.score.chance:.3f}; selectivity"
        f" {cell.selectivity}; {cell.score.n} rows in {cell.score.groups} groups. 95 % intervals, clustered by group."
    )


def cell_title(source: Source, segment: int | str) -> str:
    return f"{source}, {'all segments' if segment == ALL else f'segment {segment}'}"


def confusion(probed: Probed, source: Source, target: Target, segment: int | str) -> Heatmap:
    """Counts of held-out rows by true and predicted class."""
    counts = probed.result.confusion(source, target, segment)
    names = probed.result.plan.labels[target].names
    return Heatmap(
        values=counts.astype(float),
        row_labels=names,
        column_labels=names,
        row_title="truth",
        column_title="read as",
        value_title="held-out rows",
        low=0.0,
        high=float(max(1, counts.max())),
        counts=True,
        row_kinds=names,
        column_kinds=names,
    )


def misread(probed: Probed, source: Source, target: Target, segment: int | str) -> tuple[Table, int]:
    """The misclassified rows with the highest confidence, and the number of all misclassified rows."""
    plan = probed.result.plan
    task, names = probed.result.task(source, target), plan.labels[target].names
    in_cell = (task.labels >= 0) & (segment == ALL or plan.examples.segment == segment)
    chances = np.exp(task.log_probabilities)
    wrong = np.flatnonzero(in_cell & (task.predicted != task.labels))
    wrong = wrong[np.argsort(-chances[wrong].max(1, initial=0), kind="stable")]
    rows = []
    for row in wrong[:_MISREAD].tolist():
        classes = [task.labels[row], task.predicted[row]]
        story = plan.examples.encoded_prompts[plan.examples.document[row]].prompt.group
        place = _passage(plan.examples, row), int(plan.examples.segment[row]), story
        rows.append((*(names[i] for i in classes), *chances[row, classes[::-1]].tolist(), *place))
    headers = ("truth", "read as", "p(read as)", "p(truth)", "text", "segment", "story")
    return Table(columns=columns_of(headers, rows)), len(wrong)


def _passage(examples: Examples, row: int) -> str:
    """The row's segment, or the part of it around the row's token, which is in brackets."""
    encoded, token = examples.encoded_prompts[examples.document[row]], int(examples.place[row])
    segment = encoded.segments[examples.segment[row]]
    first, last = max(segment.start, token - _AROUND), min(segment.end, encoded.question.stop, token + _AROUND + 1) - 1
    spans, text = encoded.tokens.spans, encoded.tokens.text
    start, end = spans[token]
    words = f"{text[spans[first][0] : start]}⟦{text[start:end]}⟧{text[end : spans[last][1]]}"
    return ("" if first == segment.start else "… ") + " ".join(words.split())


def direction_tokens(top: TopTokens, names: Sequence[str], piece_of: Callable[[int], str]) -> Table:
    """The top tokens of each class's direction."""
    rows = [
        (name, "  ".join(visible(piece_of(int(token))) for token in tokens)) for name, tokens in zip(names, top.tokens)
    ]
    return Table(columns=columns_of(("class", "top tokens"), rows))
