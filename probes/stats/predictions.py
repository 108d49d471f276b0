"""Held-out predictions, and the measures of how good they are."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

_NOT_GIVEN = np.zeros(0, int)


class Measure(Enum):
    """A number for how good predictions are. `worst` and `best` are the ends of its range, nan if it has none."""

    BALANCED_ACCURACY = "balanced_accuracy", "balanced accuracy", 0, 1
    """Share of right predictions, mean over the classes that occur."""
    AUC = "auc", "ROC AUC", 0, 1
    """How often a row of class 1 has higher log-odds than one of class 0; ties count half. Two classes only."""
    ACCURACY = "accuracy", "accuracy", 0, 1
    MCC = "mcc", "Matthews correlation", -1, 1
    """For any number of classes (Gorodkin 2004); 0 if all predictions or all labels are of one class."""
    BITS = "bits", "cross-entropy (bits per row)", np.nan, np.nan
    """Mean of -log2 p(label)."""

    label: str
    worst: float
    best: float

    def __new__(cls, value: str, label: str, worst: float, best: float) -> "Measure":
        member = object.__new__(cls)
        member._value_, member.label, member.worst, member.best = value, label, worst, best
        return member


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """A probe's held-out predictions, pooled over folds: `log_probabilities`, or `predicted` classes without them.

    Raises ValueError for values that do not fit together, labels outside their classes and log-probabilities that are
    not finite; rows left out may hold anything.
    """

    labels: Int[np.ndarray, "row"]
    """-1 leaves the row out."""
    groups: Shaped[np.ndarray, "row"]
    """The name of each row's group. Targets that are scored or compared together have the same rows and groups."""
    classes: int
    log_probabilities: Float[np.ndarray, "row class"] | None = None
    """Natural logarithms."""
    predicted: Int[np.ndarray, "row"] = field(default_factory=lambda: _NOT_GIVEN)
    """By default the most probable classes."""

    def __post_init__(self) -> None:
        labels, groups, likely = np.asarray(self.labels), np.asarray(self.groups), self.log_probabilities
        integers = np.issubdtype(labels.dtype, np.integer)
        if self.classes < 2 or labels.ndim != 1 or labels.shape != groups.shape or not integers:
            raise ValueError(
                "labels must be integers of 2 classes or more with one group each, not"
                f" {labels.dtype} {labels.shape} of {self.classes} classes in groups {groups.shape}"
            )
        if len(labels) and not -1 <= labels.min() <= labels.max() < self.classes:
            raise ValueError(f"labels must be from -1 to {self.classes - 1}, not {labels.min()} to {labels.max()}")
        if (likely is None) == (self.predicted is _NOT_GIVEN):
            raise ValueError("give either log-probabilities or predicted classes")
        if likely is None:
            predicted = np.asarray(self.predicted)
            if predicted.shape != labels.shape or not np.isin(predicted[labels >= 0], np.arange(self.classes)).all():
                raise ValueError(f"predicted must be one of {self.classes} classes for each of {len(labels)} rows")
        else:
            shape = (len(labels), self.classes)
            if likely.shape != shape:
                raise ValueError(f"log-probabilities must be [row, class] {shape}, not {likely.shape}")
            if missing := (~np.isfinite(likely[labels >= 0])).sum():
                raise ValueError(f"log-probabilities must be finite; {missing} of {likely.size} are not")
            predicted = likely.argmax(1)
        for name, array in (("labels", labels), ("groups", groups), ("predicted", predicted)):
            object.__setattr__(self, name, array)

    @property
    def headline(self) -> Measure:
        """The main measure: AUC for two classes with log-probabilities, else balanced accuracy."""
        return Measure.AUC if self.classes == 2 and self.log_probabilities is not None else Measure.BALANCED_ACCURACY

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those that these predictions have."""
        missing = set() if self.classes == 2 else {Measure.AUC}
        if self.log_probabilities is None:
            missing = {Measure.AUC, Measure.BITS}
        return tuple(measure for measure in Measure if measure not in missing)

    def where(self, rows: Bool[np.ndarray, "row"]) -> "Predictions":
        """The same predictions with all other rows left out. They can still be compared with others row by row."""
        name = "predicted" if self.log_probabilities is None else "log_probabilities"
        values = {name: getattr(self, name)}
        return Predictions(labels=np.where(rows, self.labels, -1), groups=self.groups, classes=self.classes, **values)
