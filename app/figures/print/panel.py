"""What panels of all kinds share: their box on the page, and drawing after the layout."""

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
    """An estimate: how many labels fit is decided before the layout is computed."""
    base: float
    """Type size of axis titles."""
    small: float
    """Type size of ticks, legends and the rest."""

    def inches(self) -> tuple[float, float]:
        """Width and height of the axes after the layout."""
        box, (wide, high) = self.axes.get_position(), self.axes.figure.get_size_inches()
        return box.width * wide, box.height * high


@dataclass(frozen=True, kw_only=True)
class PendingPanel:
    """A panel that is finished after the layout."""

    settle: Callable[[], tuple[str, ...]]
    """Draws what depends on the final size of the axes; returns what a caption must say."""
    lift: float = 0.0
    """Points above the axes that are in use."""
