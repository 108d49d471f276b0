"""Sealed values: what is kept to be read again carries the SHA-256 of what it says and of whose it is, and is believed
only where that holds.

A file with a changed digit, or of one document in another's place, is thus found out. Files of earlier versions have no
seal: who keeps such files reads them otherwise, where they can be told from a sealed one that lost its seal.
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

from lm2.files import parse_json, read_bytes, replace_file
from lm2.serialize import digest_of

SEAL = "sha256"
"""The name under which values carry their seal."""
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
"""What zipfile and numpy raise for an archive with changed bytes."""


class DamagedError(ValueError):
    """What was kept is not what was written, or was written for something else; the message names the file."""


def seal(values: Mapping[str, Any], of: object) -> dict[str, Any]:
    """JSON values with their seal beside them. `of`: JSON values that say whose they are; who opens the seal has to say
    the same."""
    return {**values, SEAL: _digest(values, of)}


def unseal(values: object, of: object, fields: Collection[str], name: str) -> dict[str, Any]:
    """The values without their seal.

    `fields`: the names that there must be. `name`: what an error calls the values. Raises DamagedError for other
    fields, and for a seal that is missing or does not hold.
    """
    if not isinstance(values, dict) or set(values) != {*fields, SEAL}:
        raise DamagedError(f"{name} is damaged: expected an object with {', '.join(sorted((*fields, SEAL)))}")
    bare = {key: value for key, value in values.items() if key != SEAL}
    if values[SEAL] != _digest(bare, of):
        raise DamagedError(f"{name} is damaged, or was written for something else: its {SEAL} does not hold")
    return bare


def is_sealed(values: object) -> bool:
    """Whether there is a seal, whether it holds or not."""
    return isinstance(values, dict) and SEAL in values


def write_sealed(path: Path, values: Mapping[str, Any], of: object) -> None:
    """A JSON file of sealed values. Raises ValueError for numbers that JSON does not have."""
    with replace_file(path) as aside:
        aside.write_text(json.dumps(seal(values, of), indent=1, allow_nan=False), encoding="utf-8")


def read_sealed(path: Path, of: object, fields: Collection[str]) -> dict[str, Any]:
    """Values that `write_sealed` wrote; FileNotFoundError where there is no file. Raises DamagedError as `unseal`
    does."""
    return unseal(_json(path), of, fields, str(path))


def _json(path: Path) -> Any:
    _check_there(path)
    try:
        return parse_json(read_bytes(path), str(path))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def _check_there(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    if not path.is_file():
        raise DamagedError(f"{path} is no file")


def write_arrays(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], of: object) -> None:
    """A compressed .npz without pickle: arrays, and JSON values as "header", with a seal over all of them."""
    sealed = {**header, "arrays": _arrays_digest(arrays)}
    everything: dict[str, Any] = {"header": np.frombuffer(json.dumps(seal(sealed, of)).encode(), np.uint8), **arrays}
    with replace_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **everything)


def read_arrays(path: Path, of: object) -> tuple[Any, dict[str, np.ndarray]]:
    """The header and the arrays of a file that `write_arrays` wrote; of an earlier version's, whatever its header
    holds.

    Raises FileNotFoundError where there is no file, and DamagedError for a file that cannot be read, and for a seal
    that does not hold.
    """
    _check_there(path)
    try:
        with np.load(path, allow_pickle=False) as there:
            arrays = {name: there[name] for name in there.files}
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
    found = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype.str} {values.shape}".encode())
        # Without a copy: a long text's logits are in a file.
        found.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _digest(values: Mapping[str, Any], of: object) -> str:
    return digest_of({"of": of, "values": values})
