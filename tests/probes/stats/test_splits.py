"""Laws of probes.stats.splits: what belongs together stays together."""

import numpy as np
import pytest

from probes.stats.splits import Fold, folds, groups, hold_out

DRAW = np.random.default_rng(3)
STORIES = np.repeat([f"story {i}" for i in range(40)], DRAW.integers(1, 9, 40))


def read(features: np.ndarray, labels: np.ndarray, fold: Fold) -> float:
    """Held-out accuracy of a ridge probe of two classes."""
    train, test = features[fold.train], features[fold.test]
    weights = np.linalg.solve(train.T @ train + np.eye(train.shape[1]), train.T @ (2.0 * labels[fold.train] - 1))
    return float(((test @ weights > 0) == labels[fold.test]).mean())


def test_rows_that_share_an_id_in_any_column_share_a_group() -> None:
    stories, books = ["a", "a", "b", "c", "d", "e"], ["x", "y", "y", "z", "z", "w"]
    assert groups(stories).tolist() == stories
    assert groups(stories, books).tolist() == ["a", "a", "a", "c", "c", "e"]
    assert groups(stories, books, ["1", "2", "3", "1", "4", "5"]).tolist() == ["a", "a", "a", "a", "a", "e"]


def test_a_chain_of_links_is_one_group_however_long() -> None:
    left = [str(i // 2) for i in range(2000)]
    right = [str((i + 1) // 2) for i in range(2000)]
    assert set(groups(left, right)) == {"0"}


def test_an_empty_id_and_the_same_word_in_another_column_link_nothing() -> None:
    assert groups(["a", "b", "c"], ["", "", "a"]).tolist() == ["a", "b", "c"]


def test_ids_that_do_not_fit_are_refused() -> None:
    for columns, message in (
        ((), "at least one"),
        ((["a"], ["b", "c"]), r"\(1,\), \(2,\)"),
        ((["a", ""], ["b", "c"]), "row 1 has none"),
    ):
        with pytest.raises(ValueError, match=message):
            groups(*columns)


def test_every_row_is_tested_once_by_what_has_not_seen_its_group() -> None:
    parts = folds(STORIES, 5, seed=1)
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in parts])), np.arange(len(STORIES)))
    for fold in parts:
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.test])), np.arange(len(STORIES)))
        assert not set(STORIES[fold.train]) & set(STORIES[fold.test])
        assert not fold.train.flags.writeable and not fold.test.flags.writeable


def test_folds_differ_by_no_more_rows_than_the_largest_group_has() -> None:
    for seed in range(20):
        sizes = [len(fold.test) for fold in folds(STORIES, 4, seed)]
        assert max(sizes) - min(sizes) <= np.unique(STORIES, return_counts=True)[1].max()


def test_the_seed_alone_decides_who_goes_where() -> None:
    def tests(seed: int) -> list[list[int]]:
        return [fold.test.tolist() for fold in folds(STORIES, 5, seed)]

    assert tests(1) == tests(1) != tests(2)


def test_a_fold_refuses_a_group_on_both_sides_and_names_it() -> None:
    with pytest.raises(ValueError, match="'b' and 0 others are both in training and in test rows"):
        Fold(train=np.array([0, 1]), test=np.array([2, 3]), groups=["a", "b", "b", "c"])
    for train, test in (([], [0]), ([0], []), ([0], [4]), ([-1], [0])):
        with pytest.raises(ValueError, match="each from 0 to 3"):
            Fold(train=np.array(train, int), test=np.array(test, int), groups=list("abcd"))


def test_fewer_groups_than_folds_are_refused() -> None:
    assert len(folds(list("abcde"), 5)) == 5
    for names, count in (("abcd", 5), ("aaaa", 2), ("abcd", 1)):
        with pytest.raises(ValueError, match=f"not {count} of {len(set(names))} groups"):
            folds(list(names), count)


def test_a_hold_out_is_about_the_share_asked_for_and_never_empty() -> None:
    largest = np.unique(STORIES, return_counts=True)[1].max()
    for share in (0.1, 0.25, 0.5):
        fold = hold_out(STORIES, share, seed=2)
        assert abs(len(fold.test) - share * len(STORIES)) <= largest / 2
        assert not set(STORIES[fold.train]) & set(STORIES[fold.test])
    assert {len(hold_out(["a", "b", "b"], share).test) for share in (0.001, 0.999)} <= {1, 2}
    for share, names in ((0, "ab"), (1, "ab"), (0.5, "aa")):
        with pytest.raises(ValueError, match="share between 0 and 1 and at least 2 groups"):
            hold_out(list(names), share)


def test_a_random_label_per_document_is_read_across_rows_and_not_across_groups() -> None:
    draw = np.random.default_rng(0)
    documents = np.repeat([str(i) for i in range(60)], 6)
    own = draw.standard_normal((60, 40)).repeat(6, 0)  # what is peculiar to each document
    features, labels = own + draw.standard_normal(own.shape), draw.integers(0, 2, (20, 60)).repeat(6, 1)
    rows = [str(i) for i in range(360)]

    def accuracy(ids: np.ndarray | list[str]) -> float:
        return float(np.mean([read(features, each, fold) for each in labels for fold in folds(ids, 5)]))

    assert abs(accuracy(documents) - 0.5) < 0.03
    assert accuracy(rows) > 0.62
