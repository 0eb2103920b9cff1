"""HTTP as values: heads, headers and bodies, whatever server or client library carries them.

Header names and values are raw bytes in the order and the spelling in which they arrived. Names are
compared without case, and without the difference between `-` and `_`, because a WSGI registry
can't tell those apart either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from relproxy.errors import BadRequestError
from relproxy.networks import Address

HeaderPair = tuple[bytes, bytes]


def folded(name: str | bytes) -> bytes:
    """Return a header name as it is compared: lower case, `_` for `-` (PEP 3333, CGI names)."""
    raw = name.encode("latin-1") if isinstance(name, str) else name
    return raw.lower().replace(b"_", b"-")


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in their order, repeated ones included."""

    pairs: tuple[HeaderPair, ...] = ()

    def values(self, name: str) -> tuple[str, ...]:
        """Return each value of `name`, decoded as latin-1 and stripped of blanks around it."""
        wanted = folded(name)
        return tuple(
            value.decode("latin-1").strip(" \t")
            for key, value in self.pairs
            if folded(key) == wanted
        )

    def believed(self, name: str) -> tuple[str, ...]:
        """Return each value of a field that somebody is believed for.

        Raises `BadRequestError` where it is spelled with `_`: a front that replaces `X-Roles` may
        let a client's `X_Roles` pass.
        """
        if any(folded(key) == folded(name) and b"_" in key for key, _ in self.pairs):
            raise BadRequestError(f"The header '{name}' is spelled with '_': use '-'.")
        return self.values(name)

    def vouched(self, name: str) -> str | None:
        """Return the one value of a field that somebody is believed for, or None.

        Raises `BadRequestError` where it is given more than once, or spelled with `_`.
        """
        values = self.believed(name)
        if len(values) > 1:
            raise BadRequestError(f"The header '{name}' is given more than once: send it once.")
        return values[0] if values else None

    def first(self, name: str) -> str | None:
        """Return the first value of `name`, or None."""
        return next(iter(self.values(name)), None)

    def without(self, names: Iterable[str | bytes]) -> Headers:
        """Return the headers less every field with one of `names`, in any spelling."""
        gone = frozenset(map(folded, names))
        return Headers(tuple(pair for pair in self.pairs if folded(pair[0]) not in gone))

    def with_added(self, *added: tuple[str, str]) -> Headers:
        """Return the headers with `added` behind them."""
        return Headers(self.pairs + tuple(_encoded(name, value) for name, value in added))

    def with_replaced(self, name: str, value: str) -> Headers:
        """Return the headers with exactly one field of this name, where the first one was."""
        wanted = folded(name)
        places = [place for place, pair in enumerate(self.pairs) if folded(pair[0]) == wanted]
        before = Headers(self.pairs[: places[0]] if places else self.pairs)
        behind = Headers(self.pairs[places[0] :] if places else ()).without((name,))
        return Headers(before.with_added((name, value)).pairs + behind.pairs)


def _encoded(name: str, value: str) -> HeaderPair:
    return name.encode("latin-1"), value.encode("latin-1")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of one request as it came in.

    `target` is the raw request target. `peer` is None where the transport has no network address
    (a Unix socket). `connection_source` is whose connection it is: the peer, or whom a front's
    PROXY protocol header names instead; None where that names nobody. `is_fronts_own` where such a
    header says that the front relays nobody, `is_relayed` where it says that it relays somebody.
    `is_front_socket` where only fronts can connect: the peer is one, and has no address. `source`
    is who the request comes from, once that has been read (relproxy/filters/source.py): all that an
    address decides is decided by this one. `scheme` is `https` where the connection itself is
    encrypted. `certificate_names` are those of the certificate that the sender itself has proved to
    have, on this connection.
    """

    method: str
    target: str
    headers: Headers
    peer: Address | None
    listener: str
    version: tuple[int, int] = (1, 1)
    connection_source: Address | None = None
    is_fronts_own: bool = False
    source: Address | None = None
    scheme: str = "http"
    is_relayed: bool = False
    is_front_socket: bool = False
    certificate_names: frozenset[str] = frozenset()


class RequestBody(Protocol):
    """The body of a request, read at most once."""

    @property
    def is_empty(self) -> bool:
        """Tell whether the request's framing says that there is no body."""
        ...

    @property
    def length(self) -> int | None:
        """Return the length in bytes that the client promised; None for a chunked body."""
        ...

    @property
    def is_awaited(self) -> bool:
        """Tell whether the client sends it only once it was told to go on."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; reads no further than it is consumed.

        A client that waits to be told to go on is told so with the first chunk that is asked for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its head, and a body that may still be arriving."""

    head: RequestHead
    body: RequestBody


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of one response; `version` is the one in which a registry sent it."""

    status: int
    reason: str
    headers: Headers
    version: tuple[int, int] = (1, 1)


async def _nothing_to_close() -> None:
    """Stand in for the close of a response that holds nothing open."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response: a body that is at hand, or one that is streamed.

    Whoever sends a response awaits `aclose()` afterwards, whatever happened: it gives up what the
    stream still holds (an upstream connection that was read to its end goes back to its pool, one
    that wasn't is closed).
    """

    head: ResponseHead
    body: bytes | AsyncIterator[bytes]
    aclose: Callable[[], Awaitable[None]] = field(default=_nothing_to_close)


@dataclass(frozen=True, slots=True)
class Errand:
    """What a request is about, as far as its way to the registry depends on it.

    `stays_with` is an image id: of requests with the same one all go to the same endpoint.
    `moves_data` says that it may take as long as the data of an image takes: to send, to open, to
    delete.
    """

    stays_with: str | None = None
    moves_data: bool = False


PLAIN = Errand()


class Sender(Protocol):
    """What carries requests to a registry; see `relproxy.upstream.Upstream`."""

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: RequestBody | bytes | None = None,
        *,
        errand: Errand = PLAIN,
    ) -> Response:
        """Send one request and return its answer."""
        ...
