"""Laws of lm2.evaluation.metrics: each rule by its definition."""

import pytest

from lm2.evaluation.cells import Answered, EvaluationCell
from lm2.evaluation.metrics import METRICS, chosen, contains, f1, metrics_of


def _item(*answers: str, rivals: tuple[str, ...] = (), nats: tuple[float, ...] = ()) -> Answered:
    return Answered(
        story="s", question="?", target=answers[0], accepted=answers[1:], tokens=1, rivals=rivals,
        log_probabilities=nats,
    )  # fmt: skip


@pytest.mark.parametrize(("answers", "output", "right"), [
    (("garden",), "Garden . And so on", True), (("garden",), "the garden.", False),
    (("garden", "the garden"), "the garden.", True), (("milk,apple",), "apple, milk", True),
    (("3.14",), "3.14. It is", True), (("3.14",), "3.", False), (("3",), "3.14", True), (("U.S.",), "U.S. of", True),
    (("U.S.",), "u.s.", True), (("no",), "", False),
])  # fmt: skip
def test_an_output_is_exact_if_it_is_an_accepted_answer_up_to_its_full_stop(
    answers: tuple[str, ...], output: str, right: bool
) -> None:
    assert METRICS["exact"]("set", _item(*answers), output) is right


@pytest.mark.parametrize(("answer", "output", "right"), [
    ("no", "there is no way", True), ("no", "none", False), ("New York", "in new york, I think", True),
    ("C++", "it is C++.", True), ("a.b", "axb", False), ("5", "15", False),
])  # fmt: skip
def test_an_answer_is_contained_as_whole_words_alone(answer: str, output: str, right: bool) -> None:
    assert contains(answer, output) is right
    assert METRICS["contains"]("set", _item("zzz", answer), output) is right, "any accepted answer counts"


@pytest.mark.parametrize(("answer", "output", "value"), [
    ("the red house", "A Red house!", 1.0), ("red house", "red", 2 / 3), ("red", "blue", 0.0), ("the", "", 1.0),
    ("red", "", 0.0), ("red red", "red", 2 / 3), ("red", "red red house", 0.5),
])  # fmt: skip
def test_f1_is_the_harmonic_mean_of_the_shares_of_shared_words(answer: str, output: str, value: float) -> None:
    assert f1(answer, output) == pytest.approx(value) == METRICS["f1"]("set", _item("zzz", answer), output)


def test_the_likelier_answer_is_chosen_by_log_probability_per_character_and_a_tie_is_not_right() -> None:
    assert chosen(_item("long answer", rivals=("no",), nats=(-5.5, -2.0)))
    assert not chosen(_item("no", rivals=("long answer",), nats=(-2.0, -5.5)))
    assert not chosen(_item("a", rivals=("b", "c"), nats=(-1.0, -1.0, -2.0)))


def test_sets_have_a_choice_only_where_every_item_has_rivals_and_the_grid_has_its_two_rules() -> None:
    items = [_item("a", rivals=("b",)), _item("a")]
    cell = EvaluationCell(model="m", task="mine.jsonl", samples=2)
    assert metrics_of(cell, items) == ("exact", "contains", "f1")
    assert metrics_of(cell, items[:1]) == ("exact", "contains", "f1", "choice")
    grid = EvaluationCell(model="m", task="qa1", length="0k", samples=2)
    assert metrics_of(grid, items[:1]) == ("official", "exact")
