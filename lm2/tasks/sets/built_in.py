"""The question sets that are built in, by their kinds: what each makes its questions of, and which options it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self
from urllib.parse import quote

from lm2.shown import shown
from lm2.tasks import mmlu, stories
from lm2.tasks.babi import ask
from lm2.tasks.babilong import fits, length_tokens, mix
from lm2.tasks.books import length_tokenizer, read_library
from lm2.tasks.prompt import Label, Prompt
from lm2.tasks.sets.files import sentences
from lm2.tasks.simulator import simulate
from lm2.tasks.world import World, track
from lm2.text.tokens import Tokenizer

DEFAULT_COUNT = 64
"""Questions of a built-in set where no number is given."""


@dataclass(frozen=True, kw_only=True)
class BuiltIn(ABC):
    """A set made from its options alone, or from the data folder. Its first fields may stand before the question mark
    of a name; the others are its options."""

    kind: ClassVar[str]
    form: ClassVar[str]
    """How `what` is written."""
    written: ClassVar[tuple[str, ...]] = ()
    """The fields that `what` holds."""
    summary: ClassVar[str]

    @classmethod
    def of(cls, what: str, options: Mapping[str, str]) -> Self:
        """Raises ValueError for what is not written as `form` says, and for options of another kind or size."""
        return cls(**cls.split(what), **{name: _value(cls, name, text) for name, text in options.items()})

    @classmethod
    def split(cls, what: str) -> dict[str, object]:
        """The fields that stand before the question mark."""
        if what:
            raise ValueError(f"{cls.kind}: is followed by nothing or by ?option=value, not by {shown(what)}")
        return {}

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The default of each option."""
        return {field.name: field.default for field in fields(cls) if field.name not in cls.written}

    @property
    def what(self) -> str:
        return ""

    @property
    def name(self) -> str:
        """With the options that are not the usual ones, in one order."""
        options = [
            f"{option}={quote(_written(value), safe=',/.@+-')}"
            for option, default in self.options().items()
            if (value := getattr(self, option)) != default
        ]
        return f"{self.kind}:{self.what}" + (f"?{'&'.join(options)}" if options else "")

    @property
    @abstractmethod
    def about(self) -> str:
        """What is asked, in words."""

    @property
    def own_path(self) -> str | None:
        """The user's file or folder that an option names; None where nothing is read but the data folder."""
        return None

    @abstractmethod
    def prompts(self, count: int) -> Iterator[Prompt]:
        """At least `count` questions, or as many as there are."""


@dataclass(frozen=True, kw_only=True)
class _OfTask(BuiltIn, ABC):
    """About stories of one of bAbI's tasks."""

    form, written = "qa1 to qa10", ("task",)
    task: int = 1

    def __post_init__(self) -> None:
        if self.task not in stories.TASKS:
            raise ValueError(
                f"{self.kind}: has the tasks qa{stories.TASKS[0]} to qa{stories.TASKS[-1]}, not qa{shown(self.task)}"
            )

    @classmethod
    def split(cls, what: str) -> dict[str, object]:
        digits = what.removeprefix("qa")
        if digits == what or not digits.isdecimal() or not digits.isascii():
            raise ValueError(f"{cls.kind}: is followed by {cls.form}, not by {shown(what)}")
        return {"task": int(digits[:9])}

    @property
    def what(self) -> str:
        return f"qa{self.task}"


@dataclass(frozen=True, kw_only=True)
class Babi(_OfTask):
    """bAbI's own stories that no bundled model was trained on; without a data folder, simulated ones."""

    kind, summary = "babi", "held-out stories of bAbI; without a data folder, simulated ones"

    @property
    def about(self) -> str:
        origin = "held out from training" if stories.real_stories(self.task) else "simulated, seeds from 0"
        return f"bAbI's qa{self.task}, {origin}"

    def prompts(self, count: int) -> Iterator[Prompt]:
        prompts = stories.every_question(self.task, count)
        return (labelled(prompt, track(prompt.statements)) for prompt in prompts)


@dataclass(frozen=True, kw_only=True)
class Simulated(_OfTask):
    """Simulated stories, each asked its last question."""

    kind, summary = "simulated", "stories of our simulator, with names of your own"
    seed: int = 0
    statements: int | None = None
    people: tuple[str, ...] | None = None
    places: tuple[str, ...] | None = None
    objects: tuple[str, ...] | None = None

    @property
    def about(self) -> str:
        return f"simulated stories of qa{self.task}, seeds from {self.seed}"

    def prompts(self, count: int) -> Iterator[Prompt]:
        for seed in range(self.seed, self.seed + count):
            simulation = simulate(
                self.task,
                seed=seed,
                statements=self.statements,
                people=self.people,
                places=self.places,
                objects=self.objects,
            )
            prompt = ask(simulation.story, simulation.story.questions[-1])
            yield labelled(prompt, simulation.worlds)  # the last question ends the story


@dataclass(frozen=True, kw_only=True)
class Babilong(_OfTask):
    """bAbI's facts among the sentences of a book, as BABILong mixes them (arXiv 2406.10149)."""

    kind, summary = "babilong", "bAbI's facts hidden in books, at any length"
    form, written = "a task and a length, such as qa1@4k", ("task", "length")
    length: str = "0k"
    seed: int = 0
    books: str | None = None
    """A text or folder of texts; None, the data folder's books."""

    def __post_init__(self) -> None:
        super().__post_init__()
        length_tokens(self.length)

    @classmethod
    def split(cls, what: str) -> dict[str, object]:
        task, at, length = what.partition("@")
        if not at:
            raise ValueError(f"{cls.kind}: is followed by {cls.form}, not by {shown(what)}")
        return {**super().split(task), "length": length}

    @property
    def what(self) -> str:
        return f"qa{self.task}@{self.length}"

    @property
    def own_path(self) -> str | None:
        return self.books

    @property
    def about(self) -> str:
        return f"facts of qa{self.task} in books, {self.length} tokens"

    def prompts(self, count: int) -> Iterator[Prompt]:
        length = length_tokens(self.length)
        tokenizer = length_tokenizer()
        library = read_library(_books(self.kind, "books", self.books), tokenizer) if length else None
        for prompt in stories.every_question(self.task, count):
            if fits(prompt, length):
                mixture = mix(prompt, length, library, tokenizer, seed=self.seed)
                yield prompt.in_context(mixture.text, mixture.fact_spans)


@dataclass(frozen=True, kw_only=True)
class Mmlu(BuiltIn):
    """MMLU's questions, asked five-shot; the letters stand against each other (arXiv 2009.03300)."""

    kind, summary = "mmlu", "MMLU's multiple choice, five-shot, from the data folder or a path"
    form, written = "a subject, or nothing for all", ("subject",)
    subject: str = ""
    part: str = "val"
    """Or "test"."""
    path: str | None = None
    """A folder or archive; None, the data folder's."""

    def __post_init__(self) -> None:
        if self.subject and self.subject not in mmlu.SUBJECTS:
            raise ValueError(f"mmlu: {shown(self.subject)} is none of its {len(mmlu.SUBJECTS)} subjects")
        if self.part not in ("val", "test"):
            raise ValueError(f"mmlu: has the parts val and test, not {shown(self.part)}")

    @classmethod
    def split(cls, what: str) -> dict[str, object]:
        return {"subject": what}

    @property
    def what(self) -> str:
        return self.subject

    @property
    def own_path(self) -> str | None:
        return self.path

    @property
    def about(self) -> str:
        return f"MMLU, {self.subject.replace('_', ' ') or 'all subjects'}"

    def prompts(self, count: int) -> Iterator[Prompt]:
        path = _data(self.kind, "path", self.path, "mmlu")
        if path.is_dir() and not next(path.rglob("*.csv"), None):
            path = next(iter(sorted(path.glob("*.tar.*"))), path)
        for subject in mmlu.read(path, mmlu.Split(self.part)):
            for number, question in enumerate(subject.questions):
                if self.subject in ("", subject.name):
                    yield _choice(mmlu.prompt(subject, question), question.answer, f"{subject.name}:{number}")


def _choice(text: str, answer: str, group: str) -> Prompt:
    return Prompt.after(
        "", text, answers=(answer,), group=group, rivals=tuple(letter for letter in mmlu.LETTERS if letter != answer)
    )


@dataclass(frozen=True, kw_only=True)
class Pairs(BuiltIn):
    """Associative recall: each of `n` things has a colour, and one is asked for. For any language model."""

    kind, form, summary = "pairs", "nothing", "associative recall: things and their colours, for any language model"
    n: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n <= len(_THINGS):
            raise ValueError(f"pairs: has n from 1 to {len(_THINGS)}, not {shown(self.n)}")

    @property
    def about(self) -> str:
        return f"associative recall, {self.n} pairs"

    def prompts(self, count: int) -> Iterator[Prompt]:
        for index in range(count):
            rng = Random(f"pairs:{self.n}:{self.seed}:{index}")
            things = rng.sample(_THINGS, self.n)
            colours = [rng.choice(_COLOURS) for _ in things]
            sentences_told = [f"The {thing} is {colour}." for thing, colour in zip(things, colours)]
            asked = rng.randrange(self.n)
            context = " ".join(sentences_told)
            yield Prompt.after(
                context,
                f"The {things[asked]} is",
                answers=(colours[asked],),
                group=f"pairs:{self.seed}:{index}",
                statement_spans=sentences(context),
                support=(asked,),
                rivals=tuple(colour for colour in _COLOURS if colour != colours[asked]),
            )


@dataclass(frozen=True, kw_only=True)
class Passkey(BuiltIn):
    """A number that is told once in a long text, and asked for at its end."""

    kind, form, summary = "passkey", "nothing", "a number in a long text, at a given depth"
    length: str = "1k"
    depth: float | None = None
    """Where in the text it is told, from 0 to 1; None, everywhere in turn."""
    seed: int = 0
    text: str = "books"
    """What it stands in: "books", the data folder's; "filler", five sentences again and again; or the path of a text
    or of a folder of texts."""

    def __post_init__(self) -> None:
        if not length_tokens(self.length):
            raise ValueError(f"passkey: has a length above 0, not {self.length}")
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise ValueError(f"passkey: has a depth from 0 to 1, not {self.depth}")

    @property
    def own_path(self) -> str | None:
        return None if self.text in ("books", "filler") else self.text

    @property
    def about(self) -> str:
        depth = "at all depths in turn" if self.depth is None else f"at depth {self.depth:g}"
        return f"a passkey in {self.length} tokens, {depth}"

    def prompts(self, count: int) -> Iterator[Prompt]:
        tokenizer, tokens = length_tokenizer(), length_tokens(self.length)
        books = None if self.text == "books" else self.text
        library = None if self.text == "filler" else read_library(_books(self.kind, "text", books), tokenizer)
        for index in range(count):
            rng = Random(f"passkey:{self.length}:{self.seed}:{index}")
            key = str(rng.randrange(10_000, 100_000))
            needle = f"The passkey is {key}."
            around = (
                _filler(tokens, tokenizer)
                if library is None
                else [sentence for sentence, _ in library.passage(tokens, rng)[0]]
            )
            depth = index % 11 / 10 if self.depth is None else self.depth
            place = round(depth * len(around))
            before, context = " ".join(around[:place]), " ".join([*around[:place], needle, *around[place:]])
            fact = len(before) + bool(before)
            statements = (*sentences(before), (fact, fact + len(needle)))
            after = fact + len(needle)
            statements += tuple((first + after, end + after) for first, end in sentences(context[after:]))
            yield Prompt.after(
                context,
                "The passkey is",
                answers=(key,),
                group=f"passkey:{self.seed}:{index}",
                statement_spans=statements,
                support=(len(sentences(before)),),
            )


BUILT_IN: dict[str, type[BuiltIn]] = {kind.kind: kind for kind in (Babi, Simulated, Babilong, Mmlu, Pairs, Passkey)}
"""By the word that begins their names."""

_COLOURS = ("black", "blue", "brown", "gold", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow")
_THINGS = (
    "bag", "ball", "bed", "bell", "boat", "book", "bottle", "bowl", "box", "bridge", "brush", "bus", "cap",
    "car", "card", "chair", "clock", "coat", "cup", "desk", "door", "dress", "drum", "fence", "flag", "flower",
    "fork", "gate", "glass", "glove", "hat", "house", "jar", "key", "kite", "lamp", "leaf", "letter", "map",
    "mirror", "pen", "phone", "plate", "pot", "ring", "roof", "rope", "rug", "shirt", "shoe", "sign", "stone",
    "table", "tent", "tie", "tower", "toy", "train", "tree", "truck", "van", "wall", "wheel", "window",
)  # fmt: skip
_FILLER = (
    "The grass is green and the sky is blue.",
    "The sun is out over the hills all day.",
    "Here we go along the road once more.",
    "There and back again is a long way.",
    "The river runs on to the sea and does not stop.",
)


def labelled(prompt: Prompt, worlds: Sequence[World]) -> Prompt:
    """A prompt of bAbI with where each person and object is, from the end of the statement that tells it on. `worlds`:
    after each of its statements."""
    labels: list[Label] = []
    ends = [end - 1 for _, end in prompt.statement_spans]  # from its full stop on a statement has been told
    for world, start, end in zip(worlds, ends, [*ends[1:], len(prompt.text)]):
        places = [*world.people.items(), *world.objects.items()]
        labels += [Label(f"place of {name}", at.place, start, end) for name, at in places if at.place is not None]
    return replace(prompt, labels=tuple(labels))


def _filler(tokens: int, tokenizer: Tokenizer) -> list[str]:
    """Sentences again and again, of about so many tokens."""
    lengths = [len(tokenizer.encode_after(f" {sentence}")) for sentence in _FILLER]
    count = max(1, round(len(_FILLER) * tokens / sum(lengths)))
    return [_FILLER[index % len(_FILLER)] for index in range(count)]


def _books(kind: str, option: str, path: str | None) -> Path:
    return _data(kind, option, path, "books/test")


def _data(kind: str, option: str, path: str | None, inside: str) -> Path:
    """A path of the user's, or what the data folder has. Raises ValueError where there is no path and nothing in it."""
    if path is not None:
        return Path(path)
    folder = stories.data_folder()
    if folder is None or not (folder / inside).exists():
        raise ValueError(f"{kind}: needs {inside} in the folder that LM2_DATA_DIR names, or {option}=PATH")
    return folder / inside


def _written(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _value(kind: type[BuiltIn], name: str, text: str) -> object:
    """An option's value from its text, by its field's type."""
    annotation = {field.name: str(field.type) for field in fields(kind)}[name].removesuffix(" | None")
    if annotation == "str":
        return text
    if annotation.startswith("tuple"):
        return tuple(text.split(","))
    try:
        return {"int": int, "float": float}[annotation](text)
    except ValueError:
        raise ValueError(f"{kind.kind}: {name} is a number, not {shown(text)}") from None
