"""Sealed files: kept results with a SHA-256 over their content and over what they belong to.

Reading checks it, and so notices a changed digit and a file put in another's place. Files of earlier versions have no
seal; callers decide how to read those.
"""

import hashlib
import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm2.files import read_json, replace_file
from lm2.serialize import digest_of

SEAL = "sha256"
"""The key of the seal among the values."""
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""Raised by zipfile and numpy for an archive with changed bytes."""


class DamagedError(ValueError):
    """A file has changed since it was written, or was written for something else; the message names it."""


def seal(values: Mapping[str, Any], of: object) -> dict[str, Any]:
    """JSON values with their seal. `of`: JSON values that say what they belong to, and that `unseal` needs again."""
    return {**values, SEAL: digest_of({"of": of, "values": values})}


def unseal(values: object, of: object, fields: Collection[str], name: str) -> dict[str, Any]:
    """The values, which must be exactly `fields`, without their seal.

    Errors call the values `name`. Raises DamagedError for other fields, and for a seal that is missing or wrong.
    """
    if not isinstance(values, dict) or set(values) != {*fields, SEAL}:
        raise DamagedError(f"{name} is damaged: expected an object with {', '.join(sorted((*fields, SEAL)))}")
    bare = {key: value for key, value in values.items() if key != SEAL}
    if values != seal(bare, of):
        raise DamagedError(f"{name} is damaged, or was written for something else: its {SEAL} does not hold")
    return bare


def is_sealed(values: object) -> bool:
    """Whether there is a seal, right or wrong."""
    return isinstance(values, dict) and SEAL in values


def write_sealed(path: Path, values: Mapping[str, Any], of: object) -> None:
    """Write a JSON file of sealed values. Raises ValueError for NaN and infinity."""
    with replace_file(path) as aside:
        aside.write_text(json.dumps(seal(values, of), indent=1, allow_nan=False), encoding="utf-8")


def read_sealed(path: Path, of: object, fields: Collection[str]) -> dict[str, Any]:
    """The values that `write_sealed` wrote. Raises FileNotFoundError where there is no file, and DamagedError as
    `unseal` does."""
    _check_file(path)
    try:
        values = read_json(path)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    return unseal(values, of, fields, str(path))


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    if not path.is_file():
        raise DamagedError(f"{path} is no file")


def write_arrays(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], of: object) -> None:
    """Write a compressed .npz file without pickle: arrays, and JSON values as "header", sealed together."""
    sealed = seal({**header, "arrays": _arrays_digest(arrays)}, of)
    entries: dict[str, Any] = {"header": np.frombuffer(json.dumps(sealed).encode(), np.uint8), **arrays}
    with replace_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **entries)


def read_arrays(path: Path, of: object) -> tuple[Any, dict[str, np.ndarray]]:
    """The header and the arrays that `write_arrays` wrote. Headers of earlier versions come as they are, unchecked.

    Raises FileNotFoundError where there is no file, and DamagedError for an unreadable file and a wrong seal.
    """
    _check_file(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        header = json.loads(arrays.pop("header").tobytes())
    except _UNREADABLE as error:
        raise DamagedError(f"{path} is damaged: {error or type(error).__name__}") from error
    if not is_sealed(header) and not (isinstance(header, dict) and "arrays" in header):
        return header, arrays
    bare = unseal(header, of, set(header) - {SEAL}, str(path))
    if bare.pop("arrays", None) != _arrays_digest(arrays):
        raise DamagedError(f"{path} is damaged: its arrays are not those that were written")
    return bare, arrays


def _arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        # Without a copy: the logits of a long text are mapped from a file.
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
