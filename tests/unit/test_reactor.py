"""What the reactor makes of an event of a saga."""

import msgspec
import pytest

from processors.reactor import ROLE, failure, reactions
from runtime.records import IncomingRecord
from schemas.records import EventRecord, decode_command, encode
from schemas.rejections import Code
from schemas.saga import SagaEvent, SagaResolved
from schemas.topics import SAGA, Topics
from schemas.upcasting import UnsupportedVersion

TOPICS = Topics("reactor", partitions=4)


def record(saga_id: str, event_id: str, event: SagaEvent) -> IncomingRecord:
    """An event as it stands on the history."""
    data = msgspec.Raw(encode(event))
    kind = type(event).__name__
    value = encode(EventRecord(type=kind, id=event_id, version=1, occurred_at_ms=0, data=data))
    return IncomingRecord(TOPICS.history(SAGA), 0, 0, 0, saga_id.encode(), value, [])


def test_events_of_two_sagas_under_one_id_are_reacted_to_under_different_ids() -> None:
    """An operator may put right two parts of an order under one command id."""
    payment = SagaResolved("ann", "by hand", "payment.process")
    inventory = SagaResolved("ann", "by hand", "inventory.reserve")
    heard = [
        *reactions(record("o-1:payment", "fix:0", payment), TOPICS),
        *reactions(record("o-1:inventory", "fix:0", inventory), TOPICS),
    ]
    assert {each.key for each in heard} == {b"o-1"}
    ids = [decode_command(each.value or b"").command_id for each in heard]
    assert len(set(ids)) == len(ids) == 4


def test_the_same_event_again_has_the_same_reactions() -> None:
    again = record("o-1:payment", "fix:0", SagaResolved("ann", "by hand", "payment.process"))
    assert reactions(again, TOPICS) == reactions(again, TOPICS)


def test_what_the_dead_letter_says_of_a_record_that_cannot_be_handled() -> None:
    broken = IncomingRecord(TOPICS.history(SAGA), 0, 0, 0, b"o-1:payment", b"no json", [])
    with pytest.raises(msgspec.DecodeError) as malformed:
        reactions(broken, TOPICS)
    assert failure(malformed.value).code is Code.MALFORMED
    assert failure(UnsupportedVersion("x", 2, 1)).code is Code.UNSUPPORTED_SCHEMA_VERSION
    bug = failure(ZeroDivisionError("division by zero"))
    assert (bug.code, bug.stage) == (Code.INTERNAL_ERROR, ROLE)
    assert bug.message == "the reaction failed: ZeroDivisionError: division by zero"
