"""The asynchronous transport of httpx and httpx2, but for their base classes. See `blocking`, which it is like."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from types import ModuleType
from typing import Generic, NamedTuple, TypeVar

from calamint.client.base import Beginning
from calamint.core.errors import CalamintError
from calamint.core.events import DataReceived, TrailersReceived
from calamint.core.exchange import SETTINGS, Settings
from calamint.net.aio import Call, Pool
from calamint.net.dial import Resolver, SocketOption, look_up
from calamint.net.tls import Cert, Verify
from calamint.net.trace import Tracer
from calamint.transports.shared import (
    LimitsLike,
    Outgoing,
    RequestLike,
    Trace,
    Translator,
    Way,
    is_tunnel,
    make_extensions,
    to_library,
    to_limits,
    to_verify,
    told_dial,
    told_handshakes,
    told_head,
)
from calamint.transports.tunnel import AsyncNetworkStream

C = TypeVar("C", bound="AsyncContent")


class AsyncAnswer(NamedTuple, Generic[C]):
    """A response as the library makes one of it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    content: C
    extensions: dict[str, object]


class AsynchronousTransport(Generic[C]):
    """See `calamint.transports.httpx.AsyncTransport`."""

    library: ModuleType
    content: type[C]  # also one of the library's
    network: str  # the library's httpcore, whose errors a network stream raises

    def __init__(
        self,
        verify: Verify = True,
        cert: Cert | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        limits: LimitsLike | None = None,
        proxy: object = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 1,
        socket_options: Sequence[SocketOption] | None = None,
        *,
        resolver: Resolver = look_up,
        settings: Settings = SETTINGS,
        tracer: Tracer | None = None,
    ) -> None:
        if retries not in (0, 1):
            raise ValueError(f"retries={retries}: 1, once more what was provably not processed, or 0, nothing")
        self._translator = Translator(proxy, trust_env, http1, uds)
        self._replay = retries > 0
        self._way = Way(uds, local_address, tuple(socket_options or ()))
        self.pool = Pool(
            limits=to_limits(limits),
            settings=settings,
            http1=http1,
            http2=http2,
            verify=to_verify(verify, cert, trust_env),
            cert=cert,
            resolver=resolver,
            uds=uds,
            local_address=local_address,
            socket_options=self._way.socket_options,
            tracer=tracer,
        )

    async def answer(self, request: RequestLike) -> AsyncAnswer[C]:
        """Sends a request; its response, whose content is still to come. Raises the library's errors."""
        callback = request.extensions.get("trace")
        call: Call | None = None
        trace = None if callback is None else Trace(callback, request, self.network)
        try:
            out = self._translator.translate(request)
            dials = 0 if trace is None else self.pool.stats().dials
            call = self._begin(request, out)
            if trace is not None:
                beginning = await self._traced(call, out, request, trace, dials)
            else:
                if not isinstance(request.stream, self.library.ByteStream):
                    await self._upload(call, request)
                beginning = await receive(call)
            return self._answer(request, call, beginning, trace)
        except BaseException as error:
            if call is not None:
                call.cancel()
                if trace is not None:
                    async with trace.astep("response_closed", {}):
                        pass
            if isinstance(error, CalamintError):
                raise to_library(error, self.library, request) from error
            raise

    async def aclose(self) -> None:
        """Ends every connection; what still runs fails."""
        await self.pool.aclose()

    def _begin(self, request: RequestLike, out: Outgoing) -> Call:
        """The request is under way, and with it all of its content that need not be asked for."""
        stream = request.stream
        if not isinstance(stream, self.library.AsyncByteStream):
            raise RuntimeError("content of an iterable: use the blocking client, or an asynchronous iterable")
        whole = isinstance(stream, self.library.ByteStream)
        return self.pool.request(
            request.method,
            out.url,
            out.fields,
            b"".join(stream) or None if whole else None,
            end=whole and request.method != "CONNECT",  # whose tunnel is still to be written to
            timeout=out.total,
            clocks=out.clocks,
            pool=out.pool,
            connect=out.connect,
            replay=self._replay,
            proxy=out.proxy,
            server_hostname=out.server_hostname,
            only_http1=out.only_http1,
        )

    async def _upload(self, call: Call, request: RequestLike) -> None:
        """Content in pieces; what the peer does not want any more is not sent."""
        assert isinstance(request.stream, AsyncIterable)
        pieces = request.stream.__aiter__()
        try:
            async for piece in pieces:
                if piece and not await call.send_data(bytes(piece)):
                    return
            await call.send_data(b"", end=True)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def _traced(self, call: Call, out: Outgoing, request: RequestLike, trace: Trace, dials: int) -> Beginning:
        """The beginning of a response, step by step. `dials`: of the pool, before the request."""
        fresh = False  # the first of an HTTP/2 connection
        if call.is_dialling or self.pool.stats().dials > dials:
            stream = AsyncNetworkStream(call, False, self.network)
            async with trace.astep(*told_dial(out, self._way)) as result:
                await started(call)
                result["return_value"] = stream
            for handshake in told_handshakes(out, stream):
                async with trace.astep(*handshake) as result:
                    result["return_value"] = stream
            if fresh := call.protocol == "h2":
                async with trace.astep("http2.send_connection_init"):
                    pass
        trace.spoken(await started(call))
        async with trace.astep("send_request_headers"):
            pass
        async with trace.astep("send_request_body"):
            if not isinstance(request.stream, self.library.ByteStream):
                await self._upload(call, request)
        async with trace.astep("receive_response_headers") as result:
            beginning = await receive(call)
            if fresh:  # they came first (RFC 9113 §3.4)
                async with trace.astep("receive_remote_settings", {}):
                    pass
            result["return_value"] = told_head(beginning, call.protocol)
        return beginning

    def _answer(self, request: RequestLike, call: Call, beginning: Beginning, trace: Trace | None) -> AsyncAnswer[C]:
        """The head has come."""
        head = beginning.head
        assert head is not None
        trailers: list[tuple[bytes, bytes]] = []
        extensions = make_extensions(beginning, call.protocol, trailers)
        tunnel = is_tunnel(request, head.status)
        extensions["network_stream"] = AsyncNetworkStream(call, tunnel, self.network)
        content = self.content(self.library, call, request, trailers, trace, tunnel)
        return AsyncAnswer(head.status, list(head.fields), content, extensions)


class AsyncContent:
    """The content of a response, as it comes from a call; of a tunnel, nothing."""

    def __init__(
        self,
        library: ModuleType,
        call: Call,
        request: RequestLike,
        trailers: list[tuple[bytes, bytes]],
        trace: Trace | None,
        tunnel: bool,
    ) -> None:
        self._library = library
        self._call = call
        self._request = request
        self._trailers = trailers
        self._trace = trace
        self._tunnel = tunnel

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._tunnel:
            return
        try:
            if self._trace is None:
                async for piece in self._pieces():
                    yield piece
            else:
                async with self._trace.astep("receive_response_body"):
                    async for piece in self._pieces():
                        yield piece
        except CalamintError as error:
            raise to_library(error, self._library, self._request) from error

    async def aclose(self) -> None:
        """What has not come is not wanted any more."""
        self._call.cancel()
        trace, self._trace = self._trace, None
        if trace is not None:
            async with trace.astep("response_closed", {}):
                pass

    async def _pieces(self) -> AsyncIterator[bytes]:
        while events := await self._call.receive_all():
            for event in events:
                if isinstance(event, DataReceived):
                    yield event.data
                elif isinstance(event, TrailersReceived):
                    self._trailers += event.fields


async def receive(call: Call) -> Beginning:
    """The beginning of a response."""
    beginning = Beginning()
    while (event := await call.receive()) is not None and not beginning.take([event]):
        pass  # one after the other: content does not count as read before somebody does
    return beginning


async def started(call: Call) -> str:
    """What it is spoken in, as soon as it has a connection. Raises what has failed it before."""
    protocol = await call.start()
    if not protocol:
        await call.receive_all()
    return protocol
