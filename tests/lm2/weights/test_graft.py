"""Laws of lm2.weights.graft: a grafted memory is silent until it is trained, and belongs to its generator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lm2
from lm2.model.config import MemoryKind
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint, load, save
from lm2.weights.graft import graft


def grafted(checkpoint: Checkpoint, seed: int = 0, **sizes: object) -> Checkpoint:
    sizes = {"slots": 5, "slot_dim": 12, "memory_heads": 2, "memory_layers": (0, 2)} | sizes
    return graft(checkpoint, **sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("window", [None, 7])
def test_a_grafted_memory_changes_no_logit_of_any_segment(
    build, plain_config, text: str, tied: bool, window: int | None
) -> None:
    plain = build(replace(plain_config, tied_embeddings=tied, attention_window=window), 3)
    one = grafted(plain)
    assert one.config == replace(
        plain.config,
        memory=MemoryKind.GATED,
        slots=5,
        slot_dim=12,
        memory_heads=2,
        memory_layers=(0, 2),
        start_keeps=0.99,
    )
    with_memory, without = (run(c, RunSpec(checkpoint=c.name, text=text)) for c in (one, plain))
    assert len(without.segments) >= 4 and np.array_equal(with_memory.logits, without.logits)


def test_the_memory_writes_from_the_start_and_can_be_trained(plain: Checkpoint, ids) -> None:
    model = grafted(plain).model
    first = model.segment(ids(2, 7))
    assert not torch.equal(first.bank, model.fresh_bank(2))
    logits = model.segment(ids(2, 7, seed=1), first.bank).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids(2, 7, seed=1)[:, 1:].flatten()).backward()
    assert all(model.blocks[layer].mem.o.weight.grad.abs().max() > 0 for layer in (0, 2))
    assert all(weight.requires_grad for weight in model.parameters())


def test_it_is_saved_and_loaded_again_equal(plain: Checkpoint, tmp_path: Path) -> None:
    one = grafted(plain)
    save(tmp_path / "one", one.model, one.tokenizer, one.card)
    back = load(tmp_path / "one", "cpu")
    assert (back.config, back.digest, back.card) == (one.config, one.digest, one.card)
    assert all(torch.equal(weight, one.model.weights()[name]) for name, weight in back.model.weights().items())


def test_its_weights_come_from_the_generator_alone(plain: Checkpoint) -> None:
    before = torch.get_rng_state()
    a, b, c = grafted(plain), grafted(plain), grafted(plain, seed=1)
    assert a.digest == b.digest != c.digest
    assert torch.equal(torch.get_rng_state(), before)
    backbone = plain.model.weights()
    assert all(torch.equal(a.model.weights()[name], weight) for name, weight in backbone.items())
    assert a.memory_parameters == a.parameters - plain.parameters > 0


def test_device_and_dtype_stay(build, plain_config, ids) -> None:
    plain = build(plain_config, 3)
    plain.model.to(torch.bfloat16)
    one = grafted(plain)
    assert one.dtype == "bfloat16"
    assert torch.equal(one.model(ids(2, 9)), plain.model(ids(2, 9)))


def test_a_memory_is_refused_where_there_is_one_or_where_it_does_not_fit(plain: Checkpoint, gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="'toy-gated' has a memory of kind 'gated' already"):
        grafted(gated)
    for sizes, said in (
        ({"slots": 13}, "slots <= slot_dim, not 13 > 12"),
        ({"memory_heads": 5}, "d_model 16 does not divide among memory_heads 5"),
        ({"memory_layers": (0, 3)}, "memory_layers must be distinct blocks of 0..2"),
    ):
        with pytest.raises(ValueError, match=said):
            grafted(plain, **sizes)


def test_the_package_offers_it() -> None:
    assert lm2.graft is graft
