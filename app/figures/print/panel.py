"""A panel's room on the page, and what panels of all kinds share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes

EDGE = "#31333f"
FAINT = "#d9dadd"


@dataclass(frozen=True, kw_only=True)
class PanelBox:
    """Where one view is drawn; sizes in points."""

    axes: Axes
    width: float
    height: float
    """About what the axes will have: how many labels fit is decided before the layout is."""
    base: float
    """Type of axis titles."""
    small: float
    """Type of ticks, legends and the rest."""

    def inches(self) -> tuple[float, float]:
        """Width and height of the axes, once they are settled."""
        box, (wide, high) = self.axes.get_position(), self.axes.figure.get_size_inches()
        return box.width * wide, box.height * high


@dataclass(frozen=True, kw_only=True)
class PendingPanel:
    """A panel that waits for the layout."""

    settle: Callable[[], tuple[str, ...]]
    """Draws what needs to know how large the axes have become; returns what a caption must say."""
    lift: float = 0.0
    """Points that are taken above the axes."""
