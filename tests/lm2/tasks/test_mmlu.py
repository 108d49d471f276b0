"""Laws of lm2.tasks.mmlu: what is read, how it is asked, and what an accuracy is compared with. With LM2_DATA_DIR, also
over the real files."""

import csv
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli.main import main
from lm2.intervals import rate
from lm2.runs.likelihood import log_likelihoods
from lm2.tasks.mmlu import (
    LETTERS,
    SUBJECTS,
    Category,
    ChoiceQuestion,
    ChoiceResult,
    MmluError,
    Split,
    Subject,
    ask,
    examine,
    prompt,
    read,
    tally,
)
from lm2.weights.checkpoint import Checkpoint

ROWS = [[f"Question {at}?", "one", "two", "three", "four", LETTERS[at % 4]] for at in range(6)]


def put(folder: Path, subject: str = "anatomy", part: str = "val", rows: list[list[str]] = ROWS) -> Path:
    path = folder / part / f"{subject}_{part}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two subjects: one has five examples and six questions, the other six and two."""
    for subject, examples, questions in (("anatomy", 5, 6), ("college_physics", 6, 2)):
        put(tmp_path / "mmlu", subject, "dev", ROWS[:examples])
        put(tmp_path / "mmlu", subject, "val", ROWS[:questions])
    return tmp_path / "mmlu"


def test_an_archive_reads_as_the_folder_it_holds(folder: Path, tmp_path: Path) -> None:
    for mode, name in (("w:xz", "a.tar.xz"), ("w:gz", "a.tar.gz"), ("w", "a.tar")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(folder, "data")
        assert read(tmp_path / name, Split.VAL) == read(folder, Split.VAL)


def test_subjects_come_by_name_with_their_first_five_examples(folder: Path) -> None:
    found = read(folder, Split.VAL)
    counts = [(subject.name, len(subject.examples), len(subject.questions)) for subject in found]
    assert counts == [("anatomy", 5, 6), ("college_physics", 5, 2)]
    assert found[0].questions[1] == ChoiceQuestion(
        text="Question 1?", choices=("one", "two", "three", "four"), answer="B"
    )


def test_fields_may_hold_commas_quotes_and_line_breaks(folder: Path) -> None:
    row = ['Which\r\nof these, or "none"?', "a,b", "c\nd", "", "é", "D"]
    put(folder, rows=[row])
    question = read(folder, Split.VAL)[0].questions[0]
    assert [question.text, *question.choices, question.answer] == row


def test_the_split_is_the_one_asked_for(folder: Path) -> None:
    put(folder, part="test", rows=ROWS[:3])
    assert [(subject.name, len(subject.questions)) for subject in read(folder, Split.TEST)] == [("anatomy", 3)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [["Question?", "one", "two", "three", "D"]],
            r"anatomy_val\.csv:1: 5 columns ending in \['D'\]; expected question, four choices",
        ),
        ([*ROWS[:2], [*ROWS[0][:5], "E"]], r"anatomy_val\.csv:3: 6 columns ending in \['E'\]"),
        ([[]], r"anatomy_val\.csv:1: 0 columns"),
    ],
)
def test_a_row_that_is_no_question_is_refused_with_its_place(folder: Path, rows: list[list[str]], said: str) -> None:
    put(folder, rows=rows)
    with pytest.raises(MmluError, match=said):
        read(folder, Split.VAL)


def test_what_is_not_there_or_not_readable_is_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MmluError, match="no such file or folder"):
        read(tmp_path / "nowhere", Split.VAL)
    with pytest.raises(MmluError, match=r"no questions of the split 'test'; expected files named SUBJECT_test\.csv"):
        read(folder, Split.TEST)
    (tmp_path / "a.tar.xz").write_bytes(b"no archive")
    with pytest.raises(MmluError, match="not readable as an archive"):
        read(tmp_path / "a.tar.xz", Split.VAL)
    put(folder, "alchemy")
    with pytest.raises(MmluError, match="'alchemy' is none of MMLU's 57 subjects"):
        read(folder, Split.VAL)
    (folder / "val" / "alchemy_val.csv").unlink()
    put(folder, "astronomy")
    with pytest.raises(MmluError, match=r"0 worked examples of astronomy; expected 5 in astronomy_dev\.csv"):
        read(folder, Split.VAL)
    put(folder / "again", "astronomy")
    with pytest.raises(MmluError, match="a second astronomy_val.csv"):
        read(folder, Split.VAL)
    (folder / "val" / "anatomy_val.csv").write_bytes(b"\xff")
    with pytest.raises(MmluError, match="byte 0xff at 0 is not UTF-8"):
        read(folder, Split.VAL)


def test_a_prompt_is_header_five_examples_and_the_question_up_to_the_answer(folder: Path) -> None:
    subject = read(folder, Split.VAL)[1]
    shown = prompt(subject, subject.questions[1])
    assert shown.startswith(
        "The following are multiple choice questions (with answers) about college physics.\n\n"
        "Question 0?\nA. one\nB. two\nC. three\nD. four\nAnswer: A\n\nQuestion 1?"
    )
    assert shown.endswith("\nAnswer: A\n\nQuestion 1?\nA. one\nB. two\nC. three\nD. four\nAnswer:")
    assert shown.count("Answer: ") == 5


def test_the_letter_chosen_is_the_likeliest_behind_the_prompt(checkpoint: Checkpoint, folder: Path) -> None:
    subject = read(folder, Split.VAL)[1]
    question = subject.questions[0]
    worth = [
        log_likelihoods(checkpoint, [(prompt(subject, question), f" {letter}")])[0].log_probability
        for letter in LETTERS
    ]
    found = ask(checkpoint, subject, question)
    assert (found.subject, found.answer, found.predicted) == ("college_physics", "A", LETTERS[worth.index(max(worth))])


def test_every_question_is_asked_and_counted_in_its_two_categories(gated: Checkpoint, folder: Path) -> None:
    heard: list[int] = []
    report = examine(gated, read(folder, Split.VAL), on_question=heard.append)
    assert heard == list(range(1, 9))
    assert report.overall.rate.n == 8
    counts = {category: found.rate.n for category, found in report.by_category.items()}
    assert counts == {Category.STEM: 2, Category.OTHERS: 6, Category.COLLEGE: 2, Category.GENERAL_KNOWLEDGE: 6}
    with pytest.raises(ValueError, match="no question"):
        examine(gated, [])


def test_a_constant_letter_is_as_good_as_its_share_of_the_answers() -> None:
    asked = [
        ChoiceResult(subject="anatomy", answer=answer, predicted=predicted)
        for answer, predicted in ("AB", "DD", "DD", "CD")
    ]
    found = tally(asked)
    assert found.constants == {"A": 0.25, "B": 0.0, "C": 0.25, "D": 0.5}
    assert found.best_constant == "D"
    assert (found.rate.n, found.rate.accuracy) == (4, 0.5)
    always = tally([replace(one, predicted="D") for one in asked])
    assert always.rate.accuracy == always.constants["D"]
    assert found.rate == rate([False, True, True, False], list("abcd")), "questions are groups of their own"


def test_fifty_seven_subjects_are_in_one_group_and_one_level_each() -> None:
    assert len(SUBJECTS) == 57
    counts = Counter(category for pair in SUBJECTS.values() for category in pair)
    assert [counts[category] for category in Category] == [18, 13, 12, 14, 14, 6, 4, 33]


def test_the_command_line_asks_the_first_questions_of_each_subject(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["mmlu", "--checkpoint", "babi-lm2", "--data", str(folder), "--samples", "1"]
    assert main([*order, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert printed["all"]["n"] == 2 and printed["STEM"]["n"] == 1
    assert printed["all"]["always"] == {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
    assert printed["all"]["low"] <= printed["all"]["accuracy"] <= printed["all"]["high"]
    assert main(order) == 0
    table = capsys.readouterr().out
    assert "babi-lm2, MMLU val, 5-shot" in table and "A 100.0%" in table
    for mistake in (
        [*order[:-1], "0"],
        [*order, "--split", "test"],
        ["mmlu", "--checkpoint", "babi-lm2", "--data", "nowhere"],
    ):
        assert main(mistake) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.fixture(scope="session")
def real(data_dir: Path) -> tuple[Subject, ...]:
    archive = data_dir / "mmlu" / "mmlu-dev-val.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    return read(archive, Split.VAL)


def test_the_real_files_have_the_published_counts_and_our_categories_are_those_of_their_table(
    real: tuple[Subject, ...], data_dir: Path
) -> None:
    table = json.loads((data_dir / "mmlu" / "subjects.json").read_text())
    assert {subject.name: len(subject.questions) for subject in real} == {
        name: row["val"] for name, row in table.items()
    }
    for name, row in table.items():
        group, level = (category.value.lower() for category in SUBJECTS[name])
        assert group.rstrip("s") == row["group"].partition(" (")[0].lower().rstrip("s")
        assert level.removesuffix(" knowledge") == row["level_by_name"]


def test_the_categories_are_spelt_as_the_papers_columns(data_dir: Path) -> None:
    with (data_dir.parent / "paper" / "mmlu.csv").open(encoding="utf-8") as file:
        assert [row["category"] for row in csv.DictReader(file)][:-1] == [category.value for category in Category]


def test_real_questions_can_be_asked(gated: Checkpoint, real: tuple[Subject, ...]) -> None:
    report = examine(gated, [replace(subject, questions=subject.questions[:1]) for subject in real[:2]])
    assert report.overall.rate.n == 2
