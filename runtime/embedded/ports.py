"""Free TCP ports on the loopback address.

Ports are taken from below the range that the kernel hands to outgoing connections. Inside that
range a client that keeps reconnecting to a dead server can connect to itself and so occupy the
server's port, and the server could not come back on it.
"""

from __future__ import annotations

import random
import socket

from runtime.embedded.errors import EmbeddedServerError

LOOPBACK = "127.0.0.1"

FIRST_PORT = 20_000  # above the usual well-known services, Kafka's 9092 and Redis' 6379 among them
LAST_PORT = 31_999  # below 32768 (Linux) and 49152 (macOS), where outgoing connections begin
ATTEMPTS = 200  # a machine on which 200 random ports are all taken has another problem

_random = (
    random.SystemRandom()
)  # not the seedable one: two test processes would pick the same ports


def is_free(port: int) -> bool:
    """True if a server could bind this loopback port now; by the time it does, it may be taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do, or a port just left in TIME_WAIT would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port that is free now.

    Raises EmbeddedServerError when none was found.
    """
    for _ in range(ATTEMPTS):
        port = _random.randint(FIRST_PORT, LAST_PORT)
        if is_free(port):
            return port
    raise EmbeddedServerError(
        f"No free port between {FIRST_PORT} and {LAST_PORT} on {LOOPBACK}. "
        "Stop servers that are no longer needed and try again."
    )


def accepts_connections(port: int, within_s: float) -> bool:
    """True if something listens on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=within_s):
            return True
    except OSError:
        return False


def parse_port(address: str) -> int:
    """The port of `host:port`, as in `bootstrap_servers`.

    Raises ValueError for anything else.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"not a host:port address: {address!r}")
    return int(port)
