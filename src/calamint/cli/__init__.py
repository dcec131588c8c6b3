"""The command: `calamint URL` prints a response, as curl does; `calamint demo` shows what calamint is for."""

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from importlib.metadata import version

from calamint.cli.fetch import Trouble, fetch
from calamint.core.errors import (
    CalamintError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DecodingError,
    InvalidURL,
    LocalProtocolError,
    ProxyError,
    RemoteProtocolError,
    StreamReset,
    TimeoutException,
    TooManyRedirects,
    UnsupportedProtocol,
    WriteError,
)

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
    (TooManyRedirects, 47),
    (DecodingError, 61),
    (WriteError, 55),
    (CalamintError, 56),
)
EPILOG = """\
exit codes: 0 a response came, whatever its status; 1 protocol not supported; 2 wrong usage; 3 not a URL; 6 no address;
7 no connection; 8 the peer broke HTTP; 23 the output could not be written; 26 a file could not be read; 28 a time limit;
35 no TLS; 43 a request that HTTP does not allow; 47 too many redirects; 56 the connection broke, or the proxy refused;
58 a file is no certificate or key; 60 the server's certificate; 61 a content coding; 92 the stream was reset;
97 the proxy broke its protocol; 130 interrupted.
HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read from the environment, unless -x names a proxy.
`calamint demo` shows why connections leak streams, and how they need not."""


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
        complain(f"{type(error).__name__}: {error}{' (--max-time)' if isinstance(error, DeadlineExceeded) else ''}")
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
    if isinstance(error, ProxyError) and error.status is None:
        return 97
    return next(code for kind, code in EXITS if isinstance(error, kind))


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process (2) where they are wrong."""
    parse = parser()
    options = parse.parse_args(words)
    if options.json is not None and (options.data or options.data_binary):
        parse.error("--json is all of the content: not with -d or --data-binary")
    if options.key and not options.cert:
        parse.error("--key is the key of --cert: not without it")
    if options.proxy and options.unix_socket:
        parse.error("--unix-socket and -x both say where to connect to: choose one of them")
    return options


def parser() -> argparse.ArgumentParser:
    """The options, named as curl names them."""
    parse = argparse.ArgumentParser(
        prog="calamint",
        usage="calamint [options] URL\n       calamint demo [--help]",
        description="Prints the response to an HTTP request.",
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
    parse.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the content there; a terminal shows how far it is",
    )
    parse.add_argument(
        "-L", "--location", action="store_true", help="follow redirects; credentials stay with their origin"
    )
    parse.add_argument(
        "--max-redirs",
        metavar="N",
        type=int,
        default=50,
        help="at most so many of them (default: 50); -1 for any number",
    )
    parse.add_argument(
        "-u", "--user", metavar="USER:PASSWORD", help="Basic credentials; a password that is missing is asked for"
    )
    parse.add_argument("--compressed", action="store_true", help="ask for content codings, and undo the one that comes")
    parse.add_argument("-i", "--include", action="store_true", help="print the response's head before its content")
    parse.add_argument("-I", "--head", action="store_true", help="ask for the head only (HEAD)")
    parse.add_argument(
        "-v", "--verbose", action="store_true", help="show frames, heads and events with their times, on stderr"
    )
    add_ways(parse)
    parse.add_argument("--version", action="version", version=f"calamint {version('calamint')}")
    return parse


def add_ways(parse: argparse.ArgumentParser) -> None:
    """The options that say where to connect to, how, and for how long."""
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
    parse.add_argument(
        "-x", "--proxy", metavar="URL", help='through this proxy (http, https, socks5; http:// is assumed); "" for none'
    )
    parse.add_argument("--noproxy", metavar="LIST", help="hosts that need no proxy, as NO_PROXY has them")
    parse.add_argument("--proxy-cacert", metavar="FILE", type=file_name, help="as --cacert, for an https proxy")
    parse.add_argument("--proxy-insecure", action="store_true", help="as -k, for an https proxy")
    parse.add_argument("--unix-socket", metavar="PATH", help="connect to this socket instead of to the URL's host")
    parse.add_argument(
        "--max-time", metavar="SECONDS", type=seconds, help="for everything; else silence ends it after 60 s"
    )
    parse.add_argument(
        "--connect-timeout", metavar="SECONDS", type=seconds, default=10.0, help="DNS, TCP, TLS, proxy (default: 10)"
    )


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
