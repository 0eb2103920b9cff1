from __future__ import annotations

import socket

import pytest

from relproxy.errors import ConfigurationError
from relproxy.sockets import bind_to


def test_a_name_is_bound_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    bound = bind_to("admin.bind", "localhost:0")
    assert [each.getsockname()[0] for each in bound] == ["127.0.0.1", "127.0.0.2"]
    for each in bound:
        each.close()


def test_an_address_that_this_host_lacks_is_left_out_if_another_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (only,) = bind_to("admin.bind", "localhost:0")
    assert only.getsockname()[0] == "127.0.0.1"
    only.close()


def test_an_address_that_this_host_lacks_is_a_sentence() -> None:
    with pytest.raises(ConfigurationError) as refused:
        bind_to("listener 'public'", "192.0.2.1:0")
    assert str(refused.value) == (
        "listener 'public': can't listen on 192.0.2.1:0: Cannot assign requested address."
    )


def test_a_port_in_use_is_a_sentence_and_holds_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="the port is in use"):
            bind_to("admin.bind", f"127.0.0.1:{port}")


def test_a_name_that_nobody_knows_is_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"can't listen on no\.such\.invalid:0: \w"):
        bind_to("admin.bind", "no.such.invalid:0")
