"""Logs of the Kafka clients: that a broker is away is said once, and once that it is back.

Every client writes a line for each attempt to connect, some dozens a second. Here the lines of librdkafka go
through Python's logging, and a broker that cannot be reached becomes one outage for all clients of the
process. While there is one, a thread tries to connect each second; without one nothing runs.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from runtime.condition import NO_REPETITION

LIBRDKAFKA: Final = "librdkafka"

PROBE_EVERY_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 3.0

QUIET_S: Final = 2.0
"""No client may complain for so long before a broker counts as back."""

RELAPSE_S: Final = 60.0
"""A broker that is away again within this time has to be quiet for twice as long, up to this time."""

Address = tuple[str, int]

_FAILED: Final = re.compile(
    r"^(?:FAIL|ERROR) .*?: (?:[a-z_]+://)?(?P<host>[^\s/]+):(?P<port>\d+)/(?:bootstrap|-?\d+): (?P<why>.*)"
)
"""A line of librdkafka about one broker, e.g. `FAIL [consumer-1] [thrd:h:9092/1]: h:9092/1: Connect to …`."""

_NO_CONNECTION: Final = re.compile(r"Connect call failed \('(?P<host>[^']+)', (?P<port>\d+)[^)]*\)")
"""A line of aiokafka."""

_NOT_CONNECTED: Final = ("Connect", "Disconnected")
"""How the reasons begin that a new connection disproves."""

_TIMING: Final = re.compile(r" \(after \d+ms in state [^)]*\)")

logger = logging.getLogger(__name__)


def log_options() -> dict[str, Any]:
    """Options with which a client's lines come to Python's logging, whenever the client is polled."""
    return {"logger": logging.getLogger(LIBRDKAFKA)}


class _Broker:
    """One address: since when and why it is away, when a line said so last, what it takes to be back."""

    def __init__(self) -> None:
        self.away_since: float | None = None
        self.why = ""
        self.said = False
        self._failed_at = 0.0
        self._back_at: float | None = None
        self._quiet_s = QUIET_S

    def failed(self, why: str, now: float) -> None:
        """Note a line about it."""
        self._failed_at = now
        if self.away_since is None:
            self.away_since, self.why, self.said = now, why, False

    def begins(self, now: float) -> None:
        """Note that the outage is told."""
        self.said = True
        relapse = self._back_at is not None and now - self._back_at < RELAPSE_S
        # It accepts connections, but no client gets anywhere: do not say so every few seconds.
        self._quiet_s = min(2 * self._quiet_s, RELAPSE_S) if relapse else QUIET_S

    def settles(self, now: float) -> bool:
        """True if no client complained for long enough."""
        return now - self._failed_at >= self._quiet_s

    def ends(self, now: float) -> float:
        """Note that the outage is over; returns how long it was."""
        gone_s = now - (self.away_since or now)
        self.away_since = None
        if self.said:
            self._back_at = now
        return gone_s


class BrokerOutages(logging.Filter):
    """Takes lines about a broker that cannot be reached out of a log, and tells each outage itself."""

    def __init__(self, reachable: Callable[[Address], bool]) -> None:
        super().__init__()
        self._reachable = reachable
        self._lock = threading.Lock()
        self._brokers: dict[Address, _Broker] = {}
        self._prober: threading.Thread | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that is part of an outage."""
        found = broker_in(record.getMessage()) if record.levelno >= logging.WARNING else None
        if found is None:
            return True
        address, why = found
        with self._lock:
            self._brokers.setdefault(address, _Broker()).failed(why, time.monotonic())
            if self._prober is None or not self._prober.is_alive():
                self._prober = threading.Thread(
                    target=self._probe, name="kafka-outage", daemon=True
                )
                self._prober.start()
        return False

    def _probe(self) -> None:
        """Until every broker is back. It ends while the lock is held, so that no outage is overlooked."""
        while True:
            with self._lock:
                away = {
                    at: broker
                    for at, broker in self._brokers.items()
                    if broker.away_since is not None
                }
                if not away:
                    self._prober = None
                    return
            for address, broker in away.items():
                self._look(address, broker)
            time.sleep(PROBE_EVERY_S)

    def _look(self, address: Address, broker: _Broker) -> None:
        now = time.monotonic()
        if not broker.said:
            # A client that was not polled during an outage brings its lines when all is over.
            if broker.why.startswith(_NOT_CONNECTED) and self._reachable(address):
                with self._lock:
                    broker.ends(now)
                return
            broker.begins(now)
            text = "Kafka broker %s:%d is away: %s; trying until it is back"
            self._say(text, *address, broker.why)
        elif broker.settles(now) and self._reachable(address):
            with self._lock:
                gone_s = broker.ends(now)
            self._say("Kafka broker %s:%d is back after %.0f s", *address, gone_s)

    def _say(self, text: str, *arguments: object) -> None:
        logger.warning(text, *arguments, extra=NO_REPETITION)


def broker_in(text: str) -> tuple[Address, str] | None:
    """The broker that a client's line says it could not reach, and why; None for any other line."""
    if found := _FAILED.search(text):
        return (found["host"].strip("[]"), int(found["port"])), _TIMING.sub("", found["why"])
    if found := _NO_CONNECTION.search(text):
        return (found["host"], int(found["port"])), found[0]
    return None


def accepts(address: Address) -> bool:
    """True if something accepts connections at this address."""
    try:
        with socket.create_connection(address, PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


_outages: Final = BrokerOutages(accepts)
for _name in (LIBRDKAFKA, "aiokafka"):
    logging.getLogger(_name).addFilter(_outages)
