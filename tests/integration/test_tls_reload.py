"""New certificates, and sockets that are files, as real processes: nothing fails meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from lab.relproxy import Relproxy, command
from lab.stand_in import StandIn
from relproxy.unix_sockets import file_id
from tests.authority import Authority
from tests.integration.test_reload import (
    ALICE,
    PATIENCE_S,
    TARGET,
    Load,
    each_way,
    events,
    eventually,
    loaded,
    metric,
    settings,
    shows,
)

EXPIRY = 'relproxy_tls_certificate_expiry_timestamp_seconds{listener="public"}'


@asynccontextmanager
async def started(relproxy: Relproxy) -> AsyncIterator[Relproxy]:
    await asyncio.to_thread(relproxy.start)
    try:
        await eventually(lambda: shows(relproxy, "serving", relproxy.workers))
        yield relproxy
    finally:
        await asyncio.to_thread(relproxy.kill)


def secured(
    home: Path, url: str, tls: dict[str, Any], workers: int, *, notice_s: float = 1
) -> Relproxy:
    relproxy = Relproxy(home, settings(url, notice_s=notice_s), workers=workers)
    listener = {"name": "public", "bind": f"127.0.0.1:{relproxy.port}", "tls": tls}
    relproxy.settings = {**relproxy.settings, "listeners": [listener]}
    return relproxy


@dataclass
class SecuredLoad(Load):
    """Clients that speak TLS."""

    context: ssl.SSLContext | None = None

    def _session(self) -> aiohttp.ClientSession:
        assert self.context is not None
        session = aiohttp.ClientSession(
            headers=ALICE,
            timeout=aiohttp.ClientTimeout(PATIENCE_S),
            connector=aiohttp.TCPConnector(ssl=self.context),
        )
        session._retry_connection = False  # noqa: SLF001
        return session


async def shown(relproxy: Relproxy) -> bytes:
    """Return the fingerprint of the certificate that a new connection is shown."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", relproxy.port))
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256())


def first_of(tls: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificates(Path(tls["certificate_file"]).read_bytes())[0]


def fingerprint(tls: dict[str, Any]) -> bytes:
    return first_of(tls).fingerprint(hashes.SHA256())


@each_way
async def test_a_new_certificate_is_taken_and_no_request_fails(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server()
    async with started(secured(tmp_path / "r", noauth.url, tls, workers)) as relproxy:
        old = await shown(relproxy)
        assert old == fingerprint(tls)
        load = SecuredLoad([f"https://127.0.0.1:{relproxy.port}"], context=authority.trusting())
        async with loaded(load):
            for number in (1, 2):
                await load.goes_on()
                authority.server()
                relproxy.reload()
                await eventually(partial(shows, relproxy, "configuration reloaded", number))
                assert await shown(relproxy) == fingerprint(tls) != old
            await load.goes_on()
            await eventually(lambda: shows(relproxy, "journal adopted"))
        assert load.failed == []
        assert events(relproxy, "worker died") == events(relproxy, "worker killed") == []
        assert await asyncio.to_thread(relproxy.stop) == 0


async def test_who_has_connected_and_shaken_no_hand_yet_is_served_by_who_is_replaced(
    tmp_path: Path, noauth: StandIn
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server()
    relproxy = secured(tmp_path / "r", noauth.url, tls, 1, notice_s=PATIENCE_S)
    async with started(relproxy):
        old = await shown(relproxy)
        with socket.create_connection(("127.0.0.1", relproxy.port)) as plain:
            # Who came later was accepted, so this one was.
            assert await shown(relproxy) == old
            authority.server()
            relproxy.reload()
            await eventually(lambda: shows(relproxy, "configuration reloaded"))
            assert await shown(relproxy) != old
            plain.setblocking(False)
            reader, writer = await asyncio.open_connection(
                sock=plain, ssl=authority.trusting(), server_hostname="127.0.0.1"
            )
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert hashlib.sha256(der).digest() == old
            writer.write(
                f"GET {TARGET} HTTP/1.1\r\nHost: a\r\nX-Project-Id: alice\r\n\r\n".encode()
            )
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in answer
            writer.close()


@each_way
async def test_a_certificate_that_will_not_do_is_refused_and_the_old_one_is_shown_on(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server()
    async with started(secured(tmp_path / "r", noauth.url, tls, workers)) as relproxy:
        old, expiry = await shown(relproxy), await metric(relproxy, EXPIRY)
        assert expiry == first_of(tls).not_valid_after_utc.timestamp()
        # Somebody has written one of the two files.
        other = authority.server("other")
        shutil.copy(other["key_file"], tls["key_file"])
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "reload refused"))
        (refused,) = events(relproxy, "reload refused")
        assert "listeners[0].tls.key_file" in refused["reason"]
        assert "isn't the key of the certificate" in refused["reason"]
        assert await metric(relproxy, "relproxy_config_reload_last_successful") == 0
        assert await shown(relproxy) == old
        if workers > 1:
            # Who follows a dead worker has what its siblings have, whatever the files hold.
            (pid, *_) = [line["pid"] for line in events(relproxy, "worker serves")]
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: shows(relproxy, "worker serves", workers + 1))
            assert {await shown(relproxy) for _ in range(10)} == {old}
        shutil.copy(other["certificate_file"], tls["certificate_file"])
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await shown(relproxy) == fingerprint(other)
        assert await metric(relproxy, "relproxy_config_reload_last_successful") == 1


def test_a_start_with_a_certificate_that_will_not_do_is_refused(
    tmp_path: Path,
) -> None:
    tls = Authority(tmp_path).server()
    Path(tls["key_file"]).unlink()
    relproxy = secured(tmp_path / "r", "http://127.0.0.1:1", tls, workers=1)
    relproxy.home.mkdir()
    relproxy.configuration.write_text(yaml.safe_dump(relproxy._configuration()))  # noqa: SLF001
    for name, status in {"serve": os.EX_CONFIG, "check": 1}.items():
        ended = command(name, "--config", str(relproxy.configuration))
        assert ended.returncode == status
        assert "listeners[0].tls.key_file: " in ended.stdout + ended.stderr
        assert "can't be read: No such file or directory." in ended.stdout + ended.stderr


# -- sockets that are files


def on_a_socket(home: Path, url: str, path: Path, workers: int) -> Relproxy:
    relproxy = Relproxy(home, settings(url, notice_s=1), workers=workers)
    listener = {"name": "public", "bind": f"unix:{path}", "fronted": True, "socket_mode": "0600"}
    relproxy.settings = {
        **relproxy.settings,
        "listeners": [listener],
        "fronts": {"header": "x-forwarded-for"},
    }
    return relproxy


async def status_at(path: Path) -> int:
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(path)),
                # Whom a front names, here one that is trusted to name the caller.
                headers={**ALICE, "X-Forwarded-For": "127.0.0.1"},
            ) as session,
            session.get(f"http://images{TARGET}") as answered,
        ):
            await answered.read()
            return answered.status
    except aiohttp.ClientConnectionError:
        return 0


@each_way
async def test_a_socket_is_kept_by_a_reload_and_removed_at_the_end(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    path = tmp_path / "s"
    async with started(on_a_socket(tmp_path / "r", noauth.url, path, workers)) as relproxy:
        made = path.stat()
        assert stat.S_IMODE(made.st_mode) == 0o600
        assert await status_at(path) == 200
        (listener,) = relproxy.settings["listeners"]
        relproxy.reload(listeners=[{**listener, "socket_mode": "0666"}])
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert path.stat().st_ino == made.st_ino
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert await status_at(path) == 200
        # Somebody has tidied up.
        path.unlink()
        relproxy.reload(listeners=[listener])
        await eventually(lambda: shows(relproxy, "configuration reloaded", 2))
        assert await status_at(path) == 200
        relproxy.reload(
            listeners=[{"name": "public", "bind": f"127.0.0.1:{relproxy.port}"}], fronts={}
        )
        await eventually(lambda: shows(relproxy, "configuration reloaded", 3))
        assert not path.exists()
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "configuration reloaded", 4))
        assert await status_at(path) == 200
        assert await asyncio.to_thread(relproxy.stop) == 0
        assert not path.exists()


async def test_what_a_crash_left_over_is_replaced_and_what_lives_is_not(
    tmp_path: Path, noauth: StandIn
) -> None:
    path = tmp_path / "s"
    async with started(on_a_socket(tmp_path / "r", noauth.url, path, 1)) as relproxy:
        left = file_id(str(path))
        await asyncio.to_thread(relproxy.kill)
        assert path.exists()
        assert await status_at(path) == 0
        await asyncio.to_thread(relproxy.start)
        assert file_id(str(path)) != left
        second = on_a_socket(tmp_path / "second", noauth.url, path, 1)
        second.home.mkdir()
        second.configuration.write_text(yaml.safe_dump(second._configuration()))  # noqa: SLF001
        ended = await asyncio.to_thread(command, "serve", "--config", str(second.configuration))
        assert ended.returncode == os.EX_CONFIG
        assert "somebody listens there" in ended.stderr
        assert await status_at(path) == 200
        # Another one has taken its place meanwhile: that one's file stays.
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert await asyncio.to_thread(relproxy.stop) == 0
            assert path.exists()
