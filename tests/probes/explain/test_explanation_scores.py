"""Laws of what a description is worth: a true one scores high, one that knows nothing a half, and a reply that cannot
be read is wrong."""

import json
import re

import numpy as np
import pytest

from probes.explain.contexts import Item, Sampling, SlotContext
from probes.explain.describe import Trial, description, verdicts
from probes.explain.llm import Chat
from probes.explain.scores import Text, Verdicts, ahead, pooled, score

TEXTS = {
    Text.DESCRIPTION: "the word garden", Text.OTHER_SLOT: "the word office", Text.RANDOM: "Mary went to the kitchen.",
    Text.WORDS: "hallway, kitchen",
}  # fmt: skip
PLACES = ("office", "hallway", "kitchen")


def _items() -> tuple[Item, ...]:
    """Passages in which the slot is active at the word garden, and others without it."""
    items = []
    for at in range(48):
        active, place = at % 2 == 0, PLACES[at % 3]
        words = ["Mary", f"met{at}", "the", "garden" if active else place, "John", "saw", "the", place]
        spans, start = [], 0
        for word in words:
            spans.append((start, start + len(word)))
            start += len(word) + 1
        values = np.array([0.1, 0, 0, 1, 0, 0.2, 0, 0]) * (1 if active else 0.1)
        context = SlotContext(
            group=str(at // 4), segment=1, start=0, text=" ".join(words), spans=tuple(spans), values=values
        )
        items.append(Item(context=context, drawn=Sampling.TOP if active else Sampling.OTHER))
    return tuple(items)


def _knowing(system: str, user: str) -> str:
    """Whether a passage, or what is marked in it, has the last word of the description."""
    text, _, listed = user.partition("\n\n")
    wanted = text.strip(" .").split()[-1]
    found = [re.findall(r"<<(.*?)>>", line) if "<<" in listed else [line] for line in listed.splitlines()]
    return "I think: " + json.dumps([int(any(wanted in part for part in parts)) for parts in found])


def test_a_true_description_scores_high_and_texts_that_know_nothing_a_half(speaking) -> None:
    found = score(Chat("knowing", url=speaking(_knowing).url), TEXTS, _items(), rng=np.random.default_rng(0))
    assert len(found) == 8
    for one in found:
        if one.text is Text.DESCRIPTION:
            assert one.rate.accuracy == 1 and one.rate.low > 0.6
        else:
            assert one.rate.accuracy < 0.6
            lead = ahead(next(own for own in found if (own.trial, own.text) == (one.trial, Text.DESCRIPTION)), one)
            assert lead.low > 0.2
        assert one.unread == 0 and len(one.right) == (48 if one.trial is Trial.DETECTION else 24)


@pytest.mark.parametrize("said", [0, 1])
def test_both_trials_have_as_many_true_as_false_items(speaking, said: int) -> None:
    always = speaking(lambda system, user: json.dumps([said] * len(user.partition("\n\n")[2].splitlines())))
    found = score(Chat("always", url=always.url), {Text.DESCRIPTION: "x"}, _items(), rng=np.random.default_rng(1))
    assert [one.rate.accuracy for one in found] == [0.5, 0.5]


@pytest.mark.parametrize("said", ["I would say yes.", "", "[1, 0]", "[1, 1, 1, 1, 2]", "{}"])
def test_a_reply_that_cannot_be_read_is_wrong_and_counted(speaking, said: str) -> None:
    chat = Chat("nonsense", url=speaking(lambda system, user: said).url)
    found = score(chat, {Text.DESCRIPTION: "x"}, _items(), rng=np.random.default_rng(0))
    for one in found:
        assert not any(one.right) and one.unread == len(one.right)


def test_what_there_is_no_description_of_is_wrong_and_nobody_is_asked(speaking) -> None:
    server = speaking(_knowing)
    found = score(Chat("knowing", url=server.url), {Text.DESCRIPTION: None}, _items(), rng=np.random.default_rng(0))
    assert all(one.rate.accuracy == 0 and one.unread == len(one.right) for one in found) and not server.requests


def test_slots_are_pooled_item_by_item() -> None:
    one = Verdicts(trial=Trial.FUZZING, text=Text.WORDS, right=(True, False), unread=1, groups=("a", "b"))
    both = pooled([one, one])
    assert (both.right, both.unread, both.groups) == ((True, False) * 2, 2, ("a", "b") * 2)
    with pytest.raises(ValueError, match="no verdicts"):
        pooled([])


@pytest.mark.parametrize(
    ("reply", "read"),
    [("Description: places", "places"), ("**Description:** \"Names of people.\"", "Names of people."),
     ("Thinking\nDescription: one\ndescription : two", "two"),
     ("Places", None), ("Description:", None), ("", None), ("Description: ...", None)],
)  # fmt: skip
def test_a_description_is_the_last_line_that_says_so(reply: str, read: str | None) -> None:
    assert description(reply) == read


@pytest.mark.parametrize(
    ("reply", "read"),
    [("[1, 0, 1]", [True, False, True]), ("First [0,0,0], no: [1,0,0].", [True, False, False]), ("[1, 0]", None),
        ("1, 0, 1", None),
     ("[01, 0, 1]", None), ("[]", None)],
)  # fmt: skip
def test_verdicts_are_the_last_list_of_as_many_noughts_and_ones(reply: str, read: list[bool] | None) -> None:
    assert verdicts(reply, 3) == read
