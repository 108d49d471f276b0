"""Laws of question sets: one string names a set, a file holds what it was written from, and a mistake is told with its
line."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from lm2.tasks import stories
from lm2.tasks.sets import files
from lm2.tasks.sets.question_set import AsksQuestions, file_of, parse, pinned, questions, write

NAMES = (
    "babi:qa1",
    "simulated:qa2?people=Anna,Paul&statements=12",
    "babilong:qa1@0k",
    "pairs:?n=4",
    "passkey:?length=1k&text=filler",
    "passkey:?depth=0.5&text=filler",
)
ROW = {"context": "Ada wrote notes. Bob read them.", "question": "Who wrote?", "answers": "Ada"}


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set is made from its name alone."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


def put(folder: Path, *rows: object, name: str = "mine.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_its_set_again_and_more_questions_begin_with_the_same(name: str) -> None:
    few, more = questions(name, 3), questions(name, 5)
    assert few.prompts == more.prompts[:3] and len(few) == 3
    assert pinned(few.name) == few.name and questions(few.name, 3).digest == few.digest != more.digest


@pytest.mark.parametrize("name", NAMES)
def test_spans_hold_what_they_name_and_facts_are_among_the_statements(name: str) -> None:
    for prompt in questions(name, 6).prompts:
        assert prompt.text[slice(*prompt.question_span)] == prompt.question and prompt.question_span[1] == len(
            prompt.text
        )
        assert all(index in range(len(prompt.statements)) for index in prompt.support)
        assert all(statement.strip() == statement != "" for statement in prompt.statements)
        assert prompt.answer not in prompt.rivals
        facts = [prompt.statements[index] for index in prompt.support]
        if name.startswith(("pairs", "passkey")):
            assert len(facts) == 1 and f"{prompt.answer}." in facts[0]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_a_set_that_is_written_and_read_asks_the_same(name: str, ending: str, tmp_path: Path) -> None:
    made = questions(name, 4)
    write(made.prompts, tmp_path / f"set.{ending}")
    read = questions(str(tmp_path / f"set.{ending}"))
    assert [files.record(prompt) for prompt in read.prompts] == [files.record(prompt) for prompt in made.prompts]
    assert read.digest == made.digest
    assert [prompt.support for prompt in read.prompts] == [prompt.support for prompt in made.prompts]


def test_a_folder_of_datasets_is_a_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([ROW, ROW | {"answers": "Bob"}])
    rows.save_to_disk(str(tmp_path / "folder"), num_shards=2)
    assert [prompt.answer for prompt in questions(str(tmp_path / "folder")).prompts] == ["Ada", "Bob"]
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(ValueError, match="several splits: name the folder of one of train"):
        questions(str(tmp_path / "splits"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not readable as a folder of `datasets`"):
        questions(str(tmp_path / "empty"))


def test_the_places_of_a_story_are_labels_from_the_statement_that_tells_them_on() -> None:
    (prompt,) = questions("simulated:qa1", 1).prompts
    for label in prompt.labels:
        told = [text for text, (_, end) in zip(prompt.statements, prompt.statement_spans) if end - 1 <= label.start]
        name = label.name.removeprefix("place of ")
        assert f" {label.value}." in next(text for text in reversed(told) if text.startswith(name))


def test_depth_is_where_the_number_is_told() -> None:
    for depth in (0.0, 0.5, 1.0):
        for prompt in questions(f"passkey:?length=1k&text=filler&depth={depth}", 3).prompts:
            assert prompt.support[0] / (len(prompt.statements) - 1) == pytest.approx(depth, abs=0.02)


def test_a_fact_is_a_text_of_the_context_or_its_characters(tmp_path: Path) -> None:
    rows = [
        ROW | {"facts": facts} for facts in ("Ada wrote notes.", ["Ada wrote notes."], [0, 16], [[0, 16], [17, 31]])
    ]
    assert [prompt.support for prompt in questions(put(tmp_path, *rows)).prompts] == [(0,), (0,), (0,), (0, 1)]


def test_columns_have_other_names_too_and_equal_contexts_are_one_group(tmp_path: Path) -> None:
    squad = {
        "context": "Ada wrote.",
        "question": "Who?",
        "answers": {"text": ["Ada", "Ada L."], "answer_start": [0, 0]},
    }
    other = {"passage": "Ada wrote.", "query": "Who else?", "target": "nobody", "group": "b"}
    first, second, third = questions(put(tmp_path, squad, squad | {"question": "Who wrote?"}, other)).prompts
    assert first.answers == ("Ada", "Ada L.") and first.group == second.group != third.group


@pytest.mark.parametrize("answer", ["right", "B", 1, "1"])
def test_a_choice_is_named_by_itself_its_letter_or_its_index(answer: object, tmp_path: Path) -> None:
    (prompt,) = questions(
        put(tmp_path, {"question": "Which?", "choices": ["wrong", "right"], "answer": answer})
    ).prompts
    assert (prompt.answers, prompt.rivals) == (("right",), ("wrong",))


WRONG = {
    "there is no question": {"answers": "Ada"},
    "there is no answer": {"question": "Who?"},
    "the question is empty": ROW | {"question": " "},
    "stands 0 times": ROW | {"facts": "Eve"},
    "stands 2 times": ROW | {"context": "Ada. Ada.", "facts": "Ada"},
    r"\[start, end\] within its 31 characters": ROW | {"facts": [[3, 99]]},
    "two names of one column": ROW | {"answer": "Bob"},
    "each once": ROW | {"answers": ["Ada", "Ada"]},
    "is an answer and a rival": ROW | {"rivals": ["Ada"]},
    "none of the 2 choices": {"question": "Which?", "choices": ["a", "b"], "answer": "c"},
    r"expected \[name, value, start, end\]": ROW | {"labels": [["who", "Ada"]]},
    "outside the 42 characters": ROW | {"labels": [["who", "Ada", 0, 99]]},
    "expected a text, such as '7'": ROW | {"answers": 7},
    "is not JSON": "{",
    "expected an object": "[]",
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_told_with_its_line_and_nothing_is_guessed(mistake: str, tmp_path: Path) -> None:
    path = put(tmp_path, ROW, "", WRONG[mistake])
    with pytest.raises(ValueError, match=rf"mine\.jsonl:3: .*{mistake}"):
        questions(path)
    read = files.read(Path(path))
    assert len(read.prompts) == 1 and len(read.mistakes) == 1


def test_a_line_of_csv_counts_the_lines_of_its_cells(tmp_path: Path) -> None:
    path = put(tmp_path, "context,question,answer", '"one\ntwo",Who?,Ada', "x,,Ada", "x,Who?", name="mine.csv")
    assert [mistake.removeprefix(path)[:3] for mistake in files.read(Path(path)).mistakes] == [":4:", ":5:"]


def test_a_file_that_has_changed_is_not_taken_for_the_one_that_was_named(tmp_path: Path) -> None:
    name = pinned(put(tmp_path, ROW))
    assert questions(name).prompts[0].answer == "Ada" and file_of(name) == str(tmp_path / "mine.jsonl")
    put(tmp_path, ROW | {"answers": "Bob"})
    with pytest.raises(ValueError, match=r"mine\.jsonl holds something else than when it was named"):
        questions(name)
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(ValueError, match=r"mine\.jsonl: there is no such file"):
        questions(name)


@pytest.mark.parametrize("name", ["passkey:?text={}", "babilong:qa1@1k?books={}"])
def test_a_built_in_set_that_reads_a_path_of_the_users_is_pinned_as_a_file_is(name: str, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was a long and quiet day in the house by the old river. " * 200)
    bare = name.format(book)
    whole = pinned(bare)
    assert whole.startswith(f"{bare}&sha256=") and pinned(whole) == whole and parse(whole) == parse(bare)
    assert questions(bare, 2).prompts == questions(whole, 2).prompts and questions(bare, 2).name == whole
    assert (_Spec(questions=bare).questions, _Spec(questions=whole).questions) == (bare, whole)
    book.write_text("It was a short and loud night in the hut by the new road on the hill. " * 200)
    assert len(questions(bare, 2)) == 2
    with pytest.raises(ValueError, match=r"book\.txt holds something else than when it was named"):
        questions(whole, 2)
    book.unlink()
    with pytest.raises(ValueError, match=r"book\.txt: there is no such file"):
        questions(bare, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pairs:?sha256=12", "sha256 is the digest of a path"),
        ("passkey:?text=filler&sha256=12", "sha256 is the digest of a path"),
        ("", "a question set is"),
        ("babi:1", "followed by qa1 to qa10"),
        ("babi:qa11", "qa1 to qa10, not qa11"),
        ("babilong:qa1", "such as qa1@4k"),
        ("pairs:?n=0", "n from 1 to 64"),
        ("pairs:?n=x", "n is a number"),
        ("pairs:?m=1", "pairs: has n, seed"),
        ("pairs:?n=1&n=2", "each once"),
        ("pairs:?n", "n is a number"),
        ("passkey:?depth=2", "depth from 0 to 1"),
        ("passkey:", "LM2_DATA_DIR"),
        ("mmlu:cooking", "none of its 57 subjects"),
        ("mine.txt", "no such file"),
    ],
)
def test_what_is_no_name_of_a_set_is_told(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        questions(name, 2)


def test_more_questions_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 1 questions, not 2"):
        questions(put(tmp_path, ROW), 2)


def test_nothing_is_read_to_know_what_a_name_stands_for() -> None:
    assert parse("not/there.jsonl?sha256=00") == Path("not/there.jsonl")


@dataclass(frozen=True, kw_only=True)
class _Spec(AsksQuestions):
    seed: int = 0


def test_a_specification_of_babis_questions_is_written_as_before_and_others_by_name() -> None:
    old = {"seed": 0, "task": 3, "questions": 12}
    spec = _Spec.from_json(old)
    assert spec == _Spec(questions="babi:qa3", count=12) and spec.to_json() == old
    new = _Spec(questions="pairs:?seed=0&n=4")
    assert (
        new.to_json() == {"seed": 0, "questions": "pairs:?n=4", "count": 64} and _Spec.from_json(new.to_json()) == new
    )
    assert [prompt.group for prompt in spec.question_set().prompts] == [
        prompt.group for prompt in stories.questions(3, 12)
    ]
