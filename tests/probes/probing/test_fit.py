"""Probes end to end, at toy size."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lm2.model.config import LM2Config, MemoryKind
from lm2.tasks.prompt import Label
from lm2.tasks.sets.question_set import questions, write
from probes.estimators.probe import Family
from probes.features import source_names, target_names
from probes.features.documents import Documents
from probes.probing.fit import probe
from probes.probing.plan import ProbePlan
from probes.probing.result import ALL, Reading
from probes.probing.spec import ProbeSpec
from probes.stats.predictions import Measure

MEAN, MARY = source_names.parse("bank:mean"), target_names.parse("place of Mary")
SPEC = ProbeSpec(
    checkpoint="toy", documents=Documents(count=24), sources=("bank:mean", "resid_post.1"),
    targets=("place of Mary", "fact told"),
    baselines=("tokens", "untrained", "reset"), strengths=(0.01, 1.0), folds=3, permutations=19,
)  # fmt: skip


@pytest.fixture(scope="module")
def toy(build):
    return build(
        LM2Config(
            memory=MemoryKind.GATED, d_vocab=360, d_model=16, n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=16,
            segment_length=16, attention_window=16,
            slots=4, slot_dim=16, memory_heads=2, memory_layers=(0, 1),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def probed(toy):
    return probe(SPEC, toy)


def test_every_source_and_baseline_is_read_for_every_target(probed):
    labels = {source.label for source, _ in probed.readings}
    assert labels == {
        "bank:mean", "resid_post.1", "tokens", "untrained bank:mean", "untrained resid_post.1", "reset bank:mean",
        "reset resid_post.1",
    }  # fmt: skip
    assert len(probed.readings) == 7 * 2
    assert set(probed.cells[MEAN, MARY, ALL].gains) == {"tokens", "untrained", "reset"}
    assert probed.cells[source_names.parse("tokens"), MARY, ALL].gains == {}


def test_a_row_is_judged_by_a_probe_that_has_not_seen_its_group(probed, toy):
    """The same rows with one group's labels changed: its own predictions stay as they are."""
    plan = probed.plan
    fold = plan.folds[0]
    labels = plan.labels[MARY]
    changed = labels.values.copy()
    changed[fold.test] = np.where(changed[fold.test] >= 0, (changed[fold.test] + 1) % len(labels.names), -1)
    other = probe(SPEC, toy, plan=replace(plan, labels=dict(plan.labels) | {MARY: labels._replace(values=changed)}))
    before, after = (one.readings[MEAN, MARY].log_probabilities for one in (probed, other))
    assert np.allclose(before[fold.test], after[fold.test], atol=1e-5)
    assert not np.allclose(before[fold.train], after[fold.train], atol=1e-3)


def test_a_stopped_probe_goes_on_with_the_sources_that_are_missing(probed, toy, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        probe(SPEC, toy, tmp_path, stop)
    first = []
    again = probe(SPEC, toy, tmp_path, lambda done, total: first.append(done))
    assert first[0] == 3
    for key, reading in probed.readings.items():
        assert np.array_equal(reading.log_probabilities, again.readings[key].log_probabilities)
        assert (reading.fits, reading.code, reading.permuted) == (
            again.readings[key].fits,
            again.readings[key].code,
            again.readings[key].permuted,
        )
    tables = again.tables()
    assert len(tables["cells"]) == 14 * (1 + len(again.segments)) and len(tables["examples"]) == len(
        again.plan.examples
    )
    assert (tmp_path / "metrics.parquet").is_file()


def test_a_folder_of_another_probe_is_refused(toy, tmp_path):
    probe(replace(SPEC, sources=("position",), baselines=()), toy, tmp_path)
    with pytest.raises(ValueError, match="another probe: its spec, spec_digest differ"):
        probe(SPEC, toy, tmp_path)


def test_what_is_packed_is_unpacked_again(probed):
    reading = probed.readings[MEAN, MARY]
    header, arrays = reading.pack()
    again = Reading.unpack(json.loads(json.dumps(header)), arrays)
    assert (again.fits, again.code, again.permuted) == (reading.fits, reading.code, reading.permuted)


def test_segments_part_the_rows(probed):
    whole = probed.cells[MEAN, MARY, ALL]
    parts = [probed.cells[MEAN, MARY, segment] for segment in probed.segments]
    assert sum(part.score.n for part in parts) == whole.score.n
    assert probed.confusion(MEAN, MARY).sum() == whole.score.n
    right = np.trace(probed.confusion(MEAN, MARY)) / whole.score.n
    assert right == pytest.approx(whole.score.estimates[Measure.ACCURACY].value)


def test_q_is_over_all_sources_and_targets(probed):
    cells = [probed.cells[source, target, ALL] for source in probed.plan.sources for target in probed.plan.labels]
    assert all(cell.q >= cell.p for cell in cells)
    assert np.isnan(probed.cells[source_names.parse("tokens"), MARY, ALL].p)


def test_the_best_source_is_chosen_without_the_rows_that_judge_it(probed):
    best = probed.best(MARY)
    assert sum(best.chosen) == SPEC.folds
    assert 0 <= best.estimate.low <= best.estimate.value <= best.estimate.high <= 1


def test_closed_forms_are_read_the_same_way(toy):
    probed = probe(
        replace(SPEC, family=Family.LDA, sources=("bank:mean",), baselines=(), strengths=(0.1,), permutations=0), toy
    )
    assert np.isnan(probed.cells[MEAN, MARY, ALL].p)
    assert all(fit.converged for fit in probed.readings[MEAN, MARY].fits)


def test_a_spec_is_the_same_after_a_way_through_json():
    assert ProbeSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


def test_labels_of_a_set_that_is_read_from_a_file_score_as_the_places_of_the_set_itself(toy, tmp_path, probed):
    write(questions("simulated:qa1", 24).prompts, tmp_path / "mine.jsonl")
    documents, label = Documents(questions=(str(tmp_path / "mine.jsonl"),)), target_names.parse("label place of Mary")
    spec = replace(SPEC, documents=documents, targets=(str(label), "fact told"))
    read = probe(spec, toy)
    assert np.array_equal(read.plan.labels[label].values, probed.plan.labels[MARY].values)
    assert np.array_equal(read.plan.groups, probed.plan.groups)
    own, again = probed.cells[MEAN, MARY, ALL], read.cells[MEAN, label, ALL]
    assert (own.score, own.selectivity, own.gains, own.p) == (again.score, again.selectivity, again.gains, again.p)
    assert read.plan.spec.documents.questions[0].startswith(f"{spec.documents.questions[0]}?sha256=")
    write(questions("simulated:qa1", 25).prompts, tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="holds something else than when it was named"):
        ProbePlan.of(read.plan.spec, toy)


def test_a_label_that_never_varies_where_a_fold_learns_it_is_refused_by_name(toy, tmp_path):
    rows = []
    for number, prompt in enumerate(questions("simulated:qa1", 6).prompts):
        mood = "sad" if number == 0 else "glad"
        rows.append(replace(prompt, labels=(Label("mood", mood, 0, len(prompt.text)),)))
    write(rows, tmp_path / "mine.jsonl")
    spec = replace(SPEC, documents=Documents(questions=(str(tmp_path / "mine.jsonl"),)), targets=("label mood",))
    with pytest.raises(ValueError, match=r"'label mood' is always 'glad' where fold \d learns it"):
        ProbePlan.of(spec, toy)
    write(rows[1:], tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="'label mood' has 1 class, 'glad', at these rows"):
        ProbePlan.of(spec, toy)


def test_a_label_that_no_row_has_is_said_to_be_absent_at_these_rows(toy, tmp_path):
    prompts = questions("simulated:qa1", 6).prompts
    write([replace(prompt, labels=(Label("mood", "sad", 0, 1),)) for prompt in prompts], tmp_path / "mine.jsonl")
    spec = replace(SPEC, documents=Documents(questions=(str(tmp_path / "mine.jsonl"),)), targets=("label mood",))
    with pytest.raises(ValueError, match="'label mood' has no class at these rows, moment segment"):
        ProbePlan.of(spec, toy)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"family": "svm"}, "family must be of"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"strengths": [0]}, "strengths must be positive"),
        ({"baselines": ["chance"]}, "baselines must be of tokens"),
        ({"sources": []}, "sources must hold one text at least"),
        ({"documents": {"kind": "Documents", "tasks": [11]}}, "simulated: has the tasks qa1 to qa10"),
        ({"colour": "red"}, "no fields"),
    ],
)
def test_specs_that_make_no_sense_are_refused_in_a_sentence(values, words):
    with pytest.raises(ValueError, match=words):
        ProbeSpec.from_json(SPEC.to_json() | values)


def test_a_target_of_one_class_is_refused(toy):
    with pytest.raises(ValueError, match="'question type' has 1 class"):
        ProbePlan.of(replace(SPEC, targets=("question type",)), toy)


def test_labels_of_ones_own_are_a_target(toy, tmp_path):
    plan = ProbePlan.of(SPEC, toy)
    rows = plan.examples.table().assign(
        label=["odd" if document % 2 else "even" for document in plan.examples.document]
    )
    rows.to_csv(tmp_path / "own.csv", index=False)
    spec = replace(
        SPEC, labels=str(tmp_path / "own.csv"), targets=("place of Mary",), sources=("bank:mean",), baselines=()
    )
    assert [str(target) for target in ProbePlan.of(spec, toy).labels] == [
        "place of Mary",
        f"labels {tmp_path / 'own.csv'}",
    ]
    digest = spec.digest
    rows.assign(label="one").to_csv(tmp_path / "own.csv", index=False)
    assert spec.digest != digest
