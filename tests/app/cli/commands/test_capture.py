"""Laws of `lm2 capture`: it says what it will take, goes on where it was stopped, and notices what has changed."""

import json
from pathlib import Path

import pytest

from app.cli.main import main
from lm2.stores import prediction
from lm2.stores.store import open_store

TEXT = "Mary went to the kitchen. John went to the garden."


def arguments(out: Path, *more: str) -> list[str]:
    return ["capture", "--checkpoint", "babi-lm2", "--device", "cpu", "--text", TEXT, "--out", str(out), *more]


def test_a_text_is_captured_and_a_second_command_finds_it_whole(tmp_path: Path, capsys) -> None:
    out = tmp_path / "store"
    for _ in range(2):
        assert main([*arguments(out), "--json", "--check"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["whole"] == document["segments"] == open_store(out).whole > 0
        assert document["checked"] and document["bytes"] > 0


def test_bytes_and_time_are_known_before_anything_is_written(tmp_path: Path, capsys) -> None:
    assert main([*arguments(tmp_path / "store"), "--predict"]) == 0
    assert "about" in (text := capsys.readouterr().out) and "--pool 64" in text
    assert not (tmp_path / "store").exists()


def test_mistakes_are_one_sentence(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "store"
    assert main(arguments(out)) == 0
    assert main(arguments(out, "--pool", "16")) == 2
    assert f"{out} holds another run" in capsys.readouterr().err
    shard = max((out / "bank").rglob("c/*/*/*"), key=lambda file: file.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    assert main(arguments(out, "--check")) == 2
    assert f"{out} is damaged: bank" in capsys.readouterr().err
    monkeypatch.setattr(prediction.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9})())
    assert main(arguments(tmp_path / "other")) == 2
    assert "has 9 free" in capsys.readouterr().err and not (tmp_path / "other").exists()
