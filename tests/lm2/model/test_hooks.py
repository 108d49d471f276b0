"""The model as TransformerLens' users know it."""

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from transformer_lens import ActivationCache, patching
from transformer_lens.tools.analysis.logit_lens import logit_lens
from transformer_lens.utilities import Slice

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.hooks import HookPoint, LM2Cache
from lm2.model.sites import Site
from lm2.runs.generation import answers, generate
from lm2.runs.likelihood import log_likelihoods
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint


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
        checkpoint.model.run_with_hooks(
            ids(1, checkpoint.config.segment_length), fwd_hooks=[("blocks.1.hook_resid_pre", stumble)]
        )
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


def _asked(checkpoint: Checkpoint, ids, **changes: object) -> tuple[torch.Tensor, LM2Cache]:
    """(logits, cache) of a batch of two segments."""
    return checkpoint.model.run_with_cache(ids(2, checkpoint.config.segment_length), **changes)


def _stream(cache: LM2Cache, depth: int, mlp_input: bool, apply_ln: bool) -> torch.Tensor:
    """The stream that enters block `depth`, or its MLP; behind the last block, what the final norm gets."""
    behind = depth == cache.model.config.n_layers
    whole = (
        cache["resid_mid", depth]
        if mlp_input
        else cache["resid_post", depth - 1]
        if behind
        else cache["resid_pre", depth]
    )
    scale = "ln_final" if behind else f"blocks.{depth}.ln{2 if mlp_input else 1}"
    return whole / cache[f"{scale}.hook_scale"] if apply_ln else whole


def _sums(cache: LM2Cache, decompose: Callable[..., torch.Tensor], least: int) -> None:
    """Whatever is asked of `decompose`, its components sum to the stream."""
    for depth in (*range(least, cache.model.config.n_layers + 1), None):
        for mlp_input in (False, True):
            for apply_ln in (False, True):
                for place in (None, 2, (1, 4), [0, 3]):
                    at = cache.model.config.n_layers if depth is None else depth
                    asked = {"mlp_input": True} if mlp_input else {}
                    if mlp_input and at == cache.model.config.n_layers:
                        with pytest.raises(ValueError, match="layer must be within"):
                            decompose(depth, apply_ln=apply_ln, pos_slice=place, **asked)
                        continue
                    whole = Slice(place).apply(_stream(cache, at, mlp_input, apply_ln), dim=-2)
                    torch.testing.assert_close(
                        decompose(depth, apply_ln=apply_ln, pos_slice=place, **asked).sum(0),
                        whole,
                        rtol=1e-4,
                        atol=1e-4,
                    )


def _heads_sum(cache: LM2Cache) -> None:
    for depth in range(1, cache.model.config.n_layers + 1):
        heads = cache.stack_head_results(depth)
        torch.testing.assert_close(
            heads.sum(0), sum(cache["attn_out", at] for at in range(depth)), rtol=1e-4, atol=1e-5
        )
        whole = cache.stack_head_results(depth, incl_remainder=True, pos_slice=1)
        torch.testing.assert_close(whole.sum(0), _stream(cache, depth, False, False)[..., 1, :], rtol=1e-4, atol=1e-5)


def _neurons_sum(cache: LM2Cache) -> None:
    for depth in range(1, cache.model.config.n_layers + 1):
        added = sum(cache["mlp_out", at] for at in range(depth))
        torch.testing.assert_close(cache.stack_neuron_results(depth).sum(0), added, rtol=1e-4, atol=1e-5)
        whole = cache.stack_neuron_results(depth, incl_remainder=True, pos_slice=1)
        torch.testing.assert_close(whole.sum(0), _stream(cache, depth, False, False)[..., 1, :], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            cache.get_neuron_results(depth - 1).sum(-2), cache["mlp_out", depth - 1], rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match="there is no block -1"):
        cache.get_neuron_results(-1)


def _accumulated(cache: LM2Cache) -> None:
    found, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    for state, label in zip(found, labels, strict=True):
        at, part = label.split("_")
        assert torch.equal(state, cache["resid_post", -1] if at == "final" else cache[f"resid_{part}", int(at)])


def _projected(cache: LM2Cache) -> None:
    """A projection of the components is the components of the projection."""
    onto = torch.randn(cache.model.config.d_model, 3, generator=torch.Generator().manual_seed(1))
    for each in (onto, onto[:, 0]):
        for apply_ln in (False, True):
            for expand in (False, True):
                some = {"apply_ln": apply_ln, "expand_neurons": expand}
                parts, labels = cache.get_full_resid_decomposition(project_output_onto=each, return_labels=True, **some)
                torch.testing.assert_close(
                    parts, cache.get_full_resid_decomposition(**some) @ each, rtol=1e-4, atol=1e-5
                )
                assert len(labels) == len(parts) == len(set(labels))


def _lens(cache: LM2Cache) -> None:
    logits = cache.model.unembed(cache["ln_final.hook_normalized"] * cache.model.ln_final.w)
    torch.testing.assert_close(
        cache.logit_lens(positions=2).values[-1].reshape(-1, logits.shape[-1]),
        logits[..., 2, :].reshape(-1, logits.shape[-1]),
    )


def _sliced(cache: LM2Cache) -> None:
    if cache.has_batch_dim:
        cut = cache.apply_slice_to_batch_dim(1)
        assert isinstance(cut, LM2Cache) and not cut.has_batch_dim
        torch.testing.assert_close(
            cut.get_full_resid_decomposition().sum(0), cache["resid_post", -1][1], rtol=1e-4, atol=1e-4
        )


def _stacked(cache: LM2Cache) -> None:
    assert torch.equal(cache.stack_activation("attn_out", 2), torch.stack([cache["attn_out", 0], cache["attn_out", 1]]))


def _none_of_it(ask: Callable[[LM2Cache], object]) -> Callable[[LM2Cache], None]:
    def refused(cache: LM2Cache) -> None:
        with pytest.raises(RuntimeError, match="No SSM mixer layers found"):
            ask(cache)

    return refused


# No numbers of their own.
EXAMINED: dict[str, Callable[[LM2Cache], None]] = {
    "decompose_resid": lambda cache: _sums(cache, cache.decompose_resid, 0),
    "get_full_resid_decomposition": lambda cache: (
        _sums(cache, cache.get_full_resid_decomposition, 0),
        _projected(cache),
    ),
    "accumulated_resid": _accumulated,
    "compute_head_results": lambda cache: (cache.compute_head_results(), _heads_sum(cache)),
    "stack_head_results": _heads_sum,
    "stack_neuron_results": _neurons_sum,
    "get_neuron_results": _neurons_sum,
    "stack_activation": _stacked,
    "apply_ln_to_stack": lambda cache: _sums(cache, cache.decompose_resid, 0),
    "apply_slice_to_batch_dim": _sliced,
    "logit_attrs": lambda cache: None,  # its law needs logits: test_logit_attributions_sum_to_the_logit
    "logit_lens": _lens,
    "ssm_layers": _none_of_it(lambda cache: cache._over_ssm_layers(cache.ssm_layers)),
    "compute_ssm_state": _none_of_it(lambda cache: cache.compute_ssm_state()),
    "compute_ssm_effective_attention": _none_of_it(lambda cache: cache.compute_ssm_effective_attention()),
} | dict.fromkeys(("items", "keys", "values", "to", "remove_batch_dim", "toggle_autodiff"), lambda cache: None)
"""Every public method of TransformerLens' cache, with the law that it keeps here."""


def test_every_method_of_transformer_lens_cache_has_been_examined() -> None:
    assert {name for name, _ in inspect.getmembers(ActivationCache, callable) if not name.startswith("_")} == set(
        EXAMINED
    )


@pytest.mark.parametrize("name", EXAMINED)
def test_every_decomposition_sums_to_the_stream(checkpoint: Checkpoint, ids, name: str) -> None:
    with torch.inference_mode():
        EXAMINED[name](_asked(checkpoint, ids)[1])
        EXAMINED[name](
            checkpoint.model.run_with_cache(ids(1, checkpoint.config.segment_length), remove_batch_dim=True)[1]
        )


@pytest.mark.parametrize("kind", ["plain_config", "gated_config"])
def test_biases_and_heads_of_another_width_belong_to_every_decomposition(
    build: Callable[..., Checkpoint], ids, request: pytest.FixtureRequest, kind: str
) -> None:
    sizes = {"head_dim": 6, "qkv_bias": True, "o_bias": True, "mlp_bias": True}
    checkpoint = build(replace(request.getfixturevalue(kind), **sizes))
    model, config = checkpoint.model, checkpoint.config
    with torch.inference_mode():
        _, cache = _asked(checkpoint, ids)
        _sums(cache, cache.decompose_resid, 0)
        _sums(cache, cache.get_full_resid_decomposition, 0)
        _projected(cache)
        for depth in range(1, config.n_layers + 1):
            for parts, bias, of in (
                (cache.stack_head_results, lambda block: block.attn.b_O, "attn_out"),
                (cache.stack_neuron_results, lambda block: block.mlp.b_out, "mlp_out"),
            ):
                added = sum(cache[of, at] for at in range(depth))
                biases = sum(bias(block) for block in model.blocks[:depth])
                torch.testing.assert_close(parts(depth).sum(0) + biases, added, rtol=1e-4, atol=1e-5)
                whole = parts(depth, incl_remainder=True)
                torch.testing.assert_close(whole.sum(0), _stream(cache, depth, False, False), rtol=1e-4, atol=1e-5)
        block, x = model.blocks[1], cache["blocks.1.ln1.hook_normalized"] * model.blocks[1].ln1.w
        for name, layer in (("q", block.attn.q), ("k", block.attn.k), ("v", block.attn.v)):
            heads = (x @ layer.weight.T).unflatten(-1, (-1, 6)) + getattr(block.attn, f"b_{name.upper()}")
            torch.testing.assert_close(heads, cache[f"blocks.1.attn.hook_{name}"], rtol=1e-4, atol=1e-5)
        x = cache["blocks.1.ln2.hook_normalized"] * block.ln2.w
        for site, layer, bias in (
            ("pre", block.mlp.gate, block.mlp.b_gate),
            ("pre_linear", block.mlp.up, block.mlp.b_in),
        ):
            torch.testing.assert_close(
                x @ layer.weight.T + bias, cache[f"blocks.1.mlp.hook_{site}"], rtol=1e-4, atol=1e-5
            )


def test_what_would_be_another_stream_is_refused(checkpoint: Checkpoint, ids) -> None:
    cache = _asked(checkpoint, ids)[1]
    depth = checkpoint.config.n_layers
    for ask in (
        lambda: cache.decompose_resid(-2), lambda: cache.accumulated_resid(depth + 1),
        lambda: cache.get_full_resid_decomposition(depth + 1),
        lambda: cache.stack_head_results(0, incl_remainder=True),
        lambda: cache.stack_neuron_results(0, incl_remainder=True),
        lambda: cache.stack_activation("attn_out", -3),
        lambda: cache.apply_ln_to_stack(cache.decompose_resid(), depth, mlp_input=True),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="layer must be within"):
            ask()
    with pytest.raises(ValueError, match="mode must be"):
        cache.decompose_resid(mode="mem")
    with pytest.raises(ValueError, match="asked for by their ids"):
        cache.logit_attrs(cache.decompose_resid(), "garden")


def test_positions_counted_from_the_end_are_no_tokens_where_memory_tokens_stand_there(
    checkpoint: Checkpoint, ids
) -> None:
    logits, cache = _asked(checkpoint, ids)
    asks = (lambda at: cache.decompose_resid(pos_slice=at), lambda at: cache.get_full_resid_decomposition(pos_slice=at),
            lambda at: cache.accumulated_resid(pos_slice=at), lambda at: cache.stack_head_results(pos_slice=at),
            lambda at: cache.get_neuron_results(0, pos_slice=at),
            lambda at: cache.logit_lens(positions=at))  # fmt: skip
    behind = checkpoint.config.memory in (MemoryKind.TOKENS, MemoryKind.ARMT)
    for ask in asks if behind else ():
        for place in (-1, (-3, None), [0, -1]):
            with pytest.raises(ValueError, match="count from the front"):
                ask(place)
    last = logits.shape[1] - 1
    place = last if behind else -1
    attributed = cache.logit_attrs(cache.get_full_resid_decomposition(pos_slice=place), 42, pos_slice=place)
    torch.testing.assert_close(attributed.sum(0), logits[:, last, 42], rtol=1e-4, atol=1e-5)


def test_logit_attributions_sum_to_the_logit(checkpoint: Checkpoint, ids) -> None:
    tokens = ids(2, checkpoint.config.segment_length)
    logits, cache = checkpoint.model.run_with_cache(tokens)
    token = 42
    for parts in (
        cache.decompose_resid(),
        cache.get_full_resid_decomposition(),
        cache.get_full_resid_decomposition(expand_neurons=False),
    ):
        # Memory tokens stand behind the tokens.
        attributed = cache.logit_attrs(parts, token).sum(0)[:, : tokens.shape[1]]
        torch.testing.assert_close(attributed, logits[..., token], rtol=1e-4, atol=1e-5)


def test_the_logit_lens_ends_at_the_logits(checkpoint: Checkpoint, ids) -> None:
    logits, cache = checkpoint.model.run_with_cache(ids(1, checkpoint.config.segment_length))
    read = logit_lens(checkpoint.model, cache=cache, positions=None).values
    torch.testing.assert_close(
        read[-1].reshape(-1, logits.shape[-1])[: logits.shape[1]], logits[0], rtol=1e-4, atol=1e-5
    )


def test_activation_patching_puts_the_clean_logits_back(checkpoint: Checkpoint, ids) -> None:
    length = checkpoint.config.segment_length
    clean, corrupted = ids(1, length, 1), ids(1, length, 2)
    logits, cache = checkpoint.model.run_with_cache(clean)
    distance = patching.get_act_patch_resid_pre(
        checkpoint.model, corrupted, cache, lambda out: (out - logits)[0, -1].abs().sum()
    )
    assert distance.shape == (checkpoint.config.n_layers, length)
    last = checkpoint.config.n_layers - 1
    assert distance[last, -1] < distance[last, :-1].min()


def test_cached_gradients_equal_autograd(checkpoint: Checkpoint, ids, build) -> None:
    model = build(checkpoint.config, 11).model  # gradients accumulate on parameters, so not on a shared model
    tokens = ids(2, checkpoint.config.segment_length)
    names = [
        "hook_embed",
        "blocks.1.hook_resid_mid",
        *(["blocks.0.mem.hook_read_pattern"] if checkpoint.config.memory_layers else []),
    ]
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
        lambda: register_module_forward_hook(lambda module, inputs, output: output),
        lambda: register_module_forward_pre_hook(lambda module, inputs: None),
    ):
        left = leave()
        for ask in (
            lambda: run(own, RunSpec(checkpoint="toy", text=text)),
            lambda: generate(own, text, max_tokens=2),
            lambda: answers(own, [text], max_tokens=2, stop="."),
            lambda: log_likelihoods(own, [(text, " garden.")]),
        ):
            with pytest.raises(
                ValueError,
                match=r"hooks .* at (blocks.1|every module of torch).*reset_hooks\(including_permanent=True\)",
            ):
                ask()
        own.model.reset_hooks(including_permanent=True)
        if left is not None:
            left.remove()
    assert np.array_equal(run(own, RunSpec(checkpoint="toy", text=text)).logits, before)


def test_two_checkpoints_of_one_model_share_its_lock_and_another_model_gets_its_own(
    gated: Checkpoint, plain: Checkpoint
) -> None:
    assert replace(gated, name="renamed").lock is gated.lock
    assert replace(gated, model=plain.model).lock is not gated.lock


def has_hooks(checkpoint: Checkpoint) -> bool:
    return any(
        point.fwd_hooks or point.bwd_hooks or point._forward_hooks for point in checkpoint.model.hook_dict.values()
    )
