"""Running a text into a store."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import zarr
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
from lm2.stores.arrays import Arrays, create, open_to_write
from lm2.stores.gates import GateWriter
from lm2.stores.growing import Gathering, GrowingArray
from lm2.stores.header import Header
from lm2.stores.layout import FIRST_LEVEL, TOP, Rows, is_store
from lm2.stores.maps import MapWriter
from lm2.stores.recompute import write_weights
from lm2.stores.state import State
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
    for done, total in captured(checkpoint, spec, path, first_level):
        if on_segment is not None:
            on_segment(done, total)
    return open_store(path)


def captured(
    checkpoint: Checkpoint, spec: RunSpec, path: str | Path, first_level: int = FIRST_LEVEL
) -> Iterator[tuple[int, int]]:
    """`capture` segment by segment: yields how many are done, and how many there are."""
    path = Path(path)
    if spec.captures:
        raise ValueError(
            f"a store keeps what it needs of a run, so its spec has no captures, and not {len(spec.captures)}"
        )
    tokens, segments = prepare(checkpoint, spec)
    made = Header.of(checkpoint, spec, len(tokens), len(segments), first_level)
    if is_store(path):
        _check_same(path, made)
        if open_store(path).whole == len(segments):
            return
    else:
        _create(path, checkpoint, made, tokens, segments)
    try:
        for done in _Writer(path, checkpoint, made, tokens, segments).run():
            yield done, len(segments)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        whole = open_store(path).whole
        raise OSError(
            f"there is no room for {path}: {error.strerror}; {whole:,} of {len(segments):,} segments are whole, and"
            " the same command goes on from there"
        ) from error


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
        self._ids = tokens.ids
        self._of = made.to_json()
        self._layout = layout = made.layout
        self._state, self._carried = state.read_with_carried(path, self._of, checkpoint.model.embed.weight)
        self._next = segments[self._state.segments].start
        before = Arrays(path, layout)
        self._columns = {name: self._column(array, name, before) for name, array in open_to_write(path, layout).items()}
        column = self._columns.__getitem__
        self._logits, self._predicted = Gathering(self._predict), self._next
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

    def _column(self, array: zarr.Array, name: str, before: Arrays) -> GrowingArray:
        plan, done = self._layout.arrays[name], self._state
        match plan.rows:
            case Rows.TOKENS:
                return GrowingArray(array, plan, before, done.tokens, self._next)
            case Rows.SHARDS:
                return GrowingArray(array, plan, before, done.tokens // self._layout.shard)
            case Rows.SEGMENTS:
                return GrowingArray(array, plan, before, done.segments)

    def __setitem__(self, key: tuple[Capture, Coordinate], value: np.ndarray) -> None:
        """Take a value as soon as the model has computed it: those of all blocks together could be very large."""
        capture, place = key
        self._takers[capture.site, place.layer](value)

    def run(self) -> Iterator[int]:
        """Yields how many segments are done after each."""
        segments, checkpoint, spec = self._segments, self._checkpoint, self._header.spec
        model = checkpoint.model
        sites = dict.fromkeys(site for site, _ in self._takers)
        watched = replace(spec, captures=tuple(Capture(site) for site in sites))
        sources = source_activations(checkpoint, spec)
        with torch.inference_mode():
            fresh = model.fresh_bank(1)
            before = self._carried or Carried(fresh, None)
            rest = segments[self._state.segments :]
            steps = run_segments(model, rest, watched, self, before, sources)
            for segment, output, left in in_turns(checkpoint.lock, steps):
                bank = bank_in(spec.interventions, checkpoint.config, segment, before.bank, fresh, sources)
                if bank is not None:
                    self._columns["bank"].append(to_numpy(bank))
                self._logits.add(output.logits[0, : len(segment.ids)])
                self._save_whole_shards(segment, before, left)
                before = left
                yield segment.index + 1
        if before.bank is not None:
            self._columns["bank"].append(to_numpy(before.bank))
        self._close()

    def _predict(self, segments: list[Tensor]) -> None:
        """Add what the logits [token, d_vocab] of segments say of the next tokens."""
        logits = torch.cat(segments).float()
        first, self._predicted = self._predicted, self._predicted + len(logits)
        log_total = logits.logsumexp(-1)
        following = torch.tensor(self._ids[first + 1 : self._predicted + 1], device=logits.device)
        own = logits[: len(following)].gather(1, following[:, None])[:, 0]
        surprisal = np.full(len(logits), np.nan, np.float32)  # nothing follows the last token
        surprisal[: len(following)] = _BITS * (log_total[: len(following)] - own).cpu().numpy()
        top = logits.topk(min(TOP, logits.shape[-1]), -1)
        self._columns["next/surprisal"].append(surprisal)
        self._columns["next/top"].append(top.indices.cpu().numpy())
        self._columns["next/log_probabilities"].append((top.values - log_total[:, None]).cpu().numpy())

    def _save_whole_shards(self, segment: Segment, before: Carried, left: Carried) -> None:
        """Save how far the store is written whenever a shard has become whole: up to the last segment within it."""
        tokens = segment.end - segment.end % self._layout.shard
        if tokens == self._state.tokens or segment.end == self._layout.tokens:
            return
        self._flush()
        self._state = State(segments=segment.index + (tokens == segment.end), tokens=tokens)
        state.save(self._path, self._state, left if tokens == segment.end else before, self._of)

    def _flush(self) -> None:
        for part in (*self._maps, *self._gates, self._logits):
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
