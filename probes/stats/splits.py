"""Splits of rows into training and test rows, by whole groups."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import numpy as np
from jaxtyping import Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Names = Sequence[str] | Shaped[np.ndarray, "row"]
"""A name for each row: its group, document or type."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Row indexes, ascending and read-only. Raises ValueError for a group on both sides and for an empty side."""

    train: Int[np.ndarray, "train"]
    test: Int[np.ndarray, "test"]
    groups: InitVar[Names]
    """The group of every row: checked, and not stored."""

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
                f"group {str(shared[0])!r} and {len(shared) - 1} others are both in training and in test rows"
            )


def groups(*ids: Names) -> Shaped[np.ndarray, "row"]:
    """The group of each row: rows that share an id in a column (story, background passage, template) belong together,
    as do rows linked through others.

    A group has the name of its first row's id in the first column. An empty id links nothing (a row without a
    background passage has "" there), and equal ids in different columns are different things.

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
    """`count` folds; every row is a test row of exactly one.

    Groups are shuffled, and each goes to the fold with the fewest rows so far, so that test sizes differ by no more
    than the largest group. Raises ValueError for fewer than 2 folds and for fewer groups than folds.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= count <= len(names):
        raise ValueError(
            f"there must be at least 2 folds and no more than there are groups, not {count} of {len(names)} groups"
        )
    sizes, filled, fold_of_group = np.bincount(member), np.zeros(count, int), np.zeros(len(names), int)
    for group in np.random.default_rng(seed).permutation(len(names)):
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    fold_of = fold_of_group[member]
    return tuple(
        Fold(train=np.flatnonzero(fold_of != i), test=np.flatnonzero(fold_of == i), groups=groups) for i in range(count)
    )


def hold_out(groups: Names, share: float = 0.25, seed: int = 0) -> Fold:
    """One fold that tests about `share` of the rows: shuffled groups, as many as come nearest, one at least a side.

    Raises ValueError for a share outside (0, 1) and for a single group.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not 0 < share < 1 or len(names) < 2:
        raise ValueError(
            f"holding out needs a share between 0 and 1 and at least 2 groups, not {share} of {len(names)} groups"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    rows = np.bincount(member)[order].cumsum()[:-1]
    is_test = np.isin(member, order[: 1 + np.abs(rows - share * len(member)).argmin()])
    return Fold(train=np.flatnonzero(~is_test), test=np.flatnonzero(is_test), groups=groups)
