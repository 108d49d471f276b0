"""Laws of lm2.model.memory: every kind declares itself, and what it declares is what its models do."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from toys import TOYS

import lm2
from lm2.model.config import LM2Config
from lm2.model.gates import GATES
from lm2.model.memory import MemoryDesign, MemoryKind
from lm2.model.sites import AnySite, Site, sites_of
from lm2.runs.capture import Capture
from lm2.weights.checkpoint import Checkpoint


def test_every_kind_has_a_design_and_a_toy_model() -> None:
    assert set(TOYS) == set(MemoryKind)
    assert len({kind.module for kind in MemoryKind}) == len(MemoryKind)
    for kind in MemoryKind:
        assert isinstance(kind.design, MemoryDesign) and kind.design is kind.design and kind.design.title


def test_a_kind_is_named_as_it_always_was() -> None:
    assert lm2.MemoryKind.GATED is MemoryKind("gated") and MemoryKind.TOKENS.value == "tokens"
    assert [kind.value for kind in MemoryKind][:4] == ["none", "gated", "release", "tokens"]
    assert deepcopy(MemoryKind.RELEASE) is MemoryKind.RELEASE


def test_an_unknown_kind_is_refused_with_those_that_there_are(gated_config: LM2Config) -> None:
    with pytest.raises(ValueError, match=r"memory must be of \['armt', 'gated', 'none', .*not 'great'"):
        LM2Config.from_json(gated_config.to_json() | {"memory": "great"})


def test_a_model_is_made_again_from_its_config(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    assert LM2Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert hash(replace(config)) == hash(config)


def test_every_site_of_a_kind_is_found_by_its_name(checkpoint: Checkpoint) -> None:
    for site in sites_of(checkpoint.config.memory):
        assert AnySite.from_json(site.name) is site
        assert Capture.from_json(json.loads(json.dumps(Capture(site).to_json()))) == Capture(site)
    with pytest.raises(ValueError, match="no site is called 'NOWHERE'"):
        AnySite.from_json("NOWHERE")


def test_gates_are_sites_of_the_memory_and_lie_between_0_and_1(checkpoint: Checkpoint, ids) -> None:
    design, config = checkpoint.config.memory.design, checkpoint.config
    assert set(design.gates) <= set(GATES)
    _, cache = checkpoint.model.run_with_cache(ids(2, config.segment_length))
    for name, gate in design.gates.items():
        assert gate.name == GATES[name].name and gate.site in design.sites and gate.meaning
        for layer in gate.site.layers(config):
            value = cache[gate.site.hook_name(layer)]
            assert value.min() >= 0 and value.max() <= 1


def test_a_bank_is_read_as_the_segment_began_unless_its_kind_says_otherwise(checkpoint: Checkpoint, ids) -> None:
    config, model = checkpoint.config, checkpoint.model
    if not config.memory_layers:
        assert model.fresh_bank(1) is None
        return
    tokens, bank = ids(1, config.segment_length), model.segment(ids(1, config.segment_length, 1)).bank
    written = [(Site.BANK_POST.hook_name(min(config.memory_layers)), lambda value, hook: 0.5 * value)]
    with model.hooks(fwd_hooks=written):
        edited = model.segment(tokens, bank).logits
    assert (
        torch.equal(edited, model.segment(tokens, bank).logits) != config.memory.design.reads_own_writes
        or config.memory.design.bank_in_stream
    )


def test_sizes_of_another_kind_are_refused(gated_config: LM2Config, armt_config: LM2Config) -> None:
    with pytest.raises(ValueError, match="a gated memory has no memory_sizes of its own"):
        replace(gated_config, memory_sizes={"memory_tokens": 2})
    with pytest.raises(ValueError, match="AssociativeSizes"):
        replace(armt_config, memory_sizes=None)
    with pytest.raises(ValueError, match="memory_tokens must be at least 1, not 0"):
        replace(armt_config, memory_sizes={"memory_tokens": 0})
