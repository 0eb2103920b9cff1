from __future__ import annotations

import pytest

from relproxy.errors import BadRequestError
from relproxy.filters.target import canonical_path, parse_target


@pytest.mark.parametrize(
    "raw",
    [
        "/v2/images",
        "/v2//images",
        "//v2/images",
        "///v2///images",
        "/%762/images",
        "/v2/%69mages",
        "/%76%32/%69%6d%61%67%65%73",
        "/v2%2Fimages",
        "/v2%2fimages",
        "/%2Fv2/images",
        "/v2/images/",
        "/v2/images%2F",
    ],
)
def test_every_spelling_that_a_wsgi_registry_reads_as_the_image_list_is_one_path(raw: str) -> None:
    target = parse_target(raw)

    assert target.segments == ("v2", "images")
    assert target.path == "/v2/images"
    assert target.raw_path == raw


@pytest.mark.parametrize(
    ("raw", "segments", "path"),
    [
        pytest.param("/", (), "/", id="the root"),
        pytest.param("//", (), "/", id="two slashes are the root"),
        pytest.param(
            "/v2/%2569mages", ("v2", "%69mages"), "/v2/%2569mages", id="escapes are undone once"
        ),
        pytest.param(
            "/v2%252Fimages", ("v2%2Fimages",), "/v2%252Fimages", id="an escaped slash escape"
        ),
        pytest.param(
            "/v2/images%zz", ("v2", "images%zz"), "/v2/images%25zz", id="an escape that is none"
        ),
        pytest.param("/v2/images%", ("v2", "images%"), "/v2/images%25", id="a bare percent sign"),
        pytest.param("/v2/a%4", ("v2", "a%4"), "/v2/a%254", id="half an escape"),
        pytest.param("/v2/a%20b", ("v2", "a b"), "/v2/a%20b", id="a blank stays escaped"),
        pytest.param("/v2/a%3Fb", ("v2", "a?b"), "/v2/a%3Fb", id="a question mark stays escaped"),
        pytest.param("/v2/a%23b", ("v2", "a#b"), "/v2/a%23b", id="a number sign stays escaped"),
        pytest.param("/v2/%c3%a9", ("v2", "Ã©"), "/v2/%C3%A9", id="UTF-8 keeps its bytes"),
        pytest.param("/v2/%ff", ("v2", "ÿ"), "/v2/%FF", id="a byte that is no UTF-8 is kept"),
        pytest.param("/v2/images;a=b", ("v2", "images;a=b"), "/v2/images;a=b", id="a parameter"),
        pytest.param("/V2/Images", ("V2", "Images"), "/V2/Images", id="case is kept"),
        pytest.param("/v2\\images", ("v2\\images",), "/v2%5Cimages", id="a backslash divides none"),
        pytest.param("/v2/...", ("v2", "..."), "/v2/...", id="three dots are a name"),
        pytest.param("/v2/..a", ("v2", "..a"), "/v2/..a", id="leading dots are a name"),
        pytest.param("/v2/~a_b-c.d", ("v2", "~a_b-c.d"), "/v2/~a_b-c.d", id="plain characters"),
    ],
)
def test_a_path_is_taken_apart_and_put_together(
    raw: str, segments: tuple[str, ...], path: str
) -> None:
    target = parse_target(raw)

    assert target.segments == segments
    assert target.path == path
    assert canonical_path(segments) == path


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("/v2/./images", id="a dot segment"),
        pytest.param("/v2/../v2/images", id="two dots"),
        pytest.param("/v2/images/..", id="two dots at the end"),
        pytest.param("/v2/images/.", id="a dot at the end"),
        pytest.param("/v2/%2e%2e/images", id="escaped dots"),
        pytest.param("/v2/%2E/images", id="an escaped dot"),
        pytest.param("/v2/.%2e/images", id="half-escaped dots"),
        pytest.param("/..%2Fv2/images", id="dots before an escaped slash"),
        pytest.param("/v2/schemas%2F..%2Fimages", id="dots between escaped slashes"),
        pytest.param("/v2/images%00", id="a NUL"),
        pytest.param("/v2/%0d%0aimages", id="an escaped line end"),
        pytest.param("/v2/images%09", id="an escaped tab"),
        pytest.param("/v2/%7f", id="an escaped DEL"),
        pytest.param("/v2/images#x", id="a fragment"),
        pytest.param("/v2/images?a=b#x", id="a fragment behind a query"),
        pytest.param("/v2/im ages", id="a blank"),
        pytest.param("/v2/images\t", id="a tab"),
        pytest.param("/v2/images\n", id="a line end"),
        pytest.param("/v2/images\x00", id="a raw NUL"),
        pytest.param("/v2/imag\xe9s", id="a raw byte outside ASCII"),
        pytest.param("/v2/images?a=\xe9", id="a raw byte in the query"),
        pytest.param("", id="nothing"),
        pytest.param("*", id="the asterisk form"),
        pytest.param("v2/images", id="a path without its slash"),
        pytest.param("?limit=1", id="only a query"),
        pytest.param("images.example:443", id="the authority form of CONNECT"),
        pytest.param("127.0.0.1:443", id="the authority form of an address"),
        pytest.param("ftp://images.example/v2/images", id="another scheme"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("javascript:alert(1)", id="a scheme without an authority"),
        pytest.param("http:/v2/images", id="a scheme and a path"),
        pytest.param("http:///v2/images", id="an empty authority"),
        pytest.param("http://me@images.example/v2/images", id="a user in the authority"),
        pytest.param("http://me:secret@images.example/v2/images", id="a password"),
        pytest.param("http://a\\@images.example/v2/images", id="a user behind a backslash"),
        pytest.param("http://[::1/v2/images", id="half a bracket"),
        pytest.param("http://images.example/v2/%2e%2e/images", id="dots in the absolute form"),
    ],
)
def test_a_target_that_servers_read_in_several_ways_is_refused(raw: str) -> None:
    with pytest.raises(BadRequestError):
        parse_target(raw)


@pytest.mark.parametrize(
    ("raw", "authority", "raw_path", "query"),
    [
        pytest.param(
            "http://images.example:9292/v2/images?limit=1",
            "images.example:9292",
            "/v2/images",
            "limit=1",
            id="with everything",
        ),
        pytest.param("HTTP://Images.Example/", "Images.Example", "/", "", id="in capital letters"),
        pytest.param("https://images.example", "images.example", "/", "", id="without a path"),
        pytest.param("http://images.example?a=b", "images.example", "/", "a=b", id="only a query"),
        pytest.param("http://[::1]:9292/v2", "[::1]:9292", "/v2", "", id="an IPv6 address"),
        pytest.param(
            "http://images.example//v2//images",
            "images.example",
            "//v2//images",
            "",
            id="with double slashes",
        ),
    ],
)
def test_the_absolute_form_names_its_authority(
    raw: str, authority: str, raw_path: str, query: str
) -> None:
    target = parse_target(raw)

    assert (target.authority, target.raw_path, target.query) == (authority, raw_path, query)


def test_a_path_that_looks_like_an_authority_is_a_path() -> None:
    target = parse_target("//evil.example/v2/images")

    assert target.authority is None
    assert target.path == "/evil.example/v2/images"


def test_a_path_that_holds_a_url_is_a_path() -> None:
    assert parse_target("/http://evil.example/").authority is None


def test_the_query_is_kept_raw_and_is_no_part_of_the_path() -> None:
    target = parse_target("/v2/images?name=%2F..%2F&b=?&c=/../")

    assert target.path == "/v2/images"
    assert target.query == "name=%2F..%2F&b=?&c=/../"


@pytest.mark.parametrize(
    ("raw", "has_one"),
    [("/v2/", True), ("/v2%2F", True), ("/v2", False), ("/", True), ("/v2?a=/", False)],
)
def test_a_slash_at_the_end_is_remembered(raw: str, *, has_one: bool) -> None:
    assert parse_target(raw).has_trailing_slash is has_one
