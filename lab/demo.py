"""`make demo`: the blueprint's story, told with real parts.

An unchanged Glance in its own no-auth pipeline (it knows no customers), relproxy with embedded
SQLite in front of it, and openstacksdk as everybody's client. What is printed is what the parts
answered; if one of them answers something else than the story says, the demo fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openstack.connection import Connection

from lab.clients import connect, metadata_headers
from lab.glance import Glance
from lab.relproxy import Relproxy

HOME = Path(__file__).resolve().parent.parent / ".demo"
EAST = str(uuid.uuid5(uuid.NAMESPACE_DNS, "nova-east.demo"))
INSTANCE = "123"
_DATA = b"the disk of an instance, as it was at midnight. " * 4096


class StoryBrokenError(Exception):
    """A part answered something else than the story says."""


@dataclass(frozen=True)
class Cast:
    """Who takes part, each as a client of its own. Nova acts for a project, through relproxy."""

    alice: Connection
    bob: Connection
    admin: Connection
    nova_for_alice: Connection
    nova_for_bob: Connection
    straight_to_glance: Connection


def main() -> int:
    """Run the demo; 1 if the story broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument("--home", type=Path, default=HOME, help="where the parts' files go")
    arguments = parser.parse_args()
    print("Starting an unchanged Glance and relproxy in front of it (the first run installs them).")
    with _stage(arguments.home) as (glance, relproxy):
        try:
            _tell(glance, relproxy)
        except StoryBrokenError as broken:
            print(f"\nThe story broke: {broken}", file=sys.stderr)
            return 1
        if arguments.keep:
            _keep(glance, relproxy)
    return 0


@contextmanager
def _stage(home: Path) -> Iterator[tuple[Glance, Relproxy]]:
    shutil.rmtree(home, ignore_errors=True)
    glance = Glance(home / "glance")
    relproxy = Relproxy(home / "relproxy", _settings(glance.url))
    try:
        glance.start()
        relproxy.start()
        yield glance, relproxy
    finally:
        relproxy.stop()
        glance.stop()


def _settings(glance_url: str) -> dict[str, Any]:
    loopback = ["127.0.0.0/8"]
    return {
        "identity": {"trusted_networks": loopback},
        "trusted_sources": {"networks": loopback},
        "installations": [{"name": "nova-east", "uuid": EAST}],
        "registries": [{"name": "glance", "tenancy": "relproxy", "endpoints": [glance_url]}],
        "routes": [{"name": "all", "registry": "glance", "installation": "nova-east"}],
    }


def _cast(glance: Glance, relproxy: Relproxy) -> Cast:
    nova = metadata_headers(EAST, INSTANCE)
    return Cast(
        alice=connect(relproxy.url, "alice"),
        bob=connect(relproxy.url, "bob"),
        admin=connect(relproxy.url, "operations", roles="admin"),
        nova_for_alice=connect(relproxy.url, "alice", headers=nova),
        nova_for_bob=connect(relproxy.url, "bob", headers=nova),
        straight_to_glance=connect(glance.url, "nobody"),
    )


def _tell(glance: Glance, relproxy: Relproxy) -> None:
    cast = _cast(glance, relproxy)
    _chapter("1", f"Alice's Nova snapshots instance {INSTANCE} and uploads the data")
    snapshot = _create(cast.nova_for_alice, "alice-web-snapshot")
    print(f"  image {snapshot}, {len(_DATA):,} bytes up")
    came_back = cast.alice.image.download_image(snapshot).content
    _expect(came_back == _DATA, "Alice downloads what was uploaded")
    print(f"  and {len(came_back):,} bytes down again, the same ones")
    _chapter("2", f"Bob's Nova snapshots *his* instance {INSTANCE}; operations publish an image")
    bobs = _create(cast.nova_for_bob, "bob-db-snapshot")
    public = _create(cast.admin, "debian-13", visibility="public")
    print(f"  image {bobs} of Bob's, and {public} for everyone")
    _chapter("3", "Everybody lists images: GET /v2/images")
    _show_lists(cast, {snapshot, public}, {bobs, public}, {snapshot, bobs, public})
    _chapter("4", f"The backup scheduler asks for instance {INSTANCE}: ?instance_id={INSTANCE}")
    _show_instance(cast, relproxy, snapshot, bobs)
    _chapter("5", "What Glance itself holds of Alice's snapshot: nothing of the instance")
    _show_held(cast, snapshot)
    _chapter("6", "The same ids, asked for one by one")
    _show_by_id(cast, (snapshot, bobs, public))
    print("\nThe story holds.")


def _create(client: Connection, name: str, visibility: str = "private") -> str:
    image = client.image.create_image(
        name=name,
        data=_DATA,
        disk_format="raw",
        container_format="bare",
        visibility=visibility,
        allow_duplicates=True,
    )
    return str(image.id)


def _show_lists(cast: Cast, alices: set[str], bobs: set[str], everything: set[str]) -> None:
    seen = {
        "Alice": (_listed(cast.alice), alices),
        "Bob": (_listed(cast.bob), bobs),
        "an admin": (_listed(cast.admin), everything),
        "Glance, asked directly": (_listed(cast.straight_to_glance), everything),
    }
    names = sorted({name for images, _ in seen.values() for name in images.values()})
    rows = [
        [who, *("yes" if n in images.values() else "-" for n in names)]
        for who, (images, _) in seen.items()
    ]
    _table(["who lists", *names], rows)
    for who, (images, expected) in seen.items():
        _expect(set(images) == expected, f"{who} lists what is theirs to see")


def _show_instance(cast: Cast, relproxy: Relproxy, snapshot: str, bobs: str) -> None:
    answers = {
        "Alice": (_of_instance(cast.alice), [snapshot]),
        "Bob": (_of_instance(cast.bob), [bobs]),
    }
    _table(
        ["who asks", "images of instance 123"],
        [[who, ", ".join(ids)] for who, (ids, _) in answers.items()],
    )
    for who, (ids, expected) in answers.items():
        _expect(ids == expected, f"{who} gets the images of their own instance 123")
    with urllib.request.urlopen(
        f"{relproxy.admin_url}/v1/relations?instance_id={INSTANCE}"
    ) as answer:
        relations = json.load(answer)["relations"]
    print("\n  and on the admin listener, /v1/relations, across all projects:\n")
    columns = ("image_id", "project", "nova_installation_uuid", "instance_id", "grade")
    _table(columns, [[str(r[c]) for c in columns] for r in relations])
    _expect({r["image_id"] for r in relations} == {snapshot, bobs}, "both relations are recorded")


def _show_held(cast: Cast, snapshot: str) -> None:
    held = cast.straight_to_glance.image.get(f"/images/{snapshot}").json()
    for key in ("id", "name", "owner", "visibility", "status", "size"):
        print(f"  {key:>12}: {held[key]}")
    text = json.dumps(held)
    _expect(EAST not in text and "instance_id" not in held, "Glance holds nothing of the instance")


def _show_by_id(cast: Cast, ids: Sequence[str]) -> None:
    clients = {"Alice": cast.alice, "Bob": cast.bob, "Glance directly": cast.straight_to_glance}
    rows = [
        [image_id, *(_status(client, image_id) for client in clients.values())] for image_id in ids
    ]
    _table(["GET /v2/images/...", *clients], rows)
    _expect(
        [row[1:] for row in rows]
        == [
            ["200", "404", "200"],
            ["404", "200", "200"],
            ["200", "200", "200"],
        ],
        "nobody reaches a foreign image by its id",
    )


def _listed(client: Connection) -> dict[str, str]:
    return {str(image.id): str(image.name) for image in client.image.images()}


def _of_instance(client: Connection) -> list[str]:
    # Not client.image.images(instance_id=...): openstacksdk silently drops what it doesn't know.
    answer = client.image.get(f"/images?instance_id={INSTANCE}").json()
    return [image["id"] for image in answer["images"]]


def _status(client: Connection, image_id: str) -> str:
    return str(client.image.get(f"/images/{image_id}", raise_exc=False).status_code)


def _chapter(number: str, title: str) -> None:
    print(f"\n{number}. {title}\n")


def _expect(holds: object, claim: str) -> None:
    if not holds:
        raise StoryBrokenError(f"not so: {claim}")


def _table(head: Iterable[str], rows: Sequence[Sequence[str]]) -> None:
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]

    def line(row: Sequence[str]) -> str:
        return "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))

    print(f"  {line(table[0])}".rstrip())
    print(f"  {line(['-' * width for width in widths])}")
    for row in table[1:]:
        print(f"  {line(row)}".rstrip())


def _keep(glance: Glance, relproxy: Relproxy) -> None:
    print("\nLeft running until Ctrl-C:")
    print(f"  relproxy   {relproxy.url}/v2/images   (send X-Project-Id: alice, or bob)")
    print(f"  admin      {relproxy.admin_url}/readyz, /metrics, /v1/relations?instance_id=123")
    print(f"  Glance     {glance.url}/v2/images")
    print(f"\n  curl -s -H 'X-Project-Id: alice' '{relproxy.url}/v2/images?instance_id=123'")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
