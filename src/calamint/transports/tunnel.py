"""The extension `network_stream` of a response: what its connection tells, and of a tunnel the bytes that go through it."""

import asyncio
import ssl
from importlib import import_module
from typing import NoReturn, Protocol

from calamint.core.errors import CalamintError
from calamint.core.events import DataReceived
from calamint.net.aio import Call as AsyncCall
from calamint.net.threads import Call
from calamint.net.tls import READ_SIZE, TLSPipe

NO_TUNNEL = "this response has made no tunnel (RFC 9110 §9.3.6, §7.8): its connection is not to be read or written here"


class Caller(Protocol):
    """What a stream needs of a request of either kind to tell about its connection."""

    def extra(self, name: str) -> object: ...


class Stream:
    """What both kinds have in common: where what comes is kept, and the TLS that a caller has put into the tunnel."""

    def __init__(self, tunnel: bool, network: str, pipe: TLSPipe | None = None) -> None:
        """`tunnel`: whether there is one. `network`: the module whose errors are raised."""
        self._tunnel = tunnel
        self._network = network
        self._pipe = pipe
        self._data = b""

    def _take(self, max_bytes: int) -> bytes:
        """What is here, if anything."""
        data, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return data

    def _check(self) -> None:
        if not self._tunnel:
            raise RuntimeError(NO_TUNNEL)

    def _fail(self, kind: str, error: Exception) -> NoReturn:
        """An error of the library's network level."""
        raise getattr(import_module(self._network), kind)(str(error)) from error

    def _tell(self, caller: Caller, info: str) -> object:
        """See `calamint.net.extra`."""
        return self._pipe.object if info == "ssl_object" and self._pipe is not None else caller.extra(info)


class NetworkStream(Stream):
    """For threads. One may read while another one writes."""

    def __init__(self, call: Call, tunnel: bool, network: str, pipe: TLSPipe | None = None) -> None:
        super().__init__(tunnel, network, pipe)
        self._call = call

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, or comes next, of the tunnel; nothing at its end. `timeout` in seconds."""
        self._check()
        try:
            while True:
                if self._pipe is None:
                    return self._take(max_bytes) or self._receive(max_bytes, timeout)
                if not self._data:
                    self._data = self._pipe.open()
                if self._data or self._pipe.ended:
                    return self._take(max_bytes)
                self._pipe.feed(self._receive(READ_SIZE, timeout))
                self._send(self._pipe.sealed())
        except TimeoutError as error:
            self._fail("ReadTimeout", error)
        except CalamintError as error:
            self._fail("ReadError", error)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Into the tunnel. `timeout` in seconds; what was given until then leaves all the same."""
        self._check()
        data = bytes(buffer)
        if self._pipe is not None:
            while data:
                data = data[self._pipe.seal(data) :]
            data = self._pipe.sealed()
        try:
            if not self._send(data, timeout):
                self._fail("WriteError", ConnectionError("the tunnel has ended"))
        except TimeoutError as error:
            self._fail("WriteTimeout", error)
        except CalamintError as error:
            self._fail("WriteError", error)

    def close(self) -> None:
        """Ends the tunnel."""
        self._call.cancel()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "NetworkStream":
        """TLS inside the tunnel, with whom it leads to. It is done once. Raises the library's ConnectError, ConnectTimeout."""
        self._check()
        if self._pipe is not None:
            raise RuntimeError("TLS inside TLS inside a tunnel")
        pipe = TLSPipe(ssl_context, server_hostname or "")
        try:
            while not pipe.handshake():
                self._send(pipe.sealed())
                pipe.feed(self._take(READ_SIZE) or self._receive(READ_SIZE, timeout))
            self._send(pipe.sealed())
        except TimeoutError as error:
            self._fail("ConnectTimeout", error)
        except (CalamintError, ssl.SSLError) as error:
            self._send(pipe.sealed())  # an alert
            self._fail("ConnectError", error)
        return NetworkStream(self._call, True, self._network, pipe)

    def get_extra_info(self, info: str) -> object:
        """About the connection: see `calamint.net.extra`. None for what is not known."""
        return self._tell(self._call, info)

    def _receive(self, size: int, timeout: float | None) -> bytes:
        """What comes next of the tunnel, nothing at its end. Raises TimeoutError and what has failed the request."""
        while (event := self._call.receive(timeout)) is not None:
            if isinstance(event, DataReceived):
                self._data = event.data
                return self._take(size)
        return b""

    def _send(self, data: bytes, timeout: float | None = None) -> bool:
        return not data or self._call.send_data(data, timeout=timeout)


class AsyncNetworkStream(Stream):
    """For asyncio. One task may read while another one writes."""

    def __init__(self, call: AsyncCall, tunnel: bool, network: str, pipe: TLSPipe | None = None) -> None:
        super().__init__(tunnel, network, pipe)
        self._call = call

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, or comes next, of the tunnel; nothing at its end. `timeout` in seconds."""
        self._check()
        try:
            while True:
                if self._pipe is None:
                    return self._take(max_bytes) or await self._receive(max_bytes, timeout)
                if not self._data:
                    self._data = self._pipe.open()
                if self._data or self._pipe.ended:
                    return self._take(max_bytes)
                self._pipe.feed(await self._receive(READ_SIZE, timeout))
                await self._send(self._pipe.sealed())
        except TimeoutError as error:
            self._fail("ReadTimeout", error)
        except CalamintError as error:
            self._fail("ReadError", error)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Into the tunnel. `timeout` in seconds; what was given until then leaves all the same."""
        self._check()
        data = bytes(buffer)
        if self._pipe is not None:
            while data:
                data = data[self._pipe.seal(data) :]
            data = self._pipe.sealed()
        try:
            async with asyncio.timeout(timeout):
                sent = await self._send(data)
        except TimeoutError as error:
            self._fail("WriteTimeout", error)
        except CalamintError as error:
            self._fail("WriteError", error)
        if not sent:
            self._fail("WriteError", ConnectionError("the tunnel has ended"))

    async def aclose(self) -> None:
        """Ends the tunnel."""
        self._call.cancel()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "AsyncNetworkStream":
        """TLS inside the tunnel, with whom it leads to. It is done once. Raises the library's ConnectError, ConnectTimeout."""
        self._check()
        if self._pipe is not None:
            raise RuntimeError("TLS inside TLS inside a tunnel")
        pipe = TLSPipe(ssl_context, server_hostname or "")
        try:
            while not pipe.handshake():
                await self._send(pipe.sealed())
                pipe.feed(self._take(READ_SIZE) or await self._receive(READ_SIZE, timeout))
            await self._send(pipe.sealed())
        except TimeoutError as error:
            self._fail("ConnectTimeout", error)
        except (CalamintError, ssl.SSLError) as error:
            await self._send(pipe.sealed())  # an alert
            self._fail("ConnectError", error)
        return AsyncNetworkStream(self._call, True, self._network, pipe)

    def get_extra_info(self, info: str) -> object:
        """About the connection: see `calamint.net.extra`. None for what is not known."""
        return self._tell(self._call, info)

    async def _receive(self, size: int, timeout: float | None) -> bytes:
        """What comes next of the tunnel, nothing at its end. Raises TimeoutError and what has failed the request."""
        async with asyncio.timeout(timeout):
            while (event := await self._call.receive()) is not None:
                if isinstance(event, DataReceived):
                    self._data = event.data
                    return self._take(size)
        return b""

    async def _send(self, data: bytes) -> bool:
        return not data or await self._call.send_data(data)
