"""Laws of probes.experiments.contents.slots: how many slots are used, and which are not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import REMEMBERING

from lm2.model.config import LM2Config, MemoryKind
from lm2.runs.interventions import Freeze
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint
from probes.experiments.contents.slots import effective_rank, participation_ratio, unused, usage


@pytest.fixture(params=REMEMBERING)
def remembering(request: pytest.FixtureRequest) -> Checkpoint:
    return request.getfixturevalue(request.param)


def documents(checkpoint: Checkpoint, text: str) -> list[RunSpec]:
    return [RunSpec(checkpoint=checkpoint.name, text=text[start:]) for start in (0, 28, 53)]


def test_equal_masses_count_whole_and_a_single_one_counts_once() -> None:
    assert participation_ratio(np.ones(7)) == pytest.approx(7)
    assert participation_ratio(np.array([[0.0, 3.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx(
        [1, 2, 0]
    )
    assert participation_ratio(5 * np.arange(9.0)) == pytest.approx(participation_ratio(np.arange(9.0)))


def test_the_rank_is_of_what_slots_do_not_share() -> None:
    identity = np.eye(6, 9)
    assert effective_rank(identity) == pytest.approx(5)
    assert effective_rank(identity + 100) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(6.0), np.ones(9))) == pytest.approx(1)
    assert effective_rank(np.ones((6, 9))) == 0


def test_a_slot_is_unused_only_where_every_document_leaves_it_alone() -> None:
    mass = np.array([[1.0, 0.001, 0.001, 1.0], [1.0, 0.001, 0.5, 1.0]])
    assert unused(mass, 0.01).tolist() == [False, True, False, False]
    assert unused(100 * mass, 0.01).tolist() == [False, True, False, False]
    assert not unused(mass, 0.0).any()


def test_shares_sum_to_one_and_effective_numbers_stay_within_the_slots(remembering: Checkpoint, text: str) -> None:
    slots, heard = remembering.config.slots, []
    found = usage(remembering, documents(remembering, text), ["a", "a", "b"], on_document=lambda: heard.append(1))
    assert (found.n, found.groups, len(heard)) == (3, 2, 3)
    assert found.read_share.sum() == pytest.approx(1) and found.write_share.sum() == pytest.approx(1)
    empty = remembering.config.memory is MemoryKind.ARMT  # of which nothing is read before something is written
    assert 1 <= found.read.mean <= slots and 1 <= found.write.mean <= slots
    assert found.fresh_read.mean == 0 if empty else 1 <= found.fresh_read.mean <= slots
    assert found.rank.mean <= slots - 1 and found.fresh_rank <= slots - 1
    assert found.read_over_fresh.mean == pytest.approx(found.read.mean - found.fresh_read.mean)
    assert (found.forget is None) == (remembering.config.memory in (MemoryKind.TOKENS, MemoryKind.ARMT))
    assert found.forget is None or ((found.forget > 0) & (found.forget <= 1)).all()
    assert set(found.dead) == set(found.unread) & set(found.unchanged)


def test_a_memory_that_writes_nothing_is_read_as_a_fresh_one(remembering: Checkpoint, text: str) -> None:
    frozen = [replace(spec, interventions=(Freeze(),)) for spec in documents(remembering, text)]
    found = usage(remembering, frozen, ["a", "b", "c"])
    np.testing.assert_array_equal(found.read.values, found.fresh_read.values)
    assert found.rank.mean == pytest.approx(found.fresh_rank)


def test_uniform_reading_uses_every_slot_and_an_input_gate_that_is_shut_changes_none(
    build: Callable[..., Checkpoint], gated_config: LM2Config, text: str
) -> None:
    uniform = build(gated_config, 2, "uniform")
    with torch.no_grad():
        for layer in uniform.config.memory_layers:
            memory = uniform.model.blocks[layer].mem
            memory.read_q.weight.zero_()
            memory.forget_gate.bias[:] = 1e4
            memory.in_gate.bias[:] = -1e4
    found = usage(uniform, documents(uniform, text)[:1], ["a"], fraction=0.5)
    assert found.read.mean == pytest.approx(uniform.config.slots)
    assert found.change == pytest.approx(0) and found.forget == pytest.approx(1)
    assert found.unread == () and found.unchanged == tuple(range(uniform.config.slots)) and found.dead == ()


def test_what_has_nothing_to_say_about_slots_is_refused(gated: Checkpoint, plain: Checkpoint, text: str) -> None:
    with pytest.raises(ValueError, match="a model of memory kind 'none' has no slots"):
        usage(plain, documents(plain, text), ["a", "b", "c"])
    with pytest.raises(ValueError, match="at least 1 document"):
        usage(gated, [], [])
    with pytest.raises(ValueError, match="single segment"):
        usage(gated, [RunSpec(checkpoint=gated.name, text="Mary moved.")], ["a"])
