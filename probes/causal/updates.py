"""Updates of the bank while a text is being written, and what they do to reading.

The paper's section 4.5 shows the cross-attention of one prompt before and after some steps of generation. Here
`generate_traced` continues a text token by token: the bank is written whenever a segment is full, or, where the spec
has a Freeze, not any more. `reread` then reads one and the same probe from every bank on the way, so that nothing
differs between two readings but the bank.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from lm2.model.memory import of_memory
from lm2.model.sites import Site
from lm2.runs.capture import Capture, Coordinate, check_numbers
from lm2.runs.generation import OpenText, SingleReader, decode
from lm2.runs.interventions import Freeze
from lm2.runs.loop import Carried, Records, carried, in_turns, run_segments, to_numpy
from lm2.runs.runner import LIMIT_BYTES, prepare
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError, check_repeated


@dataclass(frozen=True, kw_only=True)
class TracedGeneration:
    """A text, what the model wrote behind it token by token, and every bank on the way."""

    spec: RunSpec
    """The prompt's run. A Freeze in it says from which segment on nothing is written."""
    prompt: TokenSequence
    ids: tuple[int, ...]
    """The new tokens."""
    pieces: tuple[str, ...]
    """Each token of prompt and continuation as people read it."""
    segments: tuple[Segment, ...]
    """Of prompt and continuation; the last new token, which nothing was predicted from, belongs to none of them."""
    layers: tuple[int, ...]
    """The blocks whose reading was kept."""
    logits: Float[np.ndarray, "step d_vocab"]
    """Row t is what new token t was chosen from."""
    reads: Float[np.ndarray, "step block head slot"]
    """The reading of the token that new token t was predicted from."""
    banks: Float[np.ndarray, "bank slot slot_dim"]
    """Row k is the bank that k segments left: row 0 is fresh; to the last one the last segment has written as it
    stands."""

    def writes(self, segment: int) -> bool:
        """Whether a segment writes to the bank that it hands on."""
        return all(segment < change.segment for change in self.spec.interventions if isinstance(change, Freeze))

    def predictor(self, step: int) -> int:
        """Place of the token that new token `step` was predicted from."""
        return len(self.prompt) - 1 + step

    def segment_of(self, step: int) -> int:
        """The segment of that token: as many segments have written to the bank it reads."""
        return next(segment.index for segment in self.segments if self.predictor(step) < segment.end)

    def closed(self, step: int) -> bool:
        """Whether a segment was closed, and the bank written unless it is frozen, right before new token `step` was
        predicted."""
        return step > 0 and self.predictor(step) == self.segments[self.segment_of(step)].start

    @property
    def bytes(self) -> int:
        return self.logits.nbytes + self.reads.nbytes + self.banks.nbytes


@torch.inference_mode()
def generate_traced(
    checkpoint: Checkpoint,
    spec: RunSpec,
    *,
    tokens: int,
    layers: tuple[int, ...],
    on_segment: Callable[[int, int], None] | None = None,
) -> TracedGeneration:
    """Continue the spec's text greedily by `tokens` tokens, keeping what blocks `layers` read at each.

    With no Freeze the tokens are those of `lm2.generate`.

    Args:
        on_segment: called with (segments done, segments in all) after each segment of the prompt but the last.

    Raises ValueError for fewer than 1 token, captures, interventions other than one Freeze, a block without memory, and
    as `prepare` does; TooLargeError for so many tokens that reading the last segment once for each would take too much.
    """
    if tokens < 1:
        raise ValueError(f"at least 1 token must be written, not {tokens}")
    prompt, segments = prepare(checkpoint, spec)
    check_repeated(checkpoint.config, segments[-1], tokens, checkpoint.working_bytes)
    _check_layers(checkpoint, layers)
    if (
        spec.captures
        or len(spec.interventions) > 1
        or not all(isinstance(change, Freeze) for change in spec.interventions)
    ):
        raise ValueError(
            "a walk's spec has no captures, and no interventions but one Freeze; this one has"
            f" {spec.captures + spec.interventions}"
        )
    model = checkpoint.model
    before = Carried(model.fresh_bank(1), None)
    banks, logits, reads = [before.bank], [], []
    for segment, output in in_turns(checkpoint.lock, run_segments(model, segments[:-1], spec, {})):
        before = carried(model.config, output, segment.end)
        banks.append(before.bank)
        if on_segment is not None:
            on_segment(segment.index + 1, len(segments))
    capture = Capture(Site.READ_PATTERN, layers=layers)
    records: Records = {}
    reader = SingleReader(model, replace(spec, captures=(capture,)), records)
    written = OpenText(prompt, segments[-1], before)
    read = list(segments)
    for predicted in in_turns(checkpoint.lock, decode(checkpoint, [written], reader, spec, tokens)):
        if written.segment.index == read[-1].index:
            read.pop()
        else:
            banks.append(written.before.bank)
        read.append(written.segment)
        logits.append(to_numpy(predicted[0]))
        reads.append(_stacked(records, capture, written.segment)[:, :, -1])
    with checkpoint.lock:
        reader.close([written])
    banks.append(written.before.bank)
    return TracedGeneration(
        spec=spec,
        prompt=prompt,
        ids=tuple(written.new),
        pieces=checkpoint.tokenizer.extended(prompt, written.new).shown,
        segments=tuple(read),
        layers=layers,
        logits=read_only(np.stack(logits)),
        reads=read_only(np.stack(reads)),
        banks=read_only(np.stack([to_numpy(of_memory(bank)[0]) for bank in banks])),
    )


def _stacked(records: Records, capture: Capture, segment: Segment) -> Float[np.ndarray, "block head token slot"]:
    return np.stack([records[capture, Coordinate(segment.index, layer)] for layer in capture.layers or ()])


def diverge(one: TracedGeneration, other: TracedGeneration) -> int | None:
    """The first step at which two walks choose different tokens; None where they never do."""
    return next((step for step, pair in enumerate(zip(one.ids, other.ids)) if pair[0] != pair[1]), None)


@dataclass(frozen=True, kw_only=True)
class Rereading:
    """One probe, read from several banks."""

    pieces: tuple[str, ...]
    """Each token of the probe as people read it."""
    layers: tuple[int, ...]
    patterns: Float[np.ndarray, "bank block head token slot"]
    logits: Float[np.ndarray, "bank d_vocab"]
    """What is expected behind the probe's last token."""

    def difference(self, before: int, after: int) -> Float[np.ndarray, "block head token slot"]:
        """Read weight from bank `after` less that from bank `before`."""
        return self.patterns[after] - self.patterns[before]

    def moved(self, before: int, after: int) -> Float[np.ndarray, "block head token"]:
        """Total variation distance between two readings: the share of a token's attention that went elsewhere, 0 to 1.

        Where a read pattern does not sum to 1 (TOKENS: tokens also attend to tokens), what is left counts as one more
        slot.
        """
        change = self.difference(before, after)
        return (np.abs(change).sum(-1) + np.abs(change.sum(-1))) / 2

    @property
    def bytes(self) -> int:
        return self.patterns.nbytes + self.logits.nbytes


def reread(
    checkpoint: Checkpoint,
    ids: tuple[int, ...],
    banks: Float[np.ndarray, "bank slot slot_dim"],
    *,
    layers: tuple[int, ...],
    limit_bytes: int = LIMIT_BYTES,
) -> Rereading:
    """Read the tokens `ids` as one segment from each bank, with nothing else in sight, whatever the attention window.

    Raises ValueError for a probe without tokens (RELEASE: or of more tokens than there are slots), banks of another
    shape, and a block without memory; TooLargeError where the readings would be more than `limit_bytes`.
    """
    config = checkpoint.config
    _check_layers(checkpoint, layers)
    if not ids:
        raise ValueError("a probe has at least 1 token; this one has 0")
    full = config.memory.design.full_length(config)
    if full is not None and len(ids) > full:
        raise ValueError(
            f"this model's segments are {full} tokens long: a probe has at most {full}; this one has {len(ids)}"
        )
    if banks.ndim != 3 or banks.shape[1:] != (config.slots, config.slot_dim):
        raise ValueError(
            f"banks must be [bank, slot, slot_dim] = (any, {config.slots}, {config.slot_dim}), not {banks.shape}"
        )
    wanted = 4 * len(banks) * (len(layers) * config.memory_heads * len(ids) * config.slots + config.d_vocab)
    if wanted > limit_bytes:
        raise TooLargeError(
            f"{len(banks)} readings of {len(ids)} tokens would keep {wanted:,} bytes, more than the {limit_bytes:,}"
            " allowed"
        )
    probe = Segment(index=0, start=0, ids=ids)
    spec = RunSpec(checkpoint=checkpoint.name, text="", captures=(Capture(Site.READ_PATTERN, layers=layers),))
    like = checkpoint.model.embed.weight
    patterns, logits = [], []
    with checkpoint.lock, torch.inference_mode():
        for bank in banks:
            before = Carried(torch.tensor(bank, dtype=like.dtype, device=like.device)[None], None)
            records: Records = {}
            _, output = next(run_segments(checkpoint.model, [probe], spec, records, before, write=False))
            patterns.append(_stacked(records, spec.captures[0], probe))
            logits.append(to_numpy(output.logits[0, len(ids) - 1]))
    return Rereading(
        pieces=checkpoint.tokenizer.from_ids(ids).shown,
        layers=layers,
        patterns=read_only(np.stack(patterns)),
        logits=read_only(np.stack(logits)),
    )


def _check_layers(checkpoint: Checkpoint, layers: tuple[int, ...]) -> None:
    held = sorted(checkpoint.config.memory_layers)
    if not held:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank to update")
    if not layers:
        raise ValueError(f"at least one block must be read, of {held}")
    check_numbers("block", layers, held)
