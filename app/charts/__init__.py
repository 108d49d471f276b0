"""Charts by the kind of result that they show; `chart_of` reads any of them from its JSON form."""

from app.charts.ablation import AblationChart, OfAblation
from app.charts.benchmark import BenchmarkChart, OfBenchmark
from app.charts.chart import Chart, ComputedChart
from app.charts.experiment import ExperimentChart, OfExperiment
from app.charts.patching import OfPatching, PatchingChart
from app.charts.probe import OfProbe, ProbeChart
from app.charts.run import OfRun, RunChart
from app.charts.slots import SlotChart
from app.charts.sweep import OfSweep, SweepChart
from app.charts.updates import OfUpdates, UpdateChart
from lm2.serialize import build

__all__ = [
    "AblationChart",
    "BenchmarkChart",
    "Chart",
    "ComputedChart",
    "ExperimentChart",
    "OfAblation",
    "OfBenchmark",
    "OfExperiment",
    "OfPatching",
    "OfProbe",
    "OfRun",
    "OfSweep",
    "OfUpdates",
    "PatchingChart",
    "ProbeChart",
    "RunChart",
    "SlotChart",
    "SweepChart",
    "UpdateChart",
    "chart_of",
]

_KINDS = {
    kind.__name__: kind
    for kind in (
        RunChart,
        AblationChart,
        PatchingChart,
        UpdateChart,
        SlotChart,
        ProbeChart,
        SweepChart,
        ExperimentChart,
        BenchmarkChart,
    )
}


def chart_of(values: object) -> Chart:
    """A chart from its JSON form. Raises ValueError for a kind or field that does not exist, and for values that make
    no sense."""
    return build("chart", _KINDS, values)
