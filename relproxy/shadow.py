r"""The life of one request on a route in shadow: judged as ever, and carried as if it weren't.

    identify -> forward as it came -> answer as it came
        \-> judge what enforcing would have hidden or refused: count it, log it

Every decision is the flow's own (`exchange_for`, `Judge`, `Listing`), and none can fail a request:
what can't be decided in `timeouts.shadow_s`, for whatever reason, is `unjudged`. Two things are as
always. Header fields that are never a client's to send don't go on. And what is created, given to
another owner or deleted is recorded, so that the records are there when the route is switched over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from relproxy.bodies import Copy, copied, read_ahead, too_large
from relproxy.config import Limits
from relproxy.errors import NotFoundError, RelproxyError
from relproxy.exchange import Exchange, Own, exchange_for, identified, shadow_exchange
from relproxy.filters.base import BodyEffect, CreateBody, Row
from relproxy.filters.body import decoded
from relproxy.identity.base import IdentityProvider, NoCaller
from relproxy.inspection import Inspector
from relproxy.judging import Judge
from relproxy.listing import Listing, ListTools
from relproxy.messages import PLAIN, Errand, Headers, Request, RequestBody, Response, Sender
from relproxy.metrics import Metrics
from relproxy.model import Caller, Intent, Treatment
from relproxy.recording import Recording
from relproxy.routing import Match
from relproxy.tasks import TaskSet
from relproxy.trial import ALLOWED, Judgement, Trial, Verdict, tell

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ShadowParts:
    """What the shadow works with; put together by the flow.

    `patience_s` is how long a request waits for its judging, and its answer for its record.
    """

    identity: IdentityProvider
    judge: Judge
    list_tools: Callable[[str], ListTools]
    recording: Recording
    limits: Limits
    metrics: Metrics
    tasks: TaskSet
    own: Own
    patience_s: float


class Shadow:
    """Answers requests of routes in shadow."""

    def __init__(self, parts: ShadowParts) -> None:
        self._parts = parts

    async def respond(self, request: Request, match: Match) -> tuple[Exchange, Response]:
        """Return the registry's own answer, and the exchange that it answers.

        Raises what `Upstream.send` raises: there is no answer then.
        """
        trial = await self._trial(request, match)
        match match.treatment:
            case Treatment.CREATE:
                response = await self._create(trial)
            case Treatment.LIST:
                response = await self._list(trial)
            case Treatment.IMAGE:
                response = await self._image(trial)
            case Treatment.REFUSE:
                trial.fails(NotFoundError("The resource could not be found."))
                response = await self._sent(trial, request.body)
            case Treatment.PASS:
                response = await self._sent(trial, request.body)
        tell(trial, response, self._parts.metrics)
        return trial.exchange, response

    async def _trial(self, request: Request, match: Match) -> Trial:
        """Identify the caller, and see whether the request would be taken at all."""
        own = self._parts.own
        trial = Trial(shadow_exchange(request, match, None, own=own))
        found = await self._attempt(trial, identified(self._parts.identity, request, match))
        caller = found if isinstance(found, Caller) else None
        trial.exchange = shadow_exchange(request, match, caller, own=own)
        if found is not None and trial.judgement is ALLOWED:
            trial.enforced = await self._attempt(trial, self._enforced(request, match, found))
        return trial

    async def _enforced(self, request: Request, match: Match, found: Caller | NoCaller) -> Exchange:
        if match.refusal is not None:
            raise match.refusal
        return exchange_for(request, match, found, own=self._parts.own)

    async def _attempt(self, trial: Trial, work: Awaitable[_Result]) -> _Result | None:
        """Do a part of the judging; whatever comes of it, the request goes on."""
        try:
            async with asyncio.timeout(self._parts.patience_s):
                return await work
        except RelproxyError as failure:
            trial.fails(failure)
        except TimeoutError:
            trial.judge(Judgement(Verdict.UNJUDGED, "It took too long to judge."))
        except Exception as failure:  # noqa: BLE001 - a bug in judging is no reason to refuse
            reason = "relproxy failed to judge this request."
            trial.judge(Judgement(Verdict.UNJUDGED, reason, failure=failure))
        return None

    # -- create

    async def _create(self, trial: Trial) -> Response:
        body, onward = await self._read(trial)
        intent = await self._attempt(trial, self._intent(trial, body))
        if intent is None:
            return await self._sent(trial, onward)
        return await self._recorded(
            trial, onward, lambda recording: recording.created(trial.exchange, b"", intent)
        )

    async def _intent(self, trial: Trial, body: bytes | None) -> Intent | None:
        """Judge a create, and return what is recorded of it; None where that is nothing."""
        exchange, judge = trial.exchange, self._parts.judge
        if trial.enforced is None and exchange.is_only_wall:
            return None  # Nobody is known to own what is made.
        if body is None:
            raise too_large(self._parts.limits.max_request_body_bytes)
        said = exchange.dialect.read_create(exchange.outgoing, body)
        capture = trial.check(lambda: judge.capture(exchange, said))
        trial.check(lambda: judge.check_create(exchange, said))
        if capture is None and not exchange.is_only_wall:
            return None
        trial.check(lambda: judge.check_id(exchange, said))
        if exchange.is_only_wall and _is_for_another(said, exchange.caller):
            return None
        chosen = said.chosen_id
        return Intent(
            exchange.registry,
            exchange.caller.project if exchange.caller else None,
            capture,
            chosen if chosen is not None and exchange.dialect.is_recordable_id(chosen) else None,
            image_name=said.name,
        )

    async def _recorded(
        self,
        trial: Trial,
        body: RequestBody,
        record: Callable[[Recording], Awaitable[Response]],
    ) -> Response:
        """Forward a request beside its recording: neither's failure is the other's.

        The intent is durable before the request leaves, and its end before the answer does, as long
        as the journal is well; one that isn't is not waited for.
        """
        parts = self._parts
        once = self._once(trial, body)
        recording = replace(
            parts.recording, upstreams={trial.exchange.registry: once}, goes_on_unrecorded=True
        )
        recorded = parts.tasks.start(_quietly(record(recording)), name="create")
        recorded.add_done_callback(lambda _: once.begun.set())
        with suppress(TimeoutError):
            async with asyncio.timeout(parts.patience_s):
                await once.begun.wait()
        sending = once.started()
        await asyncio.wait((sending,))
        await asyncio.wait((recorded,), timeout=parts.patience_s)
        return (await sending).response

    # -- list

    async def _list(self, trial: Trial) -> Response:
        listing = None
        if trial.enforced is not None:
            listing = await self._attempt(trial, self._checked(trial.enforced))
        response = await self._sent(trial, trial.exchange.request.body)
        if listing is None:
            return response
        copy = await copied(response, max_bytes=self._parts.limits.max_page_bytes)
        if hidden := await self._attempt(trial, self._hidden(listing, copy)):
            trial.judge(Judgement(Verdict.HIDE, hidden=hidden))
        return copy.response

    async def _checked(self, exchange: Exchange) -> Listing:
        listing = Listing(exchange, self._parts.list_tools(exchange.registry))
        await listing.check()
        return listing

    async def _hidden(self, listing: Listing, copy: Copy) -> Sequence[Row]:
        whole, max_bytes = copy.whole(), self._parts.limits.max_page_bytes
        body = whole.body if isinstance(whole.body, bytes) else b""
        codings = whole.head.headers.values("Content-Encoding")
        return await listing.hidden(whole.head, decoded(body, codings, max_bytes=max_bytes))

    # -- one image by id

    async def _image(self, trial: Trial) -> Response:
        exchange, judge = trial.exchange, self._parts.judge
        operation = exchange.match.operation
        hangs_on_it = exchange.is_only_wall and not exchange.is_admin
        if operation.name == "image-show" and hangs_on_it:
            return await self._shown(trial)
        body, onward = None, exchange.request.body
        effect: BodyEffect | None = None
        if operation.has_effect:
            body, onward = await self._read(trial)
            effect = await self._attempt(trial, self._effect(trial, body))
        if hangs_on_it and trial.enforced is not None and trial.judgement is ALLOWED:
            await self._attempt(trial, judge.own_or_visible(trial.enforced))
        if effect is not None and effect.changes_owner:
            return await self._recorded(
                trial, onward, lambda recording: recording.owner_change(exchange, body or b"")
            )
        if operation.name == "image-delete":
            return await self._recorded(
                trial, onward, lambda recording: recording.deletion(exchange, b"", None)
            )
        return await self._sent(trial, onward)

    async def _shown(self, trial: Trial) -> Response:
        """Judge by the record and the very answer that the client gets: nothing else is asked."""
        once = self._once(trial, trial.exchange.request.body)
        if trial.enforced is not None:
            tools = self._parts.list_tools(trial.exchange.registry)
            inspector = Inspector({trial.exchange.registry: once}, tools.owners, tools.limits)
            judge = replace(self._parts.judge, inspector=inspector)
            await self._attempt(trial, judge.own_or_visible(trial.enforced))
        return (await once.copy()).response

    async def _effect(self, trial: Trial, body: bytes | None) -> BodyEffect | None:
        if trial.enforced is None and trial.exchange.is_only_wall:
            return None
        if body is None:
            raise too_large(self._parts.limits.max_request_body_bytes)
        return self._parts.judge.effect(trial.exchange, body)

    # -- what all have in common

    async def _read(self, trial: Trial) -> tuple[bytes | None, RequestBody]:
        body = trial.exchange.request.body
        if trial.exchange.match.operation.is_said_in_headers:
            return b"", body
        return await read_ahead(body, max_bytes=self._parts.limits.max_request_body_bytes)

    async def _sent(self, trial: Trial, body: RequestBody) -> Response:
        upstream = self._parts.list_tools(trial.exchange.registry).upstream
        method, target = trial.exchange.request.head.method, trial.exchange.match.target
        sent, errand = None if body.is_empty else body, trial.exchange.errand
        return await upstream.send(method, target, trial.exchange.outgoing, sent, errand=errand)

    def _once(self, trial: Trial, body: RequestBody) -> _Once:
        return _Once(
            lambda: self._sent(trial, body),
            trial.exchange.request.head.method,
            self._parts.list_tools(trial.exchange.registry).upstream,
            self._parts.tasks,
            max_bytes=self._parts.limits.max_page_bytes,
        )


class _Once:
    """The client's request, sent once, whoever asks for its answer first; see `Sender`.

    It isn't cancelled with who asked. What is asked by another method, or once more, is a question
    of the recording's own.
    """

    def __init__(
        self,
        send: Callable[[], Coroutine[Any, Any, Response]],
        method: str,
        upstream: Sender,
        tasks: TaskSet,
        *,
        max_bytes: int,
    ) -> None:
        self._send = send
        self._method = method
        self._upstream = upstream
        self._tasks = tasks
        self._max_bytes = max_bytes
        self._is_read = False
        self._sending: asyncio.Task[Copy] | None = None
        self.begun = asyncio.Event()

    def started(self) -> asyncio.Task[Copy]:
        """Return the task that sends the request, which runs from now on at the latest."""
        if self._sending is None:
            self._sending = self._tasks.start(self._copied(), name="shadow")
            self.begun.set()
        return self._sending

    async def copy(self) -> Copy:
        """Return the answer as it came, with what could be read of it."""
        return await asyncio.shield(self.started())

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: RequestBody | bytes | None = None,
        *,
        errand: Errand = PLAIN,
    ) -> Response:
        """Return an answer to be read, that to the client's own request once."""
        if self._is_read or method != self._method:
            return await self._upstream.send(method, target, headers, body, errand=errand)
        self._is_read = True
        return (await self.copy()).whole()

    async def _copied(self) -> Copy:
        return await copied(await self._send(), max_bytes=self._max_bytes)


async def _quietly(work: Awaitable[Response]) -> None:
    """Record; what goes wrong is in the log, and the client has its answer all the same."""
    try:
        await work
    except RelproxyError:
        pass  # It is the client's answer too, or the recording has logged it.
    except Exception as failure:  # noqa: BLE001 - the client's answer doesn't hang on it
        _LOG.error("record failed in shadow", exc_info=failure)


def _is_for_another(said: CreateBody, caller: Caller | None) -> bool:
    """Tell whether a record would plant the image in another project, as enforcing never would."""
    if caller is None or caller.is_admin:
        return False
    return said.owner not in {None, caller.project}
