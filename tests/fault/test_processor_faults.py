"""The command processor under faults: afterwards every command has one outcome and every law holds.

Each test ends the same way: heal, drain, check all invariants of the log.
"""

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, product
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from processors.transaction import TransactionalWriter, TransactionFailed
from runtime import kafka, topic_admin
from runtime.client import CommandClient, OutgoingCommand
from runtime.embedded import EmbeddedKafka, ServersAddress
from runtime.records import OutgoingRecord
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import command, eventually
from tests.support.compaction import compact
from tests.support.invariants import LogReading, check_log
from tests.support.processes import RoleProcess, environment
from tests.support.topics import read_topic

SKUS = 5
ORDERS = 400


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    found = environment(servers, prefix, tmp_path / "home", ORDERFLOW_BATCH_SIZE="20")
    topic_admin.apply(Settings.model_validate(found))
    return found


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings.model_validate(env)


def workload(orders: int = ORDERS) -> Iterator[OutgoingCommand]:
    """Stock, and orders that reserve it and commit or release; many more than there is stock for."""
    chance = random.Random(7)
    for number in range(SKUS):
        yield command(f"S{number}", "RegisterItem", description="item", opening_stock=300)
    for order in range(orders):
        # Most of the traffic is on one SKU.
        sku = f"S{0 if chance.random() < 0.8 else chance.randrange(SKUS)}"
        yield command(
            f"o{order}",
            "CreateOrder",
            user_id=f"u{order % 7}",
            currency="GBP",
            lines=[{"sku": sku, "quantity": 1, "unit_price": 100}],
        )
        quantity = chance.randint(1, 3)
        yield command(sku, "ReserveStock", reservation_id=f"o{order}", quantity=quantity)
        kind = chance.choice(("CommitReservation", "ReleaseReservation", None))
        if kind is not None:
            yield command(sku, kind, reservation_id=f"o{order}")
        if chance.random() < 0.5:
            yield command(f"o{order}", "ConfirmOrder")


def send_all(client: CommandClient, commands: list[OutgoingCommand]) -> None:
    for each in commands:
        client.send(each)
    client.flush()


def drained(
    settings: Settings, commands: list[OutgoingCommand], timeout: float = 180.0
) -> LogReading:
    """Waits until each command has its outcome, then checks every invariant of the log."""
    topics = topics_of(settings)
    ids = {(c.aggregate, c.aggregate_id, c.command_id) for c in commands}
    names = [topics.outcomes(name) for name in ("inventory", "order")]
    eventually(
        lambda: sum(len(read_topic(settings, name)) for name in names) >= len(ids), timeout, 0.5
    )
    reading = check_log(settings)
    assert reading.outcomes.keys() == ids
    return reading


def test_a_processor_killed_again_and_again_decides_every_command_once(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    commands = list(workload())
    chance = random.Random(1)
    with CommandClient(settings) as client:
        for round_ in range(5):
            with RoleProcess("processors", env, tmp_path / "killed.log") as process:
                send_all(client, commands[round_::5])
                time.sleep(chance.uniform(1.2, 2.5))
                assert process.running
                process.kill()
    with RoleProcess("processors", env, tmp_path / "last.log"):
        drained(settings, commands)


def test_two_processors_share_the_work_and_one_killed_is_taken_over(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    commands = list(workload())
    third = len(commands) // 3
    with (
        CommandClient(settings) as client,
        RoleProcess("processors", env, tmp_path / "one.log") as one,
    ):
        wait_until_ready(one)
        send_all(client, commands[:third])
        with RoleProcess("processors", env, tmp_path / "two.log") as two:
            wait_until_ready(two)
            send_all(client, commands[third : 2 * third])
            time.sleep(0.3)
            two.kill()
        send_all(client, commands[2 * third :])
        drained(settings, commands)
        assert "revoked" in one.text()


def test_processors_come_and_go_in_mid_stream_and_every_command_is_decided_once(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    """A partition changes hands while its commands are decided and the ones before are committed."""
    sent: list[OutgoingCommand] = []
    enough = threading.Event()
    with (
        CommandClient(settings) as client,
        RoleProcess("processors", env, tmp_path / "stays.log") as stays,
    ):
        wait_until_ready(stays)
        feeding = threading.Thread(target=trickle, args=(client, sent, enough))
        feeding.start()
        try:
            for visit in range(3):
                with RoleProcess("processors", env, tmp_path / f"visit{visit}.log") as visitor:
                    wait_until_ready(visitor)
                    time.sleep(1)
                    assert visitor.stop() == 0
        finally:
            enough.set()
            feeding.join()
        drained(settings, sent)
        assert "revoked" in stays.text()


def wait_until_ready(process: RoleProcess) -> None:
    """Until it has partitions and their state."""
    eventually(lambda: "ready" in process.text())


def trickle(client: CommandClient, sent: list[OutgoingCommand], enough: threading.Event) -> None:
    """Sends a thousand commands a second, until it is enough."""
    for each in workload(orders=1_000_000):
        if enough.is_set():
            break
        client.send(each)
        sent.append(each)
        if len(sent) % 20 == 0:
            time.sleep(0.02)
    client.flush()


def test_a_processor_suspended_past_its_session_is_fenced_and_writes_nothing_twice(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    commands = list(workload())
    with (
        CommandClient(settings) as client,
        RoleProcess("processors", env, tmp_path / "zombie.log") as zombie,
    ):
        wait_until_ready(zombie)
        send_all(client, commands[: len(commands) // 2])
        zombie.suspend()
        with RoleProcess("processors", env, tmp_path / "heir.log") as heir:
            send_all(client, commands[len(commands) // 2 :])
            eventually(lambda: "ready" in heir.text(), timeout=120)
            drained(settings, commands)
            zombie.resume()
            more = [command(f"after{number}", "RegisterUser", name="x") for number in range(50)]
            for each in more:
                assert client.execute(each).accepted
            check_log(settings)


def test_a_processor_whose_transactions_are_fenced_again_and_again_decides_every_command_once(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    """Each time the next batch is decided already, on what will never be committed."""
    commands = list(workload())
    with (
        CommandClient(settings) as client,
        RoleProcess("processors", env, tmp_path / "processor.log") as process,
    ):
        wait_until_ready(process)
        transactional_id = re.findall(r"processor started as (\S+)", process.text())[0]
        config = kafka.transactional_producer(
            settings, f"{settings.topic_prefix}.{transactional_id}"
        )
        for round_ in range(5):
            send_all(client, commands[round_::5])
            with suppress(KafkaException):  # the processor may fence it in turn
                Producer(config).init_transactions(30)
        drained(settings, commands)
        # How often depends on who is faster: the last batches may be through before they are fenced.
        assert "deciding" in process.text()


def test_the_broker_killed_and_restarted_loses_nothing_and_doubles_nothing(
    own_kafka: EmbeddedKafka, servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    own = ServersAddress(own_kafka.bootstrap_servers, servers.redis_url)
    env = environment(own, prefix, tmp_path / "home", ORDERFLOW_BATCH_SIZE="20")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    commands = list(workload())
    with (
        CommandClient(settings) as client,
        RoleProcess("processors", env, tmp_path / "processor.log") as process,
    ):
        wait_until_ready(process)
        send_all(client, commands[: len(commands) // 2])
        own_kafka.kill()
        for each in commands[len(commands) // 2 :]:
            client.send(each)
        time.sleep(1)
        own_kafka.start()
        client.flush()
        drained(settings, commands)


def test_state_committed_behind_a_dead_writers_open_transaction_is_restored(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    """A restore that stopped at the last stable offset would sell the same stock twice."""
    with CommandClient(settings) as client:
        with RoleProcess("processors", env, tmp_path / "first.log") as first:
            register = command("A", "RegisterItem", description="mug", opening_stock=5)
            assert client.execute(register).accepted
            dead = Producer(kafka.transactional_producer(settings, f"dead.{tmp_path.name}"))
            dead.init_transactions(30)
            dead.begin_transaction()
            topic = topics_of(settings).events("inventory")
            for partition in range(settings.partitions):
                dead.produce(topic, b"{}", b"nothing", partition)
            dead.flush(10)
            # Committed, but behind the open transaction on the same partition.
            reserve = command("A", "ReserveStock", reservation_id="o1", quantity=5)
            assert client.execute(reserve).accepted
            assert first.stop() == 0
        shutil.rmtree(tmp_path / "home")
        with RoleProcess("processors", env, tmp_path / "second.log"):
            again = command("A", "ReserveStock", reservation_id="o2", quantity=1)
            refused = client.execute(again, timeout=60)
        assert refused.code == "insufficient_stock"
        assert refused.version == 3
        check_log(settings)
        del dead


def test_what_a_dead_processor_left_uncommitted_is_not_taken_for_lost_offsets(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    dead = Producer(kafka.transactional_producer(settings, f"dead.{tmp_path.name}"))
    dead.init_transactions(30)
    dead.begin_transaction()
    for partition in range(settings.partitions):
        for topic in (topics_of(settings).outcomes("user"), topics_of(settings).events("user")):
            dead.produce(topic, b"{}", b"nothing", partition)
    dead.flush(10)
    with CommandClient(settings) as client, RoleProcess("processors", env, tmp_path / "p.log"):
        assert client.execute(command("ada", "RegisterUser", name="Ada"), timeout=90).accepted
    check_log(settings)
    del dead


def record(settings: Settings, value: bytes) -> OutgoingRecord:
    return OutgoingRecord(topics_of(settings).dead_letters, 0, b"k", value, [])


def member(settings: Settings, name: str) -> Consumer:
    """A consumer that has joined the group of this name."""
    consumer = Consumer(kafka.group_consumer(settings, f"{settings.topic_prefix}.{name}"))
    consumer.subscribe([topics_of(settings).dead_letters])
    eventually(lambda: (consumer.consume(1, 0.1), consumer.assignment())[1])
    return consumer


def test_a_writer_that_was_fenced_fails_and_then_works_again_with_a_new_producer(
    settings: Settings,
) -> None:
    consumer = member(settings, "fenced")
    group = consumer.consumer_group_metadata()
    offsets = [TopicPartition(topics_of(settings).dead_letters, 0, 0)]

    def write(writer: TransactionalWriter, one: OutgoingRecord) -> None:
        writer.begin([one])
        writer.commit(offsets, group)

    first = TransactionalWriter(settings, f"{settings.topic_prefix}.same")
    second = TransactionalWriter(settings, f"{settings.topic_prefix}.same")
    write(second, record(settings, b"second"))
    with pytest.raises(TransactionFailed):
        write(first, record(settings, b"fenced"))
    write(first, record(settings, b"first again"))
    consumer.close()
    with pytest.raises(TransactionFailed):  # the group has moved on: its old generation is refused
        write(first, record(settings, b"stale generation"))
    values = [r.value for r in read_topic(settings, topics_of(settings).dead_letters)]
    assert values == [b"second", b"first again"]


def test_what_a_refused_transaction_has_not_sent_yet_is_not_missed_by_the_next_one(
    settings: Settings,
) -> None:
    topics = topics_of(settings)
    names = topics.events("order"), topics.history("order"), topics.outcomes("order")
    offsets = [TopicPartition(topics.dead_letters, 0, 0)]
    consumer, gone = member(settings, "live"), member(settings, "gone")
    accepted, refused = consumer.consumer_group_metadata(), gone.consumer_group_metadata()
    gone.close()
    writer = TransactionalWriter(settings, f"{settings.topic_prefix}.again")

    def write(group: bytes, count: int) -> list[bytes]:
        places = cycle(product(names, range(settings.partitions)))
        values = [os.urandom(1_000) for _ in range(count)]
        writer.begin([OutgoingRecord(*next(places), b"k", value, []) for value in values])
        writer.commit(offsets, group)
        return values

    expected = []
    for _ in range(20):
        expected += write(accepted, 12)
        with pytest.raises(TransactionFailed):
            write(refused, 1_000)
        expected += write(accepted, 1_000)
    consumer.close()
    writer.close()
    found = [record.value for name in names for record in read_topic(settings, name)]
    assert sorted(expected) == sorted(value or b"" for value in found)


def test_forced_compaction_leaves_what_a_restored_processor_needs(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    commands = list(workload())
    with CommandClient(settings) as client:
        with RoleProcess("processors", env, tmp_path / "first.log") as first:
            send_all(client, commands)
            before = drained(settings, commands)
            assert first.stop() == 0
        for name in ("inventory", "order"):
            compact(settings, topics_of(settings).events(name))
        shutil.rmtree(tmp_path / "home")
        with RoleProcess("processors", env, tmp_path / "second.log"):
            for each in commands[:40]:
                outcome = client.execute(each)
                identity = each.aggregate, each.aggregate_id, each.command_id
                assert outcome == before.outcomes[identity]
            for sku, (version, _) in before.states["inventory"].items():
                received = client.execute(command(sku, "ReceiveStock", quantity=1))
                assert received.version == version + 1
        check_log(settings)
