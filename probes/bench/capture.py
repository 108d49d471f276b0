"""Benchmark of the store: what it adds to a bare forward, beside a trace in memory and TransformerLens' cache."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lm2.model.sites import AnySite, Site
from lm2.runs.capture import Capture
from lm2.runs.loop import in_turns, run_segments
from lm2.runs.runner import prepare
from lm2.runs.spec import RunSpec
from lm2.stores.capture import captured
from lm2.tasks.babi import ask
from lm2.tasks.simulator import simulate
from lm2.text.segments import pad
from lm2.weights.checkpoint import Checkpoint, load

CHECKPOINT = "babi-lm2"
LENGTHS = (1024, 8192, 65_536, 131_072)
_TOKENS = 8192
"""Of the text that all ways run."""
_TURN = 16
"""Segments that a way runs before the next one has its turn."""
_ROUNDS = 3


class Way(Enum):
    """Ways to run a text."""

    BARE = "bare forward"
    STORE = "into a store"
    TRACE = "a trace in memory"
    LENS = "TransformerLens' cache"


@dataclass(frozen=True, kw_only=True)
class TextCost:
    """What running one text took, in a process of its own."""

    tokens: int
    seconds: float
    """Of CPU time, without loading the model."""
    peak_bytes: int
    """The most memory that the process had."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "tokens_per_second": self.tokens_per_second}


@dataclass(frozen=True, kw_only=True)
class CaptureBench:
    """CPU seconds of each way on one text, by turns of some segments, and what longer texts cost."""

    tokens: int
    seconds: dict[Way, list[float]]
    """In each round."""
    peaks: dict[Way, int]
    """Bytes: the most memory that a process of its own had."""
    lengths: list[TextCost]
    """Of a store."""

    def ratio(self, way: Way) -> float:
        """A way's time over that of the bare forward: the median of the rounds."""
        return median(mine / bare for mine, bare in zip(self.seconds[way], self.seconds[Way.BARE]))

    def to_json(self) -> dict[str, Any]:
        ways = {
            way.value: {"seconds": self.seconds[way], "ratio": self.ratio(way), "peak_bytes": self.peaks[way]}
            for way in Way
        }
        return {"tokens": self.tokens, "ways": ways, "lengths": [cost.to_json() for cost in self.lengths]}


def bench_capture(
    lengths: Sequence[int] = LENGTHS, on_step: Callable[[int, int], None] = lambda done, total: None
) -> CaptureBench:
    """Measure all ways on one text, and the store on texts of these lengths.

    `on_step`: called with (steps done, steps in all).
    """
    checkpoint = load(CHECKPOINT, "cpu")
    total, done = _ROUNDS + len(Way) + len(lengths), 0
    for way in Way:  # what is done once
        seconds_by_turns([way], checkpoint, text_of(256))
    seconds: dict[Way, list[float]] = {way: [] for way in Way}
    for _ in range(_ROUNDS):
        for way, measured in seconds_by_turns(list(Way), checkpoint, text_of(_TOKENS)).items():
            seconds[way].append(measured)
        on_step(done := done + 1, total)
    peaks, costs = {}, []
    for way in Way:
        peaks[way] = _apart(way, _TOKENS).peak_bytes
        on_step(done := done + 1, total)
    for length in lengths:
        costs.append(_apart(Way.STORE, length))
        on_step(done := done + 1, total)
    tokens = len(checkpoint.tokenizer.encode(text_of(_TOKENS)))
    return CaptureBench(tokens=tokens, seconds=seconds, peaks=peaks, lengths=costs)


def seconds_by_turns(ways: Sequence[Way], checkpoint: Checkpoint, text: str) -> dict[Way, float]:
    """CPU seconds of each way, which take turns, so that whatever else the machine does disturbs all alike."""
    spec = RunSpec(checkpoint=checkpoint.name, text=text)
    prepare(checkpoint, spec)  # the text is cut once for all
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        running = {way: _steps(way, checkpoint, spec, Path(folder) / way.name) for way in ways}
        seconds = dict.fromkeys(ways, 0.0)
        going = list(ways)
        while going:
            for way in tuple(going):
                began = time.process_time()
                if len(list(islice(running[way], _TURN))) < _TURN:
                    going.remove(way)
                seconds[way] += time.process_time() - began
    return seconds


def text_of(tokens: int) -> str:
    """A story of about as many tokens: one of 500 statements, told again and again."""
    long_story = simulate(1, seed=0, statements=500, questions=1).story
    story = ask(long_story, long_story.questions[-1]).context
    encode = load(CHECKPOINT, "cpu").tokenizer.encode
    each = encode(story)
    repeated = " ".join([story] * (tokens // len(each)))
    return f"{repeated} {story[: each.spans[tokens % len(each)][0]]}".strip()


def _steps(way: Way, checkpoint: Checkpoint, spec: RunSpec, folder: Path) -> Iterator[object]:
    """A run, segment by segment."""
    match way:
        case Way.STORE:
            return captured(checkpoint, spec, folder)
        case Way.LENS:
            return _with_cache(checkpoint, spec)
        case Way.TRACE:
            captures = tuple(Capture(site) for site in _sites(checkpoint))
            return _forward(checkpoint, replace(spec, captures=captures))
        case Way.BARE:
            return _forward(checkpoint, spec)


def _sites(checkpoint: Checkpoint) -> list[AnySite]:
    """What a store summarises."""
    gates = [gate.site for gate in checkpoint.config.memory.design.gates.values()]
    return [Site.READ_Q, Site.READ_PATTERN, Site.WRITE_PATTERN, *gates]


def _forward(checkpoint: Checkpoint, spec: RunSpec) -> Iterator[object]:
    """A run with its logits; what the spec captures is kept."""
    _, segments = prepare(checkpoint, spec)
    records = {}
    for _, output, _ in in_turns(checkpoint.lock, run_segments(checkpoint.model, segments, spec, records)):
        assert output.logits.ndim == 3, "computed when they are asked for"
        yield records


def _with_cache(checkpoint: Checkpoint, spec: RunSpec) -> Iterator[object]:
    """TransformerLens' own way, a segment after the other; its caches are kept."""
    model, (_, segments) = checkpoint.model, prepare(checkpoint, spec)
    layers = sorted(checkpoint.config.memory_layers)
    names = [site.hook_name(layer) for site in (*_sites(checkpoint), Site.BANK_POST) for layer in layers]
    bank, caches = model.fresh_bank(1), []
    for segment in segments:
        ids, _ = pad([segment.ids])
        _, cache = model.run_with_cache(ids, bank, names_filter=names)
        bank = cache[Site.BANK_POST.hook_name(layers[-1])]
        caches.append(cache)
        yield caches


def _apart(way: Way, tokens: int) -> TextCost:
    """What a text costs in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost_of, way, tokens).result()


def cost_of(way: Way, tokens: int) -> TextCost:
    """What a text costs in this process, with one thread."""
    torch.set_num_threads(1)  # threads count the CPU seconds in which they wait for each other
    checkpoint, text = load(CHECKPOINT, "cpu"), text_of(tokens)
    count = len(checkpoint.tokenizer.encode(text))
    return TextCost(tokens=count, seconds=seconds_by_turns([way], checkpoint, text)[way], peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts the process that this one was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
