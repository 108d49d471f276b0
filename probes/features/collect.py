"""The features of every row, from the runs of its documents; and the labels that take a run to say.

Documents are read many at a time and features go where they belong as soon as they are there, so that beside the arrays
themselves nothing larger than one batch is held.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped
from torch import Tensor

from lm2.files import replace_file
from lm2.model.hooks import HookPoint
from lm2.model.lm2 import LM2
from lm2.runs.batched import follow, meet_in_the_bank
from lm2.runs.hooks import Hook
from lm2.runs.interventions import Reset
from lm2.runs.loop import run_segments, to_numpy
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from probes.causal.ablations import OnDocument
from probes.features.examples import Examples
from probes.features.slot_views import ViewRows
from probes.features.sources import Activation, Change, Condition, OfText, Source
from probes.features.targets import Labels, OwnLabels, SlotOverwritten, Target
from probes.stats.splits import groups

_ROWS = 32
"""Documents read side by side."""

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
        mapped
            into memory; None, they are held in memory.
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
    hooks = {source: source.hooks(checkpoint.config, examples.moment) for source in wanted}
    heard: dict[str, Tensor] = {}
    watch = _watch({name for names in hooks.values() for name in names}, heard)
    for few in _batches(checkpoint, examples, reset):
        filled = arrays.open(wanted)
        with checkpoint.lock, torch.inference_mode(), checkpoint.model.hooks(fwd_hooks=watch):
            for rows, at in _steps(checkpoint, examples, few, reset):
                for source, names in hooks.items() if len(rows) else ():
                    filled[source][rows] = to_numpy(source.rows([heard[name] for name in names], at))
        for reading in few:
            if reading.segments[-1].index == examples.read[reading.document][-1].index:
                on_document()


def _watch(names: set[str], heard: dict[str, Tensor]) -> list[Hook]:
    """Hooks that put what they hear into `heard`."""

    def keep(value: Tensor, hook: HookPoint) -> None:
        heard[hook.name] = value

    return [(name, keep) for name in names]


class _Reading(NamedTuple):
    """What is read of a document in one go."""

    document: int
    segments: tuple[Segment, ...]


def _batches(checkpoint: Checkpoint, examples: Examples, reset: bool) -> Iterator[list[_Reading]]:
    """All that is to be read, the longest first: readings of a batch are of about one length."""
    side_by_side = meet_in_the_bank(checkpoint.config)
    if reset and side_by_side:
        # Nothing but the bank goes from segment to segment: with a fresh one each may as well be a document.
        readings = [_Reading(document, (examples.read[document][segment],)) for document, segment in examples.pieces]
    else:
        readings = [_Reading(document, segments) for document, segments in enumerate(examples.read) if segments]
    readings.sort(key=lambda reading: -len(reading.segments))
    size = _ROWS if side_by_side else 1
    return (readings[start : start + size] for start in range(0, len(readings), size))


def _steps(
    checkpoint: Checkpoint, examples: Examples, few: Sequence[_Reading], reset: bool
) -> Iterator[tuple[Int[np.ndarray, "row"], ViewRows]]:
    """Read segment by segment; the rows of each step, by number and by their place in the batch.

    Whoever consumes it holds the checkpoint's lock and is in inference mode.
    """
    device = checkpoint.model.embed.weight.device
    for step, _ in enumerate(_outputs(checkpoint, few, reset)):
        pieces = []
        for at, reading in enumerate(few):
            piece = (
                examples.pieces.get((reading.document, reading.segments[step].index))
                if step < len(reading.segments)
                else None
            )
            pieces += [] if piece is None else [(at, row) for row in range(piece.start, piece.stop)]
        batch, rows = np.array(pieces, np.int64).reshape(-1, 2).T
        yield rows, ViewRows(*(torch.from_numpy(index).to(device) for index in (batch.copy(), examples.position[rows])))


def _outputs(checkpoint: Checkpoint, few: Sequence[_Reading], reset: bool) -> Iterator[object]:
    model = checkpoint.model
    if meet_in_the_bank(checkpoint.config):
        return follow(
            model, [[segment.ids for segment in reading.segments] for reading in few], model.fresh_bank(len(few))
        )
    (reading,) = few
    resets = tuple(Reset(segment=segment.index) for segment in reading.segments) if reset else ()
    return run_segments(model, reading.segments, RunSpec(checkpoint=checkpoint.name, text="", interventions=resets), {})
