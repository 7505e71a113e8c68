"""The same order without a coordinator: four services, each with a process of its own for its part of
an order, which react to each other's events.

    order.create      waits for the parts of the others, then creates and confirms the order
    user.validate     begins when order.create has
    inventory.reserve begins when user.validate is completed
    payment.process   begins when inventory.reserve is completed

Each part undoes what it did itself, when it fails or when order.create tells that it goes back. Who
reads an event knows nothing but the event, so it carries what the next one needs, and the signature of
the order: a part is begun, taken back and listened to as that order's alone. The processes are sagas of
one step (or, order.create, of steps that others take), so timeouts, retries and undoing are those of
every saga. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from commands.aggregate import Command
from sagas.create_order import (
    CREATE_ORDER,
    PROCESS_PAYMENT,
    RESERVE_INVENTORY,
    VALIDATE_USER,
    OrderToPlace,
)
from sagas.decide import NOT_BEGUN
from sagas.definition import (
    Answer,
    Done,
    Reading,
    Refused,
    Retry,
    SagaDefinition,
    Send,
    Step,
    Undo,
    read_outcome,
)
from sagas.messages import CompensateSaga, RecordAnswer, StartSaga
from sagas.tokens import Token
from schemas.decoding import decode_object
from schemas.ids import is_id, scoped_id
from schemas.rejections import Code, Rejection
from schemas.saga import (
    SagaCompensated,
    SagaCompleted,
    SagaEvent,
    SagaFailed,
    SagaResolved,
    SagaStarted,
    SagaStepCompensationStarted,
    SagaStepFailed,
    SagaStepRetried,
)

ORDER_CREATE: Final = "order.create"
FAILED: Final = "failed"
PATIENCE: Final = Retry(attempts=1, timeout_ms=150_000, longest_ms=150_000)
"""A part has its own timeouts; only one that is silent beyond them all is given up."""


@dataclass(frozen=True, slots=True)
class Part:
    """One service's part of an order; its saga's id is the order's with ``suffix``."""

    saga: str
    suffix: str
    step: Step


PARTS: Final = (
    Part("user.validate", ":user", VALIDATE_USER),
    Part("inventory.reserve", ":inventory", RESERVE_INVENTORY),
    Part("payment.process", ":payment", PROCESS_PAYMENT),
)
"""In the order in which they follow each other."""

_part_of_saga: Final[Mapping[str, Part]] = {part.saga: part for part in PARTS}
_part_of_step: Final[Mapping[str, Part]] = {part.step.name: part for part in PARTS}


def _own(part: Part) -> SagaDefinition:
    """The part as a saga: its step, with the order's id for the part's."""

    def commands(saga_id: str, order: OrderToPlace) -> tuple[Send, ...]:
        return part.step.commands(saga_id.removesuffix(part.suffix), order)

    undo = part.step.undo
    if undo is not None:
        of = undo.of
        undo = replace(
            undo, of=lambda saga_id, order, send: of(saga_id.removesuffix(part.suffix), order, send)
        )
    step = replace(part.step, commands=commands, undo=undo)
    return SagaDefinition(part.saga, OrderToPlace, (step,), tells=True, part=True)


def _not_sent(*_: Any) -> Send:
    raise AssertionError("what others do is not asked of them by commands")


def _read_part(answer: Answer) -> Reading:
    """A part that tells of a compensation had done something, and has undone it."""
    if answer.accepted:
        return Done()
    undone = any(event.type == SagaCompensated.__name__ for event in answer.events)
    return Refused(answer.code or FAILED, answer.message or "", undone)


def _awaited(part: Part) -> Step:
    """The part as order.create sees it: a step that others take, and undo."""
    undo = part.step.undo and Undo(_not_sent, read_outcome, replace(PATIENCE, attempts=3))
    return Step(part.step.name, lambda *_: (), undo, _read_part, PATIENCE, external=1)


SAGAS: Final = (
    SagaDefinition(ORDER_CREATE, OrderToPlace, (*map(_awaited, PARTS), CREATE_ORDER), tells=True),
    *map(_own, PARTS),
)


@dataclass(frozen=True, slots=True)
class Reaction:
    """A command for a saga, because of what happened in another."""

    saga_id: str
    command: Command


@dataclass(frozen=True, slots=True)
class _Order:
    """An order as all know it who take part in it. ``signature``: None if an older release began it."""

    id: str
    signature: str | None

    @staticmethod
    def of(saga_id: str, part: Part, signature: str | None) -> "_Order":
        """Return the order that a part of this id and signature is one of."""
        return _Order(saga_id.removesuffix(part.suffix), signature)


EVENTS: Final = (
    SagaStarted,
    SagaCompleted,
    SagaFailed,
    SagaCompensated,
    SagaResolved,
    SagaStepFailed,
    SagaStepCompensationStarted,
    SagaStepRetried,
)
"""Events that anybody reacts to."""


def react(saga_id: str, event: SagaEvent, correlation_id: str) -> tuple[Reaction, ...]:
    """What the services do when they hear of an event; nothing for sagas that are none of theirs."""
    match event:
        case SagaStarted(saga=saga, input=given) if saga == ORDER_CREATE and given != NOT_BEGUN:
            order = _Order(saga_id, scoped_id(saga_id, event.scope or ""))
            return _begin(order, PARTS[0], decode_object(given), correlation_id)
        case SagaStepFailed(saga=saga, step=step, number=None) if saga == ORDER_CREATE:
            part = _part_of_step.get(step)
            return _bar(_Order(saga_id, event.signature), part) if part else ()
        case (
            SagaStepCompensationStarted(saga=saga, step=step)
            | SagaStepRetried(saga=saga, step=step, undo=True)
        ) if saga == ORDER_CREATE:
            part = _part_of_step.get(step)
            return _take_back(_Order(saga_id, event.signature), part) if part else ()
        case SagaCompleted() | SagaFailed() | SagaCompensated() | SagaResolved():
            part = _part_of_saga.get(event.saga or "")
            if part is None:
                return ()
            return _ended(_Order.of(saga_id, part, event.signature), part, event, correlation_id)
        case _:
            return ()


def _begin(
    order: _Order, part: Part, given: dict[str, Any], correlation_id: str
) -> tuple[Reaction, ...]:
    # A sender's own correlation id may be any text; the header goes on as it is, a saga's field may not.
    correlation_id = correlation_id if is_id(correlation_id) else order.id
    start = StartSaga(
        saga=part.saga, input=given, correlation_id=correlation_id, made_by=order.signature
    )
    return (Reaction(order.id + part.suffix, start),)


def _ended(
    order: _Order,
    part: Part,
    event: SagaCompleted | SagaFailed | SagaCompensated | SagaResolved,
    correlation_id: str,
) -> tuple[Reaction, ...]:
    """The order's service notes how a part has ended."""
    match event:
        case SagaCompleted(input=given):
            return _completed(order, part, given, correlation_id)
        case SagaResolved():
            return _undone(order, part, "resolved", "by an operator", event)
        case SagaFailed(code, message) | SagaCompensated(code=code, message=message):
            return _undone(order, part, code, message, event)


def _completed(
    order: _Order, part: Part, given: dict[str, Any], correlation_id: str
) -> tuple[Reaction, ...]:
    """The order's service notes it, and the next service begins."""
    done = RecordAnswer(
        token=str(Token(part.step.name, 0)),
        type=part.saga,
        accepted=True,
        made_by=order.signature,
    )
    following = PARTS[PARTS.index(part) + 1 :]
    begun = _begin(order, following[0], given, correlation_id) if following else ()
    return (Reaction(order.id, done), *begun)


def refused(saga_id: str, command: Any, rejection: Rejection) -> tuple[Reaction, ...]:
    """Tell an order whose part would have this id that it has none: the saga here is somebody else's.

    Without it the order would wait for its part. An order that has not sent the command does not listen.
    """
    match command:
        case StartSaga(saga=name, made_by=signature):
            pass
        case CompensateSaga(saga=name, only_if_made_by=signature):
            pass
        case _:
            return ()
    part = _part_of_saga.get(name or "")
    if part is None or not saga_id.endswith(part.suffix):
        return ()
    order = _Order.of(saga_id, part, signature)
    return _undone(order, part, Code.SAGA_ALREADY_EXISTS, rejection.message)


def _undone(
    order: _Order, part: Part, code: str | None, message: str | None, *events: SagaEvent
) -> tuple[Reaction, ...]:
    """The order's service notes that the part is not done, or undone: whichever it waits for."""
    not_done = RecordAnswer(
        token=str(Token(part.step.name, 0)),
        type=part.saga,
        accepted=False,
        code=code or FAILED,
        message=message,
        events=tuple({"type": type(event).__name__} for event in events),
        made_by=order.signature,
    )
    is_undone = RecordAnswer(
        token=str(Token(part.step.name, 0, undo=True)),
        type=part.saga,
        accepted=True,
        made_by=order.signature,
    )
    return (Reaction(order.id, not_done), Reaction(order.id, is_undone))


def _bar(order: _Order, part: Part) -> tuple[Reaction, ...]:
    """orders has not heard of a part and does not wait any longer: it may have been completed, and so
    each that follows it may have begun, or be about to.
    """
    late = PARTS[PARTS.index(part) :]
    return tuple(reaction for each in late for reaction in _take_back(order, each))


def _take_back(order: _Order, part: Part) -> tuple[Reaction, ...]:
    """The part is undone by its own service; one that has not begun yet is barred."""
    take_back = CompensateSaga(
        by=ORDER_CREATE,
        reason="the order could not be placed",
        code="order_not_placed",
        saga=part.saga,
        only_if_made_by=order.signature,
    )
    return (Reaction(order.id + part.suffix, take_back),)
