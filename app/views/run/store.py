"""What a store holds of a token, a slot and all heads. In all maps, rows are slots and columns are tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Line, Lines, Table, visible
from lm2.model.sites import Site
from probes.findings import columns_of

if TYPE_CHECKING:
    from app.choices.context import Context
    from app.views.run.text import Marks
    from lm2.stores.store import Store

_PANELS = 2_000_000
"""Cells of all panels together, which the page is sent at once."""
_ROWS, _COLUMNS = 64, (16, 256)
"""Of a panel: the most rows, and the least and the most columns where there are many panels or few."""
_FIRST = 512
"""Columns of the level at which a search for tokens begins."""
_STEP = 3
"""Levels that it goes down at a time."""
_AROUND = 100
"""Tokens on either side of the one whose surprisal is shown."""


def maps(store: Store) -> list[str]:
    """The maps that a store has."""
    design = store.config.memory.design
    return ["reads", *(["writes"] if Site.WRITE_PATTERN in design.sites else [])]


def check_alike(store: Store, other: Store) -> None:
    """Raises ValueError for stores whose maps cannot be subtracted."""
    if store.tokens.ids != other.tokens.ids:
        raise ValueError(f"the captures are of other texts: {len(store.tokens):,} and {len(other.tokens):,} tokens")
    sizes, other_sizes = (
        (s.config.slots, s.config.memory_heads, tuple(sorted(s.config.memory_layers))) for s in (store, other)
    )
    if sizes != other_sizes:
        raise ValueError(f"the captures have other slots, heads and blocks: {sizes} and {other_sizes}")


def segment_starts(store: Store) -> list[int]:
    """The first tokens of the segments that are whole."""
    return [segment.start for segment in store.segments[: store.whole]]


def segment_of(store: Store, token: int) -> int:
    return int(np.searchsorted(segment_starts(store), token, side="right")) - 1


def marks(store: Store, context: Context) -> Marks:
    """The context's marks as token ranges; none if the store is of another text."""
    if context.text != store.tokens.text:
        return ()
    ranges = ((store.tokens.within(start, end), label) for start, end, label in context.marks)
    count = store.tokens_whole
    return tuple((tokens[0], tokens[-1] + 1, label) for tokens, label in ranges if tokens and tokens[-1] < count)


def map_title(what: str, block: int, head: int | None, how: str) -> str:
    heads = f"{how} over heads" if head is None else f"head {head}"
    return f"{what.removesuffix('s')} weight, block {block}, {heads} (share)"


def level_for(tokens: int, columns: int) -> int:
    """The finest level at which a text has at most so many columns."""
    return max(0, int(np.ceil(np.log2(max(1, tokens) / columns))))


def panels(store: Store, what: str) -> tuple[Float[np.ndarray, "layer head slot column"], list[int]]:
    """A map of each block and head, pooled by the largest value, and the columns in which segments begin."""
    blocks, heads = sorted(store.config.memory_layers), store.config.memory_heads
    least, most = _COLUMNS
    columns = int(np.clip(_PANELS // (len(blocks) * heads * _ROWS), least, most))
    level = level_for(store.tokens_whole, columns)
    starts = np.arange(0, store.config.slots, -(-store.config.slots // _ROWS))

    def panel(block: int, head: int) -> np.ndarray:
        cells = store.pooled(what, block=block, head=head, how="max", level=level)
        return np.fmax.reduceat(cells, starts, 1).T

    maps = np.stack([np.stack([panel(block, head) for head in range(heads)]) for block in blocks])
    return maps, sorted({start >> level for start in segment_starts(store)})


def heads(store: Store, what: str) -> Table:
    """How each head reads or writes: means over all tokens, or of writes over slots and segments."""
    rows = [
        (row.block, row.head, row.entropy, row.top, row.effective, "" if row.distance is None else row.distance)
        for row in store.heads(what)
    ]
    of = "slots" if what == "reads" else "tokens"
    headers = ("block", "head", "entropy (bits)", "largest share", f"effective {of}", "distance (segments)")
    if all(row[-1] == "" for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Table(columns=columns_of(headers, rows))


def slots_of_token(store: Store, what: str, block: int, head: int | None, token: int, count: int = 8) -> Table:
    """The slots with the largest weights of a token; of several heads, the largest."""
    weights = store.pooled(what, block=block, head=head, how="max", level=0, rows=slice(token, token + 1))[0]
    best = np.argsort(-weights)[:count]
    return Table(columns=columns_of(("slot", "weight"), [(int(slot), float(weights[slot])) for slot in best]))


def tokens_of_slot(store: Store, what: str, block: int, head: int | None, slot: int, count: int = 8) -> Table:
    """The tokens with the largest weights for a slot; of several heads, the largest.

    They are found from coarse to fine: the tokens with the largest values are among those that share a column with
    them, and these columns have the largest values themselves.
    """
    level = level_for(store.tokens_whole, _FIRST)
    columns = np.arange(-(-store.tokens_whole // 2**level))
    weights = store.pooled(what, block=block, head=head, how="max", level=level)[:, slot]
    while True:
        best = np.argsort(-weights, kind="stable")[:count]
        columns, weights = columns[best], weights[best]
        if level == 0:
            break
        down = min(_STEP, level)
        level -= down
        finer = [slice(column << down, (column + 1) << down) for column in columns.tolist()]
        cells = [store.pooled(what, block=block, head=head, how="max", level=level, rows=rows) for rows in finer]
        columns = np.concatenate([np.arange(rows.start, rows.start + len(part)) for rows, part in zip(finer, cells)])
        weights = np.concatenate([part[:, slot] for part in cells])
    pieces = store.tokens.shown
    rows = [
        (token, visible(pieces[token]), segment_of(store, token), float(weight))
        for token, weight in zip(columns.tolist(), weights)
    ]
    return Table(columns=columns_of(("token", "text", "segment", "weight"), rows))


def surprisal(store: Store, token: int) -> Lines:
    """The surprisal of a token and those around it."""
    first, last = max(0, token - _AROUND), min(store.tokens_whole, token + _AROUND + 1)
    pieces = store.tokens.shown[first:last]
    starts = [start - first for start in segment_starts(store) if first <= start < last]
    return Lines(
        lines=(Line(name="surprisal", values=store.surprisal[first:last]),),
        ticks=tuple(f"{first + place}: {visible(piece)}" for place, piece in enumerate(pieces)),
        x_title="token",
        y_title="surprisal (bits)",
        boundaries=tuple(starts),
    )


def summary(store: Store, title: str, high: float, marked: int) -> str:
    """A map in words, for those who do not see it."""
    facts = f"; {marked} marked ranges of tokens" if marked else ""
    return (
        f"{title}: {store.tokens_whole:,} tokens in {store.whole:,} segments by {store.config.slots:,} slots, from 0 to"
        f" {high:.3g}{facts}."
    )
