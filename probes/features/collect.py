"""The features of every row, and labels that need a run of the model.

Each batch's features are written to their rows at once, so that besides the arrays nothing larger than a batch is held.
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
from probes.features.baselines import SegmentRows, TextBaseline
from probes.features.examples import Examples
from probes.features.slot_views import ViewRows
from probes.features.source_names import check
from probes.features.sources import Activation, Change, Condition, Source
from probes.features.targets import Labels, OwnLabels, SlotOverwritten, Target
from probes.stats.splits import groups

Features = Float32[np.ndarray, "row d"]


class Labelled(NamedTuple):
    """The labels of several targets on the same rows."""

    labels: dict[Target, Labels]
    groups: Shaped[np.ndarray, "row"]
    """The examples' groups, joined with those of label files."""


def collect(
    checkpoint: Checkpoint,
    examples: Examples,
    sources: Sequence[Source],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> dict[Source, Features]:
    """The features of every row from each source, read-only: up to rounding, what a run of each document captures.

    Args:
        seed: for the weights of an untrained model.
        on_document: called after each document, once for each condition of the sources.

    Raises ValueError for sources that the model or these rows do not have, and for examples of another checkpoint.
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
    _read_texts(checkpoint, examples, {source: arrays[source] for source in arrays if isinstance(source, TextBaseline)})
    for condition in Condition:
        of_condition = {
            source: array
            for source, array in arrays.items()
            if isinstance(source, Activation) and source.condition is condition
        }
        if of_condition:
            reader = untrained(checkpoint, seed) if condition is Condition.UNTRAINED else checkpoint
            _read_activations(reader, examples, of_condition, condition is Condition.RESET, on_document)
    return {source: read_only(array) for source, array in arrays.items()}


def labelled(checkpoint: Checkpoint, examples: Examples, targets: Sequence[Target]) -> Labelled:
    """Every row's label for each target, running the model if a target needs it; and the resulting groups.

    Raises ValueError for targets that the documents or files do not have.
    """
    for target in targets:
        target.check(examples)
    if any(isinstance(target, SlotOverwritten) for target in targets):
        (changes,) = collect(checkpoint, examples, [Change()]).values()
        examples = replace(examples, changes=changes)
    file_groups = [target.groups(examples) for target in targets if isinstance(target, OwnLabels)]
    return Labelled({target: target.label(examples) for target in targets}, groups(examples.groups, *file_groups))


def untrained(checkpoint: Checkpoint, seed: int = 0) -> Checkpoint:
    """The same model with new random weights, drawn on the CPU so that a seed means the same weights on every
    device."""
    with torch.random.fork_rng(devices=()):  # layers use torch's global generator as they are built
        model = LM2(checkpoint.config)
    model.initialise(torch.Generator().manual_seed(seed))
    like = checkpoint.model.embed.weight
    model.to(device=like.device, dtype=like.dtype)
    digest = f"untrained {seed} {checkpoint.digest}"
    return replace(checkpoint, name=f"untrained {checkpoint.name}", model=model, digest=digest, weights_digest="")


def _read_texts(checkpoint: Checkpoint, examples: Examples, arrays: Mapping[TextBaseline, Features]) -> None:
    embedding = to_numpy(checkpoint.model.embed.weight) if arrays else np.empty(0)
    for source, array in arrays.items():
        for (document, segment), rows in examples.segment_rows.items():
            texts = examples.read_segments[document]
            array[rows] = source.features(SegmentRows(texts[segment], examples.position[rows], examples, embedding))


def _read_activations(
    checkpoint: Checkpoint,
    examples: Examples,
    arrays: Mapping[Activation, Features],
    reset: bool,
    on_document: OnDocument,
) -> None:
    names = {source: source.hooks(checkpoint.config, examples.moment) for source in arrays}
    device = checkpoint.model.embed.weight.device
    captured: dict[str, Tensor] = {}

    def write_features(step: ReadStep) -> None:
        slices = ((i, examples.segment_rows.get((document, segment.index))) for i, document, segment in step.rows)
        pairs = [(i, row) for i, rows in slices if rows for row in range(rows.start, rows.stop)]
        batch, rows = np.array(pairs, np.int64).T
        tokens = ViewRows(*(torch.from_numpy(index).to(device) for index in (batch.copy(), examples.position[rows])))
        for source, array in arrays.items():
            array[rows] = to_numpy(source.features([captured[name] for name in names[source]], tokens))

    read_documents(
        checkpoint,
        examples.read_segments,
        write_features,
        wanted=lambda document, segment: (document, segment.index) in examples.segment_rows,
        resets=[[segment.index for segment in segments] if reset else () for segments in examples.read_segments],
        hooks=[watch(name, partial(captured.__setitem__, name)) for name in {*chain.from_iterable(names.values())}],
        on_document=on_document,
    )
