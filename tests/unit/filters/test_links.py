from __future__ import annotations

import pytest

from relproxy.filters.links import prefixed_url, with_prefixed_location
from tests.unit.given import fields

HOST = "images.example:9292"


@pytest.mark.parametrize(
    ("url", "prefixed"),
    [
        pytest.param("http://g:9292/v2/", "http://g:9292/east/v2/", id="an absolute URL"),
        pytest.param("https://g/v2/", "https://g/east/v2/", id="a secure one"),
        pytest.param("http://g", "http://g/east", id="one without a path"),
        pytest.param("http://g/v2?a=b#c", "http://g/east/v2?a=b#c", id="one with a query"),
        pytest.param("/v2/images", "/v2/images", id="a relative reference stays"),
        pytest.param("//g/v2", "//g/v2", id="a reference without a scheme stays"),
        pytest.param("mailto:a@b", "mailto:a@b", id="another scheme stays"),
        pytest.param("http://[/v2", "http://[/v2", id="what is no URL stays"),
        pytest.param("", "", id="nothing stays"),
    ],
)
def test_an_absolute_url_gets_the_prefix(url: str, prefixed: str) -> None:
    assert prefixed_url(url, "/east") == prefixed


@pytest.mark.parametrize(
    ("location", "prefixed"),
    [
        pytest.param(
            f"http://{HOST}/v2/images/1", f"http://{HOST}/east/v2/images/1", id="on the host"
        ),
        pytest.param("/v2/images/1", "/east/v2/images/1", id="a path"),
        pytest.param(
            "http://swift.example/v2/images/1", "http://swift.example/v2/images/1", id="elsewhere"
        ),
        pytest.param("//swift.example/x", "//swift.example/x", id="elsewhere without a scheme"),
        pytest.param(
            f"http://{HOST}.evil.example/x", f"http://{HOST}.evil.example/x", id="a longer host"
        ),
        pytest.param("http://[/v2/images/1", "http://[/v2/images/1", id="no URL"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_location_of_the_registry_leads_through_the_route(location: str, prefixed: str) -> None:
    headers = fields(("Date", "today"), ("Location", location), ("Via", "a"))

    routed = with_prefixed_location(headers, prefix="/east", host=HOST)

    assert routed == fields(("Date", "today"), ("Location", prefixed), ("Via", "a"))


@pytest.mark.parametrize(
    ("location", "host"),
    [
        pytest.param("http://images.example/v2/", "images.example:80", id="port 80 of http"),
        pytest.param("https://images.example/v2/", "images.example:443", id="port 443 of https"),
    ],
)
def test_a_registry_that_drops_the_default_port_is_still_the_registry(
    location: str, host: str
) -> None:
    # WebOb makes a Location without the port that the scheme has anyway.
    routed = with_prefixed_location(fields(("Location", location)), prefix="/east", host=host)

    assert (routed.first("Location") or "").endswith("://images.example/east/v2/")


def test_a_location_stays_where_the_route_has_no_prefix() -> None:
    headers = fields(("Location", f"http://{HOST}/v2/images/1"))

    assert with_prefixed_location(headers, prefix="", host=HOST) == headers


def test_an_answer_without_a_location_gets_none() -> None:
    headers = fields(("Date", "today"))

    assert with_prefixed_location(headers, prefix="/east", host=HOST) == headers


def test_a_location_stays_where_the_client_named_no_host() -> None:
    headers = fields(("Location", f"http://{HOST}/v2/images/1"))

    assert with_prefixed_location(headers, prefix="/east", host=None) == headers
