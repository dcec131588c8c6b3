"""One request and no client: for scripts. `calamint.get("https://…")` makes a connection, and closes it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from calamint.client.base import Auth
from calamint.client.content import Form, Params, RequestContent
from calamint.client.headers import HeadersInit
from calamint.client.message import Response
from calamint.client.sync import Client
from calamint.client.timeout import DEFAULT, Timeout
from calamint.client.urls import URL
from calamint.net.proxy import Proxy
from calamint.net.tls import Verify


def request(
    method: str,
    url: str | URL,
    *,
    params: Params | None = None,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
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
        auth=auth, proxy=proxy, timeout=timeout, follow_redirects=follow_redirects, verify=verify, trust_env=trust_env
    ) as client:
        return client.request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            extensions=extensions,
        )


@contextmanager
def stream(
    method: str,
    url: str | URL,
    *,
    params: Params | None = None,
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
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
    with (
        Client(
            auth=auth,
            proxy=proxy,
            timeout=timeout,
            follow_redirects=follow_redirects,
            verify=verify,
            trust_env=trust_env,
        ) as client,
        client.stream(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            extensions=extensions,
        ) as response,
    ):
        yield response


def get(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A GET request with a client of its own: see `request`."""
    return request(
        "GET",
        url,
        params=params,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
        extensions=extensions,
    )


def options(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """An OPTIONS request with a client of its own: see `request`."""
    return request(
        "OPTIONS",
        url,
        params=params,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
        extensions=extensions,
    )


def head(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A HEAD request with a client of its own: see `request`."""
    return request(
        "HEAD",
        url,
        params=params,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
        extensions=extensions,
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
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A POST request with a client of its own: see `request`."""
    return request(
        "POST",
        url,
        params=params,
        content=content,
        data=data,
        json=json,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
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
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A PUT request with a client of its own: see `request`."""
    return request(
        "PUT",
        url,
        params=params,
        content=content,
        data=data,
        json=json,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
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
    follow_redirects: bool = False,
    verify: Verify = True,
    timeout: float | Timeout | None = DEFAULT,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A PATCH request with a client of its own: see `request`."""
    return request(
        "PATCH",
        url,
        params=params,
        content=content,
        data=data,
        json=json,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
        extensions=extensions,
    )


def delete(
    url: str | URL,
    *,
    params: Params | None = None,
    headers: HeadersInit | None = None,
    auth: Auth | None = None,
    proxy: str | Proxy | None = None,
    follow_redirects: bool = False,
    timeout: float | Timeout | None = DEFAULT,
    verify: Verify = True,
    trust_env: bool = True,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """A DELETE request with a client of its own: see `request`."""
    return request(
        "DELETE",
        url,
        params=params,
        headers=headers,
        auth=auth,
        proxy=proxy,
        timeout=timeout,
        follow_redirects=follow_redirects,
        verify=verify,
        trust_env=trust_env,
        extensions=extensions,
    )
