"""Interventions of a run in a few words each, for titles, captions and sidecars of figures."""

from collections.abc import Sequence

from app.choices.ranges import ranges
from lm2.model.gates import GATES
from lm2.runs.interventions import BankEdit, Carry, Edit, Freeze, Intervention, MemoryOff, Reset, WriteBlock
from lm2.runs.operations import Add, Erase, Initial, Mean, Operation, Patch, Permute, ProjectOut, Scale, Set, Transport

_GATES = {gate.site: gate.words for gate in GATES.values()}
_SHORT = 60
"""Letters of a text that is told by its beginning and end."""


def words(interventions: Sequence[Intervention]) -> tuple[str, ...]:
    """What each of them changes, and where."""
    return tuple(map(_words, interventions))


def excerpt(text: str) -> str:
    """A text in quotation marks, a longer one by its beginning and its end, where its question is."""
    told = " ".join(text.split())
    return f"“{told if len(told) <= _SHORT else f'{told[: _SHORT // 2]} … {told[-_SHORT // 2 :]}'}”"


def _words(one: Intervention) -> str:
    match one:
        case MemoryOff():
            return f"memory off{_where(('block', one.layers), ('segment', one.segments))}"
        case Freeze():
            return f"writes frozen from segment {one.segment} on"
        case Reset():
            return f"bank reset before segment {one.segment}"
        case Carry():
            return f"bank carried over from {_other_texts(one.texts)}"
        case WriteBlock():
            return f"{_many('token', one.tokens)} cannot write"
        case BankEdit():
            what = "bank" if one.slots is None else _many("slot", one.slots)
            return f"{what} {_operation(one.operation)}{_where(('segment', one.segments))}{_reach(one)}"
        case Edit():
            of = _where(
                ("slot", one.slots),
                ("head", one.heads),
                ("token", one.tokens),
                ("block", one.layers),
                ("segment", one.segments),
            )
            return f"{_GATES.get(one.site, one.site.name)} {_operation(one.operation)}{of}{_reach(one)}"
    raise ValueError(f"{type(one).__name__} has no words")


def _operation(one: Operation) -> str:
    match one:
        case Set():
            return "zeroed" if one.value == 0 else f"set to {one.value:g}"
        case Scale():
            return f"scaled by {one.by:g}"
        case Add():
            return "moved along a direction"
        case ProjectOut():
            return "without a direction"
        case Erase():
            return "with a concept erased"
        case Transport():
            return "carried by an affine map"
        case Permute():
            return "permuted"
        case Initial():
            return "as at the start"
        case Patch():
            return f"from the text {excerpt(one.text)}"
        case Mean():
            return f"at the mean of {_other_texts(one.texts)}"
    raise ValueError(f"{type(one).__name__} has no words")


def _other_texts(texts: Sequence[str]) -> str:
    return f"the text {excerpt(texts[0])}" if len(texts) == 1 else f"{len(texts)} other texts"


def _reach(one: BankEdit | Edit) -> str:
    return ", for reading alone" if one.read_only else ""


def _where(*places: tuple[str, tuple[int, ...] | None]) -> str:
    told = [_many(noun, numbers) for noun, numbers in places if numbers is not None]
    return f" in {', '.join(told)}" if told else ""


def _many(noun: str, numbers: tuple[int, ...]) -> str:
    return f"no {noun}" if not numbers else f"{noun}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"
