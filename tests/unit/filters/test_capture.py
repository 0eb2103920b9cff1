from __future__ import annotations

import pytest

from relproxy.errors import BadRequestError
from relproxy.filters.capture import (
    BodyMetadata,
    MetadataHeaders,
    canonical_installation,
    checked_instance_id,
    read_capture,
)
from relproxy.messages import Headers
from relproxy.model import Capture, Grade, Instance
from tests.unit.given import OTHER_UUID, UUID, fields

NAMES = MetadataHeaders("X-Nova-Installation-UUID", "X-Nova-Instance-ID")
NOTHING = Headers()
TUPLE = fields(("X-Nova-Installation-UUID", UUID), ("X-Nova-Instance-ID", "i-headers"))
CLAIM = BodyMetadata(installation=UUID, instance="i-body", instance_uuid="i-nova")


def captured(
    headers: Headers = NOTHING,
    body: BodyMetadata | None = None,
    *,
    is_trusted: bool = True,
    route: str | None = None,
) -> Capture | None:
    return read_capture(
        headers,
        BodyMetadata() if body is None else body,
        names=NAMES,
        is_trusted=is_trusted,
        route_installation=route,
    )


def vouched(instance: str, installation: str = UUID) -> Capture:
    return Capture(Instance(installation, instance), Grade.VOUCHED)


def claimed(instance: str, installation: str = UUID) -> Capture:
    return Capture(Instance(installation, instance), Grade.CLAIMED)


# -- levels


def test_a_create_that_says_nothing_captures_nothing() -> None:
    assert captured() is None
    assert captured(route=UUID) is None


def test_headers_of_a_trusted_source_are_vouched() -> None:
    assert captured(TUPLE) == vouched("i-headers")


def test_headers_win_over_the_body() -> None:
    assert captured(TUPLE, CLAIM) == vouched("i-headers")


def test_properties_of_the_body_are_claimed() -> None:
    assert captured(body=CLAIM) == claimed("i-body")


def test_properties_of_the_body_win_over_what_nova_says() -> None:
    assert captured(body=CLAIM, route=OTHER_UUID) == claimed("i-body")


def test_an_unmodified_nova_is_captured_through_a_route_with_an_installation() -> None:
    assert captured(body=BodyMetadata(instance_uuid="i-nova"), route=UUID) == claimed("i-nova")


def test_an_unmodified_nova_without_an_installation_captures_nothing() -> None:
    assert captured(body=BodyMetadata(instance_uuid="i-nova")) is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(5, id="a number"),
        pytest.param(None, id="null"),
        pytest.param("", id="nothing"),
        pytest.param("a b", id="a blank"),
        pytest.param("x" * 256, id="too long"),
        pytest.param(["i"], id="a list"),
        pytest.param({"a": "b"}, id="an object"),
    ],
)
def test_any_value_of_the_property_that_nova_sends_is_legal(value: object) -> None:
    assert captured(body=BodyMetadata(instance_uuid=value), route=UUID) is None


# -- trust


def test_headers_from_an_untrusted_source_count_for_nothing() -> None:
    assert captured(TUPLE, is_trusted=False) is None
    assert captured(TUPLE, is_trusted=False, route=UUID) is None


def test_headers_from_an_untrusted_source_hide_no_claim() -> None:
    assert captured(TUPLE, CLAIM, is_trusted=False) == claimed("i-body")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(fields(("X-Nova-Instance-ID", "")), id="an empty instance"),
        pytest.param(fields(("X-Nova-Instance-ID", "a b")), id="a malformed instance"),
        pytest.param(fields(("X-Nova-Installation-UUID", UUID)), id="half a tuple"),
        pytest.param(fields(("X-Nova-Installation-UUID", "x")), id="a malformed installation"),
        pytest.param(
            fields(("X-Nova-Instance-ID", "a"), ("X-Nova-Instance-ID", "b")), id="two instances"
        ),
    ],
)
def test_headers_from_an_untrusted_source_are_never_an_error(headers: Headers) -> None:
    assert captured(headers, is_trusted=False) is None


def test_an_untrusted_source_may_still_claim_through_nova() -> None:
    body = BodyMetadata(instance_uuid="i-nova")

    assert captured(body=body, is_trusted=False, route=UUID) == claimed("i-nova")


# -- halves


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(
            fields(("X-Nova-Installation-UUID", UUID)), BodyMetadata(), id="a header alone"
        ),
        pytest.param(NOTHING, BodyMetadata(installation=UUID), id="a property alone"),
        pytest.param(
            fields(("X-Nova-Installation-UUID", UUID)), CLAIM, id="the other half one level below"
        ),
        pytest.param(
            NOTHING,
            BodyMetadata(installation=UUID, instance_uuid="i-nova"),
            id="the other half from Nova",
        ),
    ],
)
@pytest.mark.parametrize("route", [None, UUID], ids=["no route's", "a route's"])
def test_an_installation_without_an_instance_is_refused(
    headers: Headers, body: BodyMetadata, route: str | None
) -> None:
    with pytest.raises(BadRequestError, match="half a tuple"):
        captured(headers, body, route=route)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(fields(("X-Nova-Instance-ID", "i")), BodyMetadata(), id="a header"),
        pytest.param(NOTHING, BodyMetadata(instance="i"), id="a property"),
        pytest.param(
            fields(("X-Nova-Instance-ID", "i")),
            BodyMetadata(installation=UUID),
            id="a header, and the installation one level below",
        ),
    ],
)
def test_an_instance_without_any_installation_is_refused(
    headers: Headers, body: BodyMetadata
) -> None:
    with pytest.raises(BadRequestError, match="half a tuple"):
        captured(headers, body)


def test_an_instance_with_the_installation_of_its_route_is_whole() -> None:
    instance = fields(("X-Nova-Instance-ID", "i"))

    assert captured(instance, route=OTHER_UUID) == vouched("i", OTHER_UUID)
    assert captured(body=BodyMetadata(instance="i"), route=UUID) == claimed("i")


def test_a_named_installation_wins_over_that_of_the_route() -> None:
    assert captured(TUPLE, route=OTHER_UUID) == vouched("i-headers", UUID)


# -- repeated and misspelt


@pytest.mark.parametrize(
    "name",
    [
        "X-Nova-Instance-ID",
        "x-nova-instance-id",
        "X-Nova-Installation-UUID",
        "x-NOVA-installation-uuid",
    ],
)
def test_two_differing_values_of_one_header_are_refused(name: str) -> None:
    with pytest.raises(BadRequestError, match="more than once"):
        captured(TUPLE.with_added((name, OTHER_UUID)))


@pytest.mark.parametrize(
    "spelling",
    ["x-nova-instance-id", "X-NOVA-INSTANCE-ID"],
)
def test_a_metadata_header_is_read_in_any_case(spelling: str) -> None:
    assert captured(fields((spelling, "i")), route=UUID) == vouched("i")


def test_the_headers_have_the_names_that_the_configuration_gives() -> None:
    headers = fields(("Other-Instance", "i"), ("X-Nova-Instance-ID", "not this"))
    names = MetadataHeaders("Other-Installation", "Other-Instance")

    capture = read_capture(
        headers, BodyMetadata(), names=names, is_trusted=True, route_installation=UUID
    )

    assert capture == vouched("i")


# -- values


@pytest.mark.parametrize(
    "value", ["a", "a" * 255, "instance-00000001", UUID, "!~", 'a,b;c"d'], ids=len
)
def test_an_instance_id_is_1_to_255_visible_characters(value: str) -> None:
    assert checked_instance_id(value, "it") == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="nothing"),
        pytest.param("a" * 256, id="256 characters"),
        pytest.param("a b", id="a blank"),
        pytest.param("a\n", id="a line end"),
        pytest.param("a\x00", id="a NUL"),
        pytest.param("a\x7f", id="a DEL"),
        pytest.param("a\u200b", id="an invisible character"),
        pytest.param("\ud800", id="half a surrogate pair"),
        pytest.param(123, id="a number"),
        pytest.param(True, id="a boolean"),
        pytest.param(["a"], id="a list"),
        pytest.param({}, id="an object"),
    ],
)
def test_anything_else_is_no_instance_id(value: object) -> None:
    with pytest.raises(BadRequestError, match="'it' is not 1 to 255 visible"):
        checked_instance_id(value, "it")
    with pytest.raises(BadRequestError, match="'instance_id'"):
        captured(body=BodyMetadata(installation=UUID, instance=value))


@pytest.mark.parametrize("spelling", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_an_installation_is_kept_canonical(spelling: str) -> None:
    assert canonical_installation(spelling, "it") == UUID
    assert captured(body=BodyMetadata(installation=spelling, instance="i")) == claimed("i")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="nothing"),
        pytest.param("nova", id="a name"),
        pytest.param(UUID[:-1], id="a digit short"),
        pytest.param(UUID + "0", id="a digit long"),
        pytest.param(f"{{{UUID}}}", id="in braces"),
        pytest.param(f"urn:uuid:{UUID}", id="as a URN"),
        pytest.param(UUID.replace("6", "g"), id="another letter"),
        pytest.param(UUID.replace("-", "", 1), id="hyphens in some places"),
        pytest.param(f"{UUID}\n", id="a line end"),
        pytest.param(f" {UUID}", id="a blank"),
        pytest.param(UUID.replace("1", "\u0661"), id="digits of another script"),
        pytest.param(0, id="a number"),
        pytest.param([UUID], id="a list"),
        pytest.param(False, id="a boolean"),
    ],
)
def test_anything_else_is_no_installation(value: object) -> None:
    with pytest.raises(BadRequestError, match="'it' is not a UUID"):
        canonical_installation(value, "it")
    with pytest.raises(BadRequestError, match="'nova_installation_uuid' is not a UUID"):
        captured(body=BodyMetadata(installation=value, instance="i"))


def test_a_malformed_header_of_a_trusted_source_is_refused_by_its_name() -> None:
    with pytest.raises(BadRequestError, match="'X-Nova-Installation-UUID' is not a UUID"):
        captured(fields(("X-Nova-Installation-UUID", "nova"), ("X-Nova-Instance-ID", "i")))


def test_no_refusal_repeats_the_value() -> None:
    with pytest.raises(BadRequestError) as refusal:
        captured(body=BodyMetadata(installation="<script>", instance="i"))

    assert "<script>" not in refusal.value.sentence


@pytest.mark.parametrize("spelling", ["X_NOVA_INSTANCE_ID", "X-Nova_Instance-Id"])
def test_a_metadata_header_with_an_underscore_is_not_believed(spelling: str) -> None:
    with pytest.raises(BadRequestError, match="spelled with '_'"):
        captured(TUPLE.without(("X-Nova-Instance-ID",)).with_added((spelling, "123")))
