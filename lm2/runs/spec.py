"""RunSpec: everything that decides what a run shows. Caches, links and sidecars of figures hold it."""

from dataclasses import dataclass
from typing import Any

from lm2.runs.capture import Capture
from lm2.runs.interventions import Intervention
from lm2.serialize import LARGEST_INT, Spec, within
from lm2.shown import shown


@dataclass(frozen=True, kw_only=True)
class RunSpec(Spec):
    """One run of one checkpoint on one text."""

    checkpoint: str
    """Bundled name or path, as given to `lm2.load`."""
    text: str
    """A form feed in it opens a new segment."""
    segment_length: int | None = None
    """Tokens; None, the checkpoint's own."""
    captures: tuple[Capture, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    """Applied in this order."""
    seed: int = 0
    """For anything random in a run; a plain run draws nothing."""
    bos: bool | None = None
    """Whether the text, and each text that an intervention takes from, begins with the tokenizer's begin-of-text token;
    None, as the tokenizer has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("seed", self.seed, 0, LARGEST_INT)
        if self.segment_length is not None and self.segment_length < 1:
            raise ValueError(f"segment_length must be at least 1 token, not {self.segment_length}")
        if len(set(self.captures)) != len(self.captures):
            raise ValueError(
                f"each capture may be asked for once; {len(self.captures)} were given, {len(set(self.captures))} differ"
            )

    def to_json(self) -> dict[str, Any]:
        """As in `Spec`, without `bos` where it is None: digests of other specifications stay what they were."""
        values = super().to_json()
        if self.bos is None:
            del values["bos"]
        return values


def read_interventions(values: object) -> tuple[Intervention, ...]:
    """The interventions of a JSON list of them, or of a run's spec as JSON. Raises ValueError for anything else."""
    if isinstance(values, list):
        values = {"checkpoint": "", "text": "", "interventions": values}
    if not isinstance(values, dict):
        raise ValueError(f"interventions are a list of objects, or a run's spec that has them, not {shown(values)}")
    return RunSpec.from_json(values).interventions
