"""TransformerLens: hook points, the hooked model, and an activation cache that knows the memory."""

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as every_module
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.slice import Slice

__all__ = ["HookPoint", "HookedModel", "LM2Cache"]

NamesFilter = str | list[str] | Callable[[str], bool] | None


class LM2Cache(ActivationCache):
    """TransformerLens' ActivationCache with the memory's term, so that decompositions sum to the stream.

    `layer` counts as in TransformerLens (0 for the embeddings, -1 and None for all blocks); others are refused. Rows of
    memory tokens come after the tokens, so positions of such models cannot be counted from the end.
    """

    model: Any
    """An LM2."""

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: str = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """As in TransformerLens, plus one `{l}_mem_out` component per block with a memory (mode "all"). The components
        sum to the residual stream at `layer`."""
        layer, positions = self._depth(layer, mlp_input), self._positions(pos_slice)
        if mode not in ("all", "attn", "mlp"):
            raise ValueError(f"mode must be 'all', 'attn' or 'mlp', not {mode!r}")
        stack, labels = _labelled(super().decompose_resid(layer, mlp_input, mode, False, positions, incl_embeds, True))
        if mode == "all":
            terms, names = self._memory_terms(layer, mlp_input, positions)
            stack, labels = torch.cat([stack, *terms]), labels + names
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, mlp_input, positions, has_batch_dim=self.has_batch_dim)
        return (stack, labels) if return_labels else stack

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Any = None,
        return_labels: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Any:
        """As in TransformerLens, plus one `{l}_mem_out` component per block with a memory, after all others."""
        layer, positions = self._depth(layer, mlp_input), self._positions(pos_slice)
        stack, labels = _labelled(
            super().get_full_resid_decomposition(
                layer, mlp_input, expand_neurons, apply_ln, positions, True, project_output_onto
            )
        )
        terms, names = self._memory_terms(layer, mlp_input, positions)
        for term in terms:
            if apply_ln:
                term = self.apply_ln_to_stack(term, layer, mlp_input, positions, has_batch_dim=self.has_batch_dim)
            stack = torch.cat([stack, term if project_output_onto is None else term @ project_output_onto])
        return (stack, labels + names) if return_labels else stack

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Any = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """As in TransformerLens."""
        return super().accumulated_resid(
            self._depth(layer, mlp_input), incl_mid, apply_ln, self._positions(pos_slice), mlp_input, return_labels
        )

    def stack_head_results(
        self,
        layer: int | None = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Any:
        """As in TransformerLens; what the memory adds is part of the remainder."""
        layer = self._depth(layer, remainder=incl_remainder)
        return super().stack_head_results(layer, return_labels, incl_remainder, self._positions(pos_slice), apply_ln)

    def stack_neuron_results(
        self,
        layer: int | None,
        pos_slice: Any = None,
        neuron_slice: Any = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Tensor | None = None,
        mlp_input: bool = False,
    ) -> Any:
        """As in TransformerLens; what the memory adds is part of the remainder."""
        layer = self._depth(layer, mlp_input, remainder=incl_remainder and not mlp_input)
        positions = self._positions(pos_slice)
        return super().stack_neuron_results(
            layer, positions, neuron_slice, return_labels, incl_remainder, apply_ln, project_output_onto, mlp_input
        )

    def get_neuron_results(
        self, layer: int, neuron_slice: Any = None, pos_slice: Any = None, project_output_onto: Tensor | None = None
    ) -> Tensor:
        """As in TransformerLens. Raises ValueError for a block that the model lacks."""
        if layer not in range(self.model.cfg.n_layers):
            raise ValueError(f"there is no block {layer}; this model has blocks 0..{self.model.cfg.n_layers - 1}")
        return super().get_neuron_results(layer, neuron_slice, self._positions(pos_slice), project_output_onto)

    def stack_activation(
        self, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
    ) -> Tensor:
        """As in TransformerLens; for an activation of the memory, every block before `layer` must have one."""
        return super().stack_activation(activation_name, self._depth(layer), sublayer_type)

    def logit_attrs(
        self,
        residual_stack: Tensor,
        tokens: str | int | Tensor,
        incorrect_tokens: str | int | Tensor | None = None,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
    ) -> Tensor:
        """As in TransformerLens, but only for token ids, as the model has no tokenizer."""
        if isinstance(tokens, str) or isinstance(incorrect_tokens, str):
            raise ValueError(
                f"tokens are asked for by their ids, not as {tokens!r} and {incorrect_tokens!r}: a checkpoint's"
                " tokenizer has them"
            )
        return super().logit_attrs(
            residual_stack, tokens, incorrect_tokens, self._positions(pos_slice), batch_slice, has_batch_dim
        )

    def apply_ln_to_stack(
        self,
        residual_stack: Tensor,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Tensor:
        """As in TransformerLens."""
        layer, positions = self._depth(layer, mlp_input), self._positions(pos_slice)
        return super().apply_ln_to_stack(
            residual_stack, layer, mlp_input, positions, batch_slice, has_batch_dim, recompute_ln
        )

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "LM2Cache":
        """As in TransformerLens."""
        part = super().apply_slice_to_batch_dim(batch_slice)
        return LM2Cache(part.cache_dict, self.model, has_batch_dim=part.has_batch_dim)

    def _memory_terms(self, layer: int, mlp_input: bool, positions: Slice) -> tuple[list[Tensor], list[str]]:
        """What each block's memory adds to the stream before `layer`, as stacks of one, and their labels."""
        blocks = [i for i in range(layer + bool(mlp_input)) if f"blocks.{i}.hook_mem_out" in self.model.hook_dict]
        terms = [positions.apply(self[f"blocks.{i}.hook_mem_out"], dim=-2)[None] for i in blocks]
        return terms, [f"{i}_mem_out" for i in blocks]

    def _depth(self, layer: int | None, mlp_input: bool = False, remainder: bool = False) -> int:
        """The number of blocks before `layer`. Raises ValueError where the model has fewer."""
        blocks = self.model.cfg.n_layers
        depth = blocks if layer is None or layer == -1 else layer
        first, last = int(remainder), blocks - bool(mlp_input)
        if depth not in range(first, last + 1):
            what = "the MLP's input" if mlp_input else "a remainder" if remainder else "a stream"
            raise ValueError(f"layer must be within {first}..{last} for {what} of this model, not {layer}")
        return depth

    def _positions(self, pos_slice: Any) -> Slice:
        """Raises ValueError for positions counted from the end of a model with memory tokens there."""
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        index = positions.slice
        numbers = [index.start, index.stop] if isinstance(index, slice) else np.asarray(index).ravel().tolist()
        config = self.model.config
        if config.memory.design.back_rows(config) and any(number is not None and number < 0 for number in numbers):
            raise ValueError(
                f"positions {index} count from the end, where this model has rows of memory tokens: count from the"
                " front"
            )
        return positions


def _labelled(stack: Tensor | tuple[Tensor, list[str]]) -> tuple[Tensor, list[str]]:
    assert isinstance(stack, tuple), "labels were asked for"
    return stack


class _HookNames(dict):
    """Modules by name; a KeyError for a wrong name has the nearest ones."""

    def __missing__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, self, n=3, cutoff=0.5)
        raise KeyError(f"no hook point is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


class HookedModel(HookedRootModule):
    """TransformerLens' HookedRootModule, with errors for unknown hook names and a cache that knows the memory."""

    def setup(self) -> None:
        super().setup()
        self.mod_dict = _HookNames(self.mod_dict)
        self.hook_dict = _HookNames(self.hook_dict)

    def refuse_hooks(self) -> None:
        """Raise ValueError, with the modules, where hooks have been left that might change what the model computes."""
        hooked = [name for name, module in self.mod_dict.items() if module._forward_hooks or module._forward_pre_hooks]
        if every_module._global_forward_hooks or every_module._global_forward_pre_hooks:
            hooked.insert(0, "every module of torch")
        if hooked:
            others = f" and {len(hooked) - 3} more" if len(hooked) > 3 else ""
            raise ValueError(
                f"the model has hooks that a run would not tell of, at {', '.join(hooked[:3])}{others}: take them off"
                " with model.reset_hooks(including_permanent=True), or by the handles that torch gave, and say what a"
                " run changes as interventions"
            )

    def _check(self, names: NamesFilter) -> None:
        for name in [names] if isinstance(names, str) else names if isinstance(names, list) else []:
            self.hook_dict[name]

    def get_caching_hooks(self, names_filter: NamesFilter = None, *args: Any, **kwargs: Any) -> tuple[dict, list, list]:
        """As in TransformerLens; raises KeyError, with the nearest names, for a name that no hook point has."""
        self._check(names_filter)
        return super().get_caching_hooks(names_filter, *args, **kwargs)

    def add_caching_hooks(self, names_filter: NamesFilter = None, *args: Any, **kwargs: Any) -> dict:
        """As in TransformerLens; raises KeyError, with the nearest names, for a name that no hook point has."""
        self._check(names_filter)
        return super().add_caching_hooks(names_filter, *args, **kwargs)

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride] - TransformerLens' models, too, give caches
        self,
        *args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        pos_slice: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, LM2Cache | dict[str, Tensor]]:
        """As in TransformerLens, without `pos_slice`: the position axis of memory activations is elsewhere."""
        if pos_slice is not None:
            raise ValueError(
                "pos_slice would cut slots instead of tokens in memory activations: cut the cached tensors instead"
            )
        out, cached = super().run_with_cache(*args, remove_batch_dim=remove_batch_dim, **kwargs)
        return out, LM2Cache(cached, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cached
