"""Laws of lm2.evaluation.paper: the printed numbers, and that what is said about them follows from them."""

import math

import pytest

from lm2.evaluation import paper


def test_the_averages_of_table_1_are_those_of_its_cells_to_what_was_rounded_away() -> None:
    rows = paper.table(1)
    means = rows[[f"qa{at}" for at in range(1, 11)]].mean(axis=1)
    assert ((means - rows["average"]).abs() < 0.111).all()


def test_the_row_from_8k_on_leaves_128k_out_and_three_of_its_cells_are_ten_points_low() -> None:
    tasks = [f"qa{at}" for at in range(1, 11)]
    low = []
    for _, row in paper.table(1)[paper.table(1)["length"] == ">=8k"].iterrows():
        for task in tasks:
            four = [paper.printed(row["model"], task, length) for length in ("8k", "16k", "32k", "64k")]
            gap = sum(four) / 4 - row[task]
            if abs(gap) > 0.06:
                low.append((row["model"], task, round(gap)))
    assert low == [("Llama-3.2-1.2B", "qa5", 10), ("vanilla-Llama-1.7B", "qa6", 10), ("vanilla-Llama-1.7B", "qa10", 10)]


def test_means_of_table_3_and_gaps_in_it() -> None:
    assert paper.printed("LM2-1.7B", "mean", "0k") == pytest.approx(92.5)
    lead = paper.printed("LM2-1.7B", "mean", "128k") - paper.printed("RMT-1.7B", "mean", "128k")
    assert lead == pytest.approx(0.1, abs=0.051)
    assert math.isnan(paper.printed("LM2-1.7B", "qa1", "256k"))


def test_notes_stand_where_they_matter() -> None:
    assert any("none" in note for note in paper.notes("qa7"))
    assert not any("qa7:" in note for note in paper.notes("qa1"))
    assert all(any("constant" in note for note in paper.notes(task)) for task in ("mean", "qa1", "qa10"))
