"""Calls endpoints, and nothing of the operator's own.

A host is looked up once for each connection, by us; every address is checked; and the connection
goes to an address that was checked, not to the name, so a name that leads elsewhere a moment later
changes nothing. `Host`, SNI and the certificate are the name's. Redirects are not followed, because
httpcore follows none, and it knows no cookies and no proxies of the environment.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

import httpcore

from app.domain.callback import (
    DEFAULT_PORTS,
    Address,
    Allowed,
    CallbackRules,
    check_addresses,
    check_url,
)
from app.domain.errors import InvalidField
from app.domain.webhook import Outcome
from app.domain.webhook_errors import CallbackRefused

TIMEOUT_S = 15.0  # of a request, the looking up, the connecting and the answer included
CONNECT_TIMEOUT_S = 5.0  # of one address, so that another has its turn
MAX_ADDRESSES = 4  # tried; all are checked
MAX_LOOKUPS = 32  # at once, in threads of their own, because a name server may be slow
BODY_TIMEOUT_S = 2.0  # for what is shown of an answer, which has come by then
MAX_SHOWN_BYTES = 500  # of it
MAX_HEADER_BYTES = 100
MAX_ERROR_CHARS = 200
# no version, which is nobody's business
OWN_HEADERS = {"User-Agent": "adapter-safety", "Accept": "*/*", "Connection": "close"}

Resolve = Callable[[str, int], list[str]]
_PAUSES = {"timeout": {"connect": CONNECT_TIMEOUT_S}}  # the rest has the whole request's
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    OSError,
)


def resolve(host: str, port: int) -> list[str]:
    """What the system finds for a name, each address once. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Looks a host up, checks what it finds, and connects to just that."""

    def __init__(
        self,
        allowed: Allowed,
        look_up: Callable[[str, int], "asyncio.Future[list[str]]"],
        *,
        is_plain: bool,
        inner: httpcore.AsyncNetworkBackend,
    ) -> None:
        self._allowed = allowed
        self._look_up = look_up
        self._is_plain = is_plain
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises CallbackRefused, and httpcore's ConnectError and ConnectTimeout."""
        addresses = await self._checked(host, port)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._inner.connect_tcp(str(address), port, timeout)
        return await self._inner.connect_tcp(str(addresses[-1]), port, timeout)

    async def _checked(self, host: str, port: int) -> list[Address]:
        try:
            found = [ip_address(text) for text in await self._look_up(host, port)]
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("its host cannot be looked up") from None
        check_addresses(host, found, self._allowed, is_plain=self._is_plain)
        return found[:MAX_ADDRESSES]


class HttpPoster:
    """`Poster` of `app.jobs.webhook_ports`.

    With a proxy, which the operator trusts, it is the proxy that looks names up and must judge the
    addresses; what a URL says literally is checked here still.
    """

    def __init__(
        self,
        rules: CallbackRules,
        *,
        proxy: str | None = None,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._rules = rules
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._tls = tls or httpcore.default_ssl_context()
        self._network = network or httpcore.AnyIOBackend()
        self._lookups = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="webhook-names")
        self._looked_up: dict[str, list[Future[list[str]]]] = {}  # by host; the loop's own

    def close(self) -> None:
        """Wait for no name."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """One request. It never raises for what a receiver, a name or a network does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Outcome(error=f"no answer within {self._timeout_s:g} seconds")
        except (InvalidField, CallbackRefused) as error:
            return Outcome(error=str(error))
        except _FAULTS as error:
            said = str(error) or type(error).__name__
            return Outcome(error=said[:MAX_ERROR_CHARS])

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        parts = urlsplit(check_url(url, self._rules))
        own = {"Host": parts.netloc.lower(), "Content-Length": str(len(body)), **OWN_HEADERS}
        sent = [*own.items(), *headers.items()]
        request = httpcore.Request(
            "POST", _target(parts), headers=sent, content=body, extensions=_PAUSES
        )
        async with self._pool(is_plain=parts.scheme == "http") as pool:
            answer = await pool.handle_async_request(request)
            try:
                shown = await _beginning(answer)
            finally:
                await answer.aclose()
        return Outcome(answer.status, None, shown, _retry_after(answer))

    def _pool(self, *, is_plain: bool) -> httpcore.AsyncConnectionPool:
        """For one request: no connection is kept, so none outlives what was checked for it."""
        if self._proxy is not None:
            return _through(self._proxy, self._tls, self._network)
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            network_backend=PinnedBackend(
                self._rules.allowed, self._look_up, is_plain=is_plain, inner=self._network
            ),
        )

    async def settled(self, url: str) -> None:
        """A lookup cannot be broken off: until it ends, its thread is what the request takes."""
        host = urlsplit(url).hostname or ""
        lookups = [asyncio.wrap_future(each) for each in self._under_way(host)]
        await asyncio.gather(*lookups, return_exceptions=True)
        self._under_way(host)

    def _look_up(self, host: str, port: int) -> "asyncio.Future[list[str]]":
        lookup = self._lookups.submit(self._resolve, host, port)
        self._looked_up[host] = [*self._under_way(host), lookup]
        return asyncio.wrap_future(lookup)

    def _under_way(self, host: str) -> "list[Future[list[str]]]":
        """The host's lookups; those that have ended are forgotten."""
        found = [each for each in self._looked_up.pop(host, ()) if not each.done()]
        if found:
            self._looked_up[host] = found
        return found


def _through(
    proxy: str, tls: ssl.SSLContext, network: httpcore.AsyncNetworkBackend
) -> httpcore.AsyncConnectionPool:
    parts = urlsplit(proxy)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return httpcore.AsyncHTTPProxy(
        f"{parts.scheme}://{host}:{port}",
        proxy_auth=(user.encode(), password.encode()) if user else None,
        ssl_context=tls,
        proxy_ssl_context=tls if parts.scheme == "https" else None,
        network_backend=network,
    )


def _target(parts: SplitResult) -> httpcore.URL:
    """From the parts that were checked: nobody reads the text a second time, and otherwise."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = (parts.hostname or "").encode()
    return httpcore.URL(
        scheme=parts.scheme.encode(), host=host, port=parts.port, target=path.encode()
    )


def _retry_after(answer: httpcore.Response) -> str | None:
    sent = {name.lower(): value for name, value in answer.headers}
    return sent.get(b"retry-after", b"")[:MAX_HEADER_BYTES].decode("latin-1") or None


async def _beginning(answer: httpcore.Response) -> str:
    """As it comes, not unpacked. An answer that breaks off has its status all the same."""
    shown = bytearray()
    with suppress(TimeoutError, *_FAULTS):
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in answer.aiter_stream():
                shown += piece
                if len(shown) >= MAX_SHOWN_BYTES:
                    break
    return bytes(shown[:MAX_SHOWN_BYTES]).decode("utf-8", errors="replace")
