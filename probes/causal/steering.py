"""Steering: a direction is added to the stream at every token from which the model writes on.

The direction raises one word against another. It is the difference of their rows in the output matrix, times the final
norm's weights: what is added in the last block changes the difference of the two logits directly, and what is added
earlier passes through the blocks after it. A random direction of the same norm is the control.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lm2.model.sites import AnySite, Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Edit
from lm2.runs.operations import Add
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.serialize import LARGEST_INT, Spec, not_empty, within
from lm2.shown import shown
from lm2.weights.checkpoint import Checkpoint

SITES = {Site.RESID_POST: "the stream as the block leaves it", Site.MEM_OUT: "what the memory adds to the stream"}
"""Where a direction of the stream can be added, in words."""


@dataclass(frozen=True, kw_only=True)
class Steering(Spec):
    """A direction from one word to another, and where and how much of it is added."""

    toward: str
    away: str
    site: AnySite = Site.RESID_POST
    layer: int
    strength: float = 1.0
    """Norm of what is added, in typical norms of the site: the median over the tokens of the text."""
    seed: int = 0
    """Of the random direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("toward", "away"):
            not_empty(name, getattr(self, name))
        if self.site not in SITES:
            raise ValueError(f"site must be one of {', '.join(site.name for site in SITES)}, not {self.site.name}")
        within("seed", self.seed, 0, LARGEST_INT)

    @property
    def words(self) -> str:
        return (
            f"steered from {self.away!r} to {self.toward!r} by {self.strength:g} times the typical norm of"
            f" {self.site.name} in block {self.layer}"
        )

    def token_ids(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """The two words as tokens. Raises ValueError for a word of several tokens or none, and for equal ones."""
        toward, away = (_token(checkpoint, word) for word in (self.toward, self.away))
        if toward == away:
            raise ValueError(f"a direction leads from one word to another, and both are {self.toward!r}")
        return toward, away

    def direction(self, checkpoint: Checkpoint) -> Float[np.ndarray, "d_model"]:
        """The direction, of norm 1."""
        toward, away = self.token_ids(checkpoint)
        model = checkpoint.model
        rows = model.unembed.weight.detach()[[toward, away]].double()
        return _unit(((rows[0] - rows[1]) * model.ln_final.w.detach().double()).cpu().numpy())

    def random_direction(self, checkpoint: Checkpoint) -> Float[np.ndarray, "d_model"]:
        """A direction of norm 1, drawn by the seed."""
        return _unit(np.random.default_rng(self.seed).standard_normal(checkpoint.config.d_model))

    def measured(self, spec: RunSpec) -> RunSpec:
        """The run of the text that shows the site's typical norm."""
        return replace(spec, captures=(Capture(self.site, layers=(self.layer,)),), interventions=())

    def typical_norm(self, trace: Trace) -> float:
        """The median over the tokens of a trace of `measured`."""
        return float(np.median(np.linalg.norm(trace.across(self.site, layer=self.layer), axis=-1)))

    def steered(self, spec: RunSpec, trace: Trace, direction: Float[np.ndarray, "d_model"], new_tokens: int) -> RunSpec:
        """The spec with a direction added at each token from which one of `new_tokens` is predicted.

        Args:
            trace: of `measured`.
        """
        last = len(trace.tokens) - 1
        edit = Edit(
            site=self.site,
            layers=(self.layer,),
            tokens=tuple(range(last, last + new_tokens)),
            operation=Add(direction=tuple(direction.tolist()), by=self.strength * self.typical_norm(trace)),
        )
        return replace(spec, interventions=(*spec.interventions, edit))


def _token(checkpoint: Checkpoint, word: str) -> int:
    tokens = checkpoint.tokenizer.encode_after(f" {word}")
    if len(tokens) != 1 or not checkpoint.tokenizer.knows(tokens, 0):
        known = len(tokens) if checkpoint.tokenizer.knows(tokens, 0) else "no"
        raise ValueError(
            f"{shown(word)} is {known} tokens of {checkpoint.name}: steering takes words of one token each"
        )
    return tokens.ids[0]


def _unit(values: Float[np.ndarray, "d_model"]) -> Float[np.ndarray, "d_model"]:
    return values / np.linalg.norm(values)
