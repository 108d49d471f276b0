"""Grids of units: parts of a model that are replaced one by one, and with what."""

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


class UnitGrid(Enum):
    """What the units are."""

    SLOTS = "slots"
    """Slot x block x segment: what one block reads in one slot, READ_K and READ_V together. TOKENS, whose blocks all
    read the same front copy: slot x segment, the slot of the bank that the segment begins with."""
    MEMORY_HEADS = "memory_heads"
    """Memory head x block: which slots it attends to and what it reads in them, READ_PATTERN and READ_V together, so
    that what comes out of the head is wholly replaced. TOKENS: READ_PATTERN."""
    ATTENTION_HEADS = "attention_heads"
    """Self-attention head x block: ATTN_Z."""
    BLOCKS = "blocks"
    """What self-attention, memory or MLP adds to the stream x block: ATTN_OUT, MEM_OUT, MLP_OUT."""
    GATES = "gates"
    """Gate x value: a gate clamped in all blocks, segments, slots and features."""


class Replacement(Enum):
    """What takes a unit's place."""

    RESAMPLE = "resample"
    """The same place of another story's run."""
    MEAN = "mean"
    """The mean of that place over other stories' runs."""
    INITIAL = "initial"
    """What is read in the bank at the start of a document. Of slots alone."""
    ZERO = "zero"
    """A value that the model may never have seen."""
    CLAMP = "clamp"
    """One of some values. Of gates alone."""


_SITES = {
    UnitGrid.MEMORY_HEADS: (Site.READ_PATTERN, Site.READ_V),
    UnitGrid.ATTENTION_HEADS: (Site.ATTN_Z,),
    UnitGrid.BLOCKS: (Site.ATTN_OUT, Site.MEM_OUT, Site.MLP_OUT),
}


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """One unit of a grid, whatever the document. What the grid does not run over is None."""

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
        """Units that are also replaced all at once: those of a block, those of a segment where there are no blocks,
        gates at one value."""
        if self.value is not None:
            return f"all at {self.value:g}"
        return f"segment {self.back} before" if self.layer is None else f"block {self.layer}"


def parts(grid: UnitGrid, config: LM2Config, back: Sequence[int], values: Sequence[float]) -> tuple[ModelPart, ...]:
    """The units of a grid. Raises ValueError where the model has nothing of the kind."""
    if grid is UnitGrid.GATES:
        gates = gates_of(config)
        if not gates:
            raise ValueError(f"a model of memory kind {config.memory.value!r} has no gates to clamp")
        return tuple(ModelPart(what=gate.words, sites=(gate.site,), value=value) for gate in gates for value in values)
    if grid in (UnitGrid.SLOTS, UnitGrid.MEMORY_HEADS) and not config.memory_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no {grid.value.replace('_', ' ')}")
    if grid is UnitGrid.SLOTS and config.memory.design.bank_in_stream:
        return tuple(
            ModelPart(what="slot", sites=(), index=slot, back=at) for at in back for slot in range(config.slots)
        )
    if grid is UnitGrid.BLOCKS:
        names = {Site.ATTN_OUT: "attention", Site.MEM_OUT: "memory", Site.MLP_OUT: "MLP"}
        places = [(site, layer) for layer in range(config.n_layers) for site in names if layer in site.layers(config)]
        return tuple(
            ModelPart(what=names[site], sites=(site,), layer=layer, back=at) for at in back for site, layer in places
        )
    if grid is UnitGrid.ATTENTION_HEADS:
        what, count, layers = "head", config.n_heads, range(config.n_layers)
    else:
        what, count = ("slot", config.slots) if grid is UnitGrid.SLOTS else ("memory head", config.memory_heads)
        layers = sorted(config.memory_layers)
    wanted = (Site.READ_K, Site.READ_V) if grid is UnitGrid.SLOTS else _SITES[grid]
    sites = tuple(site for site in wanted if site.layers(config))
    return tuple(
        ModelPart(what=what, sites=sites, layer=layer, index=at, back=before)
        for before in back
        for layer in layers
        for at in range(count)
    )


@dataclass(frozen=True, kw_only=True)
class ReplacementSource:
    """What takes the place of a document's units, for any of them."""

    replacement: Replacement
    persistence: Persistence
    asked: EncodedPrompt
    """The document."""
    donors: tuple[EncodedPrompt, ...]
    """Other stories: one to resample from, several for a mean, none otherwise."""

    def unit(self, part: ModelPart) -> Unit:
        """The interventions that replace a part in this document."""
        if part.value is not None:
            return tuple(
                Edit(site=site, operation=Set(value=part.value), persistence=self.persistence) for site in part.sites
            )
        assert part.back is not None, "of all segments are gates alone"
        segment = answer_segment(self.asked) - part.back
        index = None if part.index is None else (part.index,)
        if not part.sites:
            return (
                BankEdit(
                    operation=self._operation(part.back, None),
                    segments=(segment,),
                    slots=index,
                    persistence=self.persistence,
                ),
            )
        return tuple(
            Edit(
                site=site,
                operation=self._operation(part.back, site),
                layers=None if part.layer is None else (part.layer,),
                segments=(segment,),
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
                return Mean(
                    texts=tuple(donor.spec.text for donor in self.donors), segment=answer_segment(self.asked) - back
                )
            case Replacement.INITIAL:
                # A document's first segment reads the bank at the start of a document.
                return Initial() if site is None else Patch(text=self.asked.spec.text, segment=0)
            case _:
                return Set(value=0.0)

    def _tokens(self, back: int, site: AnySite) -> tuple[int, ...] | None:
        """The tokens that are resampled, counted from the segment's end: as many as the donor's segment has; None,
        all."""
        if self.replacement is not Replacement.RESAMPLE or Axis.TOKEN not in site.axes:
            return None
        own, other = (encoded.segments[answer_segment(encoded) - back] for encoded in (self.asked, *self.donors))
        return None if len(other.ids) >= len(own.ids) else tuple(range(own.end - len(other.ids), own.end))


def answer_segment(asked: EncodedPrompt) -> int:
    """The segment in which the answer's first token is predicted."""
    return asked.segment_of(asked.rows[0])


def sources(
    replacement: Replacement,
    persistence: Persistence,
    encoded_prompts: Sequence[EncodedPrompt],
    reach: int,
    donors: int,
    seed: int,
) -> tuple[tuple[ReplacementSource, ...], tuple[str, ...]]:
    """What replaces the units of each document, and the stories of the documents that are left out.

    Left out are documents with fewer than `reach` segments before the answer's, and those for which there is no donor:
    for a resample a document of another story with as many segments before its own answer's, drawn with `seed`; for a
    mean up to `donors` documents, and at least 2, of other stories whose answer is in a segment of the same number.

    Raises ValueError where no document is left.
    """
    found, left_out = [], []
    for index, asked in enumerate(encoded_prompts):
        at = answer_segment(asked)
        others = [encoded for encoded in encoded_prompts if encoded.prompt.group != asked.prompt.group]
        taken: list[EncodedPrompt] = []
        enough = at >= reach
        if enough and replacement in (Replacement.RESAMPLE, Replacement.MEAN):
            resample = replacement is Replacement.RESAMPLE
            there = [
                encoded
                for encoded in others
                if (answer_segment(encoded) >= reach if resample else answer_segment(encoded) == at)
            ]
            order = np.random.default_rng((seed, index)).permutation(len(there))
            taken = [there[other] for other in order[: 1 if resample else donors]]
            enough = len(taken) >= (1 if resample else 2)
        if enough:
            found.append(
                ReplacementSource(replacement=replacement, persistence=persistence, asked=asked, donors=tuple(taken))
            )
        else:
            left_out.append(asked.prompt.group)
    if not found:
        raise ValueError(
            f"none of {len(encoded_prompts)} documents has {reach} segments before the answer's and other stories to"
            f" take a {replacement.value} from"
        )
    return tuple(found), tuple(left_out)
