"""Laws of specifications: values of a wrong type are refused in a sentence, and JSON forms and digests never change."""

import copy
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from app.charts import (
    AblationChart,
    BenchmarkChart,
    ExperimentChart,
    OfAblation,
    OfBenchmark,
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
from app.figures.print.page import Annotation, Grid, Panel, Paper
from app.figures.print.venues import Columns, Venue
from lm2.files import read_json
from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMax, HeadMean, PooledMax, PooledMean, SlotMass, TopSlots, Whole
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import BankEdit, Carry, Edit, Freeze, MemoryOff, Persistence, Reset, WriteBlock
from lm2.runs.operations import Add, Erase, Permute, ProjectOut, Scale, Set, Transport
from lm2.runs.spec import RunSpec
from lm2.serialize import Spec
from lm2.training.config import TrainingConfig
from lm2.weights.bundled import FOLDER
from probes.causal.patching import PatchSpec
from probes.causal.plan import Route
from probes.causal.steering import Steering
from probes.estimators.probe import Family
from probes.experiments.experiment import ExperimentSpec
from probes.explain.spec import ExplainSpec, Signal
from probes.features.documents import Documents
from probes.features.examples import RowPosition
from probes.probing.spec import ProbeSpec
from probes.stats.metrics import Metric
from probes.sweeps.grid import Replacement, UnitGrid as Units
from probes.sweeps.spec import SweepSpec

RUN = RunSpec(
    checkpoint="a", text="Zoë 🙂\fWhere is Mary?", segment_length=9, seed=3,
    captures=(
        Capture(Site.GATE_IN, layers=(0, 2), segments=(1,)), Capture(Site.READ_PATTERN, TopSlots(3)),
        Capture(Site.READ_PATTERN, HeadMean()),
        Capture(Site.READ_PATTERN, HeadMax()), Capture(Site.READ_PATTERN, SlotMass()),
        Capture(Site.EMBED, PooledMax(4)),
        Capture(Site.EMBED, PooledMean(4)), Capture(Site.EMBED, Whole()),
    ),
    interventions=(
        Edit(site=Site.GATE_IN, operation=Set(value=0.5), layers=(0,), segments=(1,), slots=(1, 2)),
        Edit(site=Site.READ_PATTERN, operation=Patch(text="b", segment=-1), heads=(1,), tokens=(4, 5),
            persistence=Persistence.READ_ONLY),
        Edit(site=Site.EMBED, operation=Scale(by=2)), Edit(site=Site.EMBED, operation=Add(direction=(1, 0.5), by=3)),
        Edit(site=Site.EMBED, operation=ProjectOut(direction=(0, 1))),
        BankEdit(operation=Permute(order=(1, 0)), persistence=Persistence.READ_ONLY),
        BankEdit(operation=Erase(left=((1.0, 0.5),), right=((0.25, 1),), mean=(0, 1.5)), slots=(1,)),
        BankEdit(operation=Transport(matrix=((1, 0), (0, 1)), mean=(0, 1), to=(2, 3)), slots=(0,)),
        BankEdit(operation=Initial(), segments=(1,)), BankEdit(operation=Mean(texts=("b", "c"))), Freeze(segment=1),
        Reset(segment=2),
        Carry(texts=("d",)), WriteBlock(tokens=(1, 2)), MemoryOff(layers=(0,), segments=(1,)),
    ),
)  # fmt: skip
PLAIN = RunSpec(checkpoint="a", text="b")
PROBE = ProbeSpec(
    checkpoint="a",
    documents=Documents(questions=("babi:qa1", "babi:qa3"), count=9, seed=2, length="4k", templates=True),
    moment=RowPosition.TOKEN,
    segment_length=8,
    sources=("bank:mean", "bank:*"),
    targets=("place of *",),
    baselines=("tokens",),
    family=Family.LOGISTIC,
    strengths=(1, 0.5),
    folds=3,
    permutations=10,
    seed=5,
)
SWEEP = SweepSpec(
    checkpoint="a",
    grid=Units.SLOTS,
    questions="babi:qa2",
    count=3,
    segment_length=8,
    back=(0, 2),
    replacement=Replacement.INITIAL,
    donors=3,
    values=(0.0, 1.0),
    persistence=Persistence.READ_ONLY,
    route=Route.EXACT,
    metrics=(Metric.KL, Metric.EXACT),
    seed=4,
)
EXPLAIN = ExplainSpec(
    checkpoint="a",
    file="b.txt",
    segment_length=8,
    signals=(Signal.WRITE,),
    block=1,
    contexts=3,
    each=2,
    keywords=4,
    model="x",
    slots=(1, 2),
    items=6,
    seed=7,
)
EXPERIMENT = ExperimentSpec(experiment="swap", checkpoint="a", questions="babi:qa2", count=7, segment_length=9, seed=3)
PATCH = PatchSpec(checkpoint="a", text="b", row=1, donor="c", donor_row=2, own=3, other=4, segment_length=8)
CHARTS = (
    RunChart(spec=RUN, shown=OfRun.TEXT, layer=2, head="1", gate="in", slot=1, side="wrote", token=3, segment=0,
        marks=((1, 3, "fact"),), window=(0, 4)),
    AblationChart(spec=RUN, shown=OfAblation.TEXT, marks=((1, 3, "fact"),), window=(0, 4)),
    PatchingChart(spec=PATCH, shown=OfPatching.ALONE),
    UpdateChart(spec=PLAIN, shown=OfUpdates.COURSE, tokens=4, frozen=1, layer=0, head="1", writes="off", probe=(1, 2),
        before=1, after=2, token=3),
    SlotChart(spec=EXPLAIN, slot=1, side="wrote", passages=3),
    ProbeChart(spec=PROBE, shown=OfProbe.CONFUSION, target="t", source="s", segment=1),
    SweepChart(spec=SWEEP, shown=OfSweep.JOINTS, metric=Metric.KL, hide=False),
    ExperimentChart(spec=EXPERIMENT, shown=OfExperiment.CURVE, finding=1),
    BenchmarkChart(spec="x", shown=OfBenchmark.LEAD, task="qa1", metric="exact", pair="A - B", length="1k"),
)  # fmt: skip
PAPER = Paper(
    venue=Venue.ACL,
    columns=Columns.DOUBLE,
    height=2,
    title="t",
    x_title="x",
    y_title="y",
    letter="b",
    colours="cividis",
    annotations=(Annotation(x=1, y=2.5, text="here"),),
)
GRID = Grid(
    venue="tmlr", aspect=0.5, across=3, shared_scale=True, panels=tuple(Panel(title=str(at)) for at in range(9))
)
FIGURE = FigureSpec(charts=CHARTS, page=GRID)
STEERED = SteeringChart(
    spec=PLAIN, steering=Steering(toward="x", away="y", site=Site.MEM_OUT, layer=1, strength=-0.5, seed=3), tokens=4
)
TRAINING = TrainingConfig.from_json(read_json(FOLDER / "babi-lm2" / "training.json"))

DIGESTS = {
    RUN: "59edc5eb8e2880f6bd350d9b1938991400a90de8d246c5a5d79ec766b170826d",
    PLAIN: "8b4860ca36a88dc7cf9861566ae44c63f21e28bdad5c1872bb11c65612b23b9b",
    PROBE: "6f078bd1c60dd43212cffdbfae433101f8bf0d4d326fde68fab899da028dc4fe",
    SWEEP: "fc75f43f58f62843bb9df2f54c69fd21eee8d0a637bd33353f2730ce8df690e9",
    EXPLAIN: "81d6380b2a7b708046bf995c2bccd7de826e3ef1a1da5c2d0330df5135780e39",
    EXPERIMENT: "fa04541ffbfafbcdfbfecd9e83fd2bf0acc60fa9d31d31ba6bdc74ea4065f968",
    PATCH: "bf63e2b632a74502a2ef98badf2015ac0b1650555628515a564052d43192669f",
    PAPER: "e6fb7ff2a4d0651aa95a1c91758edbf2a2e1b51b36fe5aa8854d2abca60e23c9",
    STEERED: "3268b7a203cb1ab95812252c54ff8e317073a6d498b48061836a4f0412559846",
    FIGURE: "acdba0ea6ece406e841fccd9a140b077417d0794c95759393f935183415230bd",
}
"""Keys of files and caches."""
EVERY = [*DIGESTS, TRAINING]
OTHERS: dict[type, list[Any]] = {
    bool: [1, "true", None, [True], {}],
    int: [True, "1", 1.0, 1e400, 10**30, [1], {}],
    float: [True, "1", 1e400, float("nan"), 10**400, [1.0], {}],
    str: [1, True, 1.5, ["a"], {}, "\ud800"],
    list: [3, "ab", True, {}],
    dict: [3, "ab", True, [1]],
}
"""For each type of JSON value, values of other types."""


def within(value: Any) -> Iterator[Spec]:
    """A specification and all those within it."""
    if isinstance(value, Spec):
        yield value
        for field in fields(value):
            yield from within(getattr(value, field.name))
    elif isinstance(value, tuple):
        for entry in value:
            yield from within(entry)


def leaves(values: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of a specification itself, with its path."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if value is not None:
            yield (*path, key), value
            if isinstance(value, list):
                yield from leaves(value, (*path, key))


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: type(spec).__name__)
def test_a_spec_is_the_same_after_a_way_through_json_to_its_digest(spec: Spec) -> None:
    back = type(spec).from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec and back.digest == spec.digest == DIGESTS.get(spec, spec.digest)


@pytest.mark.parametrize("spec", list(dict.fromkeys(within((*EVERY,)))), ids=lambda spec: type(spec).__name__)
def test_a_value_of_another_kind_is_refused_in_one_sentence_that_names_its_field(spec: Spec) -> None:
    values = json.loads(json.dumps(spec.to_json()))
    for path, value in leaves(values):
        for other in OTHERS[type(value)]:
            changed = copy.deepcopy(values)
            below = changed
            for step in path[:-1]:
                below = below[step]
            below[path[-1]] = other
            with pytest.raises(ValueError) as refused:
                type(spec).from_json(changed)
            message, name = str(refused.value), str(path[0])
            assert "\n" not in message and len(message) < 900, message
            assert name == "kind" or name.rstrip("s") in message.lower(), (path, other, message)


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: type(spec).__name__)
def test_a_field_that_there_is_not_and_what_is_no_object_are_refused(spec: Spec) -> None:
    with pytest.raises(ValueError, match="has no fields .*colour"):
        type(spec).from_json(spec.to_json() | {"colour": "red"})
    for other in (None, [], "spec", 3, {}):
        with pytest.raises(ValueError):
            type(spec).from_json(other)


def test_what_an_error_shows_of_a_value_is_short_and_on_one_line() -> None:
    for value in ("x\n" * 10**6, list(range(10**6)), 10**1000, {"a": ["\x1b[31m" * 10**5]}):
        with pytest.raises(ValueError) as refused:
            RunSpec.from_json({"checkpoint": value if not isinstance(value, str) else [value], "text": "a"})
        assert len(str(refused.value)) < 300 and str(refused.value).isprintable()


def test_old_specs_of_documents_that_name_no_kind_still_open() -> None:
    assert Documents.from_json({"tasks": [2]}) == Documents(questions=("simulated:qa2",))
    assert Capture.from_json(
        {"site": "EMBED", "reduction": {"kind": "Whole"}, "layers": None, "segments": None}
    ) == Capture(Site.EMBED)
