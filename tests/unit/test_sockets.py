from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from relproxy.config import Configuration
from relproxy.errors import ConfigurationError
from relproxy.sockets import bind_all, bind_to, missing_places
from tests.unit.test_config import LEAST


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


def test_a_socket_is_no_wider_open_than_it_was_meant(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for mode in ("0600", "0660", "0666"):
            path = tmp_path / mode
            (bound,) = bind_to("listener 'public'", f"unix:{path}", mode)
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
            bound.close()
    finally:
        os.umask(before)


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    (left,) = bind_to("admin.bind", f"unix:{path}")
    left.close()
    (bound,) = bind_to("admin.bind", f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    bound.close()


def test_a_socket_that_somebody_listens_on_is_a_sentence_and_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    (living,) = bind_to("admin.bind", f"unix:{path}")
    with pytest.raises(ConfigurationError) as refused:
        bind_to("admin.bind", f"unix:{path}")
    assert str(refused.value) == (
        f"admin.bind: can't listen on unix:{path}: somebody listens there, or it is no socket."
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    living.close()


def test_a_socket_with_a_full_queue_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    (living,) = bind_to("admin.bind", f"unix:{path}")
    living.listen(0)
    with ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(path)
        with pytest.raises(ConfigurationError, match="somebody listens there"):
            bind_to("admin.bind", f"unix:{path}")
    living.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="it is no socket"):
        bind_to("admin.bind", f"unix:{path}")
    assert path.exists() or path.is_symlink()


def test_a_missing_directory_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "s"
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        bind_to("admin.bind", f"unix:{path}")
    configuration = Configuration.model_validate(
        LEAST | {"listeners": [{"name": "public", "bind": f"unix:{path}"}]}
    )
    assert [*missing_places(configuration)] == [
        f"listeners[0].bind: unix:{path}: there is no directory {path.parent}."
    ]


def test_files_that_were_made_go_again_if_a_later_address_can_not_be_bound(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = [
        {"name": "public", "bind": f"unix:{path}"},
        {"name": "other", "bind": f"unix:{tmp_path}/missing/s"},
    ]
    with pytest.raises(ConfigurationError):
        bind_all(Configuration.model_validate(LEAST | {"listeners": listeners}))
    assert not path.exists()
