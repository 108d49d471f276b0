"""How far apart colours are for colour-blind readers and in greyscale."""

from enum import Enum
from itertools import combinations

import numpy as np
from jaxtyping import Float

from app.figures.palettes import LUMINANCE, RGB, linear, luminance


class Vision(Enum):
    """Who looks, or on what."""

    NORMAL = "normal"
    PROTAN = "protan"
    DEUTAN = "deutan"
    TRITAN = "tritan"
    GREY = "greyscale"


_SIMULATION = {
    Vision.PROTAN: ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    Vision.DEUTAN: ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    Vision.TRITAN: ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""Machado, Oliveira and Fernandes (2009) at severity 1, for linear RGB."""

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), LUMINANCE, (0.0193339, 0.1191920, 0.9503041))


def lab(colours: RGB, vision: Vision) -> Float[np.ndarray, "colour 3"]:
    """What is seen, in CIELAB (white is D65): distances there are about as large as differences look."""
    light = linear(colours)
    if vision is Vision.GREY:
        light = luminance(colours)[:, None].repeat(3, 1)
    elif vision is not Vision.NORMAL:
        light = np.clip(light @ np.array(_SIMULATION[vision]).T, 0, 1)
    share = light @ np.transpose(_TO_XYZ) / np.sum(_TO_XYZ, axis=1)
    bent = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.stack([116 * bent[:, 1] - 16, 500 * (bent[:, 0] - bent[:, 1]), 200 * (bent[:, 1] - bent[:, 2])], axis=1)


def lightness(colours: RGB, vision: Vision = Vision.NORMAL) -> Float[np.ndarray, "colour"]:
    """0 (black) to 100 (white)."""
    return lab(colours, vision)[:, 0]


def least_difference(colours: RGB, vision: Vision) -> float:
    """That of the two colours which are hardest to tell apart (CIE 1976)."""
    seen = lab(colours, vision)
    return min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2))
