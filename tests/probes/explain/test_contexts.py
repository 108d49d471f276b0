"""Laws of the passages that are kept of a slot, and of those that score a description."""

from collections.abc import Sequence

import numpy as np
import pytest

from probes.explain.contexts import Sample, Sampling, Scoring, SlotContext, Tops
from probes.explain.passages import Passage
from probes.explain.spec import Signal

SLOTS = 3


def _passage(group: str, at: int, peaks: Sequence[float], text: str | None = None) -> Passage:
    """Four words, of which the second has the peaks and the others a fifth of them."""
    text = text or f"a{group} b{at} c d"
    starts = [0, *(place + 1 for place, letter in enumerate(text) if letter == " ")]
    spans = tuple(zip(starts, [*(start - 1 for start in starts[1:]), len(text)]))
    values = np.full((len(spans), SLOTS), 0.2) * peaks
    values[1] = peaks
    return Passage(
        group=group,
        segment=at,
        start=9 * at,
        text=text,
        spans=spans,
        words=tuple(text.split()),
        values={Signal.READ: values},
    )


def _documents(count: int = 12, each: int = 8, seed: int = 0) -> list[list[Passage]]:
    rng = np.random.default_rng(seed)
    return [[_passage(str(group), at, rng.random(SLOTS)) for at in range(each)] for group in range(count)]


def _tops(documents: Sequence[Sequence[Passage]], count: int, each: int) -> Tops:
    tops = Tops(Signal.READ, SLOTS, count, each)
    for document in documents:
        tops.add(document)
    return tops


def test_the_kept_are_the_largest_of_all_one_of_a_story() -> None:
    documents = _documents()
    best = sorted(
        (max(one.values[Signal.READ][:, 1].max() for one in document) for document in documents), reverse=True
    )
    found = _tops(documents, 5, 1).of(1)
    assert [one.peak for one in found] == pytest.approx(best[:5])
    assert len({one.group for one in found}) == 5


def test_every_story_comes_once_before_one_comes_again() -> None:
    found = _tops(_documents(count=3), 7, 3).of(0)
    assert [{one.group for one in found[start : start + 3]} for start in (0, 3)] == [{"0", "1", "2"}] * 2
    assert len(found) == 7
    assert [one.peak for one in found[:3]] == sorted((one.peak for one in found[:3]), reverse=True)


def test_a_text_is_kept_once() -> None:
    found = _tops(
        [[_passage(str(group), 0, [group + 1] * SLOTS, "always the same words")] for group in range(4)], 3, 1
    ).of(2)
    assert [(one.group, one.peak) for one in found] == [("3", 4)]


def test_marks_are_around_the_largest_values_and_shared_by_neighbours() -> None:
    one = SlotContext.of(_passage("x", 0, [1.0, 1.0, 1.0], "Mary went to Rome"), Signal.READ, 0)
    assert one.with_marks() == "Mary <<went>> to Rome"
    assert one.with_marks(np.array([True, True, False, True])) == "<<Mary went>> to <<Rome>>"
    assert one.with_marks(np.zeros(4, bool)) == one.text


def test_a_sample_is_bounded_and_every_passage_has_the_same_chance() -> None:
    sample = Sample(SLOTS, seed=0)
    for at in range(40):
        sample.add([_passage(str(at), place, [1] * SLOTS) for place in range(100)])
    groups = [int(passage.group) for passage in sample.passages]
    assert len(groups) == 1024
    assert np.mean(groups) == pytest.approx(19.5, abs=3 * 40 / np.sqrt(12 * 1024))


def _scoring(documents: Sequence[Sequence[Passage]]) -> Scoring:
    sample = Sample(SLOTS, 0)
    for document in documents:
        sample.add(document)
    return Scoring(Signal.READ, _tops(documents, 40, 20), sample)


def test_items_are_as_many_active_as_quiet_each_once_and_none_that_was_shown() -> None:
    documents = _documents()
    peaks = np.array([one.values[Signal.READ][:, 0].max() for document in documents for one in document])
    shown = {one.text for one in _tops(documents, 4, 1).of(0)}
    items = _scoring(documents).items(0, 20, without=shown, rng=np.random.default_rng(0))
    assert [sum(item.drawn is drawn for item in items) for drawn in Sampling] == [5, 5, 5, 5]
    assert len({item.context.text for item in items} | shown) == 24
    for item in items:
        assert (
            item.context.peak >= np.quantile(peaks, 0.75)
            if item.drawn.active
            else item.context.peak <= np.median(peaks)
        )


def test_hard_items_are_of_the_active_ones_stories_and_another_slot_is_busy_in_them() -> None:
    items = _scoring(_documents()).items(0, 20, without=(), rng=np.random.default_rng(0))
    stories = {item.context.group for item in items if item.drawn.active}
    hard, other = ([item for item in items if item.drawn is drawn] for drawn in (Sampling.HARD, Sampling.OTHER))
    assert {item.context.group for item in hard} <= stories
    by_text = {one.text: one.values[Signal.READ][:, 1:].max() for document in _documents() for one in document}
    assert np.mean([by_text[item.context.text] for item in hard]) > np.mean(
        [by_text[item.context.text] for item in other]
    )


def test_a_slot_whose_values_do_not_vary_has_no_items() -> None:
    documents = [[_passage(str(group), at, [1, group, at]) for at in range(4)] for group in range(6)]
    assert _scoring(documents).items(0, 20, without=(), rng=np.random.default_rng(0)) == ()
