"""Charts by the kind of result that they show. `Chart.from_json` knows the kinds that are imported here."""

from app.charts.ablation import AblationChart, OfAblation
from app.charts.benchmark import BenchmarkChart, OfBenchmark
from app.charts.chart import Chart, ComputedChart
from app.charts.experiment import ExperimentChart, OfExperiment
from app.charts.patching import OfPatching, PatchingChart
from app.charts.probe import OfProbe, ProbeChart
from app.charts.run import OfRun, RunChart
from app.charts.slots import SlotChart
from app.charts.steering import OfSteering, SteeringChart
from app.charts.sweep import OfSweep, SweepChart
from app.charts.updates import OfUpdates, UpdateChart

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
    "OfSteering",
    "OfSweep",
    "OfUpdates",
    "PatchingChart",
    "ProbeChart",
    "RunChart",
    "SlotChart",
    "SteeringChart",
    "SweepChart",
    "UpdateChart",
]
