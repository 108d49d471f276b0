"""What a language model is asked about a slot, and how its replies are read."""

import json
import re
from collections.abc import Sequence
from enum import Enum

from probes.explain.contexts import SlotContext
from probes.explain.llm import Chat
from probes.explain.spec import Signal

AT_ONCE = 5
"""Passages that one reply judges."""

_DESCRIPTION = re.compile(r"\W*description\W*:(.*\w.*)", re.IGNORECASE)
_LIST = re.compile(r"\[[\s01,]*\]")

_DESCRIBE = (
    "You study one slot of a language model's memory. You are given passages in which tokens {active} the slot most;"
    " the words that do so most strongly are marked <<like this>>. Say in one short sentence what the marked words,"
    " or the passages, have in common: what the slot is {passive} for. Name words or kinds of words. End with one"
    " line of the form\n"
    "Description: ..."
)
_DETECT = (
    "You are given a description of passages, and {count} numbered passages. Judge for each whether the description"
    " fits it: 1 if it does, 0 if it does not. Reply with a JSON list of {count} numbers and nothing else, such as"
    " {example}."
)
_FUZZ = (
    "You are given a description of words in passages, and {count} numbered passages in which some words are marked"
    " <<like this>>. Judge for each whether the marked words are those that the description means: 1 if they are, 0"
    " if they are not. Reply with a JSON list of {count} numbers and nothing else, such as {example}."
)


class Trial(Enum):
    """How a description is tested."""

    DETECTION = "detection"
    """By telling passages in which the slot is active from others."""
    FUZZING = "fuzzing"
    """By telling passages whose active tokens are marked from those with other tokens marked."""


def describe(chat: Chat, signal: Signal, contexts: Sequence[SlotContext]) -> str | None:
    """A slot in one sentence, from its contexts; None if the reply has no such sentence. Raises as `Chat.ask` does."""
    system = _DESCRIBE.format(active=signal.value, passive=signal.done)
    return description(chat.ask(system, _numbered([context.with_marks() for context in contexts])))


def description(reply: str) -> str | None:
    """The text of the last line that reads "Description: ..."."""
    matches = [match[1] for match in map(_DESCRIPTION.match, reply.splitlines()) if match]
    return matches[-1].strip(" \t*_\"'`") if matches else None


def judge(chat: Chat, trial: Trial, text: str, passages: Sequence[str]) -> list[bool] | None:
    """For each passage, whether the model says that the description `text` fits it; None if the reply has another
    number of verdicts. Raises as `Chat.ask` does."""
    count = len(passages)
    example = json.dumps([(i + 1) % 2 for i in range(count)])
    system = (_DETECT if trial is Trial.DETECTION else _FUZZ).format(count=count, example=example)
    return verdicts(chat.ask(system, f"Description: {' '.join(text.split())}\n\n{_numbered(passages)}"), count)


def verdicts(reply: str, count: int) -> list[bool] | None:
    """The last list of zeros and ones in a reply; None unless it is JSON and has `count` entries."""
    lists = _LIST.findall(reply)
    try:
        values = json.loads(lists[-1]) if lists else []
    except json.JSONDecodeError:
        return None
    return [value == 1 for value in values] if len(values) == count and set(values) <= {0, 1} else None


def _numbered(passages: Sequence[str]) -> str:
    return "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(passages, start=1))
