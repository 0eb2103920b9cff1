from __future__ import annotations

from relproxy.identity.token_cache import TokenCache, TokenNames


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_kept_is_found_until_its_time_is_over() -> None:
    clock = Clock()
    cache: TokenCache[str] = TokenCache(2, clock)
    cache.keep(b"a", "one", for_s=10)
    clock.now += 9.9
    assert cache.get(b"a") == "one"
    clock.now += 0.1
    assert cache.get(b"a") is None
    assert len(cache) == 0


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    cache: TokenCache[str] = TokenCache(2, Clock())
    cache.keep(b"a", "one", for_s=10)
    cache.keep(b"b", "two", for_s=10)
    assert cache.get(b"a") == "one"
    cache.keep(b"c", "three", for_s=10)
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == ["one", None, "three"]
    assert len(cache) == 2


def test_what_is_over_is_forgotten_though_nobody_asks_for_it() -> None:
    clock = Clock()
    cache: TokenCache[str] = TokenCache(100, clock)
    for number in range(50):
        cache.keep(b"%d" % number, "one", for_s=10)
    clock.now += 1
    assert cache.get(b"7") == "one"
    clock.now += 9
    cache.keep(b"a", "one", for_s=10)
    assert len(cache) == 1


def test_what_is_kept_again_is_kept_once_and_anew() -> None:
    clock = Clock()
    cache: TokenCache[str] = TokenCache(2, clock)
    cache.keep(b"a", "one", for_s=10)
    clock.now += 5
    cache.keep(b"a", "two", for_s=10)
    clock.now += 9
    assert cache.get(b"a") == "two"
    assert len(cache) == 1


def test_a_name_says_nothing_of_its_token() -> None:
    names, others = TokenNames(), TokenNames()
    name = names.name("secret", allow_expired=False)
    assert b"secret" not in name
    assert name == names.name("secret", allow_expired=False)
    # A key of its own for each process: nobody can look a token up by its hash.
    assert name != others.name("secret", allow_expired=False)


def test_a_token_whose_end_did_not_count_is_known_by_another_name() -> None:
    names = TokenNames()
    assert names.name("t", allow_expired=True) != names.name("t", allow_expired=False)
    assert names.name("t\0expired", allow_expired=False) != names.name("t", allow_expired=True)
