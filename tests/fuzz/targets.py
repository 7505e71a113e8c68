"""What is fuzzed: each decoder of bytes from outside, as a function of bytes that raises nothing.

A target raises only when the product is wrong: an exception that the decoder does not declare, or a broken
promise (a record that the broker would refuse, a value that cannot be read back). A new decoder is a row in
``TARGETS``.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from commands.aggregate import Aggregate
from eventstore import index
from eventstore.audit import conversation
from eventstore.events import Position, UnreadableEvent, recorded
from eventstore.index import Entries, IndexKeys
from eventstore.indexer import Kind, Source, note
from orderflow.cli.exits import Refused
from orderflow.cli.place import _line
from orderflow.dead_letters.letters import Found, letters_of
from orderflow.shop.retail_file import NotOnlineRetail, read_rows, time_of
from payments import asking
from payments.gateway import Charged, Declined, GatewayUnavailable, Refunded
from payments.http_gateway import _read as read_gateway_answer
from processors.decider import Decider
from processors.memory import MemoryState
from processors.reactor import failure, reactions
from processors.saga_decider import SagaDecider, appointment
from readmodels.records import Unreadable as UnreadableRecord
from readmodels.records import read
from readmodels.views import VIEWS
from runtime.records import IncomingRecord, OutgoingRecord
from sagas import AGGREGATES, by_name
from schemas.decoding import DecodeError
from schemas.records import decode_outcome
from schemas.topics import MAX_RECORD_BYTES, SAGA, Topics
from schemas.upcasting import UnsupportedVersion
from tests.fuzz.records import unpacked
from webhooks.message import Unreadable as UnreadableMessage
from webhooks.message import message_of
from webhooks.registry import webhook_in

TOPICS: Final = Topics("orderflow", partitions=1)

Target = Callable[[bytes], object]


def _size(record: OutgoingRecord) -> int:
    parts: list[str | bytes | None] = [record.key, record.value]
    for name, content in record.headers:
        parts += [name, content]
    return sum(len(part.encode() if isinstance(part, str) else part) for part in parts if part)


def _decider(aggregate: Aggregate) -> Decider:
    state = MemoryState(appointment if aggregate.name == SAGA else None)
    kind = SagaDecider if aggregate.name == SAGA else Decider
    return kind(aggregate, TOPICS, 0, state)


def _decide(aggregate: Aggregate) -> Target:
    """Decide the record as a command, twice: every output fits, and the repetition changes nothing."""

    def target(data: bytes) -> None:
        record = unpacked(data, TOPICS.commands(aggregate.name))
        decider = _decider(aggregate)
        first = [*decider.decide_all([record]), *decider.seal()]
        again = decider.decide_all([record])
        outcomes = [out for out in first if out.topic == TOPICS.outcomes(aggregate.name)]
        for outcome in outcomes:
            decode_outcome(outcome.value or b"")
        assert outcomes or any(out.topic == TOPICS.dead_letters for out in first), "lost"
        assert all(_size(out) <= MAX_RECORD_BYTES for out in (*first, *again)), "too large"
        assert not [out for out in again if out.topic == TOPICS.history(aggregate.name)], "twice"

    return target


def _project(data: bytes) -> None:
    for view in VIEWS:
        record = unpacked(data, TOPICS.events(view.aggregate))
        try:
            read(record.key, record.value, _came_with(record), view.states, view.project)
        except UnreadableRecord:
            continue


def _came_with(record: IncomingRecord) -> Any:
    return record.headers


def _index(data: bytes) -> None:
    for kind in Kind:
        record = unpacked(data, "orderflow.order.history")
        entries = Entries(IndexKeys("orderflow", "epoch"))
        note(entries, Source(record.topic, kind, "order", 1_000), 1, record)
        for command in entries.commands():
            assert sum(len(str(word)) for word in command) < 4 * len(data) + 1_000, "grows"
            if command[0] == "SETRANGE":
                assert int(command[2]) <= (record.offset + 1) * index.ENTRY_BYTES, "a gap"


def _history(data: bytes) -> None:
    for aggregate in by_name:
        record = unpacked(data, TOPICS.history(aggregate))
        try:
            recorded(aggregate, record)
        except UnreadableEvent:
            continue


def _audit(data: bytes) -> None:
    for kind in Kind:
        source = Source("orderflow.order.history", kind, "order", 0)
        conversation([(source, unpacked(data, source.topic))])


def _letters(data: bytes) -> None:
    record = unpacked(data, TOPICS.dead_letters)
    found = Found(0, record.offset, record.key, record.headers, len(data), record.occurred_at_ms)
    letters_of([found, found], [], Topics("t", partitions=2))


def _react(data: bytes) -> None:
    try:
        reactions(unpacked(data, TOPICS.history(SAGA)), TOPICS)
    except (DecodeError, UnicodeDecodeError) as cause:
        failure(cause)


def _ask(data: bytes) -> None:
    try:
        asking.read(unpacked(data, TOPICS.history("payment")))
    except asking.Unreadable:
        return


def _deliver(data: bytes) -> None:
    for aggregate in by_name:
        try:
            message_of(unpacked(data, TOPICS.history(aggregate)), aggregate)
        except UnreadableMessage:
            continue


def _subscribe(data: bytes) -> None:
    record = unpacked(data, TOPICS.events("webhook"))
    try:
        webhook_in(record.key, record.value)
    except (DecodeError, UnicodeDecodeError, UnsupportedVersion):
        return


def _answer(data: bytes) -> None:
    for read_as in (Charged, Declined, Refunded):
        try:
            read_gateway_answer(data, read_as)  # type: ignore[type-var]  # each of its three types
        except GatewayUnavailable:
            continue


def _csv(data: bytes) -> None:
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            for row in read_rows(Path(file.name)):
                time_of(row)
        except NotOnlineRetail:
            return


def _argument(data: bytes) -> None:
    try:
        _line(data.decode("utf-8", "surrogateescape"))
    except Refused:
        return


def _position(data: bytes) -> None:
    try:
        Position.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return


TARGETS: Final[dict[str, Target]] = {
    **{f"command-{aggregate.name}": _decide(aggregate) for aggregate in AGGREGATES},
    "view": _project,
    "timer": lambda data: appointment(unpacked(data, TOPICS.events(SAGA)).value or b""),
    "index": _index,
    "history": _history,
    "audit": _audit,
    "dead-letter": _letters,
    "reaction": _react,
    "payment": _ask,
    "webhook-event": _deliver,
    "webhook-state": _subscribe,
    "gateway-answer": _answer,
    "csv": _csv,
    "order-line": _argument,
    "position": _position,
}
"""Name → target. The name is that of its folder under ``tests/fuzz/corpus``."""
