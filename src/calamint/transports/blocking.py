"""The blocking transport of httpx and httpx2, but for their base classes: a pool of ours answers their requests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Generic, NamedTuple, TypeVar

from calamint.client.base import Beginning
from calamint.core.errors import CalamintError
from calamint.core.events import DataReceived, TrailersReceived
from calamint.core.exchange import SETTINGS, Settings
from calamint.net.dial import Resolver, SocketOption, look_up
from calamint.net.threads import Call, Pool
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
from calamint.transports.tunnel import NetworkStream

C = TypeVar("C", bound="Content")


class Answer(NamedTuple, Generic[C]):
    """A response as the library makes one of it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    content: C
    extensions: dict[str, object]


class BlockingTransport(Generic[C]):
    """See `calamint.transports.httpx.Transport`."""

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

    def answer(self, request: RequestLike) -> Answer[C]:
        """Sends a request; its response, whose content is still to come. Raises the library's errors."""
        callback = request.extensions.get("trace")
        with errors(self.library, request):
            trace = None if callback is None else Trace(callback, request, self.network)
            out = self._translator.translate(request)
            dials = 0 if trace is None else self.pool.stats().dials
            call = self._begin(request, out)
            try:
                beginning = receive(call) if trace is None else self._traced(call, out, request, trace, dials)
                return self._answer(request, call, beginning, trace)
            except BaseException:
                call.cancel()
                if trace is not None:
                    with trace.step("response_closed", {}):
                        pass
                raise

    def close(self) -> None:
        """Ends every connection; what still runs fails."""
        self.pool.close()

    def _begin(self, request: RequestLike, out: Outgoing) -> Call:
        """The request is under way, and with it all of its content that need not be asked for, or that cannot be traced."""
        stream = request.stream
        if not isinstance(stream, self.library.SyncByteStream):
            raise RuntimeError("content of an asynchronous iterable: use the asynchronous client, or an iterable")
        whole = isinstance(stream, self.library.ByteStream)
        call = self.pool.request(
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
        if not whole and "trace" not in request.extensions:
            try:
                upload(call, stream)
            except BaseException:
                call.cancel()
                raise
        return call

    def _traced(self, call: Call, out: Outgoing, request: RequestLike, trace: Trace, dials: int) -> Beginning:
        """The beginning of a response, step by step. `dials`: of the pool, before the request."""
        fresh = False  # the first of an HTTP/2 connection
        if call.is_dialling or self.pool.stats().dials > dials:
            stream = NetworkStream(call, False, self.network)
            with trace.step(*told_dial(out, self._way)) as result:
                started(call)
                result["return_value"] = stream
            for handshake in told_handshakes(out, stream):
                with trace.step(*handshake) as result:
                    result["return_value"] = stream
            if fresh := call.protocol == "h2":
                with trace.step("http2.send_connection_init"):
                    pass
        trace.spoken(started(call))
        with trace.step("send_request_headers"):
            pass
        with trace.step("send_request_body"):
            if not isinstance(request.stream, self.library.ByteStream) and isinstance(
                request.stream, self.library.SyncByteStream
            ):
                upload(call, iter(request.stream))
        with trace.step("receive_response_headers") as result:
            beginning = receive(call)
            if fresh:  # they came first (RFC 9113 §3.4)
                with trace.step("receive_remote_settings", {}):
                    pass
            result["return_value"] = told_head(beginning, call.protocol)
        return beginning

    def _answer(self, request: RequestLike, call: Call, beginning: Beginning, trace: Trace | None) -> Answer[C]:
        """The head has come."""
        head = beginning.head
        assert head is not None
        trailers: list[tuple[bytes, bytes]] = []
        extensions = make_extensions(beginning, call.protocol, trailers)
        tunnel = is_tunnel(request, head.status)
        extensions["network_stream"] = NetworkStream(call, tunnel, self.network)
        content = self.content(self.library, call, request, trailers, trace, tunnel)
        return Answer(head.status, list(head.fields), content, extensions)


class Content:
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

    def __iter__(self) -> Iterator[bytes]:
        if self._tunnel:
            return
        with errors(self._library, self._request):
            if self._trace is None:
                yield from self._pieces()
            else:
                with self._trace.step("receive_response_body"):
                    yield from self._pieces()

    def close(self) -> None:
        """What has not come is not wanted any more."""
        self._call.cancel()
        trace, self._trace = self._trace, None
        if trace is not None:
            with trace.step("response_closed", {}):
                pass

    def _pieces(self) -> Iterator[bytes]:
        while events := self._call.receive_all():
            for event in events:
                if isinstance(event, DataReceived):
                    yield event.data
                elif isinstance(event, TrailersReceived):
                    self._trailers += event.fields


@contextmanager
def errors(library: ModuleType, request: RequestLike) -> Iterator[None]:
    """What goes wrong, as the library's users know it."""
    try:
        yield
    except CalamintError as error:
        raise to_library(error, library, request) from error


def upload(call: Call, stream: Iterator[bytes]) -> None:
    """Content in pieces; what the peer does not want any more is not sent."""
    for piece in stream:
        if piece and not call.send_data(bytes(piece)):
            return
    call.send_data(b"", end=True)


def receive(call: Call) -> Beginning:
    """The beginning of a response."""
    beginning = Beginning()
    while (event := call.receive()) is not None and not beginning.take([event]):
        pass  # one after the other: content does not count as read before somebody does
    return beginning


def started(call: Call) -> str:
    """What it is spoken in, as soon as it has a connection. Raises what has failed it before."""
    protocol = call.start()
    if not protocol:
        call.receive_all()
    return protocol
