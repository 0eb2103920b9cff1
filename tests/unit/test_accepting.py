"""How many clients may be connected, by how many descriptors there are."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from typing import Any

import pytest

from relproxy.accepting import most_connections
from relproxy.config import Configuration

GRANTED = 4096
# Those that a process has for itself.
OWN = 128


@pytest.fixture(autouse=True)
def _granted() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (GRANTED, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def given(connections: int | None, **settings: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
            "registries": [
                {"name": "r", "tenancy": "relproxy", "endpoints": ["http://127.0.0.1:1"]}
            ],
            "routes": [{"name": "all", "registry": "r"}],
            "store": {},
            "concurrency": {"connections": connections},
            **settings,
        }
    )


def test_each_connection_has_room_for_one_to_a_registry(caplog: pytest.LogCaptureFixture) -> None:
    assert most_connections(given(None)) == (GRANTED - OWN) // 2
    assert not caplog.records


def test_connections_to_the_store_have_room_of_their_own() -> None:
    store = {"driver": "postgres", "dsn": "postgresql://a@127.0.0.1:1/b", "connections": 200}
    assert most_connections(given(None, store=store)) == (GRANTED - OWN - 200) // 2


def test_what_is_configured_counts_and_is_warned_of_where_it_is_much(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert most_connections(given(100)) == 100
    assert not caplog.records
    assert most_connections(given(3000)) == 3000
    (said,) = caplog.records
    assert (said.getMessage(), said.levelno) == ("descriptors are few", logging.WARNING)
    assert vars(said)["needed"] == 2 * 3000 + OWN


def test_clients_never_get_the_last_descriptors() -> None:
    assert most_connections(given(100_000)) == GRANTED - OWN


def test_a_low_limit_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    assert most_connections(given(None)) == (1024 - OWN) // 2
    (said,) = caplog.records
    assert vars(said)["descriptors"] == 1024
    assert vars(said)["needed"] == 2 * 1000 + OWN
