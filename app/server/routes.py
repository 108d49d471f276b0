"""What a browser asks for beside the page: bands of maps, and what is in a cell of one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.server import access, owner
from app.server.bands import COLUMNS, FOLDS, LEVELS, Pooled, StoreMap, difference
from app.server.results import ResultCache
from app.views.seen import seen

Made = TypeVar("Made")

_CACHE_BYTES = 256 * 1024**2
_CACHE = ResultCache(_CACHE_BYTES)
_WORKERS = ThreadPoolExecutor(2, "bands")
_LARGEST_CELL = 2**22
"""Tokens x slots of a cell that is looked into."""
_MOST_TEXTS = 4_096
_CONTEXT = 6
"""Tokens shown on either side of a cell's."""
_PRIVATE = {"Cache-Control": "private, no-cache", "Content-Encoding": "identity", "Vary": access.HEADER}


class _RefusedError(Exception):
    """A request that is not answered: a status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class _Kept:
    """The answer to a request for a band."""

    body: bytes
    headers: dict[str, str]

    @property
    def bytes(self) -> int:
        return len(self.body)


async def _band(request: Request) -> Response:
    """A band's bytes, slots down and tokens along. Headers say their shape and the end of the colour scale."""
    try:
        shown, place = _map(request), tuple(_number(request, name) for name in ("level", "fold", "band"))
        level, fold, number = place
        if level >= LEVELS or fold >= FOLDS or number * COLUMNS >= shown.columns(level):
            raise _RefusedError(404, f"the map has no band {number} at level {level} and fold {fold}")
        key = (*shown.identity, *place)
        tag = f'"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_PRIVATE | {"ETag": tag})
        began = time.perf_counter()
        kept = _CACHE.get(key) or await _awaited(request, lambda: _made(shown, key, level, fold, number))
    except _RefusedError as refusal:
        return PlainTextResponse(str(refusal), refusal.status)
    timing = f"band;dur={1000 * (time.perf_counter() - began):.1f}"
    return Response(
        kept.body,
        headers=_PRIVATE | kept.headers | {"ETag": tag, "Server-Timing": timing},
        media_type="application/octet-stream",
    )


def _made(shown: StoreMap, key: tuple, level: int, fold: int, number: int) -> _Kept:
    band = shown.band(level, fold, number)
    rows, columns = band.shape
    headers = {"lm2-rows": str(rows), "lm2-columns": str(columns), "lm2-high": repr(float(shown.high))}
    kept = _Kept(band.tobytes(), headers)
    _CACHE.put(key, kept)
    return kept


async def _cell(request: Request) -> Response:
    """What is in a cell: its largest value with token and slot, its mean, and the text around that token."""
    try:
        shown = _map(request)
        level, fold, column, row = (_number(request, name) for name in ("level", "fold", "column", "row"))
        if level >= LEVELS or fold >= FOLDS or column >= shown.columns(level) or row << fold >= shown.slots:
            raise _RefusedError(404, f"the map has no cell at row {row} and column {column} of level {level}")
        if 2 ** (level + fold) > _LARGEST_CELL:
            raise _RefusedError(404, f"a cell of {2**level} tokens x {2**fold} slots is too large to be looked into")
        document = await _awaited(request, lambda: _inside(shown, level, fold, column, row))
    except _RefusedError as refusal:
        return PlainTextResponse(str(refusal), refusal.status)
    return JSONResponse(document, headers=_PRIVATE)


def _inside(shown: StoreMap, level: int, fold: int, column: int, row: int) -> dict[str, object]:
    first_token, first_slot = column << level, row << fold
    tokens = slice(first_token, min((column + 1) << level, shown.tokens))
    parts = [part[first_slot : (row + 1) << fold] for part in shown.parts(0, 0, tokens)]
    cells = difference(parts)
    if np.isnan(cells).all():
        raise ValueError("nothing is read or written here")
    slot, token = np.unravel_index(np.nanargmax(np.abs(cells)), cells.shape)
    pieces, at = shown.store.tokens.shown, first_token + int(token)
    return {
        "token": at,
        "slot": first_slot + int(slot),
        "value": float(cells[slot, token]),
        "parts": [float(part[slot, token]) for part in parts],
        "mean": float(np.nanmean(cells)),
        "before": seen("".join(pieces[max(0, at - _CONTEXT) : at])),
        "piece": seen(pieces[at]),
        "after": seen("".join(pieces[at + 1 : at + 1 + _CONTEXT])),
    }


async def _tokens(request: Request) -> Response:
    """The texts of some tokens."""
    try:
        shown = _map(request)
        first, count = _number(request, "first"), _number(request, "count")
        if count > _MOST_TEXTS:
            raise _RefusedError(404, f"at most {_MOST_TEXTS:,} texts are sent at a time, not {count:,}")
    except _RefusedError as refusal:
        return PlainTextResponse(str(refusal), refusal.status)
    return JSONResponse(list(map(seen, shown.store.tokens.shown[first : first + count])), headers=_PRIVATE)


async def _awaited(request: Request, work: Callable[[], Made]) -> Made:
    """The result of work that is not begun if the browser has gone before its turn."""
    future = asyncio.wrap_future(_WORKERS.submit(work))
    gone = asyncio.create_task(_gone(request))
    await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not future.done():
        future.cancel()
        raise _RefusedError(404, "nobody waits for this any more")
    gone.cancel()
    try:
        return future.result()
    except (ValueError, OSError) as error:
        raise _RefusedError(404, owner.without_folders(str(error))) from error


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _map(request: Request) -> StoreMap:
    """The map that a request names, of stores that its session has opened."""
    session = access.of(request.headers.get(access.HEADER, ""))
    if session is None:
        raise _RefusedError(403, "this page's session has ended: reload the page")
    asked = request.query_params
    names = ("store", *(["minus"] if "minus" in asked else []))
    stores = [session.store(_number(request, name)) for name in names]
    if None in stores:
        raise _RefusedError(404, "this session has not opened that store")
    store, minus = (*stores, None)[:2]
    block, head = _number(request, "block"), _number(request, "head") if "head" in asked else None
    heads = range(store.config.memory_heads)
    if block not in store.config.memory_layers or (head is not None and head not in heads):
        raise _RefusedError(404, f"the store has no block {block} with a head {head}")
    if asked.get("what") not in ("reads", "writes") or asked.get("how") not in [how.value for how in Pooled]:
        raise _RefusedError(404, "what is reads or writes, and how is max or mean")
    return StoreMap(store=store, minus=minus, what=asked["what"], block=block, head=head, how=Pooled(asked["how"]))


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise _RefusedError(404, f"{name} is a number, not {text[:20]!r}")
    return int(text)


ROUTES = (Route("/lm2/band", _band), Route("/lm2/cell", _cell), Route("/lm2/tokens", _tokens))
