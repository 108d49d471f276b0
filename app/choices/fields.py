"""Fields of the selection: each has a default, the values that a link may give it, and a name in links."""

import dataclasses
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextForm:
    """The set of texts that match a pattern."""

    pattern: str
    words: str
    """The pattern in words, which complete "There are ..."."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and re.fullmatch(self.pattern, text, re.ASCII) is not None


@dataclass(frozen=True, kw_only=True)
class SelectionField:
    """A field of a part of the selection."""

    part: str
    name: str
    link: str
    """Its name in links, which is unique."""
    default: Any
    allowed: Container | None
    """Its values if they are a closed set. Otherwise numbers are from -1 to 2^31 - 1, and any text is allowed."""

    @property
    def path(self) -> str:
        """Its place in the selection, such as "text.task"."""
        return f"{self.part}.{self.name}"


def choice(default: Any, allowed: Container | None = None, *, link: str | None = None) -> Any:
    """Declares a field with a closed set of values, or with a name in links that is not its own."""
    return dataclasses.field(default=default, metadata={"allowed": allowed, "link": link})


def choices(part: str, kind: type) -> list[SelectionField]:
    """The fields of a part of the selection."""
    return [
        SelectionField(
            part=part,
            name=field.name,
            link=field.metadata.get("link") or field.name,
            default=field.default,
            allowed=field.metadata.get("allowed"),
        )
        for field in dataclasses.fields(kind)
    ]
