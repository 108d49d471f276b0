"""Colours of figures, and how values are spread over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.figures.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

RGB = Float[np.ndarray, "colour 3"]
"""sRGB from 0 to 1."""


class Colours(Enum):
    """A heatmap's colours."""

    VIRIDIS = "viridis"
    CIVIDIS = "cividis"
    BLUES = "blues"
    """From white to dark blue."""
    GREYS = "greys"
    """From white to black, for print without colours."""
    BLUE_ORANGE = "blue-orange"
    """Blue below the middle, orange above, as on the screen. Both ends are dark, and so look alike in greyscale."""

    @property
    def diverging(self) -> bool:
        return self is Colours.BLUE_ORANGE


class Stretch(Enum):
    """How values are spread over the colours of a heatmap or a text."""

    LINEAR = "linear"
    SQRT = "sqrt"
    """By the square root of the distance from the low end, or from the middle: small values differ visibly."""

    def place(self, places: np.ndarray, *, diverging: bool) -> np.ndarray:
        """Places of colours, from 0 to 1, for values from 0 to 1."""
        if self is Stretch.LINEAR:
            return places
        return (np.sign(places - 0.5) * np.sqrt(np.abs(2 * places - 1)) + 1) / 2 if diverging else np.sqrt(places)

    def undo(self, places: np.ndarray, *, diverging: bool) -> np.ndarray:
        """Values for places of colours."""
        if self is Stretch.LINEAR:
            return places
        return (np.sign(places - 0.5) * (2 * places - 1) ** 2 + 1) / 2 if diverging else places**2


def colour_map(colours: Colours) -> Colormap:
    from matplotlib import colormaps  # takes half a second, and only print needs it
    from matplotlib.colors import LinearSegmentedColormap

    if colours.diverging:
        return LinearSegmentedColormap.from_list(colours.value, LIGHT.diverging)
    return colormaps[{Colours.BLUES: "Blues", Colours.GREYS: "Greys"}.get(colours, colours.value)]


def text_shades(places: Float[np.ndarray, "token"], colours: Colours | None) -> RGB:
    """Colours behind a text's tokens for places on the scale, from 0 to 1.

    `colours`: None for the screen's on a white page, which are faint for low values, as in `weightColour` in
    token_strip.js.
    """
    if colours is not None:
        return colour_map(colours)(places)[:, :3]
    opacity = np.minimum(1, 1.6 * np.sqrt(places) * np.minimum(1, 0.25 + 1.5 * places))[:, None]
    return opacity * colour_map(Colours.VIRIDIS)(places)[:, :3] + 1 - opacity


_SEGMENTS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7")


def segment_shades(segment_of: Sequence[int]) -> RGB:
    """Colours behind a text's tokens by segment, as on the screen: faint, on a white page."""
    opacity = 64 / 255
    return opacity * rgb(_SEGMENTS)[np.array(segment_of, int) % len(_SEGMENTS)] + 1 - opacity


def steps(colours: Colours) -> list[tuple[float, str]]:
    """A colour scale for Plotly: places from 0 to 1 with their colours."""
    places = np.linspace(0, 1, 33)
    shades = 255 * colour_map(colours)(places)[:, :3]
    return [(float(place), "rgb({:.0f},{:.0f},{:.0f})".format(*shade)) for place, shade in zip(places, shades)]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How one of several lines is drawn: each of the three is enough to tell it from the others."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str


MARKS = (
    Mark(colour="#1443b5", dash="solid", marker="o"),
    Mark(colour="#d74f03", dash=(0, (4, 1.5)), marker="s"),
    Mark(colour="#430347", dash=(0, (1, 1.2)), marker="^"),
    Mark(colour="#299ed8", dash=(0, (5, 1.5, 1, 1.5)), marker="D"),
    Mark(colour="#755e68", dash=(0, (8, 2)), marker="v"),
    Mark(colour="#70140d", dash=(0, (5, 1.5, 1, 1.5, 1, 1.5)), marker="X"),
)
"""Found by search: lightness in even steps (for greyscale) with a contrast of 3 to white, and hues as far apart as
that allows, for colour-blind readers too. The first few are furthest apart."""


def mark(number: int) -> Mark:
    """The mark of a line. After the last colour, colours begin again, with the markers and dashes of others."""
    turn, place = divmod(number, len(MARKS))
    other = MARKS[(place + turn) % len(MARKS)]
    return Mark(colour=MARKS[place].colour, dash=other.dash, marker=other.marker)


LUMINANCE = (0.2126729, 0.7151522, 0.0721750)


def rgb(colours: Sequence[str]) -> RGB:
    """From "#rrggbb"."""
    return np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255


def linear(colours: RGB) -> RGB:
    """Linear light of sRGB colours."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def luminance(colours: RGB) -> Float[np.ndarray, "colour"]:
    """0 (black) to 1 (white)."""
    return linear(colours) @ np.array(LUMINANCE)


def contrast(colours: RGB, ground: RGB) -> Float[np.ndarray, "colour"]:
    """WCAG's contrast of each colour with its ground: 1 to 21."""
    front, back = luminance(colours), luminance(ground)
    return (np.maximum(front, back) + 0.05) / (np.minimum(front, back) + 0.05)


def ink(ground: RGB) -> list[str]:
    """Black or white for each ground, whichever is easier to read."""
    black, white = (contrast(rgb((colour,)), ground) for colour in ("#000000", "#ffffff"))
    return np.where(black >= white, "#000000", "#ffffff").tolist()
