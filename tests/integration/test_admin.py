from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab.processes import free_port
from lab.stand_in import StandIn
from tests.integration.conftest import EAST, WEST, Client, Serve, registry
from tests.integration.recorder import Recorder, until_broken
from tests.integration.test_store_away import broken


async def test_healthz_says_that_the_process_is_alive(second_wall: Client) -> None:
    answer = await second_wall.get("/healthz", url=second_wall.admin_url)
    assert (answer.status, answer.json()) == (200, {"status": "alive"})


async def test_readyz_gives_each_part_with_its_reason(
    second_wall: Client, trusting: StandIn
) -> None:
    answer = await second_wall.get("/readyz", url=second_wall.admin_url)
    assert answer.status == 200
    assert answer.json() == {
        "status": "ready",
        "store": {"ready": True, "reason": "The store answers."},
        "background": {
            part: {"ready": True, "reason": "It is at work."}
            for part in ("relay", "settlement", "adoption")
        },
        "shadow": [],
        "registries": {
            "glance": {
                "ready": True,
                "reason": "The registry answers 401.",
                "endpoints": {trusting.url: "well"},
            }
        },
    }


async def test_a_registry_that_shows_images_to_anyone_is_not_ready_as_one_that_knows_its_callers(
    serve: Serve, noauth: StandIn
) -> None:
    """The lists would look safe, and everyone could delete everything by id."""
    client = await serve(registries=[registry(noauth.url, "registry")])
    answer = await client.get("/readyz", url=client.admin_url)
    assert answer.status == 503
    assert "without credentials" in answer.json()["registries"]["glance"]["reason"]
    meant = await serve(registries=[registry(noauth.url, "registry", allows_anonymous=True)])
    assert (await meant.get("/readyz", url=meant.admin_url)).status == 200
    other = await serve(registries=[registry(noauth.url, "relproxy")])
    assert (await other.get("/readyz", url=other.admin_url)).status == 200


async def test_readyz_is_red_without_any_registry_and_shows_a_store_that_is_away(
    serve: Serve, trusting: StandIn
) -> None:
    away = registry(f"http://127.0.0.1:{free_port()}", "registry") | {"name": "away"}
    here = registry(trusting.url, "registry")
    client = await serve(registries=[away, here])
    answer = await client.get("/readyz", url=client.admin_url)
    assert answer.status == 200
    assert answer.json()["registries"]["away"] == {
        "ready": False,
        "reason": "The registry can't be reached.",
        "endpoints": {away["endpoints"][0]: "well"},
    }
    alone = await client.get("/readyz?registry=away", url=client.admin_url)
    assert (alone.status, set(alone.json()["registries"])) == (503, {"away"})
    unknown = await client.get("/readyz?registry=nope", url=client.admin_url)
    assert unknown.status == 404
    with broken(client):
        answer = await client.get("/readyz", url=client.admin_url)
    assert (answer.status, answer.json()["store"]["ready"]) == (200, False)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("relay", "relproxy.store.relay.Relay.run"),
        ("settlement", "relproxy.settlement.Settlement.run"),
        ("adoption", "relproxy.store.adoption.Adoption.run"),
    ],
)
async def test_readyz_is_red_when_what_works_in_the_background_has_ended(
    serve: Serve, trusting: StandIn, monkeypatch: pytest.MonkeyPatch, part: str, what: str
) -> None:
    async def dies(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(what, dies)
    client = await serve(registries=[registry(trusting.url, "registry")])
    answer = await client.get("/readyz", url=client.admin_url)
    assert answer.status == 503
    background = answer.json()["background"]
    assert [name for name, state in background.items() if not state["ready"]] == [part]


async def test_requests_are_counted_by_route_treatment_and_status(second_wall: Client) -> None:
    await second_wall.get("/v2/images", project="alice")
    await second_wall.get("/v2/images/x", project="alice")
    await second_wall.create("a", "alice")
    metrics = (await second_wall.get("/metrics", url=second_wall.admin_url)).body.decode()
    for status, treatment in ((200, "list"), (404, "image"), (201, "create")):
        line = (
            f'relproxy_requests_total{{route="all",status="{status}",treatment="{treatment}"}} 1.0'
        )
        assert line in metrics
        labels = f'registry="glance",route="all",treatment="{treatment}"'
        counted = f"relproxy_request_seconds_count{{{labels}}} 1.0"
        assert counted in metrics
    assert "relproxy_requests_in_progress 0.0" in metrics


async def test_relations_are_asked_for_by_instance_image_or_project(second_wall: Client) -> None:
    for project, installation in (("alice", EAST), ("bob", WEST)):
        headers = {"X-Nova-Installation-UUID": installation, "X-Nova-Instance-ID": "123"}
        await second_wall.create("snapshot", project, headers=headers)
    both = await second_wall.relations("instance_id=123")
    assert [relation["project"] for relation in both] == ["bob", "alice"]
    one = await second_wall.relations(f"instance_id=123&nova_installation_uuid={EAST}")
    assert [relation["project"] for relation in one] == ["alice"]
    assert await second_wall.relations("project=alice") == one
    assert await second_wall.relations(f"image_id={one[0]['image_id'].upper()}") == one
    assert await second_wall.relations("project=nobody") == []


async def test_relations_are_paged_with_a_cursor(second_wall: Client) -> None:
    for number in range(5):
        await second_wall.create(f"s{number}", "alice", fields={"instance_id": str(number)})
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await second_wall.get(
            f"/v1/relations?project=alice&limit=2{cursor and '&cursor=' + cursor}",
            url=second_wall.admin_url,
        )
        seen += [relation["instance_id"] for relation in page.json()["relations"]]
        cursor = page.json()["next_cursor"]
    assert seen == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "limit=5",
        f"nova_installation_uuid={EAST}",
        "instance_id=1&nova_installation_uuid=x",
        "project=a&limit=0",
        "project=a&limit=1001",
        "project=a&cursor=x",
        "project=a&cursor=99999999999999999999",
        "project=a&project=b",
        "projects=a",
        "project=",
        "instance_id=",
        "project=a&image_id=",
    ],
)
async def test_a_question_that_makes_no_sense_is_400_with_a_sentence(
    second_wall: Client, query: str
) -> None:
    answer = await second_wall.get(f"/v1/relations?{query}", url=second_wall.admin_url)
    assert answer.status == 400
    assert answer.json()["message"].endswith(".")


async def test_no_client_and_no_registry_can_make_a_label(
    client: Client, recorder: Recorder
) -> None:
    async def labels() -> set[tuple[str, str]]:
        text = (await client.get("/metrics", url=client.admin_url)).body.decode()
        return {
            pair
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            for pair in sample.labels.items()
            if pair[0] != "le"  # The bounds of a histogram's buckets.
        }

    before = await labels()
    for line in (b"SECRET /v2/images", b"GET /v2/secret", b"GET http://secret/v2/x?secret=secret"):
        head = line + b" HTTP/1.1\r\nHost: secret\r\nConnection: close\r\nX-Project-Id: secret\r\n"
        await until_broken(client.url, head + b"X-Nova-Instance-ID: secret\r\n\r\n")
    recorder.answer = b"HTTP/1.1 599 Secret\r\nX-OpenStack-Request-Id: secret\r\n\r\n"
    recorder.closes = True
    await until_broken(client.url, b"GET /v2/images/secret HTTP/1.0\r\nHost: a\r\n\r\n")
    assert await labels() - before <= {
        *(("route", "all"), ("registry", "glance")),
        *(("treatment", "pass"), ("treatment", "image"), ("treatment", "list")),
        *(("status", "200"), ("status", "599"), ("by", "client"), ("by", "registry")),
    }
