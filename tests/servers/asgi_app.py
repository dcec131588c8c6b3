"""The application behind hypercorn, with every route; DOCROOT in its environment names the directory of the files."""

import asyncio
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Route = Callable[[Message, Receive, Send], Awaitable[None]]

DOCROOT = Path(os.environ["DOCROOT"])
PIECE = 256 * 1024
CHUNK = 4096


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The entry point (ASGI 3)."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await chat(receive, send)
    else:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await ROUTES.get(f"{method} {scope['path']}", absent)(scope, receive, send)


async def answer(send: Send, status: int, content: bytes, type: str = "text/plain", **fields: str) -> None:
    """A whole response."""
    given = {"content-type": type, "content-length": str(len(content))} | fields
    await start(send, status, given)
    await send({"type": "http.response.body", "body": content})


async def start(send: Send, status: int, fields: dict[str, str], trailers: bool = False) -> None:
    """The head of a response."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs, "trailers": trailers})


async def uploaded(receive: Receive) -> AsyncIterator[bytes]:
    """The content of a request, as it comes."""
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        yield message.get("body", b"")


async def absent(scope: Message, receive: Receive, send: Send) -> None:
    await answer(send, 404, b"no such route\n")


async def small(scope: Message, receive: Receive, send: Send) -> None:
    await answer(send, 200, (DOCROOT / "small").read_bytes())


async def send_file(scope: Message, receive: Receive, send: Send) -> None:
    path = DOCROOT / scope["path"].lstrip("/")
    await start(send, 200, {"content-type": "application/octet-stream", "content-length": str(path.stat().st_size)})
    await stream(path, PIECE, send)


async def chunked(scope: Message, receive: Receive, send: Send) -> None:
    await start(send, 200, {"content-type": "application/octet-stream"})
    await stream(DOCROOT / "medium", CHUNK, send)


async def stream(path: Path, size: int, send: Send) -> None:
    with path.open("rb") as file:
        while piece := file.read(size):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def unique(scope: Message, receive: Receive, send: Send) -> None:
    fields = {"x_request_id": secrets.token_hex(), "x_trace": secrets.token_hex(), "etag": f'"{secrets.token_hex()}"'}
    await answer(send, 200, b"unique\n", **fields)


async def no_content(scope: Message, receive: Receive, send: Send) -> None:
    await start(send, int(scope["path"].rpartition("/")[2]), {})
    await send({"type": "http.response.body", "body": b""})


async def slow(scope: Message, receive: Receive, send: Send) -> None:
    await asyncio.sleep(int(scope["query_string"].removeprefix(b"ms=")) / 1000)
    await answer(send, 200, b"slow\n")


async def drip(scope: Message, receive: Receive, send: Send) -> None:
    """The beginning of a response, and after a while the rest."""
    await start(send, 200, {"content-length": "10"})
    await send({"type": "http.response.body", "body": b"drip ", "more_body": True})
    await asyncio.sleep(int(scope["query_string"].removeprefix(b"ms=")) / 1000)
    await send({"type": "http.response.body", "body": b"drop\n"})


async def never(scope: Message, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    content = b"".join([piece async for piece in uploaded(receive)])
    type = dict(scope["headers"]).get(b"content-type", b"application/octet-stream").decode()
    await answer(send, 200, content, type, x_sha256=hashlib.sha256(content).hexdigest())


async def upload(scope: Message, receive: Receive, send: Send) -> None:
    digest, size = hashlib.sha256(), 0
    async for piece in uploaded(receive):
        digest.update(piece)
        size += len(piece)
    content = json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode()
    await answer(send, 200, content, "application/json")


async def limited(scope: Message, receive: Receive, send: Send) -> None:
    """Its content is not read."""
    await answer(send, 413, b"too much\n")


async def trailers(scope: Message, receive: Receive, send: Send) -> None:
    """Sent by hypercorn where the request says `te: trailers`."""
    await start(send, 200, {"trailer": "x-checksum"}, trailers=True)
    await send({"type": "http.response.body", "body": b"trailers\n"})
    await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"1234")]})


async def early_hints(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.early_hint", "links": [b"</small>; rel=preload"]})
    await answer(send, 200, b"hinted\n")


async def push(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.push", "path": "/small", "headers": []})
    await answer(send, 200, b"push\n")


async def chat(receive: Receive, send: Send) -> None:
    """A WebSocket that echoes text."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


ROUTES: dict[str, Route] = {
    "GET /small": small,
    "GET /medium": send_file,
    "GET /large": send_file,
    "GET /chunked": chunked,
    "GET /unique": unique,
    "GET /status/204": no_content,
    "GET /status/304": no_content,
    "GET /slow": slow,
    "GET /drip": drip,
    "GET /never": never,
    "POST /echo": echo,
    "POST /upload": upload,
    "POST /limited": limited,
    "GET /trailers": trailers,
    "GET /early-hints": early_hints,
    "GET /push": push,
}
