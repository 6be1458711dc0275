"""Spans by the SDK of OpenTelemetry, sent to a collector by OTLP over HTTP. Loaded where that is wanted."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from xmppd import __version__
from xmppd.seeing.spans import NO_ATTRIBUTES, Attributes, Span, Spans

log = logging.getLogger(__name__)

MOST: Final = 4096
"""Spans that wait to be sent."""
BATCH: Final = 512
"""Spans of one request to the collector."""
EVERY_SECONDS: Final = 1.0
"""After what time fewer are sent."""
EXPORT_SECONDS: Final = 5.0
"""How long the collector may take for one."""


class OtelSpan:
    """A span, which has one of the SDK if it was sampled. When it is over nothing of that is held any more by
    who still knows it.
    """

    __slots__ = ("_span", "_tracer", "is_over")

    def __init__(self, tracer: Tracer, span: SdkSpan | None) -> None:
        self._tracer = tracer
        self._span = span
        self.is_over = False

    @property
    def is_recorded(self) -> bool:
        """See `Span.is_recorded`."""
        return self._span is not None

    def child(
        self,
        name: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        began: int | None = None,
        asks: bool = False,
    ) -> Span:
        """See `Span.child`."""
        if self._span is None:
            return OtelSpan(self._tracer, None)
        context = set_span_in_context(self._span, Context())
        kind = SpanKind.CLIENT if asks else SpanKind.INTERNAL
        begun = self._tracer.start_span(name, context, kind, attributes, start_time=began)
        return OtelSpan(self._tracer, begun)

    def name(self, name: str) -> None:
        """See `Span.name`."""
        if self._span is not None:
            self._span.update_name(name)

    def set(self, name: str, value: str | int | bool) -> None:
        """See `Span.set`."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def end(self, problem: str = "") -> None:
        """See `Span.end`."""
        self.is_over = True
        span, self._span = self._span, None
        if span is None:
            return
        if problem:
            span.set_attribute("error.type", problem)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class Export(SpanProcessor):
    """Spans that have ended, on their way to an exporter, which a thread of its own calls: no more than MOST
    wait, further ones are dropped.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.counts = {"exported": 0, "failed": 0, "dropped": 0}
        self._exporter = exporter
        self._waiting: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._is_closing = self._is_left = False
        self._is_well = True
        # A daemon: no end of the process waits for a collector that does not answer.
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """One more."""
        if self._is_closing or len(self._waiting) >= MOST:
            self.counts["dropped"] += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= BATCH:
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Send what is there, for so many seconds at most; harmless if repeated."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive() and not self._is_left:
            self._is_left = True
            self.counts["dropped"] += len(self._waiting)
            log.warning("spans-left", extra={"spans": len(self._waiting)})

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            self._send()
        self._send()
        self._exporter.shutdown()

    def _send(self) -> None:
        while self._waiting and not self._is_left:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                is_sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
            except Exception:  # noqa: BLE001 - an exporter's mistake must not end the thread
                is_sent = False
            self.counts["exported" if is_sent else "failed"] += len(batch)
            if is_sent is not self._is_well:
                self._is_well = is_sent
                log.log(*((logging.INFO, "spans-sent") if is_sent else (logging.WARNING, "spans-not-sent")))


class OtelSpans:
    """Spans of a service that exports them; a `ratio` of those that are part of no other is recorded."""

    def __init__(self, exporter: SpanExporter, service_name: str, ratio: float) -> None:
        self._export = Export(exporter)
        resource = Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: __version__})
        sampler = ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._export)
        self._tracer = self._provider.get_tracer("xmppd", __version__)
        self._carried = TraceContextTextMapPropagator()

    @property
    def counts(self) -> Mapping[str, int]:
        """See `Spans.counts`."""
        return self._export.counts

    def begin(
        self,
        name: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        began: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Span:
        """See `Spans.begin`."""
        context, kind = Context(), SpanKind.INTERNAL
        if headers is not None:
            context, kind = self._carried.extract(headers, context), SpanKind.SERVER
        begun = self._tracer.start_span(name, context, kind, attributes, start_time=began)
        return OtelSpan(self._tracer, begun if begun.is_recording() else None)

    def close(self, seconds: float) -> None:
        """See `Spans.close`."""
        self._export.close(seconds)


def exported(endpoint: str, service_name: str, ratio: float) -> Spans:
    """Spans that go to the collector at a URL."""
    # It says with every request that it failed; `Export` says when that begins.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return OtelSpans(OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS), service_name, ratio)
