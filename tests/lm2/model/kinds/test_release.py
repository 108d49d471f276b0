"""Laws of lm2.model.kinds.release: the released code's arithmetic against a second writing of its formulas."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import GatePooling, LM2Config
from lm2.model.kinds.release import ReleaseMemory
from lm2.weights.checkpoint import Checkpoint


def reference(memory: ReleaseMemory, a: np.ndarray, bank: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """One block for one row of a batch in float64 numpy: the notes on the released code, token by token and head by
    head."""
    w = {name: value.detach().double().numpy() for name, value in memory.named_parameters()}
    size = bank.shape[1]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    q, k, v = linear(a, "query"), linear(bank, "key"), linear(bank, "value")
    width = size // heads
    read = np.zeros_like(bank)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for token in range(len(a)):
            scores = np.array([q[token, own] @ k[slot, own] / np.sqrt(size / heads) for slot in range(token + 1)])
            share = np.exp(scores - scores.max())
            read[token, own] = share / share.sum() @ v[: token + 1, own]
    z = layer_norm(bank + read, "ln_attended")
    content = np.maximum(linear(np.maximum(linear(z, "mlp"), 0), "mlp"), 0)
    z = layer_norm(z + content, "ln_mlp")
    pooled = np.mean([np.maximum(w["pool_weight"] * token, 0) for token in a], axis=0)
    gates = linear(pooled, "gate_tokens")[None] + linear(np.tanh(bank), "gate_bank")
    gate_in, gate_forget = sigmoid(gates[:, :size] + w["input_bias"]), sigmoid(gates[:, size:] + w["forget_bias"])
    return {"gate_in": gate_in, "gate_forget": gate_forget, "bank_post": gate_in * np.tanh(z) + gate_forget * bank}


def test_a_block_computes_the_formulas_of_the_released_code(release: Checkpoint) -> None:
    memory = release.model.blocks[1].mem
    a, bank = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found: dict[str, torch.Tensor] = {}
    handles = [
        getattr(memory, f"hook_{name}").register_forward_hook(
            lambda module, inputs, output, name=name: found.__setitem__(name, output)
        )
        for name in ("gate_in", "gate_forget", "bank_post")
    ]
    with torch.inference_mode():
        step = memory(torch.zeros_like(a), a, torch.zeros_like(bank), bank, torch.ones(3, 16, dtype=torch.bool), True)
    for handle in handles:
        handle.remove()
    for row in range(3):
        expected = reference(memory, a[row].double().numpy(), bank[row].double().numpy(), release.config.memory_heads)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name].expand(3, 16, 16)[row].numpy(), value, atol=1e-5, err_msg=name)
    assert torch.equal(step.mem_out, step.bank)


def test_a_block_reads_what_the_block_before_wrote(release: Checkpoint, ids) -> None:
    _, cache = release.model.run_with_cache(ids(1, 16))
    assert torch.equal(cache["blocks.0.mem.hook_bank_pre"], torch.eye(16)[None])
    assert torch.equal(cache["blocks.1.mem.hook_bank_pre"], cache["blocks.0.mem.hook_bank_post"])
    assert torch.equal(cache["blocks.1.hook_mem_out"], cache["blocks.1.mem.hook_bank_post"])


def test_a_token_sees_no_slot_behind_its_own_place(release: Checkpoint, ids) -> None:
    _, cache = release.model.run_with_cache(ids(1, 16))
    assert (cache["blocks.0.mem.hook_read_pattern"].triu(1) == 0).all()


@pytest.mark.parametrize(("pooling", "leaks"), [(GatePooling.SEGMENT, True), (GatePooling.PREFIX, False)])
def test_earlier_logits_hear_of_the_last_token_exactly_when_gates_pool_over_the_segment(
    build: Callable[..., Checkpoint], release_config: LM2Config, ids, pooling: GatePooling, leaks: bool
) -> None:
    model = build(replace(release_config, gate_pooling=pooling), 3).model
    tokens = ids(1, 16)
    changed = tokens.clone()
    changed[0, -1] = (tokens[0, -1] + 1) % release_config.d_vocab
    one, other = model(tokens), model(changed)
    assert not torch.equal(one[:, -1], other[:, -1])
    assert torch.equal(one[:, :-1], other[:, :-1]) is not leaks


@pytest.mark.parametrize("pooling", list(GatePooling))
def test_padding_ids_change_nothing_and_padded_rows_keep_the_bank(
    build: Callable[..., Checkpoint], release_config: LM2Config, ids, pooling: GatePooling
) -> None:
    model = build(replace(release_config, gate_pooling=pooling), 3).model
    tokens = ids(1, 16)
    real = torch.arange(16)[None] < 9
    one = model.segment(tokens, non_padding=real)
    other = model.segment(torch.where(real, tokens, 7), non_padding=real)
    assert torch.equal(one.logits[:, :9], other.logits[:, :9])
    assert torch.equal(one.bank, other.bank)
    assert torch.equal(one.bank[:, 9:], torch.eye(16)[None, 9:])


def test_prefix_pooling_at_the_last_slot_is_the_mean_over_the_segment(
    build: Callable[..., Checkpoint], release_config: LM2Config
) -> None:
    whole, prefix = (
        build(replace(release_config, gate_pooling=pooling), 3).model.blocks[0].mem for pooling in GatePooling
    )
    a = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))
    real = torch.ones(2, 16, dtype=torch.bool)
    torch.testing.assert_close(prefix._pooled(a, real)[:, -1:], whole._pooled(a, real))


def test_a_segment_of_another_length_than_the_bank_is_refused(release: Checkpoint, ids) -> None:
    with pytest.raises(ValueError, match="not 15 and 16"):
        release.model.segment(ids(1, 15))


def test_closed_input_gate_and_open_forget_gate_keep_the_bank(release: Checkpoint, ids) -> None:
    closed = [
        ("blocks.0.mem.hook_gate_in", lambda value, hook: torch.zeros_like(value)),
        ("blocks.1.mem.hook_gate_in", lambda value, hook: torch.zeros_like(value)),
        ("blocks.0.mem.hook_gate_forget", lambda value, hook: torch.ones_like(value)),
        ("blocks.1.mem.hook_gate_forget", lambda value, hook: torch.ones_like(value)),
    ]
    bank = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(2))
    with release.model.hooks(fwd_hooks=closed):
        assert torch.equal(release.model.segment(ids(2, 16), bank).bank, bank)
