"""What one can choose: a field with its default, the values that a link may give it, and its name there."""

import dataclasses
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

_ALLOWED, _LINK = "allowed", "link"


@dataclass(frozen=True)
class TextForm:
    """Texts that are written in one way."""

    pattern: str
    words: str
    """That way, as "There are ..." goes on."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and re.fullmatch(self.pattern, text, re.ASCII) is not None


@dataclass(frozen=True, kw_only=True)
class SelectionField:
    """A field of a part of the selection."""

    part: str
    name: str
    link: str
    """Its name in an address; no two fields share one."""
    default: Any
    allowed: Container | None
    """Its values, where they are a closed set. Other numbers are -1 to 2^31 - 1; other texts are free."""

    @property
    def path(self) -> str:
        """Where it stands: "text.task"."""
        return f"{self.part}.{self.name}"


def choice(default: Any, allowed: Container | None = None, *, link: str | None = None) -> Any:
    """A field with a closed set of values, or with another name in an address than its own."""
    return field(default=default, metadata={_ALLOWED: allowed, _LINK: link})


def choices(part: str, kind: type) -> list[SelectionField]:
    """What a part of the selection chooses."""
    return [
        SelectionField(
            part=part,
            name=one.name,
            link=one.metadata.get(_LINK) or one.name,
            default=one.default,
            allowed=one.metadata.get(_ALLOWED),
        )
        for one in dataclasses.fields(kind)
    ]
