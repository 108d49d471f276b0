"""Laws of lm2.model.kinds.gated: the paper's equations, and what follows from them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import BankStart, LM2Config, MemoryKind
from lm2.model.kinds.gated import GatedMemory
from lm2.model.lm2 import LM2
from lm2.model.sites import Site
from lm2.runs.interventions import Edit
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q over rows of k, head by head, the heads joined."""
    out = []
    for a, b, c in zip(*(np.split(x, heads, axis=1) for x in (q, k, v))):
        out.append(softmax(a @ b.T / np.sqrt(a.shape[1])) @ c)
    return np.concatenate(out, axis=1)


def reference(
    memory: GatedMemory, mid: np.ndarray, start: np.ndarray, bank: np.ndarray, heads: int, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """The equations of one block's memory for one row of a batch, from the specification, in float64 numpy."""
    w = {name: value.detach().double().numpy() for name, value in memory.named_parameters()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w[f"{name}.w"]

    def times(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T

    tokens = norm(mid, "ln_token")
    read_slots = norm(start, "ln_read")
    read = attend(times(tokens, "read_q"), times(read_slots, "read_k"), times(read_slots, "read_v"), heads)
    gate_out = sigmoid(times(read, "out_gate") + w["out_gate.bias"])
    slots = norm(bank, "ln_write")
    update = attend(times(slots, "write_q"), times(tokens, "write_k"), times(tokens, "write_v"), heads)
    gate_in = sigmoid(times(update, "in_gate") + times(slots, "in_gate_bank") + w["in_gate.bias"])
    gate_forget = sigmoid(times(update, "forget_gate") + times(slots, "forget_gate_bank") + w["forget_gate.bias"])
    return times(gate_out * read, "o"), gate_in * np.tanh(times(update, "candidate")) + gate_forget * bank


def test_a_block_computes_the_equations_of_the_specification(gated: Checkpoint) -> None:
    config, memory = gated.config, gated.model.blocks[2].mem
    generator = torch.Generator().manual_seed(0)
    mid = torch.randn(2, 6, config.d_model, generator=generator)
    start, bank = torch.randn(2, 2, config.slots, config.slot_dim, generator=generator)
    with torch.inference_mode():
        step = memory(mid, torch.zeros_like(mid), start, bank, torch.ones(2, 6, dtype=torch.bool), True)
    for row in range(2):
        mem_out, after = reference(
            memory, *(x[row].double().numpy() for x in (mid, start, bank)), config.memory_heads, config.rms_norm_eps
        )
        np.testing.assert_allclose(step.mem_out[row].numpy(), mem_out, atol=1e-5)
        np.testing.assert_allclose(step.bank[row].numpy(), after, atol=1e-5)


def test_closed_input_gate_and_open_forget_gate_keep_the_bank(gated: Checkpoint, text: str) -> None:
    kept = (Edit(site=Site.GATE_IN, operation=Set(value=0.0)), Edit(site=Site.GATE_FORGET, operation=Set(value=1.0)))
    trace = run(gated, RunSpec(checkpoint=gated.name, text=text, interventions=kept))
    assert np.array_equal(trace.bank, np.eye(gated.config.slots, gated.config.slot_dim))
    assert not np.array_equal(run(gated, RunSpec(checkpoint=gated.name, text=text)).bank, trace.bank)


def test_every_block_reads_the_bank_as_the_segment_found_it(gated: Checkpoint, ids) -> None:
    _, cache = gated.model.run_with_cache(ids(1, 7))
    start = gated.model.fresh_bank(1)
    for layer in gated.config.memory_layers:
        memory = gated.model.blocks[layer].mem
        expected = memory.read_k(memory.ln_read(start)).unflatten(-1, (gated.config.memory_heads, -1))
        torch.testing.assert_close(cache[f"blocks.{layer}.mem.hook_read_k"], expected)


def test_writes_chain_from_block_to_block(gated: Checkpoint, ids) -> None:
    _, cache = gated.model.run_with_cache(ids(1, 7))
    assert torch.equal(cache["blocks.0.mem.hook_bank_pre"], gated.model.fresh_bank(1))
    assert torch.equal(cache["blocks.2.mem.hook_bank_pre"], cache["blocks.0.mem.hook_bank_post"])
    assert torch.equal(gated.model.segment(ids(1, 7)).bank, cache["blocks.2.mem.hook_bank_post"])


def test_padding_never_gets_weight_in_a_write(gated: Checkpoint, ids) -> None:
    seen = []
    real = torch.tensor([[True] * 3 + [False] * 4])
    with gated.model.hooks(fwd_hooks=[("blocks.0.mem.hook_write_pattern", lambda value, hook: seen.append(value))]):
        gated.model.segment(ids(1, 7), non_padding=real)
    assert (seen[0][..., 3:] == 0).all()
    torch.testing.assert_close(seen[0].sum(-1), torch.ones_like(seen[0].sum(-1)))


def test_patterns_sum_to_one_and_gates_lie_between_zero_and_one(gated: Checkpoint, ids) -> None:
    _, cache = gated.model.run_with_cache(ids(2, 7))
    for layer in gated.config.memory_layers:
        for name in ("read_pattern", "write_pattern"):
            total = cache[f"blocks.{layer}.mem.hook_{name}"].sum(-1)
            torch.testing.assert_close(total, torch.ones_like(total))
        for name in ("gate_in", "gate_forget", "gate_out"):
            gate = cache[f"blocks.{layer}.mem.hook_{name}"]
            assert ((gate > 0) & (gate < 1)).all()


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_top_k_keeps_the_largest_weights_in_proportion(
    build: Callable[..., Checkpoint], gated_config: LM2Config, ids, top_k: int
) -> None:
    all_slots, some = build(gated_config, 4).model, build(replace(gated_config, read_top_k=top_k), 4).model
    _, whole = all_slots.run_with_cache(ids(2, 7))
    _, cut = some.run_with_cache(ids(2, 7))
    whole, cut = (cache["blocks.0.mem.hook_read_pattern"] for cache in (whole, cut))
    assert ((cut > 0).sum(-1) == top_k).all()
    largest = whole.topk(top_k, -1)
    expected = largest.values / largest.values.sum(-1, keepdim=True)
    torch.testing.assert_close(cut.gather(-1, largest.indices), expected)


def test_the_order_of_slots_means_nothing(build: Callable[..., Checkpoint], gated_config: LM2Config, ids) -> None:
    model = build(replace(gated_config, bank_start=BankStart.LEARNED), 5).model
    order = torch.tensor([3, 0, 4, 1, 2])
    bank, shuffled = model.fresh_bank(2), model.fresh_bank(2)[:, order]
    for at in range(4):
        one, other = model.segment(ids(2, 7, at), bank), model.segment(ids(2, 7, at), shuffled)
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.bank[:, order], other.bank, rtol=1e-4, atol=1e-5)
        bank, shuffled = one.bank, other.bank


def test_without_an_output_matrix_the_model_is_its_llama_backbone(
    build: Callable[..., Checkpoint], gated_config: LM2Config, ids
) -> None:
    grafted = build(gated_config, 6).model
    with torch.no_grad():
        for layer in gated_config.memory_layers:
            grafted.blocks[layer].mem.o.weight.zero_()
    backbone = LM2(replace(gated_config, memory=MemoryKind.NONE, slots=0, slot_dim=0, memory_heads=0, memory_layers=()))
    backbone.load_weights({name: value for name, value in grafted.weights().items() if ".mem." not in name})
    assert torch.equal(grafted(ids(2, 7)), backbone(ids(2, 7)))


def test_what_a_segment_wrote_can_be_read_in_the_next(gated: Checkpoint, ids) -> None:
    one, other = gated.model.segment(ids(1, 7, 0)).bank, gated.model.segment(ids(1, 7, 1)).bank
    assert not torch.allclose(
        gated.model.segment(ids(1, 7, 2), one).logits, gated.model.segment(ids(1, 7, 2), other).logits
    )


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_memory_can_begin_with_what_attention_has_learnt(gated_config: LM2Config, build, ids, kv_heads: int) -> None:
    alike = replace(gated_config, slot_dim=gated_config.d_model, memory_heads=4, n_key_value_heads=kv_heads)
    model = build(alike, name="toy-begun").model
    block = model.blocks[2]
    block.mem.begin_as(block.attn)
    for read, layer in ((block.mem.read_k, block.attn.k), (block.mem.read_v, block.attn.v)):
        heads, shared = read.weight.unflatten(0, (4, -1)), layer.weight.unflatten(0, (kv_heads, -1))
        assert all(torch.equal(heads[head], shared[head * kv_heads // 4]) for head in range(4))
    _, cache = model.run_with_cache(ids(1, 7))
    assert torch.equal(block.mem.read_q.weight, block.attn.q.weight) and torch.equal(
        block.mem.o.weight, block.attn.o.weight
    )
    pattern = cache["blocks.2.mem.hook_write_pattern"]
    assert torch.equal(pattern, pattern[:, :1].expand_as(pattern)), "every head of a slot attends to the same token"
    token = block.mem.ln_token(cache["blocks.2.hook_resid_pre"] + cache["blocks.2.hook_attn_out"])
    copied = torch.einsum("bst,btd->bsd", pattern[:, 0], token).tanh()
    torch.testing.assert_close(cache["blocks.2.mem.hook_candidate"], copied)


def test_a_memory_of_other_sizes_cannot_begin_as_attention(gated: Checkpoint) -> None:
    block = gated.model.blocks[0]
    with pytest.raises(ValueError, match="where slot_dim and the width of all heads are d_model"):
        block.mem.begin_as(block.attn)


def silent_slots_keep(config: LM2Config) -> torch.Tensor:
    """The share of itself that each feature of a slot keeps in a segment that writes nothing, as training starts.

    The slots are so faint that their own content does not move the gates.
    """
    model = LM2(config)
    model.initialise(torch.Generator().manual_seed(0))
    bank = torch.full((1, config.slots, config.slot_dim), 1e-6)
    points = [f"blocks.{layer}.mem.hook_write_pattern" for layer in config.memory_layers]
    with torch.no_grad(), model.hooks(fwd_hooks=[(point, lambda pattern, hook: 0 * pattern) for point in points]):
        return model.segment(torch.tensor([[5, 6, 7]]), bank).bank / bank


@pytest.mark.parametrize("writing", [(1,), (0, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_at_the_start_a_slot_that_nothing_writes_keeps_its_share_however_many_blocks_write(
    gated_config: LM2Config, writing: tuple[int, ...], share: float
) -> None:
    config = replace(gated_config, n_layers=4, memory_layers=writing)
    kept = silent_slots_keep(replace(config, start_keeps=share))
    torch.testing.assert_close(kept, torch.full_like(kept, share), rtol=0, atol=1e-3)
    by_block = silent_slots_keep(replace(config, forget_bias=2.0))
    expected = torch.tensor(2.0).sigmoid() ** len(writing)
    torch.testing.assert_close(by_block, expected.expand_as(by_block), rtol=0, atol=1e-3)
