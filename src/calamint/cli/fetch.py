"""What `calamint URL` does: one request, those that its redirects ask for, and what comes of the last one."""

import argparse
import base64
import getpass
import os
import re
import ssl
import sys
import time
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes

from calamint import core
from calamint.cli.progress import Progress, open_progress
from calamint.cli.verbose import Verbose
from calamint.client.base import follow, keeps, method_after, name_proxy
from calamint.client.codings import Decoder, decoder_for, supported
from calamint.client.message import REDIRECTS
from calamint.client.urls import URL
from calamint.core.errors import LocalProtocolError, TooManyRedirects, TransportError, to_exception
from calamint.net.environment import ProxyMap, proxies_from_environment
from calamint.net.proxy import Proxy
from calamint.net.sync import Connection, connect

SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Pair = tuple[bytes, bytes]


class Trouble(Exception):
    """What ends the command, with this exit code: nothing that HTTP has a word for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Asked:
    """A request: the first one, or one that a redirect asks for."""

    def __init__(self, url: URL, method: str, fields: list[Pair], content: bytes | None) -> None:
        self.url = url
        self.method = method
        self.fields = fields
        self.content = content

    def follow(self, status: int, locations: list[str]) -> "Asked":
        """The next one, without what is not meant for its origin. Raises RemoteProtocolError where there is none."""
        url = follow(self.url, locations)
        method = method_after(status, self.method)
        same_origin, same_method = url.parsed.origin == self.url.parsed.origin, method == self.method
        fields = [(name, value) for name, value in self.fields if keeps(name.lower(), same_origin, same_method)]
        return Asked(url, method, fields, self.content if same_method else None)


class Output:
    """Where the response goes."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.path: str = "" if options.output in (None, "-") else options.output
        self.name = self.path or "stdout"
        self.stack = stack
        self.file: BinaryIO | None = None
        self.watched = bool(self.path) and not options.verbose
        self.progress: Progress | None = None
        self.decodes: bool = options.compressed
        self.decoder: Decoder | None = None

    def open(self) -> None:
        """Once the first request is on its way."""
        if not self.path:
            self.file = None if sys.stdout is None else sys.stdout.buffer
        elif self.file is None:
            try:
                self.file = self.stack.enter_context(open(self.path, "wb"))
            except OSError as error:
                raise Trouble(23, f"{self.name}: {error.strerror or error}") from error

    def begin(self, event: core.ResponseReceived, method: str) -> None:
        """The head of what will come. Raises DecodingError for more codings than can be undone."""
        if self.decodes:
            codings = [value.decode("latin-1") for name, value in event.fields if name.lower() == b"content-encoding"]
            self.decoder = decoder_for(", ".join(codings))
        if self.watched and method != "HEAD":
            lengths = [value for name, value in event.fields if name.lower() == b"content-length"]
            self.progress = open_progress(int(lengths[0]) if lengths else None)
            if self.progress is not None:
                self.stack.callback(self.progress.close)

    def take(self, data: bytes) -> None:
        """Content, as it came. Raises DecodingError."""
        if self.decoder is None:
            self.write(data)
        else:
            self.decoder.feed(data)
            while piece := self.decoder.take():
                self.write(piece)
        if self.progress is not None:
            self.progress.advance(len(data))

    def end(self) -> None:
        """All of it has come. Raises DecodingError where its coding has not ended."""
        if self.decoder is not None:
            self.decoder.end()

    def write(self, data: bytes) -> None:
        """Writes at once. Whoever closed the pipe has seen enough: nobody is told."""
        try:
            if self.file is None:
                raise OSError("it is closed")
            self.file.write(data)
            self.file.flush()
        except BrokenPipeError as error:
            raise Trouble(23, "") from error
        except OSError as error:
            raise Trouble(23, f"{self.name}: {error.strerror or error}") from error


def fetch(options: argparse.Namespace) -> None:
    """A request, those that its redirects ask for if they are to be followed, and the response."""
    started = time.monotonic()
    url = URL(options.url if SCHEME.match(options.url) else f"http://{options.url}")
    content, kind = read_content(options)
    method = options.request or ("HEAD" if options.head else "GET" if content is None else "POST")
    asked: Asked | None = Asked(url.bare(), method, make_fields(options, url, kind), content)
    proxies = choose_proxies(options)
    redirects = 0
    with ExitStack() as stack:
        output = Output(options, stack)
        while asked is not None:
            asked = exchange(options, asked, proxies, output, started)
            if asked is not None and redirects == options.max_redirs:
                raise TooManyRedirects(f"more than {redirects} redirects (--max-redirs)")
            redirects += 1


def exchange(
    options: argparse.Namespace, asked: Asked, proxies: ProxyMap, output: Output, started: float
) -> Asked | None:
    """One request, on a connection of its own; the next one, where the response is a redirect that is to be followed."""
    verbose = Verbose(started) if options.verbose else None
    proxy = proxies.choose(asked.url.parsed)
    if verbose is not None and proxy is not None:
        verbose.line("*", f"through the proxy {proxy.url}")
    with dial(options, asked.url, proxy, left(options, started), verbose) as connection:
        if verbose is not None:
            verbose.connected(connection.protocol)
            verbose.request(asked.method, asked.url.target, tuple(asked.fields))
        timeout = left(options, started)
        connection.request(asked.method, asked.url.target, asked.fields, asked.content, timeout=timeout)
        return show(connection, asked, options, output, verbose)


def left(options: argparse.Namespace, started: float) -> float | None:
    """Seconds of --max-time that are left; None where there is no limit."""
    return None if options.max_time is None else max(0.0, options.max_time - (time.monotonic() - started))


def dial(
    options: argparse.Namespace, url: URL, proxy: Proxy | None, seconds: float | None, verbose: Verbose | None
) -> Connection:
    """The connection that the options ask for."""
    secure = url.scheme == "https"
    try:
        return connect(
            str(url),
            http1=not options.prior and not (options.http2 and secure),
            http2=not options.http1 and (options.prior or secure),
            verify=False if options.insecure else options.cacert or True,
            cert=(options.cert, options.key) if options.cert and options.key else options.cert,
            timeout=options.connect_timeout if seconds is None else min(options.connect_timeout, seconds),
            uds=options.unix_socket,
            tap=None if verbose is None else verbose.tap,
            proxy=proxy,
        )
    except TransportError as error:
        name_proxy(error, proxy)
        raise
    except ssl.SSLError as error:
        raise Trouble(58, str(error.strerror or error)) from error
    except OSError as error:
        raise Trouble(26, f"{error.filename}: {error.strerror}") from error


def choose_proxies(options: argparse.Namespace) -> ProxyMap:
    """Through which proxies: that of -x, or those of the environment, as the clients have it."""
    trust = False if options.proxy_insecure else options.proxy_cacert or True
    try:
        if options.proxy is None and not options.unix_socket:
            found = proxies_from_environment(os.environ, trust)
            return found if options.noproxy is None else ProxyMap(found.proxies, options.noproxy)
        if not options.proxy:
            return ProxyMap({})
        proxy = Proxy(options.proxy if "://" in options.proxy else f"http://{options.proxy}", ssl=trust)
    except ImportError as error:
        raise Trouble(1, str(error)) from error
    except ValueError as error:
        raise Trouble(2, f"-x: {error}") from error
    return ProxyMap({"http": proxy, "https": proxy}, options.noproxy or "")


def read_content(options: argparse.Namespace) -> tuple[bytes | None, str]:
    """The request's content and its media type."""
    if options.json is not None:
        return read_data(options.json), "application/json"
    parts = [read_data(item, strip=True) for item in options.data or ()]
    parts += [read_data(item) for item in options.data_binary or ()]
    if not parts:
        return None, ""
    return b"&".join(parts), "application/x-www-form-urlencoded"


def read_data(text: str, strip: bool = False) -> bytes:
    """What an option says, or what stands in the file that it names with @: there `strip` takes line ends away."""
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        if text == "@-":
            data = sys.stdin.buffer.read()
        else:
            with open(text[1:], "rb") as file:
                data = file.read()
    except OSError as error:
        raise Trouble(26, f"{text[1:]}: {error.strerror or error}") from error
    return data.replace(b"\r", b"").replace(b"\n", b"") if strip else data


def make_fields(options: argparse.Namespace, url: URL, kind: str) -> list[Pair]:
    """The request's fields: defaults, unless -H replaces them or (`NAME:`) takes them away. Bytes, as they were typed."""
    fields = {b"user-agent": f"calamint/{version('calamint')}".encode(), b"accept": b"*/*"}
    if kind:
        fields[b"content-type"] = kind.encode()
    if options.json is not None:
        fields[b"accept"] = b"application/json"
    if options.compressed:
        fields[b"accept-encoding"] = supported().encode()
    secret = b""
    if options.user is not None:
        secret = read_user(options.user)
    elif url.parsed.userinfo:
        name, _, password = url.parsed.userinfo.partition(":")
        secret = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    if secret:
        fields[b"authorization"] = b"Basic " + base64.b64encode(secret)
    pairs: list[Pair] = []
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon and name.endswith(";"):
            name = name[:-1]  # `NAME;` is a field without value, as in curl
        elif not colon:
            raise LocalProtocolError(f"-H {header!r} has no colon: write 'Name: value'")
        fields.pop(os.fsencode(name.strip().lower()), None)
        if value.strip() or not colon:
            pairs.append((os.fsencode(name.strip()), os.fsencode(value.strip())))
    return [*fields.items(), *pairs]


def read_user(text: str) -> bytes:
    """User, colon, password (RFC 7617 §2); asks for a password that is missing."""
    if ":" not in text:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", getpass.GetPassWarning)
                text += ":" + getpass.getpass(f"Password of {text}: ")
        except (getpass.GetPassWarning, EOFError):
            raise Trouble(2, "-u USER: no terminal to ask for the password on; write -u USER:PASSWORD") from None
    return os.fsencode(text)


def show(
    connection: Connection, asked: Asked, options: argparse.Namespace, output: Output, verbose: Verbose | None
) -> Asked | None:
    """Prints the response as it comes; or where it leads to, if that is to be followed."""
    output.open()
    for event in connection.events():
        if verbose is not None:
            verbose.event(event)
        if isinstance(event, core.ResponseReceived):
            if options.include or options.head:
                output.write(write_head(connection, event))
            locations = [value.decode("latin-1") for name, value in event.fields if name.lower() == b"location"]
            if options.location and locations and event.status in REDIRECTS:
                following = asked.follow(event.status, locations)
                if verbose is not None:
                    verbose.line("*", f"redirected to {following.url}")
                return following
            output.begin(event, asked.method)
        elif isinstance(event, core.DataReceived):
            output.take(event.data)
        elif isinstance(event, core.RequestFailed):
            raise to_exception(event.failure)
    output.end()
    return None


def write_head(connection: Connection, event: core.ResponseReceived) -> bytes:
    """The response's head, in HTTP/1.1's form."""
    version = b"HTTP/2" if connection.protocol == "h2" else b"HTTP/1.1"
    lines = [b"%s %d %s" % (version, event.status, event.reason), *[b"%s: %s" % field for field in event.fields]]
    return b"\r\n".join(lines) + b"\r\n\r\n"
