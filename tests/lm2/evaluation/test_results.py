"""Laws of lm2.evaluation.results: only an evaluation's tables are read as one."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from lm2.evaluation.results import BUNDLED, read_results


def test_a_folder_without_tables_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table.csv is missing.*lm2 eval"):
        read_results(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'a\n"', b"model,task\n"])
def test_another_file_of_that_name_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match="table.csv"):
        read_results(tmp_path)


@pytest.mark.parametrize("column", ["mean", "low", "constant_mean"])
@pytest.mark.parametrize("cell", ["abc", "", "0.5.1"])
def test_a_word_in_a_column_of_numbers_is_refused_with_file_and_column(column: str, cell: str, tmp_path: Path) -> None:
    for name in ("table.csv", "differences.csv"):
        shutil.copy(BUNDLED / name, tmp_path)
    assert len(read_results(tmp_path).table)  # as an earlier version left it
    table = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    table.loc[3, column] = cell
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match=rf"table\.csv is no table .* column {column} "):
        read_results(tmp_path)
