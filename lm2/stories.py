"""Where stories come from: real bAbI files where a data folder is set, our simulator everywhere else."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lm2.babi import Story, read, split
from lm2.simulator import simulate

TASKS = tuple(range(1, 11))
"""The bAbI tasks that can be simulated."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A story and where it is from."""

    story: Story
    origin: str


def data_folder() -> Path | None:
    """The folder that the environment variable LM2_DATA_DIR names; None when it is unset or not there."""
    named = os.environ.get("LM2_DATA_DIR")
    return Path(named) if named and Path(named).is_dir() else None


def real_stories(task: int) -> tuple[Story, ...]:
    """Held-out stories of a task from the data folder's bAbI training files; () without a data folder.

    The last tenth of each training file, which no bundled model was trained on.
    """
    folder = data_folder()
    return () if folder is None else _held_out(folder, task)


@lru_cache(maxsize=32)
def _held_out(folder: Path, task: int) -> tuple[Story, ...]:
    files = sorted((folder / "babi").glob("babi-v1.2-en-train.*"))
    return split(read(files[0], task=task, folder="en"))[1] if files else ()


def pick(task: int, index: int) -> Picked:
    """Story `index` of a task: a real one where the data folder has one, else the simulator's with that seed.

    Raises ValueError for a task outside 1..10, and for an index outside the real stories.
    """
    if task not in TASKS:
        raise ValueError(f"there are stories of qa{TASKS[0]} to qa{TASKS[-1]}, not of qa{task}")
    stories = real_stories(task)
    if not stories:
        return Picked(story=simulate(task, seed=index).story, origin=f"simulated story of qa{task}, seed {index}")
    if not 0 <= index < len(stories):
        raise ValueError(f"qa{task} has {len(stories)} held-out stories, 0..{len(stories) - 1}, and none at {index}")
    return Picked(story=stories[index], origin=f"bAbI story {stories[index].id}, held out from training")
