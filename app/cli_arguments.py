"""Arguments that several commands take, read one way."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16 (default float32)")


def task_named(text: str) -> int:
    """"qa3" is 3. Raises ValueError for anything else."""
    digits = text.removeprefix("qa")
    if not digits.isdecimal():
        raise ValueError(f"a task is written qa1, qa2, ..., not {text!r}")
    return int(digits)


def read_spec(path: Path) -> dict[str, Any]:
    """A spec's JSON. Raises ValueError for a file that holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a spec, an object with fields, not a {type(values).__name__}")
    return values
