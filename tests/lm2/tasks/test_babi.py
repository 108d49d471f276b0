"""Laws of lm2.tasks.babi. With LM2_DATA_DIR set, also over the official training archives."""

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from lm2.tasks.babi import Question, Statement, Story, ask, prompts, split, stretch
from lm2.tasks.babi_files import BabiError, read, write
from lm2.text.tokens import BREAK

TEXT = (
    "1 Mary moved to the bathroom.\n"
    "2 John went to the hallway.\n"
    "3 Where is Mary? \tbathroom\t1\n"
    "4 Daniel went back to the hallway.\n"
    "5 Where is Daniel? \thallway\t4\n"
    "1 Sandra travelled to the office.\n"
    "2 Where is Sandra? \toffice\t1\n"
)
NAME = "qa1_single-supporting-fact_train.txt"


def put(folder: Path, text: str = TEXT, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode())
    return folder / name


def pack(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_a_file_gives_its_stories_with_statements_and_questions_in_order(tmp_path: Path) -> None:
    first, second = read(put(tmp_path))
    assert (first.id, second.id) == ("qa1_single-supporting-fact_train:0", "qa1_single-supporting-fact_train:1")
    assert first.task == 1
    assert first.lines[0] == Statement(line=1, text="Mary moved to the bathroom.")
    assert first.questions[1] == Question(line=5, text="Where is Daniel?", answer="hallway", support=(4,))
    assert [s.line for s in first.before(first.questions[0])] == [1, 2]
    assert [s.line for s in first.before(first.questions[1])] == [1, 2, 4]


def test_a_file_of_another_name_has_no_task(tmp_path: Path) -> None:
    assert read(put(tmp_path, name="mine.txt"))[0].task is None


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    plain = read(put(tmp_path / "a"))
    assert read(put(tmp_path / "b", "\ufeff" + TEXT.replace("\n", "\r\n"))) == plain


def test_a_prompt_asks_alone_after_the_statements_above_it(tmp_path: Path) -> None:
    story = read(put(tmp_path))[0]
    second = ask(story, story.questions[1])
    assert (
        second.text
        == "Mary moved to the bathroom. John went to the hallway. Daniel went back to the hallway.\fWhere is Daniel?"
    )
    assert (second.answer, second.support) == ("hallway", (2,))


def test_without_its_own_segment_the_question_follows_a_blank(tmp_path: Path) -> None:
    story = read(put(tmp_path))[0]
    one, two = ask(story, story.questions[0]), ask(story, story.questions[0], own_segment=False)
    assert one.text.replace(BREAK, " ") == two.text
    assert one.question_span == two.question_span


def test_every_span_of_a_prompt_holds_its_statement_or_question(tmp_path: Path) -> None:
    asked = list(prompts(read(put(tmp_path))))
    assert len(asked) == 3
    for prompt in asked:
        told = {statement.text for story in read(put(tmp_path)) for statement in story.statements}
        assert prompt.statements and told.issuperset(prompt.statements)
        start, end = prompt.question_span
        assert prompt.text[start:end] == prompt.question and end == len(prompt.text)


def test_a_question_with_no_statements_above_is_the_whole_text() -> None:
    question = Question(line=1, text="Where is Mary?", answer="nowhere", support=())
    prompt = ask(Story(id="x:0", task=None, lines=(question,)), question)
    assert (prompt.text, prompt.question_span, prompt.statements) == ("Where is Mary?", (0, 14), ())


def test_a_question_of_another_story_is_refused(tmp_path: Path) -> None:
    first, second = read(put(tmp_path))
    with pytest.raises(ValueError, match="train:0 has no question 'Where is Sandra"):
        first.before(second.questions[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x Mary moved.\n", r":1: bad line number 'x'"),
        ("0 Mary moved.\n", r":1: bad line number '0'"),
        ("² Mary moved.\n", r":1: bad line number '²'"),
        ("1 Mary moved.\n\n2 John moved.\n", r":2: bad line number ''"),
        ("2 Mary moved.\n", r":1: the first line has number 2; expected 1"),
        ("1 Mary moved.\n3 John moved.\n2 Mary moved.\n", r":3: line number 2 after 3; expected numbers that rise"),
        ("1 Mary moved.\n2 Where is Mary?\n", r":2: question 'Where is Mary\?' has 0 TAB fields"),
        ("1 Mary moved.\n2 Where is Mary?\tx\n", r":2: question 'Where is Mary\?' has 1 TAB fields"),
        ("1 Mary moved.\n2 Where is Mary?\tx\t2\n", r":2: supporting line '2'; expected the number of a statement"),
        ("1 A.\n2 Where?\tx\t1\n3 Where?\tx\t2\n", r":3: supporting line '2'"),
        ("1 A.\n1 B.\n2 Where?\tx\ty\n", r":3: supporting line 'y'"),
        ("1 Mary\fmoved.\n", r":1: text 'Mary\\x0cmoved.'"),
        ("1 \n", r":1: text ''"),
        ("", r":1: no stories"),
    ],
)
def test_a_bad_line_is_refused_by_file_line_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = put(tmp_path, text)
    with pytest.raises(BabiError, match=re.escape(str(path)) + message):
        read(path)


def test_bytes_that_are_not_utf_8_are_refused_at_their_line(tmp_path: Path) -> None:
    path = tmp_path / "qa1_x.txt"
    path.write_bytes(b"1 Mary moved.\n2 \xff\n")
    with pytest.raises(BabiError, match=r"qa1_x.txt:2: byte 0xff is not UTF-8"):
        read(path)


def test_a_missing_path_and_an_unknown_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BabiError, match="there is no such file or folder"):
        read(tmp_path / "none.txt")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(BabiError, match="expected a .txt file, a folder, or an archive"):
        read(tmp_path / "x.zip")
    (tmp_path / "x.tar.xz").write_bytes(b"no archive")
    with pytest.raises(BabiError, match="x.tar.xz: not readable as an archive"):
        read(tmp_path / "x.tar.xz")


def test_a_folder_and_an_archive_give_the_same_stories_by_task_number(tmp_path: Path) -> None:
    names = ["qa10_b.txt", "qa2_a.txt", "qa1_c.txt"]
    for name in names:
        put(tmp_path / "root" / "tasks" / "en", name=name)
    put(tmp_path / "root" / "tasks", "nothing of ours", name="README.txt")
    inside = {f"tasks/en/{name}": TEXT for name in names} | {"tasks/README.txt": "nothing of ours"}
    stories = read(tmp_path / "root")
    assert [s.task for s in stories] == [1, 1, 2, 2, 10, 10]
    assert read(pack(tmp_path / "a.tar.xz", inside)) == stories == read(pack(tmp_path / "a.tar.gz", inside))
    assert read(tmp_path / "root", task=2) == stories[2:4] == read(tmp_path / "a.tar.xz", task=2)


def test_folder_picks_by_the_exact_path_component(tmp_path: Path) -> None:
    put(tmp_path / "tasks" / "en")
    put(tmp_path / "tasks" / "en-10k", TEXT + TEXT)
    assert len(read(tmp_path / "tasks", folder="en")) == 2
    assert len(read(tmp_path / "tasks", folder="en-10k")) == 4
    assert len(read(tmp_path / "tasks" / "en", folder="en")) == 2
    with pytest.raises(BabiError, match="no file qa1_.*in a folder 'hn'"):
        read(tmp_path / "tasks", task=1, folder="hn")
    with pytest.raises(BabiError, match="same name as .*pick it with folder"):
        read(tmp_path / "tasks")


def test_a_file_of_another_task_than_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BabiError, match="not of task 2"):
        read(put(tmp_path), task=2)


def numbered(count: int, stem: str = "qa1_x") -> tuple[Story, ...]:
    return tuple(Story(id=f"{stem}:{i}", task=1, lines=()) for i in range(count))


@pytest.mark.parametrize(("count", "held"), [(0, 0), (1, 0), (2, 1), (9, 1), (10, 1), (198, 20), (200, 20)])
def test_validation_is_the_last_tenth_of_the_stories_and_at_least_one_of_two(count: int, held: int) -> None:
    stories = numbered(count)
    train, validation = split(stories)
    assert (train, validation) == (stories[: count - held], stories[count - held :])


def test_each_file_gives_its_own_share_to_validation() -> None:
    train, validation = split(numbered(20, "qa1_x") + numbered(30, "qa2_y"))
    assert [s.id for s in validation] == ["qa1_x:18", "qa1_x:19", "qa2_y:27", "qa2_y:28", "qa2_y:29"]
    assert len(train) == 45


def test_a_share_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="validation is 1"):
        split(numbered(3), validation=1.0)


def test_a_stretched_story_keeps_facts_answer_and_support_and_skips_filler_about_the_name(tmp_path: Path) -> None:
    story = read(put(tmp_path))[0]
    filler = ["John moved to the office.", "Daniel moved to the office.", "Sandra went to the garden."]
    longer = stretch(story, story.questions[1], filler, statements=2)
    assert [line.text for line in longer.lines] == [
        "Mary moved to the bathroom.",
        "John went to the hallway.",
        "Daniel went back to the hallway.",
        "John moved to the office.",
        "Sandra went to the garden.",
        "Where is Daniel?",
    ]
    assert [line.line for line in longer.lines] == [1, 2, 3, 4, 5, 6]
    assert longer.id == story.id + "+2"
    assert (longer.questions[0].answer, longer.questions[0].support) == ("hallway", (3,))
    assert ask(longer, longer.questions[0]).support == (2,)


def test_stretching_refuses_too_little_filler_and_other_tasks(tmp_path: Path) -> None:
    story = read(put(tmp_path))[0]
    with pytest.raises(ValueError, match="1 of 2 filler statements leave out Mary; expected at least 2"):
        stretch(story, story.questions[0], ["Mary left.", "John left."], statements=2)
    other = read(put(tmp_path, name="qa6_x.txt"))[0]
    with pytest.raises(ValueError, match="is of task 6; only stories of task 1"):
        stretch(other, other.questions[0], ["John left."], statements=1)


def test_written_stories_read_back_as_they_were_in_the_official_bytes(tmp_path: Path) -> None:
    stories = read(put(tmp_path / "a"))
    write(stories, tmp_path / NAME)
    assert read(tmp_path / NAME) == stories
    assert (tmp_path / NAME).read_text() == TEXT
    assert {p.name for p in tmp_path.iterdir()} == {"a", NAME}


def test_a_text_the_format_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = put(tmp_path)
    for bad in (Statement(line=1, text="a\tb\tc"), Statement(line=1, text="a\n2 b"), Statement(line=2, text="a")):
        with pytest.raises(ValueError, match=NAME):
            write([Story(id="x:0", task=1, lines=(bad,))], path)
    assert path.read_text() == TEXT


DATA = os.environ.get("LM2_DATA_DIR")
ROW = re.compile(
    r"\| `(en(?:-10k)?)/(qa(\d+)_\S+_train)\.txt` \| [\d,]+ \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) "
)


@pytest.mark.skipif(DATA is None, reason="LM2_DATA_DIR is not set")
@pytest.mark.parametrize(
    ("folder", "files", "tasks"),
    # Every file of en; of en-10k the one of fewest lines only, to stay fast (all 19 were checked when this was
    # written).
    [("en", 20, [None]), ("en-10k", 19, [20])],
)
def test_the_official_training_files_have_the_published_counts(
    folder: str, files: int, tasks: list[int | None]
) -> None:
    root = Path(DATA or "") / "babi"
    rows = [m for m in ROW.finditer((root / "README.md").read_text()) if m[1] == folder]
    assert len(rows) == files
    by_file: dict[str, list[Story]] = {}
    for task in tasks:
        for story in read(root / f"babi-v1.2-{folder}-train.tar.xz", folder=folder, task=task):
            by_file.setdefault(story.id.rpartition(":")[0], []).append(story)
    for row in (row for row in rows if row[2] in by_file):
        stories = by_file[row[2]]
        counts = [
            len(stories),
            sum(len(s.statements) for s in stories),
            sum(len(s.questions) for s in stories),
            max(sum(x.line < q.line for x in s.statements) for s in stories for q in s.questions[-1:]),
        ]
        assert counts == [int(row[i].replace(",", "")) for i in range(4, 8)], row[2]
        assert {s.task for s in stories} == {int(row[3])}
