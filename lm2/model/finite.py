"""NaN and infinity: noticed as a segment is computed, and followed to the first place that had one.

Looking costs one pass over a few activations a segment; the places are walked through only where something was noticed.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lm2.model.hooks import HookedModel, HookPoint
from lm2.model.memory import MemoryKind
from lm2.model.sites import Site


class NotFiniteError(ValueError):
    """A model has computed NaN or infinity; the message says where first. Nothing is made of such numbers."""


def is_finite(value: Tensor) -> bool:
    """Whether every entry is a finite number."""
    # A finite sum has finite terms. The other way round it need not be so, and only then is every entry looked at.
    return bool(value.detach().sum().isfinite()) or bool(value.isfinite().all())


def place_of(name: str) -> str:
    """A hook point in words: its site, its block and its name."""
    block = re.match(r"blocks\.(\d+)\.", name)
    sites = {site.template: site for site in (*Site, *(site for kind in MemoryKind for site in kind.design.sites))}
    site = sites.get(re.sub(r"^blocks\.\d+\.", "blocks.{layer}.", name))
    words = [*([site.name] if site else []), *([f"block {block[1]}"] if block else [])]
    return f"{', '.join(words)} ({name})" if words else name


def first_place(model: HookedModel, compute: Callable[[], object]) -> str:
    """Where a value is not finite first as `compute` runs the model, with the hooks that are on it; a mask's -inf in
    scores is none."""
    found: list[str] = []

    def look(value: Tensor, hook: HookPoint) -> None:
        name = hook.name or ""
        masked = value.masked_fill(value.isneginf(), 0) if name.endswith("scores") else value
        if not found and not is_finite(masked):
            found.append(place_of(name))

    with model.hooks(fwd_hooks=[(name, look) for name in model.hook_dict]):
        compute()
    return found[0] if found else "a place between its hook points"


@contextmanager
def in_segments(*indexes: int) -> Iterator[None]:
    """Whatever is not finite within is said to be in these segments."""
    try:
        yield
    except NotFiniteError as error:
        named = ", ".join(map(str, sorted(set(indexes))))
        raise NotFiniteError(f"{error}, in segment {named}") from None


@contextmanager
def of_model(name: str) -> Iterator[None]:
    """Whatever is not finite within is said to be this model's: for whoever asks several."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{name}: {error}") from None


class Unembedding(torch.nn.Linear):
    """States to logits. Raises NotFiniteError where a logit is none though every state before it is finite."""

    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input)
        if not is_finite(logits):
            raise NotFiniteError(
                "the model computes NaN or infinity: first in the logits, which the unembedding makes of finite states"
            )
        return logits
