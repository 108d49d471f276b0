"""Laws of probes.probing.directions: what a direction says is what the model's own weights make of it."""

import numpy as np
import pytest
import torch

from lm2.weights.checkpoint import Checkpoint
from probes.causal.lens import read_out
from probes.features import source_names
from probes.probing.directions import top_tokens


def _weights(checkpoint: Checkpoint) -> np.ndarray:
    """[d_vocab, d_model] from the stream to the logits."""
    with torch.inference_mode():
        return (checkpoint.model.unembed.weight * checkpoint.model.ln_final.w).numpy().astype(np.float64)


def test_a_direction_of_the_stream_says_what_it_adds_to_logits(gated: Checkpoint) -> None:
    weights, direction = _weights(gated), np.random.default_rng(0).standard_normal((16, 3))
    result = top_tokens(gated, source_names.parse("resid_post.1"), direction, top=5)
    centred = direction - direction.mean(1, keepdims=True)
    logits = weights @ (centred / np.linalg.norm(centred, axis=0))
    logits -= logits.mean(0)
    assert np.array_equal(result.tokens, np.argsort(-logits, axis=0)[:5].T)
    assert np.allclose(result.logits, np.sort(logits, axis=0)[::-1][:5].T, atol=1e-5)


def test_what_classes_have_in_common_is_not_shown(gated: Checkpoint) -> None:
    draw = np.random.default_rng(1)
    direction, common = draw.standard_normal((16, 3)), draw.standard_normal((16, 1))
    one, other = (
        top_tokens(gated, source_names.parse("resid_post.1"), some) for some in (direction, direction + common)
    )
    assert np.array_equal(one.tokens, other.tokens)


def test_a_direction_of_slots_goes_through_the_block_that_reads_them(gated: Checkpoint) -> None:
    direction = np.random.default_rng(2).standard_normal((12, 2))
    for source, layer in (("bank:mean", 2), ("bank:slot3", 2), ("bank:read.0", 0)):
        with torch.inference_mode():
            memory = gated.model.blocks[layer].mem
            path = (memory.o.weight @ memory.read_v.weight * memory.ln_read.w).numpy()
        result = top_tokens(gated, source_names.parse(source), direction)
        logits = _weights(gated) @ path @ (direction - direction.mean(1, keepdims=True))
        assert np.array_equal(result.tokens[:, 0], logits.argmax(0)) and f"block {layer}" in result.path


@pytest.mark.parametrize("toy", ["rmt", "release"])
def test_without_norm_and_gate_a_direction_says_what_a_slot_says(toy: str, request: pytest.FixtureRequest) -> None:
    """With two classes, their directions are opposite; a slot in the place of one says the same. RELEASE's final norm
    only scales it."""
    checkpoint = request.getfixturevalue(toy)
    slot = np.random.default_rng(3).standard_normal(checkpoint.config.slot_dim)
    bank = np.tile(slot, (checkpoint.config.slots, 1))
    expected = read_out(checkpoint, bank, max(checkpoint.config.memory_layers), top=8, random=1, seed=0).tokens[0]
    assert np.array_equal(
        top_tokens(checkpoint, source_names.parse("bank:mean"), np.stack([slot, -slot], 1)).tokens[0], expected
    )


@pytest.mark.parametrize(
    "source", ["bank:sketch8", "tokens", "gate_in.0:mean", "read_pattern.0", "untrained bank:mean"]
)
def test_features_that_are_no_vector_of_the_model_say_nothing(source: str, gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no path to the vocabulary|says nothing"):
        top_tokens(gated, source_names.parse(source), np.ones((8, 2)))
