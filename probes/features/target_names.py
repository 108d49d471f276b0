"""Targets written as short texts ("place of Mary", "token 3 back").

A "*" instead of a name or slot stands for all that the documents have.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from probes.features.examples import Examples
from probes.features.targets import (
    FactDistance,
    OneOf,
    OwnLabels,
    SegmentIndex,
    SetLabel,
    SlotOverwritten,
    Target,
    TokenBack,
)
from probes.features.world_targets import (
    CorrectAnswer,
    FactsTold,
    FactTold,
    HolderOf,
    PlaceOf,
    PreviousPlaceOf,
    QuestionType,
)

_WRITTEN = {str: ".+", int: r"\d+"}
"""Patterns of the values of a target's fields."""


def parse(text: str) -> Target:
    """Raises ValueError, with all forms of targets, for a text that is none."""
    for kind in KINDS:
        types: dict[str, Any] = {field.name: field.type for field in fields(kind)}
        pattern = kind.form.format(**{name: rf"(?P<{name}>{_WRITTEN[type_]})" for name, type_ in types.items()})
        if match := re.fullmatch(pattern, text):
            return kind(**{name: types[name](value) for name, value in match.groupdict().items()})
    raise ValueError(f"no target is called {text!r}; targets are {', '.join(kind.form for kind in KINDS)}")


def expand(texts: Sequence[str], examples: Examples) -> tuple[Target, ...]:
    """The targets of some texts, each once; "*" stands for every name or slot.

    Raises ValueError for a text that is no target, and for names, slots and files that do not exist.
    """
    kinds = {re.sub(r"\{\w+\}", "*", kind.form): kind for kind in KINDS if issubclass(kind, OneOf)}
    targets: dict[Target, None] = {}
    for text in texts:
        kind = kinds.get(text)
        named = [parse(text)] if kind is None else kind.every(examples)
        if kind is not None and not named:
            raise ValueError(f"{text!r} stands for nothing: these documents have no {kind.noun}")
        for target in named:
            target.check(examples)
        targets |= dict.fromkeys(named)
    return tuple(targets)


KINDS: tuple[type[Target], ...] = (
    PlaceOf,
    PreviousPlaceOf,
    HolderOf,
    CorrectAnswer,
    FactTold,
    FactsTold,
    QuestionType,
    SegmentIndex,
    FactDistance,
    TokenBack,
    SlotOverwritten,
    SetLabel,
    OwnLabels,
)
