"""Every tensor is made where the weights are: shown on a pretended CUDA device, where a stray CPU tensor is an
error."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

import lm2.model.finite
import lm2.model.lm2
import lm2.runs.loop
import lm2.runs.runner
from lm2.model.config import BankStart, GatePooling, MemoryKind
from lm2.model.lm2 import LM2
from lm2.model.rope import DynamicRope, Llama3Rope, YarnRope
from lm2.model.sites import Site, sites_of
from lm2.runs.capture import Capture, PooledMax, TopSlots
from lm2.runs.donors import Mean
from lm2.runs.interventions import BankEdit, Carry, Edit, Freeze, MemoryOff, Persistence, Reset, WriteBlock
from lm2.runs.operations import Scale, Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint

CUDA = torch.device("cuda")


class PlainIndexing(TorchFunctionMode):
    """x[...] in operators that pretended tensors know: PyTorch's own indexing asks for CUDA itself, which a CPU build
    lacks."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.Tensor.__getitem__:
            return self.pick(*args)
        if func is torch.Tensor.__setitem__:
            place, value = self.pick(*args[:2]), args[2]
            if isinstance(args[1], list):
                args[0].index_fill_(0, torch.tensor(args[1], device=args[0].device), value)
            elif isinstance(value, torch.Tensor):
                place.mul_(0).add_(value)
            else:
                place.fill_(value)
            return None
        if func is torch.Tensor.__invert__:
            return torch.logical_not(*args)
        if func is torch.Tensor.__bool__ and isinstance(args[0], FakeTensor):
            return False  # it has no numbers: no token of it is behind padding
        return func(*args, **(kwargs or {}))

    def pick(self, x: torch.Tensor, index: Any) -> torch.Tensor:
        if isinstance(index, (torch.Tensor, list)):
            at = index if isinstance(index, torch.Tensor) else torch.tensor(index, device=x.device)
            return torch.ops.aten.index.Tensor(x, [at])
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            missing = x.ndim - sum(one is not None for one in index) + 1
            index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
        axis = 0
        for one in index:
            if one is None:
                x, axis = x.unsqueeze(axis), axis + 1
            elif isinstance(one, int):
                x = x.select(axis, one)
            else:
                start, stop, step = one.indices(x.shape[axis])
                x, axis = torch.ops.aten.slice.Tensor(x, axis, start, stop, step), axis + 1
        return x


@contextmanager
def pretending() -> Iterator[None]:
    with FakeTensorMode(), PlainIndexing(), ExitStack() as stack:
        for module in (lm2.model.lm2, lm2.model.finite):  # there are no numbers to look at
            stack.enter_context(patch.object(module, "is_finite", lambda value: True))
        yield


def pretended(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, **changes: object) -> Checkpoint:
    """The checkpoint's sizes on a CUDA device, in two blocks; to be called while pretending."""
    layers = (0, 1) if checkpoint.config.memory_layers else ()
    model = LM2.empty(replace(checkpoint.config, n_layers=2, memory_layers=layers, **changes), CUDA, dtype)
    return Checkpoint(name=checkpoint.name, model=model, tokenizer=checkpoint.tokenizer, digest="fake")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_runs_on_another_device_through_its_cache(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    length = checkpoint.config.segment_length
    with pretending(), torch.inference_mode():
        model = pretended(checkpoint, dtype).model
        ids = torch.zeros(2, length, dtype=torch.long, device=CUDA)
        first = model.segment(ids)
        second = model.segment(ids, first.bank, cache=first.cache.last(3), non_padding=ids == 0)
        for out in (first, second):
            assert out.logits.device.type == "cuda" and out.logits.dtype is dtype
            assert out.bank is None or (out.bank.device.type == "cuda" and out.bank.dtype is dtype)
            assert out.cache.positions.device.type == out.cache.layers[0].k.device.type == "cuda"


def test_every_option_of_a_model_runs_on_another_device(gated: Checkpoint, release: Checkpoint) -> None:
    scaling = Llama3Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    dynamic = DynamicRope(factor=8.0, original_max_position_embeddings=4)
    biased = {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "head_dim": 6}
    with pretending(), torch.inference_mode():
        for one in (
            pretended(gated, bank_start=BankStart.LEARNED, read_top_k=2, rope_scaling=scaling, tied_embeddings=True),
            pretended(gated, rope_scaling=dynamic, **biased),
            pretended(gated, rope_scaling=YarnRope(factor=8.0, original_max_position_embeddings=4)),
            pretended(release, gate_pooling=GatePooling.PREFIX),
        ):
            ids = torch.zeros(2, one.config.segment_length, dtype=torch.long, device=CUDA)
            assert one.model(ids).device.type == "cuda"
            assert (
                one.model.fresh_bank(3).device.type == one.model.b_U.device.type == one.model.cfg.device.type == "cuda"
            )


def test_a_captured_run_with_interventions_stays_on_its_device(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.device] = []

    def to_zeros(value: torch.Tensor) -> np.ndarray:
        """Pretended tensors hold no numbers."""
        seen.append(value.device)
        return np.zeros(tuple(value.shape), np.float32)

    for module in (lm2.runs.runner, lm2.runs.loop):
        monkeypatch.setattr(module, "to_numpy", to_zeros)
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    changes: tuple = (Edit(site=Site.RESID_MID, operation=Set(value=0.0)),)
    if checkpoint.config.memory_layers:
        captures += (Capture(Site.READ_PATTERN, TopSlots(2)), Capture(Site.READ_PATTERN, PooledMax(3)))
        changes += (
            Edit(site=Site.BANK_POST, operation=Set(value=0.0), slots=(1, 2)),
            Freeze(segment=1),
            Reset(segment=2),
        )
        changes += (
            Carry(texts=("Mary moved to",)),
            MemoryOff(layers=(0,)),
            BankEdit(operation=Mean(texts=("Mary moved", "John went"), segment=-1)),
        )
        changes += (
            Edit(site=Site.RESID_MID, operation=Scale(by=2.0), tokens=(3, 4), persistence=Persistence.READ_ONLY),
        )
    if checkpoint.config.memory in (MemoryKind.GATED, MemoryKind.TOKENS, MemoryKind.ARMT):
        changes += (WriteBlock(tokens=(2, 3)),)
    text = "Mary moved to the garden. John went to the office. Where is John?"
    if checkpoint.config.segment_length == 16:
        text *= 3
    alone = checkpoint.config.memory in (MemoryKind.TOKENS, MemoryKind.ARMT)  # whose segments never see earlier tokens
    with pretending():
        for window in (checkpoint.config.segment_length, *(() if alone else (None,))):
            one = pretended(checkpoint, attention_window=window)
            trace = run(one, RunSpec(checkpoint=one.name, text=text, captures=captures, interventions=changes))
            assert trace.device == "cuda"
            assert trace.bytes == lm2.runs.runner.predicted_bytes(one, trace.spec)
    assert {device.type for device in seen} == {"cuda"}


def test_a_stray_cpu_tensor_is_an_error_there(gated: Checkpoint) -> None:
    with pretending(), torch.inference_mode():
        model = pretended(gated).model
        ids = torch.zeros(1, 7, dtype=torch.long, device=CUDA)
        with pytest.raises(Exception, match="device"):
            model.segment(torch.zeros(1, 7, dtype=torch.long))
        with pytest.raises(Exception, match="device"):
            model.segment(ids, torch.zeros(1, 5, 12))
