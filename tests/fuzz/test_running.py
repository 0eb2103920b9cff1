"""Whole requests to a running relproxy: what it classified is what the registry was asked to do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.stand_in import StandIn
from lab.stand_in_wire import Answer, Call, Handler
from relproxy import routing
from relproxy.filters.headers import IDENTITY_HEADERS
from relproxy.messages import RequestHead, folded
from relproxy.routing import Match, Route
from tests.fuzz import words
from tests.integration.conftest import Serve, registry
from tests.integration.recorder import exchanged

SECRET = "of-bob-and-nobody-else"

# What the registry may be asked to do for each operation; an image by id is looked at before.
MAY_REACH = {
    "image-list": {"_list_images", "_show_image"},
    "image-create": {"_create_image"},
    "image-update": {"_update_image"},
    "image-delete": {"_delete_image"},
    "image-download": {"_download"},
    "image-upload": {"_upload"},
    "image-tag": {"_add_tag", "_remove_tag"},
    "image-members": {"show_all", "add"},
    "image-member": {"show", "change", "remove"},
    "schema": {"_show_schema"},
    "tasks": {"_list_tasks"},
}
BODIES = (
    b"", b"", b"", b"{}", b"[]", b"null", b"_method=GET", b"_method=DELETE", b"x" * 70_000,
    b'{"name": "&_method=GET&"}', b'{"name": "a", "name": "b"}', b'{"visibility": "public"}',
    b'{"id": "%s"}' % words.IMAGE_ID.encode(), b'{"owner": "bob"}', b'{"instance_id": "1"}',
    b'[{"op": "add", "path": "/owner", "value": "alice"}]',
    b'[{"op": "replace", "path": "/name", "value": "x"}]',
)  # fmt: skip
TYPES = (
    "application/json", "application/x-www-form-urlencoded", "application/octet-stream",
    "application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch",
)  # fmt: skip
FIELDS = (
    *IDENTITY_HEADERS, "X-Nova-Instance-ID", "X-Nova-Installation-UUID", "Script-Name", "Path-Info",
    "X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL", "Forwarded",
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Uri", "TE", "Range",
    "If-None-Match", "Accept-Encoding", "X-OpenStack-Request-ID", "Content-Location", "Upgrade",
)  # fmt: skip
# What a front that is believed may add: it can name nobody else by it.
MORE_OF_ALICE = {
    *(b"x-user-id", b"x-user-domain-id", b"x-project-domain-id", b"x-is-admin-project"),
    *(b"x-service-identity-status", b"x-service-project-id", b"x-service-user-id"),
    b"x-service-roles",
}
BELIEVED = {folded(name) for name in IDENTITY_HEADERS} - MORE_OF_ALICE
FIELD_VALUES = (
    "bob", "admin", "Confirmed", "/v2/images", "DELETE", "127.0.0.1", "bytes=0-9", "gzip", "*",
    "close", "host=bob", "1", "",
)  # fmt: skip


@dataclass
class Watching(StandIn):
    """A stand-in that keeps which of its handlers were reached, and with what."""

    reached: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def routes(self) -> tuple[tuple[str, dict[str, Handler], str], ...]:
        return tuple(
            (pattern, {method: self._watched(each) for method, each in handlers.items()}, allowed)
            for pattern, handlers, allowed in super().routes()
        )

    def takes_body(self, handler: Handler) -> bool:
        return super().takes_body(handler.__wrapped__)  # type: ignore[attr-defined]

    def _watched(self, handler: Handler) -> Handler:
        async def watched(call: Call) -> Answer:
            self.reached.append((handler.__name__, call.arguments))
            return await handler(call)

        watched.__wrapped__ = handler  # type: ignore[attr-defined]
        return watched


@dataclass
class Stage:
    """A relproxy, the registry behind it, and what relproxy took each request for."""

    url: str
    glance: Watching
    tenancy: str
    matches: list[Match] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@pytest.fixture(params=["relproxy", "registry"])
async def stage(
    request: pytest.FixtureRequest, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    real = routing.match
    async with Watching(trusting=request.param == "registry") as glance:
        glance.add_image(id=words.IMAGE_ID, name=SECRET, owner="bob", visibility="private")
        client = await serve(registries=[registry(glance.url, request.param)])
        made = Stage(client.url, glance, request.param)

        def match(routes: Sequence[Route], head: RequestHead) -> Match:
            made.matches.append(real(routes, head))
            return made.matches[-1]

        monkeypatch.setattr(routing, "match", match)
        yield made
        print(made.counts)  # noqa: T201 - shown by -s
        await client.stop()


def disguised(choose: random.Random, name: str) -> str:
    """Spell the name of a field in any case, with `_` for `-`."""
    return "".join(
        choose.choice("-__" if each == "-" else each.lower() + each.upper()) for each in name
    )


def request_bytes(choose: random.Random) -> bytes:
    """Make a request that is well framed, and otherwise anything."""
    is_odd = choose.random() > 0.7
    version = choose.choice(("1.1", "1.0", "2.0")) if is_odd else "1.1"
    fields = [("Host", choose.choice(("a", "a:9292", "A.", "[::1]:80", "a@b")) if is_odd else "a")]
    fields += [("X-Project-Id", "alice"), ("X-Roles", "member"), ("Connection", "close")]
    fields += [("Accept", choose.choice(words.ACCEPTS)) for _ in range(choose.choice((0, 1, 1, 2)))]
    for _ in range(choose.randint(0, 3) if is_odd else 0):
        fields.append((disguised(choose, choose.choice(FIELDS)), choose.choice(FIELD_VALUES)))
    if is_odd and choose.random() > 0.8:
        fields.append(("Connection", disguised(choose, choose.choice(FIELDS))))
    body = choose.choice(BODIES) if choose.random() > 0.6 else b""
    if body:
        fields.append(("Content-Type", choose.choice(TYPES)))
        is_chunked = choose.random() > 0.7
        fields.append(
            ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(len(body)))
        )
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    head = f"{choose.choice(words.METHODS)} {words.target(choose)} HTTP/{version}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return (head + lines + "\r\n").encode("utf-8", "surrogatepass") + body


# One relproxy serves every example; and a request is made of some hundred choices.
@settings(suppress_health_check=list(HealthCheck))
@given(choose=st.randoms(use_true_random=False))
async def test_the_registry_is_asked_for_nothing_but_what_was_classified(
    stage: Stage, choose: random.Random
) -> None:
    stage.matches.clear()
    stage.glance.reached.clear()
    stage.glance.requests.clear()
    request = request_bytes(choose)
    answer = await exchanged(stage.url, request)
    assert answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 400")), request
    assert SECRET.encode() not in answer, request
    stage.counts[answer[9:12].decode()] += 1
    stage.counts["reached the registry"] += bool(stage.glance.requests)
    check_reached(stage, request)
    check_identity(stage, request)
    assert stage.glance.images[words.IMAGE_ID]["name"] == SECRET, request
    assert stage.glance.images[words.IMAGE_ID]["owner"] == "bob", request


def check_reached(stage: Stage, request: bytes) -> None:
    reached = stage.glance.reached
    if not stage.matches:
        assert stage.glance.requests == [], request
        return
    (matched,) = stage.matches
    operation = matched.operation
    about = (request, operation, reached)
    allowed = MAY_REACH.get(operation.name, set())
    if operation.image_id is not None:
        allowed = allowed | {"_show_image"}
        ids = {arguments[0] for _, arguments in reached}
        assert ids <= {operation.image_id.encode("latin-1").decode("utf-8", "replace")}, about
    assert {name for name, _ in reached} <= allowed, about


def check_identity(stage: Stage, request: bytes) -> None:
    """Check that the registry was told of alice by relproxy, and of nobody else by anybody.

    The client is a front that is believed: it may say that it confirms nobody, and more of alice.
    """
    alice = [
        (b"x-identity-status", b"Confirmed"), (b"x-project-id", b"alice"), (b"x-roles", b"member"),
    ]  # fmt: skip
    # Nobody is asked who sends for a version document (docs/decisions/0015).
    is_asked = not any(match.operation.is_version_document for match in stage.matches)
    is_told = stage.tenancy == "registry" and is_asked
    allowed: list[list[tuple[bytes, bytes]]] = [alice] if is_told else [[]]
    said = request.lower().replace(b"_", b"-")
    if b"identity-status" in said:
        allowed.append([])
    for recorded in stage.glance.requests:
        pairs = [(folded(name), value) for name, value in recorded.headers]
        assert [pair for pair in pairs if pair[0] in BELIEVED] in allowed, request
        more = [name for name, _ in pairs if name in MORE_OF_ALICE]
        assert len(more) == len(set(more)), request
        assert is_told or not more, request
        for name in more:
            needed = b"x-service-identity-status" if name.startswith(b"x-service-") else name
            assert needed in said, request
