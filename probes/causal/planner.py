"""Many interventions on one document, with what they have in common computed once.

A run under a unit of interventions equals the clean run up to the first segment, and within it the first block, that
the unit changes. So the clean run is made once, each unit begins at that block, and units that begin at the same place
run side by side, as rows of a batch, each with its own bank.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lm2.model.finite import in_segments
from lm2.model.lm2 import SegmentOutput
from lm2.model.stream import Cache, Stream
from lm2.runs.interventions import BEFORE
from lm2.runs.loop import Carried, carried, to_numpy
from lm2.runs.runner import source_activations
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.text.segments import Segment, pad
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import side_by_side
from probes.causal.batch import Unit, joint_unit, rows_begin, rows_hand_on, rows_hooks
from probes.causal.plan import Pack, Route, answer_part, layer_of, plan

PACK = 32
"""Units side by side. More of them gain nothing in matrix products and outgrow a core's cache."""


def answers_under(
    checkpoint: Checkpoint, encoded: EncodedPrompt, units: Sequence[Unit], *, pack: int = PACK
) -> Float[np.ndarray, "unit row d_vocab"]:
    """The logits that predict a question's answer under each unit of interventions, equal to those of `run` to 1e-5.

    Raises ValueError as `run` does.
    """
    return _all(Planner(checkpoint, encoded, units, pack=pack))


def answers_alone_under(
    checkpoint: Checkpoint, encoded: EncodedPrompt, units: Sequence[Unit], *, pack: int = PACK
) -> Float[np.ndarray, "unit row d_vocab"]:
    """The logits that predict a question's answer if only the tokens that predict it are computed under each unit.

    A unit may change only the answer's own segment. The tokens before those that predict the answer, with their keys
    and values, are those of the clean run. So an edit of a site of tokens equals, to 1e-5, a `run` with the answer's
    rows as the edit's `tokens`, and an edit of slots changes only what these rows read.

    Raises ValueError as `run` does; for interventions in other segments; for an answer that the end of a segment cuts;
    for sites with keys, which are not computed again; and for RELEASE, whose tokens all depend on each other.
    """
    return _all(Planner(checkpoint, encoded, units, route=Route.ANSWER, pack=pack))


def _all(planner: "Planner") -> Float[np.ndarray, "unit row d_vocab"]:
    answers = np.empty((len(planner.units), *planner.clean.shape), np.float32)
    for units, logits in planner.answers():
        answers[list(units)] = logits
    return answers


class Planner:
    """One question under many units of interventions. The clean run is made at construction."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoded: EncodedPrompt,
        units: Sequence[Unit],
        *,
        route: Route = Route.EXACT,
        pack: int = PACK,
    ) -> None:
        """Raises ValueError as `answers_under` does and, on its route, `answers_alone_under`."""
        self.units = tuple(units)
        self._checkpoint, self._model, self._config = checkpoint, checkpoint.model, checkpoint.config
        self._encoded = encoded
        self._sources = source_activations(checkpoint, replace(encoded.spec, interventions=joint_unit(units)))
        affordable = side_by_side(checkpoint.config, encoded.segments, checkpoint.working_bytes, pack)
        self._plan = plan(checkpoint.config, encoded, self.units, route, min(pack, affordable))
        self._segments = encoded.segments[: encoded.segment_of(encoded.rows[-1]) + 1]
        self._folds = route is Route.ANSWER and checkpoint.config.memory.design.folds
        self._begun: dict[int, Carried] = {}
        """The clean state before each segment in which a unit begins."""
        self._streams: dict[tuple[int, int], Stream] = {}
        """The clean stream before each (segment, block) at which a unit begins."""
        self._logits: dict[int, Float[Tensor, "one row d_vocab"]] = {}
        """The clean logits that predict the answer, by segment."""
        with checkpoint.lock, torch.inference_mode():
            self._fresh = self._model.fresh_bank(1)
            self._run_clean(route)
            self.clean: Float[np.ndarray, "row d_vocab"] = to_numpy(torch.cat([*self._logits.values()], dim=1)[0])

    def answers(self) -> Iterator[tuple[tuple[int, ...], Float[np.ndarray, "unit row d_vocab"]]]:
        """Indexes of some units and their logits, until every unit has come once."""
        unchanged = set(range(len(self.units)))
        for pack in self._plan:
            with self._checkpoint.lock, torch.inference_mode():
                logits = to_numpy(self._under(pack))
            yield pack.units, logits
            unchanged -= set(pack.units)
        if unchanged:
            yield tuple(sorted(unchanged)), np.broadcast_to(self.clean, (len(unchanged), *self.clean.shape))

    def _run_clean(self, route: Route) -> None:
        layers: dict[int, set[int]] = defaultdict(set)
        for pack in self._plan:
            layers[pack.segment].add(pack.layer)
        state = Carried(self._fresh, None)
        for segment in self._segments:
            last = segment is self._segments[-1]
            if last and route is Route.ANSWER:
                segment, state = self._alone(segment, state)
            if segment.index in layers:
                self._begun[segment.index] = state
            with in_segments(segment.index):
                stream = self._begin(segment, 1, state.bank, state.cache, write=not last)
                for layer in sorted(layers[segment.index] - {BEFORE}):
                    stream = self._model.through(stream, layer)
                    self._streams[segment.index, layer] = stream
                output = self._model.finish(self._model.through(stream))
                if rows := self._answer_rows(segment):
                    self._logits[segment.index] = output.unembed(output.final[:, rows])
            state = carried(self._config, output, segment.end)

    def _alone(self, segment: Segment, state: Carried) -> tuple[Segment, Carried]:
        """The rows that predict the answer as a segment of their own, with the tokens before them in its cache."""
        own = answer_part(self._encoded, self.units)
        before = segment.ids[: own.start - segment.start]
        if before:
            with in_segments(segment.index):
                read = self._model.through(
                    self._begin(replace(segment, ids=before), 1, state.bank, state.cache, write=False)
                )
                state = Carried(state.bank, self._model.finish(read).cache)
        self._segments = (*self._segments[:-1], own)
        return own, state

    def _answer_rows(self, segment: Segment) -> list[int]:
        return [row - segment.start for row in self._encoded.rows if segment.start <= row < segment.end]

    def _begin(self, segment: Segment, count: int, bank: Tensor | None, cache: Cache | None, *, write: bool) -> Stream:
        length = self._config.memory.design.full_length(self._config)
        ids, non_padding = pad([segment.ids] * count, length, self._model.embed.weight.device)
        bank = None if bank is None else bank.expand(count, -1, -1)
        cache = None if cache is None else cache.repeated(count)
        return self._model.begin(ids, bank, cache=cache, non_padding=non_padding, write=write)

    def _under(self, pack: Pack) -> Float[Tensor, "unit row d_vocab"]:
        """`lm2.runs.loop.run_segments` from where the pack begins, with a row for each unit."""
        units = [self.units[index] for index in pack.units]
        lasting = [tuple(change for change in unit if not change.read_only) for unit in units]
        parts = [logits.expand(len(units), -1, -1) for index, logits in self._logits.items() if index < pack.segment]
        handed, cache, _ = self._begun[pack.segment]
        read_cache = cache
        began, written = None, None
        for segment in self._segments[pack.segment :]:
            last, rows = segment is self._segments[-1], self._answer_rows(segment)
            stream = self._streams.get((segment.index, pack.layer)) if segment.index == pack.segment else None
            with in_segments(segment.index):
                if not last:
                    began, written = self._feed(lasting, segment, handed, cache, stream, write=True)
                if written is None or last or (pack.apart and (rows or self._config.lookback != 0)):
                    _, output = self._feed(units, segment, handed, read_cache, stream, write=False)
                else:
                    output = written
                if rows:
                    parts.append(output.unembed(output.final[:, rows]))
            if written is not None and not last:
                handed = rows_hand_on(lasting, segment, began, written.bank)
                cache = carried(self._config, written, segment.end).cache
                read_cache = carried(self._config, output, segment.end).cache if pack.apart else cache
        return torch.cat(parts, dim=1)

    def _feed(
        self,
        units: Sequence[Unit],
        segment: Segment,
        handed: Tensor | None,
        cache: Cache | None,
        stream: Stream | None,
        *,
        write: bool,
    ) -> tuple[Tensor | None, SegmentOutput]:
        """The bank that a segment begins with under each unit, and its output. `stream`: where the units begin; None
        for the start of the segment."""
        bank = rows_begin(units, self._config, segment, handed, self._fresh, self._sources)
        write = write if stream is None else stream.write  # a clean stream that writes can be read as well
        changes = rows_hooks(units, self._config, segment, self._sources, write=write)
        with self._model.hooks(fwd_hooks=[*changes]):
            if stream is None:
                stream = self._begin(segment, len(units), bank, cache, write=write)
            else:
                stream = stream.repeated(len(units))
                changed = max((layer_of(name, self._config) for name, _ in changes), default=BEFORE)
                if bank is not handed:
                    stream = replace(stream, bank_start=bank, bank=bank)
                elif self._folds and changed < self._config.n_layers:
                    return bank, self._folded(stream, changed)
            return bank, self._model.finish(self._model.through(stream))

    def _folded(self, stream: Stream, changed: int) -> SegmentOutput:
        """The rest of a segment. After the last block that is changed, units differ only in their tokens, so that all
        tokens can be one row."""
        if stream.layer <= changed:
            stream = self._model.through(stream, changed + 1)
        output = self._model.finish(self._model.through(stream.folded()))
        return replace(output, final=output.final.view(len(stream.resid), stream.tokens, -1))
