from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from relproxy.account import Account, Accounts
from relproxy.errors import ConfigurationError
from relproxy.metrics import Metrics
from relproxy.spans import Spans, opened_spans
from tests.unit.given import request_head

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def sent() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.clear()


def account_of(flags: str | None, sent: InMemorySpanExporter, status: int = 200) -> Account:
    """Run a request through, and return its account."""
    accounts = Accounts(Metrics(), Spans(SimpleSpanProcessor(sent)).tell)
    fields = [("traceparent", f"00-{TRACE}-{PARENT}-{flags}")] if flags else []
    with accounts.one(lambda: False) as account:
        account.came_in(request_head("/v2/images?limit=1", *fields))
        account.matched(route="all", registry="glance", treatment="list", operation="image-list")
        account.project, account.status = "alice", status
    return account


def only(sent: InMemorySpanExporter) -> ReadableSpan:
    (span,) = sent.get_finished_spans()
    return span


def test_a_span_is_relproxys_part_of_the_trace(sent: InMemorySpanExporter) -> None:
    account = account_of("01", sent)
    span = only(sent)
    assert account.trace is not None
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.context.span_id:016x}" == account.trace.span
    assert f"{span.parent.span_id:016x}" == PARENT
    assert (span.name, span.kind) == ("image-list", SpanKind.SERVER)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == int(account.total_s * 1e9)
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["url.path"] == "/v2/images"
    assert span.attributes["relproxy.project"] == "alice"
    assert span.attributes["relproxy.request_id"] == account.request_id
    assert span.resource.attributes["service.name"] == "relproxy"


@pytest.mark.parametrize("flags", [None, "00", "02"])
def test_a_trace_that_nobody_keeps_has_no_span(
    sent: InMemorySpanExporter, flags: str | None
) -> None:
    account_of(flags, sent)
    assert sent.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, StatusCode.UNSET), (404, StatusCode.UNSET), (502, StatusCode.ERROR)],
)
def test_a_span_has_failed_if_the_server_has(
    sent: InMemorySpanExporter, status: int, code: StatusCode
) -> None:
    account_of("01", sent, status)
    assert only(sent).status.status_code is code


def test_the_operator_names_the_service(
    sent: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "images-east")
    account_of("01", sent)
    assert only(sent).resource.attributes["service.name"] == "images-east"


async def test_without_the_extra_spans_are_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'relproxy\[otel\]'"):
        async with opened_spans():
            pass


async def test_spans_arrive_at_the_collector_before_relproxy_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        arrived.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    async with server, opened_spans() as spans:
        with Accounts(Metrics(), spans.tell).one(lambda: False) as account:
            account.came_in(request_head("/", ("traceparent", f"00-{TRACE}-{PARENT}-01")))
    (body,) = arrived
    assert bytes.fromhex(TRACE) in body
