"""Origin: by what code, on which processor and in how many threads numbers were made, which decide their last bits and
more."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "tokenizers")
_SAID = {"code": "the code", "versions": "the libraries", "device": "the device", "dtype": "the number format"}
"""What decides more than the last bits."""


def made_by(device: str, dtype: str) -> dict[str, Any]:
    """As JSON: what numbers that are made now are made by. `code`: SHA-256 of the Python files that compute."""
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}
    return {
        "code": code_digest("lm2", "probes"),
        "versions": versions,
        "device": device,
        "dtype": dtype,
        "processor": processor(),
        "threads": threads(),
    }


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides numbers and is otherwise now, in words; what was not recorded is not compared."""
    return [words for name, words in _SAID.items() if name in there and there[name] != now[name]]


@cache
def processor() -> str:
    """The kind of processor, and the instructions that torch and the BLAS libraries use of it: sums come in another
    order with others."""
    kernels = sorted({pool["architecture"] for pool in threadpool_info() if pool.get("architecture")})
    return ", ".join([_model(), torch.backends.cpu.get_cpu_capability(), *kernels])


def threads() -> int:
    """Threads that a sum may be shared among."""
    return torch.get_num_threads()


@cache
def code_digest(*packages: str) -> str:
    """SHA-256 of the Python files of our packages, in the order of their names."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


@cache
def _model() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
