"""Where numbers come from: the code, libraries, device, processor and threads that computed them."""

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
_COMPARED = {"code": "the code", "versions": "the libraries", "device": "the device", "dtype": "the number format"}
"""What may change more than the last bits of a number, in words."""


def made_by(device: str, dtype: str) -> dict[str, Any]:
    """The origin of numbers computed now, as JSON values. "code" is a SHA-256 of the Python files."""
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}
    return {
        "code": code_digest("lm2", "probes"),
        "versions": versions,
        "device": device,
        "dtype": dtype,
        "processor": processor(),
        "threads": threads(),
    }


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed since an origin was recorded, in words; entries that it lacks are not compared."""
    return [words for name, words in _COMPARED.items() if name in recorded and recorded[name] != now[name]]


@cache
def processor() -> str:
    """The processor's model, and the instruction sets that torch and the BLAS libraries use, which order sums
    differently."""
    kernels = sorted({pool["architecture"] for pool in threadpool_info() if pool.get("architecture")})
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return ", ".join([model, torch.backends.cpu.get_cpu_capability(), *kernels])


def threads() -> int:
    """The number of threads that may share a sum."""
    return torch.get_num_threads()


@cache
def code_digest(*packages: str) -> str:
    """SHA-256 of the names and contents of our packages' Python files."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
