"""`orderflow doctor`: what was found, what is missing, and how to mend it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import redis
from confluent_kafka import KafkaException

from eventstore.index import ASIDE_KEPT, aside
from orderflow.cli.context import settings as read_settings
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import Output, OutputOption, Styled, answers, print_json, table
from orderflow.dead_letters import Desk
from orderflow.lag import LagMeter
from orderflow.servers import ServersNotFound, check_kafka, check_redis, located, wants_embedded
from runtime import hanging, topic_admin
from runtime.embedded import EmbeddedServerError
from runtime.embedded.jars import LOCK_FILE, cache_folder, parse_lock
from runtime.embedded.java import find_java
from runtime.embedded.redis import find_redis_server
from runtime.private_files import others_can_read
from runtime.redis import EVICTION_REMEDY, RedisHealth, new_line, redis_health
from runtime.settings import Settings
from runtime.topic_admin import TopicState
from schemas.webhook import WebhookStatus
from webhooks import reading

LOOK_FOR_S = 4.0
ENOUGH_DISK = 2 * 1024**3
MEMORY_SHORT = 0.8
"""Share of its limit from which on Redis' memory is worth a word."""
EVICTION = "redis eviction"


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
    """Say what was found and what is missing; exit code 3: Kafka or Redis, 5: topics or eviction."""
    settings = read_settings()
    findings = list(_examine(settings))
    if output is Output.JSON:
        print_json(findings)
    else:
        colours = {Mark.OK: "green", Mark.NOTE: "yellow", Mark.BAD: "bold red"}
        rows = ((f.what, Styled(f.mark, colours[f.mark]), f.found, f.remedy) for f in findings)
        columns = ("what", "", "found", "how to mend it")
        answers().show(table("What was found", columns, rows))
    bad = {finding.what for finding in findings if finding.mark is Mark.BAD}
    if bad - {"topics", EVICTION}:
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
    if redis_found.mark is Mark.OK:
        yield from _redis_health(found)
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
        yield from _histories(found)


def _home(home: Path) -> Finding:
    place = home.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{home}, {free / 1024**3:.1f} GiB free"
    if home.exists() and others_can_read(home):
        remedy = f"`chmod 700 {home}`: it holds names, addresses and keys."
        return Finding("home", Mark.NOTE, f"{text}, others can read it", remedy)
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


def _redis_health(settings: Settings) -> Iterator[Finding]:
    """Whether it keeps what it is given; of a cluster, each master."""
    with closing(new_line(settings)) as line:
        servers = redis_health(line)
    evicting = sorted({server.policy for server in servers if server.evicts})
    if evicting:
        yield Finding(EVICTION, Mark.BAD, ", ".join(evicting), EVICTION_REMEDY)
    else:
        policies = sorted({server.policy or "not said" for server in servers})
        yield Finding(EVICTION, Mark.OK, ", ".join(policies))
    yield _redis_memory(servers)
    yield _redis_persistence(servers)


def _redis_memory(servers: Sequence[RedisHealth]) -> Finding:
    """Of several, the one that is nearest to its limit. Without eviction, writes fail at the limit."""
    fullest = max(servers, key=lambda server: server.used / server.limit if server.limit else 0)
    used = f"{fullest.used / 1024**2:,.1f} MiB used"
    if not fullest.limit:
        return Finding("redis memory", Mark.OK, f"{used}, no limit")
    text = f"{used} of {fullest.limit / 1024**2:,.1f} MiB"
    if fullest.used < MEMORY_SHORT * fullest.limit:
        return Finding("redis memory", Mark.OK, text)
    remedy = "Raise maxmemory: at the limit the projector waits, and views fall behind."
    return Finding("redis memory", Mark.NOTE, text, remedy)


def _redis_persistence(servers: Sequence[RedisHealth]) -> Finding:
    if any(server.writes_fail for server in servers):
        remedy = "Look at Redis' log and its disk: the last write to it failed."
        return Finding("redis persistence", Mark.NOTE, "writing to disk fails", remedy)
    if not all(server.append_only for server in servers):
        remedy = (
            "`redis-cli CONFIG SET appendonly yes`; without it a restarted Redis is older or empty, and"
            " the views are read again from Kafka."
        )
        return Finding("redis persistence", Mark.NOTE, "no append-only file", remedy)
    return Finding("redis persistence", Mark.OK, "append-only file")


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


def _histories(settings: Settings) -> Iterator[Finding]:
    """Nothing where all is well. Only processors write histories, so a stranger has found a way in."""
    found = len(aside(settings))
    if found:
        most = "at least " if found == ASIDE_KEPT else ""
        text = (
            f"{most}{found:,} records are no event of a stream; `orderflow history` leaves them out"
        )
        remedy = "The indexer's log says where they are. Let only processors write to `*.history`."
        yield Finding("histories", Mark.NOTE, text, remedy)


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
