"""ProbeSpec: everything that a probe's numbers depend on, besides the weights and the stories. Plain JSON."""

from dataclasses import dataclass
from pathlib import Path

from lm2.files import read_bytes
from lm2.serialize import Spec, digest_of, none_empty, not_empty, within
from lm2.shown import shown
from probes.estimators.probe import Family
from probes.features.documents import Documents
from probes.features.examples import RowPosition
from probes.features.label_files import MOST_BYTES, TARGET

BASELINES = ("tokens", "embedding", "position", "untrained", "reset")
"""Baselines of a source: features of the text alone (see `probes.features.baselines`), and the same source with new
random weights or without memory (see `probes.features.sources.Condition`)."""
MOST_PERMUTATIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class ProbeSpec(Spec):
    """The targets, sources and baselines of a probe of one checkpoint, and how it is fitted."""

    checkpoint: str
    documents: Documents = Documents()
    moment: RowPosition = RowPosition.SEGMENT
    segment_length: int | None = None
    """Tokens; None: the checkpoint's own."""
    sources: tuple[str, ...] = ("bank:mean",)
    """As in `probes.features.source_names`; "*" stands for every block or slot."""
    targets: tuple[str, ...] = ("place of *",)
    """As in `probes.features.target_names`; "*" stands for every name."""
    baselines: tuple[str, ...] = BASELINES
    family: Family = Family.LOGISTIC
    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """C of the logistic probe, lambda of ridge; chosen for each target and fold by its training groups alone."""
    folds: int = 5
    permutations: int = 999
    labels: str = ""
    """A CSV file (row, label, group) of the user's own labels, as one more target; empty: none."""
    seed: int = 0
    """For folds, control labels, permutations, resamples and random weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("checkpoint", self.checkpoint)
        for name in ("sources", "targets"):
            none_empty(name, getattr(self, name))
        unknown = sorted(set(self.baselines) - set(BASELINES))
        if unknown:
            raise ValueError(f"baselines must be of {', '.join(BASELINES)}, not {shown(unknown)}")
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(f"strengths must be positive, and at least one, not {shown(self.strengths)}")
        if self.folds < 2 or self.permutations < 0 or self.seed < 0:
            raise ValueError(
                "folds must be at least 2, and permutations and seed at least 0, not"
                f" {self.folds}, {self.permutations}, {self.seed}"
            )
        within("permutations", self.permutations, 0, MOST_PERMUTATIONS)

    @property
    def files(self) -> tuple[str, ...]:
        """The label files that it names, as a field and as targets."""
        return (
            *filter(None, (self.labels,)),
            *(target.removeprefix(TARGET) for target in self.targets if target.startswith(TARGET)),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form and the label files. Raises ValueError for a file that cannot be read."""
        return digest_of(self.to_json(), b"".join(read_bytes(Path(file), MOST_BYTES) for file in self.files))
