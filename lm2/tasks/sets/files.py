"""Question sets in files: JSONL, CSV, Parquet, and folders of Hugging Face's `datasets`.

A row is a question. Its columns, each under any of some names (`COLUMNS`):

    context     what is read before the question; may be empty
    question    what is asked
    answers     an accepted answer, or a list of them: the first is the one that experiments read after the question
    facts       what justifies the answer: texts that stand in the context once, or [start, end] characters of it
    statements  what the context says, piece by piece, written as facts are; else its sentences
    rivals      wrong answers that it stands against
    choices     all answers of a multiple choice; the answer is one of them, or its letter (A ...) or index from 0
    group       rows of one group share facts, and count as one where an interval is made; else equal contexts do
    labels      [name, value, start, end]: what is true of characters of the context and question, for probes

In a CSV file a list is written as JSON. Rows may have columns besides; they are not read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm2.files import (
    State,
    parse_json,
    read_json,
    read_text,
    replace_file,
    sha256_of,
    spreadsheet_cell,
    spreadsheet_text,
)
from lm2.serialize import as_sequence, as_text, not_empty
from lm2.shown import shown
from lm2.tasks.prompt import Label, Prompt, Span
from lm2.tasks.stories import files_state

if TYPE_CHECKING:
    from pyarrow import Table

COLUMNS = {
    "context": ("context", "passage", "story", "document"),
    "question": ("question", "query"),
    "answers": ("answers", "answer", "target"),
    "facts": ("facts", "supporting_facts", "evidence"),
    "statements": ("statements",),
    "rivals": ("rivals", "distractors"),
    "choices": ("choices", "options"),
    "group": ("group",),
    "labels": ("labels",),
}
"""The names under which a column is read, the first of them is written."""
MOST_MISTAKES = 1000
"""Of a file, at most so many are told."""
_MOST_BYTES = 1 << 30
_SENTENCE = re.compile(r"[^\s.!?][^.!?\n\f]*[.!?]*")


@dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """What a file holds."""

    prompts: tuple[Prompt, ...]
    """Of the rows without mistakes."""
    mistakes: tuple[str, ...]
    """Each with its file and line, in order."""


def read(path: Path) -> QuestionFile:
    """The questions of a file or folder, and its mistakes.

    Raises ValueError for a path that is not there, and for what is not readable as one of the formats.
    """
    prompts: list[Prompt] = []
    mistakes: list[str] = []
    for line, row in _rows(path):
        where = f"{path}:{line}"
        try:
            prompts.append(_prompt(row(), f"row {line}"))
        except ValueError as error:
            mistakes.append(f"{where}: {error}")
            if len(mistakes) == MOST_MISTAKES:
                break
    if not prompts and not mistakes:
        raise ValueError(f"{path} holds no question; expected a row for each, with a question and its answer")
    return QuestionFile(prompts=tuple(prompts), mistakes=tuple(mistakes))


def _rows(path: Path) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    """The number of each row's first line (of Parquet and of a folder, the row's own, from 1), and what reads it."""
    if path.is_dir():
        return _table_rows(_arrow_folder(path))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: a question set is a file ending in {', '.join(_READERS)}, or a folder of `datasets`")
    return reader(path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    for number, line in enumerate(read_text(path, _MOST_BYTES).split("\n"), start=1):
        if line.strip():
            yield number, partial(_object, line)


def _object(line: str) -> Mapping[str, Any]:
    row = parse_json(line, "the line")
    if not isinstance(row, dict):
        raise ValueError(f"the line is {shown(row)}; expected an object with question and answers")
    return row


def _csv_rows(path: Path) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    csv.field_size_limit(_MOST_BYTES)
    rows = csv.reader(io.StringIO(read_text(path, _MOST_BYTES).removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = next(rows, [])
        line = rows.line_num + 1
        for cells in rows:
            if cells:
                yield line, partial(_cells, header, cells)
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{rows.line_num}: not readable as CSV: {error}") from error


def _cells(header: Sequence[str], cells: Sequence[str]) -> Mapping[str, Any]:
    """A row of a CSV file: an empty cell is not there; in a column of lists, one that begins with a bracket is JSON."""
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells; expected {len(header)}, as the header has")
    if len(set(header)) < len(header):
        raise ValueError(f"the header names a column twice: {shown(header)}")
    row = {name: spreadsheet_text(cell) for name, cell in zip(header, cells) if cell}
    return {
        name: parse_json(cell, name) if name in _LISTS and cell.lstrip().startswith("[") else cell
        for name, cell in row.items()
    }


def _parquet_rows(path: Path) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        return _table_rows(parquet.read_table(path))
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} is not readable as Parquet: {error}") from error


def _arrow_folder(path: Path) -> Table:
    """What `Dataset.save_to_disk` of Hugging Face's `datasets` left in a folder: streams of Arrow, named in order by
    state.json."""
    import pyarrow

    splits = sorted(folder.parent.name for folder in path.glob("*/state.json"))
    if splits:
        raise ValueError(f"{path} holds several splits: name the folder of one of {', '.join(splits)}")
    try:
        parts = [path / Path(part["filename"]).name for part in read_json(path / "state.json")["_data_files"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not readable as a folder of `datasets`: {error}") from error
    try:
        return pyarrow.concat_tables([pyarrow.ipc.open_stream(part.read_bytes()).read_all() for part in parts])
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} is not readable as a folder of `datasets`: {error}") from error


def _table_rows(table: Table) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    there = table.select([name for name in table.column_names if name in _COLUMN_OF])
    for number, row in enumerate(there.to_pylist(), start=1):
        yield number, partial(dict, row)


_READERS = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
_COLUMN_OF = {alias: column for column, aliases in COLUMNS.items() for alias in aliases}
_LISTS = {
    alias for column in ("answers", "facts", "statements", "rivals", "choices", "labels") for alias in COLUMNS[column]
}


def _prompt(row: Mapping[str, Any], name: str) -> Prompt:
    """Raises ValueError for a row that makes no question, with what was expected."""
    values = _columns(row)
    context, question = _text(values, "context", ""), _text(values, "question")
    if not question.strip():
        raise ValueError("the question is empty; expected a text")
    answers, rivals = _answers(values)
    facts = _spans("fact", values.get("facts"), context)
    statements = tuple(_spans("statement", values.get("statements"), context)) or sentences(context)
    prompt = Prompt.after(
        context,
        question,
        answers=answers,
        group=_text(values, "group", context or name),
        statement_spans=statements,
        support=tuple(
            dict.fromkeys(
                index
                for fact_start, fact_end in facts
                for index, (start, end) in enumerate(statements)
                if start < fact_end and fact_start < end
            )
        ),
        rivals=rivals,
    )
    return replace(prompt, labels=_labels(values.get("labels"), prompt.text))


def is_of_a_row(group: str) -> bool:
    """Whether a group is that of one row without context and group, which has its name within its file only."""
    return re.fullmatch(r"row \d+", group) is not None


def sentences(text: str) -> tuple[Span, ...]:
    """Start and end of each sentence: up to the stops that end it, a line's end or a segment's."""
    return tuple(match.span() for match in _SENTENCE.finditer(text))


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is there, under the columns' own names. Raises ValueError where a column stands under two of its names."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        column = _COLUMN_OF.get(name)
        if column is None or value is None:
            continue
        if column in values:
            names = [alias for alias in COLUMNS[column] if row.get(alias) is not None]
            raise ValueError(f"{' and '.join(names)} are two names of one column; expected one of them")
        values[column] = value
    return values


def _text(values: Mapping[str, Any], column: str, missing: str | None = None) -> str:
    value = values.get(column, missing)
    if value is None:
        raise ValueError(f"there is no {column}; expected a column {' or '.join(COLUMNS[column])}")
    return as_text(column, value)


def _texts(column: str, value: Any) -> tuple[str, ...]:
    """One text or several, each with something in it and once."""
    texts = tuple(as_text(column, text) for text in ([value] if isinstance(value, str) else as_sequence(column, value)))
    if not all(text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"{column} are {shown(texts)}; expected texts with something in them, each once")
    return texts


def _answers(values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The accepted answers, and the rivals."""
    value = values.get("answers")
    if isinstance(value, Mapping):  # as SQuAD has them
        value = value.get("text")
    if value is None:
        raise ValueError(f"there is no answer; expected a column {' or '.join(COLUMNS['answers'])}")
    rivals = _texts("rivals", values.get("rivals", ()))
    if "choices" in values:
        if rivals:
            raise ValueError("there are rivals and choices; expected one of them")
        choices = _texts("choices", values["choices"])
        answers = (_choice(value, choices),)
        rivals = tuple(choice for choice in choices if choice not in answers)
    else:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"the answer is the number {shown(value)}; expected a text, such as {str(value)!r}")
        answers = _texts("answers", value)
    if not answers:
        raise ValueError("there is no answer in answers; expected one text at least")
    if set(answers) & set(rivals):
        raise ValueError(f"{shown(min(set(answers) & set(rivals)))} is an answer and a rival")
    return answers, rivals


def _choice(value: Any, choices: Sequence[str]) -> str:
    """The choice that an answer names: itself, its letter, or its index from 0."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        if value in choices:
            return value
        if len(value) == 1 and value.isascii() and value.isupper():
            value = ord(value) - ord("A")
        elif value.isascii() and value.isdecimal():
            value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return choices[value]
    raise ValueError(f"the answer {shown(value)} is none of the {len(choices)} choices, nor the letter or index of one")


def _spans(what: str, value: Any, context: str) -> list[Span]:
    """Start and end of facts or statements in the context."""
    if value is None:
        return []
    pieces = [value] if isinstance(value, str) or _is_span(value) else as_sequence(f"{what}s", value)
    spans = []
    for piece in pieces:
        if isinstance(piece, str):
            times = context.count(piece) if piece.strip() else 0
            if times != 1:
                raise ValueError(
                    f"the {what} {shown(piece)} stands {times} times in the context; expected a text that stands there"
                    " once, or [start, end]"
                )
            spans.append((context.index(piece), context.index(piece) + len(piece)))
        elif _is_span(piece) and 0 <= piece[0] < piece[1] <= len(context):
            spans.append((piece[0], piece[1]))
        else:
            raise ValueError(
                f"the {what} {shown(piece)} is none; expected a text of the context, or [start, end] within its"
                f" {len(context)} characters"
            )
    return spans


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)


def _labels(value: Any, text: str) -> tuple[Label, ...]:
    """[name, value, start, end] each, or an object with these."""
    labels = []
    for label in () if value is None else as_sequence("labels", value):
        entries = list(label.values()) if isinstance(label, dict) and tuple(label) == Label._fields else label
        if not isinstance(entries, list) or len(entries) != 4 or not _is_span(entries[2:]):
            raise ValueError(f"the label {shown(label)} is none; expected [name, value, start, end]")
        name, word, start, end = entries
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the label {shown(label)} is outside the {len(text)} characters of context and question")
        not_empty("a label's name", as_text("a label's name", name))
        not_empty("a label's value", as_text("a label's value", word))
        labels.append(Label(name, word, start, end))
    return tuple(labels)


def record(prompt: Prompt) -> dict[str, Any]:
    """A question as a row: what `read` makes it of."""
    by_sentence = prompt.statement_spans == sentences(prompt.context)
    values = {
        "context": prompt.context,
        "question": prompt.question,
        "answers": list(prompt.answers),
        "facts": [list(prompt.statement_spans[index]) for index in prompt.support],
        "statements": [] if by_sentence else [list(span) for span in prompt.statement_spans],
        "rivals": list(prompt.rivals),
        "group": prompt.group,
        "labels": [list(label) for label in prompt.labels],
    }
    return {column: value for column, value in values.items() if value not in ("", [])}


def check_ending(path: Path) -> None:
    """Raises ValueError for a path to which `write` does not write."""
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: questions are written to a file ending in {', '.join(_READERS)}")


def write(prompts: Sequence[Prompt], path: Path) -> None:
    """Write questions as a file that `read` reads. Raises ValueError for an ending that it does not read."""
    check_ending(path)
    rows = [record(prompt) for prompt in prompts]
    if path.suffix == ".jsonl":
        with replace_file(path) as aside:
            aside.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        columns = [column for column in COLUMNS if any(column in row for row in rows)]
        with replace_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)
    else:
        import pandas as pd

        with replace_file(path) as aside:
            # Parquet has columns of one type; labels, which mix texts and numbers, are objects in it.
            table = [row | {"labels": [label._asdict() for label in p.labels]} for row, p in zip(rows, prompts)]
            pd.DataFrame(table).to_parquet(aside, index=False)


def _cell(value: Any) -> str:
    return spreadsheet_cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder's, of its files' names and bytes. Raises ValueError where there is
    nothing."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    return _digest(path, files_state(path))


@lru_cache(maxsize=64)
def _digest(path: Path, _state: State) -> str:
    if path.is_file():
        return sha256_of(path)
    every = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        every.update(file.relative_to(path).as_posix().encode())
        every.update(hashlib.sha256(file.read_bytes()).digest())
    return every.hexdigest()
