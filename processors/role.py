"""A processor as a role of a deployment: signals in, exit code out."""

import gc
import logging
import signal
from types import FrameType

from confluent_kafka import KafkaException

from processors.loop import Processor, Work
from processors.partitions import OffsetsLost
from processors.reactor import Reactor
from processors.restore import RestoreStalled
from processors.slot import NoFreeSlot
from runtime import watchdog
from runtime.kafka import KafkaNotConfigured
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit

logger = logging.getLogger(__name__)


def run_processor(settings: Settings, work: Work) -> int:
    """Runs one kind of processor until SIGTERM or SIGINT; returns the exit code. Main thread only."""
    _collect_rarely()
    return _run(settings, Processor(settings, work))


def run_reactor(settings: Settings) -> int:
    """The same for a reactor."""
    return _run(settings, Reactor(settings))


def _run(settings: Settings, processor: Processor | Reactor) -> int:
    begin_role(settings)

    def stop(_: int, __: FrameType | None) -> None:
        processor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        with watchdog.Watchdog(processor.role):
            processor.run()
    except (
        KafkaException,
        KafkaNotConfigured,
        NoFreeSlot,
        OffsetsLost,
        RestoreStalled,
        TopicsUnfit,
    ) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED
    return EXIT_OK


def _collect_rarely() -> None:
    """Nothing that a decision makes is in a cycle, so all of it goes with its last reference. To look
    for cycles as often as Python does by default costs a tenth of the time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
