"""What a command returns, printed as text or as JSON."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.views.seen import seen
from lm2.files import replace_file, sha256_of
from lm2.markdown import aligned
from probes.findings import cell_words

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.findings import Findings


@dataclass(frozen=True, kw_only=True)
class Output:
    """A command's result in both forms, and its exit code."""

    document: Any
    """For --json: dictionaries, lists, strings and numbers."""
    lines: Iterable[str] = ()
    """For people; iterated only if they are printed."""
    code: int = 0

    def print(self, *, as_json: bool) -> None:
        """Print one form and flush it, so that a closed pipe raises here. Control characters are escaped."""
        for line in [_json(self.document)] if as_json else self.lines:
            print(seen(line))
        sys.stdout.flush()


def _json(document: Any) -> str:
    # JSON has no NaN and no infinity, though Python would write them: they become null.
    return json.dumps(json.loads(json.dumps(document), parse_constant=lambda _: None))


def skipped_lines(skipped: Sequence[str]) -> list[str]:
    """Of questions that a tokenizer cannot take, how many there are, and the first. JSON has all."""
    return [f"questions left out: {len(skipped):,}; the first is {skipped[0]}"] if skipped else []


def example(spec: Any) -> Output:
    """A spec to start from, as JSON in both forms."""
    return Output(document=spec.to_json(), lines=[json.dumps(spec.to_json(), indent=1)])


def identity(checkpoint: "Checkpoint") -> dict[str, str]:
    """Which weights, on which device, in which number format."""
    return {"checkpoint_digest": checkpoint.digest, "device": checkpoint.device, "dtype": checkpoint.dtype}


def provenance(spec: Any, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Everything that determines the numbers."""
    return {"spec": spec.to_json(), "spec_digest": spec.digest, **identity(checkpoint)}


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def written(*paths: Path) -> dict[str, list[dict[str, str]]]:
    """Files that a command has written, each with its SHA-256; a folder stands for all files in it."""
    files = [file for path in paths for file in (path, *sorted(path.rglob("*"))) if file.is_file()]
    return {"written": [{"path": str(file), "sha256": sha256_of(file)} for file in files]}


def table_files(folder: Path, *names: str) -> list[Path]:
    """The files that `lm2.files.write_table` writes for tables."""
    return [folder / f"{name}.{ending}" for name in names for ending in ("csv", "parquet")]


def table_lines(findings: "Findings") -> Iterator[str]:
    """A table with its title and note. Words are aligned left, numbers right."""
    yield f"\n{findings.title}"
    columns = [(series.label, *map(cell_words, series.values)) for series in findings.series]
    numeric = [
        number > 0 and not any(isinstance(cell, str) for cell in series.values)
        for number, series in enumerate(findings.series)
    ]
    for row in aligned(list(zip(*columns)), numeric):
        yield "  ".join(row).rstrip()
    yield f"{findings.note}."
