"""The command processor as a process on a real broker: outcomes, idempotency, refusals, restarts."""

import asyncio
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from runtime import kafka, topic_admin
from runtime.client import AsyncCommandClient, CommandClient, CommandTooLarge, OutcomeTimeout
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import TopicState, TopicsUnfit, topics_of
from schemas import headers
from schemas.partitioner import partition_for
from schemas.records import MAX_COMMAND_BYTES, decode_event, decode_outcome
from schemas.rejections import Code
from tests.support.commanding import command, eventually
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess, environment
from tests.support.topics import Record, read_topic


@pytest.fixture(scope="module")
def shared(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, CommandClient]]:
    """One processor and one client for all tests that only send; each uses aggregates of its own."""
    folder = tmp_path_factory.mktemp("processor")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with (
        RoleProcess("processors", env, folder / "processor.log") as process,
        CommandClient(settings) as client,
    ):
        yield settings, client
        assert process.stop() == 0


@pytest.fixture
def settings(shared: tuple[Settings, CommandClient]) -> Settings:
    return shared[0]


@pytest.fixture
def client(shared: tuple[Settings, CommandClient]) -> CommandClient:
    return shared[1]


@pytest.fixture
def own_env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    """For tests that start and stop processors: topics of their own, made here."""
    env = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(env))
    return env


@pytest.fixture
def own_settings(own_env: dict[str, str]) -> Settings:
    return Settings.model_validate(own_env)


@pytest.fixture
def a() -> str:
    """An aggregate id that no other test uses."""
    return uuid.uuid4().hex


def raw(settings: Settings, aggregate: str, key: bytes | None, value: bytes | None) -> None:
    """A record as any producer could write it, on the partition that Kafka's clients would choose."""
    producer = Producer(kafka.producer(settings))
    partition = partition_for(key or b"", settings.partitions)
    producer.produce(topics_of(settings).commands(aggregate), value, key, partition)
    assert producer.flush(10) == 0


def found(settings: Settings, topic: str, aggregate_id: str) -> list[Record]:
    """The records of one aggregate on a topic."""
    prefix = aggregate_id.encode()
    return [r for r in read_topic(settings, topic) if (r.key or b"").startswith(prefix)]


def dead_letters(settings: Settings, value: bytes | None) -> list[Record]:
    """The dead letters with these very bytes."""
    letters = read_topic(settings, topics_of(settings).dead_letters)
    return [letter for letter in letters if letter.value == value]


def test_a_command_is_accepted_with_its_new_version_and_another_refused_with_a_reason(
    client: CommandClient, settings: Settings, a: str
) -> None:
    item = client.execute(command(a, "RegisterItem", description="mug", opening_stock=5))
    reserved = client.execute(command(a, "ReserveStock", reservation_id="o1", quantity=3))
    refused = client.execute(command(a, "ReserveStock", reservation_id="o2", quantity=3))
    assert (item.accepted, item.version) == (True, 2)
    assert (reserved.accepted, reserved.version) == (True, 3)
    assert (refused.accepted, refused.version) == (False, 3)
    assert (refused.code, refused.field) == (Code.INSUFFICIENT_STOCK, "quantity")
    assert check_log(settings).reservations[a] == {"o1": 3}


def test_a_repeated_command_gets_the_first_outcome_and_changes_nothing(
    client: CommandClient, settings: Settings, a: str
) -> None:
    client.execute(command(a, "RegisterItem", description="mug", opening_stock=5))
    receive = command(a, "ReceiveStock", command_id="r", quantity=3)
    first = client.execute(receive)
    assert client.execute(receive) == first
    same_meaning = replace(receive, data=b'{ "quantity" : 3, "reference": null }')
    assert client.execute(same_meaning) == first
    assert check_log(settings).states["inventory"][a][0] == first.version


def test_a_command_id_with_another_payload_is_refused_and_kept_as_a_dead_letter(
    client: CommandClient, settings: Settings, a: str
) -> None:
    client.execute(command(a, "RegisterItem", description="mug"))
    first = client.execute(command(a, "ReceiveStock", command_id=f"r-{a}", quantity=3))
    other = command(a, "ReceiveStock", command_id=f"r-{a}", quantity=4)
    refused = client.execute(other)
    assert (refused.accepted, refused.code) == (False, Code.COMMAND_ID_REUSED)
    assert client.execute(replace(other, data=b'{"quantity":3}')) == first
    (letter,) = dead_letters(settings, other.value())
    assert letter.headers[headers.ERROR_CODE] == b"command_id_reused"
    check_log(settings)


@pytest.mark.parametrize("forget", [False, True], ids=["local state kept", "local state lost"])
def test_state_and_idempotency_survive_a_restart(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path, forget: bool
) -> None:
    with (
        CommandClient(own_settings) as client,
        RoleProcess("processors", own_env, tmp_path / "first.log") as first,
    ):
        client.execute(command("A", "RegisterItem", description="mug", opening_stock=5))
        reserve = command("A", "ReserveStock", reservation_id="o1", quantity=3)
        before = client.execute(reserve)
        assert first.stop() == 0
        if forget:
            shutil.rmtree(tmp_path / "home")
        with RoleProcess("processors", own_env, tmp_path / "second.log"):
            assert client.execute(reserve) == before
            over = client.execute(command("A", "ReserveStock", reservation_id="o2", quantity=3))
            commit = client.execute(command("A", "CommitReservation", reservation_id="o1"))
            assert over.code is Code.INSUFFICIENT_STOCK
            assert (commit.accepted, commit.version) == (True, before.version + 1)
    check_log(own_settings)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b'{"type":"Fly","command_id":"c","data":{}}', Code.UNKNOWN_TYPE),
        (
            b'{"type":"RegisterUser","command_id":"c","schema_version":2,"data":{"name":"a"}}',
            Code.UNSUPPORTED_SCHEMA_VERSION,
        ),
        (b'{"type":"RegisterUser","command_id":"c","data":{"nome":"a"}}', Code.INVALID_DATA),
        (b'{"type":"RegisterUser","command_id":"c","data":{"name":7}}', Code.INVALID_DATA),
        (b'{"type":7,"command_id":"c"}', Code.MALFORMED),
        (
            b'{"type":"RegisterUser","command_id":"c","data":{"name":"%s"}}'
            % (b"a" * MAX_COMMAND_BYTES),
            Code.TOO_LARGE,
        ),
        (
            b'{"type":"RegisterUser","command_id":"c","expected_version":3,"data":{"name":"a"}}',
            Code.VERSION_CONFLICT,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Code) else "",
)
def test_bad_input_gets_an_outcome_and_the_partition_moves_on(
    client: CommandClient, settings: Settings, a: str, value: bytes, code: Code
) -> None:
    raw(settings, "user", a.encode(), value)
    after = client.execute(command(a, "RegisterUser", name="Ada"))
    assert (after.accepted, after.version) == (True, 1)
    assert check_log(settings).outcomes["user", a, "c"].code is code


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (b"ada", b"\x00\xff\xfe not json", Code.MALFORMED),
        (b"ada", None, Code.MALFORMED),
        (b"ada", b'{"type":"RegisterUser","data":{}}', Code.MALFORMED),
        (b"ada", b'{"type":"RegisterUser","command_id":"a/b","data":{}}', Code.INVALID_COMMAND_ID),
        (None, b'{"type":"RegisterUser","command_id":"c","data":{}}', Code.INVALID_KEY),
        (b"\xff", b'{"type":"RegisterUser","command_id":"c1","data":{}}', Code.INVALID_KEY),
        (b"a/b", b'{"type":"RegisterUser","command_id":"c2","data":{}}', Code.INVALID_KEY),
    ],
)
def test_what_cannot_be_answered_becomes_a_dead_letter_with_its_bytes(
    shared: tuple[Settings, CommandClient], key: bytes | None, value: bytes | None, code: Code
) -> None:
    settings, client = shared
    raw(settings, "user", key, value)
    assert client.execute(command(uuid.uuid4().hex, "RegisterUser", name="Ada")).accepted
    eventually(lambda: dead_letters(settings, value))
    (letter,) = dead_letters(settings, value)
    assert letter.key == key
    assert letter.headers[headers.ERROR_CODE] == code.encode()
    assert letter.headers[headers.ERROR_TOPIC] == topics_of(settings).commands("user").encode()


def test_a_command_on_the_wrong_partition_is_refused_with_the_remedy(
    client: CommandClient, settings: Settings, a: str
) -> None:
    producer = Producer(kafka.producer(settings))
    wrong = 1 - partition_for(a.encode(), settings.partitions)
    value = b'{"type":"RegisterUser","command_id":"c","data":{"name":"Ada"}}'
    producer.produce(topics_of(settings).commands("user"), value, a.encode(), wrong)
    producer.flush(10)
    topic = topics_of(settings).outcomes("user")
    eventually(lambda: found(settings, topic, a))
    outcome = decode_outcome(found(settings, topic, a)[0].value or b"")
    assert outcome.code is Code.WRONG_PARTITION
    assert "murmur2_random" in (outcome.message or "")
    again = client.execute(command(a, "RegisterUser", command_id="c2", name="Ada"))
    assert again.accepted


def test_conversation_and_trace_are_passed_on_to_events_and_outcomes(
    client: CommandClient, settings: Settings, a: str
) -> None:
    register = replace(command(a, "RegisterUser", name="Ada"), correlation_id="checkout-7")
    client.execute(register)
    topics = topics_of(settings)
    for topic in (topics.events("user"), topics.history("user"), topics.outcomes("user")):
        (record,) = found(settings, topic, a)
        assert record.headers[headers.CORRELATION_ID] == b"checkout-7"
        assert record.headers[headers.CAUSATION_ID] == register.command_id.encode()


def test_what_happened_before_it_was_sent_keeps_its_own_time(
    client: CommandClient, settings: Settings, a: str
) -> None:
    in_2010 = 1_291_191_960_000
    outcome = client.execute(replace(command(a, "RegisterUser", name="x"), occurred_at_ms=in_2010))
    assert outcome.decided_at_ms == in_2010
    (record,) = found(settings, topics_of(settings).events("user"), a)
    assert decode_event(record.value or b"").occurred_at_ms == in_2010


def test_only_commands_whose_sender_waits_make_replies(
    client: CommandClient, settings: Settings, a: str
) -> None:
    client.send(command(f"{a}1", "RegisterUser", name="x"))
    client.execute(command(f"{a}2", "RegisterUser", name="x"))
    replies = read_topic(settings, topics_of(settings).replies)
    mine = [reply.key for reply in replies if a.encode() in (reply.key or b"")]
    assert [(key or b"").split(b"/")[1] for key in mine] == [f"{a}2".encode()]


def test_waiting_ends_with_a_clear_timeout_and_asking_again_gets_the_outcome(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    register = command("ada", "RegisterUser", name="Ada")
    with CommandClient(own_settings) as client:
        with pytest.raises(OutcomeTimeout, match=register.command_id):
            client.execute(register, timeout=0.5)
        with RoleProcess("processors", own_env, tmp_path / "late.log"):
            assert client.execute(register).version == 1
    assert len(check_log(own_settings).outcomes) == 1


def test_a_command_that_no_processor_would_take_is_refused_before_it_is_sent(
    settings: Settings,
) -> None:
    with CommandClient(settings) as client, pytest.raises(CommandTooLarge):
        client.send(command("ada", "RegisterUser", name="a" * MAX_COMMAND_BYTES))


async def _register_many(settings: Settings, users: list[str]) -> list[int]:
    async with AsyncCommandClient(settings) as client:
        outcomes = await asyncio.gather(
            *(client.execute(command(user, "RegisterUser", name=user)) for user in users)
        )
    return [outcome.version for outcome in outcomes]


def test_asyncio_clients_wait_for_many_commands_at_once(settings: Settings, a: str) -> None:
    users = [f"{a}-{number}" for number in range(200)]
    assert asyncio.run(_register_many(settings, users)) == [1] * 200


def test_another_partition_count_is_refused_with_the_way_out(
    own_env: dict[str, str], tmp_path: Path
) -> None:
    other = {**own_env, "ORDERFLOW_PARTITIONS": "3"}
    with RoleProcess("processors", other, tmp_path / "refused.log") as process:
        assert process.wait() == 1
        assert "ORDERFLOW_PARTITIONS says 3 partitions" in process.text()
    with pytest.raises(TopicsUnfit, match="never changed in place"):
        topic_admin.apply(Settings.model_validate(other))


def test_topics_are_made_when_the_broker_knows_them_and_not_before(
    servers: ServersAddress, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller answers first; here as late as on a busy broker."""
    asked: list[int] = []

    class Late(AdminClient):
        def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
            found: ClusterMetadata = super().list_topics(timeout=timeout)
            asked.append(len(found.topics))
            if len(asked) < 4:
                found.topics = {}
            return found

    monkeypatch.setattr(topic_admin, "AdminClient", Late)
    topic_admin.apply(Settings.model_validate(environment(servers, prefix, tmp_path)))
    assert len(asked) == 4


def test_a_topic_option_that_was_changed_is_shown_and_set_back(settings: Settings) -> None:
    name = topics_of(settings).history("order")
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient(kafka.admin(settings))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()

    def differing() -> list[tuple[str, TopicState]]:
        return [(d.name, d.state) for d in topic_admin.diff(settings) if d.state != TopicState.OK]

    eventually(lambda: differing() == [(name, TopicState.CONFIG_DIFFERS)])
    topic_admin.apply(settings)
    eventually(lambda: differing() == [])


def test_an_aggregate_can_have_processes_of_its_own(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    of_users = "commands", "user"
    of_others = "commands", "inventory", "order"
    with (
        CommandClient(own_settings) as client,
        RoleProcess("processors", own_env, tmp_path / "users.log", *of_users) as users,
    ):
        assert client.execute(command("ada", "RegisterUser", name="Ada"), 30).accepted
        item = client.submit(command("mug", "RegisterItem", description="mug"))
        assert client.execute(command("bob", "RegisterUser", name="Bob"), 30).accepted
        assert not item.done()  # nobody is there for it yet
        with RoleProcess("processors", own_env, tmp_path / "others.log", *of_others) as others:
            assert item.result(30).accepted
            assert client.execute(command("eve", "RegisterUser", name="Eve"), 30).accepted
            assert "user.commands" not in others.text()
            assert "inventory.commands" not in users.text()


def test_an_aggregate_that_there_is_not_has_no_processor(
    own_env: dict[str, str], tmp_path: Path
) -> None:
    with RoleProcess("processors", own_env, tmp_path / "none.log", "commands", "ordr") as none:
        assert none.wait() != 0
        assert "there is no aggregate ordr; there are user, inventory" in none.text()
