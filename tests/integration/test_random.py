"""Random targets and random traffic: whatever is asked, nobody reads what isn't theirs to see."""

from __future__ import annotations

import asyncio
import random
from urllib.parse import quote, unquote

from tests.integration.conftest import Client, Wall
from tests.integration.recorder import exchanged

SECRET = "of-bob-and-nobody-else"
PIECES = (
    "v2",
    "v2.9",
    "V2",
    "images",
    "Images",
    "tasks",
    "members",
    "file",
    "..",
    ".",
    "",
    "",
    "versions",
)
SHAPES: tuple[tuple[str, ...], ...] = (
    ("v2", "images"),
    ("v2", "images"),
    ("images",),
    ("v2", "images", "{id}"),
    ("v2", "images", "{id}", "file"),
    ("v2", "images", "{id}", "tags", "x"),
    ("v2", "images", "{id}", "members"),
    ("v2", "tasks"),
    (),
)
ACCEPTS = (
    "*/*", "application/json", "application/vnd.openstack.images-v2",
    "application/vnd.openstack.images-v2.3", ", application/vnd.openstack.images-v2",
    "application/vnd.openstack.images-v2;q=1", "APPLICATION/VND.OPENSTACK.IMAGES-v2",
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
QUERIES = (
    "", "limit=1", "limit=1000", "visibility=private", "visibility=all", "owner=bob", "_method=GET",
    "_method=DELETE",
    "_method=PUT",
    "%5fmethod=GET", "x;_method=GET", "name=" + SECRET, "status=queued", "member_status=all",
    "os_hidden=false", "marker={id}", "id={id}", "id=in:{id}", "instance_id=123", "sort=name",
)  # fmt: skip


def encoded(choose: random.Random, text: str) -> str:
    """Spell a path in one of the many ways that a server may decode to the same one."""
    spelled = ""
    for letter in text:
        roll = choose.random()
        if roll < 0.05:
            spelled += f"%{ord(letter):02{choose.choice('xX')}}"
        elif roll < 0.06:
            spelled += quote(f"%{ord(letter):02x}")
        else:
            spelled += letter
    return spelled


def random_request(choose: random.Random, image_ids: tuple[str, str]) -> bytes:
    image_id = choose.choice(image_ids)
    pieces = [piece.format(id=image_id) for piece in choose.choice(SHAPES)]
    if choose.random() < 0.3:
        place = choose.randint(0, len(pieces))
        pieces[place:place] = [choose.choice((*PIECES, image_id))]
    separators = ("/", "/", "/", "/", "//", "%2f", "/./", "\\")
    path = "".join(choose.choice(separators) + encoded(choose, piece) for piece in pieces)
    query = "&".join(choose.choice(QUERIES) for _ in range(choose.randint(0, 3)))
    target = f"/{path.lstrip('/')}?{query.format(id=image_id)}".rstrip("?")
    method = choose.choice(METHODS)
    body = choose.choice((b"", b"", b"_method=GET", b'{"name": "&_method=GET&"}', b"[]"))
    fields = [
        "Host: a", "X-Project-Id: alice", "X-Roles: member", "Connection: close",
        f"Accept: {choose.choice(ACCEPTS)}",
    ]  # fmt: skip
    if body:
        fields.append(f"Content-Length: {len(body)}")
        fields.append(f"Content-Type: {choose.choice(FORMS)}")
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *fields])
    return f"{head}\r\n\r\n".encode("latin-1") + body


FORMS = (
    "application/json",
    "application/x-www-form-urlencoded",
    "Application/X-WWW-Form-URLencoded; a=b",
)


async def test_no_random_request_reads_or_changes_a_foreign_image(
    wall: Wall, seed: int, effort: int
) -> None:
    choose = random.Random(seed)
    secret = wall.glance.add_image(name=SECRET, owner="bob", visibility="private")
    public = wall.glance.add_image(name="public", owner="ops", visibility="public")
    before = [dict(secret), dict(public)]
    ids = (secret["id"], public["id"])
    wall.glance.trusting = False  # A registry that shows and allows everything.
    statuses: dict[int, int] = {}
    for _ in range(600 * effort):
        request = random_request(choose, ids)
        if request.startswith((b"GET", b"HEAD", b"OPTIONS")) or wall.name == "only_wall":
            answer = await exchanged(wall.client.url, request)
            # An image by its id is the registry's to judge, where it has callers.
            if wall.name == "only_wall" or not names_one_of(ids, request):
                assert SECRET.encode() not in without_echo(answer), (seed, request)
            status = int(answer[9:12])
            statuses[status] = statuses.get(status, 0) + 1
    assert [wall.glance.images.get(image_id) for image_id in ids] == before, seed
    assert {200, 404} <= set(statuses), statuses


def names_one_of(ids: tuple[str, str], request: bytes) -> bool:
    path = unquote(request.split(b" ", 2)[1].decode().partition("?")[0])
    return any(image_id in path for image_id in ids)


def without_echo(answer: bytes) -> bytes:
    """Take out the links that repeat the client's own query."""
    return answer.replace(b"name=" + SECRET.encode(), b"")


async def test_projects_at_once_never_see_each_others_images(
    wall: Wall, seed: int, effort: int
) -> None:
    choose = random.Random(seed)
    projects = [f"project{number}" for number in range(6)]

    async def live(project: str) -> None:
        own: list[str] = []
        for number in range(12 * effort):
            name = f"{project}-{number}"
            fields = {"visibility": "private", "instance_id": str(number % 3)}
            created = await wall.client.create(name, project, fields=fields)
            assert created.status == 201
            own.insert(0, name)
            limit = choose.choice((3, 7, 1000))
            await check(wall.client, project, own[:limit], f"/v2/images?limit={limit}")
            mine = [n for n in own if int(n.rpartition("-")[2]) % 3 == 1]
            await check(
                wall.client, project, mine[:limit], f"/v2/images?instance_id=1&limit={limit}"
            )

    async with asyncio.TaskGroup() as everyone:
        for project in projects:
            everyone.create_task(live(project))


async def check(client: Client, project: str, expected: list[str], target: str) -> None:
    answer = await client.get(target, project=project)
    assert answer.status == 200, answer.body
    assert answer.names == expected
