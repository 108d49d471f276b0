"""The model as TransformerLens' users know it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens import patching
from transformer_lens.tools.analysis.logit_lens import logit_lens

from lm2.checkpoint import Checkpoint
from lm2.config import LM2Config
from lm2.hooks import HookPoint, LM2Cache
from lm2.likelihood import log_likelihoods
from lm2.rows import answers
from lm2.runner import generate, run
from lm2.sites import Site
from lm2.spec import RunSpec


@pytest.mark.parametrize("names", ["blocks.0.mem.hook_gate_inn", ["hook_embed", "blocks.0.mem.hook_gate_inn"]])
def test_a_misspelt_filter_is_refused_with_the_nearest_names(gated: Checkpoint, ids, names: str | list[str]) -> None:
    with pytest.raises(KeyError, match="'blocks.0.mem.hook_gate_inn'; did you mean blocks.0.mem.hook_gate_in,"):
        gated.model.run_with_cache(ids(1, 7), names_filter=names)
    with pytest.raises(KeyError, match="did you mean"):
        gated.model.add_caching_hooks(names)
    assert not has_hooks(gated)


def test_a_misspelt_hook_is_refused_with_the_nearest_names(gated: Checkpoint, ids) -> None:
    with pytest.raises(KeyError, match="did you mean .*blocks.1.hook_resid_pre"):
        gated.model.run_with_hooks(ids(1, 7), fwd_hooks=[("blocks.1.hook_resid_pree", lambda value, hook: None)])
    assert not has_hooks(gated)


def test_pos_slice_is_refused(gated: Checkpoint, ids) -> None:
    with pytest.raises(ValueError, match="pos_slice"):
        gated.model.run_with_cache(ids(1, 7), pos_slice=-1)


def test_a_filter_keeps_what_it_names(gated: Checkpoint, ids) -> None:
    for names in ("hook_embed", ["hook_embed"], lambda name: name == "hook_embed"):
        _, cache = gated.model.run_with_cache(ids(1, 7), names_filter=names)
        assert isinstance(cache, LM2Cache) and list(cache.keys()) == ["hook_embed"]
    _, plain_dict = gated.model.run_with_cache(ids(1, 7), return_cache_object=False)
    assert isinstance(plain_dict, dict) and not isinstance(plain_dict, LM2Cache)


def test_without_the_batch_axis_the_cache_is_one_row(gated: Checkpoint, ids) -> None:
    _, cache = gated.model.run_with_cache(ids(1, 7), remove_batch_dim=True)
    assert cache["resid_post", -1].shape == (7, 16)


def test_an_exception_inside_a_hook_leaves_no_hook(checkpoint: Checkpoint, ids) -> None:
    def stumble(value: torch.Tensor, hook: HookPoint) -> None:
        raise RuntimeError("stumbled")

    with pytest.raises(RuntimeError, match="stumbled"):
        checkpoint.model.run_with_hooks(ids(1, checkpoint.config.segment_length), fwd_hooks=[("blocks.1.hook_resid_pre", stumble)])
    assert not has_hooks(checkpoint)


@pytest.mark.parametrize("apply_ln", [False, True])
@pytest.mark.parametrize("layer", [1, 2, None])
def test_the_decomposed_stream_sums_to_the_stream_and_names_the_memory(
    checkpoint: Checkpoint, ids, layer: int | None, apply_ln: bool
) -> None:
    _, cache = checkpoint.model.run_with_cache(ids(2, checkpoint.config.segment_length))
    depth = checkpoint.config.n_layers if layer is None else layer
    parts, labels = cache.decompose_resid(layer, return_labels=True, apply_ln=apply_ln)
    adding = Site.MEM_OUT.layers(checkpoint.config)
    assert [label for label in labels if "mem" in label] == [f"{at}_mem_out" for at in adding if at < depth]
    whole = cache["resid_post", depth - 1]
    if apply_ln:
        last = depth == checkpoint.config.n_layers
        whole = whole / (cache["ln_final.hook_scale"] if last else cache[f"blocks.{depth}.ln1.hook_scale"])
    torch.testing.assert_close(parts.sum(0), whole, rtol=1e-4, atol=1e-5)
    assert len(parts) == len(labels)


def test_the_decomposition_up_to_an_mlp_holds_that_blocks_memory(gated: Checkpoint, ids) -> None:
    _, cache = gated.model.run_with_cache(ids(1, 7))
    parts, labels = cache.decompose_resid(2, mlp_input=True, return_labels=True, pos_slice=-1)
    assert "2_mem_out" in labels
    torch.testing.assert_close(parts.sum(0), cache["resid_mid", 2][:, -1], rtol=1e-4, atol=1e-5)


def test_logit_attributions_sum_to_the_logit(checkpoint: Checkpoint, ids) -> None:
    tokens = ids(2, checkpoint.config.segment_length)
    logits, cache = checkpoint.model.run_with_cache(tokens)
    token = 42
    attributions = cache.logit_attrs(cache.decompose_resid(), token)
    attributed = attributions.sum(0)[:, : tokens.shape[1]]  # memory tokens stand behind the tokens
    torch.testing.assert_close(attributed, logits[..., token], rtol=1e-4, atol=1e-5)


def test_the_logit_lens_ends_at_the_logits(checkpoint: Checkpoint, ids) -> None:
    logits, cache = checkpoint.model.run_with_cache(ids(1, checkpoint.config.segment_length))
    read = logit_lens(checkpoint.model, cache=cache, positions=None).values
    torch.testing.assert_close(read[-1].reshape(-1, logits.shape[-1])[: logits.shape[1]], logits[0], rtol=1e-4, atol=1e-5)


def test_activation_patching_puts_the_clean_logits_back(checkpoint: Checkpoint, ids) -> None:
    length = checkpoint.config.segment_length
    clean, corrupted = ids(1, length, 1), ids(1, length, 2)
    logits, cache = checkpoint.model.run_with_cache(clean)
    distance = patching.get_act_patch_resid_pre(checkpoint.model, corrupted, cache, lambda out: (out - logits)[0, -1].abs().sum())
    assert distance.shape == (checkpoint.config.n_layers, length)
    last = checkpoint.config.n_layers - 1
    assert distance[last, -1] < distance[last, :-1].min()


def test_cached_gradients_equal_autograd(checkpoint: Checkpoint, ids, build) -> None:
    model = build(checkpoint.config, 11).model  # gradients accumulate on parameters, so not on a shared model
    tokens = ids(2, checkpoint.config.segment_length)
    names = ["hook_embed", "blocks.1.hook_resid_mid", *(["blocks.0.mem.hook_read_pattern"] if checkpoint.config.memory_layers else [])]
    _, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True, names_filter=names)
    kept: dict[str, torch.Tensor] = {}
    hooks = [(name, lambda value, hook: kept.__setitem__(hook.name, value)) for name in names]
    with model.hooks(fwd_hooks=hooks):
        loss = model(tokens, return_type="loss")
    for name, gradient in zip(names, torch.autograd.grad(loss, [kept[name] for name in names])):
        torch.testing.assert_close(cache[f"{name}_grad"], gradient)


def test_a_hook_that_somebody_left_on_the_model_is_refused_by_every_way_to_run_it(
    build: Callable[..., Checkpoint], gated_config: LM2Config, text: str
) -> None:
    own = build(gated_config, 32)
    before = run(own, RunSpec(checkpoint="toy", text=text)).logits
    for leave in (
        lambda: own.model.add_hook("blocks.1.hook_resid_post", lambda value, hook: value * 0),
        lambda: own.model.add_perma_hook("blocks.1.hook_resid_post", lambda value, hook: value * 0),
        lambda: own.model.blocks[1].register_forward_hook(lambda module, inputs, output: output),
        lambda: own.model.blocks[1].mlp.register_forward_pre_hook(lambda module, inputs: inputs),
    ):
        left = leave()
        for ask in (
            lambda: run(own, RunSpec(checkpoint="toy", text=text)),
            lambda: generate(own, text, max_tokens=2),
            lambda: answers(own, [text], max_tokens=2, stop="."),
            lambda: log_likelihoods(own, [(text, " garden.")]),
        ):
            with pytest.raises(ValueError, match=r"hooks .* at blocks.1.*reset_hooks\(including_permanent=True\)"):
                ask()
        own.model.reset_hooks(including_permanent=True)
        if left is not None:
            left.remove()
    assert np.array_equal(run(own, RunSpec(checkpoint="toy", text=text)).logits, before)


def test_two_checkpoints_of_one_model_share_its_lock_and_another_model_gets_its_own(gated: Checkpoint, plain: Checkpoint) -> None:
    assert replace(gated, name="renamed").lock is gated.lock
    assert replace(gated, model=plain.model).lock is not gated.lock


def has_hooks(checkpoint: Checkpoint) -> bool:
    return any(point.fwd_hooks or point.bwd_hooks or point._forward_hooks for point in checkpoint.model.hook_dict.values())
