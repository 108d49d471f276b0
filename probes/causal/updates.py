"""Updates of the bank while a text is generated, and what they change in reading.

The paper's section 4.5 shows the cross-attention of one prompt before and after some steps of generation. Here
`generate_traced` continues a text token by token, and the bank is written whenever a segment is full, unless an
intervention stops it. `reread` then reads the same probe from each of these banks, without interventions, so that only
the bank differs.
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
from lm2.runs.interventions import Freeze, WriteBlock
from lm2.runs.loop import Carried, Records, in_turns, run_segments, to_numpy
from lm2.runs.runner import LIMIT_BYTES, prepare, source_activations
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError, check_repeated


@dataclass(frozen=True, kw_only=True)
class TracedGeneration:
    """A text, its continuation token by token, and every bank on the way."""

    spec: RunSpec
    """The prompt's run. Its interventions also held while the text was continued."""
    prompt: TokenSequence
    ids: tuple[int, ...]
    """The new tokens."""
    pieces: tuple[str, ...]
    """Each token of prompt and continuation as readable text."""
    segments: tuple[Segment, ...]
    """Of prompt and continuation, without the last new token, from which nothing was predicted."""
    layers: tuple[int, ...]
    """The blocks of `reads`."""
    logits: Float[np.ndarray, "step d_vocab"]
    """Row t predicted new token t."""
    reads: Float[np.ndarray, "step block head slot"]
    """The read pattern of the token that predicted new token t."""
    banks: Float[np.ndarray, "bank slot slot_dim"]
    """Row k is the bank after k segments: row 0 is fresh, and the last one follows a write of the last segment, full or
    not."""

    def writes(self, segment: int) -> bool:
        """Whether a segment writes to the bank that it hands on."""
        changes, place = self.spec.interventions, self.segments[segment]
        frozen = any(isinstance(change, Freeze) and change.segment <= segment for change in changes)
        blocked = {token for change in changes if isinstance(change, WriteBlock) for token in change.tokens}
        return not frozen and not blocked.issuperset(range(place.start, place.end))

    def predictor(self, step: int) -> int:
        """Place of the token that predicted new token `step`."""
        return len(self.prompt) - 1 + step

    def segment_of(self, step: int) -> int:
        """The segment of that token, which is also how many segments have written to the bank it reads."""
        return next(segment.index for segment in self.segments if self.predictor(step) < segment.end)

    def closed(self, step: int) -> bool:
        """Whether a segment was completed, and the bank written unless frozen, just before new token `step`."""
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
    """Continue the spec's text greedily by `tokens` tokens, keeping the read patterns of blocks `layers`.

    The tokens are those of `lm2.generate` with the spec's interventions.

    Args:
        on_segment: called with (segments done, segments in all) after each segment of the prompt but the last.

    Raises ValueError for fewer than 1 token, captures, a block without memory, and as `lm2.generate` does;
    TooLargeError if reading the last segment once for each token would take too much.
    """
    if tokens < 1:
        raise ValueError(f"at least 1 token must be written, not {tokens}")
    prompt, segments = prepare(checkpoint, spec, tokens)
    check_repeated(checkpoint.config, segments[-1], tokens, checkpoint.working_bytes)
    _check_layers(checkpoint, layers)
    if spec.captures:
        raise ValueError(f"a traced generation takes no captures; this spec has {spec.captures}")
    sources = source_activations(checkpoint, spec, tokens)
    model = checkpoint.model
    before = Carried(model.fresh_bank(1), None)
    banks, logits, reads = [before.bank], [], []
    steps = run_segments(model, segments[:-1], spec, {}, sources=sources)
    for segment, _, before in in_turns(checkpoint.lock, steps):
        banks.append(before.bank)
        if on_segment is not None:
            on_segment(segment.index + 1, len(segments))
    capture = Capture(Site.READ_PATTERN, layers=layers)
    records: Records = {}
    reader = SingleReader(model, replace(spec, captures=(capture,)), records, sources)
    text = OpenText(prompt, segments[-1], before)
    read = list(segments)
    for predicted in in_turns(checkpoint.lock, decode(checkpoint, [text], reader, spec, tokens)):
        if text.segment.index == read[-1].index:
            read.pop()
        else:
            banks.append(text.before.bank)
        read.append(text.segment)
        logits.append(to_numpy(predicted[0]))
        reads.append(_patterns(records, capture, text.segment)[:, :, -1])
    with checkpoint.lock:
        reader.close([text])
    banks.append(text.before.bank)
    return TracedGeneration(
        spec=spec,
        prompt=prompt,
        ids=tuple(text.new),
        pieces=checkpoint.tokenizer.extended(prompt, text.new).shown,
        segments=tuple(read),
        layers=layers,
        logits=read_only(np.stack(logits)),
        reads=read_only(np.stack(reads)),
        banks=read_only(np.stack([to_numpy(of_memory(bank)[0]) for bank in banks])),
    )


def _patterns(records: Records, capture: Capture, segment: Segment) -> Float[np.ndarray, "block head token slot"]:
    return np.stack([records[capture, Coordinate(segment.index, layer)] for layer in capture.layers or ()])


def divergence(a: TracedGeneration, b: TracedGeneration) -> int | None:
    """The first step at which two generations choose different tokens; None if they never do."""
    return next((step for step, (left, right) in enumerate(zip(a.ids, b.ids)) if left != right), None)


@dataclass(frozen=True, kw_only=True)
class Rereading:
    """One text, the probe, read from several banks."""

    pieces: tuple[str, ...]
    """Each token of the probe as readable text."""
    layers: tuple[int, ...]
    patterns: Float[np.ndarray, "bank block head token slot"]
    logits: Float[np.ndarray, "bank d_vocab"]
    """The prediction after the probe's last token."""

    def difference(self, before: int, after: int) -> Float[np.ndarray, "block head token slot"]:
        """Read weight from bank `after` minus that from bank `before`."""
        return self.patterns[after] - self.patterns[before]

    def moved(self, before: int, after: int) -> Float[np.ndarray, "block head token"]:
        """Total variation distance between two readings: the share of a token's attention that moved, 0 to 1.

        If a read pattern does not sum to 1 (in TOKENS, tokens also attend to tokens), the rest counts as one more slot.
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
    """Read the tokens `ids` as one segment from each bank, without looking back, whatever the attention window.

    Raises ValueError for a probe without tokens (or, in RELEASE, with more tokens than slots), banks of another shape,
    and a block without memory; TooLargeError if the readings would take more than `limit_bytes`.
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
    size = 4 * len(banks) * (len(layers) * config.memory_heads * len(ids) * config.slots + config.d_vocab)
    if size > limit_bytes:
        raise TooLargeError(
            f"{len(banks)} readings of {len(ids)} tokens would keep {size:,} bytes, more than the {limit_bytes:,}"
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
            _, output, _ = next(run_segments(checkpoint.model, [probe], spec, records, before, write=False))
            patterns.append(_patterns(records, spec.captures[0], probe))
            logits.append(to_numpy(output.logits[0, len(ids) - 1]))
    return Rereading(
        pieces=checkpoint.tokenizer.from_ids(ids).shown,
        layers=layers,
        patterns=read_only(np.stack(patterns)),
        logits=read_only(np.stack(logits)),
    )


def _check_layers(checkpoint: Checkpoint, layers: tuple[int, ...]) -> None:
    memory_layers = sorted(checkpoint.config.memory_layers)
    if not memory_layers:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank to update")
    if not layers:
        raise ValueError(f"at least one block must be read, of {memory_layers}")
    check_numbers("block", layers, memory_layers)
