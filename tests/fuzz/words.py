"""Random targets, queries and documents, made of what Glance and HTTP servers trip over."""

from __future__ import annotations

import random
from collections.abc import Sequence
from urllib.parse import quote

IMAGE_ID = "14c22e86-19ff-4fce-8919-89a34d23b277"

# Most requests have one of these shapes, with something wrong about it.
SHAPES: tuple[tuple[str, ...], ...] = (
    ("v2", "images"),
    ("v2", "images"),
    ("v2", "images", IMAGE_ID),
    ("v2", "images", IMAGE_ID, "file"),
    ("v2", "images", IMAGE_ID, "stage"),
    ("v2", "images", IMAGE_ID, "import"),
    ("v2", "images", IMAGE_ID, "locations"),
    ("v2", "images", IMAGE_ID, "members"),
    ("v2", "images", IMAGE_ID, "members", "bob"),
    ("v2", "images", IMAGE_ID, "tags", "x"),
    ("v2", "images", IMAGE_ID, "tasks"),
    ("v2", "images", IMAGE_ID, "actions", "deactivate"),
    ("v2", "stores", "file", IMAGE_ID),
    ("v2", "tasks"),
    ("v2", "tasks", IMAGE_ID),
    ("v2", "cache"),
    ("v2", "cache", IMAGE_ID),
    ("v2", "info", "stores", "detail"),
    ("v2", "schemas", "images"),
    ("v2", "metadefs", "namespaces"),
    ("v2", "metadefs", "namespaces", "x", "tags", "y"),
    ("images",),
    ("images", IMAGE_ID),
    ("versions",),
    ("versions", "v2", "images"),
    ("healthcheck",),
    ("v2",),
    (),
)
SEGMENTS = (
    "v2", "v2.0", "v2.17", "v2.99", "v1", "V2", "v2.", "v2x", "images", "Images", "image", "tasks",
    "file", "members", "versions", "healthcheck", ".", "..", "...", "", " ", "a;b", ";", "*", "a b",
    "%", "%2", "\\", "\0", "\n", "\x7f", "\xa0", "\u0131mages", "\uff0f", "~", "@", "a:b", "a,b",
    IMAGE_ID, IMAGE_ID.upper(), f"{IMAGE_ID}.json", "images.json", "_method=DELETE", "{image_id}",
)  # fmt: skip
SEPARATORS = (
    "/",
    "/",
    "/",
    "/",
    "/",
    "/",
    "//",
    "///",
    "%2f",
    "%2F",
    "/./",
    "/../",
    "\\",
    "%5c",
    ";/",
)
BEGINNINGS = (
    "", "", "", "", "", "", "/", "http://a", "HTTP://a:80", "https://a", "http://u@a", "http:", "*",
    "http://a\\b", "//a", "?", "http://a?", "ftp://a",
)  # fmt: skip
ENDS = ("", "", "", "", "", "", "", "/", "//", "?", "%3f", ";x", "%00", "#x", "/.", "%2f..")
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")
VENDOR = "application/vnd.openstack.images-"
ACCEPTS = (
    "", "*/*", "application/json", f"{VENDOR}v2", f"{VENDOR}v2.3", f"{VENDOR}v3", f"{VENDOR}V2",
    f", {VENDOR}v2", f"{VENDOR}v2;q=1", f"{VENDOR}v2;q=0.5", f"{VENDOR}v2, */*", f" {VENDOR}v2 ",
    f"*/*, {VENDOR}v2", f"{VENDOR}v2.99", VENDOR, VENDOR.upper() + "v2", f"{VENDOR}v2/x",
    f'"{VENDOR}v2"',
)  # fmt: skip

NAMES = (
    "limit", "limit", "marker", "marker", "id", "id", "owner", "visibility", "visibility", "name",
    "tag", "tag", "sort", "sort_key", "sort_key", "sort_dir", "status", "member_status",
    "os_hidden", "created_at", "size_min", "protected", "changes-since", "deleted", "instance_id",
    "instance_uuid", "nova_installation_uuid", "Limit", "li mit", "",
    "_method", "limit[]", "marker\0", "\u0131d",
)  # fmt: skip
VALUES = (
    "", "1", "0", "25", "1000", "1001", "-1", "+1", "1.0", "1e3", "0x10", " 1", "\u0661", "abc",
    IMAGE_ID, IMAGE_ID.upper(), f"in:{IMAGE_ID}", f"in:{IMAGE_ID},{IMAGE_ID}", "in:", 'in:"a,b"',
    "public", "all", "private", "community", "shared", "eq:x", "neq:x", "gt:2020-01-01", "name:asc",
    "true", "True", "a;b=c", "a&b", "a=b", "a+b", "%", "%41", "\0", "\n", "\xe9", "\u20ac", "null",
    "visibility=all", "&limit=5", ";limit=5", "#", "?", "/", "123", "sda" * 40,
)  # fmt: skip


def spelled(choose: random.Random, text: str, *, is_wild: bool = True) -> str:
    """Spell text with any of its characters escaped; a wild one sometimes twice, or wrongly."""
    out = []
    for character in text:
        roll = choose.random()
        if roll > 0.96:
            form = choose.choice(("02x", "02X"))
            out.append("".join(f"%{byte:{form}}" for byte in character.encode()))
        elif is_wild and roll > 0.955:
            out.append(quote(quote(character, safe="")))
        elif is_wild and roll > 0.95:
            out.append(choose.choice(("%", "%zz", "%u002f", "%00", "%ff", "%c0%af", "+", " ", "#")))
        elif character.isascii() and character.isprintable() and character not in " #%":
            out.append(character)
        else:
            out.append(quote(character, safe=""))
    return "".join(out)


def target(choose: random.Random) -> str:
    """Return a request target: often almost a known one."""
    segments = list(choose.choice(SHAPES))
    is_wild = choose.random() > 0.6
    separators = SEPARATORS if is_wild else SEPARATORS[:10]
    while choose.random() > (0.7 if is_wild else 0.9):
        place = choose.randint(0, len(segments))
        segments[place : place + choose.randint(0, 1)] = [choose.choice(SEGMENTS)]
    spelled_segments = (spelled(choose, each, is_wild=is_wild) for each in segments)
    path = "".join(choose.choice(separators) + each for each in spelled_segments)
    end = choose.choice(ENDS if is_wild else ENDS[:10])
    question = f"?{query(choose)}" if choose.random() > 0.8 else ""
    beginning = choose.choice(BEGINNINGS if is_wild else BEGINNINGS[:8])
    return beginning + (path or "/") + end + question


def query(choose: random.Random) -> str:
    """Return a raw query."""
    pairs = []
    for _ in range(choose.choice((0, 1, 1, 2, 2, 3, 4))):
        name, value = spelled(choose, choose.choice(NAMES)), spelled(choose, choose.choice(VALUES))
        pairs.append(name + choose.choice(("=", "=", "=", "=", "", "==", "%3d")) + value)
    return separated(choose, pairs)


def separated(choose: random.Random, pairs: Sequence[str]) -> str:
    """Put pairs together, mostly as everyone does."""
    return "".join(
        pair + choose.choice(("&", "&", "&", "&", "&&", ";", "&amp;")) for pair in pairs
    )[: choose.choice((None, None, -1))]
