"""One client under measurement, in a process and an interpreter of its own: `clients` starts it, and asks for turns.

    PYTHON benchmarks/peers.py JOB    (JSON: the fields of `Job`)

A turn is a line with a number of requests on standard input; the answer is a line with the CPU seconds, user and system,
that they took all threads of this process. The first turn connects, and its answer is not for counting. Nothing is imported
but the standard library and the client itself.
"""

import asyncio
import gc
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class Job:
    """What to measure. `parallel`: requests under way at once, 0 for one after the other; `size`: bytes of content that each
    must bring; `streamed`: they are taken in pieces and thrown away; `core`: the processor to run on, -1 for any."""

    client: str
    url: str
    h2: bool
    ca_file: str
    parallel: int
    size: int
    streamed: bool
    core: int

    def check(self, status: int, size: int) -> None:
        """A client that skipped some work must not look fast."""
        if status != 200 or size != self.size:
            raise AssertionError(f"{self.client}: status {status}, {size} bytes of content")


def turns() -> Iterator[int]:
    """The numbers of requests that are asked for."""
    for line in sys.stdin:
        gc.collect()
        yield int(line)


def tell(seconds: float) -> None:
    """The answer to a turn."""
    sys.stdout.write(f"{seconds!r}\n")
    sys.stdout.flush()


def measure(one: Callable[[], None]) -> None:
    """Requests one after the other."""
    for count in turns():
        started = time.process_time()
        for _ in range(count):
            one()
        tell(time.process_time() - started)


async def measure_async(job: Job, one: Callable[[], Awaitable[None]]) -> None:
    """A task for each request that may be under way; when its request is over it makes the next."""

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            await one()

    for count in turns():
        started = time.process_time()
        left = iter(range(count))
        await asyncio.gather(*[work(left) for _ in range(max(1, job.parallel))])
        tell(time.process_time() - started)


def run_calamint(job: Job) -> None:
    """`Client`."""
    from calamint import Client

    with Client(verify=job.ca_file, http1=not job.h2, http2=job.h2) as client:

        def get() -> None:
            response = client.get(job.url)
            job.check(response.status_code, len(response.content))

        def stream() -> None:
            with client.stream("GET", job.url) as response:
                job.check(response.status_code, sum([len(piece) for piece in response.iter_raw()]))

        measure(stream if job.streamed else get)


async def run_calamint_async(job: Job) -> None:
    """`AsyncClient`."""
    from calamint import AsyncClient, Limits

    limits = Limits(
        max_keepalive_connections=max(20, job.parallel)
    )  # as the other clients keep all that they have used
    async with AsyncClient(verify=job.ca_file, http1=not job.h2, http2=job.h2, limits=limits) as client:

        async def get() -> None:
            response = await client.get(job.url)
            job.check(response.status_code, len(response.content))

        async def stream() -> None:
            async with client.stream("GET", job.url) as response:
                job.check(response.status_code, sum([len(piece) async for piece in response.aiter_raw()]))

        await measure_async(job, stream if job.streamed else get)


def run_bare(job: Job) -> None:
    """No client: the content of one response after the other over HTTP/1.1, read with the standard library's sockets and TLS
    and thrown away. What Python itself takes, of which no client in Python can take less."""
    url = urlsplit(job.url)
    sock = socket.create_connection((str(url.hostname), url.port or 80))
    buffer = bytearray(READ_SIZE)
    view = memoryview(buffer)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls: ssl.SSLObject | None = None
    if url.scheme == "https":
        tls = ssl.create_default_context(cafile=job.ca_file).wrap_bio(incoming, outgoing, server_hostname=url.hostname)

    def shake_hands() -> None:
        assert tls is not None
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65_536))
        sock.sendall(outgoing.read())

    def read() -> bytes:
        if tls is None:
            return sock.recv(READ_SIZE)
        incoming.write(view[: sock.recv_into(buffer)])
        pieces: list[bytes] = []
        try:
            while piece := tls.read(16 * 1024):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def one() -> None:
        request = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
        if tls is not None:
            tls.write(request)
            request = outgoing.read()
        sock.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += read()
        head, _, content = data.partition(b"\r\n\r\n")
        size = len(content)
        while size < job.size:
            size += len(read())
        job.check(int(head.split()[1]), size)

    if tls is not None:
        shake_hands()
    measure(one)


def run_pycurl(job: Job) -> None:
    """libcurl's easy interface, one handle used again and again; its multi interface for more than one request at once."""
    import pycurl

    size = 0

    def write(data: bytes) -> None:
        nonlocal size
        size += len(data)

    def handle() -> "pycurl.Curl":
        easy = pycurl.Curl()
        easy.setopt(pycurl.URL, job.url)
        easy.setopt(pycurl.CAINFO, job.ca_file)
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if job.h2 else pycurl.CURL_HTTP_VERSION_1_1)
        easy.setopt(pycurl.PIPEWAIT, 1)
        easy.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        easy.setopt(pycurl.WRITEFUNCTION, write)
        return easy

    if not job.parallel:
        easy = handle()

        def one() -> None:
            nonlocal size
            size = 0
            easy.perform()
            job.check(easy.getinfo(pycurl.RESPONSE_CODE), size)

        measure(one)
        return
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
    multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, 1 if job.h2 else job.parallel)
    handles = [handle() for _ in range(job.parallel)]
    for count in turns():
        size = ended = 0
        started = time.process_time()
        begun = min(count, job.parallel)
        for easy in handles[:begun]:
            multi.add_handle(easy)
        while ended < count:
            multi.perform()
            _, done, failed = multi.info_read()
            if failed:
                raise AssertionError(failed)
            for easy in done:
                multi.remove_handle(easy)
                ended += 1
                if begun < count:
                    multi.add_handle(easy)
                    begun += 1
            if not done:
                multi.select(1.0)
        seconds = time.process_time() - started
        job.check(200, size // count)
        tell(seconds)


async def run_wreq_async(job: Job) -> None:
    """wreq in asyncio."""
    import wreq

    client = wreq.Client(tls_verify=Path(job.ca_file), http1_only=not job.h2, http2_only=job.h2)

    async def get() -> None:
        response = await client.get(job.url)
        job.check(response.status.as_int(), len(await response.bytes()))

    async def stream() -> None:
        response = await client.get(job.url)
        async with response.stream() as pieces:
            job.check(response.status.as_int(), sum([len(piece) async for piece in pieces]))

    await measure_async(job, stream if job.streamed else get)


def run_wreq(job: Job) -> None:
    """wreq, blocking."""
    import wreq.blocking

    client = wreq.blocking.Client(tls_verify=Path(job.ca_file), http1_only=not job.h2, http2_only=job.h2)

    def get() -> None:
        response = client.get(job.url)
        job.check(response.status.as_int(), len(response.bytes()))

    def stream() -> None:
        response = client.get(job.url)
        with response.stream() as pieces:
            job.check(response.status.as_int(), sum([len(piece) for piece in pieces]))

    measure(stream if job.streamed else get)


async def run_aiohttp_async(job: Job) -> None:
    """aiohttp, which speaks HTTP/1.1."""
    import aiohttp

    context = ssl.create_default_context(cafile=job.ca_file)
    connector = aiohttp.TCPConnector(ssl=context, limit=max(1, job.parallel))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get() -> None:
            async with session.get(job.url) as response:
                job.check(response.status, len(await response.read()))

        async def stream() -> None:
            async with session.get(job.url) as response:
                job.check(response.status, sum([len(piece) async for piece in response.content.iter_any()]))

        await measure_async(job, stream if job.streamed else get)


async def run_httpx_async(job: Job) -> None:
    """httpx's AsyncClient."""
    import httpx

    context = ssl.create_default_context(cafile=job.ca_file)
    limits = httpx.Limits(max_keepalive_connections=max(20, job.parallel))
    async with httpx.AsyncClient(verify=context, http1=not job.h2, http2=job.h2, limits=limits) as client:

        async def get() -> None:
            response = await client.get(job.url)
            job.check(response.status_code, len(response.content))

        async def stream() -> None:
            async with client.stream("GET", job.url) as response:
                job.check(response.status_code, sum([len(piece) async for piece in response.aiter_raw()]))

        await measure_async(job, stream if job.streamed else get)


def run_httpx(job: Job) -> None:
    """httpx's Client."""
    import httpx

    context = ssl.create_default_context(cafile=job.ca_file)
    with httpx.Client(verify=context, http1=not job.h2, http2=job.h2) as client:

        def get() -> None:
            response = client.get(job.url)
            job.check(response.status_code, len(response.content))

        def stream() -> None:
            with client.stream("GET", job.url) as response:
                job.check(response.status_code, sum([len(piece) for piece in response.iter_raw()]))

        measure(stream if job.streamed else get)


def run_httpx2(job: Job) -> None:
    """httpx2 has httpx's interface under its own name."""
    import httpx2

    sys.modules["httpx"] = httpx2
    run_httpx(job)


async def run_httpx2_async(job: Job) -> None:
    """The same in asyncio."""
    import httpx2

    sys.modules["httpx"] = httpx2
    await run_httpx_async(job)


CLIENTS: dict[str, Callable[[Job], None]] = {
    "calamint": run_calamint,
    "bare": run_bare,
    "pycurl": run_pycurl,
    "wreq": run_wreq,
    "httpx2": run_httpx2,
    "httpx": run_httpx,
}
ASYNC_CLIENTS: dict[str, Callable[[Job], Awaitable[None]]] = {
    "calamint-async": run_calamint_async,
    "wreq-async": run_wreq_async,
    "aiohttp-async": run_aiohttp_async,
    "httpx2-async": run_httpx2_async,
    "httpx-async": run_httpx_async,
}


def main() -> None:
    """Runs the client that the job names until no more turns are asked for."""
    job = Job(**json.loads(sys.argv[1]))
    if job.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job.core})
    if job.client in CLIENTS:
        CLIENTS[job.client](job)
    else:

        async def run() -> None:
            await ASYNC_CLIENTS[job.client](job)

        asyncio.run(run())


if __name__ == "__main__":
    main()
