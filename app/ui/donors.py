"""Other stories than the one that is read: its neighbours, and one to take something from."""

from dataclasses import replace

from app.choices.context import Context
from app.choices.selection import DonorChoice, TextChoice, TextSource
from app.ui import sidebar
from lm2.tasks import stories
from lm2.tasks.questions import UnanswerableError, answer
from lm2.tasks.world import WorldError

_TRIED = 50
"""Stories that are looked through for one with other answers."""

SEEDS = 1_000_001


def count(source: TextSource, task: int) -> int:
    """How many stories of a task there are to choose from."""
    return SEEDS if source is TextSource.SIMULATED else len(stories.real_stories(task)) or 10_000


def neighbours(chosen: TextChoice, first: int, several: int) -> tuple[TextChoice, ...]:
    """So many stories of a text's task, from the `first` one behind its own on; the last one is followed by story
    0.

    For a text of the user's own: from the task's first story on.
    """
    if chosen.source is TextSource.SIMULATED:
        return tuple(replace(chosen, seed=(chosen.seed + first + step) % SEEDS) for step in range(several))
    own = chosen.index if chosen.source is TextSource.STORY else -1
    there = count(TextSource.STORY, chosen.task)
    return tuple(
        replace(chosen, source=TextSource.STORY, index=(own + first + step) % there) for step in range(several)
    )


def donor(text: TextChoice, chosen: DonorChoice, recipient: Context) -> TextChoice:
    """The donor that is chosen for a text. Raises ValueError where its numbers name no story."""
    found = replace(
        text, source=chosen.source, task=chosen.task or text.task, question=chosen.question, pasted=chosen.pasted
    )
    if found.source is TextSource.PASTED:
        return found
    if chosen.index >= 0:
        return replace(found, **{"seed" if found.source is TextSource.SIMULATED else "index": chosen.index})
    near = neighbours(found, 1, min(_TRIED, count(found.source, found.task)))
    return next((one for one in near if _differs(sidebar.context_of(one), recipient)), near[0])


def _differs(donor: Context, recipient: Context) -> bool:
    """Whether the donor answers both the recipient's question and its own otherwise."""
    answer = told(donor, recipient)
    return answer is not None and recipient.quizzes[-1].answer not in (answer, donor.quizzes[-1].answer)


def told(donor: Context, recipient: Context) -> str | None:
    """What the donor's story answers to the recipient's last question; None where it does not say."""
    if not recipient.quizzes:
        return None
    end = donor.quizzes[-1].end if donor.quizzes else len(donor.text)
    try:
        return answer(
            recipient.quizzes[-1].question, [donor.text[first:last] for first, last in donor.statements if last <= end]
        )[0]
    except (WorldError, UnanswerableError):
        return None
