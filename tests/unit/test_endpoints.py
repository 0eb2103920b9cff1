from __future__ import annotations

import pytest

from relproxy.endpoints import Endpoints

URLS = ("http://a", "http://b", "http://c")


def test_one_endpoint_is_always_preferred() -> None:
    endpoints = Endpoints(("http://a",))

    assert [endpoints.by_preference()[0].url for _ in range(3)] == ["http://a"] * 3


def test_idle_endpoints_take_turns() -> None:
    endpoints = Endpoints(URLS)

    assert [endpoints.by_preference()[0].url for _ in range(6)] == [*URLS, *URLS]


def test_every_endpoint_is_offered_once() -> None:
    endpoints = Endpoints(URLS)

    for _ in range(4):
        assert sorted(endpoint.url for endpoint in endpoints.by_preference()) == sorted(URLS)


def test_the_least_busy_endpoint_comes_first_whoevers_turn_it_is() -> None:
    endpoints = Endpoints(URLS)
    a, b, c = endpoints.by_preference()

    with a.busy(), a.busy(), c.busy():
        for _ in URLS:
            assert endpoints.by_preference() == (b, c, a)


def test_a_request_counts_only_as_long_as_it_lasts() -> None:
    (endpoint,) = Endpoints(("http://a",)).by_preference()

    with endpoint.busy():
        assert endpoint.outstanding == 1
    assert endpoint.outstanding == 0


def test_a_failed_request_counts_no_longer() -> None:
    (endpoint,) = Endpoints(("http://a",)).by_preference()

    with pytest.raises(OSError, match="gone"), endpoint.busy():
        raise OSError("gone")
    assert endpoint.outstanding == 0


def test_an_endpoint_shows_what_it_has_to_do() -> None:
    (endpoint,) = Endpoints(("http://a",)).by_preference()

    with endpoint.busy():
        assert repr(endpoint) == "<Endpoint http://a outstanding=1>"
