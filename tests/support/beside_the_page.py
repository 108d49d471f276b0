"""Requests for what a browser asks for beside the page, without a server."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.applications import Starlette

from app.server import routes


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def get(path: str, query: dict[str, str], headers: dict[str, str], gone: asyncio.Event | None = None) -> Answer:
    return asyncio.run(asked(path, query, headers, gone))


async def asked(path: str, query: dict[str, str], headers: dict[str, str], gone: asyncio.Event | None = None) -> Answer:
    """The answer to a request of a browser that goes when `gone` is set."""
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": urlencode(query).encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    sent = []

    async def receive() -> dict[str, object]:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await Starlette(routes=list(routes.ROUTES))(scope, receive, send)
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], named, b"".join(message.get("body", b"") for message in sent[1:]))
