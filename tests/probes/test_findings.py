"""Laws of findings: a column has a name, a unit and its own intervals."""

import csv
import json
from pathlib import Path

import pytest

from lm2.intervals import Bounded
from probes.findings import NOTHING, Column, Findings, columns_of

FINDINGS = Findings(
    title="Steps",
    columns=columns_of(
        ("condition", Column("right", "%"), Column("change", "nats"), "p"),
        [
            ("on", Bounded(90.0, 80.0, 95.0), Bounded(0.5, 0.4, 0.6), 0.01),
            ("off", Bounded(10.0, 5.0, 20.0), 0.1, NOTHING),
        ],
    ),
    note="all",
    curve=True,
)


def test_files_name_each_end_of_each_interval_after_its_column() -> None:
    table = FINDINGS.to_json()
    assert table["columns"] == [
        "condition", "right (%)", "right_low (%)", "right_high (%)", "change (nats)", "change_low (nats)",
        "change_high (nats)", "p",
    ]  # fmt: skip
    assert table["rows"][1] == ["off", 10.0, 5.0, 20.0, 0.1, None, None, None]
    assert table["curve"] == ["condition", "right (%)", "right_low (%)", "right_high (%)"]
    json.dumps(table, allow_nan=False)


def test_a_column_keeps_the_ends_of_its_own_intervals() -> None:
    condition, right, change, p = FINDINGS.columns
    assert (right.values, right.low, right.high) == ((90.0, 10.0), (80.0, 5.0), (95.0, 20.0))
    assert condition.low is None and p.high is None and change.low[0] == 0.4 and change.low[1] != change.low[1]


@pytest.mark.parametrize(("name", "unit"), [("low ", ""), (" right", "%"), ("right", "% ")])
def test_no_column_is_named_with_outer_blanks(name: str, unit: str) -> None:
    with pytest.raises(ValueError, match="begin or end with a blank"):
        Column(name, unit)


def test_the_tables_of_the_bundled_evaluation_have_clean_names() -> None:
    for path in (Path(__file__).parents[2] / "lm2" / "benchmark").glob("*.csv"):
        with path.open(encoding="utf-8") as file:
            names = next(csv.reader(file))
        assert names == [name.strip() for name in names] and len(set(names)) == len(names)


def test_a_number_is_written_with_its_interval_in_one_way() -> None:
    assert f"{Bounded(71.25, 68.0, 74.4):.1f}" == "71.2 (68.0 to 74.4)"
    assert f"{Bounded(0.5, NOTHING, NOTHING):+.2f}" == "+0.50"
