"""Laws of lm2.results: only an evaluation's tables are read as one."""

from pathlib import Path

import pytest

from lm2.results import read_results


def test_a_folder_without_tables_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table.csv is missing.*lm2 eval"):
        read_results(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'a\n"', b"model,task\n"])
def test_another_file_of_that_name_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match="table.csv"):
        read_results(tmp_path)
