"""The sidebar: which checkpoint, on which device, reading which text."""

import streamlit as st

from app.choices import context
from app.choices.context import Context
from app.choices.selection import TextChoice, TextKind, TextSource
from app.server import cache
from app.ui import state, widgets
from lm2.files import decode_text
from lm2.tasks import stories
from lm2.tasks.simulator import simulate
from lm2.weights.bundled import bundled_names

_SOURCES = {
    TextSource.STORY: "Story",
    TextSource.SIMULATED: "Simulated",
    TextSource.PASTED: "Text",
    TextSource.FILE: "File",
}
_ASKED = {
    TextKind.OWN_SEGMENT: "one question, in a segment of its own",
    TextKind.SAME_TEXT: "one question, after the facts",
    TextKind.WHOLE_STORY: "the story as written, all questions answered",
}
_NAMES = {
    1: "one fact",
    2: "two facts",
    3: "three facts",
    4: "two-argument relations",
    5: "three-argument relations",
    6: "yes/no",
    7: "counting",
    8: "lists",
    9: "negation",
    10: "indefinite knowledge",
}
EXAMPLE = "Mary moved to the bathroom. John went to the hallway. Where is Mary?"


def render() -> None:
    """Draw the sidebar; every choice goes into the selection."""
    with st.sidebar:
        with st.expander("Model", expanded=True, icon=":material/memory:"):
            _model()
        with st.expander("Context", expanded=True, icon=":material/article:"):
            _SOURCE_WIDGETS[widgets.buttons("What the model reads", "text.source", show=_SOURCES.__getitem__)]()


def _model() -> None:
    widgets.known_or_typed(
        "Checkpoint",
        "model.checkpoint",
        bundled_names(),
        help="A bundled checkpoint, or the path of a folder (ours or a Hugging Face Llama), a .gguf file, or a"
        " .pt file of the released code, if the server's owner allows it.",
    )
    left, right = st.columns(2)
    widgets.select("Device", "model.device", help="auto is CUDA, then MPS, then CPU.", at=left)
    widgets.select("Numbers", "model.dtype", at=right)
    about = "Tokens the model sees at once; 0 uses the checkpoint's own."
    widgets.number("Segment length (tokens)", "model.length", help=about)
    widgets.upload(
        "Your own checkpoint, a folder as .zip",
        "model.checkpoint",
        "zip",
        lambda content: cache.uploads().add(content),
        help="config.json, model.safetensors, tokenizer.json (ours or a Hugging Face Llama's); or a released .pt with"
        " tokenizer.json; or a .gguf.",
    )


def _story() -> None:
    _task()
    real = stories.real_stories(state.current().text.task)
    last = len(real) - 1 if real else 9_999
    widgets.number("Story", "text.index", 0, last, help=f"0 to {last}.")
    _question()


def _simulated() -> None:
    _task()
    widgets.number("Seed", "text.seed")
    if state.current().text.task != 4:  # the stories of task 4 are two statements and a question
        widgets.slider("Statements", "text.statements")
    _question()


def _task() -> None:
    widgets.select("bAbI task", "text.task", show=task_name)


def task_name(task: int) -> str:
    return f"qa{task}: {_NAMES[task]}"


def _question() -> None:
    asked = widgets.select("Asked as", "text.asked", show=_ASKED.__getitem__)
    if asked is not TextKind.WHOLE_STORY:
        widgets.number("Question", "text.question", help="Counted from 0; -1 is the last.")


def _pasted() -> None:
    widgets.area("Text", "text.pasted", placeholder=EXAMPLE)
    _tell_how_it_is_linked("text.pasted")


def _file() -> None:
    about = f"At most {context.MAX_CHARACTERS:,} characters."
    widgets.upload("Text file (.txt, UTF-8)", "text.uploaded", "txt", _text_of, help=about)
    _tell_how_it_is_linked("text.uploaded")


def _tell_how_it_is_linked(field: str) -> None:
    if not state.fits_url(field):
        st.caption(
            "This text is too long to be part of a link. A copied link holds a reference to it, which only"
            " this server understands, while it runs."
        )


def _text_of(content: bytes) -> str:
    """An uploaded file's text. Raises ValueError for one that is none, or too long."""
    return context.of_text(decode_text(content, "the file"), "uploaded file").text


_SOURCE_WIDGETS = {
    TextSource.STORY: _story,
    TextSource.SIMULATED: _simulated,
    TextSource.PASTED: _pasted,
    TextSource.FILE: _file,
}


def context_of(chosen: TextChoice) -> Context:
    """The text that is chosen. Raises ValueError saying what is missing or wrong."""
    if chosen.source is TextSource.PASTED:
        return context.of_text(chosen.pasted, "pasted text")
    if chosen.source is TextSource.FILE:
        if not chosen.uploaded:
            raise ValueError("No file yet. Upload a .txt file in the sidebar, or choose a story.")
        return context.of_text(chosen.uploaded, "uploaded file")
    if chosen.source is TextSource.STORY:
        picked = stories.pick(chosen.task, chosen.index)
        story, origin = picked.story, picked.origin
    else:
        statements = None if chosen.task == 4 else chosen.statements
        questions = None if statements is None else min(5, statements)
        story = simulate(chosen.task, seed=chosen.seed, statements=statements, questions=questions).story
        origin = f"simulated story of qa{chosen.task}, seed {chosen.seed}"
    if chosen.asked is TextKind.WHOLE_STORY:
        return context.of_story(story, origin)
    count = len(story.questions)
    if not -count <= chosen.question < count:
        raise ValueError(
            f"This story has questions 0 to {count - 1}, and none at {chosen.question}. Choose another question."
        )
    return context.of_question(story, chosen.question, origin, own_segment=chosen.asked is TextKind.OWN_SEGMENT)
