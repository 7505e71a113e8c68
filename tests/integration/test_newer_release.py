"""Beside a newer release, whose messages this one cannot read: nothing is guessed, refused or lost."""

from pathlib import Path

from confluent_kafka import Producer

from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.parking import decode_action
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


def test_a_processor_parks_the_commands_of_a_newer_state_and_leaves_them_to_a_newer_processor(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    env, settings = made(servers, prefix, tmp_path)
    topics = topics_of(settings)

    def outcomes() -> list[bytes]:
        return [r.value or b"" for r in read_topic(settings, topics.outcomes("user"))]

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
        for log in ("second.log", "again.log"):
            with RoleProcess("processors", env, tmp_path / log):
                client.execute(command(f"bob-{log}", "RegisterUser", name="Bob"))
                eventually(lambda: read_topic(settings, topics.dead_letters))
    assert len(outcomes()) == 3
    (letter,) = read_topic(settings, topics.dead_letters)
    assert letter.headers[headers.ERROR_CODE] == Code.UNSUPPORTED_SCHEMA_VERSION.encode()
    assert letter.headers[headers.ERROR_HOLDS_KEY] == b"true"
    said = letter.headers[headers.ERROR_MESSAGE].decode()
    assert f"version {unknown} of UserState is not known here" in said

    upgraded.commit([Record("user", "ada", state)])  # as a release writes it that goes back
    with RoleProcess("processors", env, tmp_path / "third.log"):
        eventually(lambda: len(outcomes()) == 4)
        eventually(lambda: read_topic(settings, topics.audit))
    assert all(b'"accepted"' in outcome for outcome in outcomes())
    (action,) = (decode_action(r.value or b"") for r in read_topic(settings, topics.audit))
    assert (action.action, action.settled, action.offset) == (
        "retry",
        True,
        int(letter.headers[headers.ERROR_OFFSET]),
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
