"""The client for asyncio."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import final

from calamint.client.base import (
    DRAINED,
    Auth,
    BaseClient,
    Beginning,
    Settled,
    caller,
    explain,
    is_tunnel,
    note,
)
from calamint.client.codings import LIMITS as CODING_LIMITS
from calamint.client.codings import CodingLimits
from calamint.client.content import AsyncPieces, FilePieces, Form, Params, Pieces, RequestContent
from calamint.client.headers import Headers, HeadersInit
from calamint.client.message import Request, Response
from calamint.client.mock import AsyncBaseTransport
from calamint.client.timeout import DEFAULT, UNSET, Timeout, Unset
from calamint.client.urls import URL
from calamint.core.errors import CalamintError, DeadlineExceeded, TransportError
from calamint.core.events import Event
from calamint.core.exchange import SETTINGS, Settings
from calamint.core.pool_state import LIMITS, Limits
from calamint.net.aio import Call, Pool
from calamint.net.dial import Resolver, look_up
from calamint.net.proxy import Proxy
from calamint.net.response import Response as Arrived
from calamint.net.response import assemble
from calamint.net.tls import Cert, Verify
from calamint.net.trace import Tracer


@final
class AsyncClient(BaseClient):
    """HTTP for asyncio: `async with calamint.AsyncClient() as client: await client.get("https://…")`.

    The names are httpx's. A plain number as `timeout` is the limit for all of a request: see `calamint.Timeout`. `auth`: user
    and password, for Basic. `params`, `headers`: for every request that says nothing else. `base_url`: before every URL that is
    not absolute. `verify`, `cert`: see `calamint.net.tls.make_context`. `proxy`: a URL or a `Proxy` for everything; else, with
    `trust_env`, the environment says: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY. `retries`: 1, what was provably not
    processed is sent once more, or 0. `coding_limits`: what content may decode to. `limits`, `settings`: of the pool, and of each
    connection. `uds`: a Unix domain socket to connect to, without proxies; `local_address`: of this host, to connect from;
    `resolver`: from host and port to addresses, as socket.getaddrinfo gives them. `tracer`: whom to tell what happens.
    `transport`: what answers instead of the network, such as a `MockTransport`.

    `pool`: its connections; `client.pool.snapshot()` shows them. Raises InvalidURL, UnsupportedProtocol, ValueError, TypeError.
    """

    def __init__(
        self,
        *,
        auth: Auth | None = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        verify: Verify = True,
        cert: Cert | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        proxy: str | Proxy | None = None,
        timeout: float | Timeout | None = DEFAULT,
        follow_redirects: bool = False,
        limits: Limits = LIMITS,
        max_redirects: int = 20,
        base_url: str | URL = "",
        transport: AsyncBaseTransport | None = None,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
        retries: int = 1,
        coding_limits: CodingLimits = CODING_LIMITS,
        settings: Settings = SETTINGS,
        resolver: Resolver = look_up,
        uds: str | None = None,
        local_address: str | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(
            auth=auth,
            params=params,
            headers=headers,
            proxy=proxy,
            timeout=timeout,
            follow_redirects=follow_redirects,
            max_redirects=max_redirects,
            base_url=base_url,
            trust_env=trust_env,
            uds=uds,
            default_encoding=default_encoding,
            retries=retries,
            coding_limits=coding_limits,
            direct=transport is not None or uds is not None,
        )
        self._transport = transport
        self.pool = Pool(
            limits=limits,
            settings=settings,
            http1=http1,
            http2=http2,
            verify=verify,
            cert=cert,
            resolver=resolver,
            uds=uds,
            local_address=local_address,
            tracer=tracer,
        )

    async def send(
        self,
        request: Request,
        *,
        stream: bool = False,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
    ) -> Response:
        """Sends a request; its response has all of its content, or none of it yet with `stream`: then close it. Raises what
        failed it, which has it as `request`, and RuntimeError where the client is closed."""
        if self.is_closed:
            raise RuntimeError("the client is closed: it sends no more requests")
        follows = self.follow_redirects if isinstance(follow_redirects, Unset) else follow_redirects
        limits = self._limits(request)
        self._authorize(request, auth)
        history: list[Response] = []
        try:
            while True:
                response = await self._send_once(request, limits, stream)
                if history:
                    response.history = list(history)
                leads = response.has_redirect_location
                if not follows or not leads:
                    if leads:
                        response.next_request = self._next_request(request, response)
                    if not stream:
                        if is_tunnel(request, response) and not response.is_closed:
                            await response.aclose()  # nobody will speak through it
                            response._raw = b""
                        await response.aread()  # its codings are undone here, and not in whatever asks for it first
                    return response
                try:
                    request = self._follow(request, response, history)
                finally:
                    await drain(response)
                history.append(response)
        except CalamintError as error:
            explain(error, request, limits.timeout, self._choose_proxy(request.url))
            raise

    async def _send_once(self, request: Request, limits: Settled, stream: bool) -> Response:
        """One request and its response, without redirects."""
        began = time.perf_counter()
        parts = request.body.parts
        if self._transport is not None:
            response = await self._transport.handle_async_request(request)
            response.request = request
            response._began = began
            if not stream:
                await response.aread()
            if response.is_closed:
                response._finish()
            return response
        timeout = limits.timeout
        call: Call | None = None
        try:
            call = self.pool.request(
                request.method,
                self._aim(request),
                request.headers.fields,
                request.body.whole,
                end=parts is None,
                timeout=limits.left(),
                clocks=timeout.clocks,
                pool=timeout.pool,
                connect=timeout.connect,
                replay=self._retries > 0,
                proxy=self._choose_proxy(request.url),
                server_hostname=self._certified(request),
            )
            if stream or self._coding_limits.total is not None or self._asks_for_a_tunnel(request):
                call.words = f"{call.words}, streamed at {caller()}"
                return await Stream(call, parts, request, limits).begin(self, began)
            arrived = await (call.response() if parts is None else Stream(call, parts, request, limits).whole())
            return self._whole(request, arrived, call.protocol, began)
        except BaseException:
            if call is not None:
                call.cancel()
            raise

    async def request(
        self,
        method: str,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """Sends a request and reads its response. `content`, `data`, `json`, `params`, `extensions`: see `calamint.Request`;
        `auth`: user and password. Raises InvalidURL, UnsupportedProtocol, LocalProtocolError, TransportError,
        TooManyRedirects, DecodingError."""
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            timeout=timeout,
            extensions=extensions,
        )
        return await self.send(request, auth=auth, follow_redirects=follow_redirects)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Response]:
        """As `request`, but the content comes as it is read: `async with client.stream("GET", url) as response:`. Leaving the
        block closes it: what has not been read is not wanted any more."""
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            timeout=timeout,
            extensions=extensions,
        )
        response = await self.send(request, stream=True, auth=auth, follow_redirects=follow_redirects)
        try:
            yield response
        finally:
            await response.aclose()

    async def get(
        self,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A GET request: see `request`."""
        return await self.request(
            "GET",
            url,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def options(
        self,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """An OPTIONS request: see `request`."""
        return await self.request(
            "OPTIONS",
            url,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def head(
        self,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A HEAD request: see `request`."""
        return await self.request(
            "HEAD",
            url,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def delete(
        self,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A DELETE request: see `request`."""
        return await self.request(
            "DELETE",
            url,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def post(
        self,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A POST request: see `request`."""
        return await self.request(
            "POST",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def put(
        self,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A PUT request: see `request`."""
        return await self.request(
            "PUT",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def patch(
        self,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        auth: Auth | None | Unset = UNSET,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Response:
        """A PATCH request: see `request`."""
        return await self.request(
            "PATCH",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=auth,
            follow_redirects=follow_redirects,
            timeout=timeout,
            extensions=extensions,
        )

    async def aclose(self, grace: float = 0.0) -> None:
        """Takes no more requests; what runs may take `grace` seconds more, and is reset then. More than once is no mistake."""
        self.is_closed = True
        try:
            await self.pool.aclose(grace)
        finally:
            if self._transport is not None:
                await self._transport.aclose()

    async def __aenter__(self) -> "AsyncClient":
        if self.is_closed:
            raise RuntimeError("the client is closed: it cannot be opened again")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@final
class Stream:
    """A call whose content goes out, where it comes in pieces, while its response comes: to be iterated over, or whole."""

    def __init__(
        self, call: Call, parts: Pieces | AsyncPieces | FilePieces | None, request: Request, limits: Settled
    ) -> None:
        self._call = call
        self._request = request
        self._timeout = limits.timeout
        self._events: list[Event] = []
        self._trailers = Headers()
        self._pieces = None if parts is None else to_async(parts, call, limits.deadline)

    async def begin(self, client: AsyncClient, began: float) -> Response:
        """The response, once its head is here."""
        beginning = Beginning()
        while not beginning.take(await self.receive_all()):
            pass
        self._events = beginning.rest
        response = client._streamed(self._request, beginning, self._call.protocol, began)
        response.stream, response._trailers = self, self._trailers
        return response

    async def whole(self) -> Arrived:
        """All of the response."""
        events = await self.receive_all()
        while more := await self.receive_all():
            events += more
        return assemble(events)

    async def receive_all(self) -> list[Event]:
        """The next events; none when the response has ended. What the peer does not want any more is not sent."""
        pieces, self._pieces = self._pieces, None
        try:
            while pieces is not None:
                piece = await anext(pieces, None)
                if piece is None:
                    pieces = None
                    await self._call.send_data(b"", end=True)
                elif piece and not await self._call.send_data(piece):
                    break
                elif events := self._call.receive_ready():
                    self._pieces, pieces = pieces, None
                    return events
        except BaseException:
            self._call.cancel()  # before what makes the content ends, which may take its time
            raise
        finally:
            if pieces is not None:
                await pieces.aclose()
        return await self._call.receive_all()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events, self._events = self._events, []
        try:
            while True:
                for piece in note(self._trailers, events):
                    yield piece
                events = await self.receive_all()
                if not events:
                    return
        except CalamintError as error:
            explain(error, self._request, self._timeout)
            raise

    async def aclose(self) -> None:
        """What has not come is not wanted any more, and what was not sent stays here."""
        pieces, self._pieces = self._pieces, None
        self._call.cancel()
        if pieces is not None:
            await pieces.aclose()


async def drain(response: Response) -> None:
    """Reads the content of a redirect, as far as that lets its connection be used again; all of it is kept for `history`."""
    if response.is_closed:
        return
    pieces: list[bytes] = []
    try:
        async for piece in response.aiter_raw():
            pieces.append(piece)
            if response.num_bytes_downloaded > DRAINED:
                break
        else:
            response._raw = b"".join(pieces)
    except TransportError:
        pass
    finally:
        await response.aclose()


async def to_async(
    parts: Pieces | AsyncPieces | FilePieces, call: Call, deadline: float | None
) -> AsyncGenerator[bytes, None]:
    """Content in pieces, whichever way they come. What does not come asynchronously is taken in the event loop's thread; for
    what does nobody waits beyond the deadline: it ends where the call is over. Raises DeadlineExceeded where it is not."""
    if isinstance(parts, AsyncPieces):
        async with aclosing(parts.__aiter__()) as pieces:
            while (piece := await next_piece(pieces, call, deadline)) is not None:
                yield piece
    else:
        for piece in parts:
            yield piece


async def next_piece(pieces: AsyncGenerator[bytes, None], call: Call, deadline: float | None) -> bytes | None:
    """The next one, None after the last, or where the call is over. Raises DeadlineExceeded, and what they raise."""
    scope = asyncio.timeout(None if deadline is None else deadline - time.monotonic())
    try:
        async with scope:
            return await anext(pieces, None)
    except TimeoutError:
        if not scope.expired():
            raise  # their own
        if not call.is_over:
            raise DeadlineExceeded("its time was over while more of its content was waited for") from None
        return None
