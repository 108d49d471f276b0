"""Sweeps: every unit of a grid replaced, one by one, in many documents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import OfSweep, SweepChart
from app.figures.palettes import Stretch
from app.server import cache
from app.ui import export_panel, job_panel, panels, progress, say, session, state, widgets
from app.views.study import sweeps
from app.views.study.sweeps import Swept
from probes.stats.metrics import Metric

if TYPE_CHECKING:
    from app.views.kinds import Heatmap
    from lm2.model.config import LM2Config
    from lm2.tasks.sets.question_set import QuestionSet
    from lm2.weights.checkpoint import Checkpoint
    from probes.sweeps.spec import SweepSpec

_GRIDS = {
    "slots": "Slot × block × segment",
    "memory_heads": "Memory head × block",
    "attention_heads": "Attention head × block",
    "blocks": "Attention, memory, MLP × block",
    "gates": "Gate × value",
}
_MEANING = {
    "slots": "A unit is what one block reads in one slot.",
    "memory_heads": "A unit is what one memory head reads in one block.",
    "attention_heads": "A unit is what one head of self-attention adds in one block.",
    "blocks": "A unit is what self-attention, memory or MLP of one block adds to the residual stream.",
    "gates": "A unit is a gate clamped to 0, 0.5 or 1 in all blocks, segments, slots and features.",
}
_BANK_SLOTS = "A unit is one slot of the bank with which the segment begins; all blocks read the same one."
_REPLACEMENTS = {
    "resample": "the same place of another story's run",
    "mean": "the mean of that place over 8 other stories",
    "initial": "what is read in the bank at the start of a document",
    "zero": "zero, a value that the model may never have seen",
}
_ROUTES = {"exact": "everything after it", "answer": "only the answer"}
_REACH = (
    "What is recomputed after a unit is replaced: everything after it, as in a run, or only the"
    " tokens that predict the answer, with the tokens before them unchanged. The latter is another"
    " question, and many times faster."
)
_BACK = "Counted back from the segment in which the answer is predicted."
_SCREEN = (
    "0 measures every unit. K estimates all of them by joint integrated gradients, and measures the"
    " 2K with the largest estimates and 32 drawn at random. If estimates and measurements do not"
    " agree, no ranking is shown."
)
_TOGETHER = (
    "Mean and 95 % interval. If units can substitute for each other, single effects look harmless and"
    " the joint effect does not. If each one alone breaks the same thing, the sum of the single"
    " effects exceeds the joint effect."
)
_NO_SUM = "The sum of single effects needs all of them to be measured, without estimates."
_CUMULATIVE = (
    "Best first: the units that do most harm alone come first; worst first: they come last. The order"
    " for a story comes from the other half of the stories, so that no curve profits from the noise"
    " that determined its order. Bands are 95 % intervals."
)
_SHOWN = {
    "One at a time": OfSweep.EFFECTS,
    "Together": OfSweep.JOINTS,
    "Largest effects": OfSweep.RANKING,
    "More and more together": OfSweep.CUMULATIVE,
}
_MOST_BACK = 8
_MOST_ROWS = 15


def render() -> None:
    st.header("Sweeps")
    st.write(
        "Every unit of a grid is replaced, one by one, while the model answers many questions."
        " What does each contribute to the answer?"
    )
    checkpoint = session.open_checkpoint()
    if checkpoint is None:
        return
    _choose(checkpoint.config)
    asked = job_panel.questions()
    if asked is None:
        return
    try:
        chart = SweepChart(spec=_spec(checkpoint, asked), shown=OfSweep.EFFECTS)
        if not job_panel.is_finished(chart, checkpoint):
            _cost(checkpoint, chart.spec)
    except ValueError as error:
        say.info("There is no such sweep: {}.", error)
        return
    swept = job_panel.result_of(chart, checkpoint, "Run the sweep", "step")
    if swept is not None:
        _show(checkpoint, swept, chart)
    name, tables = f"sweep-{chart.spec.grid.value}", None if swept is None else swept.result.tables
    titles = ("units", "values", "joints", "curves")
    job_panel.reproduce(checkpoint, name, chart.spec, "lm2 sweep {} --out FOLDER", tables, titles)


def _choose(config: LM2Config) -> None:
    """The grid, what replaces its units and where, and what is measured."""
    left, middle, right = st.columns([3, 2, 4])
    help = "What is replaced, one by one."
    grid = widgets.select("Units", "sweeps.grid", _grids(config), show=_GRIDS.__getitem__, help=help, at=left)
    help = "Ranks the units, and is estimated if you measure only some. All metrics are measured."
    widgets.select("Metric", "sweeps.ordered", show=sweeps.metric_name, help=help, at=middle)
    if grid == "gates":
        st.caption(_MEANING[grid])
        return
    replacements = [name for name in _REPLACEMENTS if name != "initial" or grid == "slots"]
    replacement = widgets.buttons("Replaced by", "sweeps.replacement", replacements, at=right)
    left, middle, right = st.columns([14, 18, 9])
    route = widgets.buttons("Recomputed", "sweeps.route", show=_ROUTES.__getitem__, help=_REACH, at=left)
    if route == "exact":
        if not state.current().sweeps.back:
            state.update("sweeps", back=(0,))
        segments = range(_MOST_BACK)
        widgets.pills("Segments", "sweeps.back", segments, show=sweeps.segment_name, help=_BACK, at=middle)
        widgets.number("Measure only the best", "sweeps.screened", help=_SCREEN, at=right)
    meaning = _BANK_SLOTS if grid == "slots" and config.memory.design.bank_in_stream else _MEANING[grid]
    say.caption("{} It is replaced by " + _REPLACEMENTS[replacement] + ".", meaning)


def _grids(config: LM2Config) -> list[str]:
    """The grids of which the model has a unit."""
    from probes.sweeps.grid import UnitGrid, parts

    grids = []
    for grid in UnitGrid:
        try:
            parts(grid, config, (0,), (0.0,))
        except ValueError:
            continue
        grids.append(grid.value)
    return grids


def _spec(checkpoint: Checkpoint, asked: QuestionSet) -> SweepSpec:
    """The chosen sweep. Raises ValueError for choices that do not go together."""
    from probes.causal.plan import Route
    from probes.sweeps.grid import Replacement, UnitGrid
    from probes.sweeps.spec import SweepSpec

    choice, questions = state.current().sweeps, state.current().questions
    first = Metric(choice.ordered)
    spec = SweepSpec(
        checkpoint=checkpoint.name,
        grid=UnitGrid(choice.grid),
        questions=asked.name,
        count=len(asked),
        segment_length=session.segment_length(),
        seed=questions.seed,
        metrics=(first, *(metric for metric in Metric if metric is not first)),
    )
    if spec.grid is UnitGrid.GATES:
        return spec
    route = Route(choice.route)
    return replace(
        spec,
        replacement=Replacement(choice.replacement),
        back=choice.back if route is Route.EXACT else (0,),
        route=route,
        screen=(choice.screened or None) if route is Route.EXACT else None,
    )


def _cost(checkpoint: Checkpoint, spec: SweepSpec) -> None:
    """What the sweep will cost. Raises ValueError if it cannot be run."""
    with st.spinner("Predicting the cost ..."):
        cost = cache.prediction(checkpoint, spec)
    say.markdown(
        "**{:,} units × {:,} documents: about {}**; running a whole document for every unit would take {}.",
        cost.units,
        cost.documents,
        progress.duration(cost.planned_seconds),
        progress.duration(cost.naive_seconds),
    )


def _show(checkpoint: Checkpoint, swept: Swept, chart: SweepChart) -> None:
    """The map beside joint effects; a cell in detail; ranking and curves."""
    result = swept.result
    left, right = st.columns([3, 2])
    names = ["", *(metric.value for metric in result.spec.metrics[1:])]
    name = widgets.select(
        "Shown", "sweeps.metric", names, show=lambda name: sweeps.metric_name(name or result.metric.value), at=left
    )
    metric = Metric(name) if name else result.metric
    cells = {"on": "hidden", "off": "shown"}
    hide = widgets.buttons("Cells with q > 0.05", "sweeps.hidden", show=cells.__getitem__, at=right) == "on"
    say.caption("{}", sweeps.baseline_note(swept, metric))
    screened = sweeps.screening_note(swept)
    if screened is not None:
        say.caption("{}", screened)
    unit = state.choice("sweeps.unit", len(result.parts))
    chart = replace(chart, metric=metric, hide=hide)
    made = {
        title: replace(chart, shown=shown).computed(checkpoint, swept)
        for title, shown in _SHOWN.items()
        if _has(swept, metric, shown)
    }
    left, right = st.columns([3, 2])
    with left:
        st.subheader("One at a time")
        _map(swept, metric, unit, made["One at a time"].view, hide=hide)
    together = made["Together"].view
    height = None if len(together.rows) <= _MOST_ROWS else 36 * _MOST_ROWS
    note = _TOGETHER if screened is None else f"{_TOGETHER} {_NO_SUM}"
    panels.panel(together, "joints", "Together", note, at=right, height=height)
    _documents(swept, metric, unit)
    left, right = st.columns(2)
    with left:
        st.subheader("Largest effects")
        _ranking(swept, metric)
    if "More and more together" in made:
        cumulative = made["More and more together"].view
        panels.panel(cumulative, "cumulative", "More and more together", _CUMULATIVE, at=right)
    export_panel.render(made)


def _has(swept: Swept, metric: Metric, shown: OfSweep) -> bool:
    """Units that exclude each other have no curves, and estimates that failed give no ranking."""
    if shown is OfSweep.CUMULATIVE:
        return bool(swept.curves[metric])
    return shown is not OfSweep.RANKING or swept.result.ranking() is not None


def _map(swept: Swept, metric: Metric, unit: int | None, view: Heatmap, *, hide: bool) -> None:
    layout = sweeps.layout(swept.result.parts)
    row, column = (None, None) if unit is None else layout.of(unit)
    if hide and view.masked.all():
        st.info(
            f"No cell differs from chance at q ≤ {sweeps.SIGNIFICANT:g}. Ask more questions, or show all cells.",
            icon=":material/info:",
        )
    height = min(720, max(240, 18 * len(layout.rows) + 110))
    cell = panels.clickable_map(view, "sweep", row, column, Stretch.LINEAR, height)
    say.caption("{}" + (" The others are hatched." if hide else ""), sweeps.map_note(swept, metric))
    if cell is not None:
        state.click("sweeps", unit=layout.places.get((cell.row, cell.column)))


def _documents(swept: Swept, metric: Metric, unit: int | None) -> None:
    """The chosen cell's effect in each story."""
    st.subheader("Details of a cell" if unit is None else say.words("Details of {}", swept.result.parts[unit].label))
    if unit is None:
        st.caption("Click a cell of the map to see the effect of replacing it in each story.")
    elif unit not in swept.result.measured:
        st.caption("This unit was only estimated, not measured.")
    else:
        say.caption("{}", sweeps.effect_note(swept, unit, metric))
        panels.table(sweeps.documents(swept, unit, metric), "documents", 320)


def _ranking(swept: Swept, metric: Metric) -> None:
    from probes.sweeps.screening import TRUSTED

    ranking = sweeps.ranking(swept, metric)
    if ranking is None:
        say.warning(
            "r(estimated, measured) = {:.2f}, which is below {:g}: units that matter may have been missed, so"
            " none are ranked. Measure more units, or all with 0.",
            swept.result.screening.r,
            TRUSTED,
        )
        return
    panels.table(ranking, "ranking")
    say.caption("{}", sweeps.ranking_note(swept, metric))
