"""One request and no client: for scripts. `calamint.get("https://…")` makes a connection, and closes it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from calamint.client.base import Auth, HeadersInit
from calamint.client.content import Form, Params, RequestContent
from calamint.client.message import Response
from calamint.client.sync import Client
from calamint.client.timeout import DEFAULT, UNSET, Timeout
from calamint.client.urls import URL
from calamint.net.proxy import Proxy
from calamint.net.tls import Verify


def request(
    method: str,
    url: str | URL,
    *,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A request with a client of its own: see `Client.request`, and `Client` for the rest."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=UNSET if auth is None else auth,
            extensions=extensions,
        )


@contextmanager
def stream(
    method: str,
    url: str | URL,
    *,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Iterator[Response]:
    """As `request`, but the content comes as it is read: `with calamint.stream("GET", url) as response:`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        with client.stream(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=UNSET if auth is None else auth,
            extensions=extensions,
        ) as response:
            yield response


def get(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A GET request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "GET", url, params=params, headers=headers, auth=UNSET if auth is None else auth, extensions=extensions
        )


def options(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A OPTIONS request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "OPTIONS", url, params=params, headers=headers, auth=UNSET if auth is None else auth, extensions=extensions
        )


def head(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A HEAD request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "HEAD", url, params=params, headers=headers, auth=UNSET if auth is None else auth, extensions=extensions
        )


def delete(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A DELETE request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "DELETE", url, params=params, headers=headers, auth=UNSET if auth is None else auth, extensions=extensions
        )


def post(
    url: str | URL,
    *,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A POST request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "POST",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=UNSET if auth is None else auth,
            extensions=extensions,
        )


def put(
    url: str | URL,
    *,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A PUT request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "PUT",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=UNSET if auth is None else auth,
            extensions=extensions,
        )


def patch(
    url: str | URL,
    *,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    timeout: float | Timeout | None = DEFAULT,
    follow_redirects: bool = False,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A PATCH request with a client of its own: see `request`."""
    with Client(
        proxy=proxy, verify=verify, timeout=timeout, trust_env=trust_env, follow_redirects=follow_redirects
    ) as client:
        return client.request(
            "PATCH",
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            auth=UNSET if auth is None else auth,
            extensions=extensions,
        )
