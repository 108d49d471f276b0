"""Laws of printed tables: intervals stand with their numbers, and nothing is bold that the intervals do not bear
out."""

import re
from dataclasses import replace

import pytest

from app.views.kinds import Best, Table
from app.views.latex import escaped, latex, markdown
from lm2.intervals import Bounded
from probes.findings import Column, columns_of

SCORES = Table(
    columns=columns_of(
        ("model", Column("right", "%"), "items", Column("KL", "nats"), "p"),
        (
            ("LM2", Bounded(81.24, 77.0, 85.0), 400, Bounded(0.5, 0.4, 0.6), 0.00004),
            ("RMT_small & co", Bounded(70.0, 66.5, 73.0), 400, Bounded(0.7, 0.55, 0.8), 0.25),
            ("reset", Bounded(12.3, 11.0, 13.6), 90, float("nan"), 1.0),
        ),
    )
)  # fmt: skip


def test_intervals_stand_behind_their_numbers() -> None:
    for printed in (latex(SCORES), markdown(SCORES)):
        assert "12.3 (11.0 to 13.6)" in printed and "0.500 (0.400 to 0.600)" in printed
        assert "low" not in printed


def test_the_best_is_bold_if_its_interval_is_clear_of_all_others() -> None:
    best = {"right (%)": Best.HIGHEST}
    assert (
        r"\textbf{81.2 (77.0 to 85.0)}" in latex(replace(SCORES, best=best))
        and latex(replace(SCORES, best=best)).count("textbf") == 1
    )
    assert "**81.2 (77.0 to 85.0)**" in markdown(replace(SCORES, best=best))
    assert "bold" not in latex(replace(SCORES, best=best)) + markdown(replace(SCORES, best=best))
    assert "textbf" not in latex(SCORES)


def test_where_intervals_meet_none_is_bold_and_a_note_says_so() -> None:
    best = {"KL (nats)": Best.LOWEST}
    said = "KL (nats): none is bold, as the interval of the lowest, 0.500 (0.400 to 0.600), is not clear of all others."
    assert said in latex(replace(SCORES, best=best)) and "textbf" not in latex(replace(SCORES, best=best))
    assert markdown(replace(SCORES, best=best)).count("**") == 0 and "none is bold" in markdown(
        replace(SCORES, best=best)
    )


def test_ends_that_touch_are_not_clear() -> None:
    view = Table(columns=columns_of(("m", "x"), [("a", Bounded(2.0, 1.5, 2.5)), ("b", Bounded(1.0, 0.5, 1.5))]))
    assert "textbf" not in latex(replace(view, best={"x": Best.HIGHEST}))


def test_an_interval_that_is_missing_is_clear_of_nothing() -> None:
    view = Table(columns=columns_of(("m", "x"), [("a", Bounded(9.0, 8.0, 10.0)), ("b", 1.0)]))
    assert "textbf" not in latex(replace(view, best={"x": Best.HIGHEST})) and "none is bold" in latex(
        replace(view, best={"x": Best.HIGHEST})
    )


def test_shares_written_with_their_intervals_count_as_intervals() -> None:
    rows = [("qa1", "93.1 (90.0 to 95.5)"), ("qa2", "40.0 (35.0 to 45.0)"), ("qa3", "")]
    view = Table(columns=columns_of(("task", Column("ours", "%")), rows))
    assert r"\textbf{93.1 (90.0 to 95.5)}" in latex(replace(view, best={"ours (%)": Best.HIGHEST}))


@pytest.mark.parametrize(
    ("column", "said"), [("wrong", r"no columns \['wrong'\]"), ("items", "items has no intervals")]
)
def test_bold_is_refused_where_nothing_can_tell_the_best(column: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        latex(replace(SCORES, best={column: Best.HIGHEST}))


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    assert r"\begin{tabular}{lrrrr}" in latex(SCORES)
    rule = markdown(SCORES).splitlines()[1].strip("| ").split(" | ")
    assert [cell.endswith(":") for cell in rule] == [False, True, True, True, True]
    lines = [line for line in latex(SCORES).splitlines() if "&" in line.replace(r"\&", "")]
    assert len({len(line) for line in lines}) == 1


def test_a_column_has_as_many_decimals_as_it_can_bear() -> None:
    assert (
        "< 0.0001" in markdown(SCORES).replace("\\", "")
        and "0.2500" in markdown(SCORES)
        and r"\textless{} 0.0001" in latex(SCORES)
    )
    assert re.search(r"\| +– \|", markdown(SCORES)) and re.search(r"& +-- &", latex(SCORES))


def test_what_latex_reads_as_commands_is_printed_as_it_is() -> None:
    assert (
        escaped(r"50 % of $x_1 & #2 {a}\b~^<>|") == r"50 \% of \$x\_1 \& \#2"
        r" \{a\}\textbackslash{}b\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert escaped("q ≤ 0.05 · →") == r"q $\leq$ 0.05 $\cdot$ $\to$"
    assert r"RMT\_small \& co" in latex(SCORES) and r"RMT\_small & co" in markdown(SCORES)


def test_a_cell_cannot_break_out_of_its_table() -> None:
    view = Table(columns=columns_of(("a|b", "c"), [("x\ny|z", "`*_")]))
    assert len(markdown(view).strip().splitlines()) == 3 and r"y\|z" in markdown(view) and r"\`\*\_" in markdown(view)
    assert latex(view).count(r"\\") == 2
    empty = Table(columns=columns_of(("a", "b"), ()))
    assert markdown(empty).count("|") == 6 and r"\bottomrule" in latex(empty)
