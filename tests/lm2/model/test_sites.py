"""Laws of lm2.model.sites: the list of sites and the model's hook points are the same thing."""

import pytest
import torch

from lm2.model.hooks import HookPoint
from lm2.model.sites import Axis, Site, sites_of
from lm2.weights.checkpoint import Checkpoint


def names(checkpoint: Checkpoint) -> set[str]:
    return {
        site.hook_name(layer) for site in sites_of(checkpoint.config.memory) for layer in site.layers(checkpoint.config)
    }


def test_every_hook_point_is_a_site_and_every_site_a_hook_point(checkpoint: Checkpoint) -> None:
    assert names(checkpoint) == set(checkpoint.model.hook_dict)
    assert names(checkpoint) == {
        name for name, module in checkpoint.model.named_modules() if isinstance(module, HookPoint)
    }


def test_captured_shapes_are_the_axes_of_the_site(checkpoint: Checkpoint, ids) -> None:
    config = checkpoint.config
    tokens = config.segment_length
    _, cache = checkpoint.model.run_with_cache(ids(2, tokens))
    design = config.memory.design
    rows = tokens + design.front_rows(config) + design.back_rows(config)
    sizes = {
        Axis.TOKEN: rows, Axis.KEY: rows, Axis.SLOT: config.slots, Axis.SLOT_DIM: config.slot_dim,
        Axis.D_MODEL: config.d_model,
        Axis.D_MLP: config.d_mlp, Axis.KV_HEAD: config.n_key_value_heads, Axis.ONE: 1,
    }  # fmt: skip
    for site in sites_of(config.memory):
        heads = config.memory_heads if ".mem." in site.template else config.n_heads
        here = sizes | {Axis.HEAD: heads, Axis.D_HEAD: config.d_model // heads}
        if ".mem." in site.template:  # where slots are rows of the stream, reading is that of tokens alone
            here |= design.sizes(config) | {Axis.TOKEN: tokens if design.bank_in_stream else rows}
        for layer in site.layers(config):
            assert tuple(cache[site.hook_name(layer)].shape) == (2, *(here[axis] for axis in site.axes)), site


def test_every_site_fires_once_per_segment_and_block(checkpoint: Checkpoint, ids) -> None:
    fired: dict[str, int] = {}

    def count(value: torch.Tensor, hook: HookPoint) -> None:
        fired[hook.name] = fired.get(hook.name, 0) + 1

    with checkpoint.model.hooks(fwd_hooks=[(lambda name: True, count)]):
        checkpoint.model.segment(ids(1, checkpoint.config.segment_length))
    assert fired == dict.fromkeys(names(checkpoint), 1)


def test_resid_mid_is_the_sum_of_what_is_added_to_the_stream(checkpoint: Checkpoint, ids) -> None:
    _, cache = checkpoint.model.run_with_cache(ids(2, checkpoint.config.segment_length))
    for layer in range(checkpoint.config.n_layers):
        parts = cache[f"blocks.{layer}.hook_resid_pre"] + cache[f"blocks.{layer}.hook_attn_out"]
        if layer in Site.MEM_OUT.layers(checkpoint.config):
            parts = parts + cache[f"blocks.{layer}.hook_mem_out"]
        torch.testing.assert_close(cache[f"blocks.{layer}.hook_resid_mid"], parts)


def test_a_site_names_its_block_exactly_where_it_has_one() -> None:
    assert Site.GATE_IN.hook_name(3) == "blocks.3.mem.hook_gate_in"
    assert Site.EMBED.hook_name() == "hook_embed"
    with pytest.raises(ValueError, match="GATE_IN needs a layer"):
        Site.GATE_IN.hook_name()
    with pytest.raises(ValueError, match="EMBED has no layer"):
        Site.EMBED.hook_name(0)


def test_no_two_sites_share_a_name() -> None:
    assert len({site.template for site in Site}) == len(Site) == len(Site.__members__)


def test_memory_sites_exist_only_in_blocks_with_a_memory(gated: Checkpoint, plain: Checkpoint) -> None:
    assert Site.GATE_IN.layers(gated.config) == (0, 2)
    assert Site.MEM_OUT.layers(gated.config) == (0, 2)
    assert Site.RESID_MID.layers(gated.config) == (0, 1, 2)
    assert Site.EMBED.layers(gated.config) == (None,)
    assert Site.GATE_IN.layers(plain.config) == ()
