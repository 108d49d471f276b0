"""Which rows a probe may learn from and which judge it: whole groups go to one side or the other. Nothing else splits
rows."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import numpy as np
from jaxtyping import Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Names = Sequence[str] | Shaped[np.ndarray, "row"]
"""What each row belongs to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Row indexes, ascending and read-only. Raises ValueError for a group on both sides, naming it, and for an empty
    side."""

    train: Int[np.ndarray, "train"]
    test: Int[np.ndarray, "test"]
    groups: InitVar[Names]
    """The group of every row: looked at and not kept."""

    def __post_init__(self, groups: Names) -> None:
        groups = np.asarray(groups)
        for name in ("train", "test"):
            rows = np.sort(np.asarray(getattr(self, name)))
            if not len(rows) or rows[0] < 0 or rows[-1] >= len(groups):
                raise ValueError(
                    f"{name} must hold rows, each from 0 to {len(groups) - 1}, not {len(rows)} of {rows[:1]} to"
                    f" {rows[-1:]}"
                )
            rows.setflags(write=False)
            object.__setattr__(self, name, rows)
        shared = np.intersect1d(groups[self.train], groups[self.test])
        if len(shared):
            raise ValueError(
                f"group {str(shared[0])!r} and {len(shared) - 1} others are on both sides: it would be asked what it"
                " knows"
            )


def groups(*ids: Names) -> Shaped[np.ndarray, "row"]:
    """The group of each row, where rows that share an id in any column (story, background passage, template) belong
    together.

    So do rows that are linked through others. A group is called by its first row's id in the first column. An empty id
    links nothing: a row without a background passage has "" there. The same id in two columns is not the same thing.

    Raises ValueError without a column, for columns of unequal length and for an empty id in the first column.
    """
    columns = [np.asarray(column, dtype=np.str_) for column in ids]
    if not columns or len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        raise ValueError(
            f"ids must be columns of one length, at least one of them, not {[column.shape for column in columns]}"
        )
    if (columns[0] == "").any():
        raise ValueError(
            f"every row must have an id in the first column; row {np.flatnonzero(columns[0] == '')[0]} has none"
        )
    rows, links = np.arange(len(columns[0])), []
    for column in columns:
        _, first, which = np.unique(column, return_index=True, return_inverse=True)
        links.append(np.where(column == "", rows, first[which]))
    graph = coo_array(
        (np.ones(len(rows) * len(links), bool), (np.tile(rows, len(links)), np.concatenate(links))),
        shape=(len(rows),) * 2,
    )
    _, component = connected_components(graph, directed=False)
    _, first, which = np.unique(component, return_index=True, return_inverse=True)
    return columns[0][first[which]]


def folds(groups: Names, count: int = 5, seed: int = 0) -> tuple[Fold, ...]:
    """`count` folds; every row is in the test of exactly one.

    Groups are shuffled, and each goes to the fold with fewest rows so far: tests differ by no more rows than the
    largest group has. Raises ValueError for fewer than 2 folds and for fewer groups than folds.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= count <= len(names):
        raise ValueError(
            f"folds must be at least 2 and no more than there are groups: not {count} of {len(names)} groups"
        )
    sizes, filled, home = np.bincount(member), np.zeros(count, int), np.zeros(len(names), int)
    for group in np.random.default_rng(seed).permutation(len(names)):
        home[group] = filled.argmin()
        filled[home[group]] += sizes[group]
    fold_of = home[member]
    return tuple(
        Fold(train=np.flatnonzero(fold_of != at), test=np.flatnonzero(fold_of == at), groups=groups)
        for at in range(count)
    )


def hold_out(groups: Names, share: float = 0.25, seed: int = 0) -> Fold:
    """One fold whose test is about `share` of the rows: shuffled groups, as many as come nearest, and at least one a
    side.

    Raises ValueError for a share outside (0, 1) and for a single group.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not 0 < share < 1 or len(names) < 2:
        raise ValueError(
            f"holding out needs a share between 0 and 1 and at least 2 groups, not {share} of {len(names)} groups"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    reached = np.bincount(member)[order].cumsum()[:-1]
    held = np.isin(member, order[: 1 + np.abs(reached - share * len(member)).argmin()])
    return Fold(train=np.flatnonzero(~held), test=np.flatnonzero(held), groups=groups)
