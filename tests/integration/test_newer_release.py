"""Beside a newer release, whose messages this one cannot read: nothing is guessed, refused or lost."""

from pathlib import Path

from confluent_kafka import Producer

from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.role import EXIT_REFUSED
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.rejections import Code
from schemas.upcasting import version_of
from schemas.user import UserState
from tests.support import events
from tests.support.commanding import command, eventually
from tests.support.events import EventProducer, Record
from tests.support.processes import RoleProcess, environment
from tests.support.topics import read_topic


def made(servers: ServersAddress, prefix: str, folder: Path) -> tuple[dict[str, str], Settings]:
    env = environment(servers, prefix, folder / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    return env, settings


def test_a_processor_stops_at_a_newer_state_and_leaves_the_command_to_a_newer_processor(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    env, settings = made(servers, prefix, tmp_path)
    topics = topics_of(settings)
    outcomes = topics.outcomes("user")
    with CommandClient(settings) as client:
        with RoleProcess("processors", env, tmp_path / "first.log"):
            client.execute(command("ada", "RegisterUser", name="Ada"))
        state = events.user("ada", 2).value or b""
        unknown = version_of(UserState) + 1
        newer = state.replace(b'"state":', f'"state_version":{unknown},"state":'.encode())
        upgraded = EventProducer(settings)
        upgraded.commit([Record("user", "ada", newer)])
        client.send(command("ada", "DeactivateUser", reason="left"))
        client.flush()
        with RoleProcess("processors", env, tmp_path / "second.log") as processor:
            assert processor.wait() == EXIT_REFUSED
            assert f"version {unknown} of UserState is not known here" in processor.text()
    assert len(read_topic(settings, outcomes)) == 1
    assert not read_topic(settings, topics.dead_letters)

    upgraded.commit([Record("user", "ada", state)])  # as a release writes it that goes back
    with RoleProcess("processors", env, tmp_path / "third.log"):
        eventually(lambda: len(read_topic(settings, outcomes)) == 2)
    assert all(
        b'"accepted"' in (outcome.value or b"") for outcome in read_topic(settings, outcomes)
    )


def test_the_reactor_puts_a_newer_event_into_the_dead_letters_and_goes_on(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    env, settings = made(servers, prefix, tmp_path)
    newer = (
        b'{"type":"SagaStarted","id":"c:0","version":1,"occurred_at_ms":1,"schema_version":2,'
        b'"data":{"whatever":1}}'
    )
    topics = topics_of(settings)
    producer = Producer(kafka.producer(settings))
    producer.produce(topics.history("saga"), key=b"o-1", value=newer, partition=0)
    assert producer.flush(10) == 0
    with RoleProcess("processors", env, tmp_path / "log", "reactor") as reactor:
        eventually(lambda: read_topic(settings, topics.dead_letters))
        assert reactor.running
    (letter,) = read_topic(settings, topics.dead_letters)
    assert letter.value == newer
    assert letter.headers[headers.ERROR_CODE] == Code.UNSUPPORTED_SCHEMA_VERSION.encode()
