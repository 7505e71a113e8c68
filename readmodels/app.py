"""The Faust application: one agent for each events topic, on the transport that reads by batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.serializers import codecs
from faust.types import TP
from faust.types.auth import CredentialsT
from yarl import URL

from readmodels.broker import addresses, aiokafka_options
from readmodels.deadletters import DeadLetters
from readmodels.feed import Feed
from readmodels.positions import TopicPart
from readmodels.transport import Batch, BatchConsumer, BatchTransport
from readmodels.views import View, by_topic
from runtime.redis import is_cluster, new_async_line
from runtime.settings import Settings
from runtime.topic_admin import topics_of

BATCH_RECORDS: Final = 1_000
"""Most records in one batch. More make Redis' answers slower, not the whole faster."""

QUEUED_BATCHES: Final = 64
"""Of all partitions of a topic, waiting for its agent: fewer starve it, more only cost memory."""

BATCHES_AT_ONCE: Final = 8
"""Of one topic: while Redis has those of some partitions, the next ones are decoded."""

COMMIT_INTERVAL_S: Final = 3.0


class _Untouched(codecs.Codec):
    """A batch comes as it is; the feed decodes it, and knows what to do with errors."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, s: Any) -> Any:
        return s


_CODEC: Final = "batch"
codecs.register(_CODEC, _Untouched())


class ConsumerReader:
    """The consumer as the feed sees it (`feed.Reader`)."""

    def __init__(self, consumer: BatchConsumer) -> None:
        self._consumer = consumer

    async def beginnings(self, parts: Iterable[TopicPart]) -> Mapping[TopicPart, int]:
        """The first offset of each partition. Raises KafkaError."""
        found = await self._consumer.earliest_offsets(*(TP(*part) for part in parts))
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def place(self, at: Mapping[TopicPart, int]) -> None:
        """Read on from there."""
        await self._consumer.thread.place(at)

    async def forget(self, parts: Iterable[TopicPart]) -> None:
        """Read nothing of them for now."""
        await self._consumer.thread.forget(parts)

    def epoch(self, part: TopicPart) -> int | None:
        """The epoch whose batches count; None: none do."""
        mark = self._consumer.thread.marks.get(part)
        return mark.epoch if mark else None


def build_feed(settings: Settings, views: Iterable[View], topic_ids: Mapping[str, str]) -> Feed:
    """What the agents work with. Raises KafkaNotConfigured, RedisNotConfigured."""
    topics = topics_of(settings)
    letters = DeadLetters(topics.dead_letters, aiokafka_options(settings))
    return Feed(
        settings.topic_prefix,
        by_topic(topics, list(views)),
        lambda: new_async_line(settings),
        letters,
        topic_ids=topic_ids,
        at_once=BATCHES_AT_ONCE,
        spread=is_cluster(settings),
    )


def build_app(settings: Settings, views: Iterable[View], feed: Feed) -> faust.App:
    """The application, not started. Call it inside the event loop that runs it."""
    datadir = settings.home.absolute() / "projector"
    datadir.mkdir(parents=True, exist_ok=True)
    urls = [URL(f"kafka://{address}") for address in addresses(settings)]
    connection = aiokafka_options(settings)
    app = faust.App(
        f"{settings.topic_prefix}.projector",
        broker=urls,
        broker_credentials=_credentials(connection),
        loop=asyncio.get_running_loop(),
        datadir=str(datadir),
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,  # topics are made on purpose, by `orderflow topics apply`
        topic_disable_leader=True,
        stream_buffer_maxsize=QUEUED_BATCHES,
        stream_wait_empty=False,  # an agent may wait for Redis; what it has in hand is read again
        broker_max_poll_records=BATCH_RECORDS,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_client_id=f"{settings.topic_prefix}-projector",
        worker_redirect_stdouts=False,
    )
    transport = BatchTransport(urls, app, connection=connection, positions=feed)
    app.transport = transport
    for topic in by_topic(topics_of(settings), list(views)):
        _add_agent(app, topic, feed)
    return app


def consumer_of(app: faust.App) -> BatchConsumer:
    """The application's consumer."""
    return cast(BatchConsumer, app.consumer)


def _credentials(connection: Mapping[str, Any]) -> CredentialsT | None:
    """The same connection in Faust's words, for the producer that it starts whether it is used or not."""
    tls = connection.get("ssl_context")
    if "sasl_mechanism" in connection:
        return SASLCredentials(
            mechanism=connection["sasl_mechanism"],
            username=connection["sasl_plain_username"],
            password=connection["sasl_plain_password"],
            ssl_context=tls,
        )
    return None if tls is None else SSLCredentials(tls)


def _add_agent(app: faust.App, topic: str, feed: Feed) -> None:
    channel = app.topic(topic, value_serializer=_CODEC)

    @app.agent(channel, name=f"project-{topic}", concurrency=BATCHES_AT_ONCE)
    async def _project(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            await feed.handle(batch)
