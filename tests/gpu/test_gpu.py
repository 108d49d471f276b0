"""The laws that a real GPU could break; skipped where there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.model.rope import DynamicRope, LinearRope, RopeScaling, YarnRope
from lm2.model.sites import Site, sites_of
from lm2.runs.capture import Capture
from lm2.runs.generation import generate
from lm2.runs.interventions import Edit
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint, choose_device, load, save

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def on_gpu(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Checkpoint:
    model = LM2.empty(checkpoint.config, choose_device("cuda"), dtype)
    model.load_weights(checkpoint.model.weights())
    return Checkpoint(name=checkpoint.name, model=model, tokenizer=checkpoint.tokenizer, digest=checkpoint.digest)


def steady(checkpoint: Checkpoint, text: str) -> str:
    """As much of a text as rounding leaves comparable: a random RMT hands each error on three times as large to the
    next segment."""
    if checkpoint.config.memory is not MemoryKind.TOKENS:
        return text
    tokens = checkpoint.tokenizer.encode(text)
    return "".join(tokens.pieces[: 2 * checkpoint.config.segment_length])


def everything(checkpoint: Checkpoint) -> tuple[Capture, ...]:
    return tuple(Capture(site) for site in sites_of(checkpoint.config.memory))


def test_the_gpu_agrees_with_the_cpu_at_every_site(checkpoint: Checkpoint, text: str) -> None:
    spec = RunSpec(checkpoint=checkpoint.name, text=steady(checkpoint, text), captures=everything(checkpoint))
    cpu, gpu = run(checkpoint, spec), run(on_gpu(checkpoint), spec)
    assert gpu.device == "cuda"
    np.testing.assert_allclose(gpu.logits, cpu.logits, atol=1e-4, rtol=1e-4)
    if cpu.bank is not None:
        np.testing.assert_allclose(gpu.bank, cpu.bank, atol=1e-4, rtol=1e-4)
    for key, value in cpu.records.items():
        np.testing.assert_allclose(gpu.records[key], value, atol=1e-4, rtol=1e-4, err_msg=str(key))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_observing_changes_nothing_bitwise(checkpoint: Checkpoint, text: str, dtype: torch.dtype) -> None:
    one = on_gpu(checkpoint, dtype)
    quiet = run(one, RunSpec(checkpoint=one.name, text=text))
    watched = run(one, RunSpec(checkpoint=one.name, text=text, captures=everything(one)))
    assert np.array_equal(quiet.logits, watched.logits)


def test_closed_input_gate_and_open_forget_gate_keep_the_bank(gated: Checkpoint, text: str) -> None:
    one = on_gpu(gated)
    kept = (Edit(site=Site.GATE_IN, operation=Set(value=0.0)), Edit(site=Site.GATE_FORGET, operation=Set(value=1.0)))
    trace = run(one, RunSpec(checkpoint=one.name, text=text, interventions=kept))
    assert np.array_equal(trace.bank, np.eye(one.config.slots, one.config.slot_dim))


def test_greedy_generation_agrees_with_the_cpu(checkpoint: Checkpoint, text: str) -> None:
    cpu, gpu = (generate(one, steady(checkpoint, text), max_tokens=1) for one in (checkpoint, on_gpu(checkpoint)))
    np.testing.assert_allclose(gpu.logits, cpu.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_running_and_writing_work_in_half_precision(checkpoint: Checkpoint, text: str, dtype: torch.dtype) -> None:
    one, text = on_gpu(checkpoint, dtype), steady(checkpoint, text)
    trace = run(one, RunSpec(checkpoint=one.name, text=text, captures=everything(one)))
    exact = run(checkpoint, RunSpec(checkpoint=one.name, text=text))
    assert trace.dtype == str(dtype).removeprefix("torch.") and np.isfinite(trace.logits).all()
    assert np.abs(trace.logits - exact.logits).mean() < 0.1 * np.abs(exact.logits).mean()
    made = generate(one, text, max_tokens=20, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert len(made.ids) == 20


def test_a_folder_of_float16_weights_is_computed_in_float16(plain: Checkpoint, text: str, tmp_path: Path) -> None:
    halved = on_gpu(plain, torch.float16)
    save(tmp_path / "half", halved.model, halved.tokenizer, "")
    one, exact = load(tmp_path / "half", "cuda", "float16"), load(tmp_path / "half", "cpu")
    logits = [run(each, RunSpec(checkpoint=each.name, text=text)).logits for each in (one, exact)]
    assert one.dtype == "float16"
    np.testing.assert_allclose(logits[0], logits[1], atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "scaling",
    [
        LinearRope(factor=4.0),
        DynamicRope(factor=4.0, original_max_position_embeddings=9),
        YarnRope(factor=4.0, original_max_position_embeddings=9),
    ],
)
def test_biases_wide_heads_and_stretched_positions_agree_with_the_cpu(
    build: Callable[..., Checkpoint], plain_config: LM2Config, text: str, scaling: RopeScaling
) -> None:
    sizes = {"head_dim": 6, "qkv_bias": True, "o_bias": True, "mlp_bias": True, "rope_scaling": scaling}
    checkpoint = build(replace(plain_config, **sizes))
    spec = RunSpec(checkpoint=checkpoint.name, text=text, captures=everything(checkpoint))
    cpu, gpu = run(checkpoint, spec), run(on_gpu(checkpoint), spec)
    np.testing.assert_allclose(gpu.logits, cpu.logits, atol=1e-4, rtol=1e-4)
    for key, value in cpu.records.items():
        np.testing.assert_allclose(gpu.records[key], value, atol=1e-4, rtol=1e-4, err_msg=str(key))


def test_cached_decoding_equals_recomputation_on_the_gpu(gated: Checkpoint) -> None:
    one = on_gpu(gated)
    made = generate(one, "Mary moved to the garden.", max_tokens=12)
    length = one.config.segment_length
    ids = [*made.prompt.ids, *made.ids]
    bank, rows = None, []
    with torch.inference_mode():
        for at in range(0, len(ids), length):
            out = one.model.segment(torch.tensor([ids[at : at + length]], device="cuda"), bank)
            bank, rows = out.bank, [*rows, out.logits[0].cpu().numpy()]
    whole = np.concatenate(rows)[len(made.prompt) - 1 : len(ids) - 1]
    np.testing.assert_allclose(made.logits, whole, atol=1e-4, rtol=1e-4)
