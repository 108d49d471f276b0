"""Laws of write provenance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMean
from lm2.runs.loop import to_numpy
from lm2.runs.runner import run
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.experiments.contents.provenance import provenance, write_credit, writes

CAPTURES = (
    Capture(Site.READ_PATTERN, HeadMean()), Capture(Site.WRITE_PATTERN, HeadMean()),
    Capture(Site.GATE_IN), Capture(Site.CANDIDATE), Capture(Site.GATE_FORGET),
)  # fmt: skip


def _put(checkpoint: Checkpoint, seed: int) -> EncodedPrompt:
    story = simulate(1, seed=seed, statements=4, questions=1).story
    return encode_prompt(checkpoint, ask(story, story.questions[-1]))


def test_a_bank_is_the_sum_of_what_is_left_of_every_write_and_of_the_fresh_bank(gated: Checkpoint) -> None:
    trace = run(gated, replace(_put(gated, 0).spec, captures=CAPTURES))
    with torch.inference_mode():
        fresh = to_numpy(gated.model.fresh_bank(1)[0])
    for segment in trace.segments:
        for layer in (0, 2):
            fresh = fresh * trace.at(Site.GATE_FORGET, segment=segment.index, layer=layer)
    left = sum(write.left for write in writes(trace, len(trace.segments)))
    np.testing.assert_allclose(left + fresh, trace.bank, atol=1e-5)


def test_tokens_of_the_readers_segment_have_no_credit_and_earlier_ones_have(gated: Checkpoint) -> None:
    asked = _put(gated, 1)
    trace = run(gated, replace(asked.spec, captures=CAPTURES))
    credit = write_credit(trace, asked.rows[0])
    start = trace.segments[asked.segment].start
    assert not credit[start:].any() and (credit[:start] > 0).all()


def test_facts_are_looked_for_among_as_many_statements_as_there_are_facts(gated: Checkpoint) -> None:
    found = provenance(gated, [_put(gated, seed) for seed in range(4)])
    shares = {one.ranking: one.recall for one in found.found if one.among is None}
    assert set(shares) == {"write credit", "loss when blocked", "last told (control)", "random order (control)"}
    assert shares["random order (control)"] == pytest.approx(
        np.mean([1 / len(traced.encoded.statements) for traced in found.traced])
    )
    assert all(more.recall >= one.recall for one, more in zip(found.found[::2], found.found[1::2]))
    last = [max(traced.facts) == len(traced.encoded.statements) - 1 for traced in found.traced]
    assert shares["last told (control)"] == pytest.approx(np.mean(last))


def test_credit_needs_gates(rmt: Checkpoint) -> None:
    with pytest.raises(ValueError, match="needs a gated one"):
        provenance(rmt, [_put(rmt, 0)])
