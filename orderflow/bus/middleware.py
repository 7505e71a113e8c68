"""What every message passes on its way to its handler, outermost first:

    Tracing → Observing → Validating → Retrying → Limiting → handler

Each is a callable of its own (see `calls.Middleware`) and knows no transport, so the order can be read,
tested and changed by whoever makes a bus. `standard` has it as it is meant: a trace covers all attempts, so
do a log line and a measured duration; what is invalid is not tried; each attempt has its own share of the
time. A rejection is an answer: it passes everything unchanged and is never tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, ValidationError

from orderflow.bus.calls import Call, CommandCall, Middleware, Proceed, QueryCall
from orderflow.bus.errors import BusError, CallTimeout, InvalidMessage, Problem
from orderflow.bus.registry import problems_of
from orderflow.placing import NotPlaced
from schemas.headers import TRACEPARENT
from schemas.ids import MAX_ID_LENGTH, is_id
from schemas.records import Outcome

logger = logging.getLogger(__name__)

ATTEMPT_S: Final = 5.0
"""How long one attempt waits; a processor that takes a partition over needs some seconds."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0

_NOT_AN_ID: Final = (
    f"must be 1 to {MAX_ID_LENGTH} characters of letters, digits, blanks and ._:@+-, beginning with a "
    "letter or digit"
)


def standard() -> tuple[Middleware, ...]:
    """All of them in their order, with their usual settings."""
    return Tracing(), Observing(), Validating(), Retrying(), Limiting()


class Tracing:
    """A span for each message; a command carries its W3C traceparent to everything that follows from it.

    The service brings the OpenTelemetry SDK and says where spans go. Without one nothing is recorded, and
    the traceparent of the caller is passed on as it is.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """``provider``: the service's, if it is not the global one."""
        self._tracer = trace.get_tracer("orderflow.bus", tracer_provider=provider)
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Goes on inside of a span."""
        parent = None
        if isinstance(call, CommandCall) and call.traceparent is not None:
            parent = self._propagator.extract({TRACEPARENT: call.traceparent})
        with self._tracer.start_as_current_span(
            f"{call.kind} {call.name}", parent, SpanKind.CLIENT, _attributes(call)
        ) as span:
            answer = await proceed(self._carrying(call))
            if isinstance(answer, Outcome):
                span.set_attribute("orderflow.outcome", answer.status.value)
                span.set_attribute("orderflow.code", answer.code or "")
            return answer

    def _carrying(self, call: Call) -> Call:
        if not isinstance(call, CommandCall):
            return call
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return replace(call, traceparent=carrier.get(TRACEPARENT))


class Observing:
    """One line of log and one measured duration for each message.

    Metric ``orderflow.bus.duration``, seconds, by ``kind``, ``name`` and ``result``: ``answered``,
    ``accepted``, a rejection's code, an error's code, or ``error``.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        """``provider``: the service's, if it is not the global one."""
        meter = metrics.get_meter("orderflow.bus", meter_provider=provider)
        self._duration = meter.create_histogram(
            "orderflow.bus.duration", "s", "From asking to the answer, all attempts."
        )

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Goes on and tells what came of it."""
        started = time.perf_counter()
        result = "error"
        try:
            answer = await proceed(call)
            result = _result(answer)
            return answer
        except BusError as error:
            result = error.code.value
            raise
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        finally:
            self._tell(call, result, time.perf_counter() - started)

    def _tell(self, call: Call, result: str, seconds: float) -> None:
        labels = {"kind": call.kind, "name": call.name, "result": result}
        self._duration.record(seconds, labels)
        extra = {
            "action": "bus",
            "duration_s": seconds,
            **{f"bus_{k}": v for k, v in labels.items()},
        }
        level = logging.DEBUG if result in ("accepted", "answered") else logging.INFO
        logger.log(
            level, "%s %s: %s in %.1f ms", call.kind, call, result, seconds * 1e3, extra=extra
        )


class Validating:
    """Nothing is sent that would be refused whoever reads it. Raises InvalidMessage with every field."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Goes on with what is valid."""
        problems = [*_of_the_call(call)]
        if isinstance(call, CommandCall):
            problems += [*_of_the_ids(call), *_of_the_model(call.command)]
        else:
            problems += [*_of_the_outcomes(call), *_of_the_model(call.query)]
        if problems:
            raise InvalidMessage(call.name, problems)
        return await proceed(call)


@dataclass(frozen=True)
class Retrying:
    """Asks again what had no answer, until the caller's time is up, always under the same command id.

    Only `BusError.retriable` is tried again: no answer in time, or nobody there. ``attempt_s``: the time of
    one attempt, seconds.
    """

    attempt_s: float = ATTEMPT_S

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Goes on, and again."""
        until = time.monotonic() + call.timeout_s
        pause = FIRST_PAUSE_S
        while True:
            left = until - time.monotonic()
            try:
                return await proceed(replace(call, timeout_s=min(left, self.attempt_s)))
            except BusError as error:
                if not error.retriable:
                    raise
                left = until - time.monotonic()
                if left <= pause:
                    if isinstance(error, CallTimeout):
                        raise _timeout(call, call.timeout_s) from error
                    raise
                logger.info(
                    "%s %s: again after %s", call.kind, call, error, extra={"action": "retry"}
                )
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE_S, pause * 2)


class Limiting:
    """Nobody waits for ever: a message without an answer in its time ends in CallTimeout."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Goes on for the call's time."""
        limit = asyncio.timeout(call.timeout_s)
        try:
            async with limit:
                return await proceed(call)
        except TimeoutError as error:
            # A handler's own TimeoutError is the handler's; only that of this limit is translated.
            if limit.expired():
                raise _timeout(call, call.timeout_s) from error
            raise


def _timeout(call: Call, seconds: float) -> CallTimeout:
    if isinstance(call, QueryCall):
        return CallTimeout(
            f"no answer to {call} within {seconds:g} s; see that a projector is running and how far it is "
            "behind (`orderflow doctor`)"
        )
    return CallTimeout(
        f"no outcome of {call} within {seconds:g} s; it may still be decided. Send it again with the same "
        "id to get its outcome without carrying it out twice, and see that a processor is running "
        "(`orderflow doctor`)"
    )


def _attributes(call: Call) -> dict[str, str]:
    attributes = {"orderflow.kind": call.kind, "orderflow.name": call.name}
    if isinstance(call, CommandCall):
        attributes |= {
            "orderflow.aggregate": call.aggregate,
            "orderflow.aggregate_id": call.aggregate_id,
            "orderflow.command_id": call.command_id,
        }
    return attributes


def _result(answer: Any) -> str:
    match answer:
        case Outcome(accepted=True):
            return "accepted"
        case Outcome(code=code) | NotPlaced(code=code):
            return str(code or "rejected")
        case _:
            return "answered"


def _of_the_call(call: Call) -> list[Problem]:
    if call.timeout_s > 0:
        return []
    return [Problem("timeout", f"must be more than 0 seconds, not {call.timeout_s:g}")]


def _of_the_ids(call: CommandCall[Any]) -> list[Problem]:
    ids = {
        "aggregate_id": call.aggregate_id,
        "command_id": call.command_id,
        "correlation_id": call.correlation_id,
    }
    problems = [Problem(k, _NOT_AN_ID) for k, v in ids.items() if v is not None and not is_id(v)]
    expected = call.expected_version
    if expected is not None and expected < 0:
        problems.append(Problem("expected_version", f"must be 0 or more, not {expected}"))
    return problems


def _of_the_outcomes(call: QueryCall[Any]) -> list[Problem]:
    return [
        Problem(
            "at_least",
            f"{call.name} reads nothing that follows {outcome.aggregate}, but "
            f"{', '.join(sorted(call.follows)) or 'nothing at all'}",
        )
        for outcome in call.at_least
        if outcome.aggregate not in call.follows
    ]


def _of_the_model(model: BaseModel) -> tuple[Problem, ...]:
    """A model was validated when it was made, unless it was made by going around that (``model_copy``,
    ``model_construct``): so as it is on the wire, it is read once more.
    """
    try:
        type(model).model_validate_json(model.model_dump_json(warnings=False))
    except ValidationError as error:
        return problems_of(error)
    return ()
