"""Many connections in one thread, in a `selectors` loop of your own.

    python examples/selector_loop.py --connections 50 http://127.0.0.1:8080/one http://127.0.0.1:8080/two

`calamint.connect` blocks: DNS, TCP, TLS. After it nothing does, if you call the connection when its socket is ready or its
time has come, and nothing happens in between. Whatever was written before you call is what the peer gets.
"""

import argparse
import selectors
import sys
import time
from urllib.parse import urlsplit

import calamint
from calamint import core


class Download:
    """One request on one connection, and what has come of it."""

    def __init__(self, url: str, http2: bool) -> None:
        self.connection = calamint.connect(url, http1=not http2)
        parts = urlsplit(url)
        self.connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), timeout=30.0)
        self.size = 0
        self.result = ""

    def take(self, events: list[core.Event]) -> None:
        """Every call of a connection gives events: it is for the caller to see whether they are the last."""
        for event in events:
            if isinstance(event, core.ResponseReceived):
                self.result = f"{event.status}"
            elif isinstance(event, core.DataReceived):
                self.size += len(event.data)
            elif isinstance(event, core.ResponseEnded):
                self.connection.close()
            elif isinstance(event, core.RequestFailed):
                self.result = event.failure.message
                self.connection.close()


def run(downloads: list[Download]) -> None:
    """The loop: until the last of them is over."""
    with selectors.DefaultSelector() as selector:
        for download in downloads:
            selector.register(download.connection, selectors.EVENT_READ, download)
        while live := [download for download in downloads if not download.connection.is_closed]:
            # 1. Wait for sockets: always to read, to write only while bytes wait; and for the first clock that runs out.
            for download in live:
                write = selectors.EVENT_WRITE if download.connection.wants_write else 0
                selector.modify(download.connection, selectors.EVENT_READ | write, download)
            wake = min([when for it in live if (when := it.connection.next_timeout()) is not None], default=None)
            ready = selector.select(None if wake is None else max(0.0, wake - time.monotonic()))
            # 2. Say what is ready.
            for key, mask in ready:
                if mask & selectors.EVENT_READ:
                    key.data.take(key.data.connection.on_readable())
                if mask & selectors.EVENT_WRITE:
                    key.data.take(key.data.connection.on_writable())
            # 3. Say whose time has come. A socket that is closed must leave the selector before its number is used again.
            for download in live:
                when = download.connection.next_timeout()
                if when is not None and when <= time.monotonic():
                    download.take(download.connection.on_timeout())
                if download.connection.is_closed:
                    selector.unregister(download.connection)


def main() -> int:
    parser = argparse.ArgumentParser(description="Downloads URLs on many connections at once, in one thread.")
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--connections", type=int, default=50, help="how many, the URLs taken in turn (default: 50)")
    parser.add_argument("--http2", action="store_true", help="HTTP/2, without asking where the URL is http")
    options = parser.parse_args()
    downloads = [Download(options.urls[n % len(options.urls)], options.http2) for n in range(options.connections)]
    run(downloads)
    for download in downloads:
        sys.stdout.write(f"{download.result} {download.size}\n")
    return 0 if all([download.result.isdigit() for download in downloads]) else 1


if __name__ == "__main__":
    sys.exit(main())
