"""Laws of provenance: title, caption, alternative text and sidecar of a figure name model, item, unit and changes."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from app.charts import (
    AblationChart,
    Chart,
    ExperimentChart,
    OfAblation,
    OfExperiment,
    OfPatching,
    OfProbe,
    OfRun,
    OfSweep,
    OfUpdates,
    PatchingChart,
    ProbeChart,
    RunChart,
    SlotChart,
    SteeringChart,
    SweepChart,
    UpdateChart,
)  # fmt: skip
from app.export.figure_spec import FigureSpec
from app.export.files import FileFormat, caption, render
from app.export.sidecar import sidecar
from app.figures.print.page import Paper
from app.figures.screen.html import interactive
from app.views.kinds import Bars, Provenance, Table
from app.views.latex import latex, markdown
from app.views.numbers import digest
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import (  # fmt: skip
    BankEdit,
    Carry,
    Edit,
    Freeze,
    Intervention,
    MemoryOff,
    Persistence,
    Reset,
    WriteBlock,
)
from lm2.runs.operations import Add, Permute, ProjectOut, Scale, Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.serialize import kinds_of
from lm2.weights.checkpoint import Checkpoint
from probes.causal.patching import PatchSpec
from probes.causal.steering import Steering
from probes.experiments.experiment import ExperimentSpec
from probes.explain.spec import ExplainSpec
from probes.findings import columns_of
from probes.probing.spec import ProbeSpec
from probes.sweeps.grid import Replacement, UnitGrid
from probes.sweeps.spec import SweepSpec

TEXT = "Mary moved to the garden. John went to the office.\fWhere is Mary?"
SPEC = RunSpec(
    checkpoint="toy-gated",
    text=TEXT,
    captures=(Capture(Site.READ_PATTERN), Capture(Site.GATE_FORGET)),
    interventions=(Freeze(segment=1),),
)
EDITS = {
    MemoryOff(): "memory off", MemoryOff(layers=(1, 2), segments=(0,)): "memory off in blocks 1-2, segment 0",
    Freeze(segment=3): "writes frozen from segment 3 on", Reset(segment=2): "bank reset before segment 2",
    Carry(texts=("a b", "c")): "bank carried over from 2 other texts",
    WriteBlock(tokens=(3, 4, 5)): "tokens 3-5 cannot write",
    BankEdit(operation=Set(value=0.0), slots=(1, 4)): "slots 1,4 zeroed",
    BankEdit(operation=Permute(order=(1, 0)), persistence=Persistence.READ_ONLY): "bank permuted, for reading alone",
    BankEdit(operation=Initial(), segments=(2,)): "bank as at the start in segment 2",
    Edit(site=Site.GATE_FORGET, operation=Set(value=0.5), layers=(2,)): "forget gate set to 0.5 in block 2",
    Edit(site=Site.READ_V, operation=Mean(texts=("a", "b", "c")),
        heads=(0,)): "READ_V at the mean of 3 other texts in head 0",
    Edit(site=Site.RESID_POST, operation=Scale(by=2.0), tokens=(7,)): "RESID_POST scaled by 2 in token 7",
    Edit(site=Site.RESID_POST, operation=Patch(text="Mary went home.")): "RESID_POST from the text “Mary went home.”",
    Edit(site=Site.RESID_POST, operation=Add(direction=(1.0,))): "RESID_POST moved along a direction",
    Edit(site=Site.RESID_POST, operation=ProjectOut(direction=(1.0,))): "RESID_POST without a direction",
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_an_intervention_is_told_in_words(edit) -> None:
    assert edit.words == EDITS[edit]


def test_every_kind_of_intervention_has_words() -> None:
    assert {type(edit) for edit in EDITS} == set(kinds_of(Intervention).values())


@pytest.fixture(scope="module")
def trace(gated: Checkpoint):
    return run(gated, SPEC)


@pytest.mark.parametrize("shown", [OfRun.READS, OfRun.TEXT, OfRun.GATE_SPREAD, OfRun.TOKEN])
def test_a_figure_of_a_changed_run_says_so_wherever_it_speaks(shown: OfRun, gated: Checkpoint, trace) -> None:
    chart = RunChart(spec=SPEC, shown=shown, slot=1, item="qa1 story 3, question 1")
    made, spec = chart.computed(gated, trace), FigureSpec(charts=(chart,), page=Paper(venue="icml", title="Mine"))
    drawn, change = spec.draw([made]), "writes frozen from segment 1 on"
    assert change in drawn.title and change in made.view.alt and change in caption(drawn)
    assert change in " ".join(" ".join(text.get_text().split()) for text in drawn.figure.findobj(Text))
    page = interactive(drawn)
    assert page.count(change) >= 3 and f"Mine ({change})" in page
    assert change.encode() in render(drawn, FileFormat.SVG)
    [record] = sidecar(spec, [made])["made"]
    for words in (caption(drawn), record["of"], made.view.alt):
        assert "toy-gated on qa1 story 3, question 1" in words and "Where is Mary?" in words and change in words
    assert record["shown"].startswith(chart.words)


def test_a_plain_run_has_no_changes_in_its_title(gated: Checkpoint) -> None:
    chart = RunChart(spec=replace(SPEC, interventions=()), shown=OfRun.READS)
    drawn = FigureSpec(charts=(chart,), page=Paper(venue="icml", title="Mine")).draw(
        [chart.computed(gated, run(gated, chart.spec))]
    )
    assert drawn.title == "Mine" and "changed" not in caption(drawn)


CHARTS: dict[str, Chart] = {
    "ablation": AblationChart(spec=SPEC, shown=OfAblation.TEXT), "patching": PatchingChart(
        spec=PatchSpec(checkpoint="toy", text=TEXT, row=3, donor="Mary left.", donor_row=1, own=5, other=7),
        shown=OfPatching.ALONE
    ),
    "walk": UpdateChart(spec=replace(SPEC, captures=(), interventions=()), shown=OfUpdates.STEPS, tokens=4, frozen=1,
        layer=2, probe=(3,), writes="off"),
    "walks": UpdateChart(spec=replace(SPEC, captures=(), interventions=()), shown=OfUpdates.COURSE, tokens=4, frozen=1,
        layer=2, probe=(3,)),
    "steering": SteeringChart(spec=replace(SPEC, captures=(), interventions=()), tokens=4,
        steering=Steering(toward="garden", away="office", layer=1, strength=1.5, seed=3)),
    "sweep": SweepChart(spec=SweepSpec(checkpoint="toy", grid=UnitGrid.SLOTS, replacement=Replacement.ZERO),
        shown=OfSweep.EFFECTS),
    "gate sweep": SweepChart(spec=SweepSpec(checkpoint="toy", grid=UnitGrid.GATES), shown=OfSweep.RANKING),
    "experiment": ExperimentChart(spec=ExperimentSpec(experiment="swap", checkpoint="toy"),
        shown=OfExperiment.FOREST),
}  # fmt: skip
WORDS = {
    "ablation": "writes frozen from segment 1 on", "patching": "each slot of the donor's bank",
    "walk": "writes frozen from segment 1 on",
    "walks": "where writes are off", "sweep": "each slot zeroed", "gate sweep": "each gate clamped",
    "experiment": "bank swap", "steering": "steered from 'office' to 'garden' by 1.5 times the typical norm",
}  # fmt: skip


@pytest.mark.parametrize("kind", CHARTS)
def test_every_kind_of_chart_that_changes_a_run_says_what_it_changes_and_of_what(kind: str) -> None:
    made_of = CHARTS[kind].provenance
    assert any(WORDS[kind] in change for change in made_of.changes) and made_of.model and made_of.item


def test_every_replacement_and_every_grid_of_a_sweep_has_words() -> None:
    for grid in UnitGrid:
        for replacement in Replacement:
            try:
                spec = SweepSpec(checkpoint="toy", grid=grid, replacement=replacement)
            except ValueError:
                continue
            assert SweepChart(spec=spec, shown=OfSweep.EFFECTS).provenance.changes


def test_charts_of_many_texts_say_which() -> None:
    probe, slot = (
        ProbeChart(spec=ProbeSpec(checkpoint="toy"), shown=OfProbe.MAP),
        SlotChart(spec=ExplainSpec(checkpoint="toy"), slot=1),
    )
    assert (
        "200 simulated stories of each of qa1" in probe.provenance.words
        and "64 held out stories of each of qa1" in slot.provenance.words
    )


def test_a_table_of_changed_runs_says_so_below_it() -> None:
    view = Table(columns=columns_of(("unit", "effect"), [("slot 1", 0.5)]))
    changed = replace(view, provenance=CHARTS["sweep"].provenance)
    for write in (latex, markdown):
        assert "each slot zeroed" in write(changed) and "zeroed" not in write(view)
    assert latex(changed).count(r"\\") == 2


def test_a_title_names_a_few_changes_and_counts_the_others() -> None:
    view = Bars(
        values=np.ones(1),
        labels=("a",),
        x_title="slot",
        y_title="weight",
        provenance=Provenance(changes=("one", "two", "three", "four")),
    )
    assert view.titled("Mine") == "Mine (one; two; 2 more changes)" and "one; two; three; four" in view.alt
    assert view.titled("Mine, with one; two; 2 more changes").count("one") == 1


def test_where_a_view_is_from_is_no_part_of_its_numbers() -> None:
    view = Bars(values=np.ones(1), labels=("a",), x_title="slot", y_title="weight")
    assert digest(view) == digest(replace(view, provenance=Provenance(model="toy")))
