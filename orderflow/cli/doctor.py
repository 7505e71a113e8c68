"""`orderflow doctor`: what was found, what is missing, and how to mend it."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import redis
from confluent_kafka import KafkaException
from rich.text import Text

from orderflow.cli.context import settings as read_settings
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import Output, OutputOption, answers, print_json, table
from orderflow.dead_letters import Desk
from orderflow.lag import LagMeter
from orderflow.servers import ServersNotFound, check_kafka, check_redis, located, wants_embedded
from runtime import hanging, topic_admin
from runtime.embedded import EmbeddedServerError
from runtime.embedded.jars import LOCK_FILE, cache_folder, parse_lock
from runtime.embedded.java import find_java
from runtime.embedded.redis import find_redis_server
from runtime.settings import Settings
from runtime.topic_admin import TopicState
from schemas.webhook import WebhookStatus
from webhooks import reading

LOOK_FOR_S = 4.0
ENOUGH_DISK = 2 * 1024**3


class Mark(StrEnum):
    """How one thing stands; ``bad`` stops something that the settings ask for."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy`` is empty when nothing has to be done."""

    what: str
    mark: Mark
    found: str
    remedy: str = ""


def doctor(output: OutputOption = Output.TABLE) -> None:
    """Say what was found and what is missing; exit code 3 when Kafka or Redis is, 5 for the topics."""
    settings = read_settings()
    findings = list(_examine(settings))
    if output is Output.JSON:
        print_json(findings)
    else:
        colours = {Mark.OK: "green", Mark.NOTE: "yellow", Mark.BAD: "bold red"}
        rows = ((f.what, Text(f.mark, colours[f.mark]), f.found, f.remedy) for f in findings)
        columns = ("what", "", "found", "how to mend it")
        answers().print(table("What was found", columns, rows))
    bad = {finding.what for finding in findings if finding.mark is Mark.BAD}
    if bad - {"topics"}:
        raise quit_with(Exit.UNREACHABLE)
    if bad:
        raise quit_with(Exit.UNFIT)


def _examine(settings: Settings) -> Iterator[Finding]:
    yield _home(settings.home)
    if wants_embedded(settings):
        yield from _embedded()
    try:
        found = located(settings)
    except ServersNotFound as error:
        yield Finding("servers", Mark.BAD, str(error), "Start them with `orderflow up`.")
        return
    kafka = _kafka(found)
    yield kafka
    redis_found = _redis(found)
    yield redis_found
    if kafka.mark is not Mark.OK:
        return
    topics = _topics(found)
    yield topics
    if topics.mark is Mark.OK:
        yield from _webhooks(found)
        yield _dead_letters(found)
        yield _transactions(found)
    if topics.mark is Mark.OK and redis_found.mark is Mark.OK:
        yield from _lags(found)


def _home(home: Path) -> Finding:
    place = home.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{home}, {free / 1024**3:.1f} GiB free"
    if free < ENOUGH_DISK:
        return Finding("home", Mark.NOTE, text, "Free some space, or set ORDERFLOW_HOME.")
    return Finding("home", Mark.OK, text)


def _embedded() -> Iterator[Finding]:
    """What embedded servers need; only looked at when the environment names no servers."""
    for what, find in (("java", find_java), ("redis server", find_redis_server)):
        try:
            yield Finding(what, Mark.OK, str(find()))
        except EmbeddedServerError as error:
            yield Finding(what, Mark.BAD, "none", str(error))
    jars = parse_lock(LOCK_FILE.read_text())
    folder = cache_folder() / "jars"
    missing = sum(not (folder / jar.file_name).exists() for jar in jars)
    text = f"{len(jars) - missing} of {len(jars)} jars in {folder}"
    if missing:
        remedy = (
            "They are fetched at the first start; before going offline: python -m runtime.embedded"
        )
        yield Finding("kafka broker", Mark.NOTE, text, remedy)
    else:
        yield Finding("kafka broker", Mark.OK, text)


def _kafka(settings: Settings) -> Finding:
    where = settings.kafka_bootstrap_servers or ""
    try:
        brokers = check_kafka(settings, LOOK_FOR_S)
    except KafkaException as error:
        remedy = "Check KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL, and that it is up."
        return Finding("kafka", Mark.BAD, f"{where}: {error.args[0].str()}", remedy)
    return Finding("kafka", Mark.OK, f"{where}, {brokers} broker{'s' if brokers > 1 else ''}")


def _redis(settings: Settings) -> Finding:
    try:
        version = check_redis(settings, LOOK_FOR_S)
    except redis.RedisError as error:
        return Finding("redis", Mark.BAD, str(error), "Check REDIS_URL, and that it is up.")
    return Finding("redis", Mark.OK, f"version {version}")


def _topics(settings: Settings) -> Finding:
    different = [d for d in topic_admin.diff(settings) if d.state is not TopicState.OK]
    if not different:
        return Finding("topics", Mark.OK, f"all there, prefix {settings.topic_prefix}")
    names = ", ".join(f"{d.name} ({d.state})" for d in different[:3])
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    counts = any(d.state is TopicState.PARTITIONS_DIFFER for d in different)
    remedy = "Set ORDERFLOW_PARTITIONS to what is there." if counts else "`orderflow topics apply`"
    return Finding("topics", Mark.BAD, names + more, remedy)


def _webhooks(settings: Settings) -> Iterator[Finding]:
    """Nothing where there are none; those that are paused wait for somebody."""
    statuses = [webhook.state.status for webhook in reading.webhooks(settings).values()]
    there = [status for status in statuses if status is not WebhookStatus.DELETED]
    paused = there.count(WebhookStatus.PAUSED)
    if paused:
        text = f"{paused} of {len(there)} paused"
        yield Finding("webhooks", Mark.NOTE, text, "`orderflow webhooks list` says why")
    elif there:
        yield Finding("webhooks", Mark.OK, f"{len(there)}, all active")


def _dead_letters(settings: Settings) -> Finding:
    """What stands open: nothing is lost, but somebody has to look."""
    found = [letter for letter in Desk(settings).letters() if letter.open]
    if not found:
        return Finding("dead letters", Mark.OK, "none open")
    waiting = sum(letter.waiting for letter in found)
    text = f"{len(found):,} open, {waiting:,} records wait behind them"
    return Finding("dead letters", Mark.NOTE, text, "`orderflow dead-letters list`")


def _transactions(settings: Settings) -> Finding:
    """Takes a moment only where a transaction is open."""
    places = [
        (spec.name, number)
        for spec in topic_admin.topics_of(settings).specs()
        for number in range(spec.partitions)
    ]
    stuck = hanging.stuck(settings, places)
    if not stuck:
        return Finding("transactions", Mark.OK, "none hangs")
    whose = ", ".join(
        f"{one.topic}-{one.partition} at {one.stable_offset} (producer {one.producer_id}, epoch "
        f"{one.producer_epoch}, {one.transactional_id or 'of an unknown transactional id'})"
        for one in hanging.find(settings, stuck)
    )
    text = f"open for longer than any may be: {whose}"
    return Finding("transactions", Mark.BAD, text, "`orderflow topics abort-hanging`")


def _lags(settings: Settings) -> Iterator[Finding]:
    """How far processors and projectors are behind; not bad in itself, but bad if it does not shrink."""
    with closing(LagMeter(settings)) as meter:
        sample = meter.try_measure()
    if sample is None:
        yield Finding("lag", Mark.NOTE, "no figures yet", "Ask again when a processor runs.")
        return
    text = f"{sample.decided:,} decided, {sample.waiting:,} waiting"
    if sample.waiting:
        remedy = "If it does not shrink, start a processor: `orderflow processor`"
        yield Finding("commands", Mark.NOTE, text, remedy)
    else:
        yield Finding("commands", Mark.OK, text)
    behind = {view: lag for view, lag in sample.view_lags.items() if lag}
    if behind:
        text = ", ".join(f"{view} {lag:,} offsets behind" for view, lag in behind.items())
        remedy = "If it does not shrink, start a projector: `orderflow projector`"
        yield Finding("views", Mark.NOTE, text, remedy)
    else:
        yield Finding("views", Mark.OK, "up to date")
