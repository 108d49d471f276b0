"""Laws of probes.experiments.side_by_side: the spread between seeds stands beside the interval within each."""

import json
from dataclasses import replace

import pytest

from lm2.intervals import Bounded
from lm2.weights.checkpoint import Checkpoint
from probes.experiments.experiment import ExperimentReport, ExperimentSpec, perform
from probes.experiments.side_by_side import SeedsReport, check_seeds
from probes.findings import NOTHING, Column, Findings, columns_of


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


def _findings(right: tuple[float, float], title: str = "Curve", labels: tuple[int, int] = (1, 4)) -> Findings:
    headers = ("distance", Column("right", "%"), "questions", Column("change", "nats"), "words")
    rows = [(at, Bounded(each, each - 5, each + 5), 7, NOTHING, "x") for at, each in zip(labels, right)]
    return Findings(title=title, columns=columns_of(headers, rows), note=f"half-life {right[0]:g}")


def _report(*seeds: Findings) -> SeedsReport:
    return SeedsReport(
        reports=tuple(
            ExperimentReport(
                spec=ExperimentSpec(experiment="forgetting", checkpoint=f"s{at}"),
                checkpoint_digest="", device="cpu", dtype="float32", questions_digest="", skipped=(),
                findings=(findings,),
            )
            for at, findings in enumerate(seeds)
        )
    )  # fmt: skip


def test_each_measured_column_has_mean_least_most_and_every_seed_with_its_own_interval() -> None:
    report = _report(_findings((90, 50)), _findings((60, 40)), _findings((90, 30)))
    right, questions, change = report.findings
    assert (right.title, questions.title, change.title) == ("Curve: right", "Curve: questions", "Curve: change")
    assert right.as_columns() == {
        "distance": [1, 4],
        "mean over seeds (%)": [80, 40], "least (%)": [60, 30], "most (%)": [90, 50],
        "s0 (%)": [90, 50], "s0_low (%)": [85, 45], "s0_high (%)": [95, 55],
        "s1 (%)": [60, 40], "s1_low (%)": [55, 35], "s1_high (%)": [65, 45],
        "s2 (%)": [90, 30], "s2_low (%)": [85, 25], "s2_high (%)": [95, 35],
    }  # fmt: skip
    assert "s1: half-life 60" in right.note and "half-life" not in questions.note
    assert all(cell != cell for cell in change.columns[1].values)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["findings"][2]["rows"][0][1] is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_findings((60, 40), labels=(1, 5)), "'Curve' has other rows or columns of s1 than of s0"),
        (_findings((60, 40), title="Line"), "s1 has no table 'Curve', which s0 has"),
    ],
)
def test_a_table_with_other_rows_is_left_out_with_a_sentence(other: Findings, words: str) -> None:
    report = _report(_findings((90, 50)), other)
    assert report.findings == () and report.apart == (words,)


def test_seeds_differ_in_their_weights_and_in_nothing_else(gated: Checkpoint, plain: Checkpoint) -> None:
    check_seeds([gated, replace(gated, name="other", digest="other")])
    with pytest.raises(ValueError, match=rf"{plain.name} differs from {gated.name} in .*memory"):
        check_seeds([gated, plain])
    with pytest.raises(ValueError, match="are the same model"):
        check_seeds([gated, gated])


def test_an_experiment_on_one_model_twice_has_no_spread(gated: Checkpoint) -> None:
    spec = ExperimentSpec(experiment="policies", checkpoint=gated.name, count=4)
    once = perform(gated, spec)
    twice = SeedsReport(reports=(once, replace(once, spec=replace(spec, checkpoint="other"))))
    assert twice.findings and not twice.apart
    for table in twice.findings:
        mean, least, most = table.columns[1:4]
        assert least.values == most.values == pytest.approx(mean.values, nan_ok=True)
        assert table.columns[4].low == table.columns[5].low
