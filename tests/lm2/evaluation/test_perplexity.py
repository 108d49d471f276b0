"""Laws of lm2.evaluation.perplexity: models are compared on the same passages, each against the first."""

import math

import pytest

from lm2.evaluation.perplexity import compare, passages
from lm2.runs.likelihood import perplexity

BOOK = "\n".join(f"On day {day} Mary moved to the garden and John went to the office." for day in range(60))


def test_passages_lie_in_order_over_the_whole_text_and_have_their_length() -> None:
    found = passages(BOOK, 5, 300)
    places = [BOOK.index(one) for one in found]
    assert [len(one) for one in found[:-1]] == [300] * 4 and places == sorted(places)
    assert places[-1] > 0.7 * len(BOOK)


def test_a_text_too_short_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="40 passages of 4000"):
        passages(BOOK, 40, 4000)


def test_a_model_is_no_better_than_itself_and_bits_add_up(gated, plain) -> None:
    texts = passages(BOOK, 3, 150)
    first, same, other = compare([gated, gated, plain], texts)
    assert (same.more, same.more_low, same.more_high) == (0, 0, 0)
    assert other.more == pytest.approx(other.bits_per_byte - first.bits_per_byte)
    nats = sum(found.nats_per_token * found.tokens for found in (perplexity(gated, text) for text in texts))
    assert first.bits_per_byte == pytest.approx(nats / math.log(2) / sum(len(text.encode()) for text in texts))
    assert first.low <= first.bits_per_byte <= first.high
