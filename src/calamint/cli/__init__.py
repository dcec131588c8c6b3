"""The command: `calamint URL` prints a response, as curl does; `calamint demo` shows what calamint is for."""

import argparse
import base64
import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import BinaryIO

from calamint import core
from calamint.cli.verbose import Verbose
from calamint.core.errors import (
    CalamintError,
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    LocalProtocolError,
    RemoteProtocolError,
    StreamReset,
    TimeoutException,
    UnsupportedProtocol,
    WriteError,
    to_exception,
)
from calamint.core.url import URL
from calamint.net.dial import read_url
from calamint.net.sync import Connection, connect

# curl's exit codes, where it has one
EXITS = (
    (UnsupportedProtocol, 1),
    (InvalidURL, 3),
    (ConnectTimeout, 28),
    (ConnectError, 7),
    (TimeoutException, 28),
    (LocalProtocolError, 43),
    (StreamReset, 92),
    (RemoteProtocolError, 8),
    (WriteError, 55),
    (CalamintError, 56),
)
EPILOG = """\
exit codes: 0 a response came, whatever its status; 1 protocol not supported; 2 wrong usage; 3 not a URL; 6 no address;
7 no connection; 8 the peer broke HTTP; 23 the output could not be written; 26 a file could not be read; 28 a time limit;
35 no TLS; 43 a request that HTTP does not allow; 55 and 56 the connection broke; 60 the server's certificate;
92 the stream was reset; 130 interrupted.
`calamint demo` shows why connections leak streams, and how they need not."""

Pair = tuple[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["demo"]:
        from calamint.cli import demo

        return demo.run(words[1:])
    options = parser().parse_args(words)
    try:
        return fetch(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        return 23
    except CalamintError as error:
        sys.stderr.write(f"calamint: {type(error).__name__}: {error}\n")
        return exit_code(error)


def exit_code(error: CalamintError) -> int:
    """The command's exit code for an error."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return 60
    if isinstance(cause, ssl.SSLError):
        return 35
    if isinstance(cause, socket.gaierror):
        return 6
    return next(code for kind, code in EXITS if isinstance(error, kind))


def parser() -> argparse.ArgumentParser:
    """The options, named as curl names them."""
    parse = argparse.ArgumentParser(
        prog="calamint",
        usage="calamint [options] URL\n       calamint demo [--help]",
        description="Prints the response to one HTTP request.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("url", metavar="URL", help="http:// is assumed where no scheme is written")
    parse.add_argument(
        "-X", "--request", metavar="METHOD", help="GET, or POST with content, unless this says otherwise"
    )
    parse.add_argument(
        "-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="may be given again"
    )
    parse.add_argument(
        "-d", "--data", metavar="DATA", action="append", help="form content; @FILE reads it, without newlines"
    )
    parse.add_argument(
        "--data-binary", metavar="DATA", action="append", help="content as it is; @FILE reads it, @- is stdin"
    )
    parse.add_argument(
        "--json", metavar="JSON", help="JSON content, and its content-type and accept fields; @FILE reads it"
    )
    parse.add_argument("-o", "--output", metavar="FILE", help="write the content there instead of to stdout")
    parse.add_argument("-i", "--include", action="store_true", help="print the response's head before its content")
    parse.add_argument("-I", "--head", action="store_true", help="ask for the head only (HEAD)")
    parse.add_argument(
        "-v", "--verbose", action="store_true", help="show frames, heads and events with their times, on stderr"
    )
    protocol = parse.add_mutually_exclusive_group()
    protocol.add_argument("--http1.1", dest="http1", action="store_true", help="HTTP/1.1 only")
    protocol.add_argument(
        "--http2", action="store_true", help="HTTP/2 only where TLS can ask for it, HTTP/1.1 over http"
    )
    protocol.add_argument("--http2-prior-knowledge", dest="prior", action="store_true", help="HTTP/2 without asking")
    parse.add_argument("--cacert", metavar="FILE", help="trust these CA certificates (PEM) instead of the system's")
    parse.add_argument("--cert", metavar="FILE", help="client certificate (PEM)")
    parse.add_argument("--key", metavar="FILE", help="its private key, if in a file of its own")
    parse.add_argument("-k", "--insecure", action="store_true", help="do not check the server's certificate")
    parse.add_argument("--unix-socket", metavar="PATH", help="connect to this socket instead of to the URL's host")
    parse.add_argument(
        "--max-time", metavar="SECONDS", type=seconds, help="for everything; else silence ends it after 60 s"
    )
    parse.add_argument(
        "--connect-timeout", metavar="SECONDS", type=seconds, default=10.0, help="DNS, TCP, TLS (default: 10)"
    )
    parse.add_argument("--version", action="version", version=f"calamint {version('calamint')}")
    return parse


def seconds(text: str) -> float:
    """A time limit, more than nothing."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: write seconds, more than 0")
    return number


def fetch(options: argparse.Namespace) -> int:
    """One request and its response."""
    started = time.monotonic()
    text = options.url if "://" in options.url else f"http://{options.url}"
    url = read_url(text)
    try:
        content, kind = read_content(options)
    except OSError as error:
        sys.stderr.write(f"calamint: {error.filename}: {error.strerror}\n")
        return 26
    method = options.request or ("HEAD" if options.head else "GET" if content is None else "POST")
    fields = make_fields(options, url, kind)
    verbose = Verbose(started) if options.verbose else None
    limit = min(options.connect_timeout, options.max_time or options.connect_timeout)
    with connect(
        text,
        http1=not options.prior and not (options.http2 and url.origin.scheme == "https"),
        http2=not options.http1 and (options.prior or url.origin.scheme == "https"),
        verify=False if options.insecure else options.cacert or True,
        cert=(options.cert, options.key) if options.cert and options.key else options.cert,
        timeout=limit,
        uds=options.unix_socket,
        tap=None if verbose is None else verbose.tap,
    ) as connection:
        if verbose is not None:
            verbose.connected(connection.protocol)
        left = None if options.max_time is None else options.max_time - (time.monotonic() - started)
        connection.request(method, url.target, fields, content, timeout=left)
        return show(connection, options, verbose)


def read_content(options: argparse.Namespace) -> tuple[bytes | None, str]:
    """The request's content and its media type. Raises OSError for a file that cannot be read."""
    if options.json is not None:
        return read_data(options.json), "application/json"
    parts = [read_data(item).replace(b"\r", b"").replace(b"\n", b"") for item in options.data or ()]
    parts += [read_data(item) for item in options.data_binary or ()]
    if not parts:
        return None, ""
    return b"&".join(parts), "application/x-www-form-urlencoded"


def read_data(text: str) -> bytes:
    """What an option says, or what stands in the file that it names with @."""
    if text == "@-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        with open(text[1:], "rb") as file:
            return file.read()
    return os.fsencode(text)


def make_fields(options: argparse.Namespace, url: URL, kind: str) -> list[Pair]:
    """The request's fields: defaults, unless -H replaces them or (`NAME:`) takes them away."""
    fields = {"user-agent": f"calamint/{version('calamint')}", "accept": "*/*"}
    if kind:
        fields["content-type"] = kind
    if options.json is not None:
        fields["accept"] = "application/json"
    if url.userinfo:
        fields["authorization"] = "Basic " + base64.b64encode(url.userinfo.encode()).decode()
    pairs: list[Pair] = []
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon and name.endswith(";"):
            name = name[:-1]  # `NAME;` is a field without value, as in curl
        elif not colon:
            raise LocalProtocolError(f"-H {header!r} has no colon: write 'Name: value'")
        fields.pop(name.strip().lower(), None)
        if value.strip() or not colon:
            pairs.append((name.strip(), value.strip()))
    return [*fields.items(), *pairs]


def show(connection: Connection, options: argparse.Namespace, verbose: Verbose | None) -> int:
    """Prints the response as it comes."""
    with ExitStack() as stack:
        out: BinaryIO = sys.stdout.buffer
        try:
            if options.output and options.output != "-":
                out = stack.enter_context(open(options.output, "wb"))
            for event in connection.events():
                if verbose is not None:
                    verbose.event(event)
                if isinstance(event, core.ResponseReceived) and (options.include or options.head):
                    out.write(write_head(connection, event))
                elif isinstance(event, core.DataReceived):
                    out.write(event.data)
                    out.flush()
                elif isinstance(event, core.RequestFailed):
                    raise to_exception(event.failure)
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            sys.stderr.write(f"calamint: {options.output or 'stdout'}: {error.strerror or error}\n")
            return 23
    return 0


def write_head(connection: Connection, event: core.ResponseReceived) -> bytes:
    """The response's head, in HTTP/1.1's form."""
    version = b"HTTP/2" if connection.protocol == "h2" else b"HTTP/1.1"
    lines = [b"%s %d %s" % (version, event.status, event.reason), *[b"%s: %s" % field for field in event.fields]]
    return b"\r\n".join(lines) + b"\r\n\r\n"
