"""NaN and infinity: a check of each segment, and a search for the hook point where they first appear."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lm2.model.hooks import HookedModel, HookPoint
from lm2.model.memory import MemoryKind
from lm2.model.sites import Site


class NotFiniteError(ValueError):
    """A model has computed NaN or infinity; the message says where it first did."""


def is_finite(value: Tensor) -> bool:
    """Whether every entry is a finite number."""
    # A finite sum has finite terms. Finite terms can overflow a sum, so then every entry is checked.
    return bool(value.detach().sum().isfinite()) or bool(value.isfinite().all())


def _describe(name: str) -> str:
    """A hook point's site, block and name."""
    block = re.match(r"blocks\.(\d+)\.", name)
    sites = {site.template: site for site in (*Site, *(site for kind in MemoryKind for site in kind.design.sites))}
    site = sites.get(re.sub(r"^blocks\.\d+\.", "blocks.{layer}.", name))
    words = [*([site.name] if site else []), *([f"block {block[1]}"] if block else [])]
    return f"{', '.join(words)} ({name})" if words else name


def first_place(model: HookedModel, compute: Callable[[], object]) -> str:
    """The first hook point with a value that is not finite when `compute` runs the model with its current hooks. The
    mask's -inf in attention scores does not count."""
    places: list[str] = []

    def check(value: Tensor, hook: HookPoint) -> None:
        name = hook.name or ""
        unmasked = value.masked_fill(value.isneginf(), 0) if name.endswith("scores") else value
        if not places and not is_finite(unmasked):
            places.append(_describe(name))

    with model.hooks(fwd_hooks=[(name, check) for name in model.hook_dict]):
        compute()
    return places[0] if places else "a place between its hook points"


@contextmanager
def in_segments(*indexes: int) -> Iterator[None]:
    """Add these segments to the message of a NotFiniteError raised within."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{error}, in segment {', '.join(map(str, sorted(set(indexes))))}") from None


@contextmanager
def of_model(name: str) -> Iterator[None]:
    """Add this model's name to the message of a NotFiniteError raised within."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{name}: {error}") from None


class Unembedding(torch.nn.Linear):
    """States to logits. Raises NotFiniteError for logits that are not finite."""

    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input)
        if not is_finite(logits):
            raise NotFiniteError(
                "the model computes NaN or infinity: first in the logits, which the unembedding makes of finite states"
            )
        return logits
