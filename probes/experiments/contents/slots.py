"""How many slots does a model use? Effective and dead slots over documents, beside a memory that writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from lm2.model.config import LM2Config
from lm2.model.memory import of_memory
from lm2.model.sites import Site
from lm2.runs.capture import Capture, SlotMass
from lm2.runs.interventions import Freeze
from lm2.runs.loop import to_numpy
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.experiments.experiment import Experiment, held_out
from probes.findings import NOTHING, Column, Findings, columns_of, mean
from probes.stats.effects import Effect, effect


def participation_ratio(mass: Float[np.ndarray, "... item"]) -> Float[np.ndarray, "..."]:
    """(sum of masses)^2 / sum of their squares: n for n equal masses and zeros elsewhere; 0 for no mass."""
    squares = (mass**2).sum(-1)
    return np.where(squares > 0, mass.sum(-1) ** 2 / np.where(squares > 0, squares, 1), 0.0)


def effective_rank(bank: Float[np.ndarray, "slot slot_dim"]) -> float:
    """In how many directions slots differ: participation ratio of the squared singular values of the centred bank."""
    return float(participation_ratio(np.linalg.svd(bank - bank.mean(0), compute_uv=False).astype(float) ** 2))


def shares(mass: Float[np.ndarray, "document slot"]) -> Float[np.ndarray, "document slot"]:
    """Each slot's share of its document's mass; 0 for no mass."""
    total = mass.sum(1, keepdims=True)
    return np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)


def unused(mass: Float[np.ndarray, "document slot"], fraction: float) -> Bool[np.ndarray, "slot"]:
    """Slots with less than `fraction` of a uniform share of the mass in every single document."""
    return (shares(mass) < fraction / mass.shape[1]).all(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Usage:
    """How documents use the slots. Reading counts from segment 1 on, before which nothing was written. Shares are means
    over documents."""

    n: int
    groups: int
    read_share: Float[np.ndarray, "slot"]
    """Of all reading, over tokens, blocks and heads."""
    write_share: Float[np.ndarray, "slot"]
    """Of all writing: the norm of input gate times candidate, or without gates of the change."""
    change: Float[np.ndarray, "slot"]
    """How far a segment moves the slot (Euclidean)."""
    forget: Float[np.ndarray, "slot"] | None
    """Forget gate: share of the slot that a block keeps; None without gates."""
    read: Effect
    """Effective slots of a document: participation ratio of its reading, which is the number of slots if uniform."""
    write: Effect
    """The same for its writing."""
    rank: Effect
    """Effective rank of the bank that a document leaves."""
    fresh_read: Effect
    """As `read`, if every segment begins with a fresh bank."""
    read_over_fresh: Effect
    """`read` minus `fresh_read`, document by document."""
    fresh_rank: float
    """Effective rank of the fresh bank."""
    unread: tuple[int, ...]
    """Slots that no document reads."""
    unchanged: tuple[int, ...]
    """Slots that no document changes."""

    @property
    def dead(self) -> tuple[int, ...]:
        """Slots that no document reads or changes."""
        return tuple(slot for slot in self.unread if slot in self.unchanged)


def usage(
    checkpoint: Checkpoint,
    specs: Sequence[RunSpec],
    groups: Sequence[str],
    *,
    fraction: float = 0.01,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Usage:
    """Run every document twice, as its spec says and with a memory that writes nothing.

    Args:
        groups: the story of each document.
        fraction: a slot is unread or unchanged if, in every document, it has less than this fraction of an even share
            of the reading or of the bank's change.

    Raises ValueError for no documents, one of a single segment (it reads nothing that was written), a model without
    memory, and as `run` does.
    """
    config = checkpoint.config
    if not config.memory_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no slots to use")
    if not specs:
        raise ValueError("how slots are used takes at least 1 document to say")
    captures = (*(Capture(site) for site in _SITES if site.layers(config)), _READ)
    documents, frozen = [], []
    for spec in specs:
        documents.append(_document(run(checkpoint, replace(spec, captures=captures)), config))
        without_writes = replace(spec, captures=(_READ,), interventions=(*spec.interventions, Freeze()))
        frozen.append(_read(run(checkpoint, without_writes), config))
        on_document()
    read, write, change, forget, ranks = (np.stack(column) for column in zip(*documents))
    reading, fresh = participation_ratio(read), participation_ratio(np.stack(frozen))
    return Usage(
        n=len(specs),
        groups=len(set(groups)),
        read_share=shares(read).mean(0),
        write_share=shares(write).mean(0),
        change=change.mean(0),
        forget=forget.mean(0) if Site.GATE_FORGET.layers(config) else None,
        read=effect(reading, groups, seed=seed),
        write=effect(participation_ratio(write), groups, seed=seed),
        rank=effect(ranks, groups, seed=seed),
        fresh_read=effect(fresh, groups, seed=seed),
        read_over_fresh=effect(reading - fresh, groups, seed=seed),
        fresh_rank=effective_rank(to_numpy(of_memory(checkpoint.model.fresh_bank(1))[0])),
        unread=tuple(map(int, np.flatnonzero(unused(read, fraction)))),
        unchanged=tuple(map(int, np.flatnonzero(unused(change, fraction)))),
    )


_READ = Capture(Site.READ_PATTERN, SlotMass())
_SITES = (Site.BANK_PRE, Site.BANK_POST, Site.CANDIDATE, Site.GATE_IN, Site.GATE_FORGET)


def _document(
    trace: Trace, config: LM2Config
) -> tuple[
    Float[np.ndarray, "slot"], Float[np.ndarray, "slot"], Float[np.ndarray, "slot"], Float[np.ndarray, "slot"], float
]:
    """A document's reading, writing, change and forget gate by slot, and its bank's effective rank."""
    first, last = min(config.memory_layers), max(config.memory_layers)
    moved = [
        _at(trace, Site.BANK_POST, segment, last) - _at(trace, Site.BANK_PRE, segment, first)
        for segment in trace.segments
    ]
    change = np.linalg.norm(moved, axis=-1)
    if not Site.GATE_FORGET.layers(config):
        write, forget = change.sum(0), np.full(config.slots, np.nan)
    else:
        gated = [_gated(trace, segment, layer, config) for segment in trace.segments for layer in config.memory_layers]
        admitted, kept = zip(*gated)
        write, forget = np.sum(admitted, axis=0), np.mean(kept, axis=0)
    return _read(trace, config), write, change.mean(0), forget, effective_rank(of_memory(trace.bank))


def _gated(
    trace: Trace, segment: Segment, layer: int, config: LM2Config
) -> tuple[Float[np.ndarray, "slot"], Float[np.ndarray, "slot"]]:
    """How much one block's input gate admits to each slot, and the share of the slot that its forget gate keeps."""
    admitted = np.linalg.norm(
        _at(trace, Site.GATE_IN, segment, layer) * _at(trace, Site.CANDIDATE, segment, layer), axis=-1
    )
    kept = _at(trace, Site.GATE_FORGET, segment, layer).mean(-1)
    if config.memory.design.slots_are_tokens:  # rows past the segment's tokens stay as they are, whatever the gates say
        written = np.arange(config.slots) < len(segment.ids)
        return np.where(written, admitted, 0.0), np.where(written, kept, 1.0)
    return admitted, kept


def _at(trace: Trace, site: Site, segment: Segment, layer: int) -> np.ndarray:
    return trace.at(site, segment=segment.index, layer=layer).astype(float)


def _read(trace: Trace, config: LM2Config) -> Float[np.ndarray, "slot"]:
    """Reading mass of every slot from segment 1 on, in tokens."""
    if len(trace.segments) == 1:
        raise ValueError(
            f"a document of a single segment ({len(trace.tokens)} tokens) reads nothing that was written; at least 2"
            " are needed"
        )
    masses = (
        len(segment.ids) * _at(trace, Site.READ_PATTERN, segment, layer)
        for segment in trace.segments[1:]
        for layer in config.memory_layers
    )
    return sum(masses, start=np.zeros(config.slots))


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    specs, groups = zip(*((question.spec, question.prompt.group) for question in questions))
    used = usage(checkpoint, specs, groups, seed=seed, on_document=on_document)
    measures = (
        ("effective slots of reading", mean(used.read)),
        ("the same with a memory that writes nothing (control)", mean(used.fresh_read)),
        ("effective slots of writing", mean(used.write)),
        ("effective rank of the bank at the end", mean(used.rank)),
        ("effective rank of the fresh bank (control)", used.fresh_rank),
    )
    note = (
        f"{held_out(questions)}; participation ratios, of {checkpoint.config.slots} slots. Dead slots, read and changed"
        f" less than a hundredth of an even share in every document: {', '.join(map(str, used.dead)) or 'none'}"
    )
    each = [
        (
            slot,
            100 * used.read_share[slot].item(),
            100 * used.write_share[slot].item(),
            used.change[slot].item(),
            NOTHING if used.forget is None else used.forget[slot].item(),
            "unread " * (slot in used.unread) + "unchanged" * (slot in used.unchanged),
        )
        for slot in range(checkpoint.config.slots)
    ]
    headers = (
        "slot",
        Column("share of reading", "%"),
        Column("share of writing", "%"),
        Column("change a segment", "norm"),
        "forget gate, mean",
        "in every document",
    )
    return (
        Findings(title="Effective slots", columns=columns_of(("measure", "mean"), measures), note=note),
        Findings(
            title="Slot by slot", columns=columns_of(headers, each), note=f"{held_out(questions)}; means over documents"
        ),
    )


EXPERIMENT = Experiment(
    key="slots",
    title="Slots in use",
    question="How many slots are used, and which are dead?",
    control="a memory that writes nothing",
    findings=findings,
)
