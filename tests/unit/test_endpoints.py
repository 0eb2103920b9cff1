from __future__ import annotations

from dataclasses import dataclass

import pytest

from relproxy.config_endpoints import Ejection
from relproxy.endpoints import Endpoint, Endpoints, Reason

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
        assert repr(endpoint) == "<Endpoint http://a outstanding=1 well>"


class Clock:
    """Monotonic seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """What a watch has heard, without the single failures."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.out_s: list[float] = []

    def failed(self, endpoint: Endpoint, reason: Reason) -> None:
        """Not kept."""

    def distrusted(self, endpoint: Endpoint, cause: str, news: str | None) -> None:
        self.events.append(("distrusted", endpoint.url, cause, news or "as before"))

    def ejected(self, endpoint: Endpoint, reason: Reason, out_s: float | None) -> None:
        self.events.append(("ejected", endpoint.url, reason))
        if out_s is not None:
            self.out_s.append(out_s)

    def kept(self, endpoint: Endpoint, reason: Reason) -> None:
        self.events.append(("kept", endpoint.url, reason))

    def returned(self, endpoint: Endpoint) -> None:
        self.events.append(("returned", endpoint.url))


@dataclass
class Watched:
    """Three endpoints, their clock, and what was told of them."""

    clock: Clock
    told: Told
    endpoints: Endpoints
    a: Endpoint
    b: Endpoint
    c: Endpoint

    def eject(self, *which: Endpoint) -> None:
        for endpoint in which:
            for _ in range(3):
                self.endpoints.failed(endpoint, "unreachable")

    def check(self, endpoint: Endpoint, *passed: bool) -> bool:
        """Check an endpoint so often; return whether it is to be checked again soon."""
        return [self.endpoints.checked(endpoint, has_passed=each) for each in passed][-1]

    def first(self, *, may_try: bool = False) -> set[Endpoint]:
        """Return the endpoints that requests go to, over some of them."""
        return {self.endpoints.by_preference(may_try=may_try)[0] for _ in range(6)}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("relproxy.endpoints.spread", lambda seconds: seconds)
    clock, told = Clock(), Told()
    settings = Ejection(failures=3, base_s=10, max_s=60)
    endpoints = Endpoints(URLS, settings, told, clock=clock)
    return Watched(clock, told, endpoints, *endpoints.by_preference())


def test_an_endpoint_that_fails_three_times_in_a_row_is_ejected(watched: Watched) -> None:
    watched.endpoints.failed(watched.a, "timeout")
    watched.endpoints.failed(watched.a, "garbage")
    watched.endpoints.answered(watched.a, 404)
    watched.endpoints.failed(watched.a, "timeout")
    watched.endpoints.failed(watched.a, "timeout")
    assert watched.a in watched.first()
    watched.endpoints.failed(watched.a, "garbage")
    assert watched.first() == {watched.b, watched.c}
    assert watched.told.events == [("ejected", "http://a", "garbage")]


@pytest.mark.parametrize(
    ("status", "is_ejected"), [(500, False), (502, True), (503, True), (504, True), (429, False)]
)
def test_only_configured_statuses_are_failures(
    watched: Watched, status: int, *, is_ejected: bool
) -> None:
    for _ in range(3):
        watched.endpoints.answered(watched.a, status)
    assert (watched.a in watched.first()) is not is_ejected


def test_an_ejected_endpoint_is_the_last_resort_of_a_request(watched: Watched) -> None:
    watched.eject(watched.a)
    assert watched.endpoints.by_preference()[-1] is watched.a


def test_an_ejected_endpoint_is_tried_by_one_request_that_may_be_repeated(
    watched: Watched,
) -> None:
    watched.eject(watched.a)
    watched.clock.now += 9.9
    assert watched.a not in watched.first(may_try=True)
    watched.clock.now += 0.1
    assert watched.a not in watched.first()
    assert watched.first(may_try=True) == {watched.a}
    with watched.endpoints.attempt(watched.a):
        assert watched.a not in watched.first(may_try=True)
        watched.endpoints.answered(watched.a, 200)
    assert watched.a in watched.first()
    assert watched.told.events[1:] == [("returned", "http://a")]


def test_a_try_that_is_broken_off_leaves_the_endpoint_to_the_next(watched: Watched) -> None:
    watched.eject(watched.a)
    watched.clock.now += 10
    with pytest.raises(KeyboardInterrupt), watched.endpoints.attempt(watched.a):
        raise KeyboardInterrupt
    assert watched.first(may_try=True) == {watched.a}


def test_an_endpoint_is_out_twice_as_long_each_time_up_to_a_maximum(watched: Watched) -> None:
    watched.eject(watched.a)
    for _ in range(30):
        watched.clock.now += watched.told.out_s[-1]
        watched.endpoints.failed(watched.a, "unreachable")
    assert watched.told.out_s[:5] == [10, 20, 40, 60, 60]
    assert max(watched.told.out_s) == 60


def test_an_endpoint_that_was_well_for_long_is_out_briefly_again(watched: Watched) -> None:
    for well_s in (1, 61):
        watched.eject(watched.a)
        watched.clock.now += 60
        watched.endpoints.answered(watched.a, 200)
        watched.clock.now += well_s
    watched.eject(watched.a)
    assert watched.told.out_s == [10, 20, 10]


def test_requests_that_fail_all_at_once_are_one_reason_to_be_out(watched: Watched) -> None:
    for _ in range(100):
        watched.endpoints.failed(watched.a, "unreachable")
    assert watched.told.out_s == [10]


def test_an_answer_to_a_request_from_before_brings_no_endpoint_back(watched: Watched) -> None:
    watched.eject(watched.a)
    watched.endpoints.answered(watched.a, 200)
    assert watched.a not in watched.first()


def test_the_last_endpoint_is_kept_and_the_others_are_tried_at_once(watched: Watched) -> None:
    watched.eject(watched.a, watched.b)
    assert watched.a not in watched.first(may_try=True)
    watched.eject(watched.c)
    assert watched.told.events[-1] == ("kept", "http://c", "unreachable")
    assert watched.first() == {watched.c}
    assert watched.first(may_try=True) <= {watched.a, watched.b}


def test_a_kept_endpoint_that_answers_is_well_and_the_others_are_tried_at_once(
    watched: Watched,
) -> None:
    watched.eject(watched.a, watched.b, watched.c)
    for endpoint in (watched.a, watched.b):
        watched.endpoints.failed(endpoint, "unreachable")
    assert watched.first(may_try=True) == {watched.c}
    watched.endpoints.answered(watched.c, 200)
    assert watched.told.events[-1] == ("returned", "http://c")
    assert watched.first() == {watched.c}
    assert watched.first(may_try=True) <= {watched.a, watched.b}


def test_a_kept_endpoint_is_out_once_another_is_well(watched: Watched) -> None:
    watched.eject(watched.a, watched.b, watched.c)
    watched.endpoints.answered(watched.a, 200)
    assert watched.first() == {watched.a}


def test_the_only_endpoint_is_never_ejected() -> None:
    told = Told()
    endpoints = Endpoints(("http://a",), None, told)
    (endpoint,) = endpoints.by_preference()
    for _ in range(9):
        endpoints.failed(endpoint, "timeout")
    assert endpoints.by_preference() == (endpoint,)
    assert told.events == [("kept", "http://a", "timeout")]
    endpoints.answered(endpoint, 200)
    assert endpoint.is_well


def test_relproxies_do_not_all_try_at_the_same_moment() -> None:
    told = Told()
    for _ in range(50):
        endpoints = Endpoints(URLS, Ejection(base_s=10), told)
        endpoint = endpoints.by_preference()[0]
        for _ in range(3):
            endpoints.failed(endpoint, "timeout")
    assert len(set(told.out_s)) > 40
    assert all(8 <= out_s <= 12 for out_s in told.out_s)


WORDS = [f"6ba54504-706f-404a-82be-{number:012}" for number in range(300)]


def test_whoever_knows_the_same_endpoints_sends_an_image_to_the_same_one(watched: Watched) -> None:
    turned = Endpoints(URLS[::-1])
    chosen = [watched.endpoints.by_preference(stays_with=word)[0].url for word in WORDS]
    assert chosen == [turned.by_preference(stays_with=word)[0].url for word in WORDS]
    # Fixed for all versions: two of them may serve side by side.
    assert chosen[:6] == ["http://b", "http://c", "http://c", "http://a", "http://b", "http://b"]
    assert all(chosen.count(url) > 60 for url in URLS)


def test_an_endpoint_that_is_out_moves_none_but_its_own_images(watched: Watched) -> None:
    before = {word: watched.endpoints.by_preference(stays_with=word)[0] for word in WORDS}
    watched.eject(watched.a)
    after = {word: watched.endpoints.by_preference(stays_with=word) for word in WORDS}
    assert all(after[w][0] is before[w] for w in WORDS if before[w] is not watched.a)
    assert {after[w][0] for w in WORDS if before[w] is watched.a} == {watched.b, watched.c}
    assert {order[-1] for order in after.values()} == {watched.a}


def test_checks_that_fail_in_a_row_eject_an_endpoint_until_as_many_pass_as_it_takes(
    watched: Watched,
) -> None:
    assert watched.check(watched.a, False, False)
    assert not watched.check(watched.a, True)
    assert watched.a in watched.first()
    assert not watched.check(watched.a, False, False, False)
    assert watched.first(may_try=True) == {watched.b, watched.c}
    assert watched.check(watched.a, True)
    assert not watched.check(watched.a, False)
    assert watched.check(watched.a, True)
    assert watched.a not in watched.first()
    assert not watched.check(watched.a, True)
    assert watched.a in watched.first()
    assert watched.told.events == [("ejected", "http://a", "check"), ("returned", "http://a")]


def test_what_checks_have_ejected_no_request_brings_back(watched: Watched) -> None:
    """It may be drained: its requests are answered as ever."""
    watched.check(watched.a, False, False, False)
    watched.clock.now += 1000
    watched.endpoints.answered(watched.a, 200)
    assert watched.first(may_try=True) == {watched.b, watched.c}


def test_what_requests_have_ejected_a_check_brings_back_only_where_no_request_is_tried(
    watched: Watched,
) -> None:
    """Else whoever passes checks and fails requests would always be back at once."""
    watched.eject(watched.a)
    watched.clock.now += 10
    watched.check(watched.a, True, True)
    assert watched.a not in watched.first()
    watched.clock.now += 10
    watched.check(watched.a, True)
    assert watched.a in watched.first()


def test_an_endpoint_that_checks_and_requests_have_ejected_needs_both(watched: Watched) -> None:
    watched.eject(watched.a)
    watched.check(watched.a, False, False, False)
    watched.clock.now += 10
    assert watched.a not in watched.first(may_try=True)
    watched.check(watched.a, True, True)
    assert watched.a not in watched.first()
    assert watched.first(may_try=True) == {watched.a}


def test_the_last_endpoint_is_kept_whatever_checks_say(watched: Watched) -> None:
    for endpoint in (watched.a, watched.b, watched.c):
        watched.check(endpoint, False, False, False)
    assert watched.first() == {watched.c}
    assert watched.told.events[-1] == ("kept", "http://c", "check")
    watched.check(watched.a, True, True)
    assert watched.first() == {watched.a}
