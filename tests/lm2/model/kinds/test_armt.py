"""Laws of lm2.model.kinds.armt: the associative matrix, its delta rule, and the road that it is between segments."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lm2.model.config import BankStart, LM2Config
from lm2.model.kinds.armt import NU, TINY, AssociativeMemory, features
from lm2.model.lm2 import LM2
from lm2.model.sites import Site
from lm2.runs.hooks import hooks
from lm2.runs.interventions import Freeze, MemoryOff, WriteBlock
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint, load, save

NEAR = {"rtol": 1e-4, "atol": 1e-5}


def phi(key: np.ndarray) -> np.ndarray:
    r = np.concatenate([np.maximum(key, 0), np.maximum(-key, 0)])
    return np.concatenate([r * np.roll(r, shift) for shift in range(1, NU + 1)])


def written(memory: AssociativeMemory, tokens: np.ndarray, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
    """A [d_model, features] and z after the delta rule, memory token by memory token, from the formulas."""
    w = {name: weight.detach().double().numpy() for name, weight in memory.named_parameters()}
    new_a, new_z = a.copy(), z.copy()
    for token in tokens:
        key, value = phi(w["key.weight"] @ token), w["value.weight"] @ token
        beta = 1 / (1 + np.exp(-(w["beta.weight"] @ token + w["beta.bias"])))
        new_a += np.outer(beta * (value - a @ key / (z @ key + TINY)), key)
        new_z += min(1, max(0, 1 - z @ key / (key @ key + TINY))) * key
    return new_a, new_z


def test_features_are_the_products_of_shifted_halves_and_none_is_negative() -> None:
    keys = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = features(keys)
    np.testing.assert_allclose(found.numpy(), np.stack([phi(key) for key in keys.numpy()]))
    assert found.shape == (50, 2 * 4 * NU) and (found >= 0).all() and (found.sum(0) > 0).all()


@torch.inference_mode()
def test_a_block_computes_the_formulas(armt: Checkpoint) -> None:
    config, memory = armt.config, armt.model.blocks[2].mem
    generator = torch.Generator().manual_seed(1)
    a, z = np.zeros((config.d_model, config.slots)), np.zeros(config.slots)
    bank = armt.model.fresh_bank(1)
    for _ in range(3):
        stream = torch.randn(1, 8, config.d_model, generator=generator)
        read = memory.before_attention(stream, bank)[0]
        query = memory.query.weight.double().numpy()
        for token, found in zip(stream[0].double().numpy(), read, strict=True):
            key = phi(query @ token)
            np.testing.assert_allclose(found, a @ key / (z @ key + TINY), rtol=1e-3, atol=1e-4)
        _, bank = memory.leave(stream, bank, True)
        a, z = written(memory, stream[0, -config.memory_sizes.memory_tokens :].double().numpy(), a, z)
        values, normaliser = memory.split(bank[0])
        np.testing.assert_allclose(values, a.T, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(normaliser, z, rtol=1e-4, atol=1e-5)
    assert (bank[0, :, : config.d_model + 1] == 0).all()  # what belongs to block 0


@torch.inference_mode()
def test_what_is_written_under_a_key_is_read_by_it_and_written_over(build, armt_config: LM2Config) -> None:
    model = build(replace(armt_config, memory_sizes={"memory_tokens": 1}), 3).model.double()
    memory: AssociativeMemory = model.blocks[0].mem
    memory.query.weight.copy_(memory.key.weight)
    memory.beta.bias.fill_(50.0)  # all of the correction is written
    generator = torch.Generator().manual_seed(2)
    token, bank = torch.randn(1, 1, 16, generator=generator, dtype=torch.float64), model.fresh_bank(1)
    _, bank = memory.leave(token, bank, True)
    torch.testing.assert_close(memory.before_attention(token, bank), memory.value(token), rtol=1e-3, atol=1e-4)
    memory.value.weight.mul_(-2.0)
    _, bank = memory.leave(token, bank, True)
    torch.testing.assert_close(memory.before_attention(token, bank), memory.value(token), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_an_empty_memory_reads_as_nothing(armt: Checkpoint, text: str) -> None:
    spec, first = RunSpec(checkpoint=armt.name, text=text), armt.config.segment_length
    clean, off, frozen = (
        run(armt, replace(spec, interventions=changes)).logits for changes in ((), (MemoryOff(),), (Freeze(),))
    )
    np.testing.assert_array_equal(clean[:first], off[:first])
    assert not np.allclose(clean[first:], off[first:])
    np.testing.assert_array_equal(frozen, off)


@torch.inference_mode()
def test_no_logit_depends_on_a_later_token_and_the_bank_on_all(armt: Checkpoint, ids) -> None:
    tokens, bank = ids(1, 7), armt.model.segment(ids(1, 7, 1)).bank
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % armt.config.d_vocab
    one, other = armt.model.segment(tokens, bank), armt.model.segment(changed, bank)
    assert torch.equal(one.logits[:, :4], other.logits[:, :4])
    assert not torch.equal(one.logits[:, 4:], other.logits[:, 4:]) and not torch.equal(one.bank, other.bank)
    torch.testing.assert_close(armt.model.segment(tokens, bank, write=False).logits, one.logits, **NEAR)


@torch.inference_mode()
def test_the_bank_written_with_a_cache_is_the_bank_of_the_whole_segment(armt: Checkpoint, ids) -> None:
    tokens = ids(1, 7)
    whole, first = armt.model.segment(tokens), armt.model.segment(tokens[:, :4], write=False)
    rest = armt.model.segment(tokens[:, 4:], cache=first.cache)
    torch.testing.assert_close(rest.bank, whole.bank, **NEAR)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits, **NEAR)


@torch.inference_mode()
def test_a_memory_of_a_long_document_stays_finite_and_its_normaliser_positive(armt: Checkpoint, ids) -> None:
    bank, sizes = None, []
    for seed in range(60):
        bank = armt.model.segment(ids(2, 7, seed), bank).bank
        sizes.append(float(bank.abs().max()))
    for layer in armt.config.memory_layers:
        assert (armt.model.blocks[layer].mem.split(bank)[1] >= 0).all()
    assert max(sizes[30:]) < 10 * max(sizes[:30])


@torch.inference_mode()
def test_tokens_that_cannot_write_leave_no_trace_in_the_bank(build, armt_config: LM2Config, ids) -> None:
    single = replace(armt_config, n_layers=1, memory_layers=(0,), slot_dim=17)  # no block in between
    model, tokens = build(single, 4).model, ids(1, 7)
    changed = tokens.clone()
    changed[0, 2] = (changed[0, 2] + 1) % single.d_vocab
    blocked = hooks((WriteBlock(tokens=(2,)),), single, Segment(index=0, start=0, ids=tuple(tokens[0].tolist())))
    assert not torch.equal(model.segment(tokens).bank, model.segment(changed).bank)
    with model.hooks(fwd_hooks=blocked):
        torch.testing.assert_close(model.segment(tokens).bank, model.segment(changed).bank, **NEAR)


def test_it_is_saved_and_opened_again(armt: Checkpoint, text: str, tmp_path: Path) -> None:
    save(tmp_path / "model", armt.model, armt.tokenizer, "")
    opened = load(str(tmp_path / "model"))
    assert opened.config == armt.config
    logits = [run(each, RunSpec(checkpoint=each.name, text=text)).logits for each in (armt, opened)]
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_memory_tokens_through_later_segments(build, armt_config: LM2Config, ids) -> None:
    model: LM2 = build(armt_config, 9).model
    bank = None
    for seed in range(3):
        out = model.segment(ids(2, 7, seed), bank)
        bank = out.bank
    out.logits.sum().backward()
    memory = model.blocks[0].mem
    for weight in (memory.tokens, memory.key.weight, memory.value.weight, memory.beta.weight, memory.query.weight):
        assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slot_dim": 17}, "an associative memory needs slot_dim = 34, not 17"),
        ({"memory_heads": 2}, "needs memory_heads = 1, not 2"),
        ({"attention_window": None}, "needs attention_window = 7, not None"),
        ({"slots": 25}, "slots 25 does not divide"),
        ({"slots": 18}, "slots of at least 24, not 18"),
        ({"bank_start": BankStart.LEARNED}, "begins empty"),
    ],
)
def test_sizes_that_it_cannot_have_are_refused(armt_config: LM2Config, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(armt_config, **change)
    assert Site.WRITE_PATTERN.layers(armt_config) == ()
