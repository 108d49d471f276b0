"""Running a text into a store."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import zarr
from jaxtyping import Float
from torch import Tensor

from lm2.files import replace_folder
from lm2.model.sites import AnySite, Site
from lm2.origin import differing
from lm2.runs.capture import Capture, Coordinate
from lm2.runs.hooks import bank_in
from lm2.runs.loop import Carried, in_turns, run_segments, to_numpy
from lm2.runs.runner import prepare, source_activations
from lm2.runs.spec import RunSpec
from lm2.stores import header, state
from lm2.stores.arrays import create, open_to_write
from lm2.stores.gates import GateWriter
from lm2.stores.growing import GrowingArray
from lm2.stores.header import Header
from lm2.stores.layout import FIRST_LEVEL, TOP, Rows
from lm2.stores.maps import MapWriter
from lm2.stores.recompute import write_weights
from lm2.stores.state import Resume, State
from lm2.stores.store import Store, open_store
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint

_BITS = 1 / np.log(2)


def capture(
    checkpoint: Checkpoint,
    spec: RunSpec,
    path: str | Path,
    *,
    first_level: int = FIRST_LEVEL,
    on_segment: Callable[[int, int], None] | None = None,
) -> Store:
    """Run a text into a store: a folder that grows while the run goes on, whatever the length of the text.

    If the folder already has this run, as far as it was when it was stopped, it goes on from the last whole segment.

    Args:
        spec: without captures, as a store has its own.
        first_level: the pyramids of reads and writes begin with rows of 2**first_level tokens.
        on_segment: called with (segments done, segments in all) after each segment.

    Raises ValueError as `prepare` does, for a spec with captures, and for a folder that holds anything else;
    OSError where the disk is full.
    """
    path = Path(path)
    if spec.captures:
        raise ValueError(
            f"a store keeps what it needs of a run, so its spec has no captures, and not {len(spec.captures)}"
        )
    tokens, segments = prepare(checkpoint, spec)
    made = Header.of(checkpoint, spec, len(tokens), len(segments), first_level)
    if (path / header.FILE).exists():
        _check_same(path, made)
    else:
        _create(path, checkpoint, made, tokens, segments)
    writer = _Writer(path, checkpoint, made, tokens, segments)
    try:
        writer.run(on_segment)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        whole = open_store(path).whole
        raise OSError(
            f"there is no room for {path}: {error.strerror}; {whole:,} of {len(segments):,} segments are whole, and"
            " the same command goes on from there"
        ) from error
    return open_store(path)


def _check_same(path: Path, made: Header) -> None:
    """Raise ValueError where a store holds another run."""
    held = Header.read(path)
    mine, others = made.to_json(), held.to_json()
    names = [name for name in ("spec", "config", "first_level") if mine[name] != others[name]]
    if made.origin["checkpoint_digest"] != held.origin["checkpoint_digest"]:
        names.append("checkpoint")
    names += differing(held.origin, made.origin)
    if names:
        raise ValueError(f"{path} holds another run, with another {', '.join(names)}: name a new folder")


def _create(
    path: Path, checkpoint: Checkpoint, made: Header, tokens: TokenSequence, segments: tuple[Segment, ...]
) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a store is a folder")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} holds other files, {next(path.iterdir()).name!r} among them: name a new folder")
    with replace_folder(path) as aside:
        create(aside, made.layout)
        header.write_text(aside, tokens, segments, made.to_json())
        write_weights(aside, checkpoint, made)
        made.write(aside)


class _Writer:
    """A run that goes on, and the arrays that it is written to."""

    def __init__(
        self, path: Path, checkpoint: Checkpoint, made: Header, tokens: TokenSequence, segments: tuple[Segment, ...]
    ) -> None:
        self._path, self._checkpoint, self._header, self._segments = path, checkpoint, made, segments
        self._of = made.to_json()
        self._layout = layout = made.layout
        self._state, self._resume = state.read_resume(path, self._of, checkpoint.model.embed.weight)
        self._next = segments[self._state.segments].start if self._state.segments < len(segments) else len(tokens)
        self._columns = {name: self._column(array, name) for name, array in open_to_write(path, layout).items()}
        column = self._columns.__getitem__
        self._takers: dict[tuple[AnySite, int | None], Callable[[np.ndarray], None]] = {}
        self._maps = []
        for plan in layout.maps:
            self._maps.append(MapWriter(layout, plan, column, self._next, self._state.tokens))
            self._takers[plan.what.site, plan.layer] = self._maps[-1].add
            if plan.recomputed:
                self._takers[Site.READ_Q, plan.layer] = column(f"{plan.name}/queries").append
        self._gates = []
        for name, site, layer in layout.gates:
            self._gates.append(GateWriter(name, site, layer, column))
            self._takers[site, layer] = self._gates[-1].add

    def _column(self, array: zarr.Array, name: str) -> GrowingArray:
        plan, done = self._layout.arrays[name], self._state
        match plan.rows:
            case Rows.TOKENS:
                return GrowingArray(array, plan, done.tokens, self._next)
            case Rows.SHARDS:
                return GrowingArray(array, plan, done.tokens // self._layout.shard)
            case Rows.SEGMENTS:
                return GrowingArray(array, plan, done.segments)

    def __setitem__(self, key: tuple[Capture, Coordinate], value: np.ndarray) -> None:
        """Take a value as soon as the model has computed it: those of all blocks together could be very large."""
        capture, place = key
        self._takers[capture.site, place.layer](value)

    def run(self, on_segment: Callable[[int, int], None] | None) -> None:
        segments, checkpoint, spec = self._segments, self._checkpoint, self._header.spec
        if self._state.segments == len(segments):
            return
        model = checkpoint.model
        sites = dict.fromkeys(site for site, _ in self._takers)
        watched = replace(spec, captures=tuple(Capture(site) for site in sites))
        sources = source_activations(checkpoint, spec)
        with torch.inference_mode():
            fresh = model.fresh_bank(1)
            resume = self._resume or Resume(carried=Carried(fresh, None), log_probabilities=None)
            rest = segments[self._state.segments :]
            steps = run_segments(model, rest, watched, self, resume.carried, sources)
            for segment, output, left in in_turns(checkpoint.lock, steps):
                bank = bank_in(spec.interventions, checkpoint.config, segment, resume.carried.bank, fresh, sources)
                if bank is not None:
                    self._columns["bank"].append(to_numpy(bank))
                last = self._add_predictions(segment, output.logits[0, : len(segment.ids)], resume.log_probabilities)
                before, resume = resume, Resume(carried=left, log_probabilities=last)
                self._save_whole_shards(segment, before, resume)
                if on_segment is not None:
                    on_segment(segment.index + 1, len(segments))
        if resume.carried.bank is not None:
            self._columns["bank"].append(to_numpy(resume.carried.bank))
        self._close()

    def _add_predictions(
        self, segment: Segment, logits: Float[Tensor, "token d_vocab"], before: np.ndarray | None
    ) -> np.ndarray:
        """Returns the log-probabilities of the token after the segment; `before`: of its first token."""
        log_probabilities = logits.float().log_softmax(-1)
        following = torch.tensor(segment.ids[1:], device=logits.device)
        own = log_probabilities[:-1].gather(1, following[:, None])[:, 0]
        first = np.nan if before is None else before[segment.ids[0]]
        self._columns["surprisal"].append(np.append(np.float32(first), own.cpu().numpy()) * -_BITS)
        top = log_probabilities.topk(min(TOP, logits.shape[-1]), -1)
        self._columns["top/ids"].append(top.indices.cpu().numpy())
        self._columns["top/log_probabilities"].append(top.values.cpu().numpy())
        return log_probabilities[-1].cpu().numpy()

    def _save_whole_shards(self, segment: Segment, before: Resume, after: Resume) -> None:
        """Save how far the store is written whenever a shard has become whole: up to the last segment within it."""
        tokens = segment.end - segment.end % self._layout.shard
        if tokens == self._state.tokens or segment.end == self._layout.tokens:
            return
        self._flush()
        self._state = State(segments=segment.index + (tokens == segment.end), tokens=tokens)
        state.save(self._path, self._state, after if tokens == segment.end else before, self._of)

    def _flush(self) -> None:
        for part in (*self._maps, *self._gates):
            part.flush()
        for name, plan in self._layout.arrays.items():
            if plan.rows is Rows.SEGMENTS:
                self._columns[name].sync()

    def _close(self) -> None:
        for part in self._maps:
            part.close()
        self._flush()
        for column in self._columns.values():
            column.sync()
        done = State(segments=self._layout.segments, tokens=self._layout.tokens)
        state.save(self._path, done, None, self._of)
