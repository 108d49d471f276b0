"""Targets written as short texts ("place of Mary", "token 3 back").

A "*" in the place of a name or slot stands for every one that the documents hold.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from probes.features.examples import Examples
from probes.features.targets import FactDistance, OneOf, OwnLabels, SegmentIndex, SlotOverwritten, Target, TokenBack
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
"""How the values of a target's fields are written, as patterns."""


def parse(text: str) -> Target:
    """Raises ValueError, with all forms that there are, for a text of none."""
    for kind in KINDS:
        types: dict[str, Any] = {field.name: field.type for field in fields(kind)}
        pattern = kind.form.format(**{name: rf"(?P<{name}>{_WRITTEN[type_]})" for name, type_ in types.items()})
        found = re.fullmatch(pattern, text)
        if found:
            return kind(**{name: types[name](value) for name, value in found.groupdict().items()})
    raise ValueError(f"no target is called {text!r}; targets are {', '.join(kind.form for kind in KINDS)}")


def expand(texts: Sequence[str], examples: Examples) -> tuple[Target, ...]:
    """The targets that are written, each once; "*" stands for every name or slot there is.

    Raises ValueError for a text that is no target, and for names, slots and files that are not there.
    """
    found: dict[Target, None] = {}
    for text in texts:
        kind = next(
            (kind for kind in KINDS if issubclass(kind, OneOf) and re.sub(r"\{\w+\}", "*", kind.form) == text), None
        )
        targets = [parse(text)] if kind is None else kind.every(examples)
        if kind is not None and not targets:
            raise ValueError(f"{text!r} stands for nothing: these documents have no {kind.what}")
        for target in targets:
            target.check(examples)
        found |= dict.fromkeys(targets)
    return tuple(found)


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
    OwnLabels,
)
