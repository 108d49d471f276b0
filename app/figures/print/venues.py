"""Where papers are printed: width and type size of a figure for each venue."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tueplots import figsizes, fontsizes


class Venue(Enum):
    ICML = "icml"
    NEURIPS = "neurips"
    ICLR = "iclr"
    ACL = "acl"
    AAAI = "aaai"
    CVPR = "cvpr"
    TMLR = "tmlr"
    IEEE = "ieee"


class Columns(Enum):
    """How many columns of text a figure spans."""

    SINGLE = "single"
    DOUBLE = "double"


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Widths in inches and type size in points that a template gives a figure."""

    name: str
    single: float
    """Width of one column, or of the text where it is set in one column."""
    double: float | None = None
    """Width of both columns; None where there is only one."""
    size: float
    """Of axis titles. Ticks and legends are smaller, down to `SMALLEST`."""

    def width(self, columns: Columns) -> float:
        """Raises ValueError for two columns where the text is set in one."""
        if columns is Columns.SINGLE:
            return self.single
        if self.double is None:
            raise ValueError(f"{self.name} sets its text in one column of {self.single:g} in: columns must be 'single'")
        return self.double


SMALLEST = 7.0
"""Points. tueplots goes down to 6 for ICML and CVPR, which few can read in print."""


def _template(name: str, sizes: Callable[[], dict], *widths: Callable[[], dict]) -> Measures:
    """tueplots' measures of a template; `widths`: of one column, and of both where there are two."""
    single, *double = (width()["figure.figsize"][0] for width in widths)
    return Measures(
        name=name, single=single, double=double[0] if double else None, size=float(sizes()["axes.labelsize"])
    )


MEASURES = {
    Venue.ICML: _template("ICML", fontsizes.icml2024, figsizes.icml2024_half, figsizes.icml2024_full),
    Venue.NEURIPS: _template("NeurIPS", fontsizes.neurips2024, figsizes.neurips2024),
    Venue.ICLR: _template("ICLR", fontsizes.iclr2024, figsizes.iclr2024),
    # Columns of 7.7 cm with 0.6 cm between them (ACL's paper formatting guidelines,
    # acl-org.github.io/ACLPUB/formatting.html). They would like the document's 11 pt in figures "whenever possible"; 9
    # is the smallest size that they set text in.
    Venue.ACL: Measures(name="ACL", single=3.03, double=6.3, size=9.0),
    Venue.AAAI: _template("AAAI", fontsizes.aaai2024, figsizes.aaai2024_half, figsizes.aaai2024_full),
    Venue.CVPR: _template("CVPR", fontsizes.cvpr2024, figsizes.cvpr2024_half, figsizes.cvpr2024_full),
    Venue.TMLR: _template("TMLR", fontsizes.tmlr2023, figsizes.tmlr2023),
    # IEEE Author Center, "Size requirements for graphics"; figure labels of 8 pt by IEEE's conference template.
    Venue.IEEE: Measures(name="IEEE", single=3.5, double=7.16, size=8.0),
}


def small(size: float) -> float:
    """Type size of ticks, legends and segment names where axis titles have `size` points."""
    return max(SMALLEST, size - 2)
