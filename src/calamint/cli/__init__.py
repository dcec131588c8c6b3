"""The command: `calamint URL` prints a response, as curl does; `calamint demo` shows what calamint is for."""

import argparse
import base64
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

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
35 no TLS; 43 a request that HTTP does not allow; 56 the connection broke; 58 a file is no certificate or key;
60 the server's certificate; 92 the stream was reset; 130 interrupted.
`calamint demo` shows why connections leak streams, and how they need not."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Pair = tuple[bytes, bytes]


class Trouble(Exception):
    """What ends the command, with this exit code: nothing that HTTP has a word for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["demo"]:
        from calamint.cli import demo

        return demo.run(words[1:])
    options = read_options(words)
    try:
        fetch(options)
    except KeyboardInterrupt:
        return 130
    except Trouble as trouble:
        if trouble.code == 23:
            give_up_stdout()
        complain(trouble.message)
        return trouble.code
    except CalamintError as error:
        complain(f"{type(error).__name__}: {error}")
        return exit_code(error)
    return 0


def complain(message: str) -> None:
    """Says on stderr why it failed; nothing where there is nobody to tell."""
    if message:
        sys.stderr.write(f"calamint: {message}\n")


def give_up_stdout() -> None:
    """What is still to be written goes nowhere, or Python complains once more at its end."""
    if sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def exit_code(error: CalamintError) -> int:
    """The command's exit code for an error."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return 60
    if isinstance(cause, ssl.SSLError):
        return 35
    if isinstance(cause, socket.gaierror | UnicodeError):
        return 6
    return next(code for kind, code in EXITS if isinstance(error, kind))


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process (2) where they are wrong."""
    parse = parser()
    options = parse.parse_args(words)
    if options.json is not None and (options.data or options.data_binary):
        parse.error("--json is all of the content: not with -d or --data-binary")
    if options.key and not options.cert:
        parse.error("--key is the key of --cert: not without it")
    return options


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
    parse.add_argument(
        "--cacert", metavar="FILE", type=file_name, help="trust these CA certificates (PEM) instead of the system's"
    )
    parse.add_argument("--cert", metavar="FILE", type=file_name, help="client certificate (PEM)")
    parse.add_argument("--key", metavar="FILE", type=file_name, help="its private key, if in a file of its own")
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


def file_name(text: str) -> str:
    """The name of a file: an empty one, of a variable that is not set, must not mean the default."""
    if not text:
        raise argparse.ArgumentTypeError("the name of a file is missing")
    return text


def fetch(options: argparse.Namespace) -> None:
    """One request and its response."""
    started = time.monotonic()
    text = options.url if SCHEME.match(options.url) else f"http://{options.url}"
    url = read_url(text)
    content, kind = read_content(options)
    method = options.request or ("HEAD" if options.head else "GET" if content is None else "POST")
    fields = make_fields(options, url, kind)
    verbose = Verbose(started) if options.verbose else None
    with dial(options, text, url.origin.scheme == "https", verbose) as connection:
        if verbose is not None:
            verbose.connected(connection.protocol)
            verbose.request(method, url.target, tuple(fields))
        left = None if options.max_time is None else max(0.0, options.max_time - (time.monotonic() - started))
        connection.request(method, url.target, fields, content, timeout=left)
        show(connection, options, verbose)


def dial(options: argparse.Namespace, text: str, secure: bool, verbose: Verbose | None) -> Connection:
    """The connection that the options ask for."""
    try:
        return connect(
            text,
            http1=not options.prior and not (options.http2 and secure),
            http2=not options.http1 and (options.prior or secure),
            verify=False if options.insecure else options.cacert or True,
            cert=(options.cert, options.key) if options.cert and options.key else options.cert,
            timeout=min(options.connect_timeout, options.max_time or options.connect_timeout),
            uds=options.unix_socket,
            tap=None if verbose is None else verbose.tap,
        )
    except ssl.SSLError as error:
        raise Trouble(58, str(error.strerror or error)) from error
    except OSError as error:
        raise Trouble(26, f"{error.filename}: {error.strerror}") from error


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
    if url.userinfo:
        name, _, password = url.userinfo.partition(":")
        secret = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
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


def show(connection: Connection, options: argparse.Namespace, verbose: Verbose | None) -> None:
    """Prints the response as it comes."""
    with ExitStack() as stack:
        name = "stdout"
        out: BinaryIO | None = None if sys.stdout is None else sys.stdout.buffer
        if options.output and options.output != "-":
            name = options.output
            try:
                out = stack.enter_context(open(name, "wb"))
            except OSError as error:
                raise Trouble(23, f"{name}: {error.strerror or error}") from error
        for event in connection.events():
            if verbose is not None:
                verbose.event(event)
            if isinstance(event, core.ResponseReceived) and (options.include or options.head):
                write(out, write_head(connection, event), name)
            elif isinstance(event, core.DataReceived):
                write(out, event.data, name)
            elif isinstance(event, core.RequestFailed):
                raise to_exception(event.failure)


def write(out: BinaryIO | None, data: bytes, name: str) -> None:
    """Writes at once. Whoever closed the pipe has seen enough: nobody is told."""
    try:
        if out is None:
            raise OSError("it is closed")
        out.write(data)
        out.flush()
    except BrokenPipeError as error:
        raise Trouble(23, "") from error
    except OSError as error:
        raise Trouble(23, f"{name}: {error.strerror or error}") from error


def write_head(connection: Connection, event: core.ResponseReceived) -> bytes:
    """The response's head, in HTTP/1.1's form."""
    version = b"HTTP/2" if connection.protocol == "h2" else b"HTTP/1.1"
    lines = [b"%s %d %s" % (version, event.status, event.reason), *[b"%s: %s" % field for field in event.fields]]
    return b"\r\n".join(lines) + b"\r\n\r\n"
