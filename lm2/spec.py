"""RunSpec: everything that decides what a run shows. Key of caches, body of permalinks, sidecar of figures."""

from dataclasses import dataclass
from typing import Any

from lm2.capture import Capture
from lm2.interventions import Intervention
from lm2.plain import digest_of

_KINDS = {"checkpoint": str, "text": str, "captures": list, "interventions": list, "seed": int}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run of one checkpoint on one text. Frozen, hashable, plain JSON both ways."""

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
    """For whatever draws at random within a run; a plain run draws nothing."""

    def __post_init__(self) -> None:
        if self.segment_length is not None and self.segment_length < 1:
            raise ValueError(f"segment_length must be at least 1 token, not {self.segment_length}")
        if len(set(self.captures)) != len(self.captures):
            raise ValueError(f"each capture may be asked for once; {len(self.captures)} were given, {len(set(self.captures))} differ")

    def to_json(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "text": self.text,
            "segment_length": self.segment_length,
            "captures": [capture.to_json() for capture in self.captures],
            "interventions": [intervention.to_json() for intervention in self.interventions],
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunSpec":
        """Raises ValueError for unknown sites, reductions, interventions or fields."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or not {"checkpoint", "text"} <= set(values):
            raise ValueError(f"a run spec needs checkpoint and text and has no fields {unknown}")
        wrong = [f"{name}: {values[name]!r}" for name, kind in _KINDS.items() if not isinstance(values.get(name, kind()), kind)]
        length = values.get("segment_length")
        wrong += [] if length is None or type(length) is int else [f"segment_length: {length!r}"]
        if wrong:
            raise ValueError(f"these fields of a run spec hold something of another kind: {'; '.join(wrong)}")
        captures = tuple(Capture.from_json(capture) for capture in values.get("captures", ()))
        interventions = tuple(Intervention.from_json(intervention) for intervention in values.get("interventions", ()))
        return cls(**{**values, "captures": captures, "interventions": interventions})

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form: two specs share it only if they are equal."""
        return digest_of(self.to_json())
