"""Grids of units: the parts of a model that a sweep replaces one by one, and what replaces them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm2.model.config import LM2Config
from lm2.model.gates import gates_of
from lm2.model.sites import AnySite, Axis, Site
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import BankEdit, Edit, Persistence
from lm2.runs.operations import Operation, Set
from lm2.tasks.encoded_prompt import EncodedPrompt
from probes.causal.batch import Unit
from probes.causal.observe import answers
from probes.stats.metrics import Answer


class UnitGrid(Enum):
    """Which units a sweep replaces."""

    SLOTS = "slots"
    """Slot x block x segment: what one block reads in one slot, READ_K and READ_V together. For TOKENS, whose blocks
    all read the same front copy, slot x segment: the slot of the bank that the segment begins with."""
    MEMORY_HEADS = "memory_heads"
    """Memory head x block: which slots it attends to and what it reads in them, READ_PATTERN and READ_V together, so
    that the whole output of the head is replaced. For TOKENS, READ_PATTERN."""
    ATTENTION_HEADS = "attention_heads"
    """Self-attention head x block: ATTN_Z."""
    BLOCKS = "blocks"
    """What self-attention, memory or MLP adds to the stream x block: ATTN_OUT, MEM_OUT, MLP_OUT."""
    GATES = "gates"
    """Gate x value: a gate clamped in all blocks, segments, slots and features."""


class Replacement(Enum):
    """What replaces a unit."""

    RESAMPLE = "resample"
    """The same place in another story's run."""
    MEAN = "mean"
    """The mean of that place over other stories' runs."""
    INITIAL = "initial"
    """What is read in the bank at the start of a document. For slots only."""
    ZERO = "zero"
    """Zero, which the model may never have seen there."""
    CLAMP = "clamp"
    """A fixed value. For gates only."""


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """One unit of a grid, in any document. Fields that the grid does not vary are None."""

    what: str
    """"slot", "memory head", ..., or the gate's name."""
    sites: tuple[AnySite, ...]
    """Empty for the bank itself."""
    layer: int | None = None
    index: int | None = None
    """The slot or head."""
    back: int | None = None
    """Segments before the answer's."""
    value: float | None = None

    @property
    def label(self) -> str:
        place = [f"block {self.layer}"] if self.layer is not None else []
        place += [f"{self.what} {self.index}" if self.index is not None else self.what]
        place += [f"{self.back} before"] if self.back else []
        return ", ".join(place) + (f" at {self.value:g}" if self.value is not None else "")

    @property
    def group(self) -> str:
        """Units that are also replaced together have this in common: the block, without blocks the segment, or the
        value of gates."""
        if self.value is not None:
            return f"all at {self.value:g}"
        return f"segment {self.back} before" if self.layer is None else f"block {self.layer}"


_ADDED = {Site.ATTN_OUT: "attention", Site.MEM_OUT: "memory", Site.MLP_OUT: "MLP"}
"""What a block adds to the stream."""


def parts(grid: UnitGrid, config: LM2Config, back: Sequence[int], values: Sequence[float]) -> tuple[ModelPart, ...]:
    """The units of a grid. Raises ValueError if the model has none."""
    memory = sorted(config.memory_layers)
    if grid is UnitGrid.GATES:
        gates = gates_of(config)
        if not gates:
            raise ValueError(f"a model of memory kind {config.memory.value!r} has no gates to clamp")
        return tuple(ModelPart(what=gate.words, sites=(gate.site,), value=value) for gate in gates for value in values)
    if grid in (UnitGrid.SLOTS, UnitGrid.MEMORY_HEADS) and not memory:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no {grid.value.replace('_', ' ')}")
    layers: Sequence[int | None] = memory
    match grid:
        case UnitGrid.SLOTS if config.memory.design.bank_in_stream:
            what, count, layers, sites = "slot", config.slots, [None], ()
        case UnitGrid.SLOTS:
            what, count, sites = "slot", config.slots, (Site.READ_K, Site.READ_V)
        case UnitGrid.MEMORY_HEADS:
            what, count, sites = "memory head", config.memory_heads, (Site.READ_PATTERN, Site.READ_V)
        case UnitGrid.ATTENTION_HEADS:
            what, count, layers, sites = "head", config.n_heads, range(config.n_layers), (Site.ATTN_Z,)
        case UnitGrid.BLOCKS:
            return tuple(
                ModelPart(what=what, sites=(site,), layer=layer, back=before)
                for before in back
                for layer in range(config.n_layers)
                for site, what in _ADDED.items()
                if layer in site.layers(config)
            )
    sites = tuple(site for site in sites if site.layers(config))
    return tuple(
        ModelPart(what=what, sites=sites, layer=layer, index=index, back=before)
        for before in back
        for layer in layers
        for index in range(count)
    )


@dataclass(frozen=True, kw_only=True)
class ReplacementSource:
    """A document, and what replaces its units."""

    replacement: Replacement
    persistence: Persistence
    encoded: EncodedPrompt
    answer: Answer
    """The document's answer, with those of all documents as foils."""
    donors: tuple[EncodedPrompt, ...]
    """Other stories: one for a resample, several for a mean, otherwise none."""

    def unit(self, part: ModelPart) -> Unit:
        """The interventions that replace a part in this document."""
        if part.value is not None:
            return tuple(
                Edit(site=site, operation=Set(value=part.value), persistence=self.persistence) for site in part.sites
            )
        assert part.back is not None, "only gates are replaced in all segments"
        segments = (answer_segment(self.encoded) - part.back,)
        index = None if part.index is None else (part.index,)
        if not part.sites:
            operation = self._operation(part.back, None)
            return (BankEdit(operation=operation, segments=segments, slots=index, persistence=self.persistence),)
        return tuple(
            Edit(
                site=site,
                operation=self._operation(part.back, site),
                layers=None if part.layer is None else (part.layer,),
                segments=segments,
                slots=index if part.what == "slot" else None,
                heads=None if part.what == "slot" else index,
                tokens=self._tokens(part.back, site),
                persistence=self.persistence,
            )
            for site in part.sites
        )

    def _operation(self, back: int, site: AnySite | None) -> Operation:
        match self.replacement:
            case Replacement.RESAMPLE:
                (donor,) = self.donors
                return Patch(text=donor.spec.text, segment=answer_segment(donor) - back)
            case Replacement.MEAN:
                texts = tuple(donor.spec.text for donor in self.donors)
                return Mean(texts=texts, segment=answer_segment(self.encoded) - back)
            case Replacement.INITIAL:
                # A document's first segment reads the bank at the start of a document.
                return Initial() if site is None else Patch(text=self.encoded.spec.text, segment=0)
            case _:
                return Set(value=0.0)

    def _tokens(self, back: int, site: AnySite) -> tuple[int, ...] | None:
        """The tokens that are resampled: as many as the donor's segment has, up to the segment's end; None for all."""
        if self.replacement is not Replacement.RESAMPLE or Axis.TOKEN not in site.axes:
            return None
        own, other = (encoded.segments[answer_segment(encoded) - back] for encoded in (self.encoded, *self.donors))
        return None if len(other.ids) >= len(own.ids) else tuple(range(own.end - len(other.ids), own.end))


def answer_segment(encoded: EncodedPrompt) -> int:
    """The segment in which the answer's first token is predicted."""
    return encoded.segment_of(encoded.rows[0])


def sources(
    replacement: Replacement,
    persistence: Persistence,
    encoded_prompts: Sequence[EncodedPrompt],
    reach: int,
    donors: int,
    seed: int,
) -> tuple[tuple[ReplacementSource, ...], tuple[str, ...]]:
    """What replaces the units of each document, and the stories of the documents that are left out.

    Left out are documents with fewer than `reach` segments before the answer's, and those without donors. For a
    resample, the donor is a document of another story with at least `reach` segments before its answer's; for a mean,
    donors are 2 to `donors` documents of other stories whose answer is in a segment of the same number. Both are drawn
    with `seed`.

    Raises ValueError if no document is left.
    """
    least, most = {Replacement.RESAMPLE: (1, 1), Replacement.MEAN: (2, donors)}.get(replacement, (0, 0))
    chosen, left_out = [], []
    for index, (encoded, answer) in enumerate(zip(encoded_prompts, answers(encoded_prompts))):
        number, story = answer_segment(encoded), encoded.prompt.group
        candidates = [
            other
            for other in encoded_prompts
            if other.prompt.group != story
            and (answer_segment(other) >= reach if most == 1 else answer_segment(other) == number)
        ]
        order = np.random.default_rng((seed, index)).permutation(len(candidates))
        drawn = tuple(candidates[i] for i in order[:most])
        if number < reach or len(drawn) < least:
            left_out.append(story)
            continue
        chosen.append(
            ReplacementSource(
                replacement=replacement, persistence=persistence, encoded=encoded, answer=answer, donors=drawn
            )
        )
    if not chosen:
        raise ValueError(
            f"none of {len(encoded_prompts)} documents has {reach} segments before the answer's and other stories to"
            f" take a {replacement.value} from"
        )
    return tuple(chosen), tuple(left_out)
