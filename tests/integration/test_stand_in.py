"""The stand-in Glance behaves as a real Glance 33 was seen to."""

import asyncio
import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from yarl import URL

from lab.stand_in import StandIn

AS_JSON = {"Accept": "application/json"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
UPLOAD = {"Content-Type": "application/octet-stream"}
MEDIA_TYPE_VERSION = {"Accept": "application/vnd.openstack.images-v2"}
NOON = "2026-11-22T12:00:00Z"


@dataclass
class Reply:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def names(self) -> list[str]:
        return [image["name"] for image in self.json["images"]]


async def ask(
    glance: StandIn,
    target: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    url = URL(f"{glance.url}{target}", encoded=True)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
    ):
        return Reply(response.status, response.headers, await response.read())


async def create(glance: StandIn, headers: dict[str, str] | None = None, **fields: str) -> Reply:
    body = json.dumps(fields).encode()
    return await ask(glance, "/v2/images", method="POST", headers=headers, body=body)


def caller(project: str, roles: str = "member,reader") -> dict[str, str]:
    return {"X-Identity-Status": "Confirmed", "X-Project-Id": project, "X-Roles": roles, **AS_JSON}


async def test_walk_gives_images_of_one_second_once_each_by_descending_id() -> None:
    async with StandIn() as glance:
        ids = [glance.add_image(name=str(n), created_at=NOON)["id"] for n in range(7)]
        walked, target = [], "/v2/images?limit=2"
        while target:
            page = (await ask(glance, target)).json
            walked += [image["id"] for image in page["images"]]
            target = page.get("next")
    assert walked == sorted(ids, reverse=True)


async def test_images_that_show_one_second_still_sort_by_when_they_were_made() -> None:
    async with StandIn() as glance:
        for name in ("first", "second", "third"):
            glance.add_image(name=name)
        assert (await ask(glance, "/v2/images")).names == ["third", "second", "first"]
        assert (await ask(glance, "/v2/images?sort=created_at:asc")).names[0] == "first"


async def test_next_is_there_exactly_when_the_page_is_full() -> None:
    async with StandIn() as glance:
        last, *_ = [glance.add_image(name=f"n{n}")["id"] for n in range(3)]
        full = await ask(glance, "/v2/images?limit=3")
        assert full.json["next"] == f"/v2/images?limit=3&marker={last}"
        assert list(full.json) == ["images", "first", "schema", "next"]
        assert "next" not in (await ask(glance, "/v2/images?limit=4")).json
        assert (await ask(glance, full.json["next"])).json["images"] == []
        assert (await ask(glance, "/v2/images?limit=0")).body == (
            b'{"images": [], "first": "/v2/images?limit=0", "schema": "/v2/schemas/images"}'
        )


async def test_links_keep_parameters_encoded_and_the_last_of_repeated_ones() -> None:
    async with StandIn() as glance:
        image = glance.add_image(name="a b", owner="p")
        page = await ask(glance, "/v2/images?owner=x&limit=1&name=a%20b&marker_=&owner=p")
        assert page.json["first"] == "/v2/images?owner=p&limit=1&name=a+b&marker_="
        page = await ask(glance, "/v2/images?owner=x;limit=1&name=a%20b&owner=p")
        assert page.json["next"].endswith(f"owner=p&limit=1&name=a+b&marker={image['id']}")


async def test_filters_combine_with_id_in() -> None:
    async with StandIn() as glance:
        one = glance.add_image(name="one", tags=["x", "y"], kind="k")
        two = glance.add_image(name="two", tags=["x"], kind="k")
        chosen = f"/v2/images?id=in:{one['id']},nope,{two['id']}"
        assert (await ask(glance, chosen)).names == ["two", "one"]
        assert (await ask(glance, f"{chosen}&tag=x&tag=y")).names == ["one"]
        assert (await ask(glance, f"{chosen}&kind=k&name=two&unknown=")).names == []
        assert (await ask(glance, f"{chosen}&limit=1&limit=2")).names == []
        refused = await ask(glance, "/v2/images?id=lt:3", headers=AS_JSON)
        assert "unknown operator 'lt'" in refused.json["message"]


async def test_marker_is_400_when_unknown_and_403_when_foreign() -> None:
    async with StandIn(trusting=True) as glance:
        foreign = glance.add_image(owner="b", visibility="private")["id"]
        unknown = await ask(glance, "/v2/images?marker=nope", headers=caller("a"))
        forbidden = await ask(glance, f"/v2/images?marker={foreign}", headers=caller("a"))
    assert (unknown.status, unknown.json["message"]) == (
        400,
        "No image found with ID nope<br /><br />\n\n\n",
    )
    assert forbidden.status == 403
    assert forbidden.json["message"].startswith(f"Forbidding request, image {foreign} not visible")


async def test_policy_filters_after_the_page_was_cut() -> None:
    async with StandIn(page_filter=lambda image: image["name"] != "hidden") as glance:
        glance.add_image(name="oldest")
        shown = glance.add_image(name="shown")["id"]
        glance.add_image(name="hidden")
        glance.add_image(name="hidden")
        short = await ask(glance, "/v2/images?limit=3")
        assert short.names == ["shown"]
        assert short.json["next"] == f"/v2/images?limit=3&marker={shown}"
        assert "next" not in (await ask(glance, "/v2/images?limit=2")).json


async def test_member_sees_what_is_its_own_public_or_shared_with_it() -> None:
    async with StandIn(trusting=True) as glance:
        for visibility in ("private", "shared", "community", "public"):
            glance.add_image(name=f"foreign {visibility}", owner="b", visibility=visibility)
        glance.add_image(name="own", owner="a", visibility="community")
        glance.add_image(name="hidden", owner="a", os_hidden=True)
        for status in ("accepted", "pending"):
            image = glance.add_image(name=status, owner="b", visibility="shared")
            glance.members[image["id"]] = {"a": status}
        member, admin = caller("a"), caller("z", "member,admin")
        assert (await ask(glance, "/v2/images", headers=member)).names == [
            "accepted",
            "own",
            "foreign public",
        ]
        everything = "/v2/images?visibility=all&member_status=all"
        assert "pending" in (await ask(glance, everything, headers=member)).names
        assert "foreign community" in (await ask(glance, everything, headers=member)).names
        assert "foreign private" in (await ask(glance, "/v2/images", headers=admin)).names
        assert "own" not in (await ask(glance, "/v2/images", headers=admin)).names
        assert (await ask(glance, "/v2/images")).status == 401


async def test_create_answers_like_glance_and_never_takes_an_id_twice() -> None:
    image_id = "0d0d0d0d-0000-4000-8000-00000000000d"
    async with StandIn(trusting=True) as glance:
        headers = {**caller("a"), "Host": "front:99", "X-OpenStack-Request-ID": "abc"}
        made = await create(glance, headers, zeta="1", name="n", id=image_id)
        assert made.status == 201
        assert made.headers["Location"] == f"http://front:99/v2/images/{image_id}"
        assert made.headers["OpenStack-image-store-ids"] == "file"
        assert made.headers["x-openstack-request-id"] == "req-abc"
        assert list(made.json)[:3] == ["zeta", "name", "disk_format"]
        assert (made.json["owner"], made.json["status"]) == ("a", "queued")
        assert (await create(glance, caller("b"), id=image_id)).status == 409
        target = f"/v2/images/{image_id}"
        assert (await ask(glance, target, method="DELETE", headers=caller("a"))).status == 204
        assert (await create(glance, caller("a"), id=image_id)).status == 409
        assert (await create(glance, caller("a"), visibility="public")).status == 403
        malformed = await ask(glance, "/v2/images", method="POST", headers=caller("a"), body=b"{")
        assert (malformed.status, "Malformed JSON" in malformed.json["message"]) == (400, True)


async def test_member_gives_an_image_away_by_an_add_that_answers_403() -> None:
    async with StandIn(trusting=True) as glance:
        image = glance.add_image(owner="a")
        for operation, owner in (("replace", "a"), ("add", "b")):
            body = json.dumps([{"op": operation, "path": "/owner", "value": "b"}]).encode()
            target, headers = f"/v2/images/{image['id']}", caller("a") | PATCH
            refused = await ask(glance, target, method="PATCH", headers=headers, body=body)
            assert (refused.status, image["owner"]) == (403, owner)


async def test_versions_are_chosen_by_path_and_host() -> None:
    async with StandIn() as glance:
        host = {"Host": "front:99"}
        for target, status in (("/", 300), ("/v3/images", 300), ("/versions", 200)):
            reply = await ask(glance, target, headers=host)
            assert reply.status == status
            assert reply.json["versions"][0]["links"][0]["href"] == "http://front:99/v2/"
        redirect = await ask(glance, "/v2", headers=host)
        assert (redirect.status, redirect.headers["Location"]) == (302, "http://front:99/v2/")
        assert (await ask(glance, "/healthcheck")).body == b"OK"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v2/images", 200),
        ("/v2.0/images", 200),
        ("/v2.9/images", 200),
        ("/v2.17/images", 200),
        ("/v2.14/images", 300),
        ("//v2//images", 200),
        ("/v2/%69mages", 200),
        ("/%762/images", 200),
        ("/v2%2Fimages", 200),
        ("/v2/%2569mages", 404),
        ("/v2/images/", 404),
        ("/v2/Images", 404),
        ("/V2/images", 300),
        ("/v2/", 404),
        ("/images", 300),
    ],
)
async def test_spellings_reach_what_they_reach_in_glance(target: str, status: int) -> None:
    async with StandIn() as glance:
        reply = await ask(glance, target)
        assert reply.status == status
        assert (b'{"images": ' in reply.body) == (status == 200)
        assert glance.requests[0].target == target


async def test_media_type_names_the_version_too() -> None:
    async with StandIn() as glance:
        assert (await ask(glance, "/images", headers=MEDIA_TYPE_VERSION)).json["images"] == []
        assert (await ask(glance, "/v2/images", headers=MEDIA_TYPE_VERSION)).status == 404


async def test_method_parameter_overrides_the_method_and_stays_a_filter() -> None:
    async with StandIn() as glance:
        image = glance.add_image(_method="GET", name="marked")
        glance.add_image(name="plain")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        body = b"_method=GET&limit=2"
        listed = await ask(glance, "/v2/images", method="POST", headers=form, body=body)
        assert listed.names == ["marked"]
        made = await ask(glance, "/v2/images?_method=post", body=b'{"name": "made by GET"}')
        assert made.status == 201
        assert (await ask(glance, f"/v2/images/{image['id']}?_method=DELETE")).status == 204
        assert image["id"] not in glance.images


async def test_errors_are_html_json_or_plain_text() -> None:
    async with StandIn() as glance:
        html = await ask(glance, "/v2/images/nope", headers={"Accept": "application/json, */*"})
        as_json = await ask(glance, "/v2/images/nope", headers=AS_JSON)
        plain = await ask(glance, "/v2/images/nope", headers={"Accept": "image/png"})
    assert html.body == (
        b"<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n"
        b"  <h1>404 Not Found</h1>\n  No image found with ID nope<br /><br />\n\n\n\n"
        b" </body>\n</html>"
    )
    assert as_json.body == (
        b'{"message": "No image found with ID nope<br /><br />\\n\\n\\n",'
        b' "code": "404 Not Found", "title": "Not Found"}'
    )
    assert plain.body == b"404 Not Found\n\nNo image found with ID nope\n\n   "


async def test_other_methods_are_405_with_allow() -> None:
    async with StandIn() as glance:
        put = await ask(glance, "/v2/images", method="PUT", headers=AS_JSON)
        head = await ask(glance, "/v2/images/nope", method="HEAD")
    assert (put.status, put.headers["Allow"]) == (405, "GET, POST")
    assert put.json["message"] == "The method PUT is not allowed for this resource. <br /><br />\n"
    assert (head.status, head.headers["Allow"]) == (405, "GET, PATCH, DELETE")


async def test_upload_is_hashed_and_download_streamed() -> None:
    async with StandIn() as glance:
        image = glance.add_image()
        file = f"{image['file']}"
        assert (await ask(glance, file)).status == 204
        sent = await ask(glance, file, method="PUT", headers=UPLOAD, body=b"x" * 300_000)
        assert sent.status == 204
        kept = glance.requests[-1]
        assert (kept.length, kept.complete, kept.body) == (300_000, True, b"")
        assert kept.sha256 == hashlib.sha256(b"x" * 300_000).hexdigest()
        assert (image["status"], image["size"]) == ("active", 300_000)
        chunked = await ask(glance, file)
        assert (len(chunked.body), "Content-Length" in chunked.headers) == (300_000, False)
        glance.send_length, glance.blob_size = True, 5
        assert (await ask(glance, file)).headers["Content-Length"] == "5"
        again = await ask(glance, file, method="PUT", headers=UPLOAD, body=b"x")
        assert again.status == 409


async def test_faults_spoil_lists_as_ordered() -> None:
    async with StandIn() as glance:
        glance.add_image(name="n")
        glance.faults.extra_headers = [("X-A", "1"), ("x-a", "2")]
        glance.faults.gzip = True
        packed = await ask(glance, "/v2/images")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(packed.body))["images"][0]["name"] == "n"
        assert packed.headers.getall("X-A") == ["1", "2"]
        glance.faults.gzip = False
        glance.faults.image_patch = lambda image: b'{ "id":"%s" }' % image["id"].encode()
        assert (await ask(glance, "/v2/images")).body.startswith(b'{"images": [{ "id":"')
        glance.faults.truncate_after = 9
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(glance, "/v2/images")
        glance.faults.drop = True
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(glance, "/v2/images")


async def test_create_may_fail_after_the_image_was_made() -> None:
    async with StandIn() as glance:
        glance.faults.fail_after_create = True
        assert (await create(glance, name="one")).status == 500
        glance.faults.drop_after_create = True
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await create(glance, name="two")
        assert [image["name"] for image in glance.images.values()] == ["one", "two"]


async def test_refused_upload_is_answered_before_its_body_was_read() -> None:
    async def endless() -> Any:
        yield b"x"
        await asyncio.Event().wait()

    async with StandIn() as glance, aiohttp.ClientSession() as session:
        glance.faults.refuse_upload = 413
        url = glance.url + glance.add_image()["file"]
        async with session.put(url, data=endless(), headers=UPLOAD) as response:
            assert response.status == 413
        assert (glance.requests[0].length, glance.requests[0].complete) == (0, False)


async def test_leaving_ends_whatever_still_waits() -> None:
    before = asyncio.all_tasks()
    async with StandIn() as glance:
        glance.faults.hang_after_create = asyncio.Event()
        glance.faults.slow_upload_reader = asyncio.Event()
        file = glance.add_image()["file"]
        creating = asyncio.create_task(create(glance, name="n"))
        uploading = asyncio.create_task(
            ask(glance, file, method="PUT", headers=UPLOAD, body=b"x" * 1_000_000)
        )
        await glance.await_requests(2)
    results = await asyncio.gather(creating, uploading, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results), results
    assert asyncio.all_tasks() == before
