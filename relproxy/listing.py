"""The life of a list request: what to ask the registry for, and what of its answer is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relproxy.bodies import whole, whole_response
from relproxy.config import Limits
from relproxy.errors import BadRequestError, ListChangedError, RegistryGarbageError
from relproxy.exchange import Exchange
from relproxy.filters.base import Page, Row
from relproxy.filters.headers import rewritten_headers, whole_body_headers
from relproxy.filters.query import NO_IMAGE, ListQuery, parse_list_query, upstream_query
from relproxy.filters.visibility import is_own, may_see
from relproxy.inspection import Inspector
from relproxy.messages import Response, ResponseHead
from relproxy.metrics import Metrics
from relproxy.model import ImageKey, InstanceQuery, Ownership
from relproxy.paging import Found, PageBudget, Pager
from relproxy.store.base import ImageLookup, OwnerLookup
from relproxy.upstream import Upstream

# A UUID and the comma behind it; and what stands before the first one.
_ID_BYTES = 37
_ID_FILTER_BYTES = len("&id=in:")
# With more streams a page costs more upstream requests than a user waits for.
_MAX_STREAMS = 8


class _AnsweredError(Exception):
    """The registry answered a list with something else than a list; carries that answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.head.status)
        self.response = response


@dataclass(frozen=True, slots=True)
class ListTools:
    """What a list needs besides its exchange."""

    upstream: Upstream
    inspector: Inspector
    owners: OwnerLookup
    images: ImageLookup
    limits: Limits
    metrics: Metrics


class Listing:
    """One list request on its way; used once."""

    def __init__(self, exchange: Exchange, tools: ListTools) -> None:
        self._exchange = exchange
        self._tools = tools
        self._query = parse_list_query(exchange.match.query)
        self._registry = exchange.match.route.registry
        community = self._query.filter("visibility") in {"community", "all"}
        self._viewer = exchange.viewer(asks_for_community=community)
        self._only: frozenset[ImageKey] | None = None
        self._first: tuple[Response, Page] | None = None
        self._shared: frozenset[str] | None = None

    async def respond(self) -> Response:
        """Return the whole filtered page, or the registry's own refusal.

        Raises `ListTooCostlyError`, `StoreUnavailableError` and what `Upstream.send` raises.
        """
        asked = self._query.limit
        limit = min(
            self._registry.default_limit if asked is None else asked, self._registry.max_limit
        )
        # One image more than is shown tells whether there is a next page.
        further = int(self._exchange.dialect.links_next_page)
        found = Found(wanted=limit + further if limit else 0, marker=self._query.marker)
        try:
            await self.check()
            await self._find(found)
        except _AnsweredError as answered:
            return answered.response
        return self._rendered(found.rows[:limit], has_more=len(found.rows) > limit)

    async def check(self) -> None:
        """Refuse what needs no page of the registry to be refused. Raises `BadRequestError`."""
        await self._check_marker()
        self._ids_per_request()

    async def hidden(self, head: ResponseHead, body: bytes) -> Sequence[Row]:
        """Return the images that the caller may not see of an answer to the client's own query.

        Raises what `respond` would raise of such an answer.
        """
        try:
            page = self._page_in(Response(head, body), body)
        except _AnsweredError:
            return ()
        if self._query.instance_id is not None:
            self._only = frozenset(await self._images_of_instance())
        rows = await self._with_shares(page.rows)
        ownerships = await self._ownerships(rows)
        return [row for row in rows if not self._shows(row, ownerships)]

    async def _find(self, found: Found) -> None:
        pager = Pager(
            self._fetch,
            self._visible,
            budget=PageBudget(self._tools.limits.max_upstream_pages),
            max_limit=self._registry.max_limit,
            max_ids=self._ids_per_request(),
        )
        if not found.wanted:
            await self._fetch(self._query, 0, found.marker)
        elif self._query.instance_id is not None:
            await self._find_by_ids(pager, found, await self._images_of_instance())
        elif self._exchange.is_only_wall and not self._exchange.is_admin:
            await self._find_own_and_public(pager, found)
        else:
            await pager.walk(self._query, found)

    async def _find_own_and_public(self, pager: Pager, found: Found) -> None:
        """Ask for what is recorded, and for what is public: never for what is foreign.

        A foreign image that is only read and hidden still tells: by the time it takes, and by a
        page that it makes too large. For a project with too many images to ask for all are read.
        """
        if not self._exchange.dialect.selects_by_id:
            await pager.walk(self._exchange.dialect.unnarrowed(self._query), found)
            return
        streams = await self._own_and_public()
        await self._find_in(pager, found, streams or (self._query,))

    async def _own_and_public(self) -> tuple[ListQuery, ...] | None:
        """Return the streams that hold all a project may see; None if they are too many."""
        visibility = self._query.filter("visibility")
        if visibility == "public":
            return (self._query,)
        own = await self._own_ids()
        if own is None:
            return None
        public = (
            (self._query.within("visibility", "public"),) if visibility in {None, "all"} else ()
        )
        return (*self._by_ids(own), *public) or self._by_ids((NO_IMAGE,))

    async def _own_ids(self) -> Sequence[str] | None:
        """Return the ids of the caller's own images, as far as the query asks for them."""
        caller = self._exchange.caller
        if caller is None:
            return ()
        registry, asked = self._exchange.registry, self._query.ids()
        if asked is None:
            room = _MAX_STREAMS * self._ids_per_request()
            return await self._tools.images.images_of_project(
                registry, caller.project, at_most=room
            )
        owners = await self._tools.owners.owners(registry, [i.lower() for i in asked])
        return [i for i, ownership in owners.items() if ownership.project == caller.project]

    async def _images_of_instance(self) -> Sequence[ImageKey]:
        """Return the instance's images; only those recorded for the caller's project."""
        caller = self._exchange.caller
        if caller is None:
            # Nobody's: the registry refuses the request, or lists nothing.
            return ()
        query = InstanceQuery(
            instance_id=self._query.instance_id or "",
            installation=self._query.installation or self._exchange.match.route.installation,
            project=None if caller.is_admin else caller.project,
        )
        return await self._tools.images.images_of_instance(self._exchange.registry, query)

    async def _find_by_ids(self, pager: Pager, found: Found, images: Sequence[ImageKey]) -> None:
        self._only = frozenset(images)
        if not self._exchange.dialect.selects_by_id:
            await self._find_among_all(pager, found)
            return
        ids = tuple(dict.fromkeys(image.id for image in images))
        await self._find_in(pager, found, self._by_ids(ids or (NO_IMAGE,)))

    async def _find_among_all(self, pager: Pager, found: Found) -> None:
        """Read a list that can't be asked for certain ids until they are found, or it ends."""
        found.wanted = min(found.wanted, len({image.id for image in self._only or ()}))
        if found.wanted:
            # Unnarrowed for admins too: they ask for the instance's images, not for what is public.
            query = self._exchange.dialect.unnarrowed(self._query)
            # Few are wanted of many: a page of as few would find one at a time.
            await pager.walk(query, found, first_size=self._registry.default_limit)
        else:
            await self._fetch(self._query, 0, found.marker)

    async def _find_in(self, pager: Pager, found: Found, streams: Sequence[ListQuery]) -> None:
        if len(streams) == 1:
            await pager.walk(streams[0], found)
        else:
            await pager.merge(self._query, streams, found)

    def _by_ids(self, ids: Sequence[str]) -> tuple[ListQuery, ...]:
        size = self._ids_per_request()
        parts = (ids[start : start + size] for start in range(0, len(ids), size))
        return tuple(self._query.within("id", f"in:{','.join(part)}") for part in parts)

    def _ids_per_request(self) -> int:
        """Return how many ids fit one request beside everything else that it says."""
        rest = self._target(self._query, self._registry.max_limit, NO_IMAGE)
        room = self._tools.limits.max_upstream_target_bytes - len(rest) - _ID_FILTER_BYTES
        if room < _ID_BYTES:
            raise BadRequestError("The query is too long.")
        return room // _ID_BYTES

    async def _check_marker(self) -> None:
        """Refuse a marker that the caller may not know of, as one that doesn't exist."""
        marker = self._query.marker
        if marker is None or not self._exchange.is_only_wall or self._exchange.is_admin:
            return
        if not (self._exchange.dialect.is_image_id(marker) and await self._is_visible(marker)):
            raise BadRequestError(self._exchange.dialect.absent_image(marker))

    async def _is_visible(self, image_id: str) -> bool:
        found = await self._tools.inspector.inspect(self._exchange, image_id)
        return found is not None and may_see(self._viewer, found.facts, found.ownership)

    async def _fetch(self, query: ListQuery, limit: int, marker: str | None) -> Page:
        response = await self._get(self._target(query, limit, marker))
        body = await whole_response(response, max_bytes=self._tools.limits.max_page_bytes)
        page = self._page_in(response, body)
        if self._first is None:
            self._first = (response, page)
        return page

    def _page_in(self, response: Response, body: bytes) -> Page:
        if response.head.status != 200:
            self._give_up(response, body)
        return self._exchange.dialect.page(body, self._exchange.match.operation.name)

    def _give_up(self, response: Response, body: bytes) -> None:
        """Raise what a page that isn't one means: never a list, and never a part of one."""
        status = response.head.status
        if 200 <= status < 300:
            raise RegistryGarbageError("The registry answered a list with something else.")
        if self._exchange.dialect.is_unknown_marker(status, body):
            if self._first is not None:
                raise ListChangedError("The list changed while it was read: ask again.")
            if self._query.marker is not None:
                # One answer for a foreign marker and one that doesn't exist.
                raise BadRequestError(self._exchange.dialect.absent_image(self._query.marker))
        raise _AnsweredError(whole(response.head, body))

    async def _get(self, target: str) -> Response:
        headers = whole_body_headers(self._exchange.outgoing)
        return await self._tools.upstream.send("GET", target, headers)

    def _target(self, query: ListQuery, limit: int, marker: str | None) -> str:
        path = self._exchange.dialect.list_path(self._exchange.match.operation)
        return f"{path}?{upstream_query(query, limit=limit, marker=marker)}"

    async def _visible(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that the caller may see, and count the others."""
        rows = await self._with_shares(rows)
        ownerships = await self._ownerships(rows)
        kept = [row for row in rows if self._shows(row, ownerships)]
        hidden = len(rows) - len(kept)
        self._tools.metrics.images_hidden.labels(self._exchange.match.route.name).inc(hidden)
        return kept

    def _shows(self, row: Row, ownerships: Mapping[str, Ownership]) -> bool:
        image_id = (row.facts.id or "").lower()
        if self._only is not None and ImageKey(image_id, row.facts.created_at) not in self._only:
            return False
        return may_see(self._viewer, row.facts, ownerships.get(image_id))

    async def _ownerships(self, rows: Sequence[Row]) -> Mapping[str, Ownership]:
        """Look up the records that the rule needs: none for an admin, or for public images."""
        if not self._exchange.is_only_wall or self._exchange.is_admin:
            return {}
        asked = {r.facts.id.lower() for r in rows if r.facts.id and r.facts.visibility != "public"}
        if not asked:
            return {}
        return await self._tools.owners.owners(self._exchange.registry, asked)

    async def _with_shares(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows, shared ones as that, where a list doesn't say which those are."""
        caller, dialect = self._exchange.caller, self._exchange.dialect
        if caller is None or caller.is_admin or self._exchange.is_only_wall:
            return rows
        target = dialect.shares_target(caller.project)
        foreign = {r for r in rows if not (r.facts.visibility == "public" or self._is_own(r))}
        if target is None or not foreign:
            return rows
        if self._shared is None:
            self._shared = await self._shared_ids(target)
        return [_as_shared(r) if r in foreign and r.facts.id in self._shared else r for r in rows]

    def _is_own(self, row: Row) -> bool:
        return is_own(self._viewer, row.facts, None)

    async def _shared_ids(self, target: str) -> frozenset[str]:
        response = await self._get(target)
        body = await whole_response(response, max_bytes=self._tools.limits.max_page_bytes)
        if response.head.status != 200:
            raise RegistryGarbageError("The registry failed to say what is shared.")
        return self._exchange.dialect.shared_ids(body)

    def _rendered(self, rows: list[Row], *, has_more: bool) -> Response:
        if self._first is None:
            raise RegistryGarbageError("The registry answered no list.")
        response, page = self._first
        marker = rows[-1].facts.id if rows and has_more else None
        body = self._exchange.dialect.render_page(
            page, tuple(rows), query=self._query, next_marker=marker
        )
        headers = rewritten_headers(response.head.headers, length=len(body))
        return Response(ResponseHead(200, response.head.reason, headers), body)


def _as_shared(row: Row) -> Row:
    return replace(row, facts=replace(row.facts, visibility="shared"))
