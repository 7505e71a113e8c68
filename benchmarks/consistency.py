"""From a command's sending until three other systems have it: a view in Redis (events), a row in SQLite
(polling) and an HTTP endpoint (webhook); all three follow the same commands at the same time.

``python -m benchmarks.consistency``, on servers of its own.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.latency import register
from benchmarks.roles import running
from benchmarks.summary import percentiles
from commands.webhook import CreateWebhook
from orderflow.commanding import outgoing
from readmodels import Queries
from readmodels.views import USERS
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedServers
from runtime.settings import Settings

COMMANDS = 300
PER_SECOND = 20
INTERVAL_S = 0.2
LOOK_EVERY_S = 0.002
WITHIN_S = 120.0

Times = dict[str, float]
"""User id → when it was seen."""


@contextmanager
def receiver(seen: Times) -> Iterator[str]:
    """An endpoint that notes when it was told of whom; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.setdefault(body["data"]["id"], time.perf_counter())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: a line for each request would be the slowest part."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def watch_view(settings: Settings, ids: list[str], seen: Times) -> None:
    """Each user's row in Redis, in the order of sending."""
    with Queries(settings) as queries:
        for one in ids:
            while not queries.wait_for(USERS.name, one, 0, 0):
                time.sleep(LOOK_EVERY_S)
            seen[one] = time.perf_counter()


def watch_table(path: Path, ids: list[str], seen: Times) -> None:
    """The users' table."""
    while not path.exists():
        time.sleep(LOOK_EVERY_S)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        missing = set(ids)
        while missing:
            try:
                found = {row[0] for row in database.execute("SELECT user_id FROM users")}
            except sqlite3.OperationalError:  # the table is not made yet
                found = set()
            now = time.perf_counter()
            for one in missing & found:
                seen[one] = now
            missing -= found
            time.sleep(LOOK_EVERY_S)


def figures(settings: Settings, environment: dict[str, str], folder: Path) -> dict[str, float]:
    """Percentiles for each of the three ways."""
    told: Times = {}
    viewed: Times = {}
    rows: Times = {}
    database = folder / "views.db"
    here = environment | {
        "ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "ORDERFLOW_SYNC_URL": f"sqlite:///{database}",
    }
    sync = ("sync", "sql", "--interval", str(INTERVAL_S))
    with ExitStack() as stack:
        url = stack.enter_context(receiver(told))
        stack.enter_context(running("processors", here, "commands"))
        stack.enter_context(running("readmodels", here))
        stack.enter_context(running("webhooks", here))
        stack.enter_context(running("orderflow", here, *sync))
        client = stack.enter_context(CommandClient(settings))
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        create = CreateWebhook(url=url, event_types=("user.UserRegistered",), secret=secret)
        assert client.execute(outgoing("bench", create), WITHIN_S).accepted
        first = register(0)
        client.execute(first, WITHIN_S)
        _until(lambda: first.aggregate_id in told)
        watch_view(settings, [first.aggregate_id], viewed)
        watch_table(database, [first.aggregate_id], rows)

        commands = [register(number) for number in range(COMMANDS)]
        ids = [command.aggregate_id for command in commands]
        watchers = [
            threading.Thread(target=watch_view, args=(settings, ids, viewed)),
            threading.Thread(target=watch_table, args=(database, ids, rows)),
        ]
        for watcher in watchers:
            watcher.start()
        sent: Times = {}
        began = time.perf_counter()
        for number, command in enumerate(commands):
            time.sleep(max(0.0, began + number / PER_SECOND - time.perf_counter()))
            sent[command.aggregate_id] = time.perf_counter()
            client.submit(command)
        for watcher in watchers:
            watcher.join(WITHIN_S)
        _until(lambda: all(one in told for one in ids))
    ways = {
        "events → Redis": viewed,
        f"polling each {INTERVAL_S} s → SQLite": rows,
        "webhook": told,
    }
    return {
        f"{way}, {name}": value
        for way, seen in ways.items()
        for name, value in percentiles([seen[one] - sent[one] for one in ids]).items()
    }


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)


def main() -> None:
    """Measures and prints JSON."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": servers.address.bootstrap_servers,
            "REDIS_URL": servers.address.redis_url,
            "ORDERFLOW_HOME": folder,
            "ORDERFLOW_LOG_LEVEL": "WARNING",
        }
        os.environ |= environment
        settings = Settings()
        topic_admin.apply(settings)
        json.dump(figures(settings, environment, Path(folder)), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
