r"""The life of one request, from top to bottom.

    source -> match -> identify -> capture | filter | pass -> forward -> reply
               \-> shadow (`shadow.py`): forward -> reply, and what would have been done is told

One match decides both directions: the operation that was found for the request also says how its
response is treated. Every branch returns the response that it means, and only what was decided
leads upstream. Whatever goes wrong becomes a refusal in one place, in the registry's own style.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus

from relproxy import routing
from relproxy.account import current, shown_path
from relproxy.bodies import whole, whole_request, whole_response
from relproxy.concurrency import Admission, Permit
from relproxy.config import Limits
from relproxy.errors import (
    BadRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RelproxyError,
    SlowRequestError,
    UnauthenticatedError,
)
from relproxy.exchange import Exchange, Own, exchange_for, identified, kind_of
from relproxy.filters.base import Dialect
from relproxy.filters.capture import MetadataHeaders
from relproxy.filters.headers import downstream_headers, private_headers, resized_headers
from relproxy.filters.links import with_location_on, with_prefixed_location
from relproxy.filters.source import with_source
from relproxy.filters.trace import continued
from relproxy.filters.trust import TrustedSources
from relproxy.filters.way import Way, with_via
from relproxy.identity.base import IdentityProvider
from relproxy.inspection import Inspected, Inspector
from relproxy.judging import Judge
from relproxy.listing import Listing, ListTools
from relproxy.messages import Headers, Request, RequestBody, Response, ResponseHead
from relproxy.metrics import Metrics
from relproxy.model import Access, Caller, Treatment
from relproxy.recording import Recording
from relproxy.shadow import Shadow, ShadowParts
from relproxy.store.base import ImageLookup, OwnerLookup
from relproxy.tasks import TaskSet
from relproxy.unsent import Unsent
from relproxy.upstream import Upstream

_LOG = logging.getLogger(__name__)

# Of a line that a pipe has to take at once; see account.py.
_MAX_CAUSE = 300


@dataclass(frozen=True, slots=True)
class Parts:
    """What the flow works with; put together in `app.py`."""

    way: Way
    routes: tuple[routing.Route, ...]
    identity: IdentityProvider
    trusted_sources: TrustedSources
    metadata_headers: MetadataHeaders
    upstreams: Mapping[str, Upstream]
    recording: Recording
    owners: OwnerLookup
    images: ImageLookup
    limits: Limits
    admission: Admission
    metrics: Metrics
    tasks: TaskSet
    shadow_s: float


class Proxy:
    """Answers requests."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._inspector = Inspector(parts.upstreams, parts.owners, parts.limits)
        self._judge = Judge(parts.trusted_sources, parts.metadata_headers, self._inspector)
        names = parts.metadata_headers.installation, parts.metadata_headers.instance
        self._unsent = Unsent(parts.limits.max_unsent_bytes)
        self._own = Own(names, parts.way)
        self._shadow = Shadow(
            ShadowParts(
                identity=parts.identity,
                judge=self._judge,
                list_tools=self._list_tools,
                recording=parts.recording,
                limits=parts.limits,
                metrics=parts.metrics,
                tasks=parts.tasks,
                own=self._own,
                patience_s=parts.shadow_s,
            )
        )

    async def respond(self, request: Request) -> Response:
        """Answer one request, whatever happens; only cancellation is raised."""
        started = time.monotonic()
        match: routing.Match | None = None
        try:
            request = Request(with_source(request.head, self._parts.way.fronts), request.body)
            request = _accounted(request)
            match = routing.match(self._parts.routes, request.head)
            _note(match)
            response = await self._admitted(request, match)
        except RelproxyError as refusal:
            response = self._refused(request, match, refusal)
        except Exception as failure:  # noqa: BLE001 - the top of a request: logged and answered
            response = self._refused(request, match, _unexpected(failure))
        self._count(match, response.head.status, time.monotonic() - started)
        return response

    async def _admitted(self, request: Request, match: routing.Match) -> Response:
        if match.route.is_shadow:
            exchange, response = await self._shadow.respond(request, match)
            return self._returned(exchange, await self._linked(exchange, response))
        permit = self._parts.admission.admit(match.route.registry.name, kind_of(match))
        try:
            return permit.until_sent(await self._matched(request, match, permit))
        except BaseException:
            permit.release()
            raise

    async def _matched(self, request: Request, match: routing.Match, permit: Permit) -> Response:
        caller = await identified(self._parts.identity, request, match)
        if isinstance(caller, Caller) and caller.project is not None:
            self._parts.admission.admit_project(permit, caller.project)
        exchange = exchange_for(request, match, caller, own=self._own)
        match match.treatment:
            case Treatment.CREATE:
                response = await self._create(exchange, permit)
            case Treatment.LIST:
                response = await self._list(exchange)
            case Treatment.IMAGE:
                response = await self._image(exchange, permit)
            case Treatment.PASS:
                response = await self._pass(exchange)
            case Treatment.REFUSE:
                raise NotFoundError("The resource could not be found.")
        if exchange.is_only_wall and match.operation.access is not Access.ANYONE:
            # The registry has judged nobody, and so it doesn't say for whom its answer is.
            response = _for_its_caller(response)
        project = exchange.caller.project if exchange.caller else None
        return self._unsent.held(self._returned(exchange, response), project)

    # -- create: capture, strip, forward, record

    async def _create(self, exchange: Exchange, permit: Permit) -> Response:
        body = await self._said_in(exchange)
        said = exchange.dialect.read_create(
            exchange.outgoing, body if isinstance(body, bytes) else b""
        )
        capture = self._judge.capture(exchange, said)
        self._judge.check_create(exchange, said)
        if capture is None and not exchange.is_only_wall:
            stripped = said.stripped if isinstance(body, bytes) else body
            return await self._forward(replace(exchange, outgoing=said.headers), stripped)
        self._judge.check_id(exchange, said)
        # From here the create isn't cancelled with its client: what the registry makes is recorded.
        return await self._parts.tasks.finish(
            permit.during(
                self._parts.recording.create(
                    exchange, said, capture, data=None if isinstance(body, bytes) else body
                )
            ),
            name="create",
        )

    # -- list: filter

    async def _list(self, exchange: Exchange) -> Response:
        return await Listing(exchange, self._list_tools(exchange.registry)).respond()

    def _list_tools(self, registry: str) -> ListTools:
        parts = self._parts
        return ListTools(
            parts.upstreams[registry],
            self._inspector,
            parts.owners,
            parts.images,
            parts.limits,
            parts.metrics,
        )

    # -- one image by id

    async def _image(self, exchange: Exchange, permit: Permit) -> Response:
        body: bytes | RequestBody = exchange.request.body
        if exchange.match.operation.has_effect:
            body = await self._said_in(exchange)
            effect = self._judge.effect(exchange, body if isinstance(body, bytes) else b"")
            if effect is not None and effect.changes_owner:
                return await self._parts.tasks.finish(
                    permit.during(self._parts.recording.owner_change(exchange, body)), name="owner"
                )
        name = exchange.match.operation.name
        found: Inspected | None = None
        if exchange.is_only_wall and not exchange.is_admin:
            found = await self._judge.own_or_visible(exchange)
            if name == "image-show":
                return found.response
        if name == "image-delete":
            return await self._delete(exchange, found, permit)
        return await self._forward(exchange, body)

    async def _said_in(self, exchange: Exchange) -> bytes | RequestBody:
        """Read the body of a request that is said there; else it is data, and streams."""
        body = exchange.request.body
        if exchange.match.operation.is_said_in_headers:
            return body
        return await whole_request(body, max_bytes=self._parts.limits.max_request_body_bytes)

    async def _delete(
        self, exchange: Exchange, found: Inspected | None, permit: Permit
    ) -> Response:
        body = await whole_request(
            exchange.request.body, max_bytes=self._parts.limits.max_request_body_bytes
        )
        created_at = found.facts.created_at if found else None
        # Not cancelled with its client either: what the registry deletes is buried.
        return await self._parts.tasks.finish(
            permit.during(self._parts.recording.deletion(exchange, body, created_at)), name="delete"
        )

    # -- pass, forward, reply

    async def _pass(self, exchange: Exchange) -> Response:
        response = await self._forward(exchange, exchange.request.body)
        return await self._linked(exchange, response)

    async def _linked(self, exchange: Exchange, response: Response) -> Response:
        """Put the links of a version document right behind a route's prefix."""
        prefix = exchange.match.route.path_prefix
        host = exchange.host if exchange.match.route.registry.host else None
        # Glance answers an unknown version with the same document and status 300.
        is_document = exchange.match.operation.is_version_document or response.head.status == 300
        if not ((prefix or host) and is_document and exchange.request.head.method == "GET"):
            return response
        body = await whole_response(response, max_bytes=self._parts.limits.max_page_bytes)
        return whole(response.head, exchange.dialect.render_versions(body, prefix, host))

    async def _forward(self, exchange: Exchange, body: bytes | RequestBody) -> Response:
        upstream = self._parts.upstreams[exchange.registry]
        method, target = exchange.request.head.method, exchange.match.target
        if isinstance(body, bytes):
            headers = resized_headers(exchange.outgoing, length=len(body))
            return await upstream.send(method, target, headers, body, errand=exchange.errand)
        sent = None if body.is_empty else body
        return await upstream.send(method, target, exchange.outgoing, sent, errand=exchange.errand)

    def _returned(self, exchange: Exchange, response: Response) -> Response:
        """Take hop-by-hop fields off, and put links right behind a route's prefix."""
        headers = downstream_headers(response.head.headers)
        route, sent = exchange.match.route, exchange.outgoing.first("Host")
        headers = with_prefixed_location(headers, prefix=route.path_prefix, host=sent)
        if route.registry.host is not None:
            headers = with_location_on(headers, sent=route.registry.host, named=exchange.host)
        headers = with_via(headers, self._parts.way.via, response.head.version)
        head = ResponseHead(response.head.status, response.head.reason, headers)
        return Response(head, response.body, response.aclose)

    def _refused(
        self, request: Request, match: routing.Match | None, refusal: RelproxyError
    ) -> Response:
        request_id = current().request_id
        route = match.route if match else None
        dialect = route.dialect if route else self._parts.routes[0].dialect
        _LOG.log(
            logging.WARNING if refusal.status >= 500 else logging.INFO,
            "request refused",
            extra={
                "request_id": request_id,
                "method": request.head.method,
                "target": shown_path(request.head.target),
                "source": str(request.head.source) if request.head.source else None,
                "route": route.name if route else None,
                "status": refusal.status,
                "reason": refusal.sentence,
                "cause": _told(refusal.__cause__) if refusal.__cause__ else None,
            },
            exc_info=refusal.__cause__ if refusal.status == RelproxyError.status else None,
        )
        return refusal_response(dialect, request.head.headers, refusal, request_id)

    def _count(self, match: routing.Match | None, status: int, seconds: float) -> None:
        route = match.route.name if match else "none"
        treatment = match.treatment.value if match else Treatment.REFUSE.value
        self._parts.metrics.requests.labels(route, treatment, str(status)).inc()
        registry = match.route.registry.name if match else "none"
        self._parts.metrics.request_seconds.labels(route, registry, treatment).observe(seconds)


def refusal_response(
    dialect: Dialect, asked: Headers, refusal: RelproxyError, request_id: str
) -> Response:
    """Render a refusal as the registry itself would, with relproxy's request id."""
    accept = ",".join(asked.values("Accept"))
    content_type, body = dialect.refusal(refusal.status, refusal.sentence, accept)
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Date", formatdate(usegmt=True)),
        ("X-Openstack-Request-Id", request_id),
        # A cache would else show a stranger's 404 to the owner.
        ("Cache-Control", "no-store"),
    ]
    if refusal.retry_after_s is not None:
        fields.append(("Retry-After", str(refusal.retry_after_s)))
    if isinstance(refusal, BadRequestError | SlowRequestError):
        # What follows on this connection may be a part of what was not understood.
        fields.append(("Connection", "close"))
    if isinstance(refusal, MethodNotAllowedError):
        fields.append(("Allow", ", ".join(refusal.allowed)))
    if isinstance(refusal, UnauthenticatedError):
        fields.append(("WWW-Authenticate", refusal.challenge))
    head = ResponseHead(
        refusal.status, HTTPStatus(refusal.status).phrase, Headers().with_added(*fields)
    )
    return Response(head, body)


def _accounted(request: Request) -> Request:
    """Note who a request comes from, and have it go on as a part of its trace."""
    account, head = current(), request.head
    account.source = str(head.source) if head.source else None
    headers = continued(head.headers, account.trace)
    return Request(replace(head, headers=headers), request.body)


def _note(match: routing.Match) -> None:
    current().matched(
        route=match.route.name,
        registry=match.route.registry.name,
        treatment=match.treatment.value,
        operation=match.operation.name,
    )


def _for_its_caller(response: Response) -> Response:
    head = response.head
    headers = private_headers(head.headers)
    return Response(
        ResponseHead(head.status, head.reason, headers, head.version),
        response.body,
        response.aclose,
    )


def _told(cause: BaseException) -> str:
    """Return what the log says of a cause, cut.

    An HTTP client's error shows the whole request, with the tokens in its headers.
    """
    shows_request = hasattr(cause, "request_info")
    text = (
        f"{type(cause).__name__}: {getattr(cause, 'message', '')}" if shows_request else repr(cause)
    )
    return text[:_MAX_CAUSE]


def _unexpected(failure: Exception) -> RelproxyError:
    refusal = RelproxyError("relproxy failed to answer this request; its log says why.")
    refusal.__cause__ = failure
    return refusal
