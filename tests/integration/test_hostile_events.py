"""Whatever comes in on an events topic: the views go on, a dead letter is there, also after SIGKILL."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from readmodels import Plan, rebuild
from runtime import kafka, topic_admin
from runtime.embedded import ServersAddress
from schemas import headers
from schemas.headers import AGGREGATE_VERSION
from tests.support import events, hostile
from tests.support.commanding import eventually
from tests.support.hostile import DEEP, MB, Hostile
from tests.support.projecting import World, life
from tests.support.topics import Record, read_topic
from verification import Scope, verify

PATIENCE_S = 90.0


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    one = World(servers, prefix, tmp_path)
    yield one
    one.close()


def valid(key: str, version: int = 1) -> bytes:
    value = events.order(key, version).value
    assert value is not None
    return value


def kinds() -> list[Hostile]:
    """One record of each kind that no view can use."""
    start = b'{"type":"X","id":"a","version":1,"occurred_at_ms":1,'
    late = valid("h-15").replace(b'"created_at_ms":', b'"created_at_ms":99999999999999')
    return [
        (b"h-1", start + b'"state":' + DEEP + b"}", []),
        (b"h-2", start + b'"data":' + DEEP + b',"state":{}}', []),
        (b"h-3", start + b'"unknown":' + DEEP + b"}", []),
        (b"h-4", b"x" * 9 * MB, []),
        (b"h-5", start + b'"state":{"x":"' + b"y" * 30 * MB + b'"}}', []),
        (b"h-6", b"garbage", [("large", b"y" * 9 * MB)]),
        (b"k" * 3 * MB, b"garbage", []),
        (b"h-7", b"\xff\x00", [(f"{headers.ERRORS}offset", b"9" * 5_000)]),
        (b"h-8", start[:-1] + b"}", [("any", None), ("é", b"")]),
        (b"h-9", valid("h-9").replace(b'"version":1', b'"version":1,"state_version":9', 1), []),
        *(
            (b"h-10", valid("h-10").replace(b'"version":1', b'"version":' + number, 1), [])
            for number in (b"0", b"-1", b"9" * 18, b"9" * 4_000, b"9" * 5_000, b"1e999", b"1.5")
        ),
        (b"\xff\xfe", valid("h-11"), []),
        (b"", valid("h-13"), []),
        (b"h{14}", valid("h-14"), []),
        (b"h-15", late, []),
    ]


TOMBSTONES: list[Hostile] = [
    (b"t-1", None, [(AGGREGATE_VERSION, b"9" * 5_000)]),
    (b"t-2", None, [(AGGREGATE_VERSION, b"-1"), (AGGREGATE_VERSION, b"\xff")]),
    (b"t-3", None, [(AGGREGATE_VERSION, None)]),
    (b"t-4", None, []),
]


def letters(world: World) -> dict[tuple[str, int, int], Record]:
    """The dead letters, by the place that each of them names."""
    found = read_topic(world.settings, world.producer.topics.dead_letters)
    return {
        (
            one.headers[headers.ERROR_TOPIC].decode(),
            int(one.headers[headers.ERROR_PARTITION]),
            int(one.headers[headers.ERROR_OFFSET]),
        ): one
        for one in found
    }


def wait(world: World) -> None:
    eventually(world.caught_up, PATIENCE_S, every=0.2)


def test_no_record_stops_the_views_and_each_becomes_a_dead_letter(world: World) -> None:
    topic = world.producer.topics.events("order")
    world.commit(*life(10))
    records = kinds()
    with world.projector() as projector:
        world.check()
        hostile.put(world.settings, topic, records + TOMBSTONES)
        if shutil.which("kcat"):
            hostile.put_with_unreadable_header_name(world.settings, topic, "h-20", valid("h-20"))
            hostile.put_with_unreadable_header_name(world.settings, topic, "h-21", None)
            records = [*records, (b"h-20", valid("h-20"), []), (b"h-21", None, [])]
        world.commit(*life(10, start=10))
        world.check()
        assert projector.running
        projector.kill()
    found = letters(world)
    assert Counter(one.key for one in found.values()) == Counter(key for key, *_ in records)
    by_key = {one.key: one for one in found.values()}
    assert by_key[b"h-7"].value == b"\xff\x00"
    assert by_key[b"h-4"].headers[headers.ERROR_CUT] == b"value"
    assert by_key[b"h-4"].headers[headers.ERROR_VALUE_BYTES] == b"%d" % (9 * MB)
    assert by_key[b"h-6"].headers[headers.ERROR_CUT] == b"headers"
    with world.projector():
        world.commit(*life(10, start=20))
        world.check()
    assert letters(world).keys() == found.keys()


def test_a_rebuild_reads_past_them_and_equals_the_live_view(world: World) -> None:
    topic = world.producer.topics.events("order")
    world.commit(*life(10))
    hostile.put(world.settings, topic, kinds() + TOMBSTONES)
    if shutil.which("kcat"):
        hostile.put_with_unreadable_header_name(world.settings, topic, "h-20", valid("h-20"))
        hostile.put_with_unreadable_header_name(world.settings, topic, "h-21", None)
    world.commit(*life(10, start=10))
    with world.projector():
        world.check()
        report = rebuild(world.settings, plan=Plan(processes=2))
        assert report.equal
        assert report.unreadable >= len(kinds())
        world.check()
    found = verify(world.settings, Scope(states=False))
    assert not [drift for drift in found.drifts if drift.repairable]


def test_what_redis_refuses_is_put_aside_and_the_rest_of_its_batch_is_applied(world: World) -> None:
    world.commit(*life(10))
    with world.projector() as projector:
        world.check()
        keys = world.client.scan_iter(match=f"{world.settings.topic_prefix}:stock:*:sku:s-1")
        damaged = next(keys)
        world.client.delete(damaged)
        world.client.lpush(damaged, "a list, where a hash belongs")
        world.commit(*life(60, start=10))
        wait(world)
        assert projector.running
    aside = {key for key, letter in letters(world).items() if letter.key == b"s-1"}
    assert aside
    assert {letter.key for letter in letters(world).values()} == {b"s-1"}
    world.client.delete(damaged)
    assert verify(world.settings, Scope(states=False), repair=True).whole
    world.check()


def test_a_projector_ends_when_a_topic_is_made_anew_and_begins_again_after_a_rebuild(
    world: World,
) -> None:
    world.commit(*life(10))
    with world.projector() as projector:
        world.check()
        _make_anew(world, world.producer.topics.events("order"))
        assert projector.wait(PATIENCE_S) == 1
        assert "was deleted" in projector.text()
    with world.projector() as refused:
        assert refused.wait(PATIENCE_S) == 1
        assert "orderflow rebuild" in refused.text()


@pytest.mark.fault
def test_a_view_that_began_anew_knows_whose_offsets_it_has(world: World) -> None:
    world.commit(*life(10))
    stem = f"{world.settings.topic_prefix}:orders:g1:positions"
    topic = world.producer.topics.events("order")
    with world.projector():
        world.check()
        claimed = world.client.hget(stem, topic)
        assert claimed
        for key in world.client.scan_iter(match=f"{world.settings.topic_prefix}:*"):
            world.client.delete(key)
        world.check()
        assert world.client.hget(stem, topic) == claimed


def _make_anew(world: World, topic: str) -> None:
    client = AdminClient(kafka.admin(world.settings))
    for future in client.delete_topics([topic], operation_timeout=30).values():
        future.result()
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, PATIENCE_S)
    eventually(lambda: _applied(world, topic), PATIENCE_S, every=0.5)


def _applied(world: World, topic: str) -> bool:
    topic_admin.apply(world.settings)
    client = AdminClient(kafka.admin(world.settings))
    return topic in client.list_topics(timeout=10).topics
