from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from relproxy.errors import BadRequestError
from relproxy.filters.query import parse_list_query, shown_query, upstream_query
from tests.unit.given import UUID

MARKER = "14c22e86-19ff-4fce-8919-89a34d23b277"


def test_an_empty_query_asks_for_nothing() -> None:
    query = parse_list_query("")

    assert query.filters == query.shown == ()
    assert (query.limit, query.marker, query.instance_id, query.installation) == (None,) * 4


@pytest.mark.parametrize(
    "name",
    ["limit", "marker", "owner", "visibility", "id", "name", "member_status", "os_hidden", "sort"],
)
def test_a_repeated_parameter_is_refused(name: str) -> None:
    with pytest.raises(BadRequestError, match=f"'{name}' is given more than once"):
        parse_list_query(f"{name}=1&x=y&{name}=1")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("limit=1&%6cimit=2", id="an escaped letter"),
        pytest.param("visibility=private&visibilit%79=public", id="an escaped letter at the end"),
        pytest.param("owner&owner=x", id="one without a value"),
        pytest.param("instance_id=a&instance%5Fid=b", id="an escaped underscore"),
    ],
)
def test_a_parameter_repeated_in_another_spelling_is_refused(raw: str) -> None:
    with pytest.raises(BadRequestError, match="more than once"):
        parse_list_query(raw)


def test_tags_and_sort_keys_may_repeat() -> None:
    raw = "tag=a&sort_key=name&tag=b&sort_key=id&sort_dir=asc&sort_dir=desc"

    assert parse_list_query(raw).filters == tuple(parse_qsl(raw))


@pytest.mark.parametrize(("text", "limit"), [("0", 0), ("1", 1), ("25", 25), ("1000", 1000)])
def test_a_limit_is_a_number(text: str, limit: int) -> None:
    assert parse_list_query(f"limit={text}").limit == limit


@pytest.mark.parametrize("text", ["100000", "999999999", "9999999999", "9" * 30])
def test_a_limit_over_every_maximum_is_no_error(text: str) -> None:
    # Glance cuts it silently, whatever its size.
    limit = parse_list_query(f"limit={text}").limit

    assert limit is not None
    assert limit >= 100_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("%2B5", id="a plus sign"),
        pytest.param("+5", id="a blank before it"),
        pytest.param("%205", id="an escaped blank before it"),
        pytest.param("5%20", id="a blank behind it"),
        pytest.param("1_0", id="an underscore"),
        pytest.param("%D9%A3", id="an Arabic digit"),
        pytest.param("%C2%B2", id="a superscript digit"),
        pytest.param("", id="nothing"),
        pytest.param("5.0", id="a fraction"),
        pytest.param("0x10", id="a hexadecimal number"),
        pytest.param("1e3", id="an exponent"),
        pytest.param("five", id="a word"),
        pytest.param("--5", id="two minus signs"),
        pytest.param("5%00", id="a NUL behind it"),
        pytest.param("5;limit=6", id="a semicolon, which Glance divides at"),
    ],
)
def test_a_limit_that_is_no_plain_number_is_refused_in_the_words_of_glance(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^limit param must be an integer$"):
        parse_list_query(f"limit={text}")


def test_a_negative_limit_is_refused_in_the_words_of_glance() -> None:
    with pytest.raises(BadRequestError, match=r"^limit param must be positive$"):
        parse_list_query("limit=-1")


def test_a_query_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(BadRequestError, match="UTF-8"):
        parse_list_query("name=%ff")


def test_a_query_with_over_a_hundred_parameters_is_refused() -> None:
    with pytest.raises(BadRequestError, match="100"):
        parse_list_query("&".join(f"p{number}=1" for number in range(101)))


def test_an_instance_alone_is_a_question() -> None:
    query = parse_list_query("instance_id=123&status=active")

    assert (query.instance_id, query.installation) == ("123", None)


def test_an_installation_is_read_in_canonical_form() -> None:
    spelled = UUID.replace("-", "").upper()
    query = parse_list_query(f"nova_installation_uuid={spelled}&instance_id=123")

    assert (query.instance_id, query.installation) == ("123", UUID)


def test_the_instance_parameters_never_go_upstream() -> None:
    raw = f"status=active&instance_id=123&nova_installation_uuid={UUID}&limit=5"

    assert upstream_query(parse_list_query(raw), limit=6, marker=None) == "status=active&limit=6"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        pytest.param(f"nova_installation_uuid={UUID}", "half a question", id="no instance"),
        pytest.param("instance_id=", "visible", id="an empty instance"),
        pytest.param("instance_id=a%20b", "visible", id="a blank in the instance"),
        pytest.param("instance_id=a%00", "visible", id="a NUL in the instance"),
        pytest.param("instance_id=%C3%A9", "visible", id="a letter outside ASCII"),
        pytest.param(f"instance_id={'a' * 256}", "255", id="an instance that is too long"),
        pytest.param("instance_id=1&nova_installation_uuid=", "UUID", id="an empty installation"),
        pytest.param("instance_id=1&nova_installation_uuid=x", "UUID", id="no UUID"),
        pytest.param(f"instance_id=1&id={MARKER}", "combined", id="an instance and ids"),
    ],
)
def test_a_question_that_is_malformed_is_refused(raw: str, sentence: str) -> None:
    with pytest.raises(BadRequestError, match=sentence):
        parse_list_query(raw)


def test_one_filter_is_found_by_its_name() -> None:
    query = parse_list_query("visibility=community&name=")

    assert query.filter("visibility") == "community"
    assert query.filter("name") == ""
    assert query.filter("owner") is None


def test_limit_and_marker_are_no_filters() -> None:
    query = parse_list_query(f"limit=2&marker={MARKER}")

    assert query.filters == ()
    assert query.filter("limit") is query.filter("marker") is None


def test_a_narrowed_query_has_the_new_filter_once() -> None:
    query = parse_list_query("id=in:a,b&name=x").within("id", "in:c")

    assert query.filters == (("name", "x"), ("id", "in:c"))


def test_a_narrowed_query_shows_what_the_client_wrote() -> None:
    query = parse_list_query("name=x&limit=2").within("visibility", "public")

    assert "visibility" not in shown_query(query, marker=None)


def test_the_registry_is_asked_in_the_order_of_the_client() -> None:
    query = parse_list_query("sort_key=name&limit=7&sort_dir=asc&marker=m&sort_key=id&name=x")

    assert upstream_query(query, limit=8, marker="n") == (
        "sort_key=name&sort_dir=asc&sort_key=id&name=x&limit=8&marker=n"
    )


def test_the_ids_of_a_filter_go_upstream_in_as_few_bytes_as_they_can() -> None:
    query = parse_list_query("").within("id", "in:a,b")

    assert upstream_query(query, limit=2, marker=None) == "id=in:a,b&limit=2"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("name=a%26visibility%3Dall", id="an escaped ampersand"),
        pytest.param("name=a%3Bvisibility=all", id="an escaped semicolon"),
        pytest.param("name=a;visibility=all", id="a semicolon, which Glance divides at"),
        pytest.param("name=a%23b", id="a number sign"),
        pytest.param("name=a+b%2Bc", id="blanks and plus signs"),
        pytest.param("name=%C3%A9", id="letters outside ASCII"),
        pytest.param("name=%0D%0AX-Roles:%20admin", id="line ends"),
        pytest.param("a%3Db=c&=d", id="odd names"),
        pytest.param("name", id="a name without a value"),
    ],
)
def test_a_value_goes_upstream_as_one_value(raw: str) -> None:
    query = parse_list_query(raw)
    asked = upstream_query(query, limit=3, marker="m")

    assert ";" not in asked
    assert asked.isascii()
    assert parse_qsl(asked, keep_blank_values=True) == [
        *parse_qsl(raw, keep_blank_values=True),
        ("limit", "3"),
        ("marker", "m"),
    ]


@pytest.mark.parametrize(
    ("raw", "first"),
    [
        pytest.param("limit=2", "limit=2", id="a limit"),
        pytest.param("limit=1&name=zz", "limit=1&name=zz", id="a limit in front"),
        pytest.param("name=zz&limit=1", "name=zz&limit=1", id="a limit behind"),
        pytest.param("limit=2&marker=m&name=z", "limit=2&name=z", id="a marker in between"),
        pytest.param("name=a+b%20c", "name=a+b+c", id="blanks"),
        pytest.param("status=in:a,b", "status=in%3Aa%2Cb", id="a filter with several values"),
        pytest.param("name", "name=", id="a name without a value"),
        pytest.param("", "", id="nothing"),
        pytest.param(
            f"instance_id=123&nova_installation_uuid={UUID}",
            f"instance_id=123&nova_installation_uuid={UUID}",
            id="an instance",
        ),
        pytest.param("tag=a&tag=b", "tag=a&tag=b", id="repeated tags"),
    ],
)
def test_a_link_to_the_first_page_repeats_what_the_client_wrote(raw: str, first: str) -> None:
    # As Glance 33 answered each of them (it drops repeated tags, which loses a filter).
    assert shown_query(parse_list_query(raw), marker=None) == first


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        pytest.param("name=a", None, id="no filter"),
        pytest.param("id=a", ("a",), id="one"),
        pytest.param("id=eq:a", ("a",), id="one with its operator"),
        pytest.param("id=in:a,b", ("a", "b"), id="several"),
        pytest.param("id=in:%22a%22,b,%22c%22", ("a", "b", "c"), id="several in quotes"),
        pytest.param("id=in:%22a,b%22", ('"a', 'b"'), id="a quoted comma, which no id has"),
        pytest.param("id=in:", ("",), id="none"),
        pytest.param("id=like:a", (), id="an operator that Glance refuses"),
    ],
)
def test_ids_are_read_in_every_spelling_of_their_filter(
    raw: str, ids: tuple[str, ...] | None
) -> None:
    assert parse_list_query(raw).ids() == ids


def test_a_link_to_the_next_page_has_its_own_marker_last() -> None:
    query = parse_list_query("marker=old&name=z&limit=2")

    assert shown_query(query, marker="new") == "name=z&limit=2&marker=new"


def test_a_link_names_no_limit_that_the_client_did_not() -> None:
    assert shown_query(parse_list_query("name=z"), marker="m") == "name=z&marker=m"
