"""List bodies as a registry could send them: a filtered page or a refusal, whatever they are."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relproxy.errors import RegistryGarbageError
from relproxy.filters.base import Page, Row
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.query import parse_list_query
from relproxy.filters.visibility import Viewer, may_see
from relproxy.model import Caller, Ownership, Tenancy
from tests.fuzz.conftest import Inputs

GLANCE = GlanceV2()
CREATED = "2030-01-01T00:00:00Z"
LOOKED_AT = ("id", "visibility", "owner", "created_at")
RULED: Mapping[str, tuple[Any, ...]] = {
    "id": ("I", "I", "I", "i-1", None, 1, "", ["i"]),
    "visibility": ("public", "private", "private", "shared", "community", None, "PUBLIC", True),
    "owner": ("mine", "theirs", "theirs", None, "", 1),
    "created_at": (CREATED, CREATED, CREATED, "2001-01-01T00:00:00Z", None, 1),
}
OWNERS = (None, Ownership("mine", CREATED), Ownership("theirs", CREATED))


@dataclass(frozen=True)
class Members:
    """A JSON object as its pairs, repeated ones included."""

    pairs: tuple[tuple[str, Any], ...]

    def all(self, name: str) -> list[Any]:
        return [value for key, value in self.pairs if key == name]


def members(pairs: list[tuple[str, Any]]) -> Members:
    return Members(tuple(pairs))


def image_text(choose: random.Random, number: int) -> str:
    """Write an image with a secret; members may be missing, repeated, escaped, of any type."""
    if choose.random() < 0.5:
        image = {name: choose.choice(RULED[name][:2]) for name in LOOKED_AT}
        return json.dumps({**image, "name": f"secret-{number}."})
    pairs = [(name, choose.choice(RULED[name])) for name in LOOKED_AT if choose.random() < 0.97]
    pairs.append(("name", f"secret-{number}."))
    if choose.random() < 0.3:
        pairs.append(choose.choice(ODD))
    if choose.random() < 0.25:
        name = choose.choice(LOOKED_AT)
        pairs.append((name, choose.choice(RULED[name])))
    choose.shuffle(pairs)
    written = (f"{key(choose, name)}:{json.dumps(value)}" for name, value in pairs)
    return "{" + choose.choice((", ", ",", " ,\n")).join(written) + "}"


ODD: tuple[tuple[str, Any], ...] = (
    ("name", "again"), ("ID", "I"), ("id ", "I"), ("x", {"id": "I", "visibility": "public"}),
    ("x", [{"owner": "mine"}] * 2), ("x", '\\"visibility": "public"'), ("x", "\ud800"),
    ("x", 1e400), ("x", 10**400), ("", None), ("\u0131d", "I"), ("x", "},{"),
)  # fmt: skip


def key(choose: random.Random, name: str) -> str:
    """Write a key, sometimes with an escape in it."""
    if name and choose.random() < 0.05:
        place = choose.randrange(len(name))
        return f'"{name[:place]}\\u{ord(name[place]):04x}{name[place + 1 :]}"'
    return json.dumps(name)


def body_text(choose: random.Random) -> str:
    images = [image_text(choose, number) for number in range(choose.randint(0, 4))]
    if choose.random() < 0.05:
        images.insert(0, choose.choice(("null", "1", '"secret-9."', "[]", '["secret-9."]', "{}")))
    envelope = [f'"images": [{", ".join(images)}]', '"first": "/v2/images"']
    if choose.random() < 0.2:
        envelope.append(f'"next": {choose.choice(LINKS)}')
    if choose.random() < 0.1:
        envelope.append(choose.choice(('"images": []', '"imag\\u0065s": []', '"images": null')))
    choose.shuffle(envelope)
    return "{" + ", ".join(envelope) + "}" + choose.choice(("",) * 20 + ("\n", "{}", ","))


LINKS = (
    "null", '"/v2/images?marker=I"', '"/v2/images"', '"?marker="', "1", "[]", '"http://[/?marker=x"',
    '"/v2/images?marker=a&marker=b"', '"/v2/images?marker=%ff"',
)  # fmt: skip


def spoiled(choose: random.Random, body: bytes) -> bytes:
    """Return a body, sometimes with a few bytes that are not what the registry meant."""
    if choose.random() < 0.7:
        return body
    spoilt = bytearray(body)
    for _ in range(choose.randint(1, 3)):
        place = choose.randrange(len(spoilt) + 1)
        gone = choose.choice((0, 0, 1, 1, 5))
        spoilt[place : place + gone] = choose.choice(PIECES)
    beginning = choose.choice((b"",) * 8 + (b"\xef\xbb\xbf", b" ", b"\xff\xfe"))
    return bytes(beginning + spoilt)[: choose.choice((None, None, None, None, place))]


PIECES = (
    b"", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b"\xff", b"\xc0\xa2", b" ", b"1",
    b"null", b"},{", b'"id"', b'"visibility": "public", ', b'"owner": "mine",', b"NaN", b"\\u0000",
    b"/*", b"-", b"[" * 99,
)  # fmt: skip


def is_shown(image: Any, owner: Ownership | None, tenancy: Tenancy) -> bool:
    """Say whether every reader of an image finds that a member of `mine` may see it."""
    if not isinstance(image, Members) or any(len(image.all(name)) > 1 for name in LOOKED_AT):
        return False
    one = dict(image.pairs)
    if not all(isinstance(one.get(name), str) for name in ("id", "visibility", "created_at")):
        return False
    if not isinstance(one.get("owner"), str | None):
        return False
    if one["visibility"] == "public":
        return True
    if tenancy is Tenancy.RELPROXY:
        return owner == Ownership("mine", one["created_at"])
    return one.get("owner") == "mine" or one["visibility"] == "shared"


def repeats_a_key(value: Any) -> bool:
    if isinstance(value, Members):
        names = [name for name, _ in value.pairs]
        return len(set(names)) < len(names) or any(repeats_a_key(each) for _, each in value.pairs)
    return isinstance(value, list) and any(repeats_a_key(each) for each in value)


def test_a_page_of_anything_shows_nothing_but_what_is_provably_visible(inputs: Inputs) -> None:
    counts = {"refused": 0, "shown": 0, "hidden": 0}
    for choose in inputs(6_000, 1_000_000):
        body = spoiled(choose, body_text(choose).encode("utf-8", "surrogatepass"))
        tenancy = choose.choice(tuple(Tenancy))
        owners = [choose.choice(OWNERS) for _ in range(8)]
        try:
            page = GLANCE.page(body)
        except RegistryGarbageError:
            counts["refused"] += 1
            continue
        rendered, kept = filtered(page, owners, tenancy)
        check(body, rendered, owners, tenancy)
        counts["shown"] += len(kept)
        counts["hidden"] += len(page.rows) - len(kept)
    print(counts)  # noqa: T201 - shown by -s
    assert min(counts.values()) > 500


def filtered(
    page: Page, owners: list[Ownership | None], tenancy: Tenancy
) -> tuple[bytes, tuple[Row, ...]]:
    viewer = Viewer(tenancy, Caller("mine"))
    rows = zip(page.rows, owners, strict=False)
    kept = tuple(row for row, owner in rows if may_see(viewer, row.facts, owner))
    query = parse_list_query("")
    return GLANCE.render_page(page, kept, query=query, next_marker=None), kept


def check(body: bytes, rendered: bytes, owners: list[Ownership | None], tenancy: Tenancy) -> None:
    """Compare with what the standard library reads in the same bytes."""
    whole = json.loads(body.decode(), object_pairs_hook=members)
    got = json.loads(rendered.decode(), object_pairs_hook=members)
    assert isinstance(got, Members), body
    assert len(got.all("images")) == 1, body
    images = zip(whole.all("images")[-1], owners, strict=False)
    may = [image for image, owner in images if is_shown(image, owner, tenancy)]
    shown = got.all("images")[0]
    # An image that repeats another key is one thing to one reader and another to the next.
    assert [image for image in shown if image not in may] == [], body
    certain = [image for image in may if not repeats_a_key(image)]
    assert [image for image in shown if not repeats_a_key(image)] == certain, body
    assert "next" not in dict(got.pairs), body
    rest = [pair for pair in got.pairs if pair[0] not in {"images", "first"}]
    assert all(pair in whole.pairs for pair in rest), body
