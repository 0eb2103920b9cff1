"""A cloud of real parts: Keystone, Glance, relproxy, Nova with our image service and without."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.glance import Glance
from lab.keystone import PASSWORD, Keystone
from lab.nova import Host, Nova
from lab.relproxy import Relproxy
from lab.stand_in_cinder import StandInCinder
from tests.functional.tap import Tap, tapped

# The installation that the switched-on Nova names, and the one that the route is for.
NAMED = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
ROUTED = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
FORGED = "99999999-9999-4999-8999-999999999999"
# What a customer says in createImage, or a base image has.
FORGERY = {"instance_uuid": "forged", "instance_id": "forged", "nova_installation_uuid": FORGED}

SWITCHED_ON = f"[relproxy]\nnova_installation_uuid = {NAMED}\n"
# What an operator of an unmodified Nova is told to set, in docs/nova.md.
INHERITING_LESS = (
    "[DEFAULT]\nnon_inheritable_image_properties = "
    "cache_in_nova,bittorrent,instance_uuid,instance_id,nova_installation_uuid\n"
)


@dataclass(frozen=True)
class Refused:
    """What Nova's API said, without what differs from one request to the next."""

    status: int
    body: Any


@dataclass(frozen=True)
class NovaCloud:
    keystone: Keystone
    glance: Glance
    relproxy: Relproxy
    tap: Tap
    # With the service, and Nova as it is.
    novas: Mapping[str, Nova]
    host: Host
    projects: Mapping[str, str]
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, user: str) -> str:
        if user not in self.tokens:
            self.tokens[user] = self.keystone.token(user)
        return self.tokens[user]

    def instance(
        self, user: str = "alice", volume: str | None = None, **image_properties: str
    ) -> str:
        made: str = self.host.do(
            "instance",
            project=self.projects[user],
            image_properties=image_properties,
            volume=volume,
        )
        return made

    def act(self, nova: Nova, instance: str, action: Mapping[str, Any], user: str) -> Acted:
        """Ask for an action; raise `NotDoneError` where Nova doesn't accept it."""
        request = urllib.request.Request(
            f"{nova.url}/servers/{instance}/action",
            json.dumps(action).encode(),
            {
                "X-Auth-Token": self.token(user),
                "Content-Type": "application/json",
                "OpenStack-API-Version": "compute 2.90",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                body = answer.read()
                image = json.loads(body)["image_id"] if body else None
                caller: dict[str, Any] = {
                    "user": "u1",
                    "roles": ["admin" if user == "admin" else "member"],
                    "project": self.projects[user],
                    "token": self.token(user),
                    "request": answer.headers["x-compute-request-id"],
                }
                return Acted(instance, image, caller)
        except urllib.error.HTTPError as refused:
            with refused:
                raise NotDoneError(Refused(refused.code, json.load(refused))) from None

    def snapshot(
        self,
        nova: Nova,
        instance: str,
        user: str = "alice",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Snapshot an instance, and let its host finish; return the image's id."""
        action = {"createImage": {"name": "snapshot", "metadata": metadata or {}}}
        acted = self.act(nova, instance, action, user)
        assert acted.image is not None
        self.host.do("snapshot", caller=acted.caller, instance=instance, image=acted.image)
        return acted.image

    def volume_snapshot(
        self, nova: Nova, instance: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Snapshot a volume-backed instance: the API does all of it."""
        action = {"createImage": {"name": "of volumes", "metadata": metadata or {}}}
        acted = self.act(nova, instance, action, "alice")
        assert acted.image is not None
        return acted.image

    def backup(self, nova: Nova, instance: str, rotation: int) -> str:
        """Back up an instance, and let its host finish and rotate; return the image's id."""
        asked = {"name": "nightly", "backup_type": "daily", "rotation": rotation}
        acted = self.act(nova, instance, {"createBackup": asked}, "alice")
        assert acted.image is not None
        told = {"caller": acted.caller, "instance": instance, "image": acted.image}
        self.host.do("backup", **told, backup_type="daily", rotation=rotation)
        return acted.image

    def get(self, url: str, user: str) -> Any:
        request = urllib.request.Request(url, headers={"X-Auth-Token": self.token(user)})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def image(self, image: str, user: str = "alice") -> dict[str, Any]:
        """Return what Glance itself holds of an image."""
        held: dict[str, Any] = self.get(f"{self.glance.url}/v2/images/{image}", user)
        return held

    def of_instance(self, instance: str, installation: str, user: str = "alice") -> list[str]:
        """Ask as the backup scheduler does; return the ids, newest first."""
        query = urllib.parse.urlencode(
            {"instance_id": instance, "nova_installation_uuid": installation}
        )
        found = self.get(f"{self.relproxy.url}/v2/images?{query}", user)
        return [image["id"] for image in found["images"]]

    def record(self, image: str) -> tuple[str, str, str, str] | None:
        """Return installation, instance, grade and project of an image's record."""
        url = f"{self.relproxy.admin_url}/v1/relations?image_id={image}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            relations = json.load(answer)["relations"]
        if not relations:
            return None
        (found,) = relations
        installation, instance = found["nova_installation_uuid"], found["instance_id"]
        return installation, instance, found["grade"], found["project"]

    def vouched(self, instance: str, user: str = "alice") -> tuple[str, str, str, str]:
        return NAMED, instance, "vouched", self.projects[user]

    def claimed(
        self, instance: str, installation: str = ROUTED, user: str = "alice"
    ) -> tuple[str, str, str, str]:
        return installation, instance, "claimed", self.projects[user]


@dataclass(frozen=True)
class Acted:
    instance: str
    image: str | None
    caller: dict[str, Any]


class NotDoneError(Exception):
    """Nova's API refused; carries the answer."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.refused = refused


def settings(keystone: Keystone, glance: Glance, secret: Path, user: str) -> dict[str, Any]:
    return {
        "identity": {
            "provider": "keystone",
            "keystone": {
                "credentials": {
                    "auth_url": keystone.auth_url,
                    "username": user,
                    "project": user,
                    "password_file": str(secret),
                },
                "timeout_s": 20.0,
            },
        },
        # Nova's own user has it, beside whoever it acts for.
        "trusted_sources": {"service_roles": ["service"]},
        "installations": [{"name": "east", "uuid": NAMED}, {"name": "west", "uuid": ROUTED}],
        "registries": [{"name": "glance", "tenancy": "registry", "endpoints": [glance.url]}],
        "routes": [{"name": "all", "registry": "glance", "installation": "west"}],
    }


@contextmanager
def starting(home: Path) -> Iterator[NovaCloud]:
    """Start everything, and end everything that was started."""
    with ExitStack() as parts:

        def started(part: Any) -> Any:
            parts.callback(part.stop)
            part.start()
            return part

        keystone: Keystone = started(Keystone(home / "keystone"))
        projects = {
            user: keystone.add_user(user, *roles)
            for user, roles in {
                "alice": ("member",),
                "bob": ("member",),
                "nova": ("service",),
                "relproxy": ("service",),
            }.items()
        }
        projects["admin"] = _project(keystone)
        glance: Glance = started(Glance(home / "glance", "keystone", keystone=keystone))
        secret = home / "password"
        secret.write_text(PASSWORD)
        relproxy: Relproxy = started(
            Relproxy(home / "relproxy", settings(keystone, glance, secret, "relproxy"))
        )
        cinder: StandInCinder = started(StandInCinder())
        tap = parts.enter_context(tapped(relproxy.url))
        aware = Nova(
            home / "aware",
            keystone,
            tap.url,
            "relproxy.nova.osapi_compute",
            SWITCHED_ON,
            cinder.url,
        )
        plain = Nova(home / "plain", keystone, tap.url, volume_url=cinder.url, twin_of=aware)
        novas = {"with the service": started(aware), "without": started(plain)}
        host: Host = started(Host(aware))
        yield NovaCloud(keystone, glance, relproxy, tap, novas, host, projects)


def _project(keystone: Keystone) -> str:
    """Return the id of the project `admin`."""
    found = keystone.call("GET", "/projects?name=admin", token=keystone.token())
    project: str = found["projects"][0]["id"]
    return project
