"""The features of every row, from the runs of its documents; and the labels that take a run to say.

Documents are read many at a time and features go where they belong as soon as they are there, so that beside the arrays
themselves nothing larger than one batch is held.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from lm2.files import replace_file
from lm2.model.lm2 import LM2
from lm2.runs.batched import ReadStep, read_documents
from lm2.runs.hooks import watch
from lm2.runs.loop import to_numpy
from lm2.runs.trace import read_only
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.features.examples import Examples
from probes.features.slot_views import ViewRows
from probes.features.sources import Activation, Change, Condition, OfText, Source
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
    folder: Path | None = None,
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> dict[Source, Features]:
    """The features of every row from each source, read-only. Equal to what a run of each document captures, to
    rounding.

    Args:
        folder: where arrays are put, a file for each source (`file_name`) that is whole or not there, and which is then
            mapped into memory; None, they are held in memory.
        seed: for the weights of a model that is UNTRAINED.
        on_document: hears of each document that has been read, once for each condition that sources have.

    Raises ValueError for sources that the model or the moment lacks, and for examples of another checkpoint.
    """
    if examples.digest != checkpoint.digest:
        raise ValueError(
            f"the examples are laid out for weights {examples.digest[:12]}, and {checkpoint.name!r} has"
            f" {checkpoint.digest[:12]}"
        )
    for source in sources:
        source.check(checkpoint.config, examples.moment)
    shapes = {source: (len(examples), source.width(checkpoint.config, examples)) for source in sources}
    with ExitStack() as stack:
        paths = (
            None
            if folder is None
            else {source: stack.enter_context(replace_file(folder / file_name(source))) for source in shapes}
        )
        arrays = _Arrays(shapes, paths)
        _read_texts(checkpoint, examples, [source for source in shapes if isinstance(source, OfText)], arrays)
        for condition in Condition:
            wanted = [source for source in shapes if isinstance(source, Activation) and source.condition is condition]
            if wanted:
                reader = untrained(checkpoint, seed) if condition is Condition.UNTRAINED else checkpoint
                _read_activations(reader, examples, wanted, condition is Condition.RESET, arrays, on_document)
    if folder is not None:
        return {source: np.load(folder / file_name(source), mmap_mode="r") for source in shapes}
    return {source: read_only(array) for source, array in arrays.open(tuple(shapes)).items()}


def file_name(source: Source) -> str:
    """Of a source's array in a folder."""
    return f"{source.stem}.npy"


def labelled(
    checkpoint: Checkpoint, examples: Examples, targets: Sequence[Target], *, on_document: OnDocument = lambda: None
) -> Labelled:
    """What targets say of every row, those that take a run to say among them; and the groups that rows then have.

    `on_document` hears of each document that is read for those. Raises ValueError for what the documents or files do
    not hold.
    """
    for target in targets:
        target.check(examples)
    if any(isinstance(target, SlotOverwritten) for target in targets):
        (changes,) = collect(checkpoint, examples, [Change()], on_document=on_document).values()
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


class _Arrays:
    """The arrays that are being filled: held, or files that are open one batch long, so that what was written takes no
    memory."""

    def __init__(self, shapes: Mapping[Source, tuple[int, int]], paths: Mapping[Source, Path] | None) -> None:
        self._paths = paths
        self._held = {source: np.empty(shape, np.float32) for source, shape in shapes.items()} if paths is None else {}
        for source, path in (paths or {}).items():
            np.lib.format.open_memmap(path, "w+", np.float32, shapes[source])

    def open(self, sources: Sequence[Source]) -> dict[Source, Features]:
        if self._paths is None:
            return {source: self._held[source] for source in sources}
        return {source: np.lib.format.open_memmap(self._paths[source], "r+") for source in sources}


def _read_texts(checkpoint: Checkpoint, examples: Examples, wanted: Sequence[OfText], arrays: _Arrays) -> None:
    embedding = to_numpy(checkpoint.model.embed.weight) if wanted else np.empty(0)
    for source in wanted:
        (array,) = arrays.open([source]).values()
        for (document, segment), rows in examples.pieces.items():
            array[rows] = source.baseline.rows(
                examples.read[document][segment], examples.position[rows], examples, embedding
            )


def _read_activations(
    checkpoint: Checkpoint,
    examples: Examples,
    wanted: Sequence[Activation],
    reset: bool,
    arrays: _Arrays,
    on_document: OnDocument,
) -> None:
    names = {source: source.hooks(checkpoint.config, examples.moment) for source in wanted}
    device = checkpoint.model.embed.weight.device
    heard: dict[str, Tensor] = {}
    filled: dict[Source, Features] = {}

    def keep(step: ReadStep) -> None:
        pieces = ((at, examples.pieces.get((document, segment.index))) for at, document, segment in step.rows)
        places = [(at, row) for at, piece in pieces if piece for row in range(piece.start, piece.stop)]
        batch, rows = np.array(places, np.int64).T
        at = ViewRows(*(torch.from_numpy(index).to(device) for index in (batch.copy(), examples.position[rows])))
        filled.update({} if filled else arrays.open(wanted))
        for source, own in names.items():
            filled[source][rows] = to_numpy(source.rows([heard[name] for name in own], at))

    def done() -> None:
        filled.clear()  # what was written to files need not stay in memory
        on_document()

    read_documents(
        checkpoint,
        examples.read,
        keep,
        wanted=lambda document, segment: (document, segment.index) in examples.pieces,
        resets=[[segment.index for segment in segments] if reset else () for segments in examples.read],
        hooks=[watch(name, partial(heard.__setitem__, name)) for own in names.values() for name in own],
        on_document=done,
    )
