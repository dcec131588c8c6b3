"""Our signatures against httpx's: the same names, kinds and order. What differs stands here, with the reason."""

import inspect
from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest

import calamint

FUNCTIONS: Final = ("get", "options", "head", "post", "put", "patch", "delete", "request", "stream")
METHODS: Final = (*FUNCTIONS, "__init__", "send", "build_request")

# Parameters of httpx that we do not have.
LEFT_OUT: Final = {
    "cookies": "a jar is a policy of its own: httpx2 and requests have one, over our transports",
    "files": "multipart forms: httpx2 and requests write them, over our transports",
    "mounts": "one transport answers for all origins",
    "event_hooks": "what happens is told to a Tracer, and a function around the client sees requests and responses",
    "stream": "of a Request: its content says it",
}
# Parameters that we have and httpx has not.
ADDED: Final = {
    "retries": "what was provably not processed is sent once more",
    "coding_limits": "what content may decode to",
    "settings": "of each connection",
    "resolver": "from names to addresses",
    "uds": "a Unix domain socket; httpx has it in its transport",
    "local_address": "to connect from; httpx has it in its transport",
    "tracer": "whom to tell what happens",
    "extensions": "httpx's functions without a client lack it, its methods have it",
}
# What is on httpx's side and not on ours.
MISSING: Final[dict[str, dict[str, str]]] = {
    "Client": {"cookies": "no jar", "event_hooks": "see above"},
    "Response": {"cookies": "no jar", "links": "RFC 8288 is another matter"},
    "Request": {},
    "Headers": {"encoding": "each value is UTF-8 where it can be, else Latin-1"},
}


def parameters(call: Callable[..., Any]) -> list[tuple[str, Any]]:
    found = [(name, each.kind) for name, each in inspect.signature(call).parameters.items()]
    return [(name, kind) for name, kind in found if name not in LEFT_OUT]


def check(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    """What both have is alike, and in the same order; what else there is we know about."""
    here, there = parameters(ours), parameters(theirs)
    names = {name for name, _ in there}
    common = [each for each in here if each[0] in names]
    if ours is calamint.AsyncClient.__init__:  # httpx's two clients differ in where trust_env stands, ours do not
        common, there = sorted(common), sorted(there)
    assert common == there
    assert {name for name, _ in here} - names <= set(ADDED)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    check(getattr(calamint, name), getattr(httpx, name))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_methods(kind: str, name: str) -> None:
    ours, theirs = getattr(getattr(calamint, kind), name), getattr(getattr(httpx, kind), name)
    if name == "stream":  # both are made by decorators
        ours, theirs = inspect.unwrap(ours), inspect.unwrap(theirs)
    check(ours, theirs)


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Response", "Request", "Headers"])
def test_members(name: str) -> None:
    """Every public method and property of httpx's class is one of ours."""
    theirs = {each for each in dir(getattr(httpx, name)) if not each.startswith("_")}
    ours = set(dir(getattr(calamint, name))) | attributes(name)
    missing = MISSING["Client" if name == "AsyncClient" else name]
    assert theirs - ours == set(missing)


def attributes(name: str) -> set[str]:
    """What instances of our class have besides."""
    if name in ("Client", "AsyncClient"):
        client = getattr(calamint, name)(transport=calamint.MockTransport(lambda request: calamint.Response(200)))
        return set(vars(client))
    if name == "Response":
        return set(vars(calamint.Response(200)))
    return set()


def test_response_and_request_take_the_same() -> None:
    for name in ("Response", "Request"):
        here, there = [
            [each for each in parameters(getattr(module, name).__init__) if each[0] not in ("stream", "coding_limits")]
            for module in (calamint, httpx)
        ]
        assert sorted(here) == sorted(there), name


@pytest.mark.parametrize(
    "name", ["HTTPStatusError", "TooManyRedirects", "DecodingError", "InvalidURL", "UnsupportedProtocol", "ProxyError"]
)
def test_errors_have_the_same_names(name: str) -> None:
    assert issubclass(getattr(calamint, name), calamint.CalamintError) and issubclass(getattr(httpx, name), Exception)


def test_the_plain_number_is_not_httpxs() -> None:
    """The one name that means something else: all of a request, where httpx means each of its waits."""
    assert calamint.Timeout(5).total == 5
    assert calamint.Timeout(5, connect=1, read=2, write=3, pool=4) == calamint.Timeout(
        5, connect=1, head=2, idle=2, write=3, pool=4
    )
