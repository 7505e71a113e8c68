"""Ask the broker for what `processors.starts` judges by, beside what its caller knows already."""

import time
from typing import Final

from confluent_kafka.admin import AdminClient

from processors.decided import Decided
from processors.starts import Evidence
from runtime import kafka
from schemas.topics import OUTCOMES_RETENTION_MS

WITHIN_S: Final = 30.0


def gather(
    admin: AdminClient,
    place: tuple[str, int],
    topic_id: str,
    *,
    committed: int | None,
    note: Decided | None,
    anything_decided: bool,
) -> Evidence:
    """Return what is known of a commands partition. Raises KafkaException."""
    ours = note is not None and note.topic_id == topic_id
    since_ms = time.time_ns() // 1_000_000 - OUTCOMES_RETENTION_MS
    # The outcome of a younger command is younger still, so it is kept. Asked before the end: a command that
    # comes in between is young enough.
    recognised = kafka.first_offset_since(admin, place, since_ms, WITHIN_S)
    first = kafka.first_offsets(admin, [place], WITHIN_S)[place]
    end = kafka.end_offsets(admin, [place], WITHIN_S)[place]
    return Evidence(
        committed=committed,
        noted=note.offset if note is not None and ours else None,
        noted_of_another=note is not None and not ours,
        anything_decided=anything_decided,
        first=first,
        end=end,
        recognised_from=end if recognised is None else recognised,
    )
