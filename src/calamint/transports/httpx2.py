"""calamint under httpx2: `httpx2.AsyncClient(transport=AsyncTransport())`, `httpx2.Client(transport=Transport())`."""

from typing import final

import httpx2

from calamint.transports.asynchronous import AsyncContent, AsynchronousTransport
from calamint.transports.blocking import BlockingTransport, Content


@final
class ByteStream(Content, httpx2.SyncByteStream):
    """Content for a blocking client."""


@final
class AsyncByteStream(AsyncContent, httpx2.AsyncByteStream):
    """Content for an asynchronous client."""


@final
class Transport(BlockingTransport[ByteStream], httpx2.BaseTransport):
    """For `httpx2.Client(transport=…)`, which may be shared by threads.

    A client that is given a transport reads no proxies from the environment, and its `verify`, `cert`, `limits`, `http1`,
    `http2` do nothing: they are said here. `verify`: True, a file or directory of CA certificates, an ssl.SSLContext, or
    False. `cert`: a client certificate. `trust_env`: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and
    SSL_CERT_DIR count. `limits`: of the library's or of ours. `proxy`: a URL, or a proxy of the library's or of ours.
    `uds`: a Unix domain socket to connect to; `local_address`: to connect from; `socket_options`: for socket.setsockopt.
    `retries`: 1, what was provably not processed is sent once more, or 0. `resolver`, `settings`, `tracer`: as in
    `calamint.Client`. `pool`: its connections.

    Raises OSError where a file cannot be read, InvalidURL for a proxy's URL that is none.
    """

    library = httpx2
    network = "httpcore2"
    content = ByteStream

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its content still to come."""
        answer = self.answer(request)
        return httpx2.Response(
            answer.status, headers=answer.fields, stream=answer.content, extensions=answer.extensions
        )


@final
class AsyncTransport(AsynchronousTransport[AsyncByteStream], httpx2.AsyncBaseTransport):
    """For `httpx2.AsyncClient(transport=…)`, in asyncio and uvloop. Its options are those of `Transport`."""

    library = httpx2
    network = "httpcore2"
    content = AsyncByteStream

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its content still to come."""
        answer = await self.answer(request)
        return httpx2.Response(
            answer.status, headers=answer.fields, stream=answer.content, extensions=answer.extensions
        )
