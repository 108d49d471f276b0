"""Laws of the experiments by name."""

import json

import pytest

from lm2.weights.checkpoint import Checkpoint
from probes.experiments.experiment import Experiment, ExperimentSpec, perform


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


@pytest.mark.parametrize("experiment", Experiment)
def test_every_experiment_reports_tables_that_say_what_was_pooled(experiment: Experiment, gated: Checkpoint) -> None:
    heard: list[int] = []
    report = perform(gated, ExperimentSpec(experiment=experiment, checkpoint=gated.name, questions=4), heard.append)
    assert heard == list(range(1, len(heard) + 1)) and heard
    assert experiment.question.endswith("?") and experiment.control
    for found in report.findings:
        assert found.rows and found.note
        assert len(set(found.columns)) == len(found.columns) and {len(row) for row in found.rows} == {
            len(found.columns)
        }
        assert found.curve is None or set(found.curve) <= set(found.columns)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["spec_digest"] == report.spec.digest


@pytest.mark.parametrize("experiment", Experiment)
def test_a_spec_is_the_same_after_a_way_through_json(experiment: Experiment) -> None:
    spec = ExperimentSpec(experiment=experiment, checkpoint="toy-gated", task=2, questions=7, segment_length=9, seed=3)
    assert ExperimentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"experiment": "dance", "checkpoint": "toy"}, "no experiment is called 'dance'"),
        ({"experiment": "swap"}, "needs experiment and checkpoint"),
        ({"experiment": "swap", "checkpoint": "toy", "colour": 1}, "no fields"),
        ({"experiment": "swap", "checkpoint": "toy", "questions": "many"}, "whole number"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_in_a_sentence(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExperimentSpec.from_json(values)


def test_a_model_without_memory_has_nothing_to_ablate(plain: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no memory"):
        perform(plain, ExperimentSpec(experiment=Experiment.SWAP, checkpoint=plain.name))
