"""Laws of the server's question sets: an uploaded file is asked by its name and digest wherever it lies, and no path is
read that the owner has not opened."""

import json
from pathlib import Path

import pytest

from app.server import owner, sets
from lm2.tasks.sets.question_set import file_of, is_provided, path_read, questions

ROWS = [
    {"context": "Ada wrote notes. Bob read them.", "question": f"Who wrote, {number}?", "answers": "Ada"}
    for number in range(3)
]


def content(*rows: object) -> bytes:
    return "\n".join(map(json.dumps, rows or ROWS)).encode()


def test_an_upload_is_asked_by_its_name_with_its_digest_and_the_same_file_has_the_same_name() -> None:
    uploaded = sets.UploadedSets(10_000)
    name = uploaded.add("mine.jsonl", content())
    assert name == uploaded.add("mine.jsonl", content()) and name.startswith("mine.jsonl?sha256=")
    assert [prompt.question for prompt in questions(name, 2).prompts] == ["Who wrote, 0?", "Who wrote, 1?"]
    assert questions(name, 2).name == name and file_of(name) == "mine.jsonl" and path_read(name) is None
    assert uploaded.add("mine.jsonl", content(ROWS[0])) != name, "other content, another name"


def test_the_first_questions_of_a_set_are_as_many_as_there_are() -> None:
    name = sets.uploaded().add("mine.jsonl", content())
    assert len(sets.first(name, 2)) == 2 and len(sets.first(name, 99)) == 3
    with pytest.raises(ValueError, match="holds 3 questions, not 99"):
        sets.questions(name, 99)


def test_what_was_uploaded_first_goes_when_there_is_no_more_room_and_is_then_asked_for() -> None:
    uploaded = sets.UploadedSets(2 * len(content()) + 5)
    first, *_, last = (uploaded.add(f"{number}.jsonl", content()) for number in range(3))
    assert not is_provided(first) and is_provided(last)
    with pytest.raises(ValueError, match=r"0\.jsonl .*is not on this server: upload that file"):
        sets.checked(first)


@pytest.mark.parametrize(
    "file", ["", ".", "../up.jsonl", "a/b.jsonl", "a\nb.jsonl", " a.jsonl", "x" * 201, "\u6b21" * 80]
)
def test_a_name_that_no_file_should_have_is_refused_and_nothing_is_kept(file: str) -> None:
    uploaded = sets.UploadedSets(10_000)
    with pytest.raises(ValueError, match="is no name of at most"):
        uploaded.add(file, content())
    assert not list(Path(uploaded._root.name).iterdir())


def test_a_file_larger_than_all_may_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 10 are taken"):
        sets.UploadedSets(10).add("mine.jsonl", content())


def test_an_upload_with_the_name_of_a_built_in_set_is_refused() -> None:
    with pytest.raises(ValueError, match="name of a built-in set"):
        sets.UploadedSets(10_000).add("pairs:.jsonl", content())


def test_a_link_to_a_file_that_is_not_here_says_which() -> None:
    with pytest.raises(
        ValueError, match=r"mine\.csv \(the one whose SHA-256 begins with 0123456789ab\) is not on this"
    ):
        sets.checked("mine.csv?sha256=0123456789ab")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../etc/passwd", "passkey:?text=/etc/passwd", "babilong:qa1@1k?books=/etc"]
)
def test_a_path_that_the_owner_has_not_opened_is_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(owner.FOLDERS, str(tmp_path))
    with pytest.raises(ValueError, match="opens to visitors"):
        sets.checked(name)
    with pytest.raises(ValueError, match="opens to visitors"):
        sets.first(name, 1)


def test_a_file_in_an_open_folder_is_pinned_and_another_in_its_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(owner.FOLDERS, str(tmp_path))
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content())
    name = sets.checked(str(path))
    assert name.startswith(f"{path}?sha256=") and sets.checked(name) == name
    path.write_bytes(content(ROWS[0]))
    with pytest.raises(ValueError, match="holds something else than when it was named"):
        sets.checked(name)
