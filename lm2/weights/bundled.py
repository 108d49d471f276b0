"""The checkpoints that come with this program, and where the name of one leads."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "checkpoints"


def bundled_names() -> tuple[str, ...]:
    """Their names, as `lm2.load` takes them."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def place(name: str) -> Path:
    """The folder or file of a checkpoint, by its name as `lm2.load` takes it."""
    return FOLDER / name if name in bundled_names() else Path(name)


def files_of(name: str) -> tuple[Path, ...]:
    """What decides a checkpoint: its folder, or its file and those that are looked for beside it."""
    path = place(name)
    return (
        (path,)
        if path.is_dir()
        else (path, *(path.with_name(beside) for beside in ("config.json", "tokenizer.json") if path.name))
    )
