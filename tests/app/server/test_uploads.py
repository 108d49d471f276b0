"""Laws of uploads: what is no checkpoint folder is refused in a sentence and leaves nothing behind."""

import io
import json
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest

from app.server.uploads import PREFIX, Uploads
from lm2.weights import bundled
from lm2.weights.checkpoint import load


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def uploads() -> Uploads:
    return Uploads(1024**2)


def _zip(*files: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", compression) as archive, warnings.catch_warnings(action="ignore"):
        for name, data in files:
            archive.writestr(name, data)
    return held.getvalue()


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("mine/config.json")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def _changed(data: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """With bytes replaced at a distance from every place where a header begins."""
    held = bytearray(data)
    for header, distance, new in changes:
        at = held.find(header)
        held[at + distance : at + distance + len(new)] = new
    return bytes(held)


def _adapter(base: str) -> bytes:
    """An adapter whose base is at a place."""
    values = {**bundled.ADAPTER, "base": {"name": "babi-llama", "path": base, "digest": ""}}
    return _zip(("mine/config.json", json.dumps(values).encode()))


_GOOD = _zip(("mine/config.json", b"{}" * 50), compression=zipfile.ZIP_DEFLATED)
_LOCAL, _CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
REFUSED = {
    "empty": b"", "no zip": b"no zip", "cut": _GOOD[:60], "no checkpoint": _zip(("readme.txt", b"x")),
    "no files": _zip(),
    "base elsewhere": _adapter("../../private"), "base at a root": _adapter("/private"),
    "above": _zip(("../outside/config.json", b"x")), "root": _zip(("/abs/config.json", b"x")),
    "drive": _zip(("C:/config.json", b"x")),
    "backslashes": _zip(("mine\\..\\..\\config.json", b"x")),
    "nul": _GOOD.replace(b"mine/config.json", b"mine/conf\0g.json"),
    "no name": _GOOD.replace(b"mine/config.json", b"\0ine/config.json"),
    "empty part": _zip(("mine//config.json", b"x")), "deep": _zip(("a/" * 99 + "config.json", b"x")),
    "long": _zip(("a" * 5_000 + "/config.json", b"x")), "twice": _zip(("config.json", b"1"), ("config.json", b"2")),
    "twice but for case": _zip(("config.json", b"1"), ("Config.json", b"2")),
    "file and folder": _zip(("config.json", b"1"), ("config.json/a", b"2")),
    "link": _zip((_link(), b"/etc/passwd")), "encrypted": _changed(_GOOD, (_LOCAL, 6, b"\1\0"), (_CENTRAL, 8, b"\1\0")),
    "unknown compression": _changed(_GOOD, (_LOCAL, 8, b"\x63\0"), (_CENTRAL, 10, b"\x63\0")),
    "other compression": _zip(("config.json", b"{}"), compression=zipfile.ZIP_LZMA),
    "size declared too small": _changed(_GOOD, (_LOCAL, 22, b"\x01\0\0\0"), (_CENTRAL, 24, b"\x01\0\0\0")),
    "size declared too large": _changed(_GOOD, (_LOCAL, 22, b"\xf0\xff\xff\xff"), (_CENTRAL, 24, b"\xf0\xff\xff\xff")),
    "damaged": _changed(_GOOD, (_LOCAL, 46, b"\xff\xff\xff\xff")),
    "many": _zip(*((f"{at}/config.json", b"") for at in range(1_001))),
}  # fmt: skip


def test_a_zipped_checkpoint_folder_opens() -> None:
    uploads = Uploads(1024**3)
    folder = bundled.FOLDER / "babi-lm2"
    data = _zip(*((f"mine/{path.name}", path.read_bytes()) for path in folder.iterdir()))
    name = uploads.add(data)
    assert name == uploads.add(data), "the same upload has the same name"
    assert load(uploads.path(name), "cpu").digest == load("babi-lm2", "cpu").digest


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_in_a_sentence_without_paths_and_leaves_nothing(
    data: bytes, apart: Path, uploads: Uploads
) -> None:
    with pytest.raises(ValueError) as refused:
        uploads.add(data)
    said = str(refused.value)
    assert said and "\n" not in said and len(said) < 300 and str(apart) not in said
    assert not [path for path in apart.rglob("*") if path.is_file()] and not (apart / "outside").exists()


def test_the_folder_of_uploads_is_fresh_and_for_nobody_else(apart: Path, uploads: Uploads) -> None:
    (root,) = apart.iterdir()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    Uploads(1)
    assert len(list(apart.iterdir())) <= 2, "another server takes another folder"


def test_the_least_recently_used_upload_makes_room_and_is_told_to_be_gone(apart: Path) -> None:
    uploads = Uploads(250)
    first, second = (uploads.add(_zip(("config.json", digit * 100))) for digit in (b"1", b"2"))
    uploads.path(first)
    uploads.add(_zip(("config.json", b"3" * 100)))
    assert uploads.path(first).is_dir()
    with pytest.raises(ValueError, match="upload the checkpoint again"):
        uploads.path(second)
    assert sum(path.stat().st_size for path in apart.rglob("*.json")) == 200


@pytest.mark.parametrize(
    "name", [f"{PREFIX}..", f"{PREFIX}../../etc", f"{PREFIX}", f"{PREFIX}0123456789abcdef", f"{PREFIX}\0"]
)
def test_names_that_no_upload_has_are_refused(name: str, uploads: Uploads) -> None:
    with pytest.raises(ValueError, match="not on this server"):
        uploads.path(name)


def test_uploads_are_deleted_as_the_server_ends(apart: Path, uploads: Uploads) -> None:
    uploads.add(_zip(("config.json", b"{}")))
    uploads._root._finalizer()  # what Python calls as it exits
    assert not list(apart.iterdir())
