"""A receiver of webhooks that behaves as a test wants, badly above all: a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request as it came; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def event(self) -> tuple[str, int]:
        """Aggregate id and version."""
        data = self.json["data"]
        return data["id"], data["version"]

    def verify(self, secret: str) -> Any:
        """The body, if the secret signed it. Raises WebhookVerificationError otherwise."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(frozen=True)
class Answer:
    """A status with headers; ``cut``: the body is shorter than announced, then the connection closes;
    ``raw``: these bytes instead of HTTP; ``after_s``: it takes so long; ``trickle_s``: the body takes so
    long, byte by byte.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    raw: bytes | None = None
    after_s: float = 0.0
    trickle_s: float = 0.0


OK = Answer()
Behaviour = Callable[[Received], Answer]


class Receiver:
    """Runs from the start on; ``behave`` can be exchanged at any time."""

    def __init__(self, behave: Behaviour = lambda _: OK) -> None:
        self.behave = behave
        self.received: list[Received] = []
        self.answered: list[tuple[Received, Answer]] = []
        """What was answered with a status, in the order of the answers."""
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # who asked may end the connection when it likes

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    def taken(self) -> list[Received]:
        """What was answered with 2xx."""
        with self._lock:
            return [request for request, answer in self.answered if 200 <= answer.status < 300]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Received(handler.path, headers, handler.rfile.read(length), time.monotonic())
        with self._lock:
            self.received.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.behave(request)
            time.sleep(answer.after_s)
            if answer.raw is None:
                with self._lock:
                    self.answered.append((request, answer))
            _write(handler, answer)
        except OSError:
            handler.close_connection = True  # who asked has given up
        finally:
            with self._lock:
                self.at_once -= 1


def _write(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    if answer.raw is not None:
        handler.wfile.write(answer.raw)
        handler.close_connection = True
        return
    body = b"x" * 20
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.flush()
    if answer.cut:
        handler.wfile.write(body[:5])
        handler.close_connection = True
        return
    for byte in body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(answer.trickle_s / len(body))


def by_attempt(*answers: Answer) -> Behaviour:
    """For each message these answers one after the other; the last one from then on."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def behave(request: Received) -> Answer:
        with lock:
            number = seen.get(request.id, 0)
            seen[request.id] = number + 1
        return answers[min(number, len(answers) - 1)]

    return behave
