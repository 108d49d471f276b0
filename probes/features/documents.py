"""The choice of documents to read, their questions, and what the documents have in common."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from lm2.files import read_text
from lm2.serialize import LARGEST_INT, Plain, as_int, none_empty, parse_field, within
from lm2.shown import shown
from lm2.tasks import stories
from lm2.tasks.babilong import PROMPT_TOKENS, length_tokens, mix
from lm2.tasks.books import Library
from lm2.tasks.prompt import Prompt
from lm2.tasks.sets.built_in import Babi, BuiltIn, Simulated
from lm2.tasks.sets.question_set import parse, path_read, pinned, questions, spelled
from lm2.tasks.world import OPPOSITE, understand
from lm2.text.tokens import Tokenizer

_COUNT = 200
_HELD_OUT = "held out"
ORIGINS = (_HELD_OUT, "simulated")
"""Of bAbI's stories, in the form of JSON without names of sets."""
_CHARACTERS = 10
"""Characters of a book per token of a length: about twice as many as are read."""


class Document(NamedTuple):
    """A question with the text that it is about."""

    prompt: Prompt
    shared: tuple[str, ...]
    """Names of what it may share with others: group and, if they count, passage and template."""


@dataclass(frozen=True, kw_only=True)
class Documents(Plain):
    """A choice of documents: the questions of some sets, each with its context, which may be hidden in a book."""

    questions: tuple[str, ...] = ("simulated:qa1",)
    """Names of question sets, as `lm2.tasks.sets.question_set.questions` takes them."""
    count: int | None = None
    """Questions of each set, from the first on; None: 200, or all if every set is a file."""
    seed: int = 0
    """For the places of facts in a book."""
    length: str | None = None
    """Tokens of facts and book together, as BABILong counts them ("4k"); None: no book. bAbI's stories only."""
    templates: bool = False
    """Whether documents that differ only in names are one group. bAbI's stories only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        none_empty("questions", self.questions)
        sources = [parse(name) for name in self.questions]
        built_in = [source for source in sources if isinstance(source, BuiltIn)]
        self.freeze(questions=tuple(map(spelled, self.questions)))
        if len(set(self.questions)) < len(self.questions):
            raise ValueError(f"questions names a set twice: {shown(self.questions)}")
        if self.count is None and built_in:
            self.freeze(count=_COUNT)
        if self.count is not None:
            within("count", self.count, 1, stories.MOST_SIMULATED)
        if self.length is None:  # nothing is drawn, and the seed is written as it was when it was that of the stories
            self.freeze(seed=next((source.seed for source in built_in if isinstance(source, Simulated)), self.seed))
        elif length_tokens(self.length) <= PROMPT_TOKENS:
            raise ValueError(
                f"a length must leave more than {PROMPT_TOKENS} tokens for facts and book, not {self.length}"
            )
        within("seed", self.seed, 0, LARGEST_INT)

    def to_json(self) -> dict[str, Any]:
        """Sets of bAbI's stories are written by origin and task, as they were before there were others: what was
        computed of them keeps its digest."""
        values = super().to_json()
        if self._origin is None:
            return values
        return {
            "kind": values["kind"],
            "tasks": [_task(name) for name in self.questions],
            "count": self.count,
            "origin": self._origin,
            **{name: values[name] for name in ("seed", "length", "templates")},
        }

    @classmethod
    def from_json(cls, values: object) -> Self:
        if isinstance(values, Mapping) and "questions" not in values:
            tasks = parse_field("Documents.tasks", tuple[int, ...], values.get("tasks", (1,)))
            seed, origin = as_int("Documents.seed", values.get("seed", 0)), values.get("origin", "simulated")
            if origin not in ORIGINS:
                raise ValueError(f"Documents.origin must be of {sorted(ORIGINS)}, not {shown(origin)}")
            by_name = {name: value for name, value in values.items() if name not in ("tasks", "origin")}
            values = {**by_name, "questions": _sets(origin, tasks, seed)}
        return super().from_json(values)

    @property
    def _origin(self) -> str | None:
        """Where all stories are from, if the form of JSON without names of sets can express the choice."""
        tasks = [task for name in self.questions if (task := _task(name)) is not None]
        return next((origin for origin in ORIGINS if _sets(origin, tasks, self.seed) == self.questions), None)

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files and folders that are read."""
        return tuple(filter(None, map(path_read, self.questions)))

    @property
    def words(self) -> str:
        """Such as "200 simulated stories of each of qa1, qa2"."""
        book = f" among {self.length} tokens of a book" if self.length else ""
        what, names = "questions", self.questions
        if self._origin is not None:
            what, names = f"{self._origin} stories", tuple(f"qa{_task(name)}" for name in names)
        return f"{'all' if self.count is None else self.count} {what} of each of {', '.join(names)}{book}"

    def pinned(self) -> Self:
        """The same choice, with the digests of its files. Raises ValueError as the function `pinned` does."""
        return replace(self, questions=tuple(map(pinned, self.questions)))

    def load(self, tokenizer: Tokenizer) -> tuple[Document, ...]:
        """The documents, set by set. `tokenizer` counts the tokens of a length.

        Raises ValueError as `lm2.tasks.sets.question_set.questions` does, if stories are longer than the length, for a
        length without books, and for a length or templates of documents that are not bAbI's.
        """
        prompts = [prompt for name in self.questions for prompt in questions(name, self.count).prompts]
        shared = [[prompt.group for prompt in prompts]]
        if self.length is not None:
            prompts, passages = _among_books(prompts, self.length, self.seed, tokenizer)
            shared.append(passages)
        if self.templates:
            known = names(prompts)
            shared.append([template(prompt, known) for prompt in prompts])
        return tuple(map(Document, prompts, zip(*shared)))


def _sets(origin: str, tasks: Sequence[int], seed: int) -> tuple[str, ...]:
    """The sets of an origin's stories of each task."""
    return tuple((Babi(task=task) if origin == _HELD_OUT else Simulated(task=task, seed=seed)).name for task in tasks)


def _task(name: str) -> int | None:
    return getattr(parse(name), "task", None)


def check_babi(prompts: Collection[Prompt]) -> None:
    """Raise ValueError for documents that are not bAbI's: what their sentences say is not understood."""
    if any(prompt.task is None for prompt in prompts):
        raise ValueError(
            "places, holders, question types, templates and lengths are those of bAbI's stories, and some of these"
            " documents are others: their targets are answer, fact told, facts told and `label NAME`, the labels of"
            " their set"
        )


def names(prompts: Collection[Prompt]) -> frozenset[str]:
    """Every person, place and object that a statement names. Raises ValueError as `check_babi` does."""
    check_babi(prompts)
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
    check_babi(prompts)
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
        mixed.append(prompt.in_context(mixture.text, mixture.fact_spans))
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
