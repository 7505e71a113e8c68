"""A receiver of webhooks: verifies each, takes each once, and answers at once.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 8801

Needs nothing of this repository but the package `standardwebhooks`, which there is for a dozen languages.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY = 8 * 1024 * 1024
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
taken: set[str] = (
    set()
)  # in earnest: a table, written in one transaction with what follows from the event


class Receiver(BaseHTTPRequestHandler):
    """Everything that is posted to it is a webhook."""

    def do_POST(self) -> None:
        """Answers 204 for what it took, now or before; 400 for what nobody signed."""
        length = int(self.headers.get("content-length", 0))
        if length > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)  # as it came: other bytes have another signature
        try:
            webhook.verify(body, dict(self.headers.items()))  # the age, too: five minutes at most
        except WebhookVerificationError as error:
            print(f"refused: {error}", flush=True)
            return self.answer(400)
        message_id = self.headers["webhook-id"]
        if message_id not in taken:
            taken.add(message_id)
            self.handle_event(json.loads(body))
        else:
            print(f"again: {message_id}", flush=True)
        return self.answer(204)

    def handle_event(self, message: dict[str, object]) -> None:
        """What your system does. Whatever takes long belongs into a queue: the sender waits 15 seconds."""
        data = message["data"]
        assert isinstance(data, dict)
        print(f"{message['type']}: {data['id']}, version {data['version']}", flush=True)

    def answer(self, status: int) -> None:
        """A status says all there is to say."""
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints what was taken, not every request."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
