"""Laws of what a browser asks for beside the page: it gets what its own session has opened, and nothing else."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from beside_the_page import Answer, asked, get
from planted_store import PlantedStore

from app.server import access, routes
from app.server.access import Access
from app.server.results import ResultCache

MAP = {"store": "0", "what": "reads", "how": "max", "block": "0", "head": "1"}
BAND = {**MAP, "level": "1", "fold": "1", "band": "0"}


@pytest.fixture
def store(gated_config) -> PlantedStore:
    return PlantedStore(config=gated_config, count=1_000, peaks={(321, 3): 0.75}, segment=100)


@pytest.fixture
def opened(store: PlantedStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Access]:
    """A session that has opened the store."""
    monkeypatch.setattr("lm2.stores.store.open_store", lambda path: store)
    monkeypatch.setattr(routes, "_CACHE", ResultCache(10**6))

    def session() -> Access:
        opened = Access()
        assert opened.open(Path("planted")) == (0, store)
        return opened

    return session


def test_a_band_is_bytes_whose_headers_say_what_they_mean(opened, store: PlantedStore) -> None:
    session = opened()
    answer = get("/lm2/band", BAND, {access.HEADER: session.token})
    rows, columns = int(answer.headers["lm2-rows"]), int(answer.headers["lm2-columns"])
    cells = np.frombuffer(answer.body, np.uint8).reshape(rows, columns)
    assert (answer.status, rows, columns) == (200, 3, 256)
    assert float(answer.headers["lm2-high"]) == 0.75
    assert np.unravel_index(cells.argmax(), cells.shape) == (1, 160)
    assert "private" in answer.headers["cache-control"]


def test_what_a_browser_has_already_is_not_computed_again(opened, store: PlantedStore) -> None:
    header = {access.HEADER: (session := opened()).token}
    tag = get("/lm2/band", BAND, header).headers["etag"]
    again = get("/lm2/band", BAND, {**header, "If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    assert get("/lm2/band", {**BAND, "level": "2"}, {**header, "If-None-Match": tag}).status == 200
    assert get("/lm2/band", BAND, header).status == 200
    assert len(store.asked) == 2, "and what the server has made is kept"
    assert session.token not in again.headers.values()


@pytest.mark.parametrize("path", ["/lm2/band", "/lm2/cell", "/lm2/tokens"])
def test_only_the_session_that_opened_a_store_reads_it_and_only_while_it_lasts(opened, path: str) -> None:
    session, stranger = opened(), Access()
    assert get(path, BAND, {}).status == 403
    assert get(path, BAND, {access.HEADER: session.token[:-1] + "x"}).status == 403
    answer = get(path, BAND, {access.HEADER: stranger.token})
    assert (answer.status, answer.body.decode()) == (404, "this session has not opened that store")
    token = session.token
    del session
    answer = get(path, BAND, {access.HEADER: token})
    assert answer.status == 403 and answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"band": "2"}, "no band 2"),
        ({"band": "-1"}, "band is a number, not '-1'"),
        ({"store": "../x"}, "store is a number"),
        ({"block": "1"}, "no block 1"),
        ({"head": "2"}, "head 2"),
        ({"what": "gates"}, "reads or writes"),
        ({"how": "sum"}, "max or mean"),
        ({"level": "40"}, "level 40"),
        ({"minus": "7"}, "not opened"),
    ],
)
def test_what_there_is_not_is_refused_in_a_sentence(opened, change: dict[str, str], words: str) -> None:
    session = opened()
    answer = get("/lm2/band", BAND | change, {access.HEADER: session.token})
    assert answer.status == 404 and words in answer.body.decode()


def test_a_cell_says_its_largest_value_and_where_in_the_text_that_is(opened) -> None:
    session = opened()
    place = {"level": "6", "fold": "1", "column": "5", "row": "1"}
    inside = json.loads(get("/lm2/cell", MAP | place, {access.HEADER: session.token}).body)
    assert (inside["token"], inside["slot"], inside["value"]) == (321, 3, 0.75)
    assert inside["piece"] == "w321 " and inside["before"].endswith("w320 ") and inside["after"].startswith("w322 ")
    assert inside["mean"] == pytest.approx(0.01 + 0.74 / 128, rel=1e-4)


def test_a_band_that_nobody_waits_for_any_more_is_not_computed(opened, store: PlantedStore, monkeypatch) -> None:
    held, begun = threading.Event(), threading.Semaphore(0)
    real = PlantedStore.pooled

    def pooled(self, *given, level, **named):
        begun.release()
        held.wait(10)
        return real(self, *given, level=level, **named)

    monkeypatch.setattr(PlantedStore, "pooled", pooled)
    header = {access.HEADER: (session := opened()).token}

    async def requests() -> list[Answer]:
        stays = [asyncio.create_task(asked("/lm2/band", BAND | {"level": level}, header)) for level in ("1", "2")]
        await asyncio.to_thread(lambda: [begun.acquire(timeout=10) for _ in stays])
        gone = asyncio.Event()
        leaves = asyncio.create_task(asked("/lm2/band", BAND | {"level": "3"}, header, gone))
        await asyncio.sleep(0)
        gone.set()
        await leaves
        held.set()
        return await asyncio.gather(*stays)

    assert [answer.status for answer in asyncio.run(requests())] == [200, 200]
    routes._WORKERS.submit(lambda: None).result()  # whatever waited before it has had its turn
    assert sorted(level for level, _ in store.asked) == [1, 2]
    assert session.store(0) is store
