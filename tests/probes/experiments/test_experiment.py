"""Laws of the experiments by name."""

import json
import subprocess
import sys

import pytest

from lm2.weights.checkpoint import Checkpoint
from probes.experiments.experiment import ExperimentSpec, perform
from probes.experiments.registry import EXPERIMENTS, experiment


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_every_experiment_reports_tables_that_say_what_was_pooled(key: str, gated: Checkpoint) -> None:
    heard: list[int] = []
    spec = ExperimentSpec(experiment=key, checkpoint=gated.name, count=4)
    report = perform(gated, spec, lambda done, expected: heard.append(done))
    assert heard == list(range(1, len(heard) + 1)) and heard
    assert experiment(key).question.endswith("?") and experiment(key).control
    for table in report.findings:
        names = list(table.as_columns())
        assert table.rows and table.note
        assert len(set(names)) == sum(1 if column.low is None else 3 for column in table.columns)
        assert {len(row) for row in table.rows} == {len(names)}
        assert not table.curve or table.columns[1].low is not None
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["spec_digest"] == report.spec.digest


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_a_spec_is_the_same_after_a_way_through_json(key: str) -> None:
    spec = ExperimentSpec(
        experiment=key, checkpoint="toy-gated", questions="babi:qa2", count=7, segment_length=9, seed=3
    )
    assert ExperimentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_an_experiment_says_the_key_by_which_it_is_found(key: str) -> None:
    assert experiment(key).key == key


def test_specs_have_the_digests_of_earlier_versions() -> None:
    spec = ExperimentSpec(experiment="swap", checkpoint="a", questions="babi:qa2", count=7, segment_length=9, seed=3)
    assert spec.digest == "fa04541ffbfafbcdfbfecd9e83fd2bf0acc60fa9d31d31ba6bdc74ea4065f968"


def test_keys_are_there_before_torch_is() -> None:
    code = "import sys, probes.experiments.registry as found; assert found.EXPERIMENTS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"experiment": "dance", "checkpoint": "toy"}, "no experiment is called 'dance'"),
        ({"experiment": "swap"}, "needs experiment and checkpoint"),
        ({"experiment": "swap", "checkpoint": "toy", "colour": 1}, "no fields"),
        ({"experiment": "swap", "checkpoint": "toy", "questions": " "}, "a question set is"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_in_a_sentence(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExperimentSpec.from_json(values)


def test_a_model_without_memory_has_nothing_to_ablate(plain: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no memory"):
        perform(plain, ExperimentSpec(experiment="swap", checkpoint=plain.name))


def test_a_memory_that_lacks_what_an_experiment_needs_is_told_so(rmt: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no gates to clamp"):
        perform(rmt, ExperimentSpec(experiment="gates", checkpoint=rmt.name))
