"""What the owner of a server allows its visitors: options of `lm2 serve`, passed to the app by environment variables.

Visitors choose models and texts. Nothing they type makes the server read, write or send what the owner did not allow.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.explain.llm import Chat

FOLDERS = "LM2_FOLDERS"
"""Folders whose files visitors may open, separated as in PATH; if unset, the folder that the server was started in."""
MODEL_URL, MODEL, TRANSCRIPTS = "LM2_MODEL_URL", "LM2_MODEL", "LM2_TRANSCRIPTS"
"""The language model that describes slots: its address, its name there, and the folder that keeps its replies."""
_FOLDERS_ABOVE = re.compile(r"(?<![\w.:/~])(?:/[^\s/'\",:;()]+)+(?=/)")
"""All but the last part of an absolute path."""


def settings(
    folders: Sequence[Path], model_url: str | None, model: str | None, transcripts: Path | None
) -> dict[str, str]:
    """The environment variables that pass the options to the app.

    Raises ValueError for a folder that does not exist, and for a language model without a name, or without both address
    and transcripts.
    """
    for folder in folders:
        if not folder.is_dir() or os.pathsep in str(folder.absolute()):
            raise ValueError(f"--folders: {folder} is no folder, or has {os.pathsep!r} in its path")
    if bool(model) != bool(model_url or transcripts):
        raise ValueError("a language model takes --model NAME, and --model-url URL or --transcripts DIR to replay")
    variables = {MODEL_URL: model_url, MODEL: model, TRANSCRIPTS: transcripts and str(transcripts.absolute())}
    return {FOLDERS: os.pathsep.join(str(folder.absolute()) for folder in folders)} | {
        name: value for name, value in variables.items() if value
    }


def allowed_path(text: str) -> Path:
    """A path typed by a visitor. Raises ValueError if it is outside the folders that the owner opens to visitors."""
    try:
        real = Path(text).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a NUL or half a character
        raise ValueError(f"{text[:80]!r} is no path") from error
    folders = filter(None, os.environ.get(FOLDERS, os.curdir).split(os.pathsep))
    if not any(real.is_relative_to(Path(folder).resolve()) for folder in folders):
        raise ValueError(
            f"{text[:200]!r} is not in a folder that this server's owner opens to visitors: `lm2 serve --folders`"
            " names these"
        )
    return Path(text)


def describer(seed: int) -> "Chat | None":
    """The language model that describes slots, if the owner has named one. Raises ValueError as `Chat` does."""
    from probes.explain.llm import Chat

    url, model, transcripts = (os.environ.get(name) for name in (MODEL_URL, MODEL, TRANSCRIPTS))
    if not model or not (url or transcripts):
        return None
    return Chat(model, url=url or None, folder=Path(transcripts) if transcripts else None, seed=seed)


def without_folders(sentence: str) -> str:
    """A sentence for visitors, in which absolute paths are cut to their last part."""
    return _FOLDERS_ABOVE.sub("...", sentence)
