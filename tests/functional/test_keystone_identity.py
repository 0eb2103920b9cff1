"""Callers who a real Keystone vouches for, in front of real Glances, in every way there is."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.glance import Glance
from lab.keystone import PASSWORD, Keystone
from lab.processes import free_port
from lab.relproxy import Relproxy

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
EVENTUALLY_S = 60.0
CACHE_S = 1.0
# What stands before each registry's paths: who judges a token, and who knows the owners.
WAYS = {"wall": "noauth", "spoken": "trusting", "beside": "keystone"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def names(self) -> set[str]:
        return {image["name"] for image in self.json()["images"]}


@dataclass(frozen=True)
class Cloud:
    """One Keystone, three Glances, and a relproxy that validates tokens in front of them."""

    keystone: Keystone
    glances: Mapping[str, Glance]
    relproxy: Relproxy
    projects: Mapping[str, str]

    def call(
        self,
        way: str,
        method: str,
        path: str,
        token: str | None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        directly: bool = False,
    ) -> Answer:
        base = self.glances[way].url if directly else f"{self.relproxy.url}/{way}"
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            sent["X-Auth-Token"] = token
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{base}{path}", data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, dict(refused.headers), refused.read())

    def create(self, way: str, token: str, name: str, **more: Any) -> Answer:
        headers = more.pop("headers", {})
        body = {"name": name, "container_format": "bare", "disk_format": "raw", **more}
        return self.call(way, "POST", "/v2/images", token, body, headers=headers)

    def listed(self, way: str, token: str | None, query: str = "?limit=500") -> Answer:
        return self.call(way, "GET", f"/v2/images{query}", token)

    def relations(self, query: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.relproxy.admin_url}/v1/relations?{query}") as answer:
            found: list[dict[str, Any]] = json.load(answer)["relations"]
            return found


def settings(
    keystone: Keystone, glances: Mapping[str, Glance], credential: Mapping[str, Any], secret: Path
) -> dict[str, Any]:
    how = {
        "wall": {"tenancy": "relproxy"},
        "spoken": {"tenancy": "registry", "upstream_identity": "headers"},
        "beside": {"tenancy": "registry", "upstream_identity": "token"},
    }
    return {
        "identity": {
            "provider": "keystone",
            "keystone": {
                "credentials": {
                    "auth_url": keystone.auth_url,
                    "application_credential_id": credential["id"],
                    "application_credential_secret_file": str(secret),
                },
                "cache_s": CACHE_S,
                "timeout_s": 20.0,
            },
        },
        "trusted_sources": {"service_roles": ["service"]},
        "installations": [{"name": "east", "uuid": EAST}],
        "registries": [
            {"name": way, "endpoints": [glance.url], **how[way]} for way, glance in glances.items()
        ],
        "routes": [
            {"name": way, "path_prefix": f"/{way}", "registry": way, "installation": "east"}
            for way in glances
        ],
    }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    home = tmp_path_factory.mktemp("cloud")
    keystone = Keystone(home / "keystone")
    keystone.start()
    projects = {
        name: keystone.add_user(name, *roles)
        for name, roles in {
            "alice": ("member",),
            "bob": ("member",),
            "nova": ("service",),
            # What may validate tokens, and nothing else.
            "relproxy": ("service",),
        }.items()
    }
    credential = keystone.application_credential("relproxy")
    secret = home / "secret"
    secret.write_text(credential["secret"])
    glances = {
        way: Glance(home / way, pipeline, keystone=keystone if pipeline == "keystone" else None)  # type: ignore[arg-type]
        for way, pipeline in WAYS.items()
    }
    relproxy = Relproxy(home / "relproxy", settings(keystone, glances, credential, secret))
    try:
        for glance in glances.values():
            glance.start()
        relproxy.start()
        yield Cloud(keystone, glances, relproxy, projects)
    finally:
        relproxy.stop()
        for glance in glances.values():
            glance.stop()
        keystone.stop()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def tokens(cloud: Cloud) -> dict[str, str]:
    return {name: cloud.keystone.token(name) for name in ("alice", "bob", "nova", "admin")}


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(EVENTUALLY_S):
        while not is_so():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.05)


def test_each_project_sees_its_own_images_and_public_ones(
    cloud: Cloud, way: str, tokens: dict[str, str]
) -> None:
    mine = cloud.create(way, tokens["alice"], "of-alice")
    public = cloud.create(way, tokens["admin"], "public", visibility="public")
    assert (mine.status, public.status) == (201, 201), mine.body + public.body
    path = f"/v2/images/{mine.json()['id']}"

    assert {"of-alice", "public"} <= cloud.listed(way, tokens["alice"]).names
    assert "of-alice" not in cloud.listed(way, tokens["bob"]).names
    assert "public" in cloud.listed(way, tokens["bob"]).names
    assert "of-alice" in cloud.listed(way, tokens["admin"]).names
    assert cloud.call(way, "GET", path, tokens["alice"]).status == 200
    assert cloud.call(way, "GET", path, tokens["bob"]).status == 404
    assert cloud.call(way, "DELETE", path, tokens["bob"]).status == 404
    assert cloud.call(way, "DELETE", path, tokens["alice"]).status == 204
    assert "of-alice" not in cloud.listed(way, tokens["alice"]).names


def test_a_registry_knows_the_owner_that_the_token_names(
    cloud: Cloud, tokens: dict[str, str]
) -> None:
    for way in ("spoken", "beside"):
        made = cloud.create(way, tokens["alice"], "owned")
        assert made.json()["owner"] == cloud.projects["alice"]


@pytest.mark.parametrize("token", [None, "gAAAAAmade-up", "x"])
def test_nobody_is_told_where_keystone_is(cloud: Cloud, way: str, token: str | None) -> None:
    answer = cloud.listed(way, token)

    assert answer.status == 401
    if way != "spoken":  # whose pipeline has nobody who would say it
        assert answer.headers["WWW-Authenticate"].startswith(
            f'Keystone uri="{cloud.keystone.auth_url}'
        )


SCOPES: dict[str, Any] = {
    "unscoped": "unscoped",
    "of a domain": {"domain": {"name": "Default"}},
    "of the system": {"system": {"all": True}},
}


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_a_token_of_no_project_lists_nothing(cloud: Cloud, way: str, scope: Any) -> None:
    grant_every_scope(cloud.keystone)
    token = cloud.keystone.token("admin", scope)

    assert cloud.listed(way, token).status == 403
    assert cloud.create(way, token, "of-nobody").status == 403
    if way == "beside":
        # As the registry itself has it.
        assert cloud.call(way, "GET", "/v2/images", token, directly=True).status == 403


def grant_every_scope(keystone: Keystone) -> None:
    token = keystone.token()
    headers = {"X-Subject-Token": token}
    shown = keystone.call("GET", "/auth/tokens", token=token, headers=headers)["token"]
    user, role = shown["user"]["id"], keystone.role("admin")
    for place in ("system", "domains/default"):
        keystone.call("PUT", f"/{place}/users/{user}/roles/{role}", token=token)


# At a registry that validates tokens its own cache decides.
@pytest.mark.parametrize("way", ["wall", "spoken"])
async def test_a_revoked_token_is_good_for_no_longer_than_configured(
    cloud: Cloud, way: str
) -> None:
    token = cloud.keystone.token("alice")
    assert cloud.listed(way, token).status == 200
    cloud.keystone.revoke(token)

    await eventually(lambda: cloud.listed(way, token).status == 401)


@pytest.fixture(scope="module")
def short_lived(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """The same Keystone, whose tokens end at once."""
    twin = Keystone(
        tmp_path_factory.mktemp("twin"), twin_of=cloud.keystone, token_lasts_s=1, port=free_port()
    )
    twin.start()
    yield twin
    twin.stop()


async def test_an_ended_token_is_good_only_beside_a_services(
    cloud: Cloud, way: str, short_lived: Keystone, tokens: dict[str, str]
) -> None:
    ended = short_lived.token("alice")
    await eventually(lambda: cloud.listed(way, ended).status == 401)

    service = {"X-Service-Token": tokens["nova"]}
    made = cloud.create(way, ended, "a-long-snapshot", headers=service)
    assert made.status == 201, made.body
    assert cloud.create(way, ended, "x", headers={"X-Service-Token": tokens["bob"]}).status == 401
    assert cloud.create(way, ended, "x", headers={"X-Service-Token": "none"}).status == 401
    assert cloud.listed(way, ended).status == 401
    assert "a-long-snapshot" in cloud.listed(way, tokens["alice"]).names


def test_a_service_token_vouches_for_the_instance(
    cloud: Cloud, way: str, tokens: dict[str, str]
) -> None:
    about = {"X-Nova-Instance-ID": f"i-{way}"}
    vouched = cloud.create(
        way, tokens["alice"], "a", headers={**about, "X-Service-Token": tokens["nova"]}
    ).json()
    cloud.create(way, tokens["alice"], "b", headers=about)
    claimed = cloud.create(way, tokens["alice"], "c", instance_uuid=f"i-{way}").json()

    found = {r["image_id"]: r["grade"] for r in cloud.relations(f"instance_id=i-{way}")}
    assert found == {vouched["id"]: "vouched", claimed["id"]: "claimed"}
    assert cloud.listed(way, tokens["alice"], f"?instance_id=i-{way}").names == {"a", "c"}
    assert cloud.listed(way, tokens["bob"], f"?instance_id=i-{way}").names == set()


def test_an_application_credentials_rules_hold_in_every_way(cloud: Cloud, way: str) -> None:
    rule = {"service": "image", "method": "GET", "path": "/v2/images"}
    credential = cloud.keystone.application_credential("alice", [rule])
    token = cloud.keystone.credential_token(credential)

    if way == "beside":
        # Its keystonemiddleware wants the image service in the catalog, which has none here.
        assert cloud.listed(way, token).status == 401
        return
    assert cloud.listed(way, token).status == 200
    assert cloud.create(way, token, "x").status == 403
    assert cloud.call(way, "GET", "/v2/images/abc", token).status == 403


def test_relproxys_own_secret_is_not_in_its_log(cloud: Cloud, tokens: dict[str, str]) -> None:
    cloud.listed("wall", tokens["alice"])
    log = cloud.relproxy.log.read_text()

    assert '"event": "logged in to Keystone"' in log
    for secret in (PASSWORD, *tokens.values(), (cloud.relproxy.home.parent / "secret").read_text()):
        assert secret not in log


def test_without_keystone_what_needs_it_is_refused_for_now(
    cloud: Cloud, way: str, tokens: dict[str, str]
) -> None:
    """The last one: Keystone ends here, and comes back for whoever follows."""
    cloud.keystone.stop()
    try:
        answer = cloud.listed(way, cloud_unknown(tokens["alice"]))
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "5"
        assert cloud.call(way, "GET", "/versions", tokens["bob"]).status == 200
    finally:
        cloud.keystone.start()
    assert cloud.listed(way, tokens["alice"]).status == 200


def cloud_unknown(token: str) -> str:
    """Return a token that nobody has asked about yet."""
    return f"{token[:-8]}unknown1"
