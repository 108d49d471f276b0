"""What tests of several screens need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lm2.checkpoint import Checkpoint, save


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Checkpoint], str]:
    """Writes a toy checkpoint as a folder and returns its path."""

    def write(toy: Checkpoint) -> str:
        save(tmp_path / "toy", toy.model, toy.tokenizer, "")
        return str(tmp_path / "toy")

    return write
