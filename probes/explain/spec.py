"""ExplainSpec: everything that slot explanations depend on, besides weights and texts."""

from dataclasses import dataclass
from enum import Enum

from lm2.serialize import LARGEST_INT, Spec, distinct, not_empty, within
from probes.features.documents import Documents


class Signal(Enum):
    """How a token is related to a slot."""

    READ = "read"
    """The read pattern: the slot's share of the token's reading, mean over heads and blocks."""
    WRITE = "write"
    """Write credit, as in `probes.experiments.contents.provenance`: the write pattern (mean over heads) times the norm
    of what is left of the write at the end of its segment, summed over blocks. For memory tokens, which have no gates,
    the mean pattern times how far the segment moved the slot."""

    @property
    def done(self) -> str:
        return "read" if self is Signal.READ else "written"


@dataclass(frozen=True, kw_only=True)
class ExplainSpec(Spec):
    """Which texts a checkpoint reads, and what is found of each of its slots. Plain JSON both ways."""

    checkpoint: str
    documents: Documents = Documents(questions=("babi:qa1",), count=64)
    """Each is read with its answer."""
    file: str | None = None
    """A text file to read instead; see `probes.explain.corpus.of_file`."""
    segment_length: int | None = None
    """Tokens; None takes the checkpoint's own."""
    signals: tuple[Signal, ...] = (Signal.READ, Signal.WRITE)
    block: int | None = None
    """The block whose memory is explained; None takes all that have one."""
    contexts: int = 8
    """Passages for each slot, those with the largest values."""
    each: int = 1
    """The most of them from one story or document."""
    keywords: int = 10
    model: str | None = None
    """The language model that describes slots, by its name on the server; None asks none."""
    slots: tuple[int, ...] | None = None
    """Slots that it describes; None for all."""
    items: int = 20
    """Passages that score a description: all of them by detection, the active half by fuzzing."""
    seed: int = 0
    """For the halves, all random draws and the language model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("contexts", 1), ("each", 1), ("keywords", 1), ("items", 4), ("seed", 0)):
            within(name, getattr(self, name), least, LARGEST_INT)
        for name in ("checkpoint", "file", "model"):
            if getattr(self, name) is not None:
                not_empty(name, getattr(self, name))
        distinct("slots", self.slots)
        if not self.signals or len(set(self.signals)) != len(self.signals):
            raise ValueError(
                f"signals must name one at least, and each once, not {[signal.value for signal in self.signals]}"
            )
