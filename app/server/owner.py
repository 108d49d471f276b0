"""What the owner of a server lets its visitors name: said to `lm2 serve`, told to the app by environment variables.

A visitor chooses models and texts. Nothing that he types makes the server read, write or send what the owner did not
name.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.explain.llm import Chat

FOLDERS = "LM2_FOLDERS"
"""Folders whose files visitors may open by their paths, parted as in PATH; unset, the folder that the server was
started in."""
MODEL_URL, MODEL, TRANSCRIPTS = "LM2_MODEL_URL", "LM2_MODEL", "LM2_TRANSCRIPTS"
"""The language model that describes slots: its address, its name there, and the folder that keeps what it said."""
_FOLDERS_ABOVE = re.compile(r"(?<![\w.:/~])(?:/[^\s/'\",:;()]+)+(?=/)")
"""Of a path from the root, all but its last part."""


def settings(
    folders: Sequence[Path], model_url: str | None, model: str | None, transcripts: Path | None
) -> dict[str, str]:
    """The environment variables that say this to the app.

    Raises ValueError for a folder that is not there, and for a language model without its name, or without an address
    and transcripts.
    """
    for folder in folders:
        if not folder.is_dir() or os.pathsep in str(folder.absolute()):
            raise ValueError(f"--folders: {folder} is no folder, or has {os.pathsep!r} in its path")
    if bool(model) != bool(model_url or transcripts):
        raise ValueError("a language model takes --model NAME, and --model-url URL or --transcripts DIR to replay")
    named = {MODEL_URL: model_url, MODEL: model, TRANSCRIPTS: transcripts and str(transcripts.absolute())}
    return {FOLDERS: os.pathsep.join(str(folder.absolute()) for folder in folders)} | {
        name: value for name, value in named.items() if value
    }


def place(named: str) -> Path:
    """The path that a visitor has typed. Raises ValueError for one that leads out of the folders that the owner opens
    to visitors."""
    try:
        real = Path(named).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a NUL or half a character
        raise ValueError(f"{named[:80]!r} is no path") from error
    opened = filter(None, os.environ.get(FOLDERS, os.curdir).split(os.pathsep))
    if not any(real.is_relative_to(Path(folder).resolve()) for folder in opened):
        raise ValueError(
            f"{named[:200]!r} is not in a folder that this server's owner opens to visitors: `lm2 serve --folders`"
            " names these"
        )
    return Path(named)


def describer(seed: int) -> "Chat | None":
    """The language model that describes slots; None where the owner has named none. Raises ValueError as `Chat`
    does."""
    from probes.explain.llm import Chat

    url, model, transcripts = (os.environ.get(name) for name in (MODEL_URL, MODEL, TRANSCRIPTS))
    if not model or not (url or transcripts):
        return None
    return Chat(model, url=url or None, folder=Path(transcripts) if transcripts else None, seed=seed)


def without_folders(sentence: str) -> str:
    """A sentence for visitors: of a path from the machine's root, the last part alone."""
    return _FOLDERS_ABOVE.sub("...", sentence)
