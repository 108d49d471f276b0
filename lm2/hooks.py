"""The only door to TransformerLens: hook points, the hooked model, and a cache that knows the memory."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import Slice

__all__ = ["HookPoint", "HookedModel", "LM2Cache"]

NamesFilter = str | list[str] | Callable[[str], bool] | None


class LM2Cache(ActivationCache):
    """TransformerLens' ActivationCache whose decompositions include what the memory adds to the stream."""

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
        """As in TransformerLens, plus one `{l}_mem_out` component per block with a memory (mode "all").

        The components sum to the residual stream at `layer`.
        """
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        last = self.model.cfg.n_layers if layer is None or layer == -1 else layer
        stack, labels = super().decompose_resid(last, mlp_input, mode, False, positions, incl_embeds, True)
        if mode == "all":
            layers = [at for at in range(last + bool(mlp_input)) if f"blocks.{at}.hook_mem_out" in self.cache_dict]
            terms = [positions.apply(self[f"blocks.{at}.hook_mem_out"], dim=-2) for at in layers]
            stack = torch.cat([stack, torch.stack(terms)]) if terms else stack
            labels = labels + [f"{at}_mem_out" for at in layers]
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, last, pos_slice=positions, mlp_input=mlp_input)
        return (stack, labels) if return_labels else stack


class _HookNames(dict):
    """Modules by name, where a wrong name says which names are near."""

    def __missing__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, self, n=3, cutoff=0.5)
        raise KeyError(f"no hook point is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


class HookedModel(HookedRootModule):
    """HookedRootModule that refuses unknown hook names and whose cache knows the memory term."""

    def setup(self) -> None:
        super().setup()
        self.mod_dict = _HookNames(self.mod_dict)
        self.hook_dict = _HookNames(self.hook_dict)

    def refuse_hooks(self) -> None:
        """Raise ValueError, with the modules, where somebody has left hooks that change what the model computes, or might."""
        hooked = [name for name, module in self.mod_dict.items() if module._forward_hooks or module._forward_pre_hooks]
        if hooked:
            others = f" and {len(hooked) - 3} more" if len(hooked) > 3 else ""
            raise ValueError(
                f"the model has hooks that a run would not tell of, at {', '.join(hooked[:3])}{others}: "
                "take them off with model.reset_hooks(including_permanent=True), or by the handles that torch gave, and say what a run "
                "changes as interventions"
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

    def run_with_cache(
        self, *args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, pos_slice: Any = None, **kwargs: Any
    ) -> tuple[Tensor, LM2Cache | dict[str, Tensor]]:
        """As in TransformerLens; `pos_slice` is refused, since memory activations have no position axis where it would cut."""
        if pos_slice is not None:
            raise ValueError("pos_slice would cut slots instead of tokens in memory activations: cut the cached tensors instead")
        out, cached = super().run_with_cache(*args, remove_batch_dim=remove_batch_dim, **kwargs)
        return out, LM2Cache(cached, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cached
