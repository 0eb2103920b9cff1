from __future__ import annotations

import json
from typing import Any

import pytest

from relproxy.errors import BadRequestError, RegistryGarbageError
from relproxy.filters.base import UNKNOWN, Operation, Page
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.query import parse_list_query
from relproxy.filters.target import parse_target
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, CreatedImage, Treatment
from tests.unit.given import CREATED_AT, IMAGE_ID, OTHER_UUID, UUID, as_json, fields, image

GLANCE = GlanceV2()
NO_FIELDS = Headers()
VND = "application/vnd.openstack.images-"
ID = "a5878fd6-5385-4f9b-a0a9-8d61224875f7"
NOTHING_KNOWN = ImageFacts(None, None, None, None)


# -- operations


def operation(method: str, raw: str, *pairs: tuple[str, str]) -> Operation:
    return GLANCE.operation(method, parse_target(raw), fields(*pairs))


@pytest.mark.parametrize(
    ("method", "path", "name", "treatment", "access"),
    [
        ("GET", "/", "versions", Treatment.PASS, Access.ANYONE),
        ("GET", "/versions", "versions", Treatment.PASS, Access.ANYONE),
        ("GET", "/v2", "version", Treatment.PASS, Access.ANYONE),
        ("GET", "/healthcheck", "healthcheck", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/images", "image-list", Treatment.LIST, Access.CALLER),
        ("POST", "/v2/images", "image-create", Treatment.CREATE, Access.CALLER),
        ("GET", f"/v2/images/{ID}", "image-show", Treatment.IMAGE, Access.VISIBLE),
        ("PATCH", f"/v2/images/{ID}", "image-update", Treatment.IMAGE, Access.OWN),
        ("DELETE", f"/v2/images/{ID}", "image-delete", Treatment.IMAGE, Access.OWN),
        ("GET", f"/v2/images/{ID}/file", "image-download", Treatment.IMAGE, Access.VISIBLE),
        ("PUT", f"/v2/images/{ID}/file", "image-upload", Treatment.IMAGE, Access.OWN),
        ("PUT", f"/v2/images/{ID}/stage", "image-stage", Treatment.IMAGE, Access.OWN),
        ("POST", f"/v2/images/{ID}/import", "image-import", Treatment.IMAGE, Access.OWN),
        ("PUT", f"/v2/images/{ID}/tags/a", "image-tag", Treatment.IMAGE, Access.OWN),
        ("DELETE", f"/v2/images/{ID}/tags/a", "image-tag", Treatment.IMAGE, Access.OWN),
        ("GET", f"/v2/images/{ID}/tasks", "image-tasks", Treatment.IMAGE, Access.ADMIN),
        ("GET", f"/v2/images/{ID}/locations", "image-locations", Treatment.IMAGE, Access.ADMIN),
        ("POST", f"/v2/images/{ID}/locations", "image-locations", Treatment.IMAGE, Access.ADMIN),
        (
            "POST",
            f"/v2/images/{ID}/actions/deactivate",
            "image-deactivate",
            Treatment.IMAGE,
            Access.ADMIN,
        ),
        (
            "POST",
            f"/v2/images/{ID}/actions/reactivate",
            "image-reactivate",
            Treatment.IMAGE,
            Access.ADMIN,
        ),
        ("GET", f"/v2/images/{ID}/members", "image-members", Treatment.IMAGE, Access.REFUSED),
        ("POST", f"/v2/images/{ID}/members", "image-members", Treatment.IMAGE, Access.REFUSED),
        ("GET", f"/v2/images/{ID}/members/p", "image-member", Treatment.IMAGE, Access.REFUSED),
        ("PUT", f"/v2/images/{ID}/members/p", "image-member", Treatment.IMAGE, Access.REFUSED),
        ("DELETE", f"/v2/images/{ID}/members/p", "image-member", Treatment.IMAGE, Access.REFUSED),
        ("DELETE", f"/v2/stores/fast/{ID}", "store-image", Treatment.IMAGE, Access.ADMIN),
        ("GET", "/v2/tasks", "tasks", Treatment.PASS, Access.ADMIN),
        ("POST", "/v2/tasks", "tasks", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/tasks/t", "task", Treatment.PASS, Access.ADMIN),
        ("DELETE", "/v2/tasks/t", "task", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/cache", "cache", Treatment.PASS, Access.ADMIN),
        ("DELETE", "/v2/cache", "cache", Treatment.PASS, Access.ADMIN),
        ("POST", "/v2/cache/clean", "cache", Treatment.PASS, Access.ADMIN),
        ("POST", "/v2/cache/prune", "cache", Treatment.PASS, Access.ADMIN),
        ("GET", f"/v2/cache/nodes/{ID}", "cache", Treatment.PASS, Access.ADMIN),
        ("PUT", f"/v2/cache/{ID}", "cache", Treatment.PASS, Access.ADMIN),
        ("DELETE", f"/v2/cache/{ID}", "cache", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/info/import", "info", Treatment.PASS, Access.CALLER),
        ("GET", "/v2/info/stores", "info", Treatment.PASS, Access.CALLER),
        ("GET", "/v2/info/stores/detail", "info", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/info/usage", "info", Treatment.PASS, Access.ADMIN),
        ("GET", "/v2/schemas/image", "schema", Treatment.PASS, Access.CALLER),
        ("GET", "/v2/schemas/metadefs/tag", "schema", Treatment.PASS, Access.CALLER),
        ("GET", "/v2/metadefs/namespaces", "metadefs", Treatment.PASS, Access.ADMIN),
        ("PUT", "/v2/metadefs/namespaces/a/objects/b", "metadefs", Treatment.PASS, Access.ADMIN),
        # Nothing of Glance's:
        ("HEAD", "/v2/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("PUT", "/v2/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("get", "/v2/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v1/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2/images/1/2/3", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/V2/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2/IMAGES", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2a/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2./images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2.1.1/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v02/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
        ("GET", "/v2/v2/images", UNKNOWN, Treatment.PASS, Access.REFUSED),
    ],
)
def test_a_method_of_a_path_is_one_operation(
    method: str, path: str, name: str, treatment: Treatment, access: Access
) -> None:
    found = operation(method, path)

    assert (found.name, found.treatment, found.access) == (name, treatment, access)
    assert found.path == path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/v2.0/images", "/v2.0/images"),
        ("/v2.9/images", "/v2.9/images"),
        ("/v2.17/images", "/v2.17/images"),
        ("/v2//images", "/v2/images"),
        ("//v2/images", "/v2/images"),
        ("/%762/images", "/v2/images"),
        ("/v2/%69mages", "/v2/images"),
        ("/v2%2Fimages", "/v2/images"),
        ("/v2%2e9/images", "/v2.9/images"),
        ("/v2/images/", "/v2/images"),
        ("/v2/images?limit=1", "/v2/images"),
    ],
)
def test_every_spelling_of_the_image_list_is_a_list(raw: str, path: str) -> None:
    found = operation("GET", raw)

    assert (found.name, found.treatment, found.path) == ("image-list", Treatment.LIST, path)


@pytest.mark.parametrize(
    ("raw", "name", "image_id"),
    [
        (f"/v2/images/{ID}", "image-show", ID),
        (f"/v2/images/{ID}/", "image-show", ID),
        (f"/v2.7/images/{ID}/file", "image-download", ID),
        (f"/v2/images/{ID}%2Ffile", "image-download", ID),
        (f"/v2/images//{ID}//file", "image-download", ID),
        (f"/v2/images/{ID.upper()}", "image-show", ID.upper()),
        (f"/v2/images/{ID}%252Ffile", "image-show", f"{ID}%2Ffile"),
    ],
)
def test_every_spelling_of_one_image_names_that_image(raw: str, name: str, image_id: str) -> None:
    found = operation("GET", raw)

    assert (found.name, found.image_id) == (name, image_id)


@pytest.mark.parametrize("version", ["v2", "v2.0", "v2.9"])
def test_the_media_type_may_say_the_version(version: str) -> None:
    listed = operation("GET", "/images", ("Accept", VND + version))

    assert (listed.name, listed.treatment, listed.path) == (
        "image-list",
        Treatment.LIST,
        "/v2/images",
    )


def test_the_media_type_is_read_in_any_spelling_of_its_header() -> None:
    assert operation("POST", "/images", ("ACCEPT", f"{VND}v2")).treatment is Treatment.CREATE


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        pytest.param("/v2/images", f"{VND}v2", id="a version said twice"),
        pytest.param("/images", f"{VND}v1", id="another version"),
        pytest.param("/images", f"{VND}v3", id="a version that is none"),
        pytest.param("/images", f"{VND}v2,*/*", id="another media type behind it"),
        pytest.param("/images", f"*/*, {VND}v2", id="another media type before it"),
        pytest.param("/images", f"A{VND[1:]}v2", id="in capital letters"),
        pytest.param("/images", "application/json", id="no version"),
    ],
)
def test_a_media_type_that_says_no_version_lists_nothing(path: str, accept: str) -> None:
    assert operation("GET", path, ("Accept", accept)).name == UNKNOWN


def test_the_methods_of_a_path_are_told_where_another_was_used() -> None:
    assert operation("HEAD", f"/v2/images/{ID}").allowed == ("GET", "PATCH", "DELETE")
    assert operation("GET", "/v2/nothing").allowed == ()


def test_a_version_and_a_slash_is_not_the_version() -> None:
    # Glance redirects the one to the other, and has nothing there.
    assert operation("GET", "/v2").name == "version"
    assert operation("GET", "/v2/").name == UNKNOWN
    assert operation("GET", "/v2%2F").name == UNKNOWN


def test_a_version_document_is_known_as_one() -> None:
    assert operation("GET", "/").is_version_document
    assert operation("GET", "/versions").is_version_document
    assert not operation("GET", "/v2").is_version_document


@pytest.mark.parametrize(
    "query",
    [
        "_method=GET",
        "limit=1&_method=GET",
        "limit=1;_method=GET",
        "%5Fmethod=GET&x=_method",
        "_metho%64=get",
        "_method=&x",
        "_method",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_a_query_that_overrides_the_method_is_refused(method: str, query: str) -> None:
    # Routes does so for Glance: `POST /v2/images?_method=GET` is a list.
    with pytest.raises(BadRequestError, match="_method"):
        operation(method, f"/v2/images?{query}")


@pytest.mark.parametrize("query", ["name=_method", "x_method=1", "a=b_method", "_methods=1"])
def test_a_query_that_only_looks_so_is_fine(query: str) -> None:
    assert operation("GET", f"/v2/images?{query}").treatment is Treatment.LIST


@pytest.mark.parametrize(
    "accept", [f"{VND}v2", f"{VND}v2;q=1", f"*/*,{VND}v2", f"{VND.upper()}V2", f"{VND}v1"]
)
def test_the_registry_sees_no_media_type_that_negotiates(accept: str) -> None:
    neutral = GLANCE.neutral_headers(fields(("Accept", accept), ("X-Auth-Token", "t")))

    assert neutral.values("Accept") == ("*/*",)
    assert neutral.first("X-Auth-Token") == "t"


def test_a_second_accept_negotiates_nothing_either() -> None:
    neutral = GLANCE.neutral_headers(fields(("Accept", ""), ("accept", f"{VND}v2")))

    assert neutral.values("Accept") == ("*/*",)


def test_headers_that_negotiate_nothing_stay() -> None:
    headers = fields(("Accept", "application/json"), ("Content-Type", "application/json"))

    assert GLANCE.neutral_headers(headers) == headers
    assert GLANCE.neutral_headers(Headers()) == Headers()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-8",
        "APPLICATION/X-WWW-FORM-URLENCODED",
        "multipart/form-data; boundary=x",
    ],
)
def test_the_registry_sees_no_form(content_type: str) -> None:
    # Routes reads `_method` of a form: {"name": "&_method=GET&"} would be a list.
    neutral = GLANCE.neutral_headers(fields(("content_type", content_type)))

    assert all("form" not in value.lower() for value in neutral.values("Content-Type"))


def test_the_path_of_an_image_cannot_leave_the_images() -> None:
    assert GLANCE.image_path(ID) == f"/v2/images/{ID}"
    assert GLANCE.image_path("a/b?c#d%2f") == "/v2/images/a%2Fb%3Fc%23d%252f"


# -- creates


@pytest.mark.parametrize(
    ("body", "stripped"),
    [
        pytest.param(
            b'{"name": "a", "instance_id": "i", "visibility": "private"}',
            b'{"name": "a", "visibility": "private"}',
            id="one property",
        ),
        pytest.param(b'{"instance_id":"i","nova_installation_uuid":"u"}', b"{}", id="nothing else"),
        pytest.param(b'{"instance\\u005fid": "i", "a": 1}', b'{"a": 1}', id="in another spelling"),
        pytest.param(
            b'{ "min_ram":1.0 ,"instance_id": null,"x":"\\u00e9\\/", "y" : "\xc3\xa9" }',
            b'{"min_ram": 1.0, "x": "\\u00e9\\/", "y": "\xc3\xa9"}',
            id="values keep their bytes",
        ),
        pytest.param(
            b'{"instance_id": "i", "big": 12345678901234567890123, "deep": {"b":[1 , 2]}}',
            b'{"big": 12345678901234567890123, "deep": {"b":[1 , 2]}}',
            id="numbers and objects keep their bytes",
        ),
        pytest.param(
            b'{"instance_id": "i", "a": {"instance_id": "j"}}',
            b'{"a": {"instance_id": "j"}}',
            id="only at the top",
        ),
        pytest.param(
            b'{"instance_id": "i", "Instance_Id": "j", "instance_uuid": "k"}',
            b'{"Instance_Id": "j", "instance_uuid": "k"}',
            id="only these two names",
        ),
    ],
)
def test_the_reserved_properties_are_stripped_and_nothing_else(
    body: bytes, stripped: bytes
) -> None:
    assert GLANCE.read_create(NO_FIELDS, body).stripped == stripped


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"name" :\t"a"}\r\n',
        b'{"instance_uuid": "i", "x": 1.10}',
        b'{"x": {"instance_id": "i"}}',
        '{"é": "\\u00e9"}'.encode(),
    ],
)
def test_a_body_without_reserved_properties_is_not_touched(body: bytes) -> None:
    assert GLANCE.read_create(NO_FIELDS, body).stripped == body


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("a", "a"),
        ("", ""),
        ("\U0001f4be" * 255, "\U0001f4be" * 255),
        ("x" * 256, None),
        (1, None),
        (None, None),
    ],
)
def test_a_create_names_its_image_only_by_what_an_image_can_be_called(
    said: object, name: str | None
) -> None:
    assert GLANCE.read_create(NO_FIELDS, as_json({"name": said})).name == name


def test_what_a_create_says_is_read() -> None:
    said = GLANCE.read_create(
        NO_FIELDS,
        as_json(
            {
                "id": ID,
                "owner": "p1",
                "nova_installation_uuid": UUID,
                "instance_id": "i",
                "instance_uuid": "n",
            }
        ),
    )

    assert said.metadata == BodyMetadata(UUID, "i", "n")
    assert (said.chosen_id, said.owner, said.effect) == (ID, "p1", None)


def test_a_null_says_nothing() -> None:
    said = GLANCE.read_create(
        NO_FIELDS, as_json({"id": None, "owner": None, "instance_id": None, "visibility": None})
    )

    assert said.metadata == BodyMetadata()
    assert (said.chosen_id, said.owner, said.effect) == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"instance_id": "a", "instance_id": "b"}', id="a reserved property"),
        pytest.param(b'{"instance_id": "a", "instance\\u005fid": "b"}', id="in another spelling"),
        pytest.param(b'{"visibility": "private", "visibility": "public"}', id="the visibility"),
        pytest.param(b'{"name": "a", "name": "a"}', id="a name"),
        pytest.param(b'{"x": {"a": 1, "a": 2}}', id="deep inside"),
    ],
)
def test_a_create_that_repeats_a_key_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="repeats a key"):
        GLANCE.read_create(NO_FIELDS, body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"name=a", id="a form"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', id="a byte order mark"),
        pytest.param(b'{"a": "\\udc00"}', id="half a surrogate pair"),
        pytest.param(b'{"a": "\xff"}', id="no UTF-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="too deep"),
    ],
)
def test_a_create_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        GLANCE.read_create(NO_FIELDS, body)


@pytest.mark.parametrize(
    "document",
    [
        {"visibility": "public"},
        {"visibility": "community"},
        {"visibility": "PUBLIC"},
        {"visibility": ""},
        {"visibility": ["public"]},
        {"visibility": {"a": "public"}},
        {"visibility": 0},
        {"visibility": False},
        {"locations": []},
        {"locations": None},
        {"locations": [{"url": "file:///etc/passwd", "metadata": {}}]},
    ],
    ids=json.dumps,
)
def test_a_create_that_publishes_or_places_is_for_administrators(document: dict[str, Any]) -> None:
    assert GLANCE.read_create(NO_FIELDS, as_json(document)).effect is not None


@pytest.mark.parametrize("visibility", ["private", "shared"])
def test_a_private_create_is_for_everyone(visibility: str) -> None:
    assert GLANCE.read_create(NO_FIELDS, as_json({"visibility": visibility})).effect is None


@pytest.mark.parametrize("value", [5, True, ["p1"], {"a": 1}, ""], ids=json.dumps)
def test_an_id_or_owner_of_another_type_is_never_taken_for_none(value: object) -> None:
    said = GLANCE.read_create(NO_FIELDS, as_json({"id": value, "owner": value}))

    assert said.chosen_id is not None
    assert said.owner is not None


# -- effects


UPDATE = Operation("image-update", Treatment.IMAGE, Access.OWN, f"/v2/images/{ID}")
IMPORT = Operation("image-import", Treatment.IMAGE, Access.OWN, f"/v2/images/{ID}/import")


@pytest.mark.parametrize(
    "pointer",
    [
        "/owner",
        "/ owner ",
        "/owner ",
        "/\u00a0owner",
        "/owner\u2003",
        "/\nowner\t",
        "//owner",
        "///owner",
        "/owner/",
        "/owner/x",
        "owner",
        "/visibility",
        "/locations",
        "/locations/-",
        "/locations/0",
        "/ locations /0",
    ],
)
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
def test_a_patch_of_what_an_image_belongs_to_is_for_administrators(pointer: str, op: str) -> None:
    newer = as_json([{"op": op, "path": pointer, "value": "x"}])
    older = as_json([{op: pointer, "value": "x"}])

    assert GLANCE.effect(UPDATE, NO_FIELDS, newer) is not None
    assert GLANCE.effect(UPDATE, NO_FIELDS, older) is not None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'[{"op": "replace", "path": "/\\u006fwner", "value": "x"}]', id="an escape"),
        pytest.param(b'[{"op": "move", "from": "/name", "path": "/owner"}]', id="an unknown op"),
        pytest.param(b'[{"path": "/owner"}]', id="no op"),
        pytest.param(
            b'[{"op": "replace", "path": "/name", "value": "x"},'
            b' {"op": "replace", "path": "/owner", "value": "x"}]',
            id="the second change",
        ),
        pytest.param(
            b'[{"op": "replace", "path": "/name", "replace": "/owner", "value": "x"}]',
            id="both media types in one change",
        ),
        pytest.param(b'[{"add": "/name", "remove": "/visibility"}]', id="two older operations"),
    ],
)
def test_no_way_of_writing_a_patch_hides_what_it_touches(body: bytes) -> None:
    assert GLANCE.effect(UPDATE, NO_FIELDS, body) is not None


@pytest.mark.parametrize(
    "pointer",
    [
        "/name",
        "/tags",
        "/x/owner",
        "/own~1er",
        "/owner~1x",
        "/owner~0",
        "/OWNER",
        "/owners",
        "/",
        "",
    ],
)
def test_a_patch_of_anything_else_is_for_the_owner(pointer: str) -> None:
    body = as_json([{"op": "add", "path": pointer, "value": "x"}, {"add": pointer, "value": "x"}])

    assert GLANCE.effect(UPDATE, NO_FIELDS, body) is None


@pytest.mark.parametrize("beside", ["/_x", "/image_id", "/visibility", "/name"])
def test_a_change_of_the_owner_is_one_whatever_stands_beside_it(beside: str) -> None:
    # Where the registry judges, `_x` is forwarded: the record has to follow the owner all the same.
    changes = [
        {"op": "replace", "path": "/owner", "value": "bob"},
        {"op": "add", "path": beside, "value": "x"},
    ]
    for order in (changes, changes[::-1]):
        effect = GLANCE.effect(UPDATE, NO_FIELDS, as_json(order))
        assert effect is not None
        assert effect.changes_owner


def test_a_patch_of_nothing_has_no_effect() -> None:
    assert GLANCE.effect(UPDATE, NO_FIELDS, b"[]") is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"op": "replace", "path": "/owner"}', id="an object"),
        pytest.param(b"null", id="null"),
        pytest.param(b'["/owner"]', id="a list of strings"),
        pytest.param(b"[[]]", id="a list of lists"),
        pytest.param(b"[null]", id="a list of nulls"),
        pytest.param(b'[{"path": "/name", "path": "/owner"}]', id="a repeated key"),
        pytest.param('[{"path": "/name"}]'.encode("utf-16"), id="UTF-16"),
    ],
)
def test_a_patch_that_is_no_list_of_changes_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        GLANCE.effect(UPDATE, NO_FIELDS, body)


@pytest.mark.parametrize("pointer", [None, 5, ["/owner"], {"a": "/owner"}, True], ids=json.dumps)
def test_a_pointer_that_is_no_string_does_no_harm(pointer: object) -> None:
    # Glance answers 400 to it.
    assert GLANCE.effect(UPDATE, NO_FIELDS, as_json([{"op": "add", "path": pointer}])) is None


def test_an_import_of_what_was_staged_is_for_the_owner() -> None:
    body = as_json({"method": {"name": "glance-direct"}, "stores": ["fast"]})

    assert GLANCE.effect(IMPORT, NO_FIELDS, body) is None


@pytest.mark.parametrize(
    "document",
    [
        {"method": {"name": "web-download", "uri": "http://169.254.169.254/"}},
        {"method": {"name": "copy-image"}},
        {"method": {"name": "glance-download"}},
        {"method": {"name": "Glance-Direct"}},
        {"method": {"name": "glance-direct "}},
        {"method": {"name": None}},
        {"method": {"name": ["glance-direct"]}},
        {"method": {}},
        {"method": "glance-direct"},
        {"method": ["glance-direct"]},
        {"name": "glance-direct"},
        {},
    ],
    ids=json.dumps,
)
def test_any_other_import_is_for_administrators(document: dict[str, Any]) -> None:
    assert GLANCE.effect(IMPORT, NO_FIELDS, as_json(document)) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"method": {"name": "glance-direct", "name": "web-download"}}',
        b'{"method": {"name": "glance-direct"}, "method": {"name": "copy-image"}}',
    ],
)
def test_an_import_that_is_malformed_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        GLANCE.effect(IMPORT, NO_FIELDS, body)


def test_other_operations_have_no_effect_of_their_bodies() -> None:
    upload = Operation("image-upload", Treatment.IMAGE, Access.OWN, f"/v2/images/{ID}/file")

    assert GLANCE.effect(upload, NO_FIELDS, b"\x00any bytes") is None


# -- one image


def test_the_facts_of_an_image_are_read() -> None:
    body = as_json(image(ID, owner="p1", visibility="shared", name="x"))

    assert GLANCE.image_facts(NO_FIELDS, body) == ImageFacts(ID, "p1", "shared", CREATED_AT)
    assert GLANCE.created_image(body) == CreatedImage(ID, CREATED_AT, "p1")


def test_an_image_without_an_owner_has_none() -> None:
    document = image(ID)
    del document["owner"]

    assert GLANCE.created_image(as_json(document)).owner is None
    assert GLANCE.created_image(as_json(image(ID, owner=None))).owner is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(as_json({"images": []}), id="an image list"),
        pytest.param(as_json(image(visibility=None)), id="no visibility"),
        pytest.param(as_json(image(created_at=None)), id="no time"),
        pytest.param(b'{"id": 5, "visibility": "public", "created_at": "x"}', id="a number as id"),
        pytest.param(as_json(image())[:-1] + b', "id": "x"}', id="two ids"),
        pytest.param(as_json(image())[:-1] + b', "\\u0069d": "x"}', id="two ids, one escaped"),
        pytest.param(as_json(image())[:-1] + b', "created_at": "x"}', id="two times"),
        pytest.param(as_json(image())[:-1] + b', "x": NaN}', id="NaN"),
        pytest.param(
            as_json(image())[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="too deep",
        ),
    ],
)
def test_an_answer_that_is_not_one_image_is_garbage(body: bytes) -> None:
    with pytest.raises(RegistryGarbageError):
        GLANCE.image_facts(NO_FIELDS, body)
    with pytest.raises(RegistryGarbageError):
        GLANCE.created_image(body)


# -- list pages


def listed(*images: bytes, rest: bytes = b"") -> bytes:
    return b'{"images": [' + b", ".join(images) + b'], "first": "/v2/images"' + rest + b"}"


def rendered(page: Page, raw_query: str = "", *, next_marker: str | None = None) -> bytes:
    query = parse_list_query(raw_query)
    return GLANCE.render_page(page, page.rows, query=query, next_marker=next_marker)


ODD = (
    b'{"id": "' + IMAGE_ID.encode() + b'",  "visibility":"public" ,"owner":null,'
    b'"created_at": "2026-11-22T15:07:26Z", "a": 1E400, "b": 1.0, "c": "\\u00e9\\/\xc3\xa9",'
    b' "d": 12345678901234567890123, "e": {"id": "other"}, "f": -0}'
)


def test_an_image_that_stays_keeps_its_bytes() -> None:
    page = GLANCE.page(listed(ODD, as_json(image(ID))))

    assert page.rows[0].raw == ODD
    assert ODD in rendered(page)


def test_an_image_with_escapes_or_inner_names_is_still_known() -> None:
    page = GLANCE.page(listed(ODD))

    assert page.rows[0].facts == ImageFacts(IMAGE_ID, None, "public", CREATED_AT)


def test_a_page_that_glance_wrote_is_written_again_to_the_byte() -> None:
    body = as_json(
        {
            "images": [image(ID), image(IMAGE_ID)],
            "first": "/v2/images?limit=2",
            "schema": "/v2/schemas/images",
            "next": f"/v2/images?limit=2&marker={IMAGE_ID}",
        }
    )

    assert rendered(GLANCE.page(body), "limit=2", next_marker=IMAGE_ID) == body


def test_an_empty_page_that_glance_wrote_is_written_again_to_the_byte() -> None:
    body = b'{"images": [], "first": "/v2/images", "schema": "/v2/schemas/images"}'

    assert rendered(GLANCE.page(body)) == body


def test_the_images_of_a_page_are_only_those_that_are_given() -> None:
    page = GLANCE.page(listed(as_json(image(ID)), as_json(image(IMAGE_ID))))
    query = parse_list_query("")

    body = GLANCE.render_page(page, page.rows[1:], query=query, next_marker=None)

    assert [row["id"] for row in json.loads(body)["images"]] == [IMAGE_ID]
    assert ID.encode() not in body


def test_what_is_not_known_of_an_envelope_is_left_out() -> None:
    page = GLANCE.page(listed(rest=b', "new": {"a":1.0}, "schema": "/v2/schemas/images"'))

    assert rendered(page).endswith(b'"first": "/v2/images", "schema": "/v2/schemas/images"}')


def test_there_is_no_next_at_the_end() -> None:
    # Never null: glanceclient follows it until the key is missing.
    page = GLANCE.page(
        listed(as_json(image(ID)), rest=f', "next": "/v2/images?marker={ID}"'.encode())
    )

    assert b"next" not in rendered(page)


def test_links_repeat_the_query_of_the_client_and_not_that_of_relproxy() -> None:
    page = GLANCE.page(
        b'{"images": [], "first": "/v2/images?id=in:secret&limit=26",'
        b' "next": "/v2/images?id=in:secret&limit=26&marker=secret"}'
    )

    body = rendered(page, "name=a+b&instance_id=i", next_marker=ID)

    assert json.loads(body)["first"] == "/v2/images?name=a+b&instance_id=i"
    assert json.loads(body)["next"] == f"/v2/images?name=a+b&instance_id=i&marker={ID}"
    assert b"secret" not in body


def test_a_link_cannot_break_out_of_its_string() -> None:
    page = GLANCE.page(listed())

    body = rendered(page, 'name=%22%2C%22x%22%3A%22\\&"=1', next_marker=None)

    assert set(json.loads(body)) == {"images", "first"}


@pytest.mark.parametrize(
    ("rest", "marker"),
    [
        pytest.param(b"", None, id="no link"),
        pytest.param(b', "next": null', None, id="null"),
        pytest.param(b', "next": "/v2/images?marker=a"', "a", id="a relative link"),
        pytest.param(
            b', "next": "http://g/v2/images?limit=1&marker=a"', "a", id="an absolute link"
        ),
        pytest.param(b', "next": "/v2/images?marker=a%20b&x=y"', "a b", id="an escaped marker"),
        pytest.param(b', "next": "\\/v2\\/images?marker=\\u0061"', "a", id="escaped in JSON"),
    ],
)
def test_the_marker_of_the_next_page_is_read(rest: bytes, marker: str | None) -> None:
    assert GLANCE.page(listed(rest=rest)).next_marker == marker


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"<html>oops</html>", id="HTML"),
        pytest.param(b"{}", id="no images"),
        pytest.param(b'{"images": null}', id="images that are null"),
        pytest.param(b'{"images": {}}', id="images that are an object"),
        pytest.param(b'{"images": "x"}', id="images that are a string"),
        pytest.param(b'{"images": [', id="half a list"),
        pytest.param(b'{"images": []}{"images": []}', id="two lists"),
        pytest.param(b'{"images": [NaN]}', id="NaN"),
        pytest.param(b'{"images": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", id="too deep"),
        pytest.param(b'{"images": []}'.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'\xef\xbb\xbf{"images": []}', id="a byte order mark"),
        pytest.param(b'{"images": [{"name": "\xff"}]}', id="bytes that are not UTF-8"),
        pytest.param(b'{"images": [{"name": "\xc0\xa2"}]}', id="a quote in two bytes"),
        pytest.param(b'{"images": [], "next": ""}', id="an empty link"),
        pytest.param(b'{"images": [], "next": "/v2/images"}', id="a link without a marker"),
        pytest.param(b'{"images": [], "next": "/v2/images?marker="}', id="an empty marker"),
        pytest.param(b'{"images": [], "next": 5}', id="a link that is a number"),
        pytest.param(b'{"images": [], "next": ["a"]}', id="a link that is a list"),
        pytest.param(b'{"images": [], "next": "http://[/?marker=a"}', id="a link that is no URL"),
    ],
)
def test_an_answer_that_is_not_an_image_list_is_garbage(body: bytes) -> None:
    with pytest.raises(RegistryGarbageError):
        GLANCE.page(body)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(as_json(image(visibility=None)), id="a visibility that is null"),
        pytest.param(
            b'{"id": "a", "owner": null, "created_at": "2026-11-22T15:07:26Z"}', id="no visibility"
        ),
        pytest.param(as_json(image(visibility=["public"])), id="a visibility that is a list"),
        pytest.param(as_json({**image(), "id": None}), id="no id"),
        pytest.param(as_json({**image(), "id": 5}), id="an id that is a number"),
        pytest.param(as_json(image(owner=["p1"])), id="an owner that is a list"),
        pytest.param(as_json(image(created_at=5)), id="a time that is a number"),
        pytest.param(as_json(image())[:-1] + b', "owner": "p1"}', id="two owners"),
        pytest.param(as_json(image())[:-1] + b', "visibility": "public"}', id="two visibilities"),
        pytest.param(as_json(image())[:-1] + b', "id": "x"}', id="two ids"),
        pytest.param(as_json(image())[:-1] + b', "\\u006fwner": "p1"}', id="an owner escaped"),
        pytest.param(as_json(image())[:-1] + b', "visibilit\\u0079": "x"}', id="one more, escaped"),
        pytest.param(as_json(image())[:-1] + b', "\\u0069d": "x"}', id="an id escaped"),
        pytest.param(as_json(image())[:-1] + b', "x": 1, "x": 2, "y": "\\n"}', id="any key twice"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"public"', id="a string"),
        pytest.param(b"{}", id="an empty object"),
    ],
)
def test_a_row_that_two_readers_may_read_differently_is_not_known(row: bytes) -> None:
    page = GLANCE.page(listed(as_json(image(ID)), row))

    assert page.rows[0].facts.id == ID
    assert page.rows[1].facts == NOTHING_KNOWN


@pytest.mark.parametrize(
    ("status", "body", "is_unknown"),
    [
        pytest.param(400, b"No image found with ID x<br />", True, id="one that does not exist"),
        pytest.param(403, b"Access is denied to this image", True, id="a foreign one"),
        pytest.param(400, b"limit param must be an integer", False, id="another mistake"),
        pytest.param(401, b"", False, id="no token"),
        pytest.param(500, b"No image found with ID x", False, id="a failure"),
    ],
)
def test_an_unknown_marker_is_known_by_its_answer(
    status: int, body: bytes, *, is_unknown: bool
) -> None:
    assert GLANCE.is_unknown_marker(status, body) is is_unknown


# -- refusals, to the byte as a Glance 33 without Keystone answered


ABSENT_HTML = b"""<html>
 <head>
  <title>404 Not Found</title>
 </head>
 <body>
  <h1>404 Not Found</h1>
  No image found with ID nope<br /><br />



 </body>
</html>"""
ABSENT_JSON = (
    b'{"message": "No image found with ID nope<br /><br />\\n\\n\\n",'
    b' "code": "404 Not Found", "title": "Not Found"}'
)
ABSENT_TEXT = b"404 Not Found\n\nNo image found with ID nope\n\n   "
HTML = ("text/html; charset=UTF-8", ABSENT_HTML)
JSON = ("application/json", ABSENT_JSON)
TEXT = ("text/plain; charset=UTF-8", ABSENT_TEXT)


@pytest.mark.parametrize(
    ("accept", "refusal"),
    [
        pytest.param("*/*", HTML, id="anything"),
        pytest.param("text/html", HTML, id="HTML"),
        pytest.param("text/html,application/xhtml+xml,*/*;q=0.8", HTML, id="a browser's"),
        pytest.param("text/html, application/json;q=0.1", HTML, id="rather HTML"),
        pytest.param("application/json, */*", HTML, id="JSON or anything: HTML comes first"),
        pytest.param("application/json", JSON, id="JSON"),
        pytest.param("APPLICATION/JSON", JSON, id="JSON in capitals"),
        pytest.param("application/*", JSON, id="any application type"),
        pytest.param("text/plain", TEXT, id="plain text"),
        pytest.param("application/json;q=0", TEXT, id="anything but JSON"),
        pytest.param("application/octet-stream", TEXT, id="neither"),
    ],
)
def test_a_refusal_is_in_the_media_type_that_glance_would_choose(
    accept: str, refusal: tuple[str, bytes]
) -> None:
    assert GLANCE.refusal(404, GLANCE.absent_image("nope"), accept) == refusal


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (400, b"400 Bad Request"),
        (401, b"401 Unauthorized"),
        (403, b"403 Forbidden"),
        (404, b"404 Not Found"),
        (405, b"405 Method Not Allowed"),
        (500, b"500 Internal Server Error"),
        (502, b"502 Bad Gateway"),
        (503, b"503 Service Unavailable"),
        (504, b"504 Gateway Timeout"),
    ],
)
def test_a_refusal_is_headed_by_its_status(status: int, line: bytes) -> None:
    _, body = GLANCE.refusal(status, "Why.", "*/*")

    assert b"<title>" + line + b"</title>" in body
    assert b"<h1>" + line + b"</h1>" in body


def test_a_sentence_is_escaped_in_html_as_webob_does() -> None:
    _, body = GLANCE.refusal(404, "ID a<b>&\"'c", "*/*")

    assert b"  ID a&lt;b&gt;&amp;&quot;&#x27;c<br /><br />\n" in body


def test_a_sentence_is_not_escaped_in_json() -> None:
    _, body = GLANCE.refusal(404, "ID a<b>&\"'c", "application/json")

    assert json.loads(body)["message"] == "ID a<b>&\"'c<br /><br />\n\n\n"


def test_no_refusal_lets_markup_through() -> None:
    content_type, body = GLANCE.refusal(400, "<script>alert(1)</script>", "text/html")

    assert content_type.startswith("text/html")
    assert b"<script" not in body


def test_a_foreign_image_and_an_absent_one_are_told_in_the_same_words() -> None:
    assert GLANCE.absent_image(OTHER_UUID) == f"No image found with ID {OTHER_UUID}"


# -- version documents


def version(link: str, **members: object) -> dict[str, object]:
    return {
        "id": "v2.17",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": link}],
        **members,
    }


def test_version_links_lead_through_the_prefix() -> None:
    document = {"versions": [version("http://g:9292/v2/"), version("https://g/v2/")]}

    assert json.loads(GLANCE.render_versions(as_json(document), "/east")) == {
        "versions": [version("http://g:9292/east/v2/"), version("https://g/east/v2/")]
    }


def test_version_links_elsewhere_in_the_document_lead_there_too() -> None:
    document = {"choices": [version("http://g/v2/", next={"href": "http://g/v3/"})]}
    expected = {"choices": [version("http://g/east/v2/", next={"href": "http://g/east/v3/"})]}

    assert json.loads(GLANCE.render_versions(as_json(document), "/east")) == expected


def test_what_is_no_link_of_a_version_document_stays() -> None:
    document = {
        "versions": [version("/v2/", href=5, note="http://g/v2/", size=1.5)],
        "href": None,
    }

    assert json.loads(GLANCE.render_versions(as_json(document), "/east")) == document


def test_a_version_document_of_glance_keeps_its_spacing() -> None:
    body = as_json({"versions": [version("http://g/v2/")]})

    assert GLANCE.render_versions(body, "") == body


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_a_version_document_that_is_not_json_is_garbage(body: bytes) -> None:
    with pytest.raises(RegistryGarbageError):
        GLANCE.render_versions(body, "/east")


def test_the_parts_of_the_list_go_from_old_to_new_behind_a_marker() -> None:
    targets = [
        GlanceV2().part_target(part, limit=9, marker=marker)
        for part, marker in zip(GlanceV2.list_parts, (None, "a/b&c"), strict=True)
    ]
    assert targets == [
        "/v2/images?visibility=all&os_hidden=false&sort=created_at:asc&limit=9",
        "/v2/images?visibility=all&os_hidden=true&sort=created_at:asc&limit=9&marker=a%2Fb%26c",
    ]


def test_what_a_listed_image_says_of_its_instance_is_read_from_three_properties() -> None:
    raw = b'{"id": "x", "instance_uuid": "u", "instance_id": 7, "nova_installation_uuid": null}'
    assert GlanceV2().listed_metadata(raw) == BodyMetadata(None, 7, "u")
    assert GlanceV2().listed_metadata(b"{}") == BodyMetadata()
