"""Laws of files: every door reads the same text from the same bytes, and refuses what is none in a sentence with the
file's name."""

import lzma
import os
from pathlib import Path

import pytest

from lm2.files import decode_text, parse_json, read_bytes, read_json, read_text, replace_file, replace_folder, state
from probes.explain.corpus import of_file


def test_the_same_bytes_are_the_same_text_through_every_door(tmp_path: Path) -> None:
    content = "\ufeffMary went home.\r\nWhere\rnow?\f\u2028\x85".encode()
    (tmp_path / "story.txt").write_bytes(content)
    (tmp_path / "story.txt.xz").write_bytes(lzma.compress(content))
    read = {read_text(tmp_path / "story.txt"), read_text(tmp_path / "story.txt.xz"), decode_text(content, "upload")}
    assert read == {"Mary went home.\nWhere\nnow?\f\u2028\x85"}


def test_a_text_that_is_not_utf_8_is_refused_with_the_byte_and_the_name() -> None:
    with pytest.raises(ValueError, match="story.txt.*byte 2"):
        decode_text(b"ab\xff", "story.txt")


def test_what_is_no_regular_file_or_too_large_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 100)
    for path, reason in (
        (tmp_path, "a folder"), (Path("/dev/zero"), "no regular file"), (tmp_path / "none", "No such file"),
        (tmp_path / "long", "more than the 99"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{path}.*{reason}"):
            read_bytes(path, 99)


@pytest.mark.parametrize("content", ["", "{", "NaN", '{"a": Infinity}', "[" * 100_000, "1" * 10_000, "\x00"])
def test_what_is_not_json_is_refused_with_the_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(ValueError, match="spec.json"):
        read_json(tmp_path / "spec.json")
    with pytest.raises(ValueError, match="upload"):
        parse_json(content, "upload")


def test_a_line_of_a_texts_file_ends_with_a_line_feed_alone(tmp_path: Path) -> None:
    lines = ["Mary went home.\fWhere is Mary?", "John\u2028sat.", "Sandra\x85stood.", "Bill\x1c\x0bran."]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    assert [entry.text for entry in of_file(tmp_path / "texts.txt")] == lines


def test_a_folder_in_a_files_place_and_a_file_in_a_folders_are_refused_and_stay(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="folder is a folder, and a file"), replace_file(tmp_path / "folder"):
        pass
    with pytest.raises(ValueError, match="file is a file, and a folder"), replace_folder(tmp_path / "file"):
        pass
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
        and (tmp_path / "file").read_text() == "kept"
    )


def test_a_file_written_over_in_place_with_its_time_and_size_kept_has_another_state(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("one")
    os.utime(path, ns=(10**18, 10**18))
    before = state(path)
    with path.open("r+") as file:
        file.write("two")
    os.utime(path, ns=(10**18, 10**18))
    assert [one[:2] + one[3:] for one in state(path)] == [one[:2] + one[3:] for one in before] and state(path) != before
