"""MMLU: four-choice questions on 57 subjects, asked five-shot and scored by the likelihood of the letters.

Hendrycks et al., ICLR 2021, arXiv 2009.03300. The files are dev/SUBJECT_dev.csv (the worked examples),
val/SUBJECT_val.csv and test/SUBJECT_test.csv: CSV without a header row; question, choices A to D, the right letter.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from lm2.files import read_bytes
from lm2.intervals import Rate, rate
from lm2.shown import shown
from lm2.tasks.chance import best_constant
from lm2.text.archives import MOST_MEMBER_BYTES, read_members

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint

LETTERS = ("A", "B", "C", "D")
SHOTS = 5
"""Worked examples before each question."""

_FILE = re.compile(r"(\w+)_(dev|val|test)\.csv")


class MmluError(ValueError):
    """A file is not readable as MMLU; the message says where (file:row), what, and what was expected."""


class Split(Enum):
    """Which questions are asked; dev holds the worked examples."""

    VAL = "val"
    TEST = "test"


class Category(Enum):
    """The LM2 paper's eight columns: every subject is in one of the first four and in one of the last four.

    The paper does not say how it assigned subjects. The first four are the benchmark's own groups; the last four go by
    the subject's name, which is our guess at theirs.
    """

    STEM = "STEM"
    HUMANITIES = "Humanities"
    SOCIAL_SCIENCES = "Social Sciences"
    OTHERS = "Others"
    HIGH_SCHOOL = "High School"
    COLLEGE = "College"
    PROFESSIONAL = "Professional"
    GENERAL_KNOWLEDGE = "General Knowledge"


_GROUPS = {
    Category.STEM: (
        "abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics",
        "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology", "high_school_chemistry", "high_school_computer_science", "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics", "machine_learning",
    ),
    Category.HUMANITIES: (
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law",
        "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy", "prehistory",
        "professional_law",
        "world_religions",
    ),
    Category.SOCIAL_SCIENCES: (
        "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
        "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
        "public_relations",
        "security_studies", "sociology", "us_foreign_policy",
    ),
    Category.OTHERS: (
        "anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing",
        "medical_genetics", "miscellaneous", "nutrition", "professional_accounting", "professional_medicine",
        "virology",
    ),
}  # fmt: skip
_LEVELS = {"high_school_": Category.HIGH_SCHOOL, "college_": Category.COLLEGE, "professional_": Category.PROFESSIONAL}

SUBJECTS: dict[str, tuple[Category, Category]] = {
    subject: (
        group,
        next((level for start, level in _LEVELS.items() if subject.startswith(start)), Category.GENERAL_KNOWLEDGE),
    )
    for group, subjects in _GROUPS.items()
    for subject in subjects
}
"""The two categories of each of the 57 subjects."""


@dataclass(frozen=True, kw_only=True)
class ChoiceQuestion:
    text: str
    choices: tuple[str, ...]
    """Four, A to D."""
    answer: str
    """A letter."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject's questions of a split, and the examples that go before them."""

    name: str
    examples: tuple[ChoiceQuestion, ...]
    questions: tuple[ChoiceQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """One question and what a model chose."""

    subject: str
    answer: str
    predicted: str
    """The letter of the largest likelihood; of equal ones, the first."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How often a model was right on some questions, and how often it would have been without looking at them."""

    rate: Rate
    constants: dict[str, float]
    """For each letter, the accuracy of always answering it on the same questions."""

    @property
    def best_constant(self) -> str:
        return best_constant(self.constants)


@dataclass(frozen=True, kw_only=True)
class MmluReport:
    overall: Tally
    by_category: dict[Category, Tally]
    """Those in which anything was asked."""


def read(path: str | Path, split: Split) -> tuple[Subject, ...]:
    """The subjects of a folder or tar archive, by name. An archive is read in memory; nothing is unpacked.

    Raises MmluError, also when the split is not there and for a subject that has fewer than five worked examples.
    """
    path = Path(path)
    if not path.exists():
        raise MmluError(
            f"{path}: there is no such file or folder; expected MMLU's CSV files in a folder or tar archive"
        )
    files: dict[str, dict[str, tuple[ChoiceQuestion, ...]]] = {"dev": {}, split.value: {}}
    for where, name, data in _folder(path) if path.is_dir() else _archive(path):
        subject, _, part = name.removesuffix(".csv").rpartition("_")
        if part not in files:
            continue
        if subject not in SUBJECTS:
            raise MmluError(f"{where}: {subject!r} is none of MMLU's {len(SUBJECTS)} subjects")
        if subject in files[part]:
            raise MmluError(f"{where}: a second {name} under {path}; expected one of each name")
        files[part][subject] = tuple(_parse(data, where))
    if not files[split.value]:
        raise MmluError(
            f"{path}: no questions of the split {split.value!r}; expected files named SUBJECT_{split.value}.csv"
        )
    for subject in files[split.value]:
        examples = len(files["dev"].get(subject, ()))
        if examples < SHOTS:
            raise MmluError(f"{path}: {examples} worked examples of {subject}; expected {SHOTS} in {subject}_dev.csv")
    return tuple(
        Subject(name=name, examples=files["dev"][name][:SHOTS], questions=questions)
        for name, questions in sorted(files[split.value].items())
    )


def _folder(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(where, name, bytes) of the files that are named as MMLU's."""
    for file in sorted(path.rglob("*.csv")):
        if _FILE.fullmatch(file.name):
            try:
                yield str(file), file.name, read_bytes(file, MOST_MEMBER_BYTES)
            except ValueError as error:
                raise MmluError(str(error)) from error


def _archive(path: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        members = read_members(path, lambda name: bool(_FILE.fullmatch(name.name)))
    except ValueError as error:
        raise MmluError(str(error)) from error
    for name, data in members:
        yield f"{path}/{name}", name.name, data


def _parse(data: bytes, where: str) -> Iterator[ChoiceQuestion]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MmluError(
            f"{where}: byte {data[error.start]:#04x} at {error.start} is not UTF-8; expected UTF-8 text"
        ) from error
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), start=1):
            if len(row) != 6 or row[5] not in LETTERS:
                raise MmluError(
                    f"{where}:{number}: {len(row)} columns ending in {shown(row[-1:])}; expected question, four"
                    " choices, A to D"
                )
            yield ChoiceQuestion(text=row[0], choices=tuple(row[1:5]), answer=row[5])
    except csv.Error as error:
        raise MmluError(f"{where}: not readable as CSV: {error}") from error


def prompt(subject: Subject, question: ChoiceQuestion) -> str:
    """The header, the worked examples with their answers, and the question up to "Answer:"; a blank and a letter
    follow."""
    examples = "".join(f"{_shown(example)} {example.answer}\n\n" for example in subject.examples)
    header = f"The following are multiple choice questions (with answers) about {subject.name.replace('_', ' ')}."
    return f"{header}\n\n{examples}{_shown(question)}"


def _shown(question: ChoiceQuestion) -> str:
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return f"{question.text.strip()}{choices}\nAnswer:"


def ask(
    checkpoint: "Checkpoint", subject: Subject, question: ChoiceQuestion, *, segment_length: int | None = None
) -> ChoiceResult:
    """Which letter is likeliest after the prompt. Raises ValueError as `run` does."""
    from lm2.runs.likelihood import log_likelihoods  # torch: the questions alone need none

    asked = prompt(subject, question)
    likelihoods = log_likelihoods(
        checkpoint, [(asked, f" {letter}") for letter in LETTERS], segment_length=segment_length
    )
    worth = dict(zip(LETTERS, (likelihood.log_probability for likelihood in likelihoods)))
    return ChoiceResult(subject=subject.name, answer=question.answer, predicted=max(worth, key=worth.__getitem__))


def examine(
    checkpoint: "Checkpoint",
    subjects: Sequence[Subject],
    *,
    segment_length: int | None = None,
    on_question: Callable[[int], None] | None = None,
) -> MmluReport:
    """Ask every question of every subject and sum up. `on_question` hears how many were asked.

    Raises ValueError when there is no question, and as `run` does.
    """
    asked = []
    for subject in subjects:
        for question in subject.questions:
            asked.append(ask(checkpoint, subject, question, segment_length=segment_length))
            if on_question is not None:
                on_question(len(asked))
    if not asked:
        raise ValueError("there is no question to ask")
    by_category = {
        category: [result for result in asked if category in SUBJECTS[result.subject]] for category in Category
    }
    return MmluReport(
        overall=tally(asked),
        by_category={category: tally(results) for category, results in by_category.items() if results},
    )


def tally(asked: Sequence[ChoiceResult]) -> Tally:
    """Every question counts as a group of its own: those of a subject share no facts. Raises ValueError when there is
    none."""
    return Tally(
        rate=rate(
            [choice_result.predicted == choice_result.answer for choice_result in asked],
            [str(at) for at in range(len(asked))],
        ),
        constants={
            letter: sum(choice_result.answer == letter for choice_result in asked) / len(asked) for letter in LETTERS
        },
    )
