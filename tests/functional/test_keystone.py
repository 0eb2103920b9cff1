"""A create in doubt at a real Glance that validates tokens with a real Keystone."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.glance import Glance
from lab.keystone import PASSWORD, Keystone
from lab.processes import PartFailedError
from lab.relproxy import Relproxy
from relproxy.config import Timeouts
from relproxy.config_identity import Credentials
from relproxy.errors import KeystoneUnavailableError
from relproxy.keystone import KeystoneApi, KeystoneLogin
from relproxy.store.journal_file import JournalFile
from relproxy.upstream import open_session
from tests.entries import doubtful

EVENTUALLY_S = 60.0


@pytest.fixture(scope="module")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    started = Keystone(tmp_path_factory.mktemp("keystone"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def glance(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glance]:
    started = Glance(tmp_path_factory.mktemp("glance"), "keystone", keystone=keystone)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture
def credentials(keystone: Keystone, secret: Path) -> Credentials:
    return Credentials(
        auth_url=keystone.auth_url, username="admin", project="admin", password_file=secret
    )


def log_in(credentials: Credentials, session: aiohttp.ClientSession) -> KeystoneLogin:
    return KeystoneLogin(credentials, KeystoneApi(credentials.auth_url, session, timeout_s=15))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(Timeouts()) as opened:
        yield opened


async def test_one_log_in_serves_until_it_is_forgotten(
    credentials: Credentials, session: aiohttp.ClientSession, glance: Glance
) -> None:
    login = log_in(credentials, session)
    answers = await asyncio.gather(*(login.headers() for _ in range(8)))
    assert len(set(answers)) == 1
    ((name, token),) = answers[0]
    assert name == "X-Auth-Token"
    async with session.get(f"{glance.url}/v2/images", headers={name: token}) as shown:
        assert shown.status == 200
    login.forget((("X-Auth-Token", "an older one"),))
    assert await login.headers() == answers[0]
    login.forget(answers[0])
    # Fernet tokens carry when they were made to the second, and a nonce.
    assert await login.headers() != answers[0]


async def test_a_wrong_password_is_a_sentence_without_it(
    credentials: Credentials, session: aiohttp.ClientSession, secret: Path
) -> None:
    await asyncio.to_thread(secret.write_text, "not-the-password")
    with pytest.raises(KeystoneUnavailableError, match="answers 401 to relproxy's own") as failure:
        await log_in(credentials, session).headers()
    assert "not-the-password" not in str(failure.value)
    await asyncio.to_thread(secret.unlink)
    with pytest.raises(KeystoneUnavailableError, match="can't be read"):
        await log_in(credentials, session).headers()


async def test_a_keystone_that_is_away_is_a_sentence(
    credentials: Credentials, session: aiohttp.ClientSession
) -> None:
    away = credentials.model_copy(update={"auth_url": "http://127.0.0.1:1/v3"})
    with pytest.raises(KeystoneUnavailableError, match="can't be reached"):
        await log_in(away, session).headers()


def call(url: str, token: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"X-Auth-Token": token, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


async def eventually(is_so: Callable[[], bool], relproxy: Relproxy) -> None:
    try:
        async with asyncio.timeout(EVENTUALLY_S):
            while not is_so():  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise PartFailedError(relproxy.log.read_text()) from None


async def test_a_create_in_doubt_is_settled_with_relproxys_own_token(
    glance: Glance, keystone: Keystone, credentials: Credentials, tmp_path: Path
) -> None:
    token = keystone.token()
    made = call(f"{glance.url}/v2/images", token, {"name": "one"})
    home = tmp_path / "relproxy"
    (home / "journal").mkdir(parents=True)
    file = JournalFile(home / "journal" / "worker-7.db")
    own = doubtful(made["id"], project="another")
    assert file.together([lambda: file.add([own])]) == [None]
    file.close()
    relproxy = Relproxy(
        home,
        {
            "registries": [
                {
                    "name": "glance",
                    "tenancy": "registry",
                    "endpoints": [glance.url],
                    "credentials": json.loads(credentials.model_dump_json(exclude_unset=True)),
                }
            ],
            "routes": [{"name": "all", "registry": "glance"}],
        },
    )
    relproxy.start()
    try:

        def project() -> str | None:
            found = call(f"{relproxy.admin_url}/v1/relations?image_id={made['id']}", token)
            records = found["relations"]
            return records[0]["project"] if records else None

        await eventually(lambda: project() is not None, relproxy)
        # Whose it is, the registry says.
        assert project() == made["owner"]
        assert PASSWORD not in relproxy.log.read_text()
    finally:
        relproxy.stop()
