"""The SDKs of OpenAI and Anthropic over our transport, against a stand-in of their servers: streams that are abandoned."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from calamint.core.errors import CANCEL
from calamint.testing import Action, Request, ScriptedPeer, answer, drip
from calamint.transports.httpx2 import AsyncTransport, Transport
from tests import servers
from tests.net.pool_help import at_rest
from tests.net.test_tls import server_context

EVENT = 400  # bytes of each event, filled up with a comment
SSE = ((b"content-type", b"text/event-stream"),)
WORDS = ("one", "two", "three")
MESSAGE: dict[str, object] = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
}
USAGE = {"input_tokens": 1, "output_tokens": 1}


def event(data: dict[str, object] | str, name: str = "") -> bytes:
    """A server-sent event, as long as all others."""
    text = data if isinstance(data, str) else json.dumps(data)
    line = f"event: {name}\n" * bool(name) + f"data: {text}\n"
    return line.encode() + b":" + b" " * (EVENT - len(line) - 3) + b"\n\n"


def chunk(word: str) -> dict[str, object]:
    """A piece of OpenAI's answer."""
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def delta(word: str) -> bytes:
    """A piece of Anthropic's answer."""
    said = {"type": "text_delta", "text": word}
    return event({"type": "content_block_delta", "index": 0, "delta": said}, "content_block_delta")


OPENAI = b"".join([event(chunk(word)) for word in WORDS])
ANTHROPIC = b"".join(
    [
        event({"type": "message_start", "message": MESSAGE | {"usage": USAGE}}, "message_start"),
        event(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            "content_block_start",
        ),
        *[delta(word) for word in WORDS],
    ]
)
END = event({"type": "message_stop"}, "message_stop")


def stand_in(request: Request) -> Action:
    """The server of either; a stream for the model "endless" never ends."""
    if not request.complete:
        return answer()  # to be asked again with all of it
    endless = json.loads(request.content)["model"] == "endless"
    ours, end = (OPENAI, event("[DONE]")) if request.target == "/v1/chat/completions" else (ANTHROPIC, END)
    return drip(ours if endless else ours + end, EVENT, 0.01, fields=SSE, end=not endless)


Ask = Callable[[Any, str], Any]


async def ask_openai(http: httpx2.AsyncClient, url: str, model: str) -> AsyncIterator[str]:
    """The words of an answer, as they come."""
    client = openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", http_client=http, max_retries=0)
    said: Any = [{"role": "user", "content": "hi"}]
    stream: Any = await client.chat.completions.create(model=model, messages=said, stream=True)
    async with stream:
        async for piece in stream:
            yield piece.choices[0].delta.content


async def ask_anthropic(http: httpx2.AsyncClient, url: str, model: str) -> AsyncIterator[str]:
    """The words of an answer, as they come."""
    client = anthropic.AsyncAnthropic(api_key="k", base_url=url, http_client=http, max_retries=0)
    said: Any = [{"role": "user", "content": "hi"}]
    async with client.messages.stream(model=model, messages=said, max_tokens=9) as stream:
        async for text in stream.text_stream:
            yield text


@pytest.fixture
def peer(private_ca: servers.PrivateCa) -> Iterator[ScriptedPeer]:
    """The stand-in."""
    with ScriptedPeer(stand_in, tls=server_context(private_ca)) as peer:
        yield peer


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
def test_a_hundred_streams_of_which_half_are_abandoned(
    ask: Callable[..., AsyncIterator[str]], peer: ScriptedPeer, private_ca: servers.PrivateCa
) -> None:
    """Their readers go away, or are cancelled while they wait. The server hears of each, and no stream is left."""

    async def read(http: httpx2.AsyncClient) -> list[str]:
        return [word async for word in ask(http, peer.url, "m")]

    async def go_away(http: httpx2.AsyncClient) -> None:
        words = ask(http, peer.url, "endless")
        assert await anext(words) == "one"
        await words.aclose()  # type: ignore[attr-defined]  # a generator

    async def wait(http: httpx2.AsyncClient) -> None:
        async for _ in ask(http, peer.url, "endless"):
            pass

    async def main() -> None:
        transport = AsyncTransport(verify=str(private_ca.ca_file))
        async with httpx2.AsyncClient(transport=transport, timeout=600) as http:
            readers = [asyncio.create_task(read(http)) for _ in range(50)]
            leavers = [asyncio.create_task(go_away(http)) for _ in range(25)]
            waiters = [asyncio.create_task(wait(http)) for _ in range(25)]
            assert await asyncio.gather(*readers) == [list(WORDS)] * 50
            await asyncio.gather(*leavers)
            await asyncio.to_thread(peer.wait_for, lambda report: report.streams_open == 25)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            assert all([waiter.cancelled() for waiter in waiters])
            report = await asyncio.to_thread(peer.wait_for, lambda report: report.streams_open == 0)
            assert [code for _, _, code in report.resets] == [CANCEL] * 50
            assert (len(report.requests), report.connections) == (100, 1)
            at_rest(transport.pool)  # type: ignore[arg-type]  # of either kind

    asyncio.run(main())


def test_their_blocking_clients(peer: ScriptedPeer, private_ca: servers.PrivateCa) -> None:
    """A stream that is read, and one that is left after its first word."""
    said: Any = [{"role": "user", "content": "hi"}]
    with httpx2.Client(transport=(transport := Transport(verify=str(private_ca.ca_file))), timeout=600) as http:
        first = openai.OpenAI(api_key="k", base_url=f"{peer.url}/v1", http_client=http, max_retries=0)
        stream: Any = first.chat.completions.create(model="m", messages=said, stream=True)
        assert [piece.choices[0].delta.content for piece in stream] == list(WORDS)
        with first.chat.completions.create(model="endless", messages=said, stream=True) as stream:
            assert next(iter(stream)).choices[0].delta.content == "one"
        second = anthropic.Anthropic(api_key="k", base_url=peer.url, http_client=http, max_retries=0)
        with second.messages.stream(model="m", messages=said, max_tokens=9) as words:
            assert list(words.text_stream) == list(WORDS)
        with second.messages.stream(model="endless", messages=said, max_tokens=9) as words:
            assert next(iter(words.text_stream)) == "one"
        report = peer.wait_for(lambda report: report.streams_open == 0)
        assert [code for _, _, code in report.resets] == [CANCEL] * 2
        assert report.connections == 1
        at_rest(transport.pool)
