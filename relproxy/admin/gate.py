"""Who may ask the admin listener for what: one table, and one place that holds to it.

Who asks is known by a bearer token, or by the certificate of the connection: the file of tokens
says what each is for. Without that file whoever has a certificate may ask for everything; where
none is asked for, the listener is on loopback, and whoever is on the host may: but no page of a
stranger's in a browser there (`rebinding.py`).
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from relproxy.admin.tokens import TokenFile
from relproxy.arrival import certificate_names
from relproxy.config_admin import Admin
from relproxy.config_tokens import Token
from relproxy.errors import TokensUnusableError
from relproxy.metrics import Metrics

_LOG = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Need(enum.Enum):
    """What a path asks of who asks for it."""

    NOTHING = enum.auto()
    METRICS = enum.auto()
    RECORDS = enum.auto()
    ALL = enum.auto()


# A path that isn't here needs all. What needs nothing says only what everybody may know, unless it
# is asked by somebody who may know all; what needs records shows those of the token's scope.
NEEDS: Mapping[str, Need] = {
    "/": Need.NOTHING,
    "/healthz": Need.NOTHING,
    "/readyz": Need.NOTHING,
    "/metrics": Need.METRICS,
    "/v1/relations": Need.RECORDS,
    "/v1/journal": Need.ALL,
    "/v1/explain": Need.ALL,
    "/v1/overview": Need.ALL,
}

_EVERYONE = Token(name="everyone", token_sha256="0" * 64, scope="all")
_NOBODY = Token(name="nobody", token_sha256="0" * 64, projects=("-",))
_HOLDER = web.RequestKey("holder", Token)


def guarded(application: web.Application, settings: Admin, metrics: Metrics) -> web.Application:
    """Return the application with a gate before it.

    Raises `ConfigurationError` if the file of tokens can't be used.
    """
    tokens = TokenFile(settings.tokens_file) if settings.tokens_file is not None else None
    asks_certificates = settings.tls is not None and settings.tls.asks_clients
    gate = Gate(tokens, metrics, needs_certificate=tokens is None and asks_certificates)
    application.middlewares.append(gate.admit)
    return application


class _RefusedError(Exception):
    """The request is refused: with this status, for this reason, with this sentence."""

    def __init__(self, status: int, reason: str, sentence: str, token: Token | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.token = token


def holder_of(request: web.Request) -> Token:
    """Return who asks: the token that was shown; without tokens, one that may see everything."""
    return request[_HOLDER]


def sees_all(request: web.Request) -> bool:
    """Tell whether who asks may see everything."""
    return holder_of(request).scope == "all"


class Gate:
    """Lets in who may.

    Without `tokens` that is everybody who can connect, or who has a client certificate.
    """

    def __init__(
        self, tokens: TokenFile | None, metrics: Metrics, *, needs_certificate: bool = False
    ) -> None:
        self._tokens = tokens
        self._needs_certificate = needs_certificate
        self._refusals = metrics.admin_refusals

    @web.middleware
    async def admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer a request, or refuse it."""
        path = _path_of(request)
        try:
            request[_HOLDER] = self._holder(request, _need(path, request))
        except _RefusedError as refused:
            return self._refusal(request, path, refused)
        response = await handler(request)
        if self._tokens is not None or self._needs_certificate:
            response.headers["Cache-Control"] = "no-store"
        return response

    def _holder(self, request: web.Request, need: Need) -> Token:
        try:
            if self._tokens is None:
                return self._anybody(request)
            found = _shown(request, self._tokens)
        except _RefusedError:
            # A probe is answered, whatever it sends.
            if need is Need.NOTHING:
                return _NOBODY
            raise
        if need is Need.NOTHING or found.scope == "all" or need is _most_of(found):
            return found
        raise _RefusedError(403, "scope", "Your token is not for this.", found)

    def _anybody(self, request: web.Request) -> Token:
        if self._needs_certificate and not certificate_names(request.transport):
            raise _RefusedError(401, "missing", "This needs a client certificate.")
        return _EVERYONE

    def _refusal(
        self, request: web.Request, path: str | None, refused: _RefusedError
    ) -> web.Response:
        self._refusals.labels(refused.reason).inc()
        _LOG.info(
            "admin request refused",
            extra={
                "path": path,
                "peer": request.remote,
                "token": refused.token.name if refused.token else None,
                "reason": refused.reason,
            },
        )
        headers = {"Cache-Control": "no-store"}
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="relproxy"'
        if refused.status == 503:
            headers["Retry-After"] = str(TokensUnusableError.retry_after_s)
        body = {"message": refused.sentence}
        return web.json_response(body, status=refused.status, headers=headers)


def _shown(request: web.Request, tokens: TokenFile) -> Token:
    """Return whose token a request shows."""
    given = request.headers.getall("Authorization", ())
    try:
        # Without one too, so that a file that can't be used is noticed.
        names = certificate_names(request.transport)
        found = tokens.holder(given[0] if len(given) == 1 else "") if given else tokens.named(names)
    except TokensUnusableError as failure:
        raise _RefusedError(failure.status, "unusable", failure.sentence) from failure
    if found is None:
        reason = "unknown" if given or names else "missing"
        raise _RefusedError(401, reason, "This needs a token: 'Authorization: Bearer ...'.")
    return found


def _path_of(request: web.Request) -> str | None:
    """Return the path as it is in the table of the router; None for one that isn't."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None


def _need(path: str | None, request: web.Request) -> Need:
    need = NEEDS.get(path or "", Need.ALL)
    # What is asked about by its name has a name that not everybody knows.
    return Need.ALL if need is Need.NOTHING and request.query_string else need


def _most_of(token: Token) -> Need:
    """Return the one thing that a token is for that isn't for all."""
    return Need.METRICS if token.scope == "metrics" else Need.RECORDS
