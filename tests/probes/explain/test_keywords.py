"""Laws of the words by which slots stand out."""

import numpy as np
import pytest

from probes.explain.keywords import Masses, keywords, log_odds
from probes.explain.passages import Passage
from probes.explain.spec import Signal

WORDS = tuple("abcdefghij")


def _masses(planted: float, seed: int, *, stories: int = 40, scale: float = 1.0, only: str | None = None) -> Masses:
    """Stories of 60 random words, each with random mass over 4 slots; slot 2 has `planted` more of "c", in story `only`
    or in all."""
    rng, masses = np.random.default_rng(seed), Masses(Signal.WRITE, 4)
    for story in range(stories):
        words = tuple(rng.choice(WORDS, 60))
        values = rng.dirichlet(np.ones(4), 60)
        if only in (None, str(story)):
            values[[word == "c" for word in words], 2] += planted
        spans = ((0, 1),) * 60
        masses.add(
            [
                Passage(
                    group=str(story),
                    segment=1,
                    start=0,
                    text="",
                    spans=spans,
                    words=words,
                    values={Signal.WRITE: scale * values},
                )
            ]
        )
    return masses


def test_a_planted_word_is_found_in_its_slot_and_found_again_on_other_stories() -> None:
    found = keywords(_masses(0.5, 0), _masses(0.5, 1), 5)
    first = found[2][0]
    assert first.word == "c" and first.q < 0.01 and first.low > 0.3 and first.again > 0.3
    assert first.share > first.elsewhere and first.low < first.log_odds < first.high
    assert all(word.q > 0.01 or word.word != "c" for slot in (0, 1, 3) for word in found[slot])


def test_without_a_difference_hardly_any_word_stands_out() -> None:
    significant = sum(
        word.q <= 0.05 for seed in range(8) for slot in keywords(_masses(0, seed), _masses(0, 99), 10) for word in slot
    )
    assert significant <= 2


def test_a_word_that_one_story_alone_has_much_of_is_not_sure() -> None:
    everywhere, once = (
        keywords(_masses(amount, 3, only=only), _masses(0, 4), 10)[2] for amount, only in ((0.5, None), (60.0, "7"))
    )
    sure = {word.word: word for word in everywhere}["c"]
    unsure = {word.word: word for word in once}["c"]
    assert unsure.log_odds > sure.log_odds and unsure.q > 0.05 > sure.q


def test_the_unit_of_mass_does_not_matter() -> None:
    one, other = (keywords(_masses(0.5, 0, scale=scale), _masses(0.5, 1, scale=scale), 5) for scale in (1.0, 300.0))
    assert [word.word for slot in one for word in slot] == [word.word for slot in other for word in slot]
    assert one[2][0].low == pytest.approx(other[2][0].low)


def test_shares_sum_to_one_and_equal_slots_have_equal_odds() -> None:
    assert _masses(0.5, 0).share.sum() == pytest.approx(1)
    mass = np.outer(np.arange(1.0, 6.0), [1.0, 1.0, 1.0])
    assert log_odds(mass) == pytest.approx(0)


def test_with_a_single_story_there_is_no_interval() -> None:
    word, *_ = keywords(_masses(0.5, 0, stories=1), _masses(0.5, 1, stories=1), 3)[2]
    assert np.isnan([word.low, word.high, word.q]).all() and word.log_odds > 0
