"""ProbeSpec: everything that a probe's numbers depend on, with the weights and the stories. Plain JSON both ways."""

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
"""What a source is compared with: what the segment's words alone tell, or its place; and the same source where the
weights are drawn anew, or where nothing is remembered. See `probes.features.source_names`."""
MOST_PERMUTATIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class ProbeSpec(Spec):
    """Which targets are read from which sources of one checkpoint, how, and beside what."""

    checkpoint: str
    documents: Documents = Documents()
    moment: RowPosition = RowPosition.SEGMENT
    segment_length: int | None = None
    """Tokens; None, the checkpoint's own."""
    sources: tuple[str, ...] = ("bank:mean",)
    """As `probes.features.source_names` writes them; "*" stands for every block or slot."""
    targets: tuple[str, ...] = ("place of *",)
    """As `probes.features.target_names` writes them; "*" stands for every name."""
    baselines: tuple[str, ...] = BASELINES
    family: Family = Family.LOGISTIC
    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """C of the logistic probe, lambda of ridge: chosen for each target in each fold by its training groups alone."""
    folds: int = 5
    permutations: int = 999
    labels: str = ""
    """A CSV file (row, label, group) with labels of one's own: the target "labels"; empty, there are none."""
    seed: int = 0
    """For folds, control labels, permutations, resamples and whatever is drawn anew."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("checkpoint", self.checkpoint)
        for name in ("sources", "targets"):
            none_empty(name, getattr(self, name))
        unknown = sorted(set(self.baselines) - set(BASELINES))
        if unknown:
            raise ValueError(f"baselines are of {', '.join(BASELINES)}, not {shown(unknown)}")
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(f"strengths must be positive, one at least, not {shown(self.strengths)}")
        if self.folds < 2 or self.permutations < 0 or self.seed < 0:
            raise ValueError(
                f"a probe needs 2 folds at least, and permutations and a seed that are not negative, not {self.folds},"
                f" {self.permutations}, {self.seed}"
            )
        within("permutations", self.permutations, 0, MOST_PERMUTATIONS)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of labels that it names, as a field and as targets."""
        return (
            *filter(None, (self.labels,)),
            *(target.removeprefix(TARGET) for target in self.targets if target.startswith(TARGET)),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form, and of the files of labels. Raises ValueError for one that cannot be read."""
        return digest_of(self.to_json(), b"".join(read_bytes(Path(file), MOST_BYTES) for file in self.files))
