"""Which dead letters of the views are sent again, cut or given up, the client being a double."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from readmodels.deadletters import DeadLetter, DeadLetters
from readmodels.records import STAGE_DECODE, UNREADABLE_HEADERS, Unreadable
from schemas import headers
from schemas.limits import MAX_RECORD_BYTES


class Client:
    """As aiokafka's producer. ``faults``: what it raises, one after the other, before it takes anything."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.sent: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []

    async def send_and_wait(self, _topic: str, *, key: Any, value: Any, headers: Any) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.sent.append((key, value, dict(headers)))

    async def stop(self) -> None:
        """As the real one."""


def letter(value: bytes = b"bytes", marks: Any = (("mine", b"1"),)) -> DeadLetter:
    record = SimpleNamespace(
        topic="t", partition=1, offset=7, timestamp=5, key=b"k", value=value, headers=marks
    )
    return DeadLetter(record, Unreadable("malformed", "why", STAGE_DECODE))


def send(client: Client, *letters: DeadLetter) -> None:
    desk: Any = DeadLetters("dead-letters", {})

    async def opened() -> Client:
        return client

    desk._open = opened
    asyncio.run(desk.send(letters))


def test_a_letter_has_the_bytes_and_headers_of_its_record() -> None:
    client = Client()
    send(client, letter())
    ((key, value, marks),) = client.sent
    assert (key, value, marks["mine"]) == (b"k", b"bytes", b"1")
    assert (marks[headers.ERROR_TOPIC], marks[headers.ERROR_OFFSET]) == (b"t", b"7")


def test_a_letter_that_the_broker_refuses_goes_without_the_bytes_of_its_record() -> None:
    client = Client(MessageSizeTooLargeError())
    send(client, letter(), letter(b"next"))
    assert [value for _, value, _ in client.sent] == [None, b"next"]
    assert client.sent[0][2][headers.ERROR_OFFSET] == b"7"


@pytest.mark.parametrize(
    "fault", [MessageSizeTooLargeError(), TypeError("a bug"), AssertionError()]
)
def test_a_letter_that_can_never_be_sent_holds_up_no_other(fault: Exception) -> None:
    client = Client(fault, fault)
    send(client, letter(), letter(b"next"))
    assert [value for _, value, _ in client.sent] == [b"next"]


@pytest.mark.parametrize("fault", [KafkaConnectionError(), OSError("gone")])
def test_what_passes_is_raised_so_that_all_are_sent_again(fault: Exception) -> None:
    client = Client(fault)
    with pytest.raises((KafkaError, OSError)):
        send(client, letter())
    assert client.sent == []


def test_a_letter_says_that_it_lacks_the_headers_whose_names_cannot_be_read() -> None:
    client = Client()
    send(client, letter(marks=UNREADABLE_HEADERS))
    ((_, value, marks),) = client.sent
    assert value == b"bytes"
    assert marks[headers.ERROR_CUT] == b"headers"
    assert all(name.isascii() for name in marks)


def test_a_letter_of_a_large_record_fits_and_says_that_it_is_cut() -> None:
    client = Client()
    send(client, letter(b"x" * (MAX_RECORD_BYTES + 1)))
    ((_, value, marks),) = client.sent
    assert value is not None
    assert len(value) < MAX_RECORD_BYTES
    assert marks[headers.ERROR_CUT] == b"value"
