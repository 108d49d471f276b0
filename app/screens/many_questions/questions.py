"""Questions: the set that is asked wherever many questions are asked, and each of them opened in any screen."""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import streamlit as st

from app.choices.selection import TextSource
from app.server import results, sets
from app.ui import job_panel, panels, progress, say, session, state, widgets
from app.views.study import questions
from lm2.tasks.sets.question_set import parse, write

if TYPE_CHECKING:
    from app.server.jobs import Job
    from lm2.evaluation.cells import Answered
    from lm2.evaluation.tables import Row
    from lm2.tasks.encoded_prompt import EncodedPrompt
    from lm2.tasks.prompt import Prompt
    from lm2.tasks.sets.question_set import QuestionSet
    from lm2.weights.checkpoint import Checkpoint

_SCREENS = {
    "run": "Run",
    "memory": "Memory",
    "gates": "Gates",
    "bank": "Bank",
    "updates": "Updates",
    "ablations": "Ablations",
    "patching": "Patching",
}
"""Those that show one text."""
_OPEN = (
    "The question becomes the text under Context in the sidebar. With the previous and next number there, others of the"
    " set open on the same screen."
)


_MOST_ROWS, _MOST_HEIGHT = 11, 420
"""With more rows, a table scrolls in so many CSS pixels."""
_SCORES = (
    "Greedy continuation up to the answer's end. 95 % intervals, clustered by group. exact: it is an accepted answer;"
    " contains: one stands in it; f1: words shared with one; choice: the answer is likelier, per character, than each"
    " rival. The command below keeps all answers in a folder, which the Benchmark screen opens."
)


def render() -> None:
    st.header("Questions")
    st.write(
        "Experiments, Sweeps, Slots and Probes ask the questions of one set: bAbI's, others that are built in, or"
        " your own file. Choose it under Questions in the sidebar."
    )
    checkpoint = session.open_checkpoint()
    if checkpoint is None or not _without_mistakes():
        return
    asked = job_panel.questions()
    if asked is None:
        return
    try:
        description, encoded = sets.encoded(checkpoint, asked, session.segment_length())
    except ValueError as error:
        say.info("{}.", error)
        return
    left, right = st.columns([1, 1])
    panels.panel(questions.summary(description), "set_summary", "In numbers", at=left)
    panels.panel(questions.answers(asked.prompts), "set_answers", "Answers", at=right, height=260)
    askable = [item for item in encoded if item is not None]
    panels.panel(questions.lengths(askable), "set_lengths", "Lengths", at=right, height=260)
    if description.skipped:
        say.warning("{} cannot be asked {} of them:", checkpoint.name, len(description.skipped))
        st.dataframe({"cannot be asked": list(description.skipped)}, key="set_skipped")
    st.subheader("Every question")
    panels.selectable_table(
        questions.items(asked.prompts, encoded),
        "set_items",
        lambda item: state.update("text", item=item),
        _height(len(asked)),
    )
    number = min(state.current().text.item, len(asked) - 1)
    _question(asked.prompts[number], encoded[number], number)
    _answers(checkpoint, asked)
    _hand_out(asked)


def _height(rows: int) -> int | str:
    return "content" if rows <= _MOST_ROWS else _MOST_HEIGHT


def _without_mistakes() -> bool:
    """Whether the set's file has none; those that it has are shown by line."""
    name = state.current().questions.set
    try:
        file = sets.file_read(name)
    except ValueError as error:
        say.info("{}.", error)
        return False
    if file is None or not file.mistakes:
        return True
    path = parse(name)
    assert isinstance(path, Path), "a set with a file"
    say.warning(
        "{} has {} beside {} that can be read. Correct these lines and upload the file again: nothing asks it before.",
        path.name,
        progress.counted(len(file.mistakes), "mistake"),
        progress.counted(len(file.prompts), "question"),
    )
    panels.table(questions.mistakes(file.mistakes, path), "set_mistakes", _height(len(file.mistakes)))
    return False


def _question(prompt: Prompt, encoded: EncodedPrompt | None, number: int) -> None:
    """The chosen question, and buttons that open it."""
    say.subheader("Question {}", number)
    if encoded is None:
        say.info("This model cannot be asked “{}”: the table above says why.", prompt.question)
        return
    panels.strip(questions.strip(encoded), "strip_set", None)
    notes = [f"Accepted: {', '.join(prompt.answers)}", f"group {prompt.group}"]
    if prompt.rivals:
        notes.append(f"against {', '.join(prompt.rivals)}")
    if prompt.labels:
        names = sorted({f"{label.name} = {label.value}" for label in prompt.labels})
        notes.append(f"labels {', '.join(names)}")
    say.caption("{}.", "; ".join(notes))
    with st.container(horizontal=True):
        for screen, title in _SCREENS.items():
            if st.button(say.words("Open in {}", title), key=f"open_{screen}", help=_OPEN):
                state.update("text", source=TextSource.QUESTION, item=number)
                state.update("donor", source=TextSource.QUESTION, index=-1)
                state.update("run", token=None)
                state.open_screen(screen)


def _answers(checkpoint: Checkpoint, asked: QuestionSet) -> None:
    """What the model answers to all of them, and how often it is right."""
    st.subheader("What the model answers")
    length = session.segment_length()

    def work(job: Job) -> tuple[list[Answered], list[Row]]:
        from lm2.evaluation.evaluate import ask_set

        return ask_set(checkpoint, asked, length, job.report)

    key = results.key_of(checkpoint, "answers", asked.digest, length)
    answered = job_panel.result(key, work, f"Ask all {len(asked):,}", "question")
    if answered is None:
        return
    items, rows = answered
    if not rows:
        return
    left, right = st.columns([1, 1])
    panels.panel(questions.scores(rows), "set_scores", "Right", _SCORES, at=left)
    panels.panel(questions.replies(items), "set_replies", "Question by question", at=right, height=_MOST_HEIGHT)
    command = ("lm2", "eval", "--models", checkpoint.name, "--sets", asked.name, "--n", str(len(asked)))
    st.code(f"{shlex.join(command)} --out FOLDER", language="bash")


def _hand_out(asked: QuestionSet) -> None:
    """The questions as files, to be looked at and edited."""
    st.subheader("Take them with you")
    say.caption(
        "{}, SHA-256 {}. Edit a file and upload it under Questions, or name it on the command line:"
        " `lm2 experiment policies --questions FILE`.",
        asked.name,
        asked.digest[:12],
    )
    with st.container(horizontal=True):
        for ending, mime in (("jsonl", "application/jsonl"), ("csv", "text/csv")):
            widgets.download(
                say.words("Questions ({})", ending.upper()),
                lambda ending=ending: _written(asked, ending),
                f"questions.{ending}",
                mime,
            )


def _written(asked: QuestionSet, ending: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"questions.{ending}"
        write(asked.prompts, path)
        return path.read_bytes()
