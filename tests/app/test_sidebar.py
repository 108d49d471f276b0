"""Laws of uploads: what is no checkpoint folder is refused in a sentence and leaves nothing behind."""

import io
import tempfile
import zipfile
from pathlib import Path

import pytest

from app import sidebar
from lm2 import bundled
from lm2.checkpoint import load


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _zip(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return held.getvalue()


def test_a_zipped_checkpoint_folder_opens() -> None:
    folder = bundled.FOLDER / "babi-lm2"
    data = _zip({f"mine/{path.name}": path.read_bytes() for path in folder.iterdir()})
    path = sidebar._unpack(data)
    assert path == sidebar._unpack(data), "the same upload is the same folder"
    assert load(path, "cpu").digest == load("babi-lm2", "cpu").digest


@pytest.mark.parametrize("data", [b"", b"no zip", _zip({"readme.txt": b"x"}), _zip({"../outside/config.json": b"x"}), _zip({"/abs/config.json": b"x"})])
def test_anything_else_is_refused(data: bytes, apart: Path) -> None:
    with pytest.raises(ValueError):
        sidebar._unpack(data)
    assert not (apart / "outside").exists() and not list(apart.rglob("config.json"))
