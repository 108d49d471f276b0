"""A fitted linear probe, and the families of probes."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.special import log_softmax


class Family(Enum):
    """Kinds of probe, with the default of their parameter `strength`."""

    MASS_MEAN = "mass-mean", 1.0
    """Nearest class mean: the direction of two classes is the difference of their means. It ignores the strength."""
    LDA = "LDA", 0.1
    """Strength: shrinkage of the covariance within classes towards its mean variance, up to 1."""
    RIDGE = "ridge", 0.1
    """Strength: lambda in mean squared error + lambda x sum of squared weights."""
    LOGISTIC = "logistic", 0.01
    """Strength: scikit-learn's C in sum of cross-entropies + sum of squared weights / (2 C)."""

    default: float

    def __new__(cls, value: str, default: float) -> "Family":
        member = object.__new__(cls)
        member._value_, member.default = value, default
        return member


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A fitted probe; arrays are read-only. A class without training rows scores less than others: its probability is
    below 1 / rows."""

    family: Family
    direction: Float32[np.ndarray, "d class"]
    """For standardised features. They sum to 0 over the classes with training rows, except in ridge."""
    bias: Float32[np.ndarray, "class"]
    mean: Float32[np.ndarray, "d"]
    """Of the training rows."""
    scale: Float32[np.ndarray, "d"]
    """Standard deviation of the training rows; 1 if a feature is constant."""
    temperature: float
    """Scores divided by it are log-probabilities up to a constant."""
    strength: float
    """See `Family`."""
    converged: bool = True
    """Whether the gradient is within the tolerance."""
    gradient_norm: float = 0.0
    """Largest absolute entry of the mean loss's gradient."""
    evaluations: int = 1

    @property
    def raw_direction(self) -> Float32[np.ndarray, "d class"]:
        """In the features' own units."""
        return self.direction / self.scale[:, None]

    def score(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row class"]:
        """Linear scores. Raises ValueError for features of another width."""
        if np.ndim(features) != 2 or np.shape(features)[1] != len(self.mean):
            raise ValueError(
                f"features must be [row, {len(self.mean)}], as in the probe's training, not {np.shape(features)}"
            )
        raw = self.raw_direction
        return features @ raw + (self.bias - self.mean.astype(np.float64) @ raw).astype(np.float32)

    def log_probabilities(self, features: Float32[np.ndarray, "row d"]) -> Float[np.ndarray, "row class"]:
        """Natural logarithms of the softmax of scores over temperature.

        Logistic: the model's own. LDA: the posterior, with the classes' shares of the training rows as prior. Scores of
        ridge and mass-mean are no probabilities: their temperature has the lowest cross-entropy on the training rows,
        and is overconfident with few rows for the number of features.
        """
        return log_softmax(self.score(features).astype(np.float64) / self.temperature, axis=1)

    def predict(self, features: Float32[np.ndarray, "row d"]) -> Int[np.ndarray, "row"]:
        """The class of the highest score."""
        return self.score(features).argmax(1)
