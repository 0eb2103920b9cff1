from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import Client, Serve, Wall, registry


async def seeded(client: Client) -> None:
    for name, project in (("a1", "alice"), ("b1", "bob"), ("a2", "alice")):
        assert (await client.create(name, project)).status == 201
    public = await client.create("p1", "ops", roles="admin", fields={"visibility": "public"})
    assert public.status == 201


async def test_list_hides_images_of_other_projects(wall: Wall) -> None:
    client = wall.client
    await seeded(client)
    assert (await client.get("/v2/images", project="alice")).names == ["p1", "a2", "a1"]
    assert (await client.get("/v2/images", project="bob")).names == ["p1", "b1"]
    assert (await client.get("/v2/images", project="carol")).names == ["p1"]
    everything = await client.get("/v2/images", project="ops", roles="admin")
    assert everything.names == ["p1", "a2", "b1", "a1"]


async def test_a_policy_that_shows_too_much_is_caught_by_the_second_wall(
    serve: Serve, trusting: StandIn
) -> None:
    """The registry lists everything, as under a careless custom policy."""
    trusting.trusting = False
    client = await serve(registries=[registry(trusting.url, "registry")])
    for owner, visibility in (("alice", "private"), ("bob", "private"), ("bob", "public")):
        trusting.add_image(name=f"{owner}-{visibility}", owner=owner, visibility=visibility)
    trusting.add_image(name="ownerless", owner=None, visibility="private")
    trusting.add_image(name="shared-with-me", owner="bob", visibility="shared")
    listed = await client.get("/v2/images", project="alice")
    assert listed.names == ["shared-with-me", "bob-public", "alice-private"]
    assert await client.metric('relproxy_images_hidden_total{route="all"}') == 2


async def test_community_images_are_shown_only_where_they_were_asked_for(
    serve: Serve, trusting: StandIn
) -> None:
    trusting.trusting = False
    client = await serve(registries=[registry(trusting.url, "registry")])
    trusting.add_image(name="theirs", owner="bob", visibility="community")
    asked = await client.get("/v2/images?visibility=community", project="alice")
    assert asked.names == ["theirs"]
    trusting.images[asked.json()["images"][0]["id"]]["name"] = "theirs"
    everything = await client.get("/v2/images?visibility=all", project="alice")
    assert everything.names == ["theirs"]


async def test_a_caller_that_nobody_vouches_for_sees_public_images_at_most(
    serve: Serve, trusting: StandIn
) -> None:
    trusting.trusting = False
    client = await serve(registries=[registry(trusting.url, "registry", upstream_identity="token")])
    for visibility in ("private", "shared", "community", "public"):
        trusting.add_image(name=visibility, owner="alice", visibility=visibility)
    assert (await client.get("/v2/images?visibility=all")).names == ["public"]


async def test_without_credentials_the_registrys_own_401_returns(second_wall: Client) -> None:
    answer = await second_wall.get("/v2/images")
    assert answer.status == 401
    assert b"This server could not verify" in answer.body


async def test_the_only_wall_refuses_a_caller_that_nobody_vouches_for(
    only_wall: Client, noauth: StandIn
) -> None:
    answer = await only_wall.get("/v2/images", headers={"Accept": "application/json"})
    assert answer.status == 401
    assert answer.json()["title"] == "Unauthorized"
    assert "WWW-Authenticate" in answer.headers
    assert noauth.requests == []


async def test_an_image_that_stays_keeps_its_bytes_and_unknown_fields_survive(
    second_wall: Client, trusting: StandIn
) -> None:
    row = (
        b'{"x_new":  {"deep": [1.0, 1E400, "\\u00e9\\/"]},"id": "%s" , "owner":"alice",'
        b'"visibility" :"private", "created_at":"2030-01-01T00:00:00Z","size":12345678901234567890}'
    )
    image = trusting.add_image(owner="alice")
    raw = row % image["id"].encode()
    trusting.faults.image_patch = lambda _: raw
    answer = await second_wall.get("/v2/images", project="alice")
    assert raw in answer.body
    assert answer.body.startswith(b'{"images": [{"x_new":  {"deep"')
    assert answer.headers["Content-Length"] == str(len(answer.body))


async def test_what_is_unknown_beside_the_images_is_left_out(
    second_wall: Client, trusting: StandIn
) -> None:
    """It may well count, or name, what is hidden."""
    foreign = trusting.add_image(owner="bob", name="secret")
    trusting.faults.garbage = (
        b'{"total": 1, "images": [], "names": ["secret"], "first": "/v2/images", '
        b'"new": {"id": "%s"}, "schema": "/v2/schemas/images"}' % foreign["id"].encode()
    )
    answer = await second_wall.get("/v2/images", project="alice")
    assert answer.body == b'{"images": [], "first": "/v2/images", "schema": "/v2/schemas/images"}'


@pytest.mark.parametrize("key", ["owner", "visibility", "id"])
@pytest.mark.parametrize("spelled", ["plain", "escaped"])
async def test_a_row_that_two_readers_may_read_differently_is_hidden(
    second_wall: Client, trusting: StandIn, key: str, spelled: str
) -> None:
    image = trusting.add_image(owner="bob", visibility="private", name="secret")
    own = {**image, "owner": "alice"}
    repeated = key if spelled == "plain" else f"\\u{ord(key[0]):04x}{key[1:]}"
    text = json.dumps(own)[:-1] + f', "{repeated}": {json.dumps(image[key])}}}'
    trusting.faults.image_patch = lambda _: text.encode()
    # The stand-in would not list it for alice at all: as an admin's page the row passes by.
    trusting.trusting = False
    answer = await second_wall.get("/v2/images", project="alice")
    assert answer.json()["images"] == []
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>secret</html>", id="html"),
        pytest.param(b'{"images": [{"name": "secret"}', id="cut-off-json"),
        pytest.param(b'["secret"]', id="a-list"),
        pytest.param(b'{"images": {"secret": 1}}', id="images-is-no-list"),
        pytest.param(b'{"secret": []}', id="no-images"),
        pytest.param(b'{"images": [], "next": "/v2/images?secret=1"}', id="next-without-marker"),
        pytest.param(b'{"images": [], "next": 5}', id="next-is-no-text"),
        pytest.param(b"", id="nothing"),
        pytest.param(b'\xef\xbb\xbf{"images": []}', id="byte-order-mark"),
    ],
)
async def test_what_is_not_an_image_list_becomes_502_and_never_leaks(
    second_wall: Client, trusting: StandIn, body: bytes
) -> None:
    trusting.faults.garbage = body
    answer = await second_wall.get("/v2/images", project="alice")
    assert answer.status == 502
    assert b"secret" not in answer.body
    assert answer.headers["X-Openstack-Request-Id"].startswith("req-")


async def test_a_truncated_list_becomes_502(second_wall: Client, trusting: StandIn) -> None:
    trusting.add_image(name="mine", owner="alice")
    trusting.faults.truncate_after = 60
    answer = await second_wall.get("/v2/images", project="alice")
    assert answer.status == 502
    assert b"mine" not in answer.body


async def test_a_page_over_the_cap_becomes_502(serve: Serve, trusting: StandIn) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")], limits={"max_page_bytes": 2000}
    )
    trusting.add_image(name="mine", owner="alice")
    assert (await client.get("/v2/images", project="alice")).status == 200
    trusting.add_image(name="x" * 2000, owner="alice")
    assert (await client.get("/v2/images", project="alice")).status == 502
    trusting.faults.gzip = True
    trusting.images.clear()
    trusting.add_image(name="x" * 5000, owner="alice")
    assert (await client.get("/v2/images", project="alice")).status == 502


async def test_a_list_that_came_compressed_is_filtered_all_the_same(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.trusting = False
    trusting.add_image(name="mine", owner="alice", visibility="private")
    trusting.add_image(name="secret", owner="bob", visibility="private")
    trusting.faults.gzip = True
    answer = await second_wall.get(
        "/v2/images", project="alice", headers={"Accept-Encoding": "gzip"}
    )
    assert answer.names == ["mine"]
    assert "Content-Encoding" not in answer.headers
    assert trusting.requests[-1].values("Accept-Encoding") == ["identity"]
    assert gzip.compress(b"") not in answer.body


@pytest.mark.parametrize(
    "field", [("X-Total-Count", "57"), ("Link", '</v2/images?marker=foreign>; rel="next"')]
)
async def test_no_header_beside_a_list_counts_or_links_to_what_is_hidden(
    wall: Wall, field: tuple[str, str]
) -> None:
    wall.glance.faults.extra_headers = [field]
    answer = await wall.client.get("/v2/images", project="alice")
    assert answer.status == 200
    assert field[0] not in answer.headers


async def test_headers_that_describe_the_body_before_it_was_rewritten_are_gone(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.extra_headers = [
        ("ETag", '"all"'), ("Content-MD5", "x"), ("Cache-Control", "public"),
        ("Vary", "Accept"), ("Access-Control-A", "1"), ("Access-Control-A", "2"),
    ]  # fmt: skip
    answer = await second_wall.get(
        "/v2/images", project="alice", headers={"If-None-Match": '"all"', "Range": "bytes=0-1"}
    )
    assert answer.status == 200
    assert not {"ETag", "Content-MD5"} & set(answer.headers)
    assert answer.headers["Cache-Control"] == "private, no-store"
    values = [v for k, v in answer.raw_headers if k == b"Access-Control-A"]
    assert values == [b"1", b"2"]
    assert trusting.requests[-1].values("If-None-Match") == []
    assert trusting.requests[-1].values("Range") == []


async def test_errors_of_a_list_pass_as_the_registry_wrote_them(second_wall: Client) -> None:
    answer = await second_wall.get("/v2/images?sort_key=nonsense", project="alice")
    assert answer.status == 400
    assert b"Invalid sort key: nonsense" in answer.body


async def test_a_list_answered_by_another_success_becomes_502(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.status = (206, b'{"images": []}')
    assert (await second_wall.get("/v2/images", project="alice")).status == 502


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 24, 25, 26, 100])
async def test_walking_a_list_gives_each_visible_image_once_in_the_registrys_order(
    wall: Wall, limit: int
) -> None:
    client = wall.client
    glance = wall.glance
    for number in range(40):
        project = ("alice", "bob", "carol")[number % 3]
        await client.create(f"{project}-{number}", project, fields={"visibility": "private"})
    glance.trusting = False  # From here on the registry lists everything to everyone.
    visible = [f"alice-{n}" for n in range(39, -1, -1) if n % 3 == 0]
    glance.requests.clear()
    pages = [page async for page in walked(client, f"/v2/images?limit={limit}", "alice")]
    assert [name for page in pages for name in page] == visible
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


async def walked(client: Client, target: str, project: str) -> AsyncIterator[list[str]]:
    following: str | None = target
    while following is not None:
        answer = await client.get(following, project=project)
        assert answer.status == 200, answer.body
        yield answer.names
        following = answer.json().get("next")


async def test_a_next_link_repeats_the_clients_own_query(second_wall: Client) -> None:
    for number in range(3):
        await second_wall.create(f"a{number}", "alice", fields={"os_type": "linux"})
    answer = await second_wall.get(
        "/v2/images?os_type=linux&limit=2&sort=name:asc", project="alice"
    )
    marker = answer.json()["images"][-1]["id"]
    assert answer.json()["first"] == "/v2/images?os_type=linux&limit=2&sort=name%3Aasc"
    assert answer.json()["next"] == f"{answer.json()['first']}&marker={marker}"
    last = await second_wall.get(answer.json()["next"], project="alice")
    assert last.names == ["a2"]
    assert "next" not in last.json()


async def test_a_full_last_page_has_no_next(second_wall: Client) -> None:
    for number in range(2):
        await second_wall.create(f"a{number}", "alice")
    answer = await second_wall.get("/v2/images?limit=2", project="alice")
    assert len(answer.names) == 2
    assert "next" not in answer.json()


async def test_limit_zero_is_an_empty_list(second_wall: Client) -> None:
    await second_wall.create("a", "alice")
    answer = await second_wall.get("/v2/images?limit=0", project="alice")
    assert answer.json() == {
        "images": [],
        "first": "/v2/images?limit=0",
        "schema": "/v2/schemas/images",
    }


async def test_a_limit_over_the_registrys_maximum_is_cut_to_it(
    serve: Serve, trusting: StandIn
) -> None:
    trusting.max_limit = 5
    client = await serve(registries=[registry(trusting.url, "registry", max_limit=5)])
    for number in range(7):
        trusting.add_image(name=f"a{number}", owner="alice")
    answer = await client.get("/v2/images?limit=1000", project="alice")
    assert answer.names == ["a6", "a5", "a4", "a3", "a2"]
    assert (await client.get(answer.json()["next"], project="alice")).names == ["a1", "a0"]


async def test_at_the_cap_of_upstream_pages_a_list_is_refused_never_cut(
    serve: Serve, trusting: StandIn
) -> None:
    trusting.trusting = False
    client = await serve(
        registries=[registry(trusting.url, "registry", max_limit=10)],
        limits={"max_upstream_pages": 3},
    )
    trusting.max_limit = 10
    trusting.add_image(name="mine", owner="alice", visibility="private")
    for _ in range(60):
        trusting.add_image(name="hidden", owner="bob", visibility="private")
    answer = await client.get("/v2/images", project="alice")
    assert answer.status == 503
    assert b"narrow it with a filter" in answer.body
    assert len(trusting.requests) == 3


async def test_three_images_of_a_large_registry_are_found_without_walking_it(
    only_wall: Client, noauth: StandIn
) -> None:
    for number in range(3):
        await only_wall.create(f"mine-{number}", "alice")
    for _ in range(3000):
        noauth.add_image(name="hidden", visibility="private")
    noauth.requests.clear()
    assert (await only_wall.get("/v2/images", project="alice")).names == [
        "mine-2", "mine-1", "mine-0",
    ]  # fmt: skip
    assert len(noauth.requests) <= 6


@pytest.mark.parametrize("visibility", ["private", "shared", "community"])
async def test_a_project_without_images_gets_an_empty_list_of_a_large_registry(
    only_wall: Client, noauth: StandIn, visibility: str
) -> None:
    for _ in range(200):
        noauth.add_image(name="hidden", visibility=visibility)
    answer = await only_wall.get(f"/v2/images?visibility={visibility}", project="alice")
    assert (answer.status, answer.json()["images"]) == (200, [])
    assert "next" not in answer.json()


async def test_a_foreign_marker_and_an_unknown_one_get_the_same_answer(wall: Wall) -> None:
    client = wall.client
    foreign = (await client.create("b", "bob", fields={"visibility": "private"})).json()["id"]
    unknown = "11111111-2222-4333-8444-555555555555"
    answers = []
    for marker in (foreign, unknown):
        answer = await client.get(f"/v2/images?marker={marker}", project="alice")
        kept = {
            k: v for k, v in answer.headers.items() if k not in {"Date", "X-Openstack-Request-Id"}
        }
        answers.append((answer.status, kept, answer.body.replace(marker.encode(), b"MARKER")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400


async def test_a_registry_that_fails_makes_no_marker_unknown(
    only_wall: Client, noauth: StandIn
) -> None:
    marker = (await only_wall.create("a", "alice")).json()["id"]
    noauth.faults.status = (503, b"busy")
    assert (await only_wall.get(f"/v2/images?marker={marker}", project="alice")).status == 502


async def test_one_projects_large_images_do_not_break_anothers_lists(
    serve: Serve, noauth: StandIn
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], limits={"max_page_bytes": 20_000}
    )
    await client.create("bobs", "bob")
    for number in range(10):
        await client.create(f"alices-{number}", "alice", fields={"fat": "x" * 8000})
    assert (await client.get("/v2/images", project="bob")).names == ["bobs"]
    # And whose they are gets them, in smaller pages than were asked for.
    own = [f"alices-{number}" for number in range(9, -1, -1)]
    assert (await client.get("/v2/images", project="alice")).names == own
    everything = await client.get("/v2/images", project="ops", roles="admin")
    assert everything.names == [*own, "bobs"]


@pytest.mark.parametrize("spelled", ["{}", "eq:{}", "in:{}", "in:%22{}%22", "in:{},%22x%22"])
async def test_ones_own_image_is_found_by_its_id_in_every_spelling_of_the_filter(
    wall: Wall, spelled: str
) -> None:
    own = (await wall.client.create("own", "alice")).json()["id"]
    await wall.client.create("another", "alice")
    target = f"/v2/images?id={spelled.format(own)}"
    assert (await wall.client.get(target, project="alice")).names == ["own"]
    assert (await wall.client.get(target, project="bob")).names == []


@pytest.mark.parametrize(
    "query", ["id=in:{own},{id}", "name=in:mine,{name}", "limit=1&name={name}"]
)
async def test_a_list_costs_the_same_whether_a_foreign_image_matches_or_none_does(
    only_wall: Client, noauth: StandIn, query: str
) -> None:
    """What is read and hidden tells by the time it takes."""
    own = (await only_wall.create("mine", "alice")).json()["id"]
    foreign = (await only_wall.create("payroll", "bob")).json()["id"]
    absent = "11111111-2222-4333-8444-555555555555"
    calls = []
    for image_id, name in ((foreign, "payroll"), (absent, "nothing")):
        noauth.requests.clear()
        target = f"/v2/images?{query.format(own=own, id=image_id, name=name)}"
        answer = await only_wall.get(target, project="alice")
        assert "payroll" not in answer.names
        asked = [r.target.replace(image_id, absent).replace(name, "N") for r in noauth.requests]
        calls.append(asked)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("limit", [7, 25, 100, 1000])
async def test_a_registry_that_gives_less_at_a_time_than_configured_loses_no_image(
    only_wall: Client, noauth: StandIn, limit: int
) -> None:
    noauth.max_limit = 20
    names: list[str] = []
    for number in range(60):
        is_own = number % 3 > 0
        name = f"{'own' if is_own else 'public'}-{number}"
        if is_own:
            await only_wall.create(name, "bob")
        else:
            noauth.add_image(name=name, visibility="public")
        names.insert(0, name)
    pages = [page async for page in walked(only_wall, f"/v2/images?limit={limit}", "bob")]
    assert [name for page in pages for name in page] == names
    assert all(len(page) == limit for page in pages[:-1])


async def test_many_own_images_among_more_foreign_ones_fit_one_request(
    only_wall: Client, noauth: StandIn
) -> None:
    await asyncio.gather(*(only_wall.create(f"own-{n}", "bob") for n in range(839)))
    for _ in range(2500):
        noauth.add_image(name="foreign", visibility="private")
    noauth.requests.clear()
    answer = await only_wall.get("/v2/images?limit=1000", project="bob")
    assert answer.status == 200
    assert sorted(answer.names) == sorted(f"own-{n}" for n in range(839))
    expected = [i["name"] for i in reversed(noauth.images.values()) if i["name"] != "foreign"]
    assert answer.names == expected
    assert len(noauth.requests) <= 40


@pytest.mark.parametrize("marker", ["..%2Ftasks", "x%2Ffile", "%E2%82%AC", "a" * 100, ""])
async def test_a_marker_that_is_no_id_leads_nowhere(
    only_wall: Client, noauth: StandIn, marker: str
) -> None:
    answer = await only_wall.get(f"/v2/images?marker={marker}", project="alice")
    assert answer.status == 400
    assert noauth.requests == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=1&limit=1000",
        "marker=a&marker=b",
        "owner=alice&owner=bob",
        "visibility=private&visibility=public",
        "id=a&id=b",
        "limit=x",
        "limit=-1",
        "limit=%D9%A3",
        "name=%FF",
        "nova_installation_uuid=6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01",
        "instance_id=1&nova_installation_uuid=nope",
        "instance_id=1&id=in:a",
        "_method=POST",
        "%5fmethod=POST",
    ],
)
async def test_a_query_that_means_nothing_or_two_things_is_refused_and_not_forwarded(
    second_wall: Client, trusting: StandIn, query: str
) -> None:
    answer = await second_wall.get(f"/v2/images?{query}", project="alice")
    assert answer.status == 400
    assert trusting.requests == []


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        pytest.param("/v2.0/images", None, id="minor-version-0"),
        pytest.param("/v2.9/images", None, id="minor-version-9"),
        pytest.param("/v2//images", None, id="double-slash"),
        pytest.param("//v2/images", None, id="double-slash-in-front"),
        pytest.param("/v2/%69mages", None, id="encoded-letter"),
        pytest.param("/%762/images", None, id="encoded-version"),
        pytest.param("/v2%2Fimages", None, id="encoded-slash"),
        pytest.param("/images", "application/vnd.openstack.images-v2", id="media-type"),
        pytest.param("//images", "application/vnd.openstack.images-v2.3", id="media-type-minor"),
    ],
)
async def test_every_spelling_of_a_list_is_filtered(
    only_wall: Client, noauth: StandIn, target: str, accept: str | None
) -> None:
    noauth.add_image(name="secret", visibility="private")
    await only_wall.create("mine", "alice")
    headers = {"Accept": accept} if accept else {}
    answer = await only_wall.get(target, project="alice", headers=headers)
    assert answer.status == 200
    assert answer.names == ["mine"]


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST", "PATCH", "HEAD", "OPTIONS"])
async def test_no_method_override_reaches_the_registrys_router(wall: Wall, method: str) -> None:
    """Routes would take `_method` from the query, or from a form, in place of the method."""
    client = wall.client
    glance = wall.glance
    public = glance.add_image(name="secret", visibility="public", owner="bob")
    for target in ("/v2/images", f"/v2/images/{public['id']}", f"/v2/images/{public['id']}/file"):
        answer = await client.call(method, f"{target}?_method=GET", project="alice")
        assert answer.status == 400
        answer = await client.call(method, f"{target}?a=_method&%5fMethod=DELETE", project="alice")
        assert answer.status == 400
    assert glance.requests == []
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post(
        "/v2/images", project="alice", headers=form, data=b'{"name": "&_method=GET&"}'
    )
    assert answer.status == 201
    assert glance.requests[-1].values("Content-Type") == ["application/json"]


async def test_a_cancelled_list_never_answers_the_next_project(
    serve: Serve, trusting: StandIn
) -> None:
    """The upstream connection of a list that was given up is closed, not handed on."""
    client = await serve(registries=[registry(trusting.url, "registry")])
    await client.create("alices", "alice", fields={"visibility": "private"})
    await client.create("bobs", "bob", fields={"visibility": "private"})
    for _ in range(5):
        trusting.faults.delay = asyncio.Event()
        seen = len(trusting.requests)
        given_up = asyncio.create_task(client.get("/v2/images", project="alice"))
        await trusting.await_requests(seen + 1)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        trusting.faults.delay.set()
        assert (await client.get("/v2/images", project="bob")).names == ["bobs"]
