"""Laws of memory ablated while it is used."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import constant_answer, metric_change, observe, other_stories
from probes.causal.patching import bank_edit
from probes.experiments.ablation.gates import gates
from probes.experiments.ablation.permutation import permutation
from probes.experiments.ablation.policies import policies
from probes.experiments.ablation.swap import swap
from probes.experiments.registry import experiment
from probes.stats.metrics import Metric


@pytest.fixture(scope="module")
def encoded_prompts() -> Callable[[Checkpoint], list[EncodedPrompt]]:
    """The last questions of six simulated stories, put to a model."""

    def make(checkpoint: Checkpoint) -> list[EncodedPrompt]:
        stories = [simulate(1, seed=seed, statements=4, questions=1).story for seed in range(6)]
        return [encode_prompt(checkpoint, ask(story, story.questions[-1])) for story in stories]

    return make


@pytest.mark.parametrize(("words", "said"), [("", ""), (" by the old river", ", first token")])
def test_a_logit_difference_says_that_it_reads_the_first_token_where_answers_have_more(
    gated: Checkpoint, encoded_prompts: Callable, words: str, said: str
) -> None:
    asked = []
    for encoded, place in zip(encoded_prompts(gated), ("garden", "kitchen") * 3):
        prompt = replace(encoded.prompt, answers=(f"{place}{words}",))
        asked.append(encode_prompt(gated, prompt))
    for name, at in (("policies", 2), ("gates", 2), ("attribution", 1)):
        (found,) = experiment(name).findings(gated, asked, 0, lambda: None)
        assert found.columns[at].name.endswith(f"answer logit difference{said}")


def test_freezing_writes_at_the_question_changes_nothing(gated: Checkpoint, encoded_prompts: Callable) -> None:
    control = next(policy for policy in policies(gated, encoded_prompts(gated)) if "control" in policy.name)
    assert not control.effect.values.any()


def test_a_bank_never_written_answers_as_one_reset_before_the_question(
    gated: Checkpoint, encoded_prompts: Callable
) -> None:
    found = {policy.name: policy.effect.values for policy in policies(gated, encoded_prompts(gated))}
    np.testing.assert_array_equal(found["writes frozen from the start"], found["bank reset before the question"])
    assert found["writes frozen from the start"].any()


def test_every_policy_runs_on_memory_tokens(rmt: Checkpoint, encoded_prompts: Callable) -> None:
    assert len({policy.right.n for policy in policies(rmt, encoded_prompts(rmt))}) == 1


def test_each_gate_is_held_at_each_value_and_at_its_mean(gated: Checkpoint, encoded_prompts: Callable) -> None:
    found = gates(gated, encoded_prompts(gated), values=(0.0, 1.0))
    assert [(one.gate, one.of_mean) for one in found] == [
        (gate, mean) for gate in ("input", "forget", "output") for mean in (False, False, True)
    ]
    assert all(0 < one.value < 1 for one in found if one.of_mean)


def test_a_memory_without_gates_is_refused(rmt: Checkpoint, encoded_prompts: Callable) -> None:
    with pytest.raises(ValueError, match="no gates"):
        gates(rmt, encoded_prompts(rmt))


def test_with_the_donors_whole_bank_the_same_question_gets_the_donors_logits(
    gated: Checkpoint, encoded_prompts: Callable
) -> None:
    asked = encoded_prompts(gated)
    found = swap(gated, asked, doses=(5,))
    for own, donor, value in found.pairs:
        assert value != own.prompt.answer
        if donor.prompt.question == own.prompt.question:
            edit = bank_edit(donor.spec.text, donor.segment, own.segment)
            (swapped,), (kept,) = observe(gated, [own], [[(edit,)]]), observe(gated, [donor], [[()]])
            np.testing.assert_allclose(swapped.logits[0][0], kept.logits[0][0], atol=1e-5)
            break
    else:
        pytest.fail("no pair of these stories asks the same question: choose other seeds")


def test_stories_of_one_answer_cannot_be_swapped(gated: Checkpoint, encoded_prompts: Callable) -> None:
    with pytest.raises(ValueError, match="nothing to swap"):
        swap(gated, encoded_prompts(gated)[:1])


def test_a_gated_memory_does_not_know_the_numbers_of_its_slots(gated: Checkpoint, encoded_prompts: Callable) -> None:
    found = permutation(gated, encoded_prompts(gated))
    assert found.largest_change < 1e-4 < found.foreign_change


def test_a_metric_of_an_unchanged_run_has_not_changed(gated: Checkpoint, encoded_prompts: Callable) -> None:
    (clean,) = observe(gated, encoded_prompts(gated), [[()] * 6])
    for metric in (Metric.LOGIT_DIFFERENCE, Metric.LOG_PROBABILITY, Metric.KL, Metric.EXACT):
        assert not metric_change(clean, clean, metric).any()


def test_chance_is_the_most_frequent_answer(gated: Checkpoint, encoded_prompts: Callable) -> None:
    answers = [encoded_prompt.prompt.answer for encoded_prompt in encoded_prompts(gated)]
    assert constant_answer(encoded_prompts(gated)).accuracy == max(map(answers.count, answers)) / len(answers)


def test_a_control_takes_the_nearest_documents_of_other_stories_around_the_end(
    gated: Checkpoint, encoded_prompts: Callable[[Checkpoint], list[EncodedPrompt]]
) -> None:
    one = encoded_prompts(gated)[0]
    asked = [replace(one, prompt=replace(one.prompt, group=story)) for story in "aabbcd"]
    assert other_stories(asked, 0, 3) == tuple(asked[3:]) and other_stories(asked, 3, 2) == tuple(asked[:2])
    with pytest.raises(ValueError, match="documents of 2 other stories, and 2 questions have 1"):
        other_stories(asked[1:3], 0, 2)
