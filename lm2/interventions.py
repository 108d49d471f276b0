"""Declared changes to a run: values in a RunSpec, turned into hooks by `run` alone.

Two kinds. An Edit replaces an activation at a site. A Handover decides which bank the next segment begins with.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm2.capture import Coordinate, check_places, check_there
from lm2.config import LM2Config
from lm2.sites import Axis, Site

if TYPE_CHECKING:
    from torch import Tensor

_KINDS: dict[str, type["Intervention"]] = {}


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):
    """A change to a run. Subclasses are frozen, hold plain values only, and enter themselves for JSON."""

    def __init_subclass__(cls) -> None:
        _KINDS[cls.__name__] = cls

    @abstractmethod
    def check(self, config: LM2Config, segments: int) -> None:
        """Raise ValueError, with the range that exists, when it names a place that this run does not have."""

    def to_json(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": type(self).__name__} | {k: v.name if isinstance(v, Site) else v for k, v in fields.items()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Intervention":
        """Raises ValueError for a kind, site or field that does not exist."""
        fields = dict(values)
        kind = fields.pop("kind", None)
        if kind not in _KINDS:
            raise ValueError(f"no intervention is called {kind!r}; there are {sorted(_KINDS)}")
        if "site" in fields:
            if fields["site"] not in Site.__members__:
                raise ValueError(f"no site is called {fields['site']!r}")
            fields["site"] = Site[fields["site"]]
        try:
            return _KINDS[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        except TypeError as error:
            raise ValueError(f"{kind} cannot be made from {sorted(fields)}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Edit(Intervention, ABC):
    """Replaces a site's activation at some blocks and segments."""

    site: Site
    layers: tuple[int, ...] | None = None
    """Blocks; None, all that have the site."""
    segments: tuple[int, ...] | None = None
    """Segments; None, all."""

    def at(self, place: Coordinate) -> bool:
        return (self.layers is None or place.layer is None or place.layer in self.layers) and (
            self.segments is None or place.segment in self.segments
        )

    @abstractmethod
    def edit(self, value: "Tensor") -> "Tensor":
        """The replacement, a new tensor of the same shape; axis 0 is the batch."""

    def check(self, config: LM2Config, segments: int) -> None:
        check_places(self.site, self.layers, self.segments, config, segments)


@dataclass(frozen=True, kw_only=True)
class Clamp(Edit):
    """Sets every entry of a site, or of some of its slots, to one value."""

    value: float
    slots: tuple[int, ...] | None = None
    """Slots; None, all. Only for sites with a slot axis."""

    def edit(self, value: "Tensor") -> "Tensor":
        value = value.clone()
        if self.slots is None:
            value.fill_(self.value)
        else:
            value.transpose(0, 1 + self.site.axes.index(Axis.SLOT))[list(self.slots)] = self.value
        return value

    def check(self, config: LM2Config, segments: int) -> None:
        super().check(config, segments)
        if self.slots is not None and Axis.SLOT not in self.site.axes:
            raise ValueError(f"{self.site.name} has no slots to choose from")
        check_there("slot", self.slots, range(config.slots))


@dataclass(frozen=True, kw_only=True)
class Handover(Intervention, ABC):
    """Decides which bank a segment begins with."""

    @abstractmethod
    def begin(self, segment: int, handed: "Tensor", previous: "Tensor", fresh: "Tensor") -> "Tensor":
        """The bank that `segment` begins with.

        Args:
            handed: what the segment before handed on.
            previous: what the segment before began with (for segment 0, `fresh`).
            fresh: the bank at the start of a document.
        """

    def check(self, config: LM2Config, segments: int) -> None:
        if not config.memory_layers:
            raise ValueError(f"a {config.memory.value} model has no bank")


@dataclass(frozen=True, kw_only=True)
class Freeze(Handover):
    """Segments from `segment` on write nothing: each hands on the bank it began with."""

    segment: int = 0

    def begin(self, segment: int, handed: "Tensor", previous: "Tensor", fresh: "Tensor") -> "Tensor":
        return previous if segment > self.segment else handed

    def check(self, config: LM2Config, segments: int) -> None:
        super().check(config, segments)
        check_there("segment", (self.segment,), range(segments))


@dataclass(frozen=True, kw_only=True)
class Reset(Handover):
    """`segment` begins with a fresh bank."""

    segment: int

    def begin(self, segment: int, handed: "Tensor", previous: "Tensor", fresh: "Tensor") -> "Tensor":
        return fresh if segment == self.segment else handed

    def check(self, config: LM2Config, segments: int) -> None:
        super().check(config, segments)
        check_there("segment", (self.segment,), range(segments))
