from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from relproxy.logs import JSONLines, tell_request, write_log


def line(message: str, *arguments: object, **extra: object) -> str:
    record = logging.makeLogRecord(
        {"name": "relproxy.proxy", "levelname": "INFO", "msg": message, "args": arguments, **extra}
    )
    return JSONLines().format(record)


def test_an_event_is_one_object_with_its_fields() -> None:
    logged = json.loads(line("request refused", status=404, route="east"))

    assert datetime.fromisoformat(logged.pop("time")).tzinfo is not None
    assert logged == {
        "level": "INFO",
        "event": "request refused",
        "logger": "relproxy.proxy",
        "status": 404,
        "route": "east",
    }


def test_an_event_of_a_worker_says_whose_it_is() -> None:
    record = logging.makeLogRecord({"name": "relproxy.proxy", "msg": "serving"})

    assert json.loads(JSONLines(worker=0).format(record))["worker"] == 0
    assert "worker" not in json.loads(JSONLines().format(record))


def test_an_event_is_one_line_whatever_it_carries() -> None:
    logged = line("a\nb", target="/v2\r\nfaked: line\u2028\x85")

    assert len(logged.splitlines()) == 1
    assert logged.isascii()


def test_a_field_that_json_does_not_know_is_text() -> None:
    logged = json.loads(line("opened", path=Path("/var/lib/relproxy"), names={"a"}))

    assert logged["path"] == "/var/lib/relproxy"
    assert logged["names"] == "{'a'}"


def test_the_arguments_of_a_message_are_put_in() -> None:
    assert json.loads(line("%s of %d", "one", 2))["event"] == "one of 2"


def test_an_exception_is_a_field() -> None:
    failure = OSError("disk full")

    logged = json.loads(line("failed", exc_info=(OSError, failure, None)))

    assert logged["exception"] == "OSError: disk full"


def test_the_line_of_a_request_has_the_requests_fields_and_says_whose_it_is() -> None:
    record = logging.makeLogRecord({"name": "relproxy.access", "levelname": "INFO"})
    record.msg = {"status": 200, "path": "/v2/images"}

    logged = json.loads(JSONLines(worker=1).format(record))

    assert logged.pop("time")
    assert logged == {
        "level": "INFO",
        "event": "request",
        "logger": "relproxy.access",
        "worker": 1,
        "status": 200,
        "path": "/v2/images",
    }


@pytest.fixture
def kept_root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("kept_root")
def test_the_log_goes_to_standard_error_from_its_level_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_log("WARNING")

    logging.getLogger("relproxy.test").info("too quiet")
    logging.getLogger("relproxy.test").warning("loud enough", extra={"n": 1})

    captured = capsys.readouterr()
    assert captured.out == ""
    (only,) = captured.err.splitlines()
    assert json.loads(only)["event"] == "loud enough"


@pytest.mark.usefixtures("kept_root")
def test_requests_are_told_whatever_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    write_log("ERROR")

    tell_request({"status": 200})

    (only,) = capsys.readouterr().err.splitlines()
    assert json.loads(only)["status"] == 200
