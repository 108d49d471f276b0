"""Other stories than the one that is read: its neighbours, and the donor from which something is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.choices.context import Context
from app.choices.selection import DonorChoice, TextChoice, TextSource
from app.server import sets
from app.ui import say, session, set_choice, sidebar, state, widgets
from app.ui.session import Opened
from lm2.tasks import stories
from lm2.tasks.questions import UnanswerableError, answer
from lm2.tasks.world import WorldError

if TYPE_CHECKING:
    from app.choices.toggles import Toggles
    from lm2.runs.interventions import Intervention

_SOURCES = [TextSource.STORY, TextSource.SIMULATED, TextSource.QUESTION, TextSource.PASTED]
_NUMBER = {TextSource.SIMULATED: "seed", TextSource.QUESTION: "item"}
"""The field of a text that says which of its source it is, if not "index"."""
_TRIED = 50
"""Stories that are searched for one with other answers."""

SEEDS = 1_000_001
_FIRST = "-1 is the first after the recipient that gives another answer to its question, and to its own."


def count(source: TextSource, task: int) -> int:
    """How many stories of a task, or questions of the chosen set, there are to choose from."""
    if source is TextSource.QUESTION:
        questions = state.current().questions
        return len(sets.first(questions.set, questions.count))
    return SEEDS if source is TextSource.SIMULATED else len(stories.real_stories(task)) or 10_000


def neighbours(text: TextChoice, first: int, number: int) -> tuple[TextChoice, ...]:
    """The stories of a text's task, or the questions of its set, that follow it, from the `first` after it on; story 0
    follows the last.

    For a text of the user's own: from the task's first story on.
    """
    if text.source is TextSource.SIMULATED:
        return tuple(replace(text, seed=(text.seed + first + step) % SEEDS) for step in range(number))
    if text.source is TextSource.QUESTION:
        total = count(TextSource.QUESTION, text.task)
        return tuple(replace(text, item=(text.item + first + step) % total) for step in range(number))
    index = text.index if text.source is TextSource.STORY else -1
    total = count(TextSource.STORY, text.task)
    return tuple(replace(text, source=TextSource.STORY, index=(index + first + step) % total) for step in range(number))


def toggled(opened: Opened, toggles: Toggles, new_tokens: int = 0) -> tuple[Intervention, ...]:
    """The interventions of toggles on the open text, and on `new_tokens` tokens that the model writes after it. Raises
    ValueError if they name something that does not exist."""
    from lm2.text.segments import possible_segments

    trace, context, config = opened.trace, opened.context, opened.checkpoint.config
    others = neighbours(replace(state.current().text, question=-1), toggles.other, toggles.borrowed)
    texts = tuple(sidebar.context_of(other).text for other in others)
    segments = trace.segments
    length = trace.spec.segment_length or config.segment_length
    later = len(possible_segments(segments, new_tokens, length, config.segment_end)) - len(segments)
    return toggles.interventions(config, trace.tokens, len(segments), context.statements, texts, later)


def _chosen(text: TextChoice, choice: DonorChoice, recipient: Context) -> TextChoice:
    """The donor that is chosen for a text. Raises ValueError if there is no such story."""
    donor = replace(
        text, source=choice.source, task=choice.task or text.task, question=choice.question, pasted=choice.pasted
    )
    if donor.source is TextSource.PASTED:
        return donor
    if choice.index >= 0:
        return replace(donor, **{_NUMBER.get(donor.source, "index"): choice.index})
    nearest = neighbours(donor, 1, min(_TRIED, count(donor.source, donor.task)))
    return next((story for story in nearest if _differs(sidebar.context_of(story), recipient)), nearest[0])


def _differs(donor: Context, recipient: Context) -> bool:
    """Whether the donor's story gives other answers to the recipient's question and to its own; of texts that are not
    bAbI's, whether the donor has another answer."""
    if not recipient.quizzes or not donor.quizzes:
        return False
    own = recipient.quizzes[-1].answer
    answer = answer_from(donor, recipient)
    if answer is None and state.current().donor.source is not TextSource.QUESTION:
        return False
    return own not in (answer, donor.quizzes[-1].answer)


def answer_from(donor: Context, recipient: Context) -> str | None:
    """What the donor's story answers to the recipient's last question; None if it does not say."""
    if not recipient.quizzes:
        return None
    end = donor.quizzes[-1].end if donor.quizzes else len(donor.text)
    statements = [donor.text[start:stop] for start, stop in donor.statements if stop <= end]
    try:
        return answer(recipient.quizzes[-1].question, statements)[0]
    except (WorldError, UnanswerableError):
        return None


def choose(recipient: Opened) -> Opened | None:
    """Choose the donor, and run it; None while it runs, and after explaining a mistake."""
    with st.container(border=True):
        left, middle, right = st.columns([5, 7, 2], vertical_alignment="bottom")
        source = widgets.buttons("Donor", "donor.source", _SOURCES, show=sidebar.SOURCES.__getitem__, at=left)
        with middle:
            if source is TextSource.PASTED:
                widgets.text_area("Text", "donor.pasted", placeholder=sidebar.EXAMPLE)
            else:
                _choose_story(source)
        both = "The donor becomes the recipient, and the recipient the donor."
        swapped = right.button("Swap", icon=":material/swap_horiz:", help=both, width="stretch")
    try:
        text = _chosen(state.current().text, state.current().donor, recipient.context)
        context = sidebar.context_of(text)
        state.record_content("donor", context.text)
        if swapped:
            _swap(text)
        return session.read(recipient.checkpoint, context, recipient.layers[0])
    except ValueError as error:
        say.info("There is no donor yet. {}.", error)
        return None


def _choose_story(source: TextSource) -> None:
    left, middle, right = st.columns([3, 2, 2])
    if source is TextSource.QUESTION:
        last = count(source, 0) - 1
        widgets.number("Question of the set", "donor.index", -1, last, help=_FIRST, at=left)
        return
    task = widgets.select(
        "bAbI task",
        "donor.task",
        [0, *stories.TASKS],
        show=lambda task: set_choice.task_name(task) if task else "as the recipient's",
        at=left,
    )
    last = count(source, task or state.current().text.task) - 1
    label = "Seed" if source is TextSource.SIMULATED else "Story"
    widgets.number(label, "donor.index", -1, last, help=_FIRST, at=middle)
    widgets.number("Question", "donor.question", help="Counted from 0; -1 is the last.", at=right)


def _swap(donor: TextChoice) -> None:
    """Exchange the two stories, in the sidebar as well."""
    text = state.current().text
    state.update(
        "donor",
        source=TextSource.PASTED if text.source is TextSource.FILE else text.source,
        task=text.task,
        index=getattr(text, _NUMBER.get(text.source, "index")),
        question=text.question,
        pasted=text.pasted,
    )
    state.update("text", **vars(donor))
    state.update("run", token=None)
    st.rerun()
