"""Laws of the curves: whose question counts where, beside which control, and how far memory reaches."""

from dataclasses import replace

import numpy as np
import pytest

from lm2.evaluation.recall import Memory, recall
from lm2.intervals import Rate
from lm2.runs.runner import run
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import answers
from probes.experiments.retention.capacity import capacity
from probes.experiments.retention.controlled_documents import memory_load, overwritten, stretched
from probes.experiments.retention.curves import Curve, Point
from probes.experiments.retention.forgetting import forgetting
from probes.experiments.retention.overwrites import overwrites
from probes.stats.metrics import Metric, measure

STRETCHED = stretched([simulate(1, seed=seed, statements=4, questions=2).story for seed in range(4)], (0, 4))


@pytest.fixture(scope="module")
def encoded_prompts(gated: Checkpoint) -> list[EncodedPrompt]:
    return [encode_prompt(gated, prompt) for prompt in STRETCHED]


@pytest.mark.parametrize("memory", [Memory.ON, Memory.RESET])
def test_the_forgetting_curve_and_its_control_are_recall_by_distance(
    gated: Checkpoint, encoded_prompts: list[EncodedPrompt], memory: Memory
) -> None:
    report = recall(gated, STRETCHED, memory)
    points = forgetting(gated, encoded_prompts).curve.points
    found = {point.at: point.right if memory is Memory.ON else point.control for point in points}
    assert {at: (one.n, one.accuracy) for at, one in found.items()} == {
        at: (one.n, one.accuracy) for at, one in report.by_distance.items()
    }


def test_a_stretched_story_is_the_same_story(gated: Checkpoint, encoded_prompts: list[EncodedPrompt]) -> None:
    curve = forgetting(gated, encoded_prompts).curve
    assert curve.groups == 4 and len(curve.asked) == 16


def test_the_mean_log_probabilities_are_those_of_the_answers_and_their_difference_is_the_gain(
    gated: Checkpoint, encoded_prompts: list[EncodedPrompt]
) -> None:
    logits = [run(gated, encoded_prompt.spec).logits[list(encoded_prompt.rows)] for encoded_prompt in encoded_prompts]
    known = [
        measure(Metric.LOG_PROBABILITY, answer, rows, rows) for answer, rows in zip(answers(encoded_prompts), logits)
    ]
    for point in forgetting(gated, encoded_prompts).curve.points:
        here = [value for value, one in zip(known, encoded_prompts) if one.distance == point.at]
        assert point.log_probability == pytest.approx(np.mean(here), abs=1e-5)
        assert point.gain.mean == pytest.approx(point.log_probability - point.control_log_probability)
        assert point.distance == point.at


def test_load_counts_the_people_told_of_and_overwriting_the_earlier_places(gated: Checkpoint) -> None:
    load = capacity(gated, [encode_prompt(gated, prompt) for prompt in memory_load((2, 4), each=8)])
    assert [(point.at, point.right.n, point.right.groups) for point in load.points] == [(2, 8, 8), (4, 8, 8)]
    again = overwrites(gated, [encode_prompt(gated, prompt) for prompt in overwritten((0, 2), each=8)])
    assert [(point.at, point.right.n) for point in again.points] == [(0, 8), (2, 8)]
    assert again.groups == 8


def test_things_carried_are_a_load_too(gated: Checkpoint) -> None:
    told = ("Mary went to the garden.", "Mary got the milk there.", "John went to the office.")
    (prompt,) = overwritten((0,), statements=4, each=1)
    text = " ".join(told)
    spans = tuple((text.index(statement), text.index(statement) + len(statement)) for statement in told)
    one = replace(encode_prompt(gated, prompt), prompt=replace(prompt, text=text, statement_spans=spans))
    assert [point.at for point in capacity(gated, [one]).points] == [3]


def test_chance_is_the_best_constant_answer_or_a_guess_among_the_places_named(gated: Checkpoint) -> None:
    prompts = memory_load((2,), statements=2, each=48)
    named = [len({text.split()[-1] for text in prompt.statements}) for prompt in prompts]
    curve = capacity(gated, [encode_prompt(gated, prompt) for prompt in prompts])
    assert curve.points[0].chance == pytest.approx(np.mean([1 / count for count in named]))
    curve = capacity(gated, [encode_prompt(gated, replace(prompt, answers=("garden",))) for prompt in prompts])
    assert curve.points[0].chance == 1 and curve.constant == "garden"


def test_a_question_without_support_is_left_out_and_counted(
    gated: Checkpoint, encoded_prompts: list[EncodedPrompt]
) -> None:
    bare = replace(encoded_prompts[0], prompt=replace(encoded_prompts[0].prompt, support=()))
    found = forgetting(gated, [bare, *encoded_prompts[1:]]).curve
    assert (found.left_out, len(found.asked)) == (1, len(encoded_prompts) - 1)
    with pytest.raises(ValueError, match="1 were given, none with one"):
        forgetting(gated, [bare])


def test_questions_of_another_form_have_no_count_of_overwriting(
    gated: Checkpoint, encoded_prompts: list[EncodedPrompt]
) -> None:
    prompt = encoded_prompts[0].prompt
    text = prompt.text + " Where is the milk?"
    other = replace(encoded_prompts[0], prompt=replace(prompt, text=text, question_span=(len(text) - 18, len(text))))
    with pytest.raises(ValueError, match="not for 'Where is the milk\\?'"):
        overwrites(gated, [other])


def test_a_model_without_memory_has_no_curve(plain: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no bank"):
        forgetting(plain, [encode_prompt(plain, STRETCHED[0])])


@pytest.mark.parametrize(
    ("lows", "groups", "horizon"),
    [
        ((0.9, 0.8, 0.3), (9, 9, 9), 6),
        ((0.9, 0.2, 0.8), (9, 9, 9), 2),
        ((0.1, 0.9, 0.9), (9, 9, 9), None),
        ((0.9, 0.1, 0.8), (9, 4, 9), 6),
        ((0.9, 0.8, 0.9), (9, 9, 1), 4),
    ],
)
def test_the_horizon_is_the_last_place_above_chance_with_all_before_it(
    gated: Checkpoint,
    encoded_prompts: list[EncodedPrompt],
    lows: tuple[float, ...],
    groups: tuple[int, ...],
    horizon: int | None,
) -> None:
    curve = forgetting(gated, encoded_prompts).curve
    like: Point = curve.points[0]
    points = tuple(
        replace(like, at=at, chance=0.2, right=Rate(n=50, groups=count, accuracy=0.9, low=low, high=0.95))
        for at, low, count in zip((2, 4, 6), lows, groups)
    )
    made: Curve = replace(curve, points=points)
    assert made.horizon == horizon
