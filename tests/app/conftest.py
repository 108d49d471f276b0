"""What tests of several screens need."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner

from app.server import owner, sets
from lm2.weights.checkpoint import Checkpoint, save


@pytest.fixture(scope="session", autouse=True)
def components_looked_for_once() -> Iterator[None]:
    """Streamlit reads what every installed package says of itself whenever a page of a test runs: 0.2 s each time."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", once)
        yield


@pytest.fixture(autouse=True)
def opened(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's owner opens the tests' own folders to visitors, and the one that the server is started in."""
    monkeypatch.setenv(owner.FOLDERS, os.pathsep.join((os.curdir, str(tmp_path_factory.getbasetemp()))))


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    """No questions of other tests, whose stories may have been others."""
    for kept in (sets._questions, sets._first, sets._targets):
        kept.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Checkpoint], str]:
    """Writes a toy checkpoint as a folder and returns its path."""

    def write(toy: Checkpoint) -> str:
        save(tmp_path / "toy", toy.model, toy.tokenizer, "")
        return str(tmp_path / "toy")

    return write
