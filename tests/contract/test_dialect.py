"""The contract of dialects: what holds of every image API, in whatever words it says it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from relproxy.errors import BadRequestError, RegistryGarbageError
from relproxy.filters.base import Operation
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.query import parse_list_query
from relproxy.filters.target import parse_target
from relproxy.filters.visibility import Viewer, is_own, may_see
from relproxy.messages import Headers
from relproxy.model import Access, Caller, Ownership, Tenancy, Treatment
from tests.contract.speech import CREATED_AT, SPEECHES, Said, Speech

INSTALLATION = "6f2a4c1e-8d35-4b7a-9c10-2f1e5d3b7a90"
TUPLE = {"nova_installation_uuid": INSTALLATION, "instance_id": "i-1"}
QUERY = parse_list_query("limit=2&name=n")
ALICE = Caller("p1")


@pytest.fixture(params=SPEECHES, ids=lambda speech: speech.dialect.name)
def speech(request: pytest.FixtureRequest) -> Speech:
    chosen: Speech = request.param
    return chosen


def operation(speech: Speech, method: str, target: str) -> Operation:
    return speech.dialect.operation(method, parse_target(target), Headers())


# -- creates


def test_tuple_of_a_create_is_read_and_stripped(speech: Speech) -> None:
    said = Said(name="n", properties=TUPLE | {"instance_uuid": "i-2", "distro": "debian"})

    create = speech.dialect.read_create(*speech.create(said))

    assert create.metadata == BodyMetadata(INSTALLATION, "i-1", "i-2")
    left = speech.properties_in((create.headers, create.stripped))
    assert left == {"instance_uuid": "i-2", "distro": "debian"}


def test_create_without_the_tuple_goes_on_as_it_came(speech: Speech) -> None:
    message = speech.create(Said(name="n", owner="p1", properties={"distro": "debian"}))

    create = speech.dialect.read_create(*message)

    assert create.metadata == BodyMetadata()
    assert (create.headers, create.stripped) == message


def test_create_says_its_id_owner_and_name(speech: Speech) -> None:
    said = Said(id=speech.ids[0], owner="p1", name="snapshot é")
    message = speech.create(said)
    if not message[1]:
        message = speech.create(replace(said, name="snapshot é".encode().decode("latin-1")))

    create = speech.dialect.read_create(*message)

    assert (create.chosen_id, create.has_id, create.owner) == (speech.ids[0], True, "p1")
    assert create.name == "snapshot é"
    assert create.effect is None


def test_create_that_names_no_id_has_none(speech: Speech) -> None:
    create = speech.dialect.read_create(*speech.create(Said(name="n")))

    assert (create.chosen_id, create.has_id) == (None, False)


def test_name_that_no_image_can_have_is_none_to_look_for(speech: Speech) -> None:
    assert speech.dialect.read_create(*speech.create(Said(name="n" * 256))).name is None


def test_assigned_id_is_what_the_registry_reads(speech: Speech) -> None:
    if not speech.dialect.takes_chosen_ids:
        pytest.skip("its registry chooses every id")
    create = speech.dialect.read_create(*speech.create(Said(name="n", properties=TUPLE)))

    assigned = speech.dialect.with_image_id(create, speech.ids[0])

    read = speech.dialect.read_create(assigned.headers, assigned.stripped)
    assert (read.chosen_id, read.name) == (speech.ids[0], "n")
    assert read.metadata == BodyMetadata()


def test_repeat_in_a_create_or_an_update_is_refused(speech: Speech) -> None:
    with pytest.raises(BadRequestError):
        speech.dialect.read_create(*speech.create(Said(), repeats=True))
    update = operation(speech, *speech.update_target)
    with pytest.raises(BadRequestError):
        speech.dialect.effect(update, *speech.update(Said(), repeats=True))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Said(public=True), id="publishes"),
        pytest.param(Said(location="file:///etc/passwd"), id="fills it from elsewhere"),
    ],
)
def test_what_not_everyone_may_say_is_an_effect(speech: Speech, said: Said) -> None:
    update = operation(speech, *speech.update_target)

    assert speech.dialect.read_create(*speech.create(said)).effect is not None
    assert speech.dialect.effect(update, *speech.update(said)) is not None


def test_change_of_an_owner_is_an_effect_that_is_recorded(speech: Speech) -> None:
    update = operation(speech, *speech.update_target)
    for said in (Said(owner="p2"), Said(owner="p2", public=True), Said(owner="p2", location="x")):
        effect = speech.dialect.effect(update, *speech.update(said))
        assert effect is not None
        assert effect.changes_owner


def test_change_of_a_name_has_no_effect(speech: Speech) -> None:
    update = operation(speech, *speech.update_target)

    assert speech.dialect.effect(update, *speech.update(Said(name="new"))) is None


def test_created_image_is_read(speech: Speech) -> None:
    body = speech.created(Said(id=speech.ids[0], owner="p1", public=False))

    image = speech.dialect.created_image(body)

    assert (image.id, image.created_at, image.owner) == (speech.ids[0], CREATED_AT, "p1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"OK", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no image"),
        pytest.param(b'{"image": []}', id="an image that is none"),
        pytest.param(b'{"id": null}', id="no id"),
        pytest.param(b'{"image": {"id": "a", "is_public": true}}', id="no time"),
        pytest.param(b'{"id": "a", "visibility": "public"}', id="no time either"),
        pytest.param(b"\xff", id="no text"),
    ],
)
def test_created_image_that_is_none_is_an_error(speech: Speech, body: bytes) -> None:
    with pytest.raises(RegistryGarbageError):
        speech.dialect.created_image(body)


# -- images


@pytest.mark.parametrize("public", [True, False])
def test_image_is_read_alike_alone_and_in_a_list(speech: Speech, public: bool) -> None:  # noqa: FBT001 - a table's column
    said = Said(id=speech.ids[0], owner="p1", public=public)

    alone = speech.dialect.image_facts(*speech.shown(said))
    (row,) = speech.dialect.page(speech.listed(speech.row(said))).rows

    assert alone == row.facts
    assert (alone.id, alone.owner, alone.created_at) == (speech.ids[0], "p1", CREATED_AT)
    assert (alone.visibility == "public") is public


def test_image_that_two_may_read_differently_is_nobodys(speech: Speech) -> None:
    said = Said(id=speech.ids[0], owner="p1", public=True)
    other = speech.row(Said(id=speech.ids[1], owner="p1", public=True))

    with pytest.raises(RegistryGarbageError):
        speech.dialect.image_facts(*speech.shown(said, repeats_owner=True))
    body = speech.listed(speech.row(said, repeats_owner=True), other)
    row = speech.dialect.page(body).rows[0]
    for tenancy in Tenancy:
        assert not may_see(Viewer(tenancy, ALICE), row.facts, Ownership("p1", CREATED_AT))


@pytest.mark.parametrize(
    ("owner", "public", "record", "in_registry", "in_relproxy"),
    [
        pytest.param("p2", True, None, True, True, id="public"),
        pytest.param("p1", False, None, True, False, id="own by its owner"),
        pytest.param("p2", False, "p1", False, True, id="own by its record"),
        pytest.param("p1", False, "p2", True, False, id="another's by its record"),
        pytest.param("p2", False, None, False, False, id="foreign"),
        pytest.param(None, False, None, False, False, id="nobody's"),
    ],
)
def test_visibility_in_both_tenancies(
    speech: Speech,
    owner: str | None,
    public: bool,  # noqa: FBT001
    record: str | None,
    in_registry: bool,  # noqa: FBT001
    in_relproxy: bool,  # noqa: FBT001
) -> None:
    said = Said(id=speech.ids[0], owner=owner, public=public)
    facts = speech.dialect.image_facts(*speech.shown(said))
    ownership = Ownership(record, CREATED_AT) if record else None

    assert may_see(Viewer(Tenancy.REGISTRY, ALICE), facts, None) is in_registry
    assert may_see(Viewer(Tenancy.RELPROXY, ALICE), facts, ownership) is in_relproxy
    assert is_own(Viewer(Tenancy.RELPROXY, ALICE), facts, ownership) is (record == "p1")
    stale = Ownership("p1", "2020-01-01T00:00:00Z")
    assert may_see(Viewer(Tenancy.RELPROXY, ALICE), facts, stale) is public


# -- lists


def test_kept_images_of_a_list_keep_their_bytes(speech: Speech) -> None:
    raws = [speech.row(Said(id=i, owner=f"p{i}", name="é")) for i in speech.ids]
    page = speech.dialect.page(speech.listed(*raws))

    whole = speech.dialect.render_page(page, page.rows, query=QUERY, next_marker=None)
    part = speech.dialect.render_page(page, page.rows[1:], query=QUERY, next_marker=None)

    assert [row.raw for row in page.rows] == raws
    assert all(raw in whole for raw in raws)
    assert raws[1] in part
    assert speech.ids[0].encode() not in part
    assert [row.raw for row in speech.dialect.page(part).rows] == raws[1:]


def test_list_with_nothing_to_show_is_a_list(speech: Speech) -> None:
    page = speech.dialect.page(speech.listed(speech.row(Said(id=speech.ids[0]))))

    empty = speech.dialect.render_page(page, (), query=QUERY, next_marker=None)

    assert speech.dialect.page(empty).rows == ()
    assert speech.dialect.page(empty).next_marker is None


def test_marker_goes_to_the_client_where_the_api_has_links(speech: Speech) -> None:
    rows = [speech.row(Said(id=i)) for i in speech.ids]
    page = speech.dialect.page(speech.listed(*rows))

    body = speech.dialect.render_page(page, page.rows, query=QUERY, next_marker=speech.ids[1])

    assert speech.dialect.page(body).next_marker == speech.ids[1]
    assert (b'"next"' in body) is speech.dialect.links_next_page


def test_list_without_links_may_go_on_behind_every_last_image(speech: Speech) -> None:
    page = speech.dialect.page(speech.listed(*(speech.row(Said(id=i)) for i in speech.ids)))

    assert page.next_marker == (None if speech.dialect.links_next_page else speech.ids[1])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no images"),
        pytest.param(b'{"images": {}}', id="images that are no list"),
        pytest.param(b'{"images": [', id="broken off"),
        pytest.param(b'{"images": []} x', id="something behind it"),
        pytest.param(b'{"images": [{"id": "\xff"}]}', id="no text"),
    ],
)
def test_list_that_cannot_be_proven_understood_is_an_error(speech: Speech, body: bytes) -> None:
    with pytest.raises(RegistryGarbageError):
        speech.dialect.page(body)


def test_what_else_a_list_says_is_not_passed_on(speech: Speech) -> None:
    row = speech.row(Said(id=speech.ids[0]))
    body = speech.listed(row)[:-1] + b', "count": 4711, "hidden": ["secret"]}'

    page = speech.dialect.page(body)
    rendered = speech.dialect.render_page(page, (), query=QUERY, next_marker=None)

    assert b"4711" not in rendered
    assert b"secret" not in rendered


def test_unnarrowed_query_keeps_what_the_client_asks_for(speech: Speech) -> None:
    query = parse_list_query("name=n&status=active&limit=3&instance_id=i&is_public=True")

    wide = speech.dialect.unnarrowed(query)

    assert (wide.limit, wide.shown) == (3, query.shown)
    assert set(query.filters) <= set(wide.filters)


def test_marker_that_is_unknown_is_known_from_other_errors(speech: Speech) -> None:
    assert not speech.dialect.is_unknown_marker(400, b"limit param must be an integer")
    assert not speech.dialect.is_unknown_marker(500, b"Invalid marker. No image found with ID x")
    assert speech.dialect.is_unknown_marker(400, b"Invalid marker. No image found with ID x")


# -- paths


def test_lists_creates_and_images_are_treated_as_such(speech: Speech) -> None:
    listing = operation(speech, "GET", speech.list_target)
    create = operation(speech, *speech.create_target)
    update = operation(speech, *speech.update_target)
    path = speech.dialect.image_path(speech.ids[0])
    show = operation(speech, speech.dialect.image_method, path)
    delete = operation(speech, "DELETE", path)

    assert (listing.name, listing.treatment) == ("image-list", Treatment.LIST)
    assert (create.name, create.treatment) == ("image-create", Treatment.CREATE)
    for by_id in (update, show, delete):
        assert (by_id.treatment, by_id.image_id) == (Treatment.IMAGE, speech.ids[0])
    assert (show.name, show.access) == ("image-show", Access.VISIBLE)
    assert (update.name, update.access, update.has_effect) == ("image-update", Access.OWN, True)
    assert (delete.name, delete.access) == ("image-delete", Access.OWN)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/v9/images", "/nonsense", "/v1/images/a/b/c/d", "/v2/images/a/x"]
)
def test_what_has_no_row_is_refused_at_the_only_wall(
    speech: Speech, method: str, path: str
) -> None:
    assert operation(speech, method, path).access is Access.REFUSED


def test_method_of_a_request_cannot_be_overridden(speech: Speech) -> None:
    with pytest.raises(BadRequestError):
        operation(speech, "POST", f"{speech.create_target[1]}?_method=DELETE")
    form = Headers().with_added(("Content-Type", "application/x-www-form-urlencoded"))
    assert "form" not in (speech.dialect.neutral_headers(form).first("Content-Type") or "")


def test_another_spelling_of_an_id_is_none_to_record(speech: Speech) -> None:
    one = speech.ids[0]
    assert speech.dialect.is_recordable_id(one)
    for other in (one.upper() + " ", f"0{one}", f"{one}/", f"{one}x", ""):
        assert not speech.dialect.is_recordable_id(other)


def test_named_images_are_asked_for_by_a_name_that_says_nothing_else(speech: Speech) -> None:
    target = speech.dialect.named_images_target("a&is_public=True#é", "m&x=1")

    parsed = parse_list_query(parse_target(target).query)
    assert parsed.marker == "m&x=1"
    assert "a&is_public=True#é" in (parsed.filter("name") or "")
    assert parsed.filter("x") is None
    assert operation(speech, "GET", target).treatment is Treatment.LIST


# -- refusals


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/json", "text/plain"])
def test_refusal_says_its_sentence_and_nothing_active(speech: Speech, accept: str) -> None:
    content_type, body = speech.dialect.refusal(404, "No <b>such</b> image", accept)

    assert b"404" in body
    if content_type.startswith("text/html"):
        assert b"No &lt;b&gt;such&lt;/b&gt; image" in body
    else:
        assert b"No <b>such</b> image" in body


def test_sentence_of_an_absent_image_names_no_other(speech: Speech) -> None:
    one, other = speech.ids
    said = speech.dialect.absent_image(one)

    assert said.replace(one, "ID") == speech.dialect.absent_image(other).replace(other, "ID")


# -- walks


def test_the_lists_of_a_walk_go_from_old_to_new_to_all_that_an_admin_may_see(
    speech: Speech,
) -> None:
    for part in speech.dialect.list_parts:
        target = speech.dialect.part_target(part, limit=7, marker=None)
        further = speech.dialect.part_target(part, limit=7, marker="a&b/c")
        assert further == f"{target}&marker=a%26b%2Fc"
        found = operation(speech, "GET", target)
        assert found.treatment is Treatment.LIST
        query = parse_list_query(target.partition("?")[2])
        assert (query.limit, query.filter("visibility"), query.filter("is_public")) in {
            *((7, "all", None), (7, None, "None")),
        }


def test_what_a_listed_image_says_of_its_instance_is_read(speech: Speech) -> None:
    properties = TUPLE | {"instance_uuid": "i-2"}
    for said, expected in (
        (properties, BodyMetadata(INSTALLATION, "i-1", "i-2")),
        ({}, BodyMetadata()),
    ):
        created = speech.created(Said(id=speech.ids[0], owner="p1", properties=said))
        row = created if speech.dialect.name == "glance-v2" else _image_in(created)
        (listed,) = speech.dialect.page(speech.listed(row)).rows
        assert speech.dialect.listed_metadata(listed.raw) == expected


def _image_in(created: bytes) -> bytes:
    return json.dumps(json.loads(created)["image"]).encode()
