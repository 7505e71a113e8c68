"""The indexer as a role of a deployment: signals in, exit code out. One is enough; more do no harm."""

import logging
import signal
import threading
from contextlib import closing
from types import FrameType

from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from eventstore.index import epoch_key, stem
from eventstore.indexer import Indexer
from eventstore.progress import OnProgress
from runtime.kafka import KafkaNotConfigured
from runtime.redis import is_cluster, new_line
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit
from runtime.watchdog import Watchdog

logger = logging.getLogger(__name__)

_AT_ONCE = 1_000


def run_indexer(settings: Settings, *, rebuild: bool = False) -> int:
    """Runs until SIGTERM or SIGINT and returns the exit code. Call it from the main thread."""
    begin_role(settings)
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        if rebuild:
            remove_index(settings)
        with Watchdog("indexer"), closing(Indexer(settings)) as indexer:
            indexer.run(stopping)
    except (KafkaException, KafkaNotConfigured, RedisError, TopicsUnfit) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED
    return EXIT_OK


def index_once(settings: Settings, *, rebuild: bool, on_progress: OnProgress) -> None:
    """Index what there is now. Raises IndexStalled, KafkaException, RedisError, TopicsUnfit."""
    if rebuild:
        remove_index(settings)
    with closing(Indexer(settings)) as indexer:
        indexer.catch_up(on_progress=on_progress)


def remove_index(settings: Settings) -> None:
    """Throw the index away; it is made anew by whoever reads next. Raises RedisError."""
    prefix = settings.topic_prefix
    with closing(new_line(settings)) as line:
        line.run([("DEL", epoch_key(prefix))])  # from here on what there was belongs to no epoch
        begin = stem(prefix, together=is_cluster(settings))
        for page in line.scan(f"{begin}:*", _AT_ONCE):
            line.run([("UNLINK", key) for key in page])
