"""The checkpoints that come with this program."""

from pathlib import Path

FOLDER = Path(__file__).parent / "checkpoints"


def bundled_names() -> tuple[str, ...]:
    """Their names, as `lm2.load` takes them."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))
