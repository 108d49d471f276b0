"""The features of every row, from the runs of its documents; and the labels that take a run to say.

Features go where they belong as soon as they are there, so that beside the arrays themselves nothing larger than one
batch is held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from lm2.model.lm2 import LM2
from lm2.runs.batched import ReadStep, read_documents
from lm2.runs.hooks import watch
from lm2.runs.loop import to_numpy
from lm2.runs.trace import read_only
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.features.baselines import OfText, SegmentRows
from probes.features.examples import Examples
from probes.features.slot_views import ViewRows
from probes.features.source_names import check
from probes.features.sources import Activation, Change, Condition, Source
from probes.features.targets import Labels, OwnLabels, SlotOverwritten, Target
from probes.stats.splits import groups

Features = Float32[np.ndarray, "row d"]


class Labelled(NamedTuple):
    """What targets say of the same rows."""

    labels: dict[Target, Labels]
    groups: Shaped[np.ndarray, "row"]
    """The examples' own, joined with those of files of labels."""


def collect(
    checkpoint: Checkpoint,
    examples: Examples,
    sources: Sequence[Source],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> dict[Source, Features]:
    """The features of every row from each source, read-only. Equal to what a run of each document captures, to
    rounding.

    Args:
        seed: for the weights of a model that is UNTRAINED.
        on_document: called after each document, once for each condition that sources have.

    Raises ValueError for sources that the model or the moment lacks, and for examples of another checkpoint.
    """
    if examples.digest != checkpoint.digest:
        raise ValueError(
            f"the examples are laid out for weights {examples.digest[:12]}, and {checkpoint.name!r} has"
            f" {checkpoint.digest[:12]}"
        )
    for source in sources:
        check(source, checkpoint.config, examples.moment)
    arrays = {
        source: np.empty((len(examples), source.width(checkpoint.config, examples)), np.float32) for source in sources
    }
    _read_texts(checkpoint, examples, {source: arrays[source] for source in arrays if isinstance(source, OfText)})
    for condition in Condition:
        wanted = {
            source: array
            for source, array in arrays.items()
            if isinstance(source, Activation) and source.condition is condition
        }
        if wanted:
            reader = untrained(checkpoint, seed) if condition is Condition.UNTRAINED else checkpoint
            _read_activations(reader, examples, wanted, condition is Condition.RESET, on_document)
    return {source: read_only(array) for source, array in arrays.items()}


def labelled(checkpoint: Checkpoint, examples: Examples, targets: Sequence[Target]) -> Labelled:
    """What targets say of every row, those that take a run to say among them; and the groups that rows then have.

    Raises ValueError for what the documents or files do not hold.
    """
    for target in targets:
        target.check(examples)
    if any(isinstance(target, SlotOverwritten) for target in targets):
        (changes,) = collect(checkpoint, examples, [Change()]).values()
        examples = replace(examples, changes=changes)
    own = [target.groups(examples) for target in targets if isinstance(target, OwnLabels)]
    return Labelled({target: examples.label(target) for target in targets}, groups(examples.groups, *own))


def untrained(checkpoint: Checkpoint, seed: int = 0) -> Checkpoint:
    """The same model with weights drawn anew, on the CPU whatever it runs on, so that a seed means the same weights
    everywhere."""
    with torch.random.fork_rng(devices=()):  # layers draw from torch's own generator as they are built
        model = LM2(checkpoint.config)
    model.initialise(torch.Generator().manual_seed(seed))
    like = checkpoint.model.embed.weight
    model.to(device=like.device, dtype=like.dtype)
    digest = f"untrained {seed} {checkpoint.digest}"
    return replace(checkpoint, name=f"untrained {checkpoint.name}", model=model, digest=digest, weights_digest="")


def _read_texts(checkpoint: Checkpoint, examples: Examples, wanted: Mapping[OfText, Features]) -> None:
    embedding = to_numpy(checkpoint.model.embed.weight) if wanted else np.empty(0)
    for source, array in wanted.items():
        for (document, segment), rows in examples.pieces.items():
            read = SegmentRows(examples.read[document][segment], examples.position[rows], examples, embedding)
            array[rows] = source.rows(read)


def _read_activations(
    checkpoint: Checkpoint,
    examples: Examples,
    wanted: Mapping[Activation, Features],
    reset: bool,
    on_document: OnDocument,
) -> None:
    names = {source: source.hooks(checkpoint.config, examples.moment) for source in wanted}
    device = checkpoint.model.embed.weight.device
    heard: dict[str, Tensor] = {}

    def keep(step: ReadStep) -> None:
        pieces = ((at, examples.pieces.get((document, segment.index))) for at, document, segment in step.rows)
        places = [(at, row) for at, piece in pieces if piece for row in range(piece.start, piece.stop)]
        batch, rows = np.array(places, np.int64).T
        at = ViewRows(*(torch.from_numpy(index).to(device) for index in (batch.copy(), examples.position[rows])))
        for source, array in wanted.items():
            array[rows] = to_numpy(source.rows([heard[name] for name in names[source]], at))

    read_documents(
        checkpoint,
        examples.read,
        keep,
        wanted=lambda document, segment: (document, segment.index) in examples.pieces,
        resets=[[segment.index for segment in segments] if reset else () for segments in examples.read],
        hooks=[watch(name, partial(heard.__setitem__, name)) for name in {*chain.from_iterable(names.values())}],
        on_document=on_document,
    )
