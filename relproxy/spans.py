"""OpenTelemetry spans: one for each request of a trace that is kept. Needs the extra `otel`.

A span is made when its request is over, of the account, so that spans cost nothing on the way. They
wait in a queue of the SDK's, whose own thread sends them; what it can't send is dropped. Where they
go is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and the like).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from relproxy import __version__
from relproxy.account import Account
from relproxy.errors import ConfigurationError
from relproxy.filters.trace import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

# For what still waits to be sent when relproxy ends; a collector that is away isn't waited for.
_CLOSE_S = 2.0
_NS = 1_000_000_000

# Fields of an account -> attributes. Those without a dot before them are OpenTelemetry's own.
_ATTRIBUTES: Mapping[str, str] = {
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "bytes_in": "http.request.body.size",
    "bytes_out": "http.response.body.size",
    "source": "client.address",
}
# They are the span's own.
_LEFT_OUT = frozenset({"trace_id", "span_id", "parent_id", "total_s"})


@asynccontextmanager
async def opened_spans() -> AsyncIterator[Spans]:
    """Lend what makes spans and has them sent.

    Raises `ConfigurationError` without the packages for it.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
    except ImportError as failure:
        sentence = "log.spans: needs what `pip install 'relproxy[otel]'` installs."
        raise ConfigurationError((sentence,)) from failure
    processor = BatchSpanProcessor(OTLPSpanExporter())
    try:
        yield Spans(processor)
    finally:
        ending = threading.Thread(target=processor.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _CLOSE_S)


class Spans:
    """Makes a span of each account whose trace is kept."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra

        self._processor = processor
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say more.
        self._resource = Resource.create({"service.version": __version__, **_name()})

    def tell(self, account: Account) -> None:
        """Have the span of a request sent, if whoever began its trace keeps it."""
        trace = account.trace
        if trace is not None and trace.is_sampled:
            self._processor.on_end(self._span(account, trace))

    def _span(self, account: Account, trace: Trace) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - an extra
        from opentelemetry.trace import (  # noqa: PLC0415 - the same
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
        )

        ended_ns = time.time_ns()
        flags = TraceFlags(trace.flags)

        def context(span: str, *, is_remote: bool) -> SpanContext:
            return SpanContext(int(trace.id, 16), int(span, 16), is_remote, flags)

        return ReadableSpan(
            # Never the path: there are as many as images.
            account.operation or "request",
            context=context(trace.span, is_remote=False),
            parent=context(trace.parent, is_remote=True),
            resource=self._resource,
            attributes=_attributes(account),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if account.has_failed else StatusCode.UNSET),
            start_time=ended_ns - int(account.total_s * _NS),
            end_time=ended_ns,
        )


def _name() -> Mapping[str, str]:
    """Return what the service is called, unless the operator says so."""
    return {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "relproxy"}


def _attributes(account: Account) -> dict[str, str | int | float]:
    return {
        _ATTRIBUTES.get(name, f"relproxy.{name}"): value
        for name, value in account.told().items()
        if name not in _LEFT_OUT and isinstance(value, str | int | float)
    }
