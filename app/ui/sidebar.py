"""The sidebar: which checkpoint, on which device, reading which text, asked which questions."""

import streamlit as st

from app.choices import context
from app.choices.context import Context
from app.choices.selection import TextChoice, TextKind, TextSource
from app.server import cache, sets
from app.ui import set_choice, state, widgets
from lm2.files import decode_text
from lm2.tasks import stories
from lm2.tasks.simulator import simulate
from lm2.weights.bundled import bundled_names

SOURCES = {
    TextSource.STORY: "Story",
    TextSource.SIMULATED: "Simulated",
    TextSource.QUESTION: "Question",
    TextSource.PASTED: "Text",
    TextSource.FILE: "File",
}
_KINDS = {
    TextKind.OWN_SEGMENT: "one question, in a segment of its own",
    TextKind.SAME_TEXT: "one question, after the facts",
    TextKind.WHOLE_STORY: "the story as written, all questions answered",
}
EXAMPLE = "Mary moved to the bathroom. John went to the hallway. Where is Mary?"


def render(*, asking: bool = False) -> None:
    """Draw the sidebar; every choice goes into the selection. `asking`: for a screen that asks the questions of a set,
    which are chosen first there."""
    with st.sidebar:
        if asking:
            _questions()
        with st.expander("Model", expanded=True, icon=":material/memory:"):
            _model()
        with st.expander("Context", expanded=True, icon=":material/article:"):
            _SOURCE_WIDGETS[widgets.buttons("What the model reads", "text.source", show=SOURCES.__getitem__)]()
        if not asking:
            _questions()


def _questions() -> None:
    with st.expander("Questions", expanded=True, icon=":material/quiz:"):
        set_choice.choose()


def _model() -> None:
    widgets.select_or_type(
        "Checkpoint",
        "model.checkpoint",
        bundled_names(),
        help="A bundled checkpoint, or the path of a folder (ours or a Hugging Face Llama or Qwen2), a .gguf file, or a"
        " .pt file of the released code, if the server's owner allows it.",
    )
    left, right = st.columns(2)
    widgets.select("Device", "model.device", help="auto is CUDA, then MPS, then CPU.", at=left)
    widgets.select("Numbers", "model.dtype", at=right)
    about = "Tokens the model sees at once; 0 uses the checkpoint's own."
    widgets.number("Segment length (tokens)", "model.length", help=about)
    about = "Whether a token that marks its beginning stands in front of the text; auto is as the tokenizer has it."
    widgets.select("Begin-of-text token", "model.bos", help=about)
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
    last = (len(stories.real_stories(state.current().text.task)) or 10_000) - 1
    widgets.number("Story", "text.index", 0, last, help=f"0 to {last}.")
    _question()


def _simulated() -> None:
    _task()
    widgets.number("Seed", "text.seed")
    if state.current().text.task != 4:  # the stories of task 4 are two statements and a question
        widgets.slider("Statements", "text.statements")
    _question()


def _task() -> None:
    widgets.select("bAbI task", "text.task", show=set_choice.task_name)


def _question() -> None:
    kind = widgets.select("Asked as", "text.asked", show=_KINDS.__getitem__)
    if kind is not TextKind.WHOLE_STORY:
        widgets.number("Question", "text.question", help="Counted from 0; -1 is the last.")


def _item() -> None:
    about = "Number of the question in the set that is chosen under Questions, counted from 0."
    widgets.number("Question", "text.item", help=about)


def _pasted() -> None:
    widgets.text_area("Text", "text.pasted", placeholder=EXAMPLE)
    _explain_link("text.pasted")


def _file() -> None:
    about = f"At most {context.MAX_CHARACTERS:,} characters."
    widgets.upload("Text file (.txt, UTF-8)", "text.uploaded", "txt", _text_of, help=about)
    _explain_link("text.uploaded")


def _explain_link(field: str) -> None:
    if not state.fits_url(field):
        st.caption(
            "This text is too long to be part of a link. A copied link holds a reference to it, which only"
            " this server understands, while it runs."
        )


def _text_of(content: bytes) -> str:
    """An uploaded file's text. Raises ValueError if it is not text, or too long."""
    return context.of_text(decode_text(content, "the file"), "uploaded file").text


_SOURCE_WIDGETS = {
    TextSource.STORY: _story,
    TextSource.SIMULATED: _simulated,
    TextSource.QUESTION: _item,
    TextSource.PASTED: _pasted,
    TextSource.FILE: _file,
}


def context_of(choice: TextChoice) -> Context:
    """The chosen text. Raises ValueError if something is missing or wrong."""
    if choice.source is TextSource.PASTED:
        return context.of_text(choice.pasted, "pasted text")
    if choice.source is TextSource.FILE:
        if not choice.uploaded:
            raise ValueError("No file yet. Upload a .txt file in the sidebar, or choose a story.")
        return context.of_text(choice.uploaded, "uploaded file")
    if choice.source is TextSource.QUESTION:
        return _question_of_set(choice.item)
    if choice.source is TextSource.STORY:
        pick = stories.pick(choice.task, choice.index)
        story, origin = pick.story, pick.origin
    else:
        statements = None if choice.task == 4 else choice.statements
        questions = None if statements is None else min(5, statements)
        story = simulate(choice.task, seed=choice.seed, statements=statements, questions=questions).story
        origin = f"simulated story of qa{choice.task}, seed {choice.seed}"
    if choice.asked is TextKind.WHOLE_STORY:
        return context.of_story(story, origin)
    count = len(story.questions)
    if not -count <= choice.question < count:
        raise ValueError(
            f"This story has questions 0 to {count - 1}, and none at {choice.question}. Choose another question."
        )
    return context.of_question(story, choice.question, origin, own_segment=choice.asked is TextKind.OWN_SEGMENT)


def _question_of_set(item: int) -> Context:
    questions = state.current().questions
    asked = sets.first(questions.set, max(questions.count, item + 1))
    if item >= len(asked):
        raise ValueError(f"{questions.set} has questions 0 to {len(asked) - 1:,}, and none at {item:,}. Choose another")
    prompt = asked.prompts[item]
    context.of_text(prompt.text, "")  # as long as any other text may be
    return context.of_prompt(prompt, f"question {item} of {asked.about}")
