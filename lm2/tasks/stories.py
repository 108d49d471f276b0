"""Where stories come from: real bAbI files where a data folder is set, our simulator everywhere else."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lm2.files import State, state
from lm2.shown import shown
from lm2.tasks.babi import Story, ask, split
from lm2.tasks.babi_files import BabiError, NoSuchTaskError, read
from lm2.tasks.prompt import Prompt
from lm2.tasks.simulator import simulate

TASKS = tuple(range(1, 11))
"""The bAbI tasks that can be simulated."""
_EVERY_SET = ("en-10k", "en")
MOST_SIMULATED = 100_000
"""Stories that are made at once, at most."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A story and where it is from."""

    story: Story
    origin: str


def data_folder() -> Path | None:
    """The folder that the environment variable LM2_DATA_DIR names; None when it is unset or not there."""
    named = os.environ.get("LM2_DATA_DIR")
    return Path(named) if named and Path(named).is_dir() else None


def real_stories(task: int, sets: Sequence[str] = ("en",)) -> tuple[Story, ...]:
    """Held-out stories of a task from some sets of the data folder's bAbI training files; () without a data folder.

    The last tenth of each training file, which no bundled model was trained on. Stories that occur twice word for word
    count once.
    """
    folder = data_folder()
    if folder is None:
        return ()
    by_lines: dict[object, Story] = {}
    for name in sets:
        for file in sorted((folder / "babi").glob(f"babi-v1.2-{name}-train.*"))[:1]:
            try:
                by_lines |= {story.lines: story for story in _held_out(file, state(file), name, task)}
            except NoSuchTaskError:  # as published with some data folders, en-10k lacks the longest files
                continue
    return tuple(by_lines.values())


@lru_cache(maxsize=32)
def _held_out(file: Path, _state: State, folder: str | None, task: int) -> tuple[Story, ...]:
    """`found`: the file's state, so that another one in its place is read again."""
    return split(read(file, task=task, folder=folder))[1]


def stories_in(path: Path, task: int) -> tuple[Story, ...]:
    """The stories of a folder or archive that a model may be asked about: those of test files if there are any, else
    the held-out tenth of training files; of `en` where there are several sets. Raises BabiError."""
    return _stories_in(path, task, files_state(path))


@lru_cache(maxsize=64)
def _stories_in(path: Path, task: int, _state: State) -> tuple[Story, ...]:
    sources = [path]
    if path.is_dir() and not next(path.rglob("qa*.txt"), None):  # archive by archive, the largest first
        sources = sorted(path.glob("*.tar.*"), key=lambda file: -file.stat().st_size) or [path]
    problem = BabiError(f"{path} holds no stories")
    for source in sources:
        for folder in (None, "en"):
            try:
                every = read(source, task=task, folder=folder)
            except BabiError as error:
                problem = error
                continue
            tests = tuple(story for story in every if story.id.rpartition(":")[0].endswith("_test"))
            return tests or split(every)[1]
    raise problem


def files_state(path: Path) -> State:
    """The state of a file, or of all files in a folder: part of the key of what is remembered of them."""
    return state(*sorted(path.rglob("*"))) if path.is_dir() else state(path)


def origin() -> State:
    """The state of the data folder's stories: part of the key of what is remembered of them. () without a data
    folder."""
    folder = data_folder()
    return () if folder is None else state(folder / "babi")


def pick(task: int, index: int) -> Picked:
    """Story `index` of a task: a real one where the data folder has one, else the simulator's with that seed.

    Raises ValueError for a task outside 1..10, and for an index outside the real stories.
    """
    _check(task)
    stories = real_stories(task)
    if not stories:
        return Picked(story=simulate(task, seed=index).story, origin=f"simulated story of qa{task}, seed {index}")
    if not 0 <= index < len(stories):
        raise ValueError(f"qa{task} has {len(stories)} held-out stories, 0..{len(stories) - 1}, and none at {index}")
    return Picked(story=stories[index], origin=f"bAbI story {stories[index].id}, held out from training")


def held_out(task: int, count: int) -> tuple[Story, ...]:
    """`count` stories that no bundled model was trained on: of en-10k's bAbI training file the last tenth, then of
    en's.

    Stories that occur twice word for word count once. Without a data folder they are the simulator's, seeds 0, 1, ...

    Raises ValueError for a task outside 1..10, for fewer than 1 story, and for more than there are.
    """
    if count < 1:
        raise ValueError(f"at least 1 story must be asked for, not {count}")
    _check(task)
    held = real_stories(task, _EVERY_SET)
    if not held and count > MOST_SIMULATED:
        raise ValueError(f"at most {MOST_SIMULATED:,} stories are simulated, not {shown(count)}")
    held = held or tuple(simulate(task, seed=seed).story for seed in range(count))
    if count > len(held):
        raise ValueError(f"qa{task} has {len(held)} held-out stories, not {count}")
    return held[:count]


def questions(task: int, count: int) -> tuple[Prompt, ...]:
    """`count` questions about held-out stories, each in a segment of its own: the last one of every story, then the one
    before it, and so on.

    Raises ValueError for a task outside 1..10, for fewer than 1 question, and for more than there are.
    """
    every = every_question(task, count)
    if count > len(every):
        story_count = len({prompt.group for prompt in every})
        raise ValueError(f"the {story_count} held-out stories of qa{task} have {len(every)} questions, not {count}")
    return every[:count]


def every_question(task: int, count: int) -> tuple[Prompt, ...]:
    """All questions about held-out stories, in the order of `questions`; of simulated stories, those of `count`
    stories.

    Raises ValueError for a task outside 1..10, and for fewer than 1 question.
    """
    if count < 1:
        raise ValueError(f"at least 1 question must be asked, not {count}")
    _check(task)
    all_stories = real_stories(task, _EVERY_SET) or held_out(task, count)
    return tuple(
        ask(story, story.questions[-1 - back])
        for back in range(max(len(story.questions) for story in all_stories))
        for story in all_stories
        if back < len(story.questions)
    )


def _check(task: int) -> None:
    if task not in TASKS:
        raise ValueError(f"there are stories of qa{TASKS[0]} to qa{TASKS[-1]}, not of qa{shown(task)}")
