"""Laws of sweeps: what they find is what single runs find, and what was found is never asked twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import EVERY

from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Persistence
from lm2.runs.runner import run
from lm2.tasks import stories
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.tasks.prompt import Prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import joint_unit
from probes.causal.observe import answers
from probes.causal.plan import Route
from probes.causal.planner import answers_alone_under, answers_under
from probes.stats.effects import Redundancy
from probes.stats.metrics import Metric, measure
from probes.sweeps.grid import Replacement, UnitGrid, answer_segment, parts, sources
from probes.sweeps.result import SweepResult
from probes.sweeps.screening import Screening
from probes.sweeps.spec import SweepSpec
from probes.sweeps.sweep import predict, sweep

R = Replacement


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories of few statements in the place of the held-out ones."""

    def questions(task: int, count: int) -> tuple[Prompt, ...]:
        made = (simulate(task, seed=seed, statements=2 + seed % 2, questions=1).story for seed in range(count))
        return tuple(
            ask(replace(story, id=f"{story.id}-{seed}"), story.questions[-1]) for seed, story in enumerate(made)
        )

    monkeypatch.setattr(stories, "every_question", questions)


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return SweepSpec(checkpoint="toy-gated", count=4)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("grid", "replacements"),
    [
        (UnitGrid.SLOTS, (R.RESAMPLE, R.MEAN, R.INITIAL, R.ZERO)),
        (UnitGrid.MEMORY_HEADS, (R.RESAMPLE, R.MEAN, R.ZERO)),
        (UnitGrid.ATTENTION_HEADS, (R.RESAMPLE, R.MEAN, R.ZERO)),
        (UnitGrid.BLOCKS, (R.RESAMPLE, R.MEAN, R.ZERO)),
        (UnitGrid.GATES, (R.CLAMP,)),
    ],
)
def test_every_unit_of_every_grid_answers_as_in_a_run(
    request: pytest.FixtureRequest, kind: str, grid: UnitGrid, replacements: tuple[Replacement, ...]
) -> None:
    checkpoint = request.getfixturevalue(kind)
    lacking = (grid in (UnitGrid.SLOTS, UnitGrid.MEMORY_HEADS) and kind == "plain") or (
        grid is UnitGrid.GATES and kind in ("plain", "rmt")
    )
    if lacking:
        with pytest.raises(ValueError, match=f"kind {checkpoint.config.memory.value!r} has no"):
            parts(grid, checkpoint.config, (0,), (0.5,))
        return
    encoded_prompts = [encode_prompt(checkpoint, prompt) for prompt in stories.questions(1, 8)]
    for replacement in replacements:
        for persistence in (
            Persistence if kind in ("gated", "rmt") and replacement is R.INITIAL else (Persistence.PERSIST,)
        ):
            (source, *_), _ = sources(replacement, persistence, encoded_prompts, 1, 3, 0)
            units = [source.unit(part) for part in parts(grid, checkpoint.config, (0, 1), (0.0, 0.5))]
            units = [*units[:: max(1, len(units) // 4)], joint_unit(units)]
            expected = [
                run(checkpoint, replace(source.encoded.spec, interventions=unit)).logits[list(source.encoded.rows)]
                for unit in units
            ]
            near = 2e-4 if kind == "rmt" else 1e-5
            np.testing.assert_allclose(
                answers_under(checkpoint, source.encoded, units), expected, atol=near * max(1.0, np.abs(expected).max())
            )


def test_a_resampled_memory_head_reads_what_the_donors_head_reads(gated: Checkpoint) -> None:
    encoded_prompts = [encode_prompt(gated, prompt) for prompt in stories.questions(1, 6)]
    (source, *_), _ = sources(R.RESAMPLE, Persistence.PERSIST, encoded_prompts, 0, 2, 0)
    part = parts(UnitGrid.MEMORY_HEADS, gated.config, (0,), ())[-1]
    assert (part.layer, part.index) == (2, 1)
    kept = (Capture(Site.READ, layers=(2,)),)
    edited, donor = (
        run(gated, replace(asked.spec, captures=kept, interventions=unit)).at(
            Site.READ, segment=answer_segment(asked), layer=2
        )
        for asked, unit in ((source.encoded, source.unit(part)), (source.donors[0], ()))
    )
    rows = min(len(edited), len(donor))
    np.testing.assert_allclose(edited[-rows:, 8:], donor[-rows:, 8:], atol=1e-5)
    assert not np.allclose(edited[-rows:, :8], donor[-rows:, :8], atol=1e-2)


def test_the_values_are_those_of_single_runs(gated: Checkpoint, spec: SweepSpec) -> None:
    found = sweep(spec, gated)
    encoded_prompts = [encode_prompt(gated, prompt) for prompt in stories.questions(1, 4)]
    at, _ = sources(R.RESAMPLE, Persistence.PERSIST, encoded_prompts, 0, spec.donors, spec.seed)
    asked = answers(encoded_prompts)
    for document, source in enumerate(at):
        clean = run(gated, source.encoded.spec).logits[list(source.encoded.rows)]
        for unit in (0, 7):
            edited = run(gated, replace(source.encoded.spec, interventions=source.unit(found.parts[unit]))).logits[
                list(source.encoded.rows)
            ]
            for metric in Metric:
                assert found.values[metric][unit, document] == pytest.approx(
                    measure(metric, asked[document], edited, clean), abs=1e-4
                )
                assert found.baseline[metric][document] == pytest.approx(
                    measure(metric, asked[document], clean, clean), abs=1e-4
                )
    assert len(found.parts) == 2 * gated.config.slots and found.measured == tuple(range(len(found.parts)))


def test_joint_effects_stand_beside_the_sums_of_single_ones(gated: Checkpoint, spec: SweepSpec) -> None:
    found = sweep(spec, gated)
    assert [joint.label for joint in found.joints] == ["block 0", "block 2", "all"]
    effects = found.joint_effects(found.metric)
    single = [effect.mean for effect in found.effects(found.metric)]
    for joint, effect in zip(found.joints, effects):
        assert isinstance(effect, Redundancy)
        assert effect.singles.mean == pytest.approx(sum(single[unit] for unit in joint.members))
    for curve in found.curves(found.metric).values():  # with all units replaced, the order makes no difference
        assert curve[-1].mean == pytest.approx(effects[-1].joint.mean, abs=1e-4)
    assert found.counts == (1, 2, 4, 8, 10)


def test_a_documents_order_comes_from_the_other_half_of_the_stories(gated: Checkpoint, spec: SweepSpec) -> None:
    found = sweep(spec, gated)
    harm = -found.differences(found.values, found.metric)
    for document in range(4):
        others = [other for other in range(4) if other % 2 != document % 2]
        order = np.argsort(-harm[:, others].mean(1), kind="stable")
        assert found.best_first[found.metric][0, document] == pytest.approx(
            found.values[found.metric][order[0], document], abs=1e-5
        )
        assert found.worst_first[found.metric][0, document] == pytest.approx(
            found.values[found.metric][order[-1], document], abs=1e-5
        )


class Killed(Exception):
    pass


def test_a_stopped_sweep_goes_on_to_the_same_tables_and_loses_nothing(
    gated: Checkpoint, spec: SweepSpec, tmp_path: Path
) -> None:
    whole = sweep(replace(spec, screen=1), gated).tables()
    out, heard = tmp_path / "out", []

    def stop_at(step: int) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            heard.append((done, total))
            if done == step:
                raise Killed

        return told

    for step in (2, 6, 11):  # in the midst of the screen, of the units and of the curves
        with pytest.raises(Killed):
            sweep(replace(spec, screen=1), gated, out, stop_at(step))
        assert len(list((out / "documents").iterdir())) == step
    kept = {path: path.stat().st_mtime_ns for path in (out / "documents").iterdir()}
    # As a machine that lost its power may leave it.
    (out / "documents" / "units-00001.json").write_text('{"baseline": [')
    sweep(replace(spec, screen=1), gated, out, stop_at(99))
    assert heard[-1] == (12, 12) and not list(out.rglob("*.part"))
    assert {path for path, time in kept.items() if path.stat().st_mtime_ns != time} == {
        out / "documents" / "units-00001.json"
    }
    for name, table in whole.items():
        pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet"), table, check_dtype=False)
        assert len(pd.read_csv(out / f"{name}.csv")) == len(table)


def test_a_folder_with_another_sweeps_results_is_refused(gated: Checkpoint, spec: SweepSpec, tmp_path: Path) -> None:
    sweep(replace(spec, count=2), gated, tmp_path)
    with pytest.raises(ValueError, match="another sweep: its .*spec.* differ"):
        sweep(replace(spec, count=2, seed=1), gated, tmp_path)
    with pytest.raises(ValueError, match="its checkpoint_digest differ"):
        sweep(replace(spec, count=2), replace(gated, digest="other"), tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match="sweep.json is broken"):
        sweep(replace(spec, count=2), gated, tmp_path)


def test_the_answers_route_measures_the_answers_tokens_alone(gated: Checkpoint, spec: SweepSpec) -> None:
    found = sweep(replace(spec, route=Route.ANSWER, metrics=(Metric.LOG_PROBABILITY,)), gated)
    encoded_prompts = [encode_prompt(gated, prompt) for prompt in stories.questions(1, 4)]
    (source, *_), _ = sources(R.RESAMPLE, Persistence.PERSIST, encoded_prompts, 0, spec.donors, spec.seed)
    (logits,) = answers_alone_under(gated, source.encoded, [source.unit(found.parts[3])])
    expected = measure(Metric.LOG_PROBABILITY, answers(encoded_prompts)[0], logits, logits)
    assert found.values[Metric.LOG_PROBABILITY][3, 0] == pytest.approx(expected, abs=1e-5)


def test_a_screened_sweep_measures_the_top_and_random_others(rmt: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.sweeps.screening.RANDOM", 1)
    found = sweep(SweepSpec(checkpoint=rmt.name, count=4, screen=1), rmt)
    order = np.argsort(-np.abs(found.screening.scores))
    assert set(found.screening.top) == set(order[:2]) and len(found.screening.random) == 1
    assert found.measured == tuple(sorted({*found.screening.top, *found.screening.random})) and len(found.parts) == 5
    exact = found.differences(found.values, found.metric).mean(1)
    assert found.screening.r == pytest.approx(np.corrcoef(found.screening.scores[list(found.measured)], exact)[0, 1])
    units = found.tables()["units"]
    assert units[units["metric"] == found.metric.value]["measured"].tolist() == [
        unit in found.measured for unit in range(5)
    ]
    assert not any(isinstance(effect, Redundancy) for effect in found.joint_effects(found.metric)), (
        "the sum of all singles is not known"
    )


@pytest.mark.parametrize(("r", "ranked"), [(0.81, True), (0.79, False), (np.nan, False), (-0.9, False)])
def test_no_ranking_is_given_where_the_screen_does_not_agree_with_what_was_measured(
    gated: Checkpoint, spec: SweepSpec, r: float, ranked: bool
) -> None:
    found: SweepResult = sweep(replace(spec, count=2), gated)
    means = found.differences(found.values, found.metric).mean(1)
    assert found.ranking() == tuple(np.argsort(-np.abs(means), kind="stable"))
    screening = Screening(scores=np.zeros(10), top=(0, 1), random=(2,), r=r, slope=1.0)
    assert (replace(found, screening=screening).ranking() is not None) is ranked


def test_documents_without_the_segments_are_left_out_and_named(gated: Checkpoint, spec: SweepSpec) -> None:
    found = sweep(replace(spec, back=(3,), count=6, metrics=(Metric.KL,)), gated)
    assert (
        len(found.stories) + len(found.left_out) == 6
        and found.left_out
        and found.values[Metric.KL].shape == (10, len(found.stories))
    )
    with pytest.raises(ValueError, match="none of 4 documents has 9 segments before the answer's"):
        sweep(replace(spec, back=(9,)), gated)
    with pytest.raises(ValueError, match="other stories to take a resample from"):
        sweep(replace(spec, count=1), gated)


def test_gates_at_one_value_are_clamped_together(gated: Checkpoint) -> None:
    found = sweep(
        SweepSpec(checkpoint=gated.name, grid=UnitGrid.GATES, count=2, values=(0.0, 1.0), metrics=(Metric.KL,)), gated
    )
    assert [part.label for part in found.parts] == [
        f"{name} gate at {value}" for name in ("input", "forget", "output") for value in (0, 1)
    ]
    assert (
        [joint.members for joint in found.joints] == [(0, 2, 4), (1, 3, 5)]
        and not found.counts
        and not found.curves(Metric.KL)
    )


def test_the_prediction_counts_a_whole_document_for_every_unit(gated: Checkpoint, spec: SweepSpec) -> None:
    found = predict(replace(spec, count=2), gated)
    segments = sum(len(encode_prompt(gated, prompt).segments) for prompt in stories.questions(1, 2))
    assert (found.documents, found.units, found.naive) == (2, 10, 10 * segments)
    assert 0 < found.planned < found.naive and found.naive_seconds > 0 < found.planned_seconds


@pytest.mark.parametrize(
    "spec",
    [
        SweepSpec(checkpoint="a"),
        SweepSpec(checkpoint="a", grid=UnitGrid.GATES, values=(0.25,), segment_length=16),
        SweepSpec(checkpoint="a", back=(0, 2), replacement=R.INITIAL, persistence=Persistence.READ_ONLY,
            metrics=(Metric.KL,), seed=3),
        SweepSpec(checkpoint="a", route=Route.ANSWER, replacement=R.MEAN, donors=3),
        SweepSpec(checkpoint="a", screen=8),
    ],
)  # fmt: skip
def test_json_gives_a_spec_back(spec: SweepSpec) -> None:
    assert SweepSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert replace(spec, seed=9).digest != spec.digest


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"grid": "neurons"},
            r"grid must be of \['attention_heads', 'blocks', 'gates', 'memory_heads', 'slots'\], not 'neurons'",
        ),
        ({"speed": 2}, r"has no fields \['speed'\]"),
        ({"checkpoint": 3}, "checkpoint must be a text, not 3"),
        ({"questions": 0}, "count must be at least 1"),
        ({"questions": 2.5}, "questions must be a text, not 2.5"),
        ({"back": []}, "back must hold one entry at least"),
        ({"back": [0, 0]}, "each once"),
        ({"back": [-1]}, "not negative"),
        ({"metrics": ["accuracy"]}, "metrics must be of .*, not 'accuracy'"),
        ({"grid": "gates", "replacement": "zero"}, "gates cannot be replaced by zero"),
        ({"replacement": "clamp"}, "slots cannot be replaced by clamp"),
        (
            {"grid": "blocks", "replacement": "initial"},
            "only slots have a value at the start of a document, not blocks",
        ),
        ({"grid": "gates", "back": [1]}, r"clamped in all segments: back must be \(0,\), not \(1,\)"),
        ({"route": "answer", "back": [1]}, "in their own segment only"),
        ({"screen": 0}, "best 1 unit at least, not 0"),
        ({"screen": 2, "metrics": ["exact"]}, "no gradient to screen by"),
        ({"screen": 2, "grid": "gates"}, "not of gates on the exact route"),
        ({"screen": 2, "route": "answer"}, "not of slots on the answer route"),
        ({"screen": 2, "persistence": "read_only", "back": [1]}, "not at"),
    ],
)
def test_specs_that_make_no_sense_are_refused_in_a_sentence(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SweepSpec.from_json({"checkpoint": "a", **values})


def test_a_spec_of_another_checkpoint_is_refused(gated: Checkpoint, spec: SweepSpec) -> None:
    for work in (sweep, predict):
        with pytest.raises(ValueError, match="for checkpoint 'b', not 'toy-gated'"):
            work(replace(spec, checkpoint="b"), gated)
