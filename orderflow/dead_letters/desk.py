"""The desk at which an operator settles dead letters.

A letter that holds its key is settled by its aggregate's processor, which is sent an order. What holds
nothing is settled here: a command that names nobody is sent again, an event is handled as its role would
(`again`), and what follows is written in one transaction with the audit record. The invariant: whatever is
done stands in the audit, once, with who did it.
"""

import logging
import time
import uuid
from collections import Counter
from typing import Final, Literal

import msgspec
from confluent_kafka import Message, Producer

from orderflow.dead_letters.again import FailedAgain, Handled, NotAgain, handle_again
from orderflow.dead_letters.letters import Found, Letter, letters_of, text_of
from orderflow.dead_letters.reading import read_all, read_one
from runtime import kafka
from runtime.client import CommandClient, OutgoingCommand
from runtime.records import Headers, IncomingRecord, OutgoingRecord, incoming, occurred_at_ms
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.decoding import DecodeError, whole_number
from schemas.letters import own_marks
from schemas.parking import Action, bytes_digest, decode_action, read_parked_key
from schemas.partitioner import partition_for
from schemas.records import encode
from schemas.rejections import Code

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0

_KEPT_BYTES: Final = 4_096
"""Of a key or a header: what a letter says of its failure is shorter, see schemas/letters.py."""

_COMMANDS: Final = {"retry": "RetryParked", "discard": "DiscardParked", "edit": "EditParked"}


class LetterNotFound(LookupError):
    """There is no dead letter of this id; `orderflow dead-letters list --all` shows all there are."""


class LetterRefused(Exception):
    """What was ordered cannot be done about this letter; the message says why."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator orders. ``action``: retry it as it came, discard it, or edit it, which has ``record``
    handled in its place, under ``key`` where it came without a usable one.
    """

    action: Literal["retry", "discard", "edit"]
    by: str
    note: str | None = None
    record: bytes | None = None
    key: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """What came of an order. ``settled``: the letter is open no more; ``code`` where it is not."""

    letter: str
    action: str
    settled: bool
    result: str
    code: str | None = None


class Desk:
    """Reads anew with each call. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = topics_of(settings)

    def letters(self) -> list[Letter]:
        """All letters, the oldest first. Raises KafkaException, TimeoutError."""
        found: list[Found] = []
        actions: list[Action] = []

        def see(message: Message) -> None:
            if message.topic() != self._topics.audit:
                found.append(_found(message))
                return
            try:
                actions.append(decode_action(message.value() or b""))
            except DecodeError as error:
                logger.warning("audit, offset %s, cannot be read: %s", message.offset(), error)

        read_all(self._settings, [(self._topics.dead_letters, 0), (self._topics.audit, 0)], see)
        letters = letters_of(found, actions, self._topics)
        holding = {one.holder for one in letters if one.open}
        waiting = self._waiting({name for name in holding if name is not None})
        return [
            msgspec.structs.replace(one, waiting=max(0, waiting[one.holder, one.key] - 1))
            if one.open and one.holder is not None
            else one
            for one in letters
        ]

    def letter(self, letter_id: str) -> Letter:
        """One letter, by the id of the first or the newest attempt. Raises LetterNotFound."""
        _, offset = _place(letter_id)
        for one in self.letters():
            if one.id == letter_id or one.newest == offset:
                return one
        raise LetterNotFound(f"there is no dead letter {letter_id}. {LetterNotFound.__doc__}")

    def record(self, letter: Letter) -> IncomingRecord:
        """The newest dead letter itself: bytes and headers. Raises LetterNotFound."""
        record = read_one(self._settings, self._topics.dead_letters, 0, letter.newest)
        if record is None:
            raise LetterNotFound(f"the dead letter {letter.id} was deleted from its topic")
        return record

    def settle(self, letter_id: str, order: Order) -> Settlement:
        """Carries an order out. Raises LetterNotFound, LetterRefused, KafkaException, what `handle_again`
        raises, and OutcomeTimeout when no processor answered: what was ordered may still happen.
        """
        letter = self.letter(letter_id)
        if letter.holder is not None:
            _require_open(letter)
            return self._have_it_done(letter, letter.holder, order)
        if order.action == "edit" and letter.aggregate is None:
            raise LetterRefused(
                f"{letter.id} is a record of {letter.topic}, which says what has happened, so it cannot be "
                "edited. Mend what could not handle it, then retry; or discard the letter."
            )
        return self._do(letter, order)

    def _have_it_done(self, letter: Letter, aggregate: str, order: Order) -> Settlement:
        """By the aggregate's processor."""
        data: dict[str, object] = {"offset": letter.offset, "by": order.by}
        if order.note:
            data["note"] = order.note
        if order.record is not None:
            data["record"] = order.record.decode("utf-8", "replace")
        command = OutgoingCommand(
            aggregate,
            letter.key or "",
            _COMMANDS[order.action],
            encode(data),
            f"cli-{uuid.uuid4().hex}",
            correlation_id=letter.correlation_id,
        )
        with CommandClient(self._settings) as client:
            outcome = client.execute(command)
        if outcome.code is Code.NOT_PARKED:
            # Nothing waits for this letter: its headers are made up, or it was settled just now.
            return self._do(letter, order)
        if not outcome.accepted:
            why = outcome.message or ""
            return Settlement(letter.id, order.action, False, why, outcome.code)
        done = self.letter(letter.id).actions
        result = done[-1].result if done else outcome.status.value
        return Settlement(letter.id, order.action, True, result)

    def _do(self, letter: Letter, order: Order) -> Settlement:
        """Here: nothing waits for it."""
        # Whoever else settles this letter has the same id: the second fences the first, or sees what it did.
        settler = f"{self._settings.topic_prefix}.dead-letter.{letter.id}"
        producer = Producer(kafka.transactional_producer(self._settings, settler))
        kafka.know_cluster(producer)
        producer.init_transactions(TIMEOUT_S)
        letter = self.letter(letter.id)
        _require_open(letter)
        came = self.record(letter)
        try:
            handled = self._handled(letter, came, order)
            settlement = Settlement(letter.id, order.action, True, handled.result)
        except FailedAgain as error:
            handled = Handled("failed")
            settlement = Settlement(letter.id, order.action, False, str(error), error.code)
        action = _action(letter, came, order, handled.result, settled=settlement.settled)
        producer.begin_transaction()
        for record in handled.records:
            producer.produce(
                record.topic, record.value, record.key, record.partition, headers=record.headers
            )
        producer.produce(
            self._topics.audit, encode(action), came.key, 0, headers=_audit_marks(letter)
        )
        producer.commit_transaction(TIMEOUT_S)
        return settlement

    def _handled(self, letter: Letter, came: IncomingRecord, order: Order) -> Handled:
        """What is to be sent. Raises FailedAgain, LetterRefused."""
        if order.action == "discard":
            return Handled("discarded")
        if letter.aggregate is None:
            try:
                return handle_again(self._settings, letter, _as_it_came(letter, came))
            except NotAgain as refusal:
                raise LetterRefused(str(refusal)) from None
        value = came.value if order.record is None else order.record
        key = came.key if order.key is None else order.key.encode()
        partition = letter.partition if key is None else partition_for(key, self._topics.partitions)
        record = OutgoingRecord(letter.topic, partition, key, value, _marks_again(came))
        return Handled("sent again", (record,))

    def _waiting(self, aggregates: set[str]) -> Counter[tuple[str | None, str | None]]:
        """How many commands are parked, by aggregate and id."""
        parked: dict[tuple[str, bytes, int], bool] = {}

        def see(message: Message) -> None:
            place = read_parked_key(message.key() or b"")
            if place is not None:  # on this topic, too, anybody may have written
                aggregate = (message.topic() or "").split(".")[-2]
                parked[aggregate, *place] = message.value() is not None

        places = [
            (self._topics.parked(name), number)
            for name in aggregates
            for number in range(self._topics.partitions)
        ]
        if places:
            read_all(self._settings, places, see)
        return Counter(
            (name, text_of(aggregate_id))
            for (name, aggregate_id, _), waits in parked.items()
            if waits
        )


def _require_open(letter: Letter) -> None:
    if not letter.open:
        last = letter.actions[-1]
        raise LetterRefused(f"{letter.id} is settled already: {last.action} by {last.by}")


def _action(
    letter: Letter, came: IncomingRecord, order: Order, result: str, *, settled: bool
) -> Action:
    return Action(
        action=order.action,
        by=order.by,
        at_ms=time.time_ns() // 1_000_000,
        settled=settled,
        result=result,
        stage=letter.stage,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        before=bytes_digest(came.value),
        after="" if order.record is None else bytes_digest(order.record),
        note=order.note or "",
    )


def _audit_marks(letter: Letter) -> Headers:
    cause = f"dead-letter.{letter.id}"
    return [
        (headers.CAUSATION_ID, cause.encode()),
        (headers.CORRELATION_ID, (letter.correlation_id or cause).encode()),
    ]


def _found(message: Message) -> Found:
    """What is kept of a letter while all of them are read: no value, and only headers that count."""
    record = incoming(message)
    marks: Headers = [
        (name, value[:_KEPT_BYTES] if value else value)
        for name, value in record.headers
        if name.startswith(headers.ERRORS) or name == headers.CORRELATION_ID
        if name != headers.ERROR_STACKTRACE
    ]
    _, at_ms = message.timestamp()
    key = None if record.key is None else record.key[:_KEPT_BYTES]
    place = record.partition, record.offset
    return Found(*place, key, marks, len(record.value or b""), at_ms)


def _place(letter_id: str) -> tuple[int, int]:
    partition, _, offset = letter_id.partition("-")
    place = whole_number(partition), whole_number(offset)
    if place[0] is None or place[1] is None:
        raise LetterNotFound(f"{letter_id!r} is no id of a dead letter, such as 0-17")
    return place[0], place[1]


def _as_it_came(letter: Letter, came: IncomingRecord) -> IncomingRecord:
    """The record where it first stood."""
    marks = own_marks(came.headers)
    at_ms = occurred_at_ms(_marks_again(came), came.occurred_at_ms)
    return IncomingRecord(
        letter.topic, letter.partition, letter.offset, at_ms, came.key, came.value, marks
    )


def _marks_again(came: IncomingRecord) -> Headers:
    """Of a record that is sent again: as it came, with the time at which it happened."""
    said = {name: value for name, value in came.headers if isinstance(value, bytes)}
    marks = own_marks(came.headers)
    if headers.OCCURRED_AT_MS not in said and headers.ERROR_TIMESTAMP in said:
        marks.append((headers.OCCURRED_AT_MS, said[headers.ERROR_TIMESTAMP]))
    return marks
