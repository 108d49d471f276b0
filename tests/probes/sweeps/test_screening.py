"""Laws of screening: scores share out what all units do together, and look at the model without touching it."""

from dataclasses import replace

import numpy as np
import pytest

from lm2.runs.interventions import Persistence
from lm2.runs.runner import run
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, joint_unit
from probes.causal.observe import answers
from probes.causal.planner import answers_under
from probes.stats.metrics import Answer, Metric, measure
from probes.sweeps.grid import Replacement, UnitGrid, parts, sources
from probes.sweeps.screening import RANDOM, Screening, scores


def laid_out(
    checkpoint: Checkpoint, grid: UnitGrid, replacement: Replacement, back: tuple[int, ...] = (0,)
) -> tuple[EncodedPrompt, list[Unit], Answer]:
    asked = []
    for seed in range(5):
        story = simulate(1, seed=seed, statements=3, questions=1).story
        asked.append(encode_prompt(checkpoint, ask(replace(story, id=str(seed)), story.questions[0])))
    (source, *_), _ = sources(replacement, Persistence.PERSIST, asked, max(back), 3, 0)
    answer = answers(asked)[asked.index(source.encoded)]
    return source.encoded, [source.unit(part) for part in parts(grid, checkpoint.config, back, ())], answer


@pytest.mark.parametrize(
    ("kind", "grid", "replacement", "back"),
    [
        ("gated", UnitGrid.SLOTS, Replacement.RESAMPLE, (0,)),
        ("gated", UnitGrid.SLOTS, Replacement.MEAN, (0, 1)),
        ("gated", UnitGrid.MEMORY_HEADS, Replacement.RESAMPLE, (1,)),
        ("rmt", UnitGrid.SLOTS, Replacement.INITIAL, (0,)),
        ("release", UnitGrid.BLOCKS, Replacement.MEAN, (0,)),
        ("plain", UnitGrid.ATTENTION_HEADS, Replacement.ZERO, (0, 1)),
    ],
)
@pytest.mark.parametrize("metric", [Metric.LOGIT_DIFFERENCE, Metric.KL])
def test_scores_sum_up_to_what_all_units_do_together(
    request: pytest.FixtureRequest,
    kind: str,
    grid: UnitGrid,
    replacement: Replacement,
    back: tuple[int, ...],
    metric: Metric,
) -> None:
    checkpoint = request.getfixturevalue(kind)
    asked, units, answer = laid_out(checkpoint, grid, replacement, back)
    clean, joint = answers_under(checkpoint, asked, [(), joint_unit(units)])
    effect = measure(metric, answer, joint, clean) - measure(metric, answer, clean, clean)
    assert scores(checkpoint, asked, units, metric, answer, steps=40).sum() == pytest.approx(effect, rel=0.02, abs=0.02)


def test_a_unit_alone_gets_its_whole_effect(gated: Checkpoint) -> None:
    asked, units, answer = laid_out(gated, UnitGrid.SLOTS, Replacement.RESAMPLE)
    for unit in units[::4]:
        clean, edited = answers_under(gated, asked, [(), unit])
        effect = measure(Metric.LOG_PROBABILITY, answer, edited, clean) - measure(
            Metric.LOG_PROBABILITY, answer, clean, clean
        )
        assert scores(gated, asked, [unit], Metric.LOG_PROBABILITY, answer, steps=20) == pytest.approx(
            [effect], rel=0.02, abs=1e-4
        )


def test_screening_leaves_the_model_as_it_was(gated: Checkpoint) -> None:
    asked, units, answer = laid_out(gated, UnitGrid.SLOTS, Replacement.ZERO)
    before = run(gated, asked.spec).logits
    first = scores(gated, asked, units, Metric.CROSS_ENTROPY, answer)
    assert all(weight.grad is None for weight in gated.model.parameters())
    assert not any(point.fwd_hooks for point in gated.model.hook_dict.values())
    assert np.array_equal(run(gated, asked.spec).logits, before)
    assert np.array_equal(scores(gated, asked, units, Metric.CROSS_ENTROPY, answer), first)


def test_units_that_change_nothing_score_nothing(gated: Checkpoint) -> None:
    asked, _, answer = laid_out(gated, UnitGrid.SLOTS, Replacement.ZERO)
    assert scores(gated, asked, [(), ()], Metric.LOGIT_DIFFERENCE, answer).tolist() == [0, 0]


def test_a_metric_without_a_gradient_is_refused(gated: Checkpoint) -> None:
    asked, units, answer = laid_out(gated, UnitGrid.SLOTS, Replacement.ZERO)
    with pytest.raises(ValueError, match="no gradient"):
        scores(gated, asked, units, Metric.EXACT, answer)


def test_the_units_to_measure_are_the_top_2k_whatever_their_sign_and_random_others() -> None:
    values = np.linspace(0, 1, 100)
    values[[60, 7, 30]] = -5, 4, -3
    one, same, other, few = (
        Screening.of(values[:count], 2, seed) for count, seed in ((100, 0), (100, 0), (100, 1), (3, 0))
    )
    assert one.top == (60, 7, 30, 99)
    assert len(set(one.random)) == RANDOM and not set(one.random) & set(one.top)
    assert one.random == same.random != other.random
    assert few.top == (2, 1, 0) and few.random == () and not few.trusted


def test_agreement_is_correlation_and_slope() -> None:
    values = np.array([0.0, 9.0, 1.0, 2.0])
    screen, units = Screening.of(values, 1, 0), (0, 2, 3)
    agreeing = screen.beside(units, 3 * values[[0, 2, 3]] + 1)
    assert (agreeing.r, agreeing.slope, agreeing.trusted) == (pytest.approx(1), pytest.approx(3), True)
    assert screen.beside(units, -values[[0, 2, 3]]).r == pytest.approx(-1)
    assert np.isnan(screen.beside(units, np.ones(3)).r) and np.isnan(screen.beside((1,), np.ones(1)).slope)
