"""What is kept of a gate: mean, least and most along each of its axes."""

from collections.abc import Callable

import numpy as np

from lm2.model.sites import AnySite, Axis
from lm2.stores.growing import Gathering, GrowingArray


class GateWriter:
    """Takes the values of each segment, and adds to the arrays of its gate."""

    def __init__(self, name: str, site: AnySite, layer: int, column: Callable[[str], GrowingArray]) -> None:
        self._by_token = site.axes[0] is Axis.TOKEN
        self._rows = column(f"gates/{layer}/{name}/rows")
        self._features = column(f"gates/{layer}/{name}/features")
        self._values = Gathering(self._summarise)

    def add(self, value: np.ndarray) -> None:
        """One segment's: [slot, feature], or [token, feature] of a gate of tokens."""
        self._values.add(value)

    def flush(self) -> None:
        self._values.flush()

    def _summarise(self, segments: list[np.ndarray]) -> None:
        values = np.concatenate(segments)
        lengths = np.array([len(segment) for segment in segments])
        starts = np.cumsum(lengths) - lengths
        rows = np.stack([values.mean(-1), values.min(-1), values.max(-1)], -1)
        self._rows.append(rows if self._by_token else rows.reshape(len(segments), -1, rows.shape[-1]).swapaxes(1, 2))
        mean = np.add.reduceat(values, starts) / lengths[:, None].astype(np.float32)
        extremes = [np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)]
        self._features.append(np.stack([mean, *extremes], 1))
