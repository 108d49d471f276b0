"""What is shown on the Long texts screen."""

from dataclasses import dataclass

from app.choices.fields import TextForm, choice

_CELLS = range(2**31)


@dataclass(frozen=True, kw_only=True)
class LongChoice:
    """What is shown of a text that was captured into a store."""

    store: str = choice("", link="store")
    """A capture of the workspace, or the path of another store; empty, none."""
    minus: str = choice("", link="minus")
    """The store whose map is subtracted; empty, none."""
    what: str = choice("reads", ("reads", "writes"), link="map")
    how: str = choice("max", ("max", "mean"), link="pooled")
    """What a cell shows of the tokens and slots that share it."""
    block: int = choice(-1, link="map_block")
    """-1, the last that has a memory."""
    head: str = choice("all", TextForm(r"all|[0-9]{1,4}", "all and the numbers of heads"), link="map_head")
    """A memory head's number, or "all", pooled as tokens and slots are."""
    token: int | None = choice(None, _CELLS, link="map_token")
    slot: int | None = choice(None, _CELLS, link="map_slot")
    view: str = choice("", TextForm(r"|[0-9]{1,9}-[0-9]{1,9}-[0-9]{1,9}", "views written 0-131072-0"), link="view")
    """The map's first token, how many are in view, and its first slot; empty, the whole text."""
