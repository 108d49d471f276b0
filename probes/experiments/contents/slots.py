"""How many slots a model really uses: effective and dead slots over many documents, beside a bank in which nothing is
stored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
    """(sum of masses)^2 / sum of their squares: n for n equal masses and none elsewhere; 0 where there is no mass."""
    squares = (mass**2).sum(-1)
    return np.where(squares > 0, mass.sum(-1) ** 2 / np.where(squares > 0, squares, 1), 0.0)


def effective_rank(bank: Float[np.ndarray, "slot slot_dim"]) -> float:
    """Participation ratio of the squared singular values of a bank whose slots are centred: along how many directions
    slots differ."""
    return float(participation_ratio(np.linalg.svd(bank - bank.mean(0), compute_uv=False).astype(float) ** 2))


def shares(mass: Float[np.ndarray, "document slot"]) -> Float[np.ndarray, "document slot"]:
    """Each slot's share of its document's mass; 0 where there is none."""
    total = mass.sum(1, keepdims=True)
    return np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)


def unused(mass: Float[np.ndarray, "document slot"], fraction: float) -> Bool[np.ndarray, "slot"]:
    """Slots with less than `fraction` of a uniform share of the mass in every single document."""
    return (shares(mass) < fraction / mass.shape[1]).all(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Usage:
    """What documents do with the slots.

    Reading counts from segment 1 on, since before it nothing was written that could be read. Shares are means over
    documents.
    """

    n: int
    groups: int
    read_share: Float[np.ndarray, "slot"]
    """Of all reading: every token, block and head."""
    write_share: Float[np.ndarray, "slot"]
    """Of all that is written: the norm of what the input gate admits of the candidate; without gates, of the change."""
    change: Float[np.ndarray, "slot"]
    """How far a segment moves the slot (Euclidean)."""
    forget: Float[np.ndarray, "slot"] | None
    """Forget gate: share of the slot that a block keeps; None where there are no gates."""
    read: Effect
    """Effective slots of a document: participation ratio of its reading. Uniform reading would give the number of
    slots."""
    write: Effect
    """The same of its writing."""
    rank: Effect
    """Effective rank of the bank that a document leaves."""
    fresh_read: Effect
    """As `read`, where every segment of the same documents begins with a fresh bank."""
    read_over_fresh: Effect
    """The difference of the two, document by document."""
    fresh_rank: float
    """Effective rank of the fresh bank."""
    unread: tuple[int, ...]
    """Slots that no document reads."""
    unchanged: tuple[int, ...]
    """Slots that no document changes."""

    @property
    def dead(self) -> tuple[int, ...]:
        """Slots that no document reads and none changes."""
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
    """Run every document twice, as its spec says and with a memory that writes nothing, and sum up what its slots were
    used for.

    Args:
        groups: names for each document the story it belongs to.
        fraction: a slot is unread or unchanged when it has less than this share of 1/slots of the reading, or of the
            bank's change, in every document.

    Raises ValueError for no documents, one of a single segment (it reads nothing that was written), a model without
    memory, and as `run` does.
    """
    config = checkpoint.config
    if not config.memory_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no slots to use")
    if not specs:
        raise ValueError("how slots are used takes at least 1 document to say")
    found, frozen = [], []
    for spec in specs:
        found.append(_used(run(checkpoint, replace(spec, captures=(*map(Capture, _sites(config)), _READ))), config))
        frozen.append(
            _read(
                run(checkpoint, replace(spec, captures=(_READ,), interventions=(*spec.interventions, Freeze()))), config
            )
        )
        on_document()
    read, write, change, forget, ranks = (np.stack(column) for column in zip(*found))
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


def _sites(config: LM2Config) -> tuple[Site, ...]:
    wanted = (Site.BANK_PRE, Site.BANK_POST, Site.CANDIDATE, Site.GATE_IN, Site.GATE_FORGET)
    return tuple(site for site in wanted if site.layers(config))


class _Used(NamedTuple):
    """What one document did with the slots."""

    read: Float[np.ndarray, "slot"]
    write: Float[np.ndarray, "slot"]
    change: Float[np.ndarray, "slot"]
    forget: Float[np.ndarray, "slot"]
    rank: float


def _used(trace: Trace, config: LM2Config) -> _Used:
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
        write, forget = np.sum([one[0] for one in gated], axis=0), np.mean([one[1] for one in gated], axis=0)
    return _Used(_read(trace, config), write, change.mean(0), forget, effective_rank(of_memory(trace.bank)))


def _gated(
    trace: Trace, segment: Segment, layer: int, config: LM2Config
) -> tuple[Float[np.ndarray, "slot"], Float[np.ndarray, "slot"]]:
    """How much one block's gates admit to each slot, and the share of it that they keep."""
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
    """Reading mass of every slot, each token counting the same, from segment 1 on."""
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
    specs, groups = [asked.spec for asked in questions], [asked.prompt.group for asked in questions]
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
