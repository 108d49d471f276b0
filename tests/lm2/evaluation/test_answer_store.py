"""Laws of answers that are kept: believed as they were written, for the question and the model that they answer."""

import json
from pathlib import Path

import pytest

from lm2.evaluation import answer_store
from lm2.evaluation.answer_store import AnsweringModel, AnswerStore
from lm2.evaluation.results import BUNDLED, read_results, seal_results
from lm2.files import write_table
from lm2.origin import made_by

KEY = {"task": 1, "length": "0k", "seeds": 1}
MODEL = AnsweringModel("whole", "weights", "cpu", "float32")
ANSWERS = [
    {"seed": 0, "story": "qa1:3", "target": "garden", "output": "office", "tokens": 12},
    {"seed": 0, "story": "é", "target": "", "output": "1", "tokens": 3},
]


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    AnswerStore(tmp_path).put("toy/qa1-0k.json", KEY, MODEL, ANSWERS)
    return tmp_path / "cells" / "toy" / "qa1-0k.json"


def held(tmp_path: Path, file: str = "toy/qa1-0k.json", model: AnsweringModel = MODEL) -> list | None:
    return AnswerStore(tmp_path).get(file, KEY, model)


def test_a_damaged_cell_is_asked_again_and_that_is_told(
    cell: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = cell.read_bytes()
    assert held(tmp_path) == ANSWERS
    changes = [whole[:at] + bytes([whole[at] ^ 1 << at % 7]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    for content in (
        *changes,
        whole.replace(b"office", b"garden"),
        whole.replace(b'"seed": 0', b'"seed": 1'),
        whole[:100],
        b"",
    ):
        cell.write_bytes(content)
        caplog.clear()
        found = held(tmp_path)
        assert found == ANSWERS or (found is None and "it is asked again" in caplog.text)


def test_a_cell_that_lost_its_seal_and_one_in_anothers_place_are_not_believed(cell: Path, tmp_path: Path) -> None:
    (cell.parent / "qa2-0k.json").write_bytes(cell.read_bytes())
    assert held(tmp_path, "toy/qa2-0k.json") is None
    cell.write_text(
        json.dumps({name: value for name, value in json.loads(cell.read_bytes()).items() if name != "sha256"})
    )
    assert held(tmp_path) is None


def test_answers_are_of_the_question_and_of_everything_that_decides_the_model(cell: Path, tmp_path: Path) -> None:
    assert held(tmp_path, model=MODEL._replace(digest="another configuration")) is None
    assert AnswerStore(tmp_path).get("toy/qa1-0k.json", KEY | {"seeds": 2}, MODEL) is None


def test_cells_of_an_earlier_version_stay_where_the_weights_are_the_same(cell: Path, tmp_path: Path) -> None:
    cell.write_text(json.dumps({"key": KEY | {"checkpoint": "weights"}, "answers": ANSWERS}))
    assert held(tmp_path) == ANSWERS
    assert held(tmp_path, model=MODEL._replace(weights_digest="others")) is None


def test_cells_that_other_code_or_another_device_answered_are_known(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AnswerStore(tmp_path)
    assert store.get("toy/qa1-0k.json", KEY, MODEL) == ANSWERS and store.foreign == {}
    monkeypatch.setattr(answer_store, "made_by", lambda device, dtype: made_by("cuda", dtype) | {"code": "0"})
    assert store.get("toy/qa1-0k.json", KEY, MODEL) == ANSWERS and store.foreign == {
        "toy/qa1-0k.json": ["the code", "the device"]
    }


def test_tables_that_were_changed_are_refused_and_those_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    bundled = read_results(BUNDLED)
    for name, rows in (("table", bundled.table), ("differences", bundled.differences)):
        write_table(rows, tmp_path, name)
    assert read_results(tmp_path).digest == bundled.digest, "without digests beside them"
    seal_results(tmp_path, {"toy": MODEL._asdict()})
    assert read_results(tmp_path).digest == bundled.digest
    for name in ("table.csv", "differences.csv"):
        whole = (tmp_path / name).read_text()
        at = next(at for at, sign in enumerate(whole) if sign.isdigit())
        (tmp_path / name).write_text(whole[:at] + str((int(whole[at]) + 1) % 10) + whole[at + 1 :])
        with pytest.raises(ValueError, match=f"{name} is not as `lm2 eval` wrote it"):
            read_results(tmp_path)
        (tmp_path / name).write_text(whole)
    (tmp_path / "cells" / "tables.sealed").write_text("{}")
    with pytest.raises(ValueError, match="tables.sealed is damaged"):
        read_results(tmp_path)
