"""Traces of requests, which are sent to an OpenTelemetry collector.

    server span    POST /sessions/{session}/steps: route, model, session, status
      receive      the request is read, decoded and checked
      queue        it waits for the turn of its session, and for its first batch
      tick         its steps are computed, from its first batch to its last
      commit       its steps are written
      send         its answer is encoded and sent

A request of many runs, such as a batch to infer, has each of these spans once: from the first to the last of its runs.
Spans are made when the request has ended. A server without an endpoint makes no `Tracing`, and does not import
OpenTelemetry's SDK.
"""

import asyncio
import contextlib
import functools
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from app.engine.run import Outcome, Run
from app.errors import EngramError
from app.logs import Asked
from app.settings import Settings, SettingsError
from app.version import version

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of OpenTelemetry that name a collector: the whole URL of its traces, or the URL below which they are."""

TRACES_PATH = "/v1/traces"

STOP_SECONDS = 1.0
"""Seconds that a stopping server waits, at most, until its last spans are sent."""

PROPAGATED = (b"traceparent", b"tracestate")

HASH_DIGITS = 16
"""Hexadecimal digits of the hash that stands for the id of a session."""


class RequestTrace:
    """The times of one request, by time.perf_counter; 0 for what has not happened."""

    def __init__(self, asked: Asked | None) -> None:
        self.asked = asked
        self.error: EngramError | None = None
        """The error that ended the channel of a frame."""
        self.began = time.perf_counter()
        self.offset = time.time_ns() - round(self.began * 1e9)
        self.models: set[str] = set()
        self.submitted = 0.0
        self.stepping = 0.0
        self.stepped = 0.0
        self.answered = 0.0
        self.is_logged = False

    def note_submitted(self, model: str, runs: Sequence[Run]) -> None:
        """Note that runs were submitted to the engine of a model, and have their outcomes noted."""
        self.models.add(model)
        self.submitted = self.submitted or time.perf_counter()
        for run in runs:
            run.done = functools.partial(self._note_outcome, run, run.done)

    def _note_outcome(self, run: Run, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        run.done = done  # else they would be a cycle of references, and the garbage collector runs rarely
        self.answered = now = time.perf_counter()
        if run.began:
            self.stepping = min(self.stepping or run.began, run.began)
            self.stepped = max(self.stepped, run.began, min(run.since, now))  # it hangs if `since` is before
            self.is_logged = self.is_logged or run.logged
        done(outcome)

    def phases(self, ended: float) -> Iterator[tuple[str, float, float]]:
        """Yield the name, the beginning and the end of each phase of a request that ended then."""
        if not self.submitted:
            return
        answered = min(self.answered or ended, ended)
        stepping, stepped = (self.stepping, self.stepped) if self.stepping else (answered, answered)
        yield "receive", self.began, self.submitted
        yield "queue", self.submitted, stepping
        if self.stepping:
            yield "tick", stepping, stepped
        if self.is_logged:
            yield "commit", stepped, answered
        yield "send", answered if self.is_logged else stepped, ended

    def nanoseconds(self, moment: float) -> int:
        """Return a time of this trace in nanoseconds since 1970."""
        return round(moment * 1e9) + self.offset


_current: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)


def note_submitted(model: str, runs: Sequence[Run]) -> None:
    """Note for the request that is carried out that runs were submitted."""
    trace = _current.get()
    if trace is not None:
        trace.note_submitted(model, runs)


class Tracing:
    """Makes the spans of requests, and sends them from a thread of its own."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._api = trace
        self._tracer = provider.get_tracer("engram")
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def request(self, asked: Asked | None) -> Iterator[RequestTrace]:
        """Give the trace of a request, to which runs belong that are submitted within this context."""
        trace = RequestTrace(asked)
        token = _current.set(trace)
        try:
            yield trace
        finally:
            _current.reset(token)

    def parent_of(self, headers: Iterable[tuple[bytes, bytes]]) -> "Context":
        """Return the context that a client gave by `traceparent`; an empty one if there is none, or it is not valid."""
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in PROPAGATED}
        return self._propagator.extract(carrier, _no_context())

    def end(
        self, trace: RequestTrace, name: str, parent: "Context", attributes: Mapping[str, Any], failed: bool
    ) -> None:
        """Make the spans of a request that ends now. failed: by a fault of the server."""
        api, ended = self._api, time.perf_counter()
        given = _attributes_of(trace) | dict(attributes)
        began = trace.nanoseconds(trace.began)
        span = self._tracer.start_span(name, parent, api.SpanKind.SERVER, given, start_time=began)
        if failed:
            span.set_status(api.StatusCode.ERROR)
        within = api.set_span_in_context(span, parent)
        for phase, first, last in trace.phases(ended):
            child = self._tracer.start_span(phase, within, start_time=trace.nanoseconds(first))
            child.end(trace.nanoseconds(last))
        span.end(trace.nanoseconds(ended))

    async def close(self) -> None:
        """Send the last spans; return after STOP_SECONDS even if some are left."""
        stopping = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, STOP_SECONDS)


def open_tracing(settings: Settings) -> Tracing | None:
    """Return the tracing of a server, None if no collector is named. Raises SettingsError without the packages."""
    if not is_traced(settings):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"otel_endpoint: traces need OpenTelemetry, and there is no module {error.name}: in the checkout of "
            "Engram, pip install -c constraints.txt -e '.[otel]'"
        ) from error
    named = settings.otel_endpoint
    exporter = OTLPSpanExporter(endpoint=None if named is None else named.rstrip("/") + TRACES_PATH)
    own = {"service.name": "engram", "service.version": version() or "unknown"}
    resource = Resource.create(own | dict(OTELResourceDetector().detect().attributes))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def is_traced(settings: Settings) -> bool:
    """Return whether a collector is named, by the setting or by a variable of OpenTelemetry."""
    return bool(settings.otel_endpoint or any(os.environ.get(name) for name in ENDPOINT_VARIABLES))


def session_hash(session: str) -> str:
    """Return the hash that stands for a session in traces: who knows its id may step it, so that stays here."""
    return hashlib.sha256(session.encode()).hexdigest()[:HASH_DIGITS]


def _attributes_of(trace: RequestTrace) -> dict[str, str]:
    attributes = {}
    if trace.asked is not None:
        attributes["engram.request_id"] = trace.asked.request_id
        if trace.asked.session is not None:
            attributes["engram.session"] = session_hash(trace.asked.session)
    if trace.models:
        attributes["engram.model"] = ",".join(sorted(trace.models))
    if trace.error is not None:
        attributes["error.type"] = trace.error.code
    return attributes


def _no_context() -> "Context":
    from opentelemetry.context import Context

    return Context()
