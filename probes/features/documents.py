"""The choice of documents to read, their questions, and what the documents have in common."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lm2.files import read_text
from lm2.serialize import Plain
from lm2.shown import shown
from lm2.tasks import stories
from lm2.tasks.babi import ask
from lm2.tasks.babilong import PROMPT_TOKENS, Library, length_tokens, mix
from lm2.tasks.prompt import Prompt
from lm2.tasks.simulator import simulate
from lm2.tasks.world import OPPOSITE, understand
from lm2.text.tokens import BREAK, Tokenizer

_CHARACTERS = 10
"""Characters of a book per token of a length: about twice as many as are read."""


class Origin(Enum):
    """Where stories come from."""

    SIMULATED = "simulated"
    """From the simulator, with seeds from the documents' seed on; each with its last question."""
    HELD_OUT = "held out"
    """bAbI stories that no bundled model was trained on: the last question of each, then the one before it, and so on.
    Without a data folder they are simulated, with seeds from 0 on."""


class Document(NamedTuple):
    """A question with the text that it is about."""

    prompt: Prompt
    shared: tuple[str, ...]
    """Names of what it may share with others: story and, if they count, passage and template."""


@dataclass(frozen=True, kw_only=True)
class Documents(Plain):
    """A choice of documents: a story, alone or hidden in a book, and a question in a segment of its own."""

    tasks: tuple[int, ...] = (1,)
    """bAbI tasks, of 1 to 10."""
    count: int = 200
    """Documents of each task."""
    origin: Origin = Origin.SIMULATED
    seed: int = 0
    """For simulated stories, and for the places of facts in a book."""
    length: str | None = None
    """Tokens of facts and book together, as BABILong counts them ("4k"); None: no book."""
    templates: bool = False
    """Whether documents that differ only in names are one group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.tasks) - set(stories.TASKS))
        if unknown or not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"tasks must be different, from {stories.TASKS[0]} to {stories.TASKS[-1]}, and at least one, not"
                f" {shown(self.tasks)}"
            )
        if self.count < 1 or self.seed < 0:
            raise ValueError(
                f"there must be at least 1 document of each task, and a seed of at least 0, not {self.count} and"
                f" {self.seed}"
            )
        if self.count > stories.MOST_SIMULATED:
            raise ValueError(
                f"there are at most {stories.MOST_SIMULATED:,} documents of each task, not {shown(self.count)}"
            )
        if self.length is not None and length_tokens(self.length) <= PROMPT_TOKENS:
            raise ValueError(
                f"a length must leave more than {PROMPT_TOKENS} tokens for facts and book, not {self.length}"
            )

    @property
    def words(self) -> str:
        """Such as "200 simulated stories of each of qa1, qa2"."""
        book = f" among {self.length} tokens of a book" if self.length else ""
        return (
            f"{self.count} {self.origin.value} stories of each of {', '.join(f'qa{task}' for task in self.tasks)}{book}"
        )

    def load(self, tokenizer: Tokenizer) -> tuple[Document, ...]:
        """The documents, task by task. `tokenizer` counts the tokens of a length.

        Raises ValueError if there are too few questions, if stories are longer than the length, and for a length
        without books.
        """
        prompts = [prompt for task in self.tasks for prompt in self._prompts(task)]
        shared = [[prompt.group for prompt in prompts]]
        if self.length is not None:
            prompts, passages = _among_books(prompts, self.length, self.seed, tokenizer)
            shared.append(passages)
        if self.templates:
            known = names(prompts)
            shared.append([template(prompt, known) for prompt in prompts])
        return tuple(map(Document, prompts, zip(*shared)))

    def _prompts(self, task: int) -> Sequence[Prompt]:
        if self.origin is Origin.HELD_OUT:
            return stories.questions(task, self.count)
        simulated = (simulate(task, seed=seed).story for seed in range(self.seed, self.seed + self.count))
        return [ask(story, story.questions[-1]) for story in simulated]


def names(prompts: Iterable[Prompt]) -> frozenset[str]:
    """Every person, place and object that a statement names."""
    statements = {text for prompt in prompts for text in prompt.statements}
    return frozenset(word for text in statements for word in understand(text).words) - set(OPPOSITE)


def without_names(text: str, known: frozenset[str]) -> str:
    """A sentence with "_" instead of names."""
    return re.sub(r"\w+", lambda word: "_" if word[0] in known else word[0], text)


def template(prompt: Prompt, known: frozenset[str]) -> str:
    """The sentences of a document without names."""
    return " ".join(without_names(text, known) for text in (*prompt.statements, prompt.question))


def _among_books(
    prompts: Sequence[Prompt], length: str, seed: int, tokenizer: Tokenizer
) -> tuple[list[Prompt], list[str]]:
    """The same questions with their facts hidden in books, and the passage of each.

    Passages do not overlap, and documents take them in turn: if there are fewer passages than documents, documents of
    one passage share their background and are one group. A passage that is too short continues from anywhere within
    it.
    """
    folder = stories.data_folder()
    if folder is None or not (folder / "books" / "test").is_dir():
        raise ValueError(
            f"documents of {length} tokens need books: set LM2_DATA_DIR to a folder with books/test, or leave out the"
            " length"
        )
    tokens = length_tokens(length)
    characters = _CHARACTERS * tokens
    passages = [*_passages(folder / "books" / "test", characters).items()][: len(prompts)]
    if not passages:
        raise ValueError(
            f"no book in {folder / 'books' / 'test'} has the {characters:,} characters of a passage for {length} tokens"
        )
    libraries = [Library({name: text}, tokenizer) for name, text in passages]
    mixed = []
    for i, prompt in enumerate(prompts):
        mixture = mix(prompt, tokens, libraries[i % len(libraries)], tokenizer, seed=seed)
        start = len(mixture.text) + len(BREAK)
        span = (start, start + len(prompt.question))
        text = mixture.text + BREAK + prompt.question
        mixed.append(replace(prompt, text=text, statement_spans=mixture.fact_spans, question_span=span))
    return mixed, [passages[i % len(passages)][0] for i in range(len(prompts))]


def _passages(folder: Path, characters: int) -> dict[str, str]:
    """Every book of a folder in pieces of so many characters, by name and number; the rest at its end is not used."""
    texts = {
        file.name.partition(".")[0]: read_text(file)
        for file in sorted([*folder.glob("*.txt"), *folder.glob("*.txt.xz")])
    }
    return {
        f"{name}:{start // characters}": text[start : start + characters]
        for name, text in texts.items()
        for start in range(0, len(text) - characters + 1, characters)
    }
