"""The bundled checkpoints, and the files that a checkpoint's name stands for."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "checkpoints"


def bundled_names() -> tuple[str, ...]:
    """The names of the bundled checkpoints."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def path_of(name: str) -> Path:
    """The folder or file of a checkpoint, from its name or path as for `lm2.load`."""
    return FOLDER / name if name in bundled_names() else Path(name)


def files_of(name: str) -> tuple[Path, ...]:
    """A checkpoint's folder, or its file and those that `lm2.load` may read beside it."""
    path = path_of(name)
    if path.is_dir() or not path.name:
        return (path,)
    return path, path.with_name("config.json"), path.with_name("tokenizer.json")
