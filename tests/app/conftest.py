"""What tests of several screens need."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.server import cache, owner
from lm2.weights.checkpoint import Checkpoint, save


@pytest.fixture(autouse=True)
def opened(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's owner opens the tests' own folders to visitors, and the one that the server is started in."""
    monkeypatch.setenv(owner.FOLDERS, os.pathsep.join((os.curdir, str(tmp_path_factory.getbasetemp()))))


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    """No questions of other tests, whose stories may have been others."""
    cache._questions.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Checkpoint], str]:
    """Writes a toy checkpoint as a folder and returns its path."""

    def write(toy: Checkpoint) -> str:
        save(tmp_path / "toy", toy.model, toy.tokenizer, "")
        return str(tmp_path / "toy")

    return write
