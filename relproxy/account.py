"""What one request came to: filled in on its way by whoever learns something, told at its end.

An account belongs to the context of its request, and so to every task that is started for it. Where
there is no request (a health check, an entry in doubt) there is an account that nobody reads.

It is told once the last byte of the answer is written, or the client has left. What a client or a
registry wrote is in it only in a form that can't be anything else: an id that was checked, a path
without its query, and that cut.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from relproxy.errors import RelproxyError
from relproxy.filters.trace import Trace, read_trace
from relproxy.messages import RequestHead, ResponseHead
from relproxy.metrics import Metrics

# With the rest of the line less than the 4096 bytes that a pipe takes at once, so that the lines of
# several workers aren't mixed: a character may be six bytes of JSON.
_MAX_PATH = 300
_MAX_METHOD = 32

# What OpenStack's services take for a global request id (oslo_middleware/request_id.py).
_GLOBAL_ID = re.compile(r"req-[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
# What they give, and a little more; nothing that is of use in a log and isn't one.
_REGISTRYS_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID_HEADER = "X-OpenStack-Request-Id"

# Who ended a request before its answer was whole.
CutOff = Literal["client", "registry", "relproxy"]


def _new_request_id() -> str:
    return f"req-{uuid.uuid4()}"


@dataclass(slots=True)
class Account:
    """One request. Times are seconds; those on a clock are monotonic."""

    begun: float = field(default_factory=time.monotonic)
    request_id: str = field(default_factory=_new_request_id)
    listener: str | None = None
    method: str | None = None
    path: str | None = None
    global_request_id: str | None = None
    trace: Trace | None = None
    source: str | None = None
    route: str | None = None
    treatment: str | None = None
    operation: str | None = None
    registry: str | None = None
    project: str | None = None
    endpoint: str | None = None
    registry_status: int | None = None
    registry_request_id: str | None = None
    registry_requests: int = 0
    registry_s: float = 0.0
    until_registry_s: float | None = None
    status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    cut_off: CutOff | None = None
    total_s: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether it ended as it should not, by the doing of others than the client."""
        is_error = self.status is not None and self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return is_error or self.cut_off in {"registry", "relproxy"}

    def came_in(self, head: RequestHead) -> None:
        """Note what came in."""
        self.listener = head.listener
        self.method = head.method[:_MAX_METHOD]
        self.path = shown_path(head.target)
        self.trace = read_trace(head.headers)
        ids = head.headers.values(_ID_HEADER)
        if len(ids) == 1 and _GLOBAL_ID.fullmatch(ids[0]):
            self.global_request_id = ids[0]

    def matched(self, *, route: str, registry: str, treatment: str, operation: str) -> None:
        """Note which way the request takes."""
        self.route, self.registry = route, registry
        self.treatment, self.operation = treatment, operation

    def asks(self, endpoint: str) -> Callable[[ResponseHead], float]:
        """Note that an endpoint is asked.

        What is returned notes the head of its answer, and returns how long that took. Of several
        questions the last answer counts, and the time is that of all.
        """
        self.endpoint = endpoint
        self.registry_requests += 1
        asked = time.monotonic()
        if self.until_registry_s is None:
            self.until_registry_s = asked - self.begun

        def answers(head: ResponseHead) -> float:
            seconds = time.monotonic() - asked
            self.registry_s += seconds
            self.registry_status = head.status
            found = head.headers.first(_ID_HEADER)
            if found is not None and _REGISTRYS_ID.fullmatch(found):
                self.registry_request_id = found
            return seconds

        return answers

    def told(self) -> dict[str, object]:
        """Return the account as the log's line has it."""
        trace = self.trace
        return {
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
            "registry_request_id": self.registry_request_id,
            "trace_id": trace.id if trace else None,
            "span_id": trace.span if trace else None,
            "parent_id": trace.parent if trace else None,
            "source": self.source,
            "listener": self.listener,
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "treatment": self.treatment,
            "operation": self.operation,
            "registry": self.registry,
            "endpoint": self.endpoint,
            "project": self.project,
            "status": self.status,
            "registry_status": self.registry_status,
            "registry_requests": self.registry_requests,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "total_s": round(self.total_s, 6),
            "registry_s": round(self.registry_s, 6),
            "until_registry_s": _rounded(self.until_registry_s),
            "cut_off": self.cut_off,
        }


_CURRENT: ContextVar[Account] = ContextVar("account")


def current() -> Account:
    """Return the account of the request under way, or one that nobody reads."""
    try:
        return _CURRENT.get()
    except LookupError:
        return Account()


class Accounts:
    """Opens an account for each request; at its end has it counted, and told to each of `tell`."""

    def __init__(self, metrics: Metrics, *tell: Callable[[Account], None]) -> None:
        self._metrics = metrics
        self._tell = tell

    @contextmanager
    def one(self, has_left: Callable[[], bool]) -> Iterator[Account]:
        """Lend the account of one request. `has_left` tells whether its client is gone."""
        account = Account()
        _CURRENT.set(account)
        try:
            yield account
        except ConnectionError as failure:
            # Of an answer that the registry breaks off the cause says so.
            by_registry = isinstance(failure.__cause__, RelproxyError)
            account.cut_off = "registry" if by_registry else "client"
            raise
        except Exception:
            # The server itself answers so.
            account.status, account.cut_off = 500, "relproxy"
            raise
        except BaseException:
            account.cut_off = "client" if has_left() else "relproxy"
            raise
        finally:
            self._close(account)

    def _close(self, account: Account) -> None:
        account.total_s = time.monotonic() - account.begun
        route = account.route or "none"
        self._metrics.received_bytes.labels(route).inc(account.bytes_in)
        self._metrics.sent_bytes.labels(route).inc(account.bytes_out)
        if account.cut_off is not None:
            self._metrics.requests_cut_off.labels(route, account.cut_off).inc()
        for tell in self._tell:
            tell(account)


def shown_path(target: str) -> str:
    """Return the path of a target, cut; what stands before and behind it may be a secret."""
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    if not path.startswith("/"):
        _, _, rest = path.partition("://")
        path = f"/{rest.partition('/')[2]}" if rest else path
    return path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
