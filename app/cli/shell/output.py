"""What a command found, told in words or as JSON: every command returns one of these, and `main` tells it."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.views.seen import seen
from lm2.markdown import aligned
from probes.findings import cell_words

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.findings import Findings


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command found in both forms, and the exit code that goes with it."""

    found: Any
    """The document of --json: dictionaries, lists, words and numbers."""
    words: Iterable[str] = ()
    """Lines for people; made only where they are told."""
    code: int = 0

    def tell(self, *, as_json: bool) -> None:
        """Print one form, all of it: whoever stopped reading is noticed here. A terminal obeys no character of a text
        or name."""
        for line in [_document(self.found)] if as_json else self.words:
            print(seen(line))
        sys.stdout.flush()


def _document(found: Any) -> str:
    # JSON has no NaN, though Python would write it: a number that is not there is null.
    return json.dumps(json.loads(json.dumps(found), parse_constant=lambda _: None))


def opened(checkpoint: "Checkpoint") -> dict[str, str]:
    """Which weights, where and in which numbers, named as the screens' results name them."""
    return {"checkpoint_digest": checkpoint.digest, "device": checkpoint.device, "dtype": checkpoint.dtype}


def specified(spec: Any, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Everything that decided the numbers."""
    return {"spec": spec.to_json(), "spec_digest": spec.digest, **opened(checkpoint)}


def written(*paths: Path) -> dict[str, list[dict[str, str]]]:
    """The files that a command left, each with its SHA-256; of a folder, all that are in it."""
    files = [
        file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()
    ]
    return {"written": [{"path": str(file), "sha256": _sha256(file)} for file in files]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_files(folder: Path, *names: str) -> list[Path]:
    """What `lm2.files.write_table` makes of tables."""
    return [folder / f"{name}.{ending}" for name in names for ending in ("csv", "parquet")]


def table_lines(findings: "Findings") -> Iterator[str]:
    """One table. Columns of words begin at their left, those of numbers end at their right."""
    yield f"\n{findings.title}"
    columns = [(series.label, *map(cell_words, series.values)) for series in findings.series]
    numeric = [
        at > 0 and not any(isinstance(cell, str) for cell in series.values) for at, series in enumerate(findings.series)
    ]
    for row in aligned(list(zip(*columns)), numeric):
        yield "  ".join(row).rstrip()
    yield f"{findings.note}."
