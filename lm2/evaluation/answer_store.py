"""What models answered, kept cell by cell: a sealed file for each model and question set (or task and length), which is
believed only as it was written."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm2.files import read_json
from lm2.origin import differing, made_by
from lm2.sealed import DamagedError, is_sealed, read_sealed, write_sealed
from lm2.weights.checkpoint import Checkpoint

_LOG = logging.getLogger(__name__)
_FIELDS = ("key", "made", "answers")


class AnsweringModel(NamedTuple):
    """The model of a cell."""

    digest: str
    weights_digest: str
    device: str
    dtype: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "AnsweringModel":
        return cls(checkpoint.digest, checkpoint.weights_digest, checkpoint.device, checkpoint.dtype)


class AnswerStore:
    """The answers in an evaluation's folder. `key`: JSON values, what the answers of a cell depend on, with the model
    as "checkpoint"."""

    def __init__(self, out: Path) -> None:
        self._cells = out / "cells"
        self.foreign: dict[str, list[str]] = {}
        """Files that `get` found made by other code, libraries or another device than now, and which of these."""

    def get(self, file: str, key: Mapping[str, Any], model: AnsweringModel) -> list[dict[str, Any]] | None:
        """The answers of a cell; None where it is missing, answers another question, or is damaged, which is logged."""
        path = self._cells / file
        asked = {**key, "checkpoint": model.digest}
        try:
            earlier = _earlier(path)
            if earlier is not None:  # it knows the model by its weights alone
                return earlier["answers"] if earlier["key"] == {**key, "checkpoint": model.weights_digest} else None
            content = read_sealed(path, file, _FIELDS)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            _LOG.warning("%s: it is asked again", error)
            return None
        changed = differing(content["made"], made_by(model.device, model.dtype))
        if content["key"] == asked and changed:
            self.foreign[file] = changed
        return content["answers"] if content["key"] == asked else None

    def author(self, files: Iterable[str]) -> AnsweringModel | None:
        """The model that answered the first of these cells that is there, as the cell records it; None if none is."""
        for file in files:
            try:
                content = read_sealed(self._cells / file, file, _FIELDS)
            except (FileNotFoundError, DamagedError):
                continue
            made = content["made"]
            return AnsweringModel(content["key"]["checkpoint"], "", made["device"], made["dtype"])
        return None

    def put(
        self, file: str, key: Mapping[str, Any], model: AnsweringModel, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        """In place of what was there."""
        made = made_by(model.device, model.dtype)
        write_sealed(
            self._cells / file,
            {"key": {**key, "checkpoint": model.digest}, "made": made, "answers": list(answers)},
            of=file,
        )


def _earlier(path: Path) -> dict[str, Any] | None:
    """A cell of an earlier version, which has no seal; None where it is none."""
    try:
        values = read_json(path) if path.is_file() else None
    except ValueError:
        return None
    return values if isinstance(values, dict) and not is_sealed(values) and set(values) == {"key", "answers"} else None
