"""Routes in shadow: the traffic is as without relproxy, and what enforcing would do is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from lab.stand_in_wire import Recorded
from relproxy.errors import JournalUnavailableError, KeystoneUnavailableError
from relproxy.model import ImageRecord
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import EAST, Answer, Client, Serve, eventually, registry
from tests.integration.recorder import Recorder, exchanged, recording
from tests.integration.test_store_away import broken

CREATED_AT = "2030-01-01T00:00:00Z"
MINE, THEIRS, PUBLIC, ABSENT = (f"{n}1111111-2222-4333-8444-555555555555" for n in "1234")
CHOSEN = "aaaaaaaa-2222-4333-8444-555555555555"
IMAGES: tuple[dict[str, Any], ...] = (
    {"id": MINE, "owner": "alice", "visibility": "shared", "name": "mine"},
    {"id": THEIRS, "owner": "bob", "visibility": "private", "name": "secret", "instance_id": "123"},
    {"id": PUBLIC, "owner": "carol", "visibility": "public", "name": "debian"},
)
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
VND = {"Accept": "application/vnd.openstack.images-v2"}
IDENTITY = (b"x-identity-status", b"x-project-id", b"x-roles")
# What two answers to one question differ in, and what isn't end-to-end.
PASSING = (b"date", b"x-openstack-request-id", b"connection", b"transfer-encoding")
SHADOW = [{"name": "all", "registry": "glance", "installation": "east", "mode": "shadow"}]


@dataclass(frozen=True)
class Twins:
    """Two registries with the same images: one behind a relproxy in shadow, one asked directly."""

    name: str
    client: Client
    behind: StandIn
    beside: StandIn

    async def ask(
        self, method: str, target: str, project: str | None, **options: Any
    ) -> tuple[Answer, Answer]:
        """Ask through relproxy, then directly, as whom relproxy would say that it is."""
        headers = {"Host": "images.example", **options.pop("headers", {})}
        through = await self.client.call(
            method, target, project=project, headers=headers, **options
        )
        if self.name == "second_wall" and project is not None:
            told = {"X-Identity-Status": "Confirmed", "X-Project-Id": project, "X-Roles": "member"}
            headers |= told
        direct = await self.client.call(
            method, target, url=self.beside.url, headers=headers, **options
        )
        return through, direct


@pytest.fixture(params=["only_wall", "second_wall"])
async def twins(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Twins]:
    is_only = request.param == "only_wall"
    async with StandIn(trusting=not is_only) as behind, StandIn(trusting=not is_only) as beside:
        for fields in IMAGES:
            for glance in (behind, beside):
                glance.add_image(**fields, created_at=CREATED_AT)
        settings = registry(behind.url, "relproxy" if is_only else "registry")
        client = await serve(
            registries=[settings], routes=SHADOW, limits={"max_request_body_bytes": 1000}
        )
        await put(client.store, *(image["id"] for image in IMAGES[:2]))
        yield Twins(request.param, client, behind, beside)


at_the_only_wall = pytest.mark.parametrize("twins", ["only_wall"], indirect=True)


async def put(store: Path, *image_ids: str) -> None:
    """Record each image for the project that the stand-in has as its owner."""
    opened = SqliteStore(store)
    await opened.open()
    at = datetime(2020, 1, 1, tzinfo=UTC)
    owners = {image["id"]: image["owner"] for image in IMAGES}
    await opened.put([ImageRecord("glance", i, CREATED_AT, owners[i], None, at) for i in image_ids])
    await opened.close()


def fields_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in answer.raw_headers if name.lower() not in PASSING]


def body_of(answer: Answer) -> bytes:
    """Return a body without the times at which each twin made its own image."""
    return re.sub(rb"20[0-9-]{8}T[0-9:]{8}Z", b"NOW", answer.body)


def received(request: Recorded) -> tuple[object, ...]:
    sent = [(n, v) for n, v in request.headers if n.lower() not in (*IDENTITY, *PASSING)]
    return request.method, request.target, sent, request.body, request.length


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each `shadow` line."""
    assert all(r.levelname == "INFO" for r in caplog.records if r.getMessage() == "shadow")
    return [vars(record) for record in caplog.records if record.getMessage() == "shadow"]


async def verdicts(client: Client) -> dict[str, int]:
    """Return how often each verdict was given, of those that were."""
    lines = (await client.get("/metrics", url=client.admin_url)).body.decode().splitlines()
    found: dict[str, int] = {}
    for line in lines:
        if match := re.fullmatch(r'relproxy_shadow_total\{.*verdict="(\w+)"\} (\d+)\.0', line):
            found[match[1]] = found.get(match[1], 0) + int(match[2])
    return found


async def records(client: Client, result: str) -> float:
    return await client.metric(f'relproxy_records_total{{registry="glance",result="{result}"}}')


def create(**fields: Any) -> dict[str, Any]:
    return {"data": json.dumps({"name": "new", **fields}).encode()}


def patch(*changes: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": json.dumps(changes).encode(), "headers": PATCH}


RENAME = {"op": "replace", "path": "/name", "value": "x"}
PUBLISH = {"op": "replace", "path": "/visibility", "value": "public"}
TWICE = b'[{"op": "replace", "path": "/name", "value": "x", "value": "y"}]'
REPEATED = {"data": TWICE, "headers": PATCH}
ALLOW, HIDE, REFUSE = "would_allow", "would_hide", "would_refuse"
ALICE = "alice"

# What is asked, by whom, and the verdict of the only wall and of the second one. What the registry
# itself refuses with the same status isn't counted as refused.
ASKED = {
    "a list": ("GET", "/v2/images", ALICE, {}, HIDE, ALLOW),
    "a page": ("GET", "/v2/images?limit=2&sort=name:asc", ALICE, {}, ALLOW, ALLOW),
    "public images": ("GET", "/v2/images?visibility=public", ALICE, {}, ALLOW, ALLOW),
    "a list in another spelling": ("GET", "//v2//%69mages", ALICE, {}, HIDE, ALLOW),
    "a list of a version": ("GET", "/images", ALICE, {"headers": VND}, HIDE, ALLOW),
    "a list for nobody": ("GET", "/v2/images", None, {}, REFUSE, ALLOW),
    "a repeated parameter": ("GET", "/v2/images?limit=1&limit=2", ALICE, {}, REFUSE, REFUSE),
    "a malformed limit": ("GET", "/v2/images?limit=x", ALICE, {}, ALLOW, ALLOW),
    "half a question": (
        *("GET", f"/v2/images?nova_installation_uuid={EAST}", ALICE, {}, REFUSE, REFUSE),
    ),
    "an instance": ("GET", "/v2/images?instance_id=123", ALICE, {}, HIDE, ALLOW),
    "a foreign marker": ("GET", f"/v2/images?marker={THEIRS}", ALICE, {}, REFUSE, REFUSE),
    "an own marker": ("GET", f"/v2/images?limit=1&marker={MINE}", ALICE, {}, ALLOW, ALLOW),
    "a marker that is none": ("GET", f"/v2/images?marker={ABSENT}", ALICE, {}, ALLOW, ALLOW),
    "an own image": ("GET", f"/v2/images/{MINE}", ALICE, {}, ALLOW, ALLOW),
    "a public image": ("GET", f"/v2/images/{PUBLIC}", ALICE, {}, ALLOW, ALLOW),
    "a foreign image": ("GET", f"/v2/images/{THEIRS}", ALICE, {}, REFUSE, ALLOW),
    "an absent image": ("GET", f"/v2/images/{ABSENT}", ALICE, {}, ALLOW, ALLOW),
    "foreign data": ("GET", f"/v2/images/{THEIRS}/file", ALICE, {}, REFUSE, ALLOW),
    "own data": ("GET", f"/v2/images/{MINE}/file", ALICE, {}, ALLOW, ALLOW),
    "a change": ("PATCH", f"/v2/images/{MINE}", ALICE, patch(RENAME), ALLOW, ALLOW),
    "a foreign change": ("PATCH", f"/v2/images/{THEIRS}", ALICE, patch(RENAME), REFUSE, ALLOW),
    "publishing": ("PATCH", f"/v2/images/{MINE}", ALICE, patch(PUBLISH), REFUSE, ALLOW),
    "a change that repeats a key": ("PATCH", f"/v2/images/{MINE}", ALICE, REPEATED, REFUSE, REFUSE),
    "a change that is none": (
        *("PATCH", f"/v2/images/{MINE}", ALICE, {"data": b"{", "headers": PATCH}, ALLOW, ALLOW),
    ),
    "a large change": (
        *("PATCH", f"/v2/images/{MINE}", ALICE, patch({**RENAME, "value": "x" * 2000})),
        *(REFUSE, REFUSE),
    ),
    "a deletion": ("DELETE", f"/v2/images/{MINE}", ALICE, {}, ALLOW, ALLOW),
    "a foreign deletion": ("DELETE", f"/v2/images/{THEIRS}", ALICE, {}, REFUSE, ALLOW),
    "an upload": ("PUT", f"/v2/images/{MINE}/file", ALICE, {"data": b"12345"}, ALLOW, ALLOW),
    "a foreign upload": (
        *("PUT", f"/v2/images/{THEIRS}/file", ALICE, {"data": b"12345"}, REFUSE, ALLOW),
    ),
    "members": ("GET", f"/v2/images/{MINE}/members", ALICE, {}, REFUSE, ALLOW),
    "tasks": ("GET", "/v2/tasks", ALICE, {}, REFUSE, ALLOW),
    "versions": ("GET", "/versions", None, {}, ALLOW, ALLOW),
    "an unknown path": ("GET", "/v2/nothing", ALICE, {}, ALLOW, ALLOW),
    "another method": ("POST", "/v2/images?_method=GET", ALICE, create(), REFUSE, REFUSE),
    "a header of a hop": (
        *("GET", "/v2/schemas/image", ALICE, {"headers": {"Connection": "close, X-Project-Id"}}),
        *(REFUSE, REFUSE),
    ),
    "a create": ("POST", "/v2/images", ALICE, create(), ALLOW, ALLOW),
    "a create of an instance": (
        *("POST", "/v2/images", ALICE, create(instance_id="7", nova_installation_uuid=EAST)),
        *(ALLOW, ALLOW),
    ),
    "half a tuple": (
        *("POST", "/v2/images", ALICE, create(nova_installation_uuid=EAST), REFUSE, REFUSE),
    ),
    "a create that repeats a key": (
        *("POST", "/v2/images", ALICE, {"data": b'{"name": "a", "name": "b"}'}, REFUSE, REFUSE),
    ),
    "a create that is none": ("POST", "/v2/images", ALICE, {"data": b"{"}, ALLOW, ALLOW),
    "a large create": ("POST", "/v2/images", ALICE, create(x="x" * 2000), REFUSE, REFUSE),
    "a create with an id": ("POST", "/v2/images", ALICE, create(id=ABSENT), REFUSE, ALLOW),
    "a create for all": ("POST", "/v2/images", ALICE, create(visibility="public"), REFUSE, ALLOW),
    "a create for nobody": ("POST", "/v2/images", None, create(), REFUSE, ALLOW),
}


@pytest.mark.parametrize("case", ASKED)
async def test_traffic_is_what_it_is_without_relproxy_and_the_verdict_is_told(
    twins: Twins, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    method, target, project, options, *expected = ASKED[case]
    verdict = expected[0 if twins.name == "only_wall" else 1]
    through, direct = await twins.ask(method, target, project, **options)
    assert (through.status, fields_of(through)) == (direct.status, fields_of(direct))
    assert body_of(through) == body_of(direct)
    *looks, sent = twins.behind.requests
    assert received(sent) == received(twins.beside.requests[-1])
    assert all(look.method == "GET" and look.target.startswith("/v2/images/") for look in looks)
    assert await verdicts(twins.client) == {verdict: 1}
    lines = told(caplog)
    assert [line["verdict"] for line in lines] == ([] if verdict == ALLOW else [verdict])
    for line in lines:
        assert (line["route"], line["method"], line["target"]) == ("all", method, target)
        assert (line["project"], line["answered"]) == (project, direct.status)
        assert (line["status"] is not None) == (verdict == REFUSE)
        assert line["status"] != direct.status


async def test_nothing_is_asked_of_the_registry_but_what_the_client_asks(twins: Twins) -> None:
    """Except by id, where relproxy looks at the image first, as it does when it enforces."""
    for case in ("a list", "an instance", "a foreign image", "tasks", "a create", "publishing"):
        twins.behind.requests.clear()
        method, target, project, options, *_ = ASKED[case]
        await twins.ask(method, target, project, **options)
        assert len(twins.behind.requests) == 1, case


async def test_what_would_be_hidden_is_counted_and_a_few_images_are_named(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    if twins.name == "second_wall":
        twins.behind.images[THEIRS]["visibility"] = "community"
        twins.behind.faults.garbage = json.dumps(
            {"images": list(twins.behind.images.values())}
        ).encode()
    caplog.set_level(logging.INFO)
    await twins.client.get("/v2/images", project="alice")
    (line,) = told(caplog)
    assert (line["hidden"], line["images"]) == (1, [THEIRS])
    assert line["request_id"].startswith("req-")
    for number in range(8):
        twins.behind.add_image(id=f"{number}", visibility="private", owner="bob")
    if twins.name == "only_wall":
        await twins.client.get("/v2/images", project="alice")
        assert (told(caplog)[1]["hidden"], len(told(caplog)[1]["images"])) == (9, 5)
        hidden = await twins.client.metric('relproxy_shadow_images_hidden_total{route="all"}')
        assert hidden == 10
    assert await twins.client.metric('relproxy_images_hidden_total{route="all"}') == 0


# -- what relproxy can't judge


@at_the_only_wall
async def test_without_an_identity_the_traffic_goes_on_unjudged(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise KeystoneUnavailableError("Keystone can't be reached.")

    monkeypatch.setattr("relproxy.identity.headers.HeadersIdentity.identify", away)
    for case in ("a list", "a foreign image", "tasks", "publishing", "a create"):
        method, target, project, options, *_ = ASKED[case]
        through, direct = await twins.ask(method, target, project, **options)
        assert (through.status, fields_of(through)) == (direct.status, fields_of(direct))
        assert body_of(through) == body_of(direct)
    assert await verdicts(twins.client) == {"unjudged": 5}


@pytest.mark.parametrize("what", ["store", "bug", "slow"])
async def test_a_failure_of_judging_harms_nothing(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, what: str, serve: Serve
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    if what == "bug":
        monkeypatch.setattr("relproxy.listing.may_see", bug)
        monkeypatch.setattr("relproxy.judging.may_see", bug)
    elif what == "slow":
        monkeypatch.setattr("relproxy.store.overlay.Overlay.owners", never)
        monkeypatch.setattr("relproxy.store.overlay.Overlay.images_of_instance", never)
        twins = await impatient(twins, serve)
    with broken(twins.client) if what == "store" else nullcontext():
        for case in ("a list", "an instance", "a foreign image", "foreign data", "tasks"):
            method, target, project, options, *_ = ASKED[case]
            through, direct = await twins.ask(method, target, project, **options)
            assert (through.status, fields_of(through)) == (direct.status, fields_of(direct))
            assert through.body == direct.body
    found = await verdicts(twins.client)
    assert sum(found.values()) == 5
    assert (
        found["unjudged"]
        == {
            ("only_wall", "store"): 4,
            ("only_wall", "bug"): 3,
            ("only_wall", "slow"): 4,
            ("second_wall", "store"): 1,
            ("second_wall", "bug"): 1,
            ("second_wall", "slow"): 1,
        }[twins.name, what]
    )


async def impatient(twins: Twins, serve: Serve) -> Twins:
    """Return twins whose relproxy waits for nothing."""
    tenancy = "relproxy" if twins.name == "only_wall" else "registry"
    client = await serve(
        registries=[registry(twins.behind.url, tenancy)],
        routes=SHADOW,
        timeouts={"shutdown_s": 1, "shadow_s": 0.05},
    )
    return Twins(twins.name, client, twins.behind, twins.beside)


async def test_a_bug_in_judging_is_in_the_log_with_its_traceback(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("relproxy.listing.may_see", bug)
    assert (await twins.client.get("/v2/images", project="alice")).status == 200
    (line,) = told(caplog)
    assert line["reason"] == "relproxy failed to judge this request."
    assert line["exc_info"][0] is ZeroDivisionError


def answer_of(body: bytes, *fields: str, framing: str = "length") -> bytes:
    head = ["HTTP/1.1 200 Fine", "Server: glance", "X-B: 2", "x-a: 1", *fields]
    if framing == "chunked":
        head.append("Transfer-Encoding: chunked")
        middle = len(body) // 2
        parts = [body[:middle], body[middle:], b""]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    else:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def page(*images: Mapping[str, Any]) -> bytes:
    rows = [{"created_at": CREATED_AT, **image} for image in images]
    return json.dumps({"images": rows, "first": "/v2/images"}).encode()


HIDING = page(*IMAGES)
ANSWERS = {
    "with a length": (answer_of(HIDING), HIDE),
    "chunked": (answer_of(HIDING, framing="chunked"), HIDE),
    "gzip": (answer_of(gzip.compress(HIDING), "Content-Encoding: gzip"), HIDE),
    "with an entity tag": (answer_of(HIDING, 'ETag: "x"', "Cache-Control: public"), HIDE),
    "an unknown coding": (answer_of(HIDING, "Content-Encoding: br"), "unjudged"),
    "broken gzip": (answer_of(b"\x1f\x8bxx", "Content-Encoding: gzip"), "unjudged"),
    "no list": (answer_of(b"not a list"), "unjudged"),
    "over the cap": (answer_of(page(*IMAGES, {"id": "x", "x": "x" * 9000})), "unjudged"),
    "over the cap, chunked": (
        *(answer_of(page(*IMAGES, {"x": "x" * 9000}), framing="chunked"), "unjudged"),
    ),
    "an error": (b"HTTP/1.1 418 Tea\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno", ALLOW),
    "nothing": (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "unjudged"),
}


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with recording() as recorder:
        yield recorder


@pytest.fixture
async def recorded(serve: Serve, recorder: Recorder) -> Client:
    return await serve(
        registries=[registry(recorder.url, "relproxy")],
        routes=SHADOW,
        limits={"max_page_bytes": 5000},
    )


LIST = (
    b"GET /v2/images?limit=3&x=%2F HTTP/1.1\r\nhost: images.example\r\nX-B: 2\r\nX-a: 1\r\n"
    b"X-B: 3\r\nAccept-Encoding: gzip\r\nIf-None-Match: y\r\nRange: bytes=0-9\r\n%s"
    b"Connection: close\r\n\r\n"
)
BY_ALICE = b"X-Project-Id: alice\r\nX-Roles: member\r\nX-User-Id: u\r\nX-Nova-Instance-ID: 9\r\n"


@pytest.mark.parametrize("case", ANSWERS)
async def test_a_list_comes_back_byte_for_byte(
    recorded: Client, recorder: Recorder, case: str
) -> None:
    recorder.answer, verdict = ANSWERS[case]
    got = await exchanged(recorded.url, LIST.replace(b"%s", BY_ALICE))
    sent = recorder.head
    recorder.closes = True
    direct = await exchanged(recorder.url, LIST.replace(b"%s", b""))
    assert unchunked(got.replace(b"Connection: close\r\n", b"")) == unchunked(direct)
    assert sent == recorder.head.replace(b"\r\nConnection: close", b"")
    assert await verdicts(recorded) == {verdict: 1}


def unchunked(answer: bytes) -> bytes:
    """Return an answer without the sizes of its chunks, which are no one's to keep."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return answer
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return head + end + whole


async def test_a_list_that_breaks_off_breaks_off(recorded: Client, recorder: Recorder) -> None:
    recorder.answer, recorder.closes = answer_of(HIDING)[:-20], True
    got = await exchanged(recorded.url, LIST.replace(b"%s", BY_ALICE))
    assert got.replace(b"Connection: close\r\n", b"") == recorder.answer
    assert await verdicts(recorded) == {"unjudged": 1}


async def test_what_is_never_a_clients_to_send_is_stripped_as_ever(
    recorded: Client, recorder: Recorder
) -> None:
    await exchanged(
        recorded.url,
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nX_Project_Id: evil\r\nX-Roles: admin\r\n"
        b"x-nova_instance-id: 1\r\nX-Nova-Installation-UUID: 2\r\nPATH_INFO: /v2/tasks\r\n"
        b"Content_Length: 9\r\nConnection: close, Content-Length, X-Roles\r\n"
        b"Content-Length: 2\r\n\r\nok",
    )
    assert recorder.received[-1].endswith(b"\r\n\r\nok")
    assert recorder.head.split(b"\r\n")[1:] == [b"Host: a", b"Content-Length: 2"]


async def test_a_registry_that_trusts_its_front_still_hears_who_the_caller_is(
    twins: Twins,
) -> None:
    await twins.client.get("/v2/images", project="alice", headers={"X_Project_Id": "bob"})
    await twins.client.get("/v2/images", project="alice", headers={"X-Tenant-Id": "bob"})
    first, second = twins.behind.requests
    is_told = twins.name == "second_wall"
    # Two projects are none: relproxy says of nobody that it vouches for them.
    assert first.values("X-Project-Id") == []
    assert second.values("X-Project-Id") == (["alice"] if is_told else [])
    assert second.values("X-Roles") == (["member"] if is_told else [])
    assert second.values("X-Tenant-Id") == []
    assert (await verdicts(twins.client))["would_refuse"] == 1


# -- records


async def switched_over(twins: Twins, serve: Serve) -> Client:
    """Stop the relproxy in shadow and start one that enforces, with its store and its journals."""
    await twins.client.stop()
    tenancy = "relproxy" if twins.name == "only_wall" else "registry"
    return await serve(
        registries=[registry(twins.behind.url, tenancy)],
        store={"path": twins.client.store},
        journal={"directory": twins.client.journal, "allow_volatile": True},
    )


async def test_what_is_created_in_shadow_is_recorded_for_the_time_after(
    twins: Twins, serve: Serve
) -> None:
    headers = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "777"}
    vouched = await twins.client.create("vouched", "alice", headers=headers)
    claimed = await twins.client.create("claimed", "alice", fields={"instance_id": "777"})
    await twins.client.create("plain", "alice", fields={"visibility": "private"})
    assert "X-Relproxy-Record" not in vouched.headers
    assert "id" not in json.loads(twins.behind.requests[0].body)
    assert json.loads(twins.behind.requests[1].body)["instance_id"] == "777"
    related = await twins.client.relations("instance_id=777")
    assert {(r["image_id"], r["grade"], r["project"]) for r in related} == {
        (vouched.json()["id"], "vouched", "alice"),
        (claimed.json()["id"], "claimed", "alice"),
    }
    client = await switched_over(twins, serve)
    listed = await client.get("/v2/images?sort=name:asc", project="alice")
    assert set(listed.names) == {"claimed", "debian", "mine", "plain", "vouched"}
    assert "vouched" not in (await client.get("/v2/images", project="bob")).names
    of_instance = await client.get("/v2/images?instance_id=777", project="alice")
    assert set(of_instance.names) == {"claimed", "vouched"}


@at_the_only_wall
async def test_a_create_that_would_be_refused_is_recorded_for_its_own_project(
    twins: Twins,
) -> None:
    made = await twins.client.create("x", "alice", fields={"id": ABSENT})
    published = await twins.client.create("y", "alice", fields={"visibility": "public"})
    recorded = {r["image_id"] for r in await twins.client.relations("project=alice")}
    assert {made.json()["id"], published.json()["id"]} <= recorded


@at_the_only_wall
async def test_nothing_that_enforcing_refuses_gives_an_image_to_another_project(
    twins: Twins,
) -> None:
    """The record would outlive the shadow: whoever plants or takes an image then would keep it."""
    planted = await twins.client.create("evil", "alice", fields={"owner": "bob"})
    assert planted.status == 201
    take = {"op": "replace", "path": "/owner", "value": "alice"}
    taken = await twins.client.call("PATCH", f"/v2/images/{THEIRS}", project="alice", **patch(take))
    assert taken.json()["owner"] == "alice"
    recorded = {r["image_id"] for r in await twins.client.relations("project=bob")}
    assert recorded == {THEIRS}
    allowed = await twins.client.call(
        "PATCH", f"/v2/images/{THEIRS}", project="ops", roles="admin", **patch(take)
    )
    assert allowed.status == 200
    assert await twins.client.relations("project=bob") == []


@pytest.mark.parametrize("twins", ["second_wall"], indirect=True)
async def test_a_refused_change_of_the_owner_is_looked_at_in_shadow_too(twins: Twins) -> None:
    take = {"op": "replace", "path": "/owner", "value": "alice"}
    for _ in range(2):
        through, direct = await twins.ask("PATCH", f"/v2/images/{PUBLIC}", "alice", **patch(take))
        assert (through.status, through.body) == (direct.status, direct.body)
        assert through.status == 403
    assert await twins.client.in_doubt() == []
    # And where it was made all the same, the record follows.
    twins.behind.images[MINE] |= {"owner": "carol", "visibility": "public"}
    given = {"op": "replace", "path": "/owner", "value": "carol"}
    answer = await twins.client.call("PATCH", f"/v2/images/{MINE}", project="alice", **patch(given))
    assert answer.status == 403
    (relation,) = await twins.client.relations(f"image_id={MINE}")
    assert relation["project"] == "carol"


async def test_a_deletion_in_shadow_buries_the_record(twins: Twins) -> None:
    assert (await twins.client.call("DELETE", f"/v2/images/{MINE}", project="alice")).status == 204
    (relation,) = await twins.client.relations(f"image_id={MINE}")
    assert relation["deleted_at"] is not None


@pytest.mark.parametrize("fault", ["begin", "complete", "stall", "stall late"])
async def test_a_journal_that_can_not_be_written_never_refuses(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, fault: str, serve: Serve
) -> None:
    async def fails(*_: object) -> None:
        raise JournalUnavailableError("The journal's disk is full.")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    verb = "begin" if fault in {"begin", "stall"} else "complete"
    twins = await impatient(twins, serve)
    monkeypatch.setattr(
        f"relproxy.store.journal.LocalJournal.{verb}", never if "stall" in fault else fails
    )
    through, direct = await twins.ask(
        "POST", "/v2/images", "alice", **create(instance_id="7", nova_installation_uuid=EAST)
    )
    assert (through.status, direct.status) == (201, 201)
    assert fields_of(through) == fields_of(direct)
    assert body_of(through) == body_of(direct)
    assert len([r for r in twins.behind.requests if r.method == "POST"]) == 1
    assert await verdicts(twins.client) == {ALLOW: 1}
    assert await records(twins.client, "refused") == 0
    assert await records(twins.client, "unrecorded") == (fault == "begin")


async def test_a_create_is_recorded_though_its_client_has_gone(twins: Twins) -> None:
    twins.behind.faults.hang_after_create = asyncio.Event()
    fields = {"instance_id": "8", "nova_installation_uuid": EAST}
    asked = asyncio.create_task(twins.client.create("x", "alice", fields=fields))
    await twins.behind.await_requests(1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    twins.behind.faults.hang_after_create.set()

    async def recorded() -> int:
        return len(await twins.client.relations("instance_id=8"))

    await eventually(recorded, 1)
    assert await records(twins.client, "in_doubt") == 0


@at_the_only_wall
async def test_what_nobody_is_known_to_own_leaves_nothing_behind(twins: Twins) -> None:
    made = await twins.client.post("/v2/images", json={"name": "x"})
    unread = await twins.client.post(
        "/v2/images", project="alice", data=b'{"name": "a", "name": "b"}'
    )
    assert (made.status, unread.status) == (201, 201)
    assert await twins.client.metric("relproxy_records_total") == 0


@pytest.mark.parametrize("chosen", [CHOSEN, CHOSEN.upper(), "../x", "\u20ac"])
async def test_an_id_that_a_client_chose_is_looked_for_if_it_is_one(
    twins: Twins, chosen: str
) -> None:
    twins.behind.faults.drop = True
    fields = {"instance_id": "8", "id": chosen}
    assert (await twins.client.create("x", "alice", fields=fields)).status == 502
    (entry,) = await twins.client.in_doubt()
    assert entry["image_id"] == (chosen if chosen == CHOSEN else None)


async def test_a_create_whose_answer_is_lost_is_in_doubt_and_sent_once(twins: Twins) -> None:
    twins.behind.faults.drop_after_create = True
    lost = await twins.client.create("x", "alice", fields={"instance_id": "8"})
    assert lost.status == 502
    assert len([r for r in twins.behind.requests if r.method == "POST"]) == 1
    assert await records(twins.client, "in_doubt") == 1


# -- and around


async def test_another_route_to_the_same_registry_enforces(serve: Serve, noauth: StandIn) -> None:
    noauth.add_image(name="secret", visibility="private")
    shadowed = {"name": "east", "path_prefix": "/east", "registry": "glance", "mode": "shadow"}
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        routes=[shadowed, {"name": "all", "registry": "glance"}],
    )
    assert (await client.get("/v2/images", project="alice")).names == []
    assert (await client.get("/east/v2/images", project="alice")).names == ["secret"]
    assert noauth.requests[-1].target == "/v2/images"
    # And links lead back to the route that they came from, as without shadow.
    redirect = await client.get("/east/v2", project="alice")
    assert redirect.headers["Location"].endswith("/east/v2/")
    assert b"/east/v2/" in (await client.get("/east/versions")).body


async def test_what_no_route_can_be_found_for_is_refused_as_ever(twins: Twins) -> None:
    for target in ("/v2/../images", "/v2/images%00"):
        assert (await twins.client.get(target, project="alice")).status == 400
    assert twins.behind.requests == []
    assert await verdicts(twins.client) == {}


async def test_readyz_and_explain_name_the_routes_in_shadow(twins: Twins) -> None:
    ready = await twins.client.get("/readyz", url=twins.client.admin_url)
    assert ready.json()["shadow"] == ["all"]
    query = f"/v1/explain?project=alice&image_id={THEIRS}"
    explained = await twins.client.get(query, url=twins.client.admin_url)
    assert explained.json()["registries"][0]["shadow_routes"] == ["all"]


def test_each_route_in_shadow_is_said_loudly_at_the_start(tmp_path: Path) -> None:
    glances = [
        {"name": name, "tenancy": tenancy, "endpoints": ["http://127.0.0.1:1"]}
        for name, tenancy in (("east", "registry"), ("west", "relproxy"))
    ]
    routes = [
        {"name": "r1", "registry": "east", "path_prefix": "/east", "mode": "shadow"},
        {"name": "r2", "registry": "west", "path_prefix": "/west", "mode": "shadow"},
        {"name": "r3", "registry": "west"},
    ]
    relproxy = Relproxy(tmp_path / "relproxy", {"registries": glances, "routes": routes})
    relproxy.start()
    relproxy.stop()
    lines = [json.loads(line) for line in relproxy.log.read_text().splitlines()]
    reasons = [line["reason"] for line in lines if line["level"] == "WARNING"]
    loud = [reason for reason in reasons if "in shadow" in reason]
    assert [reason.split("'")[1] for reason in loud] == ["r1", "r2"]
    assert "every caller is this registry's admin" not in loud[0]
    assert "every caller is this registry's admin" in loud[1]
