"""Laws of archives: they are read in memory and within bounds, and what is none is refused in one line with the file's
name."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from lm2.tasks.babi_files import BabiError, read
from lm2.tasks.mmlu import MmluError, Split, read as read_mmlu
from lm2.text import archives
from lm2.text.archives import read_members


def packed(path: Path, mode: str, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz"), ("tar.bz2", "w:bz2")]
)
def test_the_wanted_members_are_read_in_the_archives_order(ending: str, mode: str, tmp_path: Path) -> None:
    path = packed(tmp_path / f"a.{ending}", mode, ("b/two.txt", b"2"), ("one.txt", b"1"), ("other.csv", b"3"))
    assert [(str(name), data) for name, data in read_members(path, lambda name: name.suffix == ".txt")] == [
        ("b/two.txt", b"2"),
        ("one.txt", b"1"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\xfd7zXZ\x00",
        b"\x1f\x8b\x08",
        b"x" * 2000,
        lzma.compress(b"x" * 2000),
        b"\x1f\x8b" + b"\xff" * 600,
    ],
)
def test_what_is_no_archive_is_refused_in_one_line_with_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    path.write_bytes(content)
    for reader, kind in ((read, BabiError), (lambda path: read_mmlu(path, Split.VAL), MmluError)):
        with pytest.raises(kind) as refused:
            reader(path)
        assert "a.tar.xz" in str(refused.value) and "\n" not in str(refused.value)


def test_an_archive_beyond_the_bounds_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.tar.xz", "w:xz", ("one.txt", b"1" * 3000), ("two.txt", b"2"), ("three.txt", b"3"))
    for name, bound, said in (
        ("MOST_MEMBERS", 2, "more than 2 members"),
        ("MOST_MEMBER_BYTES", 2000, "3,000 bytes"),
        ("MOST_BYTES", 2000, "unpacks to more than"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, bound)
            with pytest.raises(ValueError, match=f"a.tar.xz.*{said}"):
                read_members(path, lambda name: True)


def test_a_header_that_claims_more_than_there_may_be_is_refused_unread(tmp_path: Path) -> None:
    name = tarfile.TarInfo("long")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 10 * 1024**3
    (tmp_path / "a.tar").write_bytes(name.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(ValueError, match="a.tar: a header of 10,737"):
        read_members(tmp_path / "a.tar", lambda name: True)


def test_a_line_that_no_story_has_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "qa1_long.txt").write_text("1 Mary went home.\n2 " + "x" * 10**6 + "\n")
    with pytest.raises(BabiError, match=r"qa1_long.txt:2: 1,000,002 characters; expected a line of at most 10,000"):
        read(tmp_path / "qa1_long.txt")
