from __future__ import annotations

import asyncio
import json
import logging

import pytest

from relproxy.account import Account, Accounts, current
from relproxy.errors import RegistryGarbageError
from relproxy.logs import JSONLines
from relproxy.metrics import Metrics
from tests.unit.given import request_head


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2/images?token=secret", "/v2/images"),
        ("/v2/images#secret", "/v2/images"),
        ("http://user:secret@a/v2/images?x=secret", "/v2/images"),
        ("http://secret", "/"),
        ("*", "*"),
        ("/" + "a" * 400, "/" + "a" * 299 + "..."),
    ],
)
def test_a_path_is_told_without_what_may_be_secret_and_cut(target: str, path: str) -> None:
    account = Account()
    account.came_in(request_head(target))
    assert account.path == path


@pytest.mark.parametrize("sign", ["\udcff", "\u2028", '"', "\x1b", "\0"])
def test_a_line_fits_what_a_pipe_takes_at_once_whatever_was_asked_for(sign: str) -> None:
    name = "n" * 64
    account = Account(endpoint=f"http://{'e' * 253}:65535", route=name, registry=name)
    fields = (
        ("X-OpenStack-Request-ID", "req-0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    )
    account.came_in(request_head("/" + sign * 5000, *fields, method="M" * 5000, listener=name))
    account.project, account.registry_request_id = '"' * 255, "r" * 64
    assert account.global_request_id
    assert account.trace
    record = logging.makeLogRecord({"name": "relproxy.access"})
    record.msg = account.told()
    line = JSONLines(worker=255).format(record)
    assert len(line) < 4096
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["path"].startswith("/" + sign)


async def test_the_account_is_that_of_every_task_of_its_request_and_of_no_other() -> None:
    accounts = Accounts(Metrics())

    async def found() -> Account:
        return current()

    async def one() -> tuple[Account, Account]:
        with accounts.one(lambda: False) as account:
            await asyncio.sleep(0)
            return account, await asyncio.create_task(found())

    (a, of_a), (b, of_b) = await asyncio.gather(one(), one())
    assert a is of_a
    assert b is of_b
    assert a is not b
    assert current() not in (a, b)


@pytest.mark.parametrize(
    ("failure", "has_left", "by"),
    [
        (asyncio.CancelledError(), True, "client"),
        (asyncio.CancelledError(), False, "relproxy"),
        (ConnectionResetError(), True, "client"),
        (RegistryGarbageError("A broken header."), False, "relproxy"),
        (RuntimeError("a bug"), False, "relproxy"),
    ],
)
def test_who_ended_a_request_is_told(failure: BaseException, by: str, *, has_left: bool) -> None:
    told: list[Account] = []
    metrics = Metrics()
    accounts = Accounts(metrics, told.append)
    with pytest.raises(type(failure)), accounts.one(lambda: has_left):
        raise failure
    assert [account.cut_off for account in told] == [by]
    labels = {"route": "none", "by": by}
    count = metrics.collectors.get_sample_value("relproxy_requests_cut_off_total", labels)
    assert count == 1
